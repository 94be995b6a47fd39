// SPDX-License-Identifier: Apache-2.0
// One process of a suite: started, watched, stopped, killed, started again. Its output goes to a file; what a sanitizer
// wrote there, or a death that nobody asked for, is a failure of the test.
import { spawn } from 'node:child_process';
import fs from 'node:fs';
import { PATIENCE, until, http } from './util.mjs';

const REPORTS = /(ERROR: AddressSanitizer|ERROR: LeakSanitizer|WARNING: ThreadSanitizer|: runtime error: |assertion failed)/;

export class Proc {
  // ready: a URL that answers 200 when it is.
  constructor({ name, command, args = [], env = {}, log, ready, cwd }) {
    Object.assign(this, { name, command, args, env, log, ready, cwd });
    this.child = null;
    this.problems = [];
    this.asked = false; // to end
  }

  get pid() { return this.child?.pid; }
  get running() { return this.child !== null; }

  start() {
    if (this.child) throw new Error(`${this.name} runs already`);
    const out = fs.openSync(this.log, 'a');
    this.asked = false;
    this.child = spawn(this.command, this.args, {
      cwd: this.cwd, stdio: ['ignore', out, out],
      env: { PATH: process.env.PATH, HOME: process.env.HOME ?? '/', LANG: 'C.UTF-8',
        ASAN_OPTIONS: 'abort_on_error=0:detect_stack_use_after_return=1:handle_abort=1', UBSAN_OPTIONS: 'print_stacktrace=1', ...this.env },
    });
    fs.closeSync(out);
    const child = this.child;
    this.ended = new Promise((resolve) => {
      child.once('error', (e) => {
        this.problems.push(`${this.name}: ${e.message}`);
        this.child = null;
        resolve({ code: null, signal: null });
      });
      child.once('exit', (code, signal) => {
        this.child = null;
        this.last = { code, signal };
        if (!this.asked) this.problems.push(`${this.name} died unasked: ${signal ?? `exit ${code}`}`);
        else if (this.graceful && (code !== 0)) this.problems.push(`${this.name} did not end well: ${signal ?? `exit ${code}`}`);
        resolve({ code, signal });
      });
    });
    return this;
  }

  async waitReady(timeout = PATIENCE) {
    if (!this.ready) return this;
    await until(`${this.name} is ready`, async () => {
      if (!this.child) { this.gone = true; return true; }
      return (await http('GET', this.ready)).status === 200;
    }, { timeout });
    if (this.gone) { this.gone = false; throw new Error(`${this.name} ended before it was ready:\n${this.tail(20)}`); }
    return this;
  }

  signal(sig) { this.child?.kill(sig); }

  // SIGTERM, and a good end within the time.
  async stop(timeout = 2 * PATIENCE) {
    if (!this.child) return;
    this.asked = this.graceful = true;
    const child = this.child;
    child.kill('SIGCONT');
    child.kill('SIGTERM');
    const timer = setTimeout(() => {
      this.problems.push(`${this.name} did not end within ${timeout} ms of SIGTERM`);
      child.kill('SIGKILL');
    }, timeout);
    await this.ended;
    clearTimeout(timer);
  }

  // kill -9.
  async kill() {
    if (!this.child) return;
    this.asked = true;
    this.graceful = false;
    this.child.kill('SIGKILL');
    await this.ended;
  }

  async restart() {
    await this.stop();
    await this.start().waitReady();
  }

  text() {
    try { return fs.readFileSync(this.log, 'utf8'); } catch { return ''; }
  }
  tail(n) { return this.text().trimEnd().split('\n').slice(-n).join('\n'); }

  // What went wrong in its whole life so far.
  check() {
    const lines = this.text().split('\n');
    const at = lines.findIndex((l) => REPORTS.test(l));
    return at < 0 ? this.problems : [...this.problems, `${this.name}: ${lines.slice(at, at + 25).join('\n')}`];
  }
}
