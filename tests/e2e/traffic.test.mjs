// SPDX-License-Identifier: Apache-2.0
// What an edge says of its traffic (access log, trace context, requests in flight) and what it does when there is too
// much of it.
import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import { demoConfig, suiteTest } from './lib/suite.mjs';
import { getText, until } from './lib/util.mjs';
import { Wire } from './lib/wire.mjs';

const config = (suite) => ({ ...demoConfig(suite), policies: [] });
const post = (body, fields = '') => `POST /api/chat HTTP/1.1\r\nHost: e\r\nX-Channel-Code: test-channel\r\nContent-Type: application/json\r\n${fields}Content-Length: ${Buffer.byteLength(body)}\r\n\r\n${body}`;
const chat = (extra = {}) => JSON.stringify({ model: 'Qwen3-8B', messages: [{ role: 'user', content: 'hello' }], ...extra });
const TRACE = '4bf92f3577b34da6a3ce929d0e0e4736', SPAN = '00f067aa0ba902b7';

const env = (name) => ({ edge: { ACCESS_LOG: `${name}.log`, TRACE_CONTEXT: 'take' } });

suiteTest('what an edge says of its traffic', { config, env: env('access') }, async (suite, step) => {
  const file = path.join(suite.dir, 'access.log');
  const lines = () => fs.readFileSync(file, 'utf8').trim().split('\n').filter(Boolean).map((l) => JSON.parse(l));
  const line = (id) => until(`a line of ${id}`, () => lines().find((l) => l.request_id === id));
  const seen = async (id) => {
    const j = JSON.parse(await getText(`${suite.mock}/mock/requests?id=${id}`));
    return (j.requests ?? j).at(-1).headers;
  };

  await step('each request is a line, with nothing secret in it', async () => {
    const r = await suite.chat({ path: '/api/chat?api_key=hidden', mock: 'tokens=7', headers: { 'x-request-id': 'one', 'user-agent': `agent/${'a'.repeat(500)}` } });
    const bytes = (await r.arrayBuffer()).byteLength;
    const l = await line('one');
    assert.deepEqual([l.method, l.path, l.status, l.outcome, l.output_tokens > 0, l.namespace], ['POST', '/api/chat', 200, 'ok', true, 'test-channel']);
    assert.equal(l.user_agent.length, 128);
    assert.ok(l.bytes_in > 100 && l.bytes_out > bytes, `${l.bytes_in} ${l.bytes_out}`);
    await (await suite.chat({ headers: { 'x-request-id': 'two', authorization: 'Bearer sk-aigw-nobody' } })).text();
    assert.deepEqual([(await line('two')).status, (await line('two')).outcome], [401, 'rejected']);
    assert.doesNotMatch(fs.readFileSync(file, 'utf8'), /hidden|nobody|hello|127\.0\.0\.1/);
  });
  await step('a file that was renamed is opened anew', async () => {
    fs.renameSync(file, `${file}.1`);
    await until('it is there again', () => fs.existsSync(file));
    await (await suite.chat({ headers: { 'x-request-id': 'three' } })).text();
    await line('three');
  });
  await step('and at once when it is told so', async () => {
    fs.renameSync(file, `${file}.2`);
    suite.procs['edge-1'].signal('SIGHUP');
    await until('it is there again', () => fs.existsSync(file));
    await (await suite.chat({ headers: { 'x-request-id': 'hup' } })).text();
    await line('hup');
    assert.equal((await fetch(`${suite.procs['edge-1'].ops}/readyz`)).status, 200);
  });
  await step('a trace goes on with a span of ours, and one that is none does not', async () => {
    const head = { 'x-request-id': 'four', traceparent: `00-${TRACE}-${SPAN}-01`, tracestate: 'a=b' };
    await (await suite.chat({ mock: 'id=four', headers: head })).text();
    const h = await seen('four'), l = await line('four');
    assert.equal(h.traceparent, `00-${TRACE}-${l.span_id}-01`);
    assert.notEqual(l.span_id, SPAN);
    assert.deepEqual([l.trace_id, l.parent_id, h.tracestate], [TRACE, SPAN, 'a=b']);
    for (const bad of [`00-${TRACE}-${SPAN}`, `ff-${TRACE}-${SPAN}-01`, `00-${'0'.repeat(32)}-${SPAN}-01`, `00-${TRACE.toUpperCase()}-${SPAN}-01`, `00-${TRACE}-${SPAN}-01-x`]) {
      await (await suite.chat({ mock: 'id=bad', headers: { traceparent: bad, tracestate: 'a=b' } })).text();
      const got = await seen('bad');
      assert.deepEqual([got.traceparent, got.tracestate], [undefined, undefined], bad);
    }
  });
  await step('what is in flight is listed, with its state', async () => {
    const wire = new Wire(suite.edge());
    wire.write(post(chat({ stream: true }), 'x-request-id: five\r\nx-mock: fail=hang_after:4\r\n'));
    const waits = new Wire(suite.edge());
    waits.write(post(chat(), 'x-request-id: six\r\nx-mock: fail=hang\r\n'));
    const list = await until('both are listed', async () => {
      const j = JSON.parse(await getText(`${suite.procs['edge-1'].ops}/debug/requests`));
      assert.ok(j.complete);
      return j.requests.length === 2 && j.requests.some((q) => q.output_tokens > 0) && j.requests.some((q) => q.state === 'wait' && q.attempts === 1) && j.requests;
    });
    const [five, six] = ['five', 'six'].map((id) => list.find((q) => q.request_id === id));
    assert.deepEqual([five.state, six.state, five.namespace, five.model, five.upstream], ['relay', 'wait', 'test-channel', 'Qwen3-8B', 'mock']);
    assert.deepEqual([five.server, five.transport, five.upstream_http, five.attempts, six.attempts], [six.server, 'direct', undefined, 1, 1]);
    assert.ok(five.server.length > 0);
    assert.ok(five.output_tokens > 0 && five.age_ms >= 0 && five.memory > 0);
    assert.doesNotMatch(JSON.stringify(list), /127\.0\.0\.1|hello/);
    wire.abort(true);
    waits.abort(true);
    await until('none is', async () => JSON.parse(await getText(`${suite.procs['edge-1'].ops}/debug/requests`)).in_flight === 0);
  });
});

