// SPDX-License-Identifier: Apache-2.0
// Waiting for events, free ports, and reading what daemons export.
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

// One of them, with so much room behind it.
export const randomPort = (room = 0) => FIRST_PORT + randomInt(portRange() - room);

const listening = (port) => new Promise((resolve, reject) => {
  const s = net.createServer();
  s.once('error', (e) => (e.code === 'EADDRINUSE' ? resolve(null) : reject(e)));
  s.listen(port, '127.0.0.1', () => resolve(s));
});

// n ports that nobody listens on. They are held all at once, so that no two are the same.
export async function freePorts(n) {
  const servers = [];
  while (servers.length < n) {
    const s = await listening(randomPort());
    if (s) servers.push(s);
  }
  const ports = servers.map((s) => s.address().port);
  await Promise.all(servers.map((s) => new Promise((resolve) => s.close(resolve))));
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
