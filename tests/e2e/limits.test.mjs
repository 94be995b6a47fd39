// SPDX-License-Identifier: Apache-2.0
// Limits as a client meets them: the request after the last allowed one, an answer that is cut at its last token, slots
// that come back. Exactness over many edges and faults is for the simulator and the chaos tests.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { bucket, readLogs, sliding } from '../chaos/bounds.mjs';
import { suiteTest, demoConfig } from './lib/suite.mjs';
import { again, never, PATIENCE, sseData, until } from './lib/util.mjs';
import { Wire } from './lib/wire.mjs';

// The demo with its limits replaced.
const withPolicies = (...policies) => (suite) => ({ ...demoConfig(suite), policies: policies.map((p) => ({ namespace: 'test-channel', ...p })) });

suiteTest('a limit of requests per window', {
  edges: 2, config: withPolicies({ slug: 'three', kind: 'request_rate', limit: 3, window: '10m', algorithm: 'sliding', per: ['header:x-round'] }),
}, async (suite, step) => {
  let rounds = 0, admitted = 0;
  await step('admits exactly so many, over both edges, and refuses the next in the words of the API', async () => {
    // What an edge has in hand that stands still for longer than its lease counts as used: then another round shows it.
    let ok, refused;
    do {
      rounds++;
      const results = await Promise.all(Array.from({ length: 12 }, (_, i) => suite.chat({ edge: 1 + i % 2, headers: { 'x-round': `${rounds}` } })));
      ok = results.filter((r) => r.status === 200), refused = results.filter((r) => r.status === 429);
      admitted += ok.length;
      assert.equal(ok.length + refused.length, 12);
      assert.ok(ok.length <= 3, `${ok.length} of 3`);
    } while (ok.length < 3 && rounds < 5);
    assert.equal(ok.length, 3);
    const r = refused[0], body = await r.json();
    assert.equal(body.error.code, 'rate_limit_exceeded');
    assert.equal(body.error.type, 'requests');
    assert.match(r.headers.get('retry-after'), /^[1-9]\d*$/);
    assert.ok(Number(r.headers.get('retry-after')) <= 600);
    assert.equal(r.headers.get('x-aigw-limit'), 'three');
    assert.equal(r.headers.get('x-ratelimit-limit-requests'), '3');
    await Promise.all([...ok, ...refused.slice(1)].map((x) => x.arrayBuffer()));
  });
  await step('refusals are counted and recorded, and never reach the upstream', async () => {
    await suite.settled(12 * rounds);
    assert.equal((await suite.mockStats()).requests, admitted);
    await suite.counted(12 * rounds - admitted, 'gateway_rejections_total', { policy: 'three' });
    const groups = await suite.ledger({ group_by: ['outcome'] });
    assert.deepEqual(Object.fromEntries(groups.map((g) => [g.outcome, g.requests])), { ok: admitted, rejected: 12 * rounds - admitted });
  });
});

