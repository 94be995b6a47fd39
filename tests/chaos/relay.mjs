// SPDX-License-Identifier: Apache-2.0
// A TCP relay in front of a server, with the faults of a network: delay, silence, cut connections, and, since it reads the
// protocol of NATS, messages that are lost as a whole.
import net from 'node:net';

// Cuts a stream of NATS's client or server side into protocol messages: each is its line with, for those that have one, its
// payload. What is not known passes as lines.
export class NatsFrames {
  #left = Buffer.alloc(0);

  // Whole frames in what has come so far: [{ bytes, subject }]; subject only of messages.
  feed(chunk) {
    this.#left = this.#left.length ? Buffer.concat([this.#left, chunk]) : chunk;
    const frames = [];
    for (;;) {
      const end = this.#left.indexOf('\r\n');
      if (end < 0) return frames;
      const words = this.#left.toString('latin1', 0, end).split(/[ \t]+/);
      const verb = words[0].toUpperCase();
      const isMessage = ['PUB', 'HPUB', 'MSG', 'HMSG'].includes(verb);
      const size = end + 2 + (isMessage ? Number(words.at(-1)) + 2 : 0);
      if (this.#left.length < size) return frames;
      frames.push({ bytes: this.#left.subarray(0, size), subject: isMessage ? words[1] : undefined });
      this.#left = this.#left.subarray(size);
    }
  }
}

export class Relay {
  // nats: cut the stream into messages, so that they can be lost. lossy(subject): which may be.
  constructor({ nats = false, lossy = () => true, random = Math.random } = {}) {
    Object.assign(this, { nats, lossy, random, target: null, delayMs: 0, loss: 0, silent: false });
    this.pairs = new Set();
    this.lost = 0;
  }

  async listen() {
    this.server = net.createServer((client) => this.#accept(client));
    await new Promise((resolve, reject) => { this.server.once('error', reject); this.server.listen(0, '127.0.0.1', resolve); });
    this.port = this.server.address().port;
    return this;
  }

  #accept(client) {
    if (!this.target) { client.destroy(); return; }
    const server = net.connect(this.target, '127.0.0.1');
    const pair = { client, server, waiting: [] };
    this.pairs.add(pair);
    const end = () => { client.destroy(); server.destroy(); this.pairs.delete(pair); };
    for (const s of [client, server]) { s.setNoDelay(true); s.on('error', end); s.on('close', end); }
    this.#pipe(pair, client, server);
    this.#pipe(pair, server, client);
  }

  #pipe(pair, from, to) {
    const frames = this.nats ? new NatsFrames() : null;
    let last = 0; // order is kept: nothing overtakes
    from.on('data', (chunk) => {
      for (const f of frames ? frames.feed(chunk) : [{ bytes: chunk }]) {
        if (f.subject && this.loss > 0 && this.lossy(f.subject) && this.random() < this.loss) { this.lost++; continue; }
        const at = Math.max(last, Date.now() + (this.delayMs > 0 ? this.random() * this.delayMs : 0));
        last = at;
        const send = () => { if (this.silent) pair.waiting.push(send); else if (!to.destroyed) to.write(f.bytes); };
        if (at > Date.now() || this.silent) setTimeout(send, at - Date.now()); else send();
      }
    });
  }

  // Nothing passes until it speaks again; then all that waited does, in order.
  setSilent(silent) {
    this.silent = silent;
    if (!silent) for (const p of this.pairs) for (const send of p.waiting.splice(0)) send();
  }
  cut() { for (const p of [...this.pairs]) { p.client.destroy(); p.server.destroy(); } }
  heal() { this.delayMs = 0; this.loss = 0; this.setSilent(false); }
  async close() { this.heal(); this.cut(); await new Promise((resolve) => this.server.close(resolve)); }
}
