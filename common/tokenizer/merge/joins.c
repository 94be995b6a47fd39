/* SPDX-License-Identifier: Apache-2.0 */
/* Which characters may merge. Pure. */
#include "tokenizer/merge/joins.h"

#include <stdlib.h>

#include "base/utf8.h"
#include "tokenizer/merge/bpe.h"
#include "tokenizer/scan/unicode.h"
#include "tokenizer/scan/words.h"

enum {
    FIRST_OF_FOUR = 0x10000, /* a character of four bytes: there are no facts of it */
    FACTS_OF_FOUR = CHAR_TAIL | CHAR_HEAD | CHAR_FIRST | CHAR_SECOND,
    BITS_PER_PAIR = 16,
};

static inline uint32_t hash(uint32_t a, uint32_t b)
{
    uint64_t x = ((uint64_t)a << 32 | b) * 0x9e3779b97f4a7c15u;
    return (uint32_t)((x ^ x >> 31) >> 8);
}

static inline bool test(const uint64_t *words, uint32_t n, uint32_t h)
{
    h &= 64 * n - 1;
    return (words[h / 64] >> h % 64 & 1) != 0;
}

static inline void set(uint64_t *words, uint32_t n, uint32_t h)
{
    h &= 64 * n - 1;
    words[h / 64] |= (uint64_t)1 << h % 64;
}

static inline uint32_t first_two(const unsigned char *p)
{
    return p[0] < 0x80 ? p[0] : (uint32_t)p[0] << 8 | p[1];
}

/* What may be so, of a character of which no facts are kept. */
static inline unsigned facts_of(const struct vocab *v, uint32_t c)
{
    return c < FIRST_OF_FOUR ? v->char_facts[c] : FACTS_OF_FOUR;
}

/* b begins at q. */
static inline bool may_join(const struct vocab *v, uint32_t a, uint32_t b, const unsigned char *q,
                            bool *whole)
{
    const uint64_t *tail = v->joins, *head = tail + JOINS_PART, *inner = head + JOINS_PART;
    const uint64_t *pairs = inner + JOINS_PART;
    uint32_t last = a & 0x3f, two = first_two(q); /* of a's last byte */
    if (a < 0x80 && b < 0x80) {
        *whole = false;
        return true;
    }
    unsigned facts_a = facts_of(v, a), facts_b = facts_of(v, b);
    if (b >= FIRST_OF_FOUR) *whole = false; /* joins_chars() has no token of it */
    if (((facts_b & CHAR_TAIL) != 0 &&
         (test(tail, JOINS_PART, hash(last, b)) || test(inner, JOINS_PART, hash(last, two)))) ||
        ((facts_a & CHAR_HEAD) != 0 && test(head, JOINS_PART, hash(a, two)))) {
        *whole = false;
        return true;
    }
    if ((facts_a & CHAR_FIRST) == 0 || (facts_b & CHAR_SECOND) == 0) return false;
    return test(pairs, v->h->joins - JOINS_PARTS, hash(a, b));
}

bool joins_between(const struct vocab *v, uint32_t a, uint32_t b, const char *q, bool *ret_whole)
{
    return may_join(v, a, b, (const unsigned char *)q, ret_whole);
}

size_t joins_part(const struct vocab *v, const char *p, size_t n, bool *ret_whole)
{
    const char *q = p, *end = p + n;
    uint32_t a, b;
    *ret_whole = true;
    q += utf8_next_valid(q, &a);
    if (a >= FIRST_OF_FOUR) *ret_whole = false;
    bool twice = false; /* a stands behind another one */
    while (q < end) {
        size_t len = utf8_next_valid(q, &b);
        if (a == b && twice) {
            for (q += len; end - q >= 8 && memcmp(q, q - len, 8) == 0;) q += len == 3 ? 6 : 8;
            continue;
        }
        twice = a == b;
        if (!may_join(v, a, b, (const unsigned char *)q, ret_whole)) return (size_t)(q - p);
        q += len;
        a = b;
    }
    return n;
}

/* ---- when a vocabulary is made ---- */

struct sets {
    uint64_t *words; /* NULL: only count the pairs */
    unsigned char *facts;
    uint32_t n;
    uint64_t pairs;
};

static void add_pair(struct sets *s, uint32_t a, uint32_t b)
{
    if (a < 0x80 && b < 0x80) return;
    s->pairs++;
    if (s->words == NULL) return;
    set(s->words + JOINS_PARTS, s->n - JOINS_PARTS, hash(a, b));
    if (a < FIRST_OF_FOUR) s->facts[a] |= CHAR_FIRST;
    if (b < FIRST_OF_FOUR) s->facts[b] |= CHAR_SECOND;
}

