/* SPDX-License-Identifier: Apache-2.0 */
/* epoll, a binary heap of timers, an eventfd for posted tasks. One thread; see the header. */
#include "rt/loop.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/slab.h"

enum {
    MAX_EVENTS = 256,
    BATCH = 64, /* events that are handled before what was deferred is */
    MAX_POSTED = 65536
};

struct task {
    loop_fn fn;
    void *ctx;
};

struct tasks {
    struct task *items;
    size_t len, cap;
};

struct loop {
    int epoll_fd, event_fd;
    bool stop;
    const struct clock *clock;
    uint64_t now, turn;
    bool saw_all; /* what had happened when this turn began, however much */
    struct slab blocks;

    /* A slot per added descriptor: an event names slot and generation, so that one that was removed
     * is recognised. */
    struct loop_io **slots;
    uint32_t *free_slots;
    size_t slots_len, slots_cap, free_len;
    uint32_t next_generation;

    struct loop_timer **heap; /* heap[1] is the earliest */
    size_t heap_len, heap_cap;

    struct tasks deferred;

    pthread_mutex_t lock; /* guards posted and woken */
    struct tasks posted;
    bool woken;
};

static void tasks_push(struct tasks *t, loop_fn fn, void *ctx)
{
    if (t->len == t->cap) {
        t->cap = t->cap > 0 ? t->cap * 2 : 64;
        t->items = xrealloc(t->items, t->cap * sizeof *t->items);
    }
    t->items[t->len++] = (struct task){ fn, ctx };
}

struct loop *loop_new(const struct clock *clock)
{
    struct loop *l = xcalloc(1, sizeof *l);
    struct epoll_event ev = { .events = EPOLLIN, .data.u64 = 0 };
    l->clock = clock;
    l->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    l->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    ASSERT(l->epoll_fd >= 0 && l->event_fd >= 0);
    ASSERT(epoll_ctl(l->epoll_fd, EPOLL_CTL_ADD, l->event_fd, &ev) == 0);
    pthread_mutex_init(&l->lock, NULL);
    l->next_generation = 1;
    l->heap_cap = 64;
    l->heap = xcalloc(l->heap_cap, sizeof *l->heap);
    slab_init(&l->blocks, LOOP_BLOCK, LOOP_BLOCKS_RESTING);
    loop_refresh_now(l);
    return l;
}

uint64_t loop_now_ns(const struct loop *l)
{
    return l->now;
}

uint64_t loop_refresh_now(struct loop *l)
{
    return l->now = clock_mono_ns(l->clock);
}

uint64_t loop_turn(const struct loop *l)
{
    return l->turn;
}

struct slab *loop_blocks(struct loop *l)
{
    return &l->blocks;
}

/* --- descriptors --- */

static uint32_t epoll_bits(unsigned watch)
{
    return (watch & LOOP_READ ? (uint32_t)EPOLLIN : 0) |
           (watch & LOOP_WRITE ? (uint32_t)EPOLLOUT : 0) |
           (watch & LOOP_PEER_CLOSED ? (uint32_t)EPOLLRDHUP : 0) |
           (watch & LOOP_EDGE ? (uint32_t)EPOLLET : 0) |
           (watch & LOOP_EXCLUSIVE ? (uint32_t)EPOLLEXCLUSIVE : 0);
}

static uint64_t io_tag(const struct loop_io *io)
{
    return (uint64_t)io->generation << 32 | io->slot;
}

enum err loop_add(struct loop *l, struct loop_io *io, int fd, unsigned watch, loop_io_fn fn,
                  void *ctx)
{
    ASSERT(io->generation == 0);
    if (l->free_len == 0) {
        size_t cap = l->slots_cap > 0 ? l->slots_cap * 2 : 64;
        l->slots = xrealloc(l->slots, cap * sizeof *l->slots);
        l->free_slots = xrealloc(l->free_slots, cap * sizeof *l->free_slots);
        for (size_t i = cap; i-- > l->slots_cap;) {
            l->slots[i] = NULL;
            l->free_slots[l->free_len++] = (uint32_t)i;
        }
        l->slots_cap = cap;
    }
    uint32_t slot = l->free_slots[--l->free_len];
    *io = (struct loop_io){ fd, watch, fn, ctx, l->next_generation, slot, l->turn, 0 };
    if (++l->next_generation == 0) l->next_generation = 1;

    struct epoll_event ev = { .events = epoll_bits(watch), .data.u64 = io_tag(io) };
    if (epoll_ctl(l->epoll_fd, EPOLL_CTL_ADD, fd, &ev) != 0) {
        io->generation = 0;
        l->free_slots[l->free_len++] = slot;
        return ERR_IO;
    }
    l->slots[slot] = io;
    return ERR_OK;
}

