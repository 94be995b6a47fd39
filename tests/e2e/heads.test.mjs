// SPDX-License-Identifier: Apache-2.0
// What passes of heads, in both directions: nothing that is for one connection only, nothing that only the gateway may say,
// and nothing less because a client asked for it. And heads, and handshakes of TLS, that do not come.
import assert from 'node:assert/strict';
import fs from 'node:fs';
import net from 'node:net';
import os from 'node:os';
import path from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import tls from 'node:tls';
import { completion, rawServer, whole } from './lib/raw.mjs';
import { demoConfig, suiteTest } from './lib/suite.mjs';
import { Authority } from './lib/tls.mjs';
import { PATIENCE, until } from './lib/util.mjs';
import { Wire } from './lib/wire.mjs';

const requests = [];
const OF_ONE_CONNECTION = 'Connection: x-of-this-hop, keep-alive\r\nX-Of-This-Hop: 1\r\nKeep-Alive: timeout=7\r\nProxy-Authenticate: Basic\r\nUpgrade: h2c\r\nTrailer: x-late\r\n';
const behind = await rawServer((n, here, text) => {
  requests.push(text);
  return whole(200, completion('ok'), `${OF_ONE_CONNECTION}X-Request-Id: theirs\r\nSet-Cookie: a=b\r\nAlt-Svc: h3\r\nStrict-Transport-Security: max-age=1\r\nX-Aigw-Overhead-Us: 1\r\nX-Passes: yes\r\nX-Passes: twice\r\n`);
});
const config = (suite) => {
  const demo = demoConfig(suite);
  return { ...demo, policies: [],
    upstreams: [...demo.upstreams, { slug: 'raw', name: 'raw', dialect: 'openai', auth: { type: 'bearer', credential: 'ours-alone' }, servers: [{ slug: 's1', url: behind.url }] }],
    routes: [...demo.routes, { slug: 'raw', namespace: 'test-channel', path: { prefix: '/raw/' }, endpoint: 'chat', rewrite_path: '/v1/chat/completions', upstream: 'raw' }] };
};
const BODY = JSON.stringify({ model: 'Qwen3-8B', messages: [{ role: 'user', content: 'hello' }] });
const post = (fields) => `POST /raw/chat HTTP/1.1\r\nHost: edge\r\nX-Channel-Code: test-channel\r\nContent-Type: application/json\r\n${fields}Content-Length: ${BODY.length}\r\n\r\n${BODY}`;
const namesOf = (text) => text.slice(0, text.indexOf('\r\n\r\n')).split('\r\n').slice(1).map((line) => line.split(':')[0].toLowerCase()).sort();

