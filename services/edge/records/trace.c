/* SPDX-License-Identifier: Apache-2.0 */
#include "trace.h"

#include <stdio.h>

static bool take_hex(struct str s, size_t at, size_t n, char *ret)
{
    bool any = false;
    for (size_t i = 0; i < n; i++) {
        char c = s.p[at + i];
        if (!((c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'))) return false;
        any = any || c != '0';
        ret[i] = c;
    }
    ret[n] = '\0';
    return any;
}

static unsigned nibble(char c)
{
    return c <= '9' ? (unsigned)(c - '0') : (unsigned)(c - 'a' + 10);
}

/* Random, and not zero. */
static void make_id(const struct rng *rng, size_t n, char *ret)
{
    for (size_t i = 0; i < n; i += 16)
        (void)snprintf(ret + i, 17, "%016llx",
                       (unsigned long long)(rng_below(rng, UINT64_MAX) + 1));
}

bool trace_take(struct str v, const struct rng *rng, struct trace *ret)
{
    struct trace t;
    char version[3], flags[3];
    if (v.n < TRACE_PARENT_LEN || v.p[2] != '-' || v.p[35] != '-' || v.p[52] != '-') return false;
    /* Zeros are a version and flags like others. */
    bool other = take_hex(v, 0, 2, version);
    if (!other && !(v.p[0] == '0' && v.p[1] == '0')) return false;
    if (str_eqz(STR("ff"), version)) return false;
    if (v.n > TRACE_PARENT_LEN && (!other || v.p[TRACE_PARENT_LEN] != '-')) return false;
    if (!take_hex(v, 3, TRACE_ID_LEN, t.id) || !take_hex(v, 36, SPAN_ID_LEN, t.parent))
        return false;
    if (!take_hex(v, 53, 2, flags) && !(v.p[53] == '0' && v.p[54] == '0')) return false;
    t.flags = (uint8_t)((nibble(v.p[53]) << 4 | nibble(v.p[54])) & 1u); /* what we know of them */
    make_id(rng, SPAN_ID_LEN, t.span);
    *ret = t;
    return true;
}

void trace_begin(const struct rng *rng, struct trace *ret)
{
    *ret = (struct trace){ .flags = 0 };
    make_id(rng, TRACE_ID_LEN, ret->id);
    make_id(rng, SPAN_ID_LEN, ret->span);
}

void trace_write(const struct trace *t, char out[TRACE_PARENT_LEN + 1])
{
    (void)snprintf(out, TRACE_PARENT_LEN + 1, "00-%s-%s-%02x", t->id, t->span, t->flags);
}
