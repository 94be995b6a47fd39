// SPDX-License-Identifier: Apache-2.0
// TLS on the edge's listener and towards upstreams.
import assert from 'node:assert/strict';
import fs from 'node:fs';
import http from 'node:http';
import https from 'node:https';
import os from 'node:os';
import path from 'node:path';
import tls from 'node:tls';
import { suiteTest, demoConfig } from './lib/suite.mjs';
import { Authority } from './lib/tls.mjs';
import { sseData, until } from './lib/util.mjs';

const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'aigw-e2e-tls-files-'));
process.on('exit', () => fs.rmSync(dir, { recursive: true, force: true }));
const ca = new Authority(path.join(dir, 'ours')), other = new Authority(path.join(dir, 'theirs'), 'other');
const listener = ca.sign('listener'), server = ca.sign('server', 'DNS:llm.test'), client = ca.sign('client');

// A TLS server in front of the mock, whose address is set later. Counts connections and resumed sessions.
async function tlsFront(options = {}) {
  const front = { mock: null, connections: 0, resumed: 0, names: new Set(), peers: new Set() };
  const s = https.createServer({ key: fs.readFileSync(server.key), cert: fs.readFileSync(server.cert), ...options }, (req, res) => {
    const { hostname, port } = new URL(front.mock);
    const out = http.request({ hostname, port, path: req.url, method: req.method, headers: req.headers }, (r) => {
      res.writeHead(r.statusCode, r.headers);
      r.pipe(res);
    });
    req.pipe(out);
    res.on('close', () => out.destroy());
  });
  s.on('secureConnection', (c) => {
    front.connections++;
    if (c.isSessionReused()) front.resumed++;
    front.names.add(c.servername);
    if (options.requestCert) front.peers.add(c.getPeerCertificate().subject?.CN);
  });
  s.on('tlsClientError', () => {});
  s.keepAliveTimeout = 0; // never: who closes is the test's to say
  await new Promise((resolve) => s.listen(0, '127.0.0.1', resolve));
  front.url = `https://127.0.0.1:${s.address().port}`;
  front.closeIdle = () => s.closeIdleConnections();
  front.close = () => { s.closeAllConnections(); s.close(); };
  return front;
}

const front = await tlsFront();
const picky = await tlsFront({ requestCert: true, rejectUnauthorized: true, ca: ca.pem });
const upstream = (slug, url, settings) => ({ slug, name: slug, dialect: 'openai', auth: { type: 'none' }, servers: [{ slug: `${slug}-1`, url }], tls: settings });
const route = (slug, to) => ({ slug, namespace: 'test-channel', path: { prefix: `/${slug}/` }, endpoint: 'chat', rewrite_path: '/v1/chat/completions', upstream: to });

function config(suite) {
  const demo = demoConfig(suite);
  front.mock = picky.mock = suite.mock;
  return {
    ...demo, policies: [],
    upstreams: [...demo.upstreams,
      upstream('secure', front.url, { ca_file: ca.file, server_name: 'llm.test' }),
      upstream('wrong-name', front.url, { ca_file: ca.file }),
      upstream('wrong-ca', front.url, { ca_file: other.file, server_name: 'llm.test' }),
      upstream('system', front.url, { server_name: 'llm.test' }),
      upstream('known', picky.url, { ca_file: ca.file, server_name: 'llm.test', cert_file: client.cert, key_file: client.key }),
      upstream('unknown', picky.url, { ca_file: ca.file, server_name: 'llm.test' })],
    routes: [...demo.routes, ...['secure', 'wrong-name', 'wrong-ca', 'system', 'known', 'unknown'].map((n) => route(n, n))],
  };
}

suiteTest('TLS towards upstreams', { config }, async (suite, step) => {
  const ask = (slug, body = {}, mock = 'tokens=5') => suite.chat({ path: `/${slug}/chat`, mock, ...body });

  await step('requests and streams pass, on kept connections', async () => {
    for (let i = 0; i < 5; i++) {
      const r = await ask('secure');
      assert.equal(r.status, 200, await r.clone().text());
      assert.equal((await r.json()).usage.completion_tokens, 5);
    }
    const stream = await ask('secure', { stream: true }, 'tokens=40');
    assert.equal(sseData(await stream.text()).at(-1), '[DONE]');
    assert.ok(front.connections <= 2, `${front.connections} connections`);
    assert.deepEqual([...front.names], ['llm.test']);
  });

  await step('a large body and a large answer', async () => {
    const r = await ask('secure', { text: 'word '.repeat(20000) }, 'tokens=20000');
    assert.equal(r.status, 200);
    assert.equal((await r.json()).usage.completion_tokens, 20000);
  });

  await step('sessions are resumed', async () => {
    const before = front.resumed;
    for (let i = 0; i < 100 && front.resumed === before; i++) { // the edge may not have seen yet that one was closed
      front.closeIdle();
      assert.equal((await ask('secure')).status, 200);
    }
    assert.ok(front.resumed > before);
  });

  for (const slug of ['wrong-name', 'wrong-ca', 'system'])
    await step(`nothing is sent to a server that cannot be verified: ${slug}`, async () => {
      const before = (await suite.mockStats()).requests;
      const r = await ask(slug);
      assert.equal(r.status, 502);
      assert.match((await r.json()).error.message, /certificate/);
      assert.equal((await suite.mockStats()).requests, before);
    });

  await step('a client certificate is shown where one is given', async () => {
    assert.equal((await ask('known')).status, 200);
    assert.deepEqual([...picky.peers], ['client']);
    assert.equal((await ask('unknown')).status, 502);
  });

  await step('files that cannot be read are told, and the old configuration stays', async () => {
    const doc = config(suite);
    doc.upstreams.push(upstream('gone', 'https://127.0.0.1:1', { ca_file: '/nonexistent/ca.pem' }));
    await suite.importConfig(doc);
    await until('the edge refuses it', async () => {
      const { items } = (await suite.must('GET', 'instances')).json;
      const edge = items.find((i) => i.service === 'edge');
      return edge.applied && !edge.applied.ok && /ca\.pem/.test(edge.applied.error ?? JSON.stringify(edge.applied));
    });
    assert.equal((await ask('secure')).status, 200);
  });
  front.close();
  picky.close();
});

