/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What counts many pieces at once is compared with what the scanner and the merges find piece by
 * piece, for a vocabulary of bytes and for those that VOCAB_DIR has. Header of static functions for
 * unit tests.
 */
#ifndef TESTS_SUPPORT_PIECES_H
#define TESTS_SUPPORT_PIECES_H

#include "support_bytes_vocab.h"
#include "support_vocab.h"
#include "tokenizer/merge/bpe.h"
#include "tokenizer/scan/scan.h"
#include "tokenizer/tokenizer.h"

/* Checks each vocabulary, with another seed. */
static inline void support_each_vocab(void (*check)(struct vocab *v, uint64_t seed))
{
    static const char *const names[] = { "cl100k_base", "o200k_base",   "qwen3",    "deepseek_v3",
                                         "llama3_2",    "mistral_nemo", "r50k_base" };
    struct vocab *v = bytes_vocab("bytes", "", "{}");
    check(v, 1);
    vocab_unref(v);
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        v = support_real(names[i]);
        if (v == NULL) continue; /* not fetched */
        check(v, 2 + i);
        vocab_unref(v);
    }
}

/* The first `some` bytes of the rest of a text, whole pieces, were counted as so many tokens; of 0
 * bytes nothing is said. Returns the bytes of these pieces, of one at least. */
static inline size_t support_pieces(const struct vocab *v, struct str rest, size_t some,
                                    uint64_t tokens)
{
    size_t len = 0;
    uint64_t want = 0, one = 0;
    do {
        size_t n = scan_piece((enum scan_shape)v->h->shape, rest.p + len, rest.n - len, false);
        assert_int_equal(bpe_piece(v, rest.p + len, n, NULL, &one), ERR_OK);
        len += n;
        want += one;
    } while (len < some);
    if (some > 0) {
        assert_int_equal(len, some);
        assert_int_equal(want, tokens);
    }
    return len;
}

/* The text has as many tokens counted as written out. */
static inline void support_count(const struct vocab *v, struct str text)
{
    uint64_t counted = 0;
    struct token_list l = { 0 };
    assert_int_equal(token_count(v, text, SPECIAL_TEXT, &counted), ERR_OK);
    assert_int_equal(token_encode(v, text, SPECIAL_TEXT, &l), ERR_OK);
    assert_int_equal(counted, l.len);
    token_list_done(&l);
}

#endif
