/* SPDX-License-Identifier: Apache-2.0 */
/* tokenizer.json: what happens to a text before its pieces merge. Any thread. */
#include "tokenizer/merge/chars.h"
#include "tokenizer/scan/clean.h"
#include "tokenizer/convert/convert_hf.h"

#define SPACE_MARK "\xe2\x96\x81"

/* ---- normalizer ---- */

/* {"String": " "}: its string is in h->word; "Regex" is refused. */
static void read_string_pattern(struct hf *h, const char *where)
{
    struct str key;
    buf_clear(&h->word);
    for (jpull_enter(h->j, '{'); jpull_key(h->j, &key);) {
        if (str_eqz(key, "String") && h->word.len == 0)
            jpull_string(h->j, &h->word);
        else
            hf_refuse(h, ERR_UNSUPPORTED, where, key);
    }
}

static void read_normalizer(struct hf *h)
{
    struct jpull *j = h->j;
    struct str key, type = STR_NULL;
    bool space = false, mark = false, prepend = false;
    if (jpull_peek(j) == 'n') {
        (void)jpull_skip(j);
        return;
    }
    for (jpull_enter(j, '{'); h->err == ERR_OK && jpull_key(j, &key);) {
        if (str_eqz(key, "type")) {
            type = jpull_skip(j);
            if (!j->failed && !str_eqz(type, "\"NFC\"") && !str_eqz(type, "\"Sequence\"") &&
                !str_eqz(type, "\"Prepend\"") && !str_eqz(type, "\"Replace\""))
                hf_refuse(h, ERR_UNSUPPORTED, "normalizer: not known here", type);
        } else if (str_eqz(key, "normalizers")) {
            for (jpull_enter(j, '['); h->err == ERR_OK && jpull_element(j);) read_normalizer(h);
        } else if (str_eqz(key, "pattern")) {
            read_string_pattern(h, "normalizer.pattern: only a string can be replaced");
            space = str_eqz(buf_str(&h->word), " ");
        } else if (str_eqz(key, "content") || str_eqz(key, "prepend")) {
            prepend = key.p[0] == 'p';
            buf_clear(&h->word);
            jpull_string(j, &h->word);
            mark = str_eqz(buf_str(&h->word), SPACE_MARK);
        } else {
            hf_refuse(h, ERR_UNSUPPORTED, "normalizer: setting not known here", key);
        }
    }
    if (j->failed || h->err != ERR_OK) return;
    if (str_eqz(type, "\"NFC\"")) {
        if (h->replace || h->prepend)
            hf_refuse(h, ERR_UNSUPPORTED, "normalizer: NFC behind others", STR_NULL);
        h->b.normal |= CLEAN_NFC;
    } else if (str_eqz(type, "\"Prepend\"")) {
        if (!mark || !prepend || h->prepend)
            hf_refuse(h, ERR_UNSUPPORTED, "normalizer: Prepend of anything but one U+2581",
                      STR_NULL);
        h->prepend = true;
    } else if (str_eqz(type, "\"Replace\"")) {
        if (!mark || !space)
            hf_refuse(h, ERR_UNSUPPORTED, "normalizer: Replace of anything but a space by U+2581",
                      STR_NULL);
        h->replace = true;
    }
}

void hf_read_normalizer(struct hf *h, struct str raw)
{
    hf_walk(h, "normalizer", raw, read_normalizer);
    if (h->err != ERR_OK) return;
    if (h->prepend && !h->replace)
        hf_refuse(h, ERR_UNSUPPORTED, "normalizer: Prepend without Replace", STR_NULL);
    if (h->prepend) h->b.lead = VOCAB_LEAD_FIRST | VOCAB_LEAD_EACH | VOCAB_LEAD_SPACES;
    if (h->replace) h->b.normal |= CLEAN_SPACE;
}

/* ---- pre-tokenizer ---- */

enum step_type { STEP_SPLIT, STEP_BYTE_LEVEL, STEP_DIGITS, STEP_METASPACE };

struct step {
    enum step_type type;
    enum scan_shape shape; /* of a split */
    char part;             /* of DeepSeek's: '1', '2', '3' */
    bool by_space;         /* the split is at single spaces */
    bool regex;            /* any other regular expression: it is in h->pattern */
    bool use_regex, prefix_space;
    enum { KEEP_ALL, KEEP_MATCHES, KEEP_PREVIOUS } keep; /* of a split */
    bool invert;
    bool split; /* of a Metaspace */
    unsigned lead;
};

enum { STEPS = 16 };
struct steps {
    struct step v[STEPS];
    size_t n;
};

