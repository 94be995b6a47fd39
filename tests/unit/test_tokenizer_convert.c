/* SPDX-License-Identifier: Apache-2.0 */
/* Vocabulary files: what converters understand, what they refuse, what is found in the file again.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "support_chars.h"
#include "tokenizer/tokenizer.h"

static struct support_vocab made;

static enum err convert(struct str json, struct convert_opts o, struct buf *file, struct why *why)
{
    if (o.name.n == 0) o.name = STR("test");
    buf_init(file, 64 << 20);
    enum err e = convert_huggingface(json, &o, file, why);
    if (e != ERR_OK) assert_int_equal(file->len, 0);
    return e;
}

static void good_json(struct buf *json)
{
    support_init(&made, support_words, sizeof support_words / sizeof support_words[0]);
    buf_init(json, 1 << 20);
    support_json(&made, PATTERN_QWEN, true, false, json);
}

static void replace(struct buf *json, const char *from, const char *to)
{
    char *at = strstr(buf_z(json), from);
    struct buf out;
    assert_non_null(at);
    buf_init(&out, 2 << 20);
    assert_int_equal(buf_append(&out, json->data, (size_t)(at - json->data)), ERR_OK);
    assert_int_equal(buf_appendz(&out, to), ERR_OK);
    assert_int_equal(buf_appendz(&out, at + strlen(from)), ERR_OK);
    buf_done(json);
    *json = out;
}

static void config_and_templates_are_found_again(void **state)
{
    static const char config[] =
        "{\"bos_token\": null, \"eos_token\": {\"__type\": \"AddedToken\", \"content\": \"<|e\\u006ed|>\"},"
        " \"added_tokens_decoder\": {\"1\": {}}, \"pad_token\": \"\", \"model_max_length\": 1e+30,"
        " \"chat_template\": [{\"name\": \"default\", \"template\": \"{{ a }}\"},"
        " {\"name\": \"tool_use\", \"template\": \"{{ \\\"b\\\" }}\"}]}";
    (void)state;
    struct buf json, file;
    struct why why = { "" };
    struct vocab *v;
    good_json(&json);
    assert_int_equal(convert(buf_str(&json),
                             (struct convert_opts){ .name = STR("mine"), .config = str_of(config) },
                             &file, &why),
                     ERR_OK);
    assert_int_equal(vocab_open_mem(file.data, file.len, &v, &why), ERR_OK);
    assert_true(str_eqz(vocab_name(v), "mine"));
    assert_int_equal(vocab_digest(v).n, 64);
    assert_int_equal(vocab_size(v), made.tokens_n + 3);
    assert_null(vocab_bos(v).p);
    assert_true(str_eqz(vocab_eos(v), "<|end|>"));
    assert_non_null(vocab_pad(v).p);
    assert_int_equal(vocab_pad(v).n, 0);
    assert_true(str_eqz(vocab_chat_template(v), "{{ a }}"));
    assert_true(str_eqz(vocab_chat_template_named(v, "tool_use"), "{{ \"b\" }}"));
    assert_int_equal(vocab_chat_template_named(v, "rag").n, 0);
    assert_true(str_contains(vocab_config(v), STR("\"model_max_length\":1e+30")));
    assert_false(str_contains(vocab_config(v), STR("added_tokens_decoder")));
    vocab_unref(v);
    buf_done(&file);
    /* a template of its own goes before the one in the configuration */
    assert_int_equal(
        convert(buf_str(&json),
                (struct convert_opts){ .template = STR("mine"), .config = str_of(config) }, &file,
                &why),
        ERR_OK);
    assert_int_equal(vocab_open_mem(file.data, file.len, &v, &why), ERR_OK);
    assert_true(str_eqz(vocab_chat_template(v), "mine"));
    vocab_unref(v);
    buf_done(&file);
    buf_done(&json);
}

