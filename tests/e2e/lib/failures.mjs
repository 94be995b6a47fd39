// SPDX-License-Identifier: Apache-2.0
// A reporter for node --test: a line for each test that failed by itself, `failed: file > test > step: message (place)`.
import path from 'node:path';

const short = (text, n) => `${text ?? ''}`.replace(/\s+/g, ' ').trim().slice(0, n);

export default async function* failures(events) {
  const names = new Map(); // of each file: the tests that run, outermost first
  for await (const { type, data } of events) {
    const file = data?.file ?? '';
    if (type === 'test:start') {
      const open = names.get(file) ?? [];
      names.set(file, [...open.slice(0, data.nesting), data.name]);
    } else if (type === 'test:fail') {
      const error = data.details?.error, cause = error?.cause ?? error;
      if (error?.failureType === 'subtestsFailed') continue;
      const within = (names.get(file) ?? []).slice(0, data.nesting);
      // A test may have been made by a helper: then the stack knows where it stands.
      const places = [...`${cause?.stack ?? ''}`.matchAll(/([\w.-]+\.mjs):(\d+):\d+\)?$/gm)];
      const [at, where] = places.find(([, f]) => f.endsWith('.test.mjs')) ?? places[0] ?? [];
      const from = where?.endsWith('.test.mjs') ? where : path.basename(file);
      yield `failed: ${[from, ...within, data.name].join(' > ')}: ${short(cause?.message ?? cause, 400)}${at ? ` (${at.replace(/\)$/, '')})` : ''}\n`;
    }
  }
}
