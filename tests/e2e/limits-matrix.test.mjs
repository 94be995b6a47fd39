// SPDX-License-Identifier: Apache-2.0
// Every kind of limit with every algorithm, in every mode, with every word for an engine that is away, on both stores: each
// combination once, on small windows. What each of them promises in detail is in the other files of limits.
import assert from 'node:assert/strict';
import { setTimeout as delay } from 'node:timers/promises';
import { suiteTest, demoConfig } from './lib/suite.mjs';
import { PATIENCE, sumOf, until } from './lib/util.mjs';

const AT_ONCE = 10, LIMIT = 4, WINDOW_S = 3, TOKENS = 10;
const rate = { limit: LIMIT, window: `${WINDOW_S}s` };
const tokens = { kind: 'token_rate', count: 'output', limit: LIMIT * TOKENS, window: `${WINDOW_S}s` };
// most: of AT_ONCE requests at the same time that took so many windows, as many as may pass.
const bucket = (windows) => LIMIT * (1 + windows), sliding = (windows) => LIMIT * (1 + Math.floor(windows)), fixed = (windows) => LIMIT * (2 + Math.floor(windows));
const ROWS = {
  'request-bucket': { kind: 'request_rate', ...rate, algorithm: 'bucket', burst: LIMIT, most: bucket },
  'request-sliding': { kind: 'request_rate', ...rate, algorithm: 'sliding', most: sliding },
  'request-fixed': { kind: 'request_rate', ...rate, algorithm: 'fixed', most: fixed },
  'token-bucket': { ...tokens, algorithm: 'bucket', burst: LIMIT * TOKENS, most: bucket },
  'token-sliding': { ...tokens, algorithm: 'sliding', most: sliding },
  'token-fixed': { ...tokens, algorithm: 'fixed', most: fixed },
  slots: { kind: 'concurrency', limit: 2, most: () => 2, long: true },
  'quota-requests': { kind: 'quota', unit: 'requests', period: 'day', limit: LIMIT, most: () => LIMIT },
  'quota-tokens': { kind: 'quota', unit: 'tokens', count: 'output', period: 'day', limit: LIMIT * TOKENS, most: () => LIMIT },
  'quota-cost': { kind: 'quota', unit: 'cost', currency: 'USD', period: 'day', limit: LIMIT * TOKENS * 100, most: () => LIMIT },
};
const COLUMNS = { share: {}, deny: {}, allow: {}, shadow: { mode: 'shadow', on_unavailable: 'deny' } };
const modelOf = (row) => `m-${row}`;

// A namespace for each column, since a request is counted by 16 limits at most.
const config = (suite) => {
  const demo = demoConfig(suite), columns = Object.keys(COLUMNS);
  return {
    ...demo,
    namespaces: columns.map((c) => ({ slug: c, name: c, auth: 'none' })),
    matchers: columns.map((c) => ({ slug: c, namespace: c, priority: 10, when: { source: 'header', name: 'x-channel-code', op: 'equals', value: c } })),
    models: Object.keys(ROWS).map((r) => ({ slug: modelOf(r), name: modelOf(r), vocabulary: 'qwen3',
      price: { currency: 'USD', revision: 1, input_nano: 0, output_nano: 100 } })),
    routes: columns.map((c) => ({ ...demo.routes[0], slug: c, namespace: c })),
    keys: [],
    policies: columns.flatMap((c) => Object.entries(ROWS).map(([row, { most: _, long: __, ...p }]) => (
      { slug: `${c}-${row}`, namespace: c, models: [modelOf(row)], on_unavailable: c, ...p, ...COLUMNS[c] }))),
  };
};

async function ask(suite, column, row, edge = 1) {
  const r = await suite.chat({ edge, model: modelOf(row), max_tokens: TOKENS, mock: `tokens=${TOKENS};ignore_max`, headers: { 'x-channel-code': column } });
  const body = await r.json();
  return { status: r.status, by: r.headers.get('x-aigw-limit'), code: body.error?.code, body };
}
// One that goes on, and has what it was given, until it is told to leave.
async function hold(suite, column, row) {
  const gone = new AbortController();
  const r = await suite.chat({ model: modelOf(row), stream: true, mock: 'tokens=100000;ignore_max;tps=5', headers: { 'x-channel-code': column }, signal: gone.signal });
  return { status: r.status, by: r.headers.get('x-aigw-limit'), r, leave: () => gone.abort() }; // r: one that is collected is let go
}
const each = (fn) => Promise.all(Object.keys(COLUMNS).flatMap((c) => Object.keys(ROWS).map((r) => fn(c, r))));

