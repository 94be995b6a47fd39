// SPDX-License-Identifier: Apache-2.0
// The policy engine's other side: quotas that survive restarts and losses of everything, what operators see and reset,
// explanations, Sentinel, and a Redis that must not be used.
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { promisify } from 'node:util';
import { suiteTest, demoConfig, DEMO_KEY } from './lib/suite.mjs';
import { Proc } from './lib/proc.mjs';
import { freePorts, until } from './lib/util.mjs';

const withPolicies = (...policies) => (suite) => ({ ...demoConfig(suite), policies: policies.map((p) => ({ namespace: 'test-channel', ...p })) });

// Sends until one is refused (or there were `most`), one after the other. Returns how many were admitted.
async function sendUntilRefused(suite, most = 40, body = {}) {
  for (let admitted = 0; admitted < most;) {
    const r = await suite.chat({ mock: 'tokens=1', ...body });
    await r.arrayBuffer();
    if (r.status === 429) return admitted;
    if (r.status === 200) admitted++;
    else assert.equal(r.status, 503);
  }
  return most;
}

async function send(suite, n, body = {}) {
  for (let admitted = 0; admitted < n;) {
    const r = await suite.chat({ mock: 'tokens=1', ...body });
    await r.arrayBuffer();
    if (r.status === 200) admitted++;
    else assert.equal(r.status, 503, 'nothing but an engine that begins is in the way');
  }
}

const usage = async (suite, policy) => (await suite.must('GET', `policies/${policy}/usage`)).json;
// What an edge has in hand when it stands still for longer than its lease counts as used: so it may be more.
const MORE = 4;
const isUsed = (c, want) => c.leased === 0 && c.used >= want && c.used <= want + MORE;
const settledUsage = (suite, policy, want) => until(`${want} used of ${policy}`, async () => {
  const u = await usage(suite, policy);
  if (u.counters.length !== 1 || !isUsed(u.counters[0], want)) throw new Error(JSON.stringify(u.counters));
  return u;
});

for (const counter of ['memory', 'redis']) {
  suiteTest(`a quota, with ${counter}`, {
    counter, config: withPolicies({ slug: 'monthly', kind: 'quota', unit: 'requests', limit: 12, period: 'month', timezone: 'Europe/Berlin', on_unavailable: 'deny' }),
  }, async (suite, step) => {
    await step('is told to operators as it is used', async () => {
      await send(suite, 4);
      const u = await settledUsage(suite, 'monthly', 4);
      assert.equal(u.kind, 'fixed');
      assert.equal(u.unit, 'requests');
      assert.equal(u.counters[0].limit, 12);
      assert.ok(Date.parse(u.window.from) <= Date.now() && Date.now() < Date.parse(u.window.to));
      assert.match(u.window.from, /T2[23]:00:00/); // midnight in Berlin
    });
    await step('keeps what was used through kill -9 of the engine and a restart of the edge', async () => {
      await suite.procs['policy-1'].kill();
      await suite.procs['policy-1'].restart();
      await suite.procs['edge-1'].restart();
      await until('the counter is told again', async () => (await usage(suite, 'monthly')).counters[0]?.used >= 4);
      await send(suite, 2);
      // what the edge held when the engine died counts as spent
      await until('the counter tells at least what was used', async () => {
        const [c] = (await usage(suite, 'monthly')).counters;
        return isUsed(c, 6);
      });
    });
    await step('keeps what was used when its numbers change', async () => {
      await suite.must('PATCH', 'policies/monthly', { limit: 8 });
      await suite.applied();
      await until('the engine has it', async () => (await usage(suite, 'monthly')).counters[0]?.limit === 8);
      assert.ok(await sendUntilRefused(suite) <= 2);
      const r = await suite.chat({ mock: 'tokens=1' });
      assert.equal(r.status, 429);
      assert.equal((await r.json()).error.code, 'insufficient_quota');
      assert.equal(r.headers.get('x-should-retry'), 'false');
    });
    await step('is rebuilt from the usage ledger when the store is lost', async () => {
      const ok = await until('the ledger has every request', async () => {
        const groups = await suite.ledger({ group_by: ['outcome'] });
        const n = groups.find((g) => g.outcome === 'ok')?.requests;
        return n === (await suite.mockStats()).requests && n;
      });
      assert.ok(ok >= 6 && ok <= 8, `${ok} admitted`);
      if (counter === 'redis') {
        await suite.redis('FLUSHALL');
      } else {
        await suite.procs['policy-1'].kill();
        fs.rmSync(path.join(suite.dir, 'policy-1', 'quotas.marks'));
        await suite.procs['policy-1'].restart();
      }
      await until('the quota is rebuilt, with its margin', async () => {
        const r = await suite.chat({ mock: 'tokens=1' });
        await r.arrayBuffer();
        assert.notEqual(r.status, 200, 'more than the quota');
        const u = await usage(suite, 'monthly').catch(() => null);
        return u?.counters[0]?.used === ok + 1; // 1 % of 8, rounded up
      }, { every: 200 });
      const m = await suite.metricsOf('policy-1');
      assert.match(JSON.stringify(m), /aigw_policy_rebuilt_quotas_total/);
    });
    await step('begins anew when an operator resets it, which the audit tells', async () => {
      const u = await usage(suite, 'monthly');
      const r = (await suite.must('POST', 'policies/monthly/reset', { key: u.counters[0].key })).json;
      assert.equal(r.reset, 1);
      await until('it admits again', async () => { // an edge believes a refusal for a fifth of a second
        const again = await suite.chat({ mock: 'tokens=1' });
        await again.arrayBuffer();
        return again.status === 200;
      });
      await settledUsage(suite, 'monthly', 1);
      const entries = (await suite.must('GET', 'audit?limit=1000')).json.items;
      assert.equal(entries.at(-1).action, 'reset');
      assert.equal(entries.at(-1).slug, 'monthly');
    });
  });
}

