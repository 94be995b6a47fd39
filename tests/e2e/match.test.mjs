// SPDX-License-Identifier: Apache-2.0
// Whose request it is and where it goes: conditions on all that a request has, tokens, addresses, routes.
import assert from 'node:assert/strict';
import { createSign, generateKeyPairSync, sign } from 'node:crypto';
import fs from 'node:fs';
import http from 'node:http';
import net from 'node:net';
import os from 'node:os';
import path from 'node:path';
import { after } from 'node:test';
import tls from 'node:tls';
import { Records } from './lib/records.mjs';
import { suiteTest } from './lib/suite.mjs';
import { Authority } from './lib/tls.mjs';
import { PATIENCE, until } from './lib/util.mjs';

// An upstream that keeps what it was sent, and answers as a model would.
async function recorder() {
  const seen = [];
  const s = http.createServer({ keepAliveTimeout: 0 }, (req, res) => {
    let body = '';
    req.on('data', (d) => { body += d; });
    req.on('end', () => {
      seen.push({ url: req.url, headers: req.headers, raw: req.rawHeaders, body });
      res.writeHead(200, { 'content-type': 'application/json', 'x-powered-by': 'secret', 'x-region': 'eu' });
      res.end(JSON.stringify({ object: 'chat.completion', choices: [{ index: 0, message: { role: 'assistant', content: 'hi' }, finish_reason: 'stop' }],
        usage: { prompt_tokens: 9, completion_tokens: 1, total_tokens: 10 } }));
    });
  });
  await new Promise((resolve) => s.listen(0, '127.0.0.1', resolve));
  return { url: `http://127.0.0.1:${s.address().port}`, seen, last: () => seen.at(-1), close: () => { s.closeAllConnections(); s.close(); } };
}

// Signs tokens, and serves its public keys.
class Issuer {
  constructor() { this.keys = []; this.fetches = 0; this.broken = false; }
  async start() {
    this.server = http.createServer((req, res) => {
      this.fetches++;
      if (this.broken) { res.writeHead(500).end(); return; }
      res.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify(this.jwks()));
    });
    await new Promise((resolve) => this.server.listen(0, '127.0.0.1', resolve));
    this.url = `http://127.0.0.1:${this.server.address().port}/jwks`;
    return this;
  }
  add(kid, type, options) {
    const pair = generateKeyPairSync(type, options);
    this.keys.push({ kid, ...pair });
  }
  jwks() { return { keys: this.keys.map((k) => ({ ...k.publicKey.export({ format: 'jwk' }), kid: k.kid })) }; }
  token(kid, alg, claims, header = {}) {
    const part = (o) => Buffer.from(JSON.stringify(o)).toString('base64url');
    const data = `${part({ alg, kid, ...header })}.${part(claims)}`;
    const key = this.keys.find((k) => k.kid === kid).privateKey;
    const signature = alg === 'EdDSA' ? sign(null, Buffer.from(data), key)
      : alg.startsWith('ES') ? createSign('SHA256').update(data).sign({ key, dsaEncoding: 'ieee-p1363' })
        : createSign('SHA256').update(data).sign(key);
    return `${data}.${signature.toString('base64url')}`;
  }
}

const now = () => Math.floor(Date.now() / 1000);
const corp = await new Issuer().start();
corp.add('k1', 'rsa', { modulusLength: 2048 });
corp.add('k2', 'ec', { namedCurve: 'P-256' });
const partner = new Issuer();
partner.add('p1', 'ed25519');
const up = await recorder();
after(() => { up.close(); corp.server.closeAllConnections(); corp.server.close(); });

const claims = (more = {}) => ({ iss: 'https://corp.example', aud: 'gateway', exp: now() + 300, ...more });
const KEY = 'sk-aigw-match0000000000000000000000000001';

