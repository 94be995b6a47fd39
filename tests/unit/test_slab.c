/* SPDX-License-Identifier: Apache-2.0 */
/* Pieces of memory that come and go, and buffers that borrow them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/slab.h"

enum { SIZE = 256, MOST = 3 };

static void what_is_put_back_is_handed_out_first(void **state)
{
    struct slab s;
    (void)state;
    slab_init(&s, SIZE, MOST);
    void *a = slab_get(&s), *b = slab_get(&s);
    assert_non_null(a);
    assert_non_null(b);
    slab_put(&s, a);
    slab_put(&s, b);
    slab_put(&s, NULL);
    size_t rest = s.rest; /* none with a sanitizer */
    assert_int_equal(rest, s.most > 0 ? 2 : 0);
    void *c = slab_get(&s);
    if (rest > 0) assert_ptr_equal(c, b);
    memset(c, 1, SIZE); /* all of it is ours */
    slab_put(&s, c);
    slab_done(&s);
}

static void no_more_rest_than_may(void **state)
{
    struct slab s;
    void *p[MOST + 4];
    (void)state;
    slab_init(&s, SIZE, MOST);
    for (size_t i = 0; i < ARRAY_LEN(p); i++) p[i] = slab_get(&s);
    for (size_t i = 0; i < ARRAY_LEN(p); i++) slab_put(&s, p[i]);
    assert_int_equal(s.rest, s.most);
    assert_true(s.most <= MOST);
    slab_done(&s);
    assert_int_equal(s.rest, 0);
}

static void a_buffer_borrows_and_may_outgrow_its_piece(void **state)
{
    struct slab s;
    struct buf b, small;
    char text[SIZE * 3];
    (void)state;
    memset(text, 'x', sizeof text);
    slab_init(&s, SIZE, MOST);
    buf_init(&b, sizeof text);
    slab_lend(&s, &b);
    assert_int_equal(b.cap, SIZE);
    assert_int_equal(buf_append(&b, text, 10), ERR_OK);
    slab_lend(&s, &b); /* it has one */
    assert_int_equal(b.len, 10);
    slab_take_back(&s, &b);
    assert_int_equal(s.rest, MIN(s.most, (size_t)1));
    assert_null(b.data);
    assert_int_equal(b.max, sizeof text);

    slab_lend(&s, &b);
    assert_int_equal(buf_append(&b, text, sizeof text), ERR_OK);
    assert_memory_equal(b.data, text, sizeof text);
    slab_take_back(&s, &b); /* no piece any more */
    assert_int_equal(s.rest, 0);

    buf_init(&small, SIZE / 2); /* may not have so much */
    slab_lend(&s, &small);
    assert_null(small.data);
    slab_done(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_put_back_is_handed_out_first),
        cmocka_unit_test(no_more_rest_than_may),
        cmocka_unit_test(a_buffer_borrows_and_may_outgrow_its_piece),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
