// SPDX-License-Identifier: Apache-2.0
// Limits under chaos, on real processes: two policy engines on Redis, four edges, kill -9, SIGSTOP, a network that delays,
// loses, falls silent and breaks. Every edge writes each admission and each paid token to its admission log; afterwards all
// logs are merged and every interval is checked. Under `deny` nothing may pass a limit, ever.
//
// make chaos-limits, or: CHAOS_SECONDS=600 CHAOS_SEED=7 node tests/chaos/limits.mjs
import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { Suite, demoConfig } from '../e2e/lib/suite.mjs';
import { until } from '../e2e/lib/util.mjs';
import { bucket, readLogs, sliding } from './bounds.mjs';
import { Relays } from './relay.mjs';

const EDGES = 4, POLICIES = 2;
const S = 1e9;

// Each with a model of its own, so that each is driven to its limit. `share`: what may be added to the limit while edges go
// on by themselves: all shares together are one limit.
const LIMITS = [
  { slug: 'three', kind: 'request_rate', limit: 3, window: '1m', algorithm: 'sliding', check: (a) => sliding(a, 3, 60 * S) },
  { slug: 'requests', kind: 'request_rate', limit: 40, window: '10s', algorithm: 'sliding', check: (a) => sliding(a, 40, 10 * S) },
  { slug: 'short', kind: 'request_rate', limit: 10, window: '1s', algorithm: 'sliding', check: (a) => sliding(a, 10, S) },
  { slug: 'qps', kind: 'request_rate', limit: 30, window: '1s', algorithm: 'bucket', burst: 30, check: (a) => bucket(a, 30, 30 / S) },
  { slug: 'tokens', kind: 'token_rate', count: 'output', limit: 400, window: '10s', algorithm: 'sliding', check: (a) => sliding(a, 400, 10 * S) },
  { slug: 'flow', kind: 'token_rate', count: 'total', limit: 300, window: '1s', algorithm: 'bucket', burst: 600, check: (a) => bucket(a, 600, 300 / S) },
  { slug: 'shared', kind: 'request_rate', limit: 40, window: '10s', algorithm: 'sliding', on_unavailable: 'share', check: (a) => sliding(a, 80, 10 * S) },
];
const modelOf = (l) => `chaos-${l.slug}`;

function config(suite) {
  const demo = demoConfig(suite);
  return {
    ...demo,
    models: [...demo.models, { slug: 'chaos', name: 'chaos', patterns: ['chaos-*'], vocabulary: 'qwen3' }],
    policies: LIMITS.map(({ check: _, ...l }) => ({ namespace: 'test-channel', on_unavailable: 'deny', models: [modelOf(l)], ...l })),
  };
}

