/* SPDX-License-Identifier: Apache-2.0 */
#include "resolve.h"

#include <netdb.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/map.h"

enum {
    REFRESH_S = 30,
    RETRY_S = 2,          /* while a name has no address at all */
    USE_BUDGET_MS = 3000, /* that a new configuration waits for look-ups */
    MAX_ADDRESSES = 8,
    MAX_HOSTS = 65536
};

struct host {
    struct sockaddr_storage addr[MAX_ADDRESSES];
    socklen_t len[MAX_ADDRESSES];
    size_t n;
    bool wanted;
};

struct resolver {
    pthread_t thread;
    pthread_mutex_t lock; /* guards hosts and stop; not held during a look-up */
    pthread_cond_t wake;
    struct map hosts; /* name -> struct host; the port is filled in by resolver_get() */
    bool stop, asked; /* asked: to look names up without waiting */
};

static bool is_over(const struct timespec *t)
{
    struct timespec now = clock_in_ms(0);
    return now.tv_sec > t->tv_sec || (now.tv_sec == t->tv_sec && now.tv_nsec >= t->tv_nsec);
}

static void look_up(const char *name, struct host *h)
{
    struct addrinfo hints = { .ai_socktype = SOCK_STREAM, .ai_flags = AI_ADDRCONFIG }, *list = NULL;
    if (getaddrinfo(name, NULL, &hints, &list) != 0) return; /* keep what is there */
    h->n = 0;
    for (struct addrinfo *a = list; a != NULL && h->n < MAX_ADDRESSES; a = a->ai_next) {
        if (a->ai_family != AF_INET && a->ai_family != AF_INET6) continue;
        memcpy(&h->addr[h->n], a->ai_addr, a->ai_addrlen);
        h->len[h->n++] = a->ai_addrlen;
    }
    freeaddrinfo(list);
}

/* Looks a host up without the lock and stores the result. */
static void refresh(struct resolver *r, const char *name)
{
    struct host fresh = { 0 };
    look_up(name, &fresh);
    pthread_mutex_lock(&r->lock);
    struct host *h = map_get(&r->hosts, str_of(name));
    if (h != NULL && fresh.n > 0) {
        fresh.wanted = h->wanted;
        *h = fresh;
    }
    pthread_mutex_unlock(&r->lock);
}

/* The next name that is to be looked up: any, or one without an address. NULL: none, or the end. */
static char *next_name(struct resolver *r, size_t *i, bool all)
{
    struct map_entry *e;
    char *name = NULL;
    pthread_mutex_lock(&r->lock);
    while (!r->stop && name == NULL && (e = map_next(&r->hosts, i)) != NULL) {
        const struct host *h = e->value;
        if (all || h->n == 0) name = str_dupz(e->key);
    }
    pthread_mutex_unlock(&r->lock);
    return name;
}

/* With the lock. */
static bool any_missing(const struct resolver *r)
{
    struct map_entry *e;
    size_t i = 0;
    while ((e = map_next(&r->hosts, &i)) != NULL)
        if (((const struct host *)e->value)->n == 0) return true;
    return false;
}

static void *refresher(void *ctx)
{
    struct resolver *r = ctx;
    struct timespec all_at = clock_in_ms(REFRESH_S * 1000);
    pthread_mutex_lock(&r->lock);
    while (!r->stop) {
        struct timespec soon = clock_in_ms(RETRY_S * 1000);
        const struct timespec *until = any_missing(r) ? &soon : &all_at;
        int e = 0;
        while (!r->stop && !r->asked && e == 0)
            e = pthread_cond_timedwait(&r->wake, &r->lock, until);
        r->asked = false;
        pthread_mutex_unlock(&r->lock);
        bool all = is_over(&all_at);
        size_t i = 0;
        for (char *name; (name = next_name(r, &i, all)) != NULL; free(name)) refresh(r, name);
        if (all) all_at = clock_in_ms(REFRESH_S * 1000);
        pthread_mutex_lock(&r->lock);
    }
    pthread_mutex_unlock(&r->lock);
    return NULL;
}