static void what_is_not_exact_here_is_refused_with_the_reason(void **state)
{
    static const struct {
        const char *from, *to;
        enum err err;
        const char *says;
    } cases[] = {
        { "\"type\":\"BPE\"", "\"type\":\"Unigram\"", ERR_UNSUPPORTED, "Unigram" },
        { "\"type\":\"NFC\"", "\"type\":\"NFKC\"", ERR_UNSUPPORTED, "NFKC" },
        { "\\\\p{N}|", "(?<=a)\\\\p{N}|", ERR_UNSUPPORTED, "pattern" },
        { "\\\\p{N}|", "(|", ERR_UNSUPPORTED, "pattern" },
        { "\"behavior\":\"Isolated\"", "\"behavior\":\"Removed\"", ERR_UNSUPPORTED, "Removed" },
        { "\"invert\":false", "\"invert\":true", ERR_UNSUPPORTED, "inverted" },
        { "\"behavior\":\"Isolated\"", "\"behavior\":\"MergedWithNext\"", ERR_UNSUPPORTED,
          "MergedWithNext" },
        { "\"add_prefix_space\":false", "\"add_prefix_space\":true", ERR_UNSUPPORTED, "prefix" },
        { "\"ByteLevel\"", "\"Metaspace\"", ERR_UNSUPPORTED, "combination" },
        { "\"ByteLevel\"", "\"Whitespace\"", ERR_UNSUPPORTED, "Whitespace" },
        { "\"use_regex\":false", "\"use_regex\":true", ERR_UNSUPPORTED, "combination" },
        { "\"ignore_merges\":false", "\"end_of_word_suffix\":\"</w>\"", ERR_UNSUPPORTED,
          "end_of_word_suffix" },
        { "\"ignore_merges\":false", "\"dropout\":0.1", ERR_UNSUPPORTED, "dropout" },
        { "\"special\":false", "\"single_word\":true", ERR_UNSUPPORTED, "single_word" },
        { "\"<think>\",\"special\":false", "\"a \",\"rstrip\":true", ERR_UNSUPPORTED,
          "white space" },
        { "\"<think>\",\"special\":false", "\"<K>\",\"normalized\":true", ERR_UNSUPPORTED,
          "normalized" },
        { "\"<think>\",\"special\":false", "\"<|\",\"normalized\":true", ERR_UNSUPPORTED,
          "overlap" },
        { "\"<think>\"", "\"<|end|>\"", ERR_INVALID, "twice" },
        { "\"A\":", "\"AA\":", ERR_UNSUPPORTED, "0x41" },
        { "[\"a\",\"a\"]", "[\"a\",\"QQ\"]", ERR_INVALID, "merge" },
        { "[\"a\",\"a\"]", "[\"a\"]", ERR_INVALID, "two parts" },
        { "\"merges\":", "\"merged\":", ERR_UNSUPPORTED, "merged" },
        { "\"model\":", "\"modell\":", ERR_UNSUPPORTED, "model: there is none" },
        { "\"b\":98", "\"b\":97", ERR_INVALID, "entry" },
        { "\"b\":98", "\"b\":99999999999", ERR_INVALID, "range" },
        { "\"version\":", "\"version\"", ERR_INVALID, "byte" },
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct buf json, file;
        struct why why = { "" };
        good_json(&json);
        replace(&json, cases[i].from, cases[i].to);
        enum err e = convert(buf_str(&json), (struct convert_opts){ 0 }, &file, &why);
        if (e != cases[i].err || strstr(why.text, cases[i].says) == NULL)
            print_error("%s -> %s: %s, %s\n", cases[i].from, cases[i].to, err_name(e), why.text);
        assert_int_equal(e, cases[i].err);
        assert_non_null(strstr(why.text, cases[i].says));
        buf_done(&json);
        buf_done(&file);
    }
}

static uint64_t count_of(struct str json, const char *text)
{
    struct buf file;
    struct why why = { "" };
    struct vocab *v;
    uint64_t n;
    assert_int_equal(convert(json, (struct convert_opts){ 0 }, &file, &why), ERR_OK);
    assert_int_equal(vocab_open_mem(file.data, file.len, &v, &why), ERR_OK);
    assert_int_equal(token_count(v, str_of(text), SPECIAL_CONTROL, &n), ERR_OK);
    vocab_unref(v);
    buf_done(&file);
    return n;
}

