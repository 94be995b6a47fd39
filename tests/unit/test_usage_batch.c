/* SPDX-License-Identifier: Apache-2.0 */
/* Messages with usage records: what is written is read, alone and together; bounds; a bad record
 * among good ones. */
#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/clock.h"
#include "proto/usage_batch.h"
#include "rt/json.h"

#define MESSAGE_ID "01a2063b-35ae-7bde-8289-6b3949d763a1"

/* What was read of a message. */
struct seen {
    size_t n, good;
    bool alone;
    struct {
        enum err e;
        char id[64], why[128];
        size_t text_n;
    } of[USAGE_BATCH_RECORDS];
};

static void on_part(void *ctx, const struct usage_part *p)
{
    struct seen *s = ctx;
    assert_int_equal(p->index, s->n);
    assert_true(s->n < USAGE_BATCH_RECORDS);
    s->alone = p->alone;
    s->of[s->n].e = p->e;
    if (p->e == ERR_OK) {
        assert_non_null(p->record);
        (void)str_copyz(s->of[s->n].id, sizeof s->of[s->n].id, p->record->id);
        s->good++;
    } else {
        assert_null(p->record);
        (void)str_copyz(s->of[s->n].why, sizeof s->of[s->n].why, str_of(p->why));
        s->of[s->n].text_n = p->text.n;
    }
    s->n++;
}

static enum err read_text(struct str text, struct seen *ret)
{
    struct arena arena;
    struct why why = { "" };
    *ret = (struct seen){ 0 };
    arena_init(&arena, 4 << 20);
    enum err e = usage_read(text, &arena, on_part, ret, &why);
    if (e != ERR_OK) {
        assert_int_equal(ret->n, 0);
        assert_true(why.text[0] != '\0');
    }
    arena_done(&arena);
    return e;
}

static struct str record(unsigned n, struct buf *out)
{
    char id[64];
    (void)snprintf(id, sizeof id, "00000000-0000-7000-8000-%012u", n);
    buf_clear(out);
    struct usage_record r = { .id = str_of(id),
                              .ts_ms = 1736496930123u,
                              .edge = STR("edge-1"),
                              .namespace_slug = STR("team-a"),
                              .user = STR("a\nline \"quoted\""),
                              .output_tokens = n };
    assert_int_equal(usage_encode(&r, out), ERR_OK);
    return buf_str(out);
}

/* A message of n records, the text of one of which (bad < n) is another. */
static void write_message(size_t n, size_t bad, const char *text, struct buf *out)
{
    struct buf one;
    buf_init(&one, USAGE_MAX_BYTES);
    buf_clear(out);
    assert_int_equal(usage_batch_begin(out, STR(MESSAGE_ID), 1736496930123u, STR("edge-1")),
                     ERR_OK);
    for (size_t i = 0; i < n; i++)
        assert_int_equal(
            usage_batch_add(out, i == bad ? str_of(text) : record((unsigned)i, &one), STR_NULL),
            ERR_OK);
    assert_int_equal(usage_batch_end(out), ERR_OK);
    buf_done(&one);
}

static void what_is_written_is_read(void **state)
{
    struct buf b;
    struct seen s;
    struct json *doc;
    struct why why;
    struct str text;
    (void)state;
    buf_init(&b, USAGE_BATCH_MAX_BYTES);
    for (size_t n = 1; n <= USAGE_BATCH_RECORDS; n++) {
        write_message(n, n, NULL, &b);
        assert_int_equal(read_text(buf_str(&b), &s), ERR_OK);
        assert_int_equal(s.n, n);
        assert_int_equal(s.good, n);
        assert_false(s.alone);
        for (size_t i = 0; i < n; i++) assert_int_equal(s.of[i].id[35], (int)('0' + i % 10));
    }
    /* It is a document like all others on the bus. */
    assert_int_equal(json_parse(buf_str(&b), USAGE_BATCH_MAX_BYTES, &doc, &why), ERR_OK);
    assert_int_equal(json_get_str(doc, "id", &text), ERR_OK);
    assert_true(str_eqz(text, MESSAGE_ID));
    assert_int_equal(json_get_str(doc, "ts", &text), ERR_OK);
    assert_true(str_eqz(text, "2025-01-10T08:15:30.123Z"));
    assert_int_equal(json_get_str(doc, "from", &text), ERR_OK);
    assert_true(str_eqz(text, "edge-1"));
    json_free(doc);
    buf_done(&b);
}

