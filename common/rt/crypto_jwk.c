/* SPDX-License-Identifier: Apache-2.0 */
/* JSON Web Keys through OpenSSL's libcrypto. Pure functions; any thread. */
#include "rt/crypto_jwk.h"

#include <openssl/bn.h>
#include <openssl/core_names.h>
#include <openssl/ecdsa.h>
#include <openssl/evp.h>
#include <openssl/param_build.h>
#include <openssl/rsa.h>
#include <stdlib.h>

#include "rt/json.h"

enum { RSA_MIN_BITS = 2048, RSA_MAX_BITS = 8192, COORDINATE_MAX = 48, CANDIDATES_MAX = 8 };

enum key_type { KEY_RSA, KEY_P256, KEY_P384, KEY_ED25519 };

struct jwk {
    char *kid; /* NULL: none */
    enum key_type type;
    int alg; /* the only algorithm it is for; -1: any that fits */
    EVP_PKEY *key;
};

struct jwks {
    struct jwk keys[JWKS_MAX_KEYS];
    size_t n;
};

static const struct {
    const char *name;
    enum key_type type;
    const char *digest;
    bool pss;
} algs[JWT_ALGS] = {
    [JWT_RS256] = { "RS256", KEY_RSA, "SHA256", false },
    [JWT_RS384] = { "RS384", KEY_RSA, "SHA384", false },
    [JWT_RS512] = { "RS512", KEY_RSA, "SHA512", false },
    [JWT_PS256] = { "PS256", KEY_RSA, "SHA256", true },
    [JWT_PS384] = { "PS384", KEY_RSA, "SHA384", true },
    [JWT_PS512] = { "PS512", KEY_RSA, "SHA512", true },
    [JWT_ES256] = { "ES256", KEY_P256, "SHA256", false },
    [JWT_ES384] = { "ES384", KEY_P384, "SHA384", false },
    [JWT_EDDSA] = { "EdDSA", KEY_ED25519, NULL, false },
};

const char *jwt_alg_name(enum jwt_alg a)
{
    return algs[a].name;
}

bool jwt_alg_parse(struct str name, enum jwt_alg *ret)
{
    for (int a = 0; a < JWT_ALGS; a++)
        if (str_eqz(name, algs[a].name)) return *ret = (enum jwt_alg)a, true;
    return false;
}

static int base64url_digit(char c)
{
    if (c >= 'A' && c <= 'Z') return c - 'A';
    if (c >= 'a' && c <= 'z') return c - 'a' + 26;
    if (c >= '0' && c <= '9') return c - '0' + 52;
    return c == '-' ? 62 : c == '_' ? 63 : -1;
}

enum err base64url_decode(struct str s, struct buf *out)
{
    char *room;
    unsigned bits = 0, have = 0;
    if (s.n % 4 == 1) return ERR_INVALID;
    enum err e = buf_reserve(out, s.n / 4 * 3 + 3, &room);
    if (e != ERR_OK) return e;
    size_t n = 0;
    for (size_t i = 0; i < s.n; i++) {
        int d = base64url_digit(s.p[i]);
        if (d < 0) return ERR_INVALID;
        bits = (bits << 6 | (unsigned)d) & 0xffff;
        have += 6;
        if (have >= 8) room[n++] = (char)(bits >> (have -= 8));
    }
    if ((bits & ((1u << have) - 1)) != 0) return ERR_INVALID;
    out->len += n;
    return ERR_OK;
}

/* --- keys --- */

/* A member's bytes. False: absent or damaged. */
static bool member_bytes(const struct json *o, const char *name, struct buf *out)
{
    struct str s = json_str(json_get(o, name));
    buf_clear(out);
    return s.p != NULL && s.n > 0 && base64url_decode(s, out) == ERR_OK;
}

static EVP_PKEY *from_params(const char *type, OSSL_PARAM_BLD *bld)
{
    EVP_PKEY *key = NULL;
    OSSL_PARAM *params = OSSL_PARAM_BLD_to_param(bld);
    EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_name(NULL, type, NULL);
    if (params == NULL || ctx == NULL || EVP_PKEY_fromdata_init(ctx) != 1 ||
        EVP_PKEY_fromdata(ctx, &key, EVP_PKEY_PUBLIC_KEY, params) != 1)
        key = NULL;
    EVP_PKEY_CTX_free(ctx);
    OSSL_PARAM_free(params);
    return key;
}

