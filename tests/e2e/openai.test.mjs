// SPDX-License-Identifier: Apache-2.0
// The official OpenAI client, unchanged but for its base URL and key.
import assert from 'node:assert/strict';
import OpenAI from 'openai';
import { DEMO_KEY, demoConfig, suiteTest } from './lib/suite.mjs';
import { until } from './lib/util.mjs';

const messages = [{ role: 'user', content: 'Write a line about the sea.' }];

suiteTest('the official OpenAI client', {}, async (suite, step) => {
  const client = new OpenAI({ baseURL: `${suite.edge()}/v1`, apiKey: DEMO_KEY, maxRetries: 0 });
  const mock = (behaviour) => ({ headers: { 'x-mock': behaviour } });

  await step('a completion', async () => {
    const r = await client.chat.completions.create({ model: 'Qwen3-8B', messages }, mock('tokens=40'));
    assert.equal(r.choices[0].finish_reason, 'stop');
    assert.ok(r.choices[0].message.content.length > 0);
    assert.equal(r.usage.completion_tokens, 40);
    assert.equal(r.usage.total_tokens, r.usage.prompt_tokens + 40);
  });

  await step('a stream, whose text is that of the whole answer', async () => {
    const whole = await client.chat.completions.create({ model: 'Qwen3-8B', messages, seed: 1 }, mock('tokens=120'));
    const stream = await client.chat.completions.create({ model: 'Qwen3-8B', messages, seed: 1, stream: true, stream_options: { include_usage: true } },
      mock('tokens=120;chunking=split:7'));
    let text = '', finish, usage;
    for await (const chunk of stream) {
      text += chunk.choices[0]?.delta?.content ?? '';
      finish = chunk.choices[0]?.finish_reason ?? finish;
      usage = chunk.usage ?? usage;
    }
    assert.equal(finish, 'stop');
    assert.equal(usage.completion_tokens, 120);
    assert.equal(text.length > 0, true);
    assert.equal(text, whole.choices[0].message.content);
  });

  await step('max_tokens', async () => {
    const r = await client.chat.completions.create({ model: 'Qwen3-8B', messages, max_tokens: 10 }, mock('tokens=50'));
    assert.equal(r.choices[0].finish_reason, 'length');
    assert.equal(r.usage.completion_tokens, 10);
  });

  await step('tool calls, streamed', async () => {
    const tools = [{ type: 'function', function: { name: 'weather', parameters: { type: 'object', properties: { city: { type: 'string' } } } } }];
    const stream = client.chat.completions.stream({ model: 'Qwen3-8B', messages, tools }, mock('tool=weather'));
    const final = await stream.finalChatCompletion();
    assert.equal(final.choices[0].finish_reason, 'tool_calls');
    assert.equal(final.choices[0].message.tool_calls[0].function.name, 'weather');
    JSON.parse(final.choices[0].message.tool_calls[0].function.arguments);
  });

  await step('embeddings and models', async () => {
    const e = await client.embeddings.create({ model: 'Qwen3-8B', input: ['one', 'two'] });
    assert.equal(e.data.length, 2);
    assert.ok(e.data[0].embedding.length > 0);
    const names = [];
    for await (const m of client.models.list()) names.push(m.id);
    assert.ok(names.includes('Qwen3-8B'), names.join());
  });

  await step('a wrong key is the error that the client knows', async () => {
    const wrong = new OpenAI({ baseURL: `${suite.edge()}/v1`, apiKey: 'sk-aigw-0000000000000000', maxRetries: 0 });
    await assert.rejects(wrong.chat.completions.create({ model: 'Qwen3-8B', messages }),
      (e) => e instanceof OpenAI.AuthenticationError && e.status === 401 && e.code === 'invalid_api_key');
  });

  await step('an upstream that breaks in mid-stream is an error, not an end', async () => {
    const stream = await client.chat.completions.create({ model: 'Qwen3-8B', messages, stream: true },
      mock('tokens=50;tps=100;fail=reset_after:5'));
    await assert.rejects(async () => { for await (const _ of stream); });
  });
});

const LIMIT = 60;
const limited = (suite) => {
  const c = demoConfig(suite);
  c.policies = [{ slug: 'answer', namespace: 'demo', kind: 'output_tokens', limit: LIMIT }];
  return c;
};

