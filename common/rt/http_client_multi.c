/* SPDX-License-Identifier: Apache-2.0 */
/*
 * libcurl's multi interface on a loop of ours: its sockets and its timer are the loop's, and what
 * it brings is told when it has returned. See the header.
 */
#include <curl/curl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include "rt/http_client_multi_impl.h"

enum {
    IN_MAX = 256 * 1024,        /* of an answer that nobody takes */
    HELD_MAX = 8 * 1024 * 1024, /* of it, in curl */
    INTERIMS_MAX = 10,
    CACHED_CONNECTIONS = 256,
    RESETS_MAX = 100 /* of streams; servers that count them close at 200, or more */
};

static void tell(struct http_multi *m);
static void withdraw(struct http_transfer *t);
static void has_news(struct http_transfer *t);

static void global_init(void)
{
    http_multi_spare_resets();
    ASSERT(curl_global_init(CURL_GLOBAL_DEFAULT) == CURLE_OK);
}

/* --- what curl wants of the loop --- */

/* Those that are over; curl is left first, since it must not be called from inside of itself. */
static void collect(struct http_multi *m)
{
    struct CURLMsg *msg;
    int left;
    while ((msg = curl_multi_info_read(m->multi, &left)) != NULL) {
        char *private;
        if (msg->msg != CURLMSG_DONE) continue;
        CURL *easy = msg->easy_handle;
        CURLcode code = msg->data.result;
        (void)curl_easy_getinfo(easy, CURLINFO_PRIVATE, &private);
        struct http_transfer *t = (void *)private;
        t->done = true;
        t->code = code;
        t->discards = t->holding; /* its handle may hold what nobody may see */
        (void)curl_multi_remove_handle(m->multi, easy);
        if (!list_linked(&t->node)) list_push_back(&m->ready, &t->node);
    }
}

static void hold(struct http_transfer *t, bool holding)
{
    if (t->holding == holding) return;
    t->holding = holding;
    t->m->held += holding ? 1 : (size_t)-1;
}

/* Bytes of its answer that curl keeps. */
static uint64_t held_of(const struct http_transfer *t)
{
    curl_off_t came = 0;
    if (!t->holding || t->done) return 0;
    (void)curl_easy_getinfo(t->easy, CURLINFO_SIZE_DOWNLOAD_T, &came);
    return (uint64_t)came > t->taken ? (uint64_t)came - t->taken : 0;
}

/* What a paused stream still gets, since others on its connection are read, is kept by curl as far
 * as the stream's window goes, which is tens of megabytes. */
static void bound_held(struct http_multi *m)
{
    LIST_EACH_SAFE(n, &m->all)
    {
        struct http_transfer *t = LIST_ENTRY(n, struct http_transfer, in_all);
        if (held_of(t) < HELD_MAX) continue;
        t->wrong = "its answer came much faster than the client takes it";
        withdraw(t);
        t->done = true;
        t->code = CURLE_WRITE_ERROR;
        has_news(t);
    }
}

void http_multi_act(struct http_multi *m, curl_socket_t fd, int what)
{
    int running;
    (void)curl_multi_socket_action(m->multi, fd, what, &running);
    collect(m);
    if (m->held > 0) bound_held(m);
    tell(m);
}

/* --- what curl brings --- */

static void has_news(struct http_transfer *t)
{
    if (!list_linked(&t->node)) list_push_back(&t->m->ready, &t->node);
}

static size_t refuse(struct http_transfer *t, const char *why)
{
    t->wrong = why;
    return CURL_WRITEFUNC_ERROR;
}

/* "HTTP/2 200 " becomes a status line of 1.1. */
static enum err add_line(struct buf *head, struct str line)
{
    static const struct str two = STR("HTTP/2 ");
    if (head->len > 0 || !str_starts(line, two)) return buf_append_str(head, line);
    enum err e = buf_append_str(head, STR("HTTP/1.1 "));
    return e == ERR_OK ? buf_append(head, line.p + two.n, line.n - two.n) : e;
}

/* An answer of HTTP/2 is over when its stream is, not when Content-Length says so: libcurl resets a
 * stream whose end it did not wait for (http_client_multi_resets.c has what comes of that). Whether
 * the length is right is nghttp2's affair. libcurl looks at this when it comes upon the field,
 * which is after the status line. */
