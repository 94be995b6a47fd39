/* SPDX-License-Identifier: Apache-2.0 */
#include "base/uuid.h"

#include <endian.h>
#include <string.h>

void uuid_v7(const struct clock *clock, const struct rng *rng, char out[UUID_LEN + 1])
{
    uuid_v7_at(clock_wall_ms(clock), rng, out);
}

/* Four bytes as eight digits, all at once: a digit's value in each byte of x, then '0', and what
 * more 'a' to 'f' are. */
static void put_hex(const unsigned char b[4], char out[8])
{
    uint32_t v;
    memcpy(&v, b, sizeof v);
    uint64_t x = be32toh(v);
    x = (x << 16 | x) & 0x0000ffff0000ffffu;
    x = (x << 8 | x) & 0x00ff00ff00ff00ffu;
    x = (x << 4 | x) & 0x0f0f0f0f0f0f0f0fu;
    uint64_t above_9 = (x + 0x0606060606060606u) >> 4 & 0x0101010101010101u;
    x += 0x3030303030303030u + above_9 * (unsigned)('a' - '0' - 10);
    x = htobe64(x);
    memcpy(out, &x, sizeof x);
}

void uuid_v7_at(uint64_t ms, const struct rng *rng, char out[UUID_LEN + 1])
{
    unsigned char b[16];
    char hex[32];
    rng->fill(rng->ctx, b + 6, 10);
    for (int i = 0; i < 6; i++) b[i] = (unsigned char)(ms >> (40 - 8 * i));
    b[6] = (unsigned char)(0x70 | (b[6] & 0x0f));
    b[8] = (unsigned char)(0x80 | (b[8] & 0x3f));
    for (int i = 0; i < 16; i += 4) put_hex(b + i, hex + 2 * i);
    memcpy(out, hex, 8);
    memcpy(out + 9, hex + 8, 4);
    memcpy(out + 14, hex + 12, 4);
    memcpy(out + 19, hex + 16, 4);
    memcpy(out + 24, hex + 20, 12);
    out[8] = out[13] = out[18] = out[23] = '-';
    out[UUID_LEN] = '\0';
}

bool uuid_is_valid(struct str s)
{
    if (s.n != UUID_LEN) return false;
    for (size_t i = 0; i < s.n; i++) {
        char c = s.p[i];
        bool dash = i == 8 || i == 13 || i == 18 || i == 23;
        if (dash ? c != '-' : !((c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'))) return false;
    }
    return true;
}
