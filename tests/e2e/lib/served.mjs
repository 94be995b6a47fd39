// SPDX-License-Identifier: Apache-2.0
// Several servers behind an edge, whose upstreams are the test's.
import assert from 'node:assert/strict';
import path from 'node:path';
import { Proc } from './proc.mjs';
import { demoConfig, suiteTest } from './suite.mjs';
import { freePorts, http } from './util.mjs';

const BIN = process.env.AIGW_BIN ?? path.resolve(import.meta.dirname, '../../../build/asan/bin');

// Model servers of our own: m1, m2, m3. Each says in x-server who it is.
export class Servers {
  static async start(suite, n) {
    const s = new Servers();
    const ports = await freePorts(2 * n);
    s.list = Array.from({ length: n }, (_, i) => {
      const name = `m${i + 1}`, url = `http://127.0.0.1:${ports[2 * i]}`;
      const p = new Proc({ name, command: path.join(BIN, 'aigw-mockllm'), log: path.join(suite.dir, `${name}.log`), cwd: suite.dir, ready: `http://127.0.0.1:${ports[2 * i + 1]}/readyz`,
        env: { INSTANCE: name, MOCKLLM_PORT: `${ports[2 * i]}`, OPS_PORT: `${ports[2 * i + 1]}`, STATE_DIR: path.join(suite.dir, name), NATS_URL: '', VOCAB_DIR: '',
          MOCKLLM_DEFAULT: `tokens=3;header=x-server:${name}` } });
      return { name, url, proc: p };
    });
    s.urls = s.list.map((m) => m.url);
    for (const m of s.list) m.proc.start();
    await Promise.all(s.list.map((m) => m.proc.waitReady()));
    return s;
  }
  // Until told otherwise, server k (from 1) behaves like this: 'fail=500'; '' as usual.
  async behave(k, how = '') {
    const m = this.list[k - 1];
    const r = await http('PUT', `${m.url}/mock/default`, { body: `tokens=3;header=x-server:${m.name}${how ? `;${how}` : ''}`, headers: { 'content-type': 'text/plain' } });
    assert.ok(r.status < 300, r.text);
  }
  async requests(k) { return JSON.parse((await http('GET', `${this.urls[k - 1]}/mock/stats`)).text).requests; }
  async close() {
    for (const m of this.list) await m.proc.kill();
    return this.list.flatMap((m) => m.proc.check());
  }
}

// A suite with three model servers, and a route /SLUG/… to each upstream.
export function servedTest(title, { upstreams, routes = {}, edges = 1 }, fn) {
  let servers;
  const config = async (suite) => {
    servers = await Servers.start(suite, 3);
    const demo = demoConfig(suite);
    const made = Object.entries(upstreams).map(([slug, { n = 3, each = [], ...u }]) => ({
      slug, name: slug, dialect: 'openai', auth: { type: 'none' }, ejection: { failures: 0 }, breaker: { error_percent: 0 }, retries: 0, ...u,
      servers: servers.urls.slice(0, n).map((url, i) => ({ slug: `m${i + 1}`, url, ...each[i] })) }));
    return { ...demo, policies: [], upstreams: [...demo.upstreams, ...made],
      routes: [...demo.routes, ...Object.keys(upstreams).map((slug) => ({ slug, namespace: 'test-channel', path: { prefix: `/${slug}/` },
        endpoint: 'chat', rewrite_path: '/v1/chat/completions', upstream: slug, ...routes[slug] }))] };
  };
  suiteTest(title, { config, edges, only: ['mockllm', 'config', 'metrics', 'policy', 'edge'], env: { edge: { EDGE_WORKERS: '2' } } }, async (suite, step) => {
    try {
      const ask = (slug, body = {}, options = {}) => suite.chat({ path: `/${slug}/chat`, ...options, ...body });
      // Who answered, after the answer was read.
      const who = async (slug, body, options) => {
        const r = await ask(slug, body, options);
        const text = await r.text();
        assert.equal(r.status, 200, text);
        return r.headers.get('x-server');
      };
      const tally = async (slug, n, each = () => ({})) => {
        const counts = { m1: 0, m2: 0, m3: 0 };
        for (let i = 0; i < n; i++) counts[await who(slug, each(i))]++;
        return counts;
      };
      await fn({ suite, step, servers, ask, who, tally });
    } finally {
      const problems = await servers.close();
      assert.deepEqual(problems, []);
    }
  });
}

// The text of an answer as far as it came.
export async function partial(r) {
  let text = '';
  try {
    for await (const piece of r.body) text += Buffer.from(piece).toString();
  } catch { /* it was broken off */ }
  return text;
}
