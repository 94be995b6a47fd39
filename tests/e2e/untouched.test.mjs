// SPDX-License-Identifier: Apache-2.0
// What the gateway has nothing to do with passes byte for byte, in both directions: parts of every kind, tools, logprobs,
// several choices, reasoning, members that nobody knows; and its tokens are counted all the same.
import assert from 'node:assert/strict';
import { Records } from './lib/records.mjs';
import { rawServer } from './lib/raw.mjs';
import { demoConfig, suiteTest } from './lib/suite.mjs';

const PIXEL = 'data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==';
const chunk = (delta, more = {}) => `data: ${JSON.stringify({ id: 'c', object: 'chat.completion.chunk', model: 'm', choices: [{ index: 0, delta, finish_reason: null, ...more }], x_unknown: [1.50, null] })}\n\n`;
const sse = (type, rest) => `event: ${type}\ndata: ${JSON.stringify({ type, ...rest })}\n\n`;

// name, endpoint, the request's body, the answer's, tokens that it has at least
const CASES = [
  ['a chat with an image, a sound, a file, and tools', 'chat',
    `{ "model":"Qwen3-8B",  "messages":[{"role":"user","content":[{"type":"text","text":"caf\\u00e9 \\ud83d\\ude00"},{"type":"image_url","image_url":{"url":"${PIXEL}","detail":"low"}},`
    + '{"type":"input_audio","input_audio":{"data":"UklGRg==","format":"wav"}},{"type":"file","file":{"file_id":"f-1"}}]},{"role":"assistant","content":null,"tool_calls":[{"id":"1","type":"function",'
    + '"function":{"name":"f","arguments":"{\\"a\\": 1.0}"}}]},{"role":"tool","tool_call_id":"1","content":"2"}],"tools":[{"type":"function","function":{"name":"f","parameters":{"type":"object"}}}],'
    + '"tool_choice":"auto","response_format":{"type":"json_object"},"logit_bias":{"50256":-100},"temperature":1e0,"x_unknown":{"deep":[[[]]]}}',
    '{"id":"c","object":"chat.completion","choices":[{"index":0,"message":{"role":"assistant","content":null,"refusal":"I cannot do that","audio":{"id":"a","data":"UklGRg==","transcript":"well"},'
    + '"tool_calls":[{"id":"2","type":"function","function":{"name":"f","arguments":"{\\"city\\": \\"Rome\\"}"}}]},"logprobs":{"content":[{"token":"a","logprob":-0.10,"top_logprobs":[]}]},"finish_reason":"tool_calls"},'
    + '{"index":1,"message":{"role":"assistant","content":"another one","annotations":[]},"finish_reason":"stop"}],"usage":{"prompt_tokens":5,"completion_tokens":9,"total_tokens":14},"service_tier":null , "x":1.0}', 6],
  ['a streamed chat of several choices', 'chat',
    '{"model":"Qwen3-8B","stream":true,"stream_options":{"include_usage":true},"n":2,"logprobs":true,"top_logprobs":2,"messages":[{"role":"user","content":"hello"}]}',
    chunk({ role: 'assistant', content: '' }) + chunk({ reasoning_content: 'let me see' }) + chunk({ content: 'Hello there' }, { logprobs: { content: [{ token: 'Hello', logprob: -0.25 }] } })
    + chunk({ refusal: 'no' }, { index: 1 }) + ': a comment\n\n' + chunk({ tool_calls: [{ index: 0, id: 't', function: { name: 'f', arguments: '{"a":' } }] })
    + chunk({ tool_calls: [{ index: 0, function: { arguments: '1}' } }] }) + chunk({}, { finish_reason: 'tool_calls' }) + chunk({}, { index: 1, finish_reason: 'stop' })
    + `data: ${JSON.stringify({ id: 'c', object: 'chat.completion.chunk', choices: [], usage: { prompt_tokens: 3, completion_tokens: 12, total_tokens: 15 } })}\n\ndata: [DONE]\n\n`, 7],
  ['completions with logprobs', 'completions', '{"model":"Qwen3-8B","prompt":["a","b"],"logprobs":3,"echo":false,"suffix":"."}',
    '{"id":"t","object":"text_completion","choices":[{"text":"one two","index":0,"logprobs":{"tokens":["one"," two"]},"finish_reason":"stop"},{"text":" three","index":1,"logprobs":null,"finish_reason":"length"}]}', 3],
  ['messages with thinking, an image, and a tool', 'messages',
    `{"model":"Qwen3-8B","max_tokens":4000,"thinking":{"type":"enabled","budget_tokens":1024},"messages":[{"role":"user","content":[{"type":"image","source":{"type":"base64","media_type":"image/png","data":"${PIXEL.slice(22)}"}},`
    + '{"type":"document","source":{"type":"text","media_type":"text/plain","data":"x"},"citations":{"enabled":true}},{"type":"text","text":"what is it?","cache_control":{"type":"ephemeral"}}]}],"tools":[{"name":"f","input_schema":{"type":"object"}}]}',
    '{"id":"m","type":"message","role":"assistant","content":[{"type":"thinking","thinking":"hm","signature":"c2ln"},{"type":"redacted_thinking","data":"ZGF0YQ=="},{"type":"text","text":"a pixel","citations":[]},'
    + '{"type":"tool_use","id":"t","name":"f","input":{"a": [1, 2.0]}}],"stop_reason":"tool_use","stop_sequence":null,"usage":{"input_tokens":3,"output_tokens":8,"cache_read_input_tokens":0}}', 3],
  ['streamed messages', 'messages', '{"model":"Qwen3-8B","max_tokens":4000,"stream":true,"messages":[{"role":"user","content":"hello"}]}',
    sse('message_start', { message: { id: 'm', type: 'message', role: 'assistant', content: [], model: 'm', usage: { input_tokens: 3, output_tokens: 1 } } }) + sse('ping', {})
    + sse('content_block_start', { index: 0, content_block: { type: 'thinking', thinking: '' } }) + sse('content_block_delta', { index: 0, delta: { type: 'thinking_delta', thinking: 'let me see' } })
    + sse('content_block_delta', { index: 0, delta: { type: 'signature_delta', signature: 'c2ln' } }) + sse('content_block_stop', { index: 0 })
    + sse('content_block_start', { index: 1, content_block: { type: 'tool_use', id: 't', name: 'f', input: {} } }) + sse('content_block_delta', { index: 1, delta: { type: 'input_json_delta', partial_json: '{"a":1}' } })
    + sse('content_block_stop', { index: 1 }) + sse('message_delta', { delta: { stop_reason: 'tool_use', stop_sequence: null }, usage: { output_tokens: 9 } }) + sse('message_stop', {}), 5],
  ['Responses with every kind of item', 'responses',
    `{"model":"Qwen3-8B","input":[{"role":"user","content":[{"type":"input_text","text":"hello"},{"type":"input_image","image_url":"${PIXEL}"},{"type":"input_file","file_id":"f"}]}],"reasoning":{"effort":"low"},"store":false,"include":["x"]}`,
    '{"id":"r","object":"response","status":"completed","output":[{"type":"reasoning","id":"rs","summary":[{"type":"summary_text","text":"let me see"}]},{"type":"message","id":"m","role":"assistant","content":[{"type":"output_text",'
    + '"text":"Hello there","annotations":[],"logprobs":[]},{"type":"refusal","refusal":"no"}]},{"type":"function_call","call_id":"c","name":"f","arguments":"{}"}],"usage":{"input_tokens":3,"output_tokens":7,"total_tokens":10},"metadata":{"k":"v"}}', 5],
  ['embeddings', 'embeddings', '{"model":"Qwen3-8B","input":["one","two"],"encoding_format":"base64","dimensions":8}',
    '{"object":"list","data":[{"object":"embedding","index":0,"embedding":"AACAPw=="}],"model":"m","usage":{"prompt_tokens":2,"total_tokens":2}}', 0],
];

