// SPDX-License-Identifier: Apache-2.0
// One attempt after another, with servers of which each byte is the test's: what the first leaves behind does not touch
// the second, and what must not be done twice is done once.
import assert from 'node:assert/strict';
import { gzipSync } from 'node:zlib';
import { Records } from './lib/records.mjs';
import { completion, rawServer, whole } from './lib/raw.mjs';
import { partial } from './lib/served.mjs';
import { demoConfig, suiteTest } from './lib/suite.mjs';
import { sumOf, until } from './lib/util.mjs';

const chunk = (bytes) => Buffer.concat([Buffer.from(`${bytes.length.toString(16)}\r\n`), Buffer.from(bytes), Buffer.from('\r\n')]);
const streamHead = (more = '') => Buffer.from(`HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n${more}transfer-encoding: chunked\r\n\r\n`);
const event = (content) => `data: ${JSON.stringify({ id: 'x', object: 'chat.completion.chunk', choices: [{ index: 0, delta: { content } }] })}\n\n`;
const words = (n) => 'word '.repeat(n).trim();

const GUSH = 30000, SCARCE = 1500;

let freeze = () => {};
const refusal = JSON.stringify({ error: { message: 'said plainly', type: 'invalid_request_error' } });
const servers = {
  // The first answers compressed and tells of an error, the second plainly.
  zipped: await rawServer((n) => (n % 2 === 0
    ? Buffer.concat([streamHead('content-encoding: gzip\r\n'), chunk(gzipSync('data: {"error":{"message":"no"}}\n\n')), Buffer.from('0\r\n\r\n')])
    : whole(400, refusal))),
  // The first breaks after more tokens than can be had (SCARCE), all of it in one piece; the second answers as a whole.
  greedy: await rawServer((n) => {
    if (n === 0) freeze();
    return n === 0 ? Buffer.concat([streamHead(), ...Array.from({ length: 40 }, () => chunk(event(` ${words(40)}`))), Buffer.from('what is this?\r\n')])
      : whole(200, completion(words(2500)));
  }),
  // Reports more tokens than there are numbers for some readers.
  boastful: await rawServer(() => whole(200, JSON.stringify({ ...JSON.parse(completion('ok')), usage: '#' }).replace('"#"', '{"prompt_tokens":18446744073709551615,"completion_tokens":18446744073709551615,"prompt_tokens_details":{"cached_tokens":18446744073709551615}}'))),
  // An event that does not end.
  endless: await rawServer(() => Buffer.concat([streamHead(), chunk(event('hello')), chunk(`data: {"choices":[{"index":0,"delta":{"content":"${'x'.repeat(24 << 20)}`)])),
  // Far more at once than may wait for tokens, and than is read in one turn.
  gushing: await rawServer(() => freeze() ?? Buffer.concat([streamHead(), chunk(event('word ').repeat(GUSH)), chunk('data: [DONE]\n\n'), Buffer.from('0\r\n\r\n')])),
  // The same in so few bytes that they are read at once.
  'gushing-zipped': await rawServer(() => freeze() ?? Buffer.concat([streamHead('content-encoding: gzip\r\n'), chunk(gzipSync(`${event('word ').repeat(GUSH)}data: [DONE]\n\n`)), Buffer.from('0\r\n\r\n')])),
  // Compressed piece by piece, each of them a member of its own.
  'in-members': await rawServer(() => Buffer.concat([streamHead('content-encoding: gzip\r\n'), ...[event('hello'), 'data: [DO', 'NE]\n\n'].map((t) => chunk(gzipSync(t))), Buffer.from('0\r\n\r\n')])),
  // Says that all is well, and nothing else; the next one answers.
  wordless: await rawServer((n) => whole(200, n === 1 ? completion('ok') : '')),
  // Ends well, and then sends what is none of its framing.
  babbling: await rawServer(() => Buffer.concat([streamHead(), chunk(`${event('hello')}data: [DONE]\n\n`), Buffer.from('what is this?\r\n')])),
  // Every connection is good for one request; the next one on it is read, and not answered.
  forgetful: await rawServer((_, here) => (here === 0 ? whole(200, completion('ok')) : null)),
};

