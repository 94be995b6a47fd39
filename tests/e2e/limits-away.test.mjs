// SPDX-License-Identifier: Apache-2.0
// What happens while the policy engine, NATS or Redis is away, killed, frozen or empty: what each policy says, within its
// time, and back to normal without a restart.
import assert from 'node:assert/strict';
import { setTimeout as delay } from 'node:timers/promises';
import { suiteTest, demoConfig } from './lib/suite.mjs';
import { PATIENCE, sumOf, until } from './lib/util.mjs';

const MODES = ['share', 'deny', 'allow'];
// What an edge waits; what an answer may take at most on a slow machine: still far less than until something is back.
const ASK_MS = 500, ANSWER_MS = 20000;

const limits = (suite) => ({
  ...demoConfig(suite),
  policies: [
    ...MODES.map((mode) => ({ slug: mode, namespace: 'test-channel', kind: 'request_rate', limit: 40, window: '1s', algorithm: 'bucket',
      on_unavailable: mode, models: [`m-${mode}`] })),
    { slug: 'slots', namespace: 'test-channel', kind: 'concurrency', limit: 4, on_unavailable: 'share', models: ['m-slots'] },
    { slug: 'strict', namespace: 'test-channel', kind: 'concurrency', limit: 4, strict: true, on_unavailable: 'deny', models: ['m-strict'] },
    { slug: 'tokens', namespace: 'test-channel', kind: 'token_rate', count: 'output', limit: 3000, window: '1s', on_unavailable: 'deny', models: ['m-tokens'] },
  ],
});

// One request; asserts that it did not wait longer than it may.
async function ask(suite, model, extra = {}) {
  const begin = Date.now();
  const r = await suite.chat({ model, mock: 'tokens=1', ...extra });
  const body = await r.json();
  const ms = Date.now() - begin;
  assert.ok(ms < ANSWER_MS, `${model}: answered after ${ms} ms`);
  return { status: r.status, code: body.error?.code, retry: r.headers.get('retry-after'), policy: r.headers.get('x-aigw-limit') };
}
const works = (suite, model) => until(`${model} works`, async () => (await ask(suite, model)).status === 200, { every: 100 });

// While it is away: what each mode does.
async function eachMode(suite) {
  await until('deny refuses', async () => {
    const r = await ask(suite, 'm-deny');
    if (r.status === 200) return false;
    assert.deepEqual([r.status, r.code, r.policy], [503, 'limiter_unavailable', 'deny']);
    assert.match(r.retry, /^[1-9]/);
    return true;
  }, { every: 100 });
  for (let i = 0; i < 5; i++) assert.equal((await ask(suite, 'm-deny')).status, 503);
  for (let i = 0; i < 60; i++) assert.equal((await ask(suite, 'm-allow')).status, 200);
  // A share: some pass, and not more than the share.
  let ok = 0, refused = 0;
  const begin = Date.now();
  while (Date.now() - begin < 1500 || (ok === 0 && Date.now() - begin < PATIENCE)) {
    const r = await ask(suite, 'm-share');
    if (r.status === 200) ok++;
    else { assert.equal(r.status, 429); refused++; }
    await delay(5);
  }
  const seconds = (Date.now() - begin) / 1000;
  assert.ok(ok > 0, 'nothing of the share');
  assert.ok(ok <= 40 * (seconds + 1) + 1, `${ok} in ${seconds} s`);
  return { ok, refused };
}

// A stream, as soon as the engine answers for it in time.
function opened(suite, model, mock) {
  return until(`${model} opens a stream`, async () => {
    const r = await suite.chat({ model, stream: true, mock });
    if (r.status !== 200) await r.arrayBuffer();
    return r.status === 200 && r;
  });
}

const faults = {
  memory: {
    'the policy engine is killed': { away: (s) => s.procs['policy-1'].kill(), back: (s) => s.procs['policy-1'].start().waitReady() },
    'the policy engine is frozen': { away: (s) => s.procs['policy-1'].signal('SIGSTOP'), back: (s) => s.procs['policy-1'].signal('SIGCONT') },
    'NATS is gone': { away: (s) => s.procs.nats.kill(), back: (s) => s.procs.nats.start().waitReady() },
  },
  redis: {
    'Redis is frozen': { away: (s) => s.procs.redis.signal('SIGSTOP'), back: (s) => s.procs.redis.signal('SIGCONT') },
    'Redis is gone': { away: (s) => s.procs.redis.kill(), back: (s) => s.procs.redis.start() },
  },
};

