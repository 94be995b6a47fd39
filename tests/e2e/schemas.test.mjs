// SPDX-License-Identifier: Apache-2.0
// proto/schema against proto/samples, with a validator of its own (Ajv, draft 2020-12); no server is started. The same
// samples go through the decoders in C in the unit tests, so that schema and code cannot mean different things.
import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import { test } from 'node:test';
import { SCHEMAS, failures } from './lib/schemas.mjs';
import { ROOT } from './lib/servers.mjs';

const SAMPLES = path.join(ROOT, 'proto/samples');
// What a schema cannot say, so that only the decoder refuses it.
const BEYOND_SCHEMA = new Set(['snapshot_manifest/bad/digest_of_others.json', 'metrics_query/bad/time_backwards.json',
  ...['claims_of_a_header', 'condition_regex', 'header_of_framing', 'param_model', 'rewrite_group'].map((n) => `snapshot_part/bad/${n}.json`)]);
// The follower reads a part out of the reply to its own question (tests/unit/config/test_push.c asks a real one); nothing
// reads what is dead.
const NO_DECODER = new Set(['config_part', 'usage_dead']);

const list = (dir) => (fs.existsSync(dir) ? fs.readdirSync(dir).filter((f) => f.endsWith('.json')).sort() : []);

test('every schema compiles, and has samples of both kinds; every folder of samples has a schema', () => {
  assert.ok(SCHEMAS.length >= 10);
  assert.deepEqual(fs.readdirSync(SAMPLES).sort(), SCHEMAS);
  for (const name of SCHEMAS)
    for (const kind of ['good', 'bad']) assert.ok(list(path.join(SAMPLES, name, kind)).length > 0, `${name}: no ${kind} sample`);
});

for (const name of SCHEMAS) {
  test(`${name}: good samples fit, bad ones do not`, () => {
    for (const kind of ['good', 'bad']) {
      for (const file of list(path.join(SAMPLES, name, kind))) {
        const where = `${name}/${kind}/${file}`;
        const why = failures(name, fs.readFileSync(path.join(SAMPLES, where), 'utf8'));
        if (kind === 'good') assert.equal(why, '', where);
        else if (BEYOND_SCHEMA.has(where)) assert.equal(why, '', `${where} fails: take it off the list`);
        else assert.notEqual(why, '', `${where} fits`);
      }
    }
  });
}

test('the samples of every message go through a decoder in C', () => {
  const units = fs.readdirSync(path.join(ROOT, 'tests/unit'), { recursive: true }).filter((f) => f.endsWith('.c'))
    .map((f) => fs.readFileSync(path.join(ROOT, 'tests/unit', f), 'utf8')).filter((text) => text.includes('proto/samples'));
  for (const name of SCHEMAS.filter((s) => !NO_DECODER.has(s))) {
    const named = new RegExp(`"${name}"|proto/samples/${name}/`);
    assert.ok(units.some((text) => named.test(text)), `${name}: no unit test names its samples`);
  }
});
