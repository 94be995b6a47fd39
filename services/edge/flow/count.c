/* SPDX-License-Identifier: Apache-2.0 */
/* See the header. Ordinary prompts are counted by the caller's thread; a job is a long one, with
 * copies of what it needs. */
#include "count.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "base/queue.h"
#include "base/stop.h"
#include "proto/subjects.h"
#include "proto/token_msg.h"
#include "rt/http_client.h"
#include "tokenizer/chat/chat.h"
#include "tokenizer/models/models_memory.h"

enum {
    JOBS_MAX = 4096,
    REMOTE_TIMEOUT_MS = 50,
    HTTP_TIMEOUT_MS = 5000,
    ANSWER_MAX = 64 * 1024,
    TEXT_MAX = 256 << 20,  /* bytes of a decoded text: more than any body has */
    TEXT_KEPT = 256 << 10, /* of it that a thread keeps */
};

struct counter {
    struct counter_options o;
    char subject[SUBJECT_LEN];
    struct queue *jobs; /* for the helper thread */
    pthread_t thread;
    pthread_mutex_t lock; /* guards pending */
    pthread_cond_t idle;
    size_t pending; /* jobs that are not posted yet */
};

struct count_scratch {
    struct chat_scratch *chat;
    struct models_memory *models;
    struct buf text; /* a decoded string */
    struct chat_message plain[CHAT_PLAIN_MAX];
};

/* One count: how, with what, and until when. */
struct task {
    const struct model_info *info;
    struct count_scratch *scratch;
    const struct stop *stop;
};

/* What there is to count: JSON slices of a request. */
struct texts {
    enum snap_endpoint ep;
    struct js_val messages, tools, kwargs, system, plain; /* plain: prompt or input */
    bool no_generation_prompt;
    bool estimate; /* never exact */
};

struct job {
    struct counter *counter;
    struct texts t;
    struct str model;
    const struct model_info *info;
    const _Atomic bool *given_up;
    struct loop *loop;
    count_done_fn done;
    void *ctx;
    struct count_result result;
    char copy[];
};

struct count_scratch *count_scratch_new(void)
{
    struct count_scratch *s = xcalloc(1, sizeof *s);
    s->chat = chat_scratch_new(); /* NULL: counts allocate */
    s->models = models_memory_new();
    buf_init(&s->text, TEXT_MAX);
    return s;
}

void count_scratch_free(struct count_scratch *s)
{
    if (s == NULL) return;
    chat_scratch_free(s->chat);
    models_memory_free(s->models);
    buf_done(&s->text);
    free(s);
}

void count_model(struct count_scratch *s, struct models *m, struct str model,
                 struct model_info *ret)
{
    models_memory_find(s->models, m, model, ret);
}

/* --- counting --- */

static void failed(struct count_result *r, enum err e, const char *text)
{
    /* Only a request's own fault is told to the client; anything else must not stop traffic. */
    r->err = e == ERR_INVALID ? ERR_INVALID : ERR_INTERNAL;
    (void)why_set(&r->why, e, "%s", text);
}

static void add_text(const struct task *k, struct js_val string, struct count_result *r)
{
    struct chat_count c;
    struct buf *text = &k->scratch->text;
    if (!js_is(string, JS_STRING)) return;
    buf_clear(text);
    enum err e = js_decode(string, text);
    if (e == ERR_OK)
        e = chat_count_text_until(k->info, buf_str(text), SPECIAL_CONTROL, NULL, k->stop, &c);
    if (text->cap > TEXT_KEPT) buf_done(text);
    if (e != ERR_OK) {
        failed(r, ERR_INTERNAL, "the text cannot be counted");
        return;
    }
    r->tokens += c.tokens;
    r->exact = r->exact && c.exact;
}

/* A string, a list of strings, a list of token ids, or a list of such lists. */
static void add_plain(const struct task *k, struct js_val v, struct count_result *r, int depth)
{
    struct js_iter it;
    struct js_val el;
    if (js_is(v, JS_NUMBER)) {
        r->tokens++;
    } else if (js_is(v, JS_ARRAY) && depth < 3) {
        js_iter_init(&it, v);
        while (js_next_element(&it, &el)) add_plain(k, el, r, depth + 1);
    } else {
        add_text(k, v, r);
    }
}

