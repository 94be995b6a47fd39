// SPDX-License-Identifier: Apache-2.0
// Tokens that name a key which the edge has not seen: the request waits for the issuer's keys, and nobody can make an edge
// fetch them more often than it should.
import assert from 'node:assert/strict';
import { createSign, generateKeyPairSync } from 'node:crypto';
import http from 'node:http';
import { after } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { demoConfig, suiteTest } from './lib/suite.mjs';
import { PATIENCE, until } from './lib/util.mjs';

// Serves its public keys, after a while.
class Issuer {
  constructor(name) { Object.assign(this, { name, keys: [], fetches: 0, wait: 0 }); }
  async start() {
    this.server = http.createServer(async (_, res) => {
      this.fetches++;
      await delay(this.wait, undefined, { ref: false });
      const keys = this.keys.map((k) => ({ ...k.publicKey.export({ format: 'jwk' }), kid: k.kid }));
      res.writeHead(this.broken ? 500 : 200, { 'content-type': 'application/json' }).end(JSON.stringify({ keys }));
    });
    await new Promise((resolve) => this.server.listen(0, '127.0.0.1', resolve));
    this.url = `http://127.0.0.1:${this.server.address().port}/jwks`;
    return this;
  }
  add(kid) { this.keys.push({ kid, ...generateKeyPairSync('ec', { namedCurve: 'P-256' }) }); }
  token(kid, signer = kid) {
    const part = (o) => Buffer.from(JSON.stringify(o)).toString('base64url');
    const data = `${part({ alg: 'ES256', kid })}.${part({ iss: `https://${this.name}`, aud: 'gateway', exp: Math.floor(Date.now() / 1000) + 300, n: Math.random() })}`;
    const key = this.keys.find((k) => k.kid === signer).privateKey;
    return `${data}.${createSign('SHA256').update(data).sign({ key, dsaEncoding: 'ieee-p1363' }).toString('base64url')}`;
  }
}

const issuers = Object.fromEntries(await Promise.all(['quick', 'slow', 'hung', 'broken', 'left'].map(async (n) => [n, await new Issuer(n).start()])));
for (const i of Object.values(issuers)) i.add('old');
after(() => { for (const i of Object.values(issuers)) { i.server.closeAllConnections(); i.server.close(); } });

const config = (suite) => {
  const demo = demoConfig(suite);
  return { ...demo, policies: [],
    namespaces: [...demo.namespaces, { slug: 'tokens', name: 'Tokens', auth: 'jwt' }],
    matchers: [...demo.matchers, { slug: 'by-space', namespace: 'tokens', when: { source: 'header', name: 'x-space', op: 'equals', value: 'tokens' } }],
    routes: [...demo.routes, { slug: 'tokens', namespace: 'tokens', path: { prefix: '/v1/' }, upstream: demo.upstreams[0].slug }],
    issuers: Object.values(issuers).map((i) => ({ slug: i.name, issuer: `https://${i.name}`, audiences: ['gateway'], algorithms: ['ES256'], jwks_url: i.url, refresh_s: 3600 })) };
};

