/* SPDX-License-Identifier: Apache-2.0 */
/* Edits by splices: in any order, at both ends, and never a wrong one. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "services/edge/dialects/splice.h"

static const char text[] = "0123456789";

static void edits_in_any_order(void **state)
{
    struct buf out;
    (void)state;
    struct splice s[] = {
        { text + 10, 0, STR("end") },
        { text + 4, 2, STR("") },
        { text, 0, STR("begin") },
        { text + 6, 1, STR("six") },
    };
    buf_init(&out, 100);
    assert_int_equal(buf_appendz(&out, "<"), ERR_OK);
    assert_int_equal(splice_apply(STR("0123456789"), s, 0, &out), ERR_OK);
    assert_true(str_eqz(buf_str(&out), "<0123456789"));
    buf_clear(&out);
    assert_int_equal(splice_apply(str_n(text, 10), s, 4, &out), ERR_OK);
    assert_true(str_eqz(buf_str(&out), "begin0123six789end"));
    buf_done(&out);
}

static void what_overlaps_or_lies_outside_changes_nothing(void **state)
{
    struct buf out;
    (void)state;
    struct splice overlap[] = { { text + 2, 4, STR("x") }, { text + 5, 2, STR("y") } };
    struct splice beyond[] = { { text + 8, 3, STR("x") } };
    buf_init(&out, 100);
    assert_int_equal(buf_appendz(&out, "kept"), ERR_OK);
    assert_int_equal(splice_apply(str_n(text, 10), overlap, 2, &out), ERR_INVALID);
    assert_int_equal(splice_apply(str_n(text, 10), beyond, 1, &out), ERR_INVALID);
    assert_true(str_eqz(buf_str(&out), "kept"));
    buf_done(&out);
    buf_init(&out, 9);
    assert_int_equal(splice_apply(str_n(text, 10), NULL, 0, &out), ERR_LIMIT);
    assert_int_equal(out.len, 0);
    buf_done(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(edits_in_any_order),
        cmocka_unit_test(what_overlaps_or_lies_outside_changes_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
