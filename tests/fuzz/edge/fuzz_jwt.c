/* SPDX-License-Identifier: Apache-2.0 */
/* Any bytes as a token: no crash, and none is verified, for nobody has signed it. The bytes up to
 * the first NUL are a token as it is; behind it come a header and claims, divided by a NUL, that
 * are encoded first. */
#include <stdlib.h>

#include "services/edge/match/jwt.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static const struct snap_issuer issuer = { .issuer = { "https://id.example", 18 },
                                           .audiences = { (const struct str[]){ { "gateway", 7 } },
                                                          1 },
                                           .algorithms = (1u << JWT_ALGS) - 1 };

static void encode(struct str s, struct buf *out)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    uint32_t bits = 0, have = 0;
    enum err e = ERR_OK;
    for (size_t i = 0; i < s.n && e == ERR_OK; i++) {
        bits = (bits << 8 | (unsigned char)s.p[i]) & 0xffff;
        for (have += 8; have >= 6 && e == ERR_OK; have -= 6)
            e = buf_append_char(out, digits[bits >> (have - 6) & 63]);
    }
    if (have > 0 && e == ERR_OK) e = buf_append_char(out, digits[bits << (6 - have) & 63]);
    if (e != ERR_OK) abort();
}

static void try(struct str text)
{
    struct js_wants *w = js_wants_new();
    struct js_val found[2];
    struct arena a;
    struct jwt t;
    struct why why = { "" };
    size_t place;
    arena_init(&a, 1 << 20);
    if (js_wants_add(w, STR("/groups"), &place) != ERR_OK ||
        js_wants_add(w, STR("/realm/roles/0"), &place) != ERR_OK)
        abort();
    enum err e = jwt_parse(text, w, &a, &t, found, &why);
    if (e == ERR_OK) {
        (void)!jwt_looks_like(text);
        if (jwt_check(&t, &issuer, 1800000000, &why) == ERR_OK &&
            (!jwt_is_from(&t, issuer.issuer) || !t.has_exp))
            abort();
    } else if (why.text[0] == '\0') {
        abort();
    }
    js_wants_free(w);
    arena_done(&a);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct str rest = str_n((const char *)data, n);
    struct str first = str_cut(&rest, '\0');
    struct buf b;
    try(first);
    if (rest.n == 0 || n > 65536) return 0;
    struct str header = str_cut(&rest, '\0');
    buf_init(&b, 1 << 20);
    encode(header, &b);
    if (buf_append_char(&b, '.') != ERR_OK) abort();
    encode(rest, &b);
    if (buf_appendz(&b, ".AAAA") != ERR_OK) abort();
    try(buf_str(&b));
    buf_done(&b);
    return 0;
}
