/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Merges a long piece by windows that overlap, a dozen at a time. Tokens are those of a text
 * exactly when each is compatible with the next, so two windows are joined where a token of one
 * ends, one of the other begins, and the two are compatible. Pure.
 */
#include "tokenizer/merge/bpe.h"

enum {
    LAP = 7,          /* bytes that two windows share */
    TURN = 12,        /* windows that are merged together */
    ASK = 64 << 10,   /* bytes between two questions whether to stop */
    KEEP = BPE_SHORT, /* tokens that may be merged again */
    ROOM = KEEP + (TURN + 1) * BPE_MANY + BPE_SHORT, /* what windows add, and one merged again */
};

/* The last tokens of what is merged so far, p[0..at). */
struct chain {
    uint32_t ids[ROOM];
    size_t len, at;
    uint32_t starts; /* bit i: one of them begins BPE_MANY - i bytes in front of the end */
};

/* Goes on with a window that begins LAP bytes in front of the end. False where the two do not fit.
 */
static bool join(const struct vocab *v, struct chain *c, const struct bpe_short *w)
{
    uint32_t lap = c->len > 0 ? c->starts >> (BPE_MANY - LAP) : 0, all = (uint32_t)w->count;
    size_t len = c->len;
    uint32_t first = 0;
    if (len > 0) {
        /* a token that begins with the window may have begun before it */
        uint32_t both = (lap | 1u << LAP) & w->starts & ~1u;
        for (;; both &= both - 1) {
            if (both == 0) return false;
            unsigned at = (unsigned)__builtin_ctz(both);
            len = c->len - (size_t)__builtin_popcount(lap >> at);
            first = (uint32_t)__builtin_popcount(w->starts & ((1u << at) - 1));
            if (len > 0 && bpe_compatible(v, c->ids[len - 1], w->ids[first])) break;
        }
    }
    memcpy(c->ids + len, w->ids + first, (all - first) * sizeof c->ids[0]);
    c->len = len + all - first;
    c->at += w->n - (c->at > 0 ? LAP : 0);
    c->starts = w->starts << (BPE_MANY - w->n);
    return true;
}

/* Merges p[at..end) with the last tokens in front of it, and further back where what comes out does
 * not fit. False when that would be too far. */
static bool merge_again(const struct vocab *v, const char *p, struct chain *c, size_t end)
{
    enum { BACK = 2 };
    size_t from = c->at, made;
    for (bool again = false;; again = true) {
        size_t was = from;
        for (int back = 0; back < BACK && c->len > 0; back++) {
            size_t token = vocab_token_len(v, c->ids[c->len - 1]);
            if (end - from + token > BPE_SHORT) break;
            from -= token;
            c->len--;
        }
        if (again && from == was) return false;
        made = bpe_merge_plain(v, p + from, end - from, c->ids + c->len);
        if (c->len == 0 || bpe_compatible(v, c->ids[c->len - 1], c->ids[c->len])) break;
    }
    c->len += made;
    c->at = end;
    c->starts = 0;
    for (size_t i = c->len, pos = BPE_MANY; i > 0; i--) {
        size_t token = vocab_token_len(v, c->ids[i - 1]);
        if (token > pos) break;
        pos -= token;
        c->starts |= 1u << pos;
    }
    return true;
}

enum err bpe_windows(const struct vocab *v, const char *p, size_t n, const struct stop *stop,
                     struct token_list *to, uint64_t *ret, bool *ret_done)
{
    enum { LEAST = 192 };
    struct chain c = { .len = 0 };
    struct bpe_short windows[TURN];
    uint32_t ids[TURN][BPE_MANY];
    size_t before = to != NULL ? to->len : 0, ask_at = ASK;
    uint64_t flushed = 0;
    enum err e = ERR_OK;
    *ret_done = false;
    while (c.at < n && e == ERR_OK) {
        size_t some = 0;
        for (size_t end = c.at; some < TURN && end < n; some++) {
            size_t from = end - MIN(end, (size_t)LAP), len = MIN(n - from, (size_t)BPE_MANY);
            windows[some] = (struct bpe_short){ .p = p + from,
                                                .n = (unsigned)len,
                                                .ids = ids[some] };
            end = from + len;
        }
        bpe_many(v, windows, some);
        for (size_t i = 0; i < some; i++) {
            const struct bpe_short *w = &windows[i];
            if (!join(v, &c, w) && !merge_again(v, p, &c, (size_t)(w->p - p) + w->n)) goto out;
        }
        /* Long tokens: the linear method is faster with them. */
        if (flushed == 0 && c.at >= LEAST && 2 * c.at > 7 * c.len) goto out;
        if (c.at >= ask_at) {
            if (stop_asked(stop)) e = ERR_CLOSED;
            ask_at += ASK;
        }
        if (e == ERR_OK && c.len > KEEP) {
            e = token_list_append(to, c.ids, c.len - KEEP);
            flushed += c.len - KEEP;
            memmove(c.ids, c.ids + c.len - KEEP, KEEP * sizeof c.ids[0]);
            c.len = KEEP;
        }
    }
    if (e == ERR_OK) e = token_list_append(to, c.ids, c.len);
    *ret = flushed + c.len;
    *ret_done = true;
out:
    if (to != NULL && (e != ERR_OK || !*ret_done)) to->len = before;
    return e;
}
