/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What stands behind the proxies in `make bench`: a server that does as little as it can, so that
 * the proxy is what is measured. One thread. Answers any POST as the header x-bench asks:
 *
 *      (none)            a whole answer: the next line of the file ANSWERS, in a circle
 *      stream N MS       N events of 200 bytes, MS ms apart; 0: all of them at once
 *      idle              one event, and then nothing until the client goes
 *      status S          an error with this status
 *      reset N           N events at once, then a reset
 *
 * What events say are the lines of the file WORDS in turn, strings of JSON without their quotes.
 * Streams begin at several places there. All bytes are made before the first request comes.
 * GET /stats tells how many requests it answered. Usage: upstream PORT ANSWERS WORDS
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum {
    HEAD_MAX = 16 * 1024,
    EVENT_BYTES = 200,
    EVENTS_MAX = 1000, /* that come at once */
    STREAMS = 16,      /* that differ */
    WHEEL = 4096,      /* slots of a millisecond */
    BATCH = 256
};

struct conn {
    int fd;
    char head[HEAD_MAX];
    size_t head_n, body_left;
    const char *out; /* static memory */
    size_t out_n;
    bool writable_wanted, reset_after;
    /* a stream */
    unsigned left, every_ms;
    size_t next_event;
    struct conn *next, **prev; /* in a slot of the wheel */
};

struct text {
    char *p;
    size_t n;
};

static struct {
    int ep;
    struct text *answers, *events; /* an event: a chunk */
    size_t answers_n, events_n, next_answer, next_stream;
    struct conn *wheel[WHEEL];
    uint64_t now_ms, done_ms, requests, gone;
    char reply[512];
} s;

static const size_t chunk_bytes = sizeof "c8\r\n" - 1 + EVENT_BYTES + 2;
static const char stream_end[] = "e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n";
static const char stream_head[] =
    "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";

static void die(const char *what)
{
    perror(what);
    exit(1);
}

static uint64_t clock_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

/* A text of each line of a file. */
static size_t read_lines(const char *file, struct text make(const char *p, size_t n),
                         struct text **ret)
{
    FILE *f = fopen(file, "r");
    if (f == NULL) die(file);
    char *line = NULL;
    size_t line_cap = 0, n = 0, cap = 0;
    for (ssize_t got; (got = getline(&line, &line_cap, f)) > 0;) {
        if (n == cap) {
            cap = cap > 0 ? cap * 2 : 64;
            *ret = realloc(*ret, cap * sizeof **ret);
            if (*ret == NULL) die("realloc");
        }
        (*ret)[n++] = make(line, (size_t)got - (line[got - 1] == '\n'));
    }
    free(line);
    fclose(f);
    if (n == 0) die(file);
    return n;
}

static struct text make_answer(const char *body, size_t n)
{
    char *p;
    int all = asprintf(&p,
                       "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
                       "Content-Length: %zu\r\n\r\n%.*s",
                       n, (int)n, body);
    if (all < 0) die("asprintf");
    return (struct text){ p, (size_t)all };
}

static struct text make_event(const char *word, size_t n)
{
    static const char before[] =
        "data: {\"id\":\"c-bench\",\"object\":\"chat.completion.chunk\","
        "\"created\":1700000000,\"model\":\"Qwen3-8B\",\"choices\":[{\"index\":0,"
        "\"delta\":{\"content\":\"";
    static const char after[] = "\"},\"finish_reason\":null}],\"fp\":\"", end[] = "\"}\n\n";
    size_t have = sizeof before - 1 + n + sizeof after - 1 + sizeof end - 1;
    if (have > EVENT_BYTES) {
        fprintf(stderr, "upstream: a long word: %.*s\n", (int)n, word);
        exit(2);
    }
    char *p;
    int all = asprintf(&p, "%x\r\n%s%.*s%s%.*s%s\r\n", EVENT_BYTES, before, (int)n, word, after,
                       (int)(EVENT_BYTES - have),
                       "--------------------------------------------------------", end);
    if (all < 0) die("asprintf");
    return (struct text){ p, (size_t)all };
}

static void unlink_timer(struct conn *c)
{
    if (c->prev == NULL) return;
    *c->prev = c->next;
    if (c->next != NULL) c->next->prev = c->prev;
    c->prev = NULL;
}

static void set_timer(struct conn *c, uint64_t at_ms)
{
    struct conn **slot = &s.wheel[at_ms % WHEEL];
    c->next = *slot;
    c->prev = slot;
    if (c->next != NULL) c->next->prev = &c->next;
    *slot = c;
}

