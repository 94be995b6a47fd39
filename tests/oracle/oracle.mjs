// SPDX-License-Identifier: Apache-2.0
// `make oracle`: ids of every vocabulary against OpenAI's tiktoken and Hugging Face's tokenizers, streams against whole
// texts, templates against Jinja2. Says what it does as it goes, ends with a table, and fails on any difference.
//   oracle.mjs BUILD VOCAB_DIR WORK PYTHON      (PYTHON may be "": then references of npm only)
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { availableParallelism } from "node:os";
import { basename, dirname, join } from "node:path";
import { spawn } from "node:child_process";
import { once } from "node:events";
import * as corpus from "./corpus.mjs";
import { generator } from "./mean.mjs";
import { Engine, ids, longestRun, shrink, tokens } from "./engines.mjs";
import { families, specialStrings, tokenizerJson } from "./families.mjs";
import { words } from "./harvest.mjs";

const [build, vocabDir, work, python] = process.argv.slice(2);
const megabytes = Number(process.env.ORACLE_MB || 20), seed = Number(process.env.ORACLE_SEED || 1);
const only = new RegExp(process.env.ORACLE_ONLY || ".");
const here = import.meta.dirname, begin = Date.now();
const LONGEST_FOR_TIKTOKEN = 8000; // characters in a piece: its time is quadratic in them

const say = (text) => console.log(`${String(Math.round((Date.now() - begin) / 1000)).padStart(5)} s  ${text}`);
const rows = new Map(); // "family reference" -> its row of the table
const findings = [];
function row(family, reference, add) {
  const key = `${family}\t${reference}`, r = rows.get(key) ?? { family, reference, texts: 0, bytes: 0, tokens: 0, left: 0, different: 0 };
  for (const [k, n] of Object.entries(add)) r[k] += n;
  rows.set(key, r);
}
const problem = (family, reference, what) => {
  row(family, reference, { different: 1 });
  findings.push(`${family}, ${reference}: ${what}`);
  say(`DIFFERENT  ${family}, ${reference}: ${what}`);
};

// --- what is compared -----------------------------------------------------------------------------------------------

const { known, unknown } = families(vocabDir, process.env.VOCAB_CACHE || undefined);
const all = known.filter((f) => only.test(f.name));
mkdirSync(work, { recursive: true });
for (const f of unknown) say(`${f} is not in vocab.list: not compared`);
if (all.length === 0) throw new Error(`no vocabularies in ${vocabDir}: make vocab`);
say(`vocabularies: ${all.map((f) => f.name).join(", ")}`);
const { dependencies } = JSON.parse(readFileSync(join(here, "package.json")));
const engines = `npm tiktoken ${dependencies.tiktoken} and @anush008/tokenizers ${dependencies["@anush008/tokenizers"]} (Hugging Face's Rust engine); `
  + (python ? `Python ${readFileSync(join(here, "requirements.txt"), "utf8").trim().split("\n").join(", ").replaceAll("==", " ")}` : "none of Python: it was not asked for, or there is no python3 with pip");
say(`references: ${engines}`);

const ranks = known.find((f) => f.name === "o200k_base") ?? known.find((f) => f.kind === "tiktoken");
const strings = [...new Set(known.flatMap((f) => specialStrings(f).slice(0, 60)))];
const kinds = new Map(), texts = [];
for (const d of corpus.documents(megabytes, seed, { strings, tokens: ranks ? words(ranks.source) : [Buffer.from(" word")] })) {
  kinds.set(d.kind, (kinds.get(d.kind) ?? 0) + d.bytes.length);
  texts.push(d.bytes);
}
const runs = texts.map(longestRun);
const total = texts.reduce((n, t) => n + t.length, 0);
say(`corpus: seed ${seed}, ${texts.length} texts, ${(total / 1e6).toFixed(1)} MB: ${[...kinds].sort((a, b) => b[1] - a[1]).map(([k, n]) => `${k} ${(n / 1e6).toFixed(1)}`).join(", ")}`);
const file = join(work, "corpus.bin");
corpus.write(file, texts);

