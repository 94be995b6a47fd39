// SPDX-License-Identifier: Apache-2.0
// The texts that counters are timed on: sources, documentation, Chinese manual pages and the oracle's corpus, in documents
// of a few kilobytes, from what is on the machine.  texts.mjs FOLDER MEGABYTES VOCAB_DIR
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { documents, write } from "../oracle/corpus.mjs";
import { families } from "../oracle/families.mjs";
import { gather, messages, words } from "../oracle/harvest.mjs";
import { generator } from "../oracle/mean.mjs";

const [folder, megabytes, vocabDir] = process.argv.slice(2), bytes = Number(megabytes) * 1e6;
const DOCUMENT = 8000;

// A page of the manual without its markup, lines that hold none of `wanted` left out.
const plain = (text, wanted = /./) => text.split("\n").filter((l) => !l.startsWith(".\\\"") && wanted.test(l))
  .map((l) => l.replace(/^[.'][A-Za-z]+ ?/, "").replace(/\\f[A-Z]|\\f\[[A-Z]*\]/g, "").replace(/\\-/g, "-").replace(/\\&/g, "")).join("\n");

// Texts cut into documents at the ends of lines, of whole characters.
function* cut(texts) {
  let have = 0;
  for (const t of texts) {
    let part = "";
    for (const line of t.split("\n")) {
      part += line + "\n";
      if (part.length < DOCUMENT) continue;
      yield Buffer.from(part);
      have += Buffer.byteLength(part);
      part = "";
      if (have >= bytes) return;
    }
    if (part.length > 200) {
      yield Buffer.from(part);
      have += Buffer.byteLength(part);
    }
    if (have >= bytes) return;
  }
}

const g = generator(11);
const decode = (list) => list.map((b) => b.toString("utf8"));
const isPage = (t) => /^\.(TH|SH|Dd|\\")/m.test(t);
const shuffle = (list) => { for (let i = list.length - 1; i > 0; i--) { const k = g.below(i + 1); [list[i], list[k]] = [list[k], list[i]]; } return list; };

mkdirSync(folder, { recursive: true });
const chinese = decode(gather("chinese", bytes * 3, g, 400000)).map((t) => plain(t, /\p{Script=Han}/u)).filter((t) => t.length > 200);
const kinds = {
  code: decode(gather("code", bytes * 1.3, g)),
  prose: decode(gather("prose", bytes * 1.5, g)).map((t) => (isPage(t) ? plain(t) : t)),
  chinese: [...chinese, ...decode(messages(["zh"], bytes, g))],
};
for (const [kind, texts] of Object.entries(kinds)) {
  const docs = shuffle([...cut(texts)]);
  write(join(folder, `${kind}.docs`), docs);
  console.log(`${kind}: ${docs.length} documents, ${(docs.reduce((n, d) => n + d.length, 0) / 1e6).toFixed(1)} MB`);
}
const ranks = families(vocabDir, process.env.VOCAB_CACHE || undefined).known.find((f) => f.kind === "tiktoken");
const mixed = [];
for (const d of documents(bytes / 0.8e6, 12, { strings: ["<|im_end|>"], tokens: words(ranks.source) }))
  if (!["runs", "specials", "mean", "invalid", "unicode", "lines"].includes(d.kind) && d.bytes.length > 0) mixed.push(d.bytes);
shuffle(mixed); // their kinds come one after the other, and halves are compared
write(join(folder, "mixed.docs"), mixed);
console.log(`mixed: ${mixed.length} documents, ${(mixed.reduce((n, d) => n + d.length, 0) / 1e6).toFixed(1)} MB`);
