// SPDX-License-Identifier: Apache-2.0
// Everything at once against one edge, for some seconds: whole and streamed requests in both dialects, pipelined, byte by
// byte, chunked, clients that leave or read slowly, and an upstream that breaks in every way it can. Each answer must
// belong to its request and be honest about its end; nothing may be left behind. STRESS_SECONDS, STRESS_SEED.
import assert from 'node:assert/strict';
import { setTimeout as delay } from 'node:timers/promises';
import { DEMO_KEY, demoConfig, suiteTest } from './lib/suite.mjs';
import { PATIENCE, sumOf, until } from './lib/util.mjs';
import { Wire } from './lib/wire.mjs';

const SECONDS = Number(process.env.STRESS_SECONDS ?? 8), WIRES = 24;
const SEED = Number(process.env.STRESS_SEED ?? Date.now() % 1e6);

// Answers in time whatever the upstream does, and limits that count but do not refuse.
const config = (suite) => {
  const c = demoConfig(suite);
  c.upstreams[0].timeouts = { connect_ms: 4000, first_byte_ms: 8000, idle_ms: 6000, total_ms: 120000 };
  c.upstreams[0].retries = 1;
  // Half of what is asked for here are faults: any server would be left alone for a while.
  c.upstreams[0].breaker = { error_percent: 0 };
  c.upstreams[0].ejection = { failures: 0 };
  c.upstreams[0].cooldown = { max_ms: 0 };
  c.policies = [
    { slug: 'parallel', namespace: 'test-channel', kind: 'concurrency', limit: 10000 },
    { slug: 'parallel', namespace: 'demo', kind: 'concurrency', limit: 10000 },
    { slug: 'answer', namespace: 'demo', kind: 'output_tokens', limit: 400 },
  ];
  return c;
};

