// SPDX-License-Identifier: Apache-2.0
// Several servers behind an edge: how they are chosen, watched, left out and taken back, and what clients see of those
// that fail.
import assert from 'node:assert/strict';
import { Records } from './lib/records.mjs';
import { partial, servedTest } from './lib/served.mjs';
import { PATIENCE, sseData, sumOf, until } from './lib/util.mjs';

const slow = (ms) => ({ mock: `ttft_ms=${ms}` });

servedTest('servers are chosen', {
  upstreams: {
    rr: {}, wrr: { balance: 'weighted_round_robin', each: [{ weight: 3 }, { weight: 2 }, { weight: 1 }] },
    rnd: { balance: 'random', each: [{ weight: 8 }, { weight: 1 }, { weight: 1 }] }, least: { balance: 'least_requests' },
    header: { balance: 'hash', hash: { by: 'header', header: 'X-Session' } }, prompt: { balance: 'hash', hash: { by: 'prompt', prompt_bytes: 64 } },
    user: { balance: 'hash', hash: { by: 'user' } }, prio: { each: [{ priority: 1 }, {}, { priority: 2 }], retries: 2, ejection: { failures: 1, base_ms: 400, max_percent: 100 } },
    room: { n: 2, each: [{ max_requests: 1 }, { max_requests: 1 }], queue: { max: 2, timeout_ms: 60000 } },
    hasty: { n: 1, each: [{ max_requests: 1 }], queue: { max: 2, timeout_ms: 500 } },
    whole: { n: 1, each: [{ max_requests: 1 }], queue: { max: 1, timeout_ms: 3600000 } },
  },
}, async ({ suite, step, servers, ask, who, tally }) => {
  await step('round robin, weighted and not', async () => {
    assert.deepEqual(await tally('rr', 30), { m1: 10, m2: 10, m3: 10 });
    assert.deepEqual(await tally('wrr', 60), { m1: 30, m2: 20, m3: 10 });
  });

  await step('random by weight', async () => {
    const c = await tally('rnd', 200);
    assert.ok(c.m1 > 130 && c.m1 < 190 && c.m2 > 4 && c.m3 > 4, JSON.stringify(c));
  });

  await step('least requests: who is slow gets little', async () => {
    await servers.behave(1, 'ttft_ms=3000');
    const counts = { m1: 0, m2: 0, m3: 0 };
    await Promise.all(Array.from({ length: 6 }, async () => {
      for (let i = 0; i < 12; i++) counts[await who('least')]++;
    }));
    await servers.behave(1);
    assert.ok(counts.m1 < 20 && counts.m2 > 15 && counts.m3 > 15, JSON.stringify(counts));
  });

  await step('hashes: a header, a user, the beginning of the prompt', async () => {
    const seen = new Set();
    for (let s = 0; s < 40; s++) {
      const one = await who('header', {}, { headers: { 'x-session': `s${s}` } });
      seen.add(one);
      for (let i = 0; i < 3; i++) assert.equal(await who('header', {}, { headers: { 'x-session': `s${s}` } }), one);
    }
    assert.equal(seen.size, 3);
    const first = await who('user', { user: 'ann' });
    for (let i = 0; i < 5; i++) assert.equal(await who('user', { user: 'ann' }), first);
    const long = 'You are a helpful assistant with a long, long introduction that all of them share. ';
    const shared = await who('prompt', { text: `${long} 1` });
    for (let i = 0; i < 6; i++) assert.equal(await who('prompt', { text: `${long} ${i}` }), shared);
    assert.equal(new Set(await Promise.all(Array.from({ length: 24 }, (_, i) => who('prompt', { text: `${i}${long}` })))).size, 3);
  });

  await step('a key comes back to its server when that has been away; others do not move', async () => {
    const keys = Array.from({ length: 12 }, (_, i) => ({ headers: { 'x-session': `s${i}` } }));
    const where = async () => { // one after the other: a busy server passes on what is too much for it
      const at = [];
      for (const k of keys) at.push(await who('header', {}, k));
      return at;
    };
    const before = await where();
    const document = await suite.must('GET', 'upstreams/header');
    const disabled = document.json.servers.map((s) => (s.slug === 'm2' ? { ...s, enabled: false } : s));
    await suite.must('PATCH', 'upstreams/header', { servers: disabled });
    await suite.applied();
    const without = await where();
    before.forEach((b, i) => (b === 'm2' ? assert.notEqual(without[i], 'm2') : assert.equal(without[i], b)));
    await suite.must('PATCH', 'upstreams/header', { servers: document.json.servers });
    await suite.applied();
    assert.deepEqual(await where(), before);
  });

  await step('priorities: over to the next when the first fails, and back', async () => {
    assert.deepEqual(await tally('prio', 5), { m1: 0, m2: 5, m3: 0 });
    await servers.behave(2, 'fail=503');
    assert.deepEqual(await tally('prio', 5), { m1: 5, m2: 0, m3: 0 });
    await servers.behave(2);
    await until('it is back', async () => await who('prio') === 'm2');
  });

  await step('a queue: in order, bounded, and with an end', async () => {
    const one = async () => {
      const r = await ask('room');
      return { status: r.status, text: await r.text(), after: r.headers.get('retry-after') };
    };
    const over = new AbortController();
    const busy = (slug, signal) => ask(slug, { ...slow(3600000), signal }).catch(() => 'over');
    const ends = [new AbortController(), new AbortController()], first = ends.map((e) => busy('room', e.signal));
    await until('both are at work', async () => await suite.edgeSum('gateway_upstream_active_requests', { upstream: 'room' }) === 2);
    const waiting = [one(), one()];
    await until('two wait', async () => await suite.edgeSum('gateway_upstream_queue_length', { upstream: 'room' }) === 2);
    const refused = await one();
    assert.equal(refused.status, 503);
    assert.match(refused.text, /overloaded/);
    assert.equal(refused.after, '1');
    ends[0].abort();
    assert.deepEqual((await Promise.all(waiting)).map((r) => r.status), [200, 200]);
    ends[1].abort();
    assert.deepEqual(await Promise.all(first), ['over', 'over']);
    await until('nobody is at work', async () => await suite.edgeSum('gateway_upstream_active_requests', { upstream: 'room' }) === 0);
    await suite.counted(1, 'gateway_upstream_queue_refused_total', { upstream: 'room', why: 'full' });
    // One who leaves makes room; one whose time is over is told so.
    const all = ['room', 'room', 'hasty'].map((slug) => busy(slug, over.signal));
    for (const [upstream, n] of [['room', 2], ['hasty', 1]])
      await until('they are at work', async () => await suite.edgeSum('gateway_upstream_active_requests', { upstream }) === n);
    const gone = new AbortController();
    const leaver = ask('room', {}, { signal: gone.signal }).catch(() => 'left');
    await until('it waits', async () => await suite.edgeSum('gateway_upstream_queue_length', { upstream: 'room' }) === 1);
    gone.abort();
    assert.equal(await leaver, 'left');
    await until('it has left', async () => await suite.edgeSum('gateway_upstream_queue_length', { upstream: 'room' }) === 0);
    const late = await ask('hasty');
    assert.equal(late.status, 503);
    assert.match(await late.text(), /none became free in time/);
    over.abort();
    assert.deepEqual(await Promise.all(all), ['over', 'over', 'over']);
    await suite.counted(0, 'gateway_upstream_active_requests');
  });

  await step('the whole time of a request ends in the queue as well: its place, its slot and its tokens are free', async () => {
    const usage = await Records.of(suite), per = ['header:x-round'];
    await suite.must('POST', 'policies', { slug: 'one-slot', namespace: 'test-channel', kind: 'concurrency', limit: 1, on_unavailable: 'deny', per });
    await suite.must('POST', 'policies', { slug: 'some-tokens', namespace: 'test-channel', kind: 'token_rate', count: 'output', limit: 1000, window: '1h', on_unavailable: 'deny', per });
    await suite.applied();
    // What one in a piece may answer is all that is left: the next one finds it only when it came back. 503: it was not
    // known yet, or not in time, what is left.
    const limited = async () => {
      for (;;) {
        const r = await ask('whole', {}, { headers: { 'x-round': 'b' } }), text = await r.text();
        if (!text.includes('limiter_unavailable')) return { r, text };
      }
    };
    assert.equal((await limited()).r.status, 200);
    const over = new AbortController();
    const busy = ask('whole', { ...slow(3600000), signal: over.signal }).catch(() => 'over');
    await until('it is at work', async () => await suite.edgeSum('gateway_upstream_active_requests', { upstream: 'whole' }) === 1);
    // Of those that come from now on; who is at work has its own.
    const whole = async (total_ms) => { await suite.must('PATCH', 'upstreams/whole', { timeouts: { total_ms } }); await suite.applied(); };
    await whole(2000);
    for (let i = 0; i < 3; i++) { // the queue has one place
      const { r, text } = await limited();
      assert.equal(r.status, 504, text);
      assert.match(text, /No server became free within the whole time/);
      assert.equal(JSON.parse(text).error.code, 'upstream_timeout');
      const u = await usage.for(r);
      assert.deepEqual([u.route, u.outcome, u.attempts?.length ?? 0, u.output_tokens], ['whole', 'timeout', 0, 0]);
      await until('nobody waits', async () => await suite.edgeSum('gateway_upstream_queue_length', { upstream: 'whole' }) === 0);
    }
    await whole(3600000);
    over.abort();
    assert.equal(await busy, 'over');
    assert.equal((await limited()).r.status, 200);
    await suite.counted(0, 'gateway_upstream_active_requests');
  });
});

