/* SPDX-License-Identifier: Apache-2.0 */
/* What all dialects share. */
#include "dialect.h"

#include <stdlib.h>

int refusal_status(enum refusal r)
{
    static const int status[REFUSE_MAX] = {
        [REFUSE_BAD_KEY] = 401,
        [REFUSE_FORBIDDEN] = 403,
        [REFUSE_NO_ROUTE] = 404,
        [REFUSE_NO_MODEL] = 404,
        [REFUSE_BAD_BODY] = 400,
        [REFUSE_CONTEXT_LENGTH] = 400,
        [REFUSE_BODY_TOO_LARGE] = 413,
        [REFUSE_REQUESTS] = 429,
        [REFUSE_TOKENS] = 429,
        [REFUSE_CONCURRENCY] = 429,
        [REFUSE_QUOTA] = 429,
        [REFUSE_NO_UPSTREAM] = 503,
        [REFUSE_UPSTREAM_LIMIT] = 429,
        [REFUSE_LIMITER_AWAY] = 503,
        [REFUSE_OVERLOADED] = 503,
        [REFUSE_DRAINING] = 503,
        [REFUSE_UPSTREAM_BROKE] = 502,
        [REFUSE_UPSTREAM_DENIED] = 502,
        [REFUSE_UPSTREAM_TIMEOUT] = 504,
        [REFUSE_METHOD] = 405,
        [REFUSE_CLIENT_TIMEOUT] = 408,
        [REFUSE_MEDIA_TYPE] = 415,
        [REFUSE_HEAD_TOO_LARGE] = 431,
        [REFUSE_UNKNOWN_CODING] = 501,
        [REFUSE_BAD_REQUEST] = 400,
        [REFUSE_INTERNAL] = 500,
    };
    ASSERT((unsigned)r < REFUSE_MAX);
    return status[r];
}

const struct dialect *dialect_of(enum snap_endpoint ep)
{
    switch (ep) {
    case SNAP_EP_MESSAGES:
    case SNAP_EP_COUNT_TOKENS: return &dialect_anthropic;
    case SNAP_EP_RESPONSES: return &dialect_responses;
    default: return &dialect_openai;
    }
}

enum snap_endpoint endpoint_of_path(struct str path)
{
    static const struct {
        struct str end;
        enum snap_endpoint ep;
    } ends[] = {
#define END(text) { text, sizeof(text) - 1 }
        { END("/chat/completions"), SNAP_EP_CHAT },
        { END("/completions"), SNAP_EP_COMPLETIONS },
        { END("/embeddings"), SNAP_EP_EMBEDDINGS },
        { END("/responses"), SNAP_EP_RESPONSES },
        { END("/messages/count_tokens"), SNAP_EP_COUNT_TOKENS },
        { END("/messages"), SNAP_EP_MESSAGES },
        { END("/models"), SNAP_EP_MODELS },
#undef END
    };
    /* As a lenient server may read it: one '/' at the end, parameters, capital letters. */
    path = str_cut(&path, ';');
    if (path.n > 1 && path.p[path.n - 1] == '/') path.n--;
    for (size_t i = 0; i < ARRAY_LEN(ends); i++) {
        struct str end = ends[i].end;
        if (path.n < end.n || !str_ieq(str_n(path.p + path.n - end.n, end.n), end)) continue;
        /* The messages of a thread are another API. */
        bool thread = ends[i].ep == SNAP_EP_MESSAGES && str_contains(path, STR("/threads/"));
        return thread ? SNAP_EP_PASSTHROUGH : ends[i].ep;
    }
    return SNAP_EP_PASSTHROUGH;
}

/* From '/' to '/': a search for the whole text takes its time to begin. */
static bool names_batches(struct str path)
{
    const struct str name = STR("/messages/batches");
    while (path.n >= name.n && !str_starts(path, name)) {
        const char *next = memchr(path.p + 1, '/', path.n - 1);
        if (next == NULL) return false;
        path = str_n(next, path.n - (size_t)(next - path.p));
    }
    return path.n >= name.n;
}

const struct dialect *dialect_of_path(struct str path)
{
    if (names_batches(path)) return &dialect_anthropic;
    return dialect_of(endpoint_of_path(path));
}

bool endpoint_is_metered(enum snap_endpoint ep)
{
    return ep == SNAP_EP_CHAT || ep == SNAP_EP_COMPLETIONS || ep == SNAP_EP_MESSAGES ||
           ep == SNAP_EP_RESPONSES;
}

enum err scan_positive(struct js_val v, const char *name, uint64_t *ret, const char **ret_param,
                       struct why *why)
{
    uint64_t n;
    if (v.raw.p == NULL || v.type == JS_NULL) return ERR_OK;
    if (js_u64(v, &n) != ERR_OK || n == 0) {
        *ret_param = name;
        return why_set(why, ERR_INVALID, "%s: must be a whole number of at least 1", name);
    }
    *ret = MAX(*ret, n);
    return ERR_OK;
}

