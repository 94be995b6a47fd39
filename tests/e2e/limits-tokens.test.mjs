// SPDX-License-Identifier: Apache-2.0
// Limits of tokens and cost, on both stores: what is delivered never passes them, whatever runs in parallel, and what was
// reserved and not used goes back.
import assert from 'node:assert/strict';
import OpenAI from 'openai';
import { suiteTest, demoConfig } from './lib/suite.mjs';
import { again, never, sseData, until } from './lib/util.mjs';

const withPolicies = (policies, more = () => ({})) => (suite) => ({
  ...demoConfig(suite), ...more(demoConfig(suite)),
  policies: policies.map((p) => ({ namespace: 'test-channel', on_unavailable: 'deny', ...p })),
});

// Reads a stream to its end: the text, and how each choice ended.
async function readStream(r) {
  const data = sseData(await r.text());
  const events = data.filter((d) => d !== '[DONE]').map((d) => JSON.parse(d));
  return {
    done: data.at(-1) === '[DONE]', events,
    text: events.map((e) => e.choices?.[0]?.delta?.content ?? '').join(''),
    finish: events.map((e) => e.choices?.[0]?.finish_reason).filter(Boolean),
  };
}

async function countTokens(suite, text) {
  if (text === '') return 0;
  const r = await fetch(`${suite.procs.token.url}/calculate`, {
    method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify({ model: 'Qwen3-8B', text }),
  });
  return (await r.json()).tokens;
}

// How long it takes at most until what was reserved and not used is back, where it is not lost.
const BACK_MS = 20000;
const header = (r, name) => r.headers.get(`x-ratelimit-${name}`);

