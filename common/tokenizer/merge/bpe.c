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

/* ---- all prefixes ---- */

/*
 * Would merging leave `left` and `right` standing side by side? Undoes their merges from the last
 * to the first; at each step the two parts that then touched must not have been due to merge before
 * the step that was undone. Of equal ranks the one further left merges first.
 */
static bool compatible(const struct vocab *v, uint32_t left, uint32_t right)
{
    uint32_t limit = UINT32_MAX;
    for (;;) {
        const struct vocab_pair *m = vocab_pair(v, left, right);
        if (m != NULL && m->rank + 1 < limit) return false;
        const struct vocab_split *l = &v->splits[left], *r = &v->splits[right];
        if (l->rank > r->rank) {
            limit = l->rank;
            left = l->right;
        } else {
            if (r->rank == 0) return true;
            limit = r->rank + 1;
            right = r->left;
        }
    }
}

/* Where the byte leads from a state, 0 when nowhere. */
static uint32_t edge_to(const struct vocab *v, uint32_t state, unsigned char byte)
{
    uint32_t key = state << 8 | byte, mask = v->h->edge_mask;
    for (uint32_t i = vocab_hash_edge(key);; i++) {
        const struct vocab_edge *edge = &v->edges[i & mask];
        if (edge->to == 0 || edge->key == key) return edge->to;
    }
}

static uint32_t next_state(const struct vocab *v, uint32_t state, unsigned char byte)
{
    for (;;) {
        uint32_t to = edge_to(v, state, byte);
        if (to != 0 || state == 0) return to;
        state = v->states[state].fail;
    }
}

struct walk {
    const struct vocab *v;
    const char *p;
    uint32_t *last;
    uint32_t state;  /* of the automaton */
    uint32_t grown;  /* the state of the token found last, once it has grown; 0: not known */
    uint32_t period; /* bytes after which tokens came again so far; 0: not known */
    /* Answers of compatible(), each with its question, since long pieces ask the same ones again
     * and again: left << 33 | right << 1 | answer, plus 1; 0: none. */
    uint32_t mask;
    uint64_t answers[8192];
};

static bool compatible_again(struct walk *w, uint32_t left, uint32_t right)
{
    uint64_t key = ((uint64_t)left << 33 | (uint64_t)right << 1) + 1;
    uint64_t *at = &w->answers[vocab_hash_pair(left, right) & w->mask];
    if (*at == key) return false;
    if (*at == key + 1) return true;
    bool answer = compatible(w->v, left, right);
    *at = key + answer;
    return answer;
}

/* Does `token` end the tokens of p[0..end)? */
static bool fits(struct walk *w, uint32_t token, size_t end)
{
    size_t start = end - vocab_token_len(w->v, token);
    return start == 0 || compatible_again(w, w->last[start - 1], token);
}

/* The token found last with one byte more, if that is a token: down the chain of suffixes from the
 * longest, or, since runs of one character have chains of a hundred, by the automaton. */
static uint32_t grow(struct walk *w, uint32_t longest, size_t end)
{
    enum { STEPS = 4 };
    const struct vocab *v = w->v;
    uint32_t want = vocab_token_len(v, w->last[end - 2]) + 1, token = longest;
    for (int i = 0; i < STEPS && w->grown == 0; i++) {
        uint32_t n = vocab_token_len(v, token);
        if (n == want) return token;
        if (n < want) return VOCAB_NO_TOKEN;
        token = v->splits[token].suffix;
    }
    uint32_t state = w->grown;
    if (state == 0)
        for (size_t i = end - want; i + 1 < end; i++)
            state = edge_to(v, state, (unsigned char)w->p[i]);
    w->grown = state = edge_to(v, state, (unsigned char)w->p[end - 1]);
    if (state == 0) return VOCAB_NO_TOKEN;
    token = v->states[state].token;
    return vocab_token_len(v, token) == want ? token : VOCAB_NO_TOKEN;
}

/* The token that ended the text `period` bytes before, should it be the one here too. */
static uint32_t token_again(struct walk *w, uint32_t longest_n, uint32_t period, size_t end)
{
    if (end <= period) return VOCAB_NO_TOKEN;
    uint32_t token = w->last[end - 1 - period], n = vocab_token_len(w->v, token);
    if (n > longest_n || memcmp(w->v->bytes + w->v->offsets[token], w->p + end - n, n) != 0)
        return VOCAB_NO_TOKEN;
    return fits(w, token, end) ? token : VOCAB_NO_TOKEN;
}