function config() {
  const space = (slug, more = {}) => ({ slug, auth: 'none', ...more });
  // Every answer says which namespace its request was of.
  const route = (slug, namespace, path, more = {}) => {
    const { request = {}, response = {} } = more.headers ?? {};
    return { slug, namespace, path, upstream: 'up', ...more, headers: { request, response: { ...response, set: { ...response.set, 'x-namespace': namespace } } } };
  };
  const matcher = (slug, when, priority = 0) => ({ slug: `to-${slug}`, namespace: slug, priority, when });
  const test = (source, name, op, value) => ({ source, ...(name ? { name } : {}), op, ...(op === 'in' ? { values: value } : op === 'exists' ? {} : { value }) });
  const names = ['by-query', 'by-path', 'by-host', 'by-method', 'by-address', 'by-body', 'by-model', 'by-regex', 'by-claim', 'rest'];
  return {
    namespaces: [...names.map((n) => space(n, n === 'rest' ? { default: true } : n === 'by-claim' ? { auth: 'jwt' } : {})),
      space('keyed', { auth: 'key' }),
      space('tokens', { auth: 'jwt', claims: test('claim', 'groups', 'in', ['red', 'blue']) }),
      space('either', { auth: 'key_or_jwt' })],
    issuers: [
      { slug: 'corp', issuer: 'https://corp.example', audiences: ['gateway'], algorithms: ['RS256', 'ES256'], jwks_url: corp.url, leeway_s: 0 },
      { slug: 'partner', issuer: 'https://partner.example', audiences: ['gateway'], algorithms: ['EdDSA'], jwks: partner.jwks() }],
    matchers: [
      matcher('by-query', test('query', 'team', 'in', ['q1', 'q2']), 10),
      matcher('by-path', test('path', '', 'prefix', '/teams/'), 5),
      matcher('by-host', test('host', '', 'suffix', '.hosted.example'), 10),
      matcher('by-method', { all: [test('method', '', 'equals', 'PUT'), { not: test('header', 'x-no', 'exists') }] }, 10),
      matcher('by-address', test('client_ip', '', 'in', ['203.0.113.0/24', '2001:db8::/32']), 20),
      matcher('by-body', test('body', '/metadata/team', 'equals', 'b'), 8),
      matcher('by-model', test('model', '', 'prefix', 'special-'), 7),
      matcher('by-regex', test('header', 'x-ticket', 'regex', '^T-[0-9]{3}$'), 10),
      matcher('by-claim', test('claim', '/realm/roles', 'equals', 'gold'), 30),
      matcher('tokens', test('header', 'x-space', 'equals', 'tokens'), 40),
      matcher('either', test('header', 'x-space', 'equals', 'either'), 40)],
    upstreams: [{ slug: 'up', dialect: 'openai', auth: { type: 'none' }, servers: [{ slug: 'up-1', url: up.url }] }],
    models: [{ slug: 'qwen3-8b', name: 'Qwen3-8B', vocabulary: 'qwen3' }, { slug: 'other', name: 'other-1' }],
    routes: [
      ...names.map((n) => route('all', n, { prefix: '/' }, { priority: -1 })),
      route('teams', 'by-path', { regex: '/teams/([a-z]+)/(v[0-9])/(.*)' }, { rewrite_path: '/$2/$3', headers: { request: { set: { 'x-team': 'set-by-route' } } } }),
      route('chat', 'rest', { exact: '/v1/chat/completions' }, {
        methods: ['POST'], models: ['Qwen3-*', 'house-model'], upstream_model: 'Qwen3-8B',
        defaults: { temperature: 0.5, max_tokens: 64, stop: ['END'] }, max: { temperature: 1, max_tokens: 100, n: 2 },
        headers: { request: { set: { 'x-tenant': 'rest' }, add: { 'x-tag': 'a' }, remove: ['x-internal'] },
          response: { remove: ['x-powered-by'], set: { 'x-region': 'edge' }, add: { 'x-served-by': 'gateway' } } } }),
      route('hosted', 'rest', { prefix: '/hosted' }, { hosts: ['*.only.example'] }),
      route('strict', 'keyed', { exact: '/strict' }, { methods: ['PUT', 'POST'] }),
      route('all', 'keyed', { prefix: '/v1/' }, { models: ['house-model', 'Qwen3-8B'] }),
      route('all', 'tokens', { prefix: '/v1/' }), route('all', 'either', { prefix: '/v1/' })],
    policies: [],
    keys: [{ slug: 'k', namespace: 'keyed', secret: KEY, models: ['house-*', 'Qwen3-8B'] },
      { slug: 'e', namespace: 'either', secret: 'sk-aigw-match0000000000000000000000000002' },
      { slug: 't', namespace: 'tokens', secret: 'sk-aigw-match0000000000000000000000000003' }],
  };
}