for (const counter of ['memory', 'redis']) {
  suiteTest(`100 tokens per window, on ${counter}`, {
    edges: 4, counter, config: withPolicies([{ slug: 'hundred', kind: 'token_rate', count: 'output', limit: 100, window: '10m', per: ['header:x-round'] }]),
  }, async (suite, step) => {
    // Five in parallel, and those that follow until the next is refused: how many tokens they got together.
    const round = async (n) => {
      const headers = { 'x-round': `${n}` };
      let delivered = 0;
      const results = await Promise.all([1, 2, 3, 4, 4].map((edge) => suite.chat({ edge, stream: true, mock: 'tokens=60;tps=200;ignore_max', headers })));
      for (const r of results) {
        if (r.status === 429) {
          assert.equal((await r.json()).error.type, 'tokens');
          assert.equal(r.headers.get('x-aigw-limit'), 'hundred');
          assert.match(r.headers.get('retry-after'), /^[1-9]\d*$/);
          continue;
        }
        assert.equal(r.status, 200);
        assert.equal(header(r, 'limit-tokens'), '100');
        assert.match(header(r, 'reset-tokens'), /^(\d+h)?(\d+m)?\d+(\.\d+)?m?s$/);
        const { text, finish, done } = await readStream(r);
        assert.equal(done, true);
        assert.ok(['stop', 'length'].includes(finish[0]) && finish.length === 1, `${finish}`);
        delivered += await countTokens(suite, text);
      }
      assert.ok(delivered <= 100, `${delivered} tokens delivered`);
      await until('the next is refused', async () => {
        const r = await suite.chat({ stream: true, mock: 'tokens=60', headers });
        if (r.status === 200) delivered += await countTokens(suite, (await readStream(r)).text);
        else assert.equal(r.status, 429, await r.text());
        assert.ok(delivered <= 100, `${delivered} tokens delivered`);
        if (delivered < 90) throw new Error(`only ${delivered} tokens delivered`);
        return r.status === 429;
      }, { timeout: BACK_MS }).catch((e) => {
        // What an edge has in hand while it stands still for longer than its lease is lost to this window.
        if (delivered > 100 || n === 5) throw e;
        console.log(`    ${e.message}`);
        delivered = 0;
      });
      return delivered;
    };
    let last = 0;
    await step('five parallel requests over four edges, and those that follow, get 100 tokens and no more', async () => {
      while (await round(++last) === 0);
    });
    await step('the next is refused in the words of the API', async () => {
      const client = new OpenAI({ baseURL: `${suite.edge(2)}/v1`, apiKey: 'none', maxRetries: 0,
        defaultHeaders: { 'x-channel-code': 'test-channel', 'x-round': `${last}`, authorization: null } });
      await assert.rejects(client.chat.completions.create({ model: 'Qwen3-8B', messages: [{ role: 'user', content: 'x' }] }), (e) => {
        assert.ok(e instanceof OpenAI.RateLimitError);
        assert.deepEqual([e.status, e.code, e.type], [429, 'rate_limit_exceeded', 'tokens']);
        return true;
      });
    });
  });

  suiteTest(`reservations, on ${counter}`, {
    counter, edges: 2, config: withPolicies([{ slug: 'some', kind: 'token_rate', limit: 2000, window: '10m', count: 'total', per: ['header:x-round'] }]),
  }, async (suite, step) => {
    // As soon as what the one before it had reserved is back.
    const served = (round, options) => until('it is served', async () => {
      const r = await suite.chat({ headers: { 'x-round': `${round}` }, ...options });
      if (r.status === 200) return r;
      throw new Error(await r.text());
    }, { timeout: BACK_MS });
    // Whole and streamed; what they used.
    const both = async (round) => {
      const whole = await (await served(round, { mock: 'tokens=20' })).json();
      assert.deepEqual([whole.choices[0].finish_reason, whole.usage.completion_tokens], ['stop', 20]);
      const stream = await readStream(await served(round, { stream: true, stream_options: { include_usage: true }, mock: 'tokens=300;tps=2000' }));
      assert.deepEqual(stream.finish, ['stop']);
      assert.equal(await countTokens(suite, stream.text), 300);
      let used = whole.usage.total_tokens + stream.events.at(-1).usage.total_tokens;
      await until('what was reserved is back', async () => {
        const before = used, r = await served(round, { mock: 'tokens=1', max_tokens: 1 });
        used += (await r.json()).usage.total_tokens;
        const left = Number(header(r, 'remaining-tokens'));
        never(left > 2000 - before, `${left} left of ${2000 - before}`);
        return left >= 2000 - before - 60;
      }, { timeout: BACK_MS });
      return used;
    };
    await step('a request without max_tokens under a small limit works, whole and streamed, and pays what it used', () => again(both));
    await step('a request that asks for more than there is gets what is left', () => again(async (n) => {
      const round = `rest-${n}`, left = 2000 - await both(round);
      const r = await (await served(round, { max_tokens: 100000, mock: 'tokens=5000' })).json();
      never(r.usage.total_tokens > left, `${r.usage.total_tokens} of ${left}`);
      assert.equal(r.choices[0].finish_reason, 'length');
      assert.ok(r.usage.total_tokens >= left * 0.8, `${r.usage.total_tokens} of ${left}`);
    }));
    await step('one larger than the limit can ever hold is refused for good', async () => {
      const r = await suite.chat({ text: 'word '.repeat(3000) });
      const body = await r.json();
      assert.equal(r.status, 429, JSON.stringify(body));
      assert.match(body.error.message, /ever/);
      assert.equal(r.headers.get('retry-after'), null);
      assert.equal(r.headers.get('x-should-retry'), 'false');
    });
  });

  suiteTest(`quotas, on ${counter}`, {
    counter, edges: 2, config: withPolicies([
      { slug: 'requests', kind: 'quota', unit: 'requests', period: 'month', timezone: 'Asia/Shanghai', limit: 5, per: ['header:x-team'], models: ['Qwen3-8B'] },
      { slug: 'tokens', kind: 'quota', unit: 'tokens', count: 'output', period: 'day', limit: 50, per: ['user'], models: ['Qwen3-8B'] },
      { slug: 'money', kind: 'quota', unit: 'cost', currency: 'USD', period: 'month', limit: 1000000, per: ['header:x-team'], models: ['priced'] },
    ], (demo) => ({ models: [...demo.models, { slug: 'priced', name: 'priced', vocabulary: 'qwen3',
      price: { currency: 'USD', revision: 1, input_nano: 1000, output_nano: 10000 } }] })),
  }, async (suite, step) => {
    const spent = async (r, policy) => {
      const body = await r.json();
      assert.equal(r.status, 429, JSON.stringify(body));
      assert.deepEqual([body.error.type, body.error.code], ['insufficient_quota', 'insufficient_quota']);
      assert.equal(r.headers.get('x-should-retry'), 'false');
      assert.equal(r.headers.get('x-aigw-limit'), policy);
    };
    await step('of requests, for each value of a header', async () => {
      // An engine that begins asks what was used before.
      await until('quotas are served', async () => {
        const r = await suite.chat({ user: 'first', headers: { 'x-team': 'first' }, mock: 'tokens=1' });
        await r.text();
        return r.status === 200;
      });
      // What an edge has in hand when it stands still for longer than its lease is lost: then another team shows it.
      const teams = ['red', 'blue', 'green', 'white', 'black'];
      for (let all = 0; all < 2;) {
        const team = teams.shift();
        assert.ok(team, 'none had all of its quota');
        const asked = await Promise.all(Array.from({ length: 8 }, (_, i) => suite.chat({ edge: 1 + i % 2, user: `${team}${i}`, headers: { 'x-team': team }, mock: 'tokens=1' })));
        const ok = asked.filter((r) => r.status === 200), refused = asked.filter((r) => r.status !== 200);
        assert.ok(ok.length <= 5, `${ok.length}`);
        if (ok.length === 5) {
          all++;
          for (const r of refused) await spent(r, 'requests');
        }
        await Promise.all(ok.map((r) => r.text()));
      }
    });
    await step('of tokens, for each user that the client names', () => again(async (n) => {
      const user = `ann-${n}`;
      const r = await readStream(await suite.chat({ stream: true, user, headers: { 'x-team': `a-${n}` }, mock: 'tokens=80' }));
      const tokens = await countTokens(suite, r.text);
      never(tokens > 50, `${tokens} tokens`);
      assert.deepEqual([tokens, r.finish], [50, ['length']]);
      await until('it is spent', async () => {
        const x = await suite.chat({ user, headers: { 'x-team': `b-${n}` }, mock: 'tokens=5' });
        if (x.status === 200) { await x.text(); return false; }
        await spent(x, 'tokens');
        return true;
      });
      assert.equal((await suite.chat({ user: `bob-${n}`, headers: { 'x-team': `c-${n}` }, mock: 'tokens=5' })).status, 200);
    }));
    await step('of money, at the prices of the model', async () => {
      // 1,000,000 nano: 100 tokens of output at 10,000, less the input at 1,000.
      const cost = await again(async (n) => {
        const ask = () => suite.chat({ model: 'priced', headers: { 'x-team': `m-${n}` }, mock: 'tokens=500' });
        const r = await (await ask()).json(), cost = r.usage.prompt_tokens * 1000 + r.usage.completion_tokens * 10000;
        never(cost > 1000000, `${cost}`);
        assert.equal(r.choices[0].finish_reason, 'length');
        assert.ok(cost > 900000, `${cost}`);
        await until('it is spent', async () => {
          const x = await ask();
          if (x.status === 200) { await x.text(); return false; }
          await spent(x, 'money');
          return true;
        });
        return cost;
      });
      await until('the edges and the ledger agree about it', async () => {
        const [group] = await suite.ledger({ filter: { model: 'priced' } });
        const nano = group?.cost.find((c) => c.currency === 'USD')?.nano ?? 0;
        const counted = await suite.edgeSum('gateway_cost_total', { namespace: 'test-channel', model: 'priced', currency: 'USD' });
        if (nano < cost || Math.abs(counted - nano / 1e9) > 1e-12) throw new Error(`${counted} and ${nano} nano`);
        return true;
      });
    });
  });
}

