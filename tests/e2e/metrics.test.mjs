// SPDX-License-Identifier: Apache-2.0
// The ledger counts every record once: records are published, many of them twice, while aigw-metrics and nats-server are
// killed again and again.
import assert from 'node:assert/strict';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { connect } from '@nats-io/transport-node';
import { jetstream } from '@nats-io/jetstream';
import { Proc } from './lib/proc.mjs';
import { ROOT, natsPassword, natsServer } from './lib/servers.mjs';
import { PATIENCE, freePorts, getText, http, parseMetrics, sumOf, until } from './lib/util.mjs';

const BIN = process.env.AIGW_BIN ?? path.join(ROOT, 'build/release/bin');
const RECORDS = Number(process.env.METRICS_RECORDS ?? 10000);
const NAMESPACES = ['team-a', 'team-b', 'team-c'];

const idOf = (n) => `01944d2e-8a00-7000-8000-${n.toString(16).padStart(12, '0')}`;
const record = (n) => ({
  v: 1, id: idOf(n), ts: new Date(Date.UTC(2025, 0, 10) + n * 10).toISOString(), from: 'edge-1', edge: 'edge-1',
  namespace: NAMESPACES[n % 3], namespace_id: `id-${n % 3}`, model: n % 2 ? 'Qwen3-8B' : 'gpt', route: 'chat',
  revision: 1, stream: false, status: 200, outcome: n % 10 === 0 ? 'cut' : 'ok', duration_ms: n % 500, overhead_us: 100,
  input_tokens: n, output_tokens: 3, cost: { nano: 7, currency: 'USD', price_revision: 1 },
});

// Several in a message, in lines; texts may stand for records.
const batch = (ns, id) => `{"v":2,"id":"${idOf(id)}","ts":"2025-01-10T00:00:00.000Z","from":"edge-1","records":[\n${
  ns.map((n) => (typeof n === 'string' ? n : JSON.stringify(record(n)))).join(',\n')}\n]}`;

const sum = (from, to, step = 1) => { let s = 0; for (let i = from; i < to; i += step) s += i; return s; };

