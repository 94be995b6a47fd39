/* SPDX-License-Identifier: Apache-2.0 */
/* Counting with the installed vocabularies; see the header. Any thread. */
#include "count.h"

#include <stdlib.h>

enum { TEXT_MAX = 1 << 30 };

struct sum {
    const struct model_info *info;
    uint64_t tokens;
    enum err err;
};

static void add_text(void *ctx, struct str role, struct str text)
{
    struct sum *s = ctx;
    struct chat_count c;
    (void)role;
    if (s->err == ERR_OK) s->err = chat_count_text(s->info, text, SPECIAL_TEXT, NULL, &c);
    if (s->err == ERR_OK) s->tokens += c.tokens;
}

/* messages (with Anthropic's system in front) and tools, as JSON texts again. */
static enum err count_chat(const struct model_info *info, const struct llm_request *r,
                           int64_t now_s, uint64_t *ret, struct why *why)
{
    struct buf messages, tools, kwargs;
    struct chat_count count;
    struct chat_error error = { .why = { "" } };
    const struct json *m = json_get(r->root, "messages"), *t = json_get(r->root, "tools"),
                      *k = json_get(r->root, "chat_template_kwargs");
    buf_init(&messages, TEXT_MAX);
    buf_init(&tools, TEXT_MAX);
    buf_init(&kwargs, TEXT_MAX);
    enum err e = json_print(m, &messages);
    if (e == ERR_OK && json_is(t, JSON_ARRAY)) e = json_print(t, &tools);
    if (e == ERR_OK && json_is(k, JSON_OBJECT)) e = json_print(k, &kwargs);
    if (e == ERR_OK) {
        struct chat_slices in = { .messages = buf_str(&messages),
                                  .tools = buf_str(&tools),
                                  .kwargs = buf_str(&kwargs),
                                  .now = now_s };
        e = chat_count(info, &in, &count, &error);
    }
    if (e == ERR_OK) *ret = count.tokens;
    if (e != ERR_OK) (void)why_set(why, e, "%s", error.why.text);
    buf_done(&messages);
    buf_done(&tools);
    buf_done(&kwargs);
    return e;
}

enum err count_prompt(const struct counter *c, struct str model, const struct llm_request *r,
                      int64_t now_s, uint64_t *ret, struct why *why)
{
    struct model_info info;
    if (!count_knows(c, model, &info)) {
        *ret = llm_request_words(r);
        return ERR_OK;
    }
    if (r->api == API_CHAT) return count_chat(&info, r, now_s, ret, why);
    struct sum s = { &info, 0, ERR_OK };
    uint64_t ids;
    llm_request_texts(r, add_text, &s, &ids);
    if (s.err == ERR_OK) *ret = s.tokens + ids;
    return s.err;
}

bool count_knows(const struct counter *c, struct str model, struct model_info *ret)
{
    *ret = (struct model_info){ 0 };
    if (c->models != NULL) models_find(c->models, model, ret);
    return ret->vocab != NULL;
}

enum err count_split(void *ctx, struct str borrowed, struct text *ret)
{
    const struct model_info *info = ctx;
    struct token_list list = { .want_ends = true };
    size_t n = 0;
    enum err e = borrowed.n > UINT32_MAX ? ERR_LIMIT
                                         : token_encode(info->vocab, borrowed, SPECIAL_TEXT, &list);
    uint32_t *ends = e == ERR_OK ? malloc((list.len + 1) * sizeof *ends) : NULL;
    if (e == ERR_OK && ends == NULL) e = ERR_NOMEM;
    if (e == ERR_OK) {
        for (size_t i = 0; i < list.len; i++) {
            size_t at = (size_t)list.ends[i];
            /* Tokens that end inside a character go with the one that completes it. */
            bool inside = at < borrowed.n && (borrowed.p[at] & 0xc0) == 0x80;
            if (!inside && at > (n > 0 ? ends[n - 1] : 0)) ends[n++] = (uint32_t)at;
        }
        text_pieces(ret, borrowed, ends, n);
    }
    token_list_done(&list);
    return e;
}

enum err count_answer(const struct counter *c, struct str model, struct answer *a)
{
    struct model_info info;
    if (!count_knows(c, model, &info)) return ERR_OK;
    bool known = str_eqz(info.vocabulary, "qwen3") || str_eqz(info.vocabulary, "cl100k_base") ||
                 str_eqz(info.vocabulary, "o200k_base");
    for (size_t i = 0; i < a->choices_len; i++) {
        for (size_t p = 0; p < PART_MAX; p++) {
            const struct text *t = &a->choices[i].parts[p];
            struct chat_count count;
            struct buf text;
            if (t->len == 0 || (known && t->copy.p == NULL)) continue;
            buf_init(&text, TEXT_MAX);
            enum err e = text_append(t, &text);
            if (e == ERR_OK) e = chat_count_text(&info, buf_str(&text), SPECIAL_TEXT, NULL, &count);
            buf_done(&text);
            if (e != ERR_OK) return e;
            a->completion_tokens += count.tokens - t->len;
            if (p == PART_REASONING) a->reasoning_tokens += count.tokens - t->len;
        }
    }
    return ERR_OK;
}
