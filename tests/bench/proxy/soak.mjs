// SPDX-License-Identifier: Apache-2.0
// `make soak`: SOAK_SECONDS (600) at half of what the edge can do on its CPU, with streams, clients that leave in the middle,
// and upstreams that fail or reset mixed in. Its memory must stay flat, and the ledger must have each request once: as many as
// the load sent, and as many as the upstream served. soak.mjs BUILD
import path from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { getText, sumOf } from '../../e2e/lib/util.mjs';
import { median, table } from '../rounds.mjs';
import { Stage } from './stage.mjs';

const SECONDS = Number(process.env.SOAK_SECONDS ?? 600);
const FLAT = 0.05;

const stage = await Stage.start(path.resolve(process.argv[2]), { peers: false });
let failed = true;
try {
  const served = async () => JSON.parse(await getText(`http://127.0.0.1:${stage.upPort}/stats`)).requests;
  const counted = async () => sumOf(await stage.suite.metricsOf('edge-1'), 'gateway_requests_total');
  // There were a few before: whoever asks for the first leases.
  const before = { served: await served(), counted: await counted() };

  // What it can do in this mixture, with the ledger at work beside it.
  const mixed = { mode: 'soak', conns: 256, length: 1500 };
  const probe = await stage.load('full', { length: 1500, seconds: 3 });
  let sent = probe.sent[0];
  const rate = Number(process.env.SOAK_RATE ?? Math.floor(probe.per_s / 2));

  // A tenth of the time to come to rest, then a reading each second.
  const warm = Math.min(SECONDS / 10, 60), readings = [];
  let running = true;
  const load = stage.load('full', { ...mixed, rate, warm, seconds: SECONDS }).finally(() => { running = false; });
  load.catch(() => {});
  await delay(warm * 1000);
  while (running) { readings.push(stage.rssKb('full')); await delay(1000); }
  const result = await load;
  sent += result.sent.reduce((a, b) => a + b, 0);

  const third = Math.max(1, Math.floor(readings.length / 3));
  const first = median(readings.slice(0, third)), last = median(readings.slice(-third));
  const growth = last / first - 1;
  // The ledger takes what is still on its way; one more than was sent would be an error at once.
  let total = 0;
  for (let still = 0, seen = -1; still < 100 && total < sent + before.counted; still++) {
    [total] = (await stage.suite.ledger()).map((g) => g.requests);
    total ??= 0;
    if (total !== seen) still = 0;
    seen = total;
    if (total < sent + before.counted) await delay(200);
  }
  await delay(1000);
  total = ((await stage.suite.ledger())[0]?.requests ?? 0) - before.counted;
  const times = { served: await served() - before.served, counted: await counted() - before.counted };

  table(`A soak of ${SECONDS} s at ${rate} requests/s`, ['', ''], [
    ['requests: plain, bulk streams, left by the client, failed upstream, reset upstream', result.sent.join(', ')],
    ['CPU µs per request', result.us_per.toFixed(1)],
    ['RSS, first and last third: KB', `${first}, ${last} (${(100 * growth).toFixed(1)} %)`],
    ['sent, served upstream, counted by the edge, in the ledger', [sent, times.served, times.counted, total].join(', ')],
  ]);
  const problems = [];
  if (times.served !== sent || times.counted !== sent || total !== sent) problems.push('records were lost, or counted twice');
  if (growth > FLAT) problems.push(`memory grew by ${(100 * growth).toFixed(1)} %`);
  for (const p of problems) console.error(`soak: ${p}`);
  if (problems.length) process.exitCode = 1;
  failed = problems.length > 0;
} finally {
  await stage.close(failed);
}