servedTest('servers fail', {
  upstreams: {
    retry: { retries: 2 }, unsafe: { retries: 2 }, budget: { n: 2, retries: 1, retry: { budget_percent: 10, budget_min: 5 } }, never: { retries: 2, retry: { causes: ['connect'] } },
    eject: { ejection: { failures: 2, base_ms: 60000, most_ms: 60000, max_percent: 40 } },
    breaker: { n: 1, breaker: { error_percent: 50, min_requests: 5, window_ms: 60000, open_ms: 12000, probes: 1 } },
    cool: { n: 2 }, cool1: { n: 1 }, main: { n: 1 }, spare: { n: 2, each: [{ enabled: false }, {}] }, stream: { retries: 1 },
    first: { n: 1, timeouts: { first_byte_ms: 300 } }, token: { n: 1, timeouts: { first_token_ms: 300 } }, idle: { n: 1, timeouts: { idle_ms: 300 } }, total: { n: 1, timeouts: { total_ms: 2000 } },
    check: { health_check: { type: 'models', interval_ms: 100, timeout_ms: 10000, healthy: 1, unhealthy: 2 } }, kill: { retries: 2, balance: 'least_requests', ejection: undefined, breaker: undefined }, // as it is by itself
  },
  routes: { unsafe: { endpoint: 'passthrough' }, main: { fallbacks: [{ upstream: 'spare', upstream_model: 'small-model' }] } },
}, async ({ suite, step, servers, ask, who, tally }) => {
  const usage = await Records.of(suite);

  for (const how of ['fail=500', 'fail=502', 'fail=503', 'fail=429', 'fail=refuse', 'fail=garbage', 'fail=reset_after:0'])
    await step(`retried elsewhere: ${how}`, async () => {
      await servers.behave(1, how);
      if (how === 'fail=500') {
        const statuses = [];
        for (let i = 0; i < 6; i++) statuses.push((await ask('retry')).status);
        assert.equal(statuses.filter((s) => s === 500).length, 2, 'a 500 may have done something: it passes');
      } else {
        const c = await tally('retry', 9);
        assert.equal(c.m1, 0);
      }
      await servers.behave(1);
    });

  await step('what is not safe to be done twice is tried again only when it was not done', async () => {
    for (const [how, statuses] of [['fail=502', [200, 200, 502]], ['fail=garbage', [200, 200, 502]], ['fail=503', [200, 200, 200]], ['fail=429', [200, 200, 200]]]) {
      await servers.behave(1, how);
      const got = [];
      for (let i = 0; i < 3; i++) got.push((await ask('unsafe')).status);
      assert.deepEqual(got.sort(), statuses, how);
    }
    await servers.behave(1);
  });

  await step('the causes are the configuration\'s', async () => {
    await servers.behave(1, 'fail=503');
    const statuses = [];
    for (let i = 0; i < 6; i++) statuses.push((await ask('never')).status);
    assert.equal(statuses.filter((s) => s === 503).length, 2);
    await servers.behave(1);
  });

  await step('a stream that begins with an error, or is empty, is tried elsewhere', async () => {
    for (const how of ['fail=error_event:0', 'fail=close_after:0', 'fail=reset_after:0']) {
      await servers.behave(1, how);
      for (let i = 0; i < 6; i++) {
        const r = await ask('stream', { stream: true });
        const data = sseData(await r.text());
        assert.equal(data.at(-1), '[DONE]', how);
        assert.ok(!data.some((d) => d.includes('"error"')));
        assert.notEqual(r.headers.get('x-server'), 'm1');
      }
    }
    await servers.behave(1, 'fail=error_event:2'); // something was passed on: no other begins anew
    const texts = [];
    for (let i = 0; i < 3; i++) texts.push(await partial(await ask('stream', { stream: true })));
    assert.equal(texts.filter((t) => t.includes('"error"') && !t.includes('[DONE]')).length, 1);
    await servers.behave(1);
  });

  await step('retries cannot multiply an outage', async () => {
    await servers.behave(1, 'fail=503');
    await servers.behave(2, 'fail=503');
    const before = await servers.requests(1) + await servers.requests(2);
    const n = 150, began = Date.now();
    for (let i = 0; i < n; i += 10) await Promise.all(Array.from({ length: 10 }, async () => assert.equal((await ask('budget')).status, 503)));
    await servers.behave(1);
    await servers.behave(2);
    const retries = await servers.requests(1) + await servers.requests(2) - before - n;
    // In any nine seconds five, and a tenth of what is asked.
    const most = 5 * (1 + Math.floor((Date.now() - began) / 9000)) + n / 10 + 1;
    assert.ok(retries >= 15 && retries <= most, `${retries} retries, of ${most}`);
    await suite.counted((x) => x === n - retries, 'gateway_retries_refused_total', { upstream: 'budget' });
  });

  await step('ejection has a bound', async () => {
    await servers.behave(1, 'fail=500');
    await servers.behave(2, 'fail=500');
    for (let i = 0; i < 30; i++) await (await ask('eject')).text();
    await suite.counted(1, 'gateway_upstream_events_total', { upstream: 'eject', event: 'ejected' });
    const up = await Promise.all([1, 2, 3].map((k) => suite.edgeSum('gateway_upstream_up', { upstream: 'eject', server: `m${k}` })));
    assert.equal(up[0] + up[1], 1, 'one of three may go, not two');
    assert.equal(up[2], 1);
    await servers.behave(1);
    await servers.behave(2);
    assert.equal(Object.values(await tally('eject', 10)).filter((v) => v === 0).length, 1);
  });

  await step('the breaker: open, half open, open again, closed', async () => {
    await servers.behave(1, 'fail=500');
    const statuses = [];
    for (let i = 0; i < 10; i++) statuses.push((await ask('breaker')).status);
    assert.deepEqual([...new Set(statuses.slice(0, 5))], [500]);
    assert.deepEqual([...new Set(statuses.slice(5))], [503]);
    const refused = await ask('breaker');
    assert.equal((await refused.json()).error.code, 'no_healthy_upstream');
    assert.match(refused.headers.get('retry-after'), /^([1-9]|1[0-2])$/);
    await until('a probe fails', async () => (await ask('breaker')).status === 500);
    assert.equal((await ask('breaker')).status, 503);
    await servers.behave(1, 'ttft_ms=6000');
    // Half open: one at a time.
    const probe = await until('a probe passes', async () => {
      const all = await Promise.all(Array.from({ length: 5 }, () => ask('breaker')));
      const good = all.filter((r) => r.status === 200);
      return good.length > 0 && good.length;
    });
    assert.equal(probe, 1);
    await servers.behave(1);
    for (let i = 0; i < 10; i++) assert.equal(await who('breaker'), 'm1');
    await suite.counted(1, 'gateway_upstream_events_total', { upstream: 'breaker', event: 'breaker_closed' });
  });

  await step('Retry-After and rate limits of a server are honoured', async () => {
    await servers.behave(1, 'fail=429:20');
    const answers = [];
    for (let i = 0; i < 10; i++) answers.push((await ask('cool')).status);
    assert.equal(answers.filter((s) => s === 429).length, 1, 'one is told, then it is left alone');
    await servers.behave(1);
    assert.deepEqual(await tally('cool', 5), { m1: 0, m2: 5, m3: 0 });
    await until('it cooled down', async () => await who('cool') === 'm1');
    await servers.behave(1, 'header=x-ratelimit-remaining-requests:0;header=x-ratelimit-reset-requests:30s');
    assert.equal((await ask('cool1')).status, 200);
    const r = await ask('cool1');
    assert.equal(r.status, 429);
    assert.ok(Number(r.headers.get('retry-after')) > 20);
    await servers.behave(1);
  });

  await step('a fallback to another upstream and model', async () => {
    assert.equal(await who('main'), 'm1');
    await servers.behave(1, 'fail=503:7');
    const r = await ask('main', { user: 'falls' });
    assert.equal(r.status, 200);
    assert.equal(r.headers.get('x-server'), 'm2');
    assert.equal((await r.json()).model, 'small-model');
    const u = await usage.for(r);
    assert.deepEqual(u.attempts.map((a) => [a.upstream, a.server, a.status]), [['main', 'm1', 503], ['spare', 'm2', 200]]);
    assert.deepEqual([u.upstream, u.upstream_model, u.model, u.outcome], ['spare', 'small-model', 'Qwen3-8B', 'ok']);
    assert.equal(u.output_tokens, 3);
    // m1 cools down now: at once to the fallback. When that fails, the last failure's Retry-After is told.
    await servers.behave(2, 'fail=503:9');
    const last = await ask('main');
    assert.equal(last.status, 503);
    assert.equal(last.headers.get('retry-after'), '9');
    await servers.behave(1);
    await servers.behave(2);
  });

  for (const [slug, mock, text, body] of [['first', 'fail=hang', /did not begin to answer/, {}], ['token', 'early_head;ttft_ms=600000', /first token in time/, { stream: true }],
    ['idle', 'fail=hang_after:3;tokens=50', /stopped in the middle/, { stream: true }], ['total', 'ttft_ms=600000', /whole time/, {}]])
    await step(`time-outs: ${slug}`, async () => {
      const t0 = Date.now();
      const r = await ask(slug, { ...body, mock });
      const answer = await partial(r);
      assert.match(answer, text);
      assert.ok(Date.now() - t0 < PATIENCE);
      if (slug !== 'idle') assert.equal(r.status, 504, answer);
      const u = await usage.for(r);
      assert.deepEqual([u.route, u.outcome, u.attempts.length], [slug, 'timeout', 1]);
    });

  await step('active checks take a server out before a request meets it, and bring it back', async () => {
    await servers.list[0].proc.kill();
    await until('it is seen', async () => await suite.edgeSum('gateway_upstream_up', { upstream: 'check', server: 'm1' }) === 0);
    const c = await tally('check', 10);
    assert.equal(c.m1, 0);
    await servers.list[0].proc.start().waitReady();
    await until('it is back', async () => await suite.edgeSum('gateway_upstream_up', { upstream: 'check', server: 'm1' }) === 1);
    assert.ok((await tally('check', 9)).m1 >= 2);
  });

  await step('kill -9 of a server under load: no client notices', async () => {
    const failures = [];
    let done = 0, stop = false;
    const worker = async () => {
      while (!stop) {
        const r = await ask('kill', { mock: 'ttft_ms=20' });
        const text = await r.text();
        if (r.status !== 200) failures.push(`${r.status} ${text}`);
        done++;
      }
    };
    const all = Array.from({ length: 16 }, worker);
    await until('load', () => done > 300);
    await servers.list[2].proc.kill();
    const then = done;
    await until('more load', () => done > then + 400);
    stop = true;
    await Promise.all(all);
    await servers.list[2].proc.start().waitReady();
    assert.deepEqual(failures, []);
  });
});

