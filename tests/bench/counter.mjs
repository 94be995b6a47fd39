// SPDX-License-Identifier: Apache-2.0
// A counter of tokens as a process that is loaded once and measures a text when it is asked to, for `make bench-tokens`: a line
// with the text's number in, a line of JSON out.
import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";

const TOO_LONG = 120000;
const env = { ...process.env, RAYON_NUM_THREADS: "1", NODE_NO_WARNINGS: "1" };
let pin = [];

// What is started from now on runs on this CPU; false where that cannot be.
export function setPinning(cpu) {
  if (spawnSync("taskset", ["-c", String(cpu), "true"]).status !== 0) return false;
  pin = ["taskset", "-c", String(cpu)];
  return true;
}

const start = (command, input) => {
  const [name, ...args] = [...pin, ...command];
  return spawn(name, args, { stdio: [input, "pipe", "pipe"], env });
};

// To its end: { code, out, err }.
export async function run(command) {
  const child = start(command, "ignore");
  let out = "", err = "";
  child.stdout.on("data", (d) => { out += d; });
  child.stderr.on("data", (d) => { err += d; });
  const timer = setTimeout(() => child.kill("SIGKILL"), TOO_LONG);
  const [code] = await once(child, "close");
  clearTimeout(timer);
  return { code, out, err };
}

export class Counter {
  #child; #lines; #err = ""; #ended;

  constructor(command) {
    this.#child = start(command, "pipe");
    this.#child.stdin.on("error", () => {}); // it has ended, which reading tells
    this.#child.stderr.on("data", (d) => { this.#err += d; });
    this.#ended = new Promise((resolve) => { this.#child.once("close", resolve); this.#child.once("error", resolve); });
    this.#lines = createInterface({ input: this.#child.stdout })[Symbol.asyncIterator]();
  }

  // What it says next; an error when it ends instead.
  async #next() {
    const timer = setTimeout(() => this.#child.kill("SIGKILL"), TOO_LONG);
    try {
      const { value, done } = await this.#lines.next();
      if (!done) return JSON.parse(value);
      await this.#ended;
      throw new Error(this.#err.trim().split("\n").at(-1)?.slice(0, 160) || `ended with ${this.#child.signalCode ?? this.#child.exitCode}`);
    } finally { clearTimeout(timer); }
  }

  // Whether it has such a vocabulary.
  async ready() { return (await this.#next()).none !== true; }

  measure(n) {
    this.#child.stdin.write(`${n}\n`);
    return this.#next();
  }

  async stop() {
    this.#child.stdin.end();
    const timer = setTimeout(() => this.#child.kill("SIGKILL"), 10000);
    await this.#ended;
    clearTimeout(timer);
  }
}