static void await_end_of_stream(struct http_transfer *t, struct str status_line)
{
    bool has_streams = str_starts(status_line, STR("HTTP/2"));
    if (has_streams) t->m->has_streams = true;
    (void)curl_easy_setopt(t->easy, CURLOPT_IGNORE_CONTENT_LENGTH, has_streams ? 1L : 0L);
}

size_t http_transfer_on_header(char *data, size_t size, size_t n, void *ctx)
{
    struct http_transfer *t = ctx;
    struct str line = str_n(data, size * n);
    if (t->head_whole) return line.n; /* a trailer */
    if (t->head.len == 0) await_end_of_stream(t, line);
    if (add_line(&t->head, line) != ERR_OK) return refuse(t, "its answer's head is too large");
    if (!str_eq(line, STR("\r\n")) && !str_eq(line, STR("\n"))) return line.n;
    long status = 0;
    (void)curl_easy_getinfo(t->easy, CURLINFO_RESPONSE_CODE, &status);
    if (status >= 200) {
        t->head_whole = true;
        has_news(t);
        return line.n;
    }
    buf_clear(&t->head);
    if (status == 101 || ++t->interims > INTERIMS_MAX)
        return refuse(t, "too many interim answers, or an upgrade nobody asked for");
    return line.n;
}

size_t http_transfer_on_body(char *data, size_t size, size_t n, void *ctx)
{
    struct http_transfer *t = ctx;
    if (t->discards) return size * n;
    if (!t->head_whole) return refuse(t, "a body came before its head");
    if (t->in.len > 0 && t->in.len + size * n > IN_MAX) {
        hold(t, true);
        has_news(t);
        return CURL_WRITEFUNC_PAUSE;
    }
    if (buf_append(&t->in, data, size * n) != ERR_OK) return refuse(t, "out of memory");
    t->taken += size * n;
    has_news(t);
    return size * n;
}

int http_transfer_on_connected(void *ctx, char *primary_ip, char *local_ip, int primary_port,
                               int local_port)
{
    struct http_transfer *t = ctx;
    (void)primary_ip, (void)local_ip, (void)primary_port;
    t->connected = true;
    t->local_port = local_port;
    return CURL_PREREQFUNC_OK;
}

/* --- telling --- */

static void free_later(void *ctx)
{
    free(ctx);
}

static void tell_later(void *ctx);

static void plan_telling(struct http_multi *m)
{
    if (m->telling || m->tell_planned) return;
    m->tell_planned = true;
    loop_defer(m->loop, tell_later, m);
}

/* Another transfer on its connection; rather one of which curl holds nothing. NULL: there is none.
 */
static struct http_transfer *beside(const struct http_transfer *t)
{
    struct http_transfer *found = NULL;
    LIST_EACH(n, &t->m->all)
    {
        struct http_transfer *o = LIST_ENTRY(n, struct http_transfer, in_all);
        if (o == t || o->done || o->local_port != t->local_port) continue;
        if (!o->holding) return o;
        found = o;
    }
    return found;
}

/* Takes it from curl in the middle. Since 7.88 libcurl leaves the reset of a stream lying until
 * something else happens on its connection. So the connection goes with the stream when nobody
 * else is on it; otherwise one of the others is stopped and let go on, which sends what lies. One
 * that is stopped already, since curl holds some of its answer, stops again of itself. */
static void withdraw(struct http_transfer *t)
{
    struct http_multi *m = t->m;
    /* What it holds of a paused transfer libcurl (7.88 for one) forgets to free where others are on
     * the connection, and the handle's next transfer would find it there: it is taken now. */
    if (t->holding) {
        t->discards = true;
        (void)curl_easy_pause(t->easy, CURLPAUSE_CONT);
    }
    (void)curl_easy_setopt(t->easy, CURLOPT_FORBID_REUSE, 1L);
    (void)curl_multi_remove_handle(m->multi, t->easy);
    if (!t->connected) return;
    if (m->has_streams) m->resets++;
    struct http_transfer *other = beside(t);
    if (other == NULL) return;
    if (!other->holding) (void)curl_easy_pause(other->easy, CURLPAUSE_RECV);
    (void)curl_easy_pause(other->easy, CURLPAUSE_CONT);
    plan_telling(m); /* of what that brought */
}

