/* SPDX-License-Identifier: Apache-2.0 */
/* Event streams: every form of line end, every split, and bytes that come out as they went in. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "services/edge/dialects/sse.h"

struct seen {
    struct buf log; /* name|data; per event that has data */
    struct buf raw;
};

static enum err note(struct seen *s, const struct sse_event *ev)
{
    assert_int_equal(buf_append_str(&s->raw, ev->raw), ERR_OK);
    if (ev->data.p == NULL) return ERR_OK;
    assert_int_equal(buf_printf(&s->log, "%.*s|%.*s;", STR_ARG(ev->name), STR_ARG(ev->data)),
                     ERR_OK);
    return ERR_OK;
}

static const struct {
    const char *stream, *events;
} cases[] = {
    { "data: a\n\ndata: b\n\n", "|a;|b;" },
    { "data: a\r\n\r\ndata:b\r\n\r\n", "|a;|b;" },
    { "data: a\r\rdata: b\r\r", "|a;|b;" },
    { ": comment\n\ndata: a\n\n", "|a;" },
    { "event: ping\ndata: {}\n\n", "ping|{};" },
    { "data: one\ndata: two\n\n", "|one\ntwo;" },
    { "\xef\xbb\xbf"
      "data: a\n\n",
      "|a;" },
    { "id: 7\nretry: 10\nx: y\ndata\n\n", "|;" },
    { "data:  two spaces\n\n", "| two spaces;" },
    { "\n\n\ndata: a\n\n\n", "|a;" },
    { "data: a\r\n\ndata: b\n\r\n", "|a;|b;" },
    { "data: a\n\ndata: last", "|a;|last;" },
};

/* Takes what is complete. */
static enum err feed(struct sse *sse, struct str bytes, struct seen *s)
{
    struct sse_event ev;
    enum err e;
    while ((e = sse_next(sse, &bytes, &ev)) == ERR_OK) assert_int_equal(note(s, &ev), ERR_OK);
    if (e == ERR_AGAIN) assert_int_equal(bytes.n, 0);
    return e;
}

static void run(const char *stream, size_t step, struct seen *s)
{
    struct sse sse;
    struct str rest = str_of(stream);
    sse_init(&sse, 4096);
    buf_init(&s->log, 4096), buf_init(&s->raw, 4096);
    while (rest.n > 0) {
        size_t n = MIN(step, rest.n);
        assert_int_equal(feed(&sse, str_n(rest.p, n), s), ERR_AGAIN);
        rest.p += n, rest.n -= n;
    }
    struct sse_event last;
    enum err e = sse_last(&sse, &last);
    if (e == ERR_OK) assert_int_equal(note(s, &last), ERR_OK);
    assert_true(e == ERR_OK || e == ERR_AGAIN);
    sse_done(&sse);
}

static void reads_all_forms_in_any_split(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        for (size_t step = 1; step <= 40; step++) {
            struct seen s;
            run(cases[i].stream, step, &s);
            if (!str_eqz(buf_str(&s.log), cases[i].events))
                fail_msg("case %zu step %zu: got %s", i, step, buf_z(&s.log));
            /* Nothing lost, and nothing added but the line ends that the last event lacks. */
            struct str raw = buf_str(&s.raw), want = str_of(cases[i].stream);
            assert_true(str_starts(raw, want));
            if (str_ends(want, STR("last")))
                assert_true(str_eqz(str_n(raw.p + want.n, raw.n - want.n), "\n\n"));
            else
                assert_int_equal(raw.n, want.n);
            buf_done(&s.log), buf_done(&s.raw);
        }
    }
}

static void bounds_an_event(void **state)
{
    struct sse sse;
    struct seen s;
    char big[600];
    (void)state;
    memset(big, 'x', sizeof big);
    sse_init(&sse, 512);
    buf_init(&s.log, 4096), buf_init(&s.raw, 4096);
    assert_int_equal(feed(&sse, STR("data: "), &s), ERR_AGAIN);
    assert_int_equal(feed(&sse, str_n(big, sizeof big), &s), ERR_LIMIT);
    sse_done(&sse);
    buf_done(&s.log), buf_done(&s.raw);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_all_forms_in_any_split),
        cmocka_unit_test(bounds_an_event),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
