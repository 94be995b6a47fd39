/* SPDX-License-Identifier: Apache-2.0 */
/*
 * JSON documents of the bus and of the admin APIs (not prompts: the edge scans those in place). A
 * tree of `struct json` nodes; a node belongs to its root, which the one json_free() releases.
 * Numbers are doubles: integers are exact up to 2^53.
 */
#ifndef RT_JSON_H
#define RT_JSON_H

#include <stdint.h>

#include "base/buf.h"

struct json;

enum json_type { JSON_NULL, JSON_BOOL, JSON_NUMBER, JSON_STRING, JSON_ARRAY, JSON_OBJECT };

enum { JSON_MAX_DEPTH = 64 };

/* Parses one document of at most max bytes, nested at most JSON_MAX_DEPTH deep, with no byte behind
 * it and no key twice in an object. ERR_INVALID or ERR_LIMIT say why. */
enum err json_parse(struct str text, size_t max, struct json **ret, struct why *why) MUSTCHECK;
void json_free(struct json *root);

enum json_type json_type(const struct json *n);
const struct json *json_get(const struct json *object,
                            const char *key); /* NULL: not an object, or no such key */
struct str json_key(const struct json *n);    /* of a member of an object */
const struct json *json_first(const struct json *container); /* first member or element, or NULL */
const struct json *json_next(const struct json *n);
size_t json_len(const struct json *container);

struct str
json_str(const struct json *n); /* p == NULL when it is not a string; borrowed from the tree */
bool json_is(const struct json *n, enum json_type t); /* false for NULL */

/* Members by key. ERR_NOT_FOUND when absent or null, ERR_INVALID when of another type or out of
 * range. */
enum err json_get_str(const struct json *o, const char *key, struct str *ret) MUSTCHECK;
enum err json_get_u64(const struct json *o, const char *key, uint64_t *ret) MUSTCHECK;
enum err json_get_i64(const struct json *o, const char *key, int64_t *ret) MUSTCHECK;
enum err json_get_double(const struct json *o, const char *key, double *ret) MUSTCHECK;
enum err json_get_bool(const struct json *o, const char *key, bool *ret) MUSTCHECK;

/* Building. They die when memory is out: documents of ours, not of clients. Setting a key again
 * replaces it. */
struct json *json_object(void);
struct json *json_array(void);
void json_set(struct json *o, const char *key, struct json *takes);
void json_set_str(struct json *o, const char *key, struct str s); /* p == NULL sets null */
void json_setz(struct json *o, const char *key, const char *z);
void json_set_u64(struct json *o, const char *key,
                  uint64_t v); /* printed exactly, whatever its size */
void json_set_i64(struct json *o, const char *key, int64_t v);
void json_set_bool(struct json *o, const char *key, bool v);
void json_set_null(struct json *o, const char *key);
void json_remove(struct json *o, const char *key);
void json_push(struct json *array, struct json *takes);
void json_push_str(struct json *array, struct str s);
struct json *json_copy(const struct json *n);
struct json *json_new_str(struct str s);

bool json_equal(const struct json *a, const struct json *b);
/* Compact text; members in insertion order. */
enum err json_print(const struct json *n, struct buf *out) MUSTCHECK;

#endif
