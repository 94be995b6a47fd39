// SPDX-License-Identifier: Apache-2.0
// The edge's own path where it is easily wrong: other spellings of what is metered, servers that break or answer early,
// what a record says of it, clients that read slowly, and ends in mid-answer.
import assert from 'node:assert/strict';
import { setTimeout as delay } from 'node:timers/promises';
import { Records } from './lib/records.mjs';
import { demoConfig, suiteTest } from './lib/suite.mjs';
import { PATIENCE, until } from './lib/util.mjs';
import { Wire } from './lib/wire.mjs';

const FIELDS = 'Host: edge\r\nX-Channel-Code: test-channel\r\nContent-Type: application/json\r\n';
const chat = (more = {}) => JSON.stringify({ model: 'Qwen3-8B', messages: [{ role: 'user', content: 'hello' }], ...more });
const post = (body, { path = '/api/chat', mock = '', fields = '' } = {}) =>
  `POST ${path} HTTP/1.1\r\n${FIELDS}${mock ? `x-mock: ${mock}\r\n` : ''}${fields}Content-Length: ${Buffer.byteLength(body)}\r\n\r\n${body}`;

// A suite whose test-channel has these policies.
const config = (change) => (suite) => {
  const c = demoConfig(suite);
  c.policies = [];
  c.upstreams[0].timeouts = { connect_ms: 8000, first_byte_ms: 8000, idle_ms: 5000, total_ms: 120000 };
  change?.(c, suite);
  return c;
};
async function ask(suite, bytes, { wire = new Wire(suite.edge()) } = {}) {
  wire.write(bytes);
  const a = await wire.answer();
  wire.close();
  return a;
}
const seen = async (suite, id) => JSON.parse(await (await fetch(`${suite.mock}/mock/requests?id=${id}`)).text()).at(-1);

suiteTest('what reaches a metered endpoint is metered', {
  config: config((c) => {
    c.policies = [{ slug: 'answer', namespace: 'test-channel', kind: 'output_tokens', limit: 20 }];
    // A matcher that needs the body: namespaces are decided when it is there.
    c.namespaces.push({ slug: 'by-model', name: 'by model', auth: 'none' });
    c.matchers.push({ slug: 'model', namespace: 'by-model', priority: 20, when: { source: 'model', op: 'equals', value: 'gpt-4o' } });
    c.routes.push({ slug: 'any', namespace: 'by-model', path: { prefix: '/' }, endpoint: 'chat', rewrite_path: '/v1/chat/completions', upstream: 'mock' });
    c.routes.push({ slug: 'auto', namespace: 'test-channel', path: { exact: '/auto' }, rewrite_path: '/v1/chat/completions', upstream: 'mock' });
  }),
}, async (suite, step) => {
  const records = await Records.of(suite);

  await step('on a path that says nothing, by the route', async () => {
    for (const path of ['/api/chat', '/auto']) {
      const a = await ask(suite, post(chat(), { path, mock: 'tokens=50;ignore_max' }));
      assert.equal(a.status, 200);
      assert.equal(JSON.parse(a.body).choices[0].finish_reason, 'length');
      const r = await records.for(a);
      assert.deepEqual([r.outcome, r.output_tokens, r.output_source], ['cut', 20, 'exact'], path);
    }
  });

  await step('a model chooses the namespace, whatever the path', async () => {
    const a = await ask(suite, post(chat({ model: 'gpt-4o' }), { path: '/x', mock: 'tokens=30' }));
    assert.equal(a.status, 200);
    const r = await records.for(a);
    assert.deepEqual([r.namespace, r.output_tokens], ['by-model', 30]);
    assert.equal((await ask(suite, post('{"model":"gpt-4o","model":"m"}', { path: '/x' }))).status, 400);
  });

  await step('other spellings of a path', async () => {
    for (const path of ['/v1/ch%61t/completions', '/v1/chat%2fcompletions', '/v1//chat/completions', '/v1/x/..;/chat/completions'])
      assert.equal((await ask(suite, post(chat(), { path }))).status, 400, path);
    for (const path of ['/v1/chat/completions/', '/v1/Chat/Completions', '/v1/chat/completions;a=b']) {
      const a = await ask(suite, post('{"model":1}', { path })); // read by the gateway
      assert.equal(a.status, 400, path);
      assert.equal(JSON.parse(a.body).error.param, 'model');
    }
    assert.equal((await ask(suite, post(chat(), { path: '/v1/chat/completions' }).replace('POST', 'PUT'))).status, 405);
  });

  await step('other spellings of a parameter', async () => {
    for (const more of ['"Model":"b"', '"MAX_TOKENS":9', '"stre\\u0061m":true,"stream":false'])
      assert.equal((await ask(suite, post(`{"messages":[],"model":"m",${more}}`))).status, 400, more);
  });

  await step('no bound of the request is above the limit, null is none', async () => {
    for (const more of [{ max_tokens: null }, { max_completion_tokens: null }, { max_tokens: 5000 }, {}]) {
      await ask(suite, post(chat(more), { mock: 'tokens=5;id=bound' }));
      const { body } = await seen(suite, 'bound');
      const twice = [...body.matchAll(/"max_(completion_)?tokens"/g)].map(([k]) => k);
      assert.equal(new Set(twice).size, twice.length, body);
      const sent = JSON.parse(body);
      assert.equal(sent.max_tokens ?? sent.max_completion_tokens, 20, body);
    }
  });
});

