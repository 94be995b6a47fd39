/* SPDX-License-Identifier: Apache-2.0 */
/* Pieces by regular expressions. Pure; any thread. */
#include "tokenizer/scan/scan_regex.h"

#include <stdlib.h>

#include "rt/regex.h"
#include "tokenizer/scan/unicode.h"

struct scan_regex {
    struct regex *regex;
};

void scan_regex_free(struct scan_regex *r)
{
    if (r == NULL) return;
    regex_free(r->regex);
    free(r);
}

/* Does the pattern ask what stands before the place where it is tried? */
static bool looks_behind(struct str s)
{
    static const char *const words[] = { "(?<=", "(?<!", "\\b", "\\B", "\\A", "\\G", "\\K" };
    for (size_t i = 0; i < ARRAY_LEN(words); i++)
        if (str_contains(s, str_of(words[i]))) return true;
    for (size_t i = 0; i < s.n; i++)
        if (s.p[i] == '^' && (i == 0 || (s.p[i - 1] != '[' && s.p[i - 1] != '\\'))) return true;
    return false;
}

enum err scan_regex_new(struct str pattern, struct scan_regex **ret, struct why *why)
{
    if (looks_behind(pattern))
        return why_set(why, ERR_INVALID, "a pattern that looks at what stands before it");
    struct scan_regex *r = calloc(1, sizeof *r);
    if (r == NULL) return ERR_NOMEM;
    enum err e = regex_new(pattern, 0, SCAN_REGEX_STEPS, &r->regex, why);
    if (e == ERR_OK)
        *ret = r;
    else
        free(r);
    return e;
}

size_t scan_regex_piece(const struct scan_regex *r, const char *p, size_t n, bool more)
{
    struct regex_span whole;
    uint32_t one;
    unsigned how = REGEX_NOT_EMPTY | (more ? REGEX_MORE : 0);
    switch (regex_find(r->regex, str_n(p, n), how, &whole, 1)) {
    case REGEX_YES: return whole.from > 0 ? whole.from : whole.to;
    case REGEX_NO:
    case REGEX_PARTIAL: return more ? 0 : n;
    case REGEX_GAVE_UP: break;
    }
    return utf8_next_valid(p, &one);
}
