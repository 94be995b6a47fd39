/* SPDX-License-Identifier: Apache-2.0 */
/* Conditions and matchers: what a request must look like to be a namespace's. The decoder's thread.
 */
#include <stdio.h>

#include "proto/snapshot_decode.h"
#include "rt/regex.h"

enum { VALUE_MAX_BYTES = 1024, VALUES_MAX = 256, POINTER_DEPTH_MAX = 8 };

static const char *const sources[] = {
    [SNAP_SRC_HEADER] = "header",       [SNAP_SRC_QUERY] = "query", [SNAP_SRC_PATH] = "path",
    [SNAP_SRC_METHOD] = "method",       [SNAP_SRC_HOST] = "host",   [SNAP_SRC_MODEL] = "model",
    [SNAP_SRC_CLIENT_IP] = "client_ip", [SNAP_SRC_KEY] = "key",     [SNAP_SRC_CLAIM] = "claim",
    [SNAP_SRC_BODY] = "body",
};

/* --- names --- */

/* RFC 6901: begins with a slash, ~ only as ~0 and ~1; not deeper than what is looked for. */
static bool is_pointer(struct str s)
{
    int depth = 0;
    for (size_t i = 0; i < s.n; i++) {
        if (s.p[i] == '/') depth++;
        if (s.p[i] == '~' && (i + 1 == s.n || (s.p[i + 1] != '0' && s.p[i + 1] != '1')))
            return false;
    }
    return s.n > 0 && s.p[0] == '/' && depth <= POINTER_DEPTH_MAX;
}

/* A member's name as a pointer to it: "https://a/b" is "/https:~1~1a~1b". */
static struct str pointer_to(struct snap_decoder *d, struct str name)
{
    struct buf b;
    buf_init(&b, 1024);
    enum err e = buf_append_char(&b, '/');
    for (size_t i = 0; i < name.n && e == ERR_OK; i++)
        e = name.p[i] == '~'   ? buf_appendz(&b, "~0")
            : name.p[i] == '/' ? buf_appendz(&b, "~1")
                               : buf_append_char(&b, name.p[i]);
    struct str s = e == ERR_OK ? dec_copy(d, buf_str(&b)) : STR("");
    if (e != ERR_OK) d->out_of_memory = true;
    buf_done(&b);
    return s;
}

static struct str decode_name(struct snap_decoder *d, const struct json *o, enum snap_source source)
{
    if (source != SNAP_SRC_HEADER && source != SNAP_SRC_QUERY && source != SNAP_SRC_CLAIM &&
        source != SNAP_SRC_BODY) {
        dec_absent(d, o, "name",
                   "only headers, query arguments, claims and body members have a name");
        return STR("");
    }
    struct str name = dec_text(d, o, "name", DEC_REQUIRED, 1, 128);
    if (name.p == NULL) return STR("");
    if (source == SNAP_SRC_HEADER) {
        if (!dec_is_token(name)) dec_problem_at(d, "name", "must be the name of a header");
        return dec_copy_lower(d, name);
    }
    if (source == SNAP_SRC_CLAIM && name.p[0] != '/') return pointer_to(d, name);
    if (source != SNAP_SRC_QUERY && !is_pointer(name))
        dec_problem_at(d, "name",
                       "must be a JSON pointer of at most %d steps, such as /metadata/team",
                       POINTER_DEPTH_MAX);
    return name;
}

/* --- values --- */

static void check_regex(struct snap_decoder *d, struct str pattern)
{
    struct regex *r;
    struct why why = { "" };
    enum err e = regex_new(pattern, REGEX_ANY_BYTES, SNAP_REGEX_STEPS, &r, &why);
    if (e == ERR_OK)
        regex_free(r);
    else
        dec_problem_at(d, "value", "is no regular expression: %s", why.text);
}

static void decode_networks(struct snap_decoder *d, struct snap_cond *out)
{
    struct snap_network *v = dec_alloc(d, out->values.n, sizeof *v);
    for (size_t i = 0; v != NULL && i < out->values.n; i++) {
        struct str s = out->values.v[i];
        const char *problem = s.p != NULL ? snap_network_parse(s, &v[i]) : NULL;
        if (problem == NULL) continue;
        size_t mark = dec_enter(d, out->op == SNAP_OP_IN ? STR("values") : STR("value"));
        size_t inner = out->op == SNAP_OP_IN ? dec_enter_index(d, i) : mark;
        dec_problem(d, "%s", problem);
        dec_leave(d, inner);
        dec_leave(d, mark);
    }
    out->networks = v;
}

static void decode_values(struct snap_decoder *d, const struct json *o, struct snap_cond *out)
{
    if (out->op == SNAP_OP_IN) {
        out->values = dec_strings(d, o, "values", VALUES_MAX, VALUE_MAX_BYTES, NULL, "");
        if (dec_member(o, "values") == NULL || json_len(json_get(o, "values")) == 0)
            dec_problem_at(d, "values", "must hold at least one value");
        dec_absent(d, o, "value", "\"in\" takes \"values\"");
    } else if (out->op == SNAP_OP_EXISTS) {
        dec_absent(d, o, "value", "\"exists\" takes no value");
        dec_absent(d, o, "values", "\"exists\" takes no values");
    } else {
        struct str *one = dec_alloc(d, 1, sizeof(*one));
        struct str value = dec_text(d, o, "value", DEC_REQUIRED, 0, VALUE_MAX_BYTES);
        if (value.p != NULL && value.n == 0 && out->op != SNAP_OP_EQUALS)
            dec_problem_at(d, "value", "must not be empty");
        else if (value.p != NULL && out->op == SNAP_OP_REGEX)
            check_regex(d, value);
        if (one != NULL && value.p != NULL) {
            *one = value;
            out->values = (struct snap_strings){ one, 1 };
        }
        dec_absent(d, o, "values", "only \"in\" takes several values");
    }
}

