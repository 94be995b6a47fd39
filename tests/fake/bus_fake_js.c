/* SPDX-License-Identifier: Apache-2.0 */
/* Streams and consumers of the fake; included by bus_fake.c. */

struct fake_message {
    struct list_node node;
    uint64_t seq, deliveries;
    uint64_t next_ns; /* not delivered before */
    bool gone;        /* acknowledged, or terminated */
    char subject[FAKE_SUBJECT];
    struct buf data;
};

struct fake_id {
    struct list_node node;
    uint64_t at_ns;
    char text[128];
};

struct fake_stream {
    struct list_node node, messages, ids;
    char name[FAKE_SUBJECT], subjects[4][FAKE_SUBJECT], durable[FAKE_SUBJECT];
    int64_t max_bytes, bytes, duplicates_ns;
    bool discard_new, work_queue;
    uint64_t seq;
};

static void fake_free_message(struct fake_message *m)
{
    list_remove(&m->node);
    buf_done(&m->data);
    free(m);
}

static void fake_streams_free(struct bus_fake *f)
{
    struct list_node *n, *k;
    while ((n = list_pop_front(&f->streams)) != NULL) {
        struct fake_stream *s = LIST_ENTRY(n, struct fake_stream, node);
        while (!list_empty(&s->messages))
            fake_free_message(LIST_ENTRY(s->messages.next, struct fake_message, node));
        while ((k = list_pop_front(&s->ids)) != NULL) free(LIST_ENTRY(k, struct fake_id, node));
        free(s);
    }
}

static struct fake_stream *fake_stream_find(struct bus_fake *f, const char *name)
{
    LIST_EACH(n, &f->streams)
    {
        struct fake_stream *s = LIST_ENTRY(n, struct fake_stream, node);
        if (str_eqz(str_of(name), s->name)) return s;
    }
    return NULL;
}

size_t bus_fake_stored(struct bus_fake *f, const char *stream)
{
    size_t count = 0;
    pthread_mutex_lock(&f->lock);
    struct fake_stream *s = fake_stream_find(f, stream);
    if (s != NULL) LIST_EACH(n, &s->messages)
    count += !LIST_ENTRY(n, struct fake_message, node)->gone || !s->work_queue;
    pthread_mutex_unlock(&f->lock);
    return count;
}

enum err bus_stream_ensure(struct bus *b, const struct bus_stream *o, struct why *why)
{
    enum err e = ERR_OK;
    pthread_mutex_lock(&b->server->lock);
    if (b->server->away) {
        e = why_set(why, ERR_UNAVAILABLE, "away");
    } else {
        struct fake_stream *s = fake_stream_find(b->server, o->name);
        if (s == NULL) {
            s = xcalloc(1, sizeof *s);
            list_init(&s->messages);
            list_init(&s->ids);
            fake_copy(s->name, str_of(o->name));
            list_push_back(&b->server->streams, &s->node);
        }
        for (size_t i = 0; i < ARRAY_LEN(o->subjects); i++)
            fake_copy(s->subjects[i], str_of(o->subjects[i]));
        s->max_bytes = o->max_bytes;
        s->duplicates_ns = o->duplicates_ns > 0 ? o->duplicates_ns : (int64_t)120 * 1000000000;
        s->discard_new = o->discard_new;
        s->work_queue = o->work_queue;
    }
    pthread_mutex_unlock(&b->server->lock);
    return e;
}

/* Whether the stream took this id lately; remembers it when not. */
static bool fake_is_duplicate(struct fake_stream *s, const char *id)
{
    uint64_t now = fake_now();
    if (id == NULL) return false;
    LIST_EACH_SAFE(n, &s->ids)
    {
        struct fake_id *k = LIST_ENTRY(n, struct fake_id, node);
        if (now - k->at_ns > (uint64_t)s->duplicates_ns) {
            list_remove(n);
            free(k);
        } else if (str_eqz(str_of(id), k->text)) {
            return true;
        }
    }
    return false;
}