// Every algorithm on both stores, over four edges: what is admitted in any window, by the clocks of the edges, and that it
// goes on in the windows that follow, however long a machine takes for them.
for (const counter of ['memory', 'redis'])
  suiteTest(`algorithms over four edges, on ${counter}`, {
    edges: 4, counter,
    config: withPolicies(
      { slug: 'minute', kind: 'request_rate', limit: 3, window: '1m', algorithm: 'sliding', models: ['minute'] },
      { slug: 'sliding', kind: 'request_rate', limit: 6, window: '2s', algorithm: 'sliding', models: ['sliding'] },
      { slug: 'bucket', kind: 'request_rate', limit: 4, window: '1s', algorithm: 'bucket', burst: 5, models: ['bucket'] },
      { slug: 'fixed', kind: 'request_rate', limit: 6, window: '2s', algorithm: 'fixed', models: ['fixed'] },
      { slug: 'all', kind: 'concurrency', limit: 100, models: ['minute', 'sliding', 'bucket', 'fixed'] },
    ),
    env: Object.fromEntries([1, 2, 3, 4].map((k) => [`edge-${k}`, { ADMISSION_LOG: `edge-${k}.admissions` }])),
  }, async (suite, step) => {
    const ENOUGH = { minute: 3, sliding: 12, bucket: 15, fixed: 12 }; // more than any window has
    const LEAST_S = 5;
    await step('each holds in every interval, and lets pass what it can', async () => {
      const begin = Date.now(), admitted = { minute: 0, sliding: 0, bucket: 0, fixed: 0 }, refused = { ...admitted };
      const goes = () => Date.now() < begin + LEAST_S * 1000 || Object.keys(ENOUGH).some((m) => admitted[m] < ENOUGH[m] || refused[m] === 0);
      await Promise.all([1, 2, 3, 4].flatMap((edge) => Object.keys(ENOUGH).map(async (model) => {
        while (goes() && Date.now() < begin + PATIENCE) {
          const r = await suite.chat({ edge, model, mock: 'tokens=1' });
          await r.arrayBuffer();
          assert.ok(r.status === 200 || r.status === 429, `${model}: ${r.status}`);
          (r.status === 200 ? admitted : refused)[model]++;
          await delay(10);
        }
      })));
      const seconds = (Date.now() - begin) / 1000;
      const slugs = Object.fromEntries((await suite.must('GET', 'policies?limit=100')).json.items.map((p) => [p.id, p.slug]));
      const logs = readLogs([1, 2, 3, 4].map((k) => fs.readFileSync(path.join(suite.dir, `edge-${k}.admissions`), 'utf8')));
      const of = (slug) => Object.entries(logs).filter(([k]) => slugs[k.split(' ')[0]] === slug).flatMap(([, a]) => a);
      for (const [slug, n] of Object.entries(ENOUGH)) {
        assert.equal(of(slug).length, admitted[slug], slug);
        assert.ok(admitted[slug] >= n, `${slug}: ${admitted[slug]} in ${seconds} s`);
        assert.ok(refused[slug] > 0, `${slug}: none refused in ${seconds} s`);
      }
      assert.ok(sliding(of('minute'), 3, 60e9).used <= 3);
      assert.ok(sliding(of('sliding'), 6, 2e9).used <= 6);
      assert.ok(bucket(of('bucket'), 5, 4 / 1e9).used <= 5 + 1e-6);
      // Windows of a calendar: two of them touch any interval of their length.
      assert.ok(sliding(of('fixed'), 12, 2e9).used <= 12);
      assert.ok(of('fixed').length <= 6 * (seconds / 2 + 2), `fixed: ${of('fixed').length} in ${seconds} s`);
    });
  });

suiteTest('a limit per second', {
  config: withPolicies({ slug: 'qps', kind: 'request_rate', limit: 5, window: '1s' }),
}, async (suite, step) => {
  await step('admits no more than burst and rate together, and goes on afterwards', async () => {
    const begin = Date.now();
    let admitted = 0, refused = 0;
    const send = async () => {
      const r = await suite.chat({ mock: 'tokens=1' });
      await r.arrayBuffer();
      if (r.status === 200) admitted++; else { assert.equal(r.status, 429); refused++; }
    };
    // Three bursts of it, and several at a time, so that one is refused on a slow machine too.
    while ((admitted < 15 || refused === 0) && Date.now() - begin < PATIENCE) await Promise.all(Array.from({ length: 8 }, send));
    const seconds = (Date.now() - begin) / 1000;
    assert.ok(refused > 0, `none of ${admitted} refused in ${seconds} s`);
    assert.ok(admitted <= 5 + 5 * seconds, `${admitted} in ${seconds} s`);
    assert.ok(admitted >= 15, `only ${admitted} in ${seconds} s`);
  });
});