static EVP_PKEY *rsa_key(const struct json *o, struct buf *b)
{
    EVP_PKEY *key = NULL;
    OSSL_PARAM_BLD *bld = OSSL_PARAM_BLD_new();
    BIGNUM *n = NULL, *e = NULL;
    if (member_bytes(o, "n", b) && b->len <= RSA_MAX_BITS / 8 + 1)
        n = BN_bin2bn((const unsigned char *)b->data, (int)b->len, NULL);
    if (n != NULL && member_bytes(o, "e", b) && b->len <= 8)
        e = BN_bin2bn((const unsigned char *)b->data, (int)b->len, NULL);
    bool good = e != NULL && BN_num_bits(n) >= RSA_MIN_BITS && BN_num_bits(n) <= RSA_MAX_BITS &&
                BN_is_odd(n) && BN_is_odd(e) && !BN_is_one(e);
    if (good && bld != NULL && OSSL_PARAM_BLD_push_BN(bld, OSSL_PKEY_PARAM_RSA_N, n) == 1 &&
        OSSL_PARAM_BLD_push_BN(bld, OSSL_PKEY_PARAM_RSA_E, e) == 1)
        key = from_params("RSA", bld);
    BN_free(n);
    BN_free(e);
    OSSL_PARAM_BLD_free(bld);
    return key;
}

static EVP_PKEY *ec_key(const struct json *o, const char *group, size_t size, struct buf *b)
{
    unsigned char point[1 + 2 * COORDINATE_MAX] = { POINT_CONVERSION_UNCOMPRESSED };
    EVP_PKEY *key = NULL;
    if (!member_bytes(o, "x", b) || b->len != size) return NULL;
    memcpy(point + 1, b->data, size);
    if (!member_bytes(o, "y", b) || b->len != size) return NULL;
    memcpy(point + 1 + size, b->data, size);
    OSSL_PARAM_BLD *bld = OSSL_PARAM_BLD_new();
    if (bld != NULL &&
        OSSL_PARAM_BLD_push_utf8_string(bld, OSSL_PKEY_PARAM_GROUP_NAME, group, 0) == 1 &&
        OSSL_PARAM_BLD_push_octet_string(bld, OSSL_PKEY_PARAM_PUB_KEY, point, 1 + 2 * size) == 1)
        key = from_params("EC", bld);
    OSSL_PARAM_BLD_free(bld);
    return key;
}

static EVP_PKEY *ed_key(const struct json *o, struct buf *b)
{
    if (!member_bytes(o, "x", b) || b->len != 32) return NULL;
    return EVP_PKEY_new_raw_public_key(EVP_PKEY_ED25519, NULL, (const unsigned char *)b->data, 32);
}

static EVP_PKEY *key_of(const struct json *o, enum key_type *ret_type, struct buf *b)
{
    struct str kty = json_str(json_get(o, "kty")), crv = json_str(json_get(o, "crv"));
    if (kty.p == NULL) return NULL;
    if (str_eqz(kty, "RSA")) return *ret_type = KEY_RSA, rsa_key(o, b);
    if (crv.p == NULL) return NULL;
    if (str_eqz(kty, "EC") && str_eqz(crv, "P-256"))
        return *ret_type = KEY_P256, ec_key(o, "P-256", 32, b);
    if (str_eqz(kty, "EC") && str_eqz(crv, "P-384"))
        return *ret_type = KEY_P384, ec_key(o, "P-384", 48, b);
    if (str_eqz(kty, "OKP") && str_eqz(crv, "Ed25519"))
        return *ret_type = KEY_ED25519, ed_key(o, b);
    return NULL;
}

static void take_key(struct jwks *s, const struct json *o, struct buf *b)
{
    struct jwk k = { .alg = -1 };
    enum jwt_alg alg;
    struct str use = json_str(json_get(o, "use")), name = json_str(json_get(o, "alg")),
               kid = json_str(json_get(o, "kid"));
    if (use.p != NULL && !str_eqz(use, "sig")) return;
    k.key = key_of(o, &k.type, b);
    if (k.key == NULL) return;
    if (name.p != NULL) {
        if (!jwt_alg_parse(name, &alg) || algs[alg].type != k.type) {
            EVP_PKEY_free(k.key);
            return;
        }
        k.alg = (int)alg;
    }
    if (kid.p != NULL) k.kid = str_dupz(kid);
    s->keys[s->n++] = k;
}

