/* SPDX-License-Identifier: Apache-2.0 */
/* See the header. */
#include "model_wants.h"

#include <stdio.h>

#include "base/map.h"
#include "proto/snapshot.h"

enum { OF_BODIES, OF_TOKENS, WANT_KINDS, PLACE_MAX = 256, POINTER_ROOM = 512, PARSE_MAX = 1 << 24 };

struct wants {
    struct map seen[WANT_KINDS]; /* pointers */
    struct problems *problems;   /* NULL: only counts */
    const struct row *stored;    /* whose they are, of a whole that was imported */
    size_t looked;
};

static const char *list_of(enum kind k)
{
    return k == KIND_MATCHER ? "/matchers" : k == KIND_ROUTE ? "/routes" : "/namespaces";
}

static enum err want(struct wants *w, int kind, struct str pointer, const char *place)
{
    static const char *const of[] = { "bodies", "tokens" };
    struct map *seen = &w->seen[kind];
    w->looked++;
    if (map_get(seen, pointer) != NULL) return ERR_OK;
    enum err e = map_put(seen, pointer, w, NULL);
    if (e != ERR_OK || seen->len <= SNAP_POINTERS_MAX || w->problems == NULL) return e;
    if (w->stored == NULL)
        problem_add(w->problems, place,
                    "%.*s is one member of %s too many: the whole configuration may look at %d",
                    (int)MIN(pointer.n, (size_t)128), pointer.p, of[kind], SNAP_POINTERS_MAX);
    else if (seen->len == SNAP_POINTERS_MAX + 1)
        problem_add(w->problems, list_of(w->stored->kind),
                    "%.*s at %s of %.*s is one member of %s too many: the whole configuration may "
                    "look at %d",
                    (int)MIN(pointer.n, (size_t)128), pointer.p, place, STR_ARG(w->stored->slug),
                    of[kind], SNAP_POINTERS_MAX);
    return e;
}

/* A name as the pointer that edges make of it. */
static struct str pointer_to(struct str name, char room[POINTER_ROOM])
{
    size_t n = 0;
    room[n++] = '/';
    for (size_t i = 0; i < name.n && n + 2 < POINTER_ROOM; i++) {
        bool escaped = name.p[i] == '~' || name.p[i] == '/';
        if (escaped) room[n++] = '~';
        room[n++] = name.p[i] == '~' ? '0' : name.p[i] == '/' ? '1' : name.p[i];
    }
    return str_n(room, n);
}

static enum err of_condition(struct wants *w, const struct json *c, const char *place, int depth);

static enum err of_conditions(struct wants *w, const struct json *list, const char *place,
                              const char *name, int depth)
{
    char inner[PLACE_MAX];
    enum err e = ERR_OK;
    size_t i = 0;
    for (const struct json *it = json_first(list); it != NULL && e == ERR_OK;
         it = json_next(it), i++) {
        (void)snprintf(inner, sizeof inner, "%s/%s/%zu", place, name, i);
        e = of_condition(w, it, inner, depth + 1);
    }
    return e;
}

/* What does not fit is told by the rules of conditions themselves. */
static enum err of_condition(struct wants *w, const struct json *c, const char *place, int depth)
{
    char inner[PLACE_MAX], room[POINTER_ROOM];
    struct str source = json_str(json_get(c, "source")), name = json_str(json_get(c, "name"));
    if (depth > SNAP_COND_MAX_DEPTH) return ERR_OK;
    (void)snprintf(inner, sizeof inner, "%s/name", place);
    if (name.n > 0 && str_eqz(source, "body")) return want(w, OF_BODIES, name, inner);
    if (name.n > 0 && str_eqz(source, "claim"))
        return want(w, OF_TOKENS, name.p[0] == '/' ? name : pointer_to(name, room), inner);
    enum err e = of_conditions(w, json_get(c, "all"), place, "all", depth);
    if (e == ERR_OK) e = of_conditions(w, json_get(c, "any"), place, "any", depth);
    (void)snprintf(inner, sizeof inner, "%s/not", place);
    return e == ERR_OK ? of_condition(w, json_get(c, "not"), inner, depth + 1) : e;
}