const config = (suite) => {
  const demo = demoConfig(suite);
  const upstream = (slug, n) => ({ slug, name: slug, dialect: 'openai', auth: { type: 'none' }, ejection: { failures: 0 }, breaker: { error_percent: 0 },
    retries: n - 1, servers: Array.from({ length: n }, (_, i) => ({ slug: `s${i + 1}`, url: servers[slug].url })) });
  const route = (slug, more = {}) => ({ slug, namespace: 'test-channel', path: { prefix: `/${slug}/` }, endpoint: 'chat', rewrite_path: '/v1/chat/completions', upstream: slug, ...more });
  return { ...demo, upstreams: [...demo.upstreams, upstream('zipped', 2), upstream('greedy', 2), upstream('forgetful', 1), upstream('endless', 1), upstream('boastful', 1), upstream('gushing', 1), upstream('gushing-zipped', 1), upstream('babbling', 1), upstream('in-members', 1), upstream('wordless', 2)],
    routes: [...demo.routes, route('zipped'), route('greedy'), route('forgetful'), route('endless'), route('boastful'), route('gushing'), route('gushing-zipped'), route('babbling'), route('in-members'), route('wordless'), route('as-it-is', { endpoint: 'passthrough', upstream: 'forgetful' })],
    policies: [['some', 4000, 'Qwen3-8B'], ['plenty', 2000000, 'gpt-4o'], ['scarce', SCARCE, 'Qwen3-4B'], ['narrow', GUSH / 2, 'Qwen3-14B'], ['narrow-zipped', GUSH / 2, 'Qwen3-32B']].map(([slug, limit, model]) =>
      ({ slug, namespace: 'test-channel', models: [model], kind: 'token_rate', count: 'output', limit, window: '10m', on_unavailable: 'deny' })) };
};

