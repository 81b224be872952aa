// A certified authorization server (oidc-provider): PKCE required, refresh tokens rotated and their
// reuse detected, `iss` in callbacks, device flow, pushed authorization requests.
//
// Its one argument is JSON: `clients` as the library takes them; `require_par` refuses what was not pushed,
// `registration` lets applications register with that initial access token. It prints `port N` when it listens.
// `GET /-/stats` counts grants by type, refusals by code and revoked families; `POST /-/expire` forgets every
// access token; `POST /-/forget` forgets every refresh token as well.

import { createServer } from 'node:http';
import { Provider } from 'oidc-provider';

const options = JSON.parse(process.argv[2] ?? '{}');
const stats = { granted: {}, refused: {}, revoked: 0, pushed: 0 };
const stored = new Map();

// The library's own store keeps the last thousand entries, too few for long runs.
class Kept {
  constructor(model) {
    this.model = model;
  }

  key(id) {
    return `${this.model}:${id}`;
  }

  async upsert(id, payload) {
    stored.set(this.key(id), payload);
  }

  async find(id) {
    return stored.get(this.key(id));
  }

  async findBy(field, value) {
    const own = `${this.model}:`;
    for (const [key, payload] of stored) {
      if (key.startsWith(own) && payload[field] === value) return payload;
    }
    return undefined;
  }

  async findByUid(uid) {
    return this.findBy('uid', uid);
  }

  async findByUserCode(userCode) {
    return this.findBy('userCode', userCode);
  }

  async consume(id) {
    stored.get(this.key(id)).consumed = Math.floor(Date.now() / 1000);
  }

  async destroy(id) {
    stored.delete(this.key(id));
  }

  async revokeByGrantId(grantId) {
    for (const [key, payload] of stored) {
      if (payload.grantId === grantId) stored.delete(key);
    }
  }
}

function forget(...models) {
  for (const key of stored.keys()) {
    if (models.some((model) => key.startsWith(`${model}:`))) stored.delete(key);
  }
}

function serve(provider) {
  const listener = provider.callback();
  return (request, response) => {
    const answer = (value) => {
      response.setHeader('content-type', 'application/json');
      response.end(JSON.stringify(value));
    };
    switch (`${request.method} ${request.url}`) {
      case 'GET /-/stats':
        return answer(stats);
      case 'POST /-/expire':
        forget('AccessToken');
        return answer({});
      case 'POST /-/forget':
        forget('AccessToken', 'RefreshToken');
        return answer({});
      default:
        return listener(request, response);
    }
  };
}

const server = createServer();
server.listen(0, '127.0.0.1', () => {
  const { port } = server.address();
  const provider = new Provider(`http://127.0.0.1:${port}`, {
    adapter: Kept,
    clients: options.clients,
    cookies: { keys: ['a key for tests'] },
    pkce: { required: () => true },
    rotateRefreshToken: true,
    issueRefreshToken: async (_context, client) => client.grantTypeAllowed('refresh_token'),
    scopes: ['openid', 'offline_access', 'email', 'api:read', 'api:write'],
    claims: { openid: ['sub'], email: ['email'] },
    findAccount: async (_context, id) => ({
      accountId: id,
      claims: async () => ({ sub: id, email: `${id}@example.com` }),
    }),
    features: {
      devInteractions: { enabled: true },
      deviceFlow: { enabled: true },
      revocation: { enabled: true },
      introspection: { enabled: true },
      clientCredentials: { enabled: true },
      registration: { enabled: options.registration !== undefined, initialAccessToken: options.registration ?? false },
      registrationManagement: { enabled: options.registration !== undefined },
      pushedAuthorizationRequests: {
        enabled: true,
        requirePushedAuthorizationRequests: options.require_par ?? false,
      },
    },
    ttl: {
      AccessToken: () => options.access_ttl ?? 3600,
      RefreshToken: () => 14 * 86400,
      AuthorizationCode: () => 60,
      DeviceCode: () => 600,
      ClientCredentials: () => options.access_ttl ?? 3600,
      Grant: () => 14 * 86400,
      Interaction: () => 3600,
      Session: () => 86400,
      IdToken: () => 3600,
    },
  });
  const count = (of, name) => {
    of[name] = (of[name] ?? 0) + 1;
  };
  provider.on('grant.success', (context) => count(stats.granted, context.oidc.params.grant_type));
  provider.on('grant.error', (_context, error) => count(stats.refused, error.error));
  provider.on('grant.revoked', () => {
    stats.revoked += 1;
  });
  provider.on('pushed_authorization_request.success', () => {
    stats.pushed += 1;
  });
  server.on('request', serve(provider));
  console.log(`port ${port}`);
});

// Whoever started this holds its standard input, and it ends with them.
process.stdin.on('end', () => process.exit(0)).resume();
