// SPDX-License-Identifier: Apache-2.0
// The edge's own HTTP path over raw sockets: framing, pipelining, 100-continue, bounds, and streams however the upstream
// writes them.
import assert from 'node:assert/strict';
import net from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';
import { suiteTest, demoConfig } from './lib/suite.mjs';
import { PATIENCE, sseData, until } from './lib/util.mjs';

const unlimited = (suite) => ({ ...demoConfig(suite), policies: [] });

// Writes the pieces (a number is a pause in ms, an expression what has to come first) and returns what came until the
// server closed, or `until` was seen.
function raw(suite, pieces, { until: seen = () => false, ms = PATIENCE } = {}) {
  const { hostname, port } = new URL(suite.edge());
  return new Promise((resolve, reject) => {
    let out = '';
    const s = net.connect(Number(port), hostname);
    const end = setTimeout(() => { s.destroy(); reject(new Error(`no end after ${ms} ms: ${out.slice(0, 500)}`)); }, ms);
    const done = () => { clearTimeout(end); s.destroy(); resolve(out); };
    s.on('data', (d) => { out += d; if (seen(out)) done(); });
    s.on('close', done);
    s.on('error', done);
    (async () => {
      for (const p of pieces) {
        if (p instanceof RegExp) await until(`${p}`, () => p.test(out));
        else if (typeof p === 'number') await delay(p);
        else s.write(p);
      }
    })().catch(reject);
  });
}
const statuses = (text) => [...text.matchAll(/HTTP\/1\.1 (\d{3}) [A-Z]/g)].map((m) => Number(m[1]));

const FIELDS = 'Host: edge\r\nX-Channel-Code: test-channel\r\nContent-Type: application/json\r\n';
const body = (text) => JSON.stringify({ model: 'Qwen3-8B', messages: [{ role: 'user', content: text }] });
const post = (id, { fields = '', text = `hello ${id}` } = {}) =>
  `POST /api/chat HTTP/1.1\r\n${FIELDS}x-request-id: ${id}\r\nx-mock: tokens=3\r\n${fields}Content-Length: ${Buffer.byteLength(body(text))}\r\n\r\n${body(text)}`;