// Requests with node's own client: fetch() keeps Host and refuses other things.
function ask(suite, { path = '/v1/chat/completions', method = 'POST', headers = {}, body, model = 'Qwen3-8B', edge = 1 } = {}) {
  const text = method === 'GET' ? '' : typeof body === 'string' ? body : JSON.stringify({ model, messages: [{ role: 'user', content: 'hi' }], ...body });
  const { hostname, port } = new URL(suite.edge(edge));
  return new Promise((resolve, reject) => {
    const req = http.request({ hostname, port, path, method, agent: false, headers: { ...(text ? { 'content-type': 'application/json', 'content-length': Buffer.byteLength(text) } : {}), ...headers } }, (res) => {
      let all = '';
      res.on('data', (d) => { all += d; });
      res.on('end', () => resolve({ status: res.statusCode, headers: res.headers, text: all, get json() { return JSON.parse(all); } }));
    });
    req.on('error', reject);
    req.end(text);
  });
}

suiteTest('matching', { config, env: { edge: { TRUSTED_PROXIES: '127.0.0.0/8, 10.0.0.0/8', EDGE_WORKERS: '2', USAGE_IDENTITIES: 'plain' } } }, async (suite, step) => {
  const records = await Records.of(suite);
  const space = async (options, status = 200) => {
    const r = await ask(suite, options);
    assert.equal(r.status, status, r.text);
    return r.headers['x-namespace'];
  };
  const is = async (want, options) => assert.equal(await space(options), want, JSON.stringify(options));

  await step('by query, path, host, method, regular expression', async () => {
    await is('rest', {});
    await is('by-query', { path: '/v1/chat/completions?a=1&team=q2' });
    await is('rest', { path: '/v1/chat/completions?team=q3' });
    await is('by-path', { path: '/teams/red/v1/chat/completions' });
    await is('by-host', { headers: { host: 'A.Hosted.Example:8081' } });
    await is('rest', { headers: { host: 'hosted.example' } });
    await is('by-method', { path: '/x', method: 'PUT' });
    await is('rest', { path: '/x', method: 'PUT', headers: { 'x-no': '1' } });
    await is('by-regex', { headers: { 'x-ticket': 'T-123' } });
    await is('rest', { headers: { 'x-ticket': 'T-1234' } });
  });

  await step('by the client\'s address, as far as proxies are trusted', async () => {
    await is('by-address', { headers: { 'x-forwarded-for': '203.0.113.9' } });
    await is('by-address', { headers: { 'x-forwarded-for': '198.51.100.1, 203.0.113.9, 10.1.2.3' } });
    await is('by-address', { headers: { 'x-forwarded-for': '"x", [2001:db8::9]:4711' } });
    await records.one('its record', (r) => r.client_ip === '2001:db8::9' && r.namespace === 'by-address');
    // What the client itself wrote in front of its own address is hearsay.
    await is('rest', { headers: { 'x-forwarded-for': '203.0.113.9, 198.51.100.1' } });
    await is('rest', { headers: { 'x-forwarded-for': '203.0.113.9, nonsense' } });
  });

  await step('by members of the body and by model', async () => {
    await is('by-body', { body: { metadata: { team: 'b' } } });
    await is('by-body', { body: { metadata: { team: ['a', 'b'] } } });
    await is('rest', { body: { metadata: { team: 'c' } } });
    await is('by-model', { model: 'special-1', path: '/v1/chat/completions' });
    await is('by-body', { path: '/any', body: { metadata: { team: 'b' } } });
    for (const body of ['{"metadata":{"team":"c","team":"b"},"model":"Qwen3-8B","messages":[]}', '{"Metadata":{"team":"b"},"model":"Qwen3-8B","messages":[]}']) {
      const r = await ask(suite, { body });
      assert.equal(r.status, 400, r.text);
    }
  });

  await step('tokens of issuers: by URL and inline', async () => {
    const bearer = (t, more = {}) => ({ headers: { authorization: `Bearer ${t}`, 'x-space': 'tokens', ...more } });
    await is('tokens', bearer(corp.token('k1', 'RS256', claims({ groups: ['red'] }))));
    await is('tokens', bearer(corp.token('k2', 'ES256', claims({ groups: 'blue' }))));
    await is('tokens', bearer(partner.token('p1', 'EdDSA', { ...claims({ groups: 'red' }), iss: 'https://partner.example' })));
    await is('either', bearer(corp.token('k1', 'RS256', claims()), { 'x-space': 'either' }));
    const status = async (token, want, text, more) => {
      const r = await ask(suite, bearer(token, more));
      assert.equal(r.status, want, r.text);
      assert.match(r.json.error.message, text);
    };
    await status(corp.token('k1', 'RS256', claims({ groups: ['green'] })), 403, /does not say/);
    await status(corp.token('k1', 'RS256', claims({ groups: ['red'], exp: now() - 1 })), 401, /expired/);
    await status(corp.token('k1', 'RS256', claims({ groups: ['red'], aud: 'x' })), 401, /audience/);
    await status(`${corp.token('k1', 'RS256', claims({ groups: ['red'] })).slice(0, -4)}AAAA`, 401, /signature/);
    await status('sk-aigw-match0000000000000000000000000003', 401, /signed tokens/);
    await status('sk-aigw-unknown', 401, /Incorrect API key/);
    const none = await ask(suite, { headers: { 'x-space': 'tokens' } });
    assert.equal(none.status, 401);
    assert.equal(none.headers['www-authenticate'], 'Bearer');
    // A key's namespace does not take tokens.
    assert.equal((await ask(suite, { path: '/v1/models', method: 'GET', headers: { authorization: `Bearer ${KEY}` } })).status, 200);
  });

  await step('claims choose a namespace only when they are verified', async () => {
    await is('by-claim', { headers: { authorization: `Bearer ${corp.token('k1', 'RS256', claims({ realm: { roles: ['gold'] } }))}` } });
    await is('rest', { headers: { authorization: `Bearer ${corp.token('k1', 'RS256', claims({ realm: { roles: ['gold'] }, exp: now() - 5 }))}` } });
    const forged = corp.token('k1', 'RS256', claims({ realm: { roles: ['gold'] } })).split('.');
    forged[0] = Buffer.from('{"alg":"none"}').toString('base64url');
    await is('rest', { headers: { authorization: `Bearer ${forged[0]}.${forged[1]}.` } });
  });

  await step('a new key is fetched when a token names it; when the issuer is away the old ones stay', async () => {
    const before = corp.fetches;
    corp.add('k3', 'ec', { namedCurve: 'P-256' });
    const auth = { headers: { authorization: `Bearer ${corp.token('k3', 'ES256', claims({ groups: 'red' }))}`, 'x-space': 'tokens' } };
    await until('the new key is known', async () => (await ask(suite, auth)).status === 200);
    assert.ok(corp.fetches <= before + 2, `${corp.fetches - before} fetches`);
    corp.broken = true;
    corp.add('k4', 'ec', { namedCurve: 'P-256' });
    const r = await ask(suite, { headers: { authorization: `Bearer ${corp.token('k4', 'ES256', claims({ groups: 'red' }))}`, 'x-space': 'tokens' } });
    assert.equal(r.status, 401);
    await is('tokens', auth);
    corp.broken = false;
  });

  await step('routes: patterns rewrite, hosts choose, 405 says what is allowed', async () => {
    await ask(suite, { path: '/teams/red/v1/chat/completions?x=1', headers: { 'x-team': 'mine' } });
    assert.equal(up.last().url, '/v1/chat/completions?x=1');
    assert.equal(up.last().headers['x-team'], 'set-by-route');
    assert.equal((await ask(suite, { path: '/hosted/a', headers: { host: 'a.only.example' } })).status, 200);
    const r = await ask(suite, { path: '/strict', method: 'DELETE', headers: { authorization: `Bearer ${KEY}`, 'x-no': '1' }, body: '' });
    assert.equal(r.status, 405, r.text);
    assert.equal(r.headers.allow, 'PUT, POST');
  });

  await step('what is passed through arrives where it was sent to, however long its body is', async () => {
    // Its namespace and route are known by the head, before the body comes.
    const headers = { 'content-type': 'text/plain', 'x-space': 'either', authorization: 'Bearer sk-aigw-match0000000000000000000000000002' };
    for (const n of [10, 3000, 5000, 20000, 300000]) {
      const body = 'x'.repeat(n), target = `/v1/things/number-${n}?size=${n}`;
      assert.equal((await ask(suite, { path: target, body, headers })).status, 200);
      assert.equal(up.last().url, target);
      assert.ok(up.last().body === body, `${n} bytes`);
    }
  });

  await step('parameters have defaults and maxima, and the rest of the body stays as it was', async () => {
    const body = '{ "model" : "Qwen3-8B", "messages":[{"role":"user","content":"h\\u0069"}],"temperature": 1.7,"n":5 , "max_completion_tokens":5000}';
    const r = await ask(suite, { body, headers: { 'x-internal': '1', 'x-tag': 'own' } });
    assert.equal(r.status, 200, r.text);
    assert.equal(up.last().body, '{"stop":["END"], "model" : "Qwen3-8B", "messages":[{"role":"user","content":"h\\u0069"}],"temperature": 1,"n":2 , "max_completion_tokens":100}');
    const { headers, raw } = up.last();
    assert.equal(headers['x-tenant'], 'rest');
    assert.equal(headers['x-internal'], undefined);
    assert.deepEqual(raw.filter((v, i) => raw[i - 1]?.toLowerCase() === 'x-tag' && i % 2), ['own', 'a']);
    assert.equal(r.headers['x-powered-by'], undefined);
    assert.equal(r.headers['x-region'], 'edge');
    assert.equal(r.headers['x-served-by'], 'gateway');
    await ask(suite, { model: 'house-model' });
    const sent = JSON.parse(up.last().body);
    assert.deepEqual([sent.model, sent.temperature, sent.max_tokens, sent.stop], ['Qwen3-8B', 0.5, 64, ['END']]);
  });

  await step('GET /v1/models lists what the caller may use', async () => {
    const list = async (headers) => (await ask(suite, { path: '/v1/models', method: 'GET', headers })).json.data.map((m) => m.id).sort();
    assert.deepEqual(await list({ authorization: `Bearer ${KEY}` }), ['Qwen3-8B', 'house-model']);
    assert.deepEqual(await list({}), ['Qwen3-8B', 'house-model', 'other-1']);
    const r = await ask(suite, { model: 'other-1', headers: { authorization: `Bearer ${KEY}` } });
    assert.ok(r.status === 404 || r.status === 403, r.text);
  });

  await step('explained as it is done: by a body\'s members, and by a token\'s claims', async () => {
    const explained = async (sample) => { const r = (await suite.must('POST', 'explain', { target: '/v1/chat/completions', ...sample })).json; return [r.status, r.namespace?.slug]; };
    assert.deepEqual(await explained({ body: { model: 'Qwen3-8B', metadata: { team: 'b' } } }), [200, 'by-body']);
    assert.deepEqual(await explained({ body: { model: 'special-1' } }), [200, 'by-model']);
    assert.deepEqual(await explained({ claims: claims({ realm: { roles: ['gold'] } }) }), [200, 'by-claim']);
    assert.deepEqual(await explained({ headers: { 'x-space': 'tokens' }, claims: claims({ groups: ['red'] }) }), [200, 'tokens']);
    assert.deepEqual(await explained({ headers: { 'x-space': 'tokens' }, claims: claims({ groups: ['green'] }) }), [403, 'tokens']);
    assert.deepEqual(await explained({ headers: { 'x-space': 'tokens' } }), [401, 'tokens']);
    const both = await suite.admin('POST', 'explain', { target: '/', key: 'x', claims: {} });
    assert.deepEqual([both.status, both.json.violations[0].pointer], [422, '/claims']);
  });

  await step('one member of bodies, or of tokens, too many is refused with its name', async () => {
    const when = (source, from, n) => ({ all: Array.from({ length: n }, (_, i) => ({ source, name: `/many/m${from + i}`, op: 'exists' })) });
    const document = (await suite.admin('GET', 'config')).json;
    const matcher = (slug, ...condition) => ({ slug, namespace: 'rest', priority: 1, when: when(...condition) });
    for (const [source, of] of [['body', 'bodies'], ['claim', 'tokens']]) {
      const first = matcher(`first-${source}`, source, 0, 40), second = matcher(`second-${source}`, source, 40, 40);
      const whole = await suite.admin('PUT', 'config', { ...document, matchers: [...document.matchers, first, second] });
      assert.equal(whole.status, 422, whole.text);
      assert.equal(whole.json.violations[0].pointer, '/matchers');
      assert.match(whole.json.violations[0].message, new RegExp(`^/many/m\\d+ at /when/all/\\d+/name of (first|second)-${source} is one member of ${of} too many`));
      await suite.must('POST', 'matchers', first);
      const refused = await suite.admin('POST', 'matchers', second);
      assert.equal(refused.status, 422, refused.text);
      const { pointer, message } = refused.json.violations[0];
      assert.match(pointer, /^\/when\/all\/\d+\/name$/);
      assert.match(message, new RegExp(`^/many/m\\d+ is one member of ${of} too many: the whole configuration may look at 64$`));
      // As many as there is room for; those that are looked at already need none.
      let n = 10;
      while ((await suite.admin('POST', 'matchers?dry_run=true', matcher('fits', source, 40, n + 1))).status < 300) n++;
      assert.ok(n >= 10 && n < 24, `${n}`);
      await suite.must('POST', 'matchers', matcher(`fits-${source}`, source, 40, n));
      await suite.must('POST', 'matchers', matcher(`again-${source}`, source, 0, 40 + n));
    }
    await suite.applied();
    const more = await suite.admin('POST', 'routes', { slug: 'too-many', namespace: 'rest', path: { prefix: '/too/many/' }, upstream: document.upstreams[0].slug, max: { one_too_many: 1 } });
    assert.equal(more.status, 422, more.text);
    assert.equal(more.json.violations[0].pointer, '/max/one_too_many');
  });

  await step('what is wrong is said with its place', async () => {
    const r = await suite.admin('POST', 'routes', { slug: 'bad', namespace: 'rest', upstream: 'up', path: { regex: '/(' }, max: { temperature: 'hot' },
      headers: { request: { set: { Connection: 'x' } } } });
    assert.equal(r.status, 422, r.text);
    const places = JSON.parse(r.text).violations.map((e) => e.pointer).sort();
    assert.deepEqual(places, ['/headers/request/set/Connection', '/max/temperature', '/path/regex']);
    const issuer = await suite.admin('POST', 'issuers', { slug: 'bad', issuer: 'x', audiences: [], algorithms: ['HS256'], jwks_url: 'ftp://x' });
    assert.equal(issuer.status, 422, issuer.text);
  });
});

