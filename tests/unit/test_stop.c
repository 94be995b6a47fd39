/* SPDX-License-Identifier: Apache-2.0 */
/* Counting, encoding and rendering ask at bounded intervals whether anybody waits, and give up. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "support_bytes_vocab.h"
#include "support_vocab.h"
#include "tokenizer/chat/chat.h"

enum { N = 1 << 20 };

/* Says yes at the asked-th question. */
struct patience {
    unsigned asked, lasts;
    struct stop stop;
};

static bool ask(void *ctx)
{
    struct patience *p = ctx;
    return ++p->asked > p->lasts;
}

static void have(struct patience *p, unsigned lasts)
{
    *p = (struct patience){ .lasts = lasts, .stop = { ask, p } };
}

static char *words(void)
{
    char *text = xmalloc(N);
    for (size_t i = 0; i < N; i++) text[i] = i % 7 == 6 ? ' ' : 'a';
    return text;
}

static void a_text_is_given_up_within_64_kib(void **state)
{
    struct vocab *v = bytes_vocab("b", "", "");
    struct patience p;
    uint64_t n = 7;
    char *text = words();
    (void)state;
    have(&p, 1000);
    assert_int_equal(token_count_until(v, str_n(text, N), SPECIAL_TEXT, &p.stop, &n), ERR_OK);
    assert_int_equal(n, N);
    assert_in_range(p.asked, N / (64 << 10) - 1, N / (64 << 10) + 1);
    n = 7;
    have(&p, 3);
    assert_int_equal(token_count_until(v, str_n(text, N), SPECIAL_TEXT, &p.stop, &n), ERR_CLOSED);
    assert_int_equal(p.asked, 4);
    assert_int_equal(n, 7);
    struct token_list l = { .want_ends = true, .stop = &p.stop };
    have(&p, 1);
    assert_int_equal(token_encode(v, str_n(text, N), SPECIAL_TEXT, &l), ERR_CLOSED);
    assert_int_equal(l.len, 0);
    token_list_done(&l);
    free(text);
    vocab_unref(v);
}

/* Of one word no piece ends before the text does: it is asked while its tokens are looked for. */
static void a_single_word_is_given_up_within_64_kib(void **state)
{
    static struct support_vocab made;
    struct patience p;
    uint64_t n = 7, asks;
    char *text = xmalloc(N);
    (void)state;
    support_init(&made, support_words, sizeof support_words / sizeof support_words[0]);
    struct vocab *v = support_open(&made, PATTERN_QWEN, false);
    for (int kind = 0; kind < 2; kind++) { /* of long tokens, and of short ones */
        for (size_t i = 0; i < N; i++) text[i] = kind == 0 ? 'a' : (char)('d' + i * 7 % 11);
        struct token_list l = { .stop = &p.stop };
        have(&p, 1000);
        assert_int_equal(token_encode(v, str_n(text, N), SPECIAL_TEXT, &l), ERR_OK);
        asks = p.asked;
        assert_in_range(asks, N / (64 << 10) - 1, N / (64 << 10) + 1);
        n = l.len;
        l.len = 0;
        have(&p, 1);
        assert_int_equal(token_encode(v, str_n(text, N), SPECIAL_TEXT, &l), ERR_CLOSED);
        assert_int_equal(p.asked, 2);
        assert_int_equal(l.len, 0);
        token_list_done(&l);
        uint64_t count = 0;
        have(&p, 1000);
        assert_int_equal(token_count_until(v, str_n(text, N), SPECIAL_TEXT, &p.stop, &count),
                         ERR_OK);
        assert_int_equal(count, n);
        assert_in_range(p.asked, 2 * asks - 1, 2 * asks + 2); /* while it is fed, and counted */
        have(&p, (unsigned)asks + 2);
        assert_int_equal(token_count_until(v, str_n(text, N), SPECIAL_TEXT, &p.stop, &count),
                         ERR_CLOSED);
    }
    free(text);
    vocab_unref(v);
}

static void a_chat_is_given_up_while_it_is_rendered_or_counted(void **state)
{
    static const char *const templates[] = {
        "{% set r = range(400) %}{% for a in r %}{% for b in r %}{% if a == b %}x{% endif %}{% endfor %}{% endfor %}",
        "{% for m in messages %}{{ m.content }}{% endfor %}", "" /* the texts alone */
    };
    char *text = words();
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(templates); i++) {
        struct vocab *v = bytes_vocab("b", templates[i], "");
        struct model_info info = { .vocab = v, .vocabulary = STR("b") };
        struct chat_template *chat = NULL;
        struct chat_count c;
        struct chat_error error = { .raised = false };
        struct patience p;
        struct arena a;
        arena_init(&a, 256 << 20);
        if (templates[i][0] != '\0') assert_int_equal(chat_template_new(v, &chat, NULL), ERR_OK);
        info.chat = chat;
        struct jv_dict *m = jv_dict_new(&a, 2);
        assert_int_equal(jv_dict_set(&a, m, jv_str(STR("role")), jv_str(STR("user"))), ERR_OK);
        assert_int_equal(jv_dict_set(&a, m, jv_str(STR("content")), jv_str(str_n(text, N))),
                         ERR_OK);
        struct jv_list *list = jv_list_new(&a, 1);
        list->items[0] = jv_of_dict(m);
        list->n = 1;
        struct chat_values in = { .messages = jv_of_list(JV_LIST, list), .stop = &p.stop };
        have(&p, 1000);
        assert_int_equal(chat_count_values(&info, &in, &a, &c, &error), ERR_OK);
        if (p.asked <= 5) fail_msg("template %zu: asked %u times", i, p.asked);
        have(&p, 2);
        assert_int_equal(chat_count_values(&info, &in, &a, &c, &error), ERR_CLOSED);
        assert_int_equal(p.asked, 3);
        assert_false(error.raised);
        chat_template_free(chat);
        arena_done(&a);
        vocab_unref(v);
    }
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_text_is_given_up_within_64_kib),
        cmocka_unit_test(a_single_word_is_given_up_within_64_kib),
        cmocka_unit_test(a_chat_is_given_up_while_it_is_rendered_or_counted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
