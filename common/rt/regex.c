/* SPDX-License-Identifier: Apache-2.0 */
/* The one user of PCRE2. Pure; any thread. */
#define PCRE2_CODE_UNIT_WIDTH 8
#include "rt/regex.h"

#include <pcre2.h>
#include <stdlib.h>

enum { HEAP_MAX_KIB = 16384 };

struct regex {
    pcre2_code *code;
    pcre2_match_context *limits;
    bool any_bytes;
    uint32_t groups;
};

void regex_free(struct regex *r)
{
    if (r == NULL) return;
    pcre2_code_free(r->code);
    pcre2_match_context_free(r->limits);
    free(r);
}

static uint32_t options(unsigned flags)
{
    uint32_t o = PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C;
    if (flags & REGEX_WHOLE) o |= PCRE2_ANCHORED | PCRE2_ENDANCHORED;
    if (flags & REGEX_FOLD) o |= PCRE2_CASELESS;
    return o;
}

enum err regex_new(struct str pattern, unsigned flags, unsigned steps, struct regex **ret,
                   struct why *why)
{
    int code;
    PCRE2_SIZE at;
    if (pattern.n == 0 || pattern.n > REGEX_PATTERN_MAX)
        return why_set(why, ERR_INVALID, "a pattern has 1 to %d bytes", REGEX_PATTERN_MAX);
    struct regex *r = calloc(1, sizeof *r);
    if (r == NULL) return ERR_NOMEM;
    r->code = pcre2_compile((PCRE2_SPTR)pattern.p, pattern.n, options(flags), &code, &at, NULL);
    r->limits = pcre2_match_context_create(NULL);
    enum err e = ERR_OK;
    if (r->code == NULL) {
        PCRE2_UCHAR text[128];
        (void)pcre2_get_error_message(code, text, sizeof text);
        e = why_set(why, ERR_INVALID, "%s at %zu", (const char *)text, (size_t)at);
    } else if (r->limits == NULL) {
        e = ERR_NOMEM;
    }
    if (e != ERR_OK) {
        regex_free(r);
        return e;
    }
    (void)pcre2_pattern_info(r->code, PCRE2_INFO_CAPTURECOUNT, &r->groups);
    (void)pcre2_set_match_limit(r->limits, steps);
    (void)pcre2_set_heap_limit(r->limits, HEAP_MAX_KIB);
    r->any_bytes = (flags & REGEX_ANY_BYTES) != 0;
    /* Where the library or the system cannot, it is interpreted as well. */
    if (flags & REGEX_JIT) (void)pcre2_jit_compile(r->code, PCRE2_JIT_COMPLETE);
    *ret = r;
    return ERR_OK;
}

unsigned regex_groups(const struct regex *r)
{
    return r->groups;
}

enum regex_result regex_find(const struct regex *r, struct str s, unsigned how,
                             struct regex_span *groups, size_t n)
{
    uint32_t o = PCRE2_NO_UTF_CHECK,
             room = (uint32_t)MIN(MAX(n, (size_t)1), (size_t)REGEX_GROUPS_MAX);
    if (r->any_bytes && !str_is_utf8(s)) return REGEX_NO;
    if (how & REGEX_NOT_EMPTY) o |= PCRE2_NOTEMPTY;
    if (how & REGEX_MORE) o |= PCRE2_PARTIAL_HARD;
    pcre2_match_data *data = pcre2_match_data_create(room, NULL);
    if (data == NULL) return REGEX_GAVE_UP;
    int rc = pcre2_match(r->code, (PCRE2_SPTR)(s.n > 0 ? s.p : ""), s.n, 0, o, data, r->limits);
    if (rc >= 0) {
        const PCRE2_SIZE *v = pcre2_get_ovector_pointer(data);
        uint32_t set = rc == 0 ? room : (uint32_t)rc;
        for (size_t i = 0; i < n; i++) {
            bool has = i < set && v[2 * i] != PCRE2_UNSET;
            groups[i] = has ? (struct regex_span){ v[2 * i], v[2 * i + 1] }
                            : (struct regex_span){ 1, 0 };
        }
    }
    pcre2_match_data_free(data);
    return rc >= 0                     ? REGEX_YES
           : rc == PCRE2_ERROR_NOMATCH ? REGEX_NO
           : rc == PCRE2_ERROR_PARTIAL ? REGEX_PARTIAL
                                       : REGEX_GAVE_UP;
}

bool regex_matches(const struct regex *r, struct str s)
{
    return regex_find(r, s, 0, NULL, 0) == REGEX_YES;
}