suiteTest('tokens that are not delivered', {
  config: withPolicies([
    { slug: 'debt', kind: 'token_rate', count: 'output', limit: 100, window: '10m', per: ['header:x-who'] },
  ]),
}, async (suite, step) => {
  const who = (name) => ({ 'x-who': name });
  await step('hidden tokens that the upstream reports become debt: later requests wait', async () => {
    const r = await (await suite.chat({ headers: who('hidden'), max_tokens: 10, mock: 'tokens=10;usage=9:400' })).json();
    assert.equal(r.choices[0].message.content.length > 0, true);
    await until('the debt is charged', async () => {
      const x = await suite.chat({ headers: who('hidden'), max_tokens: 1, mock: 'tokens=1' });
      await x.text();
      return x.status === 429;
    });
    await suite.counted((n) => n >= 300, 'gateway_lease_decisions_total', { kind: 'debt_units' });
  });
  for (const [name, behaviour] of Object.entries({
    'a client that leaves': 'tokens=5000;tps=40', 'an upstream that breaks': 'tokens=5000;tps=200;fail=reset_after:5',
  }))
    await step(`${name} pays for what it got, and the rest goes back`, () => again(async (n) => {
      const leave = new AbortController(), headers = who(`${name}, ${n}`);
      const r = await suite.chat({ headers, stream: true, signal: leave.signal, mock: behaviour });
      const reader = r.body.getReader();
      for (let i = 0; i < 3; i++) await reader.read().catch(() => {});
      leave.abort();
      await until('most of it is back', async () => {
        const x = await suite.chat({ headers, max_tokens: 1, mock: 'tokens=1' });
        await x.text();
        return x.status === 200 && Number(header(x, 'remaining-tokens')) > 60;
      }, { every: 500, timeout: BACK_MS });
    }));
  await step('a stream whose model says nothing ends without paying', async () => {
    const r = await suite.chat({ headers: who('silent'), stream: true, mock: 'tokens=0' });
    assert.equal((await readStream(r)).done, true);
  });
});

