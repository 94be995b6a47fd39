// SPDX-License-Identifier: Apache-2.0
// What tools see on the bus: the services protocol by an independent client, the configuration's bucket, usage records,
// presence.
import assert from 'node:assert/strict';
import { Svcm } from '@nats-io/services';
import { Kvm } from '@nats-io/kv';
import { jetstream, jetstreamManager } from '@nats-io/jetstream';
import { Records } from './lib/records.mjs';
import { failures, schemaOf } from './lib/schemas.mjs';
import { suiteTest } from './lib/suite.mjs';
import { PATIENCE, until, usageRecords } from './lib/util.mjs';

async function all(iterator) {
  const list = [];
  for await (const x of await iterator) list.push(x);
  return list;
}

suiteTest('the bus as tools see it', { edges: 2 }, async (suite, step) => {
  const nc = await suite.nats('observer');
  const traffic = []; // all that is not a reply, and no prompts
  nc.subscribe('aigw.>', { callback: (_e, m) => traffic.push([m.subject, m.string()]) });
  const usage = await Records.of(suite);
  const services = new Svcm(nc).client({ maxWait: 1500, strategy: 'stall', maxMessages: 50 });

  await step('$SRV.PING finds every daemon', async () => {
    await until('all are found', async () => { // who answers late is not waited for
      const found = (await all(services.ping())).map((s) => `${s.name} ${s.id}`).sort();
      assert.deepEqual(found, ['aigw-config config', 'aigw-edge edge-1', 'aigw-edge edge-2', 'aigw-metrics metrics',
        'aigw-policy policy-1', 'aigw-token token']);
      return true;
    });
  });

  await step('$SRV.INFO names the endpoints, $SRV.STATS counts their requests', async () => {
    const info = await until('all tell it', async () => {
      const is = Object.fromEntries((await all(services.info())).map((i) => [i.id, i]));
      return ['token', 'policy-1', 'config'].every((id) => is[id]) && is;
    });
    assert.equal(info.token.endpoints[0].subject, 'aigw.token.count');
    assert.equal(info['policy-1'].endpoints[0].subject, 'aigw.policy.lease');
    assert.match(info.config.version, /^\d+\.\d+\.\d+/);
    const leases = async () => (await all(services.stats('aigw-policy')))[0].endpoints[0].num_requests;
    const before = (await until('it tells', async () => [await leases()]))[0];
    await until('a lease request is counted', async () => { // the next may be covered by what the last has brought
      await (await suite.chat({ mock: 'tokens=1' })).arrayBuffer();
      return (await leases()) > before;
    });
  });

  await step('the configuration is in its bucket, manifest and parts', async () => {
    const kv = await new Kvm(jetstream(nc, { checkAPI: false, timeout: PATIENCE })).open('AIGW_CONFIG', { allow_direct: false });
    const latest = (await kv.get('latest')).json();
    assert.equal(latest.format, 1);
    assert.ok(latest.revision > 0);
    assert.deepEqual((await kv.get(`manifest.${latest.revision}`)).json().pages, latest.pages);
    const page = (await kv.get(`part.${latest.pages[0]}`)).json();
    const part = page.parts.find((p) => p.kind === 'routes');
    const text = (await kv.get(`part.${part.digest}`)).string();
    assert.equal(text.length, part.bytes);
  });

  await step('a change is announced, and every instance says that it took it', async () => {
    const changed = [], applied = [];
    const a = nc.subscribe('aigw.config.changed', { callback: (_e, m) => changed.push(m.json()) });
    const b = nc.subscribe('aigw.config.applied', { callback: (_e, m) => applied.push(m.json()) });
    await nc.flush();
    await suite.must('POST', 'namespaces', { slug: 'announced', name: 'x', auth: 'key' });
    await until('all have taken it', () => {
      const now = changed.at(-1)?.revision;
      const who = new Set(applied.filter((m) => m.revision === now && m.ok !== false && !m.error).map((m) => m.from));
      return now && ['edge-1', 'edge-2', 'token'].every((x) => who.has(x));
    });
    a.unsubscribe();
    b.unsubscribe();
  });

  await step('usage records go by namespace, without prompt or answer', async () => {
    const answer = await until('it is served', async () => {
      const a = await suite.chat({ text: 'a secret word: xyzzy', mock: 'tokens=3' });
      await a.arrayBuffer();
      return a.status === 200 && a;
    }, { every: 200 });
    const r = await usage.for(answer);
    const of = await until('it was seen', () => traffic.filter(([subject, text]) => subject.startsWith('aigw.usage.') && text.includes(r.id)));
    assert.deepEqual([...new Set(of.map(([subject]) => subject))], ['aigw.usage.test-channel']);
    assert.equal(r.v, 1);
    assert.deepEqual([r.namespace, r.model, r.status, r.outcome, r.output_tokens, r.input_source], ['test-channel', 'Qwen3-8B', 200, 'ok', 3, 'exact']);
    assert.doesNotMatch(of.join(), /xyzzy/);
    await until('one comes alone', async () => { // as it does when all before it have come
      const a = await suite.chat({ mock: 'tokens=1' });
      await a.arrayBuffer();
      await usage.for(a);
      return traffic.some(([subject, text]) => schemaOf(subject, text) === 'usage_record');
    });
    const info = await (await jetstreamManager(nc, { checkAPI: false, timeout: PATIENCE })).streams.info('AIGW_USAGE');
    assert.equal(info.config.discard, 'new');
    assert.ok(info.state.last_seq >= 1); // those that are stored may have left it
  });

  await step('records that come together go together, and are in the ledger each once', async () => {
    const batches = [];
    const sub = nc.subscribe('aigw.usage.test-channel', { callback: (_e, m) => { if (m.json().v === 2) batches.push(usageRecords(m)); } });
    await nc.flush();
    const ids = await until('some go together', async () => {
      const answers = await Promise.all(Array.from({ length: 16 }, async () => { const r = await suite.chat({ mock: 'tokens=1' }); await r.arrayBuffer(); return r; }));
      const mine = new Set((await Promise.all(answers.map((r) => usage.for(r)))).map((r) => r.id));
      assert.equal(mine.size, 16);
      return batches.some((b) => b.length > 1 && b.some((r) => mine.has(r.id))) && mine;
    });
    sub.unsubscribe();
    const ledger = async (id) => JSON.parse((await nc.request('aigw.metrics.query', JSON.stringify({ v: 1, kind: 'records', limit: 1000 }), { timeout: PATIENCE })).string())
      .result.records.filter((r) => r.id === id).length;
    for (const id of ids) await until('a record is in the ledger', async () => await ledger(id) > 0);
    for (const id of ids) assert.equal(await ledger(id), 1);
  });

  await step('everybody says that it is there', async () => {
    const seen = new Map();
    const sub = nc.subscribe('aigw.presence', { callback: (_e, m) => { const p = m.json(); seen.set(p.from, p); } });
    await until('presence of all', () => ['edge-1', 'edge-2', 'token', 'policy-1', 'config', 'metrics'].every((x) => seen.has(x)));
    sub.unsubscribe();
    assert.ok(seen.get('edge-1').revision > 0);
  });

  await step('refusals and questions', async () => {
    await until('a refusal is published', async () => {
      await (await suite.chat({ mock: 'tokens=1' })).arrayBuffer();
      return traffic.some(([subject]) => subject === 'aigw.policy.rejected');
    });
    const ask = async (subject, m) => (await nc.request(subject, JSON.stringify({ v: 1, ...m }), { timeout: PATIENCE })).string();
    const manifest = await ask('aigw.config.get', {});
    assert.equal(failures('snapshot_manifest', manifest), '');
    const [digest] = JSON.parse(manifest).pages;
    const part = await ask('aigw.config.get', { digest });
    assert.equal(failures('config_part', part), '');
    assert.equal(failures('snapshot_page', JSON.parse(part).part), '');
    for (const kind of ['totals', 'series', 'records']) assert.ok(JSON.parse(await ask('aigw.metrics.query', { kind })).result, kind);
    assert.equal(JSON.parse(await ask('aigw.metrics.query', { kind: 'all' })).error.code, 'invalid');
  });

  await step('every message fits its schema', () => {
    const bad = traffic.filter(([subject, text]) => text !== '{"v":1,"kind":"all"}' && failures(schemaOf(subject, text), text) !== '');
    assert.deepEqual(bad.map(([subject, text]) => `${subject}: ${failures(schemaOf(subject, text), text)}: ${text}`), []);
    const seen = new Set(traffic.map(([subject, text]) => schemaOf(subject, text)));
    assert.deepEqual([...seen].sort(), ['config_applied', 'config_changed', 'config_get', 'lease_ask', 'metrics_query', 'policy_rejected',
      'presence', 'usage_batch', 'usage_record']);
  });
});
