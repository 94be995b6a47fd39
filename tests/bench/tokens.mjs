// SPDX-License-Identifier: Apache-2.0
// `make bench-tokens`: what counting tokens costs here, beside everybody else's counters, in turns on the same texts. Prints
// tables for docs/tokens.md; everything measured is in WORK/results.json.
//   tokens.mjs BUILD VOCAB_DIR WORK PYTHON PEERS    (PYTHON and PEERS may be "": left out)
// BENCH_ONLY, BENCH_TEXTS and BENCH_PEERS (regular expressions) pick vocabularies, texts and peers; with one of the last two,
// texts are all that is measured. BENCH_ROUNDS (8): how often. BENCH_CPU (the last): where.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { cpus } from "node:os";
import { join } from "node:path";
import { families, tokenizerJson } from "../oracle/families.mjs";
import { Counter, run, setPinning } from "./counter.mjs";
import { median, ratio, ratios, spread, turns } from "./rounds.mjs";

const [build, vocabDir, work, python, native] = process.argv.slice(2), { env } = process;
const here = import.meta.dirname, begin = Date.now(), ours = join(build, "bench/tokens");
// Where every peer is measured; with other vocabularies tiktoken only.
const everybody = /^(cl100k_base|o200k_base|qwen3|llama3_2|deepseek_v3|mistral_nemo)$/;
const only = new RegExp(env.BENCH_ONLY || "."), ROUNDS = Number(env.BENCH_ROUNDS || 8), quick = Boolean(env.BENCH_TEXTS || env.BENCH_PEERS);
const ALL_FOR = 2, CLOSE = 3; // whoever is CLOSE times as slow as ours, or more, at everything is measured in so many rounds only
const say = (text) => console.error(`${String(Math.round((Date.now() - begin) / 1000)).padStart(5)} s  ${text}`);

async function lines(command) {
  const { code, out, err } = await run(command);
  if (code !== 0) throw new Error(`exit ${code}: ${err.trim().split("\n").at(-1)?.slice(0, 160)}`);
  return out.trim().split("\n").filter(Boolean).map((l) => JSON.parse(l));
}

// --- the texts, the families ------------------------------------------------------------------------------------------

const kinds = ["code", "prose", "chinese", "mixed"].filter((k) => new RegExp(env.BENCH_TEXTS || ".").test(k)), file = (kind) => join(work, "texts", `${kind}.docs`);
if (kinds.length === 0) throw new Error("no such text: code prose chinese mixed");
mkdirSync(work, { recursive: true });
const cpu = Number(env.BENCH_CPU ?? cpus().length - 1);
say(setPinning(cpu) ? `everybody on CPU ${cpu}` : "no taskset: on any CPU");
if (!quick || !existsSync(file("mixed"))) {
  const made = await run([process.execPath, join(here, "texts.mjs"), join(work, "texts"), "6", vocabDir]);
  if (made.code !== 0) throw new Error(made.err);
  say(`texts: ${made.out.trim().split("\n").join("; ")}`);
}
const all = families(vocabDir, env.VOCAB_CACHE || undefined).known.filter((f) => only.test(f.name));
if (all.length === 0) throw new Error(`no vocabularies in ${vocabDir}: make vocab`);

const peers = [
  ...["fastokens", "tokie", "tiktoken (crate)", "bpe-openai", "splintr", "kitoken", "tiktoken-rs", "tokenizers"].map((p) => ({ name: `${p} (Rust)`, id: p, with: native && [native] })),
  ...["gigatoken", "gigatoken, one batch", "tiktoken", "tiktoken, to a buffer", "wordchipper", "tokenizers"].map((p) => ({ name: `${p} (Python)`, id: p, with: python && [python, join(here, "peers.py")] })),
  ...["tiktoken", "gpt-tokenizer", "@anush008/tokenizers"].map((p) => ({ name: `${p} (npm)`, id: p, with: [process.execPath, join(here, "peers.mjs")] })),
].filter((p) => new RegExp(env.BENCH_PEERS || ".").test(p.name));
const theirs = /^tiktoken.*\(Python\)$/; // what ours is compared with whatever the distance

// --- counting texts ---------------------------------------------------------------------------------------------------

// One round of a family: for each text they take turns. Each counter is a process that is loaded once, and measures in a copy
// of itself that has counted nothing; those that cannot copy themselves are loaded anew in each round.
async function round(k, rows, check) {
  for (const row of rows) {
    if (row.live && !row.anew) continue;
    try {
      await row.live?.stop();
      row.live = new Counter(row.command);
      row.none = !(await row.live.ready());
    } catch (e) { row.why = e.message; }
  }
  for (const [i, kind] of kinds.entries()) {
    for (const row of turns(k, rows)) {
      if (row.none || row.why) continue;
      try {
        const r = await row.live.measure(i);
        (row.kinds[kind] ??= []).push({ ...r, same: check(kind, r) });
      } catch (e) { row.why = e.message; }
    }
  }
}