suiteTest('HTTP at the edge', { config: unlimited }, async (suite, step) => {
  await step('pipelined requests are answered in order', async () => {
    const ids = Array.from({ length: 30 }, (_, i) => `p${i}`);
    const out = await raw(suite, [ids.map((id) => post(id)).join('')], { until: (o) => statuses(o).length === 30 && /}\s*$/.test(o) });
    assert.deepEqual([...out.matchAll(/^x-request-id: (p\d+)/gm)].map((m) => m[1]), ids);
    assert.ok(statuses(out).every((s) => s === 200));
  });

  // As the edge reads: a block of 4 KB, then up to 120 KB at once, and a KB ahead.
  await step('bodies that end about where a read does, and what follows them', async () => {
    const ends = [4095, 4096, 5119, 8190, 126975, 131071, 132095, 249855, 262143].flatMap((n) => [n - 1, n, n + 1]);
    const sized = (id, n) => post(id, { text: ' international'.repeat(n / 14 + 1).slice(0, n - post(id, { text: '' }).length) });
    const ids = ends.map((n) => `s${n}`), exact = ends.map((n, i) => {
      const r = sized(ids[i], n);
      return r.length === n ? r : sized(ids[i], 2 * n - r.length); // the length's own digits
    });
    assert.deepEqual(exact.map((r) => r.length), ends);
    for (let i = 0; i < exact.length; i++) {
      const out = await raw(suite, [exact[i] + post('after')], { until: (o) => statuses(o).length === 2 && /}\s*$/.test(o) });
      assert.deepEqual(statuses(out), [200, 200], `a request of ${ends[i]} bytes`);
      assert.deepEqual([...out.matchAll(/^x-request-id: (\w+)/gm)].map((m) => m[1]), [ids[i], 'after']);
    }
  });

  await step('a request in single bytes is the same request', async () => {
    const out = await raw(suite, [...post('bytes')], { until: (o) => /}\s*$/.test(o) });
    assert.deepEqual(statuses(out), [200]);
  });

  await step('chunked bodies in any split, and what follows them', async () => {
    const b = body('chunked');
    const chunks = [...b].map((c) => `${Buffer.byteLength(c).toString(16)}\r\n${c}\r\n`).join('');
    const out = await raw(suite, [`POST /api/chat HTTP/1.1\r\n${FIELDS}Transfer-Encoding: chunked\r\n\r\n${chunks}`, 20, `0\r\n\r\n${post('next')}`],
      { until: (o) => statuses(o).length === 2 && /}\s*$/.test(o) });
    assert.deepEqual(statuses(out), [200, 200]);
  });

  await step('100-continue: only for a request that is taken', async () => {
    const b = body('patient');
    const head = `POST /api/chat HTTP/1.1\r\n${FIELDS}Expect: 100-continue\r\nContent-Length: ${b.length}\r\n\r\n`;
    assert.deepEqual(statuses(await raw(suite, [head, /100 Continue\r\n\r\n/, b], { until: (o) => /}\s*$/.test(o) })), [100, 200]);
    const refused = await raw(suite, [head.replace('test-channel', 'nobody')]);
    assert.deepEqual(statuses(refused), [404]);
    assert.match(refused, /^connection: close/m);
  });

  const bad = {
    'Content-Length with Transfer-Encoding': `POST /api/chat HTTP/1.1\r\n${FIELDS}Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n`,
    'two lengths': `POST /api/chat HTTP/1.1\r\n${FIELDS}Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello`,
    'a bare line feed': 'GET /healthz HTTP/1.1\nHost: edge\n\n',
    'a folded field': 'GET /healthz HTTP/1.1\r\nHost: edge\r\nA: b\r\n c\r\n\r\n',
    'space before a colon': 'GET /healthz HTTP/1.1\r\nHost : edge\r\n\r\n',
    'no Host': 'GET /healthz HTTP/1.1\r\n\r\n',
    'two Hosts': 'GET /healthz HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n',
    'a bad chunk size': `POST /api/chat HTTP/1.1\r\n${FIELDS}Transfer-Encoding: chunked\r\n\r\n0x5\r\nhello\r\n0\r\n\r\n`,
    'dot segments': `GET /v1/../secret HTTP/1.1\r\n${FIELDS}\r\n`,
    'encoded dot segments': `GET /v1/%2e%2e/secret HTTP/1.1\r\n${FIELDS}\r\n`,
  };
  await step('what can be read in two ways is refused and never forwarded', async () => {
    const before = (await suite.mockStats()).requests;
    for (const [what, text] of Object.entries(bad)) {
      const out = await raw(suite, [`${text}GET /healthz HTTP/1.1\r\nHost: edge\r\n\r\n`], { until: (o) => statuses(o).length === 2 });
      assert.equal(statuses(out)[0], 400, `${what}: ${out.slice(0, 200)}`);
    }
    assert.equal((await suite.mockStats()).requests, before);
  });

  await step('bounds: body, head, and fields', async () => {
    assert.equal(statuses(await raw(suite, [`POST /api/chat HTTP/1.1\r\n${FIELDS}Content-Length: 999999999\r\n\r\n`, 'x'.repeat(100000)]))[0], 413);
    assert.equal(statuses(await raw(suite, [`GET /healthz HTTP/1.1\r\nHost: edge\r\nA: ${'a'.repeat(70000)}\r\n\r\n`]))[0], 431);
    assert.equal(statuses(await raw(suite, [`GET /healthz HTTP/1.1\r\nHost: edge\r\n${'A: b\r\n'.repeat(200)}\r\n`]))[0], 431);
  });

  await step('the body goes upstream as it came, but for the splices', async () => {
    const text = `{ "model" : "Qwen3-8B",\n  "messages":[{"role":"user","content":"\\u0068i \\ud83d\\ude00"}], "odd": [1.0, 1e2 ,{}] }`;
    const r = await fetch(`${suite.edge()}/api/chat`, {
      method: 'POST', body: text,
      headers: { 'content-type': 'application/json', 'x-channel-code': 'test-channel', 'x-mock': 'id=exact', authorization: 'Bearer other', cookie: 'a=b', 'x-keep': 'me' },
    });
    assert.equal(r.status, 200);
    await r.arrayBuffer();
    const seen = JSON.parse(await (await fetch(`${suite.mock}/mock/requests?id=exact`)).text());
    const last = (seen.requests ?? seen).at(-1);
    assert.equal(last.body, text);
    const headers = Object.fromEntries(Object.entries(last.headers).map(([k, v]) => [k.toLowerCase(), v]));
    assert.equal(headers['x-keep'], 'me');
    for (const gone of ['authorization', 'cookie']) assert.equal(headers[gone], undefined);
  });

  await step('however the upstream writes its stream, the client reads the same', async () => {
    let want = null;
    for (const chunking of ['event', 'bytes:1', 'bytes:7', 'split:1', 'split:2', 'split:3', 'batch:5']) {
      const r = await suite.chat({ stream: true, mock: `tokens=40;chunking=${chunking}`, text: 'split' });
      const text = await r.text();
      const content = sseData(text).filter((d) => d !== '[DONE]').map((d) => JSON.parse(d).choices[0]?.delta?.content ?? '').join('');
      assert.ok(text.endsWith('data: [DONE]\n\n'));
      assert.ok(!text.includes('usage'), 'the usage that the gateway asked for stays with it');
      want ??= content;
      assert.equal(content, want, chunking);
    }
  });

  await step('an upstream that breaks off never looks complete', async () => {
    for (const fail of ['reset_after:3', 'close_after:3', 'bad_chunk']) {
      const r = await suite.chat({ stream: true, mock: `tokens=50;tps=200;fail=${fail}` });
      let text = '', broke = false;
      try {
        for await (const piece of r.body) text += Buffer.from(piece);
      } catch {
        broke = true;
      }
      assert.ok(!text.includes('[DONE]'), fail);
      assert.ok(broke || text.includes('"error"'), `${fail}: ${text.slice(-200)}`);
    }
    const whole = await suite.chat({ mock: 'fail=reset_after:0' });
    assert.equal(whole.status, 502);
    assert.equal((await whole.json()).error.type, 'upstream_error');
  });

  await step('a client that leaves closes the upstream, and is recorded', async () => {
    const abort = new AbortController();
    const r = await suite.chat({ stream: true, mock: 'tokens=100000;tps=50;tag=leaver', signal: abort.signal });
    const reader = r.body.getReader();
    await reader.read();
    abort.abort();
    await suite.left('leaver');
    await until('the record', async () => (await suite.ledger({ group_by: ['outcome'] })).some((g) => g.outcome === 'client_gone'));
    await until('nothing in flight', async () => (await suite.edgeSum('gateway_open_streams')) === 0);
  });
});
