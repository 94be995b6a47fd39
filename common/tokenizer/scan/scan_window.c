/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Windows of 64 bytes of ASCII, by arithmetic on one bit per byte. Bit i of a mask stands for byte
 * i; `x << 1` are the bytes that follow one in x. A window begins where a piece begins, so nothing
 * in front of it matters. Pure.
 */
#include "tokenizer/scan/scan_window.h"

#include <string.h>

#include "base/err.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

/* Where the classes are. All but `other` are empty from the first byte that is not ASCII on. */
struct masks {
    uint64_t lower, upper, digit;
    uint64_t blank;   /* white space but CR and LF */
    uint64_t newline; /* CR, LF */
    uint64_t space, quote, slash;
    uint64_t control; /* what is no letter, digit, white space or printable */
    uint64_t beyond;  /* not ASCII */
};

#define INLINE static inline __attribute__((always_inline))

INLINE uint64_t below(unsigned n) /* n in 0..64 */
{
    return n >= 64 ? UINT64_MAX : ((uint64_t)1 << n) - 1;
}

INLINE unsigned lowest(uint64_t x) /* x != 0 */
{
    return (unsigned)__builtin_ctzll(x);
}

/* Of the runs in `in`, the part from a bit of `seed` (in `in`) to the end of the run. */
INLINE uint64_t flood(uint64_t in, uint64_t seed)
{
    return in & ((in ^ (in + seed)) | seed);
}

/* Length of 's 't 'm 'd 're 've 'll at byte i, an apostrophe; 0 if none is there, -1 if the window
 * ends before it is known. */
INLINE int contraction(const char *p, unsigned i, unsigned end, bool fold)
{
    unsigned char bit = fold ? 0x20 : 0;
    if (i + 1 >= end) return -1;
    unsigned char c = (unsigned char)p[i + 1] | bit;
    if (c == 's' || c == 't' || c == 'm' || c == 'd') return 2;
    if (c != 'r' && c != 'v' && c != 'l') return 0;
    if (i + 2 >= end) return -1;
    unsigned char d = (unsigned char)p[i + 2] | bit;
    return d == (c == 'l' ? 'l' : 'e') ? 3 : 0;
}

/* The starts of groups of three in runs of digits. */
INLINE uint64_t digit_groups(uint64_t digit)
{
    uint64_t start = digit & ~(digit << 1), four = digit & digit << 1;
    four &= four << 2; /* the fourth digit of a run, and all behind it */
    uint64_t all = start;
    while (four != 0 && (start = start << 3 & four) != 0) all |= start;
    return all;
}

/* Bit `at` is where a piece ends. */
INLINE uint64_t bit(unsigned at)
{
    return at < 64 ? (uint64_t)1 << at : 0;
}

/* How far what was found holds whatever follows: a run of white space at the end may go on, and
 * then be cut elsewhere; its beginning stays. */
INLINE uint64_t settled(uint64_t ends, uint64_t white, unsigned end)
{
    if (end == 0) return 0;
    uint64_t not_white = ~(white << (64 - end));
    unsigned open = not_white == 0 ? 64 : (unsigned)__builtin_clzll(not_white);
    if (open >= end) return 0;
    unsigned last = open == 0 ? end - 1 : end - open;
    return ends & (((uint64_t)2 << last) - 1) & ~(uint64_t)1;
}

