// SPDX-License-Identifier: Apache-2.0
// What the gateway is told for `make bench`, and the requests. One configuration has every degree between a bare proxy and
// everything on; the request's path, header and key choose among them.
export const KEY = `sk-aigw-${'0123456789abcdef'.repeat(2)}`;
const OTHERS = 100; // namespaces beside those that are measured
const MUCH = 1000000000;

const policies = (namespace) => [
  { slug: 'per-second', kind: 'request_rate', limit: MUCH, window: '1s' },
  { slug: 'per-minute', kind: 'request_rate', limit: MUCH, window: '1m', per: ['key', 'model'] },
  { slug: 'parallel', kind: 'concurrency', limit: 1000000 },
  { slug: 'tokens', kind: 'token_rate', limit: MUCH * 100, window: '1m' },
  { slug: 'quota', kind: 'quota', limit: MUCH * 1000, period: 'day' },
].map((p) => ({ ...p, namespace, on_unavailable: 'allow' }));

export const document = (upstreamPort) => () => ({
  namespaces: [
    { slug: 'bare', name: 'Whoever matches nothing', auth: 'none', default: true },
    { slug: 'counted', name: 'Counted, not limited', auth: 'key' },
    { slug: 'full', name: 'Everything on', auth: 'key' },
    ...Array.from({ length: OTHERS }, (_, i) => ({ slug: `team-${i}`, name: `Team ${i}`, auth: 'none' })),
  ],
  matchers: Array.from({ length: OTHERS }, (_, i) => ({ slug: `team-${i}`, namespace: `team-${i}`, priority: 10,
    when: { source: 'header', name: 'x-team', op: 'equals', value: `team-${i}` } })),
  upstreams: [{ slug: 'behind', name: 'Behind', dialect: 'openai', auth: { type: 'none' }, retries: 0,
    servers: [{ slug: 'one', url: `http://127.0.0.1:${upstreamPort}` }] }],
  models: [{ slug: 'qwen3-8b', name: 'Qwen3-8B', patterns: ['Qwen3-8B'], vocabulary: 'qwen3', context_window: 131072 }],
  routes: [
    { slug: 'v1', namespace: 'bare', path: { prefix: '/v1/' }, endpoint: 'passthrough', upstream: 'behind' },
    ...['counted', 'full'].map((namespace) => ({ slug: 'v1', namespace, path: { exact: '/v1/chat/completions' }, endpoint: 'chat', upstream: 'behind' })),
    { slug: 'raw', namespace: 'counted', path: { exact: '/v1/raw' }, endpoint: 'passthrough', upstream: 'behind' },
    { slug: 'v1', namespace: 'team-7', path: { prefix: '/v1/' }, endpoint: 'passthrough', upstream: 'behind' },
  ],
  policies: policies('full'),
  keys: [{ slug: 'counted', namespace: 'counted', secret: `${KEY}0` }, { slug: 'full', namespace: 'full', secret: `${KEY}1` }],
});

// The same as `full`, by other ways to the upstream. `tls`: to the server that speaks TLS.
export const WAYS = {
  'curl 1.1': { slug: 'curl', transport: 'curl' },
  'direct, TLS': { slug: 'direct-tls', tls: true },
  'curl 1.1, TLS': { slug: 'curl-tls', tls: true, transport: 'curl', http: '1.1' },
  'curl 2, TLS': { slug: 'curl-h2', tls: true, transport: 'curl', http: '2' },
};
export const ways = (upstreamPort, tlsPort, caFile) => Object.values(WAYS).map(({ slug, tls, ...settings }) => ({
  upstream: { slug, name: slug, dialect: 'openai', auth: { type: 'none' }, retries: 0, timeouts: { connect_ms: 60000 }, ...settings, ...(tls ? { tls: { ca_file: caFile } } : {}),
    servers: [{ slug: 'one', url: tls ? `https://127.0.0.1:${tlsPort}` : `http://127.0.0.1:${upstreamPort}` }] },
  route: { slug, namespace: 'full', path: { exact: `/${slug}` }, endpoint: 'chat', rewrite_path: '/v1/chat/completions', upstream: slug },
}));

