// SPDX-License-Identifier: Apache-2.0
// compose/nats.conf on a real server: each user may do its part and nothing else. Every subject of proto/subjects.h has
// to be in the table below, with all who may publish and subscribe.
import { connect } from '@nats-io/transport-node';
import { jetstream, jetstreamManager } from '@nats-io/jetstream';
import { Kvm } from '@nats-io/kv';
import assert from 'node:assert/strict';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { after, before, test } from 'node:test';
import { NATS_USERS, ROOT, natsPassword, natsServer } from './lib/servers.mjs';
import { PATIENCE, freePorts } from './lib/util.mjs';

// subject: [who may publish], [who may subscribe, "user group" when only as a member of that queue group]
const BUS = {
  'aigw.config.get': [['edge', 'token', 'policy', 'observer'], ['config config', 'observer']],
  'aigw.config.changed': [['config'], ['edge', 'token', 'policy', 'observer']],
  'aigw.config.applied': [['edge', 'token', 'policy'], ['config', 'observer']],
  'aigw.token.count': [['edge'], ['token token']],
  'aigw.policy.lease': [['edge'], ['policy policy', 'observer']],
  'aigw.policy.counters': [['config'], ['policy policy', 'observer']],
  'aigw.edge.explain': [['config'], ['edge edge', 'observer']],
  'aigw.policy.rejected': [['edge'], ['config', 'observer']],
  'aigw.usage.demo': [['edge'], ['observer']],
  'aigw.dead.usage': [['metrics'], ['observer']],
  'aigw.upstream.health': [['edge'], ['edge', 'config', 'observer']],
  'aigw.metrics.query': [['config', 'policy', 'observer'], ['metrics metrics', 'observer']],
  'aigw.instance.gone': [['config'], ['policy', 'config', 'observer']],
  'aigw.presence': [['edge', 'token', 'policy', 'config', 'metrics'], ['policy', 'config', 'observer']],
};
// What nobody may do.
const NEVER_PUBLISH = ['$JS.API.STREAM.DELETE.AIGW_USAGE', '$JS.API.STREAM.PURGE.AIGW_USAGE', '$JS.API.STREAM.MSG.DELETE.AIGW_USAGE',
  '$JS.API.STREAM.DELETE.KV_AIGW_CONFIG', '$SYS.REQ.SERVER.PING', 'other.usage.demo'];

let dir, server, port;
const open = {};

function client(user, more = {}) {
  return connect({ servers: `127.0.0.1:${port}`, user, pass: natsPassword(user), inboxPrefix: `_INBOX_${user}`, reconnect: false, ...more });
}

// The permission errors that the server sends for what fn does.
async function refusals(user, fn) {
  const nc = open[user];
  const seen = [];
  const status = nc.status();
  (async () => { for await (const s of status) if (s.type === 'error') seen.push(s.error.message); })();
  await fn(nc);
  await nc.flush();
  await new Promise(setImmediate);
  status.stop();
  return seen;
}
const mayPublish = async (user, subject) => (await refusals(user, (nc) => nc.publish(subject, '{}'))).length === 0;
async function maySubscribe(user, subject, queue) {
  let sub;
  const seen = await refusals(user, (nc) => { sub = nc.subscribe(subject, { queue, callback: () => {} }); });
  sub.unsubscribe();
  return seen.length === 0;
}

before(async () => {
  dir = fs.mkdtempSync(path.join(os.tmpdir(), 'aigw-e2e-permissions-'));
  const ports = await freePorts(2);
  port = ports[0];
  server = natsServer(dir, ...ports).start();
  await server.waitReady();
  for (const user of NATS_USERS) open[user] = await client(user);
});
after(async () => {
  for (const nc of Object.values(open)) await nc.close();
  await server.stop();
  fs.rmSync(dir, { recursive: true });
});

