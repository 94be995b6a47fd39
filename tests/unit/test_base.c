/* SPDX-License-Identifier: Apache-2.0 */
/* Views, buffers, arenas, maps, queues, identifiers, hashes, time. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include <pthread.h>

#include "base/arena.h"
#include "base/buf.h"
#include "base/clock.h"
#include "base/hash.h"
#include "base/list.h"
#include "base/map.h"
#include "base/queue.h"
#include "base/utf8.h"
#include "base/uuid.h"

static void numbers_are_read_strictly(void **state)
{
    uint64_t u = 7;
    int64_t i = 7;
    bool b;
    (void)state;
    assert_int_equal(str_to_u64(STR("18446744073709551615"), &u), ERR_OK);
    assert_true(u == UINT64_MAX);
    assert_int_equal(str_to_u64(STR("18446744073709551616"), &u), ERR_LIMIT);
    static const char *const bad[] = { "", " 1", "+1", "1 ", "0x1", "1e3", "-1" };
    for (size_t k = 0; k < ARRAY_LEN(bad); k++)
        assert_int_equal(str_to_u64(str_of(bad[k]), &u), ERR_INVALID);
    assert_true(u == UINT64_MAX); /* untouched on failure */
    assert_int_equal(str_to_i64(STR("-9223372036854775808"), &i), ERR_OK);
    assert_true(i == INT64_MIN);
    assert_int_equal(str_to_i64(STR("-9223372036854775809"), &i), ERR_LIMIT);
    assert_int_equal(str_hex_to_u64(STR("fFfFfFfFfFfFfFfF"), &u), ERR_OK);
    assert_int_equal(str_hex_to_u64(STR("1ffffffffffffffff"), &u), ERR_INVALID);
    assert_int_equal(str_to_bool(STR("Yes"), &b), ERR_OK);
    assert_true(b);
    assert_int_equal(str_to_bool(STR("maybe"), &b), ERR_INVALID);
}

static void views_are_cut_and_compared(void **state)
{
    struct str rest = STR("a,b,,c");
    (void)state;
    assert_true(str_eqz(str_cut(&rest, ','), "a"));
    assert_true(str_eqz(str_cut(&rest, ','), "b"));
    assert_true(str_eqz(str_cut(&rest, ','), ""));
    assert_true(str_eqz(str_cut(&rest, ','), "c"));
    assert_null(rest.p);
    assert_true(str_ieqz(STR("Content-TYPE"), "content-type"));
    assert_false(str_ieqz(STR("a@"), "a`")); /* folding is for letters only */
    for (size_t n = 1; n <= 20; n++) {
        const char *plain = "text/event-stream:abc";
        char other[32];
        for (size_t i = 0; i < n; i++) {
            memcpy(other, plain, n);
            other[i] = (char)(plain[i] ^ 0x20);
            bool is_letter = plain[i] >= 'a' && plain[i] <= 'z';
            assert_int_equal(str_ieq(str_n(other, n), str_n(plain, n)), is_letter);
        }
    }
    assert_true(str_eqz(str_trim(STR(" \t x \t")), "x"));
    assert_true(str_cmp(STR("a"), STR("ab")) < 0 && str_cmp(STR("b"), STR("ab")) > 0);
    assert_true(str_is_slug(STR("team-a-1")));
    assert_false(str_is_slug(STR("Team")));
    assert_false(str_is_slug(STR("a.b")));
    assert_false(str_is_slug(STR("")));
    char cut[4];
    assert_false(str_copyz(cut, sizeof cut, STR("abcd")));
    assert_string_equal(cut, "abc");
}

static void utf8_is_checked(void **state)
{
    static const char *const bad[] = { "\x80",
                                       "\xc0\xaf",
                                       "\xe0\x80\x80",
                                       "\xed\xa0\x80",
                                       "\xf0\x80\x80\x80",
                                       "\xf4\x90\x80\x80",
                                       "\xf5\x80\x80\x80",
                                       "\xe4\xbd",
                                       "\xff" };
    (void)state;
    assert_true(str_is_utf8(STR("a\xc3\xa9\xe4\xbd\xa0\xf0\x9f\x98\x80\xf4\x8f\xbf\xbf")));
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) assert_false(str_is_utf8(str_of(bad[i])));
    for (uint32_t cp = 0; cp <= 0x10ffff; cp += cp < 0x800 ? 1 : 97) {
        char c[4];
        uint32_t back = 0;
        if (cp >= 0xd800 && cp <= 0xdfff) continue;
        size_t n = utf8_encode(cp, c);
        assert_int_equal(utf8_decode(c, n, &back), n);
        assert_int_equal(back, cp);
        assert_int_equal(utf8_decode(c, n - 1, &back), 0);
    }
}

