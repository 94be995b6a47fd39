/* SPDX-License-Identifier: Apache-2.0 */
/* A request's messages in the form in which serving engines hand them to templates (see chat.h).
 * What needs no change is shared, not copied. Pure. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "tokenizer/chat/chat_int.h"

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

static bool type_is(struct jv part, const char *const *kinds, size_t n)
{
    const struct jv *type = jv_member(part, STR("type"));
    if (type == NULL || type->type != JV_STR) return false;
    for (size_t i = 0; i < n; i++)
        if (str_eqz(jv_text(*type), kinds[i])) return true;
    return false;
}

/* The text of one part, or false when it is none. */
static bool part_text(struct jv part, struct str *ret)
{
    static const char *const kinds[] = { "text", "input_text", "output_text", "refusal",
                                         "thinking" };
    static const char *const members[] = { "text", "refusal", "thinking" };
    if (part.type == JV_STR) {
        *ret = jv_text(part);
        return true;
    }
    if (jv_member(part, STR("type")) != NULL && !type_is(part, kinds, ARRAY_LEN(kinds)))
        return false;
    for (size_t i = 0; i < ARRAY_LEN(members); i++) {
        const struct jv *text = jv_member(part, str_of(members[i]));
        if (text == NULL || text->type != JV_STR) continue;
        *ret = jv_text(*text);
        return true;
    }
    return false;
}

bool chat_is_image(struct jv part)
{
    static const char *const kinds[] = { "image_url", "input_image", "image" };
    return type_is(part, kinds, ARRAY_LEN(kinds));
}

/* What a template that walks over parts is told of one that is no text; NULL: nothing. */
static const char *part_kind(struct jv part)
{
    static const char *const audio[] = { "audio", "audio_url", "input_audio" };
    static const char *const video[] = { "video", "video_url" };
    if (chat_is_image(part)) return "image";
    if (type_is(part, audio, ARRAY_LEN(audio))) return "audio";
    return type_is(part, video, ARRAY_LEN(video)) ? "video" : NULL;
}

static bool is_empty_text(struct jv part)
{
    static const char *const kinds[] = { "text", "refusal" };
    const struct jv *text = jv_member(part, STR("text"));
    return type_is(part, kinds, ARRAY_LEN(kinds)) && (text == NULL || text->type == JV_NONE);
}

static void note_other(struct jv part, struct chat_found *found)
{
    if (chat_is_image(part))
        found->images++;
    else if (!is_empty_text(part))
        found->other_parts++;
}

/* The texts of a list of parts, joined by newlines. */
static enum err join_texts(struct arena *a, const struct jv_list *l, struct jv *ret,
                           struct chat_found *found)
{
    size_t n = 0, texts = 0, joined = 0;
    struct str t, only = STR("");
    for (uint32_t i = 0; i < l->n; i++) {
        if (part_text(l->items[i], &t)) {
            n += t.n + (texts++ > 0);
            only = t; /* a single text needs no copy */
        } else {
            note_other(l->items[i], found);
        }
    }
    *ret = jv_str(only);
    if (texts < 2) return ERR_OK;
    char *out = arena_alloc(a, n), *w = out;
    if (out == NULL) return ERR_NOMEM;
    for (uint32_t i = 0; i < l->n; i++) {
        if (!part_text(l->items[i], &t)) continue;
        if (joined++ > 0) *w++ = '\n';
        if (t.n > 0) memcpy(w, t.p, t.n);
        w += t.n;
    }
    *ret = jv_str(str_n(out, (size_t)(w - out)));
    return ERR_OK;
}

/* A dict of its own pairs; room for cap. */
static void put(struct jv_dict *d, const char *key, struct jv value)
{
    ASSERT(d->n < d->cap);
    d->pairs[d->n++] = (struct jv_pair){ jv_str(str_of(key)), value };
}

static enum err add_part(struct arena *a, struct jv_list *to, const char *kind, struct str text)
{
    struct jv_dict *d = jv_dict_new(a, 2);
    if (d == NULL) return ERR_NOMEM;
    put(d, "type", jv_str(str_of(kind)));
    if (text.p != NULL) put(d, "text", jv_str(text));
    to->items[to->n++] = jv_of_dict(d);
    return ERR_OK;
}

