/* SPDX-License-Identifier: Apache-2.0 */
/* Byte-pair encoding of all prefixes of a piece, in linear time. Pure. */
#include "tokenizer/merge/bpe.h"

#include <stdlib.h>

enum {
    ASK = 64 << 10,     /* bytes between two questions whether to stop */
    PERIOD_MOST = 1024, /* bytes of a period that is looked for */
};

bool bpe_compatible(const struct vocab *v, uint32_t left, uint32_t right)
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
    /* Answers of bpe_compatible(), each with its question, since long pieces ask the same ones
     * again and again: left << 33 | right << 1 | answer, plus 1; 0: none. */
    uint32_t mask;
    uint64_t answers[8192];
};

static bool compatible_again(struct walk *w, uint32_t left, uint32_t right)
{
    uint64_t key = ((uint64_t)left << 33 | (uint64_t)right << 1) + 1;
    uint64_t *at = &w->answers[vocab_hash_pair(left, right) & w->mask];
    if (*at == key) return false;
    if (*at == key + 1) return true;
    bool answer = bpe_compatible(w->v, left, right);
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

/* The state at a place further on or back: it depends on as many bytes as the longest token has. */
static void walk_from(struct walk *w, const struct vocab *v, const char *p, size_t at)
{
    w->state = w->grown = 0;
    for (size_t i = at - MIN(at, (size_t)v->h->longest); i < at; i++)
        w->state = next_state(v, w->state, (unsigned char)p[i]);
}

/* How many of the first n bytes of both are the same. */
static size_t alike(const char *p, const char *q, size_t n)
{
    size_t i = 0;
    for (uint64_t a, b; i + 8 <= n; i += 8) {
        memcpy(&a, p + i, 8);
        memcpy(&b, q + i, 8);
        if (a != b) break;
    }
    while (i < n && p[i] == q[i]) i++;
    return i;
}

/*
 * The last token of a prefix depends on as many bytes and tokens in front of its end as the longest
 * token has. Where all of those came before, one period earlier, the text that follows has the
 * tokens of one period earlier as long as it is the same, too: p[n..*ret), whose tokens are written
 * down. Returns how far that goes.
 */
static size_t walk_again(struct walk *w, size_t n, size_t to, uint32_t *count)
{
    enum { LEAST = 64 };
    const struct vocab *v = w->v;
    const char *p = w->p;
    uint32_t *last = w->last;
    size_t longest = v->h->longest, period = 1, end;
    for (;; period++) {
        if (period > PERIOD_MOST || n < 2 * longest + period) return n;
        if (last[n - 1 - period] != last[n - 1]) continue;
        if (memcmp(p + n - longest, p + n - longest - period, longest) == 0 &&
            memcmp(last + n - longest, last + n - longest - period, longest * sizeof *last) == 0)
            break;
    }
    end = n + alike(p + n, p + n - period, to - n);
    if (end - n < LEAST) return n;
    for (size_t i = n; i < end; i++) {
        last[i] = last[i - period];
        count[i] = count[i - vocab_token_len(v, last[i])] + 1;
    }
    walk_from(w, v, p, end);
    return end;
}

static void walk_on(struct walk *w, const struct vocab *v, const char *p, size_t from, size_t to,
                    uint32_t *last, uint32_t *count)
{
    enum { LOOK = 128 }; /* bytes between two looks for what came before */
    w->v = v;
    w->p = p;
    w->last = last;
    for (size_t i = from, look = from + LOOK; i < to;) {
        w->state = next_state(v, w->state, (unsigned char)p[i]);
        last[i] = last_token(w, v->states[w->state].token, i + 1);
        size_t start = i + 1 - vocab_token_len(v, last[i]);
        count[i] = 1 + (start > 0 ? count[start - 1] : 0);
        if (++i < look || i == to) continue;
        i = walk_again(w, i, to, count);
        look = i + LOOK;
    }
}

void bpe_prefixes(const struct vocab *v, const char *p, size_t n, uint32_t *last, uint32_t *count)
{
    struct walk w;
    walk_init(&w, n);
    walk_on(&w, v, p, 0, n, last, count);
}

enum err bpe_prefixes_until(const struct vocab *v, const char *p, size_t n, const struct stop *stop,
                            uint32_t *last, uint32_t *count)
{
    struct walk w;
    walk_init(&w, n);
    for (size_t at = 0; at < n; at += MIN(n - at, (size_t)ASK)) {
        if (at > 0 && stop_asked(stop)) return ERR_CLOSED;
        walk_on(&w, v, p, at, at + MIN(n - at, (size_t)ASK), last, count);
    }
    return ERR_OK;
}

enum err bpe_prefixes_count(const struct vocab *v, const char *p, size_t n, const struct stop *stop,
                            uint32_t *ret)
{
    enum { ROOM = 12 << 10 };
    size_t keep = 2 * (size_t)v->h->longest + PERIOD_MOST, room = MIN(n, keep + ROOM), have = 0;
    uint32_t *last = malloc(2 * room * sizeof *last);
    if (last == NULL) return ERR_NOMEM;
    uint32_t *count = last + room;
    enum err e = ERR_OK;
    struct walk w;
    walk_init(&w, n);
    for (size_t asked = 0;;) {
        size_t some = MIN(n, room - have);
        walk_on(&w, v, p, have, have + some, last, count);
        have += some;
        n -= some;
        asked += some;
        if (n == 0) break;
        if (asked >= ASK) {
            if (stop_asked(stop)) e = ERR_CLOSED;
            if (e != ERR_OK) break;
            asked = 0;
        }
        memmove(last, last + have - keep, keep * sizeof *last);
        memmove(count, count + have - keep, keep * sizeof *count);
        p += have - keep;
        have = keep;
    }
    if (e == ERR_OK) *ret = count[have - 1];
    free(last);
    return e;
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

uint64_t bpe_run_count(struct bpe_run *r, const struct vocab *v, const char *p, size_t n)
{
    uint32_t *last = r->room, *count = r->room + r->most;
    char *text = bpe_run_text(r);
    ASSERT(n > 0 && n <= r->most);
    size_t same = alike(text, p, MIN(n, r->n));
    if (same < n) {
        memcpy(text + same, p + same, n - same);
        r->walk.period = 0;
        walk_from(&r->walk, v, text, same);
        walk_on(&r->walk, v, text, same, n, last, count);
        r->n = n;
    }
    return count[n - 1];
}
