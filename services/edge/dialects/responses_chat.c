/* SPDX-License-Identifier: Apache-2.0 */
/* See the header. Values are taken over as the client wrote them. */
#include "responses_chat.h"

#include "responses.h"

static enum err comma(struct buf *b)
{
    return b->len > 1 ? buf_append_char(b, ',') : ERR_OK;
}

/* {"role":…,"content":…; the object stays open. */
static enum err begin(struct buf *b, struct str role, struct js_val content)
{
    enum err e = comma(b);
    if (e == ERR_OK) e = buf_printf(b, "{\"role\":%.*s,\"content\":", STR_ARG(role));
    if (e == ERR_OK) e = buf_append_str(b, content.raw.p != NULL ? content.raw : STR("null"));
    return e;
}

static enum err message(struct buf *b, struct str role, struct js_val content)
{
    enum err e = begin(b, role, content);
    return e == ERR_OK ? buf_append_char(b, '}') : e;
}

/* A value as a string's raw JSON; "" when it is none. */
static struct str text_or_empty(struct js_val v)
{
    return js_is(v, JS_STRING) ? v.raw : STR("\"\"");
}

static enum err call(struct buf *b, struct js_val item)
{
    const struct js_val none = JS_ABSENT;
    enum err e = begin(b, STR("\"assistant\""), none);
    if (e == ERR_OK) e = buf_appendz(b, ",\"tool_calls\":[{\"id\":");
    if (e == ERR_OK) e = buf_append_str(b, text_or_empty(js_get(item, "call_id")));
    if (e == ERR_OK) e = buf_appendz(b, ",\"type\":\"function\",\"function\":{\"name\":");
    if (e == ERR_OK) e = buf_append_str(b, text_or_empty(js_get(item, "name")));
    if (e == ERR_OK) e = buf_appendz(b, ",\"arguments\":");
    if (e == ERR_OK) e = buf_append_str(b, text_or_empty(js_get(item, "arguments")));
    return e == ERR_OK ? buf_appendz(b, "}}]}") : e;
}

static enum err call_output(struct buf *b, struct js_val item)
{
    enum err e = begin(b, STR("\"tool\""), js_get(item, "output"));
    if (e == ERR_OK) e = buf_appendz(b, ",\"tool_call_id\":");
    if (e == ERR_OK) e = buf_append_str(b, text_or_empty(js_get(item, "call_id")));
    return e == ERR_OK ? buf_append_char(b, '}') : e;
}

/* What is no message and no call counts as its JSON. */
static enum err other(struct buf *b, struct js_val item)
{
    enum err e = comma(b);
    if (e == ERR_OK) e = buf_appendz(b, "{\"role\":\"user\",\"content\":");
    if (e == ERR_OK) e = buf_append_json(b, item.raw);
    return e == ERR_OK ? buf_append_char(b, '}') : e;
}

static enum err take_item(struct responses_chat *c, struct js_val item)
{
    struct str type = responses_word(js_get(item, "type"));
    struct js_val role = js_get(item, "role");
    if (js_is(role, JS_STRING) && (type.p == NULL || str_eqz(type, "message")))
        return message(&c->messages, role.raw, js_get(item, "content"));
    if (str_eqz(type, "function_call")) return call(&c->messages, item);
    if (str_eqz(type, "function_call_output")) return call_output(&c->messages, item);
    c->exact = false;
    return other(&c->messages, item);
}

static enum err take_tool(struct responses_chat *c, struct js_val tool)
{
    static const char *const members[] = { "name", "description", "parameters" };
    enum err e = comma(&c->tools);
    if (e != ERR_OK) return e;
    if (!str_eqz(responses_word(js_get(tool, "type")), "function")) {
        c->exact = false; /* the server's own: what it tells the model is not known */
        return buf_append_str(&c->tools, tool.raw);
    }
    bool first = true;
    e = buf_appendz(&c->tools, "{\"type\":\"function\",\"function\":{");
    for (size_t i = 0; i < ARRAY_LEN(members) && e == ERR_OK; i++) {
        struct js_val v = js_get(tool, members[i]);
        if (v.raw.p == NULL) continue;
        e = buf_printf(&c->tools, "%s\"%s\":", first ? "" : ",", members[i]);
        if (e == ERR_OK) e = buf_append_str(&c->tools, v.raw);
        first = false;
    }
    return e == ERR_OK ? buf_appendz(&c->tools, "}}") : e;
}

enum err responses_chat_make(const struct request_scan *scan, struct responses_chat *ret)
{
    struct js_iter it;
    struct js_val v;
    size_t most = 2 * scan->root.raw.n + 65536;
    ret->exact = !scan->context_elsewhere;
    buf_init(&ret->messages, most * 2);
    buf_init(&ret->tools, most * 2);
    enum err e = buf_append_char(&ret->messages, '[');
    if (e == ERR_OK && js_is(scan->instructions, JS_STRING))
        e = message(&ret->messages, STR("\"system\""), scan->instructions);
    if (e == ERR_OK && js_is(scan->input, JS_STRING))
        e = message(&ret->messages, STR("\"user\""), scan->input);
    js_iter_init(&it, scan->input);
    while (e == ERR_OK && js_next_element(&it, &v)) e = take_item(ret, v);
    if (e == ERR_OK) e = buf_append_char(&ret->messages, ']');
    if (e != ERR_OK || !js_is(scan->tools, JS_ARRAY)) return e;
    e = buf_append_char(&ret->tools, '[');
    js_iter_init(&it, scan->tools);
    while (e == ERR_OK && js_next_element(&it, &v)) e = take_tool(ret, v);
    return e == ERR_OK ? buf_append_char(&ret->tools, ']') : e;
}

void responses_chat_done(struct responses_chat *c)
{
    buf_done(&c->messages);
    buf_done(&c->tools);
}