/* All shapes but GPT-2's. See scan.c and scan_deepseek.c for what they mean. */
INLINE uint64_t ends_of(enum scan_shape shape, const char *p, const struct masks *m)
{
    bool cases = shape == SCAN_O200K || shape == SCAN_TEKKEN;
    bool deepseek = shape == SCAN_DEEPSEEK;
    uint64_t unknown = deepseek ? m->beyond | m->control : m->beyond;
    unsigned end = unknown == 0 ? 64 : lowest(unknown);
    uint64_t known = below(end);
    uint64_t letter = (m->lower | m->upper) & known, digit = m->digit & known;
    uint64_t blank = m->blank & known, newline = m->newline & known, white = blank | newline;
    uint64_t other = known & ~(letter | digit | white);

    /* [\r\n]* or [\r\n/]* behind other characters go with them */
    uint64_t run = cases ? newline | (m->slash & known) : newline;
    uint64_t taken = flood(run, other << 1 & newline);
    other &= ~taken;
    white &= ~taken;

    /* White space: the last blank in front of something else is on its own or goes with that. What
     * stands in front of the last newline is one piece with it. */
    uint64_t last = blank & ~(white >> 1 | newline >> 1);
    if (deepseek) last &= ~(digit >> 1);
    uint64_t behind = blank & (newline & white) << 1; /* blanks behind a newline */
    if (behind != 0 && ((blank + (blank & ~(blank << 1))) & newline) != 0) {
        for (uint64_t rest = behind; rest != 0; rest &= rest - 1) {
            unsigned i = lowest(rest);
            uint64_t run_end = ~blank & ~below(i);
            if (run_end != 0 && (newline & (run_end & -run_end)) != 0) behind &= ~bit(i);
        }
    }
    uint64_t ends = (white & ~(white << 1)) | behind | last;

    uint64_t other_start = other & ~(other << 1) & ~((last & m->space) << 1);
    uint64_t word_start = letter & ~(letter << 1) & ~((last | other_start) << 1);
    ends |= other_start | word_start;
    if (cases) ends |= m->upper & m->lower << 1 & known;
    ends |= shape == SCAN_QWEN || shape == SCAN_TEKKEN ? digit : digit_groups(digit);

    if (shape == SCAN_CL100K || shape == SCAN_QWEN) {
        for (uint64_t q = m->quote & other_start & letter >> 1; q != 0; q &= q - 1) {
            unsigned i = lowest(q);
            int n = contraction(p, i, end, true);
            if (n > 0) ends |= bit(i + (unsigned)n);
        }
    }
    if (shape == SCAN_O200K) {
        unsigned before = 64; /* where the last contraction ended */
        for (uint64_t q = m->quote & known & letter << 1; q != 0; q &= q - 1) {
            unsigned i = lowest(q);
            int n = i == before ? 0 : contraction(p, i, end, true);
            if (n < 0) { /* the word may go on */
                ends &= below(i);
                break;
            }
            if (n == 0) continue;
            before = i + (unsigned)n;
            ends = (ends & ~(below(before) & ~below(i))) | bit(before);
        }
    }
    return settled(ends, white | newline, end);
}

INLINE uint64_t ends_of_gpt2(const char *p, const struct masks *m)
{
    unsigned end = m->beyond == 0 ? 64 : lowest(m->beyond);
    uint64_t known = below(end);
    uint64_t letter = (m->lower | m->upper) & known, digit = m->digit & known;
    uint64_t white = (m->blank | m->newline) & known, other = known & ~(letter | digit | white);
    uint64_t last = white & ~(white >> 1), joins = (last & m->space) << 1;
    uint64_t other_start = other & ~(other << 1) & ~joins;
    uint64_t ends = (white & ~(white << 1)) | last | other_start;
    ends |= letter & ~(letter << 1) & ~joins;
    ends |= digit & ~(digit << 1) & ~joins;
    for (uint64_t q = m->quote & other_start & letter >> 1; q != 0; q &= q - 1) {
        unsigned i = lowest(q);
        int n = contraction(p, i, end, false);
        if (n < 0) { /* the letter behind it may be part of it */
            ends &= below(i + 1);
            break;
        }
        if (n > 0) ends = (ends & ~(below(i + (unsigned)n) & ~below(i + 1))) | bit(i + (unsigned)n);
    }
    return settled(ends, white, end);
}

/* ---- masks, portably: eight bytes at a time ---- */

INLINE uint64_t bytes_of(unsigned char c)
{
    return 0x0101010101010101u * c;
}

/* The high bit of each byte that is in lo..hi, all ASCII; x has no high bits. */
INLINE uint64_t in_range(uint64_t x, unsigned char lo, unsigned char hi)
{
    return (x + bytes_of((unsigned char)(0x80 - lo))) &
           ~(x + bytes_of((unsigned char)(0x7f - hi))) & bytes_of(0x80);
}

INLINE uint64_t gather(uint64_t high_bits)
{
    return (high_bits >> 7) * 0x0102040810204080u >> 56;
}

INLINE void masks_portable(const char *p, struct masks *m)
{
    memset(m, 0, sizeof *m);
    for (unsigned i = 0; i < 64; i += 8) {
        uint64_t x = 0;
        for (unsigned k = 0; k < 8; k++) x |= (uint64_t)(unsigned char)p[i + k] << 8 * k;
        uint64_t high = x & bytes_of(0x80), ascii = ~high & bytes_of(0x80);
        x &= bytes_of(0x7f);
        uint64_t newline = (in_range(x, '\n', '\n') | in_range(x, '\r', '\r')) & ascii;
        uint64_t space = in_range(x, ' ', ' ') & ascii;
        uint64_t white = (in_range(x, '\t', '\r') & ascii) | space;
        uint64_t control = (in_range(x, 0, 31) | in_range(x, 127, 127)) & ascii & ~white;
        m->lower |= gather(in_range(x, 'a', 'z') & ascii) << i;
        m->upper |= gather(in_range(x, 'A', 'Z') & ascii) << i;
        m->digit |= gather(in_range(x, '0', '9') & ascii) << i;
        m->blank |= gather(white & ~newline) << i;
        m->newline |= gather(newline) << i;
        m->space |= gather(space) << i;
        m->quote |= gather(in_range(x, '\'', '\'') & ascii) << i;
        m->slash |= gather(in_range(x, '/', '/') & ascii) << i;
        m->control |= gather(control) << i;
        m->beyond |= gather(high) << i;
    }
}

