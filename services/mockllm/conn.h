/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One client connection of the mock: reading a request, answering it at its pace, and noticing when
 * the client leaves. Belongs to its worker's thread.
 *
 *   READING --request--> WAITING --time--> SENDING --all sent--> READING, LINGER or the end
 *                   \--> STREAMING --last event--> SENDING
 *                    \-> HANGING --client leaves--> the end
 */
#ifndef CONN_H
#define CONN_H

#include <pthread.h>
#include <stdatomic.h>

#include "answer.h"
#include "base/list.h"
#include "http/chunked.h"
#include "server.h"
#include "shaper.h"

enum { BEHAVIOUR_MAX = 1024, IN_MAX = 256 << 20 };

struct server {
    struct server_options options;
    char *bind, *api_key, *models;
    int listen_fd;
    uint16_t port;
    struct store *store;
    struct counter counter;
    _Atomic bool draining;
    pthread_mutex_t lock; /* guards behaviour */
    char behaviour[BEHAVIOUR_MAX];
    struct worker *workers;
};

struct worker {
    struct server *server;
    struct loop *loop;
    pthread_t thread;
    struct loop_io listen_io;
    struct list_node conns;
    struct h1_request request; /* of the connection being handled */
    struct buf body;           /* an answer being made */
    char chunk[64 * 1024];     /* bytes being read */
};

enum conn_state {
    CONN_READING,
    CONN_WAITING,
    CONN_STREAMING,
    CONN_SENDING,
    CONN_HANGING,
    CONN_LINGER, /* our side is shut down; what still comes is thrown away */
    CONN_DEAD,
};
enum after { AFTER_NEXT, AFTER_CLOSE, AFTER_RESET, AFTER_HANG };

struct conn {
    struct list_node node;
    struct worker *worker;
    struct loop_io io;
    struct loop_timer timer;
    uint64_t number;
    enum conn_state state;
    enum after after; /* what to do when all is sent */

    /* The request being read. Its head begins at in.data[0]. */
    struct buf in, body; /* body: of chunked requests, decoded */
    size_t scan_from, head_len, body_at;
    bool start_checked, head_done;
    enum h1_framing framing;
    uint64_t content_length;
    struct chunked chunked;

    /* The answer. */
    struct buf out, event;
    struct behave behave;
    struct answer answer;
    struct shaper shaper;
    bool has_answer, has_shaper, head_sent, keep_alive, paused;
    size_t slow_left; /* bytes of the head that go out one by one */
    uint64_t began_ns, serial;
    enum api api;

    /* For the store. */
    bool counted;
    struct ending ending;
    char model[96], user[96];
};

/* conn.c */
void conn_open(struct worker *w, int fd);
/* Ends it at once; how: for an answer that was going on. */
void conn_drop(struct conn *c, enum ended how);
/* Sends what is in out and goes on with what follows. */
void conn_pump(struct conn *c);
/* The clock of the loop, in ns. */
static inline uint64_t conn_now(const struct conn *c)
{
    return loop_now_ns(c->worker->loop);
}
/* Waits until that time, then pumps. */
void conn_wait(struct conn *c, uint64_t at_ns);

/* respond.c: a request is complete: begin to answer. On return the state is no longer READING. */
void respond(struct conn *c, const struct h1_request *r, struct str body);
/* The head is complete: faults that do not wait for the body. True when there was one. */
bool respond_early(struct conn *c, const struct h1_request *r);
/* An answer with a body of our own, whose sending ends with `after`. */
void respond_simple(struct conn *c, int status, const char *content_type, struct str body,
                    const struct behave *b, enum after after);
/* The time of a whole answer came. */
void respond_whole(struct conn *c);
/* Appends what is due of a stream to out. ERR_AGAIN: wait until *ret_at; ERR_CLOSED: all of it is
 * in out, c->after says what follows. */
enum err respond_stream(struct conn *c, uint64_t *ret_at) MUSTCHECK;
/* Notes in the store how the answer ended; harmless when there is none, or twice. */
void respond_ended(struct conn *c, enum ended how);

/* admin.c: /mock/…, true when the path is one of these. */
bool admin_respond(struct conn *c, const struct h1_request *r, struct str body);

#endif
