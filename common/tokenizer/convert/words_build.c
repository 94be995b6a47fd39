/* SPDX-License-Identifier: Apache-2.0 */
/* What a vocabulary file holds for words.c. Pure. */
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "tokenizer/merge/bpe.h"
#include "tokenizer/merge/joins.h"
#include "tokenizer/scan/scan_run.h"
#include "tokenizer/scan/unicode.h"
#include "tokenizer/scan/words.h"
#include "tokenizer/scan/words_pairs.h"

enum {
    LEAST_SET = 10,
    LEAST_PAIRS = 10, /* so that no place needs more than its 29 bits */
    MOST_SET = 26,
    MOST_PAIRS = 24,
    BITS_PER_PAIR = 16,
};

bool words_letter(enum scan_shape shape, uint32_t cp)
{
    const unsigned both = UC_L | UC_U | UC_W;
    if (cp < 0x800 || cp > 0xffff) return false;
    switch (shape) {
    case SCAN_CL100K:
    case SCAN_QWEN:
    case SCAN_O200K:
    case SCAN_TEKKEN:
    case SCAN_GPT2: return (unicode_class(cp) & both) == both;
    case SCAN_DEEPSEEK: return scan_deepseek_cjk(cp);
    case SCAN_CHARS:
    case SCAN_DIGITS:
    case SCAN_REGEX:
    case SCAN_END: break;
    }
    return false;
}

struct pairs {
    const struct vocab *v;
    uint32_t *places;
    uint32_t bits;
    uint32_t n;
};

/* Puts a pair in its place, if it is not there. ERR_LIMIT: the table is too small. */
static enum err put(struct pairs *t, const char *p, uint32_t hash)
{
    uint32_t at = hash >> (32 - t->bits), mask = (1u << t->bits) - 1, far = 0;
    if (pair_tokens(t->places, t->bits, hash) != 0) return ERR_OK;
    if (2 * t->n > mask) return ERR_LIMIT;
    while (t->places[(at + far) & mask] != 0) far++;
    if (far >= 1u << (t->bits - (32 - COUNT_AT))) return ERR_LIMIT;
    uint64_t tokens;
    enum err e = bpe_part(t->v, p, 6, false, NULL, &tokens);
    if (e != ERR_OK) return e;
    t->places[(at + far) & mask] = entry(hash, t->bits, far) | (uint32_t)tokens << COUNT_AT;
    t->n++;
    return ERR_OK;
}

/* Gives all pairs of all tokens to the table. */
static enum err put_all(struct pairs *t, const unsigned char *facts)
{
    const struct vocab *v = t->v;
    for (uint32_t id = 0; id < v->h->size; id++) {
        const char *p = v->bytes + v->offsets[id], *end = v->bytes + v->offsets[id + 1];
        uint32_t a, b;
        for (; end - p >= 6; p++) {
            if (utf8_decode(p, 3, &a) != 3 || (facts[a] & CHAR_WORD) == 0) continue;
            if (utf8_decode(p + 3, 3, &b) != 3 || (facts[b] & CHAR_WORD) == 0) continue;
            enum err e = put(t, p, pair_hash(a, b));
            if (e != ERR_OK) return e;
        }
    }
    return ERR_OK;
}

enum err words_build(const struct vocab *v, const unsigned char *facts, uint64_t **ret,
                     uint32_t *ret_set, uint32_t *ret_pairs)
{
    struct pairs t = { .v = v, .bits = LEAST_PAIRS };
    enum err e = ERR_LIMIT;
    for (; e == ERR_LIMIT && t.bits <= MOST_PAIRS; t.bits += e == ERR_LIMIT) {
        free(t.places);
        t.n = 0;
        t.places = calloc((size_t)1 << t.bits, sizeof *t.places);
        e = t.places != NULL ? put_all(&t, facts) : ERR_NOMEM;
    }
    uint32_t set = LEAST_SET;
    while ((uint64_t)1 << set < (uint64_t)BITS_PER_PAIR * t.n && set < MOST_SET) set++;
    uint64_t *words = e == ERR_OK ? calloc(1, words_size(set, t.bits)) : NULL;
    if (e == ERR_OK && words == NULL) e = ERR_NOMEM;
    if (e == ERR_OK) {
        uint32_t mask = (1u << t.bits) - 1;
        for (uint32_t i = 0; i <= mask; i++) {
            uint32_t x = t.places[i] & ((1u << COUNT_AT) - 1), low = 32 - t.bits;
            if (t.places[i] == 0) continue;
            uint32_t hash = ((i - (x >> low)) & mask) << low | (x & ((1u << low) - 1));
            words[(hash >> (32 - set)) / 64] |= (uint64_t)1 << (hash >> (32 - set)) % 64;
        }
        memcpy((char *)words + ((size_t)1 << set) / 8, t.places,
               ((size_t)mask + 1) * sizeof *t.places);
        *ret = words;
        *ret_set = set;
        *ret_pairs = t.bits;
    }
    free(t.places);
    return e;
}

enum err words_spaced(const struct vocab *v, unsigned char **ret)
{
    unsigned char *spaced = calloc(WORDS_LETTERS, 1);
    enum err e = spaced != NULL ? ERR_OK : ERR_NOMEM;
    for (uint32_t cp = 0x800; e == ERR_OK && cp < WORDS_LETTERS; cp++) {
        char p[5] = " ";
        uint64_t tokens;
        bool whole;
        if ((v->char_facts[cp] & CHAR_WORD) == 0) continue;
        size_t n = 1 + utf8_encode(cp, p + 1);
        if (!joins_between(v, ' ', cp, p + 1, &whole)) continue;
        e = bpe_part(v, p, n, false, NULL, &tokens);
        if (e == ERR_OK) spaced[cp] = (unsigned char)tokens;
    }
    if (e == ERR_OK)
        *ret = spaced;
    else
        free(spaced);
    return e;
}

bool words_fit(uint32_t set, uint32_t pairs)
{
    return set >= LEAST_SET && set <= MOST_SET && pairs >= LEAST_PAIRS && pairs <= MOST_PAIRS;
}