/* Strings that are not of the byte-level alphabet stand for no bytes: neither they nor merges of
 * them occur in a text, whatever their ids. */
static void merges_that_no_text_has_change_nothing(void **state)
{
    static const char text[] = "hello the \xe4\xb8\xad\xe4\xb8\xad";
    struct buf json;
    (void)state;
    good_json(&json);
    uint64_t n = count_of(buf_str(&json), text);
    replace(&json, "\"vocab\":{",
            "\"vocab\":{\"\xe4\xb8\xad\":4000000,\"\xe4\xb8\xad\xe4\xb8\xad\":4100000,");
    replace(&json, "\"merges\":[", "\"merges\":[[\"\xe4\xb8\xad\",\"\xe4\xb8\xad\"],");
    assert_int_equal(count_of(buf_str(&json), text), n);
    buf_done(&json);
}

/* Text that spells a byte token would merge to it, and that one is another character here. */
static void a_merge_that_spells_a_byte_token_is_refused(void **state)
{
    static struct support_vocab chars;
    struct buf json, file;
    struct why why = { "" };
    (void)state;
    chars_init(&chars);
    buf_init(&json, 1 << 20);
    chars_json(&chars, &chars_shapes[0], "", &json);
    replace(&json, "\"vocab\":{", "\"vocab\":{\"<0x\":4000000,\"41>\":4000001,");
    replace(&json, "\"merges\":[", "\"merges\":[[\"<0x\",\"41>\"],");
    assert_int_equal(convert(buf_str(&json), (struct convert_opts){ 0 }, &file, &why),
                     ERR_UNSUPPORTED);
    assert_non_null(strstr(why.text, "byte tokens"));
    buf_done(&json);
    buf_done(&file);
}

/* The kind of model is the reason, whatever else of such a file is not known here. */
static void a_model_of_another_kind_is_refused_as_that(void **state)
{
    static const struct {
        const char *kind, *json;
    } files[] = {
        { "WordPiece", "{\"normalizer\":{\"type\":\"BertNormalizer\",\"lowercase\":true},"
                       "\"pre_tokenizer\":{\"type\":\"BertPreTokenizer\"},\"model\":{"
                       "\"type\":\"WordPiece\",\"unk_token\":\"[UNK]\","
                       "\"continuing_subword_prefix\":\"##\",\"max_input_chars_per_word\":100,"
                       "\"vocab\":{\"[UNK]\":0,\"a\":1,\"##b\":2}}}" },
        { "Unigram", "{\"normalizer\":{\"type\":\"Precompiled\",\"precompiled_charsmap\":\"\"},"
                     "\"pre_tokenizer\":{\"type\":\"Whitespace\"},\"model\":{\"vocab\":"
                     "[[\"<unk>\",0.0],[\"a\",-1.5]],\"unk_id\":0,\"type\":\"Unigram\"}}" },
        { "WordLevel", "{\"pre_tokenizer\":{\"type\":\"WhitespaceSplit\"},\"model\":{\"type\":"
                       "\"WordLevel\",\"vocab\":{\"a\":0},\"unk_token\":\"a\"}}" },
    };
    (void)state;
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        struct buf file;
        struct why why = { "" };
        assert_int_equal(convert(str_of(files[i].json), (struct convert_opts){ 0 }, &file, &why),
                         ERR_UNSUPPORTED);
        assert_non_null(strstr(why.text, "model.type: only BPE"));
        assert_non_null(strstr(why.text, files[i].kind));
        buf_done(&file);
    }
}

static void a_file_cut_off_anywhere_is_invalid(void **state)
{
    (void)state;
    struct buf json, file;
    good_json(&json);
    for (size_t n = 0; n < json.len; n += 37) {
        char *copy = malloc(n + 1);
        assert_non_null(copy);
        memcpy(copy, json.data, n);
        assert_int_not_equal(convert(str_n(copy, n), (struct convert_opts){ 0 }, &file, NULL),
                             ERR_OK);
        buf_done(&file);
        free(copy);
    }
    buf_done(&json);
}

/* A file that is not what was written: the header and the beginning of each page are looked at when
 * it is opened, all of it when somebody asks. */