enum err jwks_parse(struct str text, struct jwks **ret, struct why *why)
{
    struct json *root = NULL;
    struct buf b;
    enum err e = json_parse(text, JWKS_MAX_BYTES, &root, why);
    if (e != ERR_OK) return e;
    struct jwks *s = calloc(1, sizeof *s);
    const struct json *keys = json_get(root, "keys");
    buf_init(&b, JWKS_MAX_BYTES);
    if (s == NULL)
        e = ERR_NOMEM;
    else if (!json_is(keys, JSON_ARRAY))
        e = why_set(why, ERR_INVALID, "must be an object with a list of \"keys\"");
    for (const struct json *o = json_first(keys); o != NULL && e == ERR_OK; o = json_next(o)) {
        if (json_get(o, "d") != NULL)
            e = why_set(why, ERR_INVALID, "holds a private key: only public parts belong here");
        else if (s->n == JWKS_MAX_KEYS)
            e = why_set(why, ERR_LIMIT, "has more than %d keys", JWKS_MAX_KEYS);
        else
            take_key(s, o, &b);
    }
    buf_done(&b);
    json_free(root);
    if (e == ERR_OK)
        *ret = s;
    else
        jwks_free(s);
    return e;
}

void jwks_free(struct jwks *s)
{
    if (s == NULL) return;
    for (size_t i = 0; i < s->n; i++) {
        EVP_PKEY_free(s->keys[i].key);
        free(s->keys[i].kid);
    }
    free(s);
}

size_t jwks_count(const struct jwks *s)
{
    return s->n;
}

/* --- signatures --- */

/* Two numbers of fixed size become a sequence of DER. Returns its length in *out (OPENSSL_free), or
 * 0. */
static int ecdsa_der(struct str sig, size_t size, unsigned char **out)
{
    int n = 0;
    if (sig.n != 2 * size) return 0;
    const unsigned char *p = (const unsigned char *)sig.p;
    ECDSA_SIG *s = ECDSA_SIG_new();
    BIGNUM *r = BN_bin2bn(p, (int)size, NULL), *v = BN_bin2bn(p + size, (int)size, NULL);
    if (s != NULL && r != NULL && v != NULL && ECDSA_SIG_set0(s, r, v) == 1) {
        r = v = NULL; /* they are its own now */
        n = i2d_ECDSA_SIG(s, out);
    }
    BN_free(r);
    BN_free(v);
    ECDSA_SIG_free(s);
    return MAX(n, 0);
}

static bool verify(EVP_PKEY *key, enum jwt_alg alg, struct str data, struct str sig)
{
    unsigned char *der = NULL;
    EVP_PKEY_CTX *padding;
    bool ok = false;
    if (algs[alg].type == KEY_P256 || algs[alg].type == KEY_P384) {
        int n = ecdsa_der(sig, algs[alg].type == KEY_P256 ? 32 : 48, &der);
        if (n == 0) return false;
        sig = str_n((const char *)der, (size_t)n);
    }
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    if (ctx == NULL ||
        EVP_DigestVerifyInit_ex(ctx, &padding, algs[alg].digest, NULL, NULL, key, NULL) != 1)
        goto out;
    if (algs[alg].pss && (EVP_PKEY_CTX_set_rsa_padding(padding, RSA_PKCS1_PSS_PADDING) != 1 ||
                          EVP_PKEY_CTX_set_rsa_pss_saltlen(padding, RSA_PSS_SALTLEN_DIGEST) != 1))
        goto out;
    ok = EVP_DigestVerify(ctx, (const unsigned char *)sig.p, sig.n, (const unsigned char *)data.p,
                          data.n) == 1;
out:
    EVP_MD_CTX_free(ctx);
    OPENSSL_free(der);
    return ok;
}

enum err jwks_verify(const struct jwks *s, enum jwt_alg alg, struct str kid, struct str data,
                     struct str signature)
{
    int tried = 0;
    for (size_t i = 0; i < s->n && tried < CANDIDATES_MAX; i++) {
        const struct jwk *k = &s->keys[i];
        if (k->type != algs[alg].type || (k->alg >= 0 && k->alg != (int)alg)) continue;
        if (kid.p != NULL && k->kid != NULL && !str_eqz(kid, k->kid)) continue;
        tried++;
        if (verify(k->key, alg, data, signature)) return ERR_OK;
    }
    return tried > 0 ? ERR_DENIED : ERR_NOT_FOUND;
}
