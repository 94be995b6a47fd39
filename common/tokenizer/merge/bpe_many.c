/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Merges several short pieces at once. A merge waits for two places of a table that is too large
 * for the processor's caches; while one piece waits, the others go on. Most of what is asked has no
 * answer, and a place's tag says so: the place itself is fetched only where its tag is right. Pure.
 */
#include "tokenizer/merge/bpe.h"
#include "tokenizer/scan/unicode.h"

/* Tokens stay in their lanes: two that merge are in that of the left one from then on. */
struct merging {
    uint32_t ids[BPE_MANY + 1], ranks[BPE_MANY + 1], merged[BPE_MANY + 1];
    uint64_t hash[BPE_MANY + 1], at[BPE_MANY + 1]; /* of what `asked` has bits for */
    unsigned n;                                    /* tokens to begin with */
    unsigned alive;                                /* bit i: lane i has a token */
    unsigned asked;                                /* ... a pair whose rank is still to be found */
    struct bpe_short *piece;
};

static inline unsigned lowest(unsigned x) /* x != 0 */
{
    return (unsigned)__builtin_ctz(x);
}

/* The lane behind lane i; only if there is one. */
static inline unsigned behind(const struct merging *m, unsigned i)
{
    return lowest(m->alive & ~0u << 1 << i);
}

/* Fetches what says whether the tokens of lanes i and k merge. */
static inline void ask(const struct vocab *v, struct merging *m, unsigned i, unsigned k)
{
    m->hash[i] = vocab_hash_pair(m->ids[i], m->ids[k]);
    m->asked |= 1u << i;
    __builtin_prefetch(&v->pair_tags[m->hash[i] & v->h->pair_mask]);
}

/* Fetches the places that may have an answer. */
static inline void narrow(const struct vocab *v, struct merging *m)
{
    for (unsigned rest = m->asked; rest != 0; rest &= rest - 1) {
        unsigned i = lowest(rest);
        if (vocab_tagged(v->pair_tags, v->h->pair_mask, m->hash[i], &m->at[i])) {
            __builtin_prefetch(&v->pairs[m->at[i]]);
        } else {
            m->ranks[i] = VOCAB_NO_RANK;
            m->asked &= ~(1u << i);
        }
    }
}

static inline void answer(const struct vocab *v, struct merging *m)
{
    for (; m->asked != 0; m->asked &= m->asked - 1) {
        unsigned i = lowest(m->asked);
        uint32_t left = m->ids[i], right = m->ids[behind(m, i)];
        const struct vocab_pair *p = &v->pairs[m->at[i]];
        if (p->left != left || p->right != right) p = vocab_pair_at(v, left, right, m->hash[i]);
        m->ranks[i] = p != NULL ? p->rank : VOCAB_NO_RANK;
        m->merged[i] = p != NULL ? p->id : 0;
    }
}

/* False when no two tokens merge. */
static inline bool step(const struct vocab *v, struct merging *m)
{
    uint64_t best = (uint64_t)VOCAB_NO_RANK << 32;
    for (unsigned rest = m->alive; rest != 0; rest &= rest - 1) {
        unsigned i = lowest(rest);
        best = MIN(best, (uint64_t)m->ranks[i] << 32 | i);
    }
    if (best >> 32 == VOCAB_NO_RANK) return false;
    unsigned at = (unsigned)(uint32_t)best, gone = behind(m, at);
    unsigned before = m->alive & ((1u << at) - 1);
    m->ids[at] = m->merged[at];
    m->ranks[gone] = m->ranks[at] = VOCAB_NO_RANK;
    m->alive &= ~(1u << gone);
    if (m->alive >> gone != 0) ask(v, m, at, behind(m, at));
    if (before != 0) ask(v, m, 31 - (unsigned)__builtin_clz(before), at);
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
    m->ranks[m->n - 1] = VOCAB_NO_RANK;
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
    for (unsigned i = 0; i + 1 < m->n; i++) ask(v, m, i, i + 1);
    m->ranks[m->n - 1] = VOCAB_NO_RANK;
    return true;
}

static void begin(const struct vocab *v, struct merging *m, struct bpe_short *piece)
{
    ASSERT(piece->n > 0 && piece->n <= BPE_MANY);
    m->piece = piece;
    m->asked = 0;
    if (!piece->chars || !begin_chars(v, m)) begin_bytes(v, m);
    m->alive = (1u << m->n) - 1;
}

void bpe_many(const struct vocab *v, struct bpe_short *pieces, size_t n)
{
    enum { AT_ONCE = 12 };
    struct merging room[AT_ONCE], *all[AT_ONCE];
    size_t open = 0, next = 0;
    for (; open < AT_ONCE && next < n; open++) {
        all[open] = &room[open];
        begin(v, all[open], &pieces[next++]);
    }
    while (open > 0) {
        for (size_t i = 0; i < open; i++) narrow(v, all[i]);
        for (size_t i = 0; i < open; i++) {
            struct merging *m = all[i];
            answer(v, m);
            if (step(v, m)) continue;
            m->piece->count = 0;
            for (; m->alive != 0; m->alive &= m->alive - 1) m->piece->count++;
            if (next < n)
                begin(v, m, &pieces[next++]);
            else
                all[i--] = all[--open];
        }
    }
}