test('every subject of proto/subjects.h is in this test', () => {
  const table = fs.readFileSync(path.join(ROOT, 'proto/subjects.h'), 'utf8');
  const suffixes = [...table.matchAll(/^ *X\([A-Z_]+, *"([^"]+)"/gm)].map((m) => m[1].replace('%s', 'demo'));
  assert.ok(suffixes.length >= 10);
  assert.deepEqual(suffixes.map((s) => `aigw.${s}`).sort(), Object.keys(BUS).filter((s) => s.startsWith('aigw.')).sort());
});

test('who may publish what', async () => {
  for (const [subject, [publishers]] of Object.entries(BUS))
    for (const user of NATS_USERS)
      assert.equal(await mayPublish(user, subject), publishers.includes(user), `${user} publishing ${subject}`);
  for (const subject of NEVER_PUBLISH)
    for (const user of NATS_USERS) assert.equal(await mayPublish(user, subject), false, `${user} publishing ${subject}`);
});

test('who may subscribe to what, and in which queue group', async () => {
  for (const [subject, [, subscribers]] of Object.entries(BUS)) {
    for (const user of NATS_USERS) {
      const grouped = subscribers.find((s) => s.startsWith(`${user} `))?.split(' ')[1];
      assert.equal(await maySubscribe(user, subject), subscribers.includes(user), `${user} subscribing to ${subject}`);
      if (grouped) assert.equal(await maySubscribe(user, subject, grouped), true, `${user} serving ${subject}`);
      else if (user === 'observer') assert.equal(await maySubscribe(user, subject, 'policy'), false, `observer serving ${subject}`);
    }
  }
});

test('an inbox is read by its own user only', async () => {
  for (const owner of NATS_USERS)
    for (const user of NATS_USERS)
      assert.equal(await maySubscribe(user, `_INBOX_${owner}.x`), user === owner, `${user} reading the inbox of ${owner}`);
  for (const user of NATS_USERS) assert.equal(await maySubscribe(user, '_INBOX.x'), user === 'observer');
});

test('nobody comes in without a password', async () => {
  await assert.rejects(connect({ servers: `127.0.0.1:${port}`, reconnect: false }), /uthorization/);
  await assert.rejects(connect({ servers: `127.0.0.1:${port}`, user: 'edge', pass: 'wrong', reconnect: false }), /uthorization/);
});

test('an observer sees the bus but no prompt', async () => {
  const got = [];
  const sub = open.observer.subscribe('aigw.>', { callback: (_e, m) => got.push(m.subject) });
  await open.observer.flush();
  open.edge.publish('aigw.token.count', '{"messages":"secret"}');
  open.edge.publish('aigw.policy.rejected', '{}');
  await open.edge.flush();
  await open.observer.flush();
  sub.unsubscribe();
  assert.deepEqual(got, ['aigw.policy.rejected']);
});

test('the ledger owns the usage stream; edges write, the observer reads, nobody takes from its consumer', async () => {
  const jsm = await jetstreamManager(open.metrics, { checkAPI: false, timeout: PATIENCE });
  await jsm.streams.add({ name: 'AIGW_USAGE', subjects: ['aigw.usage.*'] });
  await jsm.streams.add({ name: 'AIGW_USAGE_DEAD', subjects: ['aigw.dead.usage'] });
  await jsm.consumers.add('AIGW_USAGE', { durable_name: 'metrics', ack_policy: 'explicit' });
  const ack = await jetstream(open.edge, { checkAPI: false, timeout: PATIENCE }).publish('aigw.usage.demo', '{"v":1}', { msgID: 'a' });
  assert.equal(ack.seq, 1);

  const viewer = await jetstreamManager(open.observer, { checkAPI: false, timeout: PATIENCE });
  assert.equal((await viewer.streams.info('AIGW_USAGE')).state.messages, 1);
  assert.equal((await viewer.streams.getMessage('AIGW_USAGE', { seq: 1 })).string(), '{"v":1}');
  const seen = await jetstream(open.observer, { checkAPI: false, timeout: PATIENCE }).consumers.get('AIGW_USAGE');
  const m = await seen.next({ expires: PATIENCE });
  assert.equal(m.string(), '{"v":1}');
  for (const subject of ['CONSUMER.MSG.NEXT.AIGW_USAGE.metrics', 'CONSUMER.DELETE.AIGW_USAGE.metrics', 'CONSUMER.CREATE.AIGW_USAGE.metrics',
    'CONSUMER.DURABLE.CREATE.AIGW_USAGE.metrics', 'STREAM.CREATE.X', 'STREAM.UPDATE.AIGW_USAGE'])
    assert.equal(await mayPublish('observer', `$JS.API.${subject}`), false, subject);
  assert.equal(await mayPublish('observer', '$JS.ACK.AIGW_USAGE.metrics.1.1.1.1.0'), false);
  for (const user of ['edge', 'token', 'policy', 'config'])
    for (const what of ['MSG.NEXT', 'DELETE'])
      assert.equal(await mayPublish(user, `$JS.API.CONSUMER.${what}.AIGW_USAGE.metrics`), false, `${user} ${what}`);

  const own = await jetstream(open.metrics, { checkAPI: false, timeout: PATIENCE }).consumers.get('AIGW_USAGE', 'metrics');
  const mine = await own.next({ expires: PATIENCE });
  assert.equal(mine.string(), '{"v":1}');
  assert.ok(await mine.ackAck());
  assert.equal(await mayPublish('metrics', '$JS.API.CONSUMER.DELETE.AIGW_USAGE.metrics'), true);
});

test('only the config center writes the configuration; who needs it reads it', async () => {
  const kv = await new Kvm(jetstream(open.config, { checkAPI: false, timeout: PATIENCE })).create('AIGW_CONFIG', { history: 1 });
  await kv.put('latest', '{"revision":1}');
  for (const user of ['edge', 'token', 'policy', 'observer']) {
    const read = await new Kvm(jetstream(open[user], { checkAPI: false, timeout: PATIENCE })).open('AIGW_CONFIG', { allow_direct: false });
    assert.equal((await read.get('latest')).string(), '{"revision":1}', user);
    assert.equal(await mayPublish(user, '$KV.AIGW_CONFIG.latest'), false, user);
  }
});
