// SPDX-License-Identifier: Apache-2.0
// What `make run` and `make stop` do once everything is built: services/run/run.sh, from an empty state folder, on other ports
// than the usual ones, scaled to two edges and two policy engines with Redis.
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import fs from 'node:fs';
import net from 'node:net';
import os from 'node:os';
import path from 'node:path';
import { after, before, test } from 'node:test';
import { ROOT, redisServer } from './lib/servers.mjs';
import { freePorts, http, portFamily, sseData, until } from './lib/util.mjs';

const BIN = process.env.AIGW_BIN ?? path.join(ROOT, 'build/asan/bin');
let dir, state, env, redis, gateway;

function run(command, more = {}) {
  return new Promise((resolve) => execFile(path.join(ROOT, 'services/run/run.sh'), [command, BIN], { env: { ...process.env, ...env, ...more } },
    (e, stdout, stderr) => resolve({ code: e ? e.code : 0, stdout, stderr })));
}
const secret = (name) => fs.readFileSync(path.join(state, 'secrets', name), 'utf8').trim();
const pids = async () => [...(await run('status')).stdout.matchAll(/ pid (\d+)/g)].map((m) => Number(m[1]));
const alive = (pid) => { try { return !/^\d+ \(.*\) Z/.test(fs.readFileSync(`/proc/${pid}/stat`, 'utf8')); } catch { return false; } };

before(async () => {
  dir = fs.mkdtempSync(path.join(os.tmpdir(), 'aigw-e2e-make-run-'));
  state = path.join(dir, 'state');
  const [redisPort, nats, monitor] = await freePorts(3);
  redis = await redisServer(dir, redisPort, 'redis-secret');
  env = { STATE: state, VOCAB_DIR: process.env.AIGW_VOCAB_DIR ?? path.join(ROOT, 'vocab'), NATS_PORT: nats, NATS_MONITOR_PORT: monitor,
    EDGES: 2, POLICIES: 2, COUNTER_URL: `redis://:redis-secret@127.0.0.1:${redisPort}/0` };
  for (const name of ['GATEWAY_PORT', 'CONFIG_CENTER_PORT', 'TOKEN_SERVICE_PORT', 'METRICS_PORT', 'MOCKLLM_PORT', 'POLICY_OPS_PORT'])
    env[name] = await portFamily([100, 1000, 1100]); // the second edge's, those of ops
  gateway = `http://127.0.0.1:${env.GATEWAY_PORT}`;
  for (const k of Object.keys(env)) env[k] = String(env[k]);
});
after(async () => {
  await run('stop');
  await redis.stop();
  const logs = fs.readdirSync(path.join(state, 'log'));
  const bad = logs.filter((f) => /ERROR: (Address|Leak)Sanitizer|runtime error:/.test(fs.readFileSync(path.join(state, 'log', f), 'utf8')));
  assert.deepEqual(bad, [], dir);
  fs.rmSync(dir, { recursive: true });
});

const hello = { model: 'Qwen3-8B', messages: [{ role: 'user', content: '你好' }] };

test('one that needs shared counters and has none says so, and starts nothing', async () => {
  const r = await run('start', { COUNTER_URL: 'memory:' });
  assert.equal(r.code, 1);
  assert.match(r.stderr, /COUNTER_URL=redis:/);
});

test('starts all, imports the demo, prints what to try', async () => {
  const r = await run('start');
  assert.equal(r.code, 0, r.stdout + r.stderr);
  assert.match(r.stdout, /9 processes are ready/);
  assert.match(r.stdout, new RegExp(`curl -X POST localhost:${env.GATEWAY_PORT}/api/chat`));
  for (const f of fs.readdirSync(path.join(state, 'secrets')))
    assert.equal(fs.statSync(path.join(state, 'secrets', f)).mode & 0o077, 0, f);
  assert.doesNotMatch(fs.readFileSync(path.join(state, 'plan'), 'utf8'), /redis-secret/);
});

test('the printed requests work, at both edges', async () => {
  const count = await http('POST', `http://127.0.0.1:${env.TOKEN_SERVICE_PORT}/calculate`, { body: hello });
  assert.deepEqual([count.status, count.json.tokens, count.json.exact], [200, 9, true]);
  // Counters in a new store begin empty (what was spent before is not known), so at first one may be told to come back.
  const served = (url, body, headers) => until(`${url} answers`, async () => {
    const r = await http('POST', url, { body, headers });
    assert.ok(r.status === 200 || (r.status === 429 && r.headers.get('retry-after')), r.text);
    return r.status === 200 && r;
  }, { every: 200 });
  for (const base of [gateway, `http://127.0.0.1:${Number(env.GATEWAY_PORT) + 100}`])
    await served(`${base}/api/chat`, hello, { 'X-Channel-Code': 'test-channel' });
  const s = await served(`${gateway}/v1/chat/completions`, { ...hello, stream: true }, { authorization: `Bearer ${secret('demo_key')}` });
  assert.equal(sseData(s.text).at(-1), '[DONE]');
  await until('it is counted', async () => /^gateway_requests_total\{namespace="test-channel".*outcome="ok"\} 1$/m.test((await http('GET', `${gateway}/metrics`)).text));
});

test('a second start leaves it as it is, and a change of the user stays', async () => {
  const auth = { authorization: `Bearer ${secret('admin_token')}` };
  const api = `http://127.0.0.1:${env.CONFIG_CENTER_PORT}/api/v2`;
  const before = await pids();
  assert.equal((await http('PATCH', `${api}/namespaces/demo`, { body: { name: 'Mine' }, headers: auth })).status, 200);
  assert.match((await run('start')).stdout, /Already running/);
  assert.match((await run('start', { EDGES: '1' })).stdout, /with other settings/);
  assert.deepEqual(await pids(), before);
  const stopped = await run('stop');
  assert.match(stopped.stdout, /stopped/);
  assert.deepEqual(before.filter(alive), []);
  assert.equal((await run('start')).code, 0);
  assert.equal((await http('GET', `${api}/namespaces/demo`, { headers: auth })).json.name, 'Mine');
});

test('a port that is taken is named with its setting', async () => {
  await run('stop');
  const other = net.createServer().listen(Number(env.METRICS_PORT), '127.0.0.1');
  await new Promise((resolve) => other.once('listening', resolve));
  const r = await run('start');
  other.close();
  assert.equal(r.code, 1);
  assert.match(r.stderr, new RegExp(`port ${env.METRICS_PORT}, which metrics needs, is taken .*METRICS_PORT=`));
});
