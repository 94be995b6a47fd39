// SPDX-License-Identifier: Apache-2.0
// Waiting for events, free ports, and reading what daemons export.
import assert from 'node:assert/strict';
import { randomInt } from 'node:crypto';
import fs from 'node:fs';
import net from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';

// Calls fn until it returns something truthy (and does not throw), and returns that. The error after the time names what
// was waited for and how fn failed last. The time only tells slow from never: no test is about how fast a machine is.
export const PATIENCE = 120000;
export async function until(what, fn, { timeout = PATIENCE, every = 20 } = {}) {
  const end = Date.now() + timeout;
  let last;
  for (;;) {
    try {
      const value = await fn();
      if (value) return value;
      last = undefined;
    } catch (e) {
      if (e.final) throw e; // waiting will not mend it
      last = e;
    }
    if (Date.now() > end) throw new Error(`waited ${timeout} ms for: ${what}${last ? ` (${last.message})` : ''}`, { cause: last });
    await delay(every);
  }
}

// Does what counts on everything that a window or a quota has: again, with the next number, when it failed. What an edge
// has in hand when it stands still for longer than its lease is lost to that window, so that there is less; never more:
// an error that is final says so.
export async function again(fn, times = 5) {
  for (let n = 1; ; n++) {
    try {
      return await fn(n);
    } catch (e) {
      if (e.final || n === times) throw e;
      console.log(`    again: ${e.message}`);
    }
  }
}
// What must hold however often it is tried.
export function never(is, message) {
  if (!is) return;
  const e = new assert.AssertionError({ message });
  e.final = true;
  throw e;
}

// Ports that connections going out do not get: else one of them could sit on a port whose server is just not running, and
// a client that keeps trying that port could even be given it as its own, and be connected to itself.
const FIRST_PORT = 10240;
function portRange() {
  try {
    const low = Number(fs.readFileSync('/proc/sys/net/ipv4/ip_local_port_range', 'utf8').split(/\s+/)[0]);
    if (low > FIRST_PORT + 2000) return low - FIRST_PORT;
  } catch { /* not this system */ }
  return 32768 - FIRST_PORT;
}

const listening = (where) => new Promise((resolve, reject) => {
  const s = net.createServer();
  s.once('error', (e) => (e.code === 'EADDRINUSE' ? resolve(null) : reject(e)));
  s.listen(where, () => resolve(s));
});

// Whether a port is ours until this process ends: nobody else has the socket of that name (in the abstract namespace, which
// goes with its process; tests/unit/support_port.h does the same), and nobody listens there. So no two tests that run at the
// same time are given one port, though servers come, go and come again on it.
async function claim(port) {
  const name = await listening({ path: `\0aigw-test-port-${port}` });
  if (!name) return false;
  name.unref();
  const s = await listening({ port, host: '127.0.0.1' });
  if (s) await new Promise((resolve) => s.close(resolve));
  return s !== null;
}

// A port whose companions, so far above it, are free too.
export async function portFamily(offsets = []) {
  for (;;) {
    const port = FIRST_PORT + randomInt(portRange() - Math.max(0, ...offsets));
    let free = await claim(port);
    for (const o of offsets) free = free && await claim(port + o);
    if (free) return port;
  }
}

// n ports that nobody listens on, and nobody else is given.
export async function freePorts(n) {
  const ports = [];
  while (ports.length < n) ports.push(await portFamily());
  return ports;
}

// The samples of a text in Prometheus's format: [{ name, labels, value }].
export function parseMetrics(text) {
  const samples = [];
  for (const line of text.split('\n')) {
    if (line === '' || line.startsWith('#')) continue;
    const m = /^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? (\S+)/.exec(line);
    if (!m) throw new Error(`not a sample: ${line}`);
    const labels = {};
    for (const [, k, v] of (m[2] ?? '').matchAll(/([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\]|\\.)*)"/g))
      labels[k] = v.replace(/\\(.)/g, (_, c) => (c === 'n' ? '\n' : c));
    samples.push({ name: m[1], labels, value: m[3] === '+Inf' ? Infinity : Number(m[3]) });
  }
  return samples;
}

// The sum of all samples of a name whose labels include `labels`.
export function sumOf(samples, name, labels = {}) {
  return samples
    .filter((s) => s.name === name && Object.entries(labels).every(([k, v]) => s.labels[k] === v))
    .reduce((sum, s) => sum + s.value, 0);
}

export async function getText(url, options) {
  const r = await fetch(url, options);
  const text = await r.text();
  if (!r.ok) throw new Error(`${url}: ${r.status} ${text.slice(0, 300)}`);
  return text;
}

// { status, headers, text, json }, whatever the status.
export async function http(method, url, { body, headers = {}, signal } = {}) {
  const r = await fetch(url, {
    method,
    headers: body === undefined ? headers : { 'content-type': 'application/json', ...headers },
    body: body === undefined || typeof body === 'string' ? body : JSON.stringify(body),
    signal,
  });
  const text = await r.text();
  let json;
  try { json = JSON.parse(text); } catch { /* not every answer is JSON */ }
  return { status: r.status, headers: r.headers, text, json };
}

// The `data:` lines of an event stream's text; the terminator too.
export function sseData(text) {
  return text.split('\n').filter((l) => l.startsWith('data:')).map((l) => l.slice(5).trim());
}

// The usage records of a message on the bus: it is one, or holds several.
export const usageRecords = (m) => m.json().records ?? [m.json()];
