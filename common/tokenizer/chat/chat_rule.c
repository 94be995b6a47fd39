/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Chats of models whose template nobody has. OpenAI publishes a rule instead (its cookbook, "How to
 * count tokens with tiktoken"): 3 tokens for each message, the tokens of each of its values, 1 more
 * for a name, 3 that prime the answer; and one for functions. It is not promised to hold for ever,
 * so nothing counted by it is called exact.
 */
#include <string.h>

#include "tokenizer/chat/chat_int.h"
#include "tokenizer/scan/estimate.h"

enum {
    PER_MESSAGE = 3,
    PER_NAME = 1,
    PER_ANSWER = 3,
    FUNCTION_START = 7, /* gpt-4o and later; gpt-4 and gpt-3.5: 10 */
    FUNCTION_START_OLD = 10,
    FUNCTIONS_END = 12,
    PROPERTIES_START = 3,
    PROPERTY = 3,
    ENUM_START = -3,
    ENUM_ITEM = 3,
};
enum { ASK_MESSAGES = 256 }; /* between two questions whether to stop */

struct rule {
    const struct vocab *vocab; /* NULL: estimate */
    struct arena *a;
    const struct stop *stop;
    uint64_t tokens;
    int64_t extra;
};

static enum err add_text(struct rule *r, struct str s)
{
    uint64_t n = 0;
    if (r->vocab == NULL) {
        r->tokens += token_estimate(s);
        return ERR_OK;
    }
    enum err e = token_count_until(r->vocab, s, SPECIAL_TEXT, r->stop, &n);
    r->tokens += n;
    return e;
}

static struct str text_of(struct jv v, const char *key)
{
    const struct jv *m = jv_member(v, str_of(key));
    return m != NULL && m->type == JV_STR ? jv_text(*m) : STR("");
}

/* "name:type:description" without the description's full stop, as one text. */
static enum err add_line(struct rule *r, struct str a, const struct str *type, struct str text)
{
    if (str_ends(text, STR("."))) text.n--;
    size_t n = a.n + 1 + (type != NULL ? type->n + 1 : 0) + text.n;
    char *line = arena_alloc(r->a, n), *w = line;
    if (line == NULL) return ERR_NOMEM;
    if (a.n > 0) memcpy(w, a.p, a.n);
    w += a.n;
    *w++ = ':';
    if (type != NULL) {
        if (type->n > 0) memcpy(w, type->p, type->n);
        w += type->n;
        *w++ = ':';
    }
    if (text.n > 0) memcpy(w, text.p, text.n);
    return add_text(r, str_n(line, n));
}

static enum err add_property(struct rule *r, struct jv name, struct jv p)
{
    struct str type = text_of(p, "type");
    const struct jv *values = jv_member(p, STR("enum"));
    enum err e = ERR_OK;
    r->extra += PROPERTY;
    if (values != NULL && values->type == JV_LIST) {
        r->extra += ENUM_START;
        for (uint32_t i = 0; e == ERR_OK && i < values->list->n; i++) {
            r->extra += ENUM_ITEM;
            if (values->list->items[i].type == JV_STR)
                e = add_text(r, jv_text(values->list->items[i]));
        }
    }
    return e == ERR_OK ? add_line(r, jv_text(name), &type, text_of(p, "description")) : e;
}

static enum err add_tools(struct rule *r, struct jv tools, int function_start)
{
    enum err e = ERR_OK;
    if (tools.type != JV_LIST || tools.list->n == 0) return ERR_OK;
    for (uint32_t i = 0; e == ERR_OK && i < tools.list->n; i++) {
        const struct jv *f = jv_member(tools.list->items[i], STR("function"));
        if (f == NULL) f = &tools.list->items[i];
        r->extra += function_start;
        e = add_line(r, text_of(*f, "name"), NULL, text_of(*f, "description"));
        const struct jv *parameters = jv_member(*f, STR("parameters"));
        const struct jv *props = parameters != NULL ? jv_member(*parameters, STR("properties"))
                                                    : NULL;
        if (props == NULL || props->type != JV_DICT || props->dict->n == 0) continue;
        r->extra += PROPERTIES_START;
        for (uint32_t k = 0; e == ERR_OK && k < props->dict->n; k++)
            if (props->dict->pairs[k].key.type == JV_STR)
                e = add_property(r, props->dict->pairs[k].key, props->dict->pairs[k].value);
    }
    r->extra += FUNCTIONS_END;
    return e;
}

/* The names and arguments of an assistant's calls: no rule covers them. */
static enum err add_calls(struct rule *r, struct jv message)
{
    const struct jv *calls = jv_member(message, STR("tool_calls"));
    enum err e = ERR_OK;
    for (uint32_t i = 0; calls != NULL && calls->type == JV_LIST && i < calls->list->n; i++) {
        const struct jv *f = jv_member(calls->list->items[i], STR("function"));
        if (f == NULL) continue;
        r->extra += PER_MESSAGE;
        e = add_text(r, text_of(*f, "name"));
        if (e == ERR_OK) e = add_text(r, text_of(*f, "arguments"));
        if (e != ERR_OK) break;
    }
    return e;
}

static enum err add_messages(struct rule *r, struct jv messages, int per_message)
{
    enum err e = ERR_OK;
    for (uint32_t i = 0; e == ERR_OK && i < messages.list->n; i++) {
        if (i % ASK_MESSAGES == ASK_MESSAGES - 1 && stop_asked(r->stop)) return ERR_CLOSED;
        struct jv m = messages.list->items[i];
        const struct jv *name = jv_member(m, STR("name"));
        r->extra += per_message;
        e = add_text(r, text_of(m, "role"));
        if (e == ERR_OK) e = add_text(r, text_of(m, "content"));
        if (e == ERR_OK && name != NULL && name->type == JV_STR) {
            r->extra += PER_NAME;
            e = add_text(r, jv_text(*name));
        }
        if (e == ERR_OK) e = add_calls(r, m);
    }
    return e;
}

static void total(const struct rule *r, struct chat_count *c)
{
    int64_t extra = r->extra;
    c->tokens = extra >= 0 || (uint64_t)-extra < r->tokens ? r->tokens + (uint64_t)extra : 0;
    c->exact = false;
}

static bool has_tools(const struct chat_values *in)
{
    return in->tools.type == JV_LIST && in->tools.list->n > 0;
}

enum err chat_rule_openai(const struct model_info *m, const struct chat_values *in,
                          struct jv messages, struct arena *a, struct chat_count *c)
{
    struct rule r = { .vocab = m->vocab, .a = a, .stop = in->stop };
    bool old = str_eqz(m->vocabulary, "cl100k_base");
    enum err e = add_messages(&r, messages, PER_MESSAGE);
    if (e == ERR_OK) e = add_tools(&r, in->tools, old ? FUNCTION_START_OLD : FUNCTION_START);
    if (e != ERR_OK) return e;
    r.extra += in->no_generation_prompt ? 0 : PER_ANSWER;
    c->method = CHAT_OPENAI;
    total(&r, c);
    if (str_eqz(m->vocabulary, "o200k_harmony"))
        chat_warn(c,
                  "an estimate: the harmony template is not here, OpenAI's rule stands in for it");
    if (has_tools(in)) chat_warn(c, "tools are counted by OpenAI's documented rule for functions");
    return ERR_OK;
}

/* Without a template: the texts, and a guess at what stands around them. */
enum err chat_rule_texts(const struct model_info *m, const struct chat_values *in,
                         struct jv messages, struct arena *a, struct chat_count *c)
{
    struct rule r = { .vocab = m->vocab, .a = a, .stop = in->stop };
    enum err e = add_messages(&r, messages, PER_MESSAGE);
    if (e == ERR_OK) e = add_tools(&r, in->tools, FUNCTION_START);
    if (e != ERR_OK) return e;
    r.extra += in->no_generation_prompt ? 0 : PER_ANSWER;
    c->method = m->vocab != NULL ? CHAT_TEXT : CHAT_ESTIMATE;
    total(&r, c);
    if (m->vocab != NULL)
        chat_warn(c, "the model has no chat template: the texts are counted, what stands around "
                     "them is estimated");
    return ERR_OK;
}
