// SPDX-License-Identifier: Apache-2.0
// Upstreams with `transport: curl`: servers that speak HTTP/2, and egress proxies. What clients, limits, health and
// records see has to be what they see of a direct one.
import assert from 'node:assert/strict';
import fs from 'node:fs';
import http2 from 'node:http2';
import os from 'node:os';
import path from 'node:path';
import { after } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import Anthropic from '@anthropic-ai/sdk';
import OpenAI from 'openai';
import { Http2Front, HttpProxy, SocksProxy } from './lib/fronts.mjs';
import { DEMO_KEY, suiteTest, demoConfig } from './lib/suite.mjs';
import { Authority } from './lib/tls.mjs';
import { PATIENCE, sseData, sumOf, until } from './lib/util.mjs';
import { Wire } from './lib/wire.mjs';

const ASAN = fs.readFileSync(`${process.env.AIGW_BIN ?? 'build/asan/bin'}/aigw-edge`).includes('__asan_init');
const MB = 1024 * 1024;
const { NGHTTP2_INTERNAL_ERROR, NGHTTP2_REFUSED_STREAM } = http2.constants;

const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'aigw-e2e-curl-files-'));
const ca = new Authority(dir), other = new Authority(path.join(dir, 'theirs'), 'other');
const cert = ca.sign('server', 'DNS:llm.test,IP:127.0.0.1');

const event = (content) => `data: ${JSON.stringify({ id: 'c', object: 'chat.completion.chunk', created: 1, model: 'Qwen3-8B', choices: [{ index: 0, delta: { content }, finish_reason: null }] })}\n\n`;
const LAST = 'data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"Qwen3-8B","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n';

// What a front does itself when the client asks for it by x-front.
const FLOOD = 24 * MB; // more than windows and sockets hold
const stuck = new Set(), deaf = new Set(), floods = [];
function behave(req, res, front) {
  const stream = req.stream, how = req.headers['x-front'];
  if (front.refuseOnce) { front.refuseOnce = false; stream.close(NGHTTP2_REFUSED_STREAM); return true; }
  if (how === undefined) return false;
  if (how !== 'deaf') req.resume();
  const head = (more) => res.writeHead(200, { 'content-type': 'text/event-stream', ...more });
  if (how === 'rst') {
    stream.close(NGHTTP2_INTERNAL_ERROR);
  } else if (how === 'rst-later') {
    head();
    res.write(event('one '));
    setTimeout(() => stream.close(NGHTTP2_INTERNAL_ERROR), 50);
  } else if (how === 'goaway') {
    head();
    res.write(event('one '));
    stream.session.goaway(0);
    setTimeout(() => { res.write(event('two')); res.end(LAST); }, 50);
  } else if (how === 'destroy') {
    stream.session.destroy();
  } else if (how === 'deaf') {
    req.pause();
    deaf.add(stream);
  } else if (how === 'hang') {
    stuck.add(stream);
  } else if (how === 'open') { // a stream that does not end
    head();
    res.write(event('one '));
    stuck.add(stream);
  } else if (how === 'wide') {
    head({ 'x-wide': 'w'.repeat(60000), 'x-wider': 'w'.repeat(20000) });
    res.end(LAST);
  } else if (how.startsWith('flood:')) {
    const text = Buffer.from(event('word '.repeat(800)).repeat(4));
    const flood = { left: Number(how.slice(6)), sent: 0 };
    floods.push(flood);
    head();
    const more = () => {
      while (flood.left > 0) {
        flood.left -= text.length;
        flood.sent += text.length;
        if (!res.write(text)) { res.once('drain', more); return; }
      }
      res.end(LAST);
    };
    more();
  } else {
    return false;
  }
  return true;
}

