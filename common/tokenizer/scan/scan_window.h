/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Scanners for plain ASCII, which most text is: all pieces of a window of 64 bytes at once, by
 * arithmetic on one bit per byte instead of a branch per character. What they cannot decide (other
 * characters, pieces longer than the window, the last one) is left to scan_piece(). Internal to
 * this folder. Pure.
 */
#ifndef TOKENIZER_SCAN_WINDOW_H
#define TOKENIZER_SCAN_WINDOW_H

#include "tokenizer/scan/scan.h"

enum { SCAN_WINDOW = 64 };

/*
 * A piece begins at p, of which 64 bytes are there; what is no text any more is filled with bytes
 * that are not ASCII. Bit k of the result: a piece ends, and one begins, at p + k (0 < k < 64),
 * whatever stands behind the window. No bit means nothing but that it is not known here.
 */
typedef uint64_t scan_window_fn(const char *p);

/* The same function in the instructions of several processors; all give the same. */
enum scan_isa { SCAN_PORTABLE, SCAN_SSE2, SCAN_AVX2, SCAN_AVX512, SCAN_ISA_END };

bool scan_isa_supported(enum scan_isa isa);
/* SCAN_AVX512, and bytes of a register can be moved together (VBMI2)? */
bool scan_compress_supported(void);

/* NULL when this processor does not have the instructions. */
scan_window_fn *scan_window_for(enum scan_shape shape, enum scan_isa isa);
scan_window_fn *scan_window_best(enum scan_shape shape); /* never NULL */

#endif
