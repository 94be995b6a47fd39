/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Digests and sealed secrets through OpenSSL's libcrypto: the only file that includes its headers.
 * Pure functions, any thread.
 *
 * A sealed value is "v1:" and base64 of
 *
 *      nonce (12) | ciphertext (as long as the plain text) | tag (16)
 */
#include "rt/crypto.h"

#include <limits.h>
/* The plain functions of SHA-256 are "deprecated" in favour of ones that look an algorithm up and
 * allocate at each call, which takes ten times as long as the digest of a key. */
#define OPENSSL_SUPPRESS_DEPRECATED
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/sha.h>
#include <stdlib.h>

enum { NONCE_LEN = 12, TAG_LEN = 16, SEALED_PLAIN_MAX = 64 * 1024 };
static const char sealed_mark[] = "v1:";
enum { SEALED_MARK_LEN = sizeof(sealed_mark) - 1 };

static const void *bytes_of(struct str s)
{
    return s.n > 0 ? (const void *)s.p : "";
}

void crypto_sha256(struct str data, unsigned char out[SHA256_LEN])
{
    SHA256_CTX c;
    ASSERT(SHA256_Init(&c) == 1 && SHA256_Update(&c, bytes_of(data), data.n) == 1 &&
           SHA256_Final(out, &c) == 1);
    OPENSSL_cleanse(&c, sizeof c);
}

void crypto_sha256_hex(struct str data, char out[SHA256_HEX_LEN + 1])
{
    unsigned char digest[SHA256_LEN];
    crypto_sha256(data, digest);
    hex_encode(digest, sizeof(digest), out);
}

/* One of the two digests of RFC 2104: of the padded key, each byte XOR `pad`, and of data. */
static void padded_digest(const unsigned char key[SHA256_CBLOCK], unsigned char pad,
                          struct str data, unsigned char out[SHA256_LEN])
{
    unsigned char block[SHA256_CBLOCK];
    SHA256_CTX c;
    for (size_t i = 0; i < sizeof block; i++) block[i] = key[i] ^ pad;
    ASSERT(SHA256_Init(&c) == 1 && SHA256_Update(&c, block, sizeof block) == 1 &&
           SHA256_Update(&c, bytes_of(data), data.n) == 1 && SHA256_Final(out, &c) == 1);
    OPENSSL_cleanse(block, sizeof block);
    OPENSSL_cleanse(&c, sizeof c);
}

void crypto_hmac_sha256(struct str key, struct str data, unsigned char out[SHA256_LEN])
{
    unsigned char padded[SHA256_CBLOCK] = { 0 }, inner[SHA256_LEN];
    if (key.n > sizeof padded)
        crypto_sha256(key, padded);
    else if (key.n > 0)
        memcpy(padded, key.p, key.n);
    padded_digest(padded, 0x36, data, inner);
    padded_digest(padded, 0x5c, str_n((const char *)inner, sizeof inner), out);
    OPENSSL_cleanse(padded, sizeof padded);
    OPENSSL_cleanse(inner, sizeof inner);
}

enum err crypto_parse_key(struct str hex, unsigned char out[32], struct why *why)
{
    if (hex_decode(hex, out, 32) != ERR_OK)
        return why_set(why, ERR_INVALID, "must be 64 hexadecimal digits (32 bytes)");
    return ERR_OK;
}

/* Runs the cipher over `in`; `tag` is written when sealing and checked when opening. out holds
 * in.n bytes. False when the tag does not fit or the library fails. */
static bool gcm(bool seal, const unsigned char key[32], const unsigned char *nonce, struct str aad,
                struct str in, unsigned char *out, unsigned char *tag)
{
    int n = 0, done = 0, direction = seal ? 1 : 0;
    bool ok = false;
    EVP_CIPHER_CTX *c = EVP_CIPHER_CTX_new();
    if (c == NULL || aad.n > INT_MAX || in.n > INT_MAX) goto out;
    if (EVP_CipherInit_ex(c, EVP_aes_256_gcm(), NULL, key, nonce, direction) != 1) goto out;
    if (!seal && EVP_CIPHER_CTX_ctrl(c, EVP_CTRL_GCM_SET_TAG, TAG_LEN, tag) != 1) goto out;
    if (aad.n > 0 && EVP_CipherUpdate(c, NULL, &n, bytes_of(aad), (int)aad.n) != 1) goto out;
    if (in.n > 0 && EVP_CipherUpdate(c, out, &done, bytes_of(in), (int)in.n) != 1) goto out;
    if (EVP_CipherFinal_ex(c, out + done, &n) != 1) goto out;
    if (seal && EVP_CIPHER_CTX_ctrl(c, EVP_CTRL_GCM_GET_TAG, TAG_LEN, tag) != 1) goto out;
    ok = true;
out:
    EVP_CIPHER_CTX_free(c);
    return ok;
}

