/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reads JSON in place: validates a document once, then walks it by slices, without a tree and
 * without copying. Pure. A value's `raw` is its bytes as the sender wrote them, so that edits can
 * be splices at known offsets.
 */
#ifndef EDGE_JSON_SCAN_H
#define EDGE_JSON_SCAN_H

#include "base/buf.h"

enum { JS_MAX_DEPTH = 128 };

enum js_type { JS_NULL, JS_TRUE, JS_FALSE, JS_NUMBER, JS_STRING, JS_ARRAY, JS_OBJECT };

struct js_val {
    enum js_type type;
    struct str raw;             /* with its quotes or brackets; p == NULL: absent */
    const struct js_mark *mark; /* of js_parse_marked(); NULL: none */
};
#define JS_ABSENT ((struct js_val){ JS_NULL, STR_NULL, NULL })

/* Validates the whole text (RFC 8259: one value, UTF-8, no byte behind it but white space, at most
 * JS_MAX_DEPTH deep). */
enum err js_parse(struct str text, struct js_val *ret, struct why *why) MUSTCHECK;

/* Where a value or a key lies, in the order of the text: with marks it is not looked for again. */
struct js_mark {
    const char *p;
    uint32_t n;     /* bytes */
    uint32_t marks; /* of the value and all in it: the next is so many behind this one */
};
/* As js_parse(), and remembers what is where for those who walk the value: they find the same, and
 * sooner. A text of more values than marks_n, which is at most JS_MARKS_MAX, is walked without.
 * marks: must live as long as *ret and what is found in it. */
enum { JS_MARKS_MAX = 256 };
enum err js_parse_marked(struct str text, struct js_mark *marks, size_t marks_n, struct js_val *ret,
                         struct why *why) MUSTCHECK;

/* Walks a container of a text that js_parse() took. */
struct js_iter {
    const char *p, *end;
    bool members; /* of an object; else elements */
    const struct js_mark *mark, *mark_end;
};
void js_iter_init(struct js_iter *it,
                  struct js_val container); /* nothing to see in what is no container */
/* The next member; key is raw, without its quotes. False at the end, and of what is no object. The
 * same for elements, of what is no array. */
bool js_next_member(struct js_iter *it, struct str *ret_key, struct js_val *ret);
bool js_next_element(struct js_iter *it, struct js_val *ret);

/* The first member of that name, or one with raw.p == NULL. */
struct js_val js_get(struct js_val object, const char *key);
/* Compares a raw key, whose escapes are honoured. */
bool js_escaped_key_is(struct str raw_key, const char *name);
static inline bool js_key_is(struct str raw_key, const char *name)
{
    size_t n = strlen(name); /* of most names the compiler knows it, and that it has no backslash */
    /* An escape is longer than what it stands for. */
    if (raw_key.n < n) return false;
    if (raw_key.n == n) return memcmp(raw_key.p, name, n) == 0 && memchr(name, '\\', n) == NULL;
    if (raw_key.p[0] != name[0] && raw_key.p[0] != '\\') return false;
    return memchr(raw_key.p, '\\', raw_key.n) != NULL && js_escaped_key_is(raw_key, name);
}
/* The same without regard to case, as Go's encoding/json and others find their fields: also U+017F
 * is an s, and U+212A a k. name is in lower case. */
bool js_key_is_like(struct str raw_key, const char *name);

/* A whole number without fraction or exponent, at least 0. */
enum err js_u64(struct js_val v, uint64_t *ret) MUSTCHECK;
static inline bool js_is(struct js_val v, enum js_type t)
{
    return v.raw.p != NULL && v.type == t;
}

/* The quote that ends a string whose first byte behind its opening quote is p. NULL: none in
 * p..end, or what stands before it is not what js_parse() takes. */
const char *js_string_end(const char *p, const char *end);
/* Appends what a string value means (UTF-8). A lone surrogate escape becomes U+FFFD. */
enum err js_decode(struct js_val string, struct buf *out) MUSTCHECK;
/* How many raw bytes behind the opening quote stand for the first n decoded bytes (n at a
 * character's end). */
size_t js_raw_prefix(struct js_val string, uint64_t n);

#endif
