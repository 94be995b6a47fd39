/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The load of `make bench`: one thread that keeps many connections to a proxy busy, and says what
 * that cost the proxy. Options are NAME=VALUE:
 *
 *      port, path, header="Name: value" (may be repeated)
 *      bodies=FILE       a body on each line; each request takes the next one, in a circle
 *      conns=64  seconds=2  warm=0.3
 *      rate=0            requests per second over all connections; 0: each sends when it has its
 *                        answer. Latency counts from when a request was due.
 *      length=0          bytes that each answer's body must have; 0: any
 *      pid=1,2           processes whose CPU time is reported
 *      mode=requests     answers that end
 *           streams      opens all connections over spread=500 ms, measures events
 *           hold         the same, and keeps them until stdin ends
 *           soak         rate requests per second, of which some are streams, some are left by the
 *                        client, some fail upstream
 *
 * One line of JSON at the end (of hold: when all are open). Ends with 1 when an answer was wrong.
 */
#include "load.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { BATCH = 256, REQUEST_KINDS = 5 };
enum mode { REQUESTS, STREAMS, HOLD, SOAK };
/* What one request of a soak is. */
enum kind { PLAIN, BULK, LEFT, ERROR, RESET };

struct conn {
    int fd; /* -1: not open */
    bool busy, writing;
    enum kind kind;
    const struct request *request;
    size_t sent;
    uint64_t due_ns, events_before;
    struct reader reader;
    struct conn *next_free;
};

static struct {
    unsigned port, conns;
    const char *path, *bodies;
    char headers[HEADERS_MAX];
    size_t length;
    double seconds, warm;
    uint64_t rate, spread_ms;
    enum mode mode;
    int pids[LOAD_PIDS_MAX];
    size_t pids_n;
} o = { .path = "/v1/chat/completions", .conns = 64, .seconds = 2, .warm = 0.3, .spread_ms = 500 };

static struct {
    int ep;
    struct conn *conns, *free;
    struct request *requests[REQUEST_KINDS]; /* of each kind one for each body */
    size_t bodies, next_body;
    uint64_t now, next_due, random;
    bool stopping;
    unsigned busy, open_streams;
    uint64_t done, events, wrong, broken, sent[REQUEST_KINDS];
    struct samples latency;
    char first_wrong[200];
} r = { .random = 88172645463325252u };

static void die(const char *what)
{
    perror(what);
    exit(2);
}

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void option(const char *arg)
{
    static const char *const modes[] = { "requests", "streams", "hold", "soak" };
    const char *v = strchr(arg, '=');
    if (v == NULL) v = arg + strlen(arg) - 1;
    v++;
#define IS(name) (strncmp(arg, name "=", sizeof name) == 0)
    if (IS("port"))
        o.port = (unsigned)strtoul(v, NULL, 10);
    else if (IS("path"))
        o.path = v;
    else if (IS("bodies"))
        o.bodies = v;
    else if (IS("header") && strlen(o.headers) + strlen(v) + 3 < HEADERS_MAX) {
        size_t n = strlen(o.headers);
        snprintf(o.headers + n, HEADERS_MAX - n, "%s\r\n", v);
    } else if (IS("conns"))
        o.conns = (unsigned)strtoul(v, NULL, 10);
    else if (IS("seconds"))
        o.seconds = strtod(v, NULL);
    else if (IS("warm"))
        o.warm = strtod(v, NULL);
    else if (IS("rate"))
        o.rate = strtoul(v, NULL, 10);
    else if (IS("spread"))
        o.spread_ms = strtoul(v, NULL, 10);
    else if (IS("length"))
        o.length = strtoul(v, NULL, 10);
    else if (IS("pid")) {
        for (char *end; *v != 0 && o.pids_n < LOAD_PIDS_MAX; v = *end == ',' ? end + 1 : end)
            o.pids[o.pids_n++] = (int)strtol(v, &end, 10);
    } else if (IS("mode")) {
        for (size_t i = 0; i < 4; i++)
            if (strcmp(v, modes[i]) == 0) o.mode = (enum mode)i;
    } else {
        fprintf(stderr, "load: what is %s?\n", arg);
        exit(2);
    }
#undef IS
}

static void make_requests(void)
{
    static const char *const how[REQUEST_KINDS] = { "", "x-bench: stream 200 0\r\n",
                                                    "x-bench: stream 200 20\r\n",
                                                    "x-bench: status 500\r\n",
                                                    "x-bench: reset 20\r\n" };
    for (size_t i = 0; i < REQUEST_KINDS; i++) {
        /* A soak's streams ask for one in their body; the file is of requests for whole answers. */
        struct request_form form = { .path = o.path,
                                     .headers = o.headers,
                                     .how = how[i],
                                     .stream = i == BULK || i == LEFT || i == RESET };
        r.bodies = requests_make(o.bodies, &form, &r.requests[i]);
        if (r.bodies == 0) die(o.bodies);
        if (o.mode != SOAK) break;
    }
}

