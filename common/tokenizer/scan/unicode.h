/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Classes of code points as the tokenizers' regular expressions know them: Unicode 16.0. Generated
 * two-stage tables (gen/unicode.mjs); internal to this folder. Pure.
 */
#ifndef TOKENIZER_UNICODE_H
#define TOKENIZER_UNICODE_H

#include <stddef.h>
#include <stdint.h>

enum {
    UC_L = 1,      /* \p{L} */
    UC_N = 2,      /* \p{N} */
    UC_S = 4,      /* \s */
    UC_U = 8,      /* [\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}] */
    UC_W = 16,     /* [\p{Ll}\p{Lm}\p{Lo}\p{M}] */
    UC_P = 32,     /* [\p{P}\p{S}] */
    UC_HAN = 64,   /* \p{Han} */
    UC_CARE = 128, /* normalization may change it, or it may combine with what stands before */
};
#define UC_IS_MARK(class) (((class) & (UC_L | UC_U | UC_W)) == (UC_U | UC_W))

enum { UNICODE_BLOCK = 128 };
extern const uint16_t unicode_index[0x110000 / UNICODE_BLOCK];
extern const uint8_t unicode_blocks[];

static inline unsigned unicode_class(uint32_t cp)
{
    return unicode_blocks[(size_t)unicode_index[cp / UNICODE_BLOCK] * UNICODE_BLOCK +
                          cp % UNICODE_BLOCK];
}
/* The first block is that of ASCII. */
static inline unsigned unicode_class_ascii(unsigned char c)
{
    return unicode_blocks[c];
}

/* Decodes one code point of text known to be valid UTF-8; returns its length. */
static inline size_t utf8_next_valid(const char *s, uint32_t *ret)
{
    const unsigned char *p = (const unsigned char *)s;
    if (p[0] < 0x80) return *ret = p[0], 1;
    if (p[0] < 0xe0) return *ret = (uint32_t)(p[0] & 0x1f) << 6 | (p[1] & 0x3f), 2;
    if (p[0] < 0xf0) {
        *ret = (uint32_t)(p[0] & 0x0f) << 12 | (uint32_t)(p[1] & 0x3f) << 6 | (p[2] & 0x3f);
        return 3;
    }
    *ret = (uint32_t)(p[0] & 0x07) << 18 | (uint32_t)(p[1] & 0x3f) << 12 |
           (uint32_t)(p[2] & 0x3f) << 6 | (p[3] & 0x3f);
    return 4;
}

/* The class and the length of the code point at p, which is valid UTF-8. */
static inline unsigned unicode_class_at(const char *p, size_t *ret_len)
{
    unsigned char c = (unsigned char)*p;
    if (c < 0x80) {
        *ret_len = 1;
        return unicode_class_ascii(c);
    }
    uint32_t cp;
    *ret_len = utf8_next_valid(p, &cp);
    return unicode_class(cp);
}

#endif