suiteTest('headers of limits', {
  config: withPolicies([
    { slug: 'requests', kind: 'request_rate', limit: 100, window: '10m' },
    { slug: 'fewer', kind: 'request_rate', limit: 10, window: '6m' },
    { slug: 'tokens', kind: 'token_rate', limit: 5000, window: '10m' },
    { slug: 'none', kind: 'request_rate', limit: 1, window: '1h', mode: 'shadow' },
  ]),
}, async (suite, step) => {
  await step('are of the tightest limit in force, on whole answers, streams and refusals', async () => {
    for (const stream of [false, true]) {
      const r = await suite.chat({ stream, max_tokens: 50, mock: 'tokens=3' });
      assert.equal(r.status, 200);
      assert.equal(header(r, 'limit-requests'), '10');
      assert.ok(Number(header(r, 'remaining-requests')) < 10);
      assert.match(header(r, 'reset-requests'), /^(6m0s|5m\d+s|\d+(\.\d+)?s|\d+ms|[1-4]m\d+s)$/);
      assert.equal(header(r, 'limit-tokens'), '5000');
      assert.ok(Number(header(r, 'remaining-tokens')) <= 5000);
      await r.text();
    }
    const bad = await suite.chat({ mock: 'tokens=1', model: 'nothing', path: '/nowhere' });
    assert.equal(bad.status, 404);
    const all = await Promise.all(Array.from({ length: 12 }, () => suite.chat({ max_tokens: 5, mock: 'tokens=1' })));
    const refused = all.filter((r) => r.status === 429);
    assert.ok(refused.length > 0);
    assert.equal(header(refused[0], 'remaining-requests'), '0');
    await Promise.all(all.map((r) => r.text()));
    await suite.counted((n) => n > 0, 'gateway_shadow_rejections_total', { policy: 'none' });
  });
  await step('and have Anthropic\'s names on its endpoint', async () => {
    const r = await until('one is refused', async () => { // one comes back every 36 s
      const x = await suite.chat({ path: '/v1/messages', max_tokens: 5, mock: 'tokens=1' });
      if (x.status !== 429) await x.text();
      return x.status === 429 && x;
    });
    assert.equal(r.headers.get('anthropic-ratelimit-requests-limit'), '10');
    assert.match(r.headers.get('anthropic-ratelimit-requests-reset'), /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z$/);
    assert.equal(header(r, 'limit-requests'), null);
    assert.equal((await r.json()).error.type, 'rate_limit_error');
  });
});
