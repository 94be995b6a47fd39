/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a stream of Responses has told its client so far: the response object, the output items and
 * their texts. The events that end such a stream repeat all of it, so it is kept while the gateway
 * may have to write that end, and only then. Pure; one owner.
 */
#ifndef EDGE_TRANSCRIPT_H
#define EDGE_TRANSCRIPT_H

#include "dialect.h"

enum { TRANSCRIPT_MAX = 8 * 1024 * 1024 }; /* bytes kept; beyond, an end repeats nothing */

struct transcript;

struct transcript *transcript_new(void);    /* NULL: no memory */
void transcript_free(struct transcript *t); /* NULL is fine */
/* The data of an event as the client got it. */
void transcript_note(struct transcript *t, struct str data);
/* The same for one that brings a piece of the text at this place (responses_place()): as it stands
 * between its quotes. sequence may be NULL: it has none. */
void transcript_note_piece(struct transcript *t, uint32_t place, struct str piece,
                           const uint64_t *sequence);
/* Appends the events that close what is open, and response.incomplete. t may be NULL. */
enum err transcript_write_ending(const struct transcript *t, const struct ending *e,
                                 struct buf *out) MUSTCHECK;

#endif
