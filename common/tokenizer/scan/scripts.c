/* SPDX-License-Identifier: Apache-2.0 */
/* Windows of characters of any script. Pure; the cache is its owner's. */
#include "tokenizer/scan/scripts.h"

#include "tokenizer/scan/piece_first.h"
#include "tokenizer/scan/unicode.h"

enum {
    MOST = 4 * SCAN_WINDOW, /* bytes of a window */
    SPARE = 16,             /* readable behind them */
    LEAST = 8,              /* bytes that are worth a look */
};

#define UNKNOWN '\xff'
#define INLINE static inline __attribute__((always_inline))

struct window {
    char chars[SCAN_WINDOW];
    uint16_t at[SCAN_WINDOW + 1]; /* where they begin */
};

/* Stands for a character where case does not matter. */
INLINE char plain(unsigned class)
{
    return (class & UC_L) != 0 ? 'x' : (class & UC_N) != 0 ? '7' : (class & UC_S) != 0 ? '\t' : '#';
}

/*
 * Where it does. Letters of both cases (and marks behind letters, which are no others) are as good
 * as lower case, unless some of upper case stand behind them.
 */
INLINE char cased(unsigned class, char before)
{
    bool upper = (class & UC_U) != 0, lower = (class & UC_W) != 0;
    bool word = before == 'x' || before == 'X' || (before >= 'a' && before <= 'z') ||
                (before >= 'A' && before <= 'Z');
    if (UC_IS_MARK(class)) return word ? 'x' : UNKNOWN;
    if ((class & UC_L) == 0) return plain(class);
    return lower ? 'x' : upper ? 'X' : UNKNOWN;
}

/* What words.h and mixed.h are better at. */
INLINE bool is_theirs(uint32_t cp)
{
    return cp - 0x3041 < 0x3100 - 0x3041 || cp - 0x4e00 < 0x9fc0 - 0x4e00 ||
           cp - 0xac00 < 0xd7a4 - 0xac00;
}

/* The characters from p on, of which n bytes are there. */
INLINE void read_window(const char *p, size_t n, bool cases, bool leave, struct window *w)
{
    bool both = false; /* the one before is a letter of both cases */
    size_t at = 0;
    unsigned i = 0;
    for (; i < SCAN_WINDOW && at < n; i++) {
        unsigned char c = (unsigned char)p[at];
        w->at[i] = (uint16_t)at;
        if (c < 0x80) {
            if (cases && both && c >= 'A' && c <= 'Z') break;
            both = false;
            w->chars[i] = (char)c;
            at++;
            continue;
        }
        if (c == 0xef && memcmp(p + at, "\xef\xbf\xbd", 3) == 0) { /* a faulty byte, mostly */
            both = false;
            w->chars[i] = '#';
            at += 3;
            continue;
        }
        uint32_t cp;
        size_t len = utf8_next_valid(p + at, &cp);
        unsigned class = unicode_class(cp);
        if ((leave && is_theirs(cp)) || cp == 0x17f) break; /* U+017F: 's */
        char x = cases ? cased(class, i > 0 ? w->chars[i - 1] : ' ') : plain(class);
        if (x == UNKNOWN || (cases && both && x == 'X')) break;
        both = (class & (UC_U | UC_W)) == (UC_U | UC_W);
        w->chars[i] = x;
        at += len;
    }
    w->at[i] = (uint16_t)at;
    memset(w->chars + i, 0xff, SCAN_WINDOW - i);
}

/* Where pieces end that begin at p, of which n > 0 bytes are there, cut with windows like those of
 * `shape`; returns how many are known. */
INLINE size_t cut(scan_window_fn *window, bool cases, bool leave, const char *p, size_t n,
                  uint16_t *cuts)
{
    struct window w;
    size_t cuts_n = 0;
    read_window(p, n, cases, leave, &w);
    for (uint64_t ends = window(w.chars); ends != 0; ends &= ends - 1)
        cuts[cuts_n++] = w.at[__builtin_ctzll(ends)];
    return cuts_n;
}

INLINE size_t count_with(bool cases, struct piece_cache *c, const struct vocab *v, const char *p,
                         size_t n, uint64_t *count)
{
    bool leave = v->h->joins > 0 && words_letter((enum scan_shape)v->h->shape, 0x4e00);
    const char *begin = p, *end = p + n;
    do {
        char room[MOST + SPARE];
        uint16_t cuts[SCAN_WINDOW + 1] = { 0 };
        size_t left = (size_t)(end - p);
        const char *q = p;
        if (left < MOST + SPARE) {
            memcpy(room, p, left);
            memset(room + left, 0, sizeof room - left);
            q = room;
        }
        size_t cuts_n = cut(v->window, cases, leave, q, left, cuts + 1);
        if (cuts_n == 0) break;
        *count += piece_count_first(piece_keys, piece_compare, c, v, q, cuts, cuts_n);
        p += cuts[cuts_n];
    } while (end - p >= LEAST && ((unsigned char)p[0] | (unsigned char)p[1]) >= 0x80);
    return (size_t)(p - begin);
}

static size_t count_plain(struct piece_cache *c, const struct vocab *v, const char *p, size_t n,
                          uint64_t *count)
{
    return count_with(false, c, v, p, n, count);
}

static size_t count_cased(struct piece_cache *c, const struct vocab *v, const char *p, size_t n,
                          uint64_t *count)
{
    return count_with(true, c, v, p, n, count);
}

static size_t count_nothing(struct piece_cache *c, const struct vocab *v, const char *p, size_t n,
                            uint64_t *count)
{
    (void)c, (void)v, (void)p, (void)n, (void)count;
    return 0;
}

/* Does the pre-tokenizer cut so that case does not matter, or so that it does? */
static bool is_plain(enum scan_shape shape)
{
    return shape == SCAN_CL100K || shape == SCAN_QWEN || shape == SCAN_GPT2;
}

static bool is_cased(enum scan_shape shape)
{
    return shape == SCAN_O200K || shape == SCAN_TEKKEN;
}

size_t scripts_cuts(enum scan_shape shape, const char *p, size_t n, uint16_t *cuts)
{
    if (!is_plain(shape) && !is_cased(shape)) return 0;
    return cut(scan_window_best(shape), is_cased(shape), false, p, n, cuts);
}

words_fn *scripts_best(const struct vocab *v)
{
    enum scan_shape shape = (enum scan_shape)v->h->shape;
    return is_plain(shape) ? count_plain : is_cased(shape) ? count_cased : count_nothing;
}
