/* SPDX-License-Identifier: Apache-2.0 */
/* Pieces and inner merges of vocabularies over characters. Pure. */
#include "tokenizer/merge/chars.h"

#include <stdlib.h>

#include "base/map.h"
#include "tokenizer/scan/unicode.h"

/*
 * Neighbours: a bit for each pair of ASCII characters, then a hash table of the other pairs with
 * free places 0. Exact: a boundary that is missed could let a character without a token into a
 * piece.
 */
enum { ASCII_WORDS = 128 * 128 / 64 };

static inline uint64_t pair_key(uint32_t a, uint32_t b)
{
    return (uint64_t)a << 32 | b;
}

static inline uint64_t pair_hash(uint64_t key)
{
    key *= 0x9e3779b97f4a7c15u;
    return key ^ key >> 29;
}

static inline bool ascii_neighbours(const uint64_t *words, unsigned char a, unsigned char b)
{
    return (words[a * 2 + b / 64] >> b % 64 & 1) != 0;
}

static bool neighbours(const struct vocab *v, uint32_t a, uint32_t b)
{
    if (a < 0x80 && b < 0x80)
        return ascii_neighbours(v->neighbours, (unsigned char)a, (unsigned char)b);
    const uint64_t *table = v->neighbours + ASCII_WORDS;
    uint64_t mask = v->h->neighbours - ASCII_WORDS - 1, key = pair_key(a, b);
    for (uint64_t i = pair_hash(key) >> 32;; i++) {
        uint64_t at = table[i & mask];
        if (at == key) return true;
        if (at == 0) return false;
    }
}

size_t chars_piece(const struct vocab *v, const char *p, size_t n, bool more)
{
    const char *q = p, *end = p + n;
    bool split = (v->h->chars & CHARS_SPLIT) != 0;
    uint32_t a, b;
    q += utf8_next_valid(q, &a);
    for (;;) {
        while (a < 0x80 && q < end && (unsigned char)*q < 0x80) {
            if (!ascii_neighbours(v->neighbours, (unsigned char)a, (unsigned char)*q) ||
                (split && *q == ' '))
                return (size_t)(q - p);
            a = (unsigned char)*q++;
        }
        if (q == end) return more ? 0 : n;
        size_t len = utf8_next_valid(q, &b);
        if ((split && b == ' ') || !neighbours(v, a, b)) return (size_t)(q - p);
        q += len;
        a = b;
    }
}

/* ---- when a vocabulary is made ---- */

/* Room for all pairs, at most a quarter full. */
static uint64_t *make_table(uint64_t pairs, uint32_t *ret_n)
{
    uint64_t size = 64;
    while (size < 2 * pairs) size *= 2;
    if (size > (1u << 28)) return NULL;
    *ret_n = (uint32_t)size + ASCII_WORDS;
    return calloc(*ret_n, sizeof(uint64_t));
}

/* Returns whether the pair is new. */
static bool put(uint64_t *words, uint32_t n, uint32_t a, uint32_t b)
{
    if (a < 0x80 && b < 0x80) {
        words[a * 2 + b / 64] |= (uint64_t)1 << b % 64;
        return false;
    }
    uint64_t *table = words + ASCII_WORDS, mask = n - ASCII_WORDS - 1, key = pair_key(a, b);
    for (uint64_t i = pair_hash(key) >> 32;; i++) {
        if (table[i & mask] == key) return false;
        if (table[i & mask] != 0) continue;
        table[i & mask] = key;
        return true;
    }
}

/* Puts the pairs of all tokens into words; returns how many are in the table. */
static uint64_t put_all(const struct vocab *v, uint64_t *words, uint32_t n)
{
    uint64_t count = 0;
    for (uint32_t id = 0; id < v->h->ids; id++) {
        const char *p = v->bytes + v->offsets[id], *end = v->bytes + v->offsets[id + 1];
        uint32_t a, b;
        if (end - p < 2 || v->splits[id].rank == VOCAB_NO_RANK) continue;
        for (p += utf8_next_valid(p, &a); p < end; a = b) {
            p += utf8_next_valid(p, &b);
            count += put(words, n, a, b);
        }
    }
    return count;
}

enum err chars_neighbours(const struct vocab *v, uint64_t **ret, uint32_t *ret_n)
{
    uint32_t n;
    uint64_t *words = make_table(v->offsets[v->h->ids], &n); /* there are no more */
    if (words == NULL) return ERR_NOMEM;
    uint64_t pairs = put_all(v, words, n);
    free(words);
    words = make_table(2 * pairs, &n);
    if (words == NULL) return ERR_NOMEM;
    (void)put_all(v, words, n);
    *ret = words;
    *ret_n = n;
    return ERR_OK;
}

struct inner {
    struct build *b;
    struct map ids; /* prefixes of characters, by their bytes */
    uint32_t rank, next, bytes[256];
};

/* The merges that make the character `id` of its bytes. */
static enum err add_char(struct inner *in, struct str s, uint32_t id)
{
    uint32_t left = in->bytes[(unsigned char)s.p[0]];
    enum err e = ERR_OK;
    for (size_t n = 2; n <= s.n && e == ERR_OK; n++) {
        struct str prefix = { s.p, n };
        void *known = n < s.n ? map_get(&in->ids, prefix) : NULL;
        if (known != NULL) {
            left = (uint32_t)(uintptr_t)known;
            continue;
        }
        uint32_t right = in->bytes[(unsigned char)s.p[n - 1]], made = n < s.n ? in->next++ : id;
        if (n < s.n) {
            e = build_token(in->b, made, prefix);
            if (e == ERR_OK) e = map_put(&in->ids, prefix, (void *)(uintptr_t)made, NULL);
        }
        if (e == ERR_OK && in->rank >= CHARS_FIRST_RANK) e = ERR_LIMIT;
        if (e == ERR_OK) e = build_pair(in->b, left, right, in->rank++, made);
        left = made;
    }
    return e;
}

enum err chars_add_inner(struct build *b, struct why *why)
{
    uint32_t size = build_size(b);
    struct inner in = { .b = b, .next = size };
    memset(in.bytes, 0xff, sizeof in.bytes);
    for (uint32_t id = 0; id < size; id++) {
        struct str s = build_bytes(b, id);
        if (s.n == 1) in.bytes[(unsigned char)s.p[0]] = id;
    }
    for (int i = 0; i < 256; i++)
        if (in.bytes[i] == VOCAB_NO_TOKEN)
            return why_set(why, ERR_UNSUPPORTED,
                           "model.vocab: no token for the byte 0x%02x (byte_fallback needs all)",
                           i);
    enum err e = ERR_OK;
    b->ids = size;
    map_init(&in.ids, CHARS_FIRST_RANK);
    for (uint32_t id = 0; id < size && e == ERR_OK; id++) {
        char copy[4]; /* what is added may move the bytes of all tokens */
        struct str s = build_bytes(b, id);
        if (s.n == 0 || s.n > sizeof copy || !chars_one(s.p, s.n)) continue;
        memcpy(copy, s.p, s.n);
        e = add_char(&in, str_n(copy, s.n), id);
    }
    map_done(&in.ids);
    return e == ERR_OK ? e : why_set(why, e, "model.vocab: too many characters");
}
