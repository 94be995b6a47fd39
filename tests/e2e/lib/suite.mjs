// SPDX-License-Identifier: Apache-2.0
// The whole suite, or parts of it, on free ports in a folder of its own: nats-server with the repository's permissions,
// the daemons of AIGW_BIN, Redis and MariaDB where asked for. Any part can be stopped, killed and started again. At the
// end every daemon is stopped properly, and one that died unasked or left a sanitizer's report fails the test.
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { randomBytes, randomUUID } from 'node:crypto';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import { promisify } from 'node:util';
import { connect } from '@nats-io/transport-node';
import { Proc } from './proc.mjs';
import { ROOT, mariadbServer, natsPassword, natsServer, redisServer } from './servers.mjs';
import { PATIENCE, freePorts, getText, http, parseMetrics, sumOf, until } from './util.mjs';

const BIN = process.env.AIGW_BIN ?? path.join(ROOT, 'build/asan/bin');
const VOCAB = process.env.AIGW_VOCAB_DIR ?? path.join(ROOT, 'vocab');

// Options, all optional:
//   only: which daemons (default all); edges, policies: how many
//   store: 'sqlite' | 'mysql'; counter: 'memory' | 'redis'
//   prefix: of all subjects (default aigw), as an operator would change it
//   config: the document to import (null: none); env: { service or instance: { NAME: value } }
//   ports: is told { nats, redis, … } before any daemon starts
export class Suite {
  static async start(options = {}) {
    const s = new Suite(options);
    try {
      await s.#start();
    } catch (e) {
      await s.close({ failed: true });
      throw e;
    }
    return s;
  }

  constructor({ only = ['mockllm', 'config', 'metrics', 'token', 'policy', 'edge'], edges = 1, policies = 1, store = 'sqlite',
    counter = 'memory', prefix = 'aigw', config = demoConfig, env = {}, ports = () => {}, name = 'suite' }) {
    Object.assign(this, { only, edges, policies, store, counter, prefix, document: config, env, tellPorts: ports });
    this.dir = fs.mkdtempSync(path.join(os.tmpdir(), `aigw-e2e-${name}-`));
    this.procs = {};
    this.adminToken = randomBytes(24).toString('hex');
    this.masterKey = randomBytes(32).toString('hex');
    this.pepper = randomBytes(32).toString('hex');
    this.connections = [];
  }

  async #start() {
    const { dir, procs } = this;
    const ports = await freePorts(12 + 2 * this.edges + this.policies);
    const port = () => ports.pop();
    this.ports = { nats: port(), monitor: port() };
    procs.nats = natsServer(dir, this.ports.nats, this.ports.monitor, { prefix: this.prefix }).start();
    if (this.counter === 'redis') {
      this.ports.redis = port();
      procs.redis = await redisServer(dir, this.ports.redis, 'redis-secret');
    }
    if (this.store === 'mysql') {
      this.ports.mariadb = port();
      procs.mariadb = await mariadbServer(dir, this.ports.mariadb, { user: 'aigw', password: 'db-secret', databases: ['aigw_config', 'aigw_metrics'] });
    }
    await procs.nats.waitReady();
    this.tellPorts(this.ports);

    if (this.has('mockllm')) this.#daemon('mockllm', 'mockllm', port, 'MOCKLLM_PORT', { VOCAB_DIR: VOCAB });
    if (this.has('config')) this.#daemon('config', 'config', port, 'CONFIG_CENTER_PORT',
      { ...this.#keys(), ADMIN_TOKEN: this.adminToken, STORE_URL: this.#storeUrl('config') });
    if (this.has('metrics')) this.#daemon('metrics', 'metrics', port, 'METRICS_PORT', { STORE_URL: this.#storeUrl('metrics') });
    if (this.has('token')) this.#daemon('token', 'token', port, 'TOKEN_SERVICE_PORT', { VOCAB_DIR: VOCAB });
    // Sanitizers on busy cores take their time; how long is not what most tests are about.
    if (this.has('policy')) for (let k = 1; k <= this.policies; k++) this.#daemon(`policy-${k}`, 'policy', port, null,
      { COUNTER_TIMEOUT_MS: '8000', COUNTER_URL: this.counter === 'redis' ? `redis://:redis-secret@127.0.0.1:${this.ports.redis}/0` : 'memory:' });
    if (this.has('edge')) for (let k = 1; k <= this.edges; k++) this.#daemon(`edge-${k}`, 'edge', port, 'GATEWAY_PORT',
      { ...this.#keys(), VOCAB_DIR: VOCAB, ASK_TIMEOUT_MS: '10000' });
    for (const p of this.daemons()) p.start();

    if (this.has('config')) {
      await procs.config.waitReady();
      if (this.document) {
        const document = typeof this.document === 'function' ? await this.document(this) : this.document;
        await this.importConfig(document);
      }
    }
    await Promise.all(this.daemons().map((p) => p.waitReady()));
    if (this.document && this.has('edge')) await this.applied();
  }

