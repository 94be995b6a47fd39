/* SPDX-License-Identifier: Apache-2.0 */
/* An estimate by kinds of characters. Pure. */
#include "tokenizer/scan/estimate.h"

#include "base/utf8.h"
#include "tokenizer/scan/unicode.h"

enum kind {
    KIND_NONE, /* before the text */
    KIND_WORD, /* an ASCII letter that begins a word */
    KIND_LOWER,
    KIND_UPPER,
    KIND_DIGIT,
    KIND_SPACE,
    KIND_SPACES, /* behind another, and tabs */
    KIND_NEWLINE,
    KIND_NEWLINES,
    KIND_PUNCT,
    KIND_PUNCTS,
    KIND_LATIN,      /* letters U+0080 .. U+024F */
    KIND_WORD_GREEK, /* Greek and Cyrillic, as they begin a word */
    KIND_GREEK,
    KIND_HAN,
    KIND_KANA,
    KIND_HANGUL,
    KIND_OTHER,
};

/*
 * 1/1000 tokens for each. Least squares of the relative error, against the mean count of six
 * vocabularies (cl100k, o200k, Qwen3, DeepSeek V3, Llama 3.2, Tekken) over C headers, Python,
 * Markdown and programs' messages in 30 languages: the error of a text of that sort was 10 % in the
 * mean, with 20 to 40 % for some languages (Georgian, Greek, Tamil too low; Arabic, Persian too
 * high).
 */
static const uint16_t weights[] = {
    [KIND_WORD] = 0,    [KIND_LOWER] = 217,  [KIND_UPPER] = 193,   [KIND_DIGIT] = 607,
    [KIND_SPACE] = 271, [KIND_SPACES] = 0,   [KIND_NEWLINE] = 642, [KIND_NEWLINES] = 0,
    [KIND_PUNCT] = 943, [KIND_PUNCTS] = 261, [KIND_LATIN] = 2087,  [KIND_WORD_GREEK] = 2645,
    [KIND_GREEK] = 0,   [KIND_HAN] = 928,    [KIND_KANA] = 666,    [KIND_HANGUL] = 812,
    [KIND_OTHER] = 669,
};

static enum kind ascii_kind(char c, enum kind last)
{
    if (c >= 'a' && c <= 'z')
        return last == KIND_WORD || last == KIND_LOWER || last == KIND_UPPER ? KIND_LOWER
                                                                             : KIND_WORD;
    if (c >= 'A' && c <= 'Z') return KIND_UPPER;
    if (c >= '0' && c <= '9') return KIND_DIGIT;
    if (c == ' ') return last == KIND_SPACE || last == KIND_SPACES ? KIND_SPACES : KIND_SPACE;
    if (c == '\n' || c == '\r')
        return last == KIND_NEWLINE || last == KIND_NEWLINES ? KIND_NEWLINES : KIND_NEWLINE;
    if (c == '\t') return KIND_SPACES;
    return last == KIND_PUNCT || last == KIND_PUNCTS ? KIND_PUNCTS : KIND_PUNCT;
}

static enum kind kind_of(uint32_t cp, enum kind last)
{
    if (cp < 0x80) return ascii_kind((char)cp, last);
    unsigned c = unicode_class(cp);
    if (cp < 0x250 && (c & UC_L) != 0) return KIND_LATIN;
    if (cp < 0x530 && (c & UC_L) != 0)
        return last == KIND_WORD_GREEK || last == KIND_GREEK ? KIND_GREEK : KIND_WORD_GREEK;
    if ((c & UC_HAN) != 0) return KIND_HAN;
    if (cp >= 0x3040 && cp < 0x3100) return KIND_KANA;
    if (cp >= 0xac00 && cp < 0xd7b0) return KIND_HANGUL;
    return KIND_OTHER;
}

static void add(struct token_estimate *e, uint32_t cp)
{
    enum kind k = kind_of(cp, (enum kind)e->last);
    e->last = (uint8_t)k;
    e->weight += weights[k];
}

void token_estimate_feed(struct token_estimate *e, struct str bytes)
{
    for (size_t i = 0; i < bytes.n; i++) {
        unsigned char c = (unsigned char)bytes.p[i];
        if (e->part_n == 0 && c < 0x80) {
            add(e, c);
            continue;
        }
        if (e->part_n > 0 && (c & 0xc0) != 0x80) { /* the character broke off */
            e->part_n = 0;
            add(e, 0xfffd);
            i--;
            continue;
        }
        uint32_t cp;
        size_t want = c >= 0xf0 ? 4 : c >= 0xe0 ? 3 : 2;
        e->part[e->part_n++] = c;
        if (e->part_n > 1) want = e->part[0] >= 0xf0 ? 4 : e->part[0] >= 0xe0 ? 3 : 2;
        if (e->part_n < want && e->part[0] >= 0xc2) continue;
        if (utf8_decode((const char *)e->part, e->part_n, &cp) == 0) cp = 0xfffd;
        e->part_n = 0;
        add(e, cp);
    }
}

uint64_t token_estimate_count(const struct token_estimate *e)
{
    uint64_t weight = e->weight + (e->part_n > 0 ? weights[KIND_OTHER] : 0);
    if (weight == 0) return e->last != KIND_NONE ? 1 : 0;
    return (weight + 999) / 1000;
}

uint64_t token_estimate(struct str text)
{
    struct token_estimate e = { 0 };
    token_estimate_feed(&e, text);
    return token_estimate_count(&e);
}
