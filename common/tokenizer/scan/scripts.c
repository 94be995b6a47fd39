/* SPDX-License-Identifier: Apache-2.0 */
/* Windows of characters of any script. Pure; the cache is its owner's. */
#include "tokenizer/scan/scripts.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "tokenizer/scan/piece_first.h"
#include "tokenizer/scan/unicode.h"

enum {
    MOST = 4 * SCAN_WINDOW, /* bytes of a window */
    SPARE = 16,             /* readable behind them */
    LEAST = 8,              /* bytes that are worth a look */
};

#define UNKNOWN '\xff'
#define INLINE static inline __attribute__((always_inline))

/* SCAN_WINDOW characters, and room for as many that are written together with the last one. */
struct window {
    char chars[2 * SCAN_WINDOW];
    uint16_t at[2 * SCAN_WINDOW]; /* where they begin, and where the last one ends */
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

#if defined(__x86_64__)

/* Within 64 bytes. */
__attribute__((
    target("avx2,bmi,bmi2,popcnt,avx512f,avx512bw,avx512vbmi,avx512vbmi2"))) static unsigned
read_faulty_avx512(const char *p, size_t n, size_t at, unsigned i, struct window *w)
{
#define EQUAL(c) _mm512_cmpeq_epi8_mask(x, _mm512_set1_epi8((char)(c)))
    static const unsigned char numbers[64] __attribute__((aligned(64))) = {
        0,  1,  2,  3,  4,  5,  6,  7,  8,  9,  10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21,
        22, 23, 24, 25, 26, 27, 28, 29, 30, 31, 32, 33, 34, 35, 36, 37, 38, 39, 40, 41, 42, 43,
        44, 45, 46, 47, 48, 49, 50, 51, 52, 53, 54, 55, 56, 57, 58, 59, 60, 61, 62, 63,
    };
    const __m512i base = _mm512_set1_epi16((short)at);
    uint64_t there = n - at >= 64 ? UINT64_MAX : ((uint64_t)1 << (n - at)) - 1;
    __m512i x = _mm512_maskz_loadu_epi8(there, p + at);
    uint64_t begins = _mm512_cmpge_epi8_mask(x, _mm512_set1_epi8((char)0xc0));
    uint64_t fault = EQUAL(0xef) & EQUAL(0xbf) >> 1 & EQUAL(0xbd) >> 2;
    uint64_t other = (begins & _mm512_movepi8_mask(x) & ~fault) | ~there;
    unsigned end = other != 0 ? (unsigned)__builtin_ctzll(other) : 64;
    begins &= other != 0 ? (other & -other) - 1 : UINT64_MAX;
    unsigned count = (unsigned)__builtin_popcountll(begins);
    x = _mm512_maskz_compress_epi8(begins, _mm512_mask_mov_epi8(x, fault, _mm512_set1_epi8('#')));
    _mm512_storeu_si512(w->chars + i, x);
    x = _mm512_maskz_compress_epi8(begins, _mm512_load_si512((const void *)numbers));
    __m512i low = _mm512_cvtepu8_epi16(_mm512_castsi512_si256(x));
    __m512i high = _mm512_cvtepu8_epi16(_mm512_extracti64x4_epi64(x, 1));
    _mm512_storeu_si512(w->at + i, _mm512_add_epi16(low, base));
    _mm512_storeu_si512(w->at + i + 32, _mm512_add_epi16(high, base));
    w->at[i + count] = (uint16_t)(at + end);
    return MIN(count, SCAN_WINDOW - i);
#undef EQUAL
}

#endif

/* Characters i and on, which begin with U+FFFD at p + at: that one, and of the others some that are
 * U+FFFD or ASCII. Returns how many they are; w->at says where they end, too. */
INLINE unsigned read_faulty(const char *p, size_t n, size_t at, unsigned i, struct window *w)
{
#if defined(__x86_64__)
    if (scan_compress_supported()) return read_faulty_avx512(p, n, at, i, w);
#endif
    (void)p, (void)n;
    w->chars[i] = '#';
    w->at[i + 1] = (uint16_t)(at + 3);
    return 1;
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
            i += read_faulty(p, n, at, i, w) - 1;
            at = w->at[i + 1];
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
