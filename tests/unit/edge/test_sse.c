/* SPDX-License-Identifier: Apache-2.0 */
/* Event streams: every form of line end, every split, and bytes that come out as they went in. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/clock.h"
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

/* --- against the standard, read as it stands --- */

/* HTML, 9.2.6: a stream is lines; a line is a comment, a field, or empty, which dispatches. Unlike
 * there, what the end of the stream leaves is dispatched as well. */
struct plain {
    struct buf data, name, log;
};

static void put(struct buf *b, struct str s)
{
    assert_int_equal(buf_append_str(b, s), ERR_OK);
}

static void plain_dispatch(struct plain *x)
{
    if (x->data.len > 0) { /* without its last LF */
        put(&x->log, buf_str(&x->name)), put(&x->log, STR("|"));
        put(&x->log, str_n(x->data.data, x->data.len - 1)), put(&x->log, STR(";"));
    }
    buf_clear(&x->data), buf_clear(&x->name);
}

static void plain_line(struct plain *x, const char *p, size_t n)
{
    size_t colon = 0;
    if (n == 0) {
        plain_dispatch(x);
        return;
    }
    while (colon < n && p[colon] != ':') colon++;
    struct str field = str_n(p, colon), value = STR("");
    if (colon < n) value = str_n(p + colon + 1, n - colon - 1);
    if (value.n > 0 && value.p[0] == ' ') value = str_n(value.p + 1, value.n - 1);
    if (str_eqz(field, "data")) put(&x->data, value), put(&x->data, STR("\n"));
    if (str_eqz(field, "event")) buf_clear(&x->name), put(&x->name, value);
}

static void plain_read(struct plain *x, struct str s)
{
    size_t i = 0, begin;
    if (s.n >= 3 && memcmp(s.p, "\xef\xbb\xbf", 3) == 0) i = 3;
    for (begin = i; i < s.n; i++) {
        if (s.p[i] != '\n' && s.p[i] != '\r') continue;
        plain_line(x, s.p + begin, i - begin);
        if (s.p[i] == '\r' && i + 1 < s.n && s.p[i + 1] == '\n') i++;
        begin = i + 1;
    }
    if (begin < s.n) plain_line(x, s.p + begin, s.n - begin);
    plain_dispatch(x);
}

static void make_stream(const struct rng *rng, struct buf *out)
{
    static const char *const lines[] = {
        "data: a",
        "data:b",
        "data: ",
        "data:",
        "data",
        "data:  c",
        "data: x:y",
        "event: ping",
        "event:",
        "event",
        "event: z",
        ": comment",
        ":",
        "",
        "",
        "",
        "",
        "id: 1",
        "retry: 5",
        "datax: 1",
        "Data: 1",
        " data: 1",
        "\xef\xbb\xbf",
        "data: \xef\xbb\xbf",
        ":data: 1",
        "x",
    };
    static const char *const ends[] = { "\n", "\r", "\r\n" };
    uint64_t one = rng_below(rng, 6); /* mostly all lines end alike */
    buf_clear(out);
    if (rng_below(rng, 4) == 0) put(out, STR("\xef\xbb\xbf"));
    for (uint64_t n = rng_below(rng, 14); n > 0; n--) {
        put(out, str_of(lines[rng_below(rng, ARRAY_LEN(lines))]));
        if (n == 1 && rng_below(rng, 2) == 0) break;
        put(out, str_of(ends[one < 3 ? one : rng_below(rng, 3)]));
    }
}

static void reads_what_the_standard_says(void **state)
{
    struct rng_fake random;
    const struct rng *rng = &random.rng;
    struct plain x;
    struct buf stream;
    size_t with_events = 0;
    (void)state;
    rng_fake_init(&random, 7);
    buf_init(&stream, 4096);
    buf_init(&x.data, 4096), buf_init(&x.name, 4096), buf_init(&x.log, 4096);
    for (int round = 0; round < 60000; round++) {
        struct seen s;
        struct sse sse;
        struct sse_event last;
        make_stream(rng, &stream);
        buf_clear(&x.log);
        plain_read(&x, buf_str(&stream));
        with_events += x.log.len > 0;
        sse_init(&sse, 4096);
        buf_init(&s.log, 4096), buf_init(&s.raw, 4096);
        uint64_t most = 1 + rng_below(rng, 1 + stream.len);
        for (size_t at = 0, n; at < stream.len; at += n) {
            n = 1 + (size_t)rng_below(rng, most);
            n = MIN(n, stream.len - at);
            char *piece = malloc(n); /* its end is that of the memory */
            assert_non_null(piece);
            memcpy(piece, stream.data + at, n);
            assert_int_equal(feed(&sse, str_n(piece, n), &s), ERR_AGAIN);
            free(piece);
        }
        enum err e = sse_last(&sse, &last);
        if (e == ERR_OK) assert_int_equal(note(&s, &last), ERR_OK);
        assert_true(e == ERR_OK || e == ERR_AGAIN);
        if (!str_eq(buf_str(&s.log), buf_str(&x.log)))
            fail_msg("round %d: %s gives %s, should be %s", round, buf_z(&stream), buf_z(&s.log),
                     buf_z(&x.log));
        assert_true(str_starts(buf_str(&s.raw), buf_str(&stream)));
        if (e == ERR_AGAIN) assert_int_equal(s.raw.len, stream.len);
        sse_done(&sse);
        buf_done(&s.log), buf_done(&s.raw);
    }
    assert_true(with_events > 20000);
    buf_done(&stream), buf_done(&x.data), buf_done(&x.name), buf_done(&x.log);
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
        cmocka_unit_test(reads_what_the_standard_says),
        cmocka_unit_test(bounds_an_event),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