/* ---- masks of x86 ---- */

#if defined(__x86_64__)

/* 16 or 32 bytes at a time in the same words; V begins the names of the instructions. */
#define VECTOR_MASKS(target, name, type, bytes, V, si, mask_type)                     \
    INLINE target uint64_t name##_bits(type x)                                        \
    {                                                                                 \
        return (mask_type)V##_movemask_epi8(x);                                       \
    }                                                                                 \
    INLINE target type name##_range(type x, char lo, char width)                      \
    {                                                                                 \
        type t = V##_sub_epi8(x, V##_set1_epi8(lo));                                  \
        return V##_cmpeq_epi8(V##_min_epu8(t, V##_set1_epi8(width)), t);              \
    }                                                                                 \
    INLINE target type name##_equal(type x, char c)                                   \
    {                                                                                 \
        return V##_cmpeq_epi8(x, V##_set1_epi8(c));                                   \
    }                                                                                 \
    INLINE target void name(const char *p, struct masks *m)                           \
    {                                                                                 \
        memset(m, 0, sizeof *m);                                                      \
        for (unsigned i = 0; i < 64; i += (bytes)) {                                  \
            type x = V##_loadu_##si((const type *)(const void *)(p + i));             \
            type newline = V##_or_##si(name##_equal(x, '\n'), name##_equal(x, '\r')); \
            type space = name##_equal(x, ' ');                                        \
            type white = V##_or_##si(name##_range(x, '\t', 4), space);                \
            type control = V##_or_##si(name##_range(x, 0, 31), name##_equal(x, 127)); \
            m->lower |= name##_bits(name##_range(x, 'a', 25)) << i;                   \
            m->upper |= name##_bits(name##_range(x, 'A', 25)) << i;                   \
            m->digit |= name##_bits(name##_range(x, '0', 9)) << i;                    \
            m->blank |= name##_bits(V##_andnot_##si(newline, white)) << i;            \
            m->newline |= name##_bits(newline) << i;                                  \
            m->space |= name##_bits(space) << i;                                      \
            m->quote |= name##_bits(name##_equal(x, '\'')) << i;                      \
            m->slash |= name##_bits(name##_equal(x, '/')) << i;                       \
            m->control |= name##_bits(V##_andnot_##si(white, control)) << i;          \
            m->beyond |= name##_bits(x) << i;                                         \
        }                                                                             \
    }

#define TARGET_SSE2
#define TARGET_AVX2 __attribute__((target("avx2,bmi,bmi2")))
#define TARGET_AVX512 __attribute__((target("avx2,bmi,bmi2,avx512f,avx512bw,avx512vbmi")))

VECTOR_MASKS(TARGET_SSE2, masks_sse2, __m128i, 16, _mm, si128, uint16_t)
VECTOR_MASKS(TARGET_AVX2, masks_avx2, __m256i, 32, _mm256, si256, uint32_t)

enum { LOWER = 1, UPPER = 2, DIGIT = 4, BLANK = 8, NEWLINE = 16, CONTROL = 32 };

/* Classes of ASCII for a table look-up of all 64 bytes in one instruction. */
static const unsigned char ascii_classes[128] __attribute__((aligned(64))) = {
    [0 ... 8] = CONTROL,   [14 ... 31] = CONTROL, ['\t'] = BLANK,        ['\n'] = NEWLINE,
    ['\v'] = BLANK,        ['\f'] = BLANK,        ['\r'] = NEWLINE,      [' '] = BLANK,
    ['0' ... '9'] = DIGIT, ['A' ... 'Z'] = UPPER, ['a' ... 'z'] = LOWER, [127] = CONTROL,
};