static void hang_up(struct conn *c, bool reset)
{
    if (c->left > 0 || c->out_n > 0) s.gone++;
    unlink_timer(c);
    if (reset) {
        struct linger l = { .l_onoff = 1, .l_linger = 0 };
        setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &l, sizeof l);
    }
    close(c->fd);
    c->fd = -1;
    free(c);
}

static void watch(struct conn *c, bool write)
{
    if (c->writable_wanted == write) return;
    struct epoll_event ev = { .events = EPOLLIN | (write ? EPOLLOUT : 0), .data.ptr = c };
    c->writable_wanted = write;
    epoll_ctl(s.ep, EPOLL_CTL_MOD, c->fd, &ev);
}

/* False: the connection is gone. */
static bool flush(struct conn *c)
{
    while (c->out_n > 0) {
        ssize_t n = send(c->fd, c->out, c->out_n, MSG_NOSIGNAL);
        if (n < 0 && errno == EAGAIN) {
            watch(c, true);
            return true;
        }
        if (n < 0) {
            hang_up(c, false);
            return false;
        }
        c->out += n;
        c->out_n -= (size_t)n;
    }
    watch(c, false);
    if (c->reset_after) {
        hang_up(c, true);
        return false;
    }
    return true;
}

/* A stream's place among the events. */
static size_t first_event(size_t stream)
{
    return stream % STREAMS * (s.events_n / STREAMS);
}

/* A stream with all of its events; STREAMS of them are kept for each length that is asked for. */
static const char *bulk_of(unsigned events, bool whole, size_t stream, size_t *ret_n)
{
    static struct {
        unsigned events;
        bool whole;
        char *p;
        size_t n;
    } made[16];
    size_t i = 0;
    while (i < 15 && made[i].p != NULL && (made[i].events != events || made[i].whole != whole)) i++;
    if (made[i].p == NULL || made[i].events != events || made[i].whole != whole) {
        size_t end_n = whole ? sizeof stream_end - 1 : 0;
        size_t n = sizeof stream_head - 1 + events * chunk_bytes + end_n;
        char *p = malloc(n * STREAMS);
        if (p == NULL) die("malloc");
        made[i].events = events;
        made[i].whole = whole;
        made[i].p = p;
        made[i].n = n;
        for (size_t k = 0; k < STREAMS; k++) {
            p = mempcpy(p, stream_head, sizeof stream_head - 1);
            for (size_t e = 0; e < events; e++)
                p = mempcpy(p, s.events[(first_event(k) + e) % s.events_n].p, chunk_bytes);
            p = mempcpy(p, stream_end, end_n);
        }
    }
    *ret_n = made[i].n;
    return made[i].p + stream % STREAMS * made[i].n;
}

static bool answer(struct conn *c)
{
    unsigned a = 0, b = 0;
    c->head[c->head_n] = 0;
    if (strncmp(c->head, "GET ", 4) == 0) {
        char body[200];
        int n = snprintf(body, sizeof body, "{\"requests\":%" PRIu64 ",\"gone\":%" PRIu64 "}\n",
                         s.requests, s.gone);
        c->out_n = (size_t)snprintf(s.reply, sizeof s.reply,
                                    "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", n, body);
        c->out = s.reply;
        return flush(c);
    }
    s.requests++;
    const char *how = strcasestr(c->head, "\r\nx-bench: ");
    how = how != NULL ? how + 11 : "";
    if (sscanf(how, "stream %u %u", &a, &b) == 2 && a > 0 && a <= EVENTS_MAX * 1000u &&
        (b > 0 || a <= EVENTS_MAX) && b < WHEEL) {
        if (b == 0) {
            c->out = bulk_of(a, true, s.next_stream++, &c->out_n);
            return flush(c);
        }
        c->left = a - 1;
        c->every_ms = b;
        c->next_event = first_event(s.next_stream) + 1;
        c->out = bulk_of(1, false, s.next_stream++, &c->out_n);
        set_timer(c, s.now_ms + b);
    } else if (strncmp(how, "idle", 4) == 0) {
        c->out = bulk_of(1, false, s.next_stream++, &c->out_n);
        c->left = 1;
    } else if (sscanf(how, "status %u", &a) == 1) {
        static const char error[] =
            "{\"error\":{\"message\":\"as asked\",\"type\":\"server_error\"}}";
        c->out_n = (size_t)snprintf(s.reply, sizeof s.reply,
                                    "HTTP/1.1 %u As Asked\r\nContent-Type: application/json\r\n"
                                    "Content-Length: %zu\r\n\r\n%s",
                                    a, sizeof error - 1, error);
        c->out = s.reply;
    } else if (sscanf(how, "reset %u", &a) == 1 && a <= EVENTS_MAX) {
        c->out = bulk_of(a, false, s.next_stream++, &c->out_n);
        c->reset_after = true;
    } else {
        c->out = s.answers[s.next_answer].p;
        c->out_n = s.answers[s.next_answer].n;
        if (++s.next_answer == s.answers_n) s.next_answer = 0;
    }
    return flush(c);
}

