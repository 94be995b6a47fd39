// SPDX-License-Identifier: Apache-2.0
// aigw-run, on small processes of its own: order, readiness, restarts, ending exactly what was started.
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import fs from 'node:fs';
import net from 'node:net';
import os from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, test } from 'node:test';
import { freePorts, until } from './lib/util.mjs';

const RUN = path.join(process.env.AIGW_BIN ?? 'build/asan/bin', 'aigw-run');
// A server that is ready after a while, says what it is told to, and dies when asked at /die.
const SERVER = `
  const http = require('node:http');
  const begin = Date.now(), after = Number(process.env.READY_AFTER ?? 0);
  http.createServer((q, r) => {
    if (q.url === '/die') process.exit(7);
    r.statusCode = Date.now() - begin >= after ? 200 : 503;
    r.end(r.statusCode === 503 ? 'not ready: still warming\\n' : JSON.stringify({ pid: process.pid, name: process.env.NAME }));
  }).listen(Number(process.env.PORT), '127.0.0.1', () => console.log('listening'));
  process.on('SIGTERM', () => { if (process.env.STUBBORN) return; console.log('bye'); process.exit(0); });
`;
let dir, state, script;

beforeEach(() => {
  dir = fs.mkdtempSync(path.join(os.tmpdir(), 'aigw-e2e-run-'));
  state = path.join(dir, 'state');
  script = path.join(dir, 'server.cjs');
  fs.writeFileSync(script, SERVER);
});
afterEach(async () => {
  await run('stop', state);
  for (const f of fs.readdirSync(path.join(state, 'log')))
    assert.doesNotMatch(fs.readFileSync(path.join(state, 'log', f), 'utf8'), /Sanitizer|runtime error/);
  fs.rmSync(dir, { recursive: true });
});

function run(...args) {
  return new Promise((resolve) => execFile(RUN, args, (e, stdout, stderr) => resolve({ code: e ? e.code : 0, stdout, stderr })));
}
function plan(...processes) {
  const file = path.join(dir, 'plan');
  fs.writeFileSync(file, processes.flatMap(({ name, port, after = [], env = {}, more = [] }) => [
    `process ${name}`, ...(after.length ? [`  after ${after.join(' ')}`] : []),
    `  command "${process.execPath}" "${script}"`,
    `  env PORT=${port}`, `  env NAME=${name}`, ...Object.entries(env).map(([k, v]) => `  env ${k}=${v}`),
    `  ready http://127.0.0.1:${port}/`, ...more.map((l) => `  ${l}`), '']).join('\n'));
  return file;
}
const ask = async (port) => (await fetch(`http://127.0.0.1:${port}/`)).json();
const alive = (pid) => {
  try { return !/^\d+ \(.*\) Z/.test(fs.readFileSync(`/proc/${pid}/stat`, 'utf8')); } catch { return false; }
};
const supervisor = () => Number(fs.readFileSync(path.join(state, 'run/supervisor.pid'), 'utf8').split(' ')[0]);
const log = (name) => fs.readFileSync(path.join(state, 'log', `${name}.log`), 'utf8');

test('starts in order, says what runs, and ends exactly that', async () => {
  const [a, b] = await freePorts(2);
  const file = plan({ name: 'late', port: b, after: ['early'] }, { name: 'early', port: a, env: { READY_AFTER: 300 } });
  const started = await run('start', file, state);
  assert.equal(started.code, 0, started.stderr);
  assert.ok(started.stdout.indexOf('early') < started.stdout.indexOf('late'));
  assert.match(started.stdout, /2 processes are ready/);
  const pids = [(await ask(a)).pid, (await ask(b)).pid];
  const again = await run('start', file, state);
  assert.deepEqual([again.code, again.stdout.trim()], [0, 'already running']);
  assert.deepEqual([(await ask(a)).pid, (await ask(b)).pid], pids);
  const status = await run('status', state);
  assert.match(status.stdout, /^early +ready/m);
  assert.match(status.stdout, new RegExp(`late.* pid ${pids[1]}`));
  const stopped = await run('stop', state);
  assert.match(stopped.stdout, /stopped/);
  assert.deepEqual(pids.map(alive), [false, false]);
  assert.match(log('early'), /bye/);
  assert.equal((await run('status', state)).code, 3);
  assert.match((await run('stop', state)).stdout, /nothing runs/);
});

test('starts one that dies again, and counts it', async () => {
  const [port] = await freePorts(1);
  assert.equal((await run('start', plan({ name: 'a', port }), state)).code, 0);
  const first = (await ask(port)).pid;
  await fetch(`http://127.0.0.1:${port}/die`).catch(() => {});
  const second = await until('it is back', async () => (await ask(port)).pid);
  assert.notEqual(second, first);
  await until('it is counted', async () => / ready .*restarts 1 /.test((await run('status', state)).stdout));
  assert.match(log('run'), /"died: starting it again after a pause","process":"a","how":"exit","code":7,"pause_ms":200/);
});

test('leaves nothing behind when it is killed, and the next start begins clean', async () => {
  const [a, b] = await freePorts(2);
  const file = plan({ name: 'a', port: a }, { name: 'stubborn', port: b, env: { STUBBORN: 1 }, more: ['stop-timeout 300ms'] });
  assert.equal((await run('start', file, state)).code, 0);
  const pids = [(await ask(a)).pid, (await ask(b)).pid];
  process.kill(supervisor(), 'SIGKILL');
  await until('a ends with its supervisor', () => !alive(pids[0]));
  assert.ok(alive(pids[1])); // it ignores SIGTERM
  const again = await run('start', file, state);
  assert.equal(again.code, 0, again.stderr);
  assert.match(again.stdout, /stubborn.* was left running/);
  assert.ok(!alive(pids[1]));
  const stubborn = (await ask(b)).pid;
  await run('stop', state); // kills it after its time
  assert.ok(!alive(stubborn));
});

test('says which port is taken, and by which setting to move it; starts nothing then', async () => {
  const [a, b] = await freePorts(2);
  const other = net.createServer().listen(b, '127.0.0.1');
  await new Promise((resolve) => other.once('listening', resolve));
  const r = await run('start', plan({ name: 'a', port: a }, { name: 'b', port: b, more: [`port ${b} B_PORT`] }), state);
  other.close();
  assert.equal(r.code, 1);
  assert.match(r.stderr, new RegExp(`port ${b}, which b needs, is taken .*B_PORT=`));
  await assert.rejects(ask(a));
});

test('says when one port is given to two', async () => {
  const [a, b] = await freePorts(2);
  const r = await run('start', plan({ name: 'a', port: a, more: [`port ${a} A_PORT`] },
    { name: 'b', port: b, more: [`port ${b} B_PORT`, `port ${a} B_PORT`] }), state);
  assert.equal(r.code, 1);
  assert.match(r.stderr, new RegExp(`port ${a} is to be for a \\(A_PORT\\) and for b \\(B_PORT\\)`));
  await assert.rejects(ask(a));
});

test('gives up a start that cannot work, names the log, and leaves nothing running', async () => {
  const [a, b] = await freePorts(2);
  const file = plan({ name: 'good', port: a }, { name: 'bad', port: b, after: ['good'], more: ['ready-timeout 15s'], env: { READY_AFTER: 3600000 } });
  const r = await run('start', file, state);
  assert.equal(r.code, 1);
  assert.match(r.stderr, /bad was not ready in time; its log: .*bad\.log; it says: still warming$/m);
  await assert.rejects(ask(a));
  assert.equal((await run('status', state)).code, 3);
});