static void a_buffer_has_a_maximum(void **state)
{
    struct buf b;
    (void)state;
    buf_init(&b, 10);
    assert_string_equal(buf_z(&b), "");
    assert_int_equal(buf_appendz(&b, "12345678"), ERR_OK);
    assert_int_equal(buf_appendz(&b, "901"), ERR_LIMIT);
    assert_string_equal(buf_z(&b), "12345678"); /* unchanged */
    assert_int_equal(buf_printf(&b, "%d", 90), ERR_OK);
    assert_int_equal(buf_append_char(&b, 'x'), ERR_LIMIT);
    assert_string_equal(buf_z(&b), "1234567890");
    buf_consume(&b, 4);
    assert_string_equal(buf_z(&b), "567890");
    assert_int_equal(buf_room(&b), 4);
    buf_done(&b);
    assert_int_equal(buf_appendz(&b, "again"), ERR_OK);
    buf_done(&b);
}

static const char filler[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMN";

static void json_strings_are_escaped(void **state)
{
    struct buf b;
    (void)state;
    buf_init(&b, 100);
    assert_int_equal(buf_append_json(&b, STR("a\"\\\n\x01\x7f\xe4\xbd\xa0\xff!")), ERR_OK);
    assert_string_equal(buf_z(&b), "\"a\\\"\\\\\\n\\u0001\\u007f\xe4\xbd\xa0\xef\xbf\xbd!\"");
    buf_done(&b);
    buf_init(&b, 5);
    assert_int_equal(buf_append_json(&b, STR("12345")), ERR_LIMIT);
    assert_int_equal(b.len, 0);
    buf_done(&b);
}

/* Plain text is passed over many bytes at a time: what has to be escaped is found anywhere. */
static void json_strings_are_escaped_anywhere(void **state)
{
    static const char *const pieces[][2] = {
        { "\"", "\\\"" },           { "\x1f", "\\u001f" },      { "\x7f", "\\u007f" },
        { "\xc3", "\xef\xbf\xbd" }, { "\xc3\xa9", "\xc3\xa9" }, { "~ ", "~ " },
    };
    char text[128], want[160];
    struct buf b;
    (void)state;
    buf_init(&b, 100);
    for (int n = 0; n < 40; n++)
        for (int at = 0; at <= n; at++)
            for (size_t i = 0; i < ARRAY_LEN(pieces); i++) {
                (void)snprintf(text, sizeof text, "%.*s%s%.*s", at, filler, pieces[i][0], n - at,
                               filler);
                (void)snprintf(want, sizeof want, "\"%.*s%s%.*s\"", at, filler, pieces[i][1],
                               n - at, filler);
                buf_clear(&b);
                assert_int_equal(buf_append_json(&b, str_of(text)), ERR_OK);
                assert_string_equal(buf_z(&b), want);
            }
    buf_done(&b);
}

static void parts_are_appended_together_or_not_at_all(void **state)
{
    struct buf b;
    char room[STR_U64_ROOM], plain[32];
    (void)state;
    buf_init(&b, 16);
    assert_int_equal(buf_put(&b, STR("a: "), str_of_u64(7, room), STR_NULL, STR("\r\n")), ERR_OK);
    assert_string_equal(buf_z(&b), "a: 7\r\n");
    assert_int_equal(buf_put(&b, STR("12345"), STR("678901")), ERR_LIMIT);
    assert_string_equal(buf_z(&b), "a: 7\r\n");
    assert_int_equal(buf_put(&b, STR("12345"), STR("67890")), ERR_OK);
    buf_done(&b);
    for (uint64_t n = UINT64_MAX; n > 0; n /= 3) {
        (void)snprintf(plain, sizeof plain, "%llu", (unsigned long long)n);
        assert_true(str_eqz(str_of_u64(n, room), plain));
    }
    for (uint64_t n = 1, at = 0; at < 20000; n = n <= UINT64_MAX / 10 ? n * 10 : 1, at++)
        for (uint64_t k = 0; k < 2; k++) { /* where a digit is added, and all small numbers */
            uint64_t v = at < 20 ? n - k : at - k;
            (void)snprintf(plain, sizeof plain, "%llu", (unsigned long long)v);
            assert_true(str_eqz(str_of_u64(v, room), plain));
        }
}

static void an_arena_has_a_budget(void **state)
{
    struct arena a;
    (void)state;
    arena_init(&a, 100000);
    for (int round = 0; round < 3; round++) {
        size_t total = 0;
        for (size_t n = 1; total + n + 16 < 90000; n = n * 5 / 4 + 1) {
            unsigned char *p = arena_alloc(&a, n);
            assert_non_null(p);
            assert_int_equal((uintptr_t)p % 16, 0);
            memset(p, (int)n, n);
            total += n + 16;
        }
        assert_null(arena_alloc(&a, 100000));
        assert_null(arena_alloc(&a, SIZE_MAX - 3));
        assert_string_equal(arena_dupz(&a, STR("abc")), "abc");
        arena_reset(&a);
    }
    arena_done(&a);
}

static void a_map_finds_replaces_and_forgets(void **state)
{
    struct map m;
    int values[1000];
    (void)state;
    map_init(&m, 1000);
    for (int i = 0; i < 1000; i++) {
        char key[16];
        int n = snprintf(key, sizeof key, "key%d", i);
        assert_int_equal(map_put(&m, str_n(key, (size_t)n), &values[i], NULL), ERR_OK);
    }
    assert_int_equal(map_put(&m, STR("one more"), &values[0], NULL), ERR_LIMIT);
    void *old;
    assert_int_equal(map_put(&m, STR("key5"), &values[6], &old), ERR_OK);
    assert_ptr_equal(old, &values[5]);
    assert_ptr_equal(map_get(&m, STR("key5")), &values[6]);
    assert_null(map_get(&m, STR("key")));
    struct map_entry *e;
    size_t i = 0, seen = 0;
    while ((e = map_next(&m, &i)) != NULL) {
        seen++;
        if (seen % 2 == 0) assert_non_null(map_remove(&m, e->key));
    }
    assert_int_equal(seen, 1000);
    assert_int_equal(m.len, 500);
    for (int round = 0; round < 5000; round++) { /* places that were left are used again */
        assert_int_equal(map_put(&m, STR("in and out"), &values[0], NULL), ERR_OK);
        assert_ptr_equal(map_remove(&m, STR("in and out")), &values[0]);
    }
    assert_true(m.cap <= 4096);
    map_done(&m);
}

static void *producer(void *ctx)
{
    for (uintptr_t i = 1; i <= 1000; i++)
        while (queue_push(ctx, (void *)i) == ERR_LIMIT) sched_yield();
    return NULL;
}

static void a_queue_hands_over_and_closes(void **state)
{
    struct queue *q = queue_new(8);
    pthread_t t;
    void *item;
    uintptr_t sum = 0;
    (void)state;
    assert_int_equal(queue_pop(q, 0, &item), ERR_TIMEOUT);
    assert_int_equal(pthread_create(&t, NULL, producer, q), 0);
    for (int i = 0; i < 1000; i++) {
        assert_int_equal(queue_pop(q, 5000, &item), ERR_OK);
        sum += (uintptr_t)item;
    }
    pthread_join(t, NULL);
    assert_int_equal(sum, 500500);
    assert_int_equal(queue_push(q, (void *)1), ERR_OK);
    queue_close(q);
    assert_int_equal(queue_push(q, (void *)1), ERR_CLOSED);
    assert_int_equal(queue_pop(q, -1, &item), ERR_OK);
    assert_int_equal(queue_pop(q, -1, &item), ERR_CLOSED);
    queue_free(q);
}

static void a_list_keeps_order(void **state)
{
    struct list_node head, n[4];
    size_t at = 0;
    (void)state;
    memset(n, 0, sizeof n);
    list_init(&head);
    for (int i = 0; i < 4; i++) list_push_back(&head, &n[i]);
    list_remove(&n[1]);
    list_remove(&n[1]); /* twice does no harm */
    struct list_node *want[] = { &n[0], &n[2], &n[3] };
    LIST_EACH(it, &head) assert_ptr_equal(it, want[at++]);
    assert_int_equal(at, 3);
    while (list_pop_front(&head) != NULL) at--;
    assert_int_equal(at, 0);
    assert_true(list_empty(&head));
}

static void identifiers_are_version_7_and_in_order(void **state)
{
    struct clock_fake c;
    struct rng_fake r;
    char a[UUID_LEN + 1], b[UUID_LEN + 1];
    (void)state;
    clock_fake_init(&c, 0, 1700000000000000000u);
    rng_fake_init(&r, 1);
    uuid_v7(&c.clock, &r.rng, a);
    clock_fake_advance(&c, 1000000);
    uuid_v7(&c.clock, &r.rng, b);
    assert_true(uuid_is_valid(str_of(a)));
    assert_true(a[14] == '7' && strchr("89ab", a[19]) != NULL);
    assert_true(strcmp(a, b) < 0);
    assert_memory_equal(a, "018bcfe5-6800-7", 15);
    assert_false(uuid_is_valid(STR("018BCFE5-6800-7000-8000-000000000000")));
}

static void fill_with(void *ctx, void *out, size_t n)
{
    memset(out, *(int *)ctx, n);
}

static void identifiers_have_every_digit(void **state)
{
    char id[UUID_LEN + 1], want[UUID_LEN + 1];
    (void)state;
    for (int byte = 0; byte < 256; byte++) {
        const struct rng rng = { fill_with, &byte };
        uint64_t ms = (uint64_t)byte * 0x010101010101u;
        unsigned b = (unsigned)byte, two = b << 8 | b;
        uuid_v7_at(ms, &rng, id);
        (void)snprintf(want, sizeof want, "%02x%02x%02x%02x-%04x-%04x-%04x-%04x%04x%04x", b, b, b,
                       b, two, 0x7000 | (two & 0x0fff), 0x8000 | (two & 0x3fff), two, two, two);
        assert_string_equal(id, want);
    }
}

static void hashes_are_the_published_ones(void **state)
{
    /* RFC 3720, B.4: 32 bytes of zeros, and "123456789" */
    unsigned char zeros[32] = { 0 };
    (void)state;
    assert_int_equal(hash_crc32c(0, zeros, 32), 0x8a9136aa);
    assert_int_equal(hash_crc32c(0, "123456789", 9), 0xe3069283);
    assert_int_equal(hash_crc32c(hash_crc32c(0, "1234", 4), "56789", 5), 0xe3069283);
    uint64_t k1[2] = { 1, 2 }, k2[2] = { 1, 3 };
    assert_true(hash_sip("abc", 3, k1) == hash_sip("abc", 3, k1));
    assert_true(hash_sip("abc", 3, k1) != hash_sip("abc", 3, k2));
    assert_true(hash_sip("abc", 3, k1) != hash_sip("abd", 3, k1));
    assert_true(hash_sip("", 0, k1) != hash_sip("\0", 1, k1));
}

static void time_is_written_in_utc(void **state)
{
    char t[TIME_RFC3339_LEN + 1];
    (void)state;
    time_rfc3339(0, t);
    assert_string_equal(t, "1970-01-01T00:00:00.000Z");
    time_rfc3339(1709210096789000000u, t);
    assert_string_equal(t, "2024-02-29T12:34:56.789Z");
}

static bool is_before(struct timespec a, struct timespec b)
{
    return a.tv_sec < b.tv_sec || (a.tv_sec == b.tv_sec && a.tv_nsec < b.tv_nsec);
}

static void a_deadline_is_so_far_from_now(void **state)
{
    static const uint64_t ns[] = { 0, 1, 999999999, 1000000000, 1999999999, 86400000000001 };
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(ns); i++) {
        struct timespec before, after, t;
        clock_gettime(CLOCK_MONOTONIC, &before);
        t = clock_in_ns(ns[i]);
        clock_gettime(CLOCK_MONOTONIC, &after);
        assert_true(t.tv_nsec >= 0 && t.tv_nsec < 1000000000);
        uint64_t whole = (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec - ns[i];
        t = (struct timespec){ (time_t)(whole / 1000000000), (long)(whole % 1000000000) };
        assert_false(is_before(t, before) || is_before(after, t));
    }
    assert_true(is_before(clock_in_ms(0), clock_in_ms(60000)));
}

static void secrets_compare_in_constant_time(void **state)
{
    (void)state;
    assert_true(mem_eq_const_time("abc", "abc", 3));
    assert_false(mem_eq_const_time("abc", "abd", 3));
    assert_true(mem_eq_const_time("", "", 0));
    char hex[9];
    unsigned char back[4];
    hex_encode("\x00\xab\xff\x10", 4, hex);
    assert_string_equal(hex, "00abff10");
    assert_int_equal(hex_decode(STR("00abff1"), back, 4), ERR_INVALID);
    assert_int_equal(hex_decode(STR("00abfg10"), back, 4), ERR_INVALID);
    assert_int_equal(hex_decode(str_of(hex), back, 4), ERR_OK);
    assert_memory_equal(back, "\x00\xab\xff\x10", 4);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(numbers_are_read_strictly),
        cmocka_unit_test(views_are_cut_and_compared),
        cmocka_unit_test(utf8_is_checked),
        cmocka_unit_test(a_buffer_has_a_maximum),
        cmocka_unit_test(json_strings_are_escaped),
        cmocka_unit_test(json_strings_are_escaped_anywhere),
        cmocka_unit_test(parts_are_appended_together_or_not_at_all),
        cmocka_unit_test(an_arena_has_a_budget),
        cmocka_unit_test(a_map_finds_replaces_and_forgets),
        cmocka_unit_test(a_queue_hands_over_and_closes),
        cmocka_unit_test(a_list_keeps_order),
        cmocka_unit_test(identifiers_are_version_7_and_in_order),
        cmocka_unit_test(identifiers_have_every_digit),
        cmocka_unit_test(hashes_are_the_published_ones),
        cmocka_unit_test(time_is_written_in_utc),
        cmocka_unit_test(a_deadline_is_so_far_from_now),
        cmocka_unit_test(secrets_compare_in_constant_time),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
