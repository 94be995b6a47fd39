/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Counts a stream as it passes and says where to cut it. One meter per text (reasoning, content and
 * the arguments of each tool call are separate texts). One owner thread.
 *
 *      0          committed           deliverable            fed
 *      |  counted for good  |  open tail: later bytes could change it  |
 *
 * The result never depends on how the bytes were split into feeds. Memory is bounded: the tail is
 * at most METER_TAIL bytes (an endless run of one character class, say); beyond that the count goes
 * on but meter_exact() is false. The cost of a feed depends on its length alone: a run of
 * characters of one kind is followed as it grows, and any other tail of more than a hundred bytes
 * (different marks upon one character, vocabularies with a pattern of their own) is looked at when
 * it is an eighth longer. Till then the count is the one of the last look, see meter_counted().
 *
 * Cutting. With a limit of N tokens the cut is the end of token N of the text tokenised to the
 * piece boundary behind it, moved back to a character boundary (with NFC vocabularies: to where
 * normalization does not reach across), and further if need be until what stands before it
 * counts at most N by itself. Bytes are withheld only when the limit could be reached within what
 * has been fed: while the committed count, plus three tokens for every byte that is still open (a
 * byte that is not UTF-8 becomes three), plus METER_MARGIN, is at most N, everything fed is
 * deliverable at once; nearer to the limit only complete pieces are. When the count has reached N
 * and more text is there, the cut is known at once, whatever becomes of that text.
 *
 * A budget that several texts share: before each feed give each meter what is left for it,
 *     meter_set_limit(m, N - sum of meter_count() of the others)
 *
 * With vocab NULL the meter estimates (estimate.h): same interface, meter_exact() is false, the cut
 * is at the character where the estimate passes N.
 */
#ifndef TOKENIZER_METER_H
#define TOKENIZER_METER_H

#include "tokenizer/tokenizer.h"

struct token_meter;

enum {
    METER_TAIL = 4096,  /* most raw bytes that stay open */
    METER_MARGIN = 256, /* tokens: what marks may still add to the last character */
};
#define METER_NO_LIMIT UINT64_MAX

/* v may be NULL: estimate. Takes a reference to v. NULL when memory is out. */
struct token_meter *meter_new(struct vocab *v, enum special_mode mode) MUSTCHECK;
void meter_free(struct token_meter *m);           /* NULL is fine */
void meter_prefetch(const struct token_meter *m); /* it is about to be fed; NULL is fine */

/*
 * The most tokens this text may have; METER_NO_LIMIT (the start) for none. May change at any time
 * and counts from the next feed on. What was called deliverable stays so: a limit below what that
 * counts cuts right behind it.
 */
void meter_set_limit(struct token_meter *m, uint64_t limit);

/* Takes the next bytes of the text, in any split. After the cut they are ignored. ERR_NOMEM. */
enum err meter_feed(struct token_meter *m, struct str bytes) MUSTCHECK;
/* The text ends here: what was withheld is decided. Feeding on afterwards is a bug. ERR_NOMEM. */
enum err meter_finish(struct token_meter *m) MUSTCHECK;

/* Tokens of what has been fed, as if the text ended here; after a cut, of what stands before the
 * cut. It may go DOWN as text arrives. */
uint64_t meter_count(struct token_meter *m);
/* Of how many bytes: all that were fed, or, in a long tail that is not followed, at least all but
 * an eighth of the tail. */
uint64_t meter_counted(const struct token_meter *m);
/* How many bytes from the beginning of the text may be delivered. Never goes down. */
uint64_t meter_deliverable(const struct token_meter *m);
/* True when the limit was passed: *ret_offset (may be NULL) is where the text must end, which
 * equals meter_deliverable() from then on. */
bool meter_cut(const struct token_meter *m, uint64_t *ret_offset);
uint64_t meter_fed(const struct token_meter *m); /* bytes */
bool meter_exact(const struct token_meter *m);

#endif
