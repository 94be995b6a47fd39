// SPDX-License-Identifier: Apache-2.0
// An HTTP/1.1 connection whose bytes are in the test's hands: what is written, in which pieces, when it is read, how it
// ends. Answers are read strictly; how each ended is told, never smoothed over.
import net from 'node:net';

export class Wire {
  constructor(url) {
    const { hostname, port } = new URL(url);
    this.pieces = []; // of what has come; put together when somebody looks
    this.length = 0;
    this.closed = null; // 'end' (FIN), 'reset' or another error, 'ours'
    this.waiters = [];
    this.socket = net.connect({ host: hostname, port: Number(port), allowHalfOpen: true, noDelay: true });
    this.socket.on('data', (d) => { this.pieces.push(d); this.length += d.length; this.#wake(); });
    this.socket.on('end', () => this.#close('end'));
    this.socket.on('error', (e) => this.#close(e.code === 'ECONNRESET' || e.code === 'EPIPE' ? 'reset' : e.code));
    this.socket.on('close', () => this.#close('ours'));
  }

  get bytes() {
    if (this.pieces.length !== 1) this.pieces = [Buffer.concat(this.pieces)];
    return this.pieces[0];
  }
  set bytes(b) { this.pieces = [b]; this.length = b.length; }

  #close(how) { this.closed ??= how; this.#wake(); }
  #wake() { for (const w of this.waiters.splice(0)) w(); }
  #more() { return new Promise((resolve) => this.waiters.push(resolve)); }

  write(data) { if (!this.closed && !this.socket.destroyed) this.socket.write(data); }
  // Ends it as it is: with a FIN, or with a reset.
  abort(reset) { if (reset) this.socket.resetAndDestroy(); else this.socket.destroy(); }
  close() { this.socket.destroy(); }

  // Waits until at least n bytes are there; false when the connection ended before.
  async have(n) {
    while (this.length < n && !this.closed) await this.#more();
    return this.length >= n;
  }
  async #upTo(mark, from = 0) {
    for (;;) {
      const at = this.bytes.indexOf(mark, from);
      if (at >= 0) return at;
      if (this.closed) return -1;
      await this.#more();
    }
  }
  #take(n) { const b = this.bytes.subarray(0, n); this.bytes = this.bytes.subarray(n); return b; }

  // The next answer: { status, headers, body, whole, framing }. whole: it ended as its framing says. null: the connection
  // ended before its head was there. Throws at what is no HTTP.
  async answer({ toHead = false } = {}) {
    let status, headers;
    do {
      const end = await this.#upTo('\r\n\r\n');
      if (end < 0) return null;
      const [first, ...lines] = this.#take(end + 4).subarray(0, end).toString('latin1').split('\r\n');
      const m = /^HTTP\/1\.1 (\d{3}) [ -~]+$/.exec(first);
      if (!m) throw new Error(`no status line: ${JSON.stringify(first.slice(0, 200))}`);
      status = Number(m[1]);
      headers = {};
      for (const line of lines) {
        const at = line.indexOf(':');
        const name = line.slice(0, at).toLowerCase();
        if (at < 1 || !/^[!#$%&'*+.^_`|~0-9a-z-]+$/.test(name)) throw new Error(`no field: ${JSON.stringify(line)}`);
        if (name in headers && /^(content-length|transfer-encoding)$/.test(name)) throw new Error(`twice: ${name}`);
        headers[name] = line.slice(at + 1).trim();
      }
    } while (status < 200);
    if ('content-length' in headers && 'transfer-encoding' in headers) throw new Error('two framings');
    if (toHead || status === 204 || status === 304) return { status, headers, body: Buffer.alloc(0), whole: true, framing: 'none' };
    if (headers['transfer-encoding'] === 'chunked') return { status, headers, framing: 'chunked', ...await this.#chunked() };
    if ('content-length' in headers) {
      const n = Number(headers['content-length']);
      const whole = await this.have(n);
      return { status, headers, framing: 'length', body: this.#take(whole ? n : this.bytes.length), whole };
    }
    while (!this.closed) await this.#more();
    return { status, headers, framing: 'close', body: this.#take(this.bytes.length), whole: this.closed === 'end' };
  }

  async #chunked() {
    const pieces = [];
    const part = () => ({ body: Buffer.concat(pieces), whole: false });
    for (;;) {
      const at = await this.#upTo('\r\n');
      if (at < 0) return part();
      const line = this.#take(at + 2).subarray(0, at).toString('latin1');
      if (!/^[0-9a-f]+$/.test(line)) throw new Error(`no chunk size: ${JSON.stringify(line.slice(0, 100))}`);
      const n = parseInt(line, 16);
      const there = await this.have(n + 2);
      if (!there) { pieces.push(this.#take(Math.min(n, this.bytes.length))); return part(); }
      pieces.push(this.#take(n));
      if (this.#take(2).toString('latin1') !== '\r\n') throw new Error('a chunk does not end with CRLF');
      if (n === 0) return { ...part(), whole: true };
    }
  }
}
