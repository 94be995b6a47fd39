// SPDX-License-Identifier: Apache-2.0
// Rounds in which all that is compared is measured in turns, the medians of its ratios, and tables.
export const median = (v) => { const s = [...v].sort((a, b) => a - b); return s.length % 2 ? s[(s.length - 1) / 2] : (s[s.length / 2 - 1] + s[s.length / 2]) / 2; };

// Every other round goes the other way round, so that nobody is always measured after the same one.
export const turns = (k, targets) => (k % 2 ? [...targets].reverse() : targets);

// Measures each target once in each round, so that what else the machine does meets them all. Resolves to
// { target: [result, …] }.
export async function rounds(n, targets, measure) {
  const results = Object.fromEntries(targets.map((t) => [t, []]));
  for (let k = 0; k < n; k++)
    for (const t of turns(k, targets)) results[t].push(await measure(t));
  return results;
}

// Measures two at the same time, n times: what disturbs one disturbs the other, and their ratio tells hundredths where turns
// tell tenths. Resolves to the results of each.
export async function together(n, pair, measure) {
  const results = pair.map(() => []);
  for (let k = 0; k < n; k++) {
    const got = turns(k, await Promise.all(turns(k, pair).map(measure)));
    got.forEach((g, i) => results[i].push(g));
  }
  return results;
}

const digits = (x) => (x >= 100 ? x.toFixed(0) : x >= 10 ? x.toFixed(1) : x.toFixed(2));
export const spread = (v) => `${digits(median(v))} (${digits(Math.min(...v))}–${digits(Math.max(...v))})`;
// Of each round to the same round of another target.
export const ratios = (v, of) => v.map((x, i) => x / of[i]);
export const ratio = (v, of) => median(ratios(v, of));
// The median of many, and how far from it the true one may be in 95 of 100 cases, judged by the middle of them.
export const certain = (v) => {
  const m = median(v), apart = 1.4826 * median(v.map((x) => Math.abs(x - m)));
  return `${m.toFixed(3)} ± ${((1.96 * 1.2533 * apart) / Math.sqrt(v.length)).toFixed(3)}`;
};

export function table(title, head, lines) {
  console.log(`\n### ${title}\n`);
  console.log(`| ${head.join(' | ')} |\n|${head.map(() => '---').join('|')}|`);
  for (const l of lines) console.log(`| ${l.join(' | ')} |`);
}

// A row for each target: the value with its spread, and its ratios to those in `against` with theirs.
export function compare(title, unit, results, pick, against, more = []) {
  const values = Object.fromEntries(Object.entries(results).map(([t, rs]) => [t, rs.map(pick)]));
  table(title, ['', `${unit}: median (spread)`, ...against.map((a) => `× ${a}`), ...more.map(([name]) => name)],
    Object.keys(values).map((t) => [t, spread(values[t]), ...against.map((a) => (a === t ? '1.00' : values[a] ? spread(ratios(values[t], values[a])) : '')),
      ...more.map(([, f]) => digits(median(results[t].map(f))))]));
}
