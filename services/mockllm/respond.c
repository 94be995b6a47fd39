/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From a request to its answer: routing, the behaviour that counts, faults, whole bodies. Streams
 * are in respond_stream.c. Runs on the connection's worker thread.
 */
#include "conn.h"

#include "base/hash.h"
#include "reply.h"

static const struct {
    const char *path;
    enum api api;
} endpoints[] = {
    { "/v1/chat/completions", API_CHAT },
    { "/v1/completions", API_COMPLETIONS },
    { "/v1/embeddings", API_EMBEDDINGS },
    { "/v1/messages", API_MESSAGES },
    { "/v1/messages/count_tokens", API_COUNT_TOKENS },
    { "/v1/responses", API_RESPONSES },
};

/* --- simple answers --- */

void respond_simple(struct conn *c, int status, const char *content_type, struct str body,
                    const struct behave *b, enum after after)
{
    struct server *s = c->worker->server;
    bool keep = c->keep_alive && after == AFTER_NEXT && !atomic_load(&s->draining) &&
                !(b != NULL && b->close);
    struct reply_head head = { .status = status,
                               .content_type = content_type,
                               .framing = FRAMING_LENGTH,
                               .length = body.n,
                               .keep_alive = keep,
                               .behave = b,
                               .serial = c->serial };
    enum err e = reply_head(&c->out, &head);
    if (e == ERR_OK) e = buf_append_str(&c->out, body);
    c->after = e != ERR_OK ? AFTER_RESET : keep ? AFTER_NEXT : AFTER_CLOSE;
    c->state = CONN_SENDING;
}

/* An error in the form of the API that was asked. */
static void respond_error(struct conn *c, enum api api, int status, const char *message,
                          const struct behave *b)
{
    struct buf *body = &c->worker->body;
    buf_clear(body);
    c->ending.status = status;
    if (answer_error(api, status, message, body) != ERR_OK) buf_clear(body);
    respond_simple(c, status, "application/json", buf_str(body), b, AFTER_NEXT);
    if (c->counted) respond_ended(c, ENDED_ERROR);
}

void respond_ended(struct conn *c, enum ended how)
{
    if (c->counted) {
        struct ending *e = &c->ending;
        e->id = str_of(c->behave.id);
        e->tag = str_of(c->behave.tag);
        e->model = str_of(c->model);
        e->user = str_of(c->user);
        e->how = how == ENDED_DONE && e->how == ENDED_FAULT ? ENDED_FAULT : how;
        if (c->has_answer && c->head_sent) {
            e->prompt_tokens = c->answer.prompt_tokens;
            /* Of a stream that did not come to its end: what went out. */
            bool part = c->answer.stream && e->how != ENDED_DONE;
            e->completion_tokens = part ? c->answer.sent_tokens : c->answer.completion_tokens;
        }
        store_end(c->worker->server->store, e);
        c->counted = false;
    }
    if (c->has_answer) answer_done(&c->answer);
    if (c->has_shaper) shaper_done(&c->shaper);
    c->has_answer = c->has_shaper = c->head_sent = false;
}

/* --- behaviours --- */

/* The process's default and the header; the model's name comes later. */
static enum err behaviour_of(struct conn *c, const struct h1_request *r, struct behave *ret,
                             struct why *why)
{
    struct server *s = c->worker->server;
    char text[BEHAVIOUR_MAX];
    struct str header = h1_header(&r->head, STR("x-mock")),
               id = h1_header(&r->head, STR("x-mock-id"));
    behave_init(ret);
    pthread_mutex_lock(&s->lock);
    memcpy(text, s->behaviour, sizeof text);
    pthread_mutex_unlock(&s->lock);
    enum err e = behave_parse(ret, str_of(text), ';', why);
    if (e == ERR_OK && header.p != NULL) e = behave_parse(ret, header, ';', why);
    if (e == ERR_OK && id.n > 0) (void)str_copyz(ret->id, sizeof ret->id, id);
    return e;
}

/* Does the fault strike this request too? */
static bool strikes(struct conn *c, struct behave *b)
{
    if (b->fail == FAULT_NONE) return false;
    if (b->times > 0 && store_strike(c->worker->server->store, str_of(b->id)) > (uint64_t)b->times)
        b->fail = FAULT_NONE;
    return b->fail != FAULT_NONE;
}

