/* SPDX-License-Identifier: Apache-2.0 */
#include "fleet.h"

#include <pthread.h>
#include <stdlib.h>

#include "base/map.h"
#include "proto/envelope.h"
#include "proto/gone_msg.h"

enum { INSTANCES_MAX = 4096, ALIVE_MS = 15000, FORGET_MS = 3600000, SERVICES_MAX = 16 };

struct member {
    char instance[128], service[32], version[32], state[16];
    uint64_t revision, load, seen_mono_ms, seen_wall_ms;
    bool present; /* a presence message came, not only config.applied */
    bool has_applied, ok;
    uint64_t applied_revision, applied_wall_ms;
    char digest[65], error[256];
};

struct fleet {
    const struct clock *clock;
    pthread_mutex_t lock; /* guards what follows */
    struct map members;   /* by instance */
    uint64_t dropped;
};

struct fleet *fleet_new(const struct clock *clock)
{
    struct fleet *f = xcalloc(1, sizeof(*f));
    f->clock = clock;
    map_init(&f->members, INSTANCES_MAX);
    ASSERT(pthread_mutex_init(&f->lock, NULL) == 0);
    return f;
}

void fleet_free(struct fleet *f)
{
    size_t i = 0;
    struct map_entry *e;
    if (f == NULL) return;
    while ((e = map_next(&f->members, &i)) != NULL) free(e->value);
    map_done(&f->members);
    pthread_mutex_destroy(&f->lock);
    free(f);
}

static void forget_old(struct fleet *f, uint64_t now)
{
    size_t i = 0;
    struct map_entry *e;
    while ((e = map_next(&f->members, &i)) != NULL) {
        struct member *m = e->value;
        if (now - m->seen_mono_ms < FORGET_MS) continue;
        (void)map_remove(&f->members, e->key);
        free(m);
    }
}

/* The member that sent this; NULL when there are too many. */
static struct member *member_of(struct fleet *f, struct str instance)
{
    uint64_t now = clock_mono_ms(f->clock);
    struct member *m = map_get(&f->members, instance);
    if (m == NULL) {
        forget_old(f, now);
        m = calloc(1, sizeof(*m));
        if (m == NULL) return NULL;
        if (map_put(&f->members, instance, m, NULL) != ERR_OK) {
            free(m);
            return NULL;
        }
        (void)str_copyz(m->instance, sizeof(m->instance), instance);
    }
    m->seen_mono_ms = now;
    m->seen_wall_ms = clock_wall_ms(f->clock);
    return m;
}

static void copy_text(char *out, size_t cap, const struct json *o, const char *key)
{
    struct str s = json_str(json_get(o, key));
    if (s.p != NULL) (void)str_copyz(out, cap, s);
}

static void take_presence(struct member *m, const struct json *o)
{
    m->present = true;
    copy_text(m->service, sizeof(m->service), o, "service");
    copy_text(m->version, sizeof(m->version), o, "version");
    copy_text(m->state, sizeof(m->state), o, "state");
    if (json_get_u64(o, "revision", &m->revision) != ERR_OK) m->revision = 0;
    if (json_get_u64(o, "load", &m->load) != ERR_OK) m->load = 0;
}

static void take_applied(struct member *m, const struct json *o)
{
    uint64_t revision;
    bool ok;
    if (json_get_u64(o, "revision", &revision) != ERR_OK || json_get_bool(o, "ok", &ok) != ERR_OK)
        return;
    m->applied_revision = revision;
    m->ok = ok;
    m->has_applied = true;
    m->applied_wall_ms = m->seen_wall_ms;
    m->digest[0] = m->error[0] = '\0';
    copy_text(m->digest, sizeof(m->digest), o, "digest");
    copy_text(m->error, sizeof(m->error), o, "error");
    if (m->ok) m->revision = m->applied_revision; /* sooner than the next presence says it */
}

static void take(struct fleet *f, struct str message,
                 void (*fn)(struct member *m, const struct json *o))
{
    struct json *o = NULL;
    enum err e = envelope_parse(message, &o, NULL);
    struct str instance = e == ERR_OK ? json_str(json_get(o, "from")) : STR_NULL;
    pthread_mutex_lock(&f->lock);
    struct member *m = instance.n > 0 && instance.n < sizeof(m->instance) ? member_of(f, instance)
                                                                          : NULL;
    if (m != NULL) {
        fn(m, o);
    } else {
        f->dropped++;
    }
    pthread_mutex_unlock(&f->lock);
    json_free(o);
}