static void a_damaged_vocabulary_is_not_opened(void **state)
{
    (void)state;
    struct buf json, file;
    struct vocab *v = NULL;
    struct why why = { "" };
    struct rng_fake rng;
    rng_fake_init(&rng, 3);
    good_json(&json);
    assert_int_equal(convert(buf_str(&json), (struct convert_opts){ 0 }, &file, &why), ERR_OK);
    int opened = 0;
    for (int i = 0; i < 600; i++) {
        size_t at = i < 300 ? (size_t)i : rng_below(&rng.rng, file.len);
        if (i >= 500) at = at / 4096 * 4096 + at % 64; /* what every page is known by */
        char bit = (char)(1 << rng_below(&rng.rng, 8));
        file.data[at] ^= bit;
        enum err e = vocab_open_mem(file.data, file.len, &v, &why);
        if (e == ERR_OK) {
            assert_true(at >= 24 && (at < 32 || at % 4096 >= 64)); /* 24: the whole's checksum */
            assert_int_equal(vocab_verify(v, &why), ERR_INVALID);
            vocab_unref(v);
            v = NULL;
            opened++;
        } else {
            assert_true(e == ERR_INVALID || e == ERR_UNSUPPORTED);
        }
        assert_null(v);
        file.data[at] ^= bit;
    }
    assert_true(opened > 0);
    assert_int_equal(vocab_open_mem(file.data, file.len, &v, &why), ERR_OK);
    assert_int_equal(vocab_verify(v, &why), ERR_OK);
    vocab_unref(v);
    v = NULL;
    for (size_t n = 0; n < file.len; n += 1 + file.len / 50)
        assert_int_equal(vocab_open_mem(file.data, n, &v, &why), ERR_INVALID);
    assert_int_equal(vocab_open("/nonexistent/x.aigwvocab", &v, &why), ERR_NOT_FOUND);
    assert_int_equal(vocab_open("/dev/null", &v, &why), ERR_INVALID);
    buf_done(&file);
    buf_done(&json);
}