// Sends bytes as they are and gives back what came until the end.
function raw(suite, bytes, { split = [] } = {}) {
  const { hostname, port } = new URL(suite.edge(1));
  return new Promise((resolve, reject) => {
    const s = net.connect(Number(port), hostname);
    let all = '';
    s.on('data', (d) => { all += d; });
    s.on('close', () => resolve(all));
    s.on('error', (e) => (e.code === 'ECONNRESET' || e.code === 'EPIPE' ? resolve(all) : reject(e)));
    (async () => {
      let at = 0;
      for (const end of [...split, bytes.length]) {
        s.write(bytes.subarray(at, end));
        at = end;
        await new Promise((r) => setTimeout(r, 30));
      }
    })();
  });
}

suiteTest('proxies that write Forwarded', { config, env: { edge: { TRUSTED_PROXIES: '127.0.0.0/8, 10.0.0.0/8', ADDRESS_HEADER: 'forwarded' } } }, async (suite, step) => {
  await step('its right end tells the address, and nothing that a client writes', async () => {
    const is = async (want, headers) => {
      const r = await ask(suite, { headers });
      assert.deepEqual([r.status, r.headers['x-namespace']], [200, want], JSON.stringify(headers));
    };
    await is('by-address', { forwarded: 'for=203.0.113.9;proto=https' });
    await is('by-address', { forwarded: 'for=198.51.100.1, for="203.0.113.9:1234";by=10.0.0.1, For=10.1.2.3' });
    await is('by-address', { forwarded: 'for="[2001:db8::9]:4711"' });
    for (const spoof of ['for=203.0.113.9, for=198.51.100.1', 'for=203.0.113.9, for=unknown', 'for=203.0.113.9;x=", for=198.51.100.1', 'for=203.0.113.9;for=198.51.100.1'])
      await is('rest', { forwarded: spoof });
    await is('rest', { 'x-forwarded-for': '203.0.113.9' });
    await is('rest', { 'x-forwarded-for': '203.0.113.9', forwarded: 'for=198.51.100.1' });
  });
});

