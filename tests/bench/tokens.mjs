// SPDX-License-Identifier: Apache-2.0
// `make bench-tokens`: what counting tokens costs here, beside everybody else's counters, one after the other on the same
// texts in the same run. Prints tables for docs/tokens.md; everything measured is in WORK/results.json.
//   tokens.mjs BUILD VOCAB_DIR WORK PYTHON PEERS    (PYTHON and PEERS may be "": left out)
import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { cpus } from "node:os";
import { basename, join } from "node:path";
import { families, tokenizerJson } from "../oracle/families.mjs";

const [build, vocabDir, work, python, native] = process.argv.slice(2);
const here = import.meta.dirname, begin = Date.now(), ours = join(build, "bench/tokens");
const everybody = new RegExp(process.env.BENCH_PEERS || "^(cl100k_base|o200k_base|qwen3|llama3_2|deepseek_v3|mistral_nemo)$");
const only = new RegExp(process.env.BENCH_ONLY || ".");
const say = (text) => console.error(`${String(Math.round((Date.now() - begin) / 1000)).padStart(5)} s  ${text}`);

async function run(command, input) {
  const child = spawn(command[0], command.slice(1), { stdio: [input ? "pipe" : "ignore", "pipe", "pipe"], env: { ...process.env, RAYON_NUM_THREADS: "1", NODE_NO_WARNINGS: "1" } });
  let out = "", err = "";
  child.stdout.on("data", (d) => { out += d; });
  child.stderr.on("data", (d) => { err += d; });
  const timer = setTimeout(() => child.kill("SIGKILL"), 120000);
  const [code] = await once(child, "close");
  clearTimeout(timer);
  return { code, out, err };
}
async function lines(command) {
  const { code, out, err } = await run(command);
  if (code !== 0) throw new Error(`exit ${code}: ${err.trim().split("\n").at(-1)?.slice(0, 160)}`);
  return out.trim().split("\n").filter(Boolean).map((l) => JSON.parse(l));
}

// --- the texts, the families ------------------------------------------------------------------------------------------

const kinds = ["code", "prose", "chinese", "mixed"], file = (kind) => join(work, "texts", `${kind}.docs`);
mkdirSync(work, { recursive: true });
const made = await run([process.execPath, join(here, "texts.mjs"), join(work, "texts"), "6", vocabDir]);
if (made.code !== 0) throw new Error(made.err);
say(`texts: ${made.out.trim().split("\n").join("; ")}`);
const all = families(vocabDir, process.env.VOCAB_CACHE || undefined).known.filter((f) => only.test(f.name));
if (all.length === 0) throw new Error(`no vocabularies in ${vocabDir}: make vocab`);

const peers = [
  ...["tiktoken", "tiktoken, to a buffer", "tokenizers", "gigatoken", "gigatoken, one batch", "wordchipper"].map((p) => ({ name: `${p} (Python)`, id: p, with: python && [python, join(here, "peers.py")] })),
  ...["tiktoken-rs", "bpe-openai", "tiktoken (crate)", "tokenizers", "kitoken", "tokie", "splintr", "fastokens"].map((p) => ({ name: `${p} (Rust)`, id: p, with: native && [native] })),
  ...["tiktoken", "gpt-tokenizer", "@anush008/tokenizers"].map((p) => ({ name: `${p} (npm)`, id: p, with: [process.execPath, join(here, "peers.mjs")] })),
];

// --- counting texts ---------------------------------------------------------------------------------------------------

