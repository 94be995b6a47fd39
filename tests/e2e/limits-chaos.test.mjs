// SPDX-License-Identifier: Apache-2.0
// A short version of `make chaos-limits`, and that what it checks with can fail.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { bucket, readLogs, sliding } from '../chaos/bounds.mjs';
import { assertBounds, chaosLimits } from '../chaos/limits.mjs';
import { NatsFrames } from '../chaos/relay.mjs';

test('the check of bounds sees an interval with one too many', () => {
  const at = (...times) => times.map((t) => ({ at: t * 1e9, units: 1 }));
  assert.equal(sliding(at(0, 1, 2, 10, 11, 12), 3, 10e9).used, 3);
  assert.equal(sliding(at(0, 1, 2, 9.999), 3, 10e9).used, 4);
  assert.equal(sliding([{ at: 0, units: 50 }, { at: 5e9, units: 51 }], 100, 10e9).used, 101);
  // idle, then a burst, then as fast as it refills: allowed; one more: not
  assert.ok(bucket([...at(0, 100, 100, 100), ...at(101, 102, 103)], 3, 1e-9).used <= 3 + 1e-9);
  assert.ok(bucket(at(100, 100, 100, 100.5), 3, 1e-9).used > 3);
  assert.throws(() => assertBounds({ seed: 1, dir: '/nonexistent', report: [{ limit: 'x', used: 4, bound: 3, units: 9 }] }), /4 in an interval/);
  assert.deepEqual(readLogs(['2 p 3 output k=1\n', '1 p 5 input k=1\n']), { 'p k=1': [{ at: 1, units: 5 }, { at: 2, units: 3 }] });
});

test('the relay tells messages apart however they are split', () => {
  const wire = Buffer.from('CONNECT {"a":1}\r\nPING\r\nPUB aigw.policy.lease _INBOX.1 5\r\nab\r\nc\r\nHMSG s 1 4 6\r\nNATSxy\r\nPONG\r\n');
  for (let step = 1; step < wire.length; step += 3) {
    const f = new NatsFrames(), frames = [];
    for (let i = 0; i < wire.length; i += step) frames.push(...f.feed(wire.subarray(i, i + step)));
    assert.deepEqual(Buffer.concat(frames.map((x) => x.bytes)), wire);
    assert.deepEqual(frames.map((x) => x.subject), [undefined, undefined, 'aigw.policy.lease', 's', undefined]);
  }
});

test('no limit is passed in any interval, whatever dies', async () => {
  // Sanitizers on busy cores: what is asked for may take longer to come.
  assertBounds(await chaosLimits({ seconds: 15, askTimeoutMs: 200 }));
});
