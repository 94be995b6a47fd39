/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The chunked transfer coding (RFC 9112, 7.1): a decoder that takes its input in any split, and
 * what an encoder needs. Pure, no allocation, any thread.
 *
 * Strict: a size has 1 to 16 hexadecimal digits and is below 2^63, lines end with CRLF, no white
 * space around a size (also not the "bad white space" that the RFC lets a recipient remove).
 * Extensions and trailer fields must be well-formed and are discarded; both are bounded, so that
 * bytes which carry nothing cannot outweigh the body.
 */
#ifndef HTTP_CHUNKED_H
#define HTTP_CHUNKED_H

#include "base/str.h"

enum {
    CHUNKED_MAX_EXTENSION = 256,        /* bytes, of one chunk */
    CHUNKED_MAX_EXTENSIONS = 16 * 1024, /* bytes, of one message */
    CHUNKED_MAX_TRAILER = 8 * 1024,     /* bytes, of one message */
};

enum chunked_status {
    CHUNKED_MORE, /* all input was used, the body goes on */
    CHUNKED_DATA, /* here is a piece of the body; call again with the rest of the input */
    CHUNKED_DONE, /* the body and its trailer are over */
    CHUNKED_BAD,  /* malformed, or an extension or trailer too long; see reason */
};

/* Zeroed: at the beginning of a body. */
struct chunked {
    uint8_t state, digits;
    uint16_t extension; /* bytes so far, of this chunk */
    uint32_t extensions, trailer;
    uint64_t left;      /* bytes of this chunk still to come */
    uint64_t body;      /* bytes of body found so far */
    const char *reason; /* static; set with CHUNKED_BAD */
};

/*
 * Takes input from *in and moves it behind what was used. With CHUNKED_DATA *ret_data is a view of
 * the input, never empty. After CHUNKED_DONE *in is what follows the message. After DONE or BAD
 * the decoder stays in that state.
 */
enum chunked_status chunked_decode(struct chunked *c, struct str *in, struct str *ret_data);

/*
 * All that is here at once, in place: the data come together at p, *ret_n bytes of them, and
 * *ret_used bytes of the input were used. CHUNKED_MORE (all of it was), CHUNKED_DONE, or
 * CHUNKED_BAD; of each there may be data before.
 */
enum chunked_status chunked_unwrap(struct chunked *c, char *p, size_t n, size_t *ret_n,
                                   size_t *ret_used);

/* The line in front of a chunk of n > 0 bytes, such as "1f4\r\n"; behind its data goes "\r\n".
 * Returns its length. */
enum { CHUNKED_HEADER_MAX = 18 };
size_t chunked_header(uint64_t n, char out[CHUNKED_HEADER_MAX]);
#define CHUNKED_END "0\r\n\r\n"

#endif
