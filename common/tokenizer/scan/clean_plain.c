/* SPDX-License-Identifier: Apache-2.0 */
/* Text that is clean, and bytes that are not all text, 64 at a time. Pure. */
#include "tokenizer/scan/clean.h"
#include "tokenizer/scan/scan_window.h"
#include "tokenizer/scan/unicode.h"

#if defined(__x86_64__)
#include <immintrin.h>

#define TARGET __attribute__((target("avx2,bmi,bmi2,avx512f,avx512bw")))
#define TARGET_EXPAND \
    __attribute__((target("avx2,bmi,bmi2,popcnt,avx512f,avx512bw,avx512vbmi,avx512vbmi2")))
#define BYTES(c) _mm512_set1_epi8((char)(c))

/* Where bytes from..to are. */
#define WITHIN(x, from, to) \
    _mm512_cmple_epu8_mask(_mm512_sub_epi8(x, BYTES(from)), BYTES((to) - (from)))

/* Each of the first 21 bytes three times. */
static const unsigned char thirds[64] __attribute__((aligned(64))) = {
    0,  0,  0,  1,  1,  1,  2,  2,  2,  3,  3,  3,  4,  4,  4,  5,  5,  5,  6,  6,  6,  7,
    7,  7,  8,  8,  8,  9,  9,  9,  10, 10, 10, 11, 11, 11, 12, 12, 12, 13, 13, 13, 14, 14,
    14, 15, 15, 15, 16, 16, 16, 17, 17, 17, 18, 18, 18, 19, 19, 19, 20, 20, 20, 21,
};

TARGET static size_t plain_avx512(const char *p, size_t n)
{
    size_t i = 0;
    while (i + 64 <= n) {
        __m512i x = _mm512_loadu_si512((const void *)(p + i));
        uint64_t high = _mm512_movepi8_mask(x), covered = ~high;
        if (high != 0) {
            uint64_t follows = WITHIN(x, 0x80, 0xbf);
            uint64_t first = WITHIN(x, 0xe4, 0xe9);         /* U+4000 to U+9FFF */
            first |= _mm512_cmpeq_epi8_mask(x, BYTES(0xe3)) /* U+3000 to U+301F */
                     & _mm512_cmpeq_epi8_mask(x, BYTES(0x80)) >> 1 & WITHIN(x, 0x80, 0x9f) >> 2;
            first |= _mm512_cmpeq_epi8_mask(x, BYTES(0xef)) /* U+FF00 to U+FF3F */
                     & _mm512_cmpeq_epi8_mask(x, BYTES(0xbc)) >> 1;
            first &= follows >> 1 & follows >> 2;
            covered |= first | first << 1 | first << 2;
        }
        if (covered == UINT64_MAX) {
            i += 64;
            continue;
        }
        unsigned some = (unsigned)__builtin_ctzll(~covered);
        i += some;
        if (some < 62) break; /* not for being cut */
    }
    return i;
}

/* Bits of the bytes that characters begin with; what belongs to one follows it. */
struct sequences {
    uint64_t begins, faults;
    uint64_t whole;   /* characters of several bytes */
    uint64_t dropped; /* of faults of several bytes all but the first */
};

/* True of all that begin in front of the last three bytes: the others may go on. */
TARGET static inline void sequences_of(__m512i x, struct sequences *s)
{
    uint64_t high = _mm512_movepi8_mask(x), follows = WITHIN(x, 0x80, 0xbf);
    uint64_t below_90 = _mm512_cmplt_epu8_mask(x, BYTES(0x90));
    uint64_t below_a0 = _mm512_cmplt_epu8_mask(x, BYTES(0xa0));
    uint64_t wrong = (_mm512_cmpeq_epi8_mask(x, BYTES(0xe0)) & below_a0 >> 1) |
                     (_mm512_cmpeq_epi8_mask(x, BYTES(0xed)) & ~below_a0 >> 1) |
                     (_mm512_cmpeq_epi8_mask(x, BYTES(0xf0)) & below_90 >> 1) |
                     (_mm512_cmpeq_epi8_mask(x, BYTES(0xf4)) & ~below_90 >> 1);
    uint64_t two = WITHIN(x, 0xc2, 0xdf) & follows >> 1;
    uint64_t three = WITHIN(x, 0xe0, 0xef) & follows >> 1 & ~wrong,
             all_three = three & follows >> 2;
    uint64_t four = WITHIN(x, 0xf0, 0xf4) & follows >> 1 & ~wrong,
             three_of_four = four & follows >> 2;
    uint64_t all_four = three_of_four & follows >> 3;
    s->whole = two | all_three | all_four;
    s->begins = ~((two | three | four) << 1 | (all_three | three_of_four) << 2 | all_four << 3);
    s->faults = s->begins & high & ~s->whole;
    s->dropped = (((three & ~all_three) | (four & ~all_four)) << 1) | (three_of_four & ~all_four)
                                                                          << 2;
}

