/* SPDX-License-Identifier: Apache-2.0 */
/* What is sent in parts arrives as one, in whatever portions the socket takes it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "services/edge/net/conn.h"

enum { WAITS_MAX = 8 << 20, SMALL = 4096 };

struct pair {
    struct loop *loop;
    struct conn conn;
    int peer;
    struct loop_timer timer;
    struct buf got;
    size_t want; /* bytes; the loop stops when they are there */
    unsigned drained, broken, flushed;
};

static void on_event(void *ctx, enum conn_event ev)
{
    struct pair *p = ctx;
    if (ev == CONN_DRAINED) p->drained++;
    if (ev == CONN_FLUSHED) p->flushed++;
    if (ev != CONN_BROKEN) return;
    p->broken++;
    conn_close(&p->conn, true);
    loop_stop(p->loop);
}

/* A peer that takes a little now and then. */
static void take_some(void *ctx)
{
    struct pair *p = ctx;
    char *at;
    assert_int_equal(buf_reserve(&p->got, 1 << 16, &at), ERR_OK);
    ssize_t n = recv(p->peer, at, 1 << 16, MSG_DONTWAIT);
    if (n > 0) p->got.len += (size_t)n;
    if (p->got.len >= p->want && conn_waiting(&p->conn) == 0) {
        loop_stop(p->loop);
        return;
    }
    loop_timer_set(p->loop, &p->timer, loop_now_ns(p->loop) + 100000, take_some, p);
}

static void open_pair(struct pair *p)
{
    int fds[2], small = SMALL;
    *p = (struct pair){ .loop = loop_new(clock_system()) };
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds), 0);
    (void)setsockopt(fds[0], SOL_SOCKET, SO_SNDBUF, &small, sizeof small);
    p->peer = fds[1];
    buf_init(&p->got, WAITS_MAX);
    assert_int_equal(conn_open(&p->conn, p->loop, fds[0], WAITS_MAX, on_event, p), ERR_OK);
}

static void close_pair(struct pair *p)
{
    conn_close(&p->conn, false);
    if (p->peer >= 0) close(p->peer);
    buf_done(&p->got);
    loop_free(p->loop);
}

static void sends_parts_of_any_size(void **state)
{
    static const size_t sizes[][3] = { { 10, 20, 0 },      { 0, 0, 0 },
                                       { 100, 500000, 7 }, { 300000, 1, 300000 },
                                       { 0, 9000, 0 },     { SMALL, SMALL, SMALL } };
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
        struct pair p;
        struct buf all;
        struct str parts[3];
        size_t at = 0;
        open_pair(&p);
        buf_init(&all, WAITS_MAX);
        for (size_t k = 0; k < sizes[i][0] + sizes[i][1] + sizes[i][2]; k++)
            assert_int_equal(buf_append_char(&all, (char)(k * 7 + k / 251)), ERR_OK);
        for (size_t k = 0; k < 3; at += sizes[i][k++])
            parts[k] = str_n(all.data != NULL ? all.data + at : "", sizes[i][k]);
        /* Twice: the second one comes behind what waits of the first. */
        assert_int_equal(conn_send(&p.conn, parts, 3), ERR_OK);
        assert_int_equal(conn_send(&p.conn, parts, 3), ERR_OK);
        p.want = 2 * all.len;
        bool waits = conn_waiting(&p.conn) > 0;
        take_some(&p);
        loop_run(p.loop);
        assert_int_equal(p.got.len, 2 * all.len);
        if (all.len > 0) {
            assert_memory_equal(p.got.data, all.data, all.len);
            assert_memory_equal(p.got.data + all.len, all.data, all.len);
        }
        assert_int_equal(p.conn.sent, 2 * all.len);
        assert_int_equal(p.drained > 0, waits);
        buf_done(&all);
        close_pair(&p);
    }
}