suiteTest('credentials of upstreams', {
  config: config((c) => { c.upstreams[0].auth = { type: 'header', header: 'api-key', credential: 'upstream-secret-1' }; }),
}, async (suite, step) => {
  await step('only ours goes upstream', async () => {
    await ask(suite, post(chat(), { mock: 'tokens=2;id=auth', fields: 'API-Key: mine\r\nAuthorization: Bearer mine\r\nx-api-key: mine\r\nCookie: mine\r\nProxy-Authorization: mine\r\n' }));
    const { raw_headers: raw } = await seen(suite, 'auth');
    assert.ok(!JSON.stringify(raw).includes('mine'), JSON.stringify(raw));
    assert.equal(JSON.stringify(raw).split('upstream-secret-1').length, 2);
  });
  await step('and never into a log or an answer', async () => {
    const a = await ask(suite, post(chat(), { mock: 'fail=garbage' }));
    assert.ok(!a.body.includes('upstream-secret'));
    assert.ok(!suite.procs['edge-1'].text().includes('upstream-secret'));
  });
});

suiteTest('upstreams that break', { config: config() }, async (suite, step) => {
  const records = await Records.of(suite);

  await step('each attempt is one entry of the record', async () => {
    for (const [mock, stream, status, outcome, attempt] of [
      ['tokens=5', false, 200, 'ok', 200], ['tokens=5', true, 200, 'ok', 200],
      ['tokens=9;fail=reset_after:3', true, 200, 'upstream_error', 200], ['fail=hang_after:2', true, 200, 'timeout', 200],
      ['tokens=9;fail=reset_after:3', false, 502, 'upstream_error', 200], ['fail=refuse', false, 502, 'upstream_error', 0],
      ['fail=hang', true, 504, 'timeout', 0], ['fail=503', true, 503, 'upstream_error', 503]]) {
      const r = await records.for(await ask(suite, post(chat({ stream }), { mock })));
      assert.deepEqual([r.status, r.outcome, r.attempts.map((a) => a.status ?? 0)], [status, outcome, [attempt]], `${mock} ${JSON.stringify(r)}`);
    }
    const wire = new Wire(suite.edge()); // a client that leaves before the answer
    wire.write(post(chat(), { mock: 'ttft_ms=60000' }));
    await until('it is upstream', async () => (await suite.edgeSum('gateway_inflight_requests')) === 1);
    wire.close();
    const r = await records.one('its record', (x) => x.outcome === 'client_gone');
    assert.deepEqual(r.attempts.map((a) => a.status ?? 0), [0]);
  });

  await step('a reset does not end an answer without length', async () => {
    const a = await ask(suite, post(chat(), { mock: 'tokens=200;framing=close;fail=reset_after:300' }));
    assert.equal(a.status, 502);
  });

  await step('a server that answers before it has the body', async () => {
    for (const size of [1000, 3e6, 8e6]) {
      const a = await ask(suite, post(chat({ user: 'x'.repeat(size) }), { mock: 'fail=early:413' }));
      assert.equal(a.status, 413, `${size}: ${a.body}`);
      assert.match(a.body.toString(), /did not want the body/);
      assert.equal((await ask(suite, post(chat(), { mock: 'tokens=3' }))).status, 200);
    }
  });

  await step('what breaks behind the end of a stream takes nothing from it', async () => {
    const a = await ask(suite, post(chat({ stream: true }), { mock: 'tokens=5;fail=long_length' }));
    assert.ok(a.whole);
    assert.match(a.body.toString(), /\[DONE\]\s*$/);
    assert.equal((await records.for(a)).outcome, 'ok');
  });

  await step('bytes behind an answer are never the next one\'s', async () => {
    for (let i = 0; i < 50; i++) {
      const a = await ask(suite, post(chat({ stream: i % 2 === 0 }), { mock: `echo=prompt${i % 3 ? '' : ';fail=extra_bytes'}` }));
      assert.deepEqual([a.status, a.whole], [200, true], a.body.toString());
    }
  });
});

const within = (what, promise) => Promise.race([promise, delay(PATIENCE, null, { ref: false }).then(() => { throw new Error(`no ${what} after ${PATIENCE} ms`); })]);

