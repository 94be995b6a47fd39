/* SPDX-License-Identifier: Apache-2.0 */
/* Requests as the dialects scan them: what is found, and what is refused because another parser
 * could read it as another request. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "services/edge/dialects/dialect.h"

static enum err scan(enum snap_endpoint ep, const char *text, struct request_scan *r,
                     const char **param, struct why *why)
{
    struct js_val root;
    *param = "";
    assert_int_equal(js_parse(str_of(text), &root, NULL), ERR_OK);
    return dialect_of(ep)->scan_request(ep, root, r, param, why);
}

static void finds_what_the_gateway_needs(void **state)
{
    struct request_scan r;
    const char *param;
    struct why why;
    (void)state;
    assert_int_equal(scan(SNAP_EP_CHAT,
                          "{\"\\u006dodel\":\"m\",\"messages\":[],\"stream\":true,\"n\":3,"
                          "\"max_tokens\":7,\"max_completion_tokens\":9,\"user\":\"u\","
                          "\"stream_options\":{\"include_usage\":true},\"extra\":{\"model\":1}}",
                          &r, &param, &why),
                     ERR_OK);
    assert_true(str_eqz(r.model.raw, "\"m\""));
    assert_true(r.stream && r.wants_usage);
    assert_int_equal(r.choices, 3);
    assert_int_equal(r.max_tokens, 9);
    assert_int_equal(scan(SNAP_EP_CHAT,
                          "{\"model\":\"m\",\"messages\":[],\"stream\":null,\"n\":null,"
                          "\"max_tokens\":null,\"stream_options\":null}",
                          &r, &param, &why),
                     ERR_OK);
    assert_false(r.stream || r.wants_usage);
    assert_int_equal(r.choices, 1);
    assert_int_equal(r.max_tokens, 0);
    assert_int_equal(scan(SNAP_EP_MESSAGES,
                          "{\"model\":\"m\",\"messages\":[],\"system\":\"s\",\"max_tokens\":5}", &r,
                          &param, &why),
                     ERR_OK);
    assert_int_equal(r.max_tokens, 5);
    assert_true(str_eqz(r.system.raw, "\"s\""));
    assert_int_equal(
        scan(SNAP_EP_COMPLETIONS, "{\"model\":\"m\",\"prompt\":[1,2]}", &r, &param, &why), ERR_OK);
    assert_int_equal(
        scan(SNAP_EP_EMBEDDINGS, "{\"model\":\"m\",\"input\":\"x\"}", &r, &param, &why), ERR_OK);
}

/* The largest bound counts, for every text that the model writes. */
static void counts_the_choices_and_takes_the_largest_bound(void **state)
{
    static const struct {
        enum snap_endpoint ep;
        const char *text;
        uint64_t max, choices;
    } rows[] = {
        { SNAP_EP_CHAT,
          "{\"model\":\"m\",\"messages\":[],\"max_tokens\":9,\"max_output_tokens\":11,"
          "\"max_completion_tokens\":10}",
          11, 1 },
        { SNAP_EP_CHAT, "{\"model\":\"m\",\"messages\":[],\"n\":4,\"max_tokens\":9}", 9, 4 },
        { SNAP_EP_COMPLETIONS, "{\"model\":\"m\",\"prompt\":\"x\",\"n\":2,\"best_of\":5}", 0, 5 },
        { SNAP_EP_COMPLETIONS, "{\"model\":\"m\",\"prompt\":[\"x\",\"y\",\"z\"],\"n\":2}", 0, 6 },
        { SNAP_EP_COMPLETIONS, "{\"model\":\"m\",\"prompt\":[1,2,3]}", 0, 1 },
        { SNAP_EP_COMPLETIONS, "{\"model\":\"m\",\"prompt\":[[1,2],[3]],\"best_of\":null}", 0, 2 },
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct request_scan r;
        const char *param;
        struct why why;
        assert_int_equal(scan(rows[i].ep, rows[i].text, &r, &param, &why), ERR_OK);
        assert_int_equal(r.max_tokens, rows[i].max);
        assert_int_equal(r.choices, rows[i].choices);
    }
}

