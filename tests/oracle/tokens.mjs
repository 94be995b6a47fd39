// SPDX-License-Identifier: Apache-2.0
// Compares the ids of `aigw-vocab ids` with Hugging Face's and OpenAI's own engines. Any difference is a
// failure. Usage:
//   node tokens.mjs AIGW_VOCAB NAME VOCABFILE (hf tokenizer.json | tiktoken ENCODING) [COUNT] [SEED]
import { spawn } from "node:child_process";
import { readFileSync, writeFileSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { texts } from "./corpus.mjs";

const [program, name, vocab, kind, source, countArg = "4000", seedArg = "1"] = process.argv.slice(2);
const all = [...texts(Number(countArg), Number(seedArg))];

async function ours(control) {
  const child = spawn(program, ["ids", vocab, ...(control ? ["--control"] : [])], { stdio: ["pipe", "pipe", "inherit"] });
  const out = [];
  child.stdout.on("data", (d) => out.push(d));
  const done = new Promise((resolve, reject) => child.on("close", (rc) => (rc === 0 ? resolve() : reject(new Error(`exit ${rc}`)))));
  child.stdin.on("error", () => {});
  for (const t of all) { child.stdin.write(`${t.length}\n`); child.stdin.write(t); }
  child.stdin.end();
  await done;
  return Buffer.concat(out).toString().split("\n").slice(0, -1);
}

async function theirs(control) {
  const strings = all.map((t) => t.toString("utf8"));
  if (kind === "tiktoken") {
    const { get_encoding } = await import("tiktoken");
    const enc = get_encoding(source);
    const r = strings.map((s) => (control ? enc.encode(s, "all") : enc.encode_ordinary(s)).join(" "));
    enc.free();
    return r;
  }
  const { Tokenizer } = await import("@anush008/tokenizers");
  let file = source, dir;
  if (!control) {
    const json = JSON.parse(readFileSync(source));
    json.added_tokens = [];
    json.post_processor = null;
    dir = mkdtempSync(join(tmpdir(), "oracle-"));
    file = join(dir, "tokenizer.json");
    writeFileSync(file, JSON.stringify(json));
  }
  const t = Tokenizer.fromFile(file);
  if (dir) rmSync(dir, { recursive: true });
  const r = [];
  for (const s of strings) {
    const e = await t.encode(s, null, { addSpecialTokens: false });
    r.push(Array.from(e.getIds()).join(" "));
  }
  return r;
}

let bad = 0, bytes = 0, tokens = 0;
for (const control of [false, true]) {
  const [a, b] = [await ours(control), await theirs(control)];
  if (a.length !== all.length) throw new Error(`${a.length} answers to ${all.length} texts`);
  for (let i = 0; i < all.length; i++) {
    bytes += all[i].length;
    tokens += b[i] === "" ? 0 : b[i].split(" ").length;
    if (a[i] === b[i]) continue;
    if (bad++ < 5) console.log(JSON.stringify({ control, text: all[i].toString("utf8").slice(0, 400), hex: all[i].toString("hex").slice(0, 200), ours: a[i].slice(0, 300), theirs: b[i].slice(0, 300) }));
  }
}
console.log(`${name}: ${2 * all.length} texts, ${bytes} bytes, ${tokens} tokens, ${bad} differences`);
process.exit(bad === 0 ? 0 : 1);