static void what_waits_is_bounded(void **state)
{
    struct pair p;
    char *much = calloc(1, WAITS_MAX);
    (void)state;
    assert_non_null(much);
    open_pair(&p);
    struct str parts[] = { str_n(much, WAITS_MAX), str_n(much, WAITS_MAX) };
    assert_int_equal(conn_send(&p.conn, parts, 2), ERR_LIMIT);
    close_pair(&p);
    free(much);
}

static void a_peer_that_is_gone_is_an_error(void **state)
{
    struct pair p;
    (void)state;
    open_pair(&p);
    close(p.peer);
    p.peer = -1;
    struct str parts[] = { STR("a"), STR("b") };
    assert_int_equal(conn_send(&p.conn, parts, 2), ERR_IO);
    close_pair(&p);
}

static void stop(void *ctx)
{
    loop_stop(((struct pair *)ctx)->loop);
}

/* One turn of the loop: what was deferred is done at its end. */
static void turn(struct pair *p)
{
    loop_timer_set(p->loop, &p->timer, loop_now_ns(p->loop), stop, p);
    loop_run(p->loop);
}

/* What the peer can read now, as text; "end" when nothing more will come, "none" when nothing is
 * there yet. */
static const char *peer_has(struct pair *p, char text[64])
{
    ssize_t n = recv(p->peer, text, 63, MSG_DONTWAIT);
    if (n <= 0) return n == 0 ? "end" : "none";
    text[n] = 0;
    return text;
}

static void what_is_to_go_soon_goes_at_the_turns_end_as_one(void **state)
{
    struct pair p;
    char text[64];
    (void)state;
    open_pair(&p);
    assert_int_equal(conn_write(&p.conn, STR("one ")), ERR_OK);
    conn_flush_soon(&p.conn);
    assert_int_equal(conn_write(&p.conn, STR("two")), ERR_OK);
    conn_flush_soon(&p.conn);
    assert_string_equal(peer_has(&p, text), "none");
    turn(&p);
    assert_string_equal(peer_has(&p, text), "one two");
    assert_int_equal(p.flushed, 1);
    turn(&p);
    assert_int_equal(p.flushed, 1);
    close_pair(&p);
}

static void what_was_to_go_soon_goes_before_an_orderly_end(void **state)
{
    enum { CLOSED, CLOSED_BY_RESET, OUTPUT_ENDED, WAYS };
    static const char *const seen[] = { "last", "end", "last" };
    (void)state;
    for (int way = 0; way < WAYS; way++) {
        struct pair p;
        char text[64];
        open_pair(&p);
        assert_int_equal(conn_write(&p.conn, STR("last")), ERR_OK);
        conn_flush_soon(&p.conn);
        if (way == OUTPUT_ENDED)
            conn_end_output(&p.conn);
        else
            conn_close(&p.conn, way == CLOSED_BY_RESET);
        assert_string_equal(peer_has(&p, text), seen[way]);
        assert_string_equal(peer_has(&p, text), "end");
        turn(&p);
        assert_int_equal(p.flushed, way == OUTPUT_ENDED);
        assert_int_equal(p.broken, 0);
        close_pair(&p);
    }
}

static void a_peer_that_is_gone_is_told_when_it_is_sent_to(void **state)
{
    struct pair p;
    (void)state;
    open_pair(&p);
    close(p.peer);
    p.peer = -1;
    assert_int_equal(conn_write(&p.conn, STR("a")), ERR_OK);
    conn_flush_soon(&p.conn);
    assert_int_equal(p.broken, 0);
    turn(&p);
    assert_int_equal(p.broken, 1);
    assert_int_equal(p.flushed, 0);
    close_pair(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sends_parts_of_any_size),
        cmocka_unit_test(what_waits_is_bounded),
        cmocka_unit_test(a_peer_that_is_gone_is_an_error),
        cmocka_unit_test(what_is_to_go_soon_goes_at_the_turns_end_as_one),
        cmocka_unit_test(what_was_to_go_soon_goes_before_an_orderly_end),
        cmocka_unit_test(a_peer_that_is_gone_is_told_when_it_is_sent_to),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