suiteTest('keys that are not known yet', { config, env: { edge: { EDGE_WORKERS: '2' } } }, async (suite, step) => {
  const ask = (token, options = {}) => suite.chat({ path: '/v1/chat/completions', mock: 'tokens=2', ...options,
    headers: { 'x-channel-code': '', 'x-space': 'tokens', authorization: `Bearer ${token}` } });
  const timed = async (token) => {
    const t0 = Date.now(), r = await ask(token);
    return { status: r.status, text: await r.text(), ms: Date.now() - t0 };
  };
  const { quick, slow, hung, broken, left } = issuers;

  await step('a fetch that was a moment ago is not repeated: 401 at once', async () => {
    assert.equal((await timed(quick.token('old'))).status, 200);
    let n = 0;
    await until('a new key is not fetched', async () => { // it is when the fetch before was not a moment ago: then this is it
      const fetches = quick.fetches;
      quick.add(`new-${++n}`);
      const r = await timed(quick.token(`new-${n}`));
      if (r.status === 200) return false;
      assert.equal(r.status, 401);
      assert.match(r.text, /do not hold the one it names/);
      if (quick.fetches !== fetches) throw new Error('it was fetched meanwhile');
      return true;
    });
    quick.add('new');
  });

  await step('the first who name it wait for one fetch, and are let in', async () => {
    // They wait for 5 s: who stands still for that long is told to come back, and then others show it.
    for (let tries = 0, all = []; all.length === 0 || all.some((r) => r.status !== 200); tries++) {
      quick.add(`first-${tries}`);
      await delay(10500); // that keys are left to rest; the edge may look at the end of it, as one asked for before
      const fetched = quick.fetches, began = Date.now();
      all = await Promise.all(Array.from({ length: 40 }, () => timed(quick.token(`first-${tries}`))));
      assert.ok(tries < 5 && all.every((r) => [200, 401].includes(r.status)), all.find((r) => r.status !== 200)?.text);
      // One for each time that they are left to rest.
      const most = 1 + Math.floor((Date.now() - began) / 10000);
      assert.ok(quick.fetches <= fetched + most, `${quick.fetches - fetched} fetches, of ${most}`);
    }
  });

  await step('as long as a fetch takes, others are served; an issuer that is slow, hangs or fails', async () => {
    slow.wait = 1500;
    hung.wait = 5 * PATIENCE;
    broken.broken = true;
    const three = [slow, hung, broken], fetches = () => three.reduce((n, i) => n + i.fetches, 0);
    for (let tries = 0, beside = 0; beside < 4; tries++) { // fewer when all stands still as long as they wait
      assert.ok(tries < 5, 'nobody else waits');
      if (tries > 0) await delay(21000); // twice that keys are left to rest: the edge may look after the first
      const asked = fetches(), kid = `new-${tries}`;
      for (const i of three) i.add(kid);
      const waiting = three.map((i) => timed(i.token(kid)));
      let waits = true;
      waiting[1].finally(() => { waits = false; });
      await until('an issuer is asked', () => !waits || fetches() > asked);
      for (beside = 0; waits; beside++) assert.equal((await timed(quick.token('old'))).status, 200);
      // One thread fetches, one issuer after the other.
      const [s, h, b] = await Promise.all(waiting);
      assert.ok(h.status === 401 && h.ms < PATIENCE, JSON.stringify(h));
      assert.equal(b.status, 401, b.text);
      assert.ok([200, 401].includes(s.status) && s.ms < PATIENCE, JSON.stringify(s));
      await until('the slow one is known', async () => (await timed(slow.token(kid))).status === 200);
    }
  });

  await step('who has no such key cannot make it fetch again and again', async () => {
    const before = Object.values(issuers).map((i) => i.fetches), began = Date.now();
    await Promise.all(Array.from({ length: 100 }, async (_, k) => {
      const token = quick.token('new').split('.');
      token[0] = Buffer.from(JSON.stringify({ alg: 'ES256', kid: `made-up-${k}` })).toString('base64url');
      assert.equal((await timed(token.join('.'))).status, 401);
    }));
    const most = 1 + Math.floor((Date.now() - began) / 10000);
    Object.values(issuers).forEach((i, k) => assert.ok(i.fetches <= before[k] + most, `${i.name}: ${i.fetches - before[k]} fetches, of ${most}`));
  });

  await step('a client that leaves while it waits leaves nothing behind', async () => {
    left.wait = 8000;
    left.add('new');
    const gone = new AbortController();
    const asked = Array.from({ length: 5 }, () => ask(left.token('new'), { signal: gone.signal }).catch(() => 'gone'));
    await until('they wait', async () => await suite.edgeSum('gateway_inflight_requests') === 5);
    gone.abort();
    assert.deepEqual(await Promise.all(asked), Array(5).fill('gone'));
    await until('nothing is in flight', async () => await suite.edgeSum('gateway_inflight_requests') === 0);
  });
});