static enum err fake_keep(struct bus_fake *f, struct fake_stream *s, const char *subject,
                          const char *id, struct str data)
{
    while (s->max_bytes > 0 && s->bytes + (int64_t)data.n > s->max_bytes) {
        if (s->discard_new || list_empty(&s->messages)) return ERR_LIMIT;
        struct fake_message *oldest = LIST_ENTRY(s->messages.next, struct fake_message, node);
        s->bytes -= (int64_t)oldest->data.len;
        fake_free_message(oldest);
    }
    struct fake_message *m = xcalloc(1, sizeof *m);
    m->seq = ++s->seq;
    fake_copy(m->subject, str_of(subject));
    fake_fill(&m->data, data);
    s->bytes += (int64_t)data.n;
    list_push_back(&s->messages, &m->node);
    if (id != NULL) {
        struct fake_id *k = xcalloc(1, sizeof *k);
        k->at_ns = fake_now();
        ASSERT(str_copyz(k->text, sizeof k->text, str_of(id)));
        list_push_back(&s->ids, &k->node);
    }
    pthread_cond_broadcast(&f->changed);
    return ERR_OK;
}

static void fake_store(struct bus_fake *f, const char *subject, const char *id, struct str data,
                       struct fake_pending *p)
{
    LIST_EACH(n, &f->streams)
    {
        struct fake_stream *s = LIST_ENTRY(n, struct fake_stream, node);
        bool takes = false;
        for (size_t i = 0; i < ARRAY_LEN(s->subjects); i++)
            takes = takes || (s->subjects[i][0] != '\0' && fake_matches(s->subjects[i], subject));
        if (!takes) continue;
        bool dup = fake_is_duplicate(s, id);
        enum err e = dup ? ERR_OK : fake_keep(f, s, subject, id, data);
        if (p != NULL) fake_complete(p, e, STR_NULL, dup);
        return;
    }
    if (p != NULL) fake_complete(p, ERR_UNAVAILABLE, STR_NULL, false);
}

enum err bus_js_publish(struct bus *b, const char *subject, const char *msg_id, struct str data,
                        int timeout_ms, bus_ack_fn fn, void *ctx)
{
    bool lost;
    pthread_mutex_lock(&b->server->lock);
    enum err e = fake_check(b, subject, data, &lost);
    if (e == ERR_OK) {
        struct fake_pending *p = fake_pending_new(b, timeout_ms, ctx);
        p->ack_fn = fn;
        if (!lost) {
            fake_deliver(b->server, subject, "", data);
            fake_store(b->server, subject, msg_id, data, p);
        }
    }
    pthread_mutex_unlock(&b->server->lock);
    return e;
}

struct bus_js_msg {
    struct bus *bus;
    char stream[FAKE_SUBJECT], subject[FAKE_SUBJECT];
    uint64_t seq, deliveries;
    struct buf data;
};

struct bus_consumer {
    struct bus *bus;
    char stream[FAKE_SUBJECT];
    int ack_wait_ms, max_ack_pending;
};

struct str bus_js_data(const struct bus_js_msg *m)
{
    return buf_str(&m->data);
}

struct str bus_js_subject(const struct bus_js_msg *m)
{
    return str_of(m->subject);
}

uint64_t bus_js_sequence(const struct bus_js_msg *m)
{
    return m->seq;
}

uint64_t bus_js_deliveries(const struct bus_js_msg *m)
{
    return m->deliveries;
}

void bus_js_release(struct bus_js_msg *m)
{
    if (m == NULL) return;
    buf_done(&m->data);
    free(m);
}

/* Ends it, or makes it come again at at_ns. Does nothing while the server is away. */
static void fake_answer(struct bus_js_msg *m, bool end, uint64_t at_ns)
{
    struct bus_fake *f = m->bus->server;
    pthread_mutex_lock(&f->lock);
    struct fake_stream *s = f->away ? NULL : fake_stream_find(f, m->stream);
    if (s != NULL) LIST_EACH_SAFE(n, &s->messages)
        {
            struct fake_message *k = LIST_ENTRY(n, struct fake_message, node);
            if (k->seq != m->seq) continue;
            k->gone = end;
            k->next_ns = at_ns;
            if (end && s->work_queue) {
                s->bytes -= (int64_t)k->data.len;
                fake_free_message(k);
            }
        }
    pthread_cond_broadcast(&f->changed);
    pthread_mutex_unlock(&f->lock);
    bus_js_release(m);
}

