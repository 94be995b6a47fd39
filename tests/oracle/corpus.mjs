// SPDX-License-Identifier: Apache-2.0
// The corpus that tokenizers are compared on: documents of many kinds and sizes, the same ones for the same seed on the
// same machine. `documents` makes them; `write` and `read` keep them in a file, each as its length on a line, then its
// bytes, which is also how tokenizers are asked (`aigw-vocab ids`).
import { openSync, writeSync, closeSync, readFileSync } from "node:fs";
import { generator, texts } from "./mean.mjs";
import * as harvest from "./harvest.mjs";

// Parts of the whole, in percent.
const shares = {
  code: 20, prose: 17, translations: 13, languages: 10, vocabulary: 8, json: 6, logs: 5, encoded: 4,
  unicode: 4, mean: 5, invalid: 3, specials: 2, lines: 1.5, runs: 1.5,
};

const size = (g) => {
  const r = g.next();
  return r < 0.1 ? g.below(16) : r < 0.35 ? 16 + g.below(400) : r < 0.8 ? 400 + g.below(6000) : r < 0.96 ? 6000 + g.below(24000) : 30000 + g.below(70000);
};
const chars = (g, n, make) => { let s = ""; for (let i = 0; i < n; i++) s += make(); return s; };
const scalar = (c) => String.fromCodePoint(c >= 0xd800 && c < 0xe000 ? 0xfffd : c);
const hex = (g, n) => chars(g, n, () => "0123456789abcdef"[g.below(16)]);
const bytes = (g, n) => { const b = Buffer.alloc(n); for (let i = 0; i < n; i++) b[i] = g.below(256); return b; };

function json(g, depth = 0) {
  const r = g.below(depth > 4 ? 4 : 6);
  if (r === 0) return g.below(2 ** 31) / g.pick([1, 1, 100, 7]);
  if (r === 1) return g.pick([true, false, null]);
  if (r < 4) return harvest.worldly(g).slice(0, g.below(60));
  if (r === 4) return Array.from({ length: g.below(6) }, () => json(g, depth + 1));
  return Object.fromEntries(Array.from({ length: g.below(7) }, () => [g.pick(["id", "name", "createdAt", "user_id", "é", "content", "名前", "x-y", ""]) + g.below(40), json(g, depth + 1)]));
}

const log = (g) => {
  const t = new Date(1.7e12 + g.below(2 ** 31) * 10).toISOString(), ip = [0, 0, 0, 0].map(() => g.below(256)).join(".");
  return g.pick([
    () => `${t} ${g.pick(["INFO", "WARN", "ERROR", "DEBUG"])} [worker-${g.below(64)}] request_id=${hex(g, 32)} status=${g.pick([200, 404, 500, 429])} took=${g.below(100000) / 10}ms`,
    () => `${ip} - - [${t.slice(0, 19)} +0000] "${g.pick(["GET", "POST"])} /api/v${g.below(4)}/items/${g.below(1e6)}?page=${g.below(50)} HTTP/1.1" 200 ${g.below(1e5)} "-" "Mozilla/5.0 (X11; Linux x86_64)"`,
    () => `kernel: [${g.below(1e6)}.${g.below(1e6)}] BUG: unable to handle page fault at 0x${hex(g, 16)}; RIP: 0010:[<${hex(g, 16)}>]`,
    () => `\tat com.example.${g.pick(["Foo", "barBaz", "HTTPServer"])}$${g.below(9)}.run(${g.pick(["Main", "Worker"])}.java:${g.below(900)})`,
  ])();
};

function run(g) {
  const unit = g.next() < 0.5
    ? g.pick(["a", "A", "aB", "中", "国中", " ", "\n", "\r\n", "\t", "!", "?!", "1", "٣", "=", "-", "_", "/", "'", "'s", "\u0301", "a\u0301", "\u200d", "👩‍💻", "🙂", "é",
      "\u00a0", "\u3000", "\u0085", "\ufeff", "\u017f", "ㅋ", "한", "ก", "ाी", "ب", "\u{10ffff}", "\u{e0041}", "0", "  \n", " a", "e", "the", "\u0000", "\ud7ff", "Ａ", "\ufffd"])
    : chars(g, 1 + g.below(4), () => scalar(g.pick([() => g.below(0x80), () => g.below(0x3000), () => g.below(0x110000)])()));
  const s = unit.repeat(1 + g.below(g.pick([20, 300, 300, 1500, 6000]) / unit.length + 1));
  return g.pick(["", " ", "x", "\n"]) + s + g.pick(["", "", " ", "x", "'s", "\n", " end"]);
}

const damage = (g, b) => {
  b = Buffer.from(b);
  for (let k = 1 + g.below(1 + b.length / 40); k > 0 && b.length > 0; k--) {
    const at = g.below(b.length);
    if (g.next() < 0.5) b[at] = g.below(256);
    else b.set(g.pick([[0xff], [0xc0, 0x80], [0xed, 0xa0, 0x80], [0xf4, 0x90, 0x80, 0x80], [0xe4, 0xb8], [0xf0, 0x9f, 0x99], [0x80], [0xfe, 0xff]]).slice(0, b.length - at), at);
  }
  return b;
};

