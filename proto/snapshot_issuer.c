/* SPDX-License-Identifier: Apache-2.0 */
/* Issuers: whose signed tokens (JWT) are taken, and which. The decoder's thread. */
#include "proto/snapshot_decode.h"

enum { TEXT_MAX_BYTES = 1024, AUDIENCES_MAX = 16, REFRESH_MAX_S = 86400, LEEWAY_MAX_S = 600 };

/* Neither "none" nor anything with a shared secret: what is public must not verify. */
static bool is_alg(struct str s)
{
    enum jwt_alg a;
    return jwt_alg_parse(s, &a);
}

static void decode_algorithms(struct snap_decoder *d, const struct json *o, struct snap_issuer *out)
{
    enum jwt_alg a;
    struct snap_strings list = dec_strings(
        d, o, "algorithms", JWT_ALGS, 16, is_alg,
        "must be one of RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, EdDSA");
    if (list.n == 0)
        dec_problem_at(d, "algorithms", "must hold at least one: those that the issuer signs with");
    for (size_t i = 0; i < list.n; i++)
        if (list.v[i].p != NULL && jwt_alg_parse(list.v[i], &a)) out->algorithms |= 1u << a;
}

static void decode_jwks(struct snap_decoder *d, const struct json *o, struct snap_issuer *out)
{
    const struct json *jwks = dec_member(o, "jwks");
    struct why why = { "" };
    struct jwks *parsed;
    struct buf text;
    if (jwks == NULL) return;
    buf_init(&text, JWKS_MAX_BYTES);
    enum err e = json_print(jwks, &text);
    if (e == ERR_OK) e = jwks_parse(buf_str(&text), &parsed, &why);
    if (e == ERR_OK) {
        if (jwks_count(parsed) == 0)
            dec_problem_at(d, "jwks", "has no key that can verify a signature");
        jwks_free(parsed);
        out->jwks = dec_copy(d, buf_str(&text));
    } else if (e == ERR_NOMEM) {
        d->out_of_memory = true;
    } else {
        dec_problem_at(d, "jwks", "%s", e == ERR_LIMIT ? "is too large" : why.text);
    }
    buf_done(&text);
}

static bool is_http_url(struct str s)
{
    return (str_starts(s, STR("https://")) && s.n > 8) ||
           (str_starts(s, STR("http://")) && s.n > 7);
}

void snap_decode_issuer(struct snap_decoder *d, const struct json *o, struct snap_issuer *out)
{
    static const char *const keys[] = { "id",           "slug",       "enabled",  "issuer",
                                        "audiences",    "algorithms", "jwks",     "jwks_url",
                                        "jwks_ca_file", "refresh_s",  "leeway_s", NULL };
    out->id = dec_id(d, o, "id");
    out->slug = dec_slug(d, o);
    out->enabled = dec_bool(d, o, "enabled", true);
    struct str issuer = dec_text(d, o, "issuer", DEC_REQUIRED, 1, TEXT_MAX_BYTES);
    out->issuer = issuer.p != NULL ? issuer : STR("");
    out->audiences = dec_strings(d, o, "audiences", AUDIENCES_MAX, TEXT_MAX_BYTES, NULL, "");
    if (out->audiences.n == 0)
        dec_problem_at(d, "audiences",
                       "must hold at least one: a token that is meant for others is not taken");
    decode_algorithms(d, o, out);
    decode_jwks(d, o, out);
    out->jwks_url = dec_text(d, o, "jwks_url", 0, 1, TEXT_MAX_BYTES);
    if (out->jwks_url.p != NULL && !is_http_url(out->jwks_url))
        dec_problem_at(d, "jwks_url", "must be an https:// or http:// URL");
    bool inline_keys = dec_member(o, "jwks") != NULL, by_url = dec_member(o, "jwks_url") != NULL;
    if (inline_keys == by_url)
        dec_problem(d, "must have either jwks, the keys themselves, or jwks_url");
    struct str ca = dec_text(d, o, "jwks_ca_file", 0, 1, TEXT_MAX_BYTES);
    out->jwks_ca_file = ca.p != NULL ? ca : STR("");
    if (!by_url) dec_absent(d, o, "jwks_ca_file", "only a jwks_url is fetched");
    out->refresh_s = dec_u64(d, o, "refresh_s", 0, 600, 10, REFRESH_MAX_S);
    out->leeway_s = dec_u64(d, o, "leeway_s", 0, 60, 0, LEEWAY_MAX_S);
    dec_known(d, o, keys);
}