/* Faults instead of an answer. True when there was one. */
static bool fault_instead(struct conn *c, enum api api)
{
    static const char garbage[] = "\x16\x03\x01 this is not HTTP\n\n";
    const struct behave *b = &c->behave;
    c->ending.how = ENDED_FAULT;
    c->ending.status = 0;
    switch (b->fail) {
    case FAULT_REFUSE:
        c->after = AFTER_RESET;
        c->state = CONN_SENDING;
        return true;
    case FAULT_HANG:
        c->after = AFTER_HANG;
        c->state = CONN_SENDING;
        return true;
    case FAULT_GARBAGE:
        c->after = buf_append(&c->out, garbage, sizeof garbage - 1) == ERR_OK ? AFTER_CLOSE
                                                                              : AFTER_RESET;
        c->state = CONN_SENDING;
        return true;
    case FAULT_STATUS:
        respond_error(c, api, (int)b->fail_arg, "The mock was told to fail.", b);
        return true;
    default:
        c->ending.how = ENDED_DONE;
        c->ending.status = 200;
        return false;
    }
}

bool respond_early(struct conn *c, const struct h1_request *r)
{
    struct why why;
    if (r->method != H1_POST || str_starts(r->path, STR("/mock/"))) return false;
    if (behaviour_of(c, r, &c->behave, &why) != ERR_OK || c->behave.fail != FAULT_EARLY ||
        !strikes(c, &c->behave))
        return false;
    c->keep_alive = false;
    respond_error(c, API_CHAT, (int)c->behave.fail_arg, "The mock did not want the body.",
                  &c->behave);
    return true;
}

/* --- the model endpoints --- */

static enum framing framing_of(const struct behave *b, bool stream)
{
    if (b->fail == FAULT_BAD_CHUNK) return FRAMING_CHUNKED;
    if (b->fail == FAULT_TWO_LENGTHS || b->fail == FAULT_LONG_LENGTH ||
        b->fail == FAULT_LENGTH_AND_CHUNKED)
        return FRAMING_LENGTH;
    if (b->framing != FRAMING_AUTO && !(stream && b->framing == FRAMING_LENGTH)) return b->framing;
    return stream ? FRAMING_CHUNKED : FRAMING_LENGTH;
}

/* Any CJK ideograph of the basic block? */
static bool is_chinese(struct str s)
{
    for (size_t i = 0; i + 2 < s.n; i++)
        if ((unsigned char)s.p[i] >= 0xe4 && (unsigned char)s.p[i] <= 0xe9) return true;
    return false;
}

/* A text other than our words: an echo, or Chinese where its tokens can be known. */
static enum err text_to_say(struct conn *c, const struct h1_request *r, struct str body,
                            const struct llm_request *q, bool knows, struct buf *out)
{
    if (c->behave.echo == ECHO_PROMPT) return buf_append_str(out, q->last_text);
    if (c->behave.echo == ECHO_REQUEST) {
        enum err e = buf_append(out, c->in.data, r->head.len);
        return e == ERR_OK ? buf_append_str(out, body) : e;
    }
    if (c->behave.tokens >= 0 || !knows || !is_chinese(q->last_text)) return ERR_OK;
    return buf_append_str(out, text_chinese(hash_crc32c(0, q->last_text.p, q->last_text.n)));
}

/* What is said of the request in the store, and the behaviour that its model's name asks for. */
static enum err read_model(struct conn *c, const struct llm_request *q, struct why *why)
{
    struct str spec;
    (void)str_copyz(c->model, sizeof c->model, behave_model(q->model, &spec));
    (void)str_copyz(c->user, sizeof c->user, q->user);
    return spec.p != NULL ? behave_parse(&c->behave, spec, ',', why) : ERR_OK;
}

/* Counts the prompt and decides the answer. */
static enum err decide(struct conn *c, const struct h1_request *r, struct str body,
                       const struct llm_request *q, struct why *why)
{
    struct server *s = c->worker->server;
    uint64_t now = clock_wall_ns(s->options.clock), prompt = 0;
    struct str spec, model = behave_model(q->model, &spec);
    struct model_info info;
    struct buf said;
    bool knows = count_knows(&s->counter, model, &info);
    const struct splitter splitter = { count_split, &info };
    buf_init(&said, IN_MAX);
    enum err e = count_prompt(&s->counter, model, q, (int64_t)(now / 1000000000), &prompt, why);
    if (e == ERR_OK) e = text_to_say(c, r, body, q, knows, &said);
    if (e == ERR_OK) {
        bool own = said.len == 0 && c->behave.echo == ECHO_NONE;
        e = answer_init(&c->answer, q, &c->behave, prompt, now, c->serial,
                        own            ? STR_NULL
                        : said.len > 0 ? buf_str(&said)
                                       : STR(""),
                        knows ? &splitter : NULL);
        c->has_answer = true;
    }
    if (e == ERR_OK) e = count_answer(&s->counter, model, &c->answer);
    buf_done(&said);
    return e;
}

