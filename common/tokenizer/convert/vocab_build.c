/* SPDX-License-Identifier: Apache-2.0 */
/* Gathers a vocabulary and writes its file. One owner thread. */
#include "tokenizer/convert/vocab_build.h"

#include <stdlib.h>

#include "base/clock.h"
#include "tokenizer/merge/automaton.h"
#include "tokenizer/merge/bpe.h"
#include "tokenizer/merge/chars.h"
#include "tokenizer/merge/joins.h"
#include "tokenizer/scan/words.h"

void build_init(struct build *b)
{
    memset(b, 0, sizeof *b);
    buf_init(&b->bytes, 256u << 20);
    buf_init(&b->tokens, (size_t)BUILD_MAX_SIZE * sizeof(struct build_token));
    buf_init(&b->pairs, (size_t)BUILD_MAX_PAIRS * sizeof(struct vocab_pair));
    buf_init(&b->added, (size_t)BUILD_MAX_ADDED * sizeof(struct vocab_added));
    buf_init(&b->texts, 64 * sizeof(struct vocab_text));
    buf_init(&b->strings, 16u << 20);
}

void build_done(struct build *b)
{
    buf_done(&b->bytes);
    buf_done(&b->tokens);
    buf_done(&b->pairs);
    buf_done(&b->added);
    buf_done(&b->texts);
    buf_done(&b->strings);
}

uint32_t build_size(const struct build *b)
{
    return (uint32_t)(b->tokens.len / sizeof(struct build_token));
}

static struct build_token *tokens(const struct build *b)
{
    return (struct build_token *)(void *)b->tokens.data;
}

struct str build_bytes(const struct build *b, uint32_t id)
{
    if (id >= build_size(b)) return STR_NULL;
    return str_n(b->bytes.data + tokens(b)[id].at, tokens(b)[id].n);
}

static enum err make_room(struct build *b, uint32_t id)
{
    if (id >= BUILD_MAX_SIZE) return ERR_LIMIT;
    if (id < build_size(b)) return ERR_OK;
    size_t n = (id + 1 - build_size(b)) * sizeof(struct build_token);
    char *room;
    enum err e = buf_reserve(&b->tokens, n, &room);
    if (e != ERR_OK) return e;
    memset(room, 0, n);
    b->tokens.len += n;
    return ERR_OK;
}

enum err build_token(struct build *b, uint32_t id, struct str bytes)
{
    if (bytes.n == 0) return ERR_INVALID;
    if (bytes.n > BUILD_MAX_TOKEN) return ERR_LIMIT;
    enum err e = make_room(b, id);
    if (e != ERR_OK) return e;
    if (tokens(b)[id].n > 0) return ERR_INVALID;
    size_t at = b->bytes.len;
    e = buf_append_str(&b->bytes, bytes);
    if (e != ERR_OK) return e;
    tokens(b)[id] = (struct build_token){ (uint32_t)at, (uint32_t)bytes.n };
    return ERR_OK;
}

enum err build_pair(struct build *b, uint32_t left, uint32_t right, uint32_t rank, uint32_t id)
{
    struct vocab_pair p = { left, right, rank, id };
    if (rank >= BUILD_MAX_RANK) return ERR_LIMIT;
    return buf_append(&b->pairs, &p, sizeof p);
}

static enum err string_add(struct build *b, struct str s, uint32_t *ret_at)
{
    uint32_t at = (uint32_t)b->strings.len;
    enum err e = buf_append_str(&b->strings, s);
    if (e == ERR_OK) *ret_at = at;
    return e;
}

enum err build_added(struct build *b, struct str content, uint32_t id, unsigned flags)
{
    struct vocab_added a = { 0, (uint32_t)content.n, id, flags };
    if (content.n == 0) return ERR_INVALID;
    if (content.n > BUILD_MAX_TOKEN) return ERR_LIMIT;
    enum err e = make_room(b, id);
    if (e == ERR_OK) e = string_add(b, content, &a.at);
    if (e == ERR_OK) e = buf_append(&b->added, &a, sizeof a);
    return e;
}

enum err build_text(struct build *b, const char *key, struct str value)
{
    struct vocab_text t = { 0, (uint32_t)strlen(key), 0, (uint32_t)value.n };
    enum err e = string_add(b, str_of(key), &t.key_at);
    if (e == ERR_OK) e = string_add(b, value, &t.at);
    if (e == ERR_OK) e = buf_append(&b->texts, &t, sizeof t);
    return e;
}

/* ---- finishing ---- */