const pick = (row, kind, what) => row.kinds[kind].map((r) => r[what]);
const times = (mine, row, kind, what) => ratios(pick(row, kind, what).map((_, i) => pick(mine, kind, what)[i]), pick(row, kind, what));
const results = [];
async function texts(f) {
  const counts = {}, paths = kinds.map(file), json = join(work, `${f.name}.json`);
  for (const k of kinds) counts[k] = (await run([ours, "counts", f.vocab, file(k)])).out.trim().split("\n").map(Number);
  writeFileSync(json, JSON.stringify(tokenizerJson(f, false)));
  const check = (kind, { docs, tokens }) => {
    const half = counts[kind].length >> 1, mine = [...counts[kind].slice(0, docs[0]), ...counts[kind].slice(half, half + docs[1])];
    return mine.reduce((a, b) => a + b, 0) === tokens;
  };
  const row = (name, command) => ({ name, command, kinds: {}, anew: command[0] === process.execPath });
  // Ours takes part twice: what comes out between them is what cannot be told apart.
  const mine = row("ours", [ours, "text", f.vocab, ...paths]), twin = row("ours, once more", mine.command);
  const others = peers.filter((p) => everybody.test(f.name) || p.id === "tiktoken")
    .map((p) => Object.assign(row(p.name, [...(p.with || []), p.id, f.name, json, f.kind === "tiktoken" ? f.source : "-", ...paths]), p.with ? {} : { why: "not here" }));
  for (let k = 0; k < ROUNDS; k++) {
    const close = (r) => kinds.some((kind) => ["new", "seen"].some((what) => median(times(mine, r, kind, what)) < CLOSE));
    const still = others.filter((r) => !r.why && !r.none && (k < ALL_FOR || theirs.test(r.name) || close(r)));
    if (k === ALL_FOR) still.sort((a, b) => ratio(pick(b, kinds[0], "seen"), pick(a, kinds[0], "seen")));
    for (const r of others) if (r.live && !still.includes(r)) await r.live.stop();
    await round(k, [mine, ...still, twin], check);
    if (mine.why) throw new Error(`${f.name}: ${mine.why}`);
    say(`${f.name.padEnd(14)} round ${k + 1} of ${ROUNDS}, ${still.length} peers: ours ${kinds.map((x) => `${x} ${mine.kinds[x][k].new} · ${mine.kinds[x][k].seen}`).join(", ")} MB/s`);
  }
  for (const r of [mine, twin, ...others]) await r.live?.stop();
  for (const r of [mine, twin, ...others]) delete r.live;
  results.push({ family: f.name, rows: [mine, twin, ...others.filter((r) => !r.none)] });
}
for (const f of all) await texts(f);

// --- the rest ---------------------------------------------------------------------------------------------------------

async function memory(f) {
  const start = () => spawn(ours, ["hold", f.vocab, file("mixed")], { stdio: ["pipe", "pipe", "inherit"] });
  const two = [start(), start()];
  await Promise.all(two.map((c) => once(c.stdout, "data")));
  const read = (key) => Number(new RegExp(`^${key}: +(\\d+) kB`, "m").exec(readFileSync(`/proc/${two[1].pid}/smaps_rollup`, "utf8"))?.[1] ?? NaN) / 1024;
  const r = { rss: read("Rss"), shared: read("Shared_Clean") + read("Shared_Dirty"), own: read("Private_Clean") + read("Private_Dirty"), pss: read("Pss") };
  two.forEach((c) => c.stdin.end());
  return r;
}
for (const r of quick ? [] : results) {
  const f = all.find((x) => x.name === r.family);
  say(`${f.name.padEnd(14)} adversarial texts, streams, chats, loading, memory`);
  r.hard = await lines([ours, "hard", f.vocab]);
  r.stream = {};
  for (const k of ["prose", "code", "chinese"]) r.stream[k] = await lines([ours, "stream", f.vocab, file(k)]);
  r.runs = await lines([ours, "runs", f.vocab]);
  [r.chat] = await lines([ours, "chat", f.vocab]);
  [r.load] = await lines([ours, "load", f.vocab]);
  r.memory = await memory(f);
}
writeFileSync(join(work, "results.json"), JSON.stringify({ cpu: cpus()[0]?.model, results }, null, 1));

// --- the tables -------------------------------------------------------------------------------------------------------

const out = (...l) => console.log(l.join("\n"));
const shown = (v) => { const m = median(v); return m < 10 ? m.toFixed(1) : m.toFixed(0); };
const speed = (row, k) => (row.kinds[k] ? `${shown(pick(row, k, "new"))} · ${shown(pick(row, k, "seen"))}${row.kinds[k].every((r) => r.same) ? "" : " ≠"}` : "");
const titles = kinds.map((k) => (k === "chinese" ? "Chinese" : k));
out("", `${cpus()[0]?.model}. ${ROUNDS} rounds; in each, every counter is measured once, in turns, as if just loaded (those that are ${CLOSE} times as slow or`,
  `more at everything: in the first ${ALL_FOR}). MB/s (10^6 bytes of UTF-8) of the processor's time, one thread, medians: first on text never seen before, when as`,
  "much of its kind has been, then, behind the point, on both again. ≠: the peer's counts are other than ours.");
