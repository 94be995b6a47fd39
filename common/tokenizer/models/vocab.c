/* SPDX-License-Identifier: Apache-2.0 */
/* Maps vocabulary files and looks things up in them. Immutable once open: any thread. */
#include "tokenizer/models/vocab.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tokenizer/merge/joins.h"
#include "tokenizer/scan/mixed.h"
#include "tokenizer/merge/piece_cache.h"
#include "tokenizer/scan/scripts.h"
#include "tokenizer/scan/words.h"
#include "tokenizer/models/vocab_file.h"

static uint64_t vocab_checksum(const void *data, size_t n)
{
    const unsigned char *p = data;
    uint64_t lane[4] = { 0x243f6a8885a308d3u, 0x13198a2e03707344u, 0xa4093822299f31d0u,
                         0x082efa98ec4e6c89u };
    size_t i = 0;
    for (; i + 32 <= n; i += 32) {
        for (int k = 0; k < 4; k++) {
            uint64_t w;
            memcpy(&w, p + i + 8 * k, 8);
            lane[k] = (lane[k] ^ w) * 0x9e3779b97f4a7c15u;
            lane[k] ^= lane[k] >> 29;
        }
    }
    uint64_t sum = n;
    for (; i < n; i++) sum = (sum ^ p[i]) * 0x100000001b3u;
    for (int k = 0; k < 4; k++) sum = vocab_mix(sum, lane[k]);
    return sum;
}

uint64_t vocab_file_checksum(const unsigned char *file, size_t n)
{
    struct vocab_header h;
    memcpy(&h, file, sizeof h);
    h.checksum = h.sample = 0;
    return vocab_mix(vocab_checksum(&h, sizeof h), vocab_checksum(file + sizeof h, n - sizeof h));
}

uint64_t vocab_file_sample(const unsigned char *file, size_t n)
{
    enum { PAGE = 4096, LINE = 64 };
    struct vocab_header h;
    memcpy(&h, file, sizeof h);
    h.checksum = h.sample = 0;
    uint64_t sum = vocab_checksum(&h, sizeof h);
    for (size_t at = PAGE; at < n; at += PAGE) {
        uint64_t line[LINE / 8] = { 0 }, x = at;
        memcpy(line, file + at, MIN((size_t)LINE, n - at));
        for (int i = 0; i < LINE / 8; i++) x = (x ^ line[i]) * 0x9e3779b97f4a7c15u;
        sum = (sum + (x ^ x >> 29)) * 0xd6e8feb86659fd93u;
    }
    return sum;
}

uint64_t vocab_hash_long(const char *p, size_t n)
{
    uint64_t x = n;
    for (; n >= 8; p += 8, n -= 8) {
        uint64_t w;
        memcpy(&w, p, 8);
        x = vocab_mix(x, w);
    }
    uint64_t w = 0;
    memcpy(&w, p, n);
    return vocab_mix(x, w);
}

uint32_t vocab_whole(const struct vocab *v, const char *p, size_t n)
{
    if (n == 0) return VOCAB_NO_TOKEN;
    if (n < 16) {
        uint32_t at = vocab_short(v, vocab_key_of(p, n));
        return at != VOCAB_NO_TOKEN ? v->short_ids[at] : at;
    }
    if (n > v->h->longest) return VOCAB_NO_TOKEN;
    for (uint64_t i = vocab_hash_long(p, n);; i++) {
        uint32_t id = v->longs[i & v->h->long_mask];
        if (id == VOCAB_NO_TOKEN) return id;
        if (vocab_token_len(v, id) == n && memcmp(v->bytes + v->offsets[id], p, n) == 0) return id;
    }
}

/* Sections are where they say they are, and as large as the counts in the header want them. */
static bool sections_fit(const struct vocab_header *h, size_t n)
{
    const uint64_t sizes[VS_COUNT] = {
        [VS_OFFSETS] = ((uint64_t)h->size + 1) * sizeof(uint32_t),
        [VS_BYTE_IDS] = 256 * sizeof(uint32_t),
        [VS_SHORT] = ((uint64_t)h->short_mask + 1) * sizeof(struct vocab_key),
        [VS_SHORT_IDS] = ((uint64_t)h->short_mask + 1) * sizeof(uint32_t),
        [VS_LONG] = ((uint64_t)h->long_mask + 1) * sizeof(uint32_t),
        [VS_PAIRS] = ((uint64_t)h->pair_mask + 1) * sizeof(struct vocab_pair),
        [VS_ADDED] = (uint64_t)h->added * sizeof(struct vocab_added),
        [VS_TEXTS] = (uint64_t)h->texts * sizeof(struct vocab_text),
        [VS_SPLITS] = (uint64_t)h->size * sizeof(struct vocab_split),
        [VS_STATES] = (uint64_t)h->states * sizeof(struct vocab_state),
        [VS_EDGES] = ((uint64_t)h->edge_mask + 1) * sizeof(struct vocab_edge),
        [VS_NEIGHBOURS] = (uint64_t)h->neighbours * sizeof(uint64_t),
        [VS_JOINS] = (uint64_t)h->joins * sizeof(uint64_t),
        [VS_CHARS] = h->joins > 0 ? 65536 * sizeof(uint32_t) : 0,
        [VS_BYTE_PAIRS] = 65536 * sizeof(struct vocab_byte_pair),
        [VS_CHAR_FACTS] = h->joins > 0 ? 65536 : 0,
        [VS_SHORT_TAGS] = (uint64_t)h->short_mask + 1,
        [VS_PAIR_TAGS] = (uint64_t)h->pair_mask + 1,
        [VS_WORDS] = h->joins > 0 ? words_size(h->word_set, h->word_pairs) : 0,
        [VS_SPACED] = h->joins > 0 ? WORDS_LETTERS : 0,
    };
    for (int i = 0; i < VS_COUNT; i++) {
        uint64_t at = h->sections[i].at, size = h->sections[i].size;
        if (at % VOCAB_ALIGN != 0 || at < sizeof *h || at > n || size > n - at) return false;
        if (i != VS_BYTES && i != VS_STRINGS && size != sizes[i]) return false;
    }
    return true;
}