  has(service) { return this.only.includes(service); }
  daemons() { return Object.values(this.procs).filter((p) => p.service); }
  #keys() { return { MASTER_KEY: this.masterKey, KEY_PEPPER: this.pepper }; }
  #storeUrl(service) {
    return this.store === 'mysql' ? `mysql://aigw:db-secret@127.0.0.1:${this.ports.mariadb}/aigw_${service}`
      : `sqlite:${path.join(this.dir, `${service}.db`)}`;
  }

  #daemon(name, service, port, portSetting, env) {
    const ops = port();
    const own = portSetting ? port() : null;
    const p = new Proc({
      name, command: path.join(BIN, `aigw-${service}`), log: path.join(this.dir, `${name}.log`), cwd: this.dir,
      ready: `http://127.0.0.1:${ops}/readyz`,
      env: {
        INSTANCE: name, OPS_PORT: `${ops}`, STATE_DIR: path.join(this.dir, name), NATS_URL: `nats://127.0.0.1:${this.ports.nats}`,
        NATS_USER: service, NATS_PASSWORD: natsPassword(service), ...(this.prefix === 'aigw' ? {} : { SUBJECT_PREFIX: this.prefix }), ...(own ? { [portSetting]: `${own}` } : {}), ...env,
        ...this.env[service], ...this.env[name],
      },
    });
    p.service = service;
    p.ops = `http://127.0.0.1:${ops}`;
    p.url = own ? `http://127.0.0.1:${own}` : null;
    this.procs[name] = p;
  }

  // --- addresses and clients ---
  edge(k = 1) { return this.procs[`edge-${k}`].url; }
  get mock() { return this.procs.mockllm.url; }

  admin(method, what, body, headers = {}) {
    return http(method, `${this.procs.config.url}/api/v2/${what}`, { body, headers: { authorization: `Bearer ${this.adminToken}`, ...headers } });
  }
  // Like admin(), but anything but 2xx is an error that shows the answer.
  async must(method, what, body, headers) {
    const r = await this.admin(method, what, body, headers);
    if (r.status < 200 || r.status > 299) throw new Error(`${method} ${what}: ${r.status} ${r.text}`);
    return r;
  }
  async importConfig(document) { return (await this.must('PUT', 'config', document)).json; }

  // Waits until every edge has said that it took this revision (default: the config center's present one).
  async applied(revision) {
    const want = revision ?? Number((await this.must('GET', 'revisions?limit=1')).json.items[0].revision);
    await until(`every edge has revision ${want}`, async () => {
      const { items } = (await this.must('GET', 'instances')).json;
      const edges = items.filter((i) => i.service === 'edge' && i.applied?.ok && i.applied.revision >= want);
      return edges.length >= this.edges;
    });
    return want;
  }

  async nats(user = 'observer') {
    const nc = await connect({ servers: `127.0.0.1:${this.ports.nats}`, user, pass: natsPassword(user), inboxPrefix: `_INBOX_${user}`,
      timeout: PATIENCE, maxReconnectAttempts: -1, reconnectTimeWait: 100 }); // however long it is away
    this.connections.push(nc);
    return nc;
  }

  // A command to Redis, as its administrator.
  async redis(...words) {
    return (await promisify(execFile)('redis-cli', ['-p', `${this.ports.redis}`, '--no-auth-warning', '-a', 'redis-secret', ...words])).stdout.trim();
  }

  // --- ground truth ---
  async mockStats() { return JSON.parse(await getText(`${this.mock}/mock/stats`)); }
  // Waits until the mock saw that the client of a request left, which was asked with 'tag=…'.
  async left(tag) { return until(`${tag} left`, async () => (await this.mockStats()).aborts.find((a) => a.tag === tag)); }
  async metricsOf(name) { return parseMetrics(await getText(`${this.procs[name].ops}/metrics`)); }
  async edgeSum(metric, labels) {
    let sum = 0;
    for (let k = 1; k <= this.edges; k++) sum += sumOf(await this.metricsOf(`edge-${k}`), metric, labels);
    return sum;
  }

  // Waits until the edges' sum of a metric is what it has to be: a number, or what a function says yes to. A client may
  // have its answer before the request that it ends is counted.
  async counted(want, metric, labels) {
    const is = typeof want === 'function' ? want : (sum) => sum === want;
    return until(`${metric} is ${want}`, async () => {
      const sum = await this.edgeSum(metric, labels);
      if (!is(sum)) throw new Error(`it is ${sum}`);
      return true;
    });
  }

  // Totals of the ledger, over the bus: the sums of all groups that a query answers (default: one group, everything).
  async ledger({ filter, group_by = [] } = {}) {
    this.ledgerClient ??= await this.nats('observer');
    const question = { v: 1, id: randomUUID(), ts: new Date().toISOString(), from: 'test', kind: 'totals', group_by, ...(filter ? { filter } : {}) };
    const answer = (await this.ledgerClient.request(`${this.prefix}.metrics.query`, JSON.stringify(question), { timeout: PATIENCE })).json();
    if (answer.error) throw new Error(`metrics.query: ${answer.error.code}: ${answer.error.message}`);
    return answer.result.groups;
  }
  // Waits until the ledger holds exactly n records, and returns the total. More than n is an error at once.
  async settled(n, filter) {
    return until(`${n} records in the ledger`, async () => {
      const [total] = await this.ledger({ filter });
      const have = total?.requests ?? 0;
      if (have > n) { const e = new Error(`${have} records in the ledger instead of ${n}`); e.final = true; throw e; }
      return have === n && (total ?? { requests: 0, input_tokens: 0, output_tokens: 0 });
    }, { every: 50 });
  }

  // A chat request at an edge, as the demo's channel. mock: how the mock should behave, such as 'tokens=20'.
  chat({ edge = 1, mock = '', headers = {}, path: where = '/api/chat', signal, text = '你好', ...body } = {}) {
    return fetch(`${this.edge(edge)}${where}`, {
      method: 'POST', signal,
      headers: { 'content-type': 'application/json', 'x-channel-code': 'test-channel', ...(mock ? { 'x-mock': mock } : {}), ...headers },
      body: JSON.stringify({ model: 'Qwen3-8B', messages: [{ role: 'user', content: text }], ...body }),
    });
  }

  // --- the end ---
  async close({ failed = false } = {}) {
    for (const nc of this.connections) await nc.close().catch(() => {});
    // Edges first, so that their last usage records still find the bus.
    const order = ['edge', 'policy', 'token', 'metrics', 'config', 'mockllm'];
    for (const service of order) await Promise.all(this.daemons().filter((p) => p.service === service).map((p) => p.stop()));
    for (const p of [this.procs.nats, this.procs.redis, this.procs.mariadb]) await p?.stop();
    const problems = this.daemons().flatMap((p) => p.check());
    if (failed || problems.length) {
      for (const p of Object.values(this.procs)) {
        const tail = p.tail(failed ? 15 : 5);
        if (tail) console.error(`--- ${p.log}\n${tail}`);
      }
      console.error(`--- kept: ${this.dir}`);
    } else {
      fs.rmSync(this.dir, { recursive: true, force: true });
    }
    if (problems.length && !failed) assert.fail(problems.join('\n'));
    if (problems.length) console.error(problems.join('\n'));
  }
}

