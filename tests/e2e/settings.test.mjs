// SPDX-License-Identifier: Apache-2.0
// Settings that are wrong: each daemon names the setting and what it takes, and starts nothing.
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { after, before, test } from 'node:test';

const BIN = process.env.AIGW_BIN ?? 'build/asan/bin';
const KEY = 'a'.repeat(64);
let dir;

before(() => { dir = fs.mkdtempSync(path.join(os.tmpdir(), 'aigw-e2e-settings-')); });
after(() => fs.rmSync(dir, { recursive: true }));

// What the daemon says of its settings, with nothing set but these (and the sanitizers' own).
function check(daemon, env, ...args) {
  return run(daemon, env, path.join(BIN, `aigw-${daemon}`), args.length > 0 ? args : ['-t']);
}
function run(daemon, env, command, args) {
  const base = { PATH: process.env.PATH, STATE_DIR: path.join(dir, daemon) };
  for (const name of Object.keys(process.env)) if (/SAN_OPTIONS$/.test(name)) base[name] = process.env[name];
  if (daemon === 'edge') Object.assign(base, { MASTER_KEY: KEY, KEY_PEPPER: KEY });
  return new Promise((resolve) => execFile(command, args, { env: { ...base, ...env } },
    (e, stdout, stderr) => resolve({ code: e ? e.code : 0, text: stdout + stderr })));
}

const WRONG = {
  edge: {
    TLS_CERT_FILE: ['/etc/hostname'], TLS_KEY_FILE: ['/etc/hostname'], // without the other one
    TOKEN_SERVICE_URL: ['banana', 'token:8002'], GATEWAY_BIND: ['banana', 'localhost', '127.0.0.1:80'],
    TRUSTED_PROXIES: ['banana', '10.0.0.0/64'], ADDRESS_HEADER: ['x-real-ip'], ON_CLIENT_GONE: ['banana'], ACCESS_LOG_SAMPLE: ['2', 'banana'],
    TRACE_CONTEXT: ['banana'], USAGE_IDENTITIES: ['banana'], MASTER_KEY: ['banana'], KEY_PEPPER: ['b'.repeat(63)],
  },
  token: { TOKEN_SERVICE_BIND: ['banana'] },
  policy: { COUNTER_URL: ['banana', 'redis://', 'http://127.0.0.1'] },
  config: { CONFIG_CENTER_BIND: ['banana'], STORE_URL: ['banana'], ADMIN_TOKEN: ['short'] },
  metrics: { METRICS_BIND: ['300.1.1.1'], STORE_URL: ['banana'] },
  mockllm: { MOCKLLM_BIND: ['banana'] },
};
const WRONG_ANYWHERE = {
  OPS_BIND: ['banana'], OPS_PORT: ['70000'], LOG_LEVEL: ['loud'], INSTANCE: ['a b'], SUBJECT_PREFIX: ['A.b'], DRAIN_TIMEOUT_MS: ['-1', '1s'],
  NATS_URL: ['http://127.0.0.1:4222', 'nats://127.0.0.1:4222,banana://127.0.0.1:4222'],
};

for (const [daemon, own] of Object.entries(WRONG))
  test(`aigw-${daemon} names each setting that is wrong`, async () => {
    const right = await check(daemon, {});
    assert.equal(right.code, 0, right.text);
    for (const [name, values] of Object.entries({ ...own, ...WRONG_ANYWHERE }))
      for (const value of values) {
        const said = await check(daemon, { [name]: value });
        assert.equal(said.code, 1, `${name}=${value}: ${said.text}`);
        assert.match(said.text, /^aigw-\w+: 1 problem with the settings:\n/, `${name}=${value}`);
        assert.match(said.text, new RegExp(`\\b${name}\\b`), `${name}=${value}`);
      }
  });

// A shell sets the limit; how many descriptors the daemon needs is more than any of these.
for (const daemon of Object.keys(WRONG))
  test(`aigw-${daemon} says that it may have too few file descriptors`, async () => {
    for (const n of [16, 20, 40]) {
      const said = await run(daemon, {}, '/bin/sh', ['-c', `ulimit -n ${n}; exec "$0"`, path.join(BIN, `aigw-${daemon}`)]);
      assert.equal(said.code, 1, `${n}: ${said.text}`);
      assert.match(said.text, new RegExp(`^aigw-${daemon}: 1 problem with the settings:\\n.*ulimit -n: .* ${n} file descriptors, and needs \\d+\n$`), `${n}`);
    }
  });

// A number that is none, and one out of bounds, for every setting that has bounds in the help.
for (const daemon of Object.keys(WRONG))
  test(`aigw-${daemon} refuses what is outside the bounds of its help`, async () => {
    const help = await check(daemon, {}, '-h');
    const bounds = [...help.text.matchAll(/^ {2}([A-Z_0-9]+).*\[(\d+) to (\d+)\]$/gm)];
    assert.ok(bounds.length >= 3, help.text);
    const env = {};
    for (const [, name, , max] of bounds) env[name] = `${BigInt(max) + 1n}`;
    for (const values of [env, Object.fromEntries(bounds.map(([, name]) => [name, 'banana']))]) {
      const said = await check(daemon, values);
      assert.equal(said.code, 1);
      for (const [, name] of bounds) assert.match(said.text, new RegExp(`^${name}: `, 'm'));
      assert.match(said.text, new RegExp(`: ${bounds.length} problems with the settings:`));
    }
  });

test('no daemon tells a password that stands in a URL', async () => {
  const secret = 'hush-hush-hush', url = `nats://joe:${secret}@127.0.0.1:1`;
  for (const daemon of Object.keys(WRONG)) {
    // It logs its settings, and then cannot make its folder.
    const said = await check(daemon, { OPS_PORT: '0', NATS_URL: url, STATE_DIR: '/dev/null/state',
      ...(daemon === 'edge' ? { TOKEN_SERVICE_URL: `http://joe:${secret}@127.0.0.1:1` } : {}) }, '--');
    assert.equal(said.code, 1, said.text);
    assert.match(said.text, /"msg":"starting".*NATS_URL=nats:\/\/\*\*\*@127\.0\.0\.1:1/);
    assert.match(said.text, /STATE_DIR: .*\/dev\/null/);
    assert.doesNotMatch(said.text, new RegExp(secret));
  }
});