static void a_record_alone_is_read_as_before(void **state)
{
    struct buf b;
    struct seen s;
    (void)state;
    buf_init(&b, USAGE_MAX_BYTES);
    assert_int_equal(read_text(record(7, &b), &s), ERR_OK);
    assert_int_equal(s.n, 1);
    assert_true(s.alone);
    assert_string_equal(s.of[0].id, "00000000-0000-7000-8000-000000000007");
    buf_done(&b);
}

static void what_fits_can_be_written(void **state)
{
    struct buf b, one;
    char from[USAGE_TEXT_MAX * 2];
    size_t n = 0, bytes = 0;
    (void)state;
    buf_init(&b, USAGE_BATCH_MAX_BYTES);
    buf_init(&one, USAGE_MAX_BYTES);
    memset(from, '\x01', sizeof from); /* six bytes each, and more of them than are kept */
    struct str text = record(1, &one);
    char *large = xcalloc(1, 1000);
    memset(large, 'x', 1000);
    for (int k = 0; k < 2; k++) {
        buf_clear(&b);
        n = bytes = 0;
        if (k == 1) text = str_n(large, 1000); /* bytes are what ends it then, not records */
        assert_int_equal(usage_batch_begin(&b, STR(MESSAGE_ID), UINT64_C(253402300799999),
                                           str_n(from, sizeof from)),
                         ERR_OK);
        for (; usage_batch_fits(n + 1, bytes + text.n); n++, bytes += text.n)
            assert_int_equal(usage_batch_add(&b, str_n(text.p, 9), str_n(text.p + 9, text.n - 9)),
                             ERR_OK);
        assert_int_equal(usage_batch_end(&b), ERR_OK);
        assert_in_range(n, 20, USAGE_BATCH_RECORDS);
    }
    assert_true(b.len <= USAGE_BATCH_MAX_BYTES);
    assert_false(usage_batch_fits(USAGE_BATCH_RECORDS + 1, 100));
    assert_false(usage_batch_fits(1, USAGE_BATCH_MAX_BYTES));
    assert_false(usage_batch_fits(1, SIZE_MAX - 100));
    free(large);
    buf_done(&one);
    buf_done(&b);
}

static void a_bad_record_spoils_no_other(void **state)
{
    static const struct {
        const char *text;
        enum err e;
    } bad[] = {
        { "{\"v\":1}", ERR_INVALID },
        { "{\"v\":9,\"id\":\"x\"}", ERR_UNSUPPORTED },
        { "[]", ERR_INVALID },
        { "null", ERR_INVALID },
        /* With these the whole is no JSON. */
        { "{\"v\":1,\"v\":1}", ERR_INVALID },
        { "{\"v\":1,\"id\":", ERR_INVALID },
        { "\"", ERR_INVALID },
        { "\xff", ERR_INVALID },
        { "}]}", ERR_INVALID },
        { "{\"v\":1,\"user\":\"\x01\"}", ERR_INVALID },
    };
    struct buf b;
    struct seen s;
    (void)state;
    buf_init(&b, USAGE_BATCH_MAX_BYTES);
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        for (size_t at = 0; at < 3; at++) {
            write_message(3, at, bad[i].text, &b);
            assert_int_equal(read_text(buf_str(&b), &s), ERR_OK);
            assert_int_equal(s.n, 3);
            assert_int_equal(s.good, 2);
            assert_int_equal(s.of[at].e, bad[i].e);
            assert_true(s.of[at].why[0] != '\0');
            assert_true(s.of[at].text_n > 0);
        }
    }
    buf_done(&b);
}