/* The one token that ends the tokens of p[0..end), of those that `longest` ends with. */
static uint32_t last_token(struct walk *w, uint32_t longest, size_t end)
{
    enum { LONG = 8 };
    uint32_t token, known = w->grown, longest_n = vocab_token_len(w->v, longest);
    /* In a long run of something the tokens repeat. */
    if (w->period > 0) {
        token = token_again(w, longest_n, w->period, end);
        w->grown = 0;
        if (token != VOCAB_NO_TOKEN) return token;
        known = w->period = 0;
    }
    /* Most often the one before has grown by a byte. */
    if (end > 1) {
        token = grow(w, longest, end);
        if (token != VOCAB_NO_TOKEN && fits(w, token, end)) {
            if (w->grown == known) w->grown = 0; /* found without the automaton */
            return token;
        }
    }
    w->grown = 0;
    if (longest_n >= LONG && end > 1) {
        /* A run is made of the longest token there is, or of the one before the last. */
        uint32_t n = vocab_token_len(w->v, w->last[end - 2]);
        if (n < end - 1) n = vocab_token_len(w->v, w->last[end - 2 - n]);
        const uint32_t periods[] = { longest_n, n };
        for (size_t i = 0; i < ARRAY_LEN(periods); i++) {
            token = token_again(w, longest_n, periods[i], end);
            if (token == VOCAB_NO_TOKEN) continue;
            w->period = periods[i];
            return token;
        }
    }
    /* A single byte always ends the chain: taken as it is should nothing else fit. */
    for (token = longest; w->v->splits[token].suffix != VOCAB_NO_TOKEN;
         token = w->v->splits[token].suffix)
        if (fits(w, token, end)) break;
    return token;
}

static void walk_init(struct walk *w, size_t most)
{
    w->state = w->grown = w->period = 0;
    w->mask = most < 1024 ? 255 : (uint32_t)ARRAY_LEN(w->answers) - 1;
    memset(w->answers, 0, ((size_t)w->mask + 1) * sizeof w->answers[0]);
}

static void walk_on(struct walk *w, const struct vocab *v, const char *p, size_t from, size_t to,
                    uint32_t *last, uint32_t *count)
{
    w->v = v;
    w->p = p;
    w->last = last;
    for (size_t i = from; i < to; i++) {
        w->state = next_state(v, w->state, (unsigned char)p[i]);
        last[i] = last_token(w, v->states[w->state].token, i + 1);
        size_t start = i + 1 - vocab_token_len(v, last[i]);
        count[i] = 1 + (start > 0 ? count[start - 1] : 0);
    }
}

void bpe_prefixes(const struct vocab *v, const char *p, size_t n, uint32_t *last, uint32_t *count)
{
    struct walk w;
    walk_init(&w, n);
    walk_on(&w, v, p, 0, n, last, count);
}

enum { RUN_ANSWERS = 1024 }; /* bytes that make room for few answers: they are cleared once */

struct bpe_run {
    struct walk walk;
    size_t n, most;
    uint32_t room[]; /* last, count; then the text */
};

struct bpe_run *bpe_run_new(size_t most)
{
    struct bpe_run *r = malloc(sizeof *r + 2 * most * sizeof r->room[0] + most);
    if (r == NULL) return NULL;
    r->most = most;
    walk_init(&r->walk, RUN_ANSWERS);
    bpe_run_clear(r);
    return r;
}

void bpe_run_free(struct bpe_run *r)
{
    free(r);
}

void bpe_run_clear(struct bpe_run *r)
{
    r->n = 0;
    r->walk.state = r->walk.grown = r->walk.period = 0; /* the answers stay true */
}

char *bpe_run_text(struct bpe_run *r)
{
    return (char *)(r->room + 2 * r->most);
}