/* A list of {"type": "text", "text": ...}, {"type": "image"} and the like. */
static enum err make_parts(struct arena *a, struct jv content, struct jv *ret,
                           struct chat_found *found)
{
    uint32_t n = content.type == JV_LIST ? content.list->n : 1;
    struct jv_list *out = jv_list_new(a, n);
    enum err e = out == NULL ? ERR_NOMEM : ERR_OK;
    if (e == ERR_OK) out->n = 0;
    if (e == ERR_OK && content.type == JV_STR) e = add_part(a, out, "text", jv_text(content));
    for (uint32_t i = 0; e == ERR_OK && content.type == JV_LIST && i < n; i++) {
        struct jv part = content.list->items[i];
        struct str text;
        const char *kind = part_kind(part);
        if (part_text(part, &text)) {
            e = add_part(a, out, "text", str_n(text.p != NULL ? text.p : "", text.n));
        } else {
            note_other(part, found);
            if (kind != NULL) e = add_part(a, out, kind, STR_NULL);
        }
    }
    if (e == ERR_OK) *ret = jv_of_list(JV_LIST, out);
    return e;
}

static enum err make_content(struct arena *a, struct jv content, bool parts, struct jv *ret,
                             struct chat_found *found)
{
    if (parts) return make_parts(a, content, ret, found);
    if (content.type == JV_LIST) return join_texts(a, content.list, ret, found);
    *ret = content.type == JV_STR ? content : jv_str(STR(""));
    return ERR_OK;
}

/* A copy of a dict with one value replaced (or added). */
static enum err with_member(struct arena *a, struct jv dict, struct str key, struct jv value,
                            struct jv *ret)
{
    const struct jv_dict *from = dict.dict;
    struct jv_dict *d = jv_dict_new(a, from->n + 1);
    if (d == NULL) return ERR_NOMEM;
    if (from->n > 0) memcpy(d->pairs, from->pairs, from->n * sizeof *d->pairs);
    d->n = from->n;
    enum err e = jv_dict_set(a, d, jv_str(key), value);
    if (e == ERR_OK) *ret = jv_of_dict(d);
    return e;
}

static bool is_blank(const struct jv *v)
{
    return v == NULL || v->type == JV_NONE || (v->type == JV_STR && v->n == 0) ||
           (v->type == JV_BOOL && !v->b) || (v->type == JV_LIST && v->list->n == 0);
}