suiteTest('one attempt after another', { config, only: ['mockllm', 'config', 'metrics', 'policy', 'edge'], env: { edge: { EDGE_WORKERS: '1', ASK_TIMEOUT_MS: '3000' } } }, async (suite, step) => {
  await step('an answer that is not compressed follows one that was', async () => {
    const r = await suite.chat({ path: '/zipped/chat', stream: true });
    assert.deepEqual([r.status, await r.text()], [400, refusal]);
    assert.equal(servers.zipped.requests, 2);
  });

  await step('an answer as a whole follows a stream that waits for tokens', async () => {
    let r, text;
    freeze = () => { suite.procs['policy-1'].signal('SIGSTOP'); }; // more than is had by now cannot be had
    try {
      r = await suite.chat({ path: '/greedy/chat', stream: true, model: 'Qwen3-4B' });
      text = await partial(r);
    } finally {
      freeze = () => {};
      suite.procs['policy-1'].signal('SIGCONT');
    }
    assert.equal(servers.greedy.requests, 2, `${r.status} ${text}`);
    if (r.status === 200) {
      const [choice] = JSON.parse(text).choices;
      assert.equal(choice.finish_reason, 'length', 'it has what was had');
      assert.ok(words(SCARCE).startsWith(choice.message.content.trim()), text);
    } else {
      assert.equal(r.status, 503, text); // the lease had ended by then
    }
    await until('all is well again', async () => (await suite.chat({ path: '/forgetful/chat', max_tokens: 10 })).status === 200);
  });

  await step('a stream that comes faster than its tokens is not read on, and not broken off', async () => {
    for (let i = 0; i < 10; i++) {
      const r = await suite.chat({ path: '/gushing/chat', stream: true, model: 'gpt-4o' });
      const text = await partial(r);
      if (r.status === 503) continue; // the engine took longer than a request waits for it
      assert.equal(r.status, 200, text);
      assert.ok(text.endsWith('data: [DONE]\n\n'), text.slice(-500));
      // Cut only for the same reason.
      const events = text.split('"content":"word "').length - 1;
      assert.ok(events === GUSH || /"finish_reason":"length"/.test(text.slice(-500)), `${events}: ${text.slice(-500)}`);
    }
  });

  await step('it goes on when there are tokens again, whether it came compressed or not', async () => {
    for (const [path, model] of [['/gushing/chat', 'Qwen3-14B'], ['/gushing-zipped/chat', 'Qwen3-32B']]) {
      let r, text = '';
      freeze = () => { suite.procs['policy-1'].signal('SIGSTOP'); }; // it ends at what is had by now
      try {
        r = await suite.chat({ path, stream: true, model });
        for await (const piece of r.body) {
          suite.procs['policy-1'].signal('SIGCONT');
          text += Buffer.from(piece).toString();
        }
      } finally {
        freeze = () => {};
        suite.procs['policy-1'].signal('SIGCONT');
      }
      if (r.status === 503) continue; // as above
      assert.equal(r.status, 200, text);
      assert.match(text.slice(-500), /"finish_reason":"length"[^]*data: \[DONE\]\n\n$/);
      assert.ok(text.split('"content":"word "').length - 1 <= GUSH / 2);
    }
  });

  await step('what comes behind the end of a stream takes nothing from it', async () => {
    const r = await suite.chat({ path: '/babbling/chat', stream: true });
    const text = await partial(r);
    assert.equal(r.status, 200, text);
    assert.match(text, /"content":"hello"[^]*data: \[DONE\]\n\n$/);
  });

  await step('compressed members are one stream', async () => {
    const r = await suite.chat({ path: '/in-members/chat', stream: true });
    assert.match(await partial(r), /"content":"hello"[^]*data: \[DONE\]\n\n$/);
  });

  await step('an answer without a body is none: another server is asked', async () => {
    const r = await suite.chat({ path: '/wordless/chat', max_tokens: 10 }), text = await r.text();
    assert.equal(r.status, 200, text);
    assert.equal(JSON.parse(text).choices[0].message.content, 'ok');
    const again = await suite.chat({ path: '/wordless/chat', max_tokens: 10 });
    assert.equal(again.status, 502, await again.text());
    assert.equal(servers.wordless.requests, 4);
  });

  await step('an event that does not end is broken off', async () => {
    const r = await suite.chat({ path: '/endless/chat', stream: true });
    const text = await partial(r);
    assert.equal(r.status, 200);
    assert.match(text, /"content":"hello"/);
    assert.match(text, /larger than this gateway takes/);
    assert.ok(!text.includes('[DONE]') && text.length < 5000, text.slice(0, 5000));
  });

  await step('a server that reports what no answer has: its account does not pay for that, and the ledger takes the record', async () => {
    const records = await Records.of(suite), usage = [], of = async (name) => sumOf(await suite.metricsOf('metrics'), `aigw_metrics_${name}_total`);
    const before = await of('records');
    for (let i = 0; i < 3; i++) {
      const r = await suite.chat({ path: '/boastful/chat', max_tokens: 10 });
      assert.equal(r.status, 200, await r.text());
      usage.push(await records.for(r));
    }
    assert.deepEqual(usage.map((u) => [u.outcome, u.output_tokens, u.cached_tokens, u.upstream_reported]), Array(3).fill(['ok', 1, undefined, undefined]));
    await until('the ledger has them', async () => await of('records') >= before + 3);
    assert.equal(await of('dead_records'), 0);
  });

  await step('on a connection that was closed as the request came: a chat is asked again, what is passed on as it is is not', async () => {
    const ask = async (path) => {
      const before = servers.forgetful.requests;
      const r = await suite.chat({ path, max_tokens: 10 });
      await r.text();
      return [r.status, servers.forgetful.requests - before];
    };
    await ask('/as-it-is/chat');
    for (let i = 0; i < 4; i++) { // a connection is used for the first time, and then once more
      let got = await ask('/forgetful/chat');
      assert.ok(got[0] === 200 && got[1] <= 2, `${got}`);
      got = await ask('/as-it-is/chat');
      assert.ok((got[0] === 200 || got[0] === 502) && got[1] === 1, `${got}`);
    }
    // A kept connection was used.
    await suite.counted((errors) => errors >= 1, 'gateway_upstream_errors_total', { upstream: 'forgetful' });
  });
});
