// SPDX-License-Identifier: Apache-2.0
// The token service as a program: every endpoint, every wrong field, batches, small requests beside huge ones, clients
// that go, vocabularies that come and go under load, and its face on the bus.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import net from 'node:net';
import path from 'node:path';
import Ajv from 'ajv/dist/2020.js';
import { suiteTest } from './lib/suite.mjs';
import { ROOT } from './lib/servers.mjs';
import { getText, http, parseMetrics, sumOf, until } from './lib/util.mjs';

const VOCAB = process.env.AIGW_VOCAB_DIR ?? path.join(ROOT, 'vocab');
const BIN = process.env.AIGW_BIN ?? path.join(ROOT, 'build/asan/bin');
const MIB = 1 << 20;
// The letters that tokenizer.json writes for the 256 bytes: printable ones stand for themselves.
const byteLetters = () => {
  let next = 256;
  const plain = (b) => (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174;
  return Array.from({ length: 256 }, (_, b) => String.fromCodePoint(plain(b) ? b : next++));
};
const percentile = (list, p) => list.sort((a, b) => a - b)[Math.min(list.length - 1, Math.floor(list.length * p))];

suiteTest('the token service', { only: ['token'], config: null, env: { token: { VOCAB_DIR: 'vocab', TOKEN_THREADS: '2', TOKEN_QUEUE_BYTES: `${32 * MIB}` } } }, async (suite, step) => {
  const { token } = suite.procs;
  const dial = async () => {
    const s = net.connect(Number(new URL(token.url).port), '127.0.0.1');
    await new Promise((resolve, reject) => { s.once('connect', resolve); s.once('error', reject); });
    return s;
  };
  // What comes back until the server closes.
  const raw = async (request) => {
    const s = await dial();
    let text = '';
    s.on('data', (d) => { text += d; });
    s.write(request);
    await new Promise((resolve) => { s.once('close', resolve); });
    return text;
  };
  const dir = path.join(suite.dir, 'vocab');
  const post = (where, body, more = {}) => http('POST', `${token.url}${where}`, { body, ...more });
  const samples = async () => parseMetrics(await getText(`${token.ops}/metrics`));
  const models = async () => (await http('GET', `${token.url}/v1/models`)).json;
  const served = async (name) => (await models()).data.find((m) => m.id === name);
  const api = (await http('GET', `${token.url}/openapi.json`)).json;
  const ajv = new Ajv({ strict: false, validateFormats: false });
  ajv.addSchema({ $id: 'api', ...api });
  const fits = (schema, value) => {
    const check = ajv.getSchema(`api#/components/schemas/${schema}`);
    assert.ok(check(value), `${schema}: ${JSON.stringify(check.errors)} ${JSON.stringify(value).slice(0, 500)}`);
  };

  await step('a vocabulary that is dropped in while it runs is served within a second', async () => {
    assert.deepEqual((await models()).data, []);
    let a = (await post('/calculate', { model: 'Qwen3-8B', text: 'hello world' })).json;
    assert.deepEqual([a.exact, a.method, a.vocabulary], [false, 'estimate', null], 'an estimate says so');
    assert.match(a.warnings[0], /estimate/);
    fs.mkdirSync(dir, { recursive: true });
    fs.copyFileSync(path.join(VOCAB, 'o200k_base.aigwvocab'), path.join(dir, 'o200k_base.aigwvocab'));
    await until('o200k_base is served', () => served('o200k_base'));
    const start = performance.now();
    fs.copyFileSync(path.join(VOCAB, 'qwen3.aigwvocab'), path.join(dir, 'qwen3.aigwvocab'));
    await until('qwen3 is served', () => served('qwen3'), { every: 5 });
    console.log(`# dropped in and served: ${(performance.now() - start).toFixed(0)} ms`);
    a = (await post('/calculate', { model: 'Qwen3-8B', text: 'hello world' })).json;
    assert.deepEqual([a.tokens, a.exact, a.vocabulary], [2, true, 'qwen3']);
  });

  await step('each endpoint answers as its description says', async () => {
    const chat = { model: 'Qwen/Qwen3-8B', messages: [{ role: 'user', content: '你好' }] };
    let r = await post('/calculate', chat);
    assert.equal(r.status, 200);
    fits('Request', chat);
    fits('Count', r.json);
    assert.equal(r.json.tokens, 9);
    r = await post('/v1/tokenize', chat);
    fits('Tokens', r.json);
    assert.equal(r.json.ids.length, 9);
    assert.match(r.json.text, /^<\|im_start\|>user\n你好<\|im_end\|>/);
    r = await post('/v1/tokenize', { model: 'gpt-4o', text: 'hello 世界' });
    fits('Tokens', r.json);
    assert.equal(r.json.offsets.length, r.json.ids.length);
    assert.deepEqual([r.json.offsets[0][0], r.json.offsets.at(-1)[1]], [0, 12]);
    const batch = { model: 'qwen3', inputs: ['hello world', { text: 'hello' }, chat, { model: 'gpt-4o', text: 'hi' }, { messages: 7 }, 7] };
    r = await post('/v1/count', batch);
    fits('Counts', r.json);
    assert.deepEqual(r.json.data.map((d) => d.tokens ?? d.error.param), [2, 1, 9, 1, 'inputs[4].messages', 'inputs[5]']);
    assert.equal(r.json.total_tokens, 13);
    fits('Models', await models());
    r = await http('GET', `${token.url}/v1/models/Qwen/Qwen3-8B-AWQ`);
    fits('Model', r.json);
    assert.equal(r.json.vocabulary, 'qwen3');
    fits('Model', (await http('GET', `${token.url}/v1/models/no-such-model`)).json);
    r = await http('POST', `${token.url}/calculate`, { body: '{"model":"qwen3","text":"a"}', headers: { 'content-type': 'application/x-www-form-urlencoded' } });
    assert.equal(r.status, 200, "curl's own content type");
  });

  await step('every wrong field is named', async () => {
    const m = [{ role: 'user', content: 'x' }];
    const cases = [
      ['/calculate', '{', 400, null],
      ['/calculate', '[]', 400, null],
      ['/calculate', '', 400, null],
      ['/calculate', `{"model":"qwen3","text":"a","x":${'['.repeat(200)}${']'.repeat(200)}}`, 400, null],
      ['/calculate', { text: 'a' }, 400, 'model'],
      ['/calculate', { model: 5, text: 'a' }, 400, 'model'],
      ['/calculate', { model: '', text: 'a' }, 400, 'model'],
      ['/calculate', { model: 'x'.repeat(257), text: 'a' }, 413, 'model'],
      ['/calculate', { model: 'qwen3' }, 400, 'messages'],
      ['/calculate', { model: 'qwen3', text: 'a', messages: m }, 400, 'text'],
      ['/calculate', { model: 'qwen3', text: ['a'] }, 400, 'text'],
      ['/calculate', { model: 'qwen3', text: 'a', special: 'maybe' }, 400, 'special'],
      ['/calculate', { model: 'qwen3', messages: 'a' }, 400, 'messages'],
      ['/calculate', { model: 'qwen3', messages: ['a'] }, 400, 'messages[0]'],
      ['/calculate', { model: 'qwen3', messages: [m[0], { role: 'user', content: 7 }] }, 400, 'messages[1].content'],
      ['/calculate', { model: 'qwen3', messages: m, tools: {} }, 400, 'tools'],
      ['/calculate', { model: 'qwen3', messages: m, chat_template_kwargs: [] }, 400, 'chat_template_kwargs'],
      ['/calculate', { model: 'qwen3', messages: m, add_generation_prompt: 'yes' }, 400, 'add_generation_prompt'],
      ['/v1/tokenize', { model: 'no-such-model', text: 'a' }, 400, 'model'],
      ['/v1/tokenize', { model: 'gpt-4o', messages: m }, 400, 'model'],
      ['/v1/count', { model: 'qwen3' }, 400, 'inputs'],
      ['/v1/count', { model: 'qwen3', inputs: 'a' }, 400, 'inputs'],
      ['/v1/count', { model: [], inputs: ['a'] }, 400, 'model'],
      ['/v1/count', { model: 'qwen3', inputs: Array(4097).fill('a') }, 413, 'inputs'],
    ];
    for (const [where, body, status, param] of cases) {
      const r = await post(where, body);
      const what = `${where} ${JSON.stringify(body).slice(0, 120)}: ${r.status} ${r.text}`;
      assert.equal(r.status, status, what);
      fits('Error', r.json);
      assert.equal(r.json.error.param, param, what);
    }
    assert.equal((await post('/calculate', 'x', { headers: { 'content-type': 'text/xml' } })).status, 415);
    assert.equal((await http('GET', `${token.url}/calculate`)).status, 405);
    assert.equal((await http('GET', `${token.url}/v2`)).status, 404);
    assert.match(await raw(`POST /calculate HTTP/1.1\r\nHost: x\r\nContent-Length: ${8 * MIB + 1}\r\n\r\n`), /^HTTP\/1.1 413 [^]*"code":"too_large"/);
    const full = await post('/v1/count', { model: 'qwen3', inputs: Array(4096).fill('hello world') });
    assert.equal(full.json.total_tokens, 8192);
  });

  const line = 'The quick brown fox, 1234 times; def f(x): return x*2 # 你好\n';
  const huge = JSON.stringify({ model: 'qwen3', text: line.repeat(7.5 * MIB / Buffer.byteLength(JSON.stringify(line))) });
  const small = { model: 'qwen3', messages: [{ role: 'user', content: 'hello there, how are you?' }] };
  const timed = async () => {
    const start = performance.now();
    const r = await post('/calculate', small);
    assert.equal(r.status, 200, r.text);
    return performance.now() - start;
  };

  await step('small requests are answered while huge ones are counted', async () => {
    for (let i = 0; i < 100; i++) await timed();
    const alone = [];
    for (let i = 0; i < 300; i++) alone.push(await timed());
    let go = true, counted = 0;
    const beside = [];
    const load = Array.from({ length: 3 }, async () => {
      while (go) {
        const r = await post('/calculate', huge);
        assert.ok([200, 503].includes(r.status), r.text.slice(0, 300));
        counted++;
      }
    });
    while (counted < 30) beside.push(await timed());
    go = false;
    await Promise.all(load);
    console.log(`# small requests, alone: median ${percentile(alone, 0.5).toFixed(2)} ms, p99 ${percentile(alone, 0.99).toFixed(2)} ms; `
      + `beside 8 MiB ones: median ${percentile(beside, 0.5).toFixed(2)} ms, p99 ${percentile(beside, 0.99).toFixed(2)} ms (${beside.length} of them)`);
    assert.ok(beside.length > 50, `only ${beside.length} small ones were answered in the time of thirty huge ones`);
  });

  await step('too many large ones at a time: 503 with Retry-After, and the rest is answered', async () => {
    const all = await Promise.all(Array.from({ length: 14 }, () => post('/calculate', huge)));
    const refused = all.filter((r) => r.status === 503);
    assert.ok(all.every((r) => [200, 503].includes(r.status)), all.map((r) => r.status).join());
    for (const r of refused) {
      assert.match(r.headers.get('retry-after'), /^\d+$/);
      assert.equal(r.json.error.code, 'busy');
    }
    assert.ok(all.some((r) => r.status === 200));
    await timed();
  });

  await step('a client that goes frees its thread', async () => {
    // A vocabulary of bytes with a template that works for seconds when it is given many messages.
    const ranks = Array.from({ length: 256 }, (_, i) => `${Buffer.from([i]).toString('base64')} ${i}`).join('\n');
    fs.writeFileSync(path.join(suite.dir, 'ranks'), `${ranks}\n`);
    fs.writeFileSync(path.join(suite.dir, 'slow.jinja'), '{% set r = range(3000) %}{% for a in r %}{% for b in r %}{% if a == b %}x{% endif %}{% endfor %}{% endfor %}');
    execFileSync(path.join(BIN, 'aigw-vocab'), ['convert', '--tiktoken', path.join(suite.dir, 'ranks'), '--pattern', 'cl100k',
      '--template', path.join(suite.dir, 'slow.jinja'), '--name', 'slow', '--out', path.join(dir, 'slow.aigwvocab')]);
    await until('slow is served', () => served('slow'));
    const body = JSON.stringify({ model: 'slow', messages: Array(60000).fill({ role: 'user', content: 'x' }) });
    let start = performance.now();
    const whole = await post('/calculate', body);
    const took = performance.now() - start;
    assert.equal(whole.json.tokens, 3000, whole.text);
    const gone = async () => sumOf(await samples(), 'aigw_token_requests_total', { outcome: 'gone' });
    const running = async () => sumOf(await samples(), 'aigw_token_requests_running');
    const waiting = async () => sumOf(await samples(), 'aigw_token_requests_waiting');
    await until('none is counted to its end', async () => { // once more where one was before it could be seen
      const before = await gone();
      const clients = await Promise.all(Array.from({ length: 4 }, async () => {
        const s = await dial();
        s.on('error', () => {});
        s.write(`POST /calculate HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: ${Buffer.byteLength(body)}\r\n\r\n${body}`);
        return s;
      }));
      const answered = Promise.any(clients.map((s) => new Promise((resolve) => s.once('data', () => resolve(true)))));
      let late = false;
      answered.then(() => { late = true; });
      await until('two are counted, two wait', async () => late || ((await running()) === 2 && (await waiting()) === 2), { every: 5 });
      for (const s of clients) s.destroy();
      start = performance.now();
      await until('nothing is counted any more', async () => (await running()) + (await waiting()) === 0, { every: 2 });
      const idle = performance.now() - start;
      console.log(`# four clients went: idle ${idle.toFixed(0)} ms later; one such count takes ${took.toFixed(0)} ms`);
      return !late && await until('they are counted as gone', async () => await gone() - before === 4, { timeout: 10000 });
    });
    fs.rmSync(path.join(dir, 'slow.aigwvocab'));
  });

  await step('a vocabulary is replaced, spoilt, mended and removed under load; no request fails', async () => {
    const exact = (await post('/calculate', { model: 'qwen3', text: line.repeat(200) })).json.tokens;
    let go = true, asked = 0;
    const load = Array.from({ length: 4 }, async () => {
      while (go) {
        const r = await post('/calculate', { model: 'qwen3', text: line.repeat(200) });
        assert.equal(r.status, 200, r.text);
        assert.ok(r.json.exact === false || r.json.tokens === exact, r.text);
        asked++;
      }
    });
    const file = path.join(dir, 'qwen3.aigwvocab');
    const loads = () => token.text().split('a vocabulary was loaded').length;
    for (let i = 0; i < 3; i++) { // in place, as cp does it
      const n = loads();
      fs.copyFileSync(path.join(VOCAB, 'qwen3.aigwvocab'), file);
      await until('it was loaded again', () => loads() > n);
    }
    fs.truncateSync(file, 1000);
    const bad = await until('it is reported', async () => (await models()).problems.find((p) => p.file === 'qwen3.aigwvocab'));
    assert.equal(bad.serving, 'the one before it');
    assert.ok(bad.reason.length > 0);
    assert.equal((await post('/calculate', { model: 'qwen3', text: 'hello world' })).json.exact, true);
    assert.match(token.text(), /cannot be used, the one before it stays/);
    fs.writeFileSync(path.join(dir, 'rubbish.aigwvocab'), 'rubbish');
    const rubbish = await until('rubbish is reported', async () => (await models()).problems.find((p) => p.file === 'rubbish.aigwvocab'));
    assert.equal(rubbish.serving, 'nothing');
    await until('both are counted', async () => sumOf(await samples(), 'aigw_token_vocabularies_unusable') === 2);
    fs.rmSync(path.join(dir, 'rubbish.aigwvocab'));
    fs.copyFileSync(path.join(VOCAB, 'qwen3.aigwvocab'), file);
    await until('all is well', async () => (await models()).problems.length === 0);
    fs.rmSync(file);
    await until('it is gone', async () => !(await served('qwen3')));
    assert.equal((await post('/calculate', { model: 'qwen3', text: 'hello world' })).json.method, 'estimate');
    fs.copyFileSync(path.join(VOCAB, 'qwen3.aigwvocab'), file);
    await until('it is back', () => served('qwen3'));
    go = false;
    await Promise.all(load);
    assert.ok(asked > 50, `${asked}`);
  });

  await step("a model's folder is served as it was downloaded, and not before it is whole", async () => {
    const folder = path.join(dir, 'House-1B');
    const letters = byteLetters();
    const vocab = Object.fromEntries([...letters, 'he', 'll', 'hell', 'hello'].map((t, id) => [t, id]));
    const json = JSON.stringify({
      version: '1.0', normalizer: null, post_processor: null, truncation: null, padding: null,
      added_tokens: [{ id: 260, content: '<|end|>', special: true, single_word: false, lstrip: false, rstrip: false, normalized: false }],
      pre_tokenizer: { type: 'ByteLevel', add_prefix_space: false, trim_offsets: true, use_regex: true },
      decoder: { type: 'ByteLevel', add_prefix_space: true, trim_offsets: true, use_regex: true },
      model: { type: 'BPE', dropout: null, unk_token: null, continuing_subword_prefix: null, end_of_word_suffix: null,
        fuse_unk: false, byte_fallback: false, vocab, merges: ['h e', 'l l', 'he ll', 'hell o'] },
    });
    const count = async (body) => (await post('/calculate', { model: 'somebody/House-1B', ...body })).json;
    fs.mkdirSync(folder);
    fs.writeFileSync(path.join(folder, 'tokenizer_config.json'), JSON.stringify({ eos_token: '<|end|>',
      chat_template: '{% for m in messages %}{{ m.content }}{{ eos_token }}{% endfor %}' }));
    fs.writeFileSync(path.join(folder, 'tokenizer.json'), json.slice(0, json.length / 2));
    const half = await until('the half is reported', async () => (await models()).problems.find((p) => p.file === 'House-1B'));
    assert.equal(half.serving, 'nothing');
    assert.equal((await count({ text: 'hello' })).method, 'estimate');
    fs.appendFileSync(path.join(folder, 'tokenizer.json'), json.slice(json.length / 2));
    await until('the whole is served', () => served('House-1B'));
    assert.deepEqual((await models()).problems, []);
    let a = await count({ text: 'hello hell' });
    assert.deepEqual([a.tokens, a.exact, a.vocabulary], [3, true, 'House-1B']);
    a = await count({ messages: [{ role: 'user', content: 'hello' }] });
    assert.deepEqual([a.tokens, a.exact, a.method], [2, true, 'template']);
    // Written over in place, half of it: what was served goes on.
    fs.writeFileSync(path.join(folder, 'tokenizer.json'), json.slice(0, 1000));
    await until('it is reported', async () => (await models()).problems.some((p) => p.file === 'House-1B' && p.serving === 'the one before it'));
    assert.equal((await count({ text: 'hello hell' })).tokens, 3);
    fs.rmSync(folder, { recursive: true });
    await until('it is gone', async () => !(await served('House-1B')));
  });

  await step('the same over the bus, in a queue group, with a deadline', async () => {
    const nc = await suite.nats('edge');
    const ask = async (q, timeout = 60000) => (await nc.request('aigw.token.count', JSON.stringify({ v: 1, ...q }), { timeout })).json();
    let a = await ask({ model: 'Qwen3-8B', messages: [{ role: 'user', content: '你好' }] });
    assert.deepEqual([a.v, a.tokens, a.exact, a.vocabulary], [1, 9, true, 'qwen3']);
    a = await ask({ model: 'Qwen3-8B' });
    assert.deepEqual([a.error.code, a.error.param], ['invalid', 'messages']);
    a = await ask({ model: 'qwen3', text: 'a', timeout_ms: 0 });
    assert.equal(a.error.param, 'timeout_ms');
    a = await ask({ model: 'qwen3', text: 'hello world', timeout_ms: 30000 });
    assert.equal(a.tokens, 2);
    const before = sumOf(await samples(), 'aigw_token_requests_total', { endpoint: 'bus', outcome: 'gone' });
    // Too late before it began: huge ones stand before it in the lane.
    await until('one is given up', async () => {
      const busy = Promise.all(Array.from({ length: 4 }, () => post('/calculate', huge)));
      const late = await ask({ model: 'qwen3', text: line.repeat(5000), timeout_ms: 1 }, 5000).catch(() => null);
      await busy;
      return late === null && sumOf(await samples(), 'aigw_token_requests_total', { endpoint: 'bus', outcome: 'gone' }) > before;
    });
  });

  await step('metrics say what was counted', async () => {
    await until('none waits', async () => sumOf(await samples(), 'aigw_token_requests_waiting') === 0);
    const s = await samples();
    assert.ok(sumOf(s, 'aigw_token_counted_tokens_total', { vocabulary: 'qwen3' }) > 1e6);
    assert.ok(sumOf(s, 'aigw_token_counted_bytes_total', { vocabulary: 'qwen3' }) > 1e7);
    assert.ok(sumOf(s, 'aigw_token_count_seconds_count', { vocabulary: 'qwen3' }) > 100);
    assert.ok(sumOf(s, 'aigw_token_counted_tokens_total', { vocabulary: 'estimate' }) > 0);
    assert.ok(sumOf(s, 'aigw_token_cache_lookups_total', { vocabulary: 'qwen3', result: 'miss' }) > 0);
    assert.ok(sumOf(s, 'aigw_token_cache_lookups_total', { vocabulary: 'qwen3', result: 'hit' }) > 1000);
    for (const outcome of ['ok', 'invalid', 'too_large', 'gone'])
      assert.ok(sumOf(s, 'aigw_token_requests_total', { outcome }) > 0, outcome);
    assert.equal(sumOf(s, 'aigw_token_vocabularies'), 2);
  });
});
