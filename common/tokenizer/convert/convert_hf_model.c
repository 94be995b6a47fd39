/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tokenizer.json: the model, byte-level BPE or BPE over characters with a fallback to bytes. The
 * merge list decides what merges, not the ids. Any thread.
 */
#include "base/utf8.h"
#include "tokenizer/merge/chars.h"
#include "tokenizer/scan/clean.h"
#include "tokenizer/convert/convert_hf.h"

enum { LETTERS = 0x144 };

/* Which byte a letter of the byte-level alphabet stands for, or -1: bytes that print in Latin-1
 * stand for themselves, the others follow from U+0100. */
static void byte_alphabet(int16_t byte_of[LETTERS])
{
    int next = 0x100;
    for (int i = 0; i < LETTERS; i++) byte_of[i] = -1;
    for (int b = 0; b < 256; b++) {
        bool prints = (b >= '!' && b <= '~') || (b >= 0xa1 && b <= 0xac) || b >= 0xae;
        byte_of[prints ? b : next++] = (int16_t)b;
    }
}

/* False when s has characters outside of the alphabet. */
static bool decode_letters(const int16_t byte_of[LETTERS], struct str s, struct buf *out)
{
    buf_clear(out);
    for (size_t i = 0; i < s.n;) {
        uint32_t cp;
        size_t len = utf8_decode(s.p + i, s.n - i, &cp);
        if (len == 0 || cp >= LETTERS || byte_of[cp] < 0) return false;
        if (buf_append_char(out, (char)byte_of[cp]) != ERR_OK) return false;
        i += len;
    }
    return out->len > 0;
}

/* "<0x0A>" */
static bool is_byte_token(struct str s, unsigned char *ret)
{
    static const char hex[] = "0123456789ABCDEF";
    if (s.n != 6 || !str_starts(s, STR("<0x")) || s.p[5] != '>') return false;
    const char *hi = memchr(hex, s.p[3], 16), *lo = memchr(hex, s.p[4], 16);
    if (hi == NULL || lo == NULL) return false;
    *ret = (unsigned char)((hi - hex) << 4 | (lo - hex));
    return true;
}

/* U+2581 becomes a space. False when s has a space of its own: no text that is cleaned has one. */
static bool decode_chars(const struct hf *h, struct str s, struct buf *out)
{
    bool marks = (h->b.normal & CLEAN_SPACE) != 0;
    buf_clear(out);
    for (size_t i = 0; i < s.n; i++) {
        char c = s.p[i];
        if (marks && c == ' ') return false;
        if (marks && str_starts(str_n(s.p + i, s.n - i), STR("\xe2\x96\x81"))) {
            c = ' ';
            i += 2;
        }
        if (buf_append_char(out, c) != ERR_OK) return false;
    }
    return out->len > 0;
}

/* All strings to ids first: whether a byte has a character decides what its "<0x41>" is. */
static void read_ids(struct hf *h)
{
    struct str key;
    for (jpull_enter(h->j, '{'); h->err == ERR_OK && jpull_key(h->j, &key);) {
        void *old = NULL;
        buf_clear(&h->word);
        enum err e = buf_append_str(&h->word, key);
        uint64_t id = jpull_uint(h->j, BUILD_MAX_SIZE - 1);
        if (h->j->failed) return;
        if (e == ERR_OK) e = map_put(&h->ids, buf_str(&h->word), convert_value((uint32_t)id), &old);
        if (e == ERR_OK && old != NULL) e = ERR_INVALID;
        if (e != ERR_OK) hf_refuse(h, e, "model.vocab: entry", buf_str(&h->word));
    }
}

static enum err add_letters(struct hf *h, const int16_t byte_of[LETTERS], struct str s, uint32_t id)
{
    /* Strings outside of the alphabet can be no piece; they may be added tokens. */
    return decode_letters(byte_of, s, &h->bytes) ? build_token(&h->b, id, buf_str(&h->bytes))
                                                 : ERR_OK;
}

static enum err add_chars(struct hf *h, struct str s, uint32_t id)
{
    unsigned char byte;
    if (is_byte_token(s, &byte)) {
        char c = byte == ' ' && (h->b.normal & CLEAN_SPACE) != 0 ? '\0' : (char)byte;
        if (byte == ' ' && c == '\0') return ERR_OK; /* no space is left */
        if (byte < 0x80 && map_get(&h->ids, str_n(&c, 1)) != NULL) return ERR_OK;
        return build_token(&h->b, id, str_n(&c, 1));
    }
    return decode_chars(h, s, &h->bytes) ? build_token(&h->b, id, buf_str(&h->bytes)) : ERR_OK;
}

static void add_tokens(struct hf *h)
{
    int16_t byte_of[LETTERS];
    struct map_entry *entry;
    byte_alphabet(byte_of);
    for (size_t i = 0; h->err == ERR_OK && (entry = map_next(&h->ids, &i)) != NULL;) {
        uint32_t id = convert_id(entry->value);
        enum err e = h->byte_level ? add_letters(h, byte_of, entry->key, id)
                                   : add_chars(h, entry->key, id);
        if (e != ERR_OK) hf_refuse(h, e, "model.vocab: entry", entry->key);
    }
}

/* "a b" or ["a", "b"] */
static void read_merge(struct hf *h)
{
    struct jpull *j = h->j;
    buf_clear(&h->left);
    buf_clear(&h->right);
    if (jpull_peek(j) == '"') {
        buf_clear(&h->word);
        jpull_string(j, &h->word);
        struct str right = buf_str(&h->word), left = str_cut(&right, ' ');
        if (buf_append_str(&h->left, left) != ERR_OK || buf_append_str(&h->right, right) != ERR_OK)
            hf_refuse(h, ERR_LIMIT, "model.merges: too long", STR_NULL);
        return;
    }
    int n = 0;
    for (jpull_enter(j, '['); jpull_element(j); n++) {
        if (n < 2)
            jpull_string(j, n == 0 ? &h->left : &h->right);
        else
            jpull_fail(j, "a merge has two parts");
    }
    if (n != 2) jpull_fail(j, "a merge has two parts");
}