/* Base64 of one byte. */
static void rank_line(struct buf *b, const char *p, size_t n, int rank)
{
    static const char d[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for (size_t i = 0; i < n; i += 3) {
        uint32_t w = 0;
        for (size_t k = 0; k < 3; k++) w = w << 8 | (i + k < n ? (unsigned char)p[i + k] : 0);
        for (size_t k = 0; k < 4; k++)
            assert_int_equal(buf_append_char(b, i + k <= n ? d[w >> (18 - 6 * k) & 63] : '='),
                             ERR_OK);
    }
    assert_int_equal(buf_printf(b, " %d\n", rank), ERR_OK);
}

static void ranks_merge_what_joins_to_a_token(void **state)
{
    (void)state;
    struct buf in, file;
    struct vocab *v = NULL;
    struct why why = { "" };
    struct token_list l = { 0 };
    buf_init(&in, 1 << 20);
    buf_init(&file, 64 << 20);
    for (int i = 0; i < 256; i++) rank_line(&in, &(char){ (char)i }, 1, i);
    rank_line(&in, "bc", 2, 256);
    rank_line(&in, "ab", 2, 257);
    rank_line(&in, "abc", 3, 258);
    rank_line(&in, "zzzzz", 5, 259); /* nothing merges to this: only a whole piece is it */
    struct convert_opts o = { .name = STR("t"),
                              .pattern = STR("cl100k"),
                              .specials = STR("{\"<|x|>\": 300}") };
    assert_int_equal(convert_tiktoken(buf_str(&in), &o, &file, &why), ERR_OK);
    assert_int_equal(vocab_open_mem(file.data, file.len, &v, &why), ERR_OK);
    assert_int_equal(token_encode(v, STR("abc abcd zzzzz<|x|>.zzzzzz"), SPECIAL_CONTROL, &l),
                     ERR_OK);
    /* "abc" is bc first, then a+bc; " zzzzz" is no token and does not merge */
    static const uint32_t want[] = { 258, ' ', 258, 'd', ' ', 'z', 'z', 'z', 'z',
                                     'z', 300, '.', 'z', 'z', 'z', 'z', 'z', 'z' };
    assert_int_equal(l.len, sizeof want / sizeof want[0]);
    assert_memory_equal(l.ids, want, sizeof want);
    l.len = 0;
    assert_int_equal(token_encode(v, STR("zzzzz"), SPECIAL_TEXT, &l), ERR_OK);
    assert_int_equal(l.len, 1);
    assert_int_equal(l.ids[0], 259);
    token_list_done(&l);
    vocab_unref(v);
    o.pattern = STR("other");
    buf_clear(&file);
    assert_int_equal(convert_tiktoken(buf_str(&in), &o, &file, &why), ERR_UNSUPPORTED);
    o.pattern = STR("cl100k");
    assert_int_equal(convert_tiktoken(STR("YWI= x\n"), &o, &file, &why), ERR_INVALID);
    assert_int_equal(convert_tiktoken(STR("YW 1\n"), &o, &file, &why), ERR_INVALID);
    assert_int_equal(convert_tiktoken(STR("YQ== 1\nYQ== 2\n"), &o, &file, &why), ERR_INVALID);
    buf_done(&in);
    buf_done(&file);
}

static void added_tokens_take_white_space_along_and_know_what_follows(void **state)
{
    static const struct {
        const char *flags, *text;
        size_t tokens; /* in control mode */
    } cases[] = {
        { "\"rstrip\":true", "a<think> \n\xe3\x80\x80 b", 3 },
        { "\"rstrip\":false", "a<think>b", 3 },
        { "\"lstrip\":true", "a \n\xe3\x80\x80<think>b", 3 },
        { "\"normalized\":true", "a<think>b", 3 },
        { "\"normalized\":true", "<think>\xcc\x81", 3 },  /* the mark stays a mark: two bytes */
        { "\"normalized\":true", "<think>\xcc\xb8", 7 },  /* > becomes another character */
        { "\"normalized\":false", "<think>\xcc\xb8", 3 }, /* matched before that */
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct buf json, file;
        struct why why = { "" };
        struct vocab *v;
        char with[64];
        uint64_t n, fed;
        struct token_counter c;
        (void)snprintf(with, sizeof with, "\"<think>\",%s", cases[i].flags);
        good_json(&json);
        replace(&json, "\"<think>\",\"special\":false", with);
        replace(&json, "<thinking>", "[other]");
        assert_int_equal(convert(buf_str(&json), (struct convert_opts){ 0 }, &file, &why), ERR_OK);
        assert_int_equal(vocab_open_mem(file.data, file.len, &v, &why), ERR_OK);
        struct str text = str_of(cases[i].text);
        assert_int_equal(token_count(v, text, SPECIAL_CONTROL, &n), ERR_OK);
        if (n != cases[i].tokens) print_error("case %zu: %llu\n", i, (unsigned long long)n);
        assert_int_equal(n, cases[i].tokens);
        token_counter_init(&c, v, SPECIAL_CONTROL, NULL);
        for (size_t k = 0; k < text.n; k++)
            assert_int_equal(token_counter_feed(&c, str_n(text.p + k, 1)), ERR_OK);
        assert_int_equal(token_counter_finish(&c, &fed), ERR_OK);
        assert_int_equal(fed, n);
        token_counter_done(&c);
        vocab_unref(v);
        buf_done(&json);
        buf_done(&file);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(added_tokens_take_white_space_along_and_know_what_follows),
        cmocka_unit_test(config_and_templates_are_found_again),
        cmocka_unit_test(what_is_not_exact_here_is_refused_with_the_reason),
        cmocka_unit_test(merges_that_no_text_has_change_nothing),
        cmocka_unit_test(a_merge_that_spells_a_byte_token_is_refused),
        cmocka_unit_test(a_model_of_another_kind_is_refused_as_that),
        cmocka_unit_test(a_file_cut_off_anywhere_is_invalid),
        cmocka_unit_test(a_damaged_vocabulary_is_not_opened),
        cmocka_unit_test(ranks_merge_what_joins_to_a_token),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
