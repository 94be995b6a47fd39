/* SPDX-License-Identifier: Apache-2.0 */
/* Connections to upstream servers between requests. On their loop's thread. */
#include <stdio.h>
#include <stdlib.h>

#include "resolve.h"
#include "rt/tls.h"
#include "upstream_impl.h"

enum { IDLE_PER_SERVER = 256 };
static const uint64_t idle_ns = 30000000000u, forget_ns = 600000000000u;

struct pools *pools_new(const struct pools_options *o)
{
    struct pools *p = xcalloc(1, sizeof *p);
    p->o = *o;
    map_init(&p->by_server, SIZE_MAX / 64); /* as many as configurations have */
    p->curl = curl_links_new(o);
    return p;
}

static void settle_fresh(struct pool *p)
{
    list_splice_front(&p->idle, &p->fresh);
}

static void drop_idle(struct pool *p)
{
    settle_fresh(p);
    while (!list_empty(&p->idle))
        exchange_bury(LIST_ENTRY(p->idle.next, struct exchange, node), false);
}

static void pool_free(struct pool *p)
{
    tls_ticket_unref(p->ticket);
    tls_context_unref(p->tls);
    free(p);
}

void pool_use_tls(struct pool *p, struct tls_context *tls)
{
    if (p->tls == tls) return;
    drop_idle(p);
    tls_ticket_unref(p->ticket);
    tls_context_unref(p->tls);
    p->tls = tls != NULL ? tls_context_ref(tls) : NULL;
    p->ticket = tls != NULL ? tls_ticket_new() : NULL;
}

void pools_free(struct pools *p)
{
    struct map_entry *e;
    size_t i = 0;
    if (p == NULL) return;
    while ((e = map_next(&p->by_server, &i)) != NULL) {
        drop_idle(e->value);
        pool_free(e->value);
    }
    map_done(&p->by_server);
    curl_links_free(p->curl);
    free(p);
}

void pools_forget_servers(struct pools *p)
{
    memset(p->known, 0, sizeof p->known);
}

void pools_sweep(struct pools *p)
{
    uint64_t now = loop_now_ns(p->o.loop);
    struct map_entry *e;
    size_t i = 0;
    while ((e = map_next(&p->by_server, &i)) != NULL) {
        struct pool *pool = e->value;
        settle_fresh(pool);
        LIST_EACH_SAFE(n, &pool->idle)
        {
            struct exchange *x = LIST_ENTRY(n, struct exchange, node);
            if (now - x->idle_since > idle_ns) exchange_bury(x, false);
        }
        if (pool->exchanges > 0 || now - pool->used_at < forget_ns) continue;
        /* No configuration names this server any more, or nobody uses it. */
        (void)map_remove(&p->by_server, e->key);
        pool_free(pool);
        pools_forget_servers(p);
    }
    curl_links_sweep(p->curl);
}

static struct pool *look_up(struct pools *p, const struct snap_server *s)
{
    char key[1200];
    int n = snprintf(key, sizeof key, "%.*s %.*s", STR_ARG(s->id), STR_ARG(s->url));
    struct str k = str_n(key, MIN((size_t)n, sizeof key - 1));
    struct pool *pool = map_get(&p->by_server, k);
    if (pool != NULL) return pool;
    pool = xcalloc(1, sizeof *pool);
    pool->pools = p;
    list_init(&pool->idle);
    list_init(&pool->fresh);
    if (map_put(&p->by_server, k, pool, NULL) != ERR_OK) {
        free(pool);
        return NULL;
    }
    return pool;
}

struct pool *pool_of(struct pools *p, const struct snap_server *s)
{
    size_t i = (uintptr_t)s / sizeof *s % KNOWN_SERVERS;
    if (p->known[i].server != s) {
        p->known[i].pool = look_up(p, s);
        p->known[i].server = s;
    }
    struct pool *pool = p->known[i].pool;
    ASSERT(pool != NULL);
    pool->used_at = loop_now_ns(p->o.loop);
    return pool;
}

struct exchange *pool_take_idle(struct pool *pool)
{
    if (pool->fresh_turn != loop_turn(pool->pools->o.loop)) settle_fresh(pool);
    while (pool->idle_n > 0) {
        struct list_node *first = list_empty(&pool->idle) ? pool->fresh.next : pool->idle.next;
        struct exchange *x = LIST_ENTRY(first, struct exchange, node);
        if (!conn_is_quiet(&x->conn)) {
            exchange_bury(x, false);
            continue;
        }
        list_remove(&x->node);
        pool->idle_n--;
        x->reused = true;
        x->state = X_WAIT_HEAD;
        return x;
    }
    return NULL;
}

void pool_keep(struct exchange *x)
{
    struct pool *p = x->pool;
    if (p->idle_n >= IDLE_PER_SERVER) {
        exchange_bury(x, false);
        return;
    }
    loop_timer_clear(p->pools->o.loop, &x->fail_timer);
    x->state = X_IDLE;
    x->idle_since = loop_now_ns(p->pools->o.loop);
    conn_pause(&x->conn, false);
    buf_done(&x->in);
    uint64_t turn = loop_turn(p->pools->o.loop);
    if (p->fresh_turn != turn) settle_fresh(p);
    p->fresh_turn = turn;
    list_push_front(&p->fresh, &x->node);
    p->idle_n++;
}
