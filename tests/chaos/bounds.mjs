// SPDX-License-Identifier: Apache-2.0
// Whether what was admitted kept a limit, in EVERY interval. Admissions are [{ at (ns, BigInt or number), units }], in order
// of time; the result is the worst case: { used, limit, at }, with used above limit when the bound was broken.

// No interval of length windowNs admits more than limit. Two pointers: the interval that ends with each admission.
export function sliding(admissions, limit, windowNs) {
  let sum = 0, from = 0, worst = { used: 0, limit, at: 0 };
  for (const a of admissions) {
    sum += a.units;
    while (a.at - admissions[from].at >= windowNs) sum -= admissions[from++].units;
    if (sum > worst.used) worst = { used: sum, limit, at: a.at };
  }
  return worst;
}

// No interval of length T admits more than burst + rate * T: what a bucket that leaks at that rate would hold.
export function bucket(admissions, burst, perNs) {
  let level = 0, last = 0, worst = { used: 0, limit: burst, at: 0 };
  for (const a of admissions) {
    level = Math.max(0, level - (a.at - last) * perNs) + a.units;
    last = a.at;
    if (level > worst.used) worst = { used: level, limit: burst, at: a.at };
  }
  return worst;
}

// Lines of admission logs: <ns> <policy id> <units> <what> <key>. Returns { 'policy key': admissions in order }.
export function readLogs(texts) {
  const counters = {};
  for (const text of texts)
    for (const line of text.split('\n')) {
      if (line === '') continue;
      const [at, policy, units, what, ...key] = line.split(' ');
      if (!['admit', 'input', 'output'].includes(what) || key.length === 0) throw new Error(`not a line of an admission log: ${line}`);
      (counters[`${policy} ${key.join(' ')}`] ??= []).push({ at: Number(at), units: Number(units) });
    }
  for (const list of Object.values(counters)) list.sort((a, b) => a.at - b.at);
  return counters;
}