suiteTest('too much of it', { config, env: { edge: { EDGE_WORKERS: '1', MAX_CONNECTIONS: '40', MAX_CONNECTIONS_PER_ADDRESS: '20', MAX_REQUESTS_PER_CONNECTION: '3', MAX_HEAD_BYTES: '2048', MAX_HEADER_FIELDS: '20', HEAD_TIMEOUT_MS: '10000', BODY_TIMEOUT_MS: '10000', MEMORY_MAX_BYTES: '4000000' } } }, async (suite, step) => {
  await step('connections beyond those of an address are told, and others go on', async () => {
    const wires = Array.from({ length: 20 }, () => new Wire(suite.edge()));
    await until('they are there', async () => await suite.edgeSum('gateway_connections') === 20);
    const more = new Wire(suite.edge());
    const a = await more.answer();
    assert.deepEqual([a.status, a.headers['retry-after'], a.headers.connection, JSON.parse(a.body).error.code], [503, '1', 'close', 'overloaded']);
    wires[0].write(post(chat()));
    assert.equal((await wires[0].answer()).status, 200);
    await suite.counted(1, 'gateway_turned_away_total', { why: 'address' });
    for (const w of wires.concat(more)) w.close();
    await until('they are gone', async () => await suite.edgeSum('gateway_connections') === 0);
  });
  await step('a connection ends with its last request', async () => {
    const wire = new Wire(suite.edge());
    for (const last of [false, false, true]) {
      wire.write(post(chat()));
      const a = await wire.answer();
      assert.deepEqual([a.status, a.headers.connection], [200, last ? 'close' : undefined]);
    }
    wire.close();
  });
  await step('heads and bodies that do not come in time, or are too large', async () => {
    await Promise.all([['GET / HTTP/1.1\r\nHost: e\r\nA', 408], [post(chat()).slice(0, -5), 408],
      [`GET / HTTP/1.1\r\nHost: e\r\nA: ${'a'.repeat(3000)}\r\n\r\n`, 431], [`GET / HTTP/1.1\r\nHost: e\r\n${'A: b\r\n'.repeat(30)}\r\n`, 431]].map(async ([bytes, status]) => {
      const wire = new Wire(suite.edge());
      wire.write(bytes);
      const a = await wire.answer();
      assert.deepEqual([a?.status, a?.headers.connection], [status, 'close'], bytes.slice(0, 60));
      wire.close();
    }));
  });
  await step('bodies beyond the memory there is are refused, and what comes after is served', async () => {
    const big = 'x'.repeat(1500000);
    const wires = Array.from({ length: 6 }, () => new Wire(suite.edge()));
    for (const w of wires) w.write(`POST /api/chat HTTP/1.1\r\nHost: e\r\nX-Channel-Code: test-channel\r\nContent-Type: application/json\r\nContent-Length: 2000000\r\n\r\n${big}`);
    const answers = await Promise.all(wires.map((w) => w.answer()));
    const statuses = answers.map((a) => a?.status).sort();
    assert.ok(statuses.includes(503) && statuses.every((s) => s === 503 || s === 408), `${statuses}`);
    const refused = answers.find((a) => a.status === 503);
    assert.deepEqual([refused.headers['retry-after'], JSON.parse(refused.body).error.code], ['1', 'overloaded']);
    await suite.counted((n) => n > 0, 'gateway_turned_away_total', { why: 'memory' });
    for (const w of wires) w.close();
    await until('there is memory again', async () => (await suite.chat({ mock: 'tokens=2' })).status === 200);
    await until('all of it', async () => await suite.edgeSum('gateway_memory_bytes') < 200000);
  });
});

suiteTest('connections of several workers', { config, env: { edge: { EDGE_WORKERS: '4', IDLE_TIMEOUT_MS: '300' } } }, async (suite, step) => {
  await step('come from one listening socket', () => {
    const port = Number(new URL(suite.edge()).port).toString(16).toUpperCase().padStart(4, '0');
    const sockets = fs.readFileSync('/proc/net/tcp', 'latin1').split('\n').map((l) => l.trim().split(/\s+/));
    assert.equal(sockets.filter(([, local, , state]) => local?.endsWith(`:${port}`) && state === '0A').length, 1);
  });
  await step('one that rests is closed without a word when it has done so long enough, not while it is used', async () => {
    const wire = new Wire(suite.edge());
    wire.write(post(chat(), 'x-mock: tokens=2;ttft_ms=1500\r\n')); // longer than it may rest
    assert.equal((await wire.answer()).status, 200);
    assert.equal(await wire.have(1), false, 'nothing more comes');
    assert.equal(wire.closed, 'end');
    await until('none is left', async () => await suite.edgeSum('gateway_connections') === 0);
  });
});