void loop_watch(struct loop *l, struct loop_io *io, unsigned watch)
{
    if (io->generation == 0 || io->watch == watch) return;
    io->watch = watch;
    loop_rearm(l, io);
}

void loop_rearm(struct loop *l, struct loop_io *io)
{
    struct epoll_event ev = { .events = epoll_bits(io->watch), .data.u64 = io_tag(io) };
    io->watched_at = l->turn;
    ASSERT(epoll_ctl(l->epoll_fd, EPOLL_CTL_MOD, io->fd, &ev) == 0);
}

void loop_remove(struct loop *l, struct loop_io *io)
{
    if (io->generation == 0) return;
    (void)epoll_ctl(l->epoll_fd, EPOLL_CTL_DEL, io->fd, NULL);
    l->slots[io->slot] = NULL;
    l->free_slots[l->free_len++] = io->slot;
    io->generation = 0;
}

bool loop_is_quiet(const struct loop *l, const struct loop_io *io)
{
    return l->saw_all && io->watched_at < l->turn && io->happened_at < l->turn;
}

/* --- timers --- */

static void heap_place(struct loop *l, struct loop_timer *t, size_t i)
{
    l->heap[i] = t;
    t->place = i;
}

static void heap_up(struct loop *l, struct loop_timer *t, size_t i)
{
    for (; i > 1 && l->heap[i / 2]->at_ns > t->at_ns; i /= 2) heap_place(l, l->heap[i / 2], i);
    heap_place(l, t, i);
}

static void heap_down(struct loop *l, struct loop_timer *t, size_t i)
{
    for (size_t child; (child = i * 2) <= l->heap_len; i = child) {
        if (child < l->heap_len && l->heap[child + 1]->at_ns < l->heap[child]->at_ns) child++;
        if (l->heap[child]->at_ns >= t->at_ns) break;
        heap_place(l, l->heap[child], i);
    }
    heap_place(l, t, i);
}

void loop_timer_set(struct loop *l, struct loop_timer *t, uint64_t at_ns, loop_fn fn, void *ctx)
{
    uint64_t was = t->at_ns;
    t->at_ns = at_ns;
    t->fn = fn;
    t->ctx = ctx;
    if (t->place != 0) {
        if (at_ns < was)
            heap_up(l, t, t->place);
        else
            heap_down(l, t, t->place);
        return;
    }
    if (l->heap_len + 2 > l->heap_cap) {
        l->heap_cap *= 2;
        l->heap = xrealloc(l->heap, l->heap_cap * sizeof *l->heap);
    }
    heap_up(l, t, ++l->heap_len);
}

void loop_timer_clear(struct loop *l, struct loop_timer *t)
{
    size_t i = t->place;
    if (i == 0) return;
    t->place = 0;
    struct loop_timer *last = l->heap[l->heap_len--];
    if (last == t) return;
    if (i > 1 && l->heap[i / 2]->at_ns > last->at_ns)
        heap_up(l, last, i);
    else
        heap_down(l, last, i);
}

static void run_timers(struct loop *l)
{
    while (l->heap_len > 0 && l->heap[1]->at_ns <= l->now) {
        struct loop_timer *t = l->heap[1];
        loop_timer_clear(l, t);
        t->fn(t->ctx);
    }
}

/* --- tasks --- */

static void wake(struct loop *l)
{
    uint64_t one = 1;
    ssize_t n = write(l->event_fd, &one, sizeof one);
    (void)n; /* a full eventfd wakes as well */
}

enum err loop_post(struct loop *l, loop_fn fn, void *ctx)
{
    enum err e = ERR_OK;
    pthread_mutex_lock(&l->lock);
    bool need_wake = !l->woken;
    if (l->posted.len >= MAX_POSTED) {
        e = ERR_LIMIT;
    } else {
        tasks_push(&l->posted, fn, ctx);
        l->woken = true;
    }
    pthread_mutex_unlock(&l->lock);
    if (e == ERR_OK && need_wake) wake(l);
    return e;
}

