/* SPDX-License-Identifier: Apache-2.0 */
/* A model's chat template: compiled, tried out, rendered. Immutable once made. */
#include <stdlib.h>
#include <string.h>

#include "rt/crypto.h"
#include "tokenizer/chat/chat_int.h"

enum { SCRATCH = 64 << 10 };

static enum err add_specials(struct chat_template *t, const struct vocab *v)
{
    static const char *const keys[] = { "bos_token", "eos_token", "pad_token", "unk_token",
                                        "sep_token", "cls_token", "mask_token" };
    if (v == NULL) return ERR_OK;
    t->specials = arena_alloc(&t->arena, 2 * ARRAY_LEN(keys) * sizeof *t->specials);
    if (t->specials == NULL) return ERR_NOMEM;
    for (size_t i = 0; i < ARRAY_LEN(keys); i++) {
        struct str s = vocab_special(v, keys[i]), copy;
        if (s.p == NULL) continue;
        if (arena_dup(&t->arena, s, &copy) != ERR_OK) return ERR_NOMEM;
        t->specials[2 * t->specials_n] = jv_str(str_of(keys[i]));
        t->specials[2 * t->specials_n++ + 1] = jv_str(copy);
    }
    return ERR_OK;
}

static enum err discard(void *ctx, const char *p, size_t n)
{
    (void)ctx, (void)p, (void)n;
    return ERR_OK;
}

static enum err gather(void *ctx, const char *p, size_t n)
{
    return buf_append(ctx, p, n);
}

/* Renders a conversation given as JSON text. found: whether `needle` stands in what comes out. */
static bool try_it(const struct chat_template *t, const char *messages, const char *tools,
                   const char *needle, bool *found)
{
    struct arena a;
    struct buf b;
    bool clock;
    arena_init(&a, SCRATCH * 4);
    buf_init(&b, SCRATCH);
    struct chat_values in = { .tools = jv_none() };
    struct jv m;
    enum err e = jv_read_json(&a, str_of(messages), &m, NULL);
    if (e == ERR_OK && tools != NULL) e = jv_read_json(&a, str_of(tools), &in.tools, NULL);
    if (e == ERR_OK)
        e = chat_render(t, &a, &in, m, needle != NULL ? gather : discard, &b, &clock, NULL);
    if (e == ERR_OK && needle != NULL) *found = str_contains(buf_str(&b), str_of(needle));
    buf_done(&b);
    arena_done(&a);
    return e == ERR_OK;
}

#define TRY_USER "{\"role\":\"user\",\"content\":\"q\"}"
#define TRY_CALL(arguments)                                                            \
    "[" TRY_USER                                                                       \
    ",{\"role\":\"assistant\",\"content\":\"\",\"tool_calls\":[{\"id\":\"abcdefghi\"," \
    "\"type\":\"function\",\"function\":{\"name\":\"aigw_probe\",\"arguments\":" arguments "}}]}]"
#define TRY_TOOLS                                                                    \
    "[{\"type\":\"function\",\"function\":{\"name\":\"aigw_probe\",\"description\":" \
    "\"d\",\"parameters\":{\"type\":\"object\",\"properties\":{}}}}]"

/* What the template does cannot be read off its source: it is tried once, when it is loaded. */
static void try_out(struct chat_template *t)
{
    bool found = false;
    t->keeps_parts = jinja_loops_over_content(t->usual);
    t->shows_tools = t->shows_calls = true;
    if (try_it(t, "[" TRY_USER "]", TRY_TOOLS, "aigw_probe", &found)) t->shows_tools = found;
    bool objects = try_it(t, TRY_CALL("{\"a\":1}"), NULL, "aigw_probe", &found);
    if (objects) t->shows_calls = found;
    if (objects) return;
    t->wants_argument_text = try_it(t, TRY_CALL("\"{\\\"a\\\":1}\""), NULL, "aigw_probe", &found);
    if (t->wants_argument_text) t->shows_calls = found;
}

/* With its length: no two lists of texts are the same bytes. */
static enum err add_text(struct buf *b, struct str s)
{
    uint64_t n = s.n;
    enum err e = buf_append(b, &n, sizeof n);
    return e == ERR_OK ? buf_append_str(b, s) : e;
}

static enum err take_identity(struct chat_template *t, struct str usual, struct str with_tools)
{
    struct buf b;
    char flags[2] = { (char)('0' + t->keeps_parts), (char)('0' + t->wants_argument_text) };
    buf_init(&b, SIZE_MAX / 4);
    enum err e = buf_append(&b, flags, sizeof flags);
    for (size_t i = 0; e == ERR_OK && i < 2 * t->specials_n; i++)
        e = add_text(&b, jv_text(t->specials[i]));
    if (e == ERR_OK) e = add_text(&b, usual);
    if (e == ERR_OK) e = add_text(&b, with_tools);
    if (e == ERR_OK) crypto_sha256(buf_str(&b), t->identity);
    buf_done(&b);
    return e;
}

