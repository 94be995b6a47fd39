/* SPDX-License-Identifier: Apache-2.0 */
/* A request's messages in the form in which serving engines hand them to templates (see chat.h).
 * What needs no change is shared, not copied. Pure. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "tokenizer/chat_int.h"

enum err chat_fail(struct chat_error *error, enum err e, const char *param, const char *fmt, ...)
{
    if (error == NULL) return e;
    va_list ap;
    *error = (struct chat_error){ .raised = false };
    (void)str_copyz(error->param, sizeof error->param, str_of(param));
    va_start(ap, fmt);
    (void)vsnprintf(error->why.text, sizeof error->why.text, fmt, ap);
    va_end(ap);
    return e;
}

/* The text of one part, or false when it is none. */
static bool part_text(struct jv part, struct str *ret)
{
    static const char *const kinds[] = { "text", "input_text", "output_text", "refusal" };
    if (part.type == JV_STR) {
        *ret = jv_text(part);
        return true;
    }
    const struct jv *type = jv_member(part, STR("type")), *text = jv_member(part, STR("text"));
    if (text == NULL) text = jv_member(part, STR("refusal"));
    if (text == NULL || text->type != JV_STR) return false;
    bool known = type == NULL;
    for (size_t i = 0; !known && i < ARRAY_LEN(kinds); i++)
        known = type->type == JV_STR && str_eqz(jv_text(*type), kinds[i]);
    if (known) *ret = jv_text(*text);
    return known;
}

static bool is_image(struct jv part)
{
    const struct jv *type = jv_member(part, STR("type"));
    if (type == NULL || type->type != JV_STR) return false;
    struct str s = jv_text(*type);
    return str_eqz(s, "image_url") || str_eqz(s, "input_image") || str_eqz(s, "image");
}

enum err chat_content_text(struct arena *a, struct jv content, struct str *ret, uint32_t *others)
{
    if (content.type == JV_STR) {
        *ret = jv_text(content);
        return ERR_OK;
    }
    *ret = STR("");
    if (content.type != JV_LIST) return ERR_OK;
    const struct jv_list *l = content.list;
    size_t n = 0, texts = 0;
    struct str t;
    for (uint32_t i = 0; i < l->n; i++) {
        if (part_text(l->items[i], &t)) {
            n += t.n + (texts++ > 0);
            *ret = t; /* a single text needs no copy */
        } else {
            (*others)++;
        }
    }
    if (texts < 2) return ERR_OK;
    size_t joined = 0;
    char *out = arena_alloc(a, n), *w = out;
    if (out == NULL) return ERR_NOMEM;
    for (uint32_t i = 0; i < l->n; i++) {
        if (!part_text(l->items[i], &t)) continue;
        if (joined++ > 0) *w++ = '\n';
        if (t.n > 0) memcpy(w, t.p, t.n);
        w += t.n;
    }
    *ret = str_n(out, (size_t)(w - out));
    return ERR_OK;
}

/* A list of {"type": "text", "text": ...} and {"type": "image"}. */
static enum err content_parts(struct arena *a, const struct jv_list *l, struct jv *ret,
                              uint32_t *others)
{
    struct jv_list *out = jv_list_new(a, l->n);
    if (out == NULL) return ERR_NOMEM;
    uint32_t n = 0;
    for (uint32_t i = 0; i < l->n; i++) {
        struct str t = STR_NULL;
        bool text = part_text(l->items[i], &t), image = !text && is_image(l->items[i]);
        if (!text) (*others)++;
        if (!text && !image) continue;
        struct jv_dict *d = jv_dict_new(a, 2);
        enum err e = d == NULL ? ERR_NOMEM
                               : jv_dict_set(a, d, jv_str(STR("type")),
                                             jv_str(text ? STR("text") : STR("image")));
        if (e == ERR_OK && text) e = jv_dict_set(a, d, jv_str(STR("text")), jv_str(t));
        if (e != ERR_OK) return e;
        out->items[n++] = jv_of_dict(d);
    }
    out->n = n;
    *ret = jv_of_list(JV_LIST, out);
    return ERR_OK;
}

/* A copy of a dict with one value replaced (or added). */
static enum err with_member(struct arena *a, struct jv dict, struct str key, struct jv value,
                            struct jv *ret)
{
    const struct jv_dict *from = dict.dict;
    struct jv_dict *d = jv_dict_new(a, from->n + 1);
    if (d == NULL) return ERR_NOMEM;
    for (uint32_t i = 0; i < from->n; i++) {
        enum err e = jv_dict_set(a, d, from->pairs[i].key, from->pairs[i].value);
        if (e != ERR_OK) return e;
    }
    enum err e = jv_dict_set(a, d, jv_str(key), value);
    if (e == ERR_OK) *ret = jv_of_dict(d);
    return e;
}