static enum err of_params(struct wants *w, const struct json *o, const char *member)
{
    char place[PLACE_MAX], room[POINTER_ROOM];
    enum err e = ERR_OK;
    const struct json *params = json_get(o, member);
    for (const struct json *it = json_first(params); it != NULL && e == ERR_OK;
         it = json_next(it)) {
        (void)snprintf(place, sizeof place, "/%s/%.*s", member,
                       (int)MIN(json_key(it).n, (size_t)64), json_key(it).p);
        e = want(w, OF_BODIES, pointer_to(json_key(it), room), place);
    }
    return e;
}

static enum err of_entity(struct wants *w, enum kind k, const struct json *o)
{
    switch (k) {
    case KIND_NAMESPACE: return of_condition(w, json_get(o, "claims"), "/claims", 0);
    case KIND_MATCHER: return of_condition(w, json_get(o, "when"), "/when", 0);
    case KIND_ROUTE: {
        enum err e = of_params(w, o, "defaults");
        return e == ERR_OK ? of_params(w, o, "max") : e;
    }
    default: return ERR_OK;
    }
}

/* All rows of the kind that may look at something, but this one. */
static enum err of_stored(struct wants *w, struct tx *t, enum kind k, const char *like,
                          const struct row *but, struct why *why)
{
    struct rows found;
    struct row_filter f = { .body_like = like };
    enum err e = store_list(t->db, k, &f, t->arena, &found, why);
    for (size_t i = 0; i < found.n && e == ERR_OK; i++) {
        struct json *o;
        if (but != NULL && but->kind == k && str_eq(found.v[i].id, but->id)) continue;
        e = json_parse(found.v[i].body, PARSE_MAX, &o, why);
        if (e != ERR_OK) break;
        if (w->problems != NULL) w->stored = &found.v[i];
        e = of_entity(w, k, o);
        json_free(o);
    }
    return e;
}

static enum err of_all(struct wants *w, struct tx *t, const struct row *but, struct why *why)
{
    static const struct {
        enum kind kind;
        const char *like;
    } from[] = { { KIND_NAMESPACE, "%\"source\":\"claim\"%" },
                 { KIND_MATCHER, "%\"source\":\"body\"%" },
                 { KIND_MATCHER, "%\"source\":\"claim\"%" },
                 { KIND_ROUTE, "%\"defaults\":{\"%" },
                 { KIND_ROUTE, "%\"max\":{\"%" } };
    enum err e = ERR_OK;
    for (size_t i = 0; i < ARRAY_LEN(from) && e == ERR_OK; i++)
        e = of_stored(w, t, from[i].kind, from[i].like, but, why);
    return e;
}

enum err model_check_wants(struct tx *t, const struct row *row, const struct json *o,
                           struct problems *problems, struct why *why)
{
    struct wants w = { .problems = NULL };
    enum err e = ERR_OK;
    for (int i = 0; i < WANT_KINDS; i++) map_init(&w.seen[i], 1 << 20);
    if (row != NULL) {
        /* Most look at nothing: then there is nothing to be counted. */
        e = of_entity(&w, row->kind, o);
        if (e != ERR_OK || w.looked == 0) goto out;
        for (int i = 0; i < WANT_KINDS; i++) {
            map_done(&w.seen[i]);
            map_init(&w.seen[i], 1 << 20);
        }
        e = of_all(&w, t, row, why);
        w.problems = problems;
        if (e == ERR_OK) e = of_entity(&w, row->kind, o);
    } else {
        w.problems = problems;
        e = of_all(&w, t, NULL, why);
    }
out:
    for (int i = 0; i < WANT_KINDS; i++) map_done(&w.seen[i]);
    return e;
}