enum err scan_spelling(struct str key, const char *name, const char **ret_param, struct why *why)
{
    if (!js_key_is_like(key, name)) return ERR_OK;
    *ret_param = name;
    return why_set(why, ERR_INVALID, "%s: must be written in lower case", name);
}

enum err scan_want(bool ok, const char *name, const char *what, const char **ret_param,
                   struct why *why)
{
    if (ok) return ERR_OK;
    *ret_param = name;
    return why_set(why, ERR_INVALID, "%s: %s", name, what);
}

/* Only small ASCII letters, digits and '_': nothing else spells it, and it spells nothing else. */
static bool is_spelled_plainly(struct str key)
{
    for (size_t i = 0; i < key.n; i++) {
        char c = key.p[i];
        if (!((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_')) return false;
    }
    return true;
}

static enum err take_member(const struct scan_member *m, struct js_val v, void *into,
                            const char **ret_param, struct why *why)
{
    struct js_val *to = (struct js_val *)(void *)((char *)into + m->offset);
    if (to->raw.p != NULL) return scan_want(false, m->name, "given twice", ret_param, why);
    *to = v;
    return ERR_OK;
}

static enum err scan_member_of(struct str key, struct js_val v, const struct scan_member *members,
                               size_t n, void *into, const char **ret_param, struct why *why)
{
    for (size_t i = 0; i < n; i++) /* names have no escapes */
        if (str_eq(key, str_n(members[i].name, members[i].name_n)))
            return take_member(&members[i], v, into, ret_param, why);
    if (is_spelled_plainly(key)) return ERR_OK;
    for (size_t i = 0; i < n; i++) {
        const struct scan_member *m = &members[i];
        if (js_key_is(key, m->name)) return take_member(m, v, into, ret_param, why);
        enum err e = scan_spelling(key, m->name, ret_param, why);
        if (e != ERR_OK) return e;
    }
    return ERR_OK;
}

enum err scan_members(struct js_val root, const struct scan_member *members, size_t n, void *into,
                      const char **ret_param, struct why *why)
{
    struct js_iter it;
    struct str key;
    struct js_val v;
    enum err e = scan_want(js_is(root, JS_OBJECT), "body", "must be a JSON object", ret_param, why);
    if (e != ERR_OK) return e;
    js_iter_init(&it, root);
    while (e == ERR_OK && js_next_member(&it, &key, &v))
        e = scan_member_of(key, v, members, n, into, ret_param, why);
    return e;
}

/* --- chunks --- */

static bool has_room(struct chunk *c)
{
    if (c->deltas_n < c->deltas_cap) return true;
    size_t cap = c->deltas_cap * 4;
    if (cap > CHUNK_MAX_DELTAS) return false;
    struct delta *more = malloc(cap * sizeof *more);
    if (more == NULL) return false;
    memcpy(more, c->deltas, c->deltas_n * sizeof *more);
    if (c->deltas != c->few) free(c->deltas);
    c->deltas = more;
    c->deltas_cap = cap;
    return true;
}

static bool add(struct chunk *c, const struct delta *d)
{
    bool fits = d->form == DELTA_OBJECT ? js_is(d->text, JS_OBJECT) : js_is(d->text, JS_STRING);
    if (!fits || d->text.raw.n <= 2) return true;
    if (!has_room(c)) return false;
    c->deltas[c->deltas_n++] = *d;
    return true;
}

bool chunk_add_delta(struct chunk *c, enum delta_kind kind, uint64_t choice, uint64_t item,
                     struct js_val text)
{
    struct delta d = { kind, DELTA_PIECE, (uint32_t)choice, (uint32_t)item, 0, text };
    return add(c, &d);
}

bool chunk_add_form(struct chunk *c, enum delta_form form, enum delta_kind kind, uint64_t item,
                    struct js_val text)
{
    struct delta d = { kind, form, 0, (uint32_t)item, 0, text };
    return add(c, &d);
}

void chunk_init(struct chunk *c)
{
    c->deltas = c->few;
    c->deltas_cap = CHUNK_FEW_DELTAS;
    chunk_clear(c);
}

void chunk_done(struct chunk *c)
{
    if (c->deltas != c->few) free(c->deltas);
    c->deltas = c->few;
}

void chunk_clear(struct chunk *c)
{
    const struct js_val absent = JS_ABSENT;
    /* Not the arrays: they are large, and their lengths say what counts. */
    c->is_done = c->is_error = c->usage_only = c->block_started = c->block_stopped = false;
    c->uncountable = c->has_sequence = false;
    c->deltas_n = c->choices_n = 0;
    c->usage = c->completion_tokens = c->total_tokens = c->incomplete_details = absent;
    c->sequence_at = c->padding = absent;
    c->usage_member = STR_NULL;
    c->reported = (struct reported_usage){ 0 };
}
