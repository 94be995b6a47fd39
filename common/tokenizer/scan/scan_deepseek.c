/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DeepSeek V3 and R1: three splits in succession, where later ones see only what lies between the
 * matches of the earlier: groups of up to three digits; runs of Han, Hiragana and Katakana; and
 *     [!-/:-@[-`{-~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*
 *     |\s*[\r\n]+|\s+(?!\S)|\s+
 * which does not match everything: what it leaves out are pieces too. Pure.
 */
#include "tokenizer/scan/scan_run.h"

bool scan_deepseek_cjk(uint32_t cp)
{
    return (cp >= 0x4e00 && cp <= 0x9fa5) || (cp >= 0x3040 && cp <= 0x30ff);
}

/* One character; class 0 with *ret_stop set at the end of the text or of what the first two splits
 * left to the third. */
static unsigned look(const char *p, const char *end, size_t *ret_len, bool *ret_stop)
{
    *ret_len = 0;
    *ret_stop = true;
    if (p == end) return 0;
    uint32_t cp;
    size_t len = utf8_next_valid(p, &cp);
    unsigned c = unicode_class(cp);
    if ((c & UC_N) != 0 || scan_deepseek_cjk(cp)) return 0;
    *ret_len = len;
    *ret_stop = false;
    return c;
}

static bool is_word(unsigned c)
{
    return (c & UC_L) != 0 || UC_IS_MARK(c);
}

static const char *run_words(const char *p, const char *end)
{
    size_t len;
    bool stop;
    while (is_word(look(p, end, &len, &stop))) p += len;
    return p;
}

static size_t close_at(const char *p, const char *q, const char *end, bool more)
{
    return q == end && more ? 0 : (size_t)(q - p);
}

static size_t scan_white(const char *p, const char *end, bool more)
{
    const char *q = p, *newline = NULL, *last = p;
    size_t len;
    bool stop;
    while ((look(q, end, &len, &stop) & UC_S) != 0) {
        last = q;
        q += len;
        if (*last == '\n' || *last == '\r') newline = q;
    }
    if (q == end && more) return 0;
    if (newline != NULL) return (size_t)(newline - p);
    if (stop || last == p) return (size_t)(q - p);
    return (size_t)(last - p);
}

/* What matches nothing: up to the next character that does, alone or in front of a word. */
static size_t scan_gap(const char *p, const char *end, bool more)
{
    const char *q = p;
    for (;;) {
        size_t len, len1;
        bool stop;
        unsigned c = look(q, end, &len, &stop);
        if (stop || is_word(c) || (c & (UC_P | UC_S)) != 0) return close_at(p, q, end, more);
        if (q > p && is_word(look(q + len, end, &len1, &stop))) return (size_t)(q - p);
        if (q + len == end && more) return 0;
        q += len;
    }
}

size_t scan_deepseek(const char *p, const char *end, bool more)
{
    uint32_t cp;
    size_t len = utf8_next_valid(p, &cp), len1;
    unsigned c = unicode_class(cp);
    bool stop;
    if ((c & UC_N) != 0) return scan_digits(p, end, more, 3);
    const char *q = p + len;
    if (scan_deepseek_cjk(cp)) {
        while (q < end && scan_deepseek_cjk((len = utf8_next_valid(q, &cp), cp))) q += len;
        return close_at(p, q, end, more);
    }
    if (is_word(c)) return close_at(p, run_words(q, end), end, more);
    if (q == end && more) return 0;
    unsigned c1 = look(q, end, &len1, &stop);
    if (cp < 0x80 && (c & UC_P) != 0) { /* ASCII punctuation */
        const char *w = q;
        while (w < end && ((*w >= 'A' && *w <= 'Z') || (*w >= 'a' && *w <= 'z'))) w++;
        if (w > q) return close_at(p, w, end, more);
    }
    if ((c & UC_P) == 0 && *p != '\r' && *p != '\n' && is_word(c1))
        return close_at(p, run_words(q, end), end, more);
    if ((c & UC_P) != 0 || (*p == ' ' && (c1 & UC_P) != 0)) {
        q = p + (*p == ' ' ? 1 : 0);
        while ((look(q, end, &len1, &stop) & UC_P) != 0) q += len1;
        while (q < end && (*q == '\r' || *q == '\n')) q++;
        return close_at(p, q, end, more);
    }
    return (c & UC_S) != 0 ? scan_white(p, end, more) : scan_gap(p, end, more);
}