static void refuses_and_names_the_parameter(void **state)
{
    static const struct {
        enum snap_endpoint ep;
        const char *text, *param;
    } rows[] = {
        { SNAP_EP_CHAT, "[]", "body" },
        { SNAP_EP_CHAT, "{\"messages\":[]}", "model" },
        { SNAP_EP_CHAT, "{\"model\":\"\",\"messages\":[]}", "model" },
        { SNAP_EP_CHAT, "{\"model\":1,\"messages\":[]}", "model" },
        { SNAP_EP_CHAT, "{\"model\":\"m\"}", "messages" },
        { SNAP_EP_CHAT, "{\"model\":\"m\",\"messages\":{}}", "messages" },
        { SNAP_EP_CHAT, "{\"model\":\"m\",\"messages\":[],\"stream\":1}", "stream" },
        { SNAP_EP_CHAT, "{\"model\":\"m\",\"messages\":[],\"n\":0}", "n" },
        { SNAP_EP_CHAT, "{\"model\":\"m\",\"messages\":[],\"n\":33}", "n" },
        { SNAP_EP_COMPLETIONS, "{\"model\":\"m\",\"prompt\":\"x\",\"best_of\":33}", "best_of" },
        { SNAP_EP_COMPLETIONS, "{\"model\":\"m\",\"prompt\":[\"x\",\"y\"],\"n\":17}", "prompt" },
        { SNAP_EP_CHAT, "{\"model\":\"m\",\"messages\":[],\"max_output_tokens\":0}",
          "max_output_tokens" },
        { SNAP_EP_MESSAGES,
          "{\"model\":\"m\",\"messages\":[],\"metadata\":{\"user_id\":\"a\",\"user_id\":\"b\"}}",
          "metadata.user_id" },
        { SNAP_EP_CHAT, "{\"model\":\"m\",\"messages\":[],\"max_tokens\":-1}", "max_tokens" },
        { SNAP_EP_CHAT, "{\"model\":\"m\",\"messages\":[],\"max_tokens\":0}", "max_tokens" },
        { SNAP_EP_CHAT, "{\"model\":\"m\",\"messages\":[],\"max_tokens\":1.5}", "max_tokens" },
        { SNAP_EP_CHAT, "{\"model\":\"m\",\"messages\":[],\"max_tokens\":\"9\"}", "max_tokens" },
        { SNAP_EP_CHAT, "{\"model\":\"m\",\"messages\":[],\"stream_options\":1}",
          "stream_options" },
        /* twice, plainly or by an escape */
        { SNAP_EP_CHAT, "{\"model\":\"m\",\"messages\":[],\"model\":\"b\"}", "model" },
        { SNAP_EP_CHAT, "{\"model\":\"m\",\"messages\":[],\"mode\\u006c\":\"b\"}", "model" },
        { SNAP_EP_CHAT, "{\"model\":\"m\",\"messages\":[],\"stream\":true,\"stream\":false}",
          "stream" },
        { SNAP_EP_CHAT, "{\"model\":\"m\",\"messages\":[],\"n\":1,\"n\":2}", "n" },
        { SNAP_EP_CHAT,
          "{\"model\":\"m\",\"messages\":[],\"stream_options\":{\"include_usage\":true,"
          "\"include_usage\":false}}",
          "stream_options.include_usage" },
        { SNAP_EP_MESSAGES, "{\"model\":\"m\",\"messages\":[],\"model\":\"b\"}", "model" },
        { SNAP_EP_MESSAGES, "{\"model\":\"m\",\"messages\":[],\"max_tokens\":0}", "max_tokens" },
        /* in other letters: servers that do not regard case read another request */
        { SNAP_EP_CHAT, "{\"model\":\"m\",\"messages\":[],\"Model\":\"b\"}", "model" },
        { SNAP_EP_CHAT, "{\"model\":\"m\",\"messages\":[],\"MAX_TOKENS\":5}", "max_tokens" },
        { SNAP_EP_CHAT,
          "{\"model\":\"m\",\"messages\":[],\"max_to\xe2\x84\xaa"
          "ens\":5}",
          "max_tokens" },
        { SNAP_EP_CHAT, "{\"model\":\"m\",\"messages\":[],\"max_to\\u212aens\":5}", "max_tokens" },
        { SNAP_EP_CHAT, "{\"model\":\"m\",\"messages\":[],\"\xc5\xbftream\":true}", "stream" },
        { SNAP_EP_CHAT, "{\"model\":\"m\",\"messages\":[],\"N\":9}", "n" },
        { SNAP_EP_CHAT,
          "{\"model\":\"m\",\"messages\":[],\"stream_options\":{\"Include_usage\":true}}",
          "include_usage" },
        { SNAP_EP_MESSAGES, "{\"model\":\"m\",\"messages\":[],\"System\":\"b\"}", "system" },
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct request_scan r;
        const char *param;
        struct why why;
        if (scan(rows[i].ep, rows[i].text, &r, &param, &why) != ERR_INVALID)
            fail_msg("taken: %s", rows[i].text);
        assert_string_equal(param, rows[i].param);
        assert_true(why.text[0] != '\0');
    }
}

