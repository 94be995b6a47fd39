/* SPDX-License-Identifier: Apache-2.0 */
/* Any bytes as a tokenizer.json, a tokenizer_config.json, a .tiktoken, a tekken.json: no crash, and
 * what converts can be opened and counted with; or as the normalizer, the pre-tokenizer or further
 * added tokens of a file that is good otherwise. The first byte says what it is taken for. */
#include "../unit/support_chars.h"
#include "tokenizer/tokenizer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct support_vocab made, chars;
    struct chars_shape shape = chars_shapes[0];
    static char text[1 << 16];
    struct convert_opts o = { .name = STR("fuzz"), .pattern = STR("o200k") };
    struct buf file, json;
    struct why why;
    enum err e;
    if (size < 1) return 0;
    struct str in = { (const char *)data + 1, size - 1 };
    buf_init(&file, 64 << 20);
    buf_init(&json, 1 << 20);
    if (chars.tokens_n == 0) chars_init(&chars);
    (void)str_copyz(text, sizeof text, in);
    switch (data[0] % 7) {
    case 0: e = convert_huggingface(in, &o, &file, &why); break;
    case 1: e = convert_tiktoken(in, &o, &file, &why); break;
    case 2: e = convert_tekken(in, &o, &file, &why); break;
    case 3:
        shape.normalizer = text;
        chars_json(&chars, &shape, "", &json);
        e = convert_huggingface(buf_str(&json), &o, &file, &why);
        break;
    case 4:
        shape.pre_tokenizer = text;
        chars_json(&chars, &shape, "", &json);
        e = convert_huggingface(buf_str(&json), &o, &file, &why);
        break;
    case 5:
        chars_json(&chars, &shape, text, &json);
        e = convert_huggingface(buf_str(&json), &o, &file, &why);
        break;
    default:
        if (made.tokens_n == 0) support_init(&made, support_words, 3);
        support_json(&made, PATTERN_QWEN, true, false, &json);
        o.config = in;
        e = convert_huggingface(buf_str(&json), &o, &file, &why);
    }
    if (e == ERR_OK) {
        struct vocab *v;
        uint64_t n;
        if (vocab_open_mem(file.data, file.len, &v, &why) != ERR_OK) abort();
        if (token_count(v, in, SPECIAL_CONTROL, &n) != ERR_OK || n > 4 * in.n + 1) abort();
        vocab_unref(v);
    } else if (file.len != 0) {
        abort();
    }
    buf_done(&file);
    buf_done(&json);
    return 0;
}
