/* SPDX-License-Identifier: Apache-2.0 */
#include "keyring.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <time.h>

#include "rt/http_client.h"

enum {
    CONNECT_MS = 2000,
    FETCH_MS = 4000,
    USE_BUDGET_MS = 6000, /* that a new snapshot waits for keys */
    RETRY_S = 30
};

/* A set in use by whoever has a reference. */
struct keyset {
    _Atomic unsigned refs;
    struct jwks *keys;
};

struct entry {
    char *id, *name, *url, *ca_file, *text; /* url == NULL: the keys are text */
    struct keyset *set;                     /* NULL: none yet */
    uint64_t refresh_s, due_ns, fetched_ns;
    bool failing, used, fetching;
};

struct keyring {
    const struct clock *clock;
    keyring_report_fn report;
    void *ctx;
    pthread_t thread;
    pthread_mutex_t lock; /* guards entries and stop */
    pthread_cond_t wake;
    struct entry *entries;
    size_t n;
    bool stop;
    struct list_node waiters; /* of keyring_waiter */
    size_t waiters_n;
    _Atomic uint64_t generation, fetches;
};

static void keyset_unref(struct keyset *s)
{
    if (s == NULL || atomic_fetch_sub(&s->refs, 1) != 1) return;
    jwks_free(s->keys);
    free(s);
}

static enum err keyset_new(struct str text, struct keyset **ret, struct why *why)
{
    struct jwks *keys;
    enum err e = jwks_parse(text, &keys, why);
    if (e != ERR_OK) return e;
    if (jwks_count(keys) == 0) {
        jwks_free(keys);
        return why_set(why, ERR_INVALID, "has no key that can verify a signature");
    }
    struct keyset *s = xcalloc(1, sizeof *s);
    atomic_init(&s->refs, 1);
    s->keys = keys;
    *ret = s;
    return ERR_OK;
}

static char *dupz(struct str s)
{
    return s.p != NULL && s.n > 0 ? str_dupz(s) : NULL;
}

static void entry_done(struct entry *e)
{
    free(e->id);
    free(e->name);
    free(e->url);
    free(e->ca_file);
    free(e->text);
    keyset_unref(e->set);
}

static struct entry *entry_of(const struct keyring *k, struct str id)
{
    for (size_t i = 0; i < k->n; i++)
        if (str_eqz(id, k->entries[i].id)) return &k->entries[i];
    return NULL;
}

/* --- fetching --- */

/* What a fetch needs, so that the entry may go meanwhile. */
struct job {
    char *id, *name, *url, *ca_file;
};

static struct job job_of(const struct entry *e)
{
    return (struct job){ xstrdup(e->id), xstrdup(e->name), xstrdup(e->url),
                         e->ca_file != NULL ? xstrdup(e->ca_file) : NULL };
}

static void job_done(struct job *j)
{
    free(j->id);
    free(j->name);
    free(j->url);
    free(j->ca_file);
}

static enum err fetch(struct http_client *http, const struct job *j, struct keyset **ret,
                      struct why *why)
{
    struct http_call call = { .method = "GET",
                              .url = j->url,
                              .headers = { "Accept: application/json" },
                              .ca_file = j->ca_file,
                              .connect_timeout_ms = CONNECT_MS,
                              .timeout_ms = FETCH_MS };
    struct buf body;
    int status = 0;
    buf_init(&body, JWKS_MAX_BYTES);
    enum err e = http_client_call(http, &call, &status, &body, why);
    if (e == ERR_OK && status != 200) e = why_set(why, ERR_INVALID, "answered %d", status);
    if (e == ERR_OK) e = keyset_new(buf_str(&body), ret, why);
    buf_done(&body);
    return e;
}

static void call(struct keyring_waiter *w)
{
    while (loop_post(w->loop, w->fn, w->ctx) != ERR_OK) sched_yield();
}

/* With the lock: a fetch has ended. Those who waited go to *given, to be called without it. */
static void take_waiters(struct keyring *k, struct list_node *given)
{
    atomic_fetch_add(&k->fetches, 1);
    for (struct list_node *n; (n = list_pop_front(&k->waiters)) != NULL;) {
        LIST_ENTRY(n, struct keyring_waiter, node)->waits = false;
        list_push_back(given, n);
    }
    k->waiters_n = 0;
}

