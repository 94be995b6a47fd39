/* SPDX-License-Identifier: Apache-2.0 */
#include "model_secret.h"

#include "rt/crypto.h"

enum { RANDOM_LEN = 40, SHOWN_RANDOM = 4, SECRET_MIN = 16, CREDENTIAL_MAX = 8192 };
static const char key_mark[] = "sk-aigw-";

/* What can go into a header's value as it is. */
static bool is_visible(struct str s)
{
    for (size_t i = 0; i < s.n; i++)
        if (s.p[i] <= 0x20 || s.p[i] >= 0x7f) return false;
    return true;
}

/* --- credentials of upstreams and of the proxies to them --- */

/* Whether `sealed` holds this very credential: then it stays as it is, and nothing has changed. */
static bool seals(const struct secrets *s, struct str id, struct str sealed, struct str plain)
{
    struct buf opened;
    buf_init(&opened, CREDENTIAL_MAX);
    bool same = sealed.p != NULL && crypto_open(s->master_key, id, sealed, &opened) == ERR_OK &&
                opened.len == plain.n && mem_eq_const_time(opened.data, plain.p, plain.n);
    if (opened.data != NULL) explicit_bzero(opened.data, opened.cap);
    buf_done(&opened);
    return same;
}

/* Where an upstream has a secret: a member of an object, and the fact that there is one. */
struct place {
    const char *object, *member, *is_set, *pointer;
};

static enum err take(const struct secrets *s, const struct rng *rng, struct json *o,
                     const struct json *old, const struct place *at, bool wanted,
                     struct problems *p)
{
    const struct json *from = json_get(o, at->object), *given = json_get(from, at->member);
    struct str id = json_str(json_get(o, "id")), plain = json_str(given);
    struct str before = json_str(json_get(json_get(old, at->object), at->member));
    enum err e = ERR_OK;
    if (!json_is(from, JSON_OBJECT)) return ERR_OK; /* the check says so */
    struct json *made = json_object();
    for (const struct json *m = json_first(from); m != NULL; m = json_next(m)) {
        struct str key = json_key(m);
        if (str_eqz(key, at->member) || str_eqz(key, at->is_set) || json_is(m, JSON_NULL)) continue;
        json_set(made, key.p, json_copy(m));
    }
    if (given == NULL || json_is(given, JSON_NULL)) {
        if (wanted && before.p != NULL) json_set_str(made, at->member, before);
    } else if (plain.p == NULL || plain.n == 0 || plain.n > CREDENTIAL_MAX || !is_visible(plain)) {
        problem_add(p, at->pointer, "must be 1 to %d visible ASCII characters", CREDENTIAL_MAX);
        json_setz(made, at->member, "-"); /* given, so not also reported as missing */
    } else if (!s->has_master_key) {
        problem_add(p, at->pointer, "cannot be sealed: MASTER_KEY is not set");
        json_setz(made, at->member, "-");
    } else if (seals(s, id, before, plain)) {
        json_set_str(made, at->member, before);
    } else {
        struct buf sealed;
        buf_init(&sealed, 4 * CREDENTIAL_MAX);
        e = crypto_seal(s->master_key, id, plain, rng, &sealed);
        if (e == ERR_OK) json_set_str(made, at->member, buf_str(&sealed));
        buf_done(&sealed);
    }
    json_set(o, at->object, made);
    return e;
}

enum err secret_take_credentials(const struct secrets *s, const struct rng *rng, struct json *o,
                                 const struct json *old, struct problems *p)
{
    static const struct place auth = { "auth", "credential", "credential_set", "/auth/credential" },
                              proxy = { "proxy", "password", "password_set", "/proxy/password" };
    bool authorizes = !str_eqz(json_str(json_get(json_get(o, "auth"), "type")), "none");
    const struct json *user = json_get(json_get(o, "proxy"), "user");
    enum err e = take(s, rng, o, old, &auth, authorizes, p);
    if (e != ERR_OK) return e;
    return take(s, rng, o, old, &proxy, user != NULL && !json_is(user, JSON_NULL), p);
}

/* --- virtual keys --- */

static void set_secret(const struct secrets *s, struct json *o, struct str secret)
{
    unsigned char mac[SHA256_LEN];
    char hex[SHA256_HEX_LEN + 1];
    size_t shown = SHOWN_RANDOM;
    if (str_starts(secret, str_of(key_mark))) shown += sizeof(key_mark) - 1;
    crypto_hmac_sha256(str_n((const char *)s->pepper, sizeof(s->pepper)), secret, mac);
    hex_encode(mac, sizeof(mac), hex);
    json_set_str(o, "prefix", str_n(secret.p, shown));
    json_setz(o, "hmac", hex);
}

enum err secret_take_key(const struct secrets *s, const struct rng *rng, const struct json *input,
                         struct json *o, const struct json *old, struct problems *p,
                         char made[SECRET_MAX + 1])
{
    static const char nothing[] =
        "0000000000000000000000000000000000000000000000000000000000000000";
    const struct json *given = json_get(input, "secret");
    struct str secret = json_str(given);
    made[0] = '\0';
    bool is_given = given != NULL && !json_is(given, JSON_NULL);
    bool fresh = secret.p != NULL && secret.n == 0; /* asks for a new one */
    if (!is_given && old != NULL) {
        json_set_str(o, "prefix", json_str(json_get(old, "prefix")));
        json_set_str(o, "hmac", json_str(json_get(old, "hmac")));
        return ERR_OK;
    }
    json_setz(o, "prefix", "");
    json_setz(o, "hmac", nothing); /* replaced below, or not stored because of the problem */
    if (!s->has_pepper) {
        problem_add(p, "/secret", "cannot be stored: KEY_PEPPER is not set");
    } else if (is_given && !fresh &&
               (secret.p == NULL || secret.n < SECRET_MIN || secret.n > SECRET_MAX ||
                !is_visible(secret))) {
        problem_add(p, "/secret", "must be %d to %d visible ASCII characters", SECRET_MIN,
                    SECRET_MAX);
    } else if (is_given && !fresh) {
        set_secret(s, o, secret);
    } else {
        memcpy(made, key_mark, sizeof(key_mark) - 1);
        crypto_random_text(rng, RANDOM_LEN, made + sizeof(key_mark) - 1);
        set_secret(s, o, str_of(made));
    }
    return ERR_OK;
}
