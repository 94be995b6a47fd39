// SPDX-License-Identifier: Apache-2.0
// Everything that `make bench` runs: the suite with one edge of one worker on the proxy's CPU, both nginx, and what stands
// behind them; and the load generator.
import { spawn } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import readline from 'node:readline';
import { Suite } from '../../e2e/lib/suite.mjs';
import { Authority } from '../../e2e/lib/tls.mjs';
import { Proc } from '../../e2e/lib/proc.mjs';
import { freePorts, sumOf, until } from '../../e2e/lib/util.mjs';
import { DEGREES, document, request, requests, ways } from './config.mjs';
import { holdOverTls } from './held.mjs';
import { nginx, pin, redis, relay, tlsUpstream, upstream } from './servers.mjs';

const PEERS = ['relay', 'nginx', 'nginx-lua'];
const TWIN = ', twin', original = (target) => target.replace(TWIN, '').replace(/@.*/, '');
const edgeOf = (target) => (target === 'bare-no-records' ? 2 : 1);

export class Stage {
  // peers: whether nginx and Redis are wanted; ledger: false when nobody will read the usage records, which then leave the
  // stream by themselves before it is full; env: settings of the edge; unrecorded: another edge beside it that keeps none.
  static async start(build, { peers = true, ledger = true, unrecorded = false, env = {} } = {}) {
    const s = new Stage();
    s.build = build;
    const [up, redisPort, ...ports] = await freePorts(2 + PEERS.length);
    s.upPort = up;
    s.ports = Object.fromEntries(PEERS.map((p, i) => [p, ports[i]]));
    s.suite = await Suite.start({
      name: 'bench', only: ['config', 'metrics', 'policy', 'edge'],
      config: null, edges: unrecorded ? 2 : 1,
      env: { 'edge-2': { USAGE_RECORDS: 'off' }, edge: { EDGE_WORKERS: '1', REMOTE_COUNT_BYTES: '1000000', LOG_LEVEL: 'warn', ...env },
        metrics: ledger ? {} : { USAGE_STREAM_MAX_AGE_S: '5', USAGE_DUPLICATES_S: '5' } },
    });
    try {
      const dir = s.suite.dir;
      s.upstream = await upstream(build, dir, up);
      await s.suite.importConfig(document(up)());
      await s.suite.applied();
      for (let k = 1; k <= s.suite.edges; k++) pin(s.suite.procs[`edge-${k}`]);
      s.procs = {};
      if (peers) {
        s.redis = await redis(dir, redisPort);
        s.startPeer = (name) => {
          const file = name.replace(TWIN, '-twin');
          if (original(name) === 'relay') return relay(build, dir, file, s.ports[name], up);
          return nginx(dir, file, s.ports[name], up, original(name) === 'nginx-lua' ? { redisPort } : {});
        };
        for (const p of PEERS) s.procs[p] = await s.startPeer(p);
      }
      await s.#firstLeases();
    } catch (e) {
      await s.close(true);
      throw e;
    }
    return s;
  }

  // The ledger's own work would meet all targets at random: it stands still while others are measured.
  pauseLedger() { this.suite.procs.metrics.signal('SIGSTOP'); }
  resumeLedger() { this.suite.procs.metrics.signal('SIGCONT'); }

  proc(target) { return this.procs[target] ?? (target === 'direct' ? this.upstream : this.suite.procs[`edge-${edgeOf(target)}`]); }
  port(target) {
    return this.ports[target] ?? (target === 'direct' ? this.upPort : Number(new URL(this.proc(target).url).port));
  }

  // A fresh process, for its memory.
  async restart(target) {
    const p = this.proc(target);
    if (this.procs[target]) {
      await p.stop();
      this.procs[target] = await this.startPeer(target);
    } else {
      await p.restart();
      await this.suite.applied();
      pin(p);
      await this.#firstLeases();
    }
  }

  // Another process like a target's: a target itself, until endTwin(). One at a time.
  async twin(target) {
    const name = `${target}${TWIN}`;
    if (PEERS.includes(target)) {
      [this.ports[name]] = await freePorts(1);
      this.procs[name] = await this.startPeer(name);
      return name;
    }
    this.procs[name] = await this.#another(this.proc(target), 'twin');
    return name;
  }
  // Edges of another build beside this one's, with the same settings: targets named TARGET@BUILD, to the end.
  async beside(build, targets) {
    const edges = new Map();
    for (const t of targets) {
      const p = this.proc(t);
      if (!edges.has(p)) edges.set(p, await this.#another(p, 'beside', path.join(build, 'bin/aigw-edge')));
      this.procs[`${t}@${build}`] = edges.get(p);
    }
  }
  async #another(p, what, command = p.command) {
    const [port, ops] = await freePorts(2), id = `edge-${what}-${port}`, dir = path.join(this.suite.dir, id);
    const edge = new Proc({ name: id, command, log: `${dir}.log`, cwd: p.cwd, ready: `http://127.0.0.1:${ops}/readyz`,
      env: { ...p.env, INSTANCE: id, STATE_DIR: dir, GATEWAY_PORT: `${port}`, OPS_PORT: `${ops}` } });
    Object.assign(edge, { service: 'edge', url: `http://127.0.0.1:${port}`, ops: `http://127.0.0.1:${ops}` });
    this.suite.procs[id] = edge;
    await edge.start().waitReady();
    pin(edge);
    await this.#firstLeases(edge);
    return edge;
  }
  async endTwin(name) {
    const p = this.procs[name];
    if (p.service) await this.published([p.name]);
    await p.stop();
    delete this.procs[name];
  }