static void close_conn(struct conn *c)
{
    close(c->fd);
    c->fd = -1;
    c->writing = false;
}

static void free_conn(struct conn *c)
{
    if (!c->busy) return;
    c->busy = false;
    r.busy--;
    c->next_free = r.free;
    r.free = c;
}

static void wrong(struct conn *c, const char *why)
{
    if (r.wrong++ == 0)
        snprintf(r.first_wrong, sizeof r.first_wrong,
                 "%s: status %d, %zu bytes, %" PRIu64 " events", why, c->reader.status,
                 c->reader.length, c->reader.events);
}

static void open_conn(struct conn *c)
{
    struct sockaddr_in a = { .sin_family = AF_INET,
                             .sin_port = htons((uint16_t)o.port),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    int on = 1;
    c->fd = socket(AF_INET, SOCK_STREAM, 0);
    if (c->fd < 0) die("socket");
    if (connect(c->fd, (struct sockaddr *)&a, sizeof a) != 0) die("connect");
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    fcntl(c->fd, F_SETFL, O_NONBLOCK);
    struct epoll_event ev = { .events = EPOLLIN, .data.ptr = c };
    if (epoll_ctl(r.ep, EPOLL_CTL_ADD, c->fd, &ev) != 0) die("epoll_ctl");
}

static void watch(struct conn *c, bool writing)
{
    if (c->writing == writing) return;
    struct epoll_event ev = { .events = EPOLLIN | (writing ? EPOLLOUT : 0), .data.ptr = c };
    c->writing = writing;
    epoll_ctl(r.ep, EPOLL_CTL_MOD, c->fd, &ev);
}

static void write_more(struct conn *c)
{
    while (c->sent < c->request->n) {
        ssize_t n = send(c->fd, c->request->p + c->sent, c->request->n - c->sent, MSG_NOSIGNAL);
        if (n < 0 && errno == EAGAIN) return watch(c, true);
        if (n < 0) return; /* reading tells */
        c->sent += (size_t)n;
    }
    watch(c, false);
}

static enum kind some_kind(void)
{
    if (o.mode != SOAK) return PLAIN;
    r.random ^= r.random << 13;
    r.random ^= r.random >> 7;
    r.random ^= r.random << 17;
    unsigned k = (unsigned)(r.random % 100);
    return k < 78 ? PLAIN : k < 88 ? BULK : k < 92 ? LEFT : k < 96 ? ERROR : RESET;
}

static void send_request(uint64_t due)
{
    struct conn *c = r.free;
    r.free = c->next_free;
    if (c->fd < 0) open_conn(c);
    c->busy = true;
    r.busy++;
    c->kind = some_kind();
    c->request = &r.requests[c->kind][r.next_body++];
    if (r.next_body == r.bodies) r.next_body = 0;
    c->sent = 0;
    c->due_ns = due;
    c->events_before = 0;
    reader_init(&c->reader);
    r.sent[c->kind]++;
    write_more(c);
}

/* The answer is whole, or will never be. */
static void ended(struct conn *c, bool whole)
{
    int status = c->reader.status;
    size_t length = c->reader.length;
    if (c->kind == LEFT)
        wrong(c, "a stream ended before it was left");
    else if (c->kind == RESET ? whole : !whole)
        wrong(c, whole ? "broken, but complete" : "cut off");
    else if (status != (c->kind == ERROR ? 500 : 200))
        wrong(c, "the status");
    else if (o.length > 0 && c->kind == PLAIN && length != o.length)
        wrong(c, "the length");
    if (o.mode == HOLD) r.broken++;
    r.done++;
    samples_add(&r.latency, r.now - c->due_ns);
    if (!whole || strcasestr(c->reader.head, "\r\nconnection: close") != NULL) close_conn(c);
    free_conn(c);
    if (o.rate == 0 && !r.stopping && o.mode != HOLD) send_request(r.now);
}

static void read_more(struct conn *c)
{
    static char in[256 * 1024];
    ssize_t n = recv(c->fd, in, sizeof in, 0);
    if (n < 0 && errno == EAGAIN) return;
    if (n <= 0) {
        if (c->busy)
            ended(c, false);
        else
            close_conn(c);
        return;
    }
    if (!c->busy) {
        wrong(c, "bytes that nobody asked for");
        return close_conn(c);
    }
    int got = reader_take(&c->reader, in, (size_t)n);
    if (c->events_before == 0 && c->reader.events > 0) r.open_streams++;
    r.events += c->reader.events - c->events_before;
    c->events_before = c->reader.events;
    if (got < 0) wrong(c, "not HTTP");
    if (got != 0) return ended(c, got > 0);
    if (c->kind == LEFT && c->reader.events > 0) {
        r.done++;
        close_conn(c);
        free_conn(c);
    }
}

static bool anything_due(void)
{
    return o.rate > 0 && !r.stopping && r.free != NULL && r.next_due <= r.now;
}

static void turn(uint64_t until)
{
    struct epoll_event got[BATCH];
    uint64_t end = until;
    if (o.rate > 0 && !r.stopping && r.free != NULL && r.next_due < end) end = r.next_due;
    int64_t wait = end > r.now ? (int64_t)(end - r.now) : 0;
    struct timespec t = { .tv_sec = wait / 1000000000, .tv_nsec = wait % 1000000000 };
    int n = epoll_pwait2(r.ep, got, BATCH, &t, NULL);
    r.now = now_ns();
    for (int i = 0; i < n; i++) {
        struct conn *c = got[i].data.ptr;
        if (c->writing && (got[i].events & EPOLLOUT) != 0) write_more(c);
        if (got[i].events & (EPOLLIN | EPOLLERR | EPOLLHUP)) read_more(c);
    }
    while (anything_due()) {
        send_request(r.next_due);
        r.next_due += 1000000000u / o.rate;
    }
}

static void begin(void)
{
    r.ep = epoll_create1(0);
    r.conns = calloc(o.conns, sizeof *r.conns);
    if (r.conns == NULL) die("calloc");
    for (unsigned i = 0; i < o.conns; i++) {
        r.conns[i].fd = -1;
        r.conns[i].next_free = i + 1 < o.conns ? &r.conns[i + 1] : NULL;
    }
    r.free = &r.conns[0];
    r.now = r.next_due = now_ns();
    if (o.rate > 0) return;
    uint64_t from = r.now, spread = o.mode == REQUESTS ? 0 : o.spread_ms * 1000000u;
    for (unsigned i = 0; i < o.conns; i++) {
        while (r.now < from + spread * i / o.conns) turn(from + spread * i / o.conns);
        send_request(r.now);
        r.now = now_ns();
    }
}

static void report(double seconds, uint64_t cpu)
{
    uint64_t per = o.mode == STREAMS ? r.events : r.done;
    printf("{\"seconds\":%.3f,\"done\":%" PRIu64 ",\"events\":%" PRIu64 ",\"cpu_us\":%.1f,"
           "\"us_per\":%.3f,\"per_s\":%.0f,\"p50\":%.1f,\"p99\":%.1f,\"open\":%u,\"wrong\":%" PRIu64
           ",\"why\":\"%s\",\"sent\":[%" PRIu64 ",%" PRIu64 ",%" PRIu64 ",%" PRIu64 ",%" PRIu64
           "]}\n",
           seconds, r.done, r.events, (double)cpu / 1000,
           per > 0 ? (double)cpu / 1000 / (double)per : 0, seconds > 0 ? (double)per / seconds : 0,
           samples_percentile(&r.latency, 0.5), samples_percentile(&r.latency, 0.99),
           r.open_streams, r.wrong, r.first_wrong, r.sent[PLAIN], r.sent[BULK], r.sent[LEFT],
           r.sent[ERROR], r.sent[RESET]);
    fflush(stdout);
}

static void hold(void)
{
    uint64_t end = now_ns() + 60000000000u; /* handshakes take their time */
    char c;
    while (r.open_streams < o.conns && r.now < end) turn(r.now + 100000000u);
    if (r.open_streams < o.conns) r.wrong++;
    report(0, 0);
    while (read(STDIN_FILENO, &c, 1) > 0) {
    }
    turn(now_ns());
    if (r.broken > 0) fprintf(stderr, "load: %" PRIu64 " held streams ended\n", r.broken);
}

int main(int argc, char **argv)
{
    for (int i = 1; i < argc; i++) option(argv[i]);
    if (o.port == 0 || o.bodies == NULL) {
        fprintf(stderr, "load: port and bodies are needed\n");
        return 2;
    }
    make_requests();
    begin();
    if (o.mode == HOLD) {
        hold();
        return r.wrong > 0 || r.broken > 0;
    }
    for (uint64_t end = r.now + (uint64_t)(o.warm * 1e9); r.now < end;) turn(end);
    r.done = r.events = r.latency.n = 0;
    uint64_t from = r.now, cpu = cpu_of(o.pids, o.pids_n);
    for (uint64_t end = from + (uint64_t)(o.seconds * 1e9); r.now < end;) turn(end);
    cpu = cpu_of(o.pids, o.pids_n) - cpu;
    report((double)(r.now - from) / 1e9, cpu);
    r.stopping = true; /* what was sent is waited for: whoever counts requests finds each of them */
    if (o.mode != STREAMS) {
        for (uint64_t end = r.now + 10000000000u; r.busy > 0 && r.now < end;)
            turn(r.now + 100000000u);
        if (r.busy > 0) wrong(&r.conns[0], "requests never ended");
    }
    if (r.wrong > 0) fprintf(stderr, "load: %" PRIu64 " wrong: %s\n", r.wrong, r.first_wrong);
    return r.wrong > 0;
}