static enum err make(struct str usual, struct str with_tools, const struct vocab *v,
                     struct chat_template **ret, struct why *why)
{
    struct chat_template *t = calloc(1, sizeof *t);
    if (t == NULL) return why_set(why, ERR_NOMEM, "out of memory for a template");
    arena_init(&t->arena, SCRATCH);
    crypto_sha256_hex(usual, t->digest);
    enum err e = jinja_compile(usual, &t->usual, why);
    if (e == ERR_OK && with_tools.n > 0) e = jinja_compile(with_tools, &t->with_tools, why);
    if (e == ERR_OK && add_specials(t, v) != ERR_OK)
        e = why_set(why, ERR_NOMEM, "out of memory for a template");
    if (e != ERR_OK) {
        chat_template_free(t);
        return e;
    }
    try_out(t);
    e = take_identity(t, usual, with_tools);
    if (e != ERR_OK) {
        chat_template_free(t);
        return why_set(why, ERR_NOMEM, "out of memory for a template");
    }
    *ret = t;
    return ERR_OK;
}

enum err chat_template_new_source(struct str source, const struct vocab *config,
                                  struct chat_template **ret, struct why *why)
{
    return make(source, STR_NULL, config, ret, why);
}

enum err chat_template_new(const struct vocab *v, struct chat_template **ret, struct why *why)
{
    struct str usual = vocab_chat_template(v);
    struct str with_tools = vocab_chat_template_named(v, "tool_use");
    if (usual.n == 0) return why_set(why, ERR_NOT_FOUND, "the model has no chat template");
    if (str_eq(usual, with_tools)) with_tools = STR_NULL;
    return make(usual, with_tools, v, ret, why);
}

void chat_template_free(struct chat_template *t)
{
    if (t == NULL) return;
    jinja_free(t->usual);
    jinja_free(t->with_tools);
    arena_done(&t->arena);
    free(t);
}

struct str chat_template_digest(const struct chat_template *t)
{
    return str_of(t->digest);
}

static bool given(struct jv v)
{
    return v.type != JV_UNDEFINED && v.type != JV_NONE;
}

/* The names that the template sees. */
static enum err make_context(const struct chat_template *t, struct arena *a,
                             const struct chat_values *in, struct jv messages, struct jv *ret)
{
    uint32_t kwargs = in->kwargs.type == JV_DICT ? in->kwargs.dict->n : 0;
    struct jv_dict *d = jv_dict_new(a, t->specials_n + kwargs + 4);
    if (d == NULL) return ERR_NOMEM;
    enum err e = ERR_OK;
    for (size_t i = 0; e == ERR_OK && i < t->specials_n; i++)
        e = jv_dict_set(a, d, t->specials[2 * i], t->specials[2 * i + 1]);
    for (uint32_t i = 0; e == ERR_OK && i < kwargs; i++)
        e = jv_dict_set(a, d, in->kwargs.dict->pairs[i].key, in->kwargs.dict->pairs[i].value);
    if (e == ERR_OK) e = jv_dict_set(a, d, jv_str(STR("messages")), messages);
    if (e == ERR_OK)
        e = jv_dict_set(a, d, jv_str(STR("tools")), given(in->tools) ? in->tools : jv_none());
    if (e == ERR_OK)
        e = jv_dict_set(a, d, jv_str(STR("documents")),
                        given(in->documents) ? in->documents : jv_none());
    if (e == ERR_OK)
        e = jv_dict_set(a, d, jv_str(STR("add_generation_prompt")),
                        jv_bool(!in->no_generation_prompt));
    if (e == ERR_OK) *ret = jv_of_dict(d);
    return e;
}

static enum err render(const struct chat_template *t, struct arena *a, const struct chat_values *in,
                       struct jv messages, struct jinja_record *rec, jinja_sink_fn *sink,
                       void *sink_ctx, bool *ret_used_clock, struct chat_error *error)
{
    struct jinja_run run = { .now = in->now,
                             .limits = { 0, CHAT_RENDER_MAX },
                             .sink = sink,
                             .sink_ctx = sink_ctx,
                             .stop = in->stop,
                             .record = rec };
    struct why why = { "" };
    bool tools = given(in->tools) && t->with_tools != NULL;
    /* A message or tool takes a template some hundred steps; whoever sends many may use many. */
    run.limits.steps = 1000000 + 1000 * (uint64_t)messages.list->n;
    if (in->tools.type == JV_LIST) run.limits.steps += 100 * (uint64_t)in->tools.list->n;
    enum err e = make_context(t, a, in, messages, &run.context);
    if (e == ERR_OK) e = jinja_render(tools ? t->with_tools : t->usual, a, &run, &why);
    if (e == ERR_OK) {
        *ret_used_clock = run.used_clock;
        return ERR_OK;
    }
    (void)chat_fail(
        error, e, "messages", "%s%s",
        run.template_raised ? "" : "the chat template cannot take this request: ", why.text);
    if (error != NULL) error->raised = run.template_raised;
    return e;
}

enum err chat_render(const struct chat_template *t, struct arena *a, const struct chat_values *in,
                     struct jv messages, jinja_sink_fn *sink, void *sink_ctx, bool *ret_used_clock,
                     struct chat_error *error)
{
    return render(t, a, in, messages, NULL, sink, sink_ctx, ret_used_clock, error);
}

enum err chat_record(const struct chat_template *t, struct arena *a, const struct chat_values *in,
                     struct jv messages, struct jinja_record *rec)
{
    bool used_clock;
    return render(t, a, in, messages, rec, discard, NULL, &used_clock, NULL);
}