/* A role and a content, both strings, and nothing else. */
static bool is_plain(struct js_val message, struct chat_message *ret)
{
    struct js_iter it;
    struct str key;
    struct js_val v;
    int roles = 0, contents = 0, others = 0;
    js_iter_init(&it, message);
    while (js_next_member(&it, &key, &v)) {
        if (!js_is(v, JS_STRING))
            others++;
        else if (js_key_is(key, "role"))
            ret->role = v.raw, roles++;
        else if (js_key_is(key, "content"))
            ret->content = v.raw, contents++;
        else
            others++;
    }
    return roles == 1 && contents == 1 && others == 0;
}

/* The messages where all of them are so, and it was noted where they lie; or 0. */
static size_t plain_messages(struct js_val messages, struct chat_message ret[CHAT_PLAIN_MAX])
{
    struct js_iter it;
    struct js_val message;
    size_t n = 0;
    if (messages.mark == NULL) return 0;
    js_iter_init(&it, messages);
    while (js_next_element(&it, &message))
        if (n == CHAT_PLAIN_MAX || !is_plain(message, &ret[n++])) return 0;
    return n;
}

static void add_chat(const struct task *k, const struct texts *t, struct count_result *r,
                     uint64_t now_s)
{
    struct chat_count c;
    struct chat_error error;
    struct chat_slices in = {
        .messages = t->messages.raw,
        .plain = k->scratch->plain,
        .plain_n = plain_messages(t->messages, k->scratch->plain),
        .tools = js_is(t->tools, JS_ARRAY) ? t->tools.raw : STR_NULL,
        .kwargs = js_is(t->kwargs, JS_OBJECT) ? t->kwargs.raw : STR_NULL,
        .no_generation_prompt = t->no_generation_prompt,
        .now = (int64_t)now_s,
        .scratch = k->scratch->chat,
        .stop = k->stop,
    };
    enum err e = chat_count(k->info, &in, &c, &error);
    if (e != ERR_OK) {
        failed(r, e, error.why.text);
        return;
    }
    r->tokens += c.tokens;
    r->exact = r->exact && c.exact;
}

/* Anthropic's system prompt stands beside the messages: a text, or parts with texts. */
static void add_system(const struct task *k, struct js_val system, struct count_result *r)
{
    struct js_iter it;
    struct js_val part;
    add_text(k, system, r);
    if (js_is(system, JS_ARRAY)) {
        js_iter_init(&it, system);
        while (js_next_element(&it, &part)) add_text(k, js_get(part, "text"), r);
    }
    /* How the server joins it with the messages is not known. */
    if (system.raw.p != NULL) r->exact = false;
}

static void count(const struct counter *c, const struct texts *t, struct task task,
                  struct count_result *r)
{
    static const struct model_info unknown = { .vocab = NULL };
    const struct task *k = &task;
    if (!c->o.precise) task.info = &unknown;
    *r = (struct count_result){ .exact = !t->estimate };
    if (t->ep == SNAP_EP_CHAT || t->ep == SNAP_EP_MESSAGES) {
        add_chat(k, t, r, clock_wall_ns(c->o.clock) / 1000000000u);
        if (r->err == ERR_OK) add_system(k, t->system, r);
    } else {
        add_plain(k, t->plain, r, 0);
    }
    if (r->err == ERR_INTERNAL) {
        /* Bounds of the renderer, or memory: an estimate that says so, never a refusal. */
        *r = (struct count_result){ .tokens = (t->messages.raw.n + t->plain.raw.n) / 4 };
    }
}

/* --- jobs --- */

static void job_posted(void *ctx)
{
    struct job *j = ctx;
    j->done(j->ctx, &j->result);
    free(j);
}

