/* SPDX-License-Identifier: Apache-2.0 */
#include "identity.h"

#include "rt/crypto.h"

enum { HASH_BYTES = 8 };

enum err identity_mode_parse(struct str s, enum identity_mode *ret)
{
    static const char *const names[] = { "none", "hash", "plain" };
    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        if (str_eqz(s, names[i])) return *ret = (enum identity_mode)i, ERR_OK;
    return ERR_INVALID;
}

void identity_write(enum identity_mode mode, const unsigned char key[32], struct str value,
                    char out[IDENTITY_LEN + 1])
{
    unsigned char mac[SHA256_LEN];
    out[0] = '\0';
    if (value.n == 0 || mode == IDENTITY_NONE) return;
    if (mode == IDENTITY_PLAIN) {
        (void)str_copyz(out, IDENTITY_LEN + 1, value);
        return;
    }
    crypto_hmac_sha256(str_n((const char *)key, 32), value, mac);
    hex_encode(mac, HASH_BYTES, out);
}