suiteTest('heads', { config, only: ['mockllm', 'config', 'metrics', 'policy', 'edge'], env: { edge: { EDGE_WORKERS: '1' } } }, async (suite, step) => {
  const ask = async (fields) => {
    const wire = new Wire(suite.edge());
    wire.write(post(fields));
    const answer = await wire.answer();
    wire.close();
    return { answer, sent: requests.at(-1) };
  };
  const PLAIN = ['authorization', 'content-length', 'content-type', 'host', 'accept-encoding', 'x-channel-code', 'x-request-id'].sort();

  await step('a request goes upstream with what it needs', async () => {
    const { answer, sent } = await ask('');
    assert.equal(answer.status, 200, answer.body);
    assert.deepEqual(namesOf(sent), PLAIN);
    assert.match(sent, /\r\nauthorization: Bearer ours-alone\r\n/);
    assert.ok(sent.endsWith(BODY));
  });

  await step('what is for one connection ends there, and so does what Connection names', async () => {
    const { answer, sent } = await ask(`${OF_ONE_CONNECTION}TE: trailers\r\nProxy-Connection: close\r\nProxy-Authorization: Basic x\r\nConnection: X-Also\r\nX-Also: 1\r\nX-Stays: 1\r\n`);
    assert.equal(answer.status, 200, answer.body);
    assert.deepEqual(namesOf(sent), [...PLAIN, 'x-stays'].sort());
  });

  await step('Connection strips nothing that the gateway needs', async () => {
    const { answer, sent } = await ask('Connection: host, content-length, content-type, authorization, x-request-id, accept-encoding, transfer-encoding, x-channel-code\r\n');
    assert.equal(answer.status, 200, answer.body); // its namespace was found
    assert.deepEqual(namesOf(sent), PLAIN.filter((n) => n !== 'x-channel-code'));
    assert.match(sent, /\r\nauthorization: Bearer ours-alone\r\n/);
    assert.match(sent, new RegExp(`\\r\\ncontent-length: ${BODY.length}\\r\\n`));
    assert.ok(sent.endsWith(BODY));
  });

  await step('what only the gateway may say does not come from a client', async () => {
    const { answer, sent } = await ask('Authorization: Basic mine\r\nX-Api-Key: mine\r\nCookie: mine\r\nForwarded: for=mine\r\nX-Forwarded-For: 10.0.0.1\r\nX-Forwarded-Host: mine\r\n'
      + 'X-Forwarded-Proto: mine\r\nX-Aigw-Limit: mine\r\nAccept-Encoding: mine\r\nExpect: 100-continue\r\n');
    assert.equal(answer.status, 200, answer.body);
    assert.deepEqual(namesOf(sent), PLAIN);
    assert.ok(!sent.includes('mine'), sent);
  });

  await step('of an answer the same', async () => {
    const { answer } = await ask('X-Request-Id: my-own-id\r\n');
    const at = (name) => Object.entries(answer.headers).filter(([k]) => k.toLowerCase() === name).map(([, v]) => v).flat().join(', ');
    for (const gone of ['x-of-this-hop', 'keep-alive', 'proxy-authenticate', 'upgrade', 'trailer', 'set-cookie', 'alt-svc', 'strict-transport-security', 'connection']) assert.equal(at(gone), '', gone);
    assert.equal(at('x-request-id'), 'my-own-id');
    assert.notEqual(at('x-aigw-overhead-us'), '1');
    assert.match(at('x-passes'), /twice/);
  });
});

const ca = new Authority(fs.mkdtempSync(path.join(os.tmpdir(), 'aigw-heads-')));
const listener = ca.sign('listener');
process.on('exit', () => fs.rmSync(ca.dir, { recursive: true, force: true }));

// The first bytes that a client of TLS says.
async function clientHello() {
  const server = net.createServer();
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  const said = new Promise((resolve) => server.once('connection', (s) => s.once('data', (data) => { s.destroy(); resolve(data); })));
  tls.connect({ port: server.address().port, host: '127.0.0.1', rejectUnauthorized: false }).on('error', () => {});
  const bytes = await said;
  server.close();
  return bytes;
}

suiteTest('handshakes that do not come', {
  config: (suite) => ({ ...demoConfig(suite), policies: [] }), only: ['mockllm', 'config', 'metrics', 'policy', 'edge'],
  env: { edge: { EDGE_WORKERS: '1', TLS_CERT_FILE: listener.cert, TLS_KEY_FILE: listener.key, HEAD_TIMEOUT_MS: '1500' } },
}, async (suite, step) => {
  const hello = await clientHello();
  const ways = { 'no byte': () => {}, 'half of a hello': (s) => s.write(hello.subarray(0, hello.length / 2)),
    'a byte now and then': async (s) => {
      for (let i = 0; i < hello.length && !s.destroyed; i++) { s.write(hello.subarray(i, i + 1)); await delay(1000); }
    } };
  for (const [what, say] of Object.entries(ways))
    await step(`${what}: closed when the head's time is over`, async () => {
      const s = net.connect(Number(new URL(suite.edge()).port), '127.0.0.1');
      s.on('error', () => {});
      s.resume();
      const closed = new Promise((resolve) => s.once('close', () => resolve(true)));
      await new Promise((resolve) => s.once('connect', resolve));
      void say(s);
      assert.equal(await Promise.race([closed, delay(PATIENCE, false, { ref: false })]), true);
      s.destroy();
    });
  await step('and nothing is left of them', () => until('no connection', async () => await suite.edgeSum('gateway_connections') === 0));
});