// The degrees, each with all of the one before. `header` is sent to the edge only by those that need it.
export const DEGREES = {
  bare: { path: '/v1/chat/completions', headers: [] },
  'bare-no-records': { path: '/v1/chat/completions', headers: [] }, // of an edge with USAGE_RECORDS=off
  header: { path: '/v1/chat/completions', headers: ['x-team: team-7'] },
  key: { path: '/v1/raw', headers: [`Authorization: Bearer ${KEY}0`] },
  estimate: { path: '/v1/chat/completions', headers: [`Authorization: Bearer ${KEY}0`], model: 'unknown-' },
  count: { path: '/v1/chat/completions', headers: [`Authorization: Bearer ${KEY}0`] },
  full: { path: '/v1/chat/completions', headers: [`Authorization: Bearer ${KEY}1`] },
  ...Object.fromEntries(Object.entries(WAYS).map(([name, { slug }]) => [name, { path: `/${slug}`, headers: [`Authorization: Bearer ${KEY}1`] }])),
};

const WORDS = 'the of and a in is it you that he was for on are with as his they at be this from have or by one had not but what all were when we there can an your which their said if do will each about how up out them then she many some so these would other into has more her two like him see time could no make than first been its who now people my made over did down only way find use may water long little very after words called just where most know get through back much before go good new write our me man too any day same right look think also around another came come work three word must because does part even place well such here take why things help put years different away again off went old number great tell men say small every found still between name should home big give air line set own under read last never us left end along while might next sound below saw something thought both few those always looked show large often together asked house world going want school important until form food keep children feet land side without boy once animals life enough took sometimes four head above kind began almost live page got earth need far hand high year mother light parts country father let night following picture being study second eyes soon times story boys since white days ever paper hard near sentence better best across during today others however sure means knew it’s try told young miles sun ways thing whole hear example heard several change answer room sea against top turned learn point city play toward five using himself usually'.split(' ');

// Words in no order, the same in each run. One in ten is two of them in one, of which there are 85,000: a rare word or a name.
function* wordsAndSigns() {
  let seed = 2463534242;
  const next = (n) => { seed ^= seed << 13; seed ^= seed >>> 17; seed ^= seed << 5; return (seed >>> 0) % n; };
  for (;;) {
    for (let n = 7 + next(12), first = true; n > 0; n--, first = false) {
      const word = next(10) === 0 ? WORDS[next(WORDS.length)] + WORDS[next(WORDS.length)] : WORDS[next(WORDS.length)];
      yield first ? word[0].toUpperCase() + word.slice(1) : ` ${word}`;
    }
    yield next(5) === 0 ? '.\n\n' : '. ';
  }
}

// Text that takes so many bytes in JSON.
function prose(bytes, from) {
  let text = '', left = bytes;
  for (;;) {
    const more = from.next().value, n = Buffer.byteLength(JSON.stringify(more)) - 2;
    if (n > left) return text + ' notwithstanding that'.slice(0, left);
    text += more;
    left -= n;
  }
}

// n texts of so many bytes, each make(prose).
function different(n, bytes, make) {
  const from = wordsAndSigns(), room = Math.max(bytes - Buffer.byteLength(make('')), 0);
  return Array.from({ length: n }, () => make(prose(room, from)));
}

// n bodies of requests, each of so many bytes.
export const requests = (n, bytes, { stream = false, model = 'Qwen3-8B' } = {}) => different(n, bytes, (content) => JSON.stringify({ model,
  messages: [{ role: 'system', content: 'You answer briefly, and say so when you do not know.' }, { role: 'user', content }],
  temperature: 0.7, ...(stream ? { stream: true, stream_options: { include_usage: true } } : { max_tokens: 512 }) }));
export const request = (bytes, options) => requests(1, bytes, options)[0];

// What the upstream answers: bodies of whole answers, and what the events of streams say.
export const answers = (n, bytes) => different(n, bytes, (content) => JSON.stringify({ id: 'chatcmpl-bench', object: 'chat.completion', created: 1700000000,
  model: 'Qwen3-8B', choices: [{ index: 0, message: { role: 'assistant', content }, logprobs: null, finish_reason: 'stop' }],
  usage: { prompt_tokens: 130, completion_tokens: 240, total_tokens: 370 } }));
export const deltas = (n) => Array.from(wordsAndSigns().take(n), (text) => JSON.stringify(text).slice(1, -1));