// Every document as { kind, bytes }, about `megabytes` (10^6) of them. `strings`: special strings of the vocabularies;
// `tokens`: token bytes of a vocabulary.
export function* documents(megabytes, seed, { strings, tokens }) {
  const g = generator(seed), total = megabytes * 1e6;
  const quota = (kind) => (total * shares[kind]) / 100;
  const from = (pool) => () => {
    if (pool.length === 0) return null;
    const b = g.pick(pool), at = g.below(b.length);
    let part = b.subarray(at, at + size(g));
    while (part.length > 0 && (part[0] & 0xc0) === 0x80 && g.next() < 0.9) part = part.subarray(1);
    return part;
  };
  const pools = {
    code: harvest.gather("code", quota("code") * 1.2, g), prose: harvest.gather("prose", quota("prose") * 1.2, g), json: harvest.gather("json", quota("json"), g),
    translations: harvest.messages(["zh", "ja", "ko", "ru", "uk", "ar", "he", "th", "hi", "el", "vi", "tr", "pl", "cs", "fa", "ka", "bn", "ta", "te", "de", "fr", "es", "sr", "bg", "am", "gu", "pa", "kn", "ml", "ne", "si", "hy", "km", "my", "ug"], quota("translations") * 1.2, g),
  };
  const mean = texts(1e9, seed * 31 + 7, 1500);
  const world = () => harvest.worldly(g);
  const make = {
    code: from(pools.code), prose: from(pools.prose), translations: from(pools.translations),
    languages: () => chars(g, 1 + g.below(8), world).normalize(g.pick(["NFC", "NFC", "NFD", "NFKD"])),
    vocabulary: () => harvest.salad(tokens, g, 1 + g.below(g.pick([10, 300, 2000]))),
    json: () => (g.next() < 0.5 && from(pools.json)()) || JSON.stringify(Array.from({ length: 1 + g.below(20) }, () => json(g)), null, g.pick([0, 2, 4, "\t"])),
    logs: () => Array.from({ length: 1 + g.below(60) }, () => log(g)).join(g.pick(["\n", "\r\n"])),
    encoded: () => { const b = bytes(g, g.below(3000)); return g.pick([() => b.toString("base64"), () => b.toString("hex"), () => b.toString("base64url"),
      () => b.toString("base64").replace(/.{76}/g, "$&\n"), () => encodeURIComponent(b.toString("latin1")), () => JSON.stringify(b.toString("latin1"))])(); },
    unicode: () => { const narrow = g.below(0x110000), any = g.next() < 0.4; return chars(g, 1 + g.below(400), () => scalar(any ? g.below(0x110000) : Math.min(0x10ffff, narrow + g.below(200)))); },
    mean: () => mean.next().value,
    invalid: () => (g.next() < 0.25 ? bytes(g, g.below(600)) : damage(g, Buffer.from(g.pick([world, () => from(pools.translations)() ?? world(), () => from(pools.code)() ?? world()])()))),
    specials: () => chars(g, 1 + g.below(40), () => { const s = g.pick(strings); return g.pick([s, s, s.slice(0, g.below(s.length + 1)), s.slice(g.below(s.length)), s.toUpperCase()]) + g.pick(["", "", " ", "\n", world().slice(0, g.below(30))]); }),
    lines: () => chars(g, 1 + g.below(60), () => chars(g, g.below(6), () => g.pick([" ", "\t", "\u3000", "\u0085", "\v", "\ufeff", "\u200b", "\u2028"])) + world().slice(0, g.below(20)) + g.pick(["\r\n", "\n", "\r", "\n\n", "\r\r\n", " \r\n"])),
    runs: () => run(g),
  };
  const left = new Map(Object.keys(shares).map((k) => [k, quota(k)]));
  while (left.size > 0) {
    const kind = g.pick([...left.keys()]);
    const made = make[kind]();
    if (made === null) { // the machine has nothing of that: others take its share
      left.set("languages", (left.get("languages") ?? 0) + left.get(kind));
      left.delete(kind);
      continue;
    }
    const b = Buffer.from(made);
    yield { kind, bytes: b };
    left.set(kind, left.get(kind) - b.length - 1); // an empty document too must end
    if (left.get(kind) <= 0) left.delete(kind);
  }
}

export function write(path, docs) {
  const file = openSync(path, "w");
  for (const b of docs) writeSync(file, Buffer.concat([Buffer.from(`${b.length}\n`), b]));
  closeSync(file);
}

export function read(path) {
  const all = readFileSync(path), out = [];
  for (let at = 0; at < all.length;) {
    const end = all.indexOf(10, at), n = Number(all.toString("latin1", at, end));
    out.push(all.subarray(end + 1, end + 1 + n));
    at = end + 1 + n;
  }
  return out;
}
