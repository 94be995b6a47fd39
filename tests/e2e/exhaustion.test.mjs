// SPDX-License-Identifier: Apache-2.0
// What runs out: file descriptors, the disk, a server's queue of connections, patience; and clients that come in great
// numbers. Each has a clear answer, others are served, and it ends when the cause does.
import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import fs from 'node:fs';
import net from 'node:net';
import path from 'node:path';
import { after } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { Records } from './lib/records.mjs';
import { demoConfig, suiteTest } from './lib/suite.mjs';
import { PATIENCE, freePorts, getText, sseData, until } from './lib/util.mjs';
import { Wire } from './lib/wire.mjs';

const MB = 1024 * 1024;
const ASAN = fs.readFileSync(`${process.env.AIGW_BIN ?? 'build/asan/bin'}/aigw-edge`).includes('__asan_init');
const head = (fields = '') => `POST /api/chat HTTP/1.1\r\nHost: e\r\nX-Channel-Code: test-channel\r\nContent-Type: application/json\r\n${fields}`;
const post = (body, fields = '') => `${head(fields)}Content-Length: ${Buffer.byteLength(body)}\r\n\r\n${body}`;
const chat = (extra = {}) => JSON.stringify({ model: 'Qwen3-8B', messages: [{ role: 'user', content: 'hello' }], ...extra });
const plain = (change = () => {}) => (suite) => { const c = { ...demoConfig(suite), policies: [] }; change(c, suite); return c; };

// Starts the edge again, by a shell that sets limits first.
async function limited(suite, limits) {
  const edge = suite.procs['edge-1'];
  await edge.stop();
  edge.args = ['-c', `${limits}; exec "$0"`, edge.command];
  edge.command = '/bin/sh';
  await edge.start().waitReady();
}
const cpuMs = (pid) => {
  const f = fs.readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1].split(' ');
  return (Number(f[11]) + Number(f[12])) * 10;
};

// A server that listens, whose queue of connections is full: SYNs to it are dropped.
async function deafServer() {
  const child = spawn(process.execPath, ['-e', `
    const s = require('net').createServer(() => {});
    s.listen({ port: 0, host: '127.0.0.1', backlog: 1 }, () => console.log(s.address().port));`], { stdio: ['ignore', 'pipe', 'inherit'] });
  const port = Number(await new Promise((resolve) => child.stdout.once('data', resolve)));
  child.kill('SIGSTOP');
  await until('it is stopped', () => / T /.test(fs.readFileSync(`/proc/${child.pid}/stat`, 'utf8')));
  const fillers = Array.from({ length: 8 }, () => net.connect(port, '127.0.0.1').on('error', () => {}));
  await delay(300);
  return { port, close: () => { for (const f of fillers) f.destroy(); child.kill('SIGKILL'); } };
}

const deaf = await deafServer();
const [closed] = await freePorts(1);
after(() => deaf.close());

suiteTest('few descriptors', { config: plain(), env: { edge: { HEAD_TIMEOUT_MS: '300000' } } }, async (suite, step) => {
  await limited(suite, 'ulimit -n 256');
  const edge = suite.procs['edge-1'];
  await step('connections beyond what they suffice for are told so; those within are served, and the ops listener answers', async () => {
    const wires = Array.from({ length: 600 }, () => new Wire(suite.edge()));
    await until('they have come', async () => (await suite.edgeSum('gateway_turned_away_total')) > 100);
    // Those beyond have been told or closed when as many are left as the edge has.
    await until('the others are told', async () => {
      const silent = wires.filter((w) => w.length === 0 && !w.closed).length;
      return silent <= 128 && silent === await suite.edgeSum('gateway_connections');
    });
    const said = wires.filter((w) => w.length > 0), shut = wires.filter((w) => w.length === 0 && w.closed), open = wires.filter((w) => w.length === 0 && !w.closed);
    console.log(`    ${open.length} are in, ${said.length} were told, ${shut.length} closed`);
    for (const w of said) assert.equal((await w.answer()).status, 503);
    assert.ok(open.length >= 40 && open.length <= 128, `${open.length}`);
    assert.ok(said.length >= 10);
    // Each of those within has what it needs for a stream of its own.
    for (const w of open) w.write(post(chat({ stream: true }), 'x-mock: tokens=3\r\n'));
    for (const w of open) assert.equal((await w.answer()).status, 200);
    const before = cpuMs(edge.pid), t0 = Date.now();
    for (let i = 0; i < 10; i++) {
      assert.equal((await (await fetch(`${edge.ops}/healthz`)).text()).trim(), 'ok');
      await delay(100);
    }
    const cpu = (cpuMs(edge.pid) - before) / (Date.now() - t0);
    assert.ok(cpu < 0.5, `${(100 * cpu).toFixed()} % of a core while nothing happens`);
    for (const w of wires) w.abort(true);
    await until('the next is served', async () => (await suite.chat({ mock: 'tokens=1' })).status === 200);
    assert.match(edge.text(), /too few descriptors/);
  });
});

