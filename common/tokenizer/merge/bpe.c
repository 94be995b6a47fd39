/* SPDX-License-Identifier: Apache-2.0 */
/* Byte-pair encoding of one piece. Pure. */
#include "tokenizer/merge/bpe.h"

#include <stdlib.h>

#include "tokenizer/merge/chars.h"
#include "tokenizer/merge/joins.h"
#include "tokenizer/scan/unicode.h"

enum { ASK = 64 << 10 }; /* bytes between two questions whether to stop */

/* Merges n ids; of each, the rank and the outcome of its merge with the next. */
static size_t merge_all(const struct vocab *v, uint32_t *ids, uint32_t *ranks, uint32_t *merged,
                        size_t n)
{
    while (n > 1) {
        uint64_t best = (uint64_t)VOCAB_NO_RANK << 32;
        for (size_t i = 0; i + 1 < n; i++) best = MIN(best, (uint64_t)ranks[i] << 32 | i);
        if (best >> 32 == VOCAB_NO_RANK) break;
        size_t at = (uint32_t)best, from = at > 0 ? at - 1 : 0;
        ids[at] = merged[at];
        uint64_t before = vocab_hash_pair(ids[from], ids[at]);
        uint64_t behind = at + 2 < n ? vocab_hash_pair(ids[at], ids[at + 2]) : before;
        vocab_pair_fetch(v, before); /* they come while the rest moves up */
        vocab_pair_fetch(v, behind);
        for (size_t i = at + 1; i + 1 < n; i++) {
            ids[i] = ids[i + 1];
            ranks[i] = ranks[i + 1];
            merged[i] = merged[i + 1];
        }
        n--;
        for (size_t i = from; i <= at && i + 1 < n; i++) {
            const struct vocab_pair *m = vocab_pair_at(v, ids[i], ids[i + 1],
                                                       i < at ? before : behind);
            ranks[i] = m != NULL ? m->rank : VOCAB_NO_RANK;
            merged[i] = m != NULL ? m->id : 0;
        }
    }
    return n;
}

size_t bpe_merge_plain(const struct vocab *v, const char *p, size_t n, uint32_t *ids)
{
    uint32_t ranks[BPE_PLAIN], merged[BPE_PLAIN];
    ASSERT(n > 0 && n <= BPE_PLAIN);
    for (size_t i = 0; i < n; i++) ids[i] = v->byte_ids[(unsigned char)p[i]];
    for (size_t i = 0; i + 1 < n; i++) {
        unsigned char a = (unsigned char)p[i], b = (unsigned char)p[i + 1];
        const struct vocab_byte_pair *m = &v->byte_pairs[(unsigned)a << 8 | b];
        ranks[i] = m->rank;
        merged[i] = m->id;
    }
    return merge_all(v, ids, ranks, merged, n);
}

/* Begins with characters; 0 when one of them is no token. */
static size_t merge_chars(const struct vocab *v, const char *p, size_t n, uint32_t *ids)
{
    uint32_t ranks[BPE_SHORT], merged[BPE_SHORT], cp;
    size_t count = 0;
    for (const char *end = p + n; p < end;) {
        p += utf8_next_valid(p, &cp);
        ids[count] = v->chars[cp];
        if (ids[count++] == VOCAB_NO_TOKEN) return 0;
    }
    for (size_t i = 0; i + 1 < count; i++) {
        const struct vocab_pair *m = vocab_pair(v, ids[i], ids[i + 1]);
        ranks[i] = m != NULL ? m->rank : VOCAB_NO_RANK;
        merged[i] = m != NULL ? m->id : 0;
    }
    return merge_all(v, ids, ranks, merged, count);
}

/* ---- heap ---- */

struct symbol {
    uint32_t id, prev, next; /* next == n: none */
    uint32_t rank;           /* of the pair with next */
};

struct heap {
    uint64_t *keys; /* rank << 32 | position */
    size_t len;
};

static void heap_push(struct heap *h, uint64_t key)
{
    size_t i = h->len++;
    for (; i > 0 && h->keys[(i - 1) / 2] > key; i = (i - 1) / 2) h->keys[i] = h->keys[(i - 1) / 2];
    h->keys[i] = key;
}

static uint64_t heap_pop(struct heap *h)
{
    uint64_t top = h->keys[0], key = h->keys[--h->len];
    size_t i = 0;
    for (;;) {
        size_t child = 2 * i + 1;
        if (child >= h->len) break;
        if (child + 1 < h->len && h->keys[child + 1] < h->keys[child]) child++;
        if (h->keys[child] >= key) break;
        h->keys[i] = h->keys[child];
        i = child;
    }
    h->keys[i] = key;
    return top;
}

