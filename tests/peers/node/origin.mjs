// Node's own HTTP server as the service behind the gateway. Arguments: the port, and the file into which each request
// line goes. Started by python/origin_peer.py, and ended with it.

import { appendFileSync } from 'node:fs';
import { createServer } from 'node:http';

const [port, log] = process.argv.slice(2);
const server = createServer((request, response) => {
  appendFileSync(log, `${request.method} ${request.url}\n`);
  request.resume().on('end', () => response.end('ok'));
});
server.listen(Number(port), '127.0.0.1');