const at = (suite) => ({ host: '127.0.0.1', port: Number(new URL(suite.edge()).port), ca: ca.pem, servername: 'localhost' });
function post(suite, agent, { stream = false, tokens = 5 } = {}) {
  const body = JSON.stringify({ model: 'Qwen3-8B', stream, messages: [{ role: 'user', content: 'hello' }] });
  return new Promise((resolve, reject) => {
    const req = https.request({ ...at(suite), agent, method: 'POST', path: '/api/chat',
      headers: { 'content-type': 'application/json', 'x-channel-code': 'test-channel', 'x-mock': `tokens=${tokens}`, 'content-length': Buffer.byteLength(body) } }, (res) => {
      let text = '';
      const cert = res.socket.getPeerCertificate().fingerprint256;
      res.setEncoding('utf8');
      res.on('data', (d) => { text += d; });
      res.on('end', () => resolve({ status: res.statusCode, text, cert }));
      res.on('error', reject);
    });
    req.on('error', reject);
    req.end(body);
  });
}

suiteTest('TLS on the listener', {
  config: (suite) => ({ ...demoConfig(suite), policies: [] }),
  env: { edge: { TLS_CERT_FILE: listener.cert, TLS_KEY_FILE: listener.key } },
}, async (suite, step) => {
  const fresh = () => new https.Agent({ keepAlive: false, maxCachedSessions: 0 });

  await step('requests and streams on a kept connection', async () => {
    const agent = new https.Agent({ keepAlive: true, maxSockets: 1 });
    for (let i = 0; i < 5; i++) assert.equal((await post(suite, agent)).status, 200);
    const r = await post(suite, agent, { stream: true, tokens: 60 });
    assert.equal(sseData(r.text).at(-1), '[DONE]');
    agent.destroy();
  });

  await step('sessions are resumed, and HTTP/1.1 is agreed on', async () => {
    const dial = (session) => new Promise((resolve, reject) => {
      const s = tls.connect({ ...at(suite), session, ALPNProtocols: ['h2', 'http/1.1'] });
      let ticket;
      s.on('session', (t) => { ticket = t; });
      s.on('error', reject);
      s.on('secureConnect', () => s.write('GET /healthz HTTP/1.1\r\nHost: edge\r\nConnection: close\r\n\r\n'));
      s.on('data', () => {});
      s.on('end', () => resolve({ ticket, reused: s.isSessionReused(), alpn: s.alpnProtocol }));
    });
    const first = await dial();
    assert.equal(first.alpn, 'http/1.1');
    assert.equal((await dial(first.ticket)).reused, true);
  });

  await step('what is no TLS is closed, and hurts nobody', async () => {
    await assert.rejects(fetch(`${suite.edge()}/healthz`));
    assert.equal((await post(suite, fresh())).status, 200);
  });

  await step('a client that leaves closes the upstream', async () => {
    const s = tls.connect(at(suite));
    const body = JSON.stringify({ model: 'Qwen3-8B', stream: true, messages: [{ role: 'user', content: 'hello' }] });
    s.on('error', () => {});
    s.write(`POST /api/chat HTTP/1.1\r\nHost: edge\r\nx-channel-code: test-channel\r\nx-mock: tokens=500;tps=20\r\ncontent-type: application/json\r\ncontent-length: ${body.length}\r\n\r\n${body}`);
    await new Promise((resolve) => s.once('data', resolve));
    s.destroy();
    await until('no request is under way', async () => await suite.edgeSum('gateway_inflight_requests') === 0);
    await until('its outcome is counted', async () => await suite.edgeSum('gateway_requests_total', { outcome: 'client_gone' }) === 1);
  });

  await step('a renewed certificate is taken while streams go on; a bad one is not', async () => {
    const was = (await post(suite, fresh())).cert;
    const running = post(suite, fresh(), { stream: true, tokens: 100 });
    ca.sign('listener');
    const now = await until('the new certificate is shown', async () => {
      const { cert } = await post(suite, fresh());
      return cert !== was && cert;
    });
    assert.equal(sseData((await running).text).at(-1), '[DONE]');
    fs.writeFileSync(listener.cert, 'no certificate');
    await until('the bad one is told', () => /cannot be used: the old one stays/.test(suite.procs['edge-1'].text()));
    assert.equal((await post(suite, fresh())).cert, now);
  });
});
