// SPDX-License-Identifier: Apache-2.0
// An edge that is told to keep no usage records: everything but accounting works, nothing is opened for it, and it says so.
import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { demoConfig, suiteTest } from './lib/suite.mjs';
import { getText, until } from './lib/util.mjs';

const LIMIT = 2;
const config = (suite) => ({ ...demoConfig(suite), policies: [
  { slug: 'one', namespace: 'test-channel', kind: 'concurrency', limit: LIMIT, on_unavailable: 'deny' },
  { slug: 'answer', namespace: 'test-channel', kind: 'output_tokens', limit: 50 },
] });

suiteTest('no usage records', { config, env: { edge: { USAGE_RECORDS: 'off', EDGE_WORKERS: '1' } } }, async (suite, step) => {
  const edge = suite.procs['edge-1'];
  const debug = async () => JSON.parse(await getText(`${edge.ops}/debug/requests`));
  const threads = () => fs.readdirSync(`/proc/${edge.pid}/task`).map((t) => fs.readFileSync(`/proc/${edge.pid}/task/${t}/comm`, 'utf8').trim());
  const counted = (want, ...metric) => until(`${metric[0]} is ${want}`, async () => {
    const sum = await suite.edgeSum(...metric);
    return typeof want === 'function' ? want(sum) : sum === want;
  });
  const spool = path.join(edge.env.STATE_DIR, 'spool');

  await step('requests are answered and counted, and streams are cut', async () => {
    await until('leases', async () => { const r = await suite.chat({ mock: 'tokens=3' }); await r.text(); return r.status === 200; });
    const r = await suite.chat({ mock: 'tokens=400;ignore_max', stream: true });
    assert.equal(r.status, 200);
    assert.match(await r.text(), /"finish_reason":"length"/);
    await counted(1, 'gateway_requests_total', { outcome: 'cut' });
    await counted((n) => n > 0, 'gateway_tokens_total', { type: 'output' });
  });

  await step('limits hold, and slots come back on every way out', async () => {
    const leave = new AbortController();
    const hold = async () => { // again, as long as the slot of one before it is not back
      for (let r; (r = await suite.chat({ mock: 'fail=hang', signal: leave.signal }).catch(() => null)) !== null;) {
        await r.text();
        await delay(50);
      }
    };
    const held = Array.from({ length: LIMIT }, hold);
    await until('they are upstream', async () => {
      const { requests } = await debug();
      return requests.filter((q) => q.state === 'wait' && q.attempts === 1).length === LIMIT;
    });
    const r = await suite.chat();
    await r.text();
    assert.equal(r.status, 429);
    leave.abort();
    await Promise.all(held);
    await until('the slots are free', async () => { const again = await suite.chat({ mock: 'tokens=3' }); await again.text(); return again.status === 200; });
  });

  await step('it says so, and has no spool and no thread for one', async () => {
    assert.match(edge.text(), /"level":"warn"[^\n]*USAGE_RECORDS|USAGE_RECORDS[^\n]*"level":"warn"/);
    assert.equal((await debug()).usage_records, false);
    assert.equal(await suite.edgeSum('gateway_usage_records'), 0);
    assert.equal(fs.existsSync(spool), false);
    assert.deepEqual(threads().filter((t) => t.startsWith('usage') || t === 'bus-bulk'), []);
  });

  await step('killed and started again with records, the ledger has what came then and nothing else', async () => {
    await edge.kill();
    edge.env.USAGE_RECORDS = 'on';
    await edge.start().waitReady();
    await suite.applied();
    assert.equal((await debug()).usage_records, true);
    assert.equal(await suite.edgeSum('gateway_usage_records'), 1);
    assert.ok(threads().includes('usage-spool'));
    assert.ok(fs.existsSync(spool));
    await until('a request is served', async () => { const r = await suite.chat({ mock: 'tokens=3' }); await r.text(); return r.status === 200; });
    await until('the ledger has what this edge counted', async () => {
      const [total] = await suite.ledger(), counted = await suite.edgeSum('gateway_requests_total');
      return counted > 0 && total?.requests === counted;
    });
  });
});