/* For n bytes that a character begins with, n < 4: all first two bytes that it can have. */
static void add_first_two(uint64_t *words, uint32_t a, const unsigned char *p, size_t n)
{
    for (unsigned char second = 0x80; second < 0xc0; second++) {
        unsigned char two[2] = { p[0], n > 1 ? p[1] : second };
        set(words, JOINS_PART, hash(a, first_two(two)));
    }
}

/* Characters that begin with the n bytes. */
static void add_tails(unsigned char *facts, const unsigned char *p, size_t n)
{
    for (uint32_t cp = 0x80; cp < FIRST_OF_FOUR; cp++) {
        char c[4];
        if (utf8_encode(cp, c) > n && memcmp(c, p, n) == 0) facts[cp] |= CHAR_TAIL;
    }
}

/* [end of a character] characters [beginning of one]: other tokens are in no clean text. */
static void add_token(struct sets *s, const unsigned char *p, size_t n)
{
    size_t i = 0;
    uint32_t a = 0, b;
    while (i < n && (p[i] & 0xc0) == 0x80) i++;
    bool partial = i > 0, first = true;
    for (size_t len; i < n; i += len, a = b, first = false) {
        len = utf8_decode((const char *)p + i, n - i, &b);
        if (len == 0) {
            size_t left = n - i;
            if (left > 3 || p[i] < 0xc0 || s->words == NULL) return;
            if (!first) {
                add_first_two(s->words + JOINS_PART, a, p + i, left);
                if (a < FIRST_OF_FOUR) s->facts[a] |= CHAR_HEAD;
            } else if (partial) {
                add_first_two(s->words + 2 * JOINS_PART, p[i - 1] & 0x3f, p + i, left);
                add_tails(s->facts, p + i, left);
            }
            return;
        }
        if (!first)
            add_pair(s, a, b);
        else if (partial && s->words != NULL) {
            set(s->words, JOINS_PART, hash(p[i - 1] & 0x3f, b));
            if (b < FIRST_OF_FOUR) s->facts[b] |= CHAR_TAIL;
        }
    }
}

static void add_all(const struct vocab *v, struct sets *s)
{
    for (uint32_t id = 0; id < v->h->size; id++)
        add_token(s, (const unsigned char *)v->bytes + v->offsets[id], vocab_token_len(v, id));
}

/* How many tokens each character is where it stands alone. */
static enum err add_lengths(const struct vocab *v, unsigned char *facts)
{
    for (uint32_t cp = 0x80; cp < FIRST_OF_FOUR; cp++) {
        char c[4];
        uint64_t count;
        if (cp >= 0xd800 && cp < 0xe000) continue;
        enum err e = bpe_part(v, c, utf8_encode(cp, c), false, NULL, &count);
        if (e != ERR_OK) return e;
        facts[cp] |= (unsigned char)count;
    }
    return ERR_OK;
}

enum err joins_build(const struct vocab *v, uint64_t **ret, uint32_t *ret_n,
                     unsigned char **ret_facts)
{
    struct sets s = { .words = NULL };
    add_all(v, &s);
    uint32_t size = 1024;
    while ((uint64_t)size * 64 < s.pairs * BITS_PER_PAIR && size < 1u << 24) size *= 2;
    s.n = size + JOINS_PARTS;
    s.words = calloc(s.n, sizeof *s.words);
    s.facts = calloc(FIRST_OF_FOUR, 1);
    enum err e = s.words == NULL || s.facts == NULL ? ERR_NOMEM : add_lengths(v, s.facts);
    if (e != ERR_OK) {
        free(s.words);
        free(s.facts);
        return e;
    }
    add_all(v, &s);
    for (uint32_t cp = 0x80; cp < FIRST_OF_FOUR; cp++)
        if (words_letter((enum scan_shape)v->h->shape, cp)) s.facts[cp] |= CHAR_WORD;
    *ret = s.words;
    *ret_n = s.n;
    *ret_facts = s.facts;
    return ERR_OK;
}

enum err joins_chars(const struct vocab *v, uint32_t **ret)
{
    uint32_t *chars = malloc(FIRST_OF_FOUR * sizeof *chars);
    if (chars == NULL) return ERR_NOMEM;
    memset(chars, 0xff, FIRST_OF_FOUR * sizeof *chars);
    for (uint32_t id = 0; id < v->h->size; id++) {
        const char *p = v->bytes + v->offsets[id];
        size_t n = vocab_token_len(v, id);
        uint32_t cp;
        if (n == 0 || n > 3 || v->splits[id].rank == VOCAB_NO_RANK) continue;
        if (utf8_decode(p, n, &cp) == n) chars[cp] = id;
    }
    *ret = chars;
    return ERR_OK;
}
