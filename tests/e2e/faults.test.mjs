// SPDX-License-Identifier: Apache-2.0
// Clients that leave, and kill -9 of every daemon in turn while load runs: what the mock sent is what the ledger has, and
// nothing stays behind.
import assert from 'node:assert/strict';
import { setTimeout as delay } from 'node:timers/promises';
import { demoConfig, patient, suiteTest } from './lib/suite.mjs';
import { sseData, until } from './lib/util.mjs';

// Limits far away, and none that refuses because the allocator took long: these tests are about what is lost.
const roomy = (suite) => ({ ...demoConfig(suite), policies: [
  { slug: 'many', kind: 'request_rate', limit: 100000, window: '1s' },
  { slug: 'wide', kind: 'concurrency', limit: 10000 },
  { slug: 'long', kind: 'output_tokens', limit: 100000 },
].map((p) => patient({ ...p, namespace: 'test-channel' })) });

suiteTest('a client that leaves', { config: roomy }, async (suite, step) => {
  const N = 20;
  await step('its upstream is closed', async () => {
    const gone = {};
    for (let i = 0; i < N; i++) {
      const c = new AbortController();
      const r = await suite.chat({ stream: true, mock: `tokens=100000;tps=100;tag=leave-${i}`, signal: c.signal });
      const reader = r.body.getReader();
      await reader.read();
      gone[`leave-${i}`] = Date.now();
      c.abort();
      await reader.read().catch(() => {});
    }
    const stats = await until('all are closed', async () => { const s = await suite.mockStats(); return s.aborted === N && s; });
    const after = stats.aborts.map((a) => a.at_ms - gone[a.tag]).sort((a, b) => a - b);
    console.log(`    closed after ${after[N / 2]} ms (median), ${after.at(-1)} ms (worst)`);
    assert.equal(after.length, N);
    await until('none is open', async () => (await suite.mockStats()).streams.open === 0);
  });
  await step('and its usage is recorded', async () => {
    await suite.settled(N);
    const groups = await suite.ledger({ group_by: ['outcome'] });
    assert.deepEqual(groups.map((g) => [g.outcome, g.requests]), [['client_gone', N]]);
    assert.ok(groups[0].output_tokens > 0);
    await suite.counted(0, 'gateway_open_streams');
    await suite.counted(0, 'gateway_inflight_requests');
  });
});

// Requests that never stop, half of them streamed, until told. Counts what the clients saw.
class Load {
  constructor(suite, { clients = 16, edges = 1 } = {}) {
    this.suite = suite;
    this.seen = { ok: 0, tokens: 0, failed: 0, refused: 0 };
    this.running = Array.from({ length: clients }, (_, i) => this.#client(i, 1 + i % edges));
  }
  async #client(i, edge) {
    for (let n = 0; !this.over; n++) {
      const tokens = 5 + (i * 7 + n * 3) % 30;
      const stream = (i + n) % 2 === 0;
      try {
        const r = await this.suite.chat({ edge, stream, mock: `tokens=${tokens};tps=200` });
        const text = await r.text();
        if (r.status === 200 && (!stream || sseData(text).at(-1) === '[DONE]')) {
          this.seen.ok++;
          this.seen.tokens += tokens;
        } else if (r.status === 200) {
          this.seen.failed++;
        } else {
          this.seen.refused++;
          this.why = text;
          await delay(20);
        }
      } catch {
        this.seen.failed++;
        await delay(20);
      }
    }
  }
  async progress(n = 30) {
    const from = this.seen.ok;
    await until(`${n} more requests are served`, () => this.seen.ok >= from + n);
  }
  async end() {
    this.over = true;
    await Promise.all(this.running);
  }
}