suiteTest('a limit of output tokens', {
  config: withPolicies({ slug: 'answer', kind: 'output_tokens', limit: 50 }),
}, async (suite, step) => {
  const N = 50;
  await step('a whole answer is asked for with no more', async () => {
    const r = await suite.chat({ mock: 'tokens=200' });
    const body = await r.json();
    assert.equal(body.usage.completion_tokens, N);
    assert.equal(body.choices[0].finish_reason, 'length');
  });
  await step('a stream whose model ignores max_tokens is cut at the last token, properly ended, and cancelled', async () => {
    // Slow enough that the upstream would go on for longer than anybody waits.
    const r = await suite.chat({ stream: true, mock: 'tokens=100000;ignore_max;tps=500;id=cut', stream_options: { include_usage: true } });
    const data = sseData(await r.text());
    assert.equal(data.at(-1), '[DONE]');
    const events = data.slice(0, -1).map((d) => JSON.parse(d));
    const text = events.map((e) => e.choices[0]?.delta?.content ?? '').join('');
    const finish = events.map((e) => e.choices[0]?.finish_reason).filter(Boolean);
    assert.deepEqual(finish, ['length']);
    const counted = await (await fetch(`${suite.procs.token.url}/calculate`, {
      method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify({ model: 'Qwen3-8B', text }),
    })).json();
    assert.equal(counted.tokens, N);
    assert.equal(events.at(-1).usage.completion_tokens, N);
    await until('the upstream is cancelled', async () => { const m = await suite.mockStats(); return m.aborted === 1 && m.streams.open === 0; });
  });
  await step('a whole answer of a model that ignores max_tokens is cut too', async () => {
    const r = await suite.chat({ mock: 'tokens=90;ignore_max' });
    const body = await r.json();
    assert.equal(body.choices[0].finish_reason, 'length');
    assert.equal(body.usage.completion_tokens, N);
  });
  await step('the ledger has what was delivered', async () => {
    const total = await suite.settled(3);
    assert.equal(total.output_tokens, 3 * N);
    const outcomes = await suite.ledger({ group_by: ['outcome'] });
    assert.equal(outcomes.find((g) => g.outcome === 'cut')?.requests >= 1, true);
  });
});

suiteTest('a limit of concurrency', {
  config: withPolicies({ slug: 'two', kind: 'concurrency', limit: 2 }),
}, async (suite, step) => {
  await step('refuses the third at a time, and takes the next when one has ended', async () => {
    const slow = [1, 2].map(() => new AbortController());
    const running = await Promise.all(slow.map((c) => suite.chat({ stream: true, mock: 'tokens=100000;tps=50', signal: c.signal })));
    assert.deepEqual(running.map((r) => r.status), [200, 200]);
    const third = await suite.chat({ mock: 'tokens=1' });
    assert.equal(third.status, 429);
    assert.equal((await third.json()).error.type, 'concurrency');
    slow[0].abort();
    await until('a slot is free again', async () => {
      const r = await suite.chat({ mock: 'tokens=1' });
      await r.arrayBuffer();
      return r.status === 200;
    });
    slow[1].abort();
  });
});

// Each request is sent when the last one's answer is whole, on another connection, which another worker may serve. Others
// want the processors, too: a worker loses its own right behind a send, and what comes back too late shows.
const STOOD_MS = 250; // a machine that stood still for longer may have lost its lease
suiteTest('a slot is free when its answer is there', {
  config: withPolicies({ slug: 'one', kind: 'concurrency', limit: 1 }), env: { edge: { EDGE_WORKERS: '8' } },
}, async (suite, step) => {
  const post = (mock, stream) => {
    const body = JSON.stringify({ model: 'Qwen3-8B', stream, messages: [{ role: 'user', content: 'x' }] });
    return `POST /api/chat HTTP/1.1\r\nHost: e\r\nX-Channel-Code: test-channel\r\nContent-Type: application/json\r\nx-mock: ${mock}\r\nContent-Length: ${body.length}\r\n\r\n${body}`;
  };
  const KINDS = [['whole', 'tokens=1', false, 200, 400], ['streamed', 'tokens=1', true, 200, 400], ['passed through', 'fail=400', false, 400, 400]];
  const busy = Array.from({ length: 2 * os.availableParallelism() }, () => spawn(process.execPath, ['-e', 'const end = Date.now() + 60000; while (Date.now() < end);']));
  for (const [what, mock, stream, status, times] of KINDS) {
    await step(`an answer ${what}`, () => again(async () => {
      const wires = Array.from({ length: 16 }, () => new Wire(suite.edge())), got = {};
      let longest = 0;
      for (let i = 0; i < times; i++) {
        const began = performance.now(), wire = wires[i % wires.length];
        wire.write(post(mock, stream));
        const answer = await wire.answer();
        got[answer.status] = (got[answer.status] ?? 0) + 1;
        longest = Math.max(longest, performance.now() - began);
      }
      for (const wire of wires) wire.close();
      never(longest <= STOOD_MS && got[status] !== times, JSON.stringify(got));
      assert.deepEqual(got, { [status]: times });
    }));
  }
  for (const p of busy) p.kill('SIGKILL'); // they end by themselves after a minute, too
});