function random(seed) { // mulberry32
  let a = seed >>> 0;
  const next = () => {
    a = (a + 0x6d2b79f5) >>> 0;
    let t = Math.imul(a ^ (a >>> 15), a | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
  const below = (n) => Math.floor(next() * n);
  return { below, of: (list) => list[below(list.length)], chance: (p) => next() < p };
}

const FAULTS = ['500', '429:1', 'bad_chunk', 'bad_chunk:plus', 'bad_chunk:nocrlf', 'refuse', 'hang', 'hang_after:2', 'reset_after:2', 'reset_after:0',
  'close_after:3', 'early:413', 'garbage', 'slow_headers:5', 'slow_headers:60', 'no_done', 'no_newline', 'bad_json', 'error_event:2',
  'two_lengths', 'length_and_chunked', 'long_length', 'extra_bytes', 'interim:3', 'interim:50', 'big_header:100000',
  'many_headers:200', 'nul_header', 'body_on_204'];
const MANNERS = ['', 'chunking=split:3', 'chunking=bytes:5', 'chunking=batch:4', 'eol=crlf', 'eol=cr', 'comments', 'multiline', 'wire=40', 'framing=close',
  'encoding=gzip', 'bom', 'nospace', 'extra_fields', 'close'];
// How a stream ends that came whole.
const ENDS = { '/v1/chat/completions': /data: ?\[DONE\]/, '/v1/messages': /"type": ?"message_stop"/ };

let count = 0;
function request(r, { namespace, mock = 'echo=prompt', words = 1 + r.below(30), path = r.of(Object.keys(ENDS)), stream = r.chance(0.5), framing, close }) {
  const nonce = `nonce${++count}x`;
  r.says(`${nonce} ${path} ${stream} ${mock} ${framing}`);
  const text = `${nonce} ${'word '.repeat(words)}`.trim();
  const body = JSON.stringify({ model: 'Qwen3-8B', stream, max_tokens: 9000, messages: [{ role: 'user', content: text }],
    ...(stream && path.endsWith('completions') ? { stream_options: { include_usage: true } } : {}) });
  const fields = ['Host: edge', namespace === 'demo' ? `Authorization: Bearer ${DEMO_KEY}` : 'X-Channel-Code: test-channel', 'Content-Type: application/json',
    `x-mock: ${mock}`, `x-request-id: ${nonce}`];
  if (close) fields.push('Connection: close');
  let bytes = body;
  if (framing === 'chunked') {
    bytes = '';
    for (let at = 0; at < body.length;) {
      const n = Math.min(1 + r.below(60), body.length - at);
      bytes += `${n.toString(16)}\r\n${body.slice(at, at + n)}\r\n`;
      at += n;
    }
    bytes += '0\r\n\r\n';
    fields.push('Transfer-Encoding: chunked');
  } else {
    fields.push(`Content-Length: ${body.length}`);
  }
  if (framing === 'expect') fields.push('Expect: 100-continue');
  return { nonce, text, path, stream, mock, bytes: `POST ${path} HTTP/1.1\r\n${fields.join('\r\n')}\r\n\r\n${bytes}` };
}

// What the answer says, from a stream or a whole body. For a stream what came of it.
function said(q, body) {
  const text = body.toString('utf8');
  if (!q.stream) {
    const j = JSON.parse(text);
    return q.path === '/v1/messages' ? { text: j.content[0]?.text ?? '', tokens: j.usage.output_tokens }
      : { text: j.choices[0].message.content, tokens: j.usage.completion_tokens };
  }
  let all = '', tokens = 0;
  for (const event of text.replace(/^\ufeff/, '').split(/(?:\r\n|\n|\r){2}/)) {
    const data = event.split(/\r\n|\n|\r/).filter((l) => l.startsWith('data:')).map((l) => l.slice(5)).join('\n').trim();
    if (data === '' || data === '[DONE]') continue;
    let j;
    try { j = JSON.parse(data); } catch { continue; } // the last, of a stream that broke
    all += j.choices?.[0]?.delta?.content ?? j.delta?.text ?? '';
    tokens = j.usage?.completion_tokens ?? j.usage?.output_tokens ?? tokens;
  }
  return { text: all, tokens };
}

function isErrorOf(q, a) {
  const j = JSON.parse(a.body.toString('utf8'));
  assert.match(a.headers['content-type'], /^application\/json/);
  assert.equal(typeof j.error.message, 'string');
  assert.equal(typeof j.error.type, 'string');
  if (/early/.test(q.mock)) return; // the mock's own, which has not read the path's dialect
  assert.equal(j.type, q.path === '/v1/messages' ? 'error' : undefined, `${q.mock}: ${JSON.stringify(j)}`);
}

// The answer to a request whose upstream does as it should.
function isGood(q, a) {
  assert.equal(a?.status, 200, `${q.nonce}: ${a?.status} ${a?.body.toString().slice(0, 300)}`);
  assert.ok(a.whole, `${q.nonce} came whole`);
  assert.equal(a.headers['x-request-id'], q.nonce);
  const { text, tokens } = said(q, a.body);
  assert.equal(text, q.text);
  if (q.stream) assert.match(a.body.toString(), ENDS[q.path]);
  return tokens;
}

// The answer to a request whose upstream breaks: an error, or what is honest about its end. Returns whether the next
// request can use the connection.
function isHonest(q, a) {
  assert.ok(a, `${q.nonce} (${q.mock}): an answer`);
  assert.equal(a.headers['x-request-id'], q.nonce);
  if (a.status === 204) return a.headers.connection !== 'close';
  if (a.status >= 400) {
    assert.ok(a.whole, `${q.mock}: an error comes whole`);
    isErrorOf(q, a);
  } else {
    assert.equal(a.status, 200, q.mock);
    const text = a.body.toString();
    if (!a.whole) {
      assert.ok(q.stream, `${q.mock}: half of a whole answer`);
      assert.doesNotMatch(text, ENDS[q.path], q.mock);
    } else if (q.stream) {
      assert.match(text, /no_done/.test(q.mock) ? /finish_reason":"stop"|message_stop|stop_reason":"end_turn"/ : ENDS[q.path], `${q.mock}: ${text.slice(-300)}`);
    }
    if (a.whole && !/bad_json|big_event/.test(q.mock)) assert.ok(said(q, a.body).text.length > 0, q.mock);
    const others = [...text.matchAll(/nonce\d+x/g)].filter(([n]) => n !== q.nonce);
    assert.deepEqual(others, [], `${q.mock}: words of another request`);
  }
  return a.whole && a.headers.connection !== 'close';
}

async function writeBytes(wire, bytes, r) {
  for (let at = 0; at < bytes.length && !wire.closed;) {
    const n = r.chance(0.5) ? 1 : 1 + r.below(200);
    wire.write(bytes.slice(at, at + n));
    at += n;
    if (r.chance(0.02)) await delay(1);
  }
}

suiteTest('stress', { config }, async (suite, step) => {
  const url = suite.edge();
  const done = { good: 0, pipelined: 0, faults: 0, left: 0, slow: 0, bad: 0, cut: 0 };
  let tokens = 0, answered = 0;
  const add = (n) => { tokens += n; };

  const scenes = {
    async good(r) {
      const wire = new Wire(url);
      for (let i = 1 + r.below(5); i > 0; i--) {
        const manner = r.of(MANNERS);
        const q = request(r, { namespace: 'test-channel', mock: `echo=prompt;${manner}`, framing: r.of(['length', 'chunked', 'expect']), close: i === 1 && r.chance(0.5) });
        if (r.chance(0.3)) await writeBytes(wire, q.bytes, r); else wire.write(q.bytes);
        add(isGood(q, await wire.answer()));
        done.good++, answered++;
      }
      wire.close();
    },
    async pipelined(r) {
      const wire = new Wire(url);
      const list = Array.from({ length: 2 + r.below(8) }, () => request(r, { namespace: 'test-channel', mock: `echo=prompt;ttft_ms=${r.below(20)}`, framing: r.of(['length', 'chunked']) }));
      wire.write(list.map((q) => q.bytes).join(''));
      for (const q of list) {
        add(isGood(q, await wire.answer()));
        done.pipelined++, answered++;
      }
      wire.close();
    },
    async fault(r) {
      const wire = new Wire(url);
      const fail = r.of(FAULTS.concat(r.chance(0.2) ? ['big_event:100000'] : [])); // costs the mock a second
      const q = request(r, { namespace: 'demo', mock: `echo=prompt;fail=${fail};${r.of(['', 'tps=400', 'chunking=split:9'])}` });
      wire.write(q.bytes);
      const open = isHonest(q, await wire.answer());
      done.faults++, answered++;
      if (open) {
        const next = request(r, { namespace: 'test-channel' });
        wire.write(next.bytes);
        add(isGood(next, await wire.answer()));
        done.good++, answered++;
      }
      wire.close();
    },
    async leaver(r) {
      const wire = new Wire(url);
      const q = request(r, { namespace: 'demo', mock: `tokens=300;tps=${r.of([50, 500])};ttft_ms=${r.below(50)}`, framing: r.of(['length', 'chunked', 'expect']) });
      if (r.chance(0.3)) wire.write(q.bytes.slice(0, r.below(q.bytes.length)));
      else wire.write(q.bytes + (r.chance(0.3) ? request(r, { namespace: 'demo' }).bytes.repeat(3) : ''));
      await Promise.race([wire.have(1 + r.below(2000)), delay(r.below(150))]);
      wire.abort(r.chance(0.5));
      done.left++;
    },
    async slow(r) {
      const wire = new Wire(url);
      const q = request(r, { namespace: 'test-channel', words: 4000 + r.below(4000), stream: r.chance(0.7) });
      wire.write(q.bytes);
      for (let i = 0; i < 5; i++) {
        wire.socket.pause();
        await delay(30 + r.below(60));
        wire.socket.resume();
        await delay(2);
      }
      add(isGood(q, await wire.answer()));
      wire.close();
      done.slow++, answered++;
    },
    async bad(r) {
      const wire = new Wire(url);
      wire.write(r.of(['GET / HTTP/1.1\r\n\r\n', 'POST /v1/messages HTTP/1.1\r\nHost: e\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n', '\x16\x03\x01\x02\x00',
        'POST /v1/chat/completions HTTP/1.1\r\nHost: e\r\nX-Channel-Code: test-channel\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n']));
      const a = await wire.answer();
      assert.equal(a.status, 400);
      assert.equal(a.headers.connection, 'close');
      wire.close();
      done.bad++;
    },
    async cut(r) {
      const wire = new Wire(url);
      const q = request(r, { namespace: 'demo', mock: 'tokens=600;ignore_max;chunking=batch:3' });
      wire.write(q.bytes);
      const a = await wire.answer();
      assert.equal(a?.status, 200);
      assert.ok(a.whole);
      assert.equal(said(q, a.body).tokens, 400);
      assert.match(a.body.toString(), q.path === '/v1/messages' ? /"max_tokens"/ : /"finish_reason": ?"length"/);
      wire.close();
      done.cut++, answered++;
    },
  };

  await step(`answers belong to their requests (seed ${SEED}, ${SECONDS} s)`, async () => {
    const end = Date.now() + SECONDS * 1000;
    const problems = [], doing = [];
    const run = async (k) => {
      const r = random(SEED * 1000 + k);
      r.says = (what) => { doing[k] = what; };
      const rare = () => Object.values(done).some((n) => n === 0) && Date.now() < end + PATIENCE; // not one yet
      while ((Date.now() < end || rare()) && problems.length === 0) {
        const scene = r.of(['good', 'good', 'good', 'pipelined', 'fault', 'fault', 'fault', 'leaver', 'leaver', 'slow', 'bad', 'cut']);
        try {
          await Promise.race([scenes[scene](r), delay(2 * PATIENCE, null, { ref: false }).then(() => { throw new Error(`no end after ${2 * PATIENCE} ms: ${doing[k]}`); })]);
        } catch (e) {
          problems.push(`${scene}: ${e.stack}`);
        }
      }
    };
    await Promise.all(Array.from({ length: WIRES }, (_, k) => run(k)));
    if (problems.length > 0) throw new Error(problems.join('\n'));
    for (const [what, n] of Object.entries(done)) assert.ok(n > 0, `${what}: none`);
  });

  await step('nothing is left behind', async () => {
    await until('no request, stream or connection is left', async () => {
      const m = await suite.metricsOf('edge-1');
      const left = ['gateway_inflight_requests', 'gateway_open_streams', 'gateway_connections'].map((name) => [name, sumOf(m, name)]);
      if (left.some(([, n]) => n !== 0)) throw new Error(left.join(' '));
      return true;
    });
  });

  await step('each request has one record, and the tokens are right', async () => {
    const requests = await suite.edgeSum('gateway_requests_total');
    assert.ok(requests >= answered && requests <= count, `${answered} answered <= ${requests} counted <= ${count} sent`);
    const total = await suite.settled(requests);
    assert.equal(total.requests, requests);
    const groups = await suite.ledger({ group_by: ['namespace', 'outcome'] });
    const of = (namespace, outcome) => groups.find((g) => g.namespace === namespace && g.outcome === outcome) ?? { requests: 0, output_tokens: 0 };
    const well = of('test-channel', 'ok');
    assert.equal(well.requests, done.good + done.pipelined + done.slow);
    assert.equal(well.output_tokens, tokens);
    assert.equal(of('demo', 'cut').requests >= done.cut, true);
    assert.equal(await suite.edgeSum('gateway_tokens_total', { type: 'output' }), total.output_tokens);
    console.error(`# ${Object.entries(done).map(([k, n]) => `${k} ${n}`).join(', ')}; ${requests} records`);
  });
});