// Texts of 10 MB: like the corpus, in a different order, and runs of one character.
function* large() {
  if (megabytes < 20) return;
  const g = generator(seed + 1), parts = [];
  for (let have = 0; have < 10e6; have += parts.at(-1).length) parts.push(g.pick(texts));
  yield { name: "10 MB of everything", text: Buffer.concat(parts) };
  yield { name: "10 MB of 'a'", text: Buffer.alloc(10e6, "a") };
  yield { name: "10 MB of '中'", text: Buffer.from("中".repeat(10e6 / 3)) };
  yield { name: "3 MB of spaces", text: Buffer.alloc(3e6, " ") }; // of more, the reference's regular expressions give up
}

// --- comparing ------------------------------------------------------------------------------------------------------

const ours = (f, control) => [join(build, "bin/aigw-vocab"), "ids", f.vocab, ...(control ? ["--control"] : [])];
function references(f, control) {
  const mode = control ? "control" : "text", list = [];
  const json = join(work, `${f.name}-${mode}.json`), family = join(work, `${f.name}.family.json`);
  writeFileSync(json, JSON.stringify(tokenizerJson(f, control)));
  writeFileSync(family, JSON.stringify({ ...f, base: f.source && basename(f.source, ".tiktoken") }));
  const py = [python, join(here, "refs.py")], npm = [process.execPath, join(here, "refs.mjs")];
  if (f.kind === "tiktoken") {
    if (python) list.push({ name: "tiktoken (Python)", command: [...py, "tiktoken", family, mode], short: true });
    list.push({ name: "tiktoken (npm)", command: [...npm, "tiktoken", family, mode], short: true });
  }
  if (python) list.push({ name: "tokenizers (Python)", command: [...py, "tokenizers", json] });
  list.push({ name: "tokenizers (npm)", command: [...npm, "tokenizers", json] });
  return { list, done: () => [json, family].forEach((p) => rmSync(p, { force: true })) };
}

async function report(f, control, ref, text) {
  const engine = new Engine(ref.command);
  const differ = async (list) => { const [a, b] = [await ids(ours(f, control), list), await engine.ask(list)]; return list.map((_, i) => a[i] !== b[i]); };
  const least = await shrink(text, differ), [a] = await ids(ours(f, control), [least]), [b] = await engine.ask([least]);
  await engine.end();
  return `${control ? "control" : "text"}: ${JSON.stringify(least.toString("utf8").slice(0, 300))} (hex ${least.toString("hex").slice(0, 400)}): want ${b.slice(0, 300)}, got ${a.slice(0, 300)}`;
}

async function compare(f, control, ref, list, mine, label = "") {
  const from = Date.now(), theirs = await ids(ref.command, list), name = ref.name + label;
  const bad = list.flatMap((_, i) => (theirs[i] === mine[i] ? [] : [i]));
  const n = theirs.reduce((sum, l) => sum + tokens(l), 0), bytes = list.reduce((sum, t) => sum + t.length, 0);
  row(f.name, name, { texts: list.length, bytes, tokens: n, different: bad.length });
  say(`${f.name.padEnd(14)} ${name}, special strings as ${control ? "tokens" : "text"}: ${list.length} texts, ${n} tokens, ${bad.length} differences (${((Date.now() - from) / 1000).toFixed(0)} s)`);
  if (bad.length === 0) return;
  const shortest = bad.reduce((a, b) => (list[a].length <= list[b].length ? a : b));
  const what = await report(f, control, ref, list[shortest]);
  findings.push(`${f.name}, ${name}, ${what}`);
  say(`DIFFERENT  ${f.name}, ${name}, ${what}`);
}

async function family(f, control) {
  const refs = references(f, control), mine = await ids(ours(f, control), texts);
  for (const ref of refs.list) {
    const keep = texts.map((_, i) => !ref.short || runs[i] <= LONGEST_FOR_TIKTOKEN);
    row(f.name, ref.name, { left: keep.filter((k) => !k).length });
    try {
      await compare(f, control, ref, texts.filter((_, i) => keep[i]), mine.filter((_, i) => keep[i]));
    } catch (e) {
      problem(f.name, ref.name, e.message);
    }
  }
  const ref = refs.list.find((r) => !r.short);
  for (const { name, text } of control ? [] : large()) {
    const mine = await ids(ours(f, control), [text]);
    try {
      await compare(f, control, ref, [text], mine, `, ${name}`);
    } catch (e) { // it is the reference that could not
      row(f.name, `${ref.name}, ${name}`, { left: 1 });
      say(`${f.name.padEnd(14)} ${ref.name}, ${name}: left out, the reference fails: ${e.message.trim().split("\n").at(-1)}`);
    }
  }
  refs.done();
}