static void finish(struct job *j)
{
    struct counter *c = j->counter;
    while (loop_post(j->loop, job_posted, j) != ERR_OK) sched_yield();
    pthread_mutex_lock(&c->lock);
    if (--c->pending == 0) pthread_cond_signal(&c->idle);
    pthread_mutex_unlock(&c->lock);
}

/* The helper thread counts it, or at least estimates when too many wait. */
static void count_here(struct job *j)
{
    if (queue_push(j->counter->jobs, j) == ERR_OK) return;
    j->result = (struct count_result){ .tokens = (j->t.messages.raw.n + j->t.plain.raw.n) / 4 };
    finish(j);
}

/* The answer of a token service. False: it gave none that can be used. */
static bool take_answer(struct job *j, struct str data)
{
    struct token_answer a;
    struct chat_error error;
    enum err e = token_msg_answer_parse(data, &a, &error);
    if (e == ERR_OK)
        j->result = (struct count_result){ .tokens = a.tokens, .exact = a.exact && !j->t.estimate };
    else if (e == ERR_INVALID && error.param[0] != '\0')
        failed(&j->result, ERR_INVALID, error.why.text); /* the template refused the messages */
    else
        return false;
    return true;
}

static bool is_given_up(void *ctx)
{
    const struct job *j = ctx;
    return atomic_load_explicit(j->given_up, memory_order_relaxed);
}

/* On a thread of the bus. */
static void on_answer(void *ctx, enum err e, struct str data)
{
    struct job *j = ctx;
    if (e == ERR_OK && take_answer(j, data))
        finish(j);
    else
        count_here(j);
}

/* What the token service can count as we would: chats of one template, and no system prompt beside
 * them. */
static bool is_plain_chat(const struct texts *t)
{
    return (t->ep == SNAP_EP_CHAT || t->ep == SNAP_EP_MESSAGES) && t->system.raw.p == NULL;
}

static enum err build_request(const struct job *j, struct buf *out)
{
    const struct counter *c = j->counter;
    struct token_slices s = {
        .model = j->model,
        .messages = j->t.messages.raw,
        .tools = js_is(j->t.tools, JS_ARRAY) ? j->t.tools.raw : STR_NULL,
        .kwargs = js_is(j->t.kwargs, JS_OBJECT) ? j->t.kwargs.raw : STR_NULL,
        .no_generation_prompt = j->t.no_generation_prompt,
        .timeout_ms = REMOTE_TIMEOUT_MS,
    };
    return token_msg_request(out, c->o.clock, c->o.rng, bus_instance(c->o.bus), &s);
}

/* Asks over the bus; false when it cannot be asked. */
static bool ask_bus(struct job *j)
{
    struct counter *c = j->counter;
    struct buf b;
    if (!is_plain_chat(&j->t)) return false;
    buf_init(&b, TOKEN_MSG_MAX + 4096);
    enum err e = build_request(j, &b);
    if (e == ERR_OK)
        e = bus_request(c->o.bus, c->subject, buf_str(&b), REMOTE_TIMEOUT_MS, on_answer, j);
    buf_done(&b);
    return e == ERR_OK;
}

/* On the helper thread: asks the service at the configured address. */
static bool ask_http(struct job *j, struct http_client *client)
{
    struct buf b, answer, url;
    int status = 0;
    bool ok = false;
    if (client == NULL || !is_plain_chat(&j->t)) return false;
    buf_init(&b, TOKEN_MSG_MAX + 4096), buf_init(&answer, ANSWER_MAX), buf_init(&url, 2048);
    if (build_request(j, &b) == ERR_OK &&
        buf_printf(&url, "%s/calculate", j->counter->o.url) == ERR_OK) {
        struct http_call call = {
            .method = "POST",
            .url = buf_z(&url),
            .body = buf_str(&b),
            .headers = { "content-type: application/json" },
            .connect_timeout_ms = REMOTE_TIMEOUT_MS,
            .timeout_ms = HTTP_TIMEOUT_MS,
        };
        /* The service's answer has the members of the message, but not its envelope. */
        struct json *o = NULL;
        if (http_client_call(client, &call, &status, &answer, NULL) == ERR_OK && status == 200 &&
            json_parse(buf_str(&answer), ANSWER_MAX, &o, NULL) == ERR_OK) {
            j->result = (struct count_result){ 0 };
            ok = json_get_u64(o, "tokens", &j->result.tokens) == ERR_OK &&
                 json_get_bool(o, "exact", &j->result.exact) == ERR_OK;
            if (j->t.estimate) j->result.exact = false;
        }
        json_free(o);
    }
    buf_done(&b), buf_done(&answer), buf_done(&url);
    return ok;
}