/* False: an error or a fault was answered instead. */
static bool prepare(struct conn *c, const struct h1_request *r, struct str body)
{
    struct llm_request q;
    struct why why = { "" };
    enum err e = llm_request_parse(c->api, body, &q, &why);
    bool parsed = e == ERR_OK;
    if (parsed) e = read_model(c, &q, &why);
    /* Faults strike bad bodies as well. */
    bool over = strikes(c, &c->behave) && fault_instead(c, c->api);
    if (e == ERR_OK && !over) e = decide(c, r, body, &q, &why);
    if (parsed) llm_request_done(&q);
    if (e != ERR_OK && !over)
        respond_error(c, c->api, e == ERR_NOMEM ? 500 : 400,
                      why.text[0] != '\0' ? why.text : err_name(e), &c->behave);
    return e == ERR_OK && !over;
}

static bool key_ok(const struct server *s, const struct h1_request *r)
{
    struct str key = str_of(s->options.api_key);
    struct str bearer = h1_header_known(&r->head, H1_AUTHORIZATION);
    if (key.n == 0 || str_eq(h1_header_known(&r->head, H1_X_API_KEY), key)) return true;
    return bearer.n == key.n + 7 && str_ieq(str_n(bearer.p, 7), STR("Bearer ")) &&
           str_eq(str_n(bearer.p + 7, key.n), key);
}

static void respond_llm(struct conn *c, const struct h1_request *r, struct str body, size_t which)
{
    struct server *s = c->worker->server;
    struct why why;
    c->api = endpoints[which].api;
    c->model[0] = c->user[0] = '\0';
    c->ending = (struct ending){ .endpoint = str_of(endpoints[which].path),
                                 .began_ns = conn_now(c),
                                 .status = 200 };
    c->began_ns = c->ending.began_ns;
    if (behaviour_of(c, r, &c->behave, &why) != ERR_OK) {
        respond_error(c, c->api, 400, why.text, NULL);
        return;
    }
    c->ending.record = store_record(s->store, str_of(c->behave.id), c->number,
                                    str_n(c->in.data, r->head.len), body);
    store_begin(s->store);
    c->counted = true;
    if (!key_ok(s, r)) {
        respond_error(c, c->api, 401, "Incorrect API key provided.", &c->behave);
        return;
    }
    if (!prepare(c, r, body)) return;
    enum framing framing = framing_of(&c->behave, c->answer.stream);
    if (c->behave.close || framing == FRAMING_CLOSE || atomic_load(&s->draining))
        c->keep_alive = false;
    if (shaper_init(&c->shaper, &c->behave, framing, c->answer.stream) != ERR_OK) {
        conn_drop(c, ENDED_ERROR);
        return;
    }
    c->has_shaper = true;
    c->paused = false;
    uint64_t at = c->began_ns + (uint64_t)c->behave.ttft_ms * 1000000;
    if (c->answer.stream) {
        c->ending.stream = true;
        store_stream(s->store);
        c->state = CONN_STREAMING;
        return;
    }
    /* All choices are made at the same time: the longest one decides. */
    uint64_t longest = 0;
    for (size_t i = 0; i < c->answer.choices_len; i++)
        longest = MAX(longest, c->answer.choices[i].len);
    at += longest * c->behave.interval_ns;
    c->state = CONN_WAITING;
    if (at <= c->began_ns)
        respond_whole(c);
    else
        conn_wait(c, at);
}

