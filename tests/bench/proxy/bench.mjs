// SPDX-License-Identifier: Apache-2.0
// `make bench`: what the proxy costs, beside nginx, in one run. bench.mjs BUILD. BENCH_ONLY="requests streams" picks rows,
// BENCH_TARGETS="nginx full" some of the proxies, BENCH_ROUNDS and BENCH_SECONDS say how often and how long each is measured. BENCH_AGAINST=BUILD
// compares with the edge of another build instead (rows requests, prompts, streams, bulk). Nothing here fails because it was slow.
import path from 'node:path';
import { Stage } from './stage.mjs';
import { WAYS } from './config.mjs';
import { certain, compare, median, ratios, rounds, spread, table, together } from '../rounds.mjs';

const build = path.resolve(process.argv[2]), other = process.env.BENCH_AGAINST;
const ROUNDS = Number(process.env.BENCH_ROUNDS ?? (other ? 60 : 5)), SECONDS = Number(process.env.BENCH_SECONDS ?? (other ? 0.2 : 1.5));
const warm = Math.min(0.3, SECONDS / 3), CONNS = (process.env.BENCH_CONNS ?? '64 1 256').split(/[ ,]+/).map(Number);
const only = (process.env.BENCH_ONLY ?? '').split(/[ ,]+/).filter(Boolean);
const wanted = (process.env.BENCH_TARGETS ?? (other ? 'bare full' : 'relay nginx nginx-lua bare-no-records bare full')).split(/[ ,]+/).filter(Boolean);
const PEERS = ['relay', 'nginx', 'nginx-lua'].filter((t) => wanted.includes(t)), EDGES = ['bare-no-records', 'bare', 'full'].filter((t) => wanted.includes(t));
const ALL = [...PEERS, ...EDGES], AGAINST = ['nginx', 'nginx-lua'].filter((t) => wanted.includes(t));
const perRequest = (r) => r.us_per, few = Math.max(2, Math.ceil(ROUNDS * 0.6));
const REQUEST = { length: 1500, warm }, HELD = Number(process.env.BENCH_HELD ?? 5000);

// All targets in turns; against another build, each edge at the same time as its counterpart.
async function compared(title, unit, n, measure, more) {
  if (!other) return compare(title, unit, await rounds(n, ALL, measure), perRequest, AGAINST, more);
  const lines = [];
  for (const t of EDGES) {
    const [of, and] = (await together(n, [t, `${t}@${other}`], measure)).map((r) => r.map(perRequest));
    lines.push([t, spread(of), spread(and), certain(ratios(of, and))]);
  }
  table(`${title}, at the same time as ${other}`, ['', `${unit}: median (spread)`, 'of the other', '×: median ± 95 %'], lines);
}

// Of a request's cost, what each thread had.
function addParts(parts, before, after, us) {
  const used = Object.entries(after).map(([name, ns]) => [name, ns - (before[name] ?? 0)]), all = used.reduce((sum, [, ns]) => sum + ns, 0);
  for (const [name, ns] of used) (parts[name] ??= []).push(us * ns / all);
}

// The access log is a setting: the edge starts anew for each.
async function log(s) {
  const settings = { 'no access log': 'off', 'each request in the access log': path.join(s.suite.dir, 'bench-access.log') }, r = {};
  for (let k = 0; k < few; k++) {
    for (const [what, file] of Object.entries(settings)) {
      s.set('full', { ACCESS_LOG: file });
      await s.restart('full');
      await s.load('full', { ...REQUEST, seconds: 0.5 });
      (r[what] ??= []).push(await s.load('full', { ...REQUEST, seconds: SECONDS }));
    }
  }
  s.set('full', { ACCESS_LOG: 'off' });
  await s.restart('full');
  compare('The access log, everything on', 'CPU µs per request', r, perRequest, ['no access log']);
}

// Of each side its own: what a stream holds when it comes, or goes upstream, over TLS.
async function idleOverTls(s, held) {
  const t = 'full', lines = [];
  const each = async (what, hold) => {
    await (await hold(64))(); // what the first of them take stays with the process
    const before = s.rssKb(t), letGo = await hold(held);
    lines.push([what, ((s.rssKb(t) - before) / held).toFixed(1)]);
    await letGo();
  };
  await s.openWays();
  await s.restart(t);
  await each('plain on both sides', (n) => s.hold(t, { conns: n, stream: true, bench: 'idle', spread: 2000 }));
  await s.restart(t);
  await each('TLS to the upstream', (n) => s.hold('direct, TLS', { conns: n, stream: true, bench: 'idle', spread: 5000 }));
  await s.restartWithTls(t);
  await each('TLS to the client', (n) => s.holdOverTls(t, n));
  await s.restartWithTls(t);
  await each('TLS on both sides', (n) => s.holdOverTls('direct, TLS', n));
  table(`${held} idle streams over TLS, everything on`, ['', 'KB of RSS each'], lines);
}