// A test file on one running suite: suiteTest('title', options, async (suite, t) => { await t.test(…) … }).
export function suiteTest(title, options, fn) {
  test(title, async (t) => {
    const suite = await Suite.start({ name: title.replace(/[^a-z0-9]+/gi, '-').slice(0, 24), ...options });
    let failed = false;
    const step = async (name, body) => {
      await t.test(name, async (sub) => {
        try {
          await body(sub);
        } catch (e) {
          failed = true;
          throw e;
        }
      });
    };
    try {
      await fn(suite, step);
    } catch (e) {
      failed = true;
      throw e;
    } finally {
      await suite.close({ failed });
    }
  });
}

// The demo of `make run`, pointed at this suite's mock.
export const DEMO_KEY = 'sk-aigw-0123456789abcdef0123456789abcdef';
// Kinds of policies that are counted by the policy engine.
const COUNTED = ['request_rate', 'concurrency', 'token_rate', 'quota'];
// Its limits let through what the allocator does not answer in time: on a busy machine with sanitizers that takes longer
// than an edge waits, and only tests of limits are about that.
export const patient = (p) => (COUNTED.includes(p.kind) ? { ...p, on_unavailable: 'allow' } : p);
export function demoConfig(suite) {
  const demo = JSON.parse(fs.readFileSync(path.join(ROOT, 'compose/demo.json'), 'utf8')
    .replaceAll('http://127.0.0.1:8010', suite.mock).replaceAll('DEMO_KEY', DEMO_KEY));
  return { ...demo, policies: demo.policies.map(patient) };
}
