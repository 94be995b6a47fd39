// SPDX-License-Identifier: Apache-2.0
// Connections of HTTP/2 towards upstreams (`transport: curl`) that live long: what thousands of answers, and clients that
// leave in numbers, do to them. The server is nghttp2's (Node): after about a thousand resets it closes a connection.
import assert from 'node:assert/strict';
import fs from 'node:fs';
import net from 'node:net';
import os from 'node:os';
import path from 'node:path';
import { after } from 'node:test';
import tls from 'node:tls';
import { Http2Front } from './lib/fronts.mjs';
import { suiteTest, demoConfig } from './lib/suite.mjs';
import { Authority } from './lib/tls.mjs';
import { getText, until } from './lib/util.mjs';
import { Wire } from './lib/wire.mjs';

const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'aigw-e2e-h2-files-'));
const ca = new Authority(dir), cert = ca.sign('server', 'IP:127.0.0.1');

const ANSWER = Buffer.from(JSON.stringify({ id: 'c', object: 'chat.completion', created: 1, model: 'Qwen3-8B',
  choices: [{ index: 0, message: { role: 'assistant', content: 'One two three.' }, finish_reason: 'stop' }], usage: { prompt_tokens: 9, completion_tokens: 4, total_tokens: 13 } }));
const chunk = (delta, finish_reason = null) => `data: ${JSON.stringify({ id: 'c', object: 'chat.completion.chunk', created: 1, model: 'Qwen3-8B', choices: [{ index: 0, delta, finish_reason }] })}\n\n`;
const EVENTS = Buffer.from(`${chunk({ content: 'One two.' })}${chunk({}, 'stop')}data: [DONE]\n\n`);
const FLOOD = Buffer.from(chunk({ content: 'word '.repeat(3000) }).repeat(64)); // a megabyte

// TLS in front of a server of HTTP/2 that speaks none. It reads whatever comes, always (Node's own stops reading while
// it cannot write), and notes which streams are reset.
class Tap {
  static async start({ cert, key, port }) {
    const t = new Tap();
    Object.assign(t, { resets: [], waiting: new Set(), sockets: new Set() });
    t.server = tls.createServer({ cert: fs.readFileSync(cert), key: fs.readFileSync(key), ALPNProtocols: ['h2'] }, (c) => t.#join(c, net.connect(port, '127.0.0.1')));
    await new Promise((resolve) => { t.server.listen(0, '127.0.0.1', resolve); });
    t.url = `https://127.0.0.1:${t.server.address().port}`;
    return t;
  }

  #join(c, inner) {
    let have = Buffer.alloc(0), skip = 24; // the preface
    const over = () => { for (const s of [c, inner]) { s.destroy(); this.sockets.delete(s); } };
    for (const s of [c, inner]) { this.sockets.add(s); s.setNoDelay(); s.on('error', over); s.on('close', over); }
    c.on('data', (d) => {
      inner.write(d);
      have = Buffer.concat([have, d]);
      for (; have.length >= skip + 9; skip = 0) {
        have = have.subarray(skip);
        const n = 9 + have.readUIntBE(0, 3);
        if (have.length < n) { skip = 0; return; }
        if (have[3] === 3) this.resets.push(have.readUInt32BE(5));
        have = have.subarray(n);
      }
    });
    inner.on('data', (d) => c.write(d));
  }

  // Bytes that the edge has not taken.
  waits() { return [...this.sockets].reduce((n, s) => n + s.writableLength, 0); }

  async close() {
    for (const s of this.sockets) s.destroy();
    await new Promise((resolve) => { this.server.close(resolve); });
  }
}

// What the client asks for by x-front; streams that it opens and does not end are in `open`.
const open = new Set();
let flood; // an answer that a test goes on with
function behave(req, res) {
  const how = req.headers['x-front'];
  req.resume();
  const events = () => res.writeHead(200, { 'content-type': 'text/event-stream' });
  if (how === 'length') {
    // Node ends such a stream with an empty frame of its own, behind the last byte that was announced.
    req.on('end', () => { res.writeHead(200, { 'content-type': 'application/json', 'content-length': ANSWER.length }); res.end(ANSWER); });
  } else if (how === 'events') {
    req.on('end', () => { events(); res.end(EVENTS); });
  } else if (how === 'short') {
    req.on('end', () => { res.writeHead(200, { 'content-type': 'application/json', 'content-length': ANSWER.length + 100 }); res.end(ANSWER); });
  } else if (how === 'open') {
    events();
    res.write(chunk({ content: 'one ' }));
    open.add(req.stream);
    req.stream.on('close', () => open.delete(req.stream));
  } else if (how === 'flood') {
    events();
    flood = res;
  }
  return true;
}

const front = await Http2Front.start({ behave });
const tap = await Tap.start({ ...cert, port: new URL(front.url).port });
after(async () => {
  await tap.close();
  await front.close();
  fs.rmSync(dir, { recursive: true, force: true });
});

