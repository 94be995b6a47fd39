// SPDX-License-Identifier: Apache-2.0
// Streams that break in front of their first output, servers whose rate limit is used up, and upstreams that refuse the
// gateway's own credential.
import assert from 'node:assert/strict';
import nodeHttp from 'node:http';
import { setTimeout as delay } from 'node:timers/promises';
import { Records } from './lib/records.mjs';
import { partial, servedTest } from './lib/served.mjs';
import { sseData, until } from './lib/util.mjs';

const CANARY = 'sk-canary-5f1d7e';

// A server of the test's own; answer: (request's path, response) => …
async function scripted(answer) {
  const server = nodeHttp.createServer({ keepAliveTimeout: 0 }, (q, r) => { q.resume(); q.on('end', () => answer(q.url, r)); });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  server.unref();
  return { url: `http://127.0.0.1:${server.address().port}`, close: () => { server.closeAllConnections(); server.close(); } };
}

const answers = {
  // Opens a stream with more than an edge holds back, and then says nothing.
  pings: (_, r) => {
    r.writeHead(200, { 'content-type': 'text/event-stream' });
    for (let i = 0; i < 70; i++) r.write(`event: ping\ndata: {"type":"ping","filler":"${'x'.repeat(1000)}"}\n\n`);
  },
  denied: (url, r) => {
    const status = Number((/\d{3}/.exec(url) ?? ['401'])[0]);
    r.writeHead(status, { 'content-type': 'application/json', 'x-canary': CANARY });
    r.end(JSON.stringify({ error: { message: `Incorrect API key provided: ${CANARY.slice(0, 9)}****${CANARY.slice(-4)} (${CANARY})` } }));
  },
};
const own = { pings: await scripted(answers.pings), denied: await scripted(answers.denied) };
process.on('exit', () => Object.values(own).forEach((s) => s.close()));

