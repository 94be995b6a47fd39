// SPDX-License-Identifier: Apache-2.0
// Which vocabularies there are to compare, and the model files that they were made of: from common/tokenizer/vocab.list
// and what `make vocab` left in VOCAB_DIR and its cache.
import { existsSync, readFileSync, readdirSync } from "node:fs";
import { basename, join } from "node:path";

const list = join(import.meta.dirname, "../../common/tokenizer/vocab.list");

// { name, vocab, kind: "tokenizer" | "tiktoken" | "tekken", source, config, pattern, specials } of each that is there, and
// the names of files in the folder that the list does not know.
export function families(vocabDir, cache = join(vocabDir, "cache")) {
  const known = [], names = new Set();
  for (const line of readFileSync(list, "utf8").split("\n")) {
    if (line.startsWith("#") || line.trim() === "") continue;
    const [name, , from, , args] = line.split(";").map((s) => s.trim());
    const vocab = join(vocabDir, `${name}.aigwvocab`), folder = join(cache, from.replace(/[/@]/g, "_")), words = args.split(/\s+/);
    const arg = (key) => (words.includes(key) ? words[words.indexOf(key) + 1].replace(/^@(.*)/, (_, f) => join(folder, f)) : undefined);
    names.add(basename(vocab));
    if (!existsSync(vocab)) continue;
    const kind = ["tokenizer", "tiktoken", "tekken"].find((k) => arg(`--${k}`));
    const specials = JSON.parse(arg("--specials") ?? "{}"), [first, last] = (arg("--reserved") ?? "1-0").split("-").map(Number);
    for (let id = first; id <= last; id++) if (!Object.values(specials).includes(id)) specials[`<|reserved_${id}|>`] = id;
    const f = { name, vocab, kind, source: arg(`--${kind}`), config: arg("--config"), pattern: arg("--pattern"), specials };
    if (!existsSync(f.source)) throw new Error(`${name}: ${f.source} is not there: make vocab`);
    known.push(f);
  }
  return { known, unknown: readdirSync(vocabDir).filter((f) => f.endsWith(".aigwvocab") && !names.has(f)) };
}

// OpenAI's patterns as their authors first published them; Hugging Face's engine does not take the newer spelling.
const cl100k = "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
const suffix = "(?i:'s|'t|'re|'ve|'m|'ll|'d)?", upper = "\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}", lower = "\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}";
const patterns = {
  gpt2: "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+",
  cl100k,
  o200k: `[^\\r\\n\\p{L}\\p{N}]?[${upper}]*[${lower}]+${suffix}|[^\\r\\n\\p{L}\\p{N}]?[${upper}]+[${lower}]*${suffix}`
    + "|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
};

// The 256 characters that stand for bytes in byte-level tokenizer files.
const letters = (() => {
  const out = [];
  let next = 256;
  for (let b = 0; b < 256; b++) {
    const shown = (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174;
    out.push(String.fromCharCode(shown ? b : next++));
  }
  return out;
})();

// Ranks as Hugging Face's engine takes them: whole pieces first, and every way to make a token of two, in the order of
// the tokens' ranks.
function ofRanks(ranks, pattern, added) {
  const vocab = Object.create(null), merges = [];
  const spell = (b) => b.reduce((s, x) => s + letters[x], "");
  const tokens = ranks.map(([b, id]) => [spell(b), id]).sort((x, y) => x[1] - y[1]);
  for (const [t, id] of tokens) vocab[t] = id;
  for (const [t] of tokens)
    for (let i = 1; i < t.length; i++)
      if (t.slice(0, i) in vocab && t.slice(i) in vocab) merges.push([t.slice(0, i), t.slice(i)]);
  for (const [content, id] of Object.entries(added)) vocab[content] = id; // the engine takes an added token's id from here
  const level = { add_prefix_space: false, trim_offsets: true, use_regex: false };
  return {
    version: "1.0", truncation: null, padding: null, normalizer: null, post_processor: null,
    added_tokens: Object.entries(added).map(([content, id]) => ({ id, content, single_word: false, lstrip: false, rstrip: false, normalized: false, special: true })),
    pre_tokenizer: { type: "Sequence", pretokenizers: [{ type: "Split", pattern: { Regex: pattern }, behavior: "Isolated", invert: false }, { type: "ByteLevel", ...level }] },
    decoder: { type: "ByteLevel", ...level },
    model: { type: "BPE", dropout: null, unk_token: null, continuing_subword_prefix: null, end_of_word_suffix: null, fuse_unk: false, byte_fallback: false, ignore_merges: true, vocab, merges },
  };
}

// A family's tokenizer.json for Hugging Face's engine. With control, added tokens in a text are themselves; without, they
// are text like any other.
export function tokenizerJson(f, control) {
  const added = control ? f.specials : {};
  let json;
  if (f.kind === "tokenizer") {
    json = JSON.parse(readFileSync(f.source));
  } else if (f.kind === "tiktoken") {
    const ranks = readFileSync(f.source, "latin1").split("\n").filter(Boolean).map((l) => l.split(" ")).map(([b, id]) => [Buffer.from(b, "base64"), Number(id)]);
    json = ofRanks(ranks, patterns[f.pattern], added);
  } else {
    const t = JSON.parse(readFileSync(f.source)), { config } = t, first = config.default_num_special_tokens;
    json = ofRanks(t.vocab.slice(0, config.default_vocab_size - first).map((e) => [Buffer.from(e.token_bytes, "base64"), first + e.rank]), config.pattern,
      control ? Object.fromEntries((t.special_tokens ?? []).map((s) => [s.token_str, s.rank])) : {});
  }
  json.post_processor = null;
  if (!control) json.added_tokens = [];
  return json;
}

// The strings of a family's added tokens.
export function specialStrings(f) {
  return f.kind === "tiktoken" ? Object.keys(f.specials) : f.kind === "tokenizer" ? JSON.parse(readFileSync(f.source)).added_tokens.map((t) => t.content) : [];
}
