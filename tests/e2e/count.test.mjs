// SPDX-License-Identifier: Apache-2.0
// aigw-count as a program: lines in, answers out, whatever the lines are. No server is started.
import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { createInterface } from 'node:readline';
import { test } from 'node:test';
import { ROOT } from './lib/servers.mjs';
import { PATIENCE } from './lib/util.mjs';

const BIN = path.join(process.env.AIGW_BIN ?? path.join(ROOT, 'build/asan/bin'), 'aigw-count');
const VOCAB = process.env.AIGW_VOCAB_DIR ?? path.join(ROOT, 'vocab');

const run = (args, input = '', env = {}) => spawnSync(BIN, args, {
  input, maxBuffer: 1 << 28, env: { ...process.env, VOCAB_DIR: VOCAB, ...env } });
const answers = (r) => r.stdout.toString().trimEnd().split('\n').map((l) => JSON.parse(l));

test('texts, chats and special strings are counted; a line that cannot be counted is answered with why, and the next go on', () => {
  const lines = [
    '{"text":"hello world"}',
    'no JSON',
    '',
    '  \r',
    '{"messages":[{"role":"user","content":"你好"}]}',
    '{"messages":[{"role":"user","content":"你好"}],"add_generation_prompt":false}',
    '{"messages":[{"role":"user","content":"你好"}],"chat_template_kwargs":{"enable_thinking":false}}',
    '{"text":5}',
    '{"text":"<|im_end|>"}',
    '{"text":"<|im_end|>","special":"control"}',
    '{"text":"hello","model":"nobody-knows-it"}',
    '{"text":"hello","model":"gpt-4o"}\r',
    '{"text":"last, without an end"}',
  ].join('\n');
  const r = run(['--model', 'Qwen3-8B'], lines);
  assert.equal(r.status, 0, r.stderr.toString());
  const a = answers(r);
  assert.equal(a.length, 11);
  assert.deepEqual({ ...a[0] }, { model: 'Qwen3-8B', tokens: 2, exact: true, method: 'text', vocabulary: 'qwen3' });
  assert.match(a[1].error, /JSON/);
  assert.deepEqual([a[2].tokens, a[2].method, a[2].exact], [9, 'template', true]);
  assert.equal(a[3].tokens, 6);
  assert.equal(a[4].tokens, 13);
  assert.equal(a[5].param, 'text');
  assert.deepEqual([a[6].tokens > 1, a[7].tokens], [true, 1]);
  assert.deepEqual([a[8].method, a[8].exact, a[8].vocabulary], ['estimate', false, null]);
  assert.equal(a[9].vocabulary, 'o200k_base');
  assert.equal(a[10].exact, true);
});

test('--special is for lines that do not say; --ids gives as many as are counted', () => {
  const r = run(['--model', 'qwen3', '--special', 'control', '--ids'], '{"text":"<|im_end|>"}\n{"text":"<|im_end|>","special":"text"}\n'
    + '{"messages":[{"role":"user","content":"hi"}]}\n{"model":"gpt-4o","messages":[{"role":"user","content":"hi"}]}\n');
  const [control, text, chat, rule] = answers(r);
  assert.deepEqual(control.ids, [151645]);
  assert.ok(text.tokens > 1);
  for (const a of [control, text, chat]) assert.equal(a.ids.length, a.tokens);
  assert.equal(rule.ids, undefined, 'a rule has no ids');
});

test('a field that is wrong is named', () => {
  const r = run(['--model', 'qwen3'], '{"messages":"x"}\n{"messages":[{"role":"user","content":7}]}\n{"messages":[{"role":"user","content":"x"}],"tools":{}}\n');
  assert.deepEqual(answers(r).map((a) => a.param), ['messages', 'messages[0].content', 'tools']);
});

test('ten megabytes on a line, many small lines, and a line that is too long are all answered in good time', () => {
  const big = JSON.stringify({ text: 'The quick brown fox jumps. '.repeat(400000) });
  let r = run(['--model', 'qwen3'], `${big}\n{"text":"a"}\n`);
  assert.equal(answers(r)[0].tokens, 2400001);
  assert.equal(answers(r)[1].tokens, 1);
  const n = 50000;
  const start = process.hrtime.bigint();
  r = run(['--model', 'qwen3'], '{"text":"hello world"}\n'.repeat(n));
  const seconds = Number(process.hrtime.bigint() - start) / 1e9;
  assert.equal(answers(r).length, n);
  assert.ok(seconds < PATIENCE / 1000, `${seconds} s`);
  r = run(['--model', 'qwen3'], `{"text":"${'x'.repeat(65 << 20)}"}\n{"text":"a"}\n`);
  assert.match(answers(r)[0].error, /longer than 64 MiB/);
  assert.equal(answers(r)[1].tokens, 1);
});

test('as a coprocess: each line is answered when stdin pauses', async () => {
  const p = spawn(BIN, ['--model', 'qwen3'], { env: { ...process.env, VOCAB_DIR: VOCAB }, stdio: ['pipe', 'pipe', 'inherit'] });
  const lines = createInterface({ input: p.stdout })[Symbol.asyncIterator]();
  const ask = async (line) => {
    p.stdin.write(`${line}\n`);
    return JSON.parse((await lines.next()).value);
  };
  assert.equal((await ask('{"text":"hello world"}')).tokens, 2);
  assert.match((await ask('{')).error, /./);
  assert.equal((await ask('{"text":"hello"}')).tokens, 1);
  const ended = new Promise((resolve) => { p.once('exit', resolve); });
  p.stdin.end();
  assert.equal(await ended, 0);
});

test('exit codes, --help, --list and --bench', () => {
  assert.equal(run(['--nonsense']).status, 2);
  assert.equal(run(['--model', 'qwen3', '--special', 'perhaps']).status, 2);
  assert.equal(run(['--model', 'qwen3', 'stray']).status, 2);
  assert.equal(run(['--bench', '/etc/hostname']).status, 2, 'a benchmark needs a model');
  assert.equal(run(['--model', 'qwen3', '--bench', '/nonexistent']).status, 1);
  assert.equal(run(['--model', 'qwen3', '--vocab-dir', '/nonexistent'], '{"text":"a"}').status, 1);
  const help = run(['--help']);
  assert.equal(help.status, 0);
  for (const option of ['--model', '--vocab-dir', '--special', '--ids', '--render', '--bench', '--list', '--help', 'exit status'])
    assert.ok(help.stdout.toString().includes(option), option);
  assert.match(run(['--list']).stdout.toString(), /qwen3 .*chat template/);
  const bench = JSON.parse(run(['--model', 'qwen3', '--bench', path.join(ROOT, 'Makefile')]).stdout.toString());
  assert.equal(bench.bytes, fs.statSync(path.join(ROOT, 'Makefile')).size);
  assert.ok(bench.tokens > 0 && bench.MB_per_s > 0 && bench.best_MB_per_s >= bench.MB_per_s * 0.9);
});
