/* SPDX-License-Identifier: Apache-2.0 */
/* What usage records say of clients: plain, hashed, or nothing. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "services/edge/records/identity.h"

static const unsigned char key[32] = { 1, 2, 3 }, other[32] = { 1, 2, 4 };

static void each_mode_says_what_it_should(void **state)
{
    char a[IDENTITY_LEN + 1], b[IDENTITY_LEN + 1];
    enum identity_mode m;
    (void)state;
    identity_write(IDENTITY_PLAIN, key, STR("2001:db8::1"), a);
    assert_string_equal(a, "2001:db8::1");
    identity_write(IDENTITY_NONE, key, STR("2001:db8::1"), a);
    assert_string_equal(a, "");
    identity_write(IDENTITY_HASH, key, STR(""), a);
    assert_string_equal(a, "");
    identity_write(IDENTITY_HASH, key, STR("anna"), a);
    identity_write(IDENTITY_HASH, key, STR("anna"), b);
    assert_int_equal(strlen(a), 16);
    assert_string_equal(a, b);
    identity_write(IDENTITY_HASH, key, STR("anne"), b);
    assert_string_not_equal(a, b);
    identity_write(IDENTITY_HASH, other, STR("anna"), b);
    assert_string_not_equal(a, b);
    assert_int_equal(identity_mode_parse(STR("hash"), &m), ERR_OK);
    assert_int_equal(m, IDENTITY_HASH);
    assert_int_equal(identity_mode_parse(STR("some"), &m), ERR_INVALID);
}

static void long_values_are_cut(void **state)
{
    char big[200], out[IDENTITY_LEN + 1];
    (void)state;
    memset(big, 'x', sizeof big);
    identity_write(IDENTITY_PLAIN, key, str_n(big, sizeof big), out);
    assert_int_equal(strlen(out), IDENTITY_LEN);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_mode_says_what_it_should),
        cmocka_unit_test(long_values_are_cut),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