// Numbers that a seed repeats (mulberry32).
function randomOf(seed) {
  let a = seed >>> 0;
  return () => {
    a = (a + 0x6d2b79f5) >>> 0;
    let t = Math.imul(a ^ (a >>> 15), a | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

class Chaos {
  constructor(suite, relays, random, log) {
    Object.assign(this, { suite, relays, random, log, busy: new Set(), done: {} });
  }

  // One thing at a time happens to each process; what ends is mended.
  async with(name, what, fn) {
    if (this.busy.has(name)) return;
    this.busy.add(name);
    this.done[what] = (this.done[what] ?? 0) + 1;
    this.log(`${what} ${name}`);
    try { await fn(); } finally { this.busy.delete(name); }
  }

  async stopFor(name, seconds) {
    const p = this.suite.procs[name];
    await this.with(name, 'freeze', async () => {
      p.signal('SIGSTOP');
      await delay(seconds * 1000);
      p.signal('SIGCONT');
    });
  }
  async killFor(name, seconds) {
    const p = this.suite.procs[name];
    await this.with(name, 'kill', async () => {
      await p.kill();
      await delay(seconds * 1000);
      p.start();
      await p.waitReady();
    });
  }

  disturb(relay, what, values, seconds) {
    return this.with(`relay ${relay}`, what, async () => {
      this.relays.set(relay, values);
      await delay(seconds * 1000);
      this.relays.set(relay, { delayMs: 0, loss: 0, silent: false });
    });
  }

  step() {
    const r = this.random, pick = (n) => 1 + Math.floor(r() * n), s = (least, most) => least + r() * (most - least);
    const edge = `edge-${pick(EDGES)}`;
    const weighted = [
      [3, () => this.killFor(`edge-${pick(EDGES)}`, s(0, 3))],
      [3, () => this.stopFor(`edge-${pick(EDGES)}`, s(0.2, 5))],
      [2, () => this.killFor(`policy-${pick(POLICIES)}`, s(0, 3))],
      [2, () => this.stopFor(`policy-${pick(POLICIES)}`, s(0.2, 4))],
      [1, () => this.stopFor('redis', s(0.2, 4))],
      [1, () => this.killFor('redis', s(0.1, 2))],
      [0.5, () => this.with('redis', 'flush', () => this.suite.redis('FLUSHALL'))],
      [1, () => this.stopFor('nats', s(0.2, 3))],
      [1, () => this.killFor('nats', s(0.1, 2))],
      [2, () => this.disturb(edge, 'delay', { delayMs: s(5, 300) }, s(0.5, 3))],
      [2, () => this.disturb(edge, 'loss', { loss: s(0.02, 0.5) }, s(0.5, 4))],
      [2, () => this.disturb(edge, 'silence', { silent: true }, s(0.2, 5))],
      [1, () => this.with(`relay ${edge}`, 'cut', () => this.relays.cut(edge))],
      [1, () => this.disturb('redis', 'silence', { silent: true }, s(0.2, 3))],
      [1, () => this.with('relay redis', 'cut', () => this.relays.cut('redis'))],
    ];
    let x = r() * weighted.reduce((sum, [w]) => sum + w, 0);
    const [, fn] = weighted.find(([w]) => (x -= w) <= 0) ?? weighted[0];
    return fn();
  }
}

// Requests at one edge for one limit, over and over.
async function drive(suite, edge, limit, random, state) {
  const tokens = limit.kind === 'token_rate';
  while (!state.over) {
    state.sent++;
    const begin = Date.now();
    try {
      const stream = tokens && random() < 0.7;
      const r = await suite.chat({
        edge, stream, model: modelOf(limit), signal: AbortSignal.timeout(30000),
        ...(tokens && random() < 0.5 ? { max_tokens: Math.ceil(random() * 200) } : {}),
        mock: tokens ? `tokens=${Math.ceil(random() * 300)};tps=${stream ? 300 : 0}${random() < 0.3 ? ';ignore_max' : ''}` : 'tokens=1',
      });
      // Some clients leave in the middle.
      if (stream && random() < 0.2) { await r.body.getReader().read(); await r.body.cancel().catch(() => {}); } else await r.arrayBuffer();
      state.statuses[r.status] = (state.statuses[r.status] ?? 0) + 1;
      state.last[limit.slug] = `${r.status} at edge-${edge}, retry after ${r.headers.get('retry-after')}`;
      if (r.status === 200) (state.ok[limit.slug] = (state.ok[limit.slug] ?? 0) + 1);
    } catch { state.failed++; }
    await delay(Math.max(0, 20 + random() * 80 - (Date.now() - begin)));
  }
}

export async function chaosLimits({ seconds = 120, seed = Date.now() % 1000000, verbose = false, askTimeoutMs = 50 } = {}) {
  const random = randomOf(seed), logs = Array.from({ length: EDGES }, () => null);
  const say = (text) => { if (verbose) console.log(`${((Date.now() - begin) / 1000).toFixed(1).padStart(7)} ${text}`); };
  const begin = Date.now();
  // Asks and their answers may be lost; what JetStream does is another test.
  const links = { redis: {} }, env = {};
  for (let k = 1; k <= EDGES; k++) links[`edge-${k}`] = { nats: true, lossy: '\\.policy\\.|^_INBOX' };
  const relays = await Relays.start(links);
  const dir = fs.mkdtempSync('/tmp/aigw-chaos-');
  for (let k = 1; k <= EDGES; k++) {
    logs[k - 1] = path.join(dir, `edge-${k}.admissions`);
    env[`edge-${k}`] = { NATS_URL: `nats://127.0.0.1:${relays.ports[`edge-${k}`]}`, ADMISSION_LOG: logs[k - 1], ASK_TIMEOUT_MS: `${askTimeoutMs}`, EDGE_WORKERS: '2' };
  }
  for (let k = 1; k <= POLICIES; k++) env[`policy-${k}`] = { COUNTER_TIMEOUT_MS: `${0.8 * askTimeoutMs}`, COUNTER_URL: `redis://:redis-secret@127.0.0.1:${relays.ports.redis}/0` };
  const suite = await Suite.start({
    name: 'chaos', edges: EDGES, policies: POLICIES, counter: 'redis', env, config: null,
    ports: (ports) => { for (const n of relays.names) relays.set(n, { target: n === 'redis' ? ports.redis : ports.nats }); },
  });
  const state = { over: false, sent: 0, failed: 0, statuses: {}, ok: {}, last: {} };
  let failed = true;
  try {
    await suite.importConfig(config(suite));
    await suite.applied();
    const drivers = [];
    for (let k = 1; k <= EDGES; k++) for (const l of LIMITS) drivers.push(drive(suite, k, l, random, state));
    const chaos = new Chaos(suite, relays, random, say);
    const end = Date.now() + seconds * 1000, acts = [];
    while (Date.now() < end) {
      acts.push(chaos.step().catch((e) => { throw new Error(`chaos: ${e.message}`, { cause: e }); }));
      await delay(300 + random() * 1200);
    }
    await Promise.all(acts);
    relays.heal();
    say('quiet');
    // Everything comes back without a restart: each limit admits again at each edge.
    state.ok = {};
    const back = Date.now();
    await until('every limit admits again', () => {
      const missing = LIMITS.filter((l) => l.slug !== 'three' && !(state.ok[l.slug] > 0)).map((l) => l.slug);
      if (missing.length) throw new Error(`not yet: ${missing}; ${JSON.stringify(state.last)}`);
      return true;
    });
    const recovery = Date.now() - back;
    state.over = true;
    await Promise.all(drivers);
    const counters = readLogs(logs.map((f) => (fs.existsSync(f) ? fs.readFileSync(f, 'utf8') : '')));
    const ids = Object.fromEntries((await suite.must('GET', 'policies?limit=100')).json.items.map((p) => [p.id, p.slug]));
    const report = [];
    for (const l of LIMITS) {
      const mine = Object.entries(counters).filter(([key]) => ids[key.split(' ')[0]] === l.slug);
      for (const [, admissions] of mine) {
        const worst = l.check(admissions);
        report.push({ limit: l.slug, admissions: admissions.length, units: admissions.reduce((s, a) => s + a.units, 0), used: Math.round(worst.used * 1000) / 1000, bound: worst.limit });
      }
      // A minute that begins used up, after a flush, may outlast a short run.
      if (l.slug === 'three' && mine.length === 0) continue;
      assert.equal(mine.length, 1, `${l.slug}: ${mine.length} counters`);
    }
    failed = false;
    return { report, done: chaos.done, statuses: state.statuses, sent: state.sent, failed: state.failed, lost: await relays.lost(), recovery, seed, dir };
  } finally {
    state.over = true;
    await suite.close({ failed });
    await relays.close();
  }
}

export function assertBounds(result) {
  for (const r of result.report) {
    assert.ok(r.used <= r.bound + 1e-6, `${r.limit}: ${r.used} in an interval that admits ${r.bound} (seed ${result.seed}, logs in ${result.dir})`);
    assert.ok(r.units > 0, `${r.limit}: nothing was admitted`);
  }
  fs.rmSync(result.dir, { recursive: true, force: true });
}

if (import.meta.filename === process.argv[1]) {
  const seconds = Number(process.env.CHAOS_SECONDS ?? 120);
  const seed = Number(process.env.CHAOS_SEED ?? Date.now() % 1000000);
  console.log(`${seconds} s of chaos, seed ${seed}`);
  const result = await chaosLimits({ seconds, seed, verbose: process.env.CHAOS_QUIET !== '1' });
  console.table(result.report);
  console.log('faults', result.done, 'lost messages', result.lost);
  console.log('requests', result.sent, 'without an answer', result.failed, 'statuses', result.statuses, `recovered in ${result.recovery} ms`);
  assertBounds(result);
  console.log('no limit was passed in any interval');
}
