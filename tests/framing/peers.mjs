// SPDX-License-Identifier: Apache-2.0
// Servers that tell how they read each request, and a client that sends bytes and gathers what was told.
import { createHash } from 'node:crypto';
import http from 'node:http';
import net from 'node:net';

const SEEN = 'x-seen';

// What identifies a request's framing: method, target in origin form, and the body (a digest when it is long).
function describe(method, url, body) {
  const target = url.replace(/^https?:\/\/[^/?]*/i, '').replace(/^(?=\?|$)/, '/').replace(/\?$/, '');
  const text = body.length <= 1024 ? body.toString('latin1') : createHash('sha256').update(body).digest('hex');
  return Buffer.from(JSON.stringify({ method, target, body: text })).toString('base64');
}

const listening = (server) => new Promise((resolve) => server.listen(0, '127.0.0.1', 1024, () => resolve(server.address().port)));

// Stands behind a proxy, and takes nothing but the plainest form of a request: one Host, at most one Content-Length, no
// Transfer-Encoding, no second spelling of anything. Answers with an empty 200 whose field x-seen says what came; what is
// not plain is kept in `complaints`.
export async function strictServer() {
  const complaints = [], sockets = new Set();
  const take = (s, state) => {
    for (;;) {
      const end = state.got.indexOf('\r\n\r\n');
      if (end < 0) return;
      const [first, ...lines] = state.got.toString('latin1', 0, end).split('\r\n');
      const m = /^([!#$%&'*+.^_`|~0-9A-Za-z-]+) (\/[!-~]*) HTTP\/1\.1$/.exec(first);
      const fields = lines.map((l) => /^([!#$%&'*+.^_`|~0-9A-Za-z-]+): ([\t -~\x80-\xff]*)$/.exec(l));
      const all = (name) => fields.filter((f) => f && f[1].toLowerCase() === name).map((f) => f[2]);
      const length = all('content-length');
      if (!m || fields.includes(null) || all('host').length !== 1 || length.length > 1 || !/^\d*$/.test(length[0] ?? '') ||
        all('transfer-encoding').length || all('connection').length) {
        complaints.push(state.got.toString('latin1', 0, end));
        s.destroy();
        return;
      }
      const n = Number(length[0] ?? 0);
      if (state.got.length < end + 4 + n) return;
      const body = state.got.subarray(end + 4, end + 4 + n);
      state.got = state.got.subarray(end + 4 + n);
      s.write(`HTTP/1.1 200 OK\r\n${SEEN}: ${describe(m[1], m[2], body)}\r\ncontent-length: 0\r\n\r\n`);
    }
  };
  const server = net.createServer((s) => {
    const state = { got: Buffer.alloc(0) };
    sockets.add(s);
    s.on('data', (d) => { state.got = Buffer.concat([state.got, d]); take(s, state); });
    s.on('error', () => {});
    s.on('close', () => sockets.delete(s));
  });
  const port = await listening(server);
  return { port, url: `http://127.0.0.1:${port}`, complaints, close: () => { server.close(); for (const s of sockets) s.destroy(); } };
}

// Node's own server, the same way.
export async function nodeServer() {
  const server = http.createServer({ maxHeaderSize: 256 * 1024, requestTimeout: 0, headersTimeout: 0, keepAliveTimeout: 60000 }, (req, res) => {
    const pieces = [];
    req.on('error', () => {}); // its client left
    req.on('data', (d) => pieces.push(d));
    req.on('end', () => {
      res.writeHead(200, { [SEEN]: describe(req.method, req.url, Buffer.concat(pieces)), 'content-length': 0 }).end();
    });
  });
  server.maxRequestsPerSocket = 0;
  const port = await listening(server);
  return { port, close: () => { server.close(); server.closeAllConnections(); } };
}

// The answers in these bytes: [{ status, seen, close }]; `seen` is null where the proxy answered by itself.
function answersIn(bytes, closed) {
  const answers = [];
  let at = 0;
  while (at < bytes.length) {
    const end = bytes.indexOf('\r\n\r\n', at);
    if (end < 0) break;
    const [first, ...lines] = bytes.toString('latin1', at, end).split('\r\n');
    const status = Number(/^HTTP\/1\.[01] (\d{3})/.exec(first)?.[1]);
    if (!status) { answers.push({ status: 0, seen: null, close: true }); break; } // such as HTTP/0.9's plain text
    const fields = Object.fromEntries(lines.map((l) => [l.slice(0, l.indexOf(':')).toLowerCase(), l.slice(l.indexOf(':') + 1).trim()]));
    at = end + 4;
    if (status < 200) continue;
    const seen = fields[SEEN] ? JSON.parse(Buffer.from(fields[SEEN], 'base64').toString()) : null;
    const close = /close/i.test(fields.connection ?? '');
    if (!seen) { // a body of its own, with a length or up to the end
      const length = fields['content-length'];
      if (length === undefined && !closed) break;
      at = length === undefined ? bytes.length : at + Number(length);
    }
    answers.push({ status, seen, close });
  }
  return answers;
}

// Sends bytes (a latin1 string) on a connection of its own. Resolves when the server closes, `enough` holds, or nothing came
// for quiet ms: { answers, closed }.
export function exchange(port, bytes, { quiet = 100, enough = () => false, from } = {}) {
  return new Promise((resolve) => {
    let got = Buffer.alloc(0), over = false;
    const s = net.connect({ port, host: '127.0.0.1', localAddress: from, noDelay: true });
    const done = (closed) => {
      if (over) return;
      over = true;
      clearTimeout(timer);
      s.resetAndDestroy(); // leaves no port waiting
      resolve({ answers: answersIn(got, closed), closed });
    };
    // What has come while this process stood still is read before it counts as quiet.
    const timer = setTimeout(() => {
      const had = got.length;
      setImmediate(() => setImmediate(() => { if (got.length === had) done(false); else if (!over) timer.refresh(); }));
    }, quiet);
    s.on('connect', () => { timer.refresh(); s.write(Buffer.from(bytes, 'latin1')); });
    s.on('data', (d) => {
      got = got.length ? Buffer.concat([got, d]) : d;
      timer.refresh();
      if (enough(answersIn(got, false))) done(false);
    });
    s.on('end', () => done(true));
    s.on('error', () => done(true));
    s.on('close', () => done(true));
  });
}