struct image {
    struct vocab_header h;
    struct vocab v; /* a view of what is built so far, for bpe.c */
    uint32_t *offsets;
    char *bytes;
    uint32_t byte_ids[256];
    struct vocab_key *shorts;
    uint32_t *short_ids, *longs;
    struct vocab_pair *pairs;
    unsigned char *char_facts, *short_tags, *pair_tags, *spaced;
    struct vocab_split *splits;
    struct automaton automaton;
    uint64_t *neighbours, *joins, *words;
    struct vocab_byte_pair *byte_pairs;
    uint32_t *chars;
};

static void image_done(struct image *m)
{
    free(m->offsets);
    free(m->bytes);
    free(m->shorts);
    free(m->short_ids);
    free(m->longs);
    free(m->pairs);
    free(m->char_facts);
    free(m->short_tags);
    free(m->pair_tags);
    free(m->splits);
    free(m->neighbours);
    free(m->joins);
    free(m->words);
    free(m->spaced);
    free(m->byte_pairs);
    free(m->chars);
    automaton_done(&m->automaton);
}

/* Places of a hash table for n entries, at most half full. */
static uint32_t table_mask(size_t n)
{
    uint32_t size = 16;
    while (size < 2 * n) size *= 2;
    return size - 1;
}

static enum err image_tokens(const struct build *b, struct image *m, struct why *why)
{
    uint32_t size = build_size(b);
    m->offsets = calloc((size_t)size + 1, sizeof *m->offsets);
    m->bytes = malloc(b->bytes.len + 1);
    m->splits = calloc(size, sizeof *m->splits);
    if (m->offsets == NULL || m->bytes == NULL || m->splits == NULL) return ERR_NOMEM;
    memset(m->byte_ids, 0xff, sizeof m->byte_ids);
    uint32_t at = 0;
    for (uint32_t id = 0; id < size; id++) {
        struct str s = build_bytes(b, id);
        m->offsets[id] = at;
        if (s.n > 0) memcpy(m->bytes + at, s.p, s.n);
        at += (uint32_t)s.n;
        m->h.longest = MAX(m->h.longest, (uint32_t)s.n);
        if (s.n == 1) m->byte_ids[(unsigned char)s.p[0]] = id;
    }
    m->offsets[size] = at;
    for (int i = 0; i < 256; i++)
        if (m->byte_ids[i] == VOCAB_NO_TOKEN)
            return why_set(why, ERR_UNSUPPORTED, "no token for the single byte 0x%02x", i);
    return ERR_OK;
}

/* The table of n pairs, instead of the one that is there. */
static enum err image_pairs(struct image *m, const struct vocab_pair *in, size_t n)
{
    uint64_t mask = table_mask(n);
    struct vocab_pair *pairs = malloc((mask + 1) * sizeof *pairs);
    unsigned char *tags = calloc(mask + 1, 1);
    if (pairs == NULL || tags == NULL) {
        free(pairs);
        free(tags);
        return ERR_NOMEM;
    }
    memset(pairs, 0xff, (mask + 1) * sizeof *pairs);
    for (size_t i = 0; i < n; i++) {
        uint64_t hash = vocab_hash_pair(in[i].left, in[i].right), at = hash & mask;
        while (tags[at] != 0 && (pairs[at].left != in[i].left || pairs[at].right != in[i].right))
            at = (at + 1) & mask;
        pairs[at] = in[i];
        tags[at] = vocab_tag(hash);
    }
    free(m->pairs);
    free(m->pair_tags);
    m->v.pairs = m->pairs = pairs;
    m->v.pair_tags = m->pair_tags = tags;
    m->h.pair_mask = (uint32_t)mask;
    return ERR_OK;
}

/* Leaves the pairs that are the last merge of their token. */
static enum err image_last_pairs(const struct build *b, struct image *m)
{
    size_t all = b->pairs.len / sizeof(struct vocab_pair), n = 0;
    const struct vocab_pair *in = (const struct vocab_pair *)(const void *)b->pairs.data;
    struct vocab_pair *last = malloc((all + 1) * sizeof *last);
    if (last == NULL) return ERR_NOMEM;
    for (size_t i = 0; i < all; i++) {
        const struct vocab_split *s = &m->splits[in[i].id];
        if (s->rank == in[i].rank + 1 && s->left == in[i].left && s->right == in[i].right)
            last[n++] = in[i];
    }
    enum err e = image_pairs(m, last, n);
    free(last);
    return e;
}

