/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Requests as clients send them, counted in all four ways: nothing may crash, and with a vocabulary
 * of bytes a chat counts what its rendered text counts.
 */
#include <stdlib.h>

#include "../unit/support_bytes_vocab.h"
#include "proto/token_msg.h"
#include "tokenizer/chat/images.h"

enum { MEMORY_MAX = 16 << 20 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static const char template[] =
    "{% if tools %}{% for t in tools %}{{ t | tojson }}\n{% endfor %}{% endif %}"
    "{% set ns = namespace(last=messages|length - 1) %}"
    "{% for m in messages[::-1] %}{% if m.role == 'user' %}{% set ns.last = loop.revindex0 %}{% endif %}{% endfor %}"
    "{% for m in messages %}<|a|>{{ m.role }}\n{{ m.content | trim }}"
    "{% if loop.index0 > ns.last and m.reasoning_content is defined %}{{ m.reasoning_content }}{% endif %}"
    "{% for c in m.tool_calls or [] %}{{ c.function.name }}{{ c.function.arguments | tojson }}{% endfor %}"
    "<|b|>\n{% endfor %}{% if add_generation_prompt %}<|a|>{% endif %}";

/* Walks over the parts of a content. */
static const char parts_template[] =
    "{% for m in messages %}{{ m.role }}{{ m.tools is defined }}{% for p in m.content %}{{ p.type }}{{ p.text }}"
    "{% endfor %}{% endfor %}{{ tools | tojson }}";

static void count_all(const struct model_info *m, struct str text)
{
    struct arena a;
    struct jv v;
    struct token_request q;
    struct chat_count c;
    struct chat_error error = { .raised = false };
    struct buf rendered;
    struct why why;
    uint64_t again;
    arena_init(&a, MEMORY_MAX);
    buf_init(&rendered, MEMORY_MAX);
    if (jv_read_json(&a, text, &v, &why) == ERR_OK &&
        token_request_read(&a, v, &q, &error) == ERR_OK) {
        q.chat.rendered = &rendered;
        enum err e = token_request_count(&q, m, &a, &c, &error);
        if (e == ERR_INTERNAL) abort();
        if (e == ERR_OK && c.method == CHAT_TEMPLATE &&
            (token_count(m->vocab, buf_str(&rendered), SPECIAL_CONTROL, &again) != ERR_OK ||
             again > c.tokens || (c.exact && again != c.tokens)))
            abort();
    }
    buf_done(&rendered);
    arena_done(&a);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static struct vocab *vocab, *parts_vocab;
    static struct chat_template *chat, *parts;
    struct why why;
    struct arena a;
    struct token_request q;
    struct token_answer answer;
    struct chat_error error;
    struct str text = str_n((const char *)data, n);
    if (vocab == NULL) {
        vocab = bytes_vocab("bytes", template, "");
        parts_vocab = bytes_vocab("bytes", parts_template, "");
        if (chat_template_new(vocab, &chat, &why) != ERR_OK) abort();
        if (chat_template_new(parts_vocab, &parts, &why) != ERR_OK) abort();
    }
    count_all(&(struct model_info){ .vocab = vocab, .chat = chat, .vocabulary = STR("bytes") },
              text);
    count_all(&(struct model_info){ .vocab = parts_vocab,
                                    .chat = parts,
                                    .vocabulary = STR("bytes"),
                                    .image_rule = image_rules_find(image_rules_builtin(),
                                                                   STR("qwen3-vl")) },
              text);
    count_all(&(struct model_info){ .vocab = vocab, .openai = true, .vocabulary = STR("bytes") },
              text);
    count_all(&(struct model_info){ .vocab = vocab, .vocabulary = STR("bytes") }, text);
    count_all(&(struct model_info){ .vocabulary = STR("") }, text);
    arena_init(&a, MEMORY_MAX);
    (void)(token_msg_request_parse(&a, text, &q, &error) == ERR_OK);
    arena_done(&a);
    (void)(token_msg_answer_parse(text, &answer, &error) == ERR_OK);
    return 0;
}