for (const { family, rows } of results) {
  const [mine, ...others] = rows, order = (r) => -median(pick(r, kinds[0], "new")), here = others.filter((r) => !r.why).sort((a, b) => order(a) - order(b));
  out("", `### ${family}`, "", `| counter | ${titles.join(" | ")} |`, `|---|${"--:|".repeat(kinds.length)}`, ...[mine, ...here].map((o) => `| ${o === mine ? "**ours**" : o.name} | ${kinds.map((k) => speed(o, k)).join(" | ")} |`));
  for (const o of others.filter((r) => r.why)) out(`| ${o.name} | ${o.why} |${" |".repeat(kinds.length - 1)}`);
  out("", `How many times as fast as a peer ours is, ${family}: of each round its own ratio; median (smallest–largest)`, "",
    `| beside | rounds | ${titles.map((k) => `${k}, new | ${k}, seen`).join(" | ")} |`, `|---|--:|${"--:|".repeat(2 * kinds.length)}`,
    ...here.map((o) => `| ${o.name} | ${o.kinds[kinds[0]].length} | ${kinds.flatMap((k) => ["new", "seen"].map((what) => spread(times(mine, o, k, what)))).join(" | ")} |`));
}
const nearest = (r, k, what, names) => r.rows.slice(2).filter((o) => names.test(o.name) && !o.why)
  .map((o) => ({ o, by: times(r.rows[0], o, k, what) })).sort((a, b) => median(a.by) - median(b.by))[0];
out("", "### In short: MB/s, and how many times as fast as", "", "| vocabulary | text | ours, new | Python tiktoken, its faster call | nearest peer | | ours, seen | tiktoken | nearest peer | |", "|---|---|--:|--:|---|--:|--:|--:|---|--:|");
for (const r of results) for (const k of kinds) {
  const cells = ["new", "seen"].flatMap((what) => {
    const a = nearest(r, k, what, theirs), b = nearest(r, k, what, /./);
    return [shown(pick(r.rows[0], k, what)), a ? spread(a.by) : "", b?.o.name ?? "", b ? spread(b.by) : ""];
  });
  out(`| ${r.family} | ${k} | ${cells.join(" | ")} |`);
}
if (!python) out("", "Not here: Python with pip, so tiktoken, tokenizers and gigatoken of Python were not measured.");
if (!native || !existsSync(native)) out("", "Not here: cargo, so no counters of Rust were measured.");
if (quick) process.exit(0);
out("", "### Adversarial texts of 1 MB: MB/s, never seen before (part of the speed on prose never seen before)", "", `| text | ${results.map((r) => r.family).join(" | ")} |`, `|---|${"--:|".repeat(results.length)}`);
results[0].hard.forEach((h, i) => out(`| ${h.input} | ${results.map((r) => `${r.hard[i].fresh.toFixed(1)} (1/${(median(pick(r.rows[0], "prose", "new")) / r.hard[i].fresh).toFixed(1)})`).join(" | ")} |`));
out("", "### Streams, chats, loading, memory", "", "A delta is one token's text: fed, the count and what may be delivered asked for. The chat: two messages of 300 bytes each. Memory: of one of two",
  "processes that count with the same file.", "",
  "| vocabulary | delta, prose ns | code ns | Chinese ns | near a limit, prose ns | allocations per 1000 deltas | chat µs | its tokens | method | load, first ms | best ms | RSS MB | shared MB | its own MB |",
  "|---|--:|--:|--:|--:|--:|--:|--:|---|--:|--:|--:|--:|--:|");
for (const r of results) {
  const s = r.stream, m = r.memory;
  out(`| ${r.family} | ${s.prose[0].ns} | ${s.code[0].ns} | ${s.chinese[0].ns} | ${s.prose[1].ns} | ${((1000 * s.prose[0].allocations) / s.prose[0].deltas).toFixed(2)} | ${r.chat.us} | ${r.chat.tokens} | ${r.chat.method} `
    + `| ${r.load.first_ms} | ${r.load.best_ms} | ${m.rss.toFixed(1)} | ${m.shared.toFixed(1)} | ${m.own.toFixed(1)} |`);
}
out("", "### Endless runs fed three or four bytes at a time: ns per delta at 1 KB · 4 KB · beyond 100 KB", "",
  `| run | ${results.map((r) => r.family).join(" | ")} |`, `|---|${"--:|".repeat(results.length)}`);
results[0].runs.forEach((x, i) => out(`| ${x.run} | ${results.map((r) => [r.runs[i].ns_1k, r.runs[i].ns_4k, r.runs[i].ns_100k].join(" · ")).join(" | ")} |`));
