/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Members of a JSON document that are wanted by their pointers (RFC 6901), found by js_parse()
 * while it validates: no second pass. Servers differ in which of two members of one name they take,
 * and some take names without regard to case, so a document that has a wanted member twice, or in
 * capital letters beside, is refused.
 */
#ifndef EDGE_JSON_WANT_H
#define EDGE_JSON_WANT_H

#include "json_scan.h"

enum { JS_WANTS_MAX = 64, JS_WANT_DEPTH = 8, JS_WANT_POINTER_MAX = 256 };

/* A set of pointers. Built once, then immutable; any thread. */
struct js_wants;

struct js_wants *js_wants_new(void);
void js_wants_free(struct js_wants *w); /* NULL is fine */
/* Adds a pointer, unless it is there, and gives its place. ERR_INVALID: none, or too deep or long;
 * ERR_LIMIT: JS_WANTS_MAX are there. */
enum err js_wants_add(struct js_wants *w, struct str pointer, size_t *ret_place) MUSTCHECK;
size_t js_wants_count(const struct js_wants *w);
/* As js_parse(), and ret_found[place] is what each pointer leads to (raw.p == NULL: nothing).
 * wants == NULL or empty: none. */
enum err js_parse_wanting(struct str text, const struct js_wants *wants, struct js_val *ret,
                          struct js_val *ret_found, struct why *why) MUSTCHECK;

/* --- for js_parse() only --- */

struct js_seek {
    const struct js_wants *wants;
    struct js_val *found;
    uint64_t next; /* the pointers that lead on to the value that comes, by its key */
    /* by depth: the pointers that lead into the container open there; those that end with it; those
     * whose name there was seen */
    uint64_t live[JS_WANT_DEPTH + 2], ends[JS_WANT_DEPTH + 2], seen[JS_WANT_DEPTH + 2];
    const char *start[JS_WANT_DEPTH + 2];
    uint32_t element[JS_WANT_DEPTH + 2];
};
void js_seek_init(struct js_seek *s, const struct js_wants *w, struct js_val *found);
/* A key of the object at this depth (1: the root). What is wrong with it, or NULL. */
const char *js_seek_key(struct js_seek *s, size_t depth, struct str raw_key);
/* A value begins inside of the container at this depth (0: the root value itself). */
void js_seek_open(struct js_seek *s, size_t depth, bool in_array, const char *p);
void js_seek_scalar(struct js_seek *s, size_t depth, bool in_array, struct js_val v);
/* The container at this depth ends before p. */
void js_seek_close(struct js_seek *s, size_t depth, enum js_type type, const char *p);

#endif
