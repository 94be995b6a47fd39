/* SPDX-License-Identifier: Apache-2.0 */
/* See the header. Any thread: no state. */
#include "rt/http_path.h"

/* Decodes s into the arena. ERR_INVALID: a '%' without two hex digits, or a control character. */
static enum err decode(struct str s, bool plus, struct arena *a, struct str *ret)
{
    char *out = arena_alloc(a, s.n + 1);
    size_t n = 0;
    if (out == NULL) return ERR_NOMEM;
    for (size_t i = 0; i < s.n; i++) {
        unsigned char c = (unsigned char)s.p[i];
        if (c == '%') {
            uint64_t v;
            if (s.n - i < 3 || str_hex_to_u64(str_n(s.p + i + 1, 2), &v) != ERR_OK)
                return ERR_INVALID;
            c = (unsigned char)v;
            i += 2;
        } else if (c == '+' && plus) {
            c = ' ';
        }
        if (c < 0x20 || c == 0x7f) return ERR_INVALID;
        out[n++] = (char)c;
    }
    out[n] = '\0';
    *ret = str_n(out, n);
    return ERR_OK;
}

/* Of a decoded path: no segment "." or "..", none empty but the last. */
static bool segments_are_sane(struct str path)
{
    struct str rest = str_n(path.p + 1, path.n - 1);
    while (rest.p != NULL) {
        struct str s = str_cut(&rest, '/');
        if (str_eq(s, STR(".")) || str_eq(s, STR(".."))) return false;
        if (s.n == 0 && rest.p != NULL) return false;
    }
    return true;
}

enum err http_target_parse(struct str target, struct arena *a, struct http_target *ret)
{
    struct http_target t = { 0 };
    static const struct str schemes[] = { { "http://", 7 }, { "https://", 8 } };
    for (size_t i = 0; i < ARRAY_LEN(schemes); i++) {
        size_t n = schemes[i].n;
        if (target.n <= n || !str_ieq(str_n(target.p, n), schemes[i])) continue;
        target = str_n(target.p + n, target.n - n);
        while (target.n > 0 && target.p[0] != '/' && target.p[0] != '?') target.p++, target.n--;
        if (target.n == 0 || target.p[0] == '?') return ERR_INVALID;
        break;
    }
    if (target.n == 0 || target.p[0] != '/') return ERR_INVALID;
    for (size_t i = 0; i < target.n; i++)
        if ((unsigned char)target.p[i] <= ' ' || target.p[i] == '#') return ERR_INVALID;

    t.query = target;
    t.raw = str_cut(&t.query, '?');
    enum err e = decode(t.raw, false, a, &t.path);
    if (e != ERR_OK) return e;
    if (!str_is_utf8(t.path) || !segments_are_sane(t.path)) return ERR_INVALID;
    if (t.query.p != NULL) {
        struct str all;
        if ((e = decode(t.query, true, a, &all)) != ERR_OK) return e;
        if (!str_is_utf8(all)) return ERR_INVALID;
    }
    *ret = t;
    return ERR_OK;
}

bool http_path_match(const struct http_target *t, const char *pattern, struct arena *a,
                     struct str ret_params[HTTP_PATH_PARAMS])
{
    struct str params[HTTP_PATH_PARAMS] = { { NULL, 0 } };
    size_t params_len = 0;
    struct str want = str_of(pattern), have = t->raw;
    ASSERT(want.n > 0 && want.p[0] == '/');
    want.p++, want.n--;
    have.p++, have.n--;
    while (want.p != NULL && have.p != NULL) {
        struct str rest = have, w = str_cut(&want, '/'), h = str_cut(&have, '/'), decoded;
        if (str_eq(w, STR("*"))) {
            ASSERT(want.p == NULL && params_len < HTTP_PATH_PARAMS);
            if (decode(rest, false, a, &params[params_len]) != ERR_OK) return false;
            have = STR_NULL;
            break;
        }
        if (h.n > 0 && memchr(h.p, '%', h.n) != NULL) {
            if (decode(h, false, a, &decoded) != ERR_OK) return false;
        } else {
            decoded = h;
        }
        if (str_eq(w, STR("{}"))) {
            ASSERT(params_len < HTTP_PATH_PARAMS);
            if (decoded.n == 0) return false;
            params[params_len++] = decoded;
        } else if (!str_eq(w, decoded)) {
            return false;
        }
    }
    if (want.p != NULL || have.p != NULL) return false;
    memcpy(ret_params, params, sizeof params);
    return true;
}

struct str http_query_find(struct str query, const char *name, struct arena *a)
{
    while (query.p != NULL) {
        struct str value = str_cut(&query, '&'), key = str_cut(&value, '='), out;
        if (decode(key, true, a, &out) != ERR_OK || !str_eqz(out, name)) continue;
        if (value.p == NULL) return STR("");
        return decode(value, true, a, &out) == ERR_OK ? out : STR_NULL;
    }
    return STR_NULL;
}
