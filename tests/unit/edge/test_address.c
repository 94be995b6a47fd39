/* SPDX-License-Identifier: Apache-2.0 */
/* Whose request it is: addresses as proxies write them, and how far they are believed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <arpa/inet.h>
#include <cmocka.h>

#include "services/edge/client/address.h"

static void addresses_as_proxies_write_them(void **state)
{
    static const struct {
        const char *text, *address; /* NULL: none */
    } rows[] = {
        { "203.0.113.7", "203.0.113.7" },
        { " 203.0.113.7\t", "203.0.113.7" },
        { "203.0.113.7:4711", "203.0.113.7" },
        { "2001:db8::1", "2001:db8::1" },
        { "[2001:db8::1]", "2001:db8::1" },
        { "[2001:db8::1]:443", "2001:db8::1" },
        { "::ffff:203.0.113.7", "203.0.113.7" },
        { "", NULL },
        { "unknown", NULL },
        { "_hidden", NULL },
        { "203.0.113", NULL },
        { "203.0.113.7:", NULL },
        { "203.0.113.7:65536", NULL },
        { "[203.0.113.7]", NULL },
        { "[2001:db8::1", NULL },
        { "[2001:db8::1]x", NULL },
        { "[2001:db8::1]:", NULL },
        { "fe80::1%eth0", NULL },
        { "1.2.3.4, 5.6.7.8", NULL },
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        unsigned char a[16];
        char text[ADDRESS_TEXT] = "";
        bool good = address_parse(str_of(rows[i].text), a);
        if (good) address_print(a, text);
        if (good != (rows[i].address != NULL) || (good && strcmp(text, rows[i].address) != 0))
            fail_msg("%s: %s", rows[i].text, text);
    }
}

static void settings_of_networks(void **state)
{
    struct address_networks n;
    struct why why;
    char many[1000] = "";
    (void)state;
    assert_int_equal(address_networks_parse(NULL, &n, &why), ERR_OK);
    assert_int_equal(n.n, 0);
    assert_int_equal(address_networks_parse("10.0.0.0/8, 2001:db8::/32 ,127.0.0.1,", &n, &why),
                     ERR_OK);
    assert_int_equal(n.n, 3);
    assert_int_equal(address_networks_parse("10.0.0.1/8", &n, &why), ERR_INVALID);
    assert_int_equal(address_networks_parse("proxy.local", &n, &why), ERR_INVALID);
    for (size_t i = 0; i < 65; i++) memcpy(many + 11 * i, "10.0.0.0/8,", 11);
    assert_int_equal(address_networks_parse(many, &n, &why), ERR_INVALID);
}

static void as_far_as_proxies_are_trusted(void **state)
{
    static const struct {
        const char *trusted, *peer, *fields, *client;
    } rows[] = {
        { "", "203.0.113.1", "X-Forwarded-For: 1.2.3.4\r\n", "203.0.113.1" },
        { "10.0.0.0/8", "203.0.113.1", "X-Forwarded-For: 1.2.3.4\r\n", "203.0.113.1" },
        { "10.0.0.0/8", "10.0.0.1", "", "10.0.0.1" },
        { "10.0.0.0/8", "10.0.0.1", "X-Forwarded-For: 1.2.3.4\r\n", "1.2.3.4" },
        /* what stands in front of the client's address is its own invention */
        { "10.0.0.0/8", "10.0.0.1", "X-Forwarded-For: 9.9.9.9, 1.2.3.4\r\n", "1.2.3.4" },
        { "10.0.0.0/8", "10.0.0.1", "X-Forwarded-For: 9.9.9.9, 1.2.3.4,10.0.0.2\r\n", "1.2.3.4" },
        { "10.0.0.0/8", "10.0.0.1",
          "X-Forwarded-For: 9.9.9.9, 1.2.3.4\r\nX-Other: a\r\nx-forwarded-for: 10.0.0.2\r\n",
          "1.2.3.4" },
        { "10.0.0.0/8", "10.0.0.1", "X-Forwarded-For: 10.0.0.3, 10.0.0.2\r\n", "10.0.0.3" },
        { "10.0.0.0/8", "10.0.0.1", "X-Forwarded-For: 1.2.3.4, junk\r\n", "10.0.0.1" },
        { "10.0.0.0/8", "10.0.0.1", "X-Forwarded-For: 1.2.3.4, junk, 10.0.0.2\r\n", "10.0.0.2" },
        { "10.0.0.0/8", "10.0.0.1", "X-Forwarded-For: 1.2.3.4,\r\n", "10.0.0.1" },
        { "10.0.0.0/8", "10.0.0.1", "X-Forwarded-For:\r\n", "10.0.0.1" },
        { "::/0", "2001:db8::1", "X-Forwarded-For: [2001:db8::2]:80\r\n", "2001:db8::2" },
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        static const struct h1_limits limits = H1_LIMITS_DEFAULT;
        struct address_networks trusted;
        struct h1_request q = { 0 };
        struct h1_error bad;
        struct why why;
        unsigned char a[16];
        char head[300], text[ADDRESS_TEXT];
        (void)snprintf(head, sizeof head, "GET / HTTP/1.1\r\nHost: h\r\n%s\r\n", rows[i].fields);
        assert_int_equal(h1_parse_request(head, strlen(head), &limits, &q, &bad), H1_DONE);
        assert_int_equal(address_networks_parse(rows[i].trusted, &trusted, &why), ERR_OK);
        assert_true(address_parse(str_of(rows[i].peer), a));
        address_of_client(&trusted, &q.head, a);
        address_print(a, text);
        if (strcmp(text, rows[i].client) != 0) fail_msg("%s: %s", rows[i].fields, text);
    }
}

static void what_is_private(void **state)
{
    static const char *const yes[] = { "127.0.0.1",   "10.1.2.3", "172.16.0.1", "172.31.9.9",
                                       "192.168.1.1", "::1",      "fd00::1" };
    static const char *const no[] = { "172.32.0.1",  "192.169.0.1", "203.0.113.7",
                                      "2001:db8::1", "::2",         "0.0.0.0" };
    unsigned char a[16];
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(yes); i++)
        assert_true(address_parse(str_of(yes[i]), a) && address_is_private(a));
    for (size_t i = 0; i < ARRAY_LEN(no); i++)
        assert_true(address_parse(str_of(no[i]), a) && !address_is_private(a));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(addresses_as_proxies_write_them),
        cmocka_unit_test(settings_of_networks),
        cmocka_unit_test(as_far_as_proxies_are_trusted),
        cmocka_unit_test(what_is_private),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
