// SPDX-License-Identifier: Apache-2.0
// Usage records as they are published: late, several in a message, in any order, and once more when an acknowledgement was
// lost. So each that comes is kept once, and a test asks for its own instead of counting what comes next.
import { until, usageRecords } from './util.mjs';

export class Records {
  #byId = new Map();

  // Of all that is published from now on.
  static async of(suite) {
    const r = new Records(), nc = await suite.nats();
    nc.subscribe(`${suite.prefix}.usage.*`, { callback: (e, m) => { if (!e) for (const u of usageRecords(m)) r.#byId.set(u.id, u); } });
    await nc.flush();
    return r;
  }

  // What came so far and fits.
  all(is = () => true) { return [...this.#byId.values()].filter(is); }

  // The record of an answer, of fetch() or a Wire, whose request named no x-request-id: then the record's id is it.
  async for(answer) {
    const id = answer.headers.get?.('x-request-id') ?? answer.headers['x-request-id'];
    if (!/^[0-9a-f-]{36}$/.test(id)) throw new Error(`no id of a record: ${id}`);
    return until(`the record ${id}`, () => this.#byId.get(id));
  }

  // One that fits.
  one(what, is) { return until(what, () => this.all(is)[0]); }
}