const rows = {
  async requests(s) {
    for (const conns of CONNS) {
      await compared(`600-byte requests, 1.5 KB answers, ${conns} connection${conns > 1 ? 's' : ''}`, 'CPU µs per request', conns === CONNS[0] ? ROUNDS : few,
        (t) => s.load(t, { ...REQUEST, conns, seconds: SECONDS }), [['per second', (x) => x.per_s]]);
    }
  },

  async prompts(s) {
    for (const kb of [16, 100]) {
      await compared(`Prompts of ${kb} KB, 64 connections`, 'CPU µs per request', few,
        (t) => s.load(t, { ...REQUEST, bytes: kb * 1024, seconds: SECONDS }), [['per second', (x) => x.per_s]]);
    }
  },

  async streams(s) {
    await compared('1,000 streams of 20 events/s each', 'CPU µs per event', few,
      (t) => s.load(t, { mode: 'streams', conns: 1000, stream: true, bench: 'stream 100000 50', warm: 0.5, seconds: SECONDS * 2 }), [['events/s', (x) => x.per_s]]);
  },

  async bulk(s) {
    await compared('Streams whose 200 events come at once, 100 connections', 'CPU µs per event', ROUNDS,
      (t) => s.load(t, { mode: 'streams', spread: 50, conns: 100, stream: true, bench: 'stream 200 0', warm, seconds: SECONDS }), [['events/s', (x) => x.per_s]]);
  },

  async latency(s) {
    const r = await rounds(ROUNDS, ['direct', ...ALL], (t) => s.load(t, { ...REQUEST, rate: 1000, seconds: SECONDS }));
    compare('Latency at 1,000 requests/s, 64 connections', 'median, µs', r, (x) => x.p50, AGAINST,
      [['added to direct, µs', (x) => x.p50 - median(r.direct.map((d) => d.p50))], ['99th, µs', (x) => x.p99]]);
  },

  async features(s) {
    const degrees = { bare: 'bare', header: 'namespace by header (100 of them)', key: 'namespace by key', estimate: 'body read, tokens estimated',
      count: 'tokens counted exactly', full: 'five policies from leases' };
    const parts = {};
    const r = await rounds(ROUNDS, Object.keys(degrees), async (t) => {
      const before = s.threads(t), result = await s.load(t, { ...REQUEST, seconds: SECONDS });
      if (t === 'full') addParts(parts, before, s.threads(t), result.us_per);
      return result;
    });
    const base = median(r.bare.map(perRequest));
    table('What each feature costs, 64 connections', ['', 'CPU µs per request: median (spread)', 'above bare'],
      Object.entries(degrees).map(([t, what]) => [what, spread(r[t].map(perRequest)), (median(r[t].map(perRequest)) - base).toFixed(1)]));
    table('Everything on, by thread', ['', 'CPU µs per request: median (spread)'],
      Object.entries(parts).filter(([, v]) => median(v) >= 0.05).sort((a, b) => median(b[1]) - median(a[1])).map(([name, v]) => [name, spread(v)]));
    await log(s);
  },

  // Everything on, by other ways to the upstream. What speaks TLS there is slower than upstream.c, so less comes at once.
  async transports(s) {
    await s.openWays();
    const all = ['full', ...Object.keys(WAYS)], against = ['full', 'direct, TLS'];
    const r = await rounds(few, all, (t) => s.load(t, { ...REQUEST, seconds: SECONDS }));
    compare('Ways to the upstream: 600-byte requests, 64 connections, everything on (full: direct, plain)', 'CPU µs per request', r, perRequest, against, [['per second', (x) => x.per_s]]);
    const b = await rounds(few, all, (t) => s.load(t, { mode: 'streams', spread: 50, conns: 100, stream: true, bench: 'stream 200 0', seconds: SECONDS }));
    compare('Ways to the upstream: streams whose 200 events come at once, 100 connections', 'CPU µs per event', b, perRequest, against, [['events/s', (x) => x.per_s]]);
  },

  // Two processes of each target, of which one holds the streams; then the other does, so that nothing else between the two counts.
  async idle(s) {
    const lines = [], seconds = SECONDS / 3, sides = ['alone', 'among'];
    const loads = [{ ...REQUEST, warm: 0.15, seconds }, { mode: 'streams', conns: 200, spread: 100, stream: true, bench: 'stream 100000 20', warm: 0.3, seconds }];
    for (const t of [...PEERS.filter((x) => x !== 'relay'), ...EDGES]) {
      await s.restart(t);
      const twin = await s.twin(t), r = { alone: [], among: [] };
      let kb;
      // What it keeps whatever is open is there before memory is read.
      for (const x of [t, twin]) for (const load of loads) await s.load(x, { ...load, seconds: 0.5 });
      for (const [holder, other] of [[t, twin], [twin, t]]) {
        const before = s.rssKb(holder), letGo = await s.hold(holder, { conns: HELD, stream: true, bench: 'idle', spread: 2000 });
        kb ??= (s.rssKb(holder) - before) / HELD;
        const got = await rounds(few, sides, async (side) => {
          const us = [];
          for (const load of loads) us.push((await s.load(side === 'among' ? holder : other, load)).us_per);
          return us;
        });
        for (const side of sides) r[side].push(...got[side]);
        await letGo();
      }
      await s.endTwin(twin);
      const pair = (i) => {
        const [alone, among] = sides.map((side) => r[side].map((us) => us[i]));
        return [median(alone).toFixed(1), median(among).toFixed(1), spread(ratios(among, alone))];
      };
      lines.push([t, kb.toFixed(1), ...pair(0), ...pair(1)]);
    }
    table(`${HELD} idle streams held open`, ['', 'KB of RSS each', 'µs per request without', 'with them', '×: median (spread)', 'µs per event without', 'with them', '×: median (spread)'], lines);
  },

  'idle-tls': (s) => idleOverTls(s, HELD),
};

const picked = only.length ? only : other ? ['requests'] : Object.keys(rows);
for (const name of picked) if (!rows[name]) throw new Error(`no row "${name}": ${Object.keys(rows).join(', ')}`);
const stage = await Stage.start(build, { ledger: false, unrecorded: wanted.includes('bare-no-records') });
let failed = true;
try {
  if (other) await stage.beside(other, EDGES);
  stage.pauseLedger();
  for (const name of picked) {
    await rows[name](stage);
    await stage.published();
  }
  failed = false;
} finally {
  await stage.close(failed);
}