const bearer = { type: 'bearer', credential: CANARY };
servedTest('what breaks in front of the first output', {
  upstreams: {
    openai: { retries: 1, retry: { hold_ms: 30000, budget_min: 1000 } }, messages: { dialect: 'anthropic', retries: 1, retry: { hold_ms: 30000, budget_min: 1000 } },
    responses: { retries: 1, retry: { hold_ms: 30000, budget_min: 1000 } }, soon: { n: 2, retries: 1, retry: { hold_ms: 400 } },
    never: { n: 2, retries: 1, retry: { hold_ms: 0 } }, alone: { n: 1, retries: 1, retry: { hold_ms: 30000 } },
    much: { dialect: 'anthropic', n: 2, each: [{ url: own.pings.url }, { priority: 1 }], retries: 1, retry: { hold_ms: 30000 } },
    limited: { n: 1 }, two: { n: 2 }, overloaded: { n: 1 }, mixed: { n: 2 },
    denied: { n: 1, auth: bearer, each: [{ url: own.denied.url }] },
    ejected: { n: 2, auth: bearer, each: [{ url: own.denied.url }], ejection: { failures: 1, base_ms: 60000, most_ms: 60000, max_percent: 50 } },
    forbidden: { n: 2, auth: bearer, each: [{ url: `${own.denied.url}/403` }], ejection: { failures: 1, base_ms: 60000, most_ms: 60000, max_percent: 50 } },
  },
  routes: { messages: { endpoint: 'messages', rewrite_path: '/v1/messages' }, much: { endpoint: 'messages', rewrite_path: '/v1/messages' },
    responses: { endpoint: 'responses', rewrite_path: '/v1/responses' }, denied: { rewrite_path: undefined, endpoint: 'passthrough', methods: ['GET'] } },
}, async ({ suite, step, servers, ask }) => {
  const usage = await Records.of(suite);

  const ENDS = { openai: '[DONE]', messages: 'message_stop', responses: 'response.completed' };
  const body = { openai: {}, messages: { max_tokens: 100 }, responses: { messages: undefined, input: 'hello' } };
  for (const [slug, opening] of [['openai', [1]], ['messages', [1, 2]], ['responses', [1, 2]]])
    for (const fail of ['reset_after', 'close_after', 'error_event'])
      for (const n of opening)
        await step(`${slug}: ${fail} behind ${n} events that only open it: another server answers, once`, async () => {
          await servers.behave(1, `fail=${fail}:${n}`);
          const records = [];
          for (let i = 0; i < 3; i++) {
            const r = await ask(slug, { stream: true, ...body[slug] });
            const text = await r.text();
            assert.equal(r.status, 200, text);
            assert.notEqual(r.headers.get('x-server'), 'm1');
            const data = sseData(text);
            assert.ok(data.at(-1).includes(ENDS[slug]), text);
            assert.doesNotMatch(text, /"error": ?\{/);
            for (const once of ['"message_start"', '"response.created"', '"role":"assistant"'])
              assert.ok(text.split(once).length <= (once.includes('role') && slug === 'responses' ? 9 : 2), `${once} twice: ${text}`);
            records.push(await usage.for(r));
          }
          assert.deepEqual(records.map((u) => [u.outcome, u.output_tokens]), Array(3).fill(['ok', 3]));
          assert.ok(records.some((u) => u.attempts.length === 2 && u.attempts[0].server === 'm1'));
          await servers.behave(1);
        });

  await step('content that follows at once does not wait', async () => {
    const t0 = Date.now();
    for (let i = 0; i < 6; i++) assert.equal(sseData(await (await ask('openai', { stream: true })).text()).at(-1), '[DONE]');
    assert.ok(Date.now() - t0 < 25000, 'it would have been 30 s each');
  });

  // The time until the first bytes of an answer that never goes on behind its first event.
  const first = async (slug, mock, extra = {}) => {
    const gone = new AbortController(), t0 = Date.now();
    const r = await ask(slug, { stream: true, mock, signal: gone.signal, ...extra });
    const piece = await r.body.getReader().read();
    const ms = Date.now() - t0;
    gone.abort();
    return { ms, text: Buffer.from(piece.value).toString() };
  };
  await step('it is held back for a while only, and only where another could be tried', async () => {
    const soon = await first('soon', 'fail=hang_after:1');
    assert.ok(soon.ms >= 380 && soon.ms < 20000, `${soon.ms} ms`);
    assert.match(soon.text, /"role":"assistant"/);
    assert.ok((await first('never', 'fail=hang_after:1')).ms < 20000);
    assert.ok((await first('alone', 'fail=hang_after:1')).ms < 20000);
    await until('they are gone', async () => await suite.edgeSum('gateway_inflight_requests') === 0);
  });
  await step('and only so many bytes', async () => {
    const much = await first('much', '', { max_tokens: 10 });
    assert.ok(much.ms < 20000);
    assert.match(much.text, /ping/);
  });
  await step('where nothing else is left to be tried nothing is held back, and what breaks looks broken', async () => {
    for (const k of [1, 2, 3]) await servers.behave(k, 'fail=reset_after:1');
    const r = await ask('openai', { stream: true });
    assert.equal(r.status, 200, 'the second attempt could not be followed by a third: it was not held back');
    const text = await partial(r);
    assert.ok(!text.includes('[DONE]'));
    assert.equal(text.split('"role":"assistant"').length, 2, 'of one server only');
    for (const k of [1, 2, 3]) await servers.behave(k);
  });

  // --- rate limits of servers ---

  const told = async (slug) => {
    const r = await ask(slug);
    const j = await r.json();
    return { status: r.status, code: j.error?.code, after: Number(r.headers.get('retry-after') ?? NaN), type: j.error?.type };
  };
  await step('a rate limit that is used up is told as such, with what remains of its time', async () => {
    await servers.behave(1, 'fail=429:15');
    const t0 = Date.now();
    const one = await ask('limited');
    assert.equal(one.status, 429, 'the server\'s own');
    assert.equal(one.headers.get('retry-after'), '15');
    const requests = await servers.requests(1);
    await delay(1100);
    const two = await told('limited');
    assert.deepEqual([two.status, two.code, two.type], [429, 'upstream_rate_limited', 'requests']);
    assert.ok(two.after >= 1 && two.after <= 14, `${two.after}`);
    assert.equal(await servers.requests(1), requests, 'it was left alone');
    await servers.behave(1);
    await until('it is asked again', async () => (await ask('limited')).status === 200);
    assert.ok(Date.now() - t0 > 14900);
    const u = await usage.one('the record', (x) => x.route === 'limited' && x.status === 429 && !x.attempts?.length);
    assert.equal(u.outcome, 'upstream_error');
  });
  await step('of several the one that is back first counts', async () => {
    await servers.behave(1, 'fail=429:30');
    await servers.behave(2, 'fail=429:20');
    for (let i = 0; i < 2; i++) assert.equal((await ask('two')).status, 429);
    const r = await told('two');
    assert.deepEqual([r.status, r.code], [429, 'upstream_rate_limited']);
    assert.ok(r.after >= 5 && r.after <= 20, `${r.after}`);
    await servers.behave(2, 'fail=503:20');
    for (let i = 0; i < 2; i++) await ask('mixed'); // m1 for 30 s, m2 for 20 s
    assert.deepEqual((({ status, code }) => [status, code])(await told('mixed')), [503, 'no_healthy_upstream'], 'the wait is for one that is overloaded');
    await servers.behave(2);
    await servers.behave(1, 'fail=503:30');
    await ask('overloaded');
    const o = await told('overloaded');
    assert.deepEqual([o.status, o.code], [503, 'no_healthy_upstream']);
    assert.ok(o.after > 15);
    await servers.behave(1);
  });

  // --- our credential ---

  for (const status of [401, 402, 403])
    await step(`an upstream that answers ${status} to the gateway's credential: the client learns nothing of it`, async () => {
      const r = await fetch(`${suite.edge()}/denied/${status}`, { headers: { 'x-channel-code': 'test-channel' } });
      const text = await r.text();
      assert.equal(r.status, 502, text);
      const j = JSON.parse(text);
      assert.equal(j.error.code, 'upstream_denied');
      assert.match(j.error.message, new RegExp(`${status}`));
      assert.equal(r.headers.get('x-should-retry'), 'false');
      for (const canary of [CANARY, CANARY.slice(0, 9), 'Incorrect API key'])
        assert.ok(!`${text} ${JSON.stringify([...r.headers])}`.includes(canary), canary);
      const u = await usage.for(r);
      assert.deepEqual([u.outcome, u.status, u.route, u.attempts.map((a) => a.status)], ['upstream_error', 502, 'denied', [status]]);
      assert.ok(!JSON.stringify(u).includes(CANARY));
    });
  await step('it is counted, and takes a server out', async () => {
    const statuses = [];
    for (let i = 0; i < 6; i++) statuses.push((await ask('ejected')).status);
    assert.deepEqual(statuses.filter((x) => x !== 200), [502]);
    // A 403 may be about what was asked: whoever asks so must not take the server from others.
    statuses.length = 0;
    for (let i = 0; i < 6; i++) statuses.push((await ask('forbidden')).status);
    assert.deepEqual(statuses.sort(), [200, 200, 200, 502, 502, 502]);
    await suite.counted(3, 'gateway_upstream_errors_total', { upstream: 'denied', why: 'credential' });
    const metrics = await (await fetch(`${suite.procs['edge-1'].ops}/metrics`)).text();
    assert.ok(!metrics.includes(CANARY));
    assert.ok(!suite.procs['edge-1'].tail(10000).includes(CANARY));
  });
});