static enum err add_merge(struct hf *h, uint32_t rank)
{
    unsigned char byte;
    struct str left = buf_str(&h->left), right = buf_str(&h->right), whole;
    buf_clear(&h->word);
    enum err e = buf_append_str(&h->word, left);
    if (e == ERR_OK) e = buf_append_str(&h->word, right);
    if (e != ERR_OK) return e;
    whole = buf_str(&h->word);
    void *l = map_get(&h->ids, left), *r = map_get(&h->ids, right), *w = map_get(&h->ids, whole);
    if (l == NULL || r == NULL || w == NULL) return ERR_INVALID;
    if (!h->byte_level) {
        if (is_byte_token(left, &byte) || is_byte_token(right, &byte) ||
            is_byte_token(whole, &byte))
            return ERR_UNSUPPORTED;
        rank += CHARS_FIRST_RANK;
    }
    /* A string that stands for no bytes (add_tokens() left it out) never happens in a text. */
    if (build_bytes(&h->b, convert_id(w)).n == 0) return ERR_OK;
    return build_pair(&h->b, convert_id(l), convert_id(r), rank, convert_id(w));
}

static void read_merges(struct hf *h)
{
    uint32_t rank = 0;
    for (jpull_enter(h->j, '['); h->err == ERR_OK && jpull_element(h->j); rank++) {
        read_merge(h);
        if (h->j->failed || h->err != ERR_OK) return;
        enum err e = add_merge(h, rank);
        if (e == ERR_UNSUPPORTED)
            hf_refuse(h, e, "model.merges: merge of byte tokens", buf_str(&h->word));
        else if (e != ERR_OK)
            hf_refuse(h, e, "model.merges: merge of strings outside of the vocabulary",
                      buf_str(&h->word));
    }
}

/* Members that must be absent, null, false or "". */
static void must_be_off(struct hf *h, struct str key)
{
    char name[64];
    (void)str_copyz(name, sizeof name, key);
    struct str v = jpull_skip(h->j);
    if (h->j->failed || str_eqz(v, "null") || str_eqz(v, "false") || str_eqz(v, "\"\"")) return;
    if (str_eqz(key, "dropout") && (str_eqz(v, "0.0") || str_eqz(v, "0"))) return;
    hf_refuse(h, ERR_UNSUPPORTED, "model: setting not known here", str_of(name));
}

static bool read_flag(struct hf *h)
{
    if (jpull_peek(h->j) != 'n') return jpull_bool(h->j);
    (void)jpull_skip(h->j);
    return false;
}

static void read_model_type(struct hf *h)
{
    struct str key;
    for (jpull_enter(h->j, '{'); h->err == ERR_OK && jpull_key(h->j, &key);) {
        struct str v = jpull_skip(h->j);
        if (!h->j->failed && str_eqz(key, "type") && !str_eqz(v, "\"BPE\""))
            hf_refuse(h, ERR_UNSUPPORTED, "model.type: only BPE can be counted here", v);
    }
}

static void read_model(struct hf *h)
{
    struct str key, vocab = STR_NULL, merges = STR_NULL;
    struct jpull *j = h->j;
    for (jpull_enter(j, '{'); h->err == ERR_OK && jpull_key(j, &key);) {
        if (str_eqz(key, "vocab") || str_eqz(key, "merges")) {
            struct str *raw = key.p[0] == 'v' ? &vocab : &merges;
            if (raw->p != NULL) jpull_fail(j, "listed twice");
            *raw = jpull_skip(j);
        } else if (str_eqz(key, "ignore_merges")) {
            h->ignore_merges = read_flag(h);
        } else if (str_eqz(key, "byte_fallback")) {
            h->byte_fallback = read_flag(h);
        } else if (str_eqz(key, "type")) {
            (void)jpull_skip(j); /* read_model_type() */
        } else if (str_eqz(key, "unk_token") || str_eqz(key, "fuse_unk")) {
            (void)jpull_skip(j); /* there is a token for every byte: nothing is unknown */
        } else {
            must_be_off(h, key); /* dropout, prefixes and suffixes of words */
        }
    }
    if (h->err != ERR_OK || j->failed) return;
    if (vocab.p == NULL || merges.p == NULL)
        hf_refuse(h, ERR_UNSUPPORTED, "model: no vocab with merges", STR_NULL);
    else if (!h->byte_level && !h->byte_fallback)
        hf_refuse(h, ERR_UNSUPPORTED,
                  "model.byte_fallback: needed where the pre_tokenizer is not ByteLevel", STR_NULL);
    else if (!h->byte_level && h->ignore_merges)
        hf_refuse(h, ERR_UNSUPPORTED, "model.ignore_merges: without ByteLevel", STR_NULL);
    if (h->err == ERR_OK) hf_walk(h, "model.vocab", vocab, read_ids);
    if (h->err == ERR_OK) add_tokens(h);
    if (h->err == ERR_OK) hf_walk(h, "model.merges", merges, read_merges);
}

void hf_read_model_type(struct hf *h, struct str raw)
{
    if (raw.p != NULL) hf_walk(h, "model", raw, read_model_type);
}

void hf_read_model(struct hf *h, struct str raw)
{
    if (raw.p == NULL)
        hf_refuse(h, ERR_UNSUPPORTED, "model: there is none", STR_NULL);
    else
        hf_walk(h, "model", raw, read_model);
}
