/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Clean text is what pre-tokenizers see: valid UTF-8, in NFC where the vocabulary wants it. Raw
 * bytes become clean text cluster by cluster: a cluster is a character with all that may combine
 * with it (just the character where there is no NFC), and clusters are cleaned independently of
 * each other. Internal to the tokenizer. Pure.
 */
#ifndef TOKENIZER_CLEAN_H
#define TOKENIZER_CLEAN_H

#include "base/buf.h"

/* What clean means besides valid UTF-8; kept in vocabulary files. */
enum {
    CLEAN_NFC = 1,
    CLEAN_SPACE = 2, /* U+2581 and the space are one: both are a space (see chars.h) */
};

/*
 * The length of the longest prefix that is clean as it stands, whatever follows it: it ends at a
 * character, and with CLEAN_NFC holds only characters that nothing can change but a following mark.
 */
size_t clean_prefix(const char *p, size_t n, unsigned how);

/* A part of that in front, found quicker: ASCII, and Han with its signs. It ends at a character; 0
 * where it does not know. */
size_t clean_plain(const char *p, size_t n);

/*
 * CLEAN_WINDOW bytes cleaned at once, which begin with a cluster: most of them, as long as nothing
 * needs a closer look; what follows begins with a cluster, too. `out` has CLEAN_ROOM bytes; returns
 * how many bytes were taken, and 0 where it does not know or this processor has no such
 * instructions. Bits stand for raw bytes: where clusters begin, and which of these are faults, each
 * of which became U+FFFD. All others stayed as they are.
 */
enum { CLEAN_WINDOW = 64, CLEAN_ROOM = 4 * CLEAN_WINDOW };
struct clean_bits {
    uint64_t begins, faults;
};
size_t clean_window(const char *p, unsigned how, char *out, size_t *ret_clean,
                    struct clean_bits *ret_bits);

/* True for ASCII characters that normalization never joins with what follows: a cluster ends behind
 * them whatever comes. */
static inline bool clean_settled(char c)
{
    bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
    return (unsigned char)c < 0x80 && !letter && !(c >= '<' && c <= '>');
}

/* One code point of n > 0 bytes, or U+FFFD for a maximal ill-formed subpart. Returns how many bytes
 * it took; sets *ret_open when the bytes end inside a sequence that more bytes could complete. */
size_t clean_point(const char *p, size_t n, uint32_t *ret, bool *ret_open);

/* The length of the first cluster of raw bytes; 0 when n = 0 or when it may go on behind n and
 * `more` says that there is something. */
size_t clean_cluster(const char *p, size_t n, bool more, unsigned how);

/* With CLEAN_NFC: are these two characters one cluster, and clean as it stands when nothing joins
 * it? False where that takes a longer look. */
bool clean_stays(uint32_t a, uint32_t b);

/* True when a cluster begins at p whatever stands before; n > 0. False when the bytes end before
 * it is known. */
bool clean_boundary(const char *p, size_t n, unsigned how);

/* Appends the clean form of one whole cluster. `points` is scratch. */
enum err clean_append(const char *p, size_t n, unsigned how, struct buf *points,
                      struct buf *out) MUSTCHECK;

#endif