suiteTest('the PROXY protocol', { config, env: { edge: { PROXY_PROTOCOL: 'true', USAGE_IDENTITIES: 'plain', MAX_CONNECTIONS_PER_ADDRESS: '2', HEAD_TIMEOUT_MS: `${2 * PATIENCE}` } } }, async (suite, step) => {
  const body = JSON.stringify({ model: 'Qwen3-8B', messages: [{ role: 'user', content: 'hi' }] });
  const request = `POST /v1/chat/completions HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: ${body.length}\r\n\r\n${body}`;
  const records = await Records.of(suite);
  const served = async (bytes, options) => {
    const all = await raw(suite, bytes, options);
    assert.match(all, /^HTTP\/1.1 200/);
    const r = await records.for({ headers: { 'x-request-id': /^x-request-id: (\S+)/m.exec(all)[1] } });
    return [r.client_ip, r.namespace];
  };
  const v2 = (address) => Buffer.concat([Buffer.from('\r\n\r\n\0\r\nQUIT\n', 'latin1'), Buffer.from([0x21, 0x11, 0, 12]), Buffer.from(address.split('.').map(Number)), Buffer.from([192, 0, 2, 1, 0x11, 0x11, 0x1f, 0x91])]);

  await step('version 1 and 2 tell the address, in one piece or many', async () => {
    const one = Buffer.from(`PROXY TCP4 203.0.113.7 192.0.2.1 51000 443\r\n${request}`);
    assert.deepEqual(await served(one), ['203.0.113.7', 'by-address']);
    assert.deepEqual(await served(one, { split: [3, 20, 43, 44, 60] }), ['203.0.113.7', 'by-address']);
    const two = Buffer.concat([v2('198.51.100.9'), Buffer.from(request)]);
    assert.deepEqual(await served(two, { split: [5, 20, 29] }), ['198.51.100.9', 'rest']);
  });

  await step('a connection without the header is closed, and none of its bytes are served', async () => {
    assert.equal(await raw(suite, Buffer.from(request)), '');
    assert.equal(await raw(suite, Buffer.from(`PROXY TCP4 1.2.3 4 5 6\r\n${request}`)), '');
  });

  await step('connections are counted for the address that is told', async () => {
    const hold = (address, ms = 200) => new Promise((resolve) => {
      const { hostname, port } = new URL(suite.edge(1));
      const s = net.connect(Number(port), hostname, () => s.write(`PROXY TCP4 ${address} 192.0.2.1 1 443\r\n`));
      let all = '';
      s.on('data', (d) => { all += d; });
      s.on('error', () => {});
      setTimeout(() => resolve({ s, text: () => all }), ms);
    });
    let ms = 100;
    const two = await until('two are taken and a third is told', async () => { // in their order, when each has been read before the next came
      const three = [], said = () => three.map((x) => x.text().slice(0, 12));
      for (ms *= 2; three.length < 3;) three.push(await hold('203.0.113.1', ms));
      if (said().join() === ',,HTTP/1.1 503') { three.pop().s.destroy(); return three; }
      for (const x of three) x.s.destroy();
      throw new Error(JSON.stringify(said()));
    });
    const other = await hold('203.0.113.2', ms);
    for (const x of [...two, other]) assert.equal(x.text(), '');
    for (const x of [...two, other]) x.s.destroy();
  });
});

