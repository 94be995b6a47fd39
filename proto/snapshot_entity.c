/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The shape of every kind of entity: the members, their bounds and defaults. Used to read
 * snapshots and, strictly, by the admin API. The decoder's thread.
 */
#include "proto/snapshot_decode.h"

#include <stdio.h>

enum {
    NAME_MAX_BYTES = 200,
    MODEL_NAME_MAX_BYTES = DEC_MODEL_MAX,
};
static const uint64_t window_max_tokens = 1000000000000;

/* --- references --- */

const struct snap_namespace *dec_namespace(struct snap_decoder *d, const struct json *o,
                                           bool optional)
{
    if (optional && dec_member(o, "namespace") == NULL) return NULL;
    struct str id = dec_id(d, o, "namespace");
    const struct snap_namespace *ns = d->resolve && id.n > 0 ? map_get(d->namespaces, id) : NULL;
    if (d->resolve && id.n > 0 && ns == NULL)
        dec_problem_at(d, "namespace", "there is no namespace %.*s", STR_ARG(id));
    return ns;
}

static struct str optional_text(struct snap_decoder *d, const struct json *o, const char *key,
                                size_t max)
{
    struct str s = dec_text(d, o, key, 0, 0, max);
    return s.p != NULL ? s : STR("");
}

/* --- namespaces --- */

void snap_decode_namespace(struct snap_decoder *d, const struct json *o, struct snap_namespace *out)
{
    static const char *const auths[] = { [SNAP_AUTH_KEY] = "key",
                                         [SNAP_AUTH_NONE] = "none",
                                         [SNAP_AUTH_JWT] = "jwt",
                                         [SNAP_AUTH_KEY_OR_JWT] = "key_or_jwt" };
    static const char *const keys[] = { "id",   "slug",   "name",    "enabled",
                                        "auth", "claims", "default", NULL };
    out->id = dec_id(d, o, "id");
    out->slug = dec_slug(d, o);
    out->name = optional_text(d, o, "name", NAME_MAX_BYTES);
    out->enabled = dec_bool(d, o, "enabled", true);
    out->is_default = dec_bool(d, o, "default", false);
    out->auth = (enum snap_auth)dec_word(d, o, "auth", auths, ARRAY_LEN(auths), SNAP_AUTH_KEY);
    if (dec_member(o, "claims") != NULL) {
        out->claims = dec_condition(d, o, "claims", true);
        if (out->auth != SNAP_AUTH_JWT && out->auth != SNAP_AUTH_KEY_OR_JWT)
            dec_absent(d, o, "claims", "only namespaces with auth jwt or key_or_jwt have claims");
    }
    dec_known(d, o, keys);
}

/* --- models --- */

static bool is_vocabulary(struct str s)
{
    for (size_t i = 0; i < s.n; i++) {
        char c = s.p[i];
        if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
              strchr("-_.", c) != NULL))
            return false;
    }
    return s.n == 0 || s.p[0] != '.';
}

static void decode_price(struct snap_decoder *d, const struct json *o, struct snap_model *out)
{
    static const char *const keys[] = { "currency",    "revision",    "input_nano",
                                        "output_nano", "cached_nano", NULL };
    const int64_t max = 1000000000000000;
    const struct json *price = dec_member(o, "price");
    out->currency = STR("");
    if (price == NULL) return;
    if (!json_is(price, JSON_OBJECT)) {
        dec_problem_at(d, "price", "must be an object");
        return;
    }
    size_t mark = dec_enter(d, STR("price"));
    struct str currency = dec_text(d, price, "currency", DEC_REQUIRED, 3, 3);
    if (currency.p != NULL) out->currency = currency;
    for (size_t i = 0; i < out->currency.n; i++) {
        if (out->currency.p[i] >= 'A' && out->currency.p[i] <= 'Z') continue;
        dec_problem_at(d, "currency", "must be three capital letters (ISO 4217)");
        break;
    }
    out->price_revision = dec_i64(d, price, "revision", 1, 0, max);
    out->input_nano = dec_i64(d, price, "input_nano", 0, 0, max);
    out->output_nano = dec_i64(d, price, "output_nano", 0, 0, max);
    out->cached_nano = dec_i64(d, price, "cached_nano", out->input_nano, 0, max);
    dec_known(d, price, keys);
    dec_leave(d, mark);
}

void snap_decode_model(struct snap_decoder *d, const struct json *o, struct snap_model *out)
{
    static const char *const keys[] = { "id",         "slug",           "name",  "patterns",
                                        "vocabulary", "context_window", "price", NULL };
    out->id = dec_id(d, o, "id");
    out->slug = dec_slug(d, o);
    out->name = optional_text(d, o, "name", MODEL_NAME_MAX_BYTES);
    out->patterns = dec_models(d, o, "patterns");
    if (out->patterns.n == 0) { /* a model without patterns is what its name says */
        struct str *one = dec_alloc(d, 1, sizeof(*one));
        if (one != NULL) {
            *one = out->name.n > 0 ? out->name : out->slug;
            out->patterns = (struct snap_strings){ one, 1 };
        }
    }
    out->vocabulary = optional_text(d, o, "vocabulary", 64);
    if (!is_vocabulary(out->vocabulary))
        dec_problem_at(d, "vocabulary", "must be made of letters, digits, -, _ and .");
    out->context_window = dec_u64(d, o, "context_window", 0, 0, 0, window_max_tokens);
    decode_price(d, o, out);
    dec_known(d, o, keys);
}

/* --- keys --- */

void snap_decode_key(struct snap_decoder *d, const struct json *o, struct snap_key *out)
{
    static const char *const keys[] = { "id",      "namespace",  "slug",   "prefix", "hmac",
                                        "enabled", "expires_at", "models", NULL };
    out->id = dec_id(d, o, "id");
    out->slug = dec_slug(d, o);
    out->ns = dec_namespace(d, o, false);
    out->prefix = optional_text(d, o, "prefix", 32);
    struct str hmac = dec_text(d, o, "hmac", DEC_REQUIRED, 0, 128);
    if (hmac.p != NULL && hex_decode(hmac, out->hmac, SNAP_HMAC_LEN) != ERR_OK)
        dec_problem_at(d, "hmac", "must be 64 hexadecimal digits");
    out->enabled = dec_bool(d, o, "enabled", true);
    struct str expires = dec_text(d, o, "expires_at", 0, 0, 64);
    if (expires.p != NULL && dec_parse_time(expires, &out->expires_at_ms) != ERR_OK)
        dec_problem_at(d, "expires_at", "must be a time of RFC 3339, such as 2030-01-31T00:00:00Z");
    out->models = dec_models(d, o, "models");
    dec_known(d, o, keys);
}
