/* SPDX-License-Identifier: Apache-2.0 */
/* See the header. Ordinary prompts are counted by the caller's thread; a job is a long one, with
 * copies of what it needs. */
#include "count.h"

#include <pthread.h>
#include <sched.h>
#include <stdlib.h>

#include "base/queue.h"
#include "tokenizer/chat.h"

enum { JOBS_MAX = 4096 };

struct counter {
    struct counter_options o;
    struct queue *jobs;
    pthread_t thread;
};

/* What there is to count: JSON slices of a request. */
struct texts {
    enum snap_endpoint ep;
    struct js_val messages, tools, kwargs, system, plain; /* plain: prompt or input */
    bool no_generation_prompt;
};

struct job {
    struct texts t;
    const struct model_info *info;
    struct loop *loop;
    count_done_fn done;
    void *ctx;
    struct count_result result;
    char copy[];
};

/* --- counting
 * -------------------------------------------------------------------------------------------------------------------
 */

static void failed(struct count_result *r, enum err e, const char *text)
{
    /* Only a request's own fault is told to the client; anything else must not stop traffic. */
    r->err = e == ERR_INVALID ? ERR_INVALID : ERR_INTERNAL;
    (void)why_set(&r->why, e, "%s", text);
}

static void add_text(const struct model_info *info, struct js_val string, struct count_result *r)
{
    struct chat_count c;
    struct buf text;
    if (!js_is(string, JS_STRING)) return;
    buf_init(&text, string.raw.n * 3 + 16);
    enum err e = js_decode(string, &text);
    if (e == ERR_OK) e = chat_count_text(info, buf_str(&text), SPECIAL_CONTROL, NULL, &c);
    buf_done(&text);
    if (e != ERR_OK) {
        failed(r, ERR_INTERNAL, "the text cannot be counted");
        return;
    }
    r->tokens += c.tokens;
    r->exact = r->exact && c.exact;
}

/* A string, a list of strings, a list of token ids, or a list of such lists. */
static void add_plain(const struct model_info *info, struct js_val v, struct count_result *r,
                      int depth)
{
    struct js_iter it;
    struct js_val el;
    if (js_is(v, JS_NUMBER)) {
        r->tokens++;
    } else if (js_is(v, JS_ARRAY) && depth < 3) {
        js_iter_init(&it, v);
        while (js_next_element(&it, &el)) add_plain(info, el, r, depth + 1);
    } else {
        add_text(info, v, r);
    }
}

static void add_chat(const struct model_info *info, const struct texts *t, struct count_result *r,
                     uint64_t now_s)
{
    struct chat_count c;
    struct chat_error error;
    struct chat_slices in = {
        .messages = t->messages.raw,
        .tools = js_is(t->tools, JS_ARRAY) ? t->tools.raw : STR_NULL,
        .kwargs = js_is(t->kwargs, JS_OBJECT) ? t->kwargs.raw : STR_NULL,
        .no_generation_prompt = t->no_generation_prompt,
        .now = (int64_t)now_s,
    };
    enum err e = chat_count(info, &in, &c, &error);
    if (e != ERR_OK) {
        failed(r, e, error.why.text);
        return;
    }
    r->tokens += c.tokens;
    r->exact = r->exact && c.exact;
}

/* Anthropic's system prompt stands beside the messages: a text, or parts with texts. */
static void add_system(const struct model_info *info, struct js_val system, struct count_result *r)
{
    struct js_iter it;
    struct js_val part;
    add_text(info, system, r);
    if (js_is(system, JS_ARRAY)) {
        js_iter_init(&it, system);
        while (js_next_element(&it, &part)) add_text(info, js_get(part, "text"), r);
    }
    /* How the server joins it with the messages is not known. */
    if (system.raw.p != NULL) r->exact = false;
}

static void count(const struct counter *c, const struct texts *t, const struct model_info *info,
                  struct count_result *r)
{
    static const struct model_info unknown = { .vocab = NULL };
    if (!c->o.precise) info = &unknown;
    *r = (struct count_result){ .exact = true };
    if (t->ep == SNAP_EP_CHAT || t->ep == SNAP_EP_MESSAGES) {
        add_chat(info, t, r, clock_wall_ns(c->o.clock) / 1000000000u);
        if (r->err == ERR_OK) add_system(info, t->system, r);
    } else {
        add_plain(info, t->plain, r, 0);
    }
    if (r->err == ERR_INTERNAL) {
        /* Bounds of the renderer, or memory: an estimate that says so, never a refusal. */
        *r = (struct count_result){ .tokens = (t->messages.raw.n + t->plain.raw.n) / 4 };
    }
}

/* --- jobs
 * ------------------------------------------------------------------------------------------------------------------------
 */

static void job_posted(void *ctx)
{
    struct job *j = ctx;
    j->done(j->ctx, &j->result);
    free(j);
}

static void *helper(void *ctx)
{
    struct counter *c = ctx;
    void *item;
    while (queue_pop(c->jobs, -1, &item) == ERR_OK) {
        struct job *j = item;
        count(c, &j->t, j->info, &j->result);
        while (loop_post(j->loop, job_posted, j) != ERR_OK) sched_yield();
    }
    return NULL;
}

static struct js_val copy_val(struct js_val v, char **at)
{
    if (v.raw.p == NULL) return v;
    memcpy(*at, v.raw.p, v.raw.n);
    v.raw.p = *at;
    *at += v.raw.n;
    return v;
}

static struct texts texts_of(const struct count_input *in)
{
    const struct request_scan *s = in->scan;
    return (struct texts){
        .ep = in->ep,
        .messages = s->messages,
        .tools = s->tools,
        .kwargs = s->template_kwargs,
        .system = s->system,
        .plain = s->prompt.raw.p != NULL ? s->prompt : s->input,
        .no_generation_prompt = js_is(s->generation_prompt, JS_FALSE),
    };
}

bool counter_count(struct counter *c, const struct count_input *in, struct count_result *ret,
                   count_done_fn done, void *ctx)
{
    struct texts t = texts_of(in);
    size_t n = t.messages.raw.n + t.tools.raw.n + t.kwargs.raw.n + t.system.raw.n + t.plain.raw.n;
    struct job *j = n > c->o.remote_bytes ? malloc(sizeof *j + n) : NULL;
    if (j != NULL) {
        char *at = j->copy;
        *j = (struct job){ .t = t, .info = in->info, .loop = in->loop, .done = done, .ctx = ctx };
        j->t.messages = copy_val(t.messages, &at);
        j->t.tools = copy_val(t.tools, &at);
        j->t.kwargs = copy_val(t.kwargs, &at);
        j->t.system = copy_val(t.system, &at);
        j->t.plain = copy_val(t.plain, &at);
        if (queue_push(c->jobs, j) == ERR_OK) return false;
        free(j);
    }
    count(c, &t, in->info, ret);
    return true;
}

struct counter *counter_new(const struct counter_options *o)
{
    struct counter *c = xcalloc(1, sizeof *c);
    c->o = *o;
    c->jobs = queue_new(JOBS_MAX);
    ASSERT(pthread_create(&c->thread, NULL, helper, c) == 0);
    return c;
}

void counter_free(struct counter *c)
{
    if (c == NULL) return;
    queue_close(c->jobs);
    pthread_join(c->thread, NULL);
    queue_free(c->jobs);
    free(c);
}