/* The first of the characters that is not left alone; 64 when there is none. */
static unsigned first_of_care(const char *p, uint64_t chars, unsigned how)
{
    for (; chars != 0; chars &= chars - 1) {
        unsigned at = (unsigned)__builtin_ctzll(chars);
        uint32_t cp;
        (void)utf8_next_valid(p + at, &cp);
        if ((how & CLEAN_NFC) != 0 && cp >= 0x300 && (unicode_class(cp) & UC_CARE) != 0) return at;
        if ((how & CLEAN_SPACE) != 0 && cp == 0x2581) return at;
    }
    return 64;
}

/* Writes n bytes, faults spelled out; returns how many those are. Three for each of 21 at a time,
 * then those that are none are left out. */
TARGET_EXPAND static size_t spell_out(__m512i x, const struct sequences *s, unsigned n, char *out)
{
    enum { STEP = 21 };
    const uint64_t third = 0x1249249249249249u; /* the first byte of each three */
    const char *begin = out;
    __m512i source = _mm512_load_si512((const void *)thirds);
    uint64_t kept = ~s->dropped & (((uint64_t)1 << n) - 1), faults = s->faults & kept;
    for (unsigned i = 0; i < n; i += STEP) {
        __m512i y = _mm512_permutexvar_epi8(source, x);
        uint64_t fault = _pdep_u64(faults >> i, third);
        uint64_t bytes = _pdep_u64(kept >> i, third) | fault << 1 | fault << 2;
        y = _mm512_mask_mov_epi8(y, fault, BYTES(0xef));
        y = _mm512_mask_mov_epi8(y, fault << 1, BYTES(0xbf));
        y = _mm512_mask_mov_epi8(y, fault << 2, BYTES(0xbd));
        _mm512_storeu_si512(out, _mm512_maskz_compress_epi8(bytes, y));
        out += __builtin_popcountll(bytes);
        source = _mm512_add_epi8(source, BYTES(STEP));
    }
    return (size_t)(out - begin);
}

TARGET_EXPAND static size_t window_avx512(const char *p, unsigned how, char *out, size_t *ret_clean,
                                          struct clean_bits *ret_bits)
{
    enum { KNOWN = CLEAN_WINDOW - 3 };
    __m512i x = _mm512_loadu_si512((const void *)p);
    struct sequences s;
    sequences_of(x, &s);
    uint64_t begins = s.begins & (((uint64_t)1 << KNOWN) - 1);
    if (how != 0) {
        uint64_t plain = WITHIN(x, 0xc2, 0xcb) | WITHIN(x, 0xe4, 0xe9); /* as in plain_avx512() */
        unsigned care = first_of_care(p, s.whole & begins & ~plain, how);
        if (care < KNOWN) begins &= ((uint64_t)1 << care) - 1;
        if (begins == 0) return 0;
    }
    unsigned n = 63 - (unsigned)__builtin_clzll(begins); /* the last one may go on */
    if (n == 0) return 0;
    begins &= ((uint64_t)1 << n) - 1;
    *ret_clean = spell_out(x, &s, n, out);
    *ret_bits = (struct clean_bits){ begins, s.faults & begins };
    return n;
}

#endif

size_t clean_plain(const char *p, size_t n)
{
#if defined(__x86_64__)
    if (n >= 64 && scan_isa_supported(SCAN_AVX512)) return plain_avx512(p, n);
#endif
    (void)p;
    (void)n;
    return 0;
}

size_t clean_window(const char *p, unsigned how, char *out, size_t *ret_clean,
                    struct clean_bits *ret_bits)
{
#if defined(__x86_64__)
    if (scan_compress_supported()) return window_avx512(p, how, out, ret_clean, ret_bits);
#endif
    (void)p, (void)how, (void)out, (void)ret_clean, (void)ret_bits;
    return 0;
}
