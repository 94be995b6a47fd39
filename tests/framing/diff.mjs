// SPDX-License-Identifier: Apache-2.0
// `make diff-framing`: MUTANTS (100000) mutants of the conformance table to the edge, to nginx and to Node. Ends with 1 when
// the edge forwarded a request that one of the two would have framed differently.
import fs from 'node:fs';
import path from 'node:path';
import { Suite } from '../e2e/lib/suite.mjs';
import { compareAll } from './compare.mjs';
import { openConfig } from './config.mjs';
import { mutants } from './mutate.mjs';
import { nginxProxy } from './nginx.mjs';
import { nodeServer, strictServer } from './peers.mjs';

const count = Number(process.env.MUTANTS ?? 100000), seed = Number(process.env.SEED ?? Date.now() % 1e9);
const behind = await strictServer(), behindNginx = await nodeServer(), node = await nodeServer();
const suite = await Suite.start({ name: 'diff-framing', only: ['config', 'metrics', 'edge'], config: () => openConfig(behind.url) });
const dir = path.join(suite.dir, 'nginx');
fs.mkdirSync(dir);
const nginx = await nginxProxy(dir, behindNginx.port);
let failed = true;
try {
  console.log(`${count} mutants, SEED=${seed}`);
  const began = Date.now();
  const { findings, forwarded, sent } = await compareAll(mutants(count, seed), Number(new URL(suite.edge()).port),
    [{ name: 'nginx', port: nginx.port }, { name: 'node', port: node.port }],
    { progress: (n) => { if (n % 10000 === 0) console.log(`  ${n} sent, ${Math.round((Date.now() - began) / 1000)} s`); } });
  for (const f of findings.slice(0, 20)) console.log(JSON.stringify(f, null, 1));
  for (const c of behind.complaints.slice(0, 20)) console.log(`not plain: ${JSON.stringify(c)}`);
  console.log(`${sent} mutants, ${forwarded} requests forwarded, ${findings.length} framed differently, ${behind.complaints.length} not plain`);
  failed = findings.length > 0 || behind.complaints.length > 0;
} finally {
  nginx.close();
  await suite.close({ failed });
  for (const s of [behind, behindNginx, node]) s.close();
}
process.exit(failed ? 1 : 0);