servedTest('edges share what they see', {
  edges: 2,
  upstreams: {
    shared: { n: 2, retries: 1, ejection: { failures: 3, base_ms: 60000, most_ms: 60000, max_percent: 50 } },
    checked: { n: 2, health_check: { type: 'http', path: '/health', interval_ms: 600000, timeout_ms: 10000, healthy: 1, unhealthy: 1 }, ejection: { failures: 3, base_ms: 1000, max_percent: 50 } },
  },
}, async ({ suite, step, servers, ask, who }) => {
  const seen = [];
  const nc = await suite.nats();
  const sub = nc.subscribe('aigw.upstream.health');
  (async () => { for await (const m of sub) seen.push(m.json()); })();
  await nc.flush();
  const up = async (edge, upstream, server) => sumOf(await suite.metricsOf(`edge-${edge}`), 'gateway_upstream_up', { upstream, server });

  // The first checks are past, so that what follows is not theirs to see.
  for (const edge of [1, 2]) {
    await until('the first checks', async () => {
      const samples = await suite.metricsOf(`edge-${edge}`);
      return ['m1', 'm2'].every((server) => sumOf(samples, 'gateway_upstream_checks_total', { server }) > 0);
    });
  }

  await step('hearsay makes suspicious, and the first failure of its own convinces', async () => {
    await servers.behave(1, 'fail=503');
    for (let i = 0; i < 8; i++) assert.equal(await who('shared', {}, { edge: 1 }), 'm2');
    const m = await until('it is told', () => seen.find((s) => s.server_slug === 'm1' && s.upstream_slug === 'shared'));
    assert.deepEqual([m.from, m.upstream_slug, m.state, m.seen, m.why], ['edge-1', 'shared', 'down', 'requests', 'status 503']);
    assert.equal(await up(1, 'shared', 'm1'), 0);
    await until('the other edge has heard of it', async () =>
      sumOf(await suite.metricsOf('edge-2'), 'gateway_upstream_events_total', { upstream: 'shared', server: 'm1', event: 'suspected' }) > 0);
    assert.equal(await up(2, 'shared', 'm1'), 1, 'not on hearsay');
    const before = await servers.requests(1);
    for (let i = 0; i < 6; i++) assert.equal(await who('shared', {}, { edge: 2 }), 'm2');
    assert.equal(await servers.requests(1) - before, 1, 'once, not three times');
    assert.equal(await up(2, 'shared', 'm1'), 0);
    await servers.behave(1);
  });

  await step('where there are checks, hearsay makes an edge look at once', async () => {
    await servers.behave(1, 'fail=500');
    for (let i = 0; i < 8; i++) await (await ask('checked', {}, { edge: 1 })).text();
    // Its own next check is ten minutes away.
    await until('the other edge has looked', async () => await up(2, 'checked', 'm1') === 0);
    await until('it tells of it', () => seen.some((s) => s.from === 'edge-2' && s.seen === 'check' && s.state === 'down'));
    await servers.behave(1);
  });
});