const unhurried = config((c) => { c.upstreams[0].timeouts.first_byte_ms = c.upstreams[0].timeouts.idle_ms = 2 * PATIENCE; });
const big = () => post(chat(), { mock: 'tokens=2500000' }); // some 13 MB: more than the kernel takes of it
suiteTest('clients that read slowly', { config: unhurried, env: { edge: { WRITE_TIMEOUT_MS: '10000', USE_PRECISE_TOKEN_CALCULATION: 'false' } } }, async (suite, step) => {
  const records = await Records.of(suite);

  await step('as long as they take something they get everything', async () => {
    const wire = new Wire(suite.edge());
    wire.write(big());
    await wire.have(1);
    const began = Date.now();
    while (Date.now() - began < 22000) { // far longer than the time for taking nothing
      wire.socket.pause();
      await delay(250);
      wire.socket.resume();
      await within('byte', new Promise((resolve) => wire.socket.once('data', resolve)));
      wire.socket.pause();
    }
    wire.socket.resume();
    const a = await within('end', wire.answer());
    assert.deepEqual([a.status, a.whole], [200, true]);
    assert.ok(a.body.length > 1e7);
    wire.close();
    assert.equal((await records.for(a)).outcome, 'ok');
  });

  await step('those that take nothing are let go', async () => {
    const wire = new Wire(suite.edge());
    wire.write(big());
    await wire.have(1);
    wire.socket.pause();
    await until('it is gone', async () => (await suite.edgeSum('gateway_connections')) === 0);
    wire.close();
  });

});

suiteTest('clients that send more than they read', { config: unhurried, env: { edge: { USE_PRECISE_TOKEN_CALCULATION: 'false' } } }, async (suite, step) => {
  await step('those that send requests and read no answers are stopped by the first', async () => {
    const before = (await suite.mockStats()).requests, upstream = async () => (await suite.mockStats()).requests - before;
    const wire = new Wire(suite.edge());
    wire.write(big() + post(chat(), { mock: 'tokens=1' }).repeat(20));
    await wire.have(1);
    wire.socket.pause();
    await until('the first is upstream', upstream);
    await delay(500); // less than what lets it go
    assert.equal(await upstream(), 1);
    wire.socket.resume();
    for (let i = 0; i < 21; i++) {
      const a = await within('answer', wire.answer());
      assert.deepEqual([a.status, a.whole], [200, true]);
    }
    wire.close();
  });

  await step('one that pipelines and leaves is gone at once', async () => {
    const wire = new Wire(suite.edge());
    wire.write(post(chat(), { mock: `ttft_ms=${2 * PATIENCE}` }) + post(chat({ user: 'x'.repeat(8000) })).repeat(5));
    await until('it is upstream', async () => (await suite.edgeSum('gateway_inflight_requests')) === 1);
    wire.socket.end();
    await until('it is gone', async () => (await suite.edgeSum('gateway_connections')) === 0);
    wire.close();
  });

  await step('an end of the process waits for an answer that is being read', async () => {
    const wire = new Wire(suite.edge());
    wire.write(big());
    await wire.have(1);
    wire.socket.pause();
    await until('the answer is whole', async () => (await suite.edgeSum('gateway_inflight_requests')) === 0);
    const stopped = suite.procs['edge-1'].stop();
    await delay(300);
    wire.socket.resume();
    assert.ok((await within('end', wire.answer())).whole);
    await stopped;
    wire.close();
  });
});

suiteTest('an end that does not wait', { config: config((c) => { c.upstreams[0].timeouts.first_byte_ms = 60000; }), env: { edge: { DRAIN_TIMEOUT_MS: '300' } } }, async (suite, step) => {
  await step('tells every client, and records every request', async () => {
    const records = await Records.of(suite);
    const stream = new Wire(suite.edge()), whole = new Wire(suite.edge()), half = new Wire(suite.edge());
    stream.write(post(chat({ stream: true }), { mock: 'tokens=5000;tps=50' }));
    whole.write(post(chat(), { mock: 'ttft_ms=50000' }));
    half.write(post(chat()).slice(0, -5));
    await stream.have(500);
    await until('all are under way', async () => (await suite.edgeSum('gateway_inflight_requests')) === 3);
    const stopped = suite.procs['edge-1'].stop();
    const [s, w, h] = await Promise.all([stream, whole, half].map((x) => x.answer()));
    assert.equal(s.whole, false);
    assert.match(s.body.toString(), /"error".*"draining"/);
    assert.deepEqual([w.status, JSON.parse(w.body).error.code], [503, 'draining']);
    assert.equal(w.headers.connection, 'close');
    assert.equal(h.status, 503);
    await stopped;
    for (const a of [s, w, h]) assert.equal((await records.for(a)).outcome, 'shutdown');
    assert.equal(records.all().length, 3);
    for (const x of [stream, whole, half]) x.close();
  });
});
