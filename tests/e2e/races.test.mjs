// SPDX-License-Identifier: Apache-2.0
// Everything that threads of an edge share, changed and looked at while load runs: streams and clients that leave, tokens of
// an issuer whose keys change, configurations, the access log's file, metrics, what is in flight, explanations, the bus cut
// off, servers checked and ejected. `make races` runs it with ThreadSanitizer, whose reports fail it. RACES_SECONDS.
import assert from 'node:assert/strict';
import { createSign, generateKeyPairSync } from 'node:crypto';
import fs from 'node:fs';
import http from 'node:http';
import path from 'node:path';
import { after } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { demoConfig, patient, suiteTest } from './lib/suite.mjs';
import { PATIENCE, getText, until } from './lib/util.mjs';

const SECONDS = Number(process.env.RACES_SECONDS ?? 5);

const keys = [];
const addKey = () => { keys.push({ kid: `k${keys.length}`, ...generateKeyPairSync('ec', { namedCurve: 'P-256' }) }); };
addKey();
const jwks = http.createServer((_, r) => r.end(JSON.stringify({ keys: keys.slice(-3).map((k) => ({ ...k.publicKey.export({ format: 'jwk' }), kid: k.kid })) })));
await new Promise((resolve) => jwks.listen(0, '127.0.0.1', resolve));
after(() => { jwks.closeAllConnections(); jwks.close(); });
const token = () => {
  const part = (o) => Buffer.from(JSON.stringify(o)).toString('base64url'), k = keys.at(-1);
  const data = `${part({ alg: 'ES256', kid: k.kid })}.${part({ iss: 'https://id', aud: 'gw', exp: Math.floor(Date.now() / 1000) + 60, n: Math.random() })}`;
  return `${data}.${createSign('SHA256').update(data).sign({ key: k.privateKey, dsaEncoding: 'ieee-p1363' }).toString('base64url')}`;
};

const issuer = () => ({ slug: 'id', issuer: 'https://id', audiences: ['gw'], algorithms: ['ES256'], jwks_url: `http://127.0.0.1:${jwks.address().port}/`, refresh_s: 60 });
const config = (suite) => {
  const c = demoConfig(suite);
  const server = c.upstreams[0].servers[0];
  c.upstreams[0].servers = [server, { ...server, slug: 'again', max_requests: 6 }];
  c.upstreams[0].health_check = { type: 'models', interval_ms: 100, timeout_ms: 10000 };
  c.upstreams[0].retries = 1;
  c.namespaces[0] = { ...c.namespaces[0], auth: 'none' };
  c.issuers = [issuer()];
  c.policies = [
    { slug: 'many', kind: 'request_rate', limit: 100000, window: '1s' }, { slug: 'wide', kind: 'concurrency', limit: 10000 },
    { slug: 'tokens', kind: 'token_rate', limit: 10000000, window: '1m' }, { slug: 'long', kind: 'output_tokens', limit: 1000 },
  ].map((p) => patient({ ...p, namespace: 'test-channel' }));
  return c;
};

const log = path.join(fs.mkdtempSync('/tmp/aigw-races-'), 'access.log');
after(() => fs.rmSync(path.dirname(log), { recursive: true, force: true }));
suiteTest('races', { config, env: { edge: { EDGE_WORKERS: '4', ACCESS_LOG: log, REMOTE_COUNT_BYTES: '2000', TRACE_CONTEXT: 'make' } } }, async (suite, step) => {
  await step(`${SECONDS} s of everything`, async () => {
    const edge = suite.procs['edge-1'], end = Date.now() + SECONDS * 1000;
    const done = { good: 0, refused: 0, left: 0, other: {} };
    const again = (every, fn) => (async () => {
      for (let i = 0; Date.now() < end || (done.good <= 20 && Date.now() < end + PATIENCE); i++) {
        await fn(i);
        await delay(every);
      }
    })();
    const ask = async (i) => {
      const gone = new AbortController();
      const leaves = i % 5 === 4;
      if (leaves) setTimeout(() => gone.abort(), 1 + i % 40);
      const fail = ['', '', '', 'fail=reset_after:1', '', 'fail=503', '', 'fail=error_event:1'][i % 8];
      try {
        const r = await suite.chat({ stream: i % 3 !== 0, mock: `tokens=${5 + i % 30};tps=300${fail && `;${fail}`}`, signal: gone.signal, text: 'word '.repeat(i % 10 === 0 ? 900 : 5),
          headers: i % 2 ? { authorization: `Bearer ${token()}` } : {} });
        await r.text();
        if (r.status === 200) done.good++; else done.refused++;
        if (r.status !== 200) done.other[r.status] = (done.other[r.status] ?? 0) + 1;
      } catch { done.left++; }
    };
    const document = (await suite.admin('GET', 'config')).json;
    const jobs = [
      ...Array.from({ length: 12 }, () => again(0, ask)),
      again(150, async (i) => { await suite.admin('PATCH', 'issuers/id', { refresh_s: 60 + i % 7 }); }),
      again(250, async (i) => { await suite.must('PUT', 'config', { ...document, upstreams: document.upstreams.map((u) => ({ ...u, retry: { ...u.retry, hold_ms: 100 + i % 5 } })) }); }),
      again(400, async () => { addKey(); }),
      again(60, async () => { await getText(`${edge.ops}/debug/requests`); }),
      again(90, async () => { await getText(`${edge.ops}/metrics`); }),
      again(120, async () => { await suite.admin('POST', 'explain', { target: '/api/chat', body: { model: 'Qwen3-8B' }, claims: { iss: 'https://id' } }); }),
      again(200, async (i) => { try { fs.renameSync(log, `${log}.${i}`); } catch { /* not there yet */ } if (i % 2) edge.signal('SIGHUP'); }),
      (async () => { await delay(SECONDS * 300); await suite.procs.nats.kill(); await delay(SECONDS * 150); suite.procs.nats.start(); await suite.procs.nats.waitReady(); })(),
    ];
    await Promise.all(jobs);
    console.log(`    ${done.good} served, ${done.left} left, ${done.refused} not served: ${JSON.stringify(done.other)}`);
    assert.ok(done.good > 20, JSON.stringify(done));
  });
  await step('nothing is left, and the log has whole lines', async () => {
    await until('nothing is in flight', async () => await suite.edgeSum('gateway_inflight_requests') === 0);
    await suite.procs['edge-1'].stop();
    const files = fs.readdirSync(path.dirname(log)).map((f) => fs.readFileSync(path.join(path.dirname(log), f), 'utf8'));
    const lines = files.flatMap((t) => t.split('\n')).filter((l) => l !== '').map((l) => JSON.parse(l));
    assert.equal(new Set(lines.map((l) => l.id)).size, lines.length);
    assert.ok(lines.length > 20 && lines.every((l) => /^[0-9a-f]{32}$/.test(l.trace_id)));
  });
});
