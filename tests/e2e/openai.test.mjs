// SPDX-License-Identifier: Apache-2.0
// The official OpenAI client, unchanged but for its base URL and key.
import assert from 'node:assert/strict';
import OpenAI from 'openai';
import { DEMO_KEY, suiteTest } from './lib/suite.mjs';

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
