// SPDX-License-Identifier: Apache-2.0
// The first requests that anybody tries, with the demo's own configuration; and that what the edge, the mock and the
// ledger counted is the same.
import assert from 'node:assert/strict';
import { Records } from './lib/records.mjs';
import { DEMO_KEY, suiteTest } from './lib/suite.mjs';
import { getText, http, parseMetrics, sseData, sumOf } from './lib/util.mjs';

const HELLO = { model: 'Qwen3-8B', messages: [{ role: 'user', content: '你好' }] };
// <|im_start|> user \n 你好 <|im_end|> \n <|im_start|> assistant \n
const HELLO_TOKENS = 9;

suiteTest('the quick test', {}, async (suite, step) => {
  let requests = 0, output = 0;

  await step('POST /calculate counts with the template of Qwen3', async () => {
    const r = await http('POST', `${suite.procs.token.url}/calculate`, { body: HELLO });
    assert.equal(r.status, 200, r.text);
    assert.equal(r.json.tokens, HELLO_TOKENS);
    assert.equal(r.json.exact, true);
    assert.equal(r.json.model, 'Qwen3-8B');
  });

  await step('POST /api/chat is matched by its header and answered', async () => {
    const r = await suite.chat();
    const body = await r.json();
    assert.equal(r.status, 200, JSON.stringify(body));
    assert.equal(body.object, 'chat.completion');
    assert.ok(body.choices[0].message.content.length > 0);
    assert.equal(body.choices[0].finish_reason, 'stop');
    assert.equal(body.usage.prompt_tokens, HELLO_TOKENS);
    assert.match(r.headers.get('x-request-id'), /./);
    assert.ok(Number(r.headers.get('x-aigw-revision')) > 0);
    assert.ok(Number(r.headers.get('x-aigw-overhead-us')) >= 0);
    assert.match(r.headers.get('x-ratelimit-limit-requests'), /^\d+$/);
    requests++;
    output += body.usage.completion_tokens;
  });

  await step('the same as a stream', async () => {
    const r = await suite.chat({ stream: true, mock: 'tokens=25' });
    assert.equal(r.status, 200);
    assert.match(r.headers.get('content-type'), /^text\/event-stream/);
    const data = sseData(await r.text());
    assert.equal(data.at(-1), '[DONE]');
    const events = data.slice(0, -1).map((d) => JSON.parse(d));
    assert.ok(events.every((e) => e.object === 'chat.completion.chunk'));
    assert.equal(events.at(-1).choices[0].finish_reason, 'stop');
    assert.ok(events.every((e) => !e.usage), 'usage was not asked for');
    requests++;
    output += 25;
  });

  await step('a stream with its usage, when that is asked for', async () => {
    const r = await suite.chat({ stream: true, mock: 'tokens=7', stream_options: { include_usage: true } });
    const data = sseData(await r.text());
    const usage = JSON.parse(data.at(-2)).usage;
    assert.deepEqual([usage.prompt_tokens, usage.completion_tokens], [HELLO_TOKENS, 7]);
    requests++;
    output += 7;
  });

  await step('a key of its own leads to its namespace', async () => {
    const r = await suite.chat({ path: '/v1/chat/completions', mock: 'tokens=5', headers: { authorization: `Bearer ${DEMO_KEY}`, 'x-channel-code': '' } });
    assert.equal(r.status, 200, await r.clone().text());
    requests++;
    output += 5;
    await r.text();
  });

  await step('/metrics, the mock and the ledger agree', async () => {
    const total = await suite.settled(requests);
    await suite.counted(requests, 'gateway_requests_total', { outcome: 'ok', status: '200' });
    await suite.counted(output, 'gateway_tokens_total', { type: 'output' }); // which is counted last
    const samples = parseMetrics(await getText(`${suite.edge()}/metrics`));
    assert.equal(sumOf(samples, 'gateway_requests_total', { outcome: 'ok', status: '200' }), requests);
    assert.equal(sumOf(samples, 'gateway_requests_total', { namespace: 'test-channel', model: 'Qwen3-8B', upstream: 'mock' }), requests - 1);
    assert.equal(sumOf(samples, 'gateway_tokens_total', { type: 'input' }), requests * HELLO_TOKENS);
    assert.equal(sumOf(samples, 'gateway_tokens_total', { type: 'output' }), output);
    // The same by OpenTelemetry's names.
    const usage = { gen_ai_request_model: 'Qwen3-8B', gen_ai_token_type: 'output' };
    assert.equal(sumOf(samples, 'gen_ai_client_token_usage_sum', usage), output);
    assert.equal(sumOf(samples, 'gen_ai_client_token_usage_count', usage), requests);
    assert.equal(sumOf(samples, 'gen_ai_client_token_usage_bucket', { ...usage, le: '1048576' }), requests);
    for (const [name, bound] of [['request_duration', '81.92'], ['time_to_first_token', '7.5'], ['time_per_output_token', '0.075']])
      for (const part of ['count', 'sum', 'bucket'])
        assert.equal(sumOf(samples, `gen_ai_server_${name}_seconds_${part}`, { gen_ai_request_model: 'Qwen3-8B', ...(part === 'bucket' ? { le: bound } : {}) }),
          sumOf(samples, `gateway_${name}_seconds_${part}`, { model: 'Qwen3-8B', ...(part === 'bucket' ? { le: bound } : {}) }));
    assert.equal(sumOf(samples, 'gen_ai_server_request_duration_seconds_count', { aigw_namespace: 'test-channel' }), requests - 1);
    const mock = await suite.mockStats();
    assert.deepEqual([mock.requests, mock.prompt_tokens, mock.completion_tokens], [requests, requests * HELLO_TOKENS, output]);
    assert.deepEqual([total.input_tokens, total.output_tokens], [requests * HELLO_TOKENS, output]);
  });

  await step('what is not there is refused in the words of the OpenAI API', async () => {
    const wrong = async (r, status, code, param) => {
      const body = await r.json();
      assert.deepEqual([r.status, body.error?.code], [status, code], JSON.stringify(body));
      assert.equal(typeof body.error.message, 'string');
      if (param) assert.equal(body.error.param, param);
    };
    await wrong(await suite.chat({ headers: { 'x-channel-code': 'nobody' } }), 404, 'route_not_found');
    await wrong(await suite.chat({ path: '/api/other' }), 404, 'route_not_found');
    await wrong(await suite.chat({ path: '/v1/chat/completions', headers: { authorization: 'Bearer sk-aigw-wrong' } }), 401, 'invalid_api_key');
    // What is no credential, or no good one: nobody asks, or nobody who is known.
    for (const authorization of ['Bearer', 'Bearer  ', 'Basic c2stYWlndzo=', `Bearer ${DEMO_KEY} x`, `Bearer,${DEMO_KEY}`, DEMO_KEY, 'Bearer a.b.c', `Bearer ${'k'.repeat(20000)}`]) {
      const r = await suite.chat({ path: '/v1/chat/completions', headers: { authorization, 'x-channel-code': '' } });
      assert.ok([401, 404].includes(r.status), `${authorization.slice(0, 30)}: ${r.status}`);
      assert.ok(['invalid_api_key', 'route_not_found'].includes((await r.json()).error.code));
    }
    await wrong(await suite.chat({ max_tokens: 0 }), 400, null, 'max_tokens');
    const r = await fetch(`${suite.edge()}/api/chat`, { method: 'POST', body: '{"model":', headers: { 'x-channel-code': 'test-channel', 'content-type': 'application/json' } });
    await wrong(r, 400, null);
  });
});

suiteTest('who asked', { env: { edge: { USAGE_IDENTITIES: 'plain' } } }, async (suite, step) => {
  await step('the record has the client and the user that it names, when that is asked for', async () => {
    const records = await Records.of(suite), answer = await suite.chat({ user: 'anna' });
    assert.equal(answer.status, 200, await answer.text());
    const r = await records.for(answer);
    assert.deepEqual([r.client_ip, r.user], ['127.0.0.1', 'anna']);
  });
});
