/* SPDX-License-Identifier: Apache-2.0 */
/* Whose request it is: addresses as proxies write them, and how far they are believed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <arpa/inet.h>
#include <cmocka.h>

#include "services/edge/net/address.h"

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

struct trust {
    const char *trusted, *peer, *fields, *client;
};

static void check_trust(enum address_field field, const struct trust *row)
{
    static const struct h1_limits limits = H1_LIMITS_DEFAULT;
    struct address_networks trusted;
    struct h1_request q = { 0 };
    struct h1_error bad;
    struct why why;
    unsigned char a[16];
    char head[9000], text[ADDRESS_TEXT];
    (void)snprintf(head, sizeof head, "GET / HTTP/1.1\r\nHost: h\r\n%s\r\n", row->fields);
    assert_int_equal(h1_parse_request(head, strlen(head), &limits, &q, &bad), H1_DONE);
    assert_int_equal(address_networks_parse(row->trusted, &trusted, &why), ERR_OK);
    assert_true(address_parse(str_of(row->peer), a));
    address_of_client(&trusted, field, &q.head, a);
    address_print(a, text);
    if (strcmp(text, row->client) != 0) fail_msg("%s: %s", row->fields, text);
}

static void as_far_as_proxies_are_trusted(void **state)
{
    static const struct trust rows[] = {
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
        /* the other field is the client's own invention */
        { "10.0.0.0/8", "10.0.0.1", "Forwarded: for=9.9.9.9\r\n", "10.0.0.1" },
        { "10.0.0.0/8", "10.0.0.1", "Forwarded: for=9.9.9.9\r\nX-Forwarded-For: 1.2.3.4\r\n",
          "1.2.3.4" },
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) check_trust(ADDRESS_X_FORWARDED_FOR, &rows[i]);
}

static void forwarded_is_read_like_it(void **state)
{
    static const char *const ten = "10.0.0.0/8", *const one = "10.0.0.1";
    static const struct trust rows[] = {
        { "", one, "Forwarded: for=1.2.3.4\r\n", one },
        { ten, "203.0.113.1", "Forwarded: for=1.2.3.4\r\n", "203.0.113.1" },
        { ten, one, "", one },
        { ten, one, "Forwarded: for=1.2.3.4\r\n", "1.2.3.4" },
        { ten, one, "Forwarded: For=\"1.2.3.4:4711\";proto=https;by=10.0.0.1\r\n", "1.2.3.4" },
        { ten, one, "Forwarded: proto=http ; for=1.2.3.4 , for=10.0.0.2\r\n", "1.2.3.4" },
        { ten, one, "forwarded: for=\"[2001:db8::1]:80\"\r\n", "2001:db8::1" },
        { ten, one, "forwarded: for=[2001:db8::1]\r\n", "2001:db8::1" },
        { ten, one, "Forwarded: for=9.9.9.9, for=1.2.3.4\r\n", "1.2.3.4" },
        { ten, one, "Forwarded: for=9.9.9.9\r\nX: y\r\nForwarded: for=1.2.3.4\r\n", "1.2.3.4" },
        { ten, one, "Forwarded: for=1.2.3.4\r\nForwarded: for=10.0.0.2\r\n", "1.2.3.4" },
        { ten, one, "Forwarded: for=1.2.3.4, for=10.0.0.2;x=\",;=\\\"\"\r\n", "1.2.3.4" },
        /* nobody, or somebody who is not told */
        { ten, one, "Forwarded: for=unknown\r\n", one },
        { ten, one, "Forwarded: for=1.2.3.4, for=_hidden, for=10.0.0.2\r\n", "10.0.0.2" },
        { ten, one, "Forwarded: for=1.2.3.4, proto=https\r\n", one },
        { ten, one, "Forwarded: for=\"1.2.3\\.4\"\r\n", one },
        /* what a client leaves open in front swallows, and makes up, nothing */
        { ten, one, "Forwarded: for=\", for=1.2.3.4\r\n", one },
        { ten, one, "Forwarded: for=6.6.6.6;x=\", for=\"[2001:db8::1]\"\r\n", one },
        { ten, one, "Forwarded: for=6.6.6.6;x=\", for=1.2.3.4;proto=\"https\"\r\n", one },
        { ten, one, "Forwarded: for=6.6.6.6;x=\"\\, for=1.2.3.4\r\n", one },
        { ten, one, "Forwarded: for=6.6.6.6;x=\"\r\nForwarded: for=1.2.3.4\r\n", "1.2.3.4" },
        { ten, one, "Forwarded: for=6.6.6.6;for=1.2.3.4\r\n", one },
        { ten, one, "Forwarded: for=1.2.3.4,\r\n", one },
        { ten, one, "Forwarded: for=1.2.3.4;\r\n", one },
        { ten, one, "Forwarded: for =1.2.3.4\r\n", one },
        { ten, one, "Forwarded: for= 1.2.3.4\r\n", one },
        { ten, one, "Forwarded: 1.2.3.4\r\n", one },
        { ten, one, "Forwarded:\r\n", one },
        /* the other field is the client's own invention */
        { ten, one, "X-Forwarded-For: 9.9.9.9\r\n", one },
        { ten, one, "X-Forwarded-For: 9.9.9.9\r\nForwarded: for=1.2.3.4\r\n", "1.2.3.4" },
    };
    char many[2200] = "Forwarded: for=1.2.3.4";
    struct trust row = { ten, one, many, "1.2.3.4" };
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) check_trust(ADDRESS_FORWARDED, &rows[i]);
    size_t n = strlen(many);
    for (int i = 0; i < 63; i++, n += 14) memcpy(many + n, ", for=10.0.0.2", 15);
    memcpy(many + n, "\r\n", 3);
    check_trust(ADDRESS_FORWARDED, &row);
    memcpy(many + n, ", for=10.0.0.2\r\n", 17);
    row.client = one; /* a list without end is not read */
    check_trust(ADDRESS_FORWARDED, &row);
}

static void names_of_the_field(void **state)
{
    enum address_field f;
    (void)state;
    assert_int_equal(address_field_parse(STR("Forwarded"), &f), ERR_OK);
    assert_int_equal(f, ADDRESS_FORWARDED);
    assert_int_equal(address_field_parse(STR("x-forwarded-for"), &f), ERR_OK);
    assert_int_equal(f, ADDRESS_X_FORWARDED_FOR);
    assert_int_equal(address_field_parse(STR("x-real-ip"), &f), ERR_INVALID);
    assert_int_equal(address_field_parse(STR(""), &f), ERR_INVALID);
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
        cmocka_unit_test(forwarded_is_read_like_it),
        cmocka_unit_test(names_of_the_field),
        cmocka_unit_test(what_is_private),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