const root = process.getuid() === 0;
suiteTest('a disk that is full', { config: plain(), env: { edge: { EDGE_WORKERS: '1', SPOOL_SYNC_MS: '20' } } }, async (suite, step) => {
  const edge = suite.procs['edge-1'], spool = path.join(suite.dir, 'small');
  const small = (refuses) => async () => {
    await edge.stop();
    edge.env = { ...edge.env, STATE_DIR: spool, SPOOL_FULL_REFUSES: `${refuses}` };
    await edge.start().waitReady();
  };
  fs.mkdirSync(spool);
  let mounted = false;
  if (root) {
    try { execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=20m', 'tmpfs', spool]); mounted = true; } catch { /* a container that may not */ }
  }
  if (!mounted) {
    console.log('    not done: it takes the right to mount');
    return;
  }
  const fill = path.join(spool, 'fill');
  const full = () => { // the last byte, too: an allocation fails before it is refused a file
    try { execFileSync('dd', ['if=/dev/zero', `of=${fill}`, 'bs=64k'], { stdio: 'ignore' }); } catch { /* that is how it ends */ }
  };
  let refused, refusals = 0; // the last that was; how many
  const lots = async (n) => {
    const statuses = {};
    await Promise.all(Array.from({ length: 16 }, async () => {
      for (let i = 0; i < n / 16; i++) {
        const r = await suite.chat({ mock: 'tokens=1', user: 'u'.repeat(900) });
        const text = await r.text();
        if (r.status !== 503) { statuses[r.status] = (statuses[r.status] ?? 0) + 1; continue; }
        refused = { text, after: Number(r.headers.get('retry-after')) };
        refusals++;
        statuses[r.status] = (statuses[r.status] ?? 0) + 1;
      }
    }));
    return statuses;
  };
  try {
    await step('records wait there while the bus is away; when it is full, requests are refused where records must not be lost', async () => {
      await small(true)();
      assert.deepEqual(Object.keys(await lots(32)), ['200']);
      await suite.procs.nats.kill();
      full();
      const seen = await until('it refuses', async () => { const s = await lots(1600); return s[503] && s; }, { timeout: 5 * PATIENCE });
      assert.deepEqual(Object.keys(seen).filter((s) => !['200', '503'].includes(s)), []);
      const { error } = JSON.parse(refused.text);
      assert.equal(error.code, 'overloaded');
      assert.match(error.message, /[Uu]sage/);
      assert.ok(refused.after >= 1);
      assert.equal((await fetch(`${edge.ops}/healthz`)).status, 200);
      // Only of requests that were refused: where would it stand?
      assert.ok(await suite.edgeSum('gateway_usage_spool', { what: 'lost' }) <= refusals);
    });
    await step('when there is room again it serves, and every record arrives', async () => {
      fs.rmSync(fill);
      await until('it serves', async () => (await suite.chat({ mock: 'tokens=1' })).status === 200);
      suite.procs.nats.start();
      await suite.procs.nats.waitReady();
      const count = async () => {
        const groups = await suite.ledger({ group_by: ['outcome'] });
        return Object.fromEntries(groups.map((g) => [g.outcome, g.requests]));
      };
      // What was under way when the last byte went is sent by the next that starts there, at most one of each client.
      const served = (await suite.mockStats()).requests;
      await until('nearly all are in the ledger', async () => (await count()).ok >= served - 16, { every: 200 });
      await small(true)();
      const is = await until('all are', async () => { const c = await count(); return c.ok + (c.crashed ?? 0) >= served && c; }, { every: 200 });
      console.log(`    ${is.ok} records in time, ${is.crashed ?? 0} by the successor`);
      assert.equal(is.ok + (is.crashed ?? 0), served);
    });
    await step('where serving comes first it serves on, and counts what is lost', async () => {
      await small(false)();
      await lots(16);
      await suite.procs.nats.kill();
      full();
      await until('records are lost', async () => {
        assert.deepEqual(Object.keys(await lots(800)), ['200']);
        return await suite.edgeSum('gateway_usage_spool', { what: 'lost' }) > 0;
      }, { timeout: 5 * PATIENCE });
      assert.equal((await fetch(`${edge.ops}/readyz`)).status, 200);
      suite.procs.nats.start();
      await suite.procs.nats.waitReady();
      fs.rmSync(fill);
    });
  } finally {
    await edge.stop();
    execFileSync('umount', [spool]);
  }
});

const ANSWER_MS = PATIENCE; // of slow machines; less than any time-out that is not meant
const LONG = 2 * ANSWER_MS;
suiteTest('servers that cannot be reached', {
  config: plain((c, suite) => {
    const make = (slug, urls, more = {}) => {
      c.upstreams.push({ slug, name: slug, dialect: 'openai', auth: { type: 'none' }, retries: 1, timeouts: { connect_ms: LONG, first_byte_ms: LONG, idle_ms: LONG }, ...more,
        servers: urls.map((url, i) => ({ slug: `s${i}`, url })) });
      c.routes.push({ slug, namespace: 'test-channel', path: { prefix: `/${slug}/` }, endpoint: 'chat', rewrite_path: '/v1/chat/completions', upstream: slug });
    };
    const soon = { timeouts: { connect_ms: 1500, first_byte_ms: LONG, idle_ms: LONG } };
    make('deaf', [`http://127.0.0.1:${deaf.port}`], soon);
    make('deaf-first', [`http://127.0.0.1:${deaf.port}`, suite.mock], soon);
    make('closed', [`http://127.0.0.1:${closed}`]);
    make('nameless', ['http://there-is-no.invalid:8000']);
    make('nameless-first', ['http://there-is-no.invalid:8000', suite.mock]);
    make('no-tls', [suite.mock.replace('http:', 'https:')]);
    make('slow', [suite.mock], { timeouts: { first_byte_ms: 700 } });
    c.policies = [{ slug: 'parallel', namespace: 'test-channel', kind: 'concurrency', limit: 2, on_unavailable: 'allow' }];
  }),
}, async (suite, step) => {
  const records = await Records.of(suite);
  const ask = async (slug, options = {}) => {
    const t0 = Date.now(), r = await suite.chat({ path: `/${slug}/chat`, ...options });
    return { status: r.status, text: await r.text(), ms: Date.now() - t0, headers: r.headers };
  };
  for (const [slug, status, text] of [['deaf', 504, /could not be connected to in time/], ['closed', 502, /upstream failed/], ['nameless', 502, /upstream failed/],
    ['no-tls', 502, /upstream failed/], ['slow', 504, /did not begin to answer/]])
    for (const stream of [false, true])
      await step(`${slug}${stream ? ', of a stream' : ''}: ${status}, and nothing is charged`, async () => {
        // Of `slow` the head comes byte by byte, each in time: all of it has one.
        for (let i = 0; i < 3; i++) { // more often than slots there are: each was given back
          const r = await ask(slug, { stream, mock: slug === 'slow' ? 'fail=slow_headers:100' : '' });
          assert.equal(r.status, status, r.text);
          assert.match(r.text, text);
          assert.ok(r.ms < ANSWER_MS, `${r.ms} ms`);
          assert.equal(JSON.parse(r.text).error.type, 'upstream_error');
          const u = await records.for(r);
          assert.equal(u.outcome, status === 504 ? 'timeout' : 'upstream_error');
          assert.equal(u.output_tokens, 0);
          assert.equal(u.attempts.length, 1);
        }
      });
  for (const slug of ['deaf-first', 'nameless-first'])
    await step(`${slug}: another server answers`, async () => {
      for (let i = 0; i < 4; i++) {
        const r = await ask(slug, { stream: true, mock: 'tokens=2' });
        assert.equal(r.status, 200, r.text);
        assert.equal(sseData(r.text).at(-1), '[DONE]');
        assert.ok(r.ms < ANSWER_MS, `${r.ms} ms`);
      }
    });
});

suiteTest('an end in front of the answer', {
  config: plain((c, suite) => {
    c.upstreams.push({ slug: 'one', name: 'one', dialect: 'openai', auth: { type: 'none' }, retries: 0, queue: { max: 5, timeout_ms: 2 * PATIENCE }, servers: [{ slug: 's', url: suite.mock, max_requests: 1 }] });
    c.routes.push({ slug: 'one', namespace: 'test-channel', path: { prefix: '/one/' }, endpoint: 'chat', rewrite_path: '/v1/chat/completions', upstream: 'one' });
  }), env: { edge: { DRAIN_TIMEOUT_MS: `${2 * PATIENCE}` } },
}, async (suite, step) => {
  const records = await Records.of(suite);
  await step('requests that wait for an answer, for a place, or are being counted are served to their end', async () => {
    const waits = suite.chat({ mock: 'ttft_ms=20000;tokens=2' });
    const places = [suite.chat({ path: '/one/chat', mock: 'ttft_ms=20000;tokens=2' })];
    await until('the place is taken', async () => (await suite.edgeSum('gateway_upstream_active_requests', { upstream: 'one' })) === 1);
    places.push(...Array.from({ length: 2 }, () => suite.chat({ path: '/one/chat', mock: 'tokens=2' })));
    const long = suite.chat({ mock: 'tokens=2', text: 'word '.repeat(30000) });
    const partly = new Wire(suite.edge()), body = chat();
    partly.write(post(body, 'x-mock: tokens=2\r\n').slice(0, -10));
    await until('all are there', async () => (await suite.edgeSum('gateway_inflight_requests')) >= 5 && (await suite.edgeSum('gateway_upstream_queue_length')) === 2);
    const stopped = suite.procs['edge-1'].stop();
    await until('it is not ready any more', async () => (await fetch(`${suite.procs['edge-1'].ops}/readyz`)).status === 503);
    assert.equal((await fetch(`${suite.procs['edge-1'].ops}/healthz`)).status, 200);
    partly.write(body.slice(-10));
    const answers = await Promise.all([waits, ...places, long]);
    for (const r of answers) {
      assert.equal(r.status, 200);
      assert.equal((await r.json()).usage.completion_tokens, 2);
    }
    const last = await partly.answer();
    assert.deepEqual([last.status, last.headers.connection], [200, 'close']);
    await stopped;
    partly.close();
    await suite.settled(6);
    for (const r of [...answers, last]) assert.equal((await records.for(r)).outcome, 'ok');
  });
});

suiteTest('a great many', { config: plain() }, async (suite, step) => {
  const rss = async () => (await suite.metricsOf('edge-1')).find((s) => s.name === 'process_resident_memory_bytes').value;
  const N = ASAN ? 5000 : 30000;
  let stop = false;
  const bad = [];
  let good = 0;
  const others = (async () => {
    while (!stop) {
      const r = await suite.chat({ mock: 'tokens=2' });
      await r.text();
      if (r.status !== 200) bad.push(r.status);
      good++;
    }
  })();
  await step(`${N} keys that nobody knows`, async () => {
    const wires = Array.from({ length: 8 }, () => new Wire(suite.edge()));
    const guess = async (n, k) => {
      let w = wires[k];
      for (let i = 0; i < n; i += 50) {
        const one = (j) => post(chat(), `Authorization: Bearer sk-aigw-${k}x${i}x${j}x${Math.random()}\r\n`);
        w.write(Array.from({ length: 50 }, (_, j) => one(j)).join(''));
        for (let j = 0; j < 50; j++) {
          const a = await w.answer();
          assert.equal(a?.status, 401);
          if (a.headers.connection === 'close') { // requests per connection are bounded
            w.close();
            w = wires[k] = new Wire(suite.edge());
            break;
          }
        }
      }
    };
    await Promise.all(wires.map((_, k) => guess(800, k)));
    const before = await rss();
    await Promise.all(wires.map((_, k) => guess(N / 8, k)));
    const grown = await rss() - before;
    for (const w of wires) w.close();
    console.log(`    ${(grown / MB).toFixed(1)} MB of RSS more`);
    if (!ASAN) assert.ok(grown < 8 * MB, `${grown}`);
  });
  await step(`${N / 5} connections that come and go`, async () => {
    const url = new URL(suite.edge());
    const come = async (n) => {
      for (let i = 0; i < n; i++)
        await new Promise((resolve) => {
          const s = net.connect(Number(url.port), url.hostname, () => (i % 3 === 0 ? s.resetAndDestroy() : i % 3 === 1 ? s.end() : s.write('POST', () => s.destroy())));
          s.once('error', () => {});
          s.once('close', resolve);
        });
    };
    await come(200);
    const before = await rss();
    await Promise.all(Array.from({ length: 16 }, () => come(N / 80)));
    await until('they are gone', async () => await suite.edgeSum('gateway_connections') <= 12);
    const grown = await rss() - before;
    console.log(`    ${(grown / MB).toFixed(1)} MB of RSS more`);
    if (!ASAN) assert.ok(grown < 8 * MB, `${grown}`);
  });
  await step('whom it does not concern notices nothing', async () => {
    await until('they were served', () => good > 50);
    stop = true;
    await others;
    assert.ok(good > 50, `${good}`);
    assert.deepEqual(bad, []);
  });
  await step('names that clients make up are no labels of metrics', async () => {
    const lines = async () => (await getText(`${suite.procs['edge-1'].ops}/metrics`)).split('\n');
    const ask = (i) => suite.chat({ model: `made-up-${i}`, path: `/api/chat?made-up=${i}`, user: `made-up-${i}`, mock: 'tokens=1', headers: { 'x-request-id': `made-up-${i}` } });
    for (let i = 0; i < 5; i++) await (await ask(i)).text(); // the last of them may not be counted yet
    const before = (await lines()).length;
    for (let i = 5; i < 100; i++) await (await ask(i)).text();
    const now = await lines();
    assert.deepEqual(now.filter((l) => l.includes('made-up')), []);
    assert.ok(now.length <= before + 5, `${before}, then ${now.length} lines`);
  });
  await step('documents that are deep, wide or long are refused or read in time that grows with them', async () => {
    const time = async (body) => {
      const t0 = performance.now();
      const r = await fetch(`${suite.edge()}/api/chat`, { method: 'POST', headers: { 'content-type': 'application/json', 'x-channel-code': 'test-channel', 'x-mock': 'tokens=1' }, body });
      await r.text();
      return { status: r.status, ms: performance.now() - t0 };
    };
    const rest = '"model":"Qwen3-8B","messages":[{"role":"user","content":"x"}]}';
    const keys = (n) => `{${Array.from({ length: n }, (_, i) => `"k${i}":${i},`).join('')}${rest}`;
    for (const deep of ['['.repeat(1e6), `{"x":${'['.repeat(1e5)}${']'.repeat(1e5)},${rest}`, '{"a":'.repeat(1e5)])
      assert.equal((await time(deep)).status, 400);
    for (const big of [keys(100000), `{"x":${'1'.repeat(MB)},${rest}`, `{"x":"${'y'.repeat(MB)}",${rest}`, `{"x":"${'\\u0061'.repeat(200000)}",${rest}`]) {
      const one = await time(big);
      assert.ok([200, 400].includes(one.status) && one.ms < PATIENCE, `${big.slice(0, 30)}: ${one.status} in ${one.ms} ms`);
    }
    assert.equal((await suite.chat({ mock: 'tokens=1' })).status, 200);
  });
});
