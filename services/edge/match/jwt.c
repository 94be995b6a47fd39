/* SPDX-License-Identifier: Apache-2.0 */
#include "jwt.h"

#include <math.h>
#include <stdlib.h>

bool jwt_looks_like(struct str text)
{
    size_t dots = 0;
    if (!str_starts(text, STR("eyJ"))) return false; /* {" */
    for (size_t i = 0; i < text.n; i++) dots += text.p[i] == '.';
    return dots == 2;
}

static enum err decode(struct str part, struct arena *a, struct str *ret)
{
    struct buf b;
    buf_init(&b, JWT_MAX_BYTES);
    enum err e = base64url_decode(part, &b);
    if (e == ERR_OK) e = arena_dup(a, buf_str(&b), ret);
    buf_done(&b);
    return e;
}

/* --- header --- */

static enum err take_header(struct str text, struct arena *a, struct jwt *t, struct why *why)
{
    static const char *const names[] = { "/alg", "/kid", "/crit" };
    struct js_wants *w = js_wants_new();
    struct js_val root, found[ARRAY_LEN(names)];
    size_t place;
    enum err e = ERR_OK;
    for (size_t i = 0; i < ARRAY_LEN(names) && e == ERR_OK; i++)
        e = js_wants_add(w, str_of(names[i]), &place);
    if (e == ERR_OK) e = js_parse_wanting(text, w, &root, found, why);
    js_wants_free(w);
    if (e != ERR_OK) return e == ERR_NOMEM ? e : why_set(why, ERR_INVALID, "its header is no JSON");
    struct js_val alg = found[0], kid = found[1];
    if (found[2].raw.p != NULL)
        return why_set(why, ERR_INVALID,
                       "its header has extensions (crit) that are not understood");
    if (!js_is(alg, JS_STRING) || !jwt_alg_parse(str_n(alg.raw.p + 1, alg.raw.n - 2), &t->alg))
        return why_set(why, ERR_INVALID, "its algorithm is not one of public keys");
    t->kid = STR_NULL;
    if (kid.raw.p == NULL) return ERR_OK;
    struct buf b;
    buf_init(&b, JWT_MAX_BYTES);
    e = js_is(kid, JS_STRING) ? js_decode(kid, &b) : ERR_INVALID;
    if (e == ERR_OK) e = arena_dup(a, buf_str(&b), &t->kid);
    buf_done(&b);
    return e == ERR_INVALID ? why_set(why, e, "its kid is no text") : e;
}

/* --- claims --- */

static bool take_time(struct js_val v, bool *ret_has, double *ret)
{
    char text[40];
    *ret_has = v.raw.p != NULL && v.type != JS_NULL;
    if (!*ret_has) return true;
    if (!js_is(v, JS_NUMBER) || !str_copyz(text, sizeof text, v.raw)) return false;
    *ret = strtod(text, NULL);
    return isfinite(*ret);
}

/* Registered claims may be among what is wanted, but need not; twice is refused either way. */
static enum err take_claims(struct jwt *t, struct why *why)
{
    static const char *const names[] = { "iss", "aud", "exp", "nbf", "iat" };
    struct js_val v[ARRAY_LEN(names)] = { JS_ABSENT }, one;
    struct js_iter it;
    struct str key;
    if (!js_is(t->claims, JS_OBJECT)) return why_set(why, ERR_INVALID, "its claims are no object");
    js_iter_init(&it, t->claims);
    while (js_next_member(&it, &key, &one)) {
        for (size_t i = 0; i < ARRAY_LEN(names); i++) {
            if (!js_key_is(key, names[i])) continue;
            if (v[i].raw.p != NULL)
                return why_set(why, ERR_INVALID, "its claim %s occurs twice", names[i]);
            v[i] = one;
        }
    }
    t->iss = v[0];
    t->aud = v[1];
    if (!take_time(v[2], &t->has_exp, &t->exp) || !take_time(v[3], &t->has_nbf, &t->nbf) ||
        !take_time(v[4], &t->has_iat, &t->iat))
        return why_set(why, ERR_INVALID, "one of its times is no number");
    return ERR_OK;
}

enum err jwt_parse(struct str text, const struct js_wants *wants, struct arena *a, struct jwt *ret,
                   struct js_val *ret_found, struct why *why)
{
    struct jwt t = { .alg = JWT_RS256 };
    struct str rest = text, header, claims;
    if (text.n > JWT_MAX_BYTES) return why_set(why, ERR_INVALID, "it is too long");
    struct str first = str_cut(&rest, '.'), second = str_cut(&rest, '.');
    if (second.p == NULL || rest.n == 0 || memchr(rest.p, '.', rest.n) != NULL)
        return why_set(why, ERR_INVALID, "it has not three parts");
    t.signed_part = str_n(text.p, first.n + 1 + second.n);
    enum err e = decode(first, a, &header);
    if (e == ERR_OK) e = decode(second, a, &claims);
    if (e == ERR_OK) e = decode(rest, a, &t.signature);
    if (e == ERR_INVALID) return why_set(why, e, "it is not base64");
    if (e == ERR_OK) e = take_header(header, a, &t, why);
    if (e != ERR_OK) return e;
    e = js_parse_wanting(claims, wants, &t.claims, ret_found, why);
    if (e != ERR_OK)
        return e == ERR_NOMEM ? e : why_set(why, ERR_INVALID, "its claims are no plain JSON");
    e = take_claims(&t, why);
    if (e == ERR_OK) *ret = t;
    return e;
}

static bool is_text(struct js_val v, struct str want)
{
    struct buf b;
    bool same = false;
    if (!js_is(v, JS_STRING)) return false;
    buf_init(&b, JWT_MAX_BYTES);
    if (js_decode(v, &b) == ERR_OK) same = str_eq(buf_str(&b), want);
    buf_done(&b);
    return same;
}

bool jwt_is_from(const struct jwt *t, struct str issuer)
{
    return is_text(t->iss, issuer);
}

static bool is_meant(struct js_val aud, struct str audience)
{
    struct js_iter it;
    struct js_val one;
    if (is_text(aud, audience)) return true;
    if (!js_is(aud, JS_ARRAY)) return false;
    js_iter_init(&it, aud);
    while (js_next_element(&it, &one))
        if (is_text(one, audience)) return true;
    return false;
}

enum err jwt_check(const struct jwt *t, const struct snap_issuer *issuer, uint64_t now_s,
                   struct why *why)
{
    double now = (double)now_s, leeway = (double)issuer->leeway_s;
    bool meant = false;
    if ((issuer->algorithms & 1u << t->alg) == 0)
        return why_set(why, ERR_DENIED, "its algorithm is not one that the issuer signs with");
    if (!jwt_is_from(t, issuer->issuer)) return why_set(why, ERR_DENIED, "its issuer is another");
    for (size_t i = 0; i < issuer->audiences.n && !meant; i++)
        meant = is_meant(t->aud, issuer->audiences.v[i]);
    if (!meant) return why_set(why, ERR_DENIED, "it is meant for another audience");
    if (!t->has_exp) return why_set(why, ERR_DENIED, "it never expires");
    if (now >= t->exp + leeway) return why_set(why, ERR_DENIED, "it has expired");
    if (t->has_nbf && now < t->nbf - leeway) return why_set(why, ERR_DENIED, "it is not valid yet");
    if (t->has_iat && now < t->iat - leeway)
        return why_set(why, ERR_DENIED, "it was issued in the future");
    return ERR_OK;
}