test('each record counts once, whatever is killed meanwhile', { timeout: 900000 }, async (t) => {
  const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'aigw-metrics-'));
  const [natsPort, monitorPort, port, opsPort, port2, opsPort2] = await freePorts(6);
  const nats = natsServer(dir, natsPort, monitorPort);
  const daemon = (name, p, ops) => new Proc({
    name, command: path.join(BIN, 'aigw-metrics'), log: path.join(dir, `${name}.log`),
    ready: `http://127.0.0.1:${ops}/readyz`,
    env: { NATS_URL: `nats://127.0.0.1:${natsPort}`, NATS_USER: 'metrics', NATS_PASSWORD: natsPassword('metrics'),
      STATE_DIR: path.join(dir, 'state'), INSTANCE: name, METRICS_PORT: `${p}`, OPS_PORT: `${ops}`,
      STORE_URL: `sqlite:${dir}/usage.db` },
  });
  const metrics = daemon('metrics', port, opsPort), second = daemon('metrics-2', port2, opsPort2);
  const ask = async (query) => {
    const r = await http('GET', `http://127.0.0.1:${port}/api/v1/usage/${query}`);
    assert.equal(r.status, 200, r.text);
    return r.json;
  };
  const requests = async () => (await ask('totals')).groups[0]?.requests ?? 0;
  let nc, over = false;
  t.after(async () => {
    over = true; // for publishers, should the test have failed
    await nc?.close();
    for (const p of [second, metrics, nats]) await p.stop();
    fs.rmSync(dir, { recursive: true, force: true });
  });

  await nats.start().waitReady();
  await metrics.start().waitReady();
  nc = await connect({ servers: `127.0.0.1:${natsPort}`, user: 'edge', pass: natsPassword('edge'),
    inboxPrefix: '_INBOX_edge', maxReconnectAttempts: -1, reconnectTimeWait: 50 });
  const js = jetstream(nc, { checkAPI: false, timeout: PATIENCE });

  // As an edge does: for ever, until it is acknowledged.
  const publish = async (n, msgID, text) => {
    while (!over) {
      try {
        return await js.publish(`aigw.usage.${NAMESPACES[n % 3]}`, text, { msgID, timeout: 1000 });
      } catch { await delay(50); }
    }
  };
  // Alone, or four of a namespace in a message. Every third record is sent twice in messages with another id, so that the
  // stream does not notice: as an edge would that takes over what another one had sent.
  const jobs = [];
  for (let from = 0; from < RECORDS; from += 12) {
    const together = from % 24 === 0;
    for (let n = from; n < Math.min(from + (together ? 3 : 12), RECORDS); n++) {
      const all = together ? [n, n + 3, n + 6, n + 9].filter((k) => k < RECORDS) : [n];
      jobs.push([n, `${together ? 'set' : 'one'}-${n}`, () => (together ? batch(all, 1e6 + n) : JSON.stringify(record(n)))]);
      if (n % 3 !== 0) continue;
      if (together) for (const k of all) jobs.push([k, `again-${k}`, () => JSON.stringify(record(k))]);
      else jobs.push([n, `again-${n}`, () => batch([n, n], 2e6 + n)]);
    }
  }
  let next = 0;
  const publisher = async () => {
    while (next < jobs.length && !over) {
      const [n, msgID, text] = jobs[next++];
      await publish(n, msgID, text());
    }
  };
  const published = Promise.all(Array.from({ length: 64 }, publisher));
  let done = false;
  published.then(() => { done = true; });
  await until('some records are stored', async () => (await requests()) > 100);
  let kills = 0;
  for (; kills < 4 || !done; kills++) {
    await delay(150 + 20 * kills); // longer and longer: something is done in between on any machine
    const victim = kills % 2 ? nats : metrics;
    await victim.kill();
    await delay(100);
    await victim.start().waitReady();
    if (kills > 100) assert.fail('publishing takes too long');
  }
  await published;

  await until('all records are stored', async () => (await requests()) >= RECORDS, { timeout: 3 * PATIENCE });
  await delay(500); // what would be counted twice has its chance
  const [all] = (await ask('totals')).groups;
  assert.equal(all.requests, RECORDS);
  assert.equal(all.input_tokens, sum(0, RECORDS));
  assert.equal(all.output_tokens, 3 * RECORDS);
  assert.deepEqual(all.cost, [{ currency: 'USD', nano: 7 * RECORDS }]);
  assert.equal(all.latency.reduce((a, b) => a + b), RECORDS);

  const { groups } = await ask('totals?group_by=namespace,outcome&from=2025-01-10T00:00:00Z&to=2025-01-11T00:00:00Z');
  assert.equal(groups.reduce((a, g) => a + g.requests, 0), RECORDS);
  assert.equal(groups.filter((g) => g.outcome === 'cut').reduce((a, g) => a + g.requests, 0), Math.ceil(RECORDS / 10));
  assert.equal(groups.filter((g) => g.namespace === 'team-b').reduce((a, g) => a + g.input_tokens, 0), sum(1, RECORDS, 3));

  await t.test('records page without a gap', async () => {
    let cursor = '', seen = 0;
    do {
      const page = await ask(`records?limit=1000${cursor && `&cursor=${cursor}`}`);
      for (const r of page.records) assert.equal(r.id, idOf(RECORDS - 1 - seen++));
      cursor = page.next;
    } while (cursor);
    assert.equal(seen, RECORDS);
  });

  await t.test('the metrics are those of the ledger, on both ports', async () => {
    for (const p of [port, opsPort]) {
      const samples = parseMetrics(await getText(`http://127.0.0.1:${p}/metrics`));
      assert.equal(sumOf(samples, 'aigw_fleet_requests_total'), RECORDS);
      assert.equal(sumOf(samples, 'aigw_fleet_tokens_total', { type: 'output' }), 3 * RECORDS);
      assert.ok(Math.abs(sumOf(samples, 'aigw_fleet_cost_total') - RECORDS * 7e-9) < 1e-12);
    }
  });

  await t.test('a second instance with the same sqlite file stays unready and says why', async () => {
    second.start();
    const r = await until('it says why', async () => {
      const ready = await http('GET', `http://127.0.0.1:${opsPort2}/readyz`);
      return ready.status === 503 && /another instance/.test(ready.text);
    });
    assert.ok(r);
    await metrics.kill();
    await second.waitReady(); // and takes over when the first is gone
    await second.stop();
    await metrics.start().waitReady();
    assert.equal(await requests(), RECORDS);
  });

  await t.test('what is no record goes to the dead stream, what is of a newer version stays', async () => {
    await js.publish('aigw.usage.team-a', '{"v":1,"id":"nonsense"}', { msgID: 'bad-1' });
    const newer = await js.publish('aigw.usage.team-a', JSON.stringify({ ...record(1), v: 2, id: idOf(RECORDS + 7) }), { msgID: 'v2' });
    const viewer = await connect({ servers: `127.0.0.1:${natsPort}`, user: 'observer', pass: natsPassword('observer') });
    const api = async (what, ask = '') => (await viewer.request(`$JS.API.${what}`, ask, { timeout: PATIENCE })).json();
    try {
      await until('it is in the dead stream', async () => (await api('STREAM.INFO.AIGW_USAGE_DEAD')).state.messages === 1);
      await until('the newer one has been delivered', async () => {
        const c = await api('CONSUMER.INFO.AIGW_USAGE.metrics');
        return c.delivered.stream_seq >= newer.seq && c.num_pending === 0 && c.num_ack_pending >= 1;
      });
      // What is acknowledged leaves the stream. What the consumer says of others is not asked: a server that was killed
      // may count some as not acknowledged that are gone.
      const held = (seq) => api('STREAM.MSG.GET.AIGW_USAGE', JSON.stringify({ seq }));
      await until('the bad one has left the stream', async () => (await held(newer.seq - 1)).error?.code === 404);
      assert.equal((await held(newer.seq)).message.seq, newer.seq);
      const answer = (await viewer.request('aigw.metrics.query',
        JSON.stringify({ v: 1, id: idOf(0), ts: new Date().toISOString(), from: 'test', kind: 'totals', group_by: ['model'] }), { timeout: PATIENCE })).json();
      assert.equal(answer.from, 'metrics');
      assert.deepEqual(answer.result.groups.map((g) => [g.model, g.requests]), [['Qwen3-8B', RECORDS / 2], ['gpt', RECORDS / 2]]);
    } finally { await viewer.close(); }
  });

  await t.test('a bad record in a message goes to the dead stream alone, the others count', async () => {
    const viewer = await connect({ servers: `127.0.0.1:${natsPort}`, user: 'observer', pass: natsPassword('observer') });
    const api = async (what, ask = '') => (await viewer.request(`$JS.API.${what}`, ask, { timeout: PATIENCE })).json();
    const dead = async () => (await api('STREAM.INFO.AIGW_USAGE_DEAD')).state.messages;
    try {
      const n = RECORDS + 30, before = await dead();
      await js.publish('aigw.usage.team-a', batch([n, '{"v":1,"id":"nonsense"}', n + 3], 3e6), { msgID: 'poison-1' });
      await js.publish('aigw.usage.team-a', batch([n + 6, '{"v":1,"id":', n + 9, 'nonsense'], 3e6 + 1), { msgID: 'poison-2' });
      await js.publish('aigw.usage.team-a', batch([n + 12, JSON.stringify({ ...record(n + 15), v: 9 })], 3e6 + 2), { msgID: 'poison-3' });
      await until('the good ones count', async () => (await requests()) === RECORDS + 5);
      await until('the bad ones are dead', async () => await dead() === before + 3);
      const last = JSON.parse(atob((await api('STREAM.MSG.GET.AIGW_USAGE_DEAD', JSON.stringify({ last_by_subj: 'aigw.dead.usage' }))).message.data));
      assert.deepEqual([last.subject, last.data], ['aigw.usage.team-a', 'nonsense']);
      assert.equal(await requests(), RECORDS + 5);
    } finally { await viewer.close(); }
  });

  for (const p of [metrics, second]) assert.deepEqual(p.problems, []);
});