/* Gives everything back; the struct's memory goes at the end of the turn, since callers up the
 * stack may look at it. */
static void bury(struct http_transfer *t)
{
    struct http_multi *m = t->m;
    if (t->dead) return;
    t->dead = true;
    list_remove(&t->node);
    list_remove(&t->in_all);
    hold(t, false);
    if (!t->done) withdraw(t);
    /* What the handle points at goes with the transfer. */
    (void)curl_easy_setopt(t->easy, CURLOPT_POSTFIELDS, NULL);
    (void)curl_easy_setopt(t->easy, CURLOPT_HTTPHEADER, NULL);
    (void)curl_easy_setopt(t->easy, CURLOPT_CONNECT_TO, NULL);
    (void)curl_easy_setopt(t->easy, CURLOPT_RESOLVE, NULL);
    (void)curl_easy_setopt(t->easy, CURLOPT_ERRORBUFFER, NULL);
    if (m->spares < HTTP_MULTI_SPARES && !t->discards)
        m->spare[m->spares++] = t->easy;
    else
        curl_easy_cleanup(t->easy);
    t->easy = NULL;
    curl_slist_free_all(t->fields); /* one of them may be a credential */
    curl_slist_free_all(t->connect_to);
    curl_slist_free_all(t->resolve);
    free(t->body);
    free(t->target);
    buf_done(&t->head);
    buf_done(&t->in);
    loop_defer(m->loop, free_later, t);
}

static enum http_transfer_failure classify(const struct http_transfer *t)
{
    if (t->wrong != NULL) return HTTP_TRANSFER_MALFORMED;
    if (!t->connected) return HTTP_TRANSFER_CONNECT;
    switch (t->code) {
    case CURLE_WEIRD_SERVER_REPLY:
    case CURLE_UNSUPPORTED_PROTOCOL: /* HTTP/0.9 */
    case CURLE_HTTP2:
    case CURLE_BAD_CONTENT_ENCODING: return HTTP_TRANSFER_MALFORMED;
    default: return t->head_whole ? HTTP_TRANSFER_TRUNCATED : HTTP_TRANSFER_RESET;
    }
}

/* Whatever curl said may hold names and addresses that are nobody's business; of certificates it
 * is the reason that helps. */
static void explain(const struct http_transfer *t, char *out, size_t cap)
{
    static const struct str about = STR("SSL certificate problem: ");
    struct str said = str_of(t->error);
    const char *why = "closed before it answered";
    if (t->wrong != NULL) {
        why = t->wrong;
    } else if (t->code == CURLE_PEER_FAILED_VERIFICATION) {
        if (str_starts(said, about)) {
            (void)snprintf(out, cap, "the server's certificate is not accepted: %s",
                           said.p + about.n);
            return;
        }
        why = "the server's certificate is not accepted";
    } else if (!t->connected) {
        switch (t->code) {
        case CURLE_SSL_CONNECT_ERROR: why = "TLS failed"; break;
        case CURLE_SSL_CERTPROBLEM:
        case CURLE_SSL_CACERT_BADFILE: why = "a certificate file cannot be used"; break;
        case CURLE_COULDNT_RESOLVE_HOST:
        case CURLE_COULDNT_RESOLVE_PROXY: why = "its name has no address"; break;
        case CURLE_PROXY: why = "the egress proxy refused"; break;
        default:
            why = t->m->proxy != NULL ? "the egress proxy refused, or cannot be reached"
                                      : "the connection was refused or could not be made";
        }
    } else if (classify(t) == HTTP_TRANSFER_MALFORMED) {
        why = "its answer is no HTTP";
    } else if (t->head_whole) {
        why = "closed before the end of its answer";
    }
    (void)str_copyz(out, cap, str_of(why));
}

static void finish(struct http_transfer *t)
{
    const struct http_transfer_events *ev = t->ev;
    void *ctx = t->ctx;
    bool well = t->code == CURLE_OK && t->head_whole && t->wrong == NULL;
    enum http_transfer_failure f = classify(t);
    char why[CURL_ERROR_SIZE + 64];
    if (!well) explain(t, why, sizeof why);
    bury(t);
    if (well)
        ev->end(ctx);
    else
        ev->fail(ctx, f, why);
}