let seen, said;
const behind = await rawServer((n, here, text) => {
  seen = text.slice(text.indexOf('\r\n\r\n') + 4);
  const type = said.startsWith('{') ? 'application/json' : 'text/event-stream';
  return Buffer.from(`HTTP/1.1 200 OK\r\ncontent-type: ${type}\r\nx-kept: yes\r\ncontent-length: ${Buffer.byteLength(said)}\r\n\r\n${said}`);
});
const PATHS = { chat: '/v1/chat/completions', completions: '/v1/completions', messages: '/v1/messages', responses: '/v1/responses', embeddings: '/v1/embeddings' };
const config = (suite) => {
  const demo = demoConfig(suite);
  const slugs = { openai: 'raw', anthropic: 'raw-messages' };
  return { ...demo, policies: [],
    upstreams: [...demo.upstreams, ...Object.entries(slugs).map(([dialect, slug]) => ({ slug, name: slug, dialect, auth: { type: 'none' }, servers: [{ slug: 's1', url: behind.url }] }))],
    routes: [...demo.routes, ...Object.entries(PATHS).map(([slug, rewrite_path]) => ({ slug: `raw-${slug}`, namespace: 'test-channel', path: { exact: `/raw/${slug}` }, endpoint: slug, rewrite_path,
      upstream: slug === 'messages' ? slugs.anthropic : slugs.openai }))] };
};

suiteTest('what the gateway has nothing to do with', { config, only: ['mockllm', 'config', 'metrics', 'policy', 'edge'] }, async (suite, step) => {
  const usage = await Records.of(suite);
  for (const [name, endpoint, body, answer, tokens] of CASES)
    await step(name, async () => {
      said = answer;
      const r = await fetch(`${suite.edge()}/raw/${endpoint}`, { method: 'POST', body, headers: { 'content-type': 'application/json', 'x-channel-code': 'test-channel' } });
      const text = await r.text();
      assert.equal(r.status, 200, text);
      assert.equal(Buffer.from(seen, 'latin1').toString('utf8'), body);
      assert.equal(text, answer);
      assert.equal(r.headers.get('x-kept'), 'yes');
      const record = await usage.for(r);
      assert.equal(record.outcome, 'ok');
      assert.ok((record.output_tokens ?? 0) >= tokens, JSON.stringify(record));
      assert.ok(record.input_tokens >= 1, JSON.stringify(record));
    });

  await step('more texts than are told apart do not pass uncounted, whoever asks for them', async () => {
    await suite.must('PATCH', 'routes/raw-completions', { defaults: { n: 8 } });
    await suite.applied();
    said = CASES[2][3];
    const ask = async (prompts) => {
      const r = await fetch(`${suite.edge()}/raw/completions`, { method: 'POST', headers: { 'content-type': 'application/json', 'x-channel-code': 'test-channel' },
        body: JSON.stringify({ model: 'Qwen3-8B', prompt: Array(prompts).fill('a') }) });
      return [r.status, await r.text()];
    };
    assert.equal((await ask(4))[0], 200);
    assert.equal(JSON.parse(Buffer.from(seen, 'latin1').toString()).n, 8);
    const [status, text] = await ask(5);
    assert.equal(status, 400, text);
    assert.match(text, /more than 32 texts/);
  });
});
