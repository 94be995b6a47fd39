// SPDX-License-Identifier: Apache-2.0
// The mock LLM by itself: other tests take its answers and its counters for the truth, so they are checked here, with the
// official clients and on the wire.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import net from 'node:net';
import zlib from 'node:zlib';
import Anthropic from '@anthropic-ai/sdk';
import OpenAI from 'openai';
import { suiteTest } from './lib/suite.mjs';
import { until } from './lib/util.mjs';

const messages = [{ role: 'user', content: 'Write a line about the sea.' }];

suiteTest('the mock LLM', { only: ['mockllm'] }, async (suite, step) => {
  const url = suite.mock, { hostname, port } = new URL(url);
  const ask = (mock, body = {}, path = '/v1/chat/completions') => fetch(url + path, {
    method: 'POST', headers: { 'x-mock': mock }, body: JSON.stringify({ model: 'Qwen3-8B', messages, ...body }),
  });
  const json = async (mock, body, path) => (await ask(mock, body, path)).json();
  const get = async (path) => (await fetch(url + path)).json();
  const reset = () => fetch(`${url}/mock/reset`, { method: 'POST' });

  // The bytes of the answer to one request on a connection of its own: [{ at, data }], and how it ended.
  const wire = (mock, body = {}, { signal } = {}) => new Promise((resolve) => {
    const text = JSON.stringify({ model: 'Qwen3-8B', stream: true, messages, ...body }), reads = [];
    const s = net.connect({ host: hostname, port }, () => s.write(
      `POST /v1/chat/completions HTTP/1.1\r\nHost: mock\r\nx-mock: ${mock}; close\r\nContent-Length: ${Buffer.byteLength(text)}\r\n\r\n${text}`));
    let how = 'end';
    s.on('data', (d) => reads.push({ at: performance.now(), data: d }));
    s.on('error', (e) => { how = e.code; });
    s.on('close', () => resolve({ reads, how, text: Buffer.concat(reads.map((r) => r.data)).toString('latin1') }));
    signal?.addEventListener('abort', () => s.destroy());
  });

  const counted = (model, text) => JSON.parse(execFileSync(`${process.env.AIGW_BIN}/aigw-count`,
    ['--model', model, '--vocab-dir', process.env.AIGW_VOCAB_DIR], { input: `${JSON.stringify({ text })}\n` })).tokens;

  await step('texts have exactly the tokens that were asked for', async () => {
    for (const model of ['Qwen3-8B', 'gpt-4o', 'gpt-4']) {
      for (const n of [1, 2, 7, 40, 100, 333]) {
        const r = await json(`tokens=${n}`, { model, messages: [{ role: 'user', content: `${n}` }] });
        assert.equal(r.usage.completion_tokens, n);
        assert.equal(counted(model, r.choices[0].message.content), n, `${model} ${n}`);
      }
      const zh = await json('', { model, messages: [{ role: 'user', content: '你好' }] });
      assert.match(zh.choices[0].message.content, /模型/);
      assert.equal(counted(model, zh.choices[0].message.content), zh.usage.completion_tokens, model);
    }
  });

  await step('the OpenAI client', async () => {
    const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: 'any', maxRetries: 0 });
    const stream = client.chat.completions.stream({ model: 'Qwen3-8B', messages, n: 2, stream_options: { include_usage: true } },
      { headers: { 'x-mock': 'tokens=30; reasoning=5' } });
    const final = await stream.finalChatCompletion();
    assert.equal(final.choices.length, 2);
    assert.equal(final.usage.completion_tokens, 70);
    const whole = await client.chat.completions.create({ model: 'Qwen3-8B', messages, n: 2 }, { headers: { 'x-mock': 'tokens=30; reasoning=5' } });
    assert.deepEqual(final.choices.map((c) => c.message.content), whole.choices.map((c) => c.message.content));
    const r = await client.responses.create({ model: 'gpt-4o', input: 'hi', max_output_tokens: 5 });
    assert.equal(r.status, 'incomplete');
    assert.equal(r.usage.output_tokens, 5);
    const s = await client.responses.create({ model: 'gpt-4o', input: 'hi', stream: true });
    let text = '', done;
    for await (const e of s) {
      if (e.type === 'response.output_text.delta') text += e.delta;
      if (e.type === 'response.completed') done = e.response;
    }
    assert.equal(done.output[0].content[0].text, text);
    const e = await client.embeddings.create({ model: 'e', input: 'a', dimensions: 16 }); // asks for base64
    assert.equal(e.data[0].embedding.length, 16);
    await assert.rejects(client.chat.completions.create({ model: 'm', messages }, { headers: { 'x-mock': 'fail=429:3' } }),
      (err) => err instanceof OpenAI.RateLimitError && err.headers.get('retry-after') === '3');
  });

  await step('the Anthropic client', async () => {
    const client = new Anthropic({ baseURL: url, apiKey: 'any', maxRetries: 0 });
    const tools = [{ name: 'look', input_schema: { type: 'object' } }];
    const options = { headers: { 'x-mock': 'tokens=30; reasoning=5' } };
    const final = await client.messages.stream({ model: 'claude', max_tokens: 100, messages }, options).finalMessage();
    assert.equal(final.stop_reason, 'end_turn');
    assert.equal(final.usage.output_tokens, 35);
    const whole = await client.messages.create({ model: 'claude', max_tokens: 100, messages }, options);
    assert.deepEqual(final.content.map((c) => c.text), whole.content.map((c) => c.text));
    const call = await client.messages.stream({ model: 'claude', max_tokens: 100, messages, tools }, { headers: { 'x-mock': 'tool' } }).finalMessage();
    assert.equal(call.stop_reason, 'tool_use');
    assert.equal(typeof call.content[0].input.query, 'string');
    const cut = await client.messages.create({ model: 'claude', max_tokens: 3, messages });
    assert.deepEqual([cut.stop_reason, cut.usage.output_tokens], ['max_tokens', 3]);
    await assert.rejects(client.messages.create({ model: 'm', max_tokens: 3, messages }, { headers: { 'x-mock': 'fail=529' } }),
      (err) => err instanceof Anthropic.APIError && err.status === 529);
  });

  await step('faults look on the wire as they are called', async () => {
    const rows = {
      'fail=refuse': (r) => r.how === 'ECONNRESET' && r.text === '',
      'fail=garbage': (r) => r.how === 'end' && !r.text.startsWith('HTTP/'),
      'fail=503:soon': (r) => /^HTTP\/1.1 503 /.test(r.text) && /\r\nRetry-After: soon\r\n/.test(r.text),
      // (a pause before it, or Node takes the reset for an end, as it also does when it stood still meanwhile)
      'tps=5; fail=reset_after:3': (r) => r.how === 'ECONNRESET' && r.text.split('data: ').length === 4 && !r.text.includes('[DONE]'),
      'fail=close_after:3': (r) => r.how === 'end' && r.text.split('data: ').length === 4 && !r.text.endsWith('0\r\n\r\n'),
      'fail=no_done': (r) => r.how === 'end' && !r.text.includes('[DONE]') && r.text.endsWith('\r\n0\r\n\r\n'),
      'fail=no_newline': (r) => r.text.endsWith('data: [DONE]\r\n0\r\n\r\n'),
      'fail=bad_chunk': (r) => /\r\n[0-9a-f]+z\r\ndata: /.test(r.text),
      'fail=bad_chunk:plus': (r) => /\r\n\+[0-9a-f]+\r\ndata: /.test(r.text),
      'fail=error_event:2': (r) => r.text.split('data: ').length === 4 && r.text.includes('data: {"error":') && r.text.endsWith('\r\n0\r\n\r\n'),
      'fail=two_lengths': (r) => r.text.split('Content-Length: ').length === 3,
      'fail=length_and_chunked': (r) => /Content-Length: [^]*Transfer-Encoding: chunked/.test(r.text),
      'fail=interim:3': (r) => r.text.split('HTTP/1.1 103 ').length === 4,
      'fail=extra_bytes': (r) => r.text.endsWith('0\r\n\r\nextra bytes\r\n'),
      'fail=body_on_204': (r) => /^HTTP\/1.1 204 /.test(r.text) && r.text.includes('[DONE]'),
      'fail=nul_header': (r) => r.text.includes('\r\nX-Nul: a\0b\r\n'),
      'fail=big_event:5000': (r) => r.text.includes('x'.repeat(5000)),
      'fail=early:401': (r) => /^HTTP\/1.1 401 /.test(r.text),
      'framing=close': (r) => !/Transfer-Encoding|Content-Length/.test(r.text) && r.text.endsWith('data: [DONE]\n\n'),
    };
    for (const [mock, ok] of Object.entries(rows)) {
      let r;
      for (let left = /reset_after/.test(mock) ? 5 : 1; left > 0; left--) {
        r = await wire(`tokens=10; ${mock}`);
        if (ok(r)) break;
      }
      assert.ok(ok(r), `${mock}: ${r.how}\n${r.text.slice(0, 2000)}`);
    }
    const events = (text) => text.split('data: ').slice(1).map((e) => e.split('\n')[0]);
    const bad = events((await wire('tokens=10; framing=close; fail=bad_json:4')).text);
    assert.deepEqual(bad.map((e) => { try { JSON.parse(e); return true; } catch { return false; } }).indexOf(false), 4);
  });

  await step('a fault strikes as often as asked, then no more', async () => {
    const seen = [];
    for (let k = 0; k < 4; k++) seen.push((await ask('id=twice; times=2; fail=503')).status);
    assert.deepEqual(seen, [503, 503, 200, 200]);
  });

  await step('streams keep their pace', async () => {
    const begin = performance.now(), { reads } = await wire('tokens=150; ttft_ms=100; tps=50');
    const took = reads.at(-1).at - begin;
    assert.ok(took >= 2800, `150 tokens at 50 a second in ${took} ms`);
    // Who stands still meanwhile has much at once.
    await until('they come in pieces', async () => reads.length >= 5 || (await wire('tokens=150; tps=50')).reads.length >= 5);
  });

  await step('compressed answers', async () => {
    const r = await wire('tokens=10; encoding=gzip; framing=close');
    assert.match(r.text, /\r\nContent-Encoding: gzip\r\n/);
    const body = Buffer.from(r.text.slice(r.text.indexOf('\r\n\r\n') + 4), 'latin1');
    assert.ok(zlib.gunzipSync(body).toString().endsWith('data: [DONE]\n\n'));
  });

  await step('pipelined requests are answered in order, one byte at a time', async () => {
    const one = (k) => { const b = JSON.stringify({ model: `m${k}`, messages }); return `POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nx-mock: tokens=3\r\nContent-Length: ${b.length}\r\n\r\n${b}`; };
    const chunked = 'POST /v1/embeddings HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n1b\r\n{"model":"last","input":"x"\r\n1\r\n}\r\n0\r\n\r\n';
    const text = one(1) + one(2) + chunked;
    const answer = await new Promise((resolve) => {
      let got = '';
      const s = net.connect({ host: hostname, port, noDelay: true }, async () => {
        for (const c of text) if (!s.write(c)) await new Promise((r) => s.once('drain', r));
      });
      s.on('data', (d) => { got += d; });
      s.on('close', () => resolve(got));
    });
    assert.deepEqual([...answer.matchAll(/"model":"(\w+)"/g)].map((m) => m[1]), ['m1', 'm2', 'last']);
  });

  await step('what came in, and when the client left', async () => {
    await reset();
    const stop = new AbortController();
    const gone = wire('tokens=1000; tps=50; id=left; tag=a', { user: 'ann' }, { signal: stop.signal });
    await until('the stream runs', async () => (await get('/mock/stats')).streams.open === 1);
    await ask('tokens=5; tag=b', { user: 'ann' }).then((r) => r.text());
    const at = Date.now();
    stop.abort();
    await gone;
    const stats = await until('it is noticed', async () => { const s = await get('/mock/stats'); return s.aborted === 1 && s; });
    const [abort] = stats.aborts;
    assert.ok(abort.at_ms >= at, `noticed ${at - abort.at_ms} ms before`);
    assert.equal(abort.how === 'client_closed' || abort.how === 'client_reset', true);
    assert.deepEqual([stats.requests, stats.done, stats.streams.open, stats.users.ann.requests], [2, 1, 0, 2]);
    assert.equal(stats.completion_tokens, 5 + abort.tokens);
    assert.equal(stats.tags.b.completion_tokens, 5);
    const [record] = await get('/mock/requests?id=left');
    assert.equal(record.method, 'POST');
    assert.equal(record.headers.host, 'mock');
    assert.equal(JSON.parse(record.body).user, 'ann');
    assert.equal(record.completion_tokens, abort.tokens);
  });

  await step('the default behaviour can be changed', async () => {
    const put = (spec) => fetch(`${url}/mock/default`, { method: 'PUT', body: spec });
    assert.equal((await put('tokens=4; fail=500')).status, 200);
    assert.equal((await fetch(`${url}/health`)).status, 500);
    assert.equal((await ask('')).status, 500);
    assert.equal((await json('fail=none')).usage.completion_tokens, 4);
    assert.equal((await put('nonsense')).status, 400);
    await put('');
    assert.equal((await fetch(`${url}/health`)).status, 200);
  });
});