/* The parts that DeepSeek's three splits are written in. */
static char deepseek_part(struct str regex)
{
    static const char digits[] = "\\p{N}{1,3}";
    static const char kana[] = "[\xe4\xb8\x80-\xe9\xbe\xa5\xe3\x81\x80-\xe3\x82\x9f"
                               "\xe3\x82\xa0-\xe3\x83\xbf]+";
    static const char words[] =
        "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\r\n\\p{L}\\p{P}\\p{S}]?"
        "[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\r\n]*|\\s*[\r\n]+|\\s+(?!\\S)|\\s+";
    return str_eqz(regex, digits)  ? '1'
           : str_eqz(regex, kana)  ? '2'
           : str_eqz(regex, words) ? '3'
                                   : 0;
}

static void read_pattern(struct hf *h, struct step *s)
{
    struct str key;
    bool regex = false;
    buf_clear(&h->word);
    for (jpull_enter(h->j, '{'); h->err == ERR_OK && jpull_key(h->j, &key);) {
        regex = str_eqz(key, "Regex");
        if ((regex || str_eqz(key, "String")) && h->word.len == 0)
            jpull_string(h->j, &h->word);
        else
            hf_refuse(h, ERR_UNSUPPORTED, "pre_tokenizer.pattern: not known here", key);
    }
    struct str text = buf_str(&h->word);
    if (h->j->failed || h->err != ERR_OK) return;
    s->by_space = str_eqz(text, " ");
    if (regex) s->shape = scan_shape_of(text);
    if (regex) s->part = deepseek_part(text);
    if (s->by_space || s->shape != 0 || s->part != 0) return;
    struct scan_regex *r = NULL;
    struct why why = { "" };
    s->regex = regex && scan_regex_new(text, &r, &why) == ERR_OK;
    scan_regex_free(r);
    buf_clear(&h->pattern);
    if (!s->regex || buf_append_str(&h->pattern, text) != ERR_OK)
        hf_refuse(h, ERR_UNSUPPORTED, "pre_tokenizer.pattern: not known here", text);
}

static unsigned prepend_scheme(struct hf *h, struct str v)
{
    if (str_eqz(v, "\"always\"")) return VOCAB_LEAD_FIRST | VOCAB_LEAD_EACH;
    if (str_eqz(v, "\"first\"")) return VOCAB_LEAD_FIRST;
    if (!str_eqz(v, "\"never\""))
        hf_refuse(h, ERR_UNSUPPORTED, "pre_tokenizer.prepend_scheme: not known here", v);
    return VOCAB_LEAD_NONE;
}

static void read_step(struct hf *h, struct steps *steps);

static void read_member(struct hf *h, struct steps *steps, struct step *s, struct str key)
{
    struct jpull *j = h->j;
    if (str_eqz(key, "pretokenizers")) {
        for (jpull_enter(j, '['); h->err == ERR_OK && jpull_element(j);) read_step(h, steps);
    } else if (str_eqz(key, "pattern")) {
        read_pattern(h, s);
    } else if (str_eqz(key, "behavior")) {
        struct str v = jpull_skip(j);
        if (str_eqz(v, "\"Removed\""))
            s->keep = KEEP_MATCHES; /* inverted: what does not match is removed */
        else if (str_eqz(v, "\"MergedWithPrevious\""))
            s->keep = KEEP_PREVIOUS;
        else if (!j->failed && !str_eqz(v, "\"Isolated\""))
            hf_refuse(h, ERR_UNSUPPORTED, "pre_tokenizer.behavior: not known here", v);
    } else if (str_eqz(key, "invert")) {
        s->invert = jpull_bool(j);
    } else if (str_eqz(key, "use_regex")) {
        s->use_regex = jpull_bool(j);
    } else if (str_eqz(key, "add_prefix_space")) {
        s->prefix_space = jpull_bool(j);
        s->lead = s->prefix_space ? VOCAB_LEAD_FIRST | VOCAB_LEAD_EACH : VOCAB_LEAD_NONE;
    } else if (str_eqz(key, "individual_digits")) {
        if (!jpull_bool(j))
            hf_refuse(h, ERR_UNSUPPORTED, "pre_tokenizer.individual_digits: false", STR_NULL);
    } else if (str_eqz(key, "replacement")) {
        buf_clear(&h->word);
        jpull_string(j, &h->word);
        if (!j->failed && !str_eqz(buf_str(&h->word), SPACE_MARK))
            hf_refuse(h, ERR_UNSUPPORTED, "pre_tokenizer.replacement: not U+2581", STR_NULL);
    } else if (str_eqz(key, "prepend_scheme")) {
        s->lead = prepend_scheme(h, jpull_skip(j));
    } else if (str_eqz(key, "split")) {
        s->split = jpull_bool(j);
    } else if (str_eqz(key, "trim_offsets") || str_eqz(key, "str_rep")) {
        (void)jpull_skip(j); /* offsets only; the replacement again */
    } else {
        hf_refuse(h, ERR_UNSUPPORTED, "pre_tokenizer: setting not known here", key);
    }
}

