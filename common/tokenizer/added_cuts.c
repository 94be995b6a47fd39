/* SPDX-License-Identifier: Apache-2.0 */
/* Added tokens at which a text can be cut whatever is around them (see the header). Pure. */
#include <string.h>

#include "tokenizer/added.h"

static struct str content(const struct vocab *v, uint32_t i)
{
    return str_n(v->strings + v->added[i].at, v->added[i].n);
}

void added_cuts_init(struct added_cuts *c, const struct vocab *v)
{
    *c = (struct added_cuts){ .v = v };
    for (uint32_t i = 0; i < v->h->added; i++) {
        struct str s = content(v, i);
        for (size_t k = 1; k < s.n; k++) {
            unsigned char b = (unsigned char)s.p[k];
            c->inner[b / 64] |= UINT64_C(1) << b % 64;
        }
    }
}

/* Is it certain of the added token that stands there that it is one in any text? They are sorted,
 * so that one which it begins follows it. */
static bool stands_apart(const struct added_cuts *c, struct str s)
{
    const struct vocab *v = c->v;
    unsigned char first = (unsigned char)s.p[0];
    uint32_t lo = 0, hi = v->h->added;
    if (first <= ' ' || first >= 0x80 || (c->inner[first / 64] >> first % 64 & 1) != 0)
        return false;
    while (lo < hi) {
        uint32_t mid = lo + (hi - lo) / 2;
        if (str_cmp(content(v, mid), s) < 0)
            lo = mid + 1;
        else
            hi = mid;
    }
    if (lo == v->h->added || !str_eq(content(v, lo), s)) return false;
    if ((v->added[lo].flags & (ADDED_LSTRIP | ADDED_RSTRIP | ADDED_NORMALIZED)) != 0) return false;
    return lo + 1 == v->h->added || !str_starts(content(v, lo + 1), s);
}

bool added_cuts_find(const struct added_cuts *c, struct str text, size_t *ret_from, size_t *ret_to)
{
    bool found = false;
    if (c->v->h->added == 0 || c->v->h->lead != VOCAB_LEAD_NONE) return false;
    for (size_t at = 0; at < text.n;) {
        struct added_match m = added_find(c->v, text.p, at, text.n, true);
        if (m.n == 0) break;
        at = m.at + m.n;
        if (!stands_apart(c, str_n(text.p + m.at, m.n))) continue;
        if (!found) *ret_from = m.at;
        *ret_to = at;
        found = true;
    }
    return found;
}