static enum err image_byte_pairs(struct image *m)
{
    m->byte_pairs = malloc(65536 * sizeof *m->byte_pairs);
    if (m->byte_pairs == NULL) return ERR_NOMEM;
    for (unsigned i = 0; i < 65536; i++) {
        const struct vocab_pair *p = vocab_pair(&m->v, m->byte_ids[i >> 8], m->byte_ids[i & 255]);
        m->byte_pairs[i] = p != NULL ? (struct vocab_byte_pair){ p->rank, p->id }
                                     : (struct vocab_byte_pair){ VOCAB_NO_RANK, 0 };
    }
    return ERR_OK;
}

/* Merges the bytes of a token by the book; true when that makes it, with the last merge. */
static bool last_merge(const struct image *m, uint32_t id, uint32_t *ids, struct vocab_split *ret)
{
    const char *p = m->bytes + m->offsets[id];
    size_t n = vocab_token_len(&m->v, id);
    const struct vocab_pair *best = NULL;
    for (size_t i = 0; i < n; i++) ids[i] = m->byte_ids[(unsigned char)p[i]];
    while (n > 1) {
        size_t at = 0;
        best = NULL;
        for (size_t i = 0; i + 1 < n; i++) {
            const struct vocab_pair *c = vocab_pair(&m->v, ids[i], ids[i + 1]);
            if (c != NULL && (best == NULL || c->rank < best->rank)) best = c, at = i;
        }
        if (best == NULL) return false;
        ids[at] = best->id;
        memmove(ids + at + 1, ids + at + 2, (n - at - 2) * sizeof *ids);
        n--;
    }
    if (ids[0] != id) return false;
    ret->left = best != NULL ? best->left : id;
    ret->right = best != NULL ? best->right : id;
    ret->rank = best != NULL ? best->rank + 1 : 0;
    return true;
}

static enum err image_splits(struct image *m)
{
    uint32_t *ids = malloc(((size_t)m->h.longest + 1) * sizeof *ids);
    if (ids == NULL) return ERR_NOMEM;
    for (uint32_t id = 0; id < m->h.size; id++) {
        struct vocab_split *s = &m->splits[id];
        *s = (struct vocab_split){ id, id, VOCAB_NO_RANK, VOCAB_NO_TOKEN };
        if (vocab_token_len(&m->v, id) > 0 && !last_merge(m, id, ids, s)) s->rank = VOCAB_NO_RANK;
    }
    free(ids);
    return ERR_OK;
}

static enum err image_wholes(const struct build *b, struct image *m)
{
    size_t n_short = 0, n_long = 0;
    for (uint32_t id = 0; id < m->h.size; id++) {
        size_t n = vocab_token_len(&m->v, id);
        if (n > 0 && n < 16) n_short++;
        if (n >= 16) n_long++;
    }
    m->h.short_mask = table_mask(n_short);
    m->h.long_mask = table_mask(n_long);
    m->shorts = calloc((size_t)m->h.short_mask + 1, sizeof *m->shorts);
    m->short_ids = calloc((size_t)m->h.short_mask + 1, sizeof *m->short_ids);
    m->short_tags = calloc((size_t)m->h.short_mask + 1, 1);
    m->longs = malloc(((size_t)m->h.long_mask + 1) * sizeof *m->longs);
    if (m->shorts == NULL || m->short_ids == NULL || m->short_tags == NULL || m->longs == NULL)
        return ERR_NOMEM;
    memset(m->longs, 0xff, ((size_t)m->h.long_mask + 1) * sizeof *m->longs);
    for (uint32_t id = 0; id < m->h.size; id++) {
        const char *p = m->bytes + m->offsets[id];
        size_t n = vocab_token_len(&m->v, id);
        if (n == 0 || (m->splits[id].rank == VOCAB_NO_RANK && !b->whole_all)) continue;
        if (n < 16) {
            struct vocab_key k = vocab_key_of(p, n);
            bool merged = m->splits[id].rank != VOCAB_NO_RANK;
            uint64_t hash = vocab_mix(k.lo, k.hi), at = hash & m->h.short_mask;
            while (m->short_tags[at] != 0) at = (at + 1) & m->h.short_mask;
            k.hi |= (uint64_t)(merged ? VOCAB_KIND_MERGED : VOCAB_KIND_WHOLE) << VOCAB_KIND_AT;
            m->shorts[at] = k;
            m->short_ids[at] = id;
            m->short_tags[at] = vocab_tag(hash);
        } else {
            uint64_t at = vocab_hash_long(p, n);
            while (m->longs[at & m->h.long_mask] != VOCAB_NO_TOKEN) at++;
            m->longs[at & m->h.long_mask] = id;
        }
    }
    return ERR_OK;
}

