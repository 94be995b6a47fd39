/* SPDX-License-Identifier: Apache-2.0 */
/* Scanners of the GPT-2, cl100k and o200k kin. Pure. */
#include "tokenizer/scan/scan.h"

#include "tokenizer/scan/scan_run.h"

/* Runs that reach the end of what is known are open. */
#define OPEN_IF(cond) \
    if (cond) return 0

/* GPT-2 and cl100k. `fold` contractions in any case. */
static inline size_t scan_words(const char *p, const char *end, bool more, int digits, bool fold)
{
    const char *q;
    size_t len, len1;
    unsigned c = unicode_class_at(p, &len);
    if (*p == '\'') {
        int k = scan_contraction(p, end, more, fold);
        OPEN_IF(k < 0);
        if (k > 0) return (size_t)k;
    }
    if ((c & UC_L) != 0) {
        q = scan_run_in(p + len, end, UC_L);
        OPEN_IF(q == end && more);
        return (size_t)(q - p);
    }
    if ((c & UC_N) != 0) return scan_digits(p, end, more, digits);
    if (*p != '\r' && *p != '\n') {
        OPEN_IF(p + len == end && more);
        if (p + len < end && (unicode_class_at(p + len, &len1) & UC_L) != 0) {
            q = scan_run_in(p + len + len1, end, UC_L);
            OPEN_IF(q == end && more);
            return (size_t)(q - p);
        }
    }
    size_t n = scan_other(p, end, more, c, len, SCAN_NEWLINES);
    return n == SCAN_NONE ? scan_space(p, end, more, true) : n;
}

static size_t scan_gpt2(const char *p, const char *end, bool more)
{
    size_t len, skip = 0;
    unsigned c = unicode_class_at(p, &len);
    if (*p == '\'') {
        int k = scan_contraction(p, end, more, false);
        OPEN_IF(k < 0);
        if (k > 0) return (size_t)k;
    }
    if (*p == ' ') {
        OPEN_IF(end - p == 1 && more);
        if (end - p > 1) {
            unsigned c1 = unicode_class_at(p + 1, &len);
            if ((c1 & UC_S) == 0) skip = 1, c = c1;
        }
    }
    if ((c & UC_S) != 0) return scan_space(p, end, more, false);
    const char *q = (c & UC_L) != 0   ? scan_run_in(p + skip, end, UC_L)
                    : (c & UC_N) != 0 ? scan_run_in(p + skip, end, UC_N)
                                      : scan_run_out(p + skip, end, UC_S | UC_L | UC_N);
    OPEN_IF(q == end && more);
    return (size_t)(q - p);
}

/*
 * X?U*W+ and, failing that, X?U+W* of o200k and Tekken, where U are upper-case and caseless letters
 * and marks, W lower-case and caseless letters and marks, and X is any one character but a letter,
 * a number, CR and LF. U* takes all it can; if no W follows, it gives back up to the last character
 * that is both, which then is the W. Without such a one the second form takes the whole run.
 */
static size_t scan_case_word(const char *p, const char *end, bool more, bool contractions)
{
    size_t len;
    unsigned c = unicode_class_at(p, &len);
    bool prefix = (c & (UC_L | UC_N)) == 0 && *p != '\r' && *p != '\n';
    const char *e = NULL, *upper = NULL;
    for (int pass = prefix ? 1 : 0; pass >= 0; pass--) {
        const char *q = pass == 1 ? p + len : p, *u = q, *both = NULL;
        while (u < end) {
            size_t k;
            unsigned cu = unicode_class_at(u, &k);
            if ((cu & UC_U) == 0) break;
            u += k;
            if ((cu & UC_W) != 0) both = u;
        }
        OPEN_IF(u == end && more);
        const char *w = scan_run_in(u, end, UC_W);
        OPEN_IF(w == end && more);
        e = w > u ? w : both;
        if (e != NULL) break;
        if (upper == NULL && u > q) upper = u;
    }
    if (e == NULL) e = upper;
    if (e == NULL) return SCAN_NONE;
    if (contractions && e < end && *e == '\'') {
        int k = scan_contraction(e, end, more, true);
        OPEN_IF(k < 0);
        e += k;
    }
    return (size_t)(e - p);
}

static inline size_t scan_cases(const char *p, const char *end, bool more, int digits,
                                bool contractions)
{
    size_t len;
    unsigned c = unicode_class_at(p, &len);
    if ((c & UC_N) != 0) return scan_digits(p, end, more, digits);
    size_t n = scan_case_word(p, end, more, contractions);
    if (n == SCAN_NONE) n = scan_other(p, end, more, c, len, SCAN_NEWLINES_SLASH);
    return n == SCAN_NONE ? scan_space(p, end, more, true) : n;
}

size_t scan_piece(enum scan_shape shape, const char *p, size_t n, bool more)
{
    const char *end = p + n;
    switch (shape) {
    case SCAN_CL100K: return scan_words(p, end, more, 3, true);
    case SCAN_QWEN: return scan_words(p, end, more, 1, true);
    case SCAN_O200K: return scan_cases(p, end, more, 3, true);
    case SCAN_TEKKEN: return scan_cases(p, end, more, 1, false);
    case SCAN_DEEPSEEK: return scan_deepseek(p, end, more);
    case SCAN_GPT2: return scan_gpt2(p, end, more);
    case SCAN_DIGITS: return scan_gpt2_digits(p, end, more);
    case SCAN_CHARS:
    case SCAN_REGEX:
    case SCAN_END: break;
    }
    ASSERT(!"a shape that vocab_open() let through");
    return n;
}

#define CONTRACTIONS "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
#define CONTRACTIONS_OLD "'(?i:[sdmt]|ll|ve|re)"
#define WORDS_TAIL "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define CASES_HEAD "[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]"
#define CASES_TAIL "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define LOWER "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]"

static const struct {
    const char *regex;
    enum scan_shape shape;
} shapes[] = {
    { "cl100k", SCAN_CL100K },
    { "llama3", SCAN_CL100K },
    { "qwen", SCAN_QWEN },
    { "o200k", SCAN_O200K },
    { "tekken", SCAN_TEKKEN },
    { "gpt2", SCAN_GPT2 },
    { CONTRACTIONS "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}" WORDS_TAIL, SCAN_CL100K },
    { CONTRACTIONS_OLD "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}" WORDS_TAIL, SCAN_CL100K },
    { CONTRACTIONS "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}" WORDS_TAIL, SCAN_QWEN },
    { CASES_HEAD "*" LOWER "+" CONTRACTIONS "?|" CASES_HEAD "+" LOWER "*" CONTRACTIONS
                 "?|\\p{N}{1,3}" CASES_TAIL,
      SCAN_O200K },
    { CASES_HEAD "*" LOWER "+|" CASES_HEAD "+" LOWER "*|\\p{N}" CASES_TAIL, SCAN_TEKKEN },
    { "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+",
      SCAN_GPT2 },
};

enum scan_shape scan_shape_of(struct str regex)
{
    for (size_t i = 0; i < ARRAY_LEN(shapes); i++)
        if (str_eqz(regex, shapes[i].regex)) return shapes[i].shape;
    return (enum scan_shape)0;
}