static void pair_up(const struct vocab *v, struct symbol *s, size_t n, uint32_t at, struct heap *h)
{
    s[at].rank = VOCAB_NO_RANK;
    if (s[at].next == n) return;
    const struct vocab_pair *m = vocab_pair(v, s[at].id, s[s[at].next].id);
    if (m == NULL) return;
    s[at].rank = m->rank;
    heap_push(h, (uint64_t)m->rank << 32 | at);
}

enum err bpe_merge_heap(const struct vocab *v, const char *p, size_t n, uint32_t *ids, size_t *ret)
{
    if (n >= UINT32_MAX / 4) return ERR_LIMIT;
    /* Each pair is pushed once at first, and each of at most n - 1 merges pushes two. */
    uint64_t few_keys[3 * BPE_HEAP];
    struct symbol few[BPE_HEAP], *s = n > BPE_HEAP ? malloc(n * sizeof *s) : few;
    struct heap h = { n > BPE_HEAP ? malloc(3 * n * sizeof *h.keys) : few_keys, 0 };
    enum err e = ERR_NOMEM;
    if (s == NULL || h.keys == NULL) goto out;
    for (size_t i = 0; i < n; i++) {
        s[i] = (struct symbol){ v->byte_ids[(unsigned char)p[i]],
                                i > 0 ? (uint32_t)(i - 1) : UINT32_MAX, (uint32_t)(i + 1),
                                VOCAB_NO_RANK };
    }
    for (size_t i = 0; i + 1 < n; i++) pair_up(v, s, n, (uint32_t)i, &h);
    while (h.len > 0) {
        uint64_t key = heap_pop(&h);
        uint32_t at = (uint32_t)key;
        if (s[at].rank != key >> 32 || s[at].next == n) continue; /* out of date */
        uint32_t with = s[at].next;
        s[at].id = vocab_pair(v, s[at].id, s[with].id)->id;
        s[at].next = s[with].next;
        s[with].rank = VOCAB_NO_RANK;
        s[with].next = (uint32_t)n;
        if (s[at].next != n) s[s[at].next].prev = at;
        pair_up(v, s, n, at, &h);
        if (s[at].prev != UINT32_MAX) pair_up(v, s, n, s[at].prev, &h);
    }
    size_t count = 0;
    for (uint32_t i = 0; i != n; i = s[i].next) ids[count++] = s[i].id;
    *ret = count;
    e = ERR_OK;
out:
    if (s != few) free(s);
    if (h.keys != few_keys) free(h.keys);
    return e;
}

/* ---- */

static enum err list_reserve(struct token_list *l, size_t n)
{
    if (l->cap - l->len >= n) return ERR_OK;
    size_t cap = MAX(l->cap + l->cap / 2, MAX(l->len + n, (size_t)64));
    uint32_t *ids = realloc(l->ids, cap * sizeof *ids);
    if (ids == NULL) return ERR_NOMEM;
    l->ids = ids;
    if (l->want_ends) {
        uint64_t *ends = realloc(l->ends, cap * sizeof *ends);
        if (ends == NULL) return ERR_NOMEM;
        l->ends = ends;
    }
    l->cap = cap;
    return ERR_OK;
}

enum err token_list_push(struct token_list *l, uint32_t id)
{
    enum err e = list_reserve(l, 1);
    if (e == ERR_OK) l->ids[l->len++] = id;
    return e;
}

void token_list_done(struct token_list *l)
{
    free(l->ids);
    free(l->ends);
    *l = (struct token_list){ .want_ends = l->want_ends };
}

static enum err linear_piece(const struct vocab *v, const char *p, size_t n,
                             const struct stop *stop, struct token_list *to, uint64_t *ret)
{
    uint32_t small[2 * BPE_STACK], *room = small, total = 0;
    if (n >= UINT32_MAX) return ERR_LIMIT;
    if (n > BPE_STACK && to == NULL) {
        enum err e = bpe_prefixes_count(v, p, n, stop, &total);
        if (e == ERR_OK) *ret = total;
        return e;
    }
    if (n > BPE_STACK) {
        room = malloc(2 * n * sizeof *room);
        if (room == NULL) return ERR_NOMEM;
    }
    uint32_t *last = room, *count = room + n;
    enum err e = bpe_prefixes_until(v, p, n, stop, last, count);
    if (e == ERR_OK) total = count[n - 1];
    if (e == ERR_OK && to != NULL) e = list_reserve(to, total);
    if (e == ERR_OK && to != NULL) {
        size_t at = n;
        for (uint32_t k = total; k > 0; k--) {
            to->ids[to->len + k - 1] = last[at - 1];
            at -= vocab_token_len(v, last[at - 1]);
        }
        to->len += total;
    }
    if (e == ERR_OK) *ret = total;
    if (room != small) free(room);
    return e;
}

