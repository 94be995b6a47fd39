/* SPDX-License-Identifier: Apache-2.0 */
/* Canonical decompositions, compositions and the order of combining classes, of what Unicode 9.0
 * had assigned. Generated (gen/unicode.mjs); only for clean.c. Hangul is computed. */
#ifndef TOKENIZER_NFC_DATA_H
#define TOKENIZER_NFC_DATA_H

#include <stddef.h>
#include <stdint.h>

struct nfc_decomp {
    uint32_t cp;
    uint16_t at; /* full decomposition: nfc_parts[at .. at + n) */
    uint16_t n;
};
struct nfc_pair {
    uint32_t first, second, composed;
};
struct nfc_class {
    uint32_t from, to;
    uint32_t order; /* ascending with the combining class, never 0 */
};

extern const struct nfc_decomp nfc_decomps[]; /* by cp */
extern const size_t nfc_decomps_n;
extern const uint32_t nfc_parts[];
extern const struct nfc_pair nfc_pairs[]; /* by first, second */
extern const size_t nfc_pairs_n;
extern const struct nfc_class nfc_classes[]; /* by from */
extern const size_t nfc_classes_n;

#endif
