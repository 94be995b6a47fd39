// SPDX-License-Identifier: Apache-2.0
// Limits that need no counter, as a client meets them: access, body_size, input_tokens, output_tokens; and what shadow mode
// does with each.
import assert from 'node:assert/strict';
import net from 'node:net';
import { suiteTest, demoConfig } from './lib/suite.mjs';
import { until } from './lib/util.mjs';

const withPolicies = (policies, more = {}) => (suite) => ({
  ...demoConfig(suite), policies: policies.map((p) => ({ namespace: 'test-channel', ...p })), ...more,
});

// What a refusal by a policy looks like to a client of OpenAI's API.
async function assertRefused(r, status, code, policy) {
  const body = await r.json();
  assert.equal(r.status, status, JSON.stringify(body));
  assert.equal(body.error.code, code);
  assert.equal(r.headers.get('x-aigw-limit'), policy);
  return body.error;
}

suiteTest('access', {
  config: withPolicies([
    { slug: 'who', kind: 'access', rules: [
      { effect: 'deny', paths: ['/v1/embeddings'] },
      { effect: 'deny', models: ['forbidden-*'] },
      { effect: 'allow', networks: ['127.0.0.0/8'], methods: ['POST'] },
    ], otherwise: 'deny' },
    { slug: 'elsewhere', kind: 'access', mode: 'shadow', rules: [{ effect: 'allow', networks: ['203.0.113.0/24', '2001:db8::/32'] }], otherwise: 'deny' },
  ]),
}, async (suite, step) => {
  await step('the first rule that matches decides: model, path, method, network', async () => {
    const ok = await suite.chat({ mock: 'tokens=2' });
    assert.equal(ok.status, 200);
    await ok.arrayBuffer();
    const error = await assertRefused(await suite.chat({ model: 'forbidden-8B' }), 403, 'access_denied', 'who');
    assert.equal(error.type, 'permission_error');
    await assertRefused(await suite.chat({ path: '/v1/embeddings', input: 'x', messages: undefined }), 403, 'access_denied', 'who');
    await assertRefused(await fetch(`${suite.edge()}/v1/models`, { headers: { 'x-channel-code': 'test-channel' } }), 403, 'access_denied', 'who');
    assert.equal((await suite.mockStats()).requests, 1);
  });
  await step('in the words of Anthropic on its endpoint', async () => {
    const r = await suite.chat({ path: '/v1/messages', model: 'forbidden-8B', max_tokens: 5 });
    assert.equal(r.status, 403);
    assert.equal((await r.json()).error.type, 'permission_error');
  });
  await step('a policy in shadow mode tells and lets pass', async () => {
    await suite.counted(4, 'gateway_shadow_rejections_total', { policy: 'elsewhere', dimension: 'access' });
    await suite.counted(4, 'gateway_rejections_total', { policy: 'who', dimension: 'access' });
  });
});

// Sends a head, and the body only when asked to go on. Resolves with all that comes back.
function raw(url, head, body) {
  return new Promise((resolve, reject) => {
    const { hostname, port } = new URL(url);
    const s = net.connect(Number(port), hostname);
    let text = '', sent = false;
    s.on('data', (d) => {
      text += d;
      if (!sent && text.startsWith('HTTP/1.1 100')) { sent = true; s.write(body); }
    });
    s.on('end', () => s.end());
    s.on('close', () => resolve({ text, sent }));
    s.on('error', reject);
    s.write(head);
  });
}

suiteTest('body_size', {
  config: withPolicies([
    { slug: 'small', kind: 'body_size', limit: 1000 },
    { slug: 'tinier', kind: 'body_size', limit: 50, mode: 'shadow' },
  ]),
}, async (suite, step) => {
  const head = (length) => `POST /api/chat HTTP/1.1\r\nhost: x\r\nx-channel-code: test-channel\r\ncontent-type: application/json\r\nconnection: close\r\nexpect: 100-continue\r\n${length}\r\n\r\n`;
  await step('is refused by its length, before it is sent', async () => {
    const { text, sent } = await raw(suite.edge(), head('content-length: 1001'), 'x');
    assert.match(text, /^HTTP\/1\.1 413 /);
    assert.match(text, /x-aigw-limit: small/);
    assert.match(text, /body_too_large/);
    assert.equal(sent, false);
  });
  await step('and when it comes in chunks, where it passes the limit', async () => {
    const chunk = `100\r\n${'x'.repeat(256)}\r\n`;
    const { text, sent } = await raw(suite.edge(), head('transfer-encoding: chunked'), chunk.repeat(8));
    assert.equal(sent, true);
    assert.match(text, /HTTP\/1\.1 413 /);
  });
  await step('a limit in shadow mode only tells', async () => {
    const ok = await suite.chat({ text: 'x'.repeat(400), mock: 'tokens=1' });
    assert.equal(ok.status, 200);
    await ok.arrayBuffer();
    await suite.counted(1, 'gateway_shadow_rejections_total', { policy: 'tinier', dimension: 'body_size' });
  });
  await step('before a matcher has chosen by the model, the largest bound that is possible counts', async () => {
    const doc = (await suite.must('GET', 'config')).json;
    doc.namespaces.push({ slug: 'by-model', name: 'By model', auth: 'none' });
    doc.matchers.push({ slug: 'big', namespace: 'by-model', priority: 20,
      when: { source: 'model', op: 'equals', value: 'big-model' } });
    doc.routes.push({ slug: 'chat', namespace: 'by-model', path: { exact: '/api/chat' }, endpoint: 'chat',
      rewrite_path: '/v1/chat/completions', upstream: 'mock' });
    doc.policies.push({ slug: 'large', namespace: 'by-model', kind: 'body_size', limit: 5000 });
    await suite.importConfig(doc);
    await suite.applied();
    const big = await suite.chat({ model: 'big-model', text: 'x'.repeat(4000), mock: 'tokens=1' });
    assert.equal(big.status, 200);
    await big.arrayBuffer();
    await assertRefused(await suite.chat({ text: 'x'.repeat(4000) }), 413, 'body_too_large', 'small');
    await assertRefused(await suite.chat({ model: 'big-model', text: 'x'.repeat(6000) }), 413, 'body_too_large', 'large');
    // A key decides its namespace: that one has no limit.
    assert.notEqual((await suite.chat({ headers: { authorization: 'Bearer sk-aigw-0123456789abcdef0123456789abcdef', 'x-channel-code': 'none' },
      path: '/v1/chat/completions', text: 'x'.repeat(9000), mock: 'tokens=1' })).status, 413);
  });
});

