/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Merges several short pieces at once. A merge waits for two places of a table that is too large
 * for the processor's caches; while one piece waits, the others go on. Pure.
 */
#include "tokenizer/bpe.h"
#include "tokenizer/unicode.h"

struct merging {
    uint32_t ids[BPE_WORD + 1], ranks[BPE_WORD + 1], merged[BPE_WORD + 1];
    uint64_t hash[BPE_WORD + 1]; /* of what `asked` has bits for */
    unsigned n, asked;           /* tokens; bit i: the pair that begins with token i */
    struct bpe_short *piece;
};

/* Fetches what is known of token i and the next. */
static inline void ask(const struct vocab *v, struct merging *m, unsigned i)
{
    m->hash[i] = vocab_hash_pair(m->ids[i], m->ids[i + 1]);
    m->asked |= 1u << i;
    vocab_pair_fetch(v, m->hash[i]);
}

static inline void answer(const struct vocab *v, struct merging *m)
{
    for (; m->asked != 0; m->asked &= m->asked - 1) {
        unsigned i = (unsigned)__builtin_ctz(m->asked);
        const struct vocab_pair *p = vocab_pair_at(v, m->ids[i], m->ids[i + 1], m->hash[i]);
        m->ranks[i] = p != NULL ? p->rank : VOCAB_NO_RANK;
        m->merged[i] = p != NULL ? p->id : 0;
    }
}

/* False when no two tokens merge. */
static inline bool step(const struct vocab *v, struct merging *m)
{
    uint64_t best = (uint64_t)VOCAB_NO_RANK << 32;
    for (unsigned i = 0; i + 1 < m->n; i++) best = MIN(best, (uint64_t)m->ranks[i] << 32 | i);
    if (best >> 32 == VOCAB_NO_RANK) return false;
    unsigned at = (unsigned)(uint32_t)best;
    m->ids[at] = m->merged[at];
    m->n--;
    for (unsigned i = at + 1; i < m->n; i++) m->ids[i] = m->ids[i + 1];
    for (unsigned i = at; i < m->n; i++) {
        m->ranks[i] = m->ranks[i + 1];
        m->merged[i] = m->merged[i + 1];
    }
    if (at > 0) ask(v, m, at - 1);
    if (at + 1 < m->n) ask(v, m, at);
    return true;
}

static void begin_bytes(const struct vocab *v, struct merging *m)
{
    const unsigned char *p = (const unsigned char *)m->piece->p;
    m->n = m->piece->n;
    for (unsigned i = 0; i < m->n; i++) m->ids[i] = v->byte_ids[p[i]];
    for (unsigned i = 0; i + 1 < m->n; i++) {
        const struct vocab_byte_pair *b = &v->byte_pairs[(unsigned)p[i] << 8 | p[i + 1]];
        m->ranks[i] = b->rank;
        m->merged[i] = b->id;
    }
}

/* False when a character is no token. */
static bool begin_chars(const struct vocab *v, struct merging *m)
{
    const char *p = m->piece->p, *end = p + m->piece->n;
    uint32_t cp;
    for (m->n = 0; p < end; m->n++) {
        p += utf8_next_valid(p, &cp);
        m->ids[m->n] = v->chars[cp];
        if (m->ids[m->n] == VOCAB_NO_TOKEN) return false;
    }
    for (unsigned i = 0; i + 1 < m->n; i++) ask(v, m, i);
    return true;
}

void bpe_many(const struct vocab *v, struct bpe_short *pieces, size_t n)
{
    struct merging all[BPE_MANY];
    ASSERT(n <= BPE_MANY);
    for (size_t i = 0; i < n; i++) {
        ASSERT(pieces[i].n > 0 && pieces[i].n <= BPE_WORD);
        all[i].piece = &pieces[i];
        all[i].asked = 0;
        if (!pieces[i].chars || !begin_chars(v, &all[i])) begin_bytes(v, &all[i]);
    }
    for (size_t left = n; left > 0;) {
        for (size_t i = 0; i < n; i++) answer(v, &all[i]);
        for (size_t i = 0; i < n; i++) {
            if (all[i].piece == NULL || step(v, &all[i])) continue;
            all[i].piece->count = all[i].n;
            all[i].piece = NULL;
            left--;
        }
    }
}