/* What looks like a known key and is none. */
static void leaves_other_keys_alone(void **state)
{
    struct request_scan r;
    const char *param;
    struct why why;
    (void)state;
    assert_int_equal(
        scan(SNAP_EP_CHAT,
             "{\"model\":\"m\",\"messages\":[],\"models\":1,\"mode\":2,\"\":3,\"nn\":4,"
             "\"\xe4\xbd\xa0\":5,\"model\\u0000\":6,\"temperature\":0,\"temperature\":1}",
             &r, &param, &why),
        ERR_OK);
}

static void a_finish_reason_without_text_is_none(void **state)
{
    struct chunk c;
    (void)state;
    chunk_init(&c);
    assert_int_equal(
        dialect_openai.parse_event(STR_NULL,
                                   STR("{\"choices\":[{\"index\":0,\"delta\":{\"content\":\"a\"},"
                                       "\"finish_reason\":\"\"}]}"),
                                   &c),
        ERR_OK);
    assert_int_equal(c.choices_n, 1);
    assert_false(c.choices[0].finished);
}

static void what_nobody_reads_and_may_differ_is_padding(void **state)
{
    static const struct {
        const char *event, *padding;
    } cases[] = {
        { "{\"id\":\"c\",\"object\":\"o\",\"created\":1,\"model\":\"m\",\"service_tier\":\"s\","
          "\"system_fingerprint\":\"f\",\"choices\":[],\"usage\":null,\"extra\":{}}",
          NULL },
        { "{\"id\":\"c\",\"choices\":[],\"obfuscation\":\"x1\"}", "\"x1\"" },
        { "{\"p\":\"abc\",\"id\":\"c\",\"choices\":[],\"model\":\"m\"}", "\"abc\"" },
        { "{\"id\":\"c\",\"error\":\"e\",\"choices\":[]}", NULL },
    };
    struct chunk c;
    (void)state;
    chunk_init(&c);
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct str want = cases[i].padding != NULL ? str_of(cases[i].padding) : STR("");
        assert_int_equal(dialect_openai.parse_event(STR_NULL, str_of(cases[i].event), &c), ERR_OK);
        assert_int_equal(c.padding.raw.n, want.n);
        assert_memory_equal(c.padding.raw.n > 0 ? c.padding.raw.p : "", want.p, want.n);
    }
    chunk_done(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(finds_what_the_gateway_needs),
        cmocka_unit_test(counts_the_choices_and_takes_the_largest_bound),
        cmocka_unit_test(refuses_and_names_the_parameter),
        cmocka_unit_test(leaves_other_keys_alone),
        cmocka_unit_test(a_finish_reason_without_text_is_none),
        cmocka_unit_test(what_nobody_reads_and_may_differ_is_padding),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