const results = [];
async function texts(f) {
  const rows = [{ name: "ours", kinds: {} }], paths = kinds.map(file);
  for (const r of await lines([ours, "text", f.vocab, ...paths])) rows[0].kinds[basename(r.file, ".docs")] = r;
  say(`${f.name.padEnd(14)} ours: ${kinds.map((k) => `${k} ${rows[0].kinds[k].fresh} · ${rows[0].kinds[k].best}`).join(", ")} MB/s`);
  const counts = {};
  for (const k of kinds) counts[k] = (await run([ours, "counts", f.vocab, file(k)])).out.trim().split("\n").map(Number);
  const json = join(work, `${f.name}.json`);
  writeFileSync(json, JSON.stringify(tokenizerJson(f, false)));
  for (const p of peers) {
    if (!everybody.test(f.name) && p.id !== "tiktoken") continue;
    const row = { name: p.name, kinds: {} };
    if (!p.with) row.why = "not here";
    else try {
      const got = await lines([...p.with, p.id, f.name, json, f.kind === "tiktoken" ? f.source : "-", ...paths]);
      if (got[0]?.none) continue; // has no such family
      for (const r of got) {
        const k = basename(r.file, ".docs");
        const half = counts[k].length >> 1, mine = [...counts[k].slice(0, r.docs[0]), ...counts[k].slice(half, half + r.docs[1])];
        r.same = mine.reduce((a, b) => a + b, 0) === r.tokens;
        row.kinds[k] = r;
      }
    } catch (e) { row.why = e.message; }
    rows.push(row);
    say(`${f.name.padEnd(14)} ${p.name}: ${row.why ?? `${kinds.map((k) => `${k} ${row.kinds[k]?.fresh} · ${row.kinds[k]?.best}${row.kinds[k]?.same ? "" : " (other counts)"}`).join(", ")} MB/s`}`);
  }
  results.push({ family: f.name, rows });
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
for (const r of results) {
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
const speed = (r, mine) => (r === undefined ? "" : `${r.fresh.toFixed(0)} · ${r.best.toFixed(0)} (${r.median.toFixed(0)})${mine ? ` ×${(mine.fresh / r.fresh).toFixed(1)} · ${(mine.best / r.best).toFixed(1)}` : ""}${r.same === false ? " ≠" : ""}`);
out("", `${cpus()[0]?.model}. MB/s (10^6 bytes of UTF-8) of the processor's time, one thread. First on text that was never seen, when as much of`,
  "its kind has been; then, behind the point, on the same text again and again: the best run, in brackets the median (some keep what they have",
  "counted). × how many times faster ours is. ≠ the peer's counts are other than ours. Peers that need more than 0.6 s for a text get part of it.");
for (const r of results) {
  const [mine, ...others] = r.rows;
  out("", `### ${r.family}`, "", "| counter | code | prose | Chinese | mixed |", "|---|--:|--:|--:|--:|", `| **ours** | ${kinds.map((k) => speed(mine.kinds[k])).join(" | ")} |`);
  for (const o of others.filter((x) => !x.why).sort((a, b) => (b.kinds.prose?.fresh ?? 0) - (a.kinds.prose?.fresh ?? 0)))
    out(`| ${o.name} | ${kinds.map((k) => speed(o.kinds[k], mine.kinds[k])).join(" | ")} |`);
  for (const o of others.filter((x) => x.why)) out(`| ${o.name} | ${o.why} | | | |`);
}
const fastest = (r, k, of, names = /./) => r.rows.slice(1).filter((o) => names.test(o.name) && o.kinds[k]).sort((a, b) => b.kinds[k][of] - a.kinds[k][of])[0];
out("", "### In short", "", "| vocabulary | text | ours, new | Python tiktoken, its fastest call | × | fastest peer | × | ours, again | tiktoken | × | fastest peer | × |",
  "|---|---|--:|--:|--:|---|--:|--:|--:|--:|---|--:|");
for (const r of results) for (const k of kinds) {
  const cells = ["fresh", "best"].flatMap((of) => {
    const mine = r.rows[0].kinds[k][of], a = fastest(r, k, of, /^tiktoken.*\(Python\)$/)?.kinds[k][of], b = fastest(r, k, of);
    return [mine.toFixed(0), a?.toFixed(1) ?? "", a ? (mine / a).toFixed(1) : "", b ? `${b.name} ${b.kinds[k][of].toFixed(0)}` : "", b ? (mine / b.kinds[k][of]).toFixed(1) : ""];
  });
  out(`| ${r.family} | ${k} | ${cells.join(" | ")} |`);
}
out("", "### Adversarial texts of 1 MB: MB/s, never seen before (part of the speed on prose never seen before)", "", `| text | ${results.map((r) => r.family).join(" | ")} |`, `|---|${"--:|".repeat(results.length)}`);
results[0].hard.forEach((h, i) => out(`| ${h.input} | ${results.map((r) => `${r.hard[i].fresh.toFixed(1)} (1/${(r.rows[0].kinds.prose.fresh / r.hard[i].fresh).toFixed(1)})`).join(" | ")} |`));
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
if (!python) out("", "Not here: Python with pip, so tiktoken, tokenizers and gigatoken of Python were not measured.");
if (!native || !existsSync(native)) out("", "Not here: cargo, so no counters of Rust were measured.");