static void *helper(void *ctx)
{
    struct counter *c = ctx;
    struct http_client *client = c->o.url != NULL && *c->o.url != '\0' ? http_client_new() : NULL;
    struct count_scratch *scratch = count_scratch_new();
    void *item;
    while (queue_pop(c->jobs, -1, &item) == ERR_OK) {
        struct job *j = item;
        const struct stop stop = { is_given_up, j };
        if (!is_given_up(j) && (!c->o.precise || !ask_http(j, client)))
            count(c, &j->t, (struct task){ j->info, scratch, &stop }, &j->result);
        finish(j);
    }
    count_scratch_free(scratch);
    http_client_free(client);
    return NULL;
}

static struct js_val copy_val(struct js_val v, char **at)
{
    if (v.raw.p == NULL) return v;
    memcpy(*at, v.raw.p, v.raw.n);
    v.raw.p = *at;
    v.mark = NULL;
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
        .estimate = in->estimate,
    };
}

bool counter_count(struct counter *c, const struct count_input *in, struct count_result *ret,
                   count_done_fn done, void *ctx)
{
    struct texts t = texts_of(in);
    size_t n = t.messages.raw.n + t.tools.raw.n + t.kwargs.raw.n + t.system.raw.n + t.plain.raw.n;
    size_t total = n + in->model.n;
    struct job *j = n > c->o.remote_bytes ? malloc(sizeof *j + total) : NULL;
    if (j == NULL) {
        count(c, &t, (struct task){ in->info, in->scratch, NULL }, ret);
        return true;
    }
    char *at = j->copy;
    *j = (struct job){ .counter = c,
                       .t = t,
                       .info = in->info,
                       .given_up = in->given_up,
                       .loop = in->loop,
                       .done = done,
                       .ctx = ctx };
    j->t.messages = copy_val(t.messages, &at);
    j->t.tools = copy_val(t.tools, &at);
    j->t.kwargs = copy_val(t.kwargs, &at);
    j->t.system = copy_val(t.system, &at);
    j->t.plain = copy_val(t.plain, &at);
    memcpy(at, in->model.p, in->model.n);
    j->model = str_n(at, in->model.n);
    pthread_mutex_lock(&c->lock);
    c->pending++;
    pthread_mutex_unlock(&c->lock);
    bool http = c->o.url != NULL && *c->o.url != '\0';
    if (http || !c->o.precise || !ask_bus(j)) count_here(j);
    return false;
}

struct counter *counter_new(const struct counter_options *o)
{
    struct counter *c = xcalloc(1, sizeof *c);
    c->o = *o;
    c->jobs = queue_new(JOBS_MAX);
    subject_make(bus_prefix(o->bus), SUBJECT_TOKEN_COUNT, NULL, c->subject);
    pthread_mutex_init(&c->lock, NULL);
    pthread_cond_init(&c->idle, NULL);
    ASSERT(pthread_create(&c->thread, NULL, helper, c) == 0);
    return c;
}

void counter_free(struct counter *c)
{
    if (c == NULL) return;
    pthread_mutex_lock(&c->lock);
    while (c->pending > 0) pthread_cond_wait(&c->idle, &c->lock);
    pthread_mutex_unlock(&c->lock);
    queue_close(c->jobs);
    pthread_join(c->thread, NULL);
    queue_free(c->jobs);
    pthread_cond_destroy(&c->idle);
    pthread_mutex_destroy(&c->lock);
    free(c);
}
