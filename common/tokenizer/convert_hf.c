/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Hugging Face's tokenizer.json with a byte-level BPE model. The merge list decides what merges,
 * not the ids. Everything in the file that could change a token is understood or refused. Any
 * thread.
 */
#include "tokenizer/convert_parts.h"

#include "base/utf8.h"

/* Why a file is refused, kept until its JSON has been walked. */
struct hf {
    struct build b;
    struct map ids; /* the vocabulary's own strings to ids */
    struct buf word, left, right, bytes;
    int16_t
        byte_of[0x144]; /* the byte that a letter of the byte-level alphabet stands for, or -1 */
    struct why *why;
    enum err err;
    bool have_vocab, have_merges, ignore_merges, byte_level, normalized_added;
    int splits; /* patterns seen in the pre-tokenizer */
    bool digits_split, kana_split, deepseek_words;
    struct jpull *j;   /* what is being walked */
    struct str merges; /* raw, when they came before the vocabulary */
};

static void refuse(struct hf *h, enum err e, const char *what, struct str detail)
{
    jpull_fail(h->j, "refused"); /* ends the walk */
    if (h->err != ERR_OK) return;
    h->err = why_set(h->why, e, "%s%s%.*s", what, detail.n > 0 ? ": " : "",
                     (int)MIN(detail.n, (size_t)160), detail.n > 0 ? detail.p : "");
}

/* Bytes that print in Latin-1 stand for themselves, the others follow from U+0100. */
static void byte_alphabet(int16_t *byte_of)
{
    int next = 0x100;
    for (int i = 0; i < 0x144; i++) byte_of[i] = -1;
    for (int b = 0; b < 256; b++) {
        bool prints = (b >= '!' && b <= '~') || (b >= 0xa1 && b <= 0xac) || b >= 0xae;
        byte_of[prints ? b : next++] = (int16_t)b;
    }
}

/* False when s has characters outside of the alphabet. */
static bool decode_bytes(struct hf *h, struct str s, struct buf *out)
{
    buf_clear(out);
    for (size_t i = 0; i < s.n;) {
        uint32_t cp;
        size_t len = utf8_decode(s.p + i, s.n - i, &cp);
        if (len == 0 || cp >= ARRAY_LEN(h->byte_of) || h->byte_of[cp] < 0) return false;
        if (buf_append_char(out, (char)h->byte_of[cp]) != ERR_OK) return false;
        i += len;
    }
    return out->len > 0;
}

static void read_vocab(struct hf *h, struct jpull *j)
{
    struct str key;
    for (jpull_enter(j, '{'); h->err == ERR_OK && jpull_key(j, &key);) {
        void *old = NULL;
        buf_clear(&h->word);
        enum err e = buf_append_str(&h->word, key);
        uint64_t id = jpull_uint(j, BUILD_MAX_SIZE - 1);
        if (j->failed) return;
        if (e == ERR_OK) e = map_put(&h->ids, buf_str(&h->word), convert_value((uint32_t)id), &old);
        if (e == ERR_OK && old != NULL) e = ERR_INVALID;
        /* Strings outside of the alphabet can be no piece; they may be added tokens. */
        if (e == ERR_OK && decode_bytes(h, buf_str(&h->word), &h->bytes))
            e = build_token(&h->b, (uint32_t)id, buf_str(&h->bytes));
        if (e != ERR_OK) refuse(h, e, "vocabulary entry", buf_str(&h->word));
    }
    h->have_vocab = true;
}

