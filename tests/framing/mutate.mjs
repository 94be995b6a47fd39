// SPDX-License-Identifier: Apache-2.0
// Mutants of the conformance table: bytes changed, inserted and taken away where framing is decided. The same seed gives the
// same mutants.
import { cases, get, post } from './cases.mjs';

// mulberry32
function random(seed) {
  let a = seed >>> 0;
  return () => {
    a = (a + 0x6d2b79f5) >>> 0;
    let t = Math.imul(a ^ (a >>> 15), 1 | a);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

const TOKENS = ['\r', '\n', '\r\n', '\r\n\r\n', ' ', '\t', '\0', '\x0b', '\x0c', '\x85', '\xa0', '\xff', ':', ';', ',', '"', '+', '-', '_', '0', '1', '00', '0x',
  'ffffffffffffffff', 'chunked', 'identity', 'close', 'keep-alive', 'HTTP/1.0', 'HTTP/1.1', 'http/1.1', '0\r\n\r\n', '5\r\nhello\r\n', '2;a=b\r\nhi\r\n',
  'Content-Length: 0\r\n', 'Content-Length: 5\r\n', 'Content-Length : 5\r\n', 'Content-Length: 5, 5\r\n', 'content_length: 5\r\n',
  'Transfer-Encoding: chunked\r\n', 'Transfer-Encoding: \tchunked\r\n', 'Transfer-Encoding : chunked\r\n', 'Transfer-Encoding:\r\n chunked\r\n',
  'Transfer-Encoding: xchunked\r\n', 'Transfer-Encoding: chunked, identity\r\n', 'Connection: close\r\n', 'Connection: content-length\r\n',
  'Connection: transfer-encoding\r\n', 'Host: other.test\r\n', 'Expect: 100-continue\r\n', 'GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n'];

// An offered upgrade is left out: a server that takes it leaves HTTP there, which is no other framing of the same request.
// Mostly requests that pass as they are: a mutant tells something when it is forwarded.
const REFUSED = cases.filter((c) => c.status && c.bytes.length < 2000).map((c) => c.bytes);
const TAKEN = [
  ...cases.filter((c) => !c.status && c.bytes.length < 2000 && !/^upgrade:/im.test(c.bytes)).map((c) => c.bytes),
  ...Array.from({ length: 40 }, (_, i) => post(`Content-Length: ${i}\r\n`, 'x'.repeat(i)) + get('', '/next')),
  ...Array.from({ length: 40 }, (_, i) => post('Transfer-Encoding: chunked\r\n', `${(i + 1).toString(16)}\r\n${'y'.repeat(i + 1)}\r\n0\r\n\r\n`) + get('', '/next')),
];

export function* mutants(count, seed) {
  const rnd = random(seed);
  const below = (n) => Math.floor(rnd() * n);
  const pick = (list) => list[below(list.length)];
  const seedOf = () => pick(rnd() < 0.8 ? TAKEN : REFUSED);
  const step = (s) => {
    const at = below(s.length + 1), lines = s.split('\r\n');
    switch (below(9)) {
      case 0: return s.slice(0, at) + String.fromCharCode(below(256)) + s.slice(at + 1);
      case 1: return s.slice(0, at) + s.slice(at + 1 + below(4));
      case 2: case 3: return s.slice(0, at) + pick(TOKENS) + s.slice(at);
      case 4: { const l = below(lines.length); lines.splice(l, 0, pick(TOKENS).replace(/\r\n$/, '')); return lines.join('\r\n'); }
      case 5: { const l = below(lines.length); lines.splice(l, 1, lines[l], lines[l]); return lines.join('\r\n'); }
      case 6: { const a = below(lines.length), b = below(lines.length); [lines[a], lines[b]] = [lines[b], lines[a]]; return lines.join('\r\n'); }
      case 7: { const other = seedOf(); return s.slice(0, at) + other.slice(below(other.length)); }
      default: return s.replace(/\d+/, (d) => `${Math.max(0, Number(d) + below(5) - 2)}`);
    }
  };
  for (let i = 0; i < count; i++) {
    let s = seedOf();
    for (let n = 1 + below(below(2) + 1); n > 0; n--) s = step(s);
    yield s.slice(0, 4000);
  }
}