function config(suite) {
  const demo = demoConfig(suite);
  return { ...demo, policies: [],
    upstreams: [...demo.upstreams, { slug: 'h2', name: 'h2', dialect: 'openai', auth: { type: 'none' }, transport: 'curl', max_streams: 1000, tls: { ca_file: ca.file },
      ejection: { failures: 0 }, breaker: { error_percent: 0 }, retries: 0, servers: [{ slug: 'one', url: tap.url }] }],
    routes: [...demo.routes, { slug: 'h2', namespace: 'test-channel', path: { prefix: '/h2/' }, endpoint: 'chat', rewrite_path: '/v1/chat/completions', upstream: 'h2' }] };
}

suiteTest('connections of HTTP/2 that live long', { config, env: { edge: { EDGE_WORKERS: '1', DRAIN_TIMEOUT_MS: '1000' } } }, async (suite, step) => {
  const ask = (how, more) => suite.chat({ path: '/h2/chat', stream: how !== 'length' && how !== 'short', ...more, headers: { 'x-front': how } });
  // So many, one of `at` at a time.
  async function many(n, at, how) {
    let left = n;
    const work = async () => {
      while (left-- > 0) {
        const r = await ask(how), text = await r.text();
        assert.equal(r.status, 200, text);
        if (how === 'events') assert.match(text, /\[DONE\]/); else assert.equal(JSON.parse(text).usage.completion_tokens, 4);
      }
    };
    await Promise.all(Array.from({ length: at }, work));
  }
  // A stream that its client reads, and then leaves or is to keep.
  async function opened() {
    const gone = new AbortController(), r = await ask('open', { signal: gone.signal });
    const reader = r.body.getReader();
    assert.match(new TextDecoder().decode((await reader.read()).value), /one/);
    return { leave: () => { gone.abort(); } };
  }

  await step('thousands of answers on one connection, and no reset', async () => {
    await many(1500, 16, 'length');
    await many(1500, 16, 'events');
    assert.equal(front.sessions, 1);
    assert.deepEqual(tap.resets, []);
  });

  await step('an answer that is shorter than announced is not taken for whole', async () => {
    const r = await ask('short'), text = await r.text().catch(() => 'broken');
    assert.ok(r.status === 502 || text === 'broken', text);
    await many(1, 1, 'length');
  });

  await step('streams whose clients leave at once are over at once, whoever stays', async () => {
    const sessions = front.sessions;
    const stays = await opened();
    const leave = await Promise.all(Array.from({ length: 80 }, opened));
    assert.equal(open.size, 81);
    const { requests } = JSON.parse(await getText(`${suite.procs['edge-1'].ops}/debug/requests`));
    assert.ok(requests.filter((q) => q.server === 'one' && q.transport === 'curl' && q.upstream_http === '2' && q.attempts === 1).length >= 81);
    for (const s of leave) s.leave();
    await until('all but one are over', () => open.size === 1);
    assert.equal(front.sessions, sessions);
    stays.leave();
    await until('so is the last', () => open.size === 0);
  });

  await step('also when the one that stays does not read', async () => {
    await many(1, 1, 'length');
    const sessions = front.sessions, resets = tap.resets.length;
    const leaves = await opened();
    const w = new Wire(suite.edge()), body = JSON.stringify({ model: 'Qwen3-8B', stream: true, messages: [{ role: 'user', content: 'hi' }] });
    w.socket.pause();
    w.write(`POST /h2/x HTTP/1.1\r\nHost: e\r\nX-Channel-Code: test-channel\r\nX-Front: flood\r\nContent-Length: ${body.length}\r\n\r\n${body}`);
    await until('it is open', () => flood !== undefined);
    const pour = () => new Promise((resolve) => { flood.write(FLOOD, resolve); });
    // Until the client's socket takes no more; what follows then lies in the edge, and curl has paused that stream.
    await until('the edge has to keep some', async () => {
      await pour();
      return JSON.parse(await getText(`${suite.procs['edge-1'].ops}/debug/requests`)).requests.some((q) => q.waiting > 0);
    });
    for (let i = 0; i < 2; i++) await pour();
    await until('all of it came', () => tap.waits() === 0);
    assert.equal(front.sessions, sessions);
    leaves.leave();
    await until('the stream is over', () => tap.resets.length > resets);
    w.abort();
    await until('so are both', () => open.size === 0);
  });

  await step('after many resets others go on new connections, and nothing breaks', async () => {
    const stays = await opened(), sessions = front.sessions;
    for (let i = 0; i < 15; i++) {
      const leave = await Promise.all(Array.from({ length: 80 }, opened));
      for (const s of leave) s.leave();
      await until('they are over', () => open.size === 1);
    }
    assert.ok(front.sessions > sessions, `${front.sessions}`);
    await many(20, 4, 'events');
    assert.equal(open.size, 1); // a thousand resets on its connection would have ended it
    stays.leave();
    await until('it is over', () => open.size === 0);
  });
});