for (const counter of ['memory', 'redis']) {
  suiteTest(`every kind, algorithm and mode, on ${counter}`, { counter, edges: 2, config, env: { edge: { ASK_TIMEOUT_MS: '5000' }, policy: { COUNTER_TIMEOUT_MS: '4000' } } }, async (suite, step) => {
    let begun = Date.now();
    await until('the engine knows both edges', async () => sumOf(await suite.metricsOf('policy-1'), 'aigw_policy_edges') === 2);
    // One that began alone was told that all is its own; the engine goes by the last two that it told an edge, with replies.
    for (const row of ['slots', 'request-bucket', 'request-sliding']) await until(`the second edge is told, with ${row}`, async () => (await ask(suite, 'allow', row, 2)).status === 200);

    await step('each enforces its limit, or tells in shadow mode that it would have', async () => {
      for (const row of Object.keys(ROWS)) {
        const { most, long } = ROWS[row], begin = Date.now();
        await Promise.all(Object.keys(COLUMNS).map(async (column) => {
          const slug = `${column}-${row}`;
          let got;
          // What an edge had in hand that stood still for longer than its lease is had again in the next window.
          for (let tries = 0; tries < 5; tries++) {
            if (tries > 0) await delay(WINDOW_S * 1000);
            got = await Promise.all(Array.from({ length: AT_ONCE }, () => (long ? hold : ask)(suite, column, row)));
            for (const g of got) g.leave?.();
            if (got.some((g) => g.status !== 429)) break;
          }
          const may = most((Date.now() - begin) / 1000 / WINDOW_S);
          const passed = got.filter((g) => g.status === 200);
          // The last of those that are limited by tokens may get what is left.
          const ok = /token|cost/.test(row) ? passed.reduce((n, g) => n + g.body.usage.completion_tokens / TOKENS, 0) : passed.length;
          if (column === 'shadow') {
            assert.equal(ok, AT_ONCE, `${slug}: ${JSON.stringify(got.find((g) => g.status !== 200))}`);
            if (may < AT_ONCE) await suite.counted((would) => would > 0 && would <= AT_ONCE, 'gateway_shadow_rejections_total', { policy: slug });
            return;
          }
          assert.ok(passed.length >= 1 && ok <= may, `${slug}: ${ok} passed, ${may} may: ${JSON.stringify(got[0])}`);
          for (const g of got.filter((x) => x.status !== 200)) assert.deepEqual([g.status, g.by], [429, slug]);
        }));
      }
    });

    await step('each uses what it may: nothing is left of a quota', async () => {
      for (const [unit, least] of Object.entries({ requests: 1, tokens: 1, cost: 100 }))
        for (const column of ['share', 'deny']) {
          const row = `quota-${unit}`, slug = `${column}-${row}`;
          await until(`${slug} is used up`, async () => (await ask(suite, column, row)).status === 429 &&
            (await suite.must('GET', `policies/${slug}/usage?namespace=${column}`)).json.counters[0].left < least);
          assert.equal((await ask(suite, column, row)).code, 'insufficient_quota');
        }
    });

    await step('an edge that was killed is silent: its share is set aside until an operator removes it', async () => {
      assert.equal((await suite.admin('DELETE', 'instances/edge-2')).status, 409);
      await suite.procs['edge-2'].kill();
      begun = Date.now();
      await until('it is silent', async () => sumOf(await suite.metricsOf('policy-1'), 'aigw_policy_silent_edges') === 1);
    });

    // What keeps the counters: the engine, or Redis behind it.
    const keeper = suite.procs[counter === 'redis' ? 'redis' : 'policy-1'];
    await step('while it is away: deny refuses, allow lets pass, share goes on with a share, shadow is in nobody\'s way', async () => {
      keeper.signal('SIGSTOP');
      try {
        await until('it is noticed', async () => (await ask(suite, 'deny', 'request-sliding')).status === 503, { every: 50 });
        const passed = {};
        await each(async (column, row) => {
          const slug = `${column}-${row}`, end = Date.now() + (row.startsWith('quota') ? (WINDOW_S + 1) * 1000 : PATIENCE);
          for (let i = 0; i < 3 || (column === 'share' && Date.now() < end && !passed[row]); i++) {
            const g = await ask(suite, column, row);
            if (column === 'share') {
              assert.ok(g.status === 200 || (g.status === 429 && g.by === slug), `${slug}: ${g.status} ${g.code}`);
              if (g.status === 200) passed[row] = true;
              await delay(100);
            } else if (column === 'deny' && g.status !== 429) {
              // What this edge was told a moment ago it still knows: 429.
              assert.deepEqual([g.status, g.code, g.by], [503, 'limiter_unavailable', slug]);
            } else if (column !== 'deny') {
              assert.equal(g.status, 200, `${slug}: ${g.code}`);
            }
          }
          if (column === 'deny') assert.equal((await ask(suite, column, row)).status, 503, slug);
        });
        // Rates and slots have a share at any time; of a quota that is used up there is none.
        assert.deepEqual(Object.keys(passed).sort(), Object.keys(ROWS).filter((r) => !r.startsWith('quota')).sort());
      } finally {
        keeper.signal('SIGCONT');
      }
    });

    await step('when it is back, each goes on by itself', () => each(async (column, row) => {
      const want = row.startsWith('quota') && column !== 'shadow' ? 429 : 200;
      await until(`${column}-${row} answers ${want}`, async () => (await ask(suite, column, row)).status === want, { every: 150 });
    }));

    if (counter === 'memory') await step('the operator removes the edge, and the others have all of the limit again', async () => {
      await until('it counts as gone', async () => (await suite.admin('DELETE', 'instances/edge-2')).status === 204, { every: 500 });
      assert.ok(Date.now() - begun > 10000); // not while it may come back
      await until('nobody is silent', async () => sumOf(await suite.metricsOf('policy-1'), 'aigw_policy_silent_edges') === 0);
      await until('only the other is listed', async () => {
        const { items } = (await suite.must('GET', 'instances')).json;
        return items.filter((i) => i.service === 'edge').map((i) => i.instance).join() === 'edge-1';
      });
      assert.equal((await suite.admin('DELETE', `instances/${'x'.repeat(200)}`)).status, 404);
    });
  });
}