/* The linear method against the heap on strings of tokens, of single bytes and of short runs. */
static enum err check_linear(struct image *m)
{
    enum { ROUNDS = 3000, MOST = 600 };
    struct rng_fake rng;
    rng_fake_init(&rng, 20);
    char text[MOST + 1];
    uint32_t heap[MOST], last[MOST], count[MOST];
    m->h.linear = 1;
    for (int round = 0; round < ROUNDS && m->h.linear != 0; round++) {
        size_t n = 0, want = 2 + rng_below(&rng.rng, MOST - 2);
        uint32_t near = (uint32_t)rng_below(&rng.rng, m->h.size);
        while (n < want) {
            uint32_t id = (uint32_t)rng_below(&rng.rng,
                                              round % 3 == 0 ? MIN(512u, m->h.size) : m->h.size);
            if (round % 3 == 1) id = (near + id % 3) % m->h.size;
            size_t len = vocab_token_len(&m->v, id);
            const char *p = m->bytes + m->offsets[id];
            if (len > 1 && rng_below(&rng.rng, 4) == 0) {
                size_t cut = rng_below(&rng.rng, len);
                p += cut;
                len -= cut;
            }
            if (len == 0) {
                text[n++] = (char)rng_below(&rng.rng, 256);
                continue;
            }
            len = MIN(len, want - n);
            memcpy(text + n, p, len);
            n += len;
        }
        size_t total;
        enum err e = bpe_merge_heap(&m->v, text, n, heap, &total);
        if (e != ERR_OK) return e;
        bpe_prefixes(&m->v, text, n, last, count);
        if (count[n - 1] != total) m->h.linear = 0;
        size_t at = n;
        for (size_t k = total; k > 0 && m->h.linear != 0; k--) {
            if (at == 0 || last[at - 1] != heap[k - 1])
                m->h.linear = 0;
            else
                at -= vocab_token_len(&m->v, heap[k - 1]);
        }
    }
    return ERR_OK;
}

static int by_content(const void *a, const void *b, void *strings)
{
    const struct vocab_added *x = a, *y = b;
    const char *s = strings;
    return str_cmp(str_n(s + x->at, x->n), str_n(s + y->at, y->n));
}

static enum err image_added(struct build *b, struct image *m, struct why *why)
{
    struct vocab_added *a = (struct vocab_added *)(void *)b->added.data;
    size_t n = b->added.len / sizeof *a;
    if (n > 0) qsort_r(a, n, sizeof *a, by_content, b->strings.data);
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)b->strings.data[a[i].at];
        m->h.added_flags |= a[i].flags;
        m->h.added_first[c / 64] |= (uint64_t)1 << c % 64;
        if (i > 0 && by_content(&a[i - 1], &a[i], b->strings.data) == 0)
            return why_set(why, ERR_INVALID, "added token %.*s is listed twice", (int)a[i].n,
                           b->strings.data + a[i].at);
    }
    m->h.added = (uint32_t)n;
    return ERR_OK;
}

