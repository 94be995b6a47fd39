/* SPDX-License-Identifier: Apache-2.0 */
/* Signed tokens: which are taken, which never, and that a verified one is remembered. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>
#include <openssl/core_names.h>
#include <openssl/ecdsa.h>
#include <openssl/evp.h>
#include <openssl/rsa.h>

#include "services/edge/match/jwt.h"
#include "services/edge/match/tokens.h"

enum { NOW = 1800000000 };

/* --- signing --- */

static void base64url(const void *data, size_t n, struct buf *out)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    const unsigned char *p = data;
    for (size_t i = 0; i < n; i += 3) {
        uint32_t v = (uint32_t)p[i] << 16 | (i + 1 < n ? (uint32_t)p[i + 1] << 8 : 0) |
                     (i + 2 < n ? p[i + 2] : 0);
        for (size_t k = 0; k < MIN(n - i, (size_t)3) + 1; k++)
            assert_int_equal(buf_append_char(out, digits[v >> (18 - 6 * k) & 63]), ERR_OK);
    }
}

struct signer {
    EVP_PKEY *key;
    enum jwt_alg alg;
    char jwk[1600];
};

static void put_number(EVP_PKEY *key, const char *param, size_t size, struct buf *out)
{
    BIGNUM *n = NULL;
    unsigned char bytes[600];
    assert_int_equal(EVP_PKEY_get_bn_param(key, param, &n), 1);
    size_t len = size > 0 ? size : (size_t)BN_num_bytes(n);
    assert_int_equal(BN_bn2binpad(n, bytes, (int)len), (int)len);
    base64url(bytes, len, out);
    BN_free(n);
}

static void make_signer(struct signer *s, enum jwt_alg alg, const char *kid)
{
    struct buf b;
    enum err e = ERR_OK;
    buf_init(&b, sizeof s->jwk);
    s->alg = alg;
    if (alg == JWT_EDDSA) {
        unsigned char raw[32];
        size_t n = sizeof raw;
        s->key = EVP_PKEY_Q_keygen(NULL, NULL, "ED25519");
        assert_int_equal(EVP_PKEY_get_raw_public_key(s->key, raw, &n), 1);
        e = buf_appendz(&b, "{\"kty\":\"OKP\",\"crv\":\"Ed25519\",\"x\":\"");
        base64url(raw, n, &b);
    } else if (alg == JWT_ES256 || alg == JWT_ES384) {
        const char *curve = alg == JWT_ES256 ? "P-256" : "P-384";
        size_t size = alg == JWT_ES256 ? 32 : 48;
        s->key = EVP_PKEY_Q_keygen(NULL, NULL, "EC", curve);
        e = buf_printf(&b, "{\"kty\":\"EC\",\"crv\":\"%s\",\"x\":\"", curve);
        put_number(s->key, OSSL_PKEY_PARAM_EC_PUB_X, size, &b);
        assert_int_equal(buf_appendz(&b, "\",\"y\":\""), ERR_OK);
        put_number(s->key, OSSL_PKEY_PARAM_EC_PUB_Y, size, &b);
    } else {
        s->key = EVP_PKEY_Q_keygen(NULL, NULL, "RSA", (size_t)2048);
        e = buf_appendz(&b, "{\"kty\":\"RSA\",\"e\":\"AQAB\",\"n\":\"");
        put_number(s->key, OSSL_PKEY_PARAM_RSA_N, 0, &b);
    }
    assert_int_equal(e, ERR_OK);
    assert_int_equal(buf_printf(&b, "\",\"kid\":\"%s\"}", kid), ERR_OK);
    (void)str_copyz(s->jwk, sizeof s->jwk, buf_str(&b));
    buf_done(&b);
}

static size_t sign_bytes(const struct signer *s, struct str data, unsigned char *out, size_t cap)
{
    static const char *const digests[JWT_ALGS] = { "SHA256", "SHA384", "SHA512", "SHA256", "SHA384",
                                                   "SHA512", "SHA256", "SHA384", NULL };
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    EVP_PKEY_CTX *padding;
    size_t n = cap;
    assert_int_equal(
        EVP_DigestSignInit_ex(ctx, &padding, digests[s->alg], NULL, NULL, s->key, NULL), 1);
    if (s->alg >= JWT_PS256 && s->alg <= JWT_PS512) {
        assert_int_equal(EVP_PKEY_CTX_set_rsa_padding(padding, RSA_PKCS1_PSS_PADDING), 1);
        assert_int_equal(EVP_PKEY_CTX_set_rsa_pss_saltlen(padding, RSA_PSS_SALTLEN_DIGEST), 1);
    }
    assert_int_equal(EVP_DigestSign(ctx, out, &n, (const unsigned char *)data.p, data.n), 1);
    EVP_MD_CTX_free(ctx);
    if (s->alg != JWT_ES256 && s->alg != JWT_ES384) return n;
    const unsigned char *der = out;
    ECDSA_SIG *sig = d2i_ECDSA_SIG(NULL, &der, (long)n);
    size_t size = s->alg == JWT_ES256 ? 32 : 48;
    const BIGNUM *r, *v;
    ECDSA_SIG_get0(sig, &r, &v);
    assert_int_equal(BN_bn2binpad(r, out, (int)size), (int)size);
    assert_int_equal(BN_bn2binpad(v, out + size, (int)size), (int)size);
    ECDSA_SIG_free(sig);
    return 2 * size;
}