static void what_is_no_message_is_refused_as_a_whole(void **state)
{
    struct buf b;
    struct seen s;
    (void)state;
    buf_init(&b, 2 * USAGE_BATCH_MAX_BYTES);
    assert_int_equal(read_text(STR(""), &s), ERR_INVALID);
    assert_int_equal(read_text(STR("[]"), &s), ERR_INVALID);
    assert_int_equal(read_text(STR("{\"v\":1,\"id\":\"nonsense\"}"), &s), ERR_INVALID);
    assert_int_equal(read_text(STR("{\"v\":2}"), &s), ERR_UNSUPPORTED);
    assert_int_equal(read_text(STR("{\"v\":2,\"records\":{}}"), &s), ERR_UNSUPPORTED);
    assert_int_equal(read_text(STR("{\"v\":2,\"records\":[]}"), &s), ERR_INVALID);
    assert_int_equal(read_text(STR("{\"v\":3,\"records\":[{}]}"), &s), ERR_UNSUPPORTED);
    assert_int_equal(read_text(STR("{\"v\":2,\"records\":[\n"), &s), ERR_INVALID);
    assert_int_equal(read_text(STR("{\"v\":2,\"records\":[\n]}x"), &s), ERR_INVALID);
    write_message(USAGE_BATCH_RECORDS + 1, 0, "{}", &b);
    assert_int_equal(read_text(buf_str(&b), &s), ERR_LIMIT);
    write_message(USAGE_BATCH_RECORDS + 1, 0, "{", &b); /* by lines too */
    assert_int_equal(read_text(buf_str(&b), &s), ERR_INVALID);
    memset(b.data, ' ', b.cap);
    assert_int_equal(read_text(str_n(b.data, USAGE_BATCH_MAX_BYTES + 1), &s), ERR_LIMIT);
    buf_done(&b);
}

static void a_cut_message_gives_what_came(void **state)
{
    struct buf b;
    struct seen s;
    (void)state;
    buf_init(&b, USAGE_BATCH_MAX_BYTES);
    write_message(4, 4, NULL, &b);
    size_t before = 0;
    for (size_t n = 0; n < b.len; n++) {
        if (read_text(str_n(b.data, n), &s) != ERR_OK) {
            assert_int_equal(before, 0); /* no record was begun */
            continue;
        }
        assert_in_range(s.n, 1, 4);
        assert_true(s.good + 1 >= s.n); /* all but the last are whole */
        assert_true(s.good >= before);
        before = s.good;
    }
    assert_int_equal(before, 4);
    buf_done(&b);
}

static void an_arena_that_is_too_small_fails_a_record(void **state)
{
    struct buf b;
    struct seen s = { 0 };
    struct arena arena;
    struct why why = { "" };
    (void)state;
    buf_init(&b, USAGE_BATCH_MAX_BYTES);
    write_message(40, 40, NULL, &b);
    arena_init(&arena, 1024);
    assert_int_equal(usage_read(buf_str(&b), &arena, on_part, &s, &why), ERR_OK);
    assert_int_equal(s.n, 40);
    assert_in_range(s.good, 1, 39);
    assert_int_equal(s.of[39].e, ERR_NOMEM);
    arena_done(&arena);
    buf_done(&b);
}

/* --- the samples --- */

static void read_samples(const char *kind, bool good)
{
    char dir[128], path[512];
    unsigned n = 0;
    struct dirent *e;
    (void)snprintf(dir, sizeof dir, "proto/samples/usage_batch/%s", kind);
    DIR *d = opendir(dir);
    assert_non_null(d);
    while ((e = readdir(d)) != NULL) {
        static char text[USAGE_BATCH_MAX_BYTES];
        struct seen s;
        if (!str_ends(str_of(e->d_name), STR(".json"))) continue;
        (void)snprintf(path, sizeof path, "%s/%s", dir, e->d_name);
        FILE *f = fopen(path, "r");
        assert_non_null(f);
        size_t size = fread(text, 1, sizeof text, f);
        (void)fclose(f);
        enum err err = read_text(str_n(text, size), &s);
        if (good != (err == ERR_OK && s.good == s.n)) fail_msg("%s", path);
        if (str_starts(str_of(e->d_name), STR("one_"))) {
            assert_int_equal(s.n, 3);
            assert_int_equal(s.good, 2);
        }
        n++;
    }
    (void)closedir(d);
    assert_in_range(n, 3, 100);
}

static void samples_are_taken_and_refused_as_they_should(void **state)
{
    (void)state;
    read_samples("good", true);
    read_samples("bad", false);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_written_is_read),
        cmocka_unit_test(a_record_alone_is_read_as_before),
        cmocka_unit_test(what_fits_can_be_written),
        cmocka_unit_test(a_bad_record_spoils_no_other),
        cmocka_unit_test(what_is_no_message_is_refused_as_a_whole),
        cmocka_unit_test(a_cut_message_gives_what_came),
        cmocka_unit_test(an_arena_that_is_too_small_fails_a_record),
        cmocka_unit_test(samples_are_taken_and_refused_as_they_should),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
