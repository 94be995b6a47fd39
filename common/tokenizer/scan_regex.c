/* SPDX-License-Identifier: Apache-2.0 */
/* Pieces by PCRE2. Pure; any thread. */
#define PCRE2_CODE_UNIT_WIDTH 8
#include "tokenizer/scan_regex.h"

#include <pcre2.h>
#include <stdlib.h>

#include "tokenizer/unicode.h"

enum { MAX_PATTERN = 4096, MAX_HEAP_KIB = 16384 };

struct scan_regex {
    pcre2_code *code;
    pcre2_match_context *limits;
};

void scan_regex_free(struct scan_regex *r)
{
    if (r == NULL) return;
    pcre2_code_free(r->code);
    pcre2_match_context_free(r->limits);
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
    int code;
    PCRE2_SIZE at;
    if (pattern.n == 0 || pattern.n > MAX_PATTERN)
        return why_set(why, ERR_INVALID, "a pattern has 1 to %d bytes", MAX_PATTERN);
    if (looks_behind(pattern))
        return why_set(why, ERR_INVALID, "a pattern that looks at what stands before it");
    struct scan_regex *r = calloc(1, sizeof *r);
    if (r == NULL) return ERR_NOMEM;
    r->code = pcre2_compile((PCRE2_SPTR)pattern.p, pattern.n,
                            PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C, &code, &at, NULL);
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
        scan_regex_free(r);
        return e;
    }
    (void)pcre2_set_match_limit(r->limits, SCAN_REGEX_STEPS);
    (void)pcre2_set_heap_limit(r->limits, MAX_HEAP_KIB);
    *ret = r;
    return ERR_OK;
}

size_t scan_regex_piece(const struct scan_regex *r, const char *p, size_t n, bool more)
{
    pcre2_match_data *data = pcre2_match_data_create(1, NULL);
    uint32_t one;
    size_t piece = utf8_next_valid(p, &one);
    if (data == NULL) return piece;
    uint32_t how = PCRE2_NO_UTF_CHECK | PCRE2_NOTEMPTY;
    int rc = pcre2_match(r->code, (PCRE2_SPTR)p, n, 0, how | (more ? PCRE2_PARTIAL_HARD : 0), data,
                         r->limits);
    if (rc > 0) {
        const PCRE2_SIZE *v = pcre2_get_ovector_pointer(data);
        piece = v[0] > 0 ? v[0] : v[1];
    } else if (rc == PCRE2_ERROR_NOMATCH || rc == PCRE2_ERROR_PARTIAL) {
        piece = more ? 0 : n;
    }
    pcre2_match_data_free(data);
    return piece;
}
