// SPDX-License-Identifier: Apache-2.0
// What clients can make an edge keep in memory: streams that are idle, heads and bodies that do not end, answers that
// nobody reads, huge bodies. RSS is measured where there is no sanitizer, whose own memory it would be.
import assert from 'node:assert/strict';
import fs from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { demoConfig, patient, suiteTest } from './lib/suite.mjs';
import { until } from './lib/util.mjs';
import { Wire } from './lib/wire.mjs';

const ASAN = fs.readFileSync(`${process.env.AIGW_BIN ?? 'build/asan/bin'}/aigw-edge`).includes('__asan_init');
const IDLE = Number(process.env.IDLE_STREAMS ?? (ASAN ? 200 : 1000));
const DEAF = ASAN ? 10 : 50; // clients: what is sent to one goes through the kernel's buffers first
const KB = 1024, MB = 1024 * KB;

const config = (suite) => {
  const c = demoConfig(suite);
  c.upstreams[0].timeouts = { connect_ms: 5000, first_byte_ms: 60000, idle_ms: 300000, total_ms: 600000 };
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

suiteTest('memory', { config, env: { edge: { EDGE_WORKERS: '1', HEAD_TIMEOUT_MS: '300000', BODY_TIMEOUT_MS: '300000', WRITE_TIMEOUT_MS: '300000' } } }, async (suite, step) => {
  await step(`${IDLE} streams that are open and idle`, async () => {
    let refused = 0;
    const open = async (n) => {
      const wires = [];
      while (wires.length < n) {
        const batch = Array.from({ length: Math.min(100, n - wires.length) }, () => new Wire(suite.edge()));
        for (const w of batch) w.write(post(chat(), 'x-mock: fail=hang_after:4\r\n'));
        for (const w of batch) {
          await w.have(15);
          if (w.bytes.indexOf('HTTP/1.1 200') === 0 && await w.have(600)) {
            wires.push(w);
          } else { // refused: not what this is about
            refused++;
            console.log(`    refused: ${w.bytes}`.slice(0, 700));
            w.close();
          }
          assert.ok(refused < 20);
        }
      }
      return wires;
    };
    const some = await open(100); // what the first ones need is had once
    const before = await rss(suite);
    const wires = await open(IDLE);
    // A limit whose engine only begins may cut one of the first off.
    const isOpen = (w) => !w.closed && w.bytes.indexOf('[DONE]') < 0;
    await until('those that are not at their end are open', async () => await suite.edgeSum('gateway_open_streams') === wires.concat(some).filter(isOpen).length);
    assert.ok(wires.filter(isOpen).length > 0.9 * IDLE);
    const each = (await rss(suite) - before) / IDLE;
    console.log(`    ${(each / KB).toFixed(2)} KB of RSS each`);
    if (!ASAN) assert.ok(each < 8 * KB, `${each}`);
    for (const w of wires.concat(some)) w.abort(true);
    await until('they are gone', async () => await suite.edgeSum('gateway_inflight_requests') === 0);
    await suite.settled(IDLE + some.length + refused);
  });

  await step('heads that do not end, answers that nobody reads, and huge bodies', async () => {
    const before = await rss(suite);
    const slow = Array.from({ length: 500 }, () => new Wire(suite.edge()));
    for (const w of slow) w.write('POST /api/chat HTTP/1.1\r\nHost: e\r\nX-Slow: ');
    const deaf = Array.from({ length: DEAF }, () => new Wire(suite.edge()));
    for (const w of deaf) {
      w.socket.pause();
      w.write(post(chat(), 'x-mock: tokens=200000;per_event=1\r\n'));
    }
    const huge = Array.from({ length: 20 }, () => new Wire(suite.edge()));
    for (const w of huge) w.write(post('x'.repeat(100), `x-more: y\r\nContent-Length: ${20 * MB}\r\n`).replace(/Content-Length: 100\r\n/, ''));
    await until('all are there', async () => await suite.edgeSum('gateway_connections') >= 500 + DEAF);
    for (const w of huge) assert.equal((await w.answer()).status, 413);
    await until('the answers are held back', async () => await suite.edgeSum('gateway_memory_bytes') > DEAF * 100 * KB);
    let most = 0;
    for (let i = 0; i < 20; i++) {
      most = Math.max(most, await rss(suite));
      await delay(50);
    }
    // Of an answer that is not read 256 KB wait, what one read of its upstream brings on top, and buffers grow by doubling.
    const held = await suite.edgeSum('gateway_memory_bytes');
    console.log(`    ${((most - before) / MB).toFixed(1)} MB of RSS more, ${(held / MB).toFixed(1)} MB accounted`);
    assert.ok(held < DEAF * 1.2 * MB + 500 * 16 * KB, `${held}`);
    if (!ASAN) assert.ok(most - before < DEAF * 1.5 * MB + 500 * 16 * KB, `${most - before}`);
    for (const w of [...slow, ...deaf, ...huge]) w.abort(true);
    await until('they are gone', async () => await suite.edgeSum('gateway_connections') === 0);
    await until('the account is even', async () => await suite.edgeSum('gateway_memory_bytes') < 256 * KB);
  });
});