static void read_step(struct hf *h, struct steps *steps)
{
    struct str key, type = STR_NULL;
    struct step s = { .use_regex = true, .split = true };
    s.lead = VOCAB_LEAD_FIRST | VOCAB_LEAD_EACH;
    if (jpull_peek(h->j) == 'n') {
        (void)jpull_skip(h->j);
        return;
    }
    for (jpull_enter(h->j, '{'); h->err == ERR_OK && jpull_key(h->j, &key);) {
        if (str_eqz(key, "type"))
            type = jpull_skip(h->j);
        else
            read_member(h, steps, &s, key);
    }
    if (h->j->failed || h->err != ERR_OK || str_eqz(type, "\"Sequence\"")) return;
    if (str_eqz(type, "\"Split\""))
        s.type = STEP_SPLIT;
    else if (str_eqz(type, "\"ByteLevel\""))
        s.type = STEP_BYTE_LEVEL;
    else if (str_eqz(type, "\"Digits\""))
        s.type = STEP_DIGITS;
    else if (str_eqz(type, "\"Metaspace\""))
        s.type = STEP_METASPACE;
    else
        hf_refuse(h, ERR_UNSUPPORTED, "pre_tokenizer: not known here", type);
    if (s.type == STEP_SPLIT && s.invert != (s.keep == KEEP_MATCHES))
        hf_refuse(h, ERR_UNSUPPORTED, "pre_tokenizer: Split that is inverted or Removed, not both",
                  STR_NULL);
    if (steps->n == STEPS)
        hf_refuse(h, ERR_LIMIT, "pre_tokenizer: too many steps", STR_NULL);
    else
        steps->v[steps->n++] = s;
}

static bool is_byte_level(const struct step *s, bool use_regex)
{
    return s->type == STEP_BYTE_LEVEL && s->use_regex == use_regex;
}

static bool is_part(const struct step *s, char part)
{
    return s->type == STEP_SPLIT && s->keep == KEEP_ALL && s->part == part;
}

/* A split by one of the patterns that leave nothing over: then it is the same whether the matches
 * are isolated or what is no match removed. */
static bool is_whole(const struct step *s)
{
    return s->type == STEP_SPLIT && s->shape != 0 && s->keep != KEEP_PREVIOUS;
}

/* The combinations that there are scanners for. */
static bool understand(struct hf *h, const struct steps *steps)
{
    const struct step *s = steps->v;
    size_t n = steps->n;
    bool byte_level = n > 0 && s[n - 1].type == STEP_BYTE_LEVEL;
    h->byte_level = byte_level;
    if (byte_level && s[n - 1].prefix_space) {
        if (n > 1) {
            hf_refuse(h, ERR_UNSUPPORTED, "pre_tokenizer.add_prefix_space: behind other splits",
                      STR_NULL);
            return true;
        }
        h->b.lead = VOCAB_LEAD_FIRST | VOCAB_LEAD_EACH;
    }
    if (n == 1 && is_byte_level(s, true)) {
        h->b.shape = SCAN_GPT2;
    } else if (n == 2 && is_whole(&s[0]) && is_byte_level(&s[1], false)) {
        h->b.shape = s[0].shape;
    } else if (n == 2 && s[0].type == STEP_SPLIT && s[0].regex && s[0].keep == KEEP_ALL &&
               is_byte_level(&s[1], false)) {
        h->b.shape = SCAN_REGEX;
    } else if (n == 2 && s[0].type == STEP_DIGITS && is_byte_level(&s[1], true)) {
        h->b.shape = SCAN_DIGITS;
    } else if (n == 4 && is_part(&s[0], '1') && is_part(&s[1], '2') && is_part(&s[2], '3') &&
               is_byte_level(&s[3], false)) {
        h->b.shape = SCAN_DEEPSEEK;
    } else if (n == 0 || (n == 1 && s[0].type == STEP_SPLIT && s[0].by_space && h->replace)) {
        h->b.shape = SCAN_CHARS; /* there is no space left that could split */
    } else if (n == 1 && s[0].type == STEP_METASPACE && !h->prepend) {
        h->b.shape = SCAN_CHARS;
        h->b.normal |= CLEAN_SPACE;
        h->b.lead = s[0].lead;
        h->b.chars = s[0].split ? CHARS_SPLIT : 0;
    } else {
        return false;
    }
    return true;
}

static void read_pre_tokenizer(struct hf *h)
{
    struct steps steps = { .n = 0 };
    read_step(h, &steps);
    if (h->j->failed || h->err != ERR_OK) return;
    if (!understand(h, &steps))
        hf_refuse(h, ERR_UNSUPPORTED,
                  "pre_tokenizer: this combination cannot be counted exactly here", STR_NULL);
    else if (h->byte_level && (h->replace || h->prepend))
        hf_refuse(h, ERR_UNSUPPORTED, "normalizer: Replace with a byte-level pre-tokenizer",
                  STR_NULL);
}

void hf_read_pre_tokenizer(struct hf *h, struct str raw)
{
    if (raw.p == NULL) raw = STR("null");
    hf_walk(h, "pre_tokenizer", raw, read_pre_tokenizer);
}
