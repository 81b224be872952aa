// An authorization server that misbehaves on demand (oauth2-mock-server).
//
// Its one argument is JSON: `client: {id, secret}` makes the token endpoint take nothing but HTTP Basic with
// exactly these, not form-decoded. It prints `port N` when it listens. `POST /-/next` takes a list of answers
// for the next token calls, each with any of: `status`, `body` (fields set, null removes one), `replace` (the
// whole body), `text` and `type` (sent instead), `filler` (bytes of one more field), `delay` (ms), `redirect`.
// `GET /-/calls` lists the parameters and headers of the token calls so far.

import { createServer } from 'node:http';
import { setTimeout as pause } from 'node:timers/promises';
import basicAuth from 'basic-auth';
import { OAuth2Issuer, OAuth2Service } from 'oauth2-mock-server';

const options = JSON.parse(process.argv[2] ?? '{}');
const issuer = new OAuth2Issuer();
await issuer.keys.generate('RS256');
const service = new OAuth2Service(issuer);
const calls = [];
const next = [];

service.on('beforeResponse', (response, request) => {
  calls.push({ params: request.body, authorization: request.headers.authorization ?? null });
  const change = request.change ?? {};
  if (change.status) response.statusCode = change.status;
  if (change.replace !== undefined) response.body = change.replace;
  for (const [field, value] of Object.entries(change.body ?? {})) {
    if (value === null) delete response.body[field];
    else response.body[field] = value;
  }
  if (change.filler) response.body.filler = 'x'.repeat(change.filler);
});

async function read(request) {
  const parts = [];
  for await (const part of request) parts.push(part);
  return Buffer.concat(parts).toString();
}

function send(response, status, type, text) {
  response.writeHead(status, { 'content-type': type });
  response.end(text);
}

function isKnown(request) {
  if (!options.client) return true;
  const given = basicAuth(request);
  return given !== undefined && given.name === options.client.id && given.pass === options.client.secret;
}

async function token(request, response) {
  if (!isKnown(request)) {
    return send(response, 401, 'application/json', JSON.stringify({ error: 'invalid_client' }));
  }
  const change = next.shift();
  if (change?.delay) await pause(change.delay);
  if (change?.redirect) {
    response.writeHead(307, { location: change.redirect });
    return response.end();
  }
  if (change?.text !== undefined) {
    return send(response, change.status ?? 200, change.type ?? 'text/html', change.text);
  }
  // The library hands this same object to `beforeResponse`.
  request.change = change;
  return service.requestHandler(request, response);
}

const server = createServer(async (request, response) => {
  const json = (value) => send(response, 200, 'application/json', JSON.stringify(value));
  switch (`${request.method} ${request.url.split('?')[0]}`) {
    case 'POST /-/next':
      next.push(...JSON.parse(await read(request)));
      return json({});
    case 'GET /-/calls':
      return json(calls);
    case 'POST /token':
      return token(request, response);
    default:
      return service.requestHandler(request, response);
  }
});
server.listen(0, '127.0.0.1', () => {
  const { port } = server.address();
  issuer.url = `http://127.0.0.1:${port}`;
  console.log(`port ${port}`);
});

// Whoever started this holds its standard input, and it ends with them.
process.stdin.on('end', () => process.exit(0)).resume();
