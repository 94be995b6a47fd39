// SPDX-License-Identifier: Apache-2.0
// What upstream.c answers, over TLS, in HTTP/2 and 1.1: h2.mjs PORT UPSTREAM_PORT CERT KEY. Some of each kind are
// fetched there once, and go out in turns as one piece; but for streams that stay open. Ends with its input.
import fs from 'node:fs';
import http from 'node:http';
import http2 from 'node:http2';

const [port, behind, cert, key] = process.argv.slice(2);
const KEPT = 64, kept = new Map();
let turn = 0;

function fetched(bench) {
  return new Promise((resolve, reject) => {
    const q = http.request({ port: behind, host: '127.0.0.1', method: 'POST', path: '/', headers: { 'content-length': 2, ...(bench ? { 'x-bench': bench } : {}) } }, (r) => {
      const parts = [];
      r.on('data', (d) => parts.push(d));
      r.on('end', () => resolve({ type: r.headers['content-type'], body: Buffer.concat(parts) }));
    });
    q.on('error', reject);
    q.end('{}');
  });
}

// What stays open is passed on as it comes.
function passOn(bench, res) {
  const q = http.request({ port: behind, host: '127.0.0.1', method: 'POST', path: '/', headers: { 'content-length': 2, 'x-bench': bench } }, (r) => {
    res.writeHead(200, { 'content-type': r.headers['content-type'] });
    r.pipe(res);
  });
  res.on('close', () => q.destroy());
  q.on('error', () => res.destroy());
  q.end('{}');
}

const server = http2.createSecureServer({ cert: fs.readFileSync(cert), key: fs.readFileSync(key), allowHTTP1: true }, async (req, res) => {
  const bench = req.headers['x-bench'] ?? '';
  req.resume();
  if (bench === 'idle') { passOn(bench, res); return; }
  const which = `${turn++ % KEPT} ${bench}`;
  if (!kept.has(which)) kept.set(which, fetched(bench));
  const { type, body } = await kept.get(which);
  const end = () => { res.writeHead(200, bench.startsWith('stream') ? { 'content-type': type } : { 'content-type': type, 'content-length': body.length }); res.end(body); };
  if (req.complete) end(); else req.on('end', end);
});
server.on('sessionError', () => {});
server.listen(Number(port), '127.0.0.1');
process.stdin.on('end', () => process.exit(0)).resume();