async function run(command, args, input) {
  const child = spawn(command, args, { stdio: [input ? "pipe" : "ignore", "pipe", "pipe"] });
  let out = "", err = "";
  child.stdout.on("data", (d) => { out += d; });
  child.stderr.on("data", (d) => { err += d; });
  if (input) child.stdin.end(input);
  const [code] = await once(child, "close");
  return { code, out, err };
}

async function stream(f) {
  const { code, out, err } = await run("sh", ["-c", `"$0" "$1" ${seed} <"$2"`, join(build, "oracle/stream"), f.vocab, file]);
  const [n, bytes, count, feeds, inexact, different] = out.trim().split(" ").map(Number);
  if (!(n === texts.length)) return problem(f.name, "stream", `exit ${code} ${err.trim().slice(-500)}`);
  row(f.name, "stream: random splits", { texts: 2 * n, bytes: 2 * bytes, tokens: count, left: inexact, different });
  say(`${f.name.padEnd(14)} streams: ${2 * n} texts in ${feeds} pieces, ${different} differences, ${inexact} inexact by their own word`);
  if (different > 0) findings.push(`${f.name}, stream: ${err.trim().split("\n")[0]}`);
}

// The conversations, and what is said about them, are those of templates.py and chats.py.
async function templates() {
  if (!python) return say("templates: not compared, there is no Jinja2");
  const list = all.filter((f) => f.config && existsSync(f.config));
  for (const [script, args] of [
    ["templates.py", [join(build, "oracle/render"), ...list.map((f) => f.config)]],
    ["chats.py", [join(build, "bin/aigw-count"), vocabDir, ...list.map((f) => `${f.name}=${dirname(f.source)}`)]],
  ]) {
    const { code, out, err } = await run(python, [join(here, script), ...args]);
    for (const line of out.trimEnd().split("\n")) say(`  ${line}`);
    const [, n, bad] = /^\w+: (\d+) \w+ compared, (\d+) failures$/m.exec(out) ?? [];
    row("templates", `Jinja2, ${script}`, { texts: Number(n ?? 0) });
    if (code !== 0 || !(n > 0) || bad !== "0") problem("templates", `Jinja2, ${script}`, `exit ${code}, ${bad} failures. ${err.trim().slice(-500)}`);
  }
}

const work_list = [...all.flatMap((f) => [() => family(f, false), () => family(f, true)]), ...all.map((f) => () => stream(f)), templates];
await Promise.all(Array.from({ length: Math.min(4, availableParallelism()) }, async () => { while (work_list.length > 0) await work_list.shift()(); }));

// --- the table --------------------------------------------------------------------------------------------------------

console.log(`\n| vocabulary | reference | texts | MB | tokens | left out | differences |\n|---|---|--:|--:|--:|--:|--:|`);
for (const r of [...rows.values()].sort((a, b) => all.findIndex((f) => f.name === a.family) - all.findIndex((f) => f.name === b.family)))
  console.log(`| ${r.family} | ${r.reference} | ${r.texts} | ${(r.bytes / 1e6).toFixed(1)} | ${r.tokens} | ${r.left} | ${r.different} |`);
console.log(`\nReferences: ${engines}.`);
console.log("Every text is compared twice: special strings as text, and as control tokens. Left out: texts with pieces of more than "
  + `${LONGEST_FOR_TIKTOKEN} characters, for tiktoken, whose time is quadratic in them; large texts on which a reference fails; streams that said they are inexact.`);
for (const f of findings) console.log(`- ${f}`);
// One comparison is a family and a reference.
const failed = [...rows.values()].filter((r) => r.different > 0 || (r.texts === 0 && r.left === 0)).length;
console.log(`${rows.size - failed} passed, ${failed} failed`);
process.exit(failed > 0 || rows.size === 0 ? 1 : 0);
