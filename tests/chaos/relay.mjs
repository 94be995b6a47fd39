// SPDX-License-Identifier: Apache-2.0
// A TCP relay in front of a server, with the faults of a network: delay, silence, cut connections, and, since it reads the
// protocol of NATS, messages that are lost as a whole. Relays run in a thread of their own, so that only the faults that are
// asked for come from them.
import net from 'node:net';
import { Worker, isMainThread, parentPort, workerData } from 'node:worker_threads';

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

class Relay {
  // nats: cut the stream into messages, so that they can be lost; those whose subject matches `lossy`.
  constructor({ nats = false, lossy = '' }) {
    Object.assign(this, { nats, lossy: new RegExp(lossy), target: null, delayMs: 0, loss: 0, silent: false });
    this.pairs = new Set();
    this.lost = 0;
  }

  async listen() {
    this.server = net.createServer((client) => this.#accept(client));
    await new Promise((resolve, reject) => { this.server.once('error', reject); this.server.listen(0, '127.0.0.1', resolve); });
    return this.server.address().port;
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
        if (f.subject && this.loss > 0 && this.lossy.test(f.subject) && Math.random() < this.loss) { this.lost++; continue; }
        const at = Math.max(last, Date.now() + (this.delayMs > 0 ? Math.random() * this.delayMs : 0));
        last = at;
        const send = () => { if (this.silent) pair.waiting.push(send); else if (!to.destroyed) to.write(f.bytes); };
        if (at > Date.now() || this.silent) setTimeout(send, at - Date.now()); else send();
      }
    });
  }

  // silent: nothing passes until it speaks again; then all that waited does, in order.
  set(values) {
    Object.assign(this, values);
    if (!this.silent) for (const p of this.pairs) for (const send of p.waiting.splice(0)) send();
  }
  cut() { for (const p of [...this.pairs]) { p.client.destroy(); p.server.destroy(); } }
}

// Relays by name: { name: { nats?, lossy? } }. ports[name] is where each listens.
export class Relays {
  static async start(relays) {
    const r = new Relays();
    r.worker = new Worker(new URL(import.meta.url), { workerData: { relays } });
    r.ports = await new Promise((resolve, reject) => { r.worker.once('message', resolve); r.worker.once('error', reject); });
    r.names = Object.keys(relays);
    return r;
  }
  // values: target (a port), delayMs, loss (0 to 1), silent
  set(name, values) { this.worker.postMessage({ name, values }); }
  cut(name) { this.worker.postMessage({ name, cut: true }); }
  heal() { for (const n of this.names) this.set(n, { delayMs: 0, loss: 0, silent: false }); }
  async lost() {
    this.worker.postMessage({ lost: true });
    return new Promise((resolve) => this.worker.once('message', resolve));
  }
  close() { return this.worker.terminate(); }
}

if (!isMainThread && workerData?.relays) {
  const relays = {}, ports = {};
  for (const [name, options] of Object.entries(workerData.relays)) ports[name] = await (relays[name] = new Relay(options)).listen();
  parentPort.on('message', (m) => {
    if (m.lost) parentPort.postMessage(Object.values(relays).reduce((sum, r) => sum + r.lost, 0));
    else if (m.cut) relays[m.name].cut();
    else relays[m.name].set(m.values);
  });
  parentPort.postMessage(ports);
}
