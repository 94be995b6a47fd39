// SPDX-License-Identifier: Apache-2.0
// Counts tokens with what npm has, for `make bench-tokens`, as peers/main.rs does but without copies of itself: what it
// has counted it may remember.
//   peers.mjs PEER FAMILY TOKENIZER.JSON RANKS.TIKTOKEN FILE…
import { createRequire } from "node:module";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { read } from "../oracle/corpus.mjs";

const require = createRequire(join(import.meta.dirname, "../oracle/package.json"));
const [peer, family, json, , ...files] = process.argv.slice(2);
const openai = ["cl100k_base", "o200k_base", "o200k_harmony", "p50k_base", "r50k_base"];

async function counter() {
  if (peer === "@anush008/tokenizers") {
    const t = require("@anush008/tokenizers").Tokenizer.fromFile(json);
    return async (s) => (await t.encode(s, null, { addSpecialTokens: false })).getLength();
  }
  if (!openai.includes(family)) return null;
  if (peer === "gpt-tokenizer") {
    const { countTokens } = require(`gpt-tokenizer/encoding/${family}`);
    return (s) => countTokens(s, { disallowedSpecial: new Set() });
  }
  let e;
  try { e = require("tiktoken").get_encoding(family); } catch { return null; }
  return (s) => e.encode_ordinary(s).length;
}

const FIRST = 0.3, SECOND = 0.15, AGAIN = 0.12;
const now = () => { const c = process.cpuUsage(); return (c.user + c.system) / 1e6; };
const speed = (docs, t) => Number((docs.reduce((sum, d) => sum + Buffer.byteLength(d), 0) / t / 1e6).toFixed(2));

async function measure(count, all) {
  const half = all.length >> 1, used = [], took = [];
  let tokens = 0, fresh;
  for (const [part, limit] of [[all.slice(0, half), FIRST], [all.slice(half), SECOND]]) {
    const from = now();
    let n = 0;
    while (n < part.length && now() - from < limit)
      for (const end = Math.min(n + 10, part.length); n < end; n++) tokens += await count(part[n]);
    fresh = now() - from;
    used.push(part.slice(0, n));
  }
  const docs = used.flat(), begin = now();
  while (took.length < 1 || (took.length < 9 && now() - begin < AGAIN)) {
    const from = now();
    for (const d of docs) await count(d);
    took.push(now() - from);
  }
  took.sort((a, b) => a - b);
  return { docs: used.map((u) => u.length), tokens, new: speed(used[1], fresh), seen: speed(docs, took[took.length >> 1]) };
}

const count = await counter();
console.log(JSON.stringify(count === null ? { none: true } : { ready: true }));
if (count !== null)
  for await (const line of createInterface({ input: process.stdin }))
    console.log(JSON.stringify(await measure(count, read(files[Number(line)]).map((b) => b.toString("utf8")))));