static void tell_one(struct http_transfer *t)
{
    bool told = false;
    if (t->head_whole && !t->head_told) {
        t->head_told = true;
        (void)curl_easy_getinfo(t->easy, CURLINFO_HTTP_VERSION, &t->version);
        t->ev->head(t->ctx, buf_str(&t->head));
        if (t->dead) return;
        buf_done(&t->head);
    }
    if (t->done && t->wrong != NULL) {
        finish(t);
        return;
    }
    if (t->paused) return;
    if (t->in.len > 0) {
        struct buf in = t->in;
        buf_init(&t->in, IN_MAX + CURL_MAX_WRITE_SIZE);
        t->ev->body(t->ctx, buf_str(&in));
        told = true;
        if (!t->dead && t->in.data == NULL) {
            buf_clear(&in);
            t->in = in; /* the memory serves again */
        } else {
            buf_done(&in);
        }
    }
    if (t->dead) return;
    if (t->done && t->code == CURLE_OK && !t->paused && t->in.len == 0) {
        finish(t);
        return;
    }
    if (told) t->ev->flush(t->ctx);
    if (t->dead || t->paused) return;
    if (t->done) {
        finish(t);
    } else if (t->holding) {
        hold(t, false);
        (void)curl_easy_pause(t->easy, CURLPAUSE_CONT); /* may bring something at once */
    }
}

static void tell(struct http_multi *m)
{
    struct list_node *n;
    if (m->telling) return;
    m->telling = true;
    while ((n = list_pop_front(&m->ready)) != NULL) {
        tell_one(LIST_ENTRY(n, struct http_transfer, node));
    }
    m->telling = false;
}

static void tell_later(void *ctx)
{
    struct http_multi *m = ctx;
    m->tell_planned = false;
    collect(m);
    tell(m);
}

/* --- the connections to a server --- */

static char *copy(const char *s)
{
    return s != NULL && s[0] != '\0' ? xstrdup(s) : NULL;
}

struct http_multi *http_multi_new(const struct http_multi_options *o)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, global_init);
    struct http_multi *m = xcalloc(1, sizeof *m);
    m->loop = o->loop;
    m->multi = curl_multi_init();
    m->share = curl_share_init();
    list_init(&m->ready);
    list_init(&m->all);
    m->url = copy(o->url);
    m->connect_text = copy(o->connect_to);
    m->ca_file = copy(o->ca_file);
    m->cert_file = copy(o->cert_file);
    m->key_file = copy(o->key_file);
    m->proxy = copy(o->proxy);
    m->proxy_user = copy(o->proxy_user);
    m->proxy_password = copy(o->proxy_password);
    m->proxy_ca_file = copy(o->proxy_ca_file);
    m->http_version = http_multi_version(o);
    m->tunnel = o->tunnel;
    /* Before 8.0 libcurl greets a second time on a connection that speaks HTTP/2 already, when it
     * was told to begin with that: such a connection cannot be used twice. */
    m->once = m->http_version == CURL_HTTP_VERSION_2_PRIOR_KNOWLEDGE &&
              curl_version_info(CURLVERSION_NOW)->version_num < 0x080000;
    CURLM *h = m->multi;
    bool ok = h != NULL && m->share != NULL &&
              curl_share_setopt(m->share, CURLSHOPT_SHARE, CURL_LOCK_DATA_SSL_SESSION) ==
                  CURLSHE_OK &&
              curl_multi_setopt(h, CURLMOPT_SOCKETFUNCTION, http_multi_on_socket) == CURLM_OK &&
              curl_multi_setopt(h, CURLMOPT_SOCKETDATA, m) == CURLM_OK &&
              curl_multi_setopt(h, CURLMOPT_TIMERFUNCTION, http_multi_on_timer) == CURLM_OK &&
              curl_multi_setopt(h, CURLMOPT_TIMERDATA, m) == CURLM_OK &&
              curl_multi_setopt(h, CURLMOPT_PIPELINING, (long)CURLPIPE_MULTIPLEX) == CURLM_OK &&
              curl_multi_setopt(h, CURLMOPT_MAXCONNECTS, (long)CACHED_CONNECTIONS) == CURLM_OK &&
              curl_multi_setopt(h, CURLMOPT_MAX_CONCURRENT_STREAMS, (long)o->max_streams) ==
                  CURLM_OK;
    if (ok) return m;
    http_multi_free(m);
    return NULL;
}