suiteTest('the official OpenAI client, over the Responses API', { config: limited }, async (suite, step) => {
  const client = new OpenAI({ baseURL: `${suite.edge()}/v1`, apiKey: DEMO_KEY, maxRetries: 0 });
  const mock = (behaviour) => ({ headers: { 'x-mock': behaviour } });
  const model = 'Qwen3-8B', input = 'Write a line about the sea.';
  const tools = [{ type: 'function', name: 'weather', strict: false, parameters: { type: 'object', properties: { city: { type: 'string' } } } }];
  const outcomes = async () => Object.fromEntries((await suite.ledger({ group_by: ['outcome'] })).map((g) => [g.outcome, g]));
  const text = (r) => r.output.flatMap((i) => i.content ?? []).map((c) => c.text ?? '').join('');
  // All events, in order, with their numbers checked.
  const events = async (body, behaviour) => {
    const all = [];
    for await (const e of await client.responses.create({ model, input, stream: true, ...body }, mock(behaviour))) all.push(e);
    assert.deepEqual(all.map((e) => e.sequence_number), all.map((_, i) => i), 'sequence numbers');
    return all;
  };

  await step('a response, and its record', async () => {
    const r = await client.responses.create({ model, input, instructions: 'Be brief.' }, mock('tokens=40'));
    assert.equal(r.status, 'completed');
    assert.ok(r.output_text.length > 0);
    assert.equal(r.usage.output_tokens, 40);
    await until('its record', async () => (await outcomes()).ok?.output_tokens === 40);
  });

  await step('its input counts as the chat that it is', async () => {
    const before = (await outcomes()).ok.input_tokens;
    const chat = [{ role: 'system', content: 'Be brief.' }, { role: 'user', content: input }];
    const count = await fetch(`${suite.procs.token.url}/calculate`, { method: 'POST', headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ model, messages: chat }) });
    assert.equal(before, (await count.json()).tokens);
  });

  await step('a stream, whose text is that of the whole response', async () => {
    const whole = await client.responses.create({ model, input }, mock('tokens=50;reasoning=5'));
    const all = await events({}, 'tokens=50;reasoning=5;chunking=split:7');
    const last = all.at(-1);
    assert.equal(last.type, 'response.completed');
    assert.equal(text(last.response), text(whole));
    assert.equal(all.filter((e) => e.type === 'response.output_text.delta').map((e) => e.delta).join(''), whole.output_text);
    await until('their records', async () => (await outcomes()).ok?.output_tokens === 150);
  });

  await step('a tool call, streamed', async () => {
    const final = await client.responses.stream({ model, input, tools }, mock('tool=weather')).finalResponse();
    const call = final.output.find((i) => i.type === 'function_call');
    assert.equal(call.name, 'weather');
    JSON.parse(call.arguments);
  });

  await step('a budget cuts a stream at its last token, and everything that was open is closed', async () => {
    const all = await events({}, 'tokens=300;ignore_max;tps=2000');
    const last = all.at(-1);
    assert.equal(last.type, 'response.incomplete');
    assert.equal(last.response.status, 'incomplete');
    assert.equal(last.response.incomplete_details.reason, 'max_output_tokens');
    assert.equal(last.response.usage.output_tokens, LIMIT);
    const delivered = all.filter((e) => e.type === 'response.output_text.delta').map((e) => e.delta).join('');
    const exact = await client.responses.create({ model, input, max_output_tokens: LIMIT }, mock(`tokens=${LIMIT}`));
    assert.equal(delivered, exact.output_text);
    assert.equal(text(last.response), delivered);
    const of = (type) => all.filter((e) => e.type === type);
    assert.equal(of('response.output_text.done')[0].text, delivered);
    assert.equal(of('response.content_part.done')[0].part.text, delivered);
    assert.equal(of('response.output_item.done')[0].item.content[0].text, delivered);
    assert.deepEqual(all.slice(-4).map((e) => e.type.slice(9)), ['output_text.done', 'content_part.done', 'output_item.done', 'incomplete']);
    await until('its record', async () => (await outcomes()).cut?.output_tokens === LIMIT);
  });

  await step('a cut in the reasoning, and the client\'s own view of it', async () => {
    const stream = client.responses.stream({ model, input }, mock('reasoning=200;tokens=10;ignore_max'));
    const final = await stream.finalResponse();
    assert.equal(final.status, 'incomplete');
    assert.equal(final.output.length, 1);
    assert.equal(final.output[0].type, 'reasoning');
    assert.equal(final.usage.output_tokens_details.reasoning_tokens, LIMIT);
  });

  await step('a whole response over its budget is cut, too', async () => {
    const r = await client.responses.create({ model, input }, mock('tokens=300;ignore_max'));
    assert.equal(r.status, 'incomplete');
    assert.equal(r.incomplete_details.reason, 'max_output_tokens');
    assert.equal(r.usage.output_tokens, LIMIT);
  });

  await step('a stream that breaks is an error, and what is refused is refused in the client\'s words', async () => {
    for (const fail of ['reset_after:8', 'close_after:8', 'error_event:8']) {
      const broken = await client.responses.create({ model, input, stream: true }, mock(`tokens=50;tps=200;fail=${fail}`));
      await assert.rejects(async () => { for await (const e of broken) if (e.type === 'error') throw new Error(e.message); }, undefined, fail);
    }
    await assert.rejects(client.responses.create({ model, input, background: true }),
      (e) => e instanceof OpenAI.BadRequestError && e.param === 'background');
    await assert.rejects(client.responses.create({ model, input: 5 }), (e) => e instanceof OpenAI.BadRequestError && e.param === 'input');
  });

  await step('a client that aborts is gone upstream', async () => {
    const stream = await client.responses.create({ model, input, stream: true }, mock('tokens=50;tps=1;tag=aborts'));
    for await (const e of stream) if (e.type === 'response.output_text.delta') break;
    stream.controller.abort();
    await suite.left('aborts');
  });
});