static void take(struct conn *c, const char *p, size_t n)
{
    while (n > 0) {
        if (c->body_left > 0) {
            size_t k = n < c->body_left ? n : c->body_left;
            p += k;
            n -= k;
            c->body_left -= k;
            if (c->body_left > 0) return;
        } else {
            size_t before = c->head_n, k = n < HEAD_MAX - 1 - before ? n : HEAD_MAX - 1 - before;
            if (k == 0) return hang_up(c, false);
            memcpy(c->head + before, p, k);
            size_t from = before > 3 ? before - 3 : 0;
            char *end = memmem(c->head + from, before + k - from, "\r\n\r\n", 4);
            c->head_n += k;
            if (end == NULL) return;
            size_t used = (size_t)(end + 4 - c->head) - before;
            p += used;
            n -= used;
            c->head_n = before + used;
            c->head[c->head_n] = 0;
            const char *length = strcasestr(c->head, "\r\ncontent-length:");
            c->body_left = length != NULL ? strtoul(length + 17, NULL, 10) : 0;
            if (c->body_left > 0) continue;
        }
        if (!answer(c)) return;
        c->head_n = 0;
    }
}

static void readable(struct conn *c)
{
    static char in[256 * 1024];
    ssize_t n = recv(c->fd, in, sizeof in, 0);
    if (n > 0) return take(c, in, (size_t)n);
    if (n < 0 && errno == EAGAIN) return;
    hang_up(c, false);
}

static void tick(void)
{
    for (; s.done_ms < s.now_ms; s.done_ms++) {
        struct conn *next;
        for (struct conn *c = s.wheel[(s.done_ms + 1) % WHEEL]; c != NULL; c = next) {
            next = c->next;
            unlink_timer(c);
            set_timer(c, s.done_ms + 1 + c->every_ms);
            if (c->out_n > 0) continue; /* slow: this one is left out */
            if (c->left == 0) {
                unlink_timer(c);
                c->out = stream_end;
                c->out_n = sizeof stream_end - 1;
            } else {
                c->left--;
                c->out = s.events[c->next_event++ % s.events_n].p;
                c->out_n = chunk_bytes;
            }
            flush(c);
        }
    }
}

static void new_clients(int listener)
{
    for (;;) {
        int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK), on = 1;
        if (fd < 0) return;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        struct conn *c = calloc(1, sizeof *c);
        if (c == NULL) die("calloc");
        c->fd = fd;
        struct epoll_event ev = { .events = EPOLLIN, .data.ptr = c };
        if (epoll_ctl(s.ep, EPOLL_CTL_ADD, fd, &ev) != 0) die("epoll_ctl");
    }
}

int main(int argc, char **argv)
{
    if (argc != 4) {
        fprintf(stderr, "usage: upstream PORT ANSWERS WORDS\n");
        return 2;
    }
    struct sockaddr_in a = { .sin_family = AF_INET,
                             .sin_port = htons((uint16_t)strtoul(argv[1], NULL, 10)),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), on = 1;
    s.answers_n = read_lines(argv[2], make_answer, &s.answers);
    s.events_n = read_lines(argv[3], make_event, &s.events);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(listener, (struct sockaddr *)&a, sizeof a) != 0) die("bind");
    if (listen(listener, 4096) != 0) die("listen");
    s.ep = epoll_create1(0);
    struct epoll_event ev = { .events = EPOLLIN, .data.ptr = NULL }, got[BATCH];
    if (epoll_ctl(s.ep, EPOLL_CTL_ADD, listener, &ev) != 0) die("epoll_ctl");
    s.now_ms = s.done_ms = clock_ms();
    uint64_t timers_until = 0;
    for (;;) {
        int n = epoll_wait(s.ep, got, BATCH, s.now_ms < timers_until ? 1 : 100);
        s.now_ms = clock_ms();
        bool streams = false;
        for (int i = 0; i < n; i++) {
            struct conn *c = got[i].data.ptr;
            if (c == NULL)
                new_clients(listener);
            else if (c->out_n > 0 && (got[i].events & EPOLLOUT) != 0)
                flush(c);
            else
                readable(c);
            streams = true;
        }
        tick();
        if (streams) timers_until = s.now_ms + WHEEL;
        for (size_t i = 0; i < WHEEL && s.now_ms >= timers_until; i++)
            if (s.wheel[i] != NULL) timers_until = s.now_ms + WHEEL;
    }
}
