// SPDX-License-Identifier: Apache-2.0
// Programs that answer texts with ids: aigw-vocab and the references. And what to do when two of them differ.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { Readable } from "node:stream";

const framed = function* (texts) { for (const t of texts) yield Buffer.concat([Buffer.from(`${t.length}\n`), t]); };

// A program that reads framed texts on stdin and answers each with a line of ids. ask() throws when it does not.
export class Engine {
  constructor([program, ...args]) {
    this.child = spawn(program, args, { stdio: ["pipe", "pipe", "pipe"] });
    this.name = `${program} ${args.join(" ")}`;
    this.chunks = [];
    this.lines = this.wanted = 0;
    this.said = "";
    this.child.stdin.on("error", () => {}); // it ended early: seen in the lines that are missing
    this.child.stdout.on("data", (d) => {
      this.chunks.push(d);
      for (let at = d.indexOf(10); at >= 0; at = d.indexOf(10, at + 1)) this.lines++;
      if (this.lines >= this.wanted) this.wake?.();
    });
    this.child.stderr.on("data", (d) => { this.said = (this.said + d).slice(-2000); });
    this.closed = once(this.child, "close").then(([code]) => { this.wake?.(); return code; });
  }

  // The line of each text. `last`: nothing will be asked any more (aigw-vocab answers when its input ends).
  async ask(texts, last = false) {
    this.lines = 0;
    this.wanted = texts.length;
    const answered = new Promise((wake) => { this.wake = wake; });
    Readable.from(framed(texts), { objectMode: true }).pipe(this.child.stdin, { end: last });
    if (texts.length > 0) await answered;
    const lines = Buffer.concat(this.chunks).toString("latin1").split("\n").slice(0, -1);
    this.chunks = [];
    const code = last || lines.length !== texts.length ? await this.end() : 0;
    if (code !== 0 || lines.length !== texts.length) throw new Error(`${this.name}: exit ${code}, ${lines.length} of ${texts.length} answers. ${this.said.trim()}`);
    return lines;
  }

  end() {
    this.child.stdin.end();
    return this.closed;
  }
}
export const ids = (command, texts) => new Engine(command).ask(texts, true);

export const tokens = (line) => { let n = line === "" ? 0 : 1; for (let i = line.indexOf(" "); i >= 0; i = line.indexOf(" ", i + 1)) n++; return n; };

// The longest run of one sort of characters: about the longest piece that a pattern can cut.
export function longestRun(bytes) {
  let most = 0;
  for (const [run] of bytes.toString("utf8").matchAll(/[\p{L}\p{M}\p{N}]+|[^\s\p{L}\p{N}]+|\s+/gu)) most = Math.max(most, run.length);
  return most;
}

// The smallest text within `text` that still differs: pieces are taken out while it does. differ(texts) says which do.
export async function shrink(text, differ, rounds = 120) {
  for (let size = text.length >> 1; size > 0 && rounds > 0;) {
    const tries = [];
    for (let at = 0; at < text.length; at += size) tries.push(Buffer.concat([text.subarray(0, at), text.subarray(at + size)]));
    const some = tries.slice(0, 100), more = tries.slice(100);
    let found = -1, list = some;
    for (; list.length > 0 && found < 0; list = list === some ? more : []) {
      const which = await differ(list);
      found = which.indexOf(true);
      if (found >= 0) text = list[found];
      rounds--;
    }
    if (found < 0) size >>= 1;
    else size = Math.min(size, text.length);
  }
  return text;
}
