/* SPDX-License-Identifier: Apache-2.0 */
/* Any pointers in any document: what is found is what a walk finds. A line each are pointers, up to
 * an empty one; the rest is the document. */
#include <stdlib.h>

#include "services/edge/dialects/json_want.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

/* Whether a raw key is this token of a pointer, escapes of both kinds decoded. */
static bool is_token(struct str raw_key, struct str token)
{
    char name[JS_WANT_POINTER_MAX + 1];
    size_t len = 0;
    for (size_t i = 0; i < token.n; i++) {
        char c = token.p[i];
        if (c == '~') c = token.p[++i] == '0' ? '~' : '/';
        name[len++] = c;
    }
    name[len] = '\0';
    return js_key_is(raw_key, name);
}

static struct js_val step(struct js_val v, struct str token)
{
    struct js_val one, none = JS_ABSENT;
    struct js_iter it;
    struct str key;
    uint64_t index;
    js_iter_init(&it, v);
    if (js_is(v, JS_OBJECT)) {
        while (js_next_member(&it, &key, &one))
            if (is_token(key, token)) return one;
    } else if (js_is(v, JS_ARRAY) && str_to_u64(token, &index) == ERR_OK &&
               (token.n == 1 || token.p[0] != '0')) {
        while (js_next_element(&it, &one))
            if (index-- == 0) return one;
    }
    return none;
}

static struct js_val walk(struct js_val v, struct str pointer)
{
    struct str rest = pointer;
    (void)str_cut(&rest, '/');
    /* A pointer that ends with a slash has an empty last token. */
    for (bool more = true; more && v.raw.p != NULL;) {
        const char *slash = rest.n > 0 ? memchr(rest.p, '/', rest.n) : NULL;
        struct str token = str_n(rest.p, slash != NULL ? (size_t)(slash - rest.p) : rest.n);
        more = slash != NULL;
        if (more) rest = str_n(slash + 1, rest.n - token.n - 1);
        v = step(v, token);
    }
    return v;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct str rest = str_n((const char *)data, n), pointers[JS_WANTS_MAX];
    size_t places[JS_WANTS_MAX], count = 0;
    struct js_wants *w = js_wants_new();
    struct js_val root, plain, found[JS_WANTS_MAX];
    for (;;) {
        struct str line = str_cut(&rest, '\n');
        if (line.n == 0) break;
        if (count < JS_WANTS_MAX && js_wants_add(w, line, &places[count]) == ERR_OK)
            pointers[count++] = line;
    }
    if (rest.p == NULL) rest = STR("");
    enum err e = js_parse_wanting(rest, w, &root, found, NULL), p = js_parse(rest, &plain, NULL);
    /* What is wanted refuses more, but takes nothing that is no JSON. */
    if (e == ERR_OK && p != ERR_OK) abort();
    if (e != ERR_OK && p == ERR_OK && e != ERR_DENIED) abort();
    for (size_t i = 0; e == ERR_OK && i < count; i++) {
        struct js_val want = walk(root, pointers[i]), got = found[places[i]];
        if (want.raw.p != got.raw.p || want.raw.n != got.raw.n) abort();
        if (want.raw.p != NULL && want.type != got.type) abort();
    }
    js_wants_free(w);
    return 0;
}