void loop_defer(struct loop *l, loop_fn fn, void *ctx)
{
    tasks_push(&l->deferred, fn, ctx);
}

static void run_posted(struct loop *l)
{
    uint64_t count;
    struct tasks taken;
    ssize_t n = read(l->event_fd, &count, sizeof count);
    (void)n;
    pthread_mutex_lock(&l->lock);
    taken = l->posted;
    l->posted = (struct tasks){ 0 };
    l->woken = false;
    pthread_mutex_unlock(&l->lock);
    for (size_t i = 0; i < taken.len; i++) taken.items[i].fn(taken.items[i].ctx);
    free(taken.items);
}

static void run_deferred(struct loop *l)
{
    /* A deferred task may defer another, which runs in the same pass. */
    for (size_t i = 0; i < l->deferred.len; i++) {
        struct task t = l->deferred.items[i];
        t.fn(t.ctx);
    }
    l->deferred.len = 0;
}

/* --- the loop --- */

static int wait_ms(const struct loop *l)
{
    if (l->heap_len == 0) return -1;
    uint64_t at = l->heap[1]->at_ns;
    if (at <= l->now) return 0;
    uint64_t ms = (at - l->now + 999999) / 1000000;
    return ms > 60000 ? 60000 : (int)ms;
}

/* NULL: removed since, or the eventfd. */
static struct loop_io *io_of(const struct loop *l, const struct epoll_event *ev)
{
    uint32_t slot = (uint32_t)ev->data.u64, generation = (uint32_t)(ev->data.u64 >> 32);
    struct loop_io *io = generation != 0 ? l->slots[slot] : NULL;
    return io != NULL && io->generation == generation ? io : NULL;
}

/* Before any of them is handled: who handles one may ask about the others. */
static void note(struct loop *l, const struct epoll_event *events, int n)
{
    l->turn++;
    l->saw_all = n >= 0 && n < MAX_EVENTS;
    for (int i = 0; i < n; i++) {
        struct loop_io *io = io_of(l, &events[i]);
        if (io != NULL) io->happened_at = l->turn;
    }
}

static void dispatch(struct loop *l, const struct epoll_event *ev)
{
    if (ev->data.u64 == 0) {
        run_posted(l);
        return;
    }
    struct loop_io *io = io_of(l, ev);
    if (io == NULL) return; /* removed earlier in this turn */
    unsigned happened = (ev->events & EPOLLIN ? LOOP_READ : 0) |
                        (ev->events & EPOLLOUT ? LOOP_WRITE : 0) |
                        (ev->events & EPOLLHUP ? LOOP_HANGUP : 0) |
                        (ev->events & EPOLLERR ? LOOP_ERROR : 0) |
                        (ev->events & EPOLLRDHUP ? LOOP_PEER_CLOSED : 0);
    io->fn(io->ctx, happened);
}

void loop_run(struct loop *l)
{
    struct epoll_event events[MAX_EVENTS];
    loop_refresh_now(l);
    while (!__atomic_load_n(&l->stop, __ATOMIC_RELAXED)) {
        int n = epoll_wait(l->epoll_fd, events, MAX_EVENTS, wait_ms(l));
        ASSERT(n >= 0 || errno == EINTR);
        loop_refresh_now(l);
        note(l, events, n);
        for (int i = 0; i < n; i++) {
            dispatch(l, &events[i]);
            if (i % BATCH == BATCH - 1) run_deferred(l);
        }
        run_timers(l);
        run_deferred(l);
    }
}

void loop_stop(struct loop *l)
{
    __atomic_store_n(&l->stop, true, __ATOMIC_RELAXED);
    wake(l);
}

void loop_free(struct loop *l)
{
    if (l == NULL) return;
    run_deferred(l); /* mostly memory that waits to be freed */
    close(l->epoll_fd);
    close(l->event_fd);
    pthread_mutex_destroy(&l->lock);
    free(l->slots);
    free(l->free_slots);
    free(l->heap);
    free(l->posted.items);
    free(l->deferred.items);
    slab_done(&l->blocks);
    free(l);
}
