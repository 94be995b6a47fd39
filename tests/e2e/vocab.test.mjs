// SPDX-License-Identifier: Apache-2.0
// A vocabulary that is put where a running edge looks for them: from then on it counts exactly, and its streams go on.
import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import { suiteTest } from './lib/suite.mjs';
import { ROOT } from './lib/servers.mjs';
import { getText, http, parseMetrics, sumOf, until } from './lib/util.mjs';

const VOCAB = process.env.AIGW_VOCAB_DIR ?? path.join(ROOT, 'vocab');

suiteTest('an edge takes up vocabularies', { env: { edge: { VOCAB_DIR: 'edge-vocab' } } }, async (suite, step) => {
  const dir = path.join(suite.dir, 'edge-vocab');
  const input = async () => sumOf(parseMetrics(await getText(`${suite.edge()}/metrics`)), 'gateway_tokens_total', { type: 'input' });
  const chat = async (more = {}) => {
    const before = await input();
    // The demo's limit of requests is not what this is about.
    const r = await until('a request is let in', async () => {
      const r = await suite.chat({ mock: 'tokens=5', messages, ...more });
      return r.status === 429 ? (await r.text(), null) : r;
    }, { every: 250 });
    assert.equal(r.status, 200, await r.clone().text());
    await r.text();
    return until('it was settled', async () => (await input()) - before);
  };
  const edge = suite.procs['edge-1'];
  const messages = [{ role: 'user', content: 'Donaudampfschifffahrtsgesellschaft 0123456789 '.repeat(20) }];
  const exact = (await http('POST', `${suite.procs.token.url}/calculate`, { body: { model: 'Qwen3-8B', messages } })).json.tokens;

  await step('dropped in, replaced in place, removed: requests are answered all along', async () => {
    const estimate = await chat();
    assert.notEqual(estimate, exact);
    fs.mkdirSync(dir, { recursive: true });
    fs.copyFileSync(path.join(VOCAB, 'qwen3.aigwvocab'), path.join(dir, 'qwen3.aigwvocab'));
    await until('the edge has it', () => edge.text().includes('a vocabulary was loaded'));
    const counted = await until('it counts with it', async () => {
      const n = await chat();
      return n !== estimate && n;
    });
    assert.equal(counted, exact);
    const before = await input();
    const stream = await until('a stream is let in', async () => {
      const r = await suite.chat({ stream: true, mock: 'tokens=60;tps=30' });
      return r.status === 200 ? r : (await r.text(), null);
    }, { every: 250 });
    fs.truncateSync(path.join(dir, 'qwen3.aigwvocab'), 4096);
    await until('it is reported', () => edge.text().includes('the one before it stays'));
    assert.equal((await stream.text()).trimEnd().split('\n').at(-1), 'data: [DONE]');
    await until('it was settled', async () => await input() > before);
    assert.equal(await chat(), exact);
    fs.rmSync(path.join(dir, 'qwen3.aigwvocab'));
    await until('it is gone', () => edge.text().includes('a vocabulary was removed'));
    await until('it estimates again', async () => (await chat()) === estimate);
  });
});

// Core vocabularies, and the demo's configuration.
suiteTest('names of models', { only: ['mockllm', 'config', 'token'] }, async (suite, step) => {
  await step("the configuration's patterns for names come before those built in, and go as they came", async () => {
    const calculate = async (model) => (await http('POST', `${suite.procs.token.url}/calculate`, { body: { model, messages: [{ role: 'user', content: '你好' }] } })).json;
    const ours = async (model) => (await calculate(model)).vocabulary === 'qwen3';
    await until('the vocabularies are there', async () => (await calculate('gpt-4o-mini')).vocabulary === 'o200k_base');
    assert.equal((await calculate('house-blend-7')).method, 'estimate');
    const made = (await suite.must('POST', 'models', { slug: 'house', name: 'House', patterns: ['gpt-4o-m*', 'house-*'], vocabulary: 'qwen3' })).json;
    await until('the token service has it', async () => (await ours('gpt-4o-mini')) && ours('house-blend-7'));
    const a = await calculate('house-blend-7');
    assert.deepEqual([a.tokens, a.method], [9, 'template']);
    assert.equal((await calculate('gpt-4o')).vocabulary, 'o200k_base', 'what it does not name is as before');
    assert.equal((await suite.admin('DELETE', `models/${made.id}`)).status, 204);
    await until('it is gone', async () => (await calculate('gpt-4o-mini')).vocabulary === 'o200k_base');
    assert.equal((await calculate('house-blend-7')).method, 'estimate');
  });
});
