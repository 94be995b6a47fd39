/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Counts the pieces of plain ASCII, hundreds at a time: first where they end, from the bits of many
 * windows, then each by the first table of the cache. No branch depends on the text but for pieces
 * that are too long. The thread is the cache's owner.
 */
#include "tokenizer/scan/piece_first.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#define INLINE static inline __attribute__((always_inline))

enum {
    CUTS = PIECE_TOGETHER - SCAN_WINDOW, /* pieces from which on they are counted */
    SPARE = 8,                           /* what is written behind the last one */
};

/* Writes down where the bits of `ends` are, `at` added; returns how many there are. Room for 64 and
 * SPARE. */
typedef size_t spread_fn(uint64_t ends, size_t at, uint16_t *to);

INLINE uint64_t count_with(spread_fn *spread, struct piece_cache *c, struct pieces *it)
{
    const struct vocab *v = it->v;
    uint16_t cuts[CUTS + SCAN_WINDOW + SPARE];
    uint64_t total = 0, ends;
    do {
        const char *base = NULL, *p;
        size_t n = 0, size = 0;
        while (n < CUTS && (ends = pieces_window(it, &p)) != 0) {
            size_t all = 63 - (size_t)__builtin_clzll(ends);
            pieces_pass(it, all);
            if (p == it->room) { /* where the next one will stand, too */
                uint16_t few[SCAN_WINDOW + SPARE];
                total += piece_count_first(c, v, p, few, spread(ends, 0, few));
                continue;
            }
            if (base == NULL) base = p;
            n += spread(ends, size, cuts + n);
            size += all;
        }
        total += piece_count_first(c, v, base, cuts, n);
    } while (ends != 0);
    return total;
}

INLINE size_t spread_portable(uint64_t ends, size_t at, uint16_t *to)
{
    size_t n = 0;
    for (; ends != 0; ends &= ends - 1) to[n++] = (uint16_t)(at + (size_t)__builtin_ctzll(ends));
    return n;
}

static uint64_t windows_portable(struct piece_cache *c, struct pieces *it)
{
    return count_with(spread_portable, c, it);
}

#if defined(__x86_64__)

#define TARGET_BMI __attribute__((target("bmi,bmi2,popcnt")))
#define TARGET_AVX512 \
    __attribute__((target("bmi,bmi2,popcnt,avx512f,avx512bw,avx512vbmi,avx512vbmi2")))

/* Eight at a time: how many more there are is seldom foreseen. */
INLINE TARGET_BMI size_t spread_bmi(uint64_t ends, size_t at, uint16_t *to)
{
    size_t n = (size_t)__builtin_popcountll(ends);
    do {
        for (int i = 0; i < SPARE; i++) {
            *to++ = (uint16_t)(at + _tzcnt_u64(ends));
            ends &= ends - 1;
        }
    } while (ends != 0);
    return n;
}

INLINE TARGET_AVX512 size_t spread_avx512(uint64_t ends, size_t at, uint16_t *to)
{
    static const unsigned char numbers[64] __attribute__((aligned(64))) = {
        0,  1,  2,  3,  4,  5,  6,  7,  8,  9,  10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21,
        22, 23, 24, 25, 26, 27, 28, 29, 30, 31, 32, 33, 34, 35, 36, 37, 38, 39, 40, 41, 42, 43,
        44, 45, 46, 47, 48, 49, 50, 51, 52, 53, 54, 55, 56, 57, 58, 59, 60, 61, 62, 63,
    };
    __m512i x = _mm512_maskz_compress_epi8(ends, _mm512_load_si512((const void *)numbers));
    __m512i base = _mm512_set1_epi16((short)at);
    __m512i low = _mm512_cvtepu8_epi16(_mm512_castsi512_si256(x));
    __m512i high = _mm512_cvtepu8_epi16(_mm512_extracti64x4_epi64(x, 1));
    _mm512_storeu_si512(to, _mm512_add_epi16(low, base));
    _mm512_storeu_si512(to + 32, _mm512_add_epi16(high, base));
    return (size_t)__builtin_popcountll(ends);
}

TARGET_BMI static uint64_t windows_bmi(struct piece_cache *c, struct pieces *it)
{
    return count_with(spread_bmi, c, it);
}

TARGET_AVX512 static uint64_t windows_avx512(struct piece_cache *c, struct pieces *it)
{
    return count_with(spread_avx512, c, it);
}

#endif

piece_windows_fn *piece_windows_for(enum scan_isa isa)
{
    if (!scan_isa_supported(isa)) return NULL;
#if defined(__x86_64__)
    if (isa == SCAN_AVX2) return windows_bmi;
    if (isa == SCAN_AVX512 && __builtin_cpu_supports("avx512vbmi2")) return windows_avx512;
#endif
    return isa == SCAN_PORTABLE ? windows_portable : NULL;
}

piece_windows_fn *piece_windows_best(void)
{
    for (int isa = SCAN_ISA_END - 1; isa > SCAN_PORTABLE; isa--) {
        piece_windows_fn *f = piece_windows_for((enum scan_isa)isa);
        if (f != NULL) return f;
    }
    return windows_portable;
}