struct resolver *resolver_new(void)
{
    struct resolver *r = xcalloc(1, sizeof *r);
    pthread_condattr_t attr;
    map_init(&r->hosts, MAX_HOSTS);
    pthread_mutex_init(&r->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&r->wake, &attr);
    pthread_condattr_destroy(&attr);
    ASSERT(pthread_create(&r->thread, NULL, refresher, r) == 0);
    return r;
}

void resolver_free(struct resolver *r)
{
    size_t i = 0;
    struct map_entry *e;
    if (r == NULL) return;
    pthread_mutex_lock(&r->lock);
    r->stop = true;
    pthread_cond_signal(&r->wake);
    pthread_mutex_unlock(&r->lock);
    pthread_join(r->thread, NULL);
    while ((e = map_next(&r->hosts, &i)) != NULL) free(e->value);
    map_done(&r->hosts);
    pthread_cond_destroy(&r->wake);
    pthread_mutex_destroy(&r->lock);
    free(r);
}

static bool want(struct resolver *r, struct str host)
{
    bool is_new = false;
    pthread_mutex_lock(&r->lock);
    struct host *h = map_get(&r->hosts, host);
    if (h == NULL) {
        h = xcalloc(1, sizeof *h);
        if (map_put(&r->hosts, host, h, NULL) != ERR_OK) {
            free(h);
            h = NULL;
        } else {
            is_new = true;
        }
    }
    if (h != NULL) h->wanted = true;
    pthread_mutex_unlock(&r->lock);
    return is_new;
}

/* Looked up at once as long as there is time for it; else soon, on the resolver's thread. */
static void use_host(struct resolver *r, struct str host, const struct timespec *until)
{
    if (!want(r, host)) return;
    if (is_over(until)) {
        pthread_mutex_lock(&r->lock);
        r->asked = true;
        pthread_cond_signal(&r->wake);
        pthread_mutex_unlock(&r->lock);
        return;
    }
    char *name = str_dupz(host);
    refresh(r, name);
    free(name);
}

void resolver_use(struct resolver *r, const struct snapshot *s)
{
    struct map_entry *e;
    size_t i = 0;
    const struct timespec until = clock_in_ms(USE_BUDGET_MS);
    pthread_mutex_lock(&r->lock);
    while ((e = map_next(&r->hosts, &i)) != NULL) ((struct host *)e->value)->wanted = false;
    pthread_mutex_unlock(&r->lock);
    for (size_t u = 0; u < s->upstreams_n; u++) {
        const struct snap_upstream *up = &s->upstreams[u];
        if (up->proxy.kind != SNAP_PROXY_NONE) {
            use_host(r, up->proxy.host, &until); /* which looks up its servers itself */
            continue;
        }
        for (size_t k = 0; k < up->servers_n; k++) use_host(r, up->servers[k].host, &until);
    }
    i = 0;
    pthread_mutex_lock(&r->lock);
    while ((e = map_next(&r->hosts, &i)) != NULL) {
        struct host *h = e->value;
        if (h->wanted) continue;
        (void)map_remove(&r->hosts, e->key);
        free(h);
    }
    pthread_mutex_unlock(&r->lock);
}

enum err resolver_get(struct resolver *r, const struct snap_server *server, unsigned turn,
                      struct sockaddr_storage *ret, socklen_t *ret_len)
{
    enum err e = ERR_NOT_FOUND;
    pthread_mutex_lock(&r->lock);
    const struct host *h = map_get(&r->hosts, server->host);
    if (h != NULL && h->n > 0) {
        *ret = h->addr[turn % h->n];
        *ret_len = h->len[turn % h->n];
        e = ERR_OK;
    }
    pthread_mutex_unlock(&r->lock);
    if (e != ERR_OK) return e;
    if (ret->ss_family == AF_INET)
        ((struct sockaddr_in *)(void *)ret)->sin_port = htons(server->port);
    else
        ((struct sockaddr_in6 *)(void *)ret)->sin6_port = htons(server->port);
    return ERR_OK;
}
