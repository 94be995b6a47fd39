// SPDX-License-Identifier: Apache-2.0
// Every way out of a request: exactly one usage record with the right outcome, its slot is free at once (the namespace
// has one: the request behind it is served), nothing stays in flight, and the mock saw what it should.
//
// Where rows of failures are shown (C: upstream, D: client):
//   refused, reset, no answer in time, hang in a stream, cut without end .. here, edge ("upstreams that break"), stress
//   chunks, lengths, interims, heads, bytes behind the end ............... edge, http ("breaks off"), stress
//   content codings, event forms, line ends, splits ...................... http ("however the upstream writes"), stress
//   statuses with Retry-After, retries, fallbacks ........................ balance's tests
//   slow heads and bodies, floods of connections, huge bodies ............ traffic, memory
//   slow readers .......................................................... edge ("as long as they take something")
//   clients that leave at any time ........................................ here, faults, stress
//   pipelining, expectations, framing, paths, hop-by-hop .................. http, edge, tests/framing
//   the edge is killed, is told to stop ................................... faults, edge
import assert from 'node:assert/strict';
import { demoConfig, suiteTest } from './lib/suite.mjs';
import { until } from './lib/util.mjs';
import { Wire } from './lib/wire.mjs';

const config = (suite) => {
  const c = demoConfig(suite);
  c.upstreams[0].timeouts = { connect_ms: 4000, first_byte_ms: 8000, idle_ms: 6000, total_ms: 20000 };
  c.upstreams[0].retries = 0;
  c.policies = [
    { slug: 'one', namespace: 'test-channel', kind: 'concurrency', limit: 1, on_unavailable: 'share' },
    { slug: 'answer', namespace: 'test-channel', kind: 'output_tokens', limit: 3000 },
  ];
  return c;
};
const post = (mock, stream, text = 'hello') => {
  const body = JSON.stringify({ model: 'Qwen3-8B', stream, messages: [{ role: 'user', content: text }] });
  return `POST /api/chat HTTP/1.1\r\nHost: e\r\nX-Channel-Code: test-channel\r\nContent-Type: application/json\r\nx-mock: ${mock}\r\nContent-Length: ${Buffer.byteLength(body)}\r\n\r\n${body}`;
};

// mock, streamed, what the client does (leave: bytes it has then, or 'wait': leaves while nothing came; by a FIN, a reset, or
// half: it closes its sending side only, and is gone all the same), outcome
const WAYS = [
  ['tokens=5', false, {}, 'ok'],
  ['tokens=5', true, {}, 'ok'],
  ['tokens=4000;ignore_max', true, {}, 'cut'],
  ['tokens=4000;ignore_max', false, {}, 'cut'],
  ['fail=500', false, {}, 'upstream_error'],
  ['fail=refuse', false, {}, 'upstream_error'],
  ['fail=garbage', true, {}, 'upstream_error'],
  ['fail=reset_after:3', true, {}, 'upstream_error'],
  ['fail=close_after:3', true, {}, 'upstream_error'],
  ['fail=bad_chunk', true, {}, 'upstream_error'],
  ['fail=error_event:2', true, {}, 'upstream_error'],
  ['fail=hang', false, {}, 'timeout'],
  ['fail=hang_after:3', true, {}, 'timeout'],
  ['tokens=2000;tps=50', true, {}, 'timeout'],
  ['fail=hang', false, { leave: 'wait' }, 'client_gone'],
  ['fail=hang', true, { leave: 'wait' }, 'client_gone'],
  ['tokens=2900;tps=100', true, { leave: 1500 }, 'client_gone'],
  ['tokens=2900;tps=100', true, { leave: 1500, reset: true }, 'client_gone'],
  ['fail=hang', false, { leave: 'wait', half: true }, 'client_gone'],
  ['tokens=2900;tps=100', true, { leave: 1500, half: true }, 'client_gone'],
];

async function take(suite, wire, [mock, stream, { leave, reset, half }]) {
  wire.write(post(mock, stream));
  if (leave === 'wait') await until('it is under way', async () => await suite.edgeSum('gateway_inflight_requests') === 1);
  else if (leave) await wire.have(leave);
  if (half) {
    wire.socket.end();
    assert.equal(await wire.have(Infinity), false, 'the edge closes its side');
  } else if (leave) {
    wire.abort(reset);
  } else {
    await wire.answer();
  }
  wire.close();
}

async function serve(suite) {
  return until('the slot is free', async () => {
    const r = await suite.chat({ mock: 'tokens=3' });
    await r.text();
    return r.status === 200;
  });
}

suiteTest('every way out', { config, env: { edge: { EDGE_WORKERS: '1' } } }, async (suite, step) => {
  const counts = async () => Object.fromEntries((await suite.ledger({ group_by: ['outcome'] })).map((g) => [g.outcome, g.requests]));
  for (const way of WAYS) {
    await step(`${way[0]}${way[1] ? ', streamed' : ''}${way[2].leave ? `, left at ${way[2].leave}${way[2].half ? ' by half' : ''}` : ''}: ${way[3]}`, async () => {
      await serve(suite); // 429s of the attempts before it are records of their own
      await suite.counted(0, 'gateway_inflight_requests'); // and each is counted
      await until('all is recorded', async () => await suite.edgeSum('gateway_usage_spool', { what: 'settled' }) === 0);
      const before = await until('the ledger rests', async () => {
        const a = await counts(), n = await suite.edgeSum('gateway_requests_total');
        return Object.values(a).reduce((x, y) => x + y, 0) === n && a;
      });
      await take(suite, new Wire(suite.edge()), way);
      const after = await until('one more record', async () => {
        const a = await counts();
        return JSON.stringify(a) !== JSON.stringify(before) && a;
      });
      assert.deepEqual({ ...after, [way[3]]: after[way[3]] - 1 }, { ...before, [way[3]]: before[way[3]] ?? 0 });
      await suite.counted(0, 'gateway_inflight_requests');
      await suite.counted(0, 'gateway_open_streams');
      await until('the mock has none', async () => (await suite.mockStats()).streams.open === 0);
      const r = await suite.chat({ mock: 'tokens=3' });
      await r.text();
      assert.equal(r.status, 200, 'the slot is free');
    });
  }
});

const patiently = (suite) => {
  const c = config(suite);
  c.upstreams[0].timeouts.total_ms = 300000;
  return c;
};
suiteTest('a client that leaves, with drain', { config: patiently, env: { edge: { EDGE_WORKERS: '1', ON_CLIENT_GONE: 'drain', CLIENT_GONE_DRAIN_MS: '20000' } } }, async (suite, step) => {
  const one = async (mock) => {
    const wire = new Wire(suite.edge());
    wire.write(post(mock, true));
    await wire.have(1200);
    wire.abort(true);
  };
  await step('its answer is read to the end, and what the upstream reports is recorded', async () => {
    await one('tokens=300;tps=30;usage=always');
    await suite.settled(1);
    const stats = await suite.mockStats();
    assert.deepEqual([stats.aborted, stats.done], [0, 1]);
    const [g] = await suite.ledger({ group_by: ['outcome'] });
    assert.equal(g.outcome, 'client_gone');
    assert.ok(g.output_tokens >= 250, `${g.output_tokens}`);
    await serve(suite);
  });
  await step('but not for ever', async () => {
    await one('tokens=2900;tps=30');
    await until('it was cancelled', async () => (await suite.mockStats()).aborted === 1);
    await until('nothing is left', async () => await suite.edgeSum('gateway_inflight_requests') === 0);
  });
});
