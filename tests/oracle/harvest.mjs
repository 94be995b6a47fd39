// SPDX-License-Identifier: Apache-2.0
// Real text that is on the machine already, so that none of it has to be in the repository: sources, headers,
// documentation, licences, translations, what Node.js knows about the world's languages, words out of vocabularies.
import { readdirSync, readFileSync, lstatSync } from "node:fs";
import { join, extname } from "node:path";
import { gunzipSync } from "node:zlib";

const here = import.meta.dirname;
const roots = {
  code: ["/usr/include", "/usr/lib/python3", "/usr/lib/python3.11", "/usr/share/perl", "/usr/share/perl5", "/usr/lib/node_modules",
    "/usr/share/nodejs", "/usr/lib/go", "/usr/share/cmake-3.25", join(here, "../.."), "/usr/share/vim"],
  prose: ["/usr/share/doc", "/usr/share/common-licenses", "/usr/share/perl", "/usr/share/man", "/usr/share/info",
    "/usr/lib/node_modules", join(here, "node_modules"), join(here, "../../docs")],
  json: [join(here, "node_modules"), join(here, "../e2e/node_modules"), "/usr/lib/node_modules", "/usr/share"],
  chinese: ["/usr/share/man/zh_CN", "/usr/share/man/zh_TW"],
};
const endings = {
  code: [".c", ".h", ".hpp", ".py", ".js", ".mjs", ".ts", ".go", ".pm", ".pl", ".sh", ".java", ".rs", ".css", ".cmake", ".vim"],
  prose: [".md", ".txt", ".gz", ".pod", ".rst", ".html", ""],
  json: [".json", ".map", ".yaml"],
  chinese: [".gz"],
};

// Files below the roots, in one order on one machine. Symbolic links are not followed.
export function* files(kind, most = 40000) {
  let n = 0;
  const folders = [...new Set(roots[kind])].reverse();
  while (folders.length > 0) {
    const dir = folders.pop();
    let names;
    try { names = readdirSync(dir).sort(); } catch { continue; }
    for (const name of names) {
      if (name === ".git" || name === "build" || name === "vocab" || name === "state") continue;
      const path = join(dir, name);
      let s;
      try { s = lstatSync(path); } catch { continue; }
      if (s.isDirectory()) folders.push(path);
      else if (s.isFile() && s.size > 200 && s.size < 4 << 20 && endings[kind].includes(extname(name)) && n++ < most) yield path;
    }
  }
}

export function read(path) {
  try {
    const b = readFileSync(path);
    return path.endsWith(".gz") ? gunzipSync(b) : b;
  } catch {
    return Buffer.alloc(0); // unreadable, or no gzip
  }
}

const isText = (b) => b.length > 100 && !b.subarray(0, 4096).includes(0);

// About `bytes` of text of a kind: files chosen by the generator, at most `share` of one file.
export function gather(kind, bytes, g, share = 60000) {
  const list = [...files(kind)], out = [];
  let have = 0;
  for (let i = list.length - 1; i > 0; i--) {
    const k = g.below(i + 1);
    [list[i], list[k]] = [list[k], list[i]];
  }
  for (const path of list) {
    if (have >= bytes) break;
    const b = read(path);
    if (!isText(b)) continue;
    const from = b.length > share ? g.below(b.length - share) : 0;
    const part = b.subarray(from, from + Math.min(share, bytes - have));
    out.push(part);
    have += part.length;
  }
  return out;
}

// The translations of a .mo file.
function translations(b) {
  if (b.length < 28 || b.readUInt32LE(0) !== 0x950412de) return [];
  const out = [], n = b.readUInt32LE(8), at = b.readUInt32LE(16);
  for (let i = 1; i < n; i++) {
    const length = b.readUInt32LE(at + 8 * i), from = b.readUInt32LE(at + 8 * i + 4);
    out.push(b.subarray(from, from + length).toString("utf8").replaceAll("\0", "\n"));
  }
  return out;
}

