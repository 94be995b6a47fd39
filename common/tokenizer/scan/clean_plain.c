/* SPDX-License-Identifier: Apache-2.0 */
/* Text that is mostly clean, 64 bytes at a time. Pure. */
#include "tokenizer/scan/clean.h"
#include "tokenizer/scan/scan_window.h"

#if defined(__x86_64__)
#include <immintrin.h>

#define TARGET __attribute__((target("avx2,bmi,bmi2,avx512f,avx512bw")))
#define BYTES(c) _mm512_set1_epi8((char)(c))

/* Where bytes from..to are. */
#define WITHIN(x, from, to) \
    _mm512_cmple_epu8_mask(_mm512_sub_epi8(x, BYTES(from)), BYTES((to) - (from)))

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