static void forget(char *secret)
{
    if (secret != NULL) explicit_bzero(secret, strlen(secret));
    free(secret);
}

void http_multi_free(struct http_multi *m)
{
    if (m == NULL) return;
    ASSERT(list_empty(&m->all) && !m->telling && !m->tell_planned);
    for (size_t i = 0; i < m->spares; i++) curl_easy_cleanup(m->spare[i]);
    if (m->multi != NULL) (void)curl_multi_cleanup(m->multi);
    loop_timer_clear(m->loop, &m->timer);
    if (m->share != NULL) (void)curl_share_cleanup(m->share);
    free(m->url);
    free(m->connect_text);
    free(m->resolve_text);
    free(m->ca_file);
    free(m->cert_file);
    free(m->key_file);
    free(m->proxy);
    forget(m->proxy_user);
    forget(m->proxy_password);
    free(m->proxy_ca_file);
    free(m);
}

bool http_multi_is_stuck(const struct http_multi *m)
{
    return m->held > 0 && m->http_version != CURL_HTTP_VERSION_1_1;
}

bool http_multi_is_worn(const struct http_multi *m)
{
    return m->resets >= RESETS_MAX;
}

bool http_multi_is_idle(const struct http_multi *m)
{
    return list_empty(&m->all) && !m->telling && !m->tell_planned;
}

void http_multi_resolve(struct http_multi *m, const char *entry)
{
    free(m->resolve_text);
    m->resolve_text = copy(entry);
}

void http_multi_connect_to(struct http_multi *m, const char *host_port)
{
    free(m->connect_text);
    m->connect_text = copy(host_port);
}

/* --- transfers --- */

static CURL *take_handle(struct http_multi *m)
{
    if (m->spares > 0) return m->spare[--m->spares];
    CURL *h = curl_easy_init();
    if (h == NULL || http_multi_set_once(m, h)) return h;
    curl_easy_cleanup(h);
    return NULL;
}

struct http_transfer *http_transfer_start(struct http_multi *m,
                                          const struct http_transfer_request *r,
                                          const struct http_transfer_events *ev, void *ctx)
{
    struct http_transfer *t = calloc(1, sizeof *t);
    if (t == NULL) return NULL;
    t->m = m;
    t->ev = ev;
    t->ctx = ctx;
    buf_init(&t->head, HTTP_MULTI_HEAD_MAX);
    buf_init(&t->in, IN_MAX + CURL_MAX_WRITE_SIZE);
    list_push_back(&m->all, &t->in_all);
    t->easy = take_handle(m);
    t->done = true; /* not curl's yet */
    if (t->easy == NULL) {
        list_remove(&t->in_all);
        free(t);
        return NULL;
    }
    if (!http_transfer_set(t, r) || curl_multi_add_handle(m->multi, t->easy) != CURLM_OK) {
        bury(t);
        return NULL;
    }
    t->done = false;
    return t;
}

void http_transfer_cancel(struct http_transfer *t)
{
    if (t != NULL) bury(t);
}

void http_transfer_pause(struct http_transfer *t, bool paused)
{
    struct http_multi *m = t->m;
    if (t->dead || t->paused == paused) return;
    t->paused = paused;
    if (paused) return;
    has_news(t);
    plan_telling(m);
}

bool http_transfer_is_connected(const struct http_transfer *t)
{
    return t->connected;
}

const char *http_transfer_version(const struct http_transfer *t)
{
    switch (t->version) {
    case CURL_HTTP_VERSION_1_0: return "1.0";
    case CURL_HTTP_VERSION_1_1: return "1.1";
    case CURL_HTTP_VERSION_2_0: return "2";
    default: return "";
    }
}

size_t http_transfer_memory(const struct http_transfer *t)
{
    return sizeof *t + t->body_n + t->head.cap + t->in.cap + (size_t)held_of(t);
}

unsigned http_transfer_connections(const struct http_transfer *t)
{
    long n = 0;
    if (t->easy != NULL) (void)curl_easy_getinfo(t->easy, CURLINFO_NUM_CONNECTS, &n);
    return (unsigned)n;
}