static struct str text_of(const struct vocab *v, struct str kind, struct str key);

static enum err attach(struct vocab *v, struct why *why)
{
    const struct vocab_header *h = (const struct vocab_header *)(const void *)v->map;
    if (v->map_size < sizeof *h || memcmp(h->magic, VOCAB_MAGIC, sizeof h->magic) != 0)
        return why_set(why, ERR_INVALID, "not a vocabulary file");
    if (h->version != VOCAB_VERSION || h->header_size != sizeof *h)
        return why_set(why, ERR_UNSUPPORTED,
                       "vocabulary file of version %u, this program reads %d: make it again",
                       h->version, VOCAB_VERSION);
    if (h->file_size != v->map_size || h->sample != vocab_file_sample(v->map, v->map_size))
        return why_set(why, ERR_INVALID, "vocabulary file is damaged (checksum)");
    if (h->shape == 0 || h->shape >= SCAN_END || h->size == 0 || h->ids > h->size ||
        (h->shape == SCAN_CHARS) != (h->neighbours > 0) ||
        (h->joins > 0 && !(joins_fit(h->joins) && words_fit(h->word_set, h->word_pairs))) ||
        !sections_fit(h, v->map_size))
        return why_set(why, ERR_INVALID, "vocabulary file is damaged (sections)");
    const unsigned char *s[VS_COUNT];
    for (int i = 0; i < VS_COUNT; i++) s[i] = v->map + h->sections[i].at;
    v->h = h;
    v->offsets = (const void *)s[VS_OFFSETS];
    v->bytes = (const void *)s[VS_BYTES];
    v->byte_ids = (const void *)s[VS_BYTE_IDS];
    v->shorts = (const void *)s[VS_SHORT];
    v->short_ids = (const void *)s[VS_SHORT_IDS];
    v->longs = (const void *)s[VS_LONG];
    v->pairs = (const void *)s[VS_PAIRS];
    v->added = (const void *)s[VS_ADDED];
    v->strings = (const void *)s[VS_STRINGS];
    v->texts = (const void *)s[VS_TEXTS];
    v->splits = (const void *)s[VS_SPLITS];
    v->states = (const void *)s[VS_STATES];
    v->edges = (const void *)s[VS_EDGES];
    v->neighbours = (const void *)s[VS_NEIGHBOURS];
    v->joins = (const void *)s[VS_JOINS];
    v->chars = (const void *)s[VS_CHARS];
    v->byte_pairs = (const void *)s[VS_BYTE_PAIRS];
    v->char_facts = s[VS_CHAR_FACTS];
    v->short_tags = s[VS_SHORT_TAGS];
    v->pair_tags = s[VS_PAIR_TAGS];
    v->words = s[VS_WORDS];
    v->spaced = s[VS_SPACED];
    if (h->shape == SCAN_REGEX) {
        enum err e = scan_regex_new(text_of(v, STR("pattern"), STR_NULL), &v->regex, why);
        if (e != ERR_OK) return e;
    }
    v->window = scan_window_best((enum scan_shape)h->shape);
    v->count_words = words_best(v);
    v->count_mixed = mixed_best(v);
    v->count_scripts = scripts_best(v);
    v->count_windows = piece_windows_best();
    v->pool = calloc(1, sizeof *v->pool);
    return v->pool != NULL ? ERR_OK : ERR_NOMEM;
}