const user = { user: 'edge', password: 'pr0xy-s3cret' };
const secure = await Http2Front.start({ ...cert, http1: true, behave });
const narrow = await Http2Front.start({ ...cert, behave }), watched = await Http2Front.start({ ...cert });
const single = await Http2Front.start({ ...cert, behave });
const plain = await Http2Front.start({ behave });
const proxy = await HttpProxy.start(user), secured = await HttpProxy.start({ ...user, ...cert });
const socks = await SocksProxy.start(user);
const fronts = [secure, narrow, plain, watched, single];
after(async () => {
  for (const x of [...fronts, proxy, secured, socks]) await x.close();
  fs.rmSync(dir, { recursive: true, force: true });
});
const named = (url) => url.replace('127.0.0.1', 'llm.test'); // a name that only proxies know

const tls = { ca_file: ca.file }, quiet = { ejection: { failures: 0 }, breaker: { error_percent: 0 }, retries: 0 };
const upstream = (slug, urls, more = {}) => ({ slug, name: slug, dialect: 'openai', auth: { type: 'none' }, transport: 'curl', ...quiet, ...more,
  servers: [urls].flat().map((url, i) => ({ slug: `${slug}-${i + 1}`, url })) });

function config(suite) {
  const demo = demoConfig(suite);
  for (const f of fronts) f.mock = suite.mock;
  const closed = 'https://127.0.0.1:1';
  const list = [
    upstream('h2', secure.url, { tls }), upstream('h11', secure.url, { tls, http: '1.1' }), upstream('narrow', narrow.url, { tls, max_streams: 4 }),
    upstream('renamed', secure.url, { tls: { ...tls, server_name: 'llm.test' } }), upstream('distrusted', secure.url, { tls: { ca_file: other.file } }),
    upstream('misnamed', secure.url, { tls: { ...tls, server_name: 'else.test' } }),
    upstream('h2c', plain.url, { http: '2' }), upstream('single', single.url, { tls }), upstream('h1', suite.mock),
    upstream('tunnel', named(secure.url), { tls, proxy: { url: proxy.url, ...user } }),
    upstream('tunnel-renamed', secure.url, { tls: { ...tls, server_name: 'llm.test' }, proxy: { url: proxy.url, ...user } }),
    upstream('forward', named(suite.mock), { proxy: { url: proxy.url, ...user } }),
    upstream('tunnel-h2c', named(plain.url), { http: '2', proxy: { url: proxy.url, ...user } }),
    upstream('secured', named(secure.url), { tls, proxy: { url: secured.url, ...user, ca_file: ca.file } }),
    upstream('secured-distrusted', named(secure.url), { tls, proxy: { url: secured.url, ...user } }),
    upstream('anthropic', named(secure.url), { dialect: 'anthropic', tls, proxy: { url: proxy.url, ...user } }),
    upstream('socks', named(secure.url), { tls, proxy: { url: socks.url, ...user } }),
    upstream('wrong-forward', suite.mock, { proxy: { url: proxy.url, ...user, password: 'wrong' } }),
    upstream('wrong-tunnel', secure.url, { tls, proxy: { url: proxy.url, ...user, password: 'wrong' } }),
    upstream('wrong-socks', suite.mock, { proxy: { url: socks.url, ...user, password: 'wrong' } }),
    upstream('no-proxy', suite.mock, { proxy: { url: 'http://127.0.0.1:1' } }),
    upstream('retrying', [closed, secure.url], { tls, retries: 1 }),
    upstream('twins', [narrow.url, secure.url], { tls, retries: 1 }),
    upstream('hasty', secure.url, { tls, timeouts: { first_byte_ms: 4000, idle_ms: 1500 } }),
    upstream('checked', watched.url, { tls, health_check: { type: 'models', interval_ms: 200, healthy: 1, unhealthy: 1 } }),
    upstream('checked-by-proxy', named(watched.url), { tls, proxy: { url: proxy.url, ...user }, health_check: { type: 'http', path: '/v1/models', interval_ms: 200 } }),
  ];
  return { ...demo, upstreams: [...demo.upstreams, ...list],
    policies: [{ slug: 'cut', namespace: 'test-channel', kind: 'output_tokens', limit: 25, models: ['cut-*'] }],
    routes: [...demo.routes,
      ...list.map((u) => ({ slug: u.slug, namespace: 'test-channel', path: { prefix: `/${u.slug}/` }, endpoint: 'chat', rewrite_path: '/v1/chat/completions', upstream: u.slug })),
      { slug: 'openai', namespace: 'demo', path: { prefix: '/openai/' }, endpoint: 'chat', rewrite_path: '/v1/chat/completions', upstream: 'h2' },
      { slug: 'anthropic-client', namespace: 'demo', path: { prefix: '/anthropic-client/' }, endpoint: 'messages', rewrite_path: '/v1/messages', upstream: 'anthropic' },
      { slug: 'raw', namespace: 'test-channel', path: { prefix: '/raw/' }, endpoint: 'passthrough', upstream: 'h2' }] };
}

