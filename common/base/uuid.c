/* SPDX-License-Identifier: Apache-2.0 */
#include "base/uuid.h"

void uuid_v7(const struct clock *clock, const struct rng *rng, char out[UUID_LEN + 1])
{
    uuid_v7_at(clock_wall_ms(clock), rng, out);
}

void uuid_v7_at(uint64_t ms, const struct rng *rng, char out[UUID_LEN + 1])
{
    static const char digits[] = "0123456789abcdef";
    unsigned char b[16];
    rng->fill(rng->ctx, b + 6, 10);
    for (int i = 0; i < 6; i++) b[i] = (unsigned char)(ms >> (40 - 8 * i));
    b[6] = (unsigned char)(0x70 | (b[6] & 0x0f));
    b[8] = (unsigned char)(0x80 | (b[8] & 0x3f));
    for (int i = 0, o = 0; i < 16; i++) {
        if (i == 4 || i == 6 || i == 8 || i == 10) out[o++] = '-';
        out[o++] = digits[b[i] >> 4];
        out[o++] = digits[b[i] & 15];
    }
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