/* One call's arguments as the value they hold; *ret is the call itself when nothing changes. */
static enum err parse_arguments(struct arena *a, struct jv call, struct jv *ret,
                                struct chat_found *found)
{
    const struct jv *function = jv_member(call, STR("function"));
    *ret = call;
    if (function == NULL || function->type != JV_DICT) return ERR_OK;
    const struct jv *args = jv_member(*function, STR("arguments"));
    struct jv value = jv_none();
    if (!is_blank(args)) {
        if (args->type != JV_STR) return ERR_OK;
        enum err e = jv_read_json(a, jv_text(*args), &value, NULL);
        if (e == ERR_NOMEM) return e;
        if (e != ERR_OK) {
            found->bad_arguments++;
            return ERR_OK;
        }
    }
    if (value.type == JV_NONE) {
        struct jv_dict *d = jv_dict_new(a, 0);
        if (d == NULL) return ERR_NOMEM;
        value = jv_of_dict(d);
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

/* What an assistant's message carries besides its content. */
static enum err put_assistant(struct arena *a, struct jv m, const struct chat_normal *how,
                              struct jv_dict *d, struct chat_found *found)
{
    const struct jv *calls = jv_member(m, STR("tool_calls"));
    const struct jv *thought = jv_member(m, STR("reasoning"));
    if (thought == NULL || thought->type != JV_STR)
        thought = jv_member(m, STR("reasoning_content"));
    if (calls != NULL && calls->type == JV_LIST && calls->list->n > 0) {
        struct jv parsed = *calls;
        found->has_calls = true;
        enum err e = how->keep_argument_text ? ERR_OK : parse_calls(a, calls->list, &parsed, found);
        if (e != ERR_OK) return e;
        put(d, "tool_calls", parsed);
    }
    if (thought != NULL && thought->type == JV_STR) {
        put(d, "reasoning", *thought);
        put(d, "reasoning_content", *thought);
    }
    return ERR_OK;
}

/* The members that a serving engine hands on, in its order; all others are left out. */
static enum err normalise_one(struct arena *a, uint32_t i, struct jv m,
                              const struct chat_normal *how, struct jv *ret,
                              struct chat_found *found, struct chat_error *error)
{
    enum { MEMBERS = 7 };
    if (m.type != JV_DICT) return bad_field(error, i, "", "must be an object");
    const struct jv *role = jv_member(m, STR("role")), *content = jv_member(m, STR("content"));
    const struct jv *calls = jv_member(m, STR("tool_calls")), *name = jv_member(m, STR("name"));
    if (role == NULL || role->type != JV_STR)
        return bad_field(error, i, ".role", "must be a string");
    if (content != NULL && content->type != JV_NONE && content->type != JV_LIST &&
        content->type != JV_STR)
        return bad_field(error, i, ".content", "must be a string, a list of parts, or null");
    if (calls != NULL && calls->type != JV_NONE && calls->type != JV_LIST)
        return bad_field(error, i, ".tool_calls", "must be a list");
    bool tool = str_eqz(jv_text(*role), "tool");
    struct jv value;
    struct jv_dict *d = jv_dict_new(a, MEMBERS);
    enum err e = d == NULL ? ERR_NOMEM
                           : make_content(a, content != NULL ? *content : jv_none(),
                                          how->keep_parts && !tool, &value, found);
    if (e != ERR_OK) return e;
    put(d, "role", *role);
    put(d, "content", value);
    if (str_eqz(jv_text(*role), "assistant")) e = put_assistant(a, m, how, d, found);
    const struct jv *id = tool ? jv_member(m, STR("tool_call_id")) : NULL;
    if (id != NULL) put(d, "tool_call_id", *id);
    if (name != NULL && name->type == JV_STR) put(d, "name", *name);
    const struct jv *tools = jv_member(m, STR("tools"));
    if (str_eqz(jv_text(*role), "developer")) put(d, "tools", tools != NULL ? *tools : jv_none());
    *ret = jv_of_dict(d);
    return e;
}

/* The keys named first, each there (`missing` where it was not), then the others in their order. */
static enum err in_order(struct arena *a, struct jv dict, const char *const *keys, size_t n,
                         const struct jv *missing, struct jv *ret)
{
    struct jv_dict *d = jv_dict_new(a, dict.dict->n + n);
    if (d == NULL) return ERR_NOMEM;
    for (size_t i = 0; i < n; i++) {
        const struct jv *v = jv_member(dict, str_of(keys[i]));
        put(d, keys[i], v != NULL ? *v : missing[i]);
    }
    for (uint32_t i = 0; i < dict.dict->n; i++) {
        enum err e = jv_dict_set(a, d, dict.dict->pairs[i].key, dict.dict->pairs[i].value);
        if (e != ERR_OK) return e;
    }
    *ret = jv_of_dict(d);
    return ERR_OK;
}

enum err chat_normalise_tools(struct arena *a, struct jv tools, struct jv *ret)
{
    static const char *const outer[] = { "type", "function" };
    static const char *const inner[] = { "name", "description", "parameters" };
    if (tools.type != JV_LIST) {
        *ret = tools;
        return ERR_OK;
    }
    struct jv_list *out = jv_list_new(a, tools.list->n);
    if (out == NULL) return ERR_NOMEM;
    for (uint32_t i = 0; i < tools.list->n; i++) {
        struct jv tool = tools.list->items[i], function;
        const struct jv *f = jv_member(tool, STR("function"));
        out->items[i] = tool;
        if (f == NULL || f->type != JV_DICT) continue;
        const struct jv none[] = { jv_none(), jv_none(), jv_none() };
        const struct jv type[] = { jv_str(STR("function")), jv_none() };
        enum err e = in_order(a, *f, inner, ARRAY_LEN(inner), none, &function);
        if (e == ERR_OK) e = with_member(a, tool, STR("function"), function, &tool);
        if (e == ERR_OK) e = in_order(a, tool, outer, ARRAY_LEN(outer), type, &out->items[i]);
        if (e != ERR_OK) return e;
    }
    *ret = jv_of_list(JV_LIST, out);
    return ERR_OK;
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
    *found = (struct chat_found){ .images = 0 };
    for (uint32_t i = 0; e == ERR_OK && i < n; i++)
        e = normalise_one(a, i, messages.list->items[i], how, &out->items[i], found, error);
    if (e == ERR_NOMEM) chat_fail(error, e, "messages", "the request needs too much memory");
    if (e == ERR_OK) *ret = jv_of_list(JV_LIST, out);
    return e;
}