/* A token with this header and these claims; signed by s, or with an empty signature. */
static void make_token(const struct signer *s, const char *header, const char *claims,
                       struct buf *out)
{
    unsigned char sig[600];
    buf_init(out, 1 << 20);
    base64url(header, strlen(header), out);
    assert_int_equal(buf_append_char(out, '.'), ERR_OK);
    base64url(claims, strlen(claims), out);
    size_t n = s != NULL ? sign_bytes(s, buf_str(out), sig, sizeof sig) : 0;
    assert_int_equal(buf_append_char(out, '.'), ERR_OK);
    base64url(sig, n, out);
}

/* --- one issuer --- */

static const struct str audiences[] = { { "gateway", 7 }, { "other", 5 } };
static struct str group[] = { { "red", 3 } };
static struct snap_cond by_group = { .kind = SNAP_COND_TEST,
                                     .source = SNAP_SRC_CLAIM,
                                     .name = { "/groups", 7 },
                                     .op = SNAP_OP_EQUALS,
                                     .values = { group, 1 } };
static struct snap_namespace space = {
    .slug = { "a", 1 }, .enabled = true, .auth = SNAP_AUTH_JWT, .claims = &by_group
};

struct setup {
    struct signer signer;
    struct snap_issuer issuer;
    struct snapshot snap;
    struct matching *matching;
    struct keyring *keyring;
    struct tokens *tokens;
    char jwks[2000];
};

static void begin(struct setup *s, enum jwt_alg alg)
{
    struct why why;
    make_signer(&s->signer, alg, "k1");
    (void)snprintf(s->jwks, sizeof s->jwks, "{\"keys\":[%s]}", s->signer.jwk);
    s->issuer = (struct snap_issuer){ .id = STR("i1"),
                                      .slug = STR("corp"),
                                      .issuer = STR("https://id.example"),
                                      .enabled = true,
                                      .audiences = { audiences, 2 },
                                      .algorithms = 1u << alg,
                                      .jwks = str_of(s->jwks),
                                      .refresh_s = 600,
                                      .leeway_s = 60 };
    s->snap = (struct snapshot){
        .namespaces = &space, .namespaces_n = 1, .issuers = &s->issuer, .issuers_n = 1
    };
    assert_int_equal(matching_new(&s->snap, &s->matching, &why), ERR_OK);
    s->keyring = keyring_new(clock_system(), NULL, NULL);
    keyring_use(s->keyring, &s->snap);
    s->tokens = tokens_new(s->keyring);
}

static void end(struct setup *s)
{
    tokens_free(s->tokens);
    keyring_free(s->keyring);
    matching_free(s->matching);
    EVP_PKEY_free(s->signer.key);
}

static enum err take(struct setup *s, struct str text, uint64_t now, struct token **ret,
                     struct why *why)
{
    return tokens_verify(s->tokens, &s->snap, s->matching, text, now, ret, why);
}

static const char good_claims[] = "{\"iss\":\"https://id.example\",\"aud\":[\"x\",\"gateway\"],"
                                  "\"exp\":1800000100,\"nbf\":1799999000,\"iat\":1799999000,"
                                  "\"groups\":[\"blue\",\"red\"]}";

static void every_algorithm_of_public_keys(void **state)
{
    (void)state;
    for (int alg = 0; alg < JWT_ALGS; alg++) {
        struct setup s;
        struct token *token, *again;
        struct why why = { "" };
        struct buf text;
        char header[80];
        begin(&s, (enum jwt_alg)alg);
        (void)snprintf(header, sizeof header, "{\"alg\":\"%s\",\"kid\":\"k1\"}",
                       jwt_alg_name((enum jwt_alg)alg));
        make_token(&s.signer, header, good_claims, &text);
        assert_true(jwt_looks_like(buf_str(&text)));
        if (take(&s, buf_str(&text), NOW, &token, &why) != ERR_OK)
            fail_msg("%s: %s", header, why.text);
        assert_true(match_claims(s.matching, &space, token->claims));
        /* The second time it is the same one. */
        assert_int_equal(take(&s, buf_str(&text), NOW, &again, &why), ERR_OK);
        assert_ptr_equal(token, again);
        token_unref(again);
        /* And no longer than it lives. */
        assert_int_equal(take(&s, buf_str(&text), NOW + 200, &again, &why), ERR_DENIED);
        token_unref(token);
        /* Any other byte of the signature, or of what is signed, is refused. */
        for (size_t at = text.len - 40; at > 40; at -= 37) {
            char was = text.data[at];
            if (was == '.') continue;
            text.data[at] = was == 'A' ? 'B' : 'A';
            assert_int_equal(take(&s, buf_str(&text), NOW, &again, &why), ERR_DENIED);
            text.data[at] = was;
        }
        buf_done(&text);
        end(&s);
    }
}

