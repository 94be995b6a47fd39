// SPDX-License-Identifier: Apache-2.0
// Sends the same bytes to the edge and to peers, and says where what the edge forwarded is not what a peer would have read.
//
// What the edge refuses cannot do harm. What it forwards must be the beginning of what each peer reads: the same requests in
// the same order, or fewer of them and then a refusal. A peer that still waits for bytes where the edge has forwarded more
// requests has framed them differently, and so has one that saw another method, target or body.
import { exchange } from './peers.mjs';

const AT_ONCE = 48;
// Behind every mutant: where all framing agrees, it ends the connection, and nobody has to wait.
const LAST = 'GET /last HTTP/1.1\r\nHost: gateway.test\r\nConnection: close\r\n\r\n';

const same = (a, b) => b !== null && (a.method === b.method && a.target === b.target && a.body === b.body);
const refusal = (a) => a.seen === null && a.status >= 400 || a.status === 0;

// What is wrong, or null.
function difference(edge, peer) {
  for (let i = 0; i < edge.answers.length; i++) {
    const mine = edge.answers[i], other = peer.answers[i];
    if (mine.seen === null) {
      if (mine.close) return null; // nothing of what follows is forwarded
      continue; // the gateway's own answer; what follows is compared
    }
    if (other === undefined) {
      if (peer.closed || peer.answers.some(refusal)) return null; // it refused, or ended after what it read
      return `forwarded request ${i + 1}, where the peer waits for more bytes`;
    }
    if (refusal(other)) return null;
    if (!same(mine.seen, other.seen)) return `request ${i + 1} is another one`;
  }
  return null;
}

async function tryOne(mutant, port, peers, quiet, from) {
  const bytes = mutant + LAST;
  const edge = await exchange(port, bytes, { quiet, from });
  const forwarded = edge.answers.filter((a) => a.seen).length;
  if (forwarded === 0) return { forwarded, found: null };
  for (const p of peers) {
    const peer = await exchange(p.port, bytes, { quiet, from });
    const what = difference(edge, peer);
    if (what) return { forwarded, found: { peer: p.name, what, bytes, edge: edge.answers, theirs: peer.answers } };
  }
  return { forwarded, found: null };
}

// → { findings, forwarded, sent }. A finding counts when it shows again on quiet connections.
export async function compareAll(mutants, port, peers, { quiet = 150, progress = () => {} } = {}) {
  const findings = [];
  let sent = 0, forwarded = 0;
  const suspects = [];
  const worker = async (k) => {
    for (const bytes of mutants) {
      const r = await tryOne(bytes, port, peers, quiet, `127.0.0.${2 + k % 200}`);
      if (r.found) suspects.push(bytes);
      forwarded += r.forwarded;
      progress(++sent);
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, (_, k) => worker(k)));
  for (const bytes of suspects) {
    const r = await tryOne(bytes, port, peers, 5000);
    if (r.found) findings.push(r.found);
  }
  return { findings, forwarded, sent };
}