/* Fetches without the lock and stores the result. */
static void refresh(struct keyring *k, struct http_client *http, struct job *j)
{
    struct keyset *fresh = NULL;
    struct list_node given;
    struct why why = { "" };
    bool tell = false;
    list_init(&given);
    enum err err = fetch(http, j, &fresh, &why);
    uint64_t now = clock_mono_ns(k->clock);
    pthread_mutex_lock(&k->lock);
    struct entry *e = entry_of(k, str_of(j->id));
    if (e != NULL && e->url != NULL && strcmp(e->url, j->url) == 0) {
        uint64_t next = err == ERR_OK ? e->refresh_s : MIN(e->refresh_s, (uint64_t)RETRY_S);
        tell = e->failing != (err != ERR_OK);
        e->failing = err != ERR_OK;
        e->fetching = false;
        e->fetched_ns = now;
        e->due_ns = now + next * 1000000000u;
        if (err == ERR_OK) {
            struct keyset *old = e->set;
            e->set = fresh;
            fresh = old;
            atomic_fetch_add(&k->generation, 1);
        }
    }
    take_waiters(k, &given);
    pthread_mutex_unlock(&k->lock);
    for (struct list_node *n; (n = list_pop_front(&given)) != NULL;)
        call(LIST_ENTRY(n, struct keyring_waiter, node));
    keyset_unref(fresh);
    if (tell && k->report != NULL)
        k->report(k->ctx, str_of(j->name), err != ERR_OK ? why.text : NULL);
    job_done(j);
}

/* With the lock: the first that is due. */
static bool next_due(struct keyring *k, uint64_t now, struct job *ret, uint64_t *ret_next_ns)
{
    *ret_next_ns = now + 3600 * UINT64_C(1000000000);
    for (size_t i = 0; i < k->n; i++) {
        struct entry *e = &k->entries[i];
        if (e->url == NULL) continue;
        if (e->due_ns <= now) {
            e->fetching = true;
            *ret = job_of(e);
            return true;
        }
        *ret_next_ns = MIN(*ret_next_ns, e->due_ns);
    }
    return false;
}

static void *refresher(void *ctx)
{
    struct keyring *k = ctx;
    struct http_client *http = http_client_new();
    pthread_mutex_lock(&k->lock);
    while (!k->stop) {
        struct job j;
        uint64_t now = clock_mono_ns(k->clock), next;
        if (next_due(k, now, &j, &next)) {
            pthread_mutex_unlock(&k->lock);
            refresh(k, http, &j);
            pthread_mutex_lock(&k->lock);
            continue;
        }
        struct timespec until;
        clock_gettime(CLOCK_MONOTONIC, &until);
        uint64_t wait = next - now;
        until.tv_sec += (time_t)(wait / 1000000000u + 1);
        (void)pthread_cond_timedwait(&k->wake, &k->lock, &until);
    }
    pthread_mutex_unlock(&k->lock);
    http_client_free(http);
    return NULL;
}

/* --- life --- */

struct keyring *keyring_new(const struct clock *clock, keyring_report_fn report, void *ctx)
{
    struct keyring *k = xcalloc(1, sizeof *k);
    pthread_condattr_t attr;
    k->clock = clock;
    k->report = report;
    k->ctx = ctx;
    atomic_init(&k->generation, 1);
    list_init(&k->waiters);
    pthread_mutex_init(&k->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&k->wake, &attr);
    pthread_condattr_destroy(&attr);
    ASSERT(pthread_create(&k->thread, NULL, refresher, k) == 0);
    return k;
}

void keyring_free(struct keyring *k)
{
    if (k == NULL) return;
    pthread_mutex_lock(&k->lock);
    k->stop = true;
    pthread_cond_signal(&k->wake);
    pthread_mutex_unlock(&k->lock);
    pthread_join(k->thread, NULL);
    for (size_t i = 0; i < k->n; i++) entry_done(&k->entries[i]);
    free(k->entries);
    pthread_cond_destroy(&k->wake);
    pthread_mutex_destroy(&k->lock);
    free(k);
}

/* --- the issuers of a snapshot --- */

static bool same(const char *z, struct str s)
{
    return z == NULL ? s.n == 0 : str_eqz(s, z);
}

static bool is_as_it_was(const struct entry *e, const struct snap_issuer *i)
{
    return same(e->url, i->jwks_url) && same(e->ca_file, i->jwks_ca_file) && same(e->text, i->jwks);
}

/* With the lock. */
static void use_issuer(struct keyring *k, const struct snap_issuer *i)
{
    struct entry *e = entry_of(k, i->id);
    if (e != NULL && !is_as_it_was(e, i)) {
        entry_done(e);
        *e = (struct entry){ .id = str_dupz(i->id) };
    } else if (e == NULL) {
        k->entries = xrealloc(k->entries, (k->n + 1) * sizeof *k->entries);
        e = &k->entries[k->n++];
        *e = (struct entry){ .id = str_dupz(i->id) };
    }
    if (e->name == NULL) {
        e->name = str_dupz(i->slug);
        e->url = dupz(i->jwks_url);
        e->ca_file = dupz(i->jwks_ca_file);
        e->text = dupz(i->jwks);
        /* The snapshot's decoder has parsed them before. */
        if (e->text != NULL && keyset_new(i->jwks, &e->set, NULL) != ERR_OK) e->set = NULL;
    }
    e->refresh_s = i->refresh_s;
    e->due_ns = MIN(e->due_ns, e->fetched_ns + i->refresh_s * 1000000000u);
    e->used = true;
}