void bus_js_ack(struct bus_js_msg *m)
{
    fake_answer(m, true, 0);
}

void bus_js_nak(struct bus_js_msg *m, int delay_ms)
{
    fake_answer(m, false, fake_now() + (uint64_t)MAX(delay_ms, 0) * 1000000);
}

void bus_js_term(struct bus_js_msg *m)
{
    fake_answer(m, true, 0);
}

enum err bus_consumer_open(struct bus *b, const struct bus_consumer_options *o,
                           struct bus_consumer **ret, struct why *why)
{
    enum err e = ERR_OK;
    pthread_mutex_lock(&b->server->lock);
    struct fake_stream *s = fake_stream_find(b->server, o->stream);
    if (b->server->away) {
        e = why_set(why, ERR_UNAVAILABLE, "away");
    } else if (s == NULL) {
        e = why_set(why, ERR_NOT_FOUND, "no stream %s", o->stream);
    } else {
        /* One durable consumer per stream is all that the fake knows. */
        ASSERT(s->durable[0] == '\0' || str_eqz(str_of(o->durable), s->durable));
        fake_copy(s->durable, str_of(o->durable));
        struct bus_consumer *c = xcalloc(1, sizeof *c);
        c->bus = b;
        c->ack_wait_ms = o->ack_wait_ms;
        c->max_ack_pending = o->max_ack_pending;
        fake_copy(c->stream, str_of(o->stream));
        *ret = c;
    }
    pthread_mutex_unlock(&b->server->lock);
    return e;
}

static int fake_take(struct bus_consumer *c, struct fake_stream *s, int max,
                     struct bus_js_msg **ret)
{
    uint64_t now = fake_now();
    int n_out = 0, waiting = 0;
    LIST_EACH(n, &s->messages)
    {
        struct fake_message *m = LIST_ENTRY(n, struct fake_message, node);
        waiting += !m->gone && m->deliveries > 0 && m->next_ns > now;
    }
    LIST_EACH(n, &s->messages)
    {
        struct fake_message *m = LIST_ENTRY(n, struct fake_message, node);
        if (n_out == max || (c->max_ack_pending > 0 && waiting >= c->max_ack_pending)) break;
        if (m->gone || m->next_ns > now) continue;
        struct bus_js_msg *out = xcalloc(1, sizeof *out);
        m->next_ns = now + (uint64_t)c->ack_wait_ms * 1000000;
        out->bus = c->bus;
        out->seq = m->seq;
        out->deliveries = ++m->deliveries;
        fake_copy(out->stream, str_of(s->name));
        fake_copy(out->subject, str_of(m->subject));
        fake_fill(&out->data, buf_str(&m->data));
        ret[n_out++] = out;
        waiting++;
    }
    return n_out;
}

enum err bus_consumer_fetch(struct bus_consumer *c, int max, int timeout_ms,
                            struct bus_js_msg **ret, int *ret_n)
{
    struct bus_fake *f = c->bus->server;
    uint64_t end = fake_now() + (uint64_t)timeout_ms * 1000000;
    int n = 0;
    bool away;
    pthread_mutex_lock(&f->lock);
    for (;;) {
        struct fake_stream *s = fake_stream_find(f, c->stream);
        away = f->away;
        if (!away && s != NULL) n = fake_take(c, s, max, ret);
        if (n > 0 || fake_now() >= end) break;
        fake_wait(f);
    }
    pthread_mutex_unlock(&f->lock);
    if (n > 0) *ret_n = n;
    return n > 0 ? ERR_OK : away ? ERR_UNAVAILABLE : ERR_TIMEOUT;
}

void bus_consumer_close(struct bus_consumer *c)
{
    free(c);
}
