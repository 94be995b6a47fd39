/* SPDX-License-Identifier: Apache-2.0 */
/* Routes, keys and models: what a request of a namespace may use, and where it goes. */
#include "match.h"
#include "match_impl.h"
#include "tokenizer/models/models.h"

enum { MODEL_MAX = 1024, PATH_MAX_BYTES = 16 * 1024 };

bool match_in(const struct snap_strings *list, struct str s)
{
    for (size_t i = 0; i < list->n; i++)
        if (str_eq(list->v[i], s)) return true;
    return false;
}

static bool match_any(const struct snap_strings *patterns, struct str s)
{
    for (size_t i = 0; i < patterns->n; i++)
        if (snap_glob(patterns->v[i], s, true)) return true;
    return false;
}

/* --- routes --- */

/* The routes of a namespace that take this path and host, in their order. */
struct places {
    const struct matching *m;
    const struct snap_namespace *ns;
    const struct match_input *in;
    struct index_walk walk;
    uint32_t next; /* when all have to be looked at */
};

static void begin(struct places *p, const struct matching *m, const struct snap_namespace *ns,
                  const struct match_input *in)
{
    p->m = m;
    p->ns = ns;
    p->in = in;
    p->next = 0;
    index_walk_init(&p->walk);
    index_walk_find(&p->walk, m->routes, (uint32_t)(ns - m->snap->namespaces), in->req->path);
}

static bool takes_path(const struct matching *m, const struct snap_route *r, struct str path)
{
    switch (r->path_kind) {
    case SNAP_PATH_EXACT: return str_eq(path, r->path);
    case SNAP_PATH_PREFIX: return str_starts(path, r->path);
    case SNAP_PATH_REGEX: return regex_matches(m->route_regexes[r - m->snap->routes], path);
    }
    return false;
}

static const struct snap_route *next(struct places *p)
{
    const struct snapshot *s = p->m->snap;
    for (;;) {
        uint32_t rank;
        if (p->walk.overflow) {
            if (p->next == s->routes_n) return NULL;
            rank = p->next++;
        } else if (!index_walk_next(&p->walk, &rank)) {
            return NULL;
        }
        const struct snap_route *r = &s->routes[rank];
        if (r->ns != p->ns || !takes_path(p->m, r, p->in->req->path)) continue;
        if (r->hosts.n == 0 || match_any(&r->hosts, p->in->host)) return r;
    }
}

bool match_route_takes_model(const struct snap_route *r, struct str model)
{
    return r->models.n == 0 || match_any(&r->models, model);
}

enum match_result match_route(const struct matching *m, const struct snap_namespace *ns,
                              const struct match_input *in, const struct snap_route **ret)
{
    enum match_result nearest = MATCH_NO_PATH;
    struct places p;
    const struct snap_route *r;
    begin(&p, m, ns, in);
    while ((r = next(&p)) != NULL) {
        if (r->methods.n > 0 && !match_in(&r->methods, in->req->method_str))
            nearest = MAX(nearest, MATCH_NO_METHOD);
        else if (in->model.p != NULL && !match_route_takes_model(r, in->model))
            nearest = MAX(nearest, MATCH_NO_MODEL);
        else
            return *ret = r, MATCH_OK;
    }
    return nearest;
}

enum err match_allow(const struct matching *m, const struct snap_namespace *ns,
                     const struct match_input *in, struct buf *out)
{
    struct places p;
    const struct snap_route *r;
    enum { METHODS_MAX = 32 };
    struct str seen[METHODS_MAX];
    struct snap_strings said = { seen, 0 };
    enum err e = ERR_OK;
    begin(&p, m, ns, in);
    while (e == ERR_OK && (r = next(&p)) != NULL) {
        for (size_t i = 0; i < r->methods.n && e == ERR_OK; i++) {
            if (said.n == METHODS_MAX || match_in(&said, r->methods.v[i])) continue;
            if (said.n > 0) e = buf_appendz(out, ", ");
            if (e == ERR_OK) e = buf_append_str(out, r->methods.v[i]);
            seen[said.n++] = r->methods.v[i];
        }
    }
    return e;
}

static enum err fill_in(struct str to, struct str path, const struct regex_span *groups,
                        struct buf *out)
{
    enum err e = ERR_OK;
    for (size_t i = 0; i < to.n && e == ERR_OK; i++) {
        if (to.p[i] != '$' || i + 1 == to.n) {
            e = buf_append_char(out, to.p[i]);
        } else if (to.p[++i] == '$') {
            e = buf_append_char(out, '$');
        } else {
            const struct regex_span *g = &groups[to.p[i] - '0'];
            if (g->from <= g->to) e = buf_append(out, path.p + g->from, g->to - g->from);
        }
    }
    return e;
}

