// SPDX-License-Identifier: Apache-2.0
// The JSON Schemas of proto/schema, compiled, and which of them a message on the bus has to fit.
import fs from 'node:fs';
import path from 'node:path';
import Ajv2020 from 'ajv/dist/2020.js';
import addFormats from 'ajv-formats';
import { ROOT } from './servers.mjs';

const DIR = path.join(ROOT, 'proto/schema');
// Strict: an unknown keyword or a misspelt one is an error of the schema. A required member may be described elsewhere.
const ajv = new Ajv2020.default({ strict: true, strictRequired: false, strictTypes: false, allErrors: true });
addFormats.default(ajv);

export const SCHEMAS = fs.readdirSync(DIR).filter((f) => f.endsWith('.json')).map((f) => f.slice(0, -5)).sort();
// One may refer to another by the name of its file.
for (const name of SCHEMAS) ajv.addSchema(JSON.parse(fs.readFileSync(path.join(DIR, `${name}.json`), 'utf8')), `${name}.json`);
const validators = Object.fromEntries(SCHEMAS.map((name) => [name, ajv.getSchema(`${name}.json`)]));

// Why a text is not what the schema describes; '' when it is.
export function failures(name, text) {
  let value;
  try {
    value = JSON.parse(text);
  } catch (e) {
    return `no JSON: ${e.message}`;
  }
  return validators[name](value) ? '' : ajv.errorsText(validators[name].errors, { dataVar: name });
}

// The schema of what is published on a subject; requests, not their answers.
export function schemaOf(subject, text) {
  if (subject.startsWith('aigw.usage.')) return JSON.parse(text).v === 2 ? 'usage_batch' : 'usage_record';
  return {
    'aigw.config.get': 'config_get',
    'aigw.config.changed': 'config_changed',
    'aigw.config.applied': 'config_applied',
    'aigw.token.count': 'token_request',
    'aigw.policy.lease': 'lease_ask',
    'aigw.policy.rejected': 'policy_rejected',
    'aigw.instance.gone': 'instance_gone',
    'aigw.dead.usage': 'usage_dead',
    'aigw.metrics.query': 'metrics_query',
    'aigw.upstream.health': 'upstream_health',
    'aigw.presence': 'presence',
  }[subject];
}
