// SPDX-License-Identifier: Apache-2.0
// The official Anthropic client, unchanged but for its base URL and key.
import assert from 'node:assert/strict';
import Anthropic from '@anthropic-ai/sdk';
import { DEMO_KEY, demoConfig, suiteTest } from './lib/suite.mjs';
import { until } from './lib/util.mjs';

const LIMIT = 60;
const config = (suite) => {
  const c = demoConfig(suite);
  c.policies = [{ slug: 'answer', namespace: 'demo', kind: 'output_tokens', limit: LIMIT }];
  c.upstreams[0].timeouts = { connect_ms: 8000, first_byte_ms: 8000, idle_ms: 8000, total_ms: 300000 };
  return c;
};
const messages = [{ role: 'user', content: 'Write a line about the sea.' }], model = 'Qwen3-8B';

suiteTest('the official Anthropic client', { config }, async (suite, step) => {
  const client = new Anthropic({ baseURL: suite.edge(), apiKey: DEMO_KEY, maxRetries: 0 });
  const mock = (behaviour) => ({ headers: { 'x-mock': behaviour } });
  const textOf = (m) => m.content.map((b) => b.text ?? '').join('');
  const outcomes = async () => Object.fromEntries((await suite.ledger({ group_by: ['outcome'] })).map((g) => [g.outcome, g]));

  await step('a message', async () => {
    const m = await client.messages.create({ model, messages, max_tokens: 50 }, mock('tokens=40'));
    assert.equal(m.type, 'message');
    assert.equal(m.stop_reason, 'end_turn');
    assert.equal(m.usage.output_tokens, 40);
    assert.ok(textOf(m).length > 0);
    await until('its record', async () => (await outcomes()).ok?.output_tokens === 40);
  });

  await step('a stream, whose text is that of the whole message', async () => {
    const whole = await client.messages.create({ model, messages, max_tokens: 50 }, mock('tokens=30'));
    const stream = client.messages.stream({ model, messages, max_tokens: 50 }, mock('tokens=30;chunking=split:5'));
    let events = 0;
    stream.on('streamEvent', () => { events++; });
    const m = await stream.finalMessage();
    assert.equal(textOf(m), textOf(whole));
    assert.equal(m.stop_reason, 'end_turn');
    assert.equal(m.usage.output_tokens, 30);
    assert.ok(events > 5);
    await until('the records', async () => (await outcomes()).ok?.output_tokens === 100);
  });

  await step('thinking and a tool call, streamed', async () => {
    const tools = [{ name: 'weather', input_schema: { type: 'object', properties: { city: { type: 'string' } } } }];
    const m = await client.messages.stream({ model, messages, tools, max_tokens: 50 }, mock('reasoning=10;tool=weather')).finalMessage();
    assert.equal(m.stop_reason, 'tool_use');
    const call = m.content.find((b) => b.type === 'tool_use');
    assert.equal(call.name, 'weather');
    assert.equal(typeof call.input, 'object');
    assert.ok(m.content.some((b) => b.type === 'thinking' && b.thinking.length > 0));
  });

  await step('a budget cuts a stream at its last token, in the dialect\'s own way', async () => {
    const m = await client.messages.stream({ model, messages, max_tokens: 5000 }, mock('tokens=300;ignore_max;tps=2000')).finalMessage();
    assert.equal(m.stop_reason, 'max_tokens');
    assert.equal(m.usage.output_tokens, LIMIT);
    const all = await client.messages.create({ model, messages, max_tokens: LIMIT }, mock(`tokens=${LIMIT}`));
    assert.equal(textOf(m), textOf(all));
    await until('its record', async () => (await outcomes()).cut?.output_tokens === LIMIT);
  });

  await step('a whole message over its budget is cut, too', async () => {
    const m = await client.messages.create({ model, messages, max_tokens: 5000 }, mock('tokens=300;ignore_max'));
    assert.equal(m.stop_reason, 'max_tokens');
    assert.equal(m.usage.output_tokens, LIMIT);
  });

  await step('a client that aborts is gone upstream, and is recorded', async () => {
    const stream = client.messages.stream({ model, messages, max_tokens: 50 }, mock('tokens=50;tps=1;tag=aborts'));
    stream.on('text', () => stream.abort());
    await assert.rejects(stream.finalMessage(), Anthropic.APIUserAbortError);
    await suite.left('aborts');
    await until('its record', async () => (await outcomes()).client_gone?.requests === 1);
  });

  await step('a stream that breaks is an error, not a message', async () => {
    for (const fail of ['reset_after:5', 'close_after:5', 'hang_after:5', 'error_event:5']) {
      const stream = client.messages.stream({ model, messages, max_tokens: 50 }, mock(`tokens=50;fail=${fail}`));
      await assert.rejects(stream.finalMessage(), Anthropic.APIError, fail);
    }
  });

  await step('refusals are the errors that the client knows', async () => {
    const wrong = new Anthropic({ baseURL: suite.edge(), apiKey: 'sk-aigw-0000000000000000', maxRetries: 0 });
    await assert.rejects(wrong.messages.create({ model, messages, max_tokens: 5 }),
      (e) => e instanceof Anthropic.AuthenticationError && e.error.error.type === 'authentication_error' && e.error.request_id?.length > 0);
    await assert.rejects(client.messages.create({ model, messages, max_tokens: 0 }),
      (e) => e instanceof Anthropic.BadRequestError && /max_tokens/.test(e.error.error.message));
    await assert.rejects(client.messages.create({ model, messages, max_tokens: 5 }, mock('fail=refuse')),
      (e) => e.status === 502 && e.error.error.type === 'api_error');
    await assert.rejects(client.messages.create({ model, messages, max_tokens: 5 }, mock('fail=hang')),
      (e) => e.status === 504 && e.error.error.type === 'timeout_error');
    await assert.rejects(wrong.messages.countTokens({ model, messages }), Anthropic.AuthenticationError);
    const r = await fetch(`${suite.edge()}/v1/messages/count_tokens`, { method: 'POST', body: '{}' });
    assert.equal((await r.json()).type, 'error');
  });

  await step('a status that may be tried again is, by the client', async () => {
    const patient = new Anthropic({ baseURL: suite.edge(), apiKey: DEMO_KEY, maxRetries: 2 });
    for (const status of [503, 529]) {
      const m = await patient.messages.create({ model, messages, max_tokens: 50 }, mock(`tokens=5;id=again-${status};fail=${status};times=1`));
      assert.equal(m.usage.output_tokens, 5);
    }
  });

  await step('what it counts', async () => {
    assert.ok((await client.messages.countTokens({ model, messages })).input_tokens > 0);
    await assert.rejects(client.messages.countTokens({ messages }), (e) => e instanceof Anthropic.BadRequestError && /model/.test(e.error.error.message));
  });
});

suiteTest('counting before asking', {}, async (suite, step) => {
  const client = new Anthropic({ baseURL: suite.edge(), apiKey: DEMO_KEY, maxRetries: 0 });

  await step('the upstream counts, and nothing is charged for it', async () => {
    assert.ok((await client.messages.countTokens({ model, messages })).input_tokens > 0);
    const total = await suite.settled(1);
    assert.deepEqual([total.input_tokens, total.output_tokens], [0, 0]);
  });
});
