// SPDX-License-Identifier: Apache-2.0
// What clients can make an edge keep in memory: streams that are idle, heads and bodies that do not end, answers that
// nobody reads, huge bodies. RSS is measured where there is no sanitizer, whose own memory it would be.
import assert from 'node:assert/strict';
import fs from 'node:fs';
import { demoConfig, patient, suiteTest } from './lib/suite.mjs';
import { until } from './lib/util.mjs';
import { Wire } from './lib/wire.mjs';

const ASAN = fs.readFileSync(`${process.env.AIGW_BIN ?? 'build/asan/bin'}/aigw-edge`).includes('__asan_init');
const IDLE = Number(process.env.IDLE_STREAMS ?? (ASAN ? 200 : 1000));
const KB = 1024, MB = 1024 * KB;

const config = (suite) => {
  const c = demoConfig(suite);
  c.upstreams[0].timeouts = { connect_ms: 5000, first_byte_ms: 60000, idle_ms: 120000, total_ms: 300000 };
  c.policies = [
    { slug: 'parallel', namespace: 'test-channel', kind: 'concurrency', limit: 100000 },
    { slug: 'rate', namespace: 'test-channel', kind: 'request_rate', limit: 1000000, window: '1s' },
    { slug: 'tokens', namespace: 'test-channel', kind: 'token_rate', limit: 100000000, window: '1s' },
  ].map(patient);
  return c;
};

const post = (body, fields = '') => `POST /api/chat HTTP/1.1\r\nHost: e\r\nX-Channel-Code: test-channel\r\nContent-Type: application/json\r\n${fields}Content-Length: ${Buffer.byteLength(body)}\r\n\r\n${body}`;
const chat = (extra = {}) => JSON.stringify({ model: 'Qwen3-8B', stream: true, messages: [{ role: 'user', content: 'hello there' }], ...extra });

async function rss(suite) {
  return (await suite.metricsOf('edge-1')).find((s) => s.name === 'process_resident_memory_bytes').value;
}

suiteTest('memory', { config, env: { edge: { EDGE_WORKERS: '1' } } }, async (suite, step) => {
  await step(`${IDLE} streams that are open and idle`, async () => {
    const open = async (n) => {
      const wires = [];
      while (wires.length < n) {
        const batch = Array.from({ length: Math.min(100, n - wires.length) }, () => new Wire(suite.edge()));
        for (const w of batch) w.write(post(chat(), 'x-mock: fail=hang_after:4\r\n'));
        for (const w of batch) assert.ok(await w.have(600) && w.bytes.indexOf('HTTP/1.1 200') === 0, `${w.bytes}`);
        wires.push(...batch);
      }
      return wires;
    };
    const some = await open(100); // what the first ones need is had once
    const before = await rss(suite);
    const wires = await open(IDLE);
    assert.equal(await suite.edgeSum('gateway_open_streams'), IDLE + some.length);
    const each = (await rss(suite) - before) / IDLE;
    console.log(`    ${(each / KB).toFixed(2)} KB of RSS each`);
    for (const w of wires.concat(some)) w.abort(true);
    await until('they are gone', async () => await suite.edgeSum('gateway_inflight_requests') === 0);
    await suite.settled(IDLE + some.length);
  });
});