static void decode_test(struct snap_decoder *d, const struct json *o, struct snap_cond *out)
{
    static const char *const ops[] = {
        [SNAP_OP_EQUALS] = "equals",     [SNAP_OP_IN] = "in",
        [SNAP_OP_PREFIX] = "prefix",     [SNAP_OP_SUFFIX] = "suffix",
        [SNAP_OP_CONTAINS] = "contains", [SNAP_OP_EXISTS] = "exists",
        [SNAP_OP_REGEX] = "regex",
    };
    static const char *const keys[] = { "source", "name", "op", "value", "values", NULL };
    out->kind = SNAP_COND_TEST;
    out->source = (enum snap_source)dec_word(d, o, "source", sources, ARRAY_LEN(sources), -1);
    out->op = (enum snap_op)dec_word(d, o, "op", ops, ARRAY_LEN(ops), SNAP_OP_EQUALS);
    out->name = decode_name(d, o, out->source);
    decode_values(d, o, out);
    if (out->source == SNAP_SRC_CLIENT_IP) {
        if (out->op == SNAP_OP_EQUALS || out->op == SNAP_OP_IN)
            decode_networks(d, out);
        else
            dec_problem_at(d, "op",
                           "of a client_ip must be equals or in, with networks such as 10.0.0.0/8");
    }
    dec_known(d, o, keys);
}

static void decode_cond(struct snap_decoder *d, const struct json *o, struct snap_cond *out,
                        int depth, int *nodes)
{
    static const char *const groups[] = { "all", "any", "not" };
    static const enum snap_cond_kind kinds[] = { SNAP_COND_ALL, SNAP_COND_ANY, SNAP_COND_NOT };
    size_t found = ARRAY_LEN(groups), i = 0;
    out->kind = SNAP_COND_ANY; /* of nothing: holds never */
    if (depth >= SNAP_COND_MAX_DEPTH) {
        dec_problem(d, "conditions may be nested %d deep", SNAP_COND_MAX_DEPTH);
        return;
    }
    if (++*nodes > SNAP_COND_MAX_NODES) {
        if (*nodes == SNAP_COND_MAX_NODES + 1)
            dec_problem(d, "a matcher may have %d conditions", SNAP_COND_MAX_NODES);
        return;
    }
    for (size_t g = 0; g < ARRAY_LEN(groups) && found == ARRAY_LEN(groups); g++)
        if (dec_member(o, groups[g]) != NULL) found = g;
    if (!json_is(o, JSON_OBJECT)) {
        dec_problem(d, "must be an object with \"all\", \"any\", \"not\" or a test");
        return;
    }
    if (found == ARRAY_LEN(groups)) {
        decode_test(d, o, out);
        return;
    }
    if (json_len(o) != 1)
        dec_problem(d, "\"%s\" must be the only member of its object", groups[found]);
    const struct json *under = json_get(o, groups[found]);
    size_t mark = dec_enter(d, str_of(groups[found])), n = json_len(under);
    bool not = kinds[found] == SNAP_COND_NOT;
    if (!not &&(!json_is(under, JSON_ARRAY) || n == 0)) {
        dec_problem(d, "must be a list of at least one condition");
    } else {
        n = not ? 1 : MIN(n, (size_t)SNAP_COND_MAX_NODES + 1);
        struct snap_cond *children = dec_alloc(d, n, sizeof(*children));
        const struct json *it = not ? under : json_first(under);
        for (; children != NULL && i < n && it != NULL; i++, it = not ? NULL : json_next(it)) {
            size_t inner = not ? d->pointer_n : dec_enter_index(d, i);
            decode_cond(d, it, &children[i], depth + 1, nodes);
            dec_leave(d, inner);
        }
        out->kind = kinds[found];
        out->children = children;
        out->children_n = children != NULL ? i : 0;
    }
    dec_leave(d, mark);
}

/* Tokens are looked at apart from requests. */
static void check_claims_only(struct snap_decoder *d, const struct snap_cond *c)
{
    if (c->kind == SNAP_COND_TEST && c->source != SNAP_SRC_CLAIM)
        dec_problem(d, "must be about claims only, not about a %s", sources[c->source]);
    for (size_t i = 0; i < c->children_n; i++) check_claims_only(d, &c->children[i]);
}

const struct snap_cond *dec_condition(struct snap_decoder *d, const struct json *o, const char *key,
                                      bool claims_only)
{
    struct snap_cond *c = dec_alloc(d, 1, sizeof(*c));
    if (dec_member(o, key) == NULL) {
        dec_problem_at(d, key, "is required");
    } else if (c != NULL) {
        int nodes = 0;
        size_t mark = dec_enter(d, str_of(key));
        decode_cond(d, json_get(o, key), c, 0, &nodes);
        if (claims_only) check_claims_only(d, c);
        dec_leave(d, mark);
    }
    return c;
}

void snap_decode_matcher(struct snap_decoder *d, const struct json *o, struct snap_matcher *out)
{
    static const char *const keys[] = { "id", "namespace", "slug", "priority", "when", NULL };
    out->id = dec_id(d, o, "id");
    out->slug = dec_slug(d, o);
    out->ns = dec_namespace(d, o, false);
    out->priority = dec_i64(d, o, "priority", 0, -DEC_PRIORITY_MAX, DEC_PRIORITY_MAX);
    out->when = dec_condition(d, o, "when", false);
    dec_known(d, o, keys);
}