INLINE TARGET_AVX512 void masks_avx512(const char *p, struct masks *m)
{
    const __m512i *t = (const __m512i *)(const void *)ascii_classes;
    __m512i x = _mm512_loadu_si512((const void *)p);
    __m512i c = _mm512_permutex2var_epi8(_mm512_load_si512(t), x, _mm512_load_si512(t + 1));
    m->beyond = _mm512_movepi8_mask(x);
    c = _mm512_maskz_mov_epi8(~m->beyond, c);
    m->lower = _mm512_test_epi8_mask(c, _mm512_set1_epi8(LOWER));
    m->upper = _mm512_test_epi8_mask(c, _mm512_set1_epi8(UPPER));
    m->digit = _mm512_test_epi8_mask(c, _mm512_set1_epi8(DIGIT));
    m->blank = _mm512_test_epi8_mask(c, _mm512_set1_epi8(BLANK));
    m->newline = _mm512_test_epi8_mask(c, _mm512_set1_epi8(NEWLINE));
    m->control = _mm512_test_epi8_mask(c, _mm512_set1_epi8(CONTROL));
    m->space = _mm512_cmpeq_epi8_mask(x, _mm512_set1_epi8(' '));
    m->quote = _mm512_cmpeq_epi8_mask(x, _mm512_set1_epi8('\''));
    m->slash = _mm512_cmpeq_epi8_mask(x, _mm512_set1_epi8('/'));
}

#endif

/* ---- one function per shape and processor ---- */

#define SHAPE(target, isa, word, shape)                                          \
    target static uint64_t isa##_##word(const char *p)                           \
    {                                                                            \
        struct masks m;                                                          \
        masks_##isa(p, &m);                                                      \
        return shape == SCAN_GPT2 ? ends_of_gpt2(p, &m) : ends_of(shape, p, &m); \
    }
#define SHAPES(target, isa)                     \
    SHAPE(target, isa, cl100k, SCAN_CL100K)     \
    SHAPE(target, isa, qwen, SCAN_QWEN)         \
    SHAPE(target, isa, o200k, SCAN_O200K)       \
    SHAPE(target, isa, tekken, SCAN_TEKKEN)     \
    SHAPE(target, isa, deepseek, SCAN_DEEPSEEK) \
    SHAPE(target, isa, gpt2, SCAN_GPT2)
#define ROW(isa)                                                                                 \
    {                                                                                            \
        [SCAN_CL100K] = isa##_cl100k, [SCAN_QWEN] = isa##_qwen, [SCAN_O200K] = isa##_o200k,      \
        [SCAN_TEKKEN] = isa##_tekken, [SCAN_DEEPSEEK] = isa##_deepseek, [SCAN_GPT2] = isa##_gpt2 \
    }

SHAPES(, portable)
#if defined(__x86_64__)
SHAPES(, sse2)
SHAPES(TARGET_AVX2, avx2)
SHAPES(TARGET_AVX512, avx512)
#endif

static scan_window_fn *const table[SCAN_ISA_END][SCAN_END] = {
    [SCAN_PORTABLE] = ROW(portable),
#if defined(__x86_64__)
    [SCAN_SSE2] = ROW(sse2),
    [SCAN_AVX2] = ROW(avx2),
    [SCAN_AVX512] = ROW(avx512),
#endif
};

bool scan_isa_supported(enum scan_isa isa)
{
    if (isa == SCAN_PORTABLE) return true;
#if defined(__x86_64__)
    bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi") &&
                __builtin_cpu_supports("bmi2");
    if (isa == SCAN_SSE2) return true;
    if (isa == SCAN_AVX2) return avx2;
    if (isa == SCAN_AVX512)
        return avx2 && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vbmi");
#endif
    return false;
}

bool scan_compress_supported(void)
{
#if defined(__x86_64__)
    return scan_isa_supported(SCAN_AVX512) && __builtin_cpu_supports("avx512vbmi2");
#else
    return false;
#endif
}

/* A shape without a window of its own: everything is left to scan_piece(). */
static uint64_t unknown_shape(const char *p)
{
    (void)p;
    return 0;
}

scan_window_fn *scan_window_for(enum scan_shape shape, enum scan_isa isa)
{
    if (isa >= SCAN_ISA_END || !scan_isa_supported(isa)) return NULL;
    scan_window_fn *f = shape > 0 && shape < SCAN_END ? table[isa][shape] : NULL;
    return f != NULL ? f : unknown_shape;
}

scan_window_fn *scan_window_best(enum scan_shape shape)
{
    scan_window_fn *best = scan_window_for(shape, SCAN_PORTABLE);
    for (int isa = SCAN_PORTABLE + 1; isa < SCAN_ISA_END; isa++) {
        scan_window_fn *f = scan_window_for(shape, (enum scan_isa)isa);
        if (f != NULL) best = f;
    }
    return best;
}
