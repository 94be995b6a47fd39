// SPDX-License-Identifier: Apache-2.0
// The servers that the suite leans on, each private to a test: nats-server with the repository's own permissions, Redis,
// MariaDB.
import { execFile } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { promisify } from 'node:util';
import { Proc } from './proc.mjs';
import { until } from './util.mjs';

export const ROOT = path.resolve(import.meta.dirname, '../../..');
export const NATS_USERS = ['edge', 'token', 'policy', 'config', 'metrics', 'observer'];
export const natsPassword = (user) => `test-${user}`;

// Where Debian puts servers is not on everybody's PATH.
process.env.PATH = `${process.env.PATH}:/usr/sbin:/sbin`;

// prefix: what compose/nats.conf says to replace is replaced.
export function natsServer(dir, port, monitorPort, { conf = path.join(ROOT, 'compose/nats.conf'), prefix = 'aigw' } = {}) {
  if (prefix !== 'aigw') {
    const text = fs.readFileSync(conf, 'utf8').replaceAll('aigw.', `${prefix}.`).replaceAll('AIGW_', `${prefix.toUpperCase().replaceAll('-', '_')}_`);
    conf = path.join(dir, 'nats.conf');
    fs.writeFileSync(conf, text);
  }
  const env = { NATS_STORE_DIR: JSON.stringify(path.join(dir, 'nats')) };
  for (const u of NATS_USERS) env[`NATS_${u.toUpperCase()}_PASSWORD`] = natsPassword(u);
  return new Proc({
    name: 'nats', command: 'nats-server', env, log: path.join(dir, 'nats.log'),
    args: ['-c', conf, '-a', '127.0.0.1', '-p', `${port}`, '-m', `${monitorPort}`],
    ready: `http://127.0.0.1:${monitorPort}/healthz`,
  });
}

export async function redisServer(dir, port, password) {
  const data = path.join(dir, 'redis');
  fs.mkdirSync(data, { recursive: true });
  const p = new Proc({
    name: 'redis', command: 'redis-server', log: path.join(dir, 'redis.log'),
    args: ['--bind', '127.0.0.1', '--port', `${port}`, '--dir', data, '--appendonly', 'yes', '--save', '',
      '--requirepass', password],
  }).start();
  await until('Redis answers', async () => {
    const { stdout } = await promisify(execFile)('redis-cli', ['-p', `${port}`, '--no-auth-warning', '-a', password, 'ping']);
    return stdout.trim() === 'PONG';
  });
  return p;
}

// A MariaDB with the database and user that the suite is told to use.
export async function mariadbServer(dir, port, { user, password, databases }) {
  const data = path.join(dir, 'mariadb'), socket = path.join(dir, 'mariadb.sock');
  const tmp = path.join(dir, 'mariadb-tmp'); // of its own: temporary tables of two in /tmp get in each other's way
  fs.mkdirSync(tmp);
  const me = process.getuid() === 0 ? ['--user=root'] : [];
  await promisify(execFile)('mariadb-install-db', ['--no-defaults', `--datadir=${data}`, '--skip-test-db', '--skip-name-resolve',
    `--tmpdir=${tmp}`, '--auth-root-authentication-method=normal', ...me]);
  const p = new Proc({
    name: 'mariadb', command: 'mariadbd', log: path.join(dir, 'mariadb.log'),
    args: ['--no-defaults', `--datadir=${data}`, `--tmpdir=${tmp}`, `--socket=${socket}`, `--pid-file=${dir}/mariadb.pid`, `--port=${port}`,
      '--bind-address=127.0.0.1', '--skip-name-resolve', ...me],
  }).start();
  const sql = [`CREATE USER '${user}'@'127.0.0.1' IDENTIFIED BY '${password}'`,
    ...databases.flatMap((d) => [`CREATE DATABASE ${d}`, `GRANT ALL ON ${d}.* TO '${user}'@'127.0.0.1'`])];
  await until('MariaDB answers', async () => {
    await promisify(execFile)('mariadb', ['--no-defaults', `--socket=${socket}`, '-uroot', '-e', 'SELECT 1']);
    return true;
  });
  await promisify(execFile)('mariadb', ['--no-defaults', `--socket=${socket}`, '-uroot', '-e', sql.join(';')]);
  return p;
}
