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

INLINE uint64_t count_with(spread_fn *spread, piece_keys_fn *keys, piece_compare_fn *compare,
                           struct piece_cache *c, struct pieces *it)
{
    const struct vocab *v = it->v;
    uint16_t cuts[1 + CUTS + SCAN_WINDOW + SPARE];
    cuts[0] = 0;
    uint64_t total = 0, ends;
    do {
        const char *base = NULL, *p;
        size_t n = 0, size = 0;
        while (n < CUTS && (ends = pieces_window(it, &p)) != 0) {
            size_t all = 63 - (size_t)__builtin_clzll(ends);
            pieces_pass(it, all);
            if (p == it->room) { /* where the next one will stand, too */
                uint16_t few[1 + SCAN_WINDOW + SPARE];
                few[0] = 0;
                total += piece_count_first(keys, compare, c, v, p, few, spread(ends, 0, few + 1));
                continue;
            }
            if (base == NULL) base = p;
            n += spread(ends, size, cuts + 1 + n);
            size += all;
        }
        total += piece_count_first(keys, compare, c, v, base, cuts, n);
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
    return count_with(spread_portable, piece_keys, piece_compare, c, it);
}

#if defined(__x86_64__)

#define TARGET_BMI __attribute__((target("bmi,bmi2,popcnt")))
#define TARGET_AVX512 \
    __attribute__((target("bmi,bmi2,popcnt,avx512f,avx512bw,avx512dq,avx512vbmi,avx512vbmi2")))

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

/* Four at a time, as long as they are short. */
INLINE TARGET_AVX512 void keys_avx512(struct piece_cache *c, const char *p, const uint16_t *cuts,
                                      size_t first, size_t end, struct piece_turn *t)
{
    _Static_assert(PIECE_KEY_LENGTH == 56 && PIECE_CACHE_LONGEST == 15, "where the length is");
    const uint64_t last = 0x8000800080008000u; /* byte of each key */
    const __m512i number = _mm512_broadcast_i32x4(
        _mm_set_epi8(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0));
    const __m512i spread_len = _mm512_set_epi64(0x0606060606060606, 0x0606060606060606,
                                                0x0404040404040404, 0x0404040404040404,
                                                0x0202020202020202, 0x0202020202020202, 0, 0);
    const __m512i of_each = _mm512_set_epi64(0, 0, 0, 0, 0, 0, 0, 0x0018001000080000);
    const __m512i odd = _mm512_set1_epi64((long long)0x9e3779b97f4a7c15u);
    size_t i = first;
    for (; end - i >= 4; i += 4) {
        __m128i from = _mm_loadl_epi64((const __m128i *)(const void *)(cuts + i));
        __m128i to = _mm_loadl_epi64((const __m128i *)(const void *)(cuts + i + 1));
        __m128i len = _mm_sub_epi16(to, from);
        if (__builtin_expect(!_mm_testz_si128(len, _mm_set1_epi16(~PIECE_CACHE_LONGEST)), 0)) {
            piece_keys(c, p, cuts, i, i + 4, t);
            continue;
        }
        const char *q[4] = { p + cuts[i], p + cuts[i + 1], p + cuts[i + 2], p + cuts[i + 3] };
        __m256i ab = _mm256_inserti128_si256(
            _mm256_castsi128_si256(_mm_loadu_si128((const __m128i *)(const void *)q[0])),
            _mm_loadu_si128((const __m128i *)(const void *)q[1]), 1);
        __m256i cd = _mm256_inserti128_si256(
            _mm256_castsi128_si256(_mm_loadu_si128((const __m128i *)(const void *)q[2])),
            _mm_loadu_si128((const __m128i *)(const void *)q[3]), 1);
        __m512i k = _mm512_inserti64x4(_mm512_castsi256_si512(ab), cd, 1);
        __m512i lens = _mm512_permutexvar_epi8(spread_len, _mm512_castsi128_si512(len));
        k = _mm512_maskz_mov_epi8(_mm512_cmplt_epu8_mask(number, lens), k);
        k = _mm512_mask_mov_epi8(k, last, lens);
        /* piece_cache_hash() in the first half of each */
        __m512i hash = _mm512_xor_si512(k, _mm512_shuffle_epi32(k, (_MM_PERM_ENUM)0x0b));
        hash = _mm512_srli_epi64(_mm512_mullo_epi64(hash, odd), 64 - PIECE_FIRST_BITS);
        __m512i places = _mm512_permutexvar_epi16(of_each, hash);
        _mm512_storeu_si512(t->keys + t->n, k);
        _mm_storel_epi64((__m128i *)(void *)(t->places + t->n), _mm512_castsi512_si128(places));
        t->n += 4;
    }
    piece_keys(c, p, cuts, i, end, t);
}

/* Four at a time. */
INLINE TARGET_AVX512 uint64_t compare_avx512(const struct piece_cache *c,
                                             const struct piece_turn *t, size_t *ret_n)
{
    enum { LO = 0x55 }; /* of the eight words of four keys */
    const uint64_t all = UINT64_MAX, but_count = all >> (64 - PIECE_KEY_COUNT);
    const __m512i same = _mm512_set4_epi64((long long)but_count, (long long)all,
                                           (long long)but_count, (long long)all);
    const __m128i *at = (const __m128i *)(const void *)c->first;
    const uint16_t *places = t->places;
    size_t n = t->n;
    struct vocab_key *others = t->keys;
    __m512i total = _mm512_setzero_si512();
    for (size_t i = 0; i < n; i += 4) {
        __m256i ab = _mm256_inserti128_si256(_mm256_castsi128_si256(at[places[i]]),
                                             at[places[i + 1]], 1);
        __m256i cd = _mm256_inserti128_si256(_mm256_castsi128_si256(at[places[i + 2]]),
                                             at[places[i + 3]], 1);
        __m512i k = _mm512_loadu_si512(t->keys + i);
        __m512i f = _mm512_inserti64x4(_mm512_castsi256_si512(ab), cd, 1);
        unsigned there = n - i >= 4 ? LO : LO >> 2 * (4 - (n - i));
        unsigned word = _mm512_testn_epi64_mask(_mm512_xor_si512(k, f), same);
        unsigned found = word & word >> 1 & there, other = found ^ there;
        total = _mm512_mask_add_epi64(total, (__mmask8)(found << 1), total,
                                      _mm512_srli_epi64(f, PIECE_KEY_COUNT));
        k = _mm512_maskz_compress_epi64((__mmask8)(other | other << 1), k);
        _mm512_storeu_si512(others, k); /* never behind keys[i + 3] */
        others += __builtin_popcount(other);
    }
    *ret_n = (size_t)(others - t->keys);
    return (uint64_t)_mm512_reduce_add_epi64(total);
}

TARGET_BMI static uint64_t windows_bmi(struct piece_cache *c, struct pieces *it)
{
    return count_with(spread_bmi, piece_keys, piece_compare, c, it);
}

TARGET_AVX512 static uint64_t windows_avx512(struct piece_cache *c, struct pieces *it)
{
    return count_with(spread_avx512, keys_avx512, compare_avx512, c, it);
}

#endif

piece_windows_fn *piece_windows_for(enum scan_isa isa)
{
    if (!scan_isa_supported(isa)) return NULL;
#if defined(__x86_64__)
    if (isa == SCAN_AVX2) return windows_bmi;
    if (isa == SCAN_AVX512 && __builtin_cpu_supports("avx512vbmi2") &&
        __builtin_cpu_supports("avx512dq"))
        return windows_avx512;
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