  // Figures of an edge whose records did not get away would be of another edge: an error.
  async published(edges = this.suite.daemons().filter((p) => p.service === 'edge' && p.running).map((p) => p.name)) {
    await until('usage records are published', async () => {
      const metrics = await Promise.all(edges.map((e) => this.suite.metricsOf(e)));
      const of = (what) => metrics.reduce((sum, m) => sum + sumOf(m, 'gateway_usage_spool', { what }), 0);
      if (of('lost') > 0) throw Object.assign(new Error('usage records were lost'), { final: true });
      return of('settled') === 0;
    });
  }

  // CPU time that each of its threads has used, by name, in ns.
  threads(target) {
    const dir = `/proc/${this.proc(target).pid}/task`, used = {};
    for (const t of fs.readdirSync(dir)) {
      const name = fs.readFileSync(`${dir}/${t}/comm`, 'utf8').trim();
      used[name] = (used[name] ?? 0) + Number(fs.readFileSync(`${dir}/${t}/schedstat`, 'utf8').split(' ')[0]);
    }
    return used;
  }

  // From its next start on.
  set(target, env) { Object.assign(this.proc(target).env, env); }

  // The first requests find no lease, and on a busy machine may be refused before one comes.
  async #firstLeases(edge = this.suite.procs['edge-1']) {
    await until('leases of all limits', async () => {
      const r = await fetch(`${edge.url}${DEGREES.full.path}`, { method: 'POST', body: request(600),
        headers: Object.fromEntries([...DEGREES.full.headers, 'content-type: application/json'].map((h) => h.split(': '))) });
      await r.text();
      return r.status === 200;
    });
  }
  // The same with a listener that speaks TLS, until its next start by restart().
  async restartWithTls(target) {
    this.listener ??= new Authority(path.join(this.suite.dir, 'listener'));
    const p = this.proc(target), { cert, key } = this.listener.sign('edge');
    this.set(target, { TLS_CERT_FILE: cert, TLS_KEY_FILE: key });
    await p.restart();
    this.set(target, { TLS_CERT_FILE: '', TLS_KEY_FILE: '' });
    await this.suite.applied();
    pin(p);
    await until('leases of all limits', async () => { (await this.holdOverTls(target, 1))(); return true; });
  }

  // As hold(), of the edge's listener with TLS.
  holdOverTls(target, n) {
    const { path: at, headers } = DEGREES[target];
    return holdOverTls(this.port(target), this.listener.file, { path: at, headers: [...headers, 'x-bench: idle'], body: request(600, { stream: true }), n });
  }

  // What WAYS needs.
  async openWays() {
    if (this.tls) return;
    const [port] = await freePorts(1);
    this.tls = await tlsUpstream(this.suite.dir, port, this.upPort);
    for (const { upstream: u, route } of ways(this.upPort, port, this.tls.caFile)) {
      await this.suite.must('POST', 'upstreams', u);
      await this.suite.must('POST', 'routes', route);
    }
    await this.suite.applied();
  }

  rssKb(target) {
    return Number(/^VmRSS:\s+(\d+)/m.exec(fs.readFileSync(`/proc/${this.proc(target).pid}/status`, 'utf8'))[1]);
  }

  #args(target, { bytes = 600, stream, bench, ...options }) {
    const degree = DEGREES[original(target)] ?? DEGREES.full;
    // The same bytes whatever the model's name. Long ones are fewer: a megabyte or two of them.
    const file = path.join(this.suite.dir, `bodies-${bytes}-${stream ? 's' : ''}-${degree.model ?? ''}`);
    if (!fs.existsSync(file)) {
      const n = Math.min(512, Math.max(16, Math.floor(2 ** 20 / bytes)));
      fs.writeFileSync(file, requests(n, bytes, { stream, ...(degree.model ? { model: degree.model } : {}) }).map((b) => `${b}\n`).join(''));
    }
    return [`port=${this.port(target)}`, `path=${degree.path}`, `bodies=${file}`, `pid=${this.proc(target).pid}`,
      ...degree.headers.map((h) => `header=${h}`), ...(bench ? [`header=x-bench: ${bench}`] : []),
      ...Object.entries(options).map(([k, v]) => `${k}=${v}`)];
  }

  #spawn(target, options) {
    const child = spawn(path.join(this.build, 'bench/proxy/load'), this.#args(target, options), { stdio: ['pipe', 'pipe', 'inherit'] });
    const ended = new Promise((resolve) => { child.once('close', resolve); child.once('error', resolve); });
    const line = new Promise((resolve) => { readline.createInterface({ input: child.stdout }).once('line', resolve); ended.then(() => resolve(null)); });
    return { child, ended, line };
  }

  // Runs the load to its end; an answer that was wrong is an error.
  async load(target, options) {
    const { ended, line } = this.#spawn(target, options);
    const text = await line, code = await ended;
    if (code !== 0 || text === null) throw new Error(`${target} ${JSON.stringify(options)}: ${text ?? `load ended with ${code}`}`);
    return JSON.parse(text);
  }

  // Holds streams open until the function that it resolves to is called.
  async hold(target, options) {
    const { child, ended, line } = this.#spawn(target, { ...options, mode: 'hold' });
    const text = await line;
    if (text === null || JSON.parse(text).open !== options.conns) {
      child.kill();
      throw new Error(`${target}: ${text}`);
    }
    return async () => {
      child.stdin.end();
      if ((await ended) !== 0) throw new Error(`${target}: streams that were to stay open ended`);
    };
  }

  async close(failed = false) {
    this.suite.procs.metrics?.signal('SIGCONT');
    this.tls?.close();
    for (const p of [...Object.values(this.procs ?? {}), this.redis, this.upstream]) await p?.kill();
    await this.suite.close({ failed });
  }
}