static void what_is_never_taken(void **state)
{
    static const struct {
        const char *header, *claims, *why;
    } rows[] = {
        { "{\"alg\":\"none\"}", good_claims, "algorithm" },
        { "{\"alg\":\"None\"}", good_claims, "algorithm" },
        { "{\"alg\":\"HS256\",\"kid\":\"k1\"}", good_claims, "algorithm" },
        { "{\"alg\":\"ES384\",\"kid\":\"k1\"}", good_claims, "signs with" },
        { "{\"alg\":\"ES256\",\"alg\":\"none\"}", good_claims, "JSON" },
        { "{\"ALG\":\"ES256\"}", good_claims, "JSON" },
        { "{\"alg\":\"ES256\",\"crit\":[\"exp\"],\"exp\":1}", good_claims, "crit" },
        { "{\"alg\":\"ES256\",\"kid\":7}", good_claims, "kid" },
        { "{\"alg\":\"ES256\",\"kid\":\"k2\"}", good_claims, "names" },
        { "{\"alg\":[\"ES256\"]}", good_claims, "algorithm" },
        { "[]", good_claims, "algorithm" },
        { "{", good_claims, "JSON" },
        { "{\"alg\":\"ES256\"}",
          "{\"iss\":\"https://evil\",\"aud\":\"gateway\",\"exp\":1800000100}", "issuer" },
        { "{\"alg\":\"ES256\"}", "{\"aud\":\"gateway\",\"exp\":1800000100}", "issuer" },
        { "{\"alg\":\"ES256\"}",
          "{\"iss\":\"https://id.example\",\"aud\":\"gatewa\",\"exp\":1800000100}", "audience" },
        { "{\"alg\":\"ES256\"}", "{\"iss\":\"https://id.example\",\"exp\":1800000100}",
          "audience" },
        { "{\"alg\":\"ES256\"}", "{\"iss\":\"https://id.example\",\"aud\":\"gateway\"}",
          "never expires" },
        { "{\"alg\":\"ES256\"}",
          "{\"iss\":\"https://id.example\",\"aud\":\"gateway\",\"exp\":1799999940}", "expired" },
        { "{\"alg\":\"ES256\"}",
          "{\"iss\":\"https://id.example\",\"aud\":\"gateway\",\"exp\":\"1800000100\"}", "times" },
        { "{\"alg\":\"ES256\"}",
          "{\"iss\":\"https://id.example\",\"aud\":\"gateway\",\"exp\":1e999}", "times" },
        { "{\"alg\":\"ES256\"}",
          "{\"iss\":\"https://id.example\",\"aud\":\"gateway\",\"exp\":1800000100,"
          "\"nbf\":1800000061}",
          "not valid yet" },
        { "{\"alg\":\"ES256\"}",
          "{\"iss\":\"https://id.example\",\"aud\":\"gateway\",\"exp\":1800000100,"
          "\"iat\":1800000061}",
          "future" },
        { "{\"alg\":\"ES256\"}",
          "{\"iss\":\"https://id.example\",\"aud\":\"gateway\",\"exp\":1,\"exp\":1800000100}",
          "twice" },
        { "{\"alg\":\"ES256\"}",
          "{\"iss\":\"https://id.example\",\"aud\":\"gateway\",\"exp\":1800000100,"
          "\"groups\":\"x\",\"groups\":\"red\"}",
          "JSON" },
        { "{\"alg\":\"ES256\"}", "\"text\"", "object" },
    };
    struct setup s;
    struct token *token;
    (void)state;
    begin(&s, JWT_ES256);
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct why why = { "" };
        struct buf text;
        make_token(&s.signer, rows[i].header, rows[i].claims, &text);
        enum err e = take(&s, buf_str(&text), NOW, &token, &why);
        if (e != ERR_DENIED || strstr(why.text, rows[i].why) == NULL)
            fail_msg("%s %s: %s %s", rows[i].header, rows[i].claims, err_name(e), why.text);
        buf_done(&text);
    }
    /* Unsigned, and signed by somebody else who calls the key the same. */
    struct signer other;
    struct buf text;
    struct why why;
    make_token(NULL, "{\"alg\":\"ES256\",\"kid\":\"k1\"}", good_claims, &text);
    assert_int_equal(take(&s, buf_str(&text), NOW, &token, &why), ERR_DENIED);
    buf_done(&text);
    make_signer(&other, JWT_ES256, "k1");
    make_token(&other, "{\"alg\":\"ES256\",\"kid\":\"k1\"}", good_claims, &text);
    assert_int_equal(take(&s, buf_str(&text), NOW, &token, &why), ERR_DENIED);
    assert_non_null(strstr(why.text, "signature"));
    buf_done(&text);
    EVP_PKEY_free(other.key);
    static const char *const junk[] = {
        "", ".", "..", "a.b.c", "eyJ.eyJ.x", "eyJhIjoxfQ.e30.", "eyJhIjoxfQ.e30.a.b", "e y J.x.x"
    };
    for (size_t i = 0; i < ARRAY_LEN(junk); i++)
        assert_int_equal(take(&s, str_of(junk[i]), NOW, &token, &why), ERR_DENIED);
    end(&s);
}

