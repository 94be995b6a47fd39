/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The format of a spool segment: a header and frames, in the machine's byte order (little-endian),
 * in a file of fixed size that was filled with zeros before its first use. Pure functions over the
 * mapped bytes: no I/O here, any thread as far as the ranges differ.
 *
 *      | header, 64 | frame | frame | … | zeros, or what was there before |
 *      0            64                  tail                          size
 *
 * A frame's length is stored last. A power failure may lose any page: what has no good checksum is
 * skipped, reading goes on behind it. A file is used again as it is when all its records are done:
 * each use has an order of its own, with which checksums begin, so that frames of an earlier use
 * are none. (Files of version 1 were used once, and their checksums began with 0.)
 */
#ifndef EDGE_SPOOL_SEGMENT_H
#define EDGE_SPOOL_SEGMENT_H

#include <stdint.h>

#include "base/err.h"
#include "base/str.h"

enum { SEGMENT_VERSION = 2, SEGMENT_ID_LEN = 36, SEGMENT_NAME_MAX = 63 };

struct segment_header {
    char magic[8]; /* "AIGWSPL" and a NUL */
    uint32_t version;
    uint32_t number; /* unique in its directory */
    uint64_t order;  /* in which segments came into use, from 1; 0: not used */
    uint32_t uses;   /* how often this one did; above 1, its end holds frames of before */
    char reserved[36];
};

/* OPEN: text is what counts should its request never be settled. SETTLE: text is final, without
 * the beginning that it shares with its OPEN's. */
enum segment_type { SEGMENT_OPEN = 1, SEGMENT_SETTLE = 2 };

/* LIVE: to be settled or delivered. DONE: of no interest any more. ORPHAN: an OPEN whose edge is
 * dead. */
enum segment_state { SEGMENT_LIVE = 0, SEGMENT_DONE = 1, SEGMENT_ORPHAN = 2 };

struct segment_frame {
    uint32_t length; /* of all, a multiple of 8; stored last, with release order */
    uint32_t crc;    /* CRC-32C, begun with the order, from magic to the end of the text */
    /* These change in place, and are not in the checksum: one aligned store each. */
    uint64_t output_tokens;
    int64_t cost_nano;
    uint64_t duration_ms;
    uint32_t state;
    uint32_t reserved;
    /* These do not. */
    uint32_t magic;
    uint8_t type, name_n;
    uint16_t shared; /* of a SETTLE: its text begins with so many bytes of its OPEN's */
    uint32_t text_n;
    uint32_t open_number, open_offset; /* of a SETTLE: segment and offset of its OPEN; 0: none */
    char id[SEGMENT_ID_LEN];
    /* name and text follow */
};
_Static_assert(sizeof(struct segment_header) == 64, "part of the format");
_Static_assert(sizeof(struct segment_frame) == 96, "part of the format");

/* Writes the header of an empty segment, and later that it is in use, for the first time or again.
 */
void segment_init(char *map, uint32_t number);
void segment_use(char *map, uint64_t order);
/* ERR_INVALID: no segment; ERR_UNSUPPORTED: of a version that is not known. */
enum err segment_check(const char *map, size_t size, struct segment_header *ret) MUSTCHECK;

struct segment_entry {
    enum segment_type type;
    struct str id, name, text; /* id: SEGMENT_ID_LEN bytes */
    uint32_t open_number, open_offset;
    uint16_t shared;
    uint64_t output_tokens; /* these three: of an OPEN that is moved */
    int64_t cost_nano;
    uint64_t duration_ms;
};

size_t segment_frame_size(const struct segment_entry *e);
/* Writes a frame at tail, where segment_frame_size() bytes must be free, and returns its length. */
size_t segment_append(char *map, size_t tail, const struct segment_entry *e);

/* The frame at an offset that segment_append() or segment_next() gave. */
struct segment_frame *segment_at(char *map, size_t at);
struct str segment_name(const struct segment_frame *f);
struct str segment_text(const struct segment_frame *f);
enum segment_state segment_state(const struct segment_frame *f);
void segment_set_state(struct segment_frame *f, enum segment_state s);

/* Whether there is a whole frame with a good checksum at this offset. */
bool segment_is_frame(const char *map, size_t size, size_t at);
/* Reads what another process left: finds the first good frame at or behind *at, and moves *at to
 * it; *ret_damaged says whether bytes that are no frame had to be skipped. ERR_NOT_FOUND: none up
 * to the end (which is not damaged by what an earlier use left there). map holds a header. */
enum err segment_next(const char *map, size_t size, size_t *at, bool *ret_damaged) MUSTCHECK;

#endif