/* One call's arguments as the value they hold; *ret is the call itself when nothing changes. */
static enum err parse_arguments(struct arena *a, struct jv call, struct jv *ret,
                                struct chat_found *found)
{
    const struct jv *function = jv_member(call, STR("function"));
    *ret = call;
    if (function == NULL || function->type != JV_DICT) return ERR_OK;
    const struct jv *args = jv_member(*function, STR("arguments"));
    struct jv value;
    bool blank = args == NULL || args->type == JV_NONE || (args->type == JV_STR && args->n == 0);
    if (blank) {
        struct jv_dict *d = jv_dict_new(a, 0);
        if (d == NULL) return ERR_NOMEM;
        value = jv_of_dict(d);
    } else if (args->type == JV_STR) {
        enum err e = jv_read_json(a, jv_text(*args), &value, NULL);
        if (e == ERR_NOMEM) return e;
        if (e != ERR_OK) {
            found->bad_arguments++;
            return ERR_OK;
        }
    } else {
        return ERR_OK;
    }
    struct jv changed;
    enum err e = with_member(a, *function, STR("arguments"), value, &changed);
    return e == ERR_OK ? with_member(a, call, STR("function"), changed, ret) : e;
}

static enum err parse_calls(struct arena *a, const struct jv_list *calls, struct jv *ret,
                            struct chat_found *found)
{
    struct jv_list *out = jv_list_new(a, calls->n);
    enum err e = out == NULL ? ERR_NOMEM : ERR_OK;
    for (uint32_t i = 0; e == ERR_OK && i < calls->n; i++)
        e = parse_arguments(a, calls->items[i], &out->items[i], found);
    if (e == ERR_OK) *ret = jv_of_list(JV_LIST, out);
    return e;
}

static enum err bad_field(struct chat_error *error, uint32_t i, const char *field, const char *what)
{
    char param[64];
    (void)snprintf(param, sizeof param, "messages[%u]%s", i, field);
    return chat_fail(error, ERR_INVALID, param, "%s %s", param, what);
}

static enum err normalise_one(struct arena *a, uint32_t i, struct jv m,
                              const struct chat_normal *how, struct jv *ret,
                              struct chat_found *found, struct chat_error *error)
{
    if (m.type != JV_DICT) return bad_field(error, i, "", "must be an object");
    const struct jv *role = jv_member(m, STR("role")), *content = jv_member(m, STR("content"));
    const struct jv *calls = jv_member(m, STR("tool_calls"));
    if (role == NULL || role->type != JV_STR)
        return bad_field(error, i, ".role", "must be a string");
    *ret = m;
    enum err e = ERR_OK;
    if (content == NULL || content->type == JV_NONE) {
        e = with_member(a, m, STR("content"), jv_str(STR("")), ret);
    } else if (content->type == JV_LIST) {
        struct jv v;
        struct str text = STR("");
        if (how->keep_parts) {
            e = content_parts(a, content->list, &v, &found->other_parts);
        } else {
            e = chat_content_text(a, *content, &text, &found->other_parts);
            v = jv_str(text);
        }
        if (e == ERR_OK) e = with_member(a, m, STR("content"), v, ret);
    } else if (content->type != JV_STR) {
        return bad_field(error, i, ".content", "must be a string, a list of parts, or null");
    }
    if (e != ERR_OK || calls == NULL || calls->type == JV_NONE) return e;
    if (calls->type != JV_LIST) return bad_field(error, i, ".tool_calls", "must be a list");
    found->has_calls = found->has_calls || calls->list->n > 0;
    if (!str_eqz(jv_text(*role), "assistant") || how->keep_argument_text) return ERR_OK;
    struct jv parsed;
    e = parse_calls(a, calls->list, &parsed, found);
    return e == ERR_OK ? with_member(a, *ret, STR("tool_calls"), parsed, ret) : e;
}

enum err chat_normalise(struct arena *a, struct jv messages, const struct chat_normal *how,
                        struct jv *ret, struct chat_found *found, struct chat_error *error)
{
    if (messages.type != JV_LIST)
        return chat_fail(error, ERR_INVALID, "messages", "messages must be a list");
    uint32_t n = messages.list->n;
    if (n == 0) return chat_fail(error, ERR_INVALID, "messages", "messages must not be empty");
    if (n > CHAT_MAX_MESSAGES)
        return chat_fail(error, ERR_LIMIT, "messages", "more than %d messages", CHAT_MAX_MESSAGES);
    struct jv_list *out = jv_list_new(a, n);
    enum err e = out == NULL ? ERR_NOMEM : ERR_OK;
    *found = (struct chat_found){ .other_parts = 0 };
    for (uint32_t i = 0; e == ERR_OK && i < n; i++)
        e = normalise_one(a, i, messages.list->items[i], how, &out->items[i], found, error);
    if (e == ERR_NOMEM) chat_fail(error, e, "messages", "the request needs too much memory");
    if (e == ERR_OK) *ret = jv_of_list(JV_LIST, out);
    return e;
}
