// SPDX-License-Identifier: Apache-2.0
// What may stand between an edge and a model server: servers that speak HTTP/2, and egress proxies.
import fs from 'node:fs';
import http from 'node:http';
import http2 from 'node:http2';
import https from 'node:https';
import net from 'node:net';

const listen = (s) => new Promise((resolve) => s.listen(0, '127.0.0.1', () => resolve(s.address().port)));
const HOP = /^(:|connection$|keep-alive$|transfer-encoding$|host$|proxy-)/i;

// HTTP/2 (and, with http1, HTTP/1.1 by ALPN) in front of the model server at front.mock. With cert and key over TLS, else
// from the first byte (h2c). It notes what it sees; `behave` may answer a request itself: (req, res, front) => true.
export class Http2Front {
  static async start({ cert, key, http1 = false, settings, behave = () => false } = {}) {
    const f = new Http2Front();
    Object.assign(f, { sessions: 0, open: new Set(), most: 0, heads: [], versions: [], resets: [], names: new Set(), behave, mock: null });
    const options = { settings, allowHTTP1: http1 };
    f.server = cert ? http2.createSecureServer({ ...options, cert: fs.readFileSync(cert), key: fs.readFileSync(key) }) : http2.createServer(options);
    f.server.keepAliveTimeout = 0;
    f.server.on('session', (s) => {
      f.sessions++;
      f.open.add(s);
      s.on('close', () => f.open.delete(s));
      s.on('error', () => {});
    });
    f.sockets = new Set();
    f.server.on('connection', (c) => { f.sockets.add(c); c.on('close', () => f.sockets.delete(c)); });
    f.server.on('secureConnection', (c) => f.names.add(c.servername));
    f.server.on('request', (req, res) => f.#serve(req, res));
    f.server.on('sessionError', () => {});
    f.url = `${cert ? 'https' : 'http'}://127.0.0.1:${await listen(f.server)}`;
    return f;
  }

  #serve(req, res) {
    const session = req.stream?.session;
    if (session) {
      session.now = (session.now ?? 0) + 1;
      this.most = Math.max(this.most, session.now);
      req.stream.on('error', () => {});
      req.stream.on('close', () => {
        session.now--;
        if (req.stream.rstCode) this.resets.push(req.stream.rstCode);
      });
    }
    this.versions.push(req.httpVersion);
    this.heads.push(req.rawHeaders);
    if (this.behave(req, res, this)) return;
    const { hostname, port } = new URL(this.mock);
    const headers = Object.fromEntries(Object.entries(req.headers).filter(([n]) => !HOP.test(n)));
    const out = http.request({ hostname, port, path: req.url, method: req.method, headers }, (r) => {
      res.writeHead(r.statusCode, Object.fromEntries(Object.entries(r.headers).filter(([n]) => !HOP.test(n))));
      r.pipe(res);
      r.on('aborted', () => (req.stream?.session ? req.stream.close(http2.constants.NGHTTP2_INTERNAL_ERROR) : res.destroy()));
    });
    out.on('error', () => (req.stream?.session ? req.stream.close(http2.constants.NGHTTP2_INTERNAL_ERROR) : res.destroy()));
    req.pipe(out);
    res.on('close', () => out.destroy());
  }

  // The fields of the last request, as they came: [name, value].
  lastHead() {
    const raw = this.heads.at(-1);
    return Array.from({ length: raw.length / 2 }, (_, i) => [raw[2 * i], raw[2 * i + 1]]);
  }

  async close() {
    for (const s of this.open) s.destroy();
    for (const c of this.sockets) c.destroy();
    await new Promise((resolve) => { this.server.close(resolve); });
  }
}