suiteTest('operators', {
  config: withPolicies(
    { slug: 'rate', kind: 'request_rate', limit: 100, window: '10m', per: ['namespace', 'key'], priority: 5 },
    { slug: 'tiny', kind: 'token_rate', limit: 10, window: '1m', count: 'input', priority: 4, mode: 'shadow' },
    { slug: 'denied', kind: 'access', rules: [{ effect: 'deny', models: ['secret-*'] }] }),
}, async (suite, step) => {
  await step('are told about every counter of a policy, and about none of a policy that needs no counter', async () => {
    await send(suite, 3);
    const u = await settledUsage(suite, 'rate', 3);
    assert.match(u.counters[0].key, /^ns=[^;]+;key=-$/);
    const r = await suite.admin('GET', 'policies/denied/usage');
    assert.equal(r.status, 404);
    assert.match(r.json.detail, /no policy that is counted/);
    assert.equal((await suite.admin('GET', 'policies/nope/usage')).status, 404);
  });
  await step('are told what would be done with a sample request, and why', async () => {
    const sample = { target: '/api/chat', headers: { 'X-Channel-Code': 'test-channel' }, model: 'Qwen3-8B', input_tokens: 50, client_ip: '203.0.113.9' };
    const e = (await suite.must('POST', 'explain', sample)).json;
    assert.equal(e.status, 200, JSON.stringify(e));
    assert.equal(e.namespace.slug, 'test-channel');
    assert.equal(e.namespace.chosen_by, 'matcher');
    const by = Object.fromEntries(e.policies.map((p) => [p.slug, p]));
    assert.equal(by.rate.verdict, 'passes');
    assert.ok(by.rate.counter.used >= 3 && by.rate.counter.used <= 3 + MORE, `${by.rate.counter.used}`);
    assert.equal(by.tiny.verdict, 'refuses'); // but in shadow mode
    assert.equal(by.denied.verdict, 'passes');
    const no = (await suite.must('POST', 'explain', { ...sample, model: 'secret-1' })).json;
    assert.equal(no.status, 403);
    assert.match(no.why, /denied/);
    const lost = (await suite.must('POST', 'explain', { target: '/nowhere', method: 'GET' })).json;
    assert.notEqual(lost.status, 200);
    assert.equal((await suite.admin('POST', 'explain', { targt: '/' })).status, 422);
    assert.equal((await suite.mockStats()).requests, 3, 'nothing was sent');
  });
  await step('are answered in time when there is no engine, and again when it is back', async () => {
    await suite.procs['policy-1'].kill();
    const begin = Date.now();
    assert.equal((await suite.admin('GET', 'policies/rate/usage')).status, 503);
    assert.ok(Date.now() - begin < 30000);
    const e = (await suite.must('POST', 'explain', { target: '/api/chat', headers: { 'X-Channel-Code': 'test-channel' }, model: 'Qwen3-8B' })).json;
    assert.equal(e.policies.find((p) => p.slug === 'rate').verdict, 'unknown');
    await suite.procs['policy-1'].restart();
    await until('it answers', async () => (await suite.admin('GET', 'policies/rate/usage')).status === 200);
  });
  await step('cannot set what makes no sense, and are told where it belongs', async () => {
    const r = await suite.admin('POST', 'policies', { namespace: 'test-channel', slug: 'q', kind: 'quota', limit: 5, window: '1d', period: 'day', timezone: 'Mars/Olympus' });
    assert.equal(r.status, 422);
    const text = JSON.stringify(r.json.violations);
    assert.match(text, /a quota has a period/);
    assert.match(text, /IANA/);
  });
});

suiteTest('a Redis that may evict counters', {
  counter: 'redis', edges: 1, config: withPolicies({ slug: 'rate', kind: 'request_rate', limit: 1000, window: '1m', on_unavailable: 'deny' }),
}, async (suite, step) => {
  // An engine that begins, or begins again, may ask for a moment.
  const works = () => until('it admits', async () => {
    const r = await suite.chat({ mock: 'tokens=1' });
    await r.arrayBuffer();
    return r.status === 200;
  }, { every: 200 });
  await step('is not used, and the engine says what to change', async () => {
    await works();
    await suite.redis('CONFIG', 'SET', 'maxmemory', '100mb');
    await suite.redis('CONFIG', 'SET', 'maxmemory-policy', 'allkeys-lru');
    await until('the engine is unready', async () => {
      const r = await fetch(`${suite.procs['policy-1'].ops}/readyz`);
      return r.status === 503 && /noeviction/.test(await r.text());
    });
    await suite.redis('CONFIG', 'SET', 'maxmemory-policy', 'noeviction');
    await until('the engine is ready again', async () => (await fetch(`${suite.procs['policy-1'].ops}/readyz`)).status === 200);
    await works();
  });
});