enum err match_rewrite(const struct matching *m, const struct snap_route *r, struct str path,
                       struct arena *a, struct str *ret)
{
    struct regex_span groups[REGEX_GROUPS_MAX];
    struct buf b;
    if (r->rewrite_path.p == NULL) return *ret = path, ERR_OK;
    if (r->path_kind != SNAP_PATH_REGEX) return *ret = r->rewrite_path, ERR_OK;
    const struct regex *regex = m->route_regexes[r - m->snap->routes];
    if (regex_find(regex, path, 0, groups, REGEX_GROUPS_MAX) != REGEX_YES) return ERR_INVALID;
    buf_init(&b, PATH_MAX_BYTES);
    enum err e = fill_in(r->rewrite_path, path, groups, &b);
    if (e == ERR_OK && !match_path_is_plain(buf_str(&b))) e = ERR_INVALID;
    if (e == ERR_OK) e = arena_dup(a, buf_str(&b), ret);
    buf_done(&b);
    return e;
}

size_t match_param(const struct matching *m, const struct snap_route *r, size_t i)
{
    return m->route_params[r - m->snap->routes][i];
}

/* --- keys and models --- */

const struct snap_key *match_key(const struct snapshot *s, const unsigned char hmac[SNAP_HMAC_LEN])
{
    size_t low = 0, high = s->keys_n;
    while (low < high) {
        size_t mid = low + (high - low) / 2;
        /* The order of keyed digests tells nothing about the key. */
        int c = memcmp(s->keys[mid].hmac, hmac, SNAP_HMAC_LEN);
        if (c == 0) return &s->keys[mid];
        if (c < 0)
            low = mid + 1;
        else
            high = mid;
    }
    return NULL;
}

bool match_key_allows(const struct snap_key *k, struct str model, const struct snap_model *known)
{
    return k == NULL || k->models.n == 0 || match_any(&k->models, model) ||
           (known != NULL && match_any(&k->models, known->name));
}

const struct snap_model *match_model(const struct matching *m, struct str model)
{
    char room[MODEL_MAX];
    struct index_walk walk;
    uint32_t rank;
    struct str name = match_lower(model, room, sizeof room);
    if (name.n == 0) return NULL;
    const struct snap_model *found = map_get(&m->model_names, name);
    if (found != NULL) return found;
    index_walk_init(&walk);
    index_walk_find(&walk, m->model_patterns, 0, name);
    for (uint32_t i = 0;; i++) {
        if (walk.overflow ? (rank = i) == m->snap->models_n : !index_walk_next(&walk, &rank))
            return NULL;
        const struct snap_model *one = &m->snap->models[rank];
        for (size_t k = 0; k < one->patterns.n; k++)
            if (models_match(one->patterns.v[k], model)) return one;
    }
}

/* --- paths --- */

static bool is_unreserved(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
           c == '.' || c == '_' || c == '~';
}

/* Bytes that mean themselves wherever they are: most of a path. */
static bool is_usual(char c)
{
    static const bool usual[256] = { ['a' ... 'z'] = true, ['A' ... 'Z'] = true,
                                     ['0' ... '9'] = true, ['-'] = true,
                                     ['_'] = true,         ['~'] = true };
    return usual[(unsigned char)c];
}

bool match_path_is_plain(struct str path)
{
    size_t dots = 0;     /* of the segment, decoded */
    bool other = false;  /* it has something else, too */
    bool params = false; /* behind a ';' of the segment, which some servers drop */
    if (path.n == 0 || path.p[0] != '/') return false;
    for (size_t i = 1; i <= path.n; i++) {
        size_t from = i;
        while (i < path.n && is_usual(path.p[i])) i++;
        if (i > from && !params) other = true;
        char c = i < path.n ? path.p[i] : '/';
        if (c == '/') {
            if (!other && (dots == 1 || dots == 2)) return false;
            if (!other && dots == 0 && (i < path.n || params)) return false;
            dots = 0;
            other = params = false;
            continue;
        }
        if (c == '%') {
            uint64_t v;
            if (path.n - i < 3) return false;
            if (str_hex_to_u64(str_n(path.p + i + 1, 2), &v) != ERR_OK) return false;
            c = (char)v;
            i += 2;
            if (c == '/' || c == '\0' || is_unreserved(c)) return false;
        }
        if (c == '\\') return false;
        if (c == ';') params = true;
        if (!params && c == '.') dots++;
        if (!params && c != '.') other = true;
    }
    return true;
}