for (const [counter, table] of Object.entries(faults))
  suiteTest(`without the allocator, on ${counter}`, { counter, config: limits, env: { edge: { ASK_TIMEOUT_MS: `${ASK_MS}` }, policy: { COUNTER_TIMEOUT_MS: `${0.8 * ASK_MS}` } } }, async (suite, step) => {
    for (const m of [...MODES, 'slots', 'strict', 'tokens']) await works(suite, `m-${m}`);
    // An engine that began just now does not know among how many edges the limits are shared.
    await until('edges are told their shares', async () => sumOf(await suite.metricsOf('policy-1'), 'aigw_policy_edges') === 1);
    for (let i = 0; i < 3; i++) { await delay(60); await works(suite, 'm-share'); await works(suite, 'm-slots'); }
    for (const [name, fault] of Object.entries(table))
      await step(`${name}: each policy goes by its word, nothing waits, and all is well again afterwards`, async () => {
        await fault.away(suite);
        const { ok } = await eachMode(suite);
        assert.ok(ok > 0);
        for (const [decision, least] of [['deny', 5], ['allow', 50], ['share', 1]])
          assert.ok(await suite.edgeSum('gateway_limiter_unavailable_total', { decision }) >= least, decision);
        assert.match(suite.procs['edge-1'].text(), /requests pass limits that say allow, uncounted/);
        await fault.back(suite);
        for (const m of [...MODES, 'slots', 'tokens']) await works(suite, `m-${m}`);
      });
    if (counter === 'redis') await step('Redis is flushed: nothing passes the limit, and it goes on without a restart', async () => {
      await suite.redis('FLUSHALL');
      await works(suite, 'm-deny');
      await works(suite, 'm-tokens');
    });
    if (counter === 'memory') await step('a stream under a limit of tokens ends where its tokens end when the engine goes away', async () => {
      const r = await opened(suite, 'm-tokens', 'tokens=200000;tps=300');
      const text = r.text();
      await delay(300);
      suite.procs['policy-1'].signal('SIGSTOP');
      const all = await text; // a minute and more of it, if it went on
      assert.match(all, /"finish_reason":"length"/);
      assert.match(all, /\[DONE\]/);
      suite.procs['policy-1'].signal('SIGCONT');
      await works(suite, 'm-tokens');
    });
    if (counter === 'memory') await step('running requests keep their slots; those under a strict limit are cut when their lease has ended', async () => {
      // Leases end after 2 s: one stream outlasts that and ends by itself, the other must not come to its end, in a minute.
      const cut = await opened(suite, 'm-strict', 'tokens=4000;tps=60'), kept = await opened(suite, 'm-slots', 'tokens=200;tps=60');
      suite.procs['policy-1'].signal('SIGSTOP');
      const broken = await cut.text().catch(() => 'broken off');
      assert.ok(!broken.includes('[DONE]'));
      assert.match(await kept.text(), /\[DONE\]/);
      suite.procs['policy-1'].signal('SIGCONT');
      for (const m of ['slots', 'strict']) await works(suite, `m-${m}`);
    });
  });

suiteTest('an edge that never had work dies', {
  edges: 2, config: (suite) => ({ ...demoConfig(suite), policies: [{ slug: 'twenty', namespace: 'test-channel', kind: 'request_rate', limit: 20, window: '1h' }] }),
}, async (suite, step) => {
  await step('it was told no share, so that nothing is set aside for it', async () => {
    const edges = (n, metric = 'edges') => until(`${n} ${metric}`, async () => sumOf(await suite.metricsOf('policy-1'), `aigw_policy_${metric}`) === n);
    await edges(2);
    await suite.procs['edge-2'].stop(); // it signs off, and comes as one that was not heard of
    await edges(1);
    await suite.procs['edge-2'].start().waitReady();
    await edges(2);
    await suite.procs['edge-2'].kill();
    await edges(1, 'silent_edges');
    let ok = 0;
    while (ok <= 20 && (await ask(suite, 'Qwen3-8B')).status === 200) ok++;
    // What an edge has in hand when it stands still for longer than its lease counts as used; a share would be half of it.
    assert.ok(ok <= 20 && ok > 14, `${ok} of 20`);
  });
});
