/* SPDX-License-Identifier: Apache-2.0 */
/* The codec of sample requests; see the header. Pure: any thread. */
#include "proto/explain_msg.h"

#include <stdio.h>

struct reader {
    const struct json *o;
    explain_problem_fn fn;
    void *ctx;
    bool good;
};

static void problem(struct reader *r, const char *pointer, const char *message)
{
    r->good = false;
    if (r->fn != NULL) r->fn(r->ctx, pointer, message);
}

static bool is_token(struct str s)
{
    for (size_t i = 0; i < s.n; i++) {
        char c = s.p[i];
        bool alnum = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
        if (!alnum && (c == '\0' || strchr("!#$%&'*+-.^_`|~", c) == NULL)) return false;
    }
    return s.n > 0;
}

static bool is_plain(struct str s)
{
    for (size_t i = 0; i < s.n; i++)
        if ((unsigned char)s.p[i] < 0x20 || s.p[i] == 0x7f) return false;
    return true;
}

/* Absent, or a text without control characters; p == NULL: absent or wrong. */
static struct str text(struct reader *r, const char *name, size_t max, const char *must)
{
    char pointer[32];
    const struct json *m = json_get(r->o, name);
    struct str s = json_str(m);
    if (m == NULL || json_is(m, JSON_NULL)) return STR_NULL;
    if (s.p != NULL && s.n > 0 && s.n <= max && is_plain(s)) return s;
    (void)snprintf(pointer, sizeof pointer, "/%s", name);
    problem(r, pointer, must);
    return STR_NULL;
}

static uint64_t count(struct reader *r, const char *name)
{
    char pointer[32];
    uint64_t v = 0;
    enum err e = json_get_u64(r->o, name, &v);
    if (e == ERR_OK && v <= UINT64_C(1000000000000)) return v;
    if (e == ERR_NOT_FOUND) return 0;
    (void)snprintf(pointer, sizeof pointer, "/%s", name);
    problem(r, pointer, "must be a whole number from 0 to 1000000000000");
    return 0;
}

static void read_headers(struct reader *r, struct explain_ask *ret)
{
    const struct json *list = json_get(r->o, "headers");
    if (list == NULL || json_is(list, JSON_NULL)) return;
    if (!json_is(list, JSON_OBJECT) || json_len(list) > EXPLAIN_HEADERS_MAX) {
        problem(r, "/headers", "must be an object with at most 64 members");
        return;
    }
    for (const struct json *m = json_first(list); m != NULL; m = json_next(m)) {
        struct explain_header h = { json_key(m), json_str(m) };
        bool ours = str_ieqz(h.name, "content-length") || str_ieqz(h.name, "transfer-encoding");
        if (!is_token(h.name) || h.name.n > 128 || h.value.p == NULL || !is_plain(h.value) ||
            h.value.n > EXPLAIN_TEXT_MAX)
            problem(r, "/headers", "must hold names of headers with their values as strings");
        else if (!ours)
            ret->headers[ret->headers_n++] = h;
    }
}

static const struct json *object(struct reader *r, const char *name)
{
    char pointer[32];
    const struct json *m = json_get(r->o, name);
    if (m == NULL || json_is(m, JSON_NULL)) return NULL;
    if (json_is(m, JSON_OBJECT)) return m;
    (void)snprintf(pointer, sizeof pointer, "/%s", name);
    problem(r, pointer, "must be an object");
    return NULL;
}

static void refuse_unknown(struct reader *r)
{
    static const char *const known[] = { "method",     "target",       "headers",       "key",
                                         "model",      "client_ip",    "user",          "namespace",
                                         "body_bytes", "input_tokens", "output_tokens", "body",
                                         "claims" };
    for (const struct json *m = json_first(r->o); m != NULL; m = json_next(m)) {
        char pointer[80];
        size_t i = 0;
        while (i < ARRAY_LEN(known) && !str_eqz(json_key(m), known[i])) i++;
        if (i < ARRAY_LEN(known)) continue;
        (void)snprintf(pointer, sizeof pointer, "/%.*s", (int)MIN(json_key(m).n, (size_t)64),
                       json_key(m).p);
        problem(r, pointer, "is not known");
    }
}

bool explain_read(const struct json *o, struct explain_ask *ret, explain_problem_fn fn, void *ctx)
{
    struct reader r = { o, fn, ctx, true };
    *ret = (struct explain_ask){ .method = STR("POST") };
    if (!json_is(o, JSON_OBJECT)) {
        problem(&r, "", "must be an object");
        return false;
    }
    struct str method = text(&r, "method", 32, "must be an HTTP method");
    if (method.p != NULL && !is_token(method)) problem(&r, "/method", "must be an HTTP method");
    if (method.p != NULL) ret->method = method;
    ret->target = text(&r, "target", EXPLAIN_TEXT_MAX, "must be a path, with its query if any");
    if (json_get(o, "target") == NULL)
        problem(&r, "/target", "is required, such as /v1/chat/completions");
    else if (ret->target.p != NULL &&
             (ret->target.p[0] != '/' || memchr(ret->target.p, ' ', ret->target.n) != NULL))
        problem(&r, "/target", "must begin with / and hold no space");
    read_headers(&r, ret);
    ret->key = text(&r, "key", 64, "must be the id or slug of a key");
    ret->client_ip = text(&r, "client_ip", 64, "must be an IPv4 or IPv6 address");
    ret->model = text(&r, "model", 256, "must be a name of 1 to 256 bytes");
    ret->user = text(&r, "user", 1024, "must be a text of 1 to 1024 bytes");
    ret->input_tokens = count(&r, "input_tokens");
    ret->output_tokens = count(&r, "output_tokens");
    ret->body_bytes = count(&r, "body_bytes");
    ret->body = object(&r, "body");
    ret->claims = object(&r, "claims");
    if (ret->key.p != NULL && ret->claims != NULL)
        problem(&r, "/claims", "are of a token, and a request has a key or a token");
    refuse_unknown(&r);
    return r.good;
}

enum err explain_ask_encode(const struct json *request, const struct clock *clock,
                            const struct rng *rng, const char *from, struct buf *out)
{
    struct json *o = envelope_new(clock, rng, from);
    json_set(o, "request", json_copy(request));
    enum err e = json_print(o, out);
    json_free(o);
    return e;
}

static void into_why(void *ctx, const char *pointer, const char *message)
{
    (void)why_set(ctx, ERR_INVALID, "request%s: %s", pointer, message);
}

enum err explain_ask_decode(struct str data, struct explain_ask *ret, struct why *why)
{
    struct json *root;
    enum err e = envelope_parse(data, &root, why);
    if (e != ERR_OK) return e;
    if (!explain_read(json_get(root, "request"), ret, into_why, why)) {
        json_free(root);
        return ERR_INVALID;
    }
    ret->root = root;
    return ERR_OK;
}

void explain_ask_done(struct explain_ask *m)
{
    json_free(m->root);
    m->root = NULL;
}