for (const options of [{}, { store: 'mysql', counter: 'redis', policies: 2 }]) {
  const what = options.counter ? 'with Redis, MariaDB and two policy engines' : 'with everything embedded';
  suiteTest(`kill -9 under load, ${what}`, { config: roomy, ...options }, async (suite, step) => {
    const victims = ['token', 'metrics', 'config', 'policy-1', 'nats', ...(options.counter ? ['redis', 'mariadb'] : [])];
    const load = new Load(suite);
    await load.progress();
    for (const name of victims) {
      // An allocator that lost its state, or its store, begins empty: what it cannot know to be free it refuses for a moment.
      const begins = ['policy-1', 'redis', 'nats'].includes(name);
      await step(`${name}: ${begins ? 'at most some are asked to come back' : 'clients notice nothing'}`, async () => {
        const before = { ...load.seen };
        await suite.procs[name].kill();
        await load.progress();
        suite.procs[name].start();
        await suite.procs[name].waitReady();
        await load.progress();
        assert.equal(load.seen.failed, before.failed);
        // What it refuses for the moment is not the next one's.
        for (let refused = -1; begins && refused !== load.seen.refused;) { refused = load.seen.refused; await load.progress(200); }
        if (!begins) assert.equal(load.seen.refused, before.refused, load.why);
      });
    }
    await step('the ledger has exactly what the mock sent and the clients got', async () => {
      await load.end();
      const mock = await suite.mockStats();
      assert.deepEqual([mock.requests, mock.completion_tokens], [load.seen.ok, load.seen.tokens]);
      await suite.settled(load.seen.ok + load.seen.refused);
      const [ok] = await suite.ledger({ filter: { outcome: 'ok' } });
      assert.deepEqual([ok.requests, ok.output_tokens, ok.input_tokens], [mock.requests, mock.completion_tokens, mock.prompt_tokens]);
    });
    await step('an edge: a successor accounts for what it left', async () => {
      const requests = (await suite.mockStats()).requests;
      const again = new Load(suite);
      await again.progress();
      // One that is certainly under way then, whatever the others are about.
      const long = await until('a stream', async () => {
        const r = await suite.chat({ stream: true, mock: 'tokens=100000;tps=20' });
        if (r.status === 200) return r;
        again.seen.refused++;
        await r.arrayBuffer();
        return false;
      });
      await suite.procs['edge-1'].kill();
      await long.text().catch(() => 'broken off');
      await suite.procs['edge-1'].start().waitReady();
      await again.progress();
      await again.end();
      // One record for each request that reached the mock; a request that was admitted but not yet sent has one too.
      const mock = await suite.mockStats();
      const groups = await until('the ledger has them', async () => {
        const g = await suite.ledger({ group_by: ['outcome'] });
        const n = g.reduce((sum, x) => sum + x.requests, 0);
        return n >= mock.requests + load.seen.refused + again.seen.refused && g;
      }, { every: 100 });
      const of = (outcome) => groups.find((g) => g.outcome === outcome) ?? { requests: 0, output_tokens: 0 };
      const served = load.seen.ok + again.seen.ok;
      console.log(`    ${of('ok').requests} of ${served} that clients saw end well are ok, ${of('crashed').requests} crashed`);
      assert.ok(mock.requests > requests);
      assert.ok(of('crashed').requests >= 1 && of('crashed').requests <= 17, `${of('crashed').requests} crashed`);
      // An answer whose last byte left just before the edge died may be among the crashed.
      assert.ok(of('ok').requests <= served && of('ok').requests + of('crashed').requests >= served, `${of('ok').requests} ok of ${served}`);
      assert.ok(groups.reduce((sum, g) => sum + g.requests, 0) - mock.requests - load.seen.refused - again.seen.refused <= 17);
    });
  });
}

suiteTest('an edge that is told to stop', { config: roomy }, async (suite, step) => {
  await step('ends the streams it has, refuses no one before it is unready, and leaves no record behind', async () => {
    const streams = Array.from({ length: 10 }, () => suite.chat({ stream: true, mock: 'tokens=400;tps=20' }).then((r) => r.text()));
    await until('they run', async () => (await suite.mockStats()).streams.open === 10);
    const stopped = suite.procs['edge-1'].stop();
    for (const text of await Promise.all(streams)) assert.equal(sseData(text).at(-1), '[DONE]');
    await stopped;
    await suite.settled(10);
    assert.equal((await suite.ledger())[0].output_tokens, 4000);
  });
});