// Messages of programs in the languages whose names start so; [] where the machine has none.
export function messages(languages, bytes, g) {
  const out = [];
  let have = 0, folders = [];
  try { folders = readdirSync("/usr/share/locale").filter((l) => languages.some((w) => l.startsWith(w))).sort(); } catch { /* none */ }
  const paths = folders.flatMap((l) => {
    try { return readdirSync(`/usr/share/locale/${l}/LC_MESSAGES`).sort().map((f) => `/usr/share/locale/${l}/LC_MESSAGES/${f}`); } catch { return []; }
  }).filter((p) => p.endsWith(".mo"));
  while (paths.length > 0 && have < bytes) {
    const [path] = paths.splice(g.below(paths.length), 1);
    const text = Buffer.from(translations(read(path)).join("\n").slice(0, 60000));
    if (text.length > 200) out.push(text);
    have += text.length;
  }
  return out;
}

const locales = ["am", "ar", "as", "az", "be", "bg", "bn", "bo", "ca", "ccp", "chr", "ckb", "cs", "cy", "da", "de", "dz", "el", "en", "es", "et", "eu",
  "fa", "fi", "fr", "ga", "gu", "ha", "he", "hi", "hr", "hu", "hy", "id", "ig", "is", "it", "ja", "ka", "kk", "km", "kn", "ko", "ky", "lo", "lt", "lv",
  "mk", "ml", "mn", "mr", "ms", "my", "nb", "ne", "nl", "or", "pa", "pl", "ps", "pt", "ro", "ru", "sa", "sat", "sd", "shi", "si", "sk", "sl", "so", "sq",
  "sr", "sv", "sw", "ta", "te", "th", "ti", "tk", "tr", "tt", "ug", "uk", "ur", "uz", "vai", "vi", "wo", "yi", "yo", "yue", "zgh", "zh", "zh-Hant", "zu"];

// Objects of Intl are dear to make: one of each.
const made = new Map();
const once = (key, make) => {
  if (!made.has(key)) made.set(key, make());
  return made.get(key);
};

// Sentences of a sort, of the names of countries, languages and currencies and of dates and numbers, in about 100 languages.
export function worldly(g) {
  const locale = g.pick(locales);
  const name = (type, code) => {
    try { return once(`${locale} ${type}`, () => new Intl.DisplayNames([locale], { type })).of(code); } catch { return code; }
  };
  const date = (dateStyle) => once(`${locale} ${dateStyle}`, () => new Intl.DateTimeFormat(locale, { dateStyle, timeZone: "UTC" }));
  const words = [];
  for (let k = 20 + g.below(60); k > 0; k--) {
    switch (g.below(6)) {
      case 0: words.push(name("language", g.pick(locales))); break;
      case 1: words.push(name("currency", g.pick(["USD", "EUR", "JPY", "CNY", "INR", "RUB", "BRL", "THB", "ILS", "KRW", "ETB", "GEL", "XAU"]))); break;
      case 2: words.push(date(g.pick(["full", "long", "medium"])).format(new Date(g.below(2 ** 31) * 1000))); break;
      case 3: words.push(once(`${locale} number`, () => new Intl.NumberFormat(locale)).format(g.next() * 10 ** g.below(9))); break;
      case 4: words.push(once(`${locale} relative`, () => new Intl.RelativeTimeFormat(locale)).format(g.below(40) - 20, g.pick(["day", "week", "month", "year", "hour"]))); break;
      default: words.push(name("region", g.pick(["DE", "FR", "CN", "JP", "IN", "EG", "IL", "TH", "KR", "RU", "GR", "ET", "GE", "AM", "MM", "KH", "LA", "BR", "US", "ZA", "001", "419"])));
    }
    words.push(g.pick([" ", " ", ", ", ". ", "; ", ": ", "\n", " (", ") ", "、", "。", " – "]));
  }
  return words.join("");
}

// Ranks files (.tiktoken): token bytes in the order of their frequency. `salad` strings tokens together as they never
// met: words of all languages, cut and joined where no writer would.
export function words(path) {
  return readFileSync(path, "latin1").split("\n").filter(Boolean).map((l) => Buffer.from(l.slice(0, l.indexOf(" ")), "base64"));
}
export function salad(tokens, g, n) {
  const out = [], from = g.below(tokens.length), span = 500 + g.below(20000), style = g.below(3);
  for (; n > 0; n--)
    out.push(tokens[style === 0 ? g.below(tokens.length) : style === 1 ? Math.floor(tokens.length * g.next() ** 3) : (from + g.below(span)) % tokens.length]);
  return Buffer.concat(out);
}