// Nothing of this may be taken: proxies come from the configuration alone.
const env = { edge: { EDGE_WORKERS: '1', DRAIN_TIMEOUT_MS: '1000', ACCESS_LOG: 'access.log', HTTPS_PROXY: 'http://127.0.0.1:1', https_proxy: 'http://127.0.0.1:1', http_proxy: 'http://127.0.0.1:1', ALL_PROXY: 'http://127.0.0.1:1',
  NO_PROXY: '*', no_proxy: '*' } };

suiteTest('transport curl', { config, env }, async (suite, step) => {
  const ask = (slug, { front, ...more } = {}) => suite.chat({ path: `/${slug}/chat`, mock: 'tokens=5', ...more, headers: { ...(front ? { 'x-front': front } : {}), ...more.headers } });
  const fine = async (slug, more) => {
    const r = await ask(slug, more), text = await r.text();
    assert.equal(r.status, 200, `${slug}: ${text}`);
    return text;
  };
  const failed = async (slug, status, words, more) => {
    const r = await ask(slug, more), text = await r.text();
    assert.equal(r.status, status, `${slug}: ${text}`);
    const { error } = JSON.parse(text);
    assert.match(error.message, words);
    assert.doesNotMatch(JSON.stringify(error), /s3cret|127\.0\.0\.1|wrong/);
  };
  const rss = async () => (await suite.metricsOf('edge-1')).find((s) => s.name === 'process_resident_memory_bytes').value;

  await step('HTTP/2 by ALPN, and 1.1 where that is asked for', async () => {
    assert.equal(JSON.parse(await fine('h2')).usage.completion_tokens, 5);
    assert.equal(secure.versions.at(-1), '2.0');
    assert.equal(sseData(await fine('h2', { stream: true, mock: 'tokens=40' })).at(-1), '[DONE]');
    await fine('h11');
    assert.equal(secure.versions.at(-1), '1.1');
    await fine('h1');
  });

  await step('HTTP/2 from the first byte over plain TCP', async () => {
    for (let i = 0; i < 3; i++) await fine('h2c');
    assert.equal(sseData(await fine('h2c', { stream: true, mock: 'tokens=40' })).at(-1), '[DONE]');
    assert.ok(plain.versions.every((v) => v === '2.0'));
  });

  await step('nothing is added to the head, and nothing of the client\'s is lost', async () => {
    const w = new Wire(suite.edge());
    const body = JSON.stringify({ model: 'Qwen3-8B', messages: [{ role: 'user', content: 'hi' }] });
    for (const slug of ['h2', 'h11', 'h2c']) {
      w.write(`POST /${slug}/x?a=%2e%2e/b HTTP/1.1\r\nHost: e\r\nX-Channel-Code: test-channel\r\nX-Empty:\r\nX-Twice: 1\r\nX-Twice: 2\r\nContent-Length: ${body.length}\r\n\r\n${body}`);
      await until('an answer', () => w.bytes.toString().includes('"usage"'));
      w.bytes = Buffer.alloc(0);
      const front = slug === 'h2c' ? plain : secure;
      const fields = front.lastHead().filter(([n]) => !n.startsWith(':')).map(([n, v]) => [n.toLowerCase(), v]);
      assert.deepEqual(fields.map(([n]) => n).filter((n) => n !== 'host').sort(),
        ['accept-encoding', 'content-length', 'x-channel-code', 'x-empty', 'x-request-id', 'x-twice', 'x-twice'].sort(), slug);
      assert.equal(fields.find(([n]) => n === 'x-empty')[1], '');
      if (slug === 'h11') continue;
      assert.deepEqual(front.lastHead().find(([n]) => n === ':path')[1], '/v1/chat/completions?a=%2e%2e/b');
      assert.deepEqual(front.lastHead().find(([n]) => n === ':authority')[1], new URL(front.url).host);
    }
    w.abort();
  });

  await step('GET, HEAD, and bodies of other kinds', async () => {
    const at = (method, init) => fetch(`${suite.edge()}/raw/v1/models`, { method, headers: { 'x-channel-code': 'test-channel' }, ...init });
    assert.equal((await at('GET')).status, 404); // the mock has no /raw
    assert.equal(secure.lastHead().find(([n]) => n === ':method')[1], 'GET');
    assert.equal(secure.lastHead().some(([n]) => n === 'content-length' || n === 'content-type'), false);
    const head = await at('HEAD');
    assert.equal(head.status, 404);
    assert.equal(await head.text(), '');
    await (await at('DELETE')).text();
    assert.equal(secure.lastHead().find(([n]) => n === ':method')[1], 'DELETE');
    await (await at('PUT', { body: Buffer.alloc(300000, 1) })).text();
    assert.equal(secure.lastHead().find(([n]) => n === 'content-length')[1], '300000');
    await (await at('POST', { body: '' })).text();
    assert.equal(secure.lastHead().find(([n]) => n === 'content-length')[1], '0');
  });

  await step('verified by name and authority, under another name too', async () => {
    await fine('renamed');
    assert.ok(secure.names.has('llm.test'));
    await failed('distrusted', 502, /certificate is not accepted/);
    await failed('misnamed', 502, /certificate is not accepted/);
  });

  await step('connections are shared, as many streams on each as they may have', async () => {
    const sessions = secure.sessions;
    await Promise.all(Array.from({ length: 60 }, () => fine('h2', { stream: true, mock: 'tokens=30;tps=3' })));
    assert.ok(secure.most > 20, `${secure.most} at a time`);
    assert.ok(secure.sessions - sessions <= 1, `${secure.sessions - sessions} new connections`);
    await Promise.all(Array.from({ length: 20 }, () => fine('narrow', { stream: true, mock: 'tokens=20;tps=10' })));
    assert.ok(narrow.most <= 4, `${narrow.most} at a time`);
    assert.ok(narrow.sessions >= 2);
  });

  await step('events pass at once, and a stream is cut at its last token', async () => {
    const began = Date.now(), at = [];
    const r = await ask('h2', { stream: true, mock: 'tokens=60;tps=10' });
    for await (const piece of r.body) { void piece; at.push(Date.now() - began); }
    assert.ok(at.length >= 3 && at.at(-1) - at[0] > 250, `${at}`); // fewer than events where somebody stood still
    const before = secure.resets.length;
    const cut = sseData(await (await ask('h2', { model: 'cut-me', stream: true, mock: 'tokens=400;tps=200;ignore_max' })).text());
    assert.equal(JSON.parse(cut.at(-2)).choices[0].finish_reason, 'length');
    assert.equal(cut.at(-1), '[DONE]');
    await until('the stream is reset', () => secure.resets.length > before);
  });

  await step('a client that leaves ends its stream upstream at once, and no other', async () => {
    for (const [slug, front] of [['h2', secure], ['h2c', plain]]) {
      const before = front.resets.length, gone = new AbortController();
      const beside = fine(slug, { stream: true, mock: 'tokens=30;tps=30' });
      const r = await ask(slug, { stream: true, front: 'open', signal: gone.signal });
      await r.body.getReader().read();
      gone.abort();
      await until('the stream is over', () => front.resets.length > before || (slug === 'h2c' && front.open.size === 1));
      assert.equal(sseData(await beside).at(-1), '[DONE]');
    }
    const waits = new AbortController(), before = secure.resets.length;
    const r = ask('h2', { front: 'hang', signal: waits.signal }).catch(() => 'gone');
    await until('it hangs', () => stuck.size >= 3);
    waits.abort();
    assert.equal(await r, 'gone');
    await until('the stream is over', () => secure.resets.length > before);
  });

  await step('streams that are reset: before their head another server is tried, later the client is told', async () => {
    await failed('h2', 502, /closed before it answered/, { front: 'rst' });
    const broken = await (await ask('h2', { stream: true, front: 'rst-later' })).text().catch((e) => e.cause?.message ?? 'cut');
    assert.doesNotMatch(broken, /\[DONE\]/);
    const before = [secure, narrow].map((f) => f.versions.length);
    await failed('twins', 502, /closed before it answered/, { front: 'rst' });
    assert.deepEqual([secure, narrow].map((f, i) => f.versions.length - before[i]), [1, 1]);
    await fine('retrying');
    await fine('retrying');
  });

  await step('a server that goes away lets its streams end, and what it refused goes on a new connection', async () => {
    const before = secure.sessions;
    const [text] = await Promise.all([fine('h2', { stream: true, front: 'goaway' }), delay(20).then(() => fine('h2'))]);
    assert.equal(sseData(text).at(-1), '[DONE]');
    assert.match(text, /two/);
    await fine('h2');
    assert.ok(secure.sessions > before);
    secure.refuseOnce = true;
    await fine('h2');
    await failed('h2', 502, /closed before it answered/, { front: 'destroy' });
    await fine('h2');
  });

  await step('time-outs', async () => {
    await failed('hasty', 504, /did not begin to answer/, { front: 'hang' });
    const text = await (await ask('hasty', { stream: true, front: 'open' })).text().catch(() => 'cut');
    assert.doesNotMatch(text, /\[DONE\]/);
    for (const why of ['timeout_first_byte', 'timeout_idle'])
      await suite.counted((n) => n >= 1, 'gateway_upstream_errors_total', { upstream: 'hasty', why });
  });

  await step('heads are bounded', async () => {
    await failed('h2', 502, /head is too large|closed before it answered/, { stream: true, front: 'wide' });
    await fine('h2');
  });

  await step('a large request and a large answer', async () => {
    for (const slug of ['h2', 'h2c', 'h11', 'tunnel'])
      assert.equal(JSON.parse(await fine(slug, { text: 'word '.repeat(30000), mock: 'tokens=20000' })).usage.completion_tokens, 20000);
  });

  await step('egress proxies: CONNECT, whole URLs, TLS to the proxy, SOCKS5', async () => {
    const port = (url) => new URL(url).port;
    for (const slug of ['tunnel', 'tunnel-renamed', 'forward', 'tunnel-h2c', 'secured', 'socks']) {
      await fine(slug);
      assert.equal(sseData(await fine(slug, { stream: true, mock: 'tokens=40' })).at(-1), '[DONE]', slug);
    }
    assert.ok(proxy.connects.includes(`llm.test:${port(secure.url)}`));
    assert.ok(proxy.connects.includes(`127.0.0.1:${port(secure.url)}`));
    assert.ok(proxy.connects.includes(`llm.test:${port(plain.url)}`));
    assert.ok(proxy.gets.includes(`http://llm.test:${port(suite.mock)}/v1/chat/completions`));
    assert.deepEqual(socks.asked.slice(0, 1), [`llm.test:${port(secure.url)}`]);
    // What goes to the proxy in the clear is its own credential, and nothing of the request that it only tunnels.
    const tunnels = proxy.heads.filter((h) => !h.includes('x-request-id'));
    assert.ok(tunnels.length > 0);
    for (const h of tunnels) assert.deepEqual(h.filter((_, i) => i % 2 === 0).map((n) => n.toLowerCase()).sort(), ['host', 'proxy-authorization', 'proxy-connection']);
    // And the credential goes no farther.
    for (const f of [secure, plain]) for (const h of f.heads) assert.equal(h.some((n) => /^proxy-/i.test(n)), false);
    const denied = proxy.denied;
    await failed('wrong-forward', 502, /egress proxy asks for another user or password/);
    await failed('wrong-tunnel', 502, /egress proxy refused/);
    assert.equal(proxy.denied - denied, 2);
    await failed('wrong-socks', 502, /egress proxy refused/);
    await failed('no-proxy', 502, /egress proxy refused, or cannot be reached/);
    await failed('secured-distrusted', 502, /certificate is not accepted/);
    proxy.refuse = 403;
    await failed('tunnel-renamed', 502, /egress proxy refused/).catch(async (e) => {
      // A tunnel that stands is used again.
      if (!/200/.test(e.message)) throw e;
    });
    proxy.refuse = 0;
  });

  await step('checks go the same way', async () => {
    const good = async (upstream) => await suite.edgeSum('gateway_upstream_checks_total', { upstream, result: 'good' });
    await until('checks were made', async () => await good('checked') > 1 && await good('checked-by-proxy') > 1);
    assert.ok(watched.heads.some((h) => h.includes('ai-gateway-health-check')));
  });

  await step('a client that reads slowly is waited for: nothing is lost, memory stays bounded, others go on', async () => {
    for (const slug of ['single', 'h11']) {
      const size = FLOOD, before = await rss(), w = new Wire(suite.edge());
      const body = JSON.stringify({ model: 'Qwen3-8B', stream: true, messages: [{ role: 'user', content: 'hi' }] });
      w.socket.pause();
      w.write(`POST /${slug}/x HTTP/1.1\r\nHost: e\r\nX-Channel-Code: test-channel\r\nX-Front: flood:${size}\r\nContent-Length: ${body.length}\r\n\r\n${body}`);
      const n = floods.length;
      await until('it floods', () => floods.length > n);
      const flood = floods.at(-1);
      await until('the server has to wait', async () => { const s = flood.sent; await delay(700); return s > 0 && s === flood.sent; });
      const more = await rss() - before;
      console.log(`    ${slug}: ${(flood.sent / MB).toFixed(1)} MB taken from the server, RSS +${(more / MB).toFixed(1)} MB`);
      const began = Date.now();
      await Promise.all([fine('single'), fine('single', { stream: true, mock: 'tokens=20;tps=100' })]);
      assert.ok(single.sessions <= 2, `${single.sessions} connections`);
      assert.ok(Date.now() - began < PATIENCE / 2);
      assert.ok(flood.left > 0);
      if (!ASAN) assert.ok(await rss() - before < 16 * MB, `${more}`);
      let got = 0;
      w.socket.removeAllListeners('data');
      w.socket.on('data', (d) => { got += d.length; });
      w.socket.resume();
      await until('all of it came', () => got > size);
      w.abort();
    }
  });

  await step('what a slow client leaves lying while others on its connection are read is bounded: it is cut off', async () => {
    stuck.clear();
    const busy = fine('single', { stream: true, front: 'open' });
    await until('it runs', () => stuck.size > 0);
    const [neighbour] = stuck, news = setInterval(() => neighbour.write(event('more ')), 10); // until the flood is cut off
    const before = await rss(), resets = single.resets.length, w = new Wire(suite.edge());
    const body = JSON.stringify({ model: 'Qwen3-8B', stream: true, messages: [{ role: 'user', content: 'hi' }] });
    w.socket.pause();
    w.write(`POST /single/x HTTP/1.1\r\nHost: e\r\nX-Channel-Code: test-channel\r\nX-Front: flood:${FLOOD}\r\nContent-Length: ${body.length}\r\n\r\n${body}`);
    try {
      await until('its stream is reset', () => single.resets.length > resets);
    } finally {
      clearInterval(news);
      neighbour.end(LAST);
    }
    const more = await rss() - before;
    if (!ASAN) assert.ok(more < 16 * MB, `${more}`);
    assert.equal(sseData(await busy).at(-1), '[DONE]');
    w.socket.resume();
    await until('it is told', () => w.closed);
    assert.doesNotMatch(w.bytes.toString('latin1', w.bytes.length - 2000), /\[DONE\]/);
    assert.match(w.bytes.toString('latin1', w.bytes.length - 2000), /faster than the client takes it/);
    console.log(`    RSS +${(more / MB).toFixed(1)} MB`);
  });

  await step('the official OpenAI client', async () => {
    const client = new OpenAI({ baseURL: `${suite.edge()}/openai`, apiKey: DEMO_KEY, maxRetries: 0 });
    const messages = [{ role: 'user', content: 'Write a line about the sea.' }];
    const made = await client.chat.completions.create({ model: 'Qwen3-8B', messages }, { headers: { 'x-mock': 'tokens=40' } });
    assert.equal(made.usage.completion_tokens, 40);
    const stream = await client.chat.completions.create({ model: 'Qwen3-8B', messages, stream: true }, { headers: { 'x-mock': 'tokens=60' } });
    let finish;
    for await (const chunk of stream) finish = chunk.choices[0]?.finish_reason ?? finish;
    assert.equal(finish, 'stop');
  });

  await step('the official Anthropic client, over HTTP/2 through a proxy', async () => {
    const client = new Anthropic({ baseURL: `${suite.edge()}/anthropic-client`, apiKey: DEMO_KEY, maxRetries: 0 });
    const asked = { model: 'Qwen3-8B', messages: [{ role: 'user', content: 'Write a line about the sea.' }], max_tokens: 50 };
    const mock = (behaviour) => ({ headers: { 'x-mock': behaviour } });
    const tunnels = proxy.connects.length;
    const whole = await client.messages.create(asked, mock('tokens=30'));
    assert.deepEqual([whole.stop_reason, whole.usage.output_tokens], ['end_turn', 30]);
    const text = (m) => m.content.map((b) => b.text ?? '').join('');
    assert.equal(text(await client.messages.stream(asked, mock('tokens=30;chunking=split:5')).finalMessage()), text(whole));
    const left = client.messages.stream({ ...asked, max_tokens: 4000 }, mock('tokens=4000;tps=20'));
    await new Promise((resolve) => { left.on('text', resolve); });
    left.abort();
    await assert.rejects(left.finalMessage(), (e) => e instanceof Anthropic.APIUserAbortError);
    await assert.rejects(client.messages.create({ ...asked, max_tokens: 'many' }), (e) => e.status === 400 && e.type === 'invalid_request_error');
    assert.ok(proxy.connects.slice(tunnels).includes(`llm.test:${new URL(secure.url).port}`));
    assert.equal(secure.versions.at(-1), '2.0');
  });

  await step('secrets are sealed and not shown; what is wrong is named', async () => {
    const shown = (await suite.must('GET', 'upstreams/tunnel')).json;
    assert.equal(shown.proxy.password, undefined);
    assert.equal(shown.proxy.password_set, true);
    assert.doesNotMatch(JSON.stringify((await suite.must('GET', 'config')).json), /pr0xy-s3cret/);
    const wrong = async (patch, pointer, words) => {
      const r = await suite.admin('PATCH', 'upstreams/h1', patch);
      assert.equal(r.status, 422, r.text);
      assert.ok(r.json.violations?.some((v) => v.pointer === pointer && words.test(v.message)), r.text);
    };
    await wrong({ transport: 'quic' }, '/transport', /direct, curl/);
    await wrong({ transport: 'direct', http: '2' }, '/http', /needs "transport": "curl"/);
    await wrong({ http: '3' }, '/http', /auto, 1.1, 2/);
    await wrong({ max_streams: 0 }, '/max_streams', /1/);
    await wrong({ proxy: { url: 'ftp://p:21' } }, '/proxy/url', /socks5/);
    await wrong({ proxy: { url: 'http://u:p@p:3128' } }, '/proxy/url', /no user and no password/);
    await wrong({ proxy: { url: 'http://p' } }, '/proxy/url', /name its port/);
    await wrong({ proxy: { url: 'http://p:1', password: 'x' } }, '/proxy/password', /needs a user/);
    await wrong({ proxy: { url: 'http://p:1', ca_file: '/x' } }, '/proxy/ca_file', /https/);
    await wrong({ proxy: { url: 'http://p:1' }, health_check: { type: 'tcp' } }, '/health_check/type', /models/);
    await suite.must('PATCH', 'upstreams/tunnel', { name: 'renamed' });
    await suite.applied();
    await fine('tunnel');
  });

  await step('log and metrics tell the transport', async () => {
    const lines = () => { // whole ones
      const text = fs.readFileSync(path.join(suite.dir, 'access.log'), 'utf8');
      return text.slice(0, text.lastIndexOf('\n')).split('\n').map((l) => JSON.parse(l));
    };
    await until('lines', () => lines().length > 20);
    const of = (route) => lines().filter((l) => l.route === route && l.status === 200);
    assert.deepEqual([of('h2').at(-1).transport, of('h2').at(-1).upstream_http], ['curl', '2']);
    assert.deepEqual([of('h11').at(-1).transport, of('h11').at(-1).upstream_http], ['curl', '1.1']);
    const samples = await suite.metricsOf('edge-1');
    const count = (name, labels) => sumOf(samples, name, labels);
    assert.ok(count('gateway_curl_answers_total', { upstream: 'h2', http: '2' }) > 50);
    assert.ok(count('gateway_curl_connections_total', { upstream: 'h2' }) < 20);
    assert.ok(count('gateway_curl_answers_total', { upstream: 'h11', http: '1.1' }) > 0);
  });

  await step('a server that takes no more of a request costs no work', async () => {
    const gone = new AbortController();
    const cpu = async () => (await suite.metricsOf('edge-1')).find((x) => x.name === 'process_cpu_seconds_total').value;
    const work = async (ms) => { const before = await cpu(); await delay(ms); return await cpu() - before; };
    const idle = await work(1000);
    const r = ask('h2', { front: 'deaf', text: 'word '.repeat(30000), signal: gone.signal }).catch(() => 'gone');
    await until('it is deaf', () => deaf.size > 0);
    await delay(300);
    const used = await work(2000);
    gone.abort();
    for (const x of deaf) x.destroy();
    assert.ok(used < (ASAN ? 1 : 0.3) + 3 * idle, `${used} s, and ${idle} s in half that time before`);
    assert.equal(await r, 'gone');
  });

  await step('many at once that end in every way: each is recorded once, and nothing is in flight', async () => {
    await until('all before are over', async () => await suite.edgeSum('gateway_inflight_requests') === 0);
    const recorded = async () => (await suite.ledger())[0].requests;
    const all = () => suite.edgeSum('gateway_requests_total');
    const before = await until('what was before is recorded', async () => { const n = await recorded(); return n === await all() && n; });
    const ways = [{}, { stream: true, mock: 'tokens=30;tps=200' }, { stream: true, front: 'rst-later' }, { front: 'rst' }, { model: 'cut-me', stream: true, mock: 'tokens=100;ignore_max' },
      { stream: true, front: 'open', leave: 30 }, { front: 'hang', leave: 20 }, { stream: true, mock: 'tokens=1000;tps=500', leave: 60 }, { stream: true, front: 'goaway' }];
    let made = 0, stayed = 0;
    const end = Date.now() + 4000;
    await Promise.all(Array.from({ length: 40 }, async (_, k) => {
      for (let i = k; Date.now() < end; i++) {
        const { leave, ...more } = ways[i % ways.length], gone = new AbortController();
        if (leave) setTimeout(() => gone.abort(), leave + (i % 50));
        made++;
        if (!leave) stayed++;
        await ask(i % 3 === 0 ? 'narrow' : 'h2', { ...more, signal: gone.signal }).then((r) => r.text()).catch(() => {});
      }
    }));
    await until('nothing is in flight', async () => await suite.edgeSum('gateway_inflight_requests') === 0);
    // A client may leave before its request has come: such a one is none.
    const n = await until('all are recorded', async () => { const r = await recorded(); return r === await all() && r - before; });
    assert.ok(n <= made && n >= stayed, `${n} of ${made}, of which ${stayed} stayed`);
    await fine('h2');
  });

  // The edge ends with a stream open.
  const last = await ask('h2', { stream: true, front: 'open' });
  await last.body.getReader().read();
});