void fleet_presence(struct fleet *f, struct str message)
{
    take(f, message, take_presence);
}

void fleet_applied(struct fleet *f, struct str message)
{
    take(f, message, take_applied);
}

void fleet_gone(struct fleet *f, struct str message)
{
    char instance[GONE_INSTANCE_MAX + 1];
    enum err e = gone_msg_decode(message, instance, NULL);
    pthread_mutex_lock(&f->lock);
    if (e == ERR_OK)
        free(map_remove(&f->members, str_of(instance)));
    else
        f->dropped++;
    pthread_mutex_unlock(&f->lock);
}

bool fleet_is_alive(struct fleet *f, struct str instance)
{
    pthread_mutex_lock(&f->lock);
    const struct member *m = map_get(&f->members, instance);
    bool alive = m != NULL && clock_mono_ms(f->clock) - m->seen_mono_ms < ALIVE_MS &&
                 strcmp(m->state, "draining") != 0;
    pthread_mutex_unlock(&f->lock);
    return alive;
}

uint64_t fleet_dropped(struct fleet *f)
{
    pthread_mutex_lock(&f->lock);
    uint64_t n = f->dropped;
    pthread_mutex_unlock(&f->lock);
    return n;
}

static int by_instance(const void *a, const void *b)
{
    return strcmp(((const struct member *)a)->instance, ((const struct member *)b)->instance);
}

/* Copies, so that JSON is made without the lock. */
static struct member *copy_members(struct fleet *f, size_t *ret_n)
{
    size_t i = 0, n = 0;
    struct map_entry *e;
    pthread_mutex_lock(&f->lock);
    struct member *v = xcalloc(f->members.len + 1, sizeof(*v));
    while ((e = map_next(&f->members, &i)) != NULL) v[n++] = *(const struct member *)e->value;
    pthread_mutex_unlock(&f->lock);
    qsort(v, n, sizeof(*v), by_instance);
    *ret_n = n;
    return v;
}

static void set_time(struct json *o, const char *key, uint64_t wall_ms)
{
    char ts[TIME_RFC3339_LEN + 1];
    time_rfc3339(wall_ms * 1000000, ts);
    json_setz(o, key, ts);
}

struct json *fleet_list(struct fleet *f)
{
    size_t n;
    uint64_t now = clock_mono_ms(f->clock);
    struct member *v = copy_members(f, &n);
    struct json *list = json_array();
    for (size_t i = 0; i < n; i++) {
        const struct member *m = &v[i];
        struct json *o = json_object();
        json_setz(o, "instance", m->instance);
        json_setz(o, "service", m->service);
        json_setz(o, "version", m->version);
        json_setz(o, "state", m->state);
        json_set_u64(o, "revision", m->revision);
        json_set_u64(o, "load", m->load);
        json_set_bool(o, "alive", now - m->seen_mono_ms < ALIVE_MS);
        set_time(o, "last_seen", m->seen_wall_ms);
        if (m->has_applied) {
            struct json *applied = json_object();
            json_set_u64(applied, "revision", m->applied_revision);
            json_setz(applied, "digest", m->digest);
            json_set_bool(applied, "ok", m->ok);
            if (!m->ok) json_setz(applied, "error", m->error);
            set_time(applied, "at", m->applied_wall_ms);
            json_set(o, "applied", applied);
        }
        json_push(list, o);
    }
    free(v);
    return list;
}

void fleet_count(struct fleet *f, uint64_t current, fleet_count_fn fn, void *ctx)
{
    struct {
        char name[32];
        size_t current, behind;
    } services[SERVICES_MAX] = { 0 };
    size_t n, services_n = 0;
    uint64_t now = clock_mono_ms(f->clock);
    struct member *v = copy_members(f, &n);
    for (size_t i = 0; i < n; i++) {
        size_t s = 0;
        if (!v[i].present || now - v[i].seen_mono_ms >= ALIVE_MS) continue;
        while (s < services_n && strcmp(services[s].name, v[i].service) != 0) s++;
        if (s == SERVICES_MAX) continue;
        if (s == services_n) {
            (void)str_copyz(services[s].name, sizeof(services[s].name), str_of(v[i].service));
            services_n++;
        }
        if (v[i].revision == current) {
            services[s].current++;
        } else {
            services[s].behind++;
        }
    }
    free(v);
    for (size_t s = 0; s < services_n; s++)
        fn(ctx, services[s].name, services[s].current, services[s].behind);
}
