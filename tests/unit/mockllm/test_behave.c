/* SPDX-License-Identifier: Apache-2.0 */
/* Behaviours: what is understood, what is refused, and that the tables and the parser agree. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "services/mockllm/behave.h"

static enum err parse(struct behave *b, const char *text)
{
    struct why why = { "" };
    behave_init(b);
    enum err e = behave_parse(b, str_of(text), ';', &why);
    if (e != ERR_OK) assert_true(why.text[0] != '\0');
    return e;
}

static void test_keys_of_every_kind(void **state)
{
    (void)state;
    struct behave b;
    assert_int_equal(parse(&b, ""), ERR_OK);
    assert_int_equal(b.tokens, -1);
    assert_int_equal(b.per_event, 1);
    assert_int_equal(parse(&b, " tokens = 7 ; ttft_ms=50;; tps=4 ;ignore_max; comments=no;"
                               "tool=get x; finish=stop; chunking=bytes:3; eol=crlf; usage=5:9;"
                               "id=a b; framing=close; encoding=gzip; echo=request;"),
                     ERR_OK);
    assert_int_equal(b.tokens, 7);
    assert_int_equal(b.ttft_ms, 50);
    assert_int_equal(b.interval_ns, 250000000);
    assert_true(b.ignore_max);
    assert_false(b.comments);
    assert_string_equal(b.tool, "get x");
    assert_string_equal(b.finish, "stop");
    assert_int_equal(b.chunking, CHUNKING_BYTES);
    assert_int_equal(b.chunking_arg, 3);
    assert_int_equal(b.eol, EOL_CRLF);
    assert_int_equal(b.usage, USAGE_CLAIM);
    assert_int_equal(b.claim_prompt, 5);
    assert_int_equal(b.claim_completion, 9);
    assert_string_equal(b.id, "a b");
    assert_int_equal(b.framing, FRAMING_CLOSE);
    assert_int_equal(b.encoding, ENCODING_GZIP);
    assert_int_equal(b.echo, ECHO_REQUEST);
}

static void test_faults(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        enum fault fault;
        uint64_t arg;
    } rows[] = {
        { "fail=refuse", FAULT_REFUSE, 0 },
        { "fail=hang", FAULT_HANG, 0 },
        { "fail=429", FAULT_STATUS, 429 },
        { "fail=503:Wed, 21 Oct 2015 07:28:00 GMT", FAULT_STATUS, 503 },
        { "fail=hang_after:12", FAULT_HANG_AFTER, 12 },
        { "fail=reset_after", FAULT_RESET_AFTER, 1 },
        { "fail=close_after:0", FAULT_CLOSE_AFTER, 0 },
        { "fail=bad_chunk", FAULT_BAD_CHUNK, 0 },
        { "fail=bad_chunk:nocrlf", FAULT_BAD_CHUNK, 0 },
        { "fail=early", FAULT_EARLY, 413 },
        { "fail=500; fail=none", FAULT_NONE, 0 },
    };
    struct behave b;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        assert_int_equal(parse(&b, rows[i].text), ERR_OK);
        assert_int_equal(b.fail, rows[i].fault);
        if (rows[i].arg != 0) assert_int_equal(b.fail_arg, rows[i].arg);
    }
    assert_int_equal(parse(&b, "fail=429:7"), ERR_OK);
    assert_string_equal(b.retry_after, "7");
    assert_int_equal(parse(&b, "fail=bad_chunk:long"), ERR_OK);
    assert_int_equal(b.bad_chunk, BAD_LONG);
    assert_int_equal(parse(&b, "header=A: b; header=C:d,e"), ERR_OK);
    assert_int_equal(b.headers_len, 2);
    assert_string_equal(b.headers[1], "C:d,e");
}

static void test_nonsense_is_refused(void **state)
{
    (void)state;
    static const char *const rows[] = {
        "token=5",
        "tokens",
        "tokens=",
        "tokens=-1",
        "tokens=5x",
        "tokens=99999999",
        "tps=x",
        "eol=no",
        "ignore_max=maybe",
        "chunking=bytes",
        "chunking=bytes:0",
        "chunking=words:3",
        "chunking=event:1",
        "per_event=0",
        "usage=5",
        "usage=a:b",
        "fail=oops",
        "fail=200",
        "fail=600",
        "fail=refuse:1",
        "fail=hang_after:x",
        "fail=bad_chunk:x",
        "fail=early:100",
        "header=x",
        "header=:x",
        "header=a b:x",
        "finish=",
        "id=",
        "=5",
        "tag=\x01",
        "fail=429:\x01",
        "header=A:1;header=A:1;header=A:1;header=A:1;header=A:1",
    };
    struct behave b;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        if (parse(&b, rows[i]) != ERR_INVALID) print_error("accepted: %s\n", rows[i]);
        assert_int_equal(parse(&b, rows[i]), ERR_INVALID);
    }
}

static void test_behaviour_in_a_models_name(void **state)
{
    (void)state;
    struct str rest;
    struct behave b;
    assert_true(str_eqz(behave_model(STR("Qwen3-8B@tokens=5,tps=2"), &rest), "Qwen3-8B"));
    behave_init(&b);
    assert_int_equal(behave_parse(&b, rest, ',', NULL), ERR_OK);
    assert_int_equal(b.tokens, 5);
    assert_int_equal(b.interval_ns, 500000000);
    assert_true(str_eqz(behave_model(STR("gpt-4o"), &rest), "gpt-4o"));
    assert_null(rest.p);
}

/* What the help names, the parser knows. */
static void test_every_documented_key_is_understood(void **state)
{
    (void)state;
    struct buf help;
    buf_init(&help, 1 << 16);
    assert_int_equal(behave_markdown(&help), ERR_OK);
    struct str rest = buf_str(&help);
    size_t keys = 0;
    while (rest.p != NULL) {
        struct str line = str_cut(&rest, '\n');
        if (!str_starts(line, STR("| `"))) continue;
        line = str_n(line.p + 3, line.n - 3);
        struct str name = str_cut(&line, '`');
        char text[64];
        struct behave b;
        struct why why = { "" };
        behave_init(&b);
        if (name.n > 4 && str_eqz(str_n(name.p + name.n - 4, 4), "[:N]")) name.n -= 4;
        if (memchr(name.p, '[', name.n) != NULL) continue; /* with a form of its own */
        str_copyz(text, sizeof text, name);
        if (behave_parse(&b, str_of(text), ';', &why) == ERR_INVALID &&
            strstr(why.text, "no behaviour is called") != NULL) {
            struct buf fail;
            buf_init(&fail, 100);
            assert_int_equal(buf_printf(&fail, "fail=%s", text), ERR_OK);
            assert_int_equal(behave_parse(&b, buf_str(&fail), ';', &why), ERR_OK);
            buf_done(&fail);
        }
        keys++;
    }
    assert_true(keys > 40);
    buf_done(&help);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_keys_of_every_kind),
        cmocka_unit_test(test_faults),
        cmocka_unit_test(test_nonsense_is_refused),
        cmocka_unit_test(test_behaviour_in_a_models_name),
        cmocka_unit_test(test_every_documented_key_is_understood),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
