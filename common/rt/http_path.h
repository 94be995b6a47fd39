/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Request targets for http_server.c: percent-decoding, what paths are acceptable, route patterns,
 * query arguments. Pure functions on bytes that come from clients.
 */
#ifndef RT_HTTP_PATH_H
#define RT_HTTP_PATH_H

#include "base/arena.h"
#include "base/str.h"

enum { HTTP_PATH_PARAMS = 4 };

struct http_target {
    struct str raw;   /* the path as sent: segments are cut here, before decoding */
    struct str path;  /* decoded once */
    struct str query; /* as sent, without '?'; p == NULL when there is none */
};

/*
 * Splits and checks what stands between method and version: origin-form, or absolute-form whose
 * authority is dropped. ERR_INVALID: neither of these, a bad escape, a control character (NUL too),
 * bytes that are not UTF-8, a "." or ".." segment, an empty segment other than the last. The result
 * lives in `target` and the arena.
 */
enum err http_target_parse(struct str target, struct arena *a, struct http_target *ret) MUSTCHECK;

/*
 * Whether t matches a pattern: literal segments, {} for one segment that is not empty, and * in the
 * last place for any rest. The params are decoded (an escaped slash stays within its segment);
 * those that the pattern lacks become STR_NULL. ret_params is changed only on a match. Out of
 * memory counts as no match.
 */
bool http_path_match(const struct http_target *t, const char *pattern, struct arena *a,
                     struct str ret_params[HTTP_PATH_PARAMS]);

/* The first argument of that name, decoded ('+' is a space); p == NULL when absent. */
struct str http_query_find(struct str query, const char *name, struct arena *a);

#endif