uint64_t bpe_run_peek(struct bpe_run *r, const struct vocab *v, size_t n, size_t to)
{
    const char *p = bpe_run_text(r);
    ASSERT(n > 0 && n <= to && to <= r->most);
    uint32_t *last = r->room, *count = r->room + r->most;
    if (n > r->n) {
        walk_on(&r->walk, v, p, r->n, n, last, count);
        r->n = n;
    }
    if (to > r->n) {
        uint32_t state = r->walk.state, grown = r->walk.grown;
        walk_on(&r->walk, v, p, r->n, to, last, count);
        r->walk.state = state;
        r->walk.grown = grown;
    }
    return count[to - 1];
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

/* bpe_prefixes(), given up when somebody says so. */
static enum err prefixes_until(const struct vocab *v, const char *p, size_t n,
                               const struct stop *stop, uint32_t *last, uint32_t *count)
{
    struct walk w;
    walk_init(&w, n);
    for (size_t at = 0; at < n; at += MIN(n - at, (size_t)ASK)) {
        if (at > 0 && stop_asked(stop)) return ERR_CLOSED;
        walk_on(&w, v, p, at, at + MIN(n - at, (size_t)ASK), last, count);
    }
    return ERR_OK;
}

static enum err linear_piece(const struct vocab *v, const char *p, size_t n,
                             const struct stop *stop, struct token_list *to, uint64_t *ret)
{
    uint32_t small[2 * BPE_STACK], *room = small;
    if (n >= UINT32_MAX) return ERR_LIMIT;
    if (n > BPE_STACK) {
        room = malloc(2 * n * sizeof *room);
        if (room == NULL) return ERR_NOMEM;
    }
    uint32_t *last = room, *count = room + n;
    enum err e = prefixes_until(v, p, n, stop, last, count);
    uint32_t total = e == ERR_OK ? count[n - 1] : 0;
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

static enum err list_append(struct token_list *to, const uint32_t *ids, size_t n)
{
    if (to == NULL) return ERR_OK;
    enum err e = list_reserve(to, n);
    if (e != ERR_OK) return e;
    memcpy(to->ids + to->len, ids, n * sizeof *ids);
    to->len += n;
    return ERR_OK;
}

/*
 * Tokens are those of a text exactly when each is compatible with the next. So a long piece is
 * merged window by window, each with the end of what is there already, going further back where the
 * two do not fit. Given up are runs in which tokens depend on what is far away, and those of long
 * tokens, which the linear method is faster with: *ret_done.
 */
static enum err window_piece(const struct vocab *v, const char *p, size_t n,
                             const struct stop *stop, struct token_list *to, uint64_t *ret,
                             bool *ret_done)
{
    enum { BACK = 2, NEW = 16, KEEP = BPE_SHORT, ROOM = 4 * BPE_SHORT, FIRST = 192 };
    uint32_t ids[ROOM];
    size_t len = 0, before = to != NULL ? to->len : 0, ask_at = ASK;
    uint64_t flushed = 0;
    enum err e = ERR_OK;
    *ret_done = false;
    for (size_t at = 0; at < n && e == ERR_OK;) {
        size_t end = MIN(n, at + NEW), from = at;
        for (bool again = false;; again = true) {
            size_t was = from;
            for (int back = 0; back < BACK && len > 0; back++) {
                size_t token = vocab_token_len(v, ids[len - 1]);
                if (end - from + token > BPE_SHORT) break;
                from -= token;
                len--;
            }
            if (again && from == was) goto out;
            size_t made = bpe_merge_plain(v, p + from, end - from, ids + len);
            if (len == 0 || compatible(v, ids[len - 1], ids[len])) {
                len += made;
                break;
            }
        }
        at = end;
        if (at >= ask_at) {
            if (stop_asked(stop)) e = ERR_CLOSED;
            ask_at += ASK;
        }
        if (at >= FIRST && at < 2 * FIRST && 2 * at > 7 * (flushed + len)) goto out;
        if (e == ERR_OK && len > 2 * KEEP) { /* the window needs as much room */
            e = list_append(to, ids, len - KEEP);
            flushed += len - KEEP;
            memmove(ids, ids + len - KEEP, KEEP * sizeof *ids);
            len = KEEP;
        }
    }
    if (e == ERR_OK) e = list_append(to, ids, len);
    *ret = flushed + len;
    *ret_done = true;
out:
    if (to != NULL && (e != ERR_OK || !*ret_done)) to->len = before;
    return e;
}

/* Longer than BPE_SHORT, of a vocabulary for which the linear method holds. */
static enum err long_piece(const struct vocab *v, const char *p, size_t n, const struct stop *stop,
                           struct token_list *to, uint64_t *ret)
{
    bool done;
    enum err e = window_piece(v, p, n, stop, to, ret, &done);
    if (e != ERR_OK || done) return e;
    if (n > BPE_PLAIN) return linear_piece(v, p, n, stop, to, ret);
    uint32_t ids[BPE_PLAIN]; /* a line of one sign, mostly: its automaton would come from afar */
    *ret = bpe_merge_plain(v, p, n, ids);
    return list_append(to, ids, (size_t)*ret);
}

static enum err heap_piece(const struct vocab *v, const char *p, size_t n, struct token_list *to,
                           uint64_t *ret)
{
    uint32_t few[BPE_HEAP], *ids = n > BPE_HEAP ? malloc(n * sizeof *ids) : few;
    size_t count = 0;
    enum err e = ids != NULL ? bpe_merge_heap(v, p, n, ids, &count) : ERR_NOMEM;
    if (e == ERR_OK) e = list_append(to, ids, count);
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
    return list_append(to, ids, count);
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
