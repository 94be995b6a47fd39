// SPDX-License-Identifier: Apache-2.0
// The reference engines that npm has, asked like `aigw-vocab ids`: texts on stdin, each as its length on a line, then its
// bytes; a line of ids for each on stdout.
//   refs.mjs tokenizers TOKENIZER.JSON | refs.mjs tiktoken FAMILY.JSON text|control
import { readFileSync } from "node:fs";

const [engine, file, mode] = process.argv.slice(2);
let encode;
if (engine === "tokenizers") {
  const { Tokenizer } = await import("@anush008/tokenizers");
  const t = Tokenizer.fromFile(file);
  encode = async (s) => (await t.encode(s, null, { addSpecialTokens: false })).getIds();
} else {
  const { get_encoding, Tiktoken } = await import("tiktoken"), f = JSON.parse(readFileSync(file));
  // Its own copy of the ranks; where it does not know the name, the ranks of the name that the file has.
  let e;
  try {
    e = get_encoding(f.name);
  } catch {
    e = get_encoding(f.base, f.specials);
  }
  encode = mode === "control" ? (s) => e.encode(s, "all") : (s) => e.encode_ordinary(s);
}

let rest = Buffer.alloc(0);
for await (const chunk of process.stdin) {
  rest = rest.length > 0 ? Buffer.concat([rest, chunk]) : chunk;
  for (;;) {
    const end = rest.indexOf(10);
    if (end < 0) break;
    const n = Number(rest.toString("latin1", 0, end));
    if (rest.length < end + 1 + n) break;
    const ids = await encode(rest.toString("utf8", end + 1, end + 1 + n));
    rest = rest.subarray(end + 1 + n);
    if (!process.stdout.write(ids.join(" ") + "\n")) await new Promise((done) => process.stdout.once("drain", done));
  }
}
