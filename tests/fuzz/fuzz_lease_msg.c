/* SPDX-License-Identifier: Apache-2.0 */
/* Messages of the lease protocol as they come from the bus: no input may crash a decoder, and what
 * one takes comes back the same after encoding. */
#include <stdlib.h>

#include "proto/lease_msg.h"
#include "proto/rejected_msg.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void ask(struct str text)
{
    struct lease_ask m, again;
    struct buf b;
    if (lease_ask_decode(text, &m, NULL) != ERR_OK) return;
    for (size_t i = 0; i < m.ops_n; i++)
        if (m.ops[i].kind == LEASE_OP_MAX) m.ops[i].kind = LEASE_SETTLE;
    buf_init(&b, MESSAGE_MAX_BYTES);
    if (lease_ask_encode(&m, clock_system(), rng_system(), "edge", NULL, &b) == ERR_OK) {
        if (lease_ask_decode(buf_str(&b), &again, NULL) != ERR_OK) abort();
        if (again.ops_n != m.ops_n || again.leaving != m.leaving || again.revision != m.revision)
            abort();
        for (size_t i = 0; i < m.ops_n; i++) {
            const struct lease_op *x = &m.ops[i], *y = &again.ops[i];
            if (x->kind != y->kind || x->known != y->known || x->want != y->want ||
                x->min != y->min || x->spent != y->spent || x->returned != y->returned ||
                !str_eq(x->lease, y->lease) || !str_eq(x->key, y->key))
                abort();
        }
        lease_ask_done(&again);
    }
    buf_done(&b);
    lease_ask_done(&m);
}

static void reply(struct str text)
{
    struct lease_reply m, again;
    struct buf b;
    if (lease_reply_decode(text, &m, NULL) != ERR_OK) return;
    buf_init(&b, MESSAGE_MAX_BYTES);
    if (lease_reply_encode(&m, clock_system(), rng_system(), "policy", &b) == ERR_OK) {
        if (lease_reply_decode(buf_str(&b), &again, NULL) != ERR_OK) abort();
        if (again.results_n != m.results_n || !str_eq(again.epoch, m.epoch)) abort();
        for (size_t i = 0; i < m.results_n; i++)
            if (again.results[i].status != m.results[i].status ||
                again.results[i].granted != m.results[i].granted ||
                again.results[i].retry_ms != m.results[i].retry_ms)
                abort();
        lease_reply_done(&again);
    }
    buf_done(&b);
    lease_reply_done(&m);
}

static void rejected(struct str text)
{
    struct rejected_msg m;
    struct buf b;
    if (rejected_msg_decode(text, &m, NULL) != ERR_OK) return;
    buf_init(&b, MESSAGE_MAX_BYTES);
    if (rejected_msg_encode(&m, clock_system(), rng_system(), "edge", &b) != ERR_OK) abort();
    buf_done(&b);
    rejected_msg_done(&m);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct str text = str_n((const char *)data, n);
    ask(text);
    reply(text);
    rejected(text);
    return 0;
}
