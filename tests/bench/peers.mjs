// SPDX-License-Identifier: Apache-2.0
// Counts tokens with what npm has, for `make bench-tokens`, as peers/main.rs does:
//   peers.mjs PEER FAMILY TOKENIZER.JSON RANKS.TIKTOKEN FILE…
import { createRequire } from "node:module";
import { join } from "node:path";
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

const count = await counter(), now = () => { const c = process.cpuUsage(); return (c.user + c.system) / 1e6; };
if (count === null) console.log(JSON.stringify({ peer, none: true }));
else for (const file of files) {
  const all = read(file).map((b) => b.toString("utf8")), half = all.length >> 1, begin = now(), used = [], took = [];
  let tokens = 0, fresh;
  for (const part of [all.slice(0, half), all.slice(half)]) {
    const from = now();
    let n = 0;
    while (n < part.length && now() - from < 0.3)
      for (const end = Math.min(n + 10, part.length); n < end; n++) tokens += await count(part[n]);
    fresh = now() - from;
    used.push(part.slice(0, n));
  }
  const docs = used.flat(), size = (list) => list.reduce((sum, d) => sum + Buffer.byteLength(d), 0);
  while (took.length < 2 || (took.length < 9 && now() - begin < 1.4)) {
    const from = now();
    for (const d of docs) await count(d);
    took.push(now() - from);
  }
  took.sort((a, b) => a - b);
  const bytes = size(docs), speed = (n, t) => Number((n / t / 1e6).toFixed(2));
  console.log(JSON.stringify({ peer, file, docs: used.map((u) => u.length), bytes, tokens, fresh: speed(size(used[1]), fresh), best: speed(bytes, took[0]), median: speed(bytes, took[took.length >> 1]) }));
}