suiteTest('input_tokens', {
  config: withPolicies([
    { slug: 'question', kind: 'input_tokens', limit: 30 },
    { slug: 'short', kind: 'input_tokens', limit: 5, mode: 'shadow' },
  ]),
}, async (suite, step) => {
  await step('is refused before anything is forwarded, in the words of a context that is too long', async () => {
    const error = await assertRefused(await suite.chat({ text: 'word '.repeat(40) }), 400, 'context_length_exceeded', 'question');
    assert.equal(error.type, 'invalid_request_error');
    assert.equal(error.param, 'messages');
    assert.match(error.message, /allows 30/);
    assert.equal((await suite.mockStats()).requests, 0);
  });
  await step('exactly at the limit it passes, one token more does not', async () => {
    const count = async (text) => (await (await fetch(`${suite.procs.token.url}/calculate`, { method: 'POST',
      headers: { 'content-type': 'application/json' }, body: JSON.stringify({ model: 'Qwen3-8B', messages: [{ role: 'user', content: text }] }) })).json()).tokens;
    let n = 1;
    while (await count(' a'.repeat(n)) < 30) n++;
    assert.equal(await count(' a'.repeat(n)), 30);
    const r = await suite.chat({ text: ' a'.repeat(n), mock: 'tokens=1' });
    assert.equal(r.status, 200);
    await r.arrayBuffer();
    await assertRefused(await suite.chat({ text: ' a'.repeat(n + 1) }), 400, 'context_length_exceeded', 'question');
  });
  await step('what shadow mode would have refused is counted, recorded as served, and told to who listens', async () => {
    const nc = await suite.nats();
    const sub = nc.subscribe('aigw.policy.rejected');
    const events = [];
    (async () => { for await (const m of sub) events.push(m.json()); })();
    await nc.flush();
    await until('an event of the shadow policy', async () => {
      await (await suite.chat({ mock: 'tokens=1' })).arrayBuffer();
      return events.some((e) => e.slug === 'short');
    }, { every: 200 });
    const e = events.find((x) => x.slug === 'short');
    assert.deepEqual([e.shadow, e.dimension, e.limit], [true, 'input_tokens', 5]);
    assert.ok(e.used > 5);
    await suite.counted((n) => n >= 2, 'gateway_shadow_rejections_total', { policy: 'short', dimension: 'input_tokens' });
  });
});

suiteTest('output_tokens', {
  config: withPolicies([
    { slug: 'answer', kind: 'output_tokens', limit: 40 },
    { slug: 'answer-of-others', kind: 'output_tokens', limit: 4, models: ['other-*'] },
  ]),
}, async (suite, step) => {
  await step('is of all choices together: each is asked for with its part', async () => {
    const r = await (await suite.chat({ n: 4, mock: 'tokens=100' })).json();
    assert.equal(r.choices.length, 4);
    assert.deepEqual(r.choices.map((c) => c.finish_reason), Array(4).fill('length'));
    assert.equal(r.usage.completion_tokens, 40);
  });
  await step('any of the names of the bound is clamped, whichever the server goes by', async () => {
    for (const name of ['max_tokens', 'max_completion_tokens', 'max_output_tokens']) {
      const r = await (await suite.chat({ [name]: 1000, mock: 'tokens=100' })).json();
      assert.equal(r.usage.completion_tokens, 40, name);
    }
    const less = await (await suite.chat({ max_tokens: 7, mock: 'tokens=100' })).json();
    assert.equal(less.usage.completion_tokens, 7);
  });
});
