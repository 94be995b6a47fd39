/* SPDX-License-Identifier: Apache-2.0 */
#include "tokens.h"

#include <stdlib.h>

#include "base/map.h"
#include "jwt.h"
#include "rt/crypto.h"

enum { ARENA_MAX = 256 * 1024 };

struct slot {
    unsigned char digest[SHA256_LEN];
    struct token *token; /* NULL: free */
};

struct tokens {
    struct keyring *keys;
    uint64_t generation; /* of the keys that they were verified with */
    struct map by_digest;
    struct slot slots[TOKENS_MAX];
    size_t next; /* the slot that is used next: the oldest */
};

struct tokens *tokens_new(struct keyring *keys)
{
    struct tokens *t = xcalloc(1, sizeof *t);
    t->keys = keys;
    map_init(&t->by_digest, TOKENS_MAX);
    return t;
}

void token_unref(struct token *t)
{
    if (t == NULL || --t->refs > 0) return;
    arena_done(&t->arena);
    free(t);
}

static void drop(struct tokens *t, struct slot *s)
{
    if (s->token == NULL) return;
    (void)map_remove(&t->by_digest, str_n((const char *)s->digest, SHA256_LEN));
    token_unref(s->token);
    s->token = NULL;
}

void tokens_forget(struct tokens *t)
{
    for (size_t i = 0; i < TOKENS_MAX; i++) drop(t, &t->slots[i]);
}

void tokens_free(struct tokens *t)
{
    if (t == NULL) return;
    tokens_forget(t);
    map_done(&t->by_digest);
    free(t);
}

/* --- a token that was not seen before --- */

/* By any issuer whose tokens it could be. */
static enum err check(struct tokens *t, const struct snapshot *s, const struct jwt *j,
                      uint64_t now_s, const struct snap_issuer **ret, struct why *why)
{
    enum err e = why_set(why, ERR_DENIED, "nobody here knows its issuer");
    bool again = false;
    for (size_t i = 0; i < s->issuers_n; i++) {
        const struct snap_issuer *issuer = &s->issuers[i];
        if (!issuer->enabled || !jwt_is_from(j, issuer->issuer)) continue;
        e = jwt_check(j, issuer, now_s, why);
        if (e == ERR_OK)
            e = keyring_verify(t->keys, issuer, j->alg, j->kid, j->signed_part, j->signature);
        else
            continue;
        if (e == ERR_OK) return *ret = issuer, ERR_OK;
        if (e == ERR_UNAVAILABLE)
            return why_set(why, e, "the keys of its issuer cannot be had now");
        again = again || e == ERR_AGAIN;
        e = why_set(why, ERR_DENIED, "%s",
                    e == ERR_DENIED ? "its signature is wrong"
                                    : "its issuer's keys do not hold the one it names");
    }
    return again && e == ERR_DENIED ? ERR_AGAIN : e;
}

static enum err take_claims(struct token *t, const struct js_val *found, size_t n)
{
    struct match_values *v = arena_calloc(&t->arena, (n + 1) * sizeof *v);
    if (v == NULL) return ERR_NOMEM;
    for (size_t i = 0; i < n; i++) {
        enum err e = match_values_of(found[i], &t->arena, &v[i]);
        if (e != ERR_OK) return e;
    }
    t->claims = v;
    return ERR_OK;
}

static enum err verify(struct tokens *t, const struct snapshot *s, const struct matching *m,
                       struct str text, uint64_t now_s, struct token **ret, struct why *why)
{
    const struct js_wants *wants = matching_claim_wants(m);
    struct js_val found[JS_WANTS_MAX];
    const struct snap_issuer *issuer = NULL;
    struct jwt j;
    struct token *made = calloc(1, sizeof *made);
    if (made == NULL) return ERR_NOMEM;
    made->refs = 1;
    arena_init(&made->arena, ARENA_MAX);
    enum err e = jwt_parse(text, wants, &made->arena, &j, found, why);
    if (e == ERR_INVALID) e = ERR_DENIED;
    if (e == ERR_OK) e = check(t, s, &j, now_s, &issuer, why);
    if (e == ERR_OK) {
        e = take_claims(made, found, js_wants_count(wants));
        if (e == ERR_LIMIT) e = why_set(why, ERR_DENIED, "its claims are too long");
    }
    if (e != ERR_OK) {
        token_unref(made);
        return e;
    }
    double leeway = (double)issuer->leeway_s;
    made->until_s = j.exp + leeway;
    if (j.has_nbf) made->from_s = j.nbf - leeway;
    if (j.has_iat) made->from_s = MAX(made->from_s, j.iat - leeway);
    *ret = made;
    return ERR_OK;
}

/* --- the memory --- */

static void remember(struct tokens *t, const unsigned char digest[SHA256_LEN], struct token *token)
{
    struct slot *s = &t->slots[t->next];
    drop(t, s);
    memcpy(s->digest, digest, SHA256_LEN);
    if (map_put(&t->by_digest, str_n((const char *)digest, SHA256_LEN), s, NULL) != ERR_OK) return;
    s->token = token;
    token->refs++;
    t->next = (t->next + 1) % TOKENS_MAX;
}

enum err tokens_verify(struct tokens *t, const struct snapshot *s, const struct matching *m,
                       struct str text, uint64_t now_s, struct token **ret, struct why *why)
{
    unsigned char digest[SHA256_LEN];
    uint64_t generation = keyring_generation(t->keys);
    if (text.n > JWT_MAX_BYTES) return why_set(why, ERR_DENIED, "it is too long");
    if (generation != t->generation) tokens_forget(t);
    t->generation = generation;
    crypto_sha256(text, digest);
    struct slot *known = map_get(&t->by_digest, str_n((const char *)digest, SHA256_LEN));
    if (known != NULL) {
        struct token *token = known->token;
        bool valid = (double)now_s >= token->from_s && (double)now_s < token->until_s;
        if (!valid) {
            drop(t, known);
            return why_set(why, ERR_DENIED, "it has expired");
        }
        token->refs++;
        *ret = token;
        return ERR_OK;
    }
    enum err e = verify(t, s, m, text, now_s, ret, why);
    if (e == ERR_OK) remember(t, digest, *ret);
    return e;
}