enum err token_list_append(struct token_list *to, const uint32_t *ids, size_t n)
{
    if (to == NULL) return ERR_OK;
    enum err e = list_reserve(to, n);
    if (e != ERR_OK) return e;
    memcpy(to->ids + to->len, ids, n * sizeof *ids);
    to->len += n;
    return ERR_OK;
}

bool bpe_run_is(const struct vocab *v, const char *p, size_t n)
{
    enum { LOOK = 96, MOST = 16 };
    if (n <= BPE_PLAIN || v->h->linear == 0) return false;
    for (size_t period = 1; period <= MOST; period++)
        if (memcmp(p, p + period, LOOK) == 0) return true;
    return false;
}

/* Longer than BPE_SHORT, of a vocabulary for which the linear method holds. */
static enum err long_piece(const struct vocab *v, const char *p, size_t n, const struct stop *stop,
                           struct token_list *to, uint64_t *ret)
{
    bool done;
    if (bpe_run_is(v, p, n)) return linear_piece(v, p, n, stop, to, ret);
    enum err e = bpe_windows(v, p, n, stop, to, ret, &done);
    if (e != ERR_OK || done) return e;
    if (n > BPE_PLAIN) return linear_piece(v, p, n, stop, to, ret);
    uint32_t ids[BPE_PLAIN]; /* a line of one sign, mostly: its automaton would come from afar */
    *ret = bpe_merge_plain(v, p, n, ids);
    return token_list_append(to, ids, (size_t)*ret);
}

static enum err heap_piece(const struct vocab *v, const char *p, size_t n, struct token_list *to,
                           uint64_t *ret)
{
    uint32_t few[BPE_HEAP], *ids = n > BPE_HEAP ? malloc(n * sizeof *ids) : few;
    size_t count = 0;
    enum err e = ids != NULL ? bpe_merge_heap(v, p, n, ids, &count) : ERR_NOMEM;
    if (e == ERR_OK) e = token_list_append(to, ids, count);
    if (e == ERR_OK) *ret = count;
    if (ids != few) free(ids);
    return e;
}

static enum err part_until(const struct vocab *v, const char *p, size_t n, bool chars,
                           const struct stop *stop, struct token_list *to, uint64_t *ret)
{
    if (n > BPE_SHORT && v->h->linear == 0) return heap_piece(v, p, n, to, ret);
    if (n > BPE_SHORT) return long_piece(v, p, n, stop, to, ret);
    uint32_t ids[BPE_SHORT];
    size_t count = 0;
    if (v->h->shape == SCAN_CHARS && chars_one(p, n))
        for (; count < n; count++) ids[count] = v->byte_ids[(unsigned char)p[count]];
    else if (chars)
        count = merge_chars(v, p, n, ids);
    if (count == 0) count = bpe_merge_plain(v, p, n, ids);
    *ret = count;
    return token_list_append(to, ids, count);
}

enum err bpe_part(const struct vocab *v, const char *p, size_t n, bool chars, struct token_list *to,
                  uint64_t *ret)
{
    return part_until(v, p, n, chars, NULL, to, ret);
}

enum err bpe_piece_until(const struct vocab *v, const char *p, size_t n, const struct stop *stop,
                         struct token_list *to, uint64_t *ret)
{
    uint32_t whole = vocab_whole(v, p, n);
    if (whole != VOCAB_NO_TOKEN) {
        *ret = 1;
        return to != NULL ? token_list_push(to, whole) : ERR_OK;
    }
    if (n <= BPE_WORD || joins_none(v, p, n)) return part_until(v, p, n, false, stop, to, ret);
    uint64_t total = 0, count = 0;
    for (size_t part, asked = 0; n > 0; p += part, n -= part) {
        bool chars;
        part = joins_part(v, p, n, &chars);
        enum err e = part_until(v, p, part, chars, stop, to, &count);
        if (e != ERR_OK) return e;
        total += count;
        asked += part;
        if (asked < ASK) continue;
        if (stop_asked(stop)) return ERR_CLOSED;
        asked = 0;
    }
    *ret = total;
    return ERR_OK;
}

enum err bpe_piece(const struct vocab *v, const char *p, size_t n, struct token_list *to,
                   uint64_t *ret)
{
    return bpe_piece_until(v, p, n, NULL, to, ret);
}
