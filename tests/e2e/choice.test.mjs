// SPDX-License-Identifier: Apache-2.0
// Which server: hashes by key and by path, checks that only connect, or ask for a path, and one that came back.
import assert from 'node:assert/strict';
import { servedTest } from './lib/served.mjs';
import { until } from './lib/util.mjs';

const check = (type, more = {}) => ({ n: 2, health_check: { type, interval_ms: 100, timeout_ms: 10000, healthy: 1, unhealthy: 1, ...more } });
servedTest('hashes and checks', {
  upstreams: { bykey: { balance: 'hash', hash: { by: 'key' } }, bypath: { balance: 'hash', hash: { by: 'path' } },
    tcp: check('tcp'), http: check('http', { path: '/v1/models' }),
    slowly: { n: 2, retries: 1, ejection: { failures: 1, base_ms: 10, most_ms: 10 }, slow_start_ms: 3600000 } },
}, async ({ suite, step, servers, who, tally }) => {
  const names = Array.from({ length: 60 }, (_, i) => `name-${i}`);

  await step('by path: each path has its server, and all servers have some', async () => {
    const where = [];
    for (const n of names) where.push(await who('bypath', { path: `/bypath/${n}` }));
    for (const [i, n] of names.entries()) assert.equal(await who('bypath', { path: `/bypath/${n}` }), where[i], n);
    assert.equal(new Set(where).size, 3);
  });

  await step('by key: each key has its server, and all servers have some', async () => {
    const secret = (i) => `sk-aigw-${String(i).padStart(32, '0')}`;
    for (const [i, n] of names.entries()) await suite.must('POST', 'keys', { slug: n, namespace: 'test-channel', secret: secret(i) });
    await suite.applied();
    const ask = (i) => who('bykey', {}, { headers: { authorization: `Bearer ${secret(i)}` } }), where = [];
    for (let i = 0; i < names.length; i++) where.push(await ask(i));
    for (let i = 0; i < names.length; i++) assert.equal(await ask(i), where[i], names[i]);
    assert.equal(new Set(where).size, 3);
  });

  await step('a key for other models: 403', async () => {
    const secret = `sk-aigw-${'f'.repeat(32)}`;
    await suite.must('POST', 'keys', { slug: 'narrow', namespace: 'test-channel', secret, models: ['other-*'] });
    await suite.applied();
    const r = await suite.chat({ path: '/bykey/chat', headers: { authorization: `Bearer ${secret}` } });
    const { error } = await r.json();
    assert.deepEqual([r.status, error.type, error.code, error.param], [403, 'permission_error', 'access_denied', 'model']);
  });

  await step('one that came back starts slowly', async () => {
    assert.deepEqual(await tally('slowly', 20), { m1: 10, m2: 10, m3: 0 });
    await servers.behave(1, 'fail=503');
    await until('it was ejected', async () => {
      assert.equal(await who('slowly'), 'm2');
      return await suite.edgeSum('gateway_upstream_events_total', { upstream: 'slowly', server: 'm1', event: 'ejected' }) > 0;
    });
    await servers.behave(1);
    await until('it is back', async () => await suite.edgeSum('gateway_upstream_up', { upstream: 'slowly', server: 'm1' }) === 1);
    // A tenth of the other's share for the first six minutes of this hour.
    const c = await tally('slowly', 110);
    assert.ok(c.m1 >= 1 && c.m1 <= 25, JSON.stringify(c));
  });

  for (const slug of ['tcp', 'http'])
    await step(`a check of type ${slug} takes a server out, and brings it back`, async () => {
      const up = (value) => until(`it is ${value ? 'back' : 'out'}`, async () => await suite.edgeSum('gateway_upstream_up', { upstream: slug, server: 'm1' }) === value);
      const checked = async () => suite.edgeSum('gateway_upstream_checks_total', { upstream: slug, server: 'm2', result: 'good' });
      const before = await until('it is looked at', checked);
      await servers.list[0].proc.kill();
      await up(0);
      assert.deepEqual(await tally(slug, 6), { m1: 0, m2: 6, m3: 0 });
      await servers.list[0].proc.start().waitReady();
      await up(1);
      assert.ok((await tally(slug, 6)).m1 >= 1);
      assert.ok(await checked() > before);
    });
});
