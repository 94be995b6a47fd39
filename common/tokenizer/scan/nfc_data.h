/* SPDX-License-Identifier: Apache-2.0 */
/* Canonical decompositions, compositions and the order of combining classes, of what Unicode 9.0
 * had assigned: two-stage tables. Generated (gen/unicode.mjs); only for clean.c. Hangul is
 * computed. */
#ifndef TOKENIZER_NFC_DATA_H
#define TOKENIZER_NFC_DATA_H

#include <stddef.h>
#include <stdint.h>

/*
 * A word of facts for each code point, and a point: a code point with those of its facts that
 * ordering and composing ask for.
 *
 *      bit  0           10        13                        25       26            32
 *   facts   | its pairs | length, begin of decomposition    | second | order       |
 *   point   | code point                        | 0         | second | order       |
 */
enum {
    NFC_N_AT = 10,      /* how many points it becomes, 0 when it stays */
    NFC_AT_AT = 13,     /* ... from here on in nfc_parts */
    NFC_SECOND_AT = 25, /* may be the second of a pair, or of Hangul behind the first */
    NFC_ORDER_AT = 26,  /* ascending with the combining class, 0 when it has none */
    NFC_ORDERS = 64,
    NFC_BLOCK = 64,
};
#define NFC_CP 0x1fffffu
#define NFC_ABOVE (UINT32_MAX << NFC_SECOND_AT) /* what points keep of the facts */

struct nfc_pair {
    uint32_t second, composed;
};

extern const uint8_t nfc_index[0x110000 / NFC_BLOCK];
extern const uint32_t nfc_blocks[];
extern const uint32_t nfc_parts[];        /* full decompositions: points */
extern const uint16_t nfc_firsts[];       /* pairs of the n-th first: nfc_pairs[n], up to [n + 1] */
extern const struct nfc_pair nfc_pairs[]; /* by first, second */

static inline uint32_t nfc_facts(uint32_t cp)
{
    return nfc_blocks[(size_t)nfc_index[cp / NFC_BLOCK] * NFC_BLOCK + cp % NFC_BLOCK];
}
/* How many points it becomes, and where they are. */
static inline unsigned nfc_parts_of(uint32_t facts, const uint32_t **ret)
{
    *ret = nfc_parts + (facts >> NFC_AT_AT & ((1u << (NFC_SECOND_AT - NFC_AT_AT)) - 1));
    return facts >> NFC_N_AT & ((1u << (NFC_AT_AT - NFC_N_AT)) - 1);
}
/* The number of its pairs in nfc_firsts, 0 when it has none. */
static inline unsigned nfc_first(uint32_t facts)
{
    return facts & ((1u << NFC_N_AT) - 1);
}

#endif
