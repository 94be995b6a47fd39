// SPDX-License-Identifier: Apache-2.0
// The suite under another prefix of subjects (SUBJECT_PREFIX), with compose/nats.conf changed as it says: what needs the bus
// works, and nothing of it goes by the usual names.
import assert from 'node:assert/strict';
import { Records } from './lib/records.mjs';
import { demoConfig, suiteTest } from './lib/suite.mjs';
import { again, getText, until } from './lib/util.mjs';

const config = (suite) => ({ ...demoConfig(suite),
  policies: [{ slug: 'two', namespace: 'test-channel', kind: 'quota', unit: 'requests', period: 'month', limit: 2, per: ['header:x-round'] }] });

suiteTest('another prefix of subjects', { prefix: 'team-x', config }, async (suite, step) => {
  const records = await Records.of(suite);
  const monitor = async (what) => JSON.parse(await getText(`http://127.0.0.1:${suite.ports.monitor}/${what}`));

  await step('requests are answered, limits hold, records are in the ledger', async () => {
    let served = 0;
    await again(async (n) => {
      const ask = () => suite.chat({ headers: { 'x-round': `${n}` }, mock: 'tokens=5' });
      for (let i = 0; i < 2; i++) {
        const r = await ask();
        assert.equal(r.status, 200, await r.text());
        served++;
        const u = await records.for(r);
        assert.deepEqual([u.namespace, u.output_tokens, u.outcome], ['test-channel', 5, 'ok']);
      }
      const r = await ask();
      assert.equal(r.status, 429, await r.text());
      assert.equal(r.headers.get('x-aigw-limit'), 'two');
    });
    await until('the ledger has them', async () => {
      const ok = (await suite.ledger({ group_by: ['outcome'] })).find((g) => g.outcome === 'ok');
      return ok?.requests === served && ok.output_tokens === 5 * served;
    });
  });

  await step('a change of the configuration arrives', async () => {
    await suite.must('PUT', 'config', { ...config(suite), policies: [] });
    await suite.applied();
    await until('it is in force', async () => {
      const r = await suite.chat({ mock: 'tokens=5' });
      await r.text();
      return r.status === 200;
    });
  });

  await step('nothing goes by the usual names', async () => {
    const { connections } = await monitor('connz?subs=1&limit=1000');
    const subjects = connections.flatMap((c) => c.subscriptions_list ?? []);
    assert.ok(subjects.includes('team-x.policy.lease') && subjects.includes('team-x.config.changed'), subjects.join(' '));
    assert.deepEqual(subjects.filter((s) => s.startsWith('aigw.')), []); // services keep their names: $SRV.*.aigw-edge
    const { account_details: accounts } = await monitor('jsz?accounts=1&streams=1');
    const streams = accounts.flatMap((a) => a.stream_detail ?? []).map((s) => s.name);
    assert.ok(streams.includes('TEAM_X_USAGE'), streams.join(' '));
    assert.deepEqual(streams.filter((s) => s.includes('AIGW')), []);
  });
});
