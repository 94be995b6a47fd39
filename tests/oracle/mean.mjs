// SPDX-License-Identifier: Apache-2.0
// Texts that are meaner than real ones: repeatable, made of nothing but a seed. And the generator that all of the corpus uses.

export function generator(seed) {
  let a = seed >>> 0;
  const next = () => { // mulberry32
    a = (a + 0x6d2b79f5) >>> 0;
    let t = Math.imul(a ^ (a >>> 15), 1 | a);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
  const below = (n) => Math.floor(next() * n);
  const pick = (list) => list[below(list.length)];
  return { next, below, pick };
}

const sentences = [
  "The gateway counts every token once, and it doesn't lose any of them.",
  "We've measured 1,234,567 requests in 42.5 seconds; that's 29,048/s (p99 = 7.3 ms).",
  "I'll say it's THEIR turn: they'd've gone, she's here, we'RE late, DON'T shout, o'clock, y'all.",
  "Der Rückgabewert überprüft, ob die Größe des Straßenbauförderungsgesetzes genügt.",
  "Où est passée l’élève ? Elle s'est déjà endormie à Noël, près de l'œuvre.",
  "El niño comió jalapeños; ¿cuántos? ¡Muchísimos! Mañana será otro día.",
  "Быстрая коричневая лиса прыгает через ленивую собаку, а потом ещё раз.",
  "Ο γρήγορος καφές αλεπού πηδάει πάνω από το τεμπέλικο σκυλί.",
  "今天天气很好,我们一起去公园散步吧。价格是128元,打八折。",
  "東京都の天気は晴れです。カタカナとひらがなと漢字、１２３４５。ー゠・ヿ",
  "오늘 날씨가 좋네요. 한국어 문장을 토큰으로 나눕니다. 값은 1,000원입니다.",
  "नमस्ते दुनिया, यह हिन्दी का एक वाक्य है जिसमें क़ख़ग़ भी है।",
  "สวัสดีชาวโลก ภาษาไทยไม่มีการเว้นวรรคระหว่างคำ ๑๒๓",
  "مرحبا بالعالم، كَيْفَ حَالُكَ؟ الأرقام ١٢٣٤ و ۵۶۷۸.",
  "שָׁלוֹם עוֹלָם, זהו משפט בעברית עם ניקוד.",
  "Xin chào thế giới, tiếng Việt có nhiều dấu thanh điệu phức tạp.",
  "Zażółć gęślą jaźń; příliš žluťoučký kůň úpěl ďábelské ódy.",
  "ǅungla Ǆ ǆ ﬁnance ŉ ſuch It'ſ we'ſ ΐ ᾳ ﬀ ʼn Kelvin K Å Ω",
  "🙂🙃 👩‍👩‍👧‍👦 🇩🇪🇯🇵 👍🏽 ❤️ ☕️ 1️⃣ — “quoted” ‘single’ … №5 ½ ²³ ⅷ Ⅷ ①②③ ㊿",
  "x̱y̆z̷ a\u0301e\u0300o\u0308 u\u0323\u0302 \u0301start n\u0303 \u1100\u1161\u11a8 \u0344 \u1e0b\u0323",
];
const code = [
  "static int\nparse(const char *p, size_t n)\n{\n\tfor (size_t i = 0; i < n; i++) {\n\t\tif (p[i] == '\\n') return -1; /* no */\n\t}\n\treturn 0x7fffffff;\n}\n",
  "def f(x: int = 0) -> dict[str, Any]:\n    \"\"\"Doc.\"\"\"\n    return {k: v for k, v in zip(range(10), x)}  # done\n\n\nif __name__ == '__main__':\n    f(3)\n",
  "{\"id\": \"call_123\", \"arguments\": {\"city\": \"Paris\", \"n\": 1.50, \"ok\": true, \"list\": [1,2,3]}, \"x\": null}",
  "<div class=\"row\">\r\n  <a href='https://example.com/a/b?c=d&e=%20'>link</a>\r\n</div>\r\n<!-- c -->\r\n",
  "SELECT * FROM t WHERE a_b = 'it''s' AND n >= 10000000 -- comment\n;\n",
  "| a | b |\n|---|---|\n| 1 | 2 |\n\n# Title\n\n- item\n    - nested\n\n```sh\ncurl -s http://[::1]:8080/\n```\n",
  "camelCaseHTTPServer XMLHttpRequest2 snake_case_NAME kebab-case UPPER lowerUPPER iPhone McDonald's",
];
const spaces = [" ", "  ", "   ", "\t", "\n", "\r\n", "\n\n", " \n", "\n ", "\u00a0", "\u3000", "\u2003", "\u0085",
  "\u2028", "\u202f", "\ufeff", "\u200b", " \t ", "\r", "\n \n  \n", "\v\f", "\u1680", "    ".repeat(20)];
const specials = ["<|im_start|>", "<|im_end|>", "<|endoftext|>", "<think>", "</think>", "<tool_call>", "<|im_", "<|", "<",
  "<｜begin▁of▁sentence｜>", "<｜User｜>", "<｜", "[INST]", "[/INST]", "<s>", "</s>", "<unk>", "<|begin_of_text|>", "<|eot_id|>",
  "<|start_header_id|>", "<|endofprompt|>", "<|fim_prefix|>", "[TOOL_CALLS]", "<｜tool▁calls▁begin｜>", "<|vision_pad|>"];
const runs = ["a", "A", "ab", "é", "中", "ß", " ", "\n", "!", "'", "1", "٣", "=-", "\u0301", "\u0323\u0301", "Aa", "ʰ", "\u200d",
  "🙂", "\u0e31", "\u1100", "\u11a8", "/", "'s", "\t", "\u00a0", "Ａ", "\u{1d400}", "\u{10ffff}", "\u0000", "中a", "한", "\u0345\u0334"];

const ranges = [[0, 0x80], [0x80, 0x250], [0x250, 0x530], [0x530, 0x800], [0x800, 0xe00], [0xe00, 0x1200], [0x1200, 0x2000],
  [0x2000, 0x2c00], [0x2c00, 0x3100], [0x3100, 0x4e00], [0x4e00, 0xa000], [0xa000, 0xac00], [0xac00, 0xd7b0],
  [0xe000, 0x10000], [0x10000, 0x11000], [0x11000, 0x12000], [0x12000, 0x16000], [0x16000, 0x18000], [0x1b000, 0x1c000],
  [0x1d000, 0x1e000], [0x1e000, 0x1f000], [0x1f000, 0x20000], [0x20000, 0x32400], [0x32400, 0x110000]];

export function* texts(count, seed = 1, maxRun = 300) {
  const { next, below, pick } = generator(seed);
  const point = () => {
    const [lo, hi] = next() < 0.1 ? pick([[0x300, 0x370], [0x1ab0, 0x1b00], [0x1dc0, 0x1e00], [0x20d0, 0x2100]]) : pick(ranges);
    const c = lo + below(hi - lo);
    return c >= 0xd800 && c < 0xe000 ? 0x41 : c;
  };
  const part = () => {
    switch (below(12)) {
      case 0: case 1: case 2: return pick(sentences);
      case 3: return pick(code);
      case 4: return pick(spaces);
      case 5: return pick(specials);
      case 6: return pick(runs).repeat(1 + below(next() < 0.1 ? maxRun : 12));
      case 7: return String(below(10 ** (1 + below(12))));
      case 8: { const [lo, hi] = pick(ranges); let s = ""; for (let i = below(40); i >= 0; i--) { const c = lo + below(hi - lo); s += String.fromCodePoint(c >= 0xd800 && c < 0xe000 ? 0x42 : c); } return s; }
      case 9: { let s = ""; for (let i = below(30); i >= 0; i--) s += String.fromCodePoint(point()); return s; }
      case 10: { const s = pick(sentences); return s.normalize(pick(["NFD", "NFC", "NFKD"])); }
      default: { const s = pick(sentences), from = below(s.length); const t = s.slice(from, from + 1 + below(20)); return next() < 0.3 ? t.toUpperCase() : t; }
    }
  };
  for (let i = 0; i < count; i++) {
    let bytes;
    let s = "";
    for (let k = 1 + below(next() < 0.05 ? 60 : 8); k > 0; k--) s += part() + (next() < 0.3 ? pick(spaces) : "");
    bytes = Buffer.from(s, "utf8"); // lone surrogates become U+FFFD
    if (next() < 0.1) { // damage it
      const b = Buffer.from(bytes);
      for (let k = 1 + below(4); k > 0 && b.length > 0; k--) b[below(b.length)] = below(256);
      bytes = next() < 0.5 ? b : b.subarray(0, below(b.length + 1));
    }
    yield bytes;
  }
}