suiteTest('the official OpenAI client, retries and aborts', {}, async (suite, step) => {
  const client = new OpenAI({ baseURL: `${suite.edge()}/v1`, apiKey: DEMO_KEY, maxRetries: 2 });
  const mock = (behaviour) => ({ headers: { 'x-mock': behaviour } });

  await step('token ids are so many tokens', async () => {
    await client.completions.create({ model: 'Qwen3-8B', prompt: [1, 2, 3, 4, 5], max_tokens: 9 }, mock('tokens=9'));
    await client.embeddings.create({ model: 'Qwen3-8B', input: [[1, 2], [3]] });
    assert.equal((await suite.settled(2)).input_tokens, 8);
  });

  await step('a status that may be tried again is, by the client', async () => {
    const r = await client.chat.completions.create({ model: 'Qwen3-8B', messages }, mock('tokens=5;id=again;fail=503;times=1'));
    assert.equal(r.usage.completion_tokens, 5);
  });

  await step('an abort in mid-stream closes the upstream', async () => {
    const stream = await client.chat.completions.create({ model: 'Qwen3-8B', messages, stream: true }, mock('tokens=50;tps=1;tag=aborts'));
    for await (const _ of stream) break;
    stream.controller.abort();
    await suite.left('aborts');
  });

  await step('completions of texts and of token ids; several choices', async () => {
    const r = await client.completions.create({ model: 'Qwen3-8B', prompt: 'Once upon', max_tokens: 9 }, mock('tokens=9'));
    assert.ok(r.choices[0].text.length > 0);
    const ids = await client.completions.create({ model: 'Qwen3-8B', prompt: [1, 2, 3, 4], n: 2, max_tokens: 9 }, mock('tokens=9'));
    assert.equal(ids.choices.length, 2);
  });

  await step('compressed answers come as they are inside, streamed or whole', async () => {
    for (const encoding of ['gzip', 'deflate']) {
      const whole = await client.chat.completions.create({ model: 'Qwen3-8B', messages }, mock(`tokens=40;encoding=${encoding}`));
      assert.equal(whole.usage.completion_tokens, 40, encoding);
      const raw = await fetch(`${suite.edge()}/v1/chat/completions`, { method: 'POST', body: JSON.stringify({ model: 'Qwen3-8B', messages, stream: true }),
        headers: { authorization: `Bearer ${DEMO_KEY}`, 'content-type': 'application/json', 'x-mock': `tokens=40;encoding=${encoding};chunking=split:3` } });
      assert.equal(raw.headers.get('content-encoding'), null);
      const body = await raw.text();
      assert.ok(body.endsWith('data: [DONE]\n\n'), encoding);
      const text = body.split('\n').filter((l) => l.startsWith('data: {')).map((l) => JSON.parse(l.slice(6)).choices[0]?.delta.content ?? '').join('');
      assert.equal(text, whole.choices[0].message.content, encoding);
    }
  });
});
