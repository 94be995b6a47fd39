// SPDX-License-Identifier: Apache-2.0
// Renders a template with @huggingface/jinja: {"template","contexts"} on stdin, a list of {"text"} or {"error"} out.
import { readFileSync } from "node:fs";
import { Template } from "@huggingface/jinja";

const { template, contexts } = JSON.parse(readFileSync(0, "utf8"));
// The clock stands where templates.py has it.
process.env.TZ = "UTC";
const RealDate = Date;
globalThis.Date = class extends RealDate {
  constructor(...args) {
    super(...(args.length > 0 ? args : ["2026-01-02T03:04:05Z"]));
  }
};

let compiled, problem;
try {
  compiled = new Template(template);
} catch (e) {
  problem = e.message;
}
console.log(JSON.stringify(contexts.map((context) => {
  if (!compiled) return { error: problem };
  try {
    return { text: compiled.render(context) };
  } catch (e) {
    return { error: String(e.message) };
  }
})));