static void new_keys_end_what_old_ones_verified(void **state)
{
    struct setup s;
    struct signer fresh;
    struct token *token;
    struct why why = { "" };
    struct buf text;
    char jwks[2000];
    (void)state;
    begin(&s, JWT_EDDSA);
    make_token(&s.signer, "{\"alg\":\"EdDSA\"}", good_claims, &text);
    assert_int_equal(take(&s, buf_str(&text), NOW, &token, &why), ERR_OK);
    make_signer(&fresh, JWT_EDDSA, "k2");
    (void)snprintf(jwks, sizeof jwks, "{\"keys\":[%s]}", fresh.jwk);
    s.issuer.jwks = str_of(jwks);
    keyring_use(s.keyring, &s.snap);
    struct token *again;
    assert_int_equal(take(&s, buf_str(&text), NOW, &again, &why), ERR_DENIED);
    token_unref(token); /* a request that was let in goes on with it */
    s.issuer.enabled = false;
    keyring_use(s.keyring, &s.snap);
    buf_done(&text);
    make_token(&fresh, "{\"alg\":\"EdDSA\"}", good_claims, &text);
    assert_int_equal(take(&s, buf_str(&text), NOW, &token, &why), ERR_DENIED);
    buf_done(&text);
    EVP_PKEY_free(fresh.key);
    end(&s);
}

static void more_tokens_than_are_remembered(void **state)
{
    struct setup s;
    struct why why = { "" };
    (void)state;
    begin(&s, JWT_EDDSA);
    for (int i = 0; i < TOKENS_MAX + 100; i++) {
        struct token *token;
        struct buf text;
        char claims[300];
        (void)snprintf(claims, sizeof claims,
                       "{\"iss\":\"https://id.example\",\"aud\":\"gateway\",\"exp\":1800000100,"
                       "\"sub\":\"%d\"}",
                       i);
        make_token(&s.signer, "{\"alg\":\"EdDSA\"}", claims, &text);
        assert_int_equal(take(&s, buf_str(&text), NOW, &token, &why), ERR_OK);
        token_unref(token);
        buf_done(&text);
    }
    end(&s);
}

static void key_sets_that_are_none(void **state)
{
    struct jwks *set;
    struct why why;
    (void)state;
    assert_int_equal(jwks_parse(STR("[]"), &set, &why), ERR_INVALID);
    assert_int_equal(jwks_parse(STR("{\"keys\":{}}"), &set, &why), ERR_INVALID);
    assert_int_equal(jwks_parse(STR("{\"keys\":[{\"kty\":\"oct\",\"k\":\"AAAA\"}]}"), &set, &why),
                     ERR_OK);
    assert_int_equal(jwks_count(set), 0); /* a shared secret is no public key */
    jwks_free(set);
    assert_int_equal(jwks_parse(STR("{\"keys\":[{\"kty\":\"RSA\",\"n\":\"AQAB\",\"e\":\"AQAB\"},"
                                    "{\"kty\":\"EC\",\"crv\":\"P-256\",\"x\":\"AA\",\"y\":\"AA\"},"
                                    "{\"kty\":\"OKP\",\"crv\":\"Ed25519\",\"x\":\"AA\"},{},7]}"),
                                &set, &why),
                     ERR_OK);
    assert_int_equal(jwks_count(set), 0);
    jwks_free(set);
    assert_int_equal(
        jwks_parse(STR("{\"keys\":[{\"kty\":\"OKP\",\"crv\":\"Ed25519\",\"d\":\"AA\"}]}"), &set,
                   &why),
        ERR_INVALID);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_algorithm_of_public_keys),
        cmocka_unit_test(what_is_never_taken),
        cmocka_unit_test(new_keys_end_what_old_ones_verified),
        cmocka_unit_test(more_tokens_than_are_remembered),
        cmocka_unit_test(key_sets_that_are_none),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