void respond_whole(struct conn *c)
{
    const struct behave *b = &c->behave;
    struct buf *body = &c->worker->body;
    struct shaper *s = &c->shaper;
    buf_clear(body);
    if (b->fail == FAULT_ERROR_EVENT) {
        respond_error(c, c->api, 500, "The mock was told to fail.", b);
        return;
    }
    enum err e = answer_whole(&c->answer, body);
    if (e == ERR_OK && b->fail == FAULT_BAD_JSON) body->len /= 2;
    if (e == ERR_OK && b->fail == FAULT_BIG_EVENT) e = event_grow(body, b->fail_arg);
    if (e == ERR_OK) e = shaper_add(s, buf_str(body));
    if (e == ERR_OK) e = shaper_end(s);
    struct reply_head head = { .status = 200,
                               .content_type = "application/json",
                               .framing = s->framing,
                               .length = s->body.len,
                               .keep_alive = c->keep_alive && b->fail != FAULT_LONG_LENGTH,
                               .behave = b,
                               .serial = c->serial };
    if (e == ERR_OK) e = reply_head(&c->out, &head);
    c->slow_left = b->fail == FAULT_SLOW_HEADERS ? c->out.len : 0;
    c->after = head.keep_alive ? AFTER_NEXT : AFTER_CLOSE;
    if (b->fail == FAULT_HANG_AFTER || b->fail == FAULT_RESET_AFTER ||
        b->fail == FAULT_CLOSE_AFTER) {
        s->body.len = (size_t)MIN((uint64_t)s->body.len, b->fail_arg);
        s->ended = s->body.len == 0; /* else it is cut, and its end never comes */
        if (s->ended) s->over = true;
        c->ending.how = ENDED_FAULT;
        c->after = b->fail == FAULT_HANG_AFTER    ? AFTER_HANG
                   : b->fail == FAULT_RESET_AFTER ? AFTER_RESET
                                                  : AFTER_CLOSE;
    }
    c->head_sent = true;
    if (e == ERR_OK && shaper_is_cut(s)) {
        c->state = CONN_STREAMING; /* unit by unit */
        return;
    }
    while (e == ERR_OK) e = shaper_take(s, &c->out);
    if (e == ERR_CLOSED || e == ERR_AGAIN) e = ERR_OK;
    if (e == ERR_OK && b->fail == FAULT_EXTRA_BYTES) e = buf_appendz(&c->out, "extra bytes\r\n");
    if (e != ERR_OK) c->after = AFTER_RESET;
    c->state = CONN_SENDING;
}

/* --- routing --- */

static void respond_models(struct conn *c)
{
    struct buf *body = &c->worker->body;
    struct str rest = str_of(c->worker->server->options.models);
    bool first = true;
    buf_clear(body);
    enum err e = buf_appendz(body, "{\"object\":\"list\",\"data\":[");
    while (rest.p != NULL && e == ERR_OK) {
        struct str name = str_trim(str_cut(&rest, ','));
        if (name.n == 0) continue;
        e = buf_appendz(body, first ? "{\"id\":" : ",{\"id\":");
        if (e == ERR_OK) e = buf_append_json(body, name);
        if (e == ERR_OK)
            e = buf_appendz(body, ",\"object\":\"model\",\"created\":0,\"owned_by\":\"mock\"}");
        first = false;
    }
    if (e == ERR_OK) e = buf_appendz(body, "]}");
    if (e != ERR_OK) buf_clear(body);
    respond_simple(c, e == ERR_OK ? 200 : 500, "application/json", buf_str(body), &c->behave,
                   AFTER_NEXT);
}

void respond(struct conn *c, const struct h1_request *r, struct str body)
{
    struct why why = { "" };
    c->serial = store_serial(c->worker->server->store);
    c->ending = (struct ending){ 0 };
    c->after = AFTER_NEXT;
    if (admin_respond(c, r, body)) return;
    for (size_t i = 0; i < ARRAY_LEN(endpoints); i++) {
        if (!str_eqz(r->path, endpoints[i].path)) continue;
        if (r->method == H1_POST)
            respond_llm(c, r, body, i);
        else
            respond_error(c, endpoints[i].api, 405, "Only POST is possible here.", NULL);
        return;
    }
    bool models = str_eqz(r->path, "/v1/models");
    if ((!models && !str_eqz(r->path, "/health")) || r->method != H1_GET) {
        respond_error(c, API_CHAT, 404, "There is nothing here.", NULL);
        return;
    }
    /* Health checks see the faults of a server, too. */
    if (behaviour_of(c, r, &c->behave, &why) != ERR_OK)
        respond_error(c, API_CHAT, 400, why.text, NULL);
    else if (strikes(c, &c->behave) && fault_instead(c, API_CHAT))
        return;
    else if (models && !key_ok(c->worker->server, r))
        respond_error(c, API_CHAT, 401, "Incorrect API key provided.", NULL);
    else if (models)
        respond_models(c);
    else
        respond_simple(c, 200, "application/json", STR("{\"status\":\"ok\"}"), NULL, AFTER_NEXT);
}