static bool first_unfetched(const struct keyring *k, struct job *ret)
{
    for (size_t i = 0; i < k->n; i++) {
        const struct entry *e = &k->entries[i];
        if (e->url != NULL && e->set == NULL && e->fetched_ns == 0) return *ret = job_of(e), true;
    }
    return false;
}

void keyring_use(struct keyring *k, const struct snapshot *s)
{
    struct job j;
    size_t kept = 0;
    uint64_t give_up = clock_mono_ns(k->clock) + USE_BUDGET_MS * UINT64_C(1000000);
    pthread_mutex_lock(&k->lock);
    for (size_t i = 0; i < k->n; i++) k->entries[i].used = false;
    for (size_t i = 0; i < s->issuers_n; i++)
        if (s->issuers[i].enabled) use_issuer(k, &s->issuers[i]);
    for (size_t i = 0; i < k->n; i++) {
        if (k->entries[i].used)
            k->entries[kept++] = k->entries[i];
        else
            entry_done(&k->entries[i]);
    }
    k->n = kept;
    atomic_fetch_add(&k->generation, 1);
    struct http_client *http = NULL;
    while (clock_mono_ns(k->clock) < give_up && first_unfetched(k, &j)) {
        pthread_mutex_unlock(&k->lock);
        if (http == NULL) http = http_client_new();
        refresh(k, http, &j);
        pthread_mutex_lock(&k->lock);
    }
    pthread_cond_signal(&k->wake);
    pthread_mutex_unlock(&k->lock);
    http_client_free(http);
}

/* --- verifying --- */

/* A key that is not known may be new: one look, and not too soon after the last. Whether it is
 * under way. */
static bool ask_again(struct keyring *k, struct str id)
{
    bool under_way = false;
    pthread_mutex_lock(&k->lock);
    struct entry *e = entry_of(k, id);
    if (e != NULL && e->url != NULL) {
        uint64_t soonest = e->fetched_ns + KEYRING_REST_S * UINT64_C(1000000000);
        if (soonest < e->due_ns) {
            e->due_ns = soonest;
            pthread_cond_signal(&k->wake);
        }
        under_way = e->fetching || e->due_ns <= clock_mono_ns(k->clock);
    }
    pthread_mutex_unlock(&k->lock);
    return under_way;
}

enum err keyring_verify(struct keyring *k, const struct snap_issuer *issuer, enum jwt_alg alg,
                        struct str kid, struct str data, struct str signature)
{
    struct keyset *set = NULL;
    pthread_mutex_lock(&k->lock);
    struct entry *e = entry_of(k, issuer->id);
    if (e != NULL && e->set != NULL) {
        set = e->set;
        atomic_fetch_add(&set->refs, 1);
    }
    pthread_mutex_unlock(&k->lock);
    if (set == NULL) return ERR_UNAVAILABLE;
    enum err err = jwks_verify(set->keys, alg, kid, data, signature);
    keyset_unref(set);
    return err == ERR_NOT_FOUND && ask_again(k, issuer->id) ? ERR_AGAIN : err;
}

uint64_t keyring_generation(const struct keyring *k)
{
    return atomic_load(&((struct keyring *)(uintptr_t)k)->generation);
}

/* --- waiting --- */

uint64_t keyring_fetches(const struct keyring *k)
{
    return atomic_load(&((struct keyring *)(uintptr_t)k)->fetches);
}

bool keyring_wait(struct keyring *k, uint64_t fetches, struct loop *loop, loop_fn fn, void *ctx,
                  struct keyring_waiter *w)
{
    pthread_mutex_lock(&k->lock);
    bool missed = atomic_load(&k->fetches) != fetches, room = k->waiters_n < KEYRING_WAITERS_MAX;
    *w = (struct keyring_waiter){ .loop = loop, .fn = fn, .ctx = ctx, .waits = !missed && room };
    if (w->waits) {
        list_push_back(&k->waiters, &w->node);
        k->waiters_n++;
    }
    pthread_mutex_unlock(&k->lock);
    if (missed) call(w);
    return missed || room;
}

bool keyring_forget(struct keyring *k, struct keyring_waiter *w)
{
    pthread_mutex_lock(&k->lock);
    bool waited = w->waits;
    if (waited) {
        list_remove(&w->node);
        k->waiters_n--;
        w->waits = false;
    }
    pthread_mutex_unlock(&k->lock);
    return waited;
}