enum err vocab_open(const char *path, struct vocab **ret, struct why *why)
{
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return why_set(why, errno == ENOENT ? ERR_NOT_FOUND : ERR_IO, "%s: %s", path,
                       strerror(errno));
    struct vocab *v = NULL;
    enum err e = ERR_OK;
    if (fstat(fd, &st) != 0) {
        e = why_set(why, ERR_IO, "%s: %s", path, strerror(errno));
        goto out;
    }
    if (!S_ISREG(st.st_mode) || st.st_size == 0) {
        e = why_set(why, ERR_INVALID, "%s: not a vocabulary file", path);
        goto out;
    }
    v = calloc(1, sizeof *v);
    if (v == NULL) {
        e = ERR_NOMEM;
        goto out;
    }
    atomic_init(&v->refs, 1);
    v->map_size = (size_t)st.st_size;
    void *map = mmap(NULL, v->map_size, PROT_READ, MAP_SHARED, fd, 0);
    if (map == MAP_FAILED) {
        e = why_set(why, ERR_IO, "%s: %s", path, strerror(errno));
        goto out;
    }
    v->map = map;
    v->mapped = true;
    struct why what = { "" };
    e = attach(v, &what);
    if (e != ERR_OK) (void)why_set(why, e, "%s: %s", path, what.text);
out:
    (void)close(fd);
    if (e != ERR_OK)
        vocab_unref(v);
    else
        *ret = v;
    return e;
}

enum err vocab_open_mem(const void *data, size_t n, struct vocab **ret, struct why *why)
{
    struct vocab *v = calloc(1, sizeof *v);
    if (v == NULL) return ERR_NOMEM;
    atomic_init(&v->refs, 1);
    size_t room = (n + VOCAB_ALIGN) / VOCAB_ALIGN * VOCAB_ALIGN;
    v->map = aligned_alloc(VOCAB_ALIGN, room);
    if (v->map == NULL) {
        vocab_unref(v);
        return ERR_NOMEM;
    }
    memcpy(v->map, data, n);
    v->map_size = n;
    enum err e = attach(v, why);
    if (e != ERR_OK)
        vocab_unref(v);
    else
        *ret = v;
    return e;
}

enum err vocab_verify(const struct vocab *v, struct why *why)
{
    if (v->h->checksum != vocab_file_checksum(v->map, v->map_size))
        return why_set(why, ERR_INVALID, "vocabulary file is damaged (checksum)");
    return ERR_OK;
}

struct vocab *vocab_ref(struct vocab *v)
{
    (void)atomic_fetch_add_explicit(&v->refs, 1, memory_order_relaxed);
    return v;
}

void vocab_unref(struct vocab *v)
{
    if (v == NULL || atomic_fetch_sub_explicit(&v->refs, 1, memory_order_acq_rel) != 1) return;
    if (v->pool != NULL) piece_pool_done(v->pool);
    free(v->pool);
    scan_regex_free(v->regex);
    if (v->mapped)
        (void)munmap(v->map, v->map_size);
    else
        free(v->map);
    free(v);
}

/* Keys: "name", "digest", "config", "special:bos_token", "template:default". */
static struct str text_of(const struct vocab *v, struct str kind, struct str key)
{
    for (uint32_t i = 0; i < v->h->texts; i++) {
        const struct vocab_text *t = &v->texts[i];
        struct str k = { v->strings + t->key_at, t->key_n };
        if (k.n != kind.n + key.n || !str_starts(k, kind) || !str_ends(k, key)) continue;
        return str_n(v->strings + t->at, t->n);
    }
    return STR_NULL;
}

struct str vocab_name(const struct vocab *v)
{
    return text_of(v, STR("name"), STR_NULL);
}

struct str vocab_digest(const struct vocab *v)
{
    return text_of(v, STR("digest"), STR_NULL);
}

struct str vocab_config(const struct vocab *v)
{
    return text_of(v, STR("config"), STR_NULL);
}

bool vocab_exact(const struct vocab *v)
{
    return v->h->shape != SCAN_REGEX;
}

struct str vocab_source(const struct vocab *v)
{
    struct str s = text_of(v, STR("source"), STR_NULL);
    return s.p == NULL ? STR("") : s;
}

uint32_t vocab_size(const struct vocab *v)
{
    return v->h->ids;
}

struct str vocab_chat_template(const struct vocab *v)
{
    return vocab_chat_template_named(v, "default");
}

struct str vocab_chat_template_named(const struct vocab *v, const char *name)
{
    struct str s = text_of(v, STR("template:"), *name == '\0' ? STR("default") : str_of(name));
    return s.p == NULL ? STR("") : s;
}

struct str vocab_special(const struct vocab *v, const char *key)
{
    return text_of(v, STR("special:"), str_of(key));
}

struct str vocab_token(const struct vocab *v, uint32_t id)
{
    if (id >= v->h->ids) return STR_NULL;
    uint32_t n = vocab_token_len(v, id);
    if (n > 0) return str_n(v->bytes + v->offsets[id], n);
    for (uint32_t i = 0; i < v->h->added; i++)
        if (v->added[i].id == id) return str_n(v->strings + v->added[i].at, v->added[i].n);
    return STR_NULL;
}

enum err vocab_added_id(const struct vocab *v, struct str content, uint32_t *ret)
{
    uint32_t lo = 0, hi = v->h->added;
    while (lo < hi) {
        uint32_t mid = lo + (hi - lo) / 2;
        struct str s = { v->strings + v->added[mid].at, v->added[mid].n };
        int c = str_cmp(s, content);
        if (c == 0) return *ret = v->added[mid].id, ERR_OK;
        if (c < 0)
            lo = mid + 1;
        else
            hi = mid;
    }
    return ERR_NOT_FOUND;
}