static enum err write_file(const struct build *b, struct image *m, struct buf *ret)
{
    const struct automaton *a = &m->automaton;
    const struct {
        const void *p;
        size_t n;
    } parts[VS_COUNT] = {
        [VS_OFFSETS] = { m->offsets, ((size_t)m->h.size + 1) * sizeof *m->offsets },
        [VS_BYTES] = { m->bytes, m->offsets[m->h.size] },
        [VS_BYTE_IDS] = { m->byte_ids, sizeof m->byte_ids },
        [VS_SHORT] = { m->shorts, ((size_t)m->h.short_mask + 1) * sizeof *m->shorts },
        [VS_SHORT_IDS] = { m->short_ids, ((size_t)m->h.short_mask + 1) * sizeof *m->short_ids },
        [VS_LONG] = { m->longs, ((size_t)m->h.long_mask + 1) * sizeof *m->longs },
        [VS_PAIRS] = { m->pairs, ((size_t)m->h.pair_mask + 1) * sizeof *m->pairs },
        [VS_ADDED] = { b->added.data, b->added.len },
        [VS_STRINGS] = { b->strings.data, b->strings.len },
        [VS_TEXTS] = { b->texts.data, b->texts.len },
        [VS_SPLITS] = { m->splits, (size_t)m->h.size * sizeof *m->splits },
        [VS_STATES] = { a->states, (size_t)m->h.states * sizeof *a->states },
        [VS_EDGES] = { a->edges, ((size_t)m->h.edge_mask + 1) * sizeof *a->edges },
        [VS_JOINS] = { m->joins, (size_t)m->h.joins * sizeof *m->joins },
        [VS_CHARS] = { m->chars, m->chars != NULL ? 65536 * sizeof *m->chars : 0 },
        [VS_BYTE_PAIRS] = { m->byte_pairs, 65536 * sizeof *m->byte_pairs },
        [VS_CHAR_FACTS] = { m->char_facts, m->char_facts != NULL ? 65536 : 0 },
        [VS_SHORT_TAGS] = { m->short_tags, (size_t)m->h.short_mask + 1 },
        [VS_PAIR_TAGS] = { m->pair_tags, (size_t)m->h.pair_mask + 1 },
        [VS_WORDS] = { m->words,
                       m->words != NULL ? words_size(m->h.word_set, m->h.word_pairs) : 0 },
        [VS_SPACED] = { m->spaced, m->spaced != NULL ? WORDS_LETTERS : 0 },
        [VS_NEIGHBOURS] = { m->neighbours, (size_t)m->h.neighbours * sizeof *m->neighbours },
    };
    size_t at = sizeof m->h;
    for (int i = 0; i < VS_COUNT; i++) {
        at = (at + VOCAB_ALIGN - 1) / VOCAB_ALIGN * VOCAB_ALIGN;
        m->h.sections[i].at = at;
        m->h.sections[i].size = parts[i].n;
        at += parts[i].n;
    }
    char *out;
    enum err e = buf_reserve(ret, at, &out);
    if (e != ERR_OK) return e;
    memset(out, 0, at);
    for (int i = 0; i < VS_COUNT; i++)
        if (parts[i].n > 0) memcpy(out + m->h.sections[i].at, parts[i].p, parts[i].n);
    memcpy(m->h.magic, VOCAB_MAGIC, sizeof m->h.magic);
    m->h.version = VOCAB_VERSION;
    m->h.header_size = sizeof m->h;
    m->h.file_size = at;
    memcpy(out, &m->h, sizeof m->h);
    m->h.sample = vocab_file_sample((const unsigned char *)out, at);
    m->h.checksum = vocab_file_checksum((const unsigned char *)out, at);
    memcpy(out, &m->h, sizeof m->h);
    ret->len += at;
    return ERR_OK;
}

enum err build_finish(struct build *b, struct buf *ret, struct why *why)
{
    struct image m = { 0 };
    m.h.size = build_size(b);
    m.h.shape = (uint32_t)b->shape;
    m.h.normal = b->normal;
    m.h.lead = b->lead;
    m.h.chars = b->chars;
    m.h.ids = b->ids != 0 ? b->ids : m.h.size;
    m.h.texts = (uint32_t)(b->texts.len / sizeof(struct vocab_text));
    if (m.h.size == 0) return why_set(why, ERR_INVALID, "no tokens");
    enum err e = image_tokens(b, &m, why);
    if (e != ERR_OK) goto out;
    m.v = (struct vocab){ .h = &m.h,
                          .offsets = m.offsets,
                          .bytes = m.bytes,
                          .byte_ids = m.byte_ids,
                          .splits = m.splits };
    e = image_pairs(&m, (const struct vocab_pair *)(const void *)b->pairs.data,
                    b->pairs.len / sizeof(struct vocab_pair));
    if (e == ERR_OK) e = image_splits(&m);
    if (e == ERR_OK) e = image_last_pairs(b, &m);
    if (e == ERR_OK) e = image_byte_pairs(&m);
    m.v.byte_pairs = m.byte_pairs;
    if (e == ERR_OK) e = image_wholes(b, &m);
    if (e == ERR_OK) e = automaton_build(&m.automaton, m.bytes, m.offsets, m.h.size, m.splits);
    if (e != ERR_OK) goto out;
    m.h.states = m.automaton.states_n;
    m.h.edge_mask = m.automaton.edge_mask;
    m.v.states = m.automaton.states;
    m.v.edges = m.automaton.edges;
    if (b->shape == SCAN_CHARS) e = chars_neighbours(&m.v, &m.neighbours, &m.h.neighbours);
    if (e == ERR_OK && b->shape != SCAN_CHARS) {
        e = joins_build(&m.v, &m.joins, &m.h.joins, &m.char_facts);
        if (e == ERR_OK)
            e = words_build(&m.v, m.char_facts, &m.words, &m.h.word_set, &m.h.word_pairs);
        m.v.joins = m.joins;
        m.v.char_facts = m.char_facts;
        if (e == ERR_OK) e = words_spaced(&m.v, &m.spaced);
        if (e == ERR_OK) e = joins_chars(&m.v, &m.chars);
    }
    if (e == ERR_OK) e = check_linear(&m);
    if (e == ERR_OK) e = image_added(b, &m, why);
    if (e == ERR_OK) e = write_file(b, &m, ret);
out:
    image_done(&m);
    return e;
}
