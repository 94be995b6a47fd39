/* SPDX-License-Identifier: Apache-2.0 */
/* What the gateway says itself: every refusal in both dialects, durations, rate fields. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "services/edge/client/reply.h"

static struct str text_of(struct js_val v)
{
    return js_is(v, JS_STRING) ? str_n(v.raw.p + 1, v.raw.n - 2) : STR("");
}

/* Whatever the message holds, the body is JSON of the dialect's shape. */
static void every_refusal_has_a_body_in_each_dialect(void **state)
{
    const struct str nasty = STR("a \"quote\", a \\, a\nline, \x01 and \xff");
    (void)state;
    for (int r = 0; r < REFUSE_MAX; r++) {
        struct js_val root;
        struct buf b;
        int status = refusal_status((enum refusal)r);
        assert_in_range(status, 400, 504);
        char room[REPLY_STATUS_ROOM];
        assert_false(str_ends(reply_status(status, room), STR(" Status")));

        buf_init(&b, 4096);
        assert_int_equal(
            reply_error_body(&dialect_openai, (enum refusal)r, nasty, "model", STR("id-1"), &b),
            ERR_OK);
        assert_int_equal(js_parse(buf_str(&b), &root, NULL), ERR_OK);
        struct js_val error = js_get(root, "error");
        assert_true(text_of(js_get(error, "type")).n > 0);
        assert_true(text_of(js_get(error, "message")).n > 0);
        assert_true(str_eqz(text_of(js_get(error, "param")), "model"));
        assert_true(js_get(error, "code").raw.p != NULL);

        buf_clear(&b);
        assert_int_equal(
            reply_error_body(&dialect_anthropic, (enum refusal)r, nasty, NULL, STR("id-1"), &b),
            ERR_OK);
        assert_int_equal(js_parse(buf_str(&b), &root, NULL), ERR_OK);
        assert_true(str_eqz(text_of(js_get(root, "type")), "error"));
        assert_true(str_ends(text_of(js_get(js_get(root, "error"), "type")), STR("_error")) ||
                    r == REFUSE_BODY_TOO_LARGE);
        assert_true(str_eqz(text_of(js_get(root, "request_id")), "id-1"));
        buf_done(&b);
    }
}

static void what_the_table_of_errors_says(void **state)
{
    static const struct {
        enum refusal r;
        int status;
        const char *openai, *code, *anthropic;
    } rows[] = {
        { REFUSE_BAD_KEY, 401, "invalid_request_error", "invalid_api_key", "authentication_error" },
        { REFUSE_FORBIDDEN, 403, "permission_error", "access_denied", "permission_error" },
        { REFUSE_NO_MODEL, 404, "invalid_request_error", "model_not_found", "not_found_error" },
        { REFUSE_CONTEXT_LENGTH, 400, "invalid_request_error", "context_length_exceeded",
          "invalid_request_error" },
        { REFUSE_BODY_TOO_LARGE, 413, "invalid_request_error", "body_too_large",
          "request_too_large" },
        { REFUSE_REQUESTS, 429, "requests", "rate_limit_exceeded", "rate_limit_error" },
        { REFUSE_TOKENS, 429, "tokens", "rate_limit_exceeded", "rate_limit_error" },
        { REFUSE_CONCURRENCY, 429, "concurrency", "rate_limit_exceeded", "rate_limit_error" },
        { REFUSE_NO_UPSTREAM, 503, "service_unavailable_error", "no_healthy_upstream",
          "overloaded_error" },
        { REFUSE_UPSTREAM_LIMIT, 429, "requests", "upstream_rate_limited", "rate_limit_error" },
        { REFUSE_UPSTREAM_DENIED, 502, "upstream_error", "upstream_denied", "api_error" },
        { REFUSE_LIMITER_AWAY, 503, "service_unavailable_error", "limiter_unavailable",
          "overloaded_error" },
        { REFUSE_UPSTREAM_BROKE, 502, "upstream_error", "upstream_error", "api_error" },
        { REFUSE_UPSTREAM_TIMEOUT, 504, "upstream_error", "upstream_timeout", "timeout_error" },
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct js_val root;
        struct buf b;
        buf_init(&b, 4096);
        assert_int_equal(refusal_status(rows[i].r), rows[i].status);
        assert_int_equal(dialect_openai.write_error(rows[i].r, STR("m"), NULL, STR("i"), &b),
                         ERR_OK);
        assert_int_equal(js_parse(buf_str(&b), &root, NULL), ERR_OK);
        root = js_get(root, "error");
        assert_true(str_eqz(text_of(js_get(root, "type")), rows[i].openai));
        assert_true(str_eqz(text_of(js_get(root, "code")), rows[i].code));
        assert_int_equal(js_get(root, "param").type, JS_NULL);
        buf_clear(&b);
        assert_int_equal(dialect_anthropic.write_error(rows[i].r, STR("m"), NULL, STR("i"), &b),
                         ERR_OK);
        assert_int_equal(js_parse(buf_str(&b), &root, NULL), ERR_OK);
        assert_true(str_eqz(text_of(js_get(js_get(root, "error"), "type")), rows[i].anthropic));
        buf_done(&b);
    }
}

static void durations_as_openai_writes_them(void **state)
{
    static const struct {
        uint64_t ms;
        const char *text;
    } rows[] = { { 0, "0ms" },       { 250, "250ms" },   { 1000, "1s" },
                 { 1500, "1.500s" }, { 360000, "6m0s" }, { 3661000, "1h1m1s" } };
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        char out[32];
        reply_duration(rows[i].ms, out);
        assert_string_equal(out, rows[i].text);
    }
    for (uint64_t ms = 1; ms < 1000; ms++) { /* parts of a second have three digits */
        char out[32], want[32];
        reply_duration(59000 + ms, out);
        (void)snprintf(want, sizeof want, "59.%03llus", (unsigned long long)ms);
        assert_string_equal(out, want);
    }
}

static void rate_fields_of_each_dialect(void **state)
{
    struct admit_outcome o = { .requests = { true, 10, 3, 1500 } };
    struct buf b;
    (void)state;
    buf_init(&b, 4096);
    assert_int_equal(reply_rate_fields(&dialect_openai, &o, 0, &b), ERR_OK);
    assert_true(str_eqz(buf_str(&b), "x-ratelimit-limit-requests: 10\r\n"
                                     "x-ratelimit-remaining-requests: 3\r\n"
                                     "x-ratelimit-reset-requests: 1.500s\r\n"));
    buf_clear(&b);
    assert_int_equal(reply_rate_fields(&dialect_anthropic, &o, 500, &b), ERR_OK);
    assert_true(
        str_starts(buf_str(&b), STR("anthropic-ratelimit-requests-limit: 10\r\n"
                                    "anthropic-ratelimit-requests-remaining: 3\r\n"
                                    "anthropic-ratelimit-requests-reset: 1970-01-01T00:00:02")));
    buf_done(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_refusal_has_a_body_in_each_dialect),
        cmocka_unit_test(what_the_table_of_errors_says),
        cmocka_unit_test(durations_as_openai_writes_them),
        cmocka_unit_test(rate_fields_of_each_dialect),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