const files = fs.mkdtempSync(path.join(os.tmpdir(), 'aigw-e2e-match-files-'));
after(() => fs.rmSync(files, { recursive: true, force: true }));
const ca = new Authority(path.join(files, 'ca')), certificate = ca.sign('listener');

suiteTest('the PROXY protocol in front of TLS, from trusted balancers only', {
  config, env: { edge: { PROXY_PROTOCOL: 'true', TRUSTED_PROXIES: '127.0.0.1', TLS_CERT_FILE: certificate.cert, TLS_KEY_FILE: certificate.key } },
}, async (suite, step) => {
  const { hostname, port } = new URL(suite.edge(1));
  const over = (localAddress) => new Promise((resolve) => {
    const plain = net.connect({ port: Number(port), host: hostname, localAddress });
    plain.on('error', () => resolve(''));
    plain.on('connect', () => {
      plain.write('PROXY TCP6 2001:db8::5 ::1 51000 443\r\n');
      const secure = tls.connect({ socket: plain, ca: ca.pem, servername: 'localhost', checkServerIdentity: () => undefined }, () => {
        secure.write('GET /v1/chat/completions HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n');
      });
      let all = '';
      secure.on('data', (d) => { all += d; });
      secure.on('error', () => resolve(all));
      secure.on('close', () => resolve(all));
    });
  });
  await step('the header comes first, the handshake behind it', async () => {
    assert.match(await over('127.0.0.1'), /^HTTP\/1.1 200[^]*x-namespace: by-address/);
  });
  await step('who is not trusted is not heard', async () => {
    assert.equal(await over('127.0.0.2'), '');
  });
});
