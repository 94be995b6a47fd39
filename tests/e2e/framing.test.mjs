// SPDX-License-Identifier: Apache-2.0
// The conformance table of HTTP/1.1 framing at the edge, and a short differential run against Node's parser
// (`make diff-framing` has the long one, with nginx).
import assert from 'node:assert/strict';
import { cases } from '../framing/cases.mjs';
import { compareAll } from '../framing/compare.mjs';
import { openConfig } from '../framing/config.mjs';
import { exchange, nodeServer, strictServer } from '../framing/peers.mjs';
import { mutants } from '../framing/mutate.mjs';
import { suiteTest } from './lib/suite.mjs';

const SHORT_RUN = 2000;

const echo = await strictServer();
suiteTest('framing at the edge', { only: ['config', 'metrics', 'edge'], config: () => openConfig(echo.url) }, async (suite, step) => {
  const port = Number(new URL(suite.edge()).port);
  for (const c of cases) {
    const expected = Array.isArray(c.sees) ? c.sees : null;
    const n = expected ? expected.length : c.sees + 1;
    await step(`${expected ? 'takes' : 'refuses'}: ${c.name} (RFC ${c.rule})`, async () => {
      // Every answer is waited for; behind the last one, a moment for what must not follow.
      let { answers, closed } = await exchange(port, c.bytes, { quiet: 5000, enough: (a) => a.length >= n && expected !== null });
      if (expected) {
        assert.deepEqual(answers.map((a) => a.seen), expected, JSON.stringify(answers));
        ({ answers } = await exchange(port, c.bytes, { quiet: 50 }));
        assert.ok(answers.length <= n, `more answers than requests: ${JSON.stringify(answers)}`);
      } else {
        assert.equal(answers.filter((a) => a.seen).length, c.sees, `forwarded: ${JSON.stringify(answers)}`);
        assert.equal(answers.length, n, JSON.stringify(answers));
        assert.equal(answers.at(-1).status, c.status);
        assert.ok(closed, 'the connection is closed');
      }
    });
  }

  await step('what reached the server was plain', () => assert.deepEqual(echo.complaints, []));

  await step(`${SHORT_RUN} mutants: nothing is forwarded that Node would frame differently`, async () => {
    const peer = await nodeServer();
    try {
      const { findings, forwarded } = await compareAll(mutants(SHORT_RUN, 1), port, [{ name: 'node', port: peer.port }], { quiet: 2000 });
      assert.deepEqual(findings, []);
      assert.deepEqual(echo.complaints, []);
      assert.ok(forwarded > SHORT_RUN / 3, `only ${forwarded} requests were forwarded: the mutants are too wild to tell`);
    } finally {
      peer.close();
    }
  });
});
process.on('exit', () => echo.close());