enum err crypto_seal(const unsigned char key[32], struct str aad, struct str plain,
                     const struct rng *rng, struct buf *out)
{
    enum err e = ERR_NOMEM;
    char *room;
    if (plain.n > SEALED_PLAIN_MAX) return ERR_LIMIT;
    size_t raw_len = NONCE_LEN + plain.n + TAG_LEN, text_len = (raw_len + 2) / 3 * 4;
    /* One byte more than needed each: empty outputs, and the NUL of EVP_EncodeBlock(). */
    unsigned char *raw = malloc(raw_len + 1);
    if (raw == NULL) goto out;
    rng->fill(rng->ctx, raw, NONCE_LEN);
    if (!gcm(true, key, raw, aad, plain, raw + NONCE_LEN, raw + NONCE_LEN + plain.n)) {
        e = ERR_INTERNAL;
        goto out;
    }
    e = buf_reserve(out, SEALED_MARK_LEN + text_len + 1, &room);
    if (e != ERR_OK) goto out;
    memcpy(room, sealed_mark, SEALED_MARK_LEN);
    EVP_EncodeBlock((unsigned char *)room + SEALED_MARK_LEN, raw, (int)raw_len);
    out->len += SEALED_MARK_LEN + text_len;
out:
    free(raw);
    return e;
}

/* Strict base64 (RFC 4648, section 4) with padding; EVP_DecodeBlock() takes white space and
 * ignores what padding hides. */
static bool base64_decode(struct str in, unsigned char *out, size_t *ret_n)
{
    static const char alphabet[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    size_t n = 0, pad = 0;
    if (in.n == 0 || in.n % 4 != 0) return false;
    while (pad < 2 && in.p[in.n - 1 - pad] == '=') pad++;
    for (size_t i = 0; i < in.n; i += 4) {
        unsigned v = 0;
        for (size_t j = 0; j < 4; j++) {
            const char *at = i + j < in.n - pad && in.p[i + j] != '\0'
                                 ? strchr(alphabet, in.p[i + j])
                                 : NULL;
            if (at == NULL && i + j < in.n - pad) return false;
            v = v << 6 | (at != NULL ? (unsigned)(at - alphabet) : 0);
        }
        out[n++] = (unsigned char)(v >> 16);
        out[n++] = (unsigned char)(v >> 8);
        out[n++] = (unsigned char)v;
    }
    for (size_t i = 0; i < pad; i++)
        if (out[n - 1 - i] != 0) return false; /* bits that padding hides */
    *ret_n = n - pad;
    return true;
}

enum err crypto_open(const unsigned char key[32], struct str aad, struct str sealed,
                     struct buf *out)
{
    enum err e = ERR_DENIED;
    size_t raw_len;
    char *room;
    unsigned char *raw = NULL;
    if (!str_starts(sealed, STR("v1:"))) return ERR_DENIED;
    sealed = str_n(sealed.p + SEALED_MARK_LEN, sealed.n - SEALED_MARK_LEN);
    if (sealed.n > 2 * SEALED_PLAIN_MAX) return ERR_DENIED;
    raw = malloc(sealed.n + 4);
    if (raw == NULL) return ERR_NOMEM;
    if (!base64_decode(sealed, raw, &raw_len) || raw_len < NONCE_LEN + TAG_LEN) goto out;
    size_t plain_len = raw_len - NONCE_LEN - TAG_LEN;
    e = buf_reserve(out, plain_len + 1, &room);
    if (e != ERR_OK) goto out;
    struct str cipher = str_n((const char *)raw + NONCE_LEN, plain_len);
    if (gcm(false, key, raw, aad, cipher, (unsigned char *)room, raw + NONCE_LEN + plain_len)) {
        out->len += plain_len;
    } else {
        OPENSSL_cleanse(room, plain_len); /* what was decrypted before the tag was checked */
        e = ERR_DENIED;
    }
out:
    OPENSSL_cleanse(raw, sealed.n + 4);
    free(raw);
    return e;
}

void crypto_random_text(const struct rng *rng, size_t n, char *out)
{
    static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
    for (size_t i = 0; i < n; i++) out[i] = alphabet[rng_below(rng, sizeof(alphabet) - 1)];
    out[n] = '\0';
}
