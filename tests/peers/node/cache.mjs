// The HTTP cache tests (http-cache-tests): the service they need, and the tests themselves.
//
// It prints `port N` when its service listens. `POST /-/run` with `{base, key}` runs every test that is not for
// browsers through the gateway whose path `base` leads to this service, with `key` as the caller's key, and
// answers, for each test's id, its kind and `true` or what was wrong.

import { createServer } from 'node:http';
import fetch from 'node-fetch';
import handleConfig from 'http-cache-tests/server/handle-config.mjs';
import handleState from 'http-cache-tests/server/handle-state.mjs';
import handleTest from 'http-cache-tests/server/handle-test.mjs';
import { getResults, runTests } from 'http-cache-tests/client/runner.mjs';
import suites from 'http-cache-tests/tests/index.mjs';

const handlers = { config: handleConfig, state: handleState, test: handleTest };

// The service warns on standard output, which is for our port alone.
console.log = () => {};

async function run({ base, key }) {
  const through = (url, init = {}) => {
    const own = [...(init.headers ?? [])].filter(([name]) => name.toLowerCase() !== 'authorization');
    return fetch(url, { ...init, headers: [...own, ['Authorization', `Bearer ${key}`]] });
  };
  await runTests(suites, through, false, base, 120);
  const results = getResults();
  const tests = suites.flatMap((suite) => suite.tests).filter((test) => test.id in results);
  return tests.map(({ id, kind = 'required' }) => [id, kind, results[id]]);
}

async function body(request) {
  const pieces = [];
  for await (const piece of request) pieces.push(piece);
  return JSON.parse(Buffer.concat(pieces));
}

const server = createServer(async (request, response) => {
  const [kind, ...rest] = request.url.slice(1).split('?')[0].split('/');
  if (kind === '-') {
    response.end(JSON.stringify(await run(await body(request))));
  } else if (kind in handlers) {
    handlers[kind](rest, request, response);
  } else {
    response.writeHead(404).end();
  }
});
server.listen(0, '127.0.0.1', () => process.stdout.write(`port ${server.address().port}\n`));
process.stdin.on('end', () => process.exit(0)).resume();
