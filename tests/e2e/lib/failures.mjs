// SPDX-License-Identifier: Apache-2.0
// A reporter for node --test: a line for each test that failed by itself, `failed: file > test > step: message`.
import path from 'node:path';

const short = (text, n) => `${text ?? ''}`.replace(/\s+/g, ' ').trim().slice(0, n);

export default async function* failures(events) {
  const names = new Map(); // of each file: the tests that run, outermost first
  for await (const { type, data } of events) {
    const file = path.basename(data?.file ?? '');
    if (type === 'test:start') {
      const open = names.get(file) ?? [];
      names.set(file, [...open.slice(0, data.nesting), data.name]);
    } else if (type === 'test:fail') {
      const error = data.details?.error, cause = error?.cause ?? error;
      if (error?.failureType === 'subtestsFailed') continue;
      const within = (names.get(file) ?? []).slice(0, data.nesting);
      const at = /([\w.-]+\.mjs:\d+)(?=:\d+\)?\s*$)/m.exec(short(cause?.stack, 1e6) === '' ? '' : cause.stack)?.[1];
      const message = short(cause?.message ?? cause, 400);
      yield `failed: ${[file, ...within, data.name].join(' > ')}: ${message}${at ? ` (${at})` : ''}\n`;
    }
  }
}
