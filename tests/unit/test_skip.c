/* SPDX-License-Identifier: Apache-2.0 */
/* Passing over bytes sixteen at a time finds what a look at each byte finds, wherever it stands. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/skip.h"

enum { LONGEST = 70 };

static const char *json_plainly(const char *p, const char *end)
{
    while (p < end && *p != '"' && *p != '\\' && (unsigned char)*p >= 0x20) p++;
    return p;
}

static const char *ascii_plainly(const char *p, const char *end)
{
    const char *special = json_plainly(p, end);
    while (p < special && (unsigned char)*p < 0x7f) p++;
    return p;
}

static const char *any_plainly(const char *p, const char *end, const unsigned char any[4])
{
    while (p < end && memchr(any, *p, 4) == NULL) p++;
    return p;
}

/* Of exactly that size, so that a read beyond its end is found by sanitizers. */
static char *text_of(size_t n, char fill)
{
    char *p = malloc(n > 0 ? n : 1);
    assert_non_null(p);
    memset(p, fill, n);
    return p;
}

/* The same place; and what is not ASCII in front of it is never missed. */
static void notes_what_is_high(const char *p, const char *end)
{
    const char *to = json_plainly(p, end);
    bool high = false, is_high = false;
    for (const char *q = p; q < to; q++) is_high = is_high || (*q & 0x80) != 0;
    assert_ptr_equal(skip_json_noting(p, end, &high), to);
    assert_true(high || !is_high);
    for (const char *q = p; q < end; q++) is_high = is_high || (*q & 0x80) != 0;
    assert_true(is_high || !high);
}

/* One byte of each value, at each place of texts of each length. */
static void finds_each_byte_at_each_place(void **state)
{
    const unsigned char any[4] = { '<', 0x80, 0xff, '<' };
    (void)state;
    for (size_t n = 0; n < LONGEST; n++) {
        char *p = text_of(n, 'a');
        assert_ptr_equal(skip_json_plain(p, p + n), p + n);
        assert_ptr_equal(skip_to_any(p, p + n, any), p + n);
        for (size_t at = 0; at < n; at++) {
            for (int c = 0; c < 256; c++) {
                p[at] = (char)c;
                assert_ptr_equal(skip_json_plain(p, p + n), json_plainly(p, p + n));
                assert_ptr_equal(skip_json_ascii(p, p + n), ascii_plainly(p, p + n));
                notes_what_is_high(p, p + n);
                assert_ptr_equal(skip_to_any(p, p + n, any), any_plainly(p, p + n, any));
            }
            p[at] = 'a';
        }
        free(p);
    }
}

static void finds_the_first_of_many(void **state)
{
    uint64_t random = 88172645463325252u;
    const unsigned char any[4] = { 0, 7, 200, 255 };
    (void)state;
    for (int round = 0; round < 20000; round++) {
        random ^= random << 13, random ^= random >> 7, random ^= random << 17;
        size_t n = random % LONGEST;
        char *p = text_of(n, 'x');
        for (size_t i = 0; i < n; i++) {
            random ^= random << 13, random ^= random >> 7, random ^= random << 17;
            if (random % 16 == 0) p[i] = (char)(random >> 32);
        }
        for (size_t from = 0; from <= n; from++) {
            assert_ptr_equal(skip_json_plain(p + from, p + n), json_plainly(p + from, p + n));
            assert_ptr_equal(skip_json_ascii(p + from, p + n), ascii_plainly(p + from, p + n));
            notes_what_is_high(p + from, p + n);
            assert_ptr_equal(skip_to_any(p + from, p + n, any), any_plainly(p + from, p + n, any));
        }
        free(p);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(finds_each_byte_at_each_place),
        cmocka_unit_test(finds_the_first_of_many),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