// An HTTP proxy: CONNECT, and requests with a whole URL. With user and password it wants them (Basic); with cert and key
// it is spoken to over TLS. It notes what it did; refuse: a status for every CONNECT.
export class HttpProxy {
  static async start({ user, password, cert, key } = {}) {
    const p = new HttpProxy();
    Object.assign(p, { connects: [], gets: [], heads: [], denied: 0, tunnels: new Set(), refuse: 0 });
    const expected = user === undefined ? undefined : `Basic ${Buffer.from(`${user}:${password}`).toString('base64')}`;
    const known = (req) => expected === undefined || req.headers['proxy-authorization'] === expected;
    p.server = cert ? https.createServer({ cert: fs.readFileSync(cert), key: fs.readFileSync(key), keepAliveTimeout: 0 }) : http.createServer({ keepAliveTimeout: 0 });
    p.server.on('connect', (req, socket, head) => {
      p.heads.push(req.rawHeaders);
      socket.on('error', () => {});
      if (!known(req)) { p.denied++; socket.end('HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm="out"\r\nContent-Length: 0\r\n\r\n'); return; }
      if (p.refuse) { socket.end(`HTTP/1.1 ${p.refuse} No\r\nContent-Length: 0\r\n\r\n`); return; }
      p.connects.push(req.url);
      const { hostname, port } = new URL(`tcp://${req.url}`);
      const out = net.connect({ host: hostname === 'llm.test' ? '127.0.0.1' : hostname, port });
      p.tunnels.add(socket);
      out.on('connect', () => { socket.write('HTTP/1.1 200 Connection established\r\n\r\n'); out.write(head); socket.pipe(out).pipe(socket); });
      out.on('error', () => socket.destroy());
      out.on('close', () => socket.destroy());
      socket.on('close', () => { p.tunnels.delete(socket); out.destroy(); });
    });
    p.server.on('request', (req, res) => {
      p.heads.push(req.rawHeaders);
      if (!known(req)) { p.denied++; res.writeHead(407, { 'proxy-authenticate': 'Basic realm="out"' }); res.end(); return; }
      p.gets.push(req.url);
      const u = new URL(req.url);
      const headers = Object.fromEntries(Object.entries(req.headers).filter(([n]) => !HOP.test(n)));
      const out = http.request({ hostname: u.hostname === 'llm.test' ? '127.0.0.1' : u.hostname, port: u.port, path: u.pathname + u.search, method: req.method, headers: { ...headers, host: u.host } }, (r) => { res.writeHead(r.statusCode, r.headers); r.pipe(res); });
      out.on('error', () => { res.writeHead(502); res.end(); });
      req.pipe(out);
      res.on('close', () => out.destroy());
    });
    p.port = await listen(p.server);
    p.url = `${cert ? 'https' : 'http'}://127.0.0.1:${p.port}`;
    return p;
  }

  async close() {
    for (const s of this.tunnels) s.destroy();
    this.server.closeAllConnections();
    await new Promise((resolve) => { this.server.close(resolve); });
  }
}

// A SOCKS5 proxy (RFC 1928), with user and password (RFC 1929) where they are given. It takes names only, and looks
// them up: whatever it is asked for is on this machine.
export class SocksProxy {
  static async start({ user, password } = {}) {
    const p = new SocksProxy();
    Object.assign(p, { asked: [], denied: 0, open: new Set() });
    p.server = net.createServer((c) => { p.open.add(c); c.on('close', () => p.open.delete(c)); c.on('error', () => {}); p.#talk(c, user, password).catch(() => c.destroy()); });
    p.port = await listen(p.server);
    p.url = `socks5://127.0.0.1:${p.port}`;
    return p;
  }

  async #talk(c, user, password) {
    let have = Buffer.alloc(0), wake = () => {};
    const take = (d) => { have = Buffer.concat([have, d]); wake(); };
    c.on('data', take);
    const read = async (n) => {
      while (have.length < n) await new Promise((resolve) => { wake = resolve; });
      const out = have.subarray(0, n);
      have = have.subarray(n);
      return out;
    };
    const [, methods] = await read(2);
    await read(methods);
    if (user === undefined) {
      c.write(Buffer.from([5, 0]));
    } else {
      c.write(Buffer.from([5, 2]));
      const [, nu] = await read(2);
      const u = (await read(nu)).toString(), [np] = await read(1), w = (await read(np)).toString();
      const ok = u === user && w === password;
      c.write(Buffer.from([1, ok ? 0 : 1]));
      if (!ok) { this.denied++; c.end(); return; }
    }
    const [, , , type] = await read(4);
    let host;
    if (type === 3) host = (await read((await read(1))[0])).toString();
    else if (type === 1) host = [...await read(4)].join('.');
    else throw new Error(`address type ${type}`);
    const port = (await read(2)).readUInt16BE();
    this.asked.push(`${host}:${port}`);
    const out = net.connect(port, '127.0.0.1');
    out.on('connect', () => { c.off('data', take); c.write(Buffer.from([5, 0, 0, 1, 0, 0, 0, 0, 0, 0])); out.write(have); c.pipe(out).pipe(c); });
    out.on('error', () => c.destroy());
    out.on('close', () => c.destroy());
    c.on('close', () => out.destroy());
  }

  async close() {
    for (const c of this.open) c.destroy();
    await new Promise((resolve) => { this.server.close(resolve); });
  }
}