suiteTest('more counters than there is room for', {
  env: { policy: { COUNTERS_MAX: '16' } },
  config: (suite) => ({ ...demoConfig(suite), policies: [{ slug: 'each', namespace: 'test-channel', kind: 'request_rate', limit: 8, window: '1m',
    algorithm: 'sliding', per: ['header:x-client'], on_unavailable: 'deny' }] }),
}, async (suite, step) => {
  const send = async (client) => {
    const r = await suite.chat({ mock: 'tokens=1', headers: { 'x-client': `client-${client}` } });
    await r.arrayBuffer();
    return r.status;
  };
  await step('how full a limit is can be seen at the edge and at the engine', async () => {
    for (let i = 0; i < 4; i++) assert.equal(await send(0), 200);
    // What an edge has in hand when it stands still for longer than its lease counts as used.
    await suite.counted((used) => used >= 0.5 && used <= 1, 'gateway_limit_utilization_ratio', { policy: 'each' });
    await until('the engine tells it too', async () => sumOf(await suite.metricsOf('policy-1'), 'aigw_policy_utilization_ratio', { policy: 'each' }) >= 0.125);
  });
  await step('further keys share one counter, which is counted and logged once', async () => {
    const statuses = [];
    for (let i = 1; i <= 40; i++) statuses.push(await send(i));
    // Of the 16 the first key has one, and one is shared: 14 more have their own, the others have 8 among them, or less if
    // an edge has some of these in hand while it stands still for longer than its lease.
    const ok = statuses.filter((s) => s === 200).length;
    assert.ok(ok > 14 && ok <= 14 + 8, `${statuses}`);
    await until('it is counted', async () => sumOf(await suite.metricsOf('policy-1'), 'aigw_policy_overflows_total') > 0);
    const word = /more counters than COUNTERS_MAX/g;
    await until('it is in the log', () => word.test(suite.procs['policy-1'].text()));
    for (let i = 41; i <= 50; i++) await send(i);
    assert.equal(suite.procs['policy-1'].text().match(word).length, 1);
  });
});