/* "a b" or ["a", "b"] */
static void read_merge(struct hf *h, struct jpull *j)
{
    buf_clear(&h->left);
    buf_clear(&h->right);
    if (jpull_peek(j) == '"') {
        buf_clear(&h->word);
        jpull_string(j, &h->word);
        struct str right = buf_str(&h->word), left = str_cut(&right, ' ');
        if (buf_append_str(&h->left, left) != ERR_OK || buf_append_str(&h->right, right) != ERR_OK)
            refuse(h, ERR_LIMIT, "merge too long", STR_NULL);
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

static void read_merges(struct hf *h, struct jpull *j)
{
    uint32_t rank = 0;
    for (jpull_enter(j, '['); h->err == ERR_OK && jpull_element(j); rank++) {
        read_merge(h, j);
        if (j->failed || h->err != ERR_OK) return;
        buf_clear(&h->word);
        enum err e = buf_append_str(&h->word, buf_str(&h->left));
        if (e == ERR_OK) e = buf_append_str(&h->word, buf_str(&h->right));
        void *left = map_get(&h->ids, buf_str(&h->left));
        void *right = map_get(&h->ids, buf_str(&h->right));
        void *whole = map_get(&h->ids, buf_str(&h->word));
        if (e == ERR_OK && (left == NULL || right == NULL || whole == NULL)) e = ERR_INVALID;
        if (e == ERR_OK)
            e = build_pair(&h->b, convert_id(left), convert_id(right), rank, convert_id(whole));
        if (e != ERR_OK)
            refuse(h, e, "merge of strings outside of the vocabulary", buf_str(&h->word));
    }
    h->have_merges = true;
}

/* Members that must be absent, null, false or "". */
static void must_be_off(struct hf *h, struct jpull *j, struct str key)
{
    char name[64];
    (void)str_copyz(name, sizeof name, key);
    struct str v = jpull_skip(j);
    if (j->failed || str_eqz(v, "null") || str_eqz(v, "false") || str_eqz(v, "\"\"")) return;
    refuse(h, ERR_UNSUPPORTED, "a setting of the model that is not known here", str_of(name));
}

static void read_model(struct hf *h, struct jpull *j)
{
    struct str key;
    for (jpull_enter(j, '{'); h->err == ERR_OK && jpull_key(j, &key);) {
        if (str_eqz(key, "type")) {
            struct str v = jpull_skip(j);
            if (!j->failed && !str_eqz(v, "\"BPE\"")) refuse(h, ERR_UNSUPPORTED, "model type", v);
        } else if (str_eqz(key, "vocab")) {
            if (h->have_vocab) jpull_fail(j, "a second vocabulary");
            read_vocab(h, j);
        } else if (str_eqz(key, "merges")) {
            if (h->have_vocab)
                read_merges(h, j);
            else
                h->merges = jpull_skip(j);
        } else if (str_eqz(key, "ignore_merges")) {
            if (jpull_peek(j) == 'n')
                (void)jpull_skip(j);
            else
                h->ignore_merges = jpull_bool(j);
        } else if (str_eqz(key, "unk_token") || str_eqz(key, "fuse_unk")) {
            (void)jpull_skip(j); /* there is a token for every byte: nothing is unknown */
        } else {
            must_be_off(h, j, key); /* dropout, byte_fallback, prefixes and suffixes of words */
        }
    }
    if (h->err != ERR_OK || j->failed || h->merges.p == NULL || h->have_merges || !h->have_vocab)
        return;
    struct jpull late;
    jpull_init(&late, h->merges);
    h->j = &late;
    read_merges(h, &late);
    h->j = j;
    if (late.failed) jpull_fail(j, late.reason);
    jpull_done(&late);
}

static void read_added(struct hf *h, struct jpull *j)
{
    struct str key;
    for (jpull_enter(j, '['); h->err == ERR_OK && jpull_element(j);) {
        uint64_t id = 0;
        bool special = false, odd = false, normalized = false;
        buf_clear(&h->word);
        for (jpull_enter(j, '{'); jpull_key(j, &key);) {
            if (str_eqz(key, "id"))
                id = jpull_uint(j, BUILD_MAX_SIZE - 1);
            else if (str_eqz(key, "content") && h->word.len == 0)
                jpull_string(j, &h->word);
            else if (str_eqz(key, "special"))
                special = jpull_bool(j);
            else if (str_eqz(key, "normalized"))
                normalized = jpull_bool(j);
            else if (str_eqz(key, "lstrip") || str_eqz(key, "rstrip") ||
                     str_eqz(key, "single_word"))
                odd = jpull_bool(j) || odd;
            else
                (void)jpull_skip(j);
        }
        if (j->failed) return;
        if (h->word.len == 0) continue;
        if (odd)
            refuse(h, ERR_UNSUPPORTED, "added token with lstrip, rstrip or single_word",
                   buf_str(&h->word));
        h->normalized_added |= normalized;
        enum err e = build_added(&h->b, buf_str(&h->word), (uint32_t)id, special);
        if (e != ERR_OK) refuse(h, e, "added token", buf_str(&h->word));
    }
}

/* Added tokens that are marked "normalized" match in a second round, between the others. That is
 * the same as one round when no two tokens can overlap. */
static void check_added(struct hf *h)
{
    if (!h->normalized_added) return;
    const struct vocab_added *a = (const struct vocab_added *)(const void *)h->b.added.data;
    size_t n = h->b.added.len / sizeof *a;
    if (h->b.nfc) refuse(h, ERR_UNSUPPORTED, "normalized added tokens with a normalizer", STR_NULL);
    for (size_t i = 0; i < n; i++)
        for (size_t k = 0; k < n && h->err == ERR_OK; k++) {
            struct str s = { h->b.strings.data + a[i].at, a[i].n };
            struct str t = { h->b.strings.data + a[k].at, a[k].n };
            if (i == k) continue;
            bool overlap = str_contains(s, t);
            for (size_t cut = 1; cut < s.n && !overlap; cut++)
                overlap = str_starts(t, str_n(s.p + cut, s.n - cut));
            if (overlap) refuse(h, ERR_UNSUPPORTED, "normalized added tokens that overlap", s);
        }
}

static void read_normalizer(struct hf *h, struct jpull *j)
{
    struct str key;
    if (jpull_peek(j) == 'n') {
        (void)jpull_skip(j);
        return;
    }
    for (jpull_enter(j, '{'); h->err == ERR_OK && jpull_key(j, &key);) {
        if (str_eqz(key, "type")) {
            struct str v = jpull_skip(j);
            if (str_eqz(v, "\"NFC\""))
                h->b.nfc = true;
            else if (!j->failed && !str_eqz(v, "\"Sequence\""))
                refuse(h, ERR_UNSUPPORTED, "normalizer", v);
        } else if (str_eqz(key, "normalizers")) {
            for (jpull_enter(j, '['); jpull_element(j);) read_normalizer(h, j);
        } else {
            refuse(h, ERR_UNSUPPORTED, "setting of the normalizer", key);
        }
    }
}

static void read_pattern(struct hf *h, struct jpull *j)
{
    static const char digits[] = "\\p{N}{1,3}";
    static const char kana[] = "[\xe4\xb8\x80-\xe9\xbe\xa5\xe3\x81\x80-\xe3\x82\x9f"
                               "\xe3\x82\xa0-\xe3\x83\xbf]+";
    static const char words[] =
        "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\r\n\\p{L}\\p{P}\\p{S}]?"
        "[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\r\n]*|\\s*[\r\n]+|\\s+(?!\\S)|\\s+";
    struct str key;
    buf_clear(&h->word);
    for (jpull_enter(j, '{'); jpull_key(j, &key);) {
        if (str_eqz(key, "Regex") && h->word.len == 0)
            jpull_string(j, &h->word);
        else
            refuse(h, ERR_UNSUPPORTED, "pattern that is not a regular expression", key),
                (void)jpull_skip(j);
    }
    if (j->failed || h->err != ERR_OK) return;
    struct str regex = buf_str(&h->word);
    h->splits++;
    enum scan_shape shape = scan_shape_of(regex);
    if (shape != 0 && h->splits == 1)
        h->b.shape = shape;
    else if (str_eqz(regex, digits) && h->splits == 1)
        h->digits_split = true;
    else if (str_eqz(regex, kana) && h->splits == 2 && h->digits_split)
        h->kana_split = true;
    else if (str_eqz(regex, words) && h->splits == 3 && h->kana_split)
        h->b.shape = SCAN_DEEPSEEK;
    else
        refuse(h, ERR_UNSUPPORTED, "pre-tokenizer pattern that is not known here", regex);
}

static void read_pre_tokenizer(struct hf *h, struct jpull *j)
{
    struct str key;
    struct buf type;
    bool use_regex = true, prefix_space = false;
    buf_init(&type, 256);
    for (jpull_enter(j, '{'); h->err == ERR_OK && jpull_key(j, &key);) {
        if (str_eqz(key, "type") && type.len == 0) {
            jpull_string(j, &type);
        } else if (str_eqz(key, "pretokenizers")) {
            for (jpull_enter(j, '['); h->err == ERR_OK && jpull_element(j);)
                read_pre_tokenizer(h, j);
        } else if (str_eqz(key, "pattern")) {
            if (h->byte_level) refuse(h, ERR_UNSUPPORTED, "split behind the byte level", STR_NULL);
            read_pattern(h, j);
        } else if (str_eqz(key, "behavior")) {
            struct str v = jpull_skip(j);
            if (!j->failed && !str_eqz(v, "\"Isolated\""))
                refuse(h, ERR_UNSUPPORTED, "split behavior", v);
        } else if (str_eqz(key, "invert")) {
            if (jpull_bool(j)) refuse(h, ERR_UNSUPPORTED, "inverted split", STR_NULL);
        } else if (str_eqz(key, "use_regex")) {
            use_regex = jpull_bool(j);
        } else if (str_eqz(key, "add_prefix_space")) {
            prefix_space = jpull_bool(j);
        } else if (str_eqz(key, "trim_offsets")) {
            (void)jpull_skip(j); /* offsets only */
        } else {
            refuse(h, ERR_UNSUPPORTED, "setting of the pre-tokenizer", key);
        }
    }
    struct str t = buf_str(&type);
    if (j->failed || h->err != ERR_OK || str_eqz(t, "Sequence") || str_eqz(t, "Split")) {
        buf_done(&type);
        return;
    }
    if (!str_eqz(t, "ByteLevel")) refuse(h, ERR_UNSUPPORTED, "pre-tokenizer", t);
    if (prefix_space) refuse(h, ERR_UNSUPPORTED, "add_prefix_space", STR_NULL);
    if (use_regex && h->splits > 0)
        refuse(h, ERR_UNSUPPORTED, "two splits in succession", STR_NULL);
    if (use_regex) h->b.shape = SCAN_GPT2;
    h->byte_level = true;
    buf_done(&type);
}

static void read_file(struct hf *h, struct jpull *j)
{
    struct str key;
    for (jpull_enter(j, '{'); h->err == ERR_OK && jpull_key(j, &key);) {
        if (str_eqz(key, "model"))
            read_model(h, j);
        else if (str_eqz(key, "added_tokens"))
            read_added(h, j);
        else if (str_eqz(key, "normalizer"))
            read_normalizer(h, j);
        else if (str_eqz(key, "pre_tokenizer") && jpull_peek(j) == '{')
            read_pre_tokenizer(h, j);
        else
            (void)jpull_skip(j); /* the post-processor adds what templates bring along; offsets and
                                    decoding do not count */
    }
}

enum err convert_huggingface(struct str json, const struct convert_opts *o, struct buf *ret,
                             struct why *why)
{
    struct jpull j;
    struct hf h = { .why = why, .j = &j };
    build_init(&h.b);
    map_init(&h.ids, BUILD_MAX_SIZE);
    buf_init(&h.word, 4 * BUILD_MAX_TOKEN);
    buf_init(&h.left, 4 * BUILD_MAX_TOKEN);
    buf_init(&h.right, 4 * BUILD_MAX_TOKEN);
    buf_init(&h.bytes, BUILD_MAX_TOKEN);
    byte_alphabet(h.byte_of);
    jpull_init(&j, json);
    read_file(&h, &j);
    enum err e = h.err;
    if (e == ERR_OK) e = jpull_end(&j, why);
    if (e == ERR_OK && (!h.have_vocab || !h.have_merges))
        e = why_set(why, ERR_UNSUPPORTED, "no model with a vocabulary and merges");
    if (e == ERR_OK && (!h.byte_level || h.b.shape == 0))
        e = why_set(why, ERR_UNSUPPORTED,
                    "only byte-level pre-tokenizers can be counted exactly here");
    if (e == ERR_OK) {
        check_added(&h);
        e = h.err;
    }
    h.b.whole_all = h.ignore_merges;
    if (e == ERR_OK) e = convert_common(&h.b, o, why);
    if (e == ERR_OK) e = build_finish(&h.b, ret, why);
    jpull_done(&j);
    buf_done(&h.word);
    buf_done(&h.left);
    buf_done(&h.right);
    buf_done(&h.bytes);
    map_done(&h.ids);
    build_done(&h.b);
    return e;
}
