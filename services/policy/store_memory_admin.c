/* SPDX-License-Identifier: Apache-2.0 */
/* Looking at counters in this process, resetting them, and giving back what was lost. Any thread.
 */
#include <inttypes.h>
#include <stdio.h>

#include "store_memory_impl.h"

/* Whether the counter is one of the policy's; *ret_key is its key then. */
static bool is_of(const struct store_counter *of, struct str name, struct str *ret_key)
{
    size_t head = of->policy.n + 2;
    if (name.n < head || memcmp(name.p, of->policy.p, of->policy.n) != 0) return false;
    if (name.p[of->policy.n] != '\n' || name.p[of->policy.n + 1] != of->unit) return false;
    *ret_key = str_n(name.p + head, name.n - head);
    return true;
}

/* Durable counters that nobody has asked for since the start stand in the marks only. */
static void bring_back(struct memory *m, const struct store_counter *of)
{
    struct str name, key;
    bool lost = false;
    for (size_t i = 0; of->durable && m->marks != NULL && marks_next(m->marks, &i, &name);) {
        const struct mark *mark = marks_get(m->marks, name);
        if (!is_of(of, name, &key) || map_get(&m->counters, name) != NULL || mark == NULL) continue;
        if (mark->begin != of->window.begin || mark->end != of->window.end) continue;
        (void)memory_make(m, name, of, &lost);
    }
}

static void view(struct memory *m, struct counter *c, const struct store_counter *of,
                 struct str key, store_view_fn fn, void *ctx)
{
    struct lease_op nothing = { .kind = LEASE_SETTLE, .lease = STR("-") };
    struct lease_result r = { .retry_ms = 0 };
    /* an op on no lease changes nothing but time */
    if (ledger_serve(&c->ledger, of->rule, memory_now_us(m), &of->window, &nothing, &r) != ERR_OK)
        return;
    fn(ctx, &(struct store_view){ .key = key,
                                  .limit = ledger_capacity(of->rule),
                                  .used = ledger_used(&c->ledger, of->rule),
                                  .leased = ledger_outstanding(&c->ledger),
                                  .left = ledger_left(&c->ledger, of->rule),
                                  .reset_ms = r.reset_ms });
}

static enum err may_serve(const struct memory *m, struct why *why)
{
    if (memory_may_serve(m)) return ERR_OK;
    return why_set(why, ERR_UNAVAILABLE, "this engine does not hold the claim on the counters");
}

enum err memory_look(struct store *s, const struct store_counter *of, const char *cursor,
                     size_t most, store_view_fn fn, void *ctx, char ret_cursor[STORE_CURSOR_LEN],
                     struct why *why)
{
    struct memory *m = (struct memory *)s;
    uint64_t from = 0;
    size_t n = 0;
    pthread_mutex_lock(&m->lock);
    enum err e = may_serve(m, why);
    if (e == ERR_OK && cursor[0] != '\0' && str_to_u64(str_of(cursor), &from) != ERR_OK)
        e = why_set(why, ERR_INVALID, "the cursor is none of ours");
    if (e == ERR_OK) {
        struct map_entry *it = NULL;
        size_t i = from;
        if (from == 0) bring_back(m, of);
        ret_cursor[0] = '\0';
        while (i < m->counters.cap && (it = map_next(&m->counters, &i)) != NULL) {
            struct str key;
            if (!is_of(of, it->key, &key) || (of->key.p != NULL && !str_eq(of->key, key))) continue;
            view(m, it->value, of, key, fn, ctx);
            if (++n < most) continue;
            snprintf(ret_cursor, STORE_CURSOR_LEN, "%zu", i);
            break;
        }
    }
    pthread_mutex_unlock(&m->lock);
    return e;
}

static bool reset_one(struct memory *m, struct counter *c)
{
    ledger_reset(&c->ledger, &c->rule, memory_now_us(m));
    if (!c->durable || m->marks == NULL) return true;
    struct mark mark = memory_mark_of(c);
    return marks_put(m->marks, str_n(c->name, c->name_n), &mark) == ERR_OK;
}

enum err memory_reset(struct store *s, const struct store_counter *of, size_t *ret_n,
                      struct why *why)
{
    struct memory *m = (struct memory *)s;
    struct map_entry *it;
    struct str key;
    size_t n = 0;
    bool good = true;
    pthread_mutex_lock(&m->lock);
    enum err e = may_serve(m, why);
    if (e == ERR_OK) bring_back(m, of);
    for (size_t i = 0; e == ERR_OK && (it = map_next(&m->counters, &i)) != NULL;) {
        if (!is_of(of, it->key, &key) || (of->key.p != NULL && !str_eq(of->key, key))) continue;
        good = reset_one(m, it->value) && good;
        n++;
    }
    if (e == ERR_OK && n == 0 && of->key.p != NULL && of->durable && m->marks != NULL) {
        char text[MEMORY_NAME_MAX];
        struct mark unused = { of->window.begin, of->window.end, 0 };
        good = marks_put(m->marks, memory_name(of, of->key, text), &unused) == ERR_OK;
        n = 1;
    }
    if (e == ERR_OK && m->marks != NULL) e = marks_flush(m->marks, why);
    if (e == ERR_OK && !good) e = why_set(why, ERR_NOMEM, "out of memory");
    if (e == ERR_OK) *ret_n = n;
    pthread_mutex_unlock(&m->lock);
    return e;
}

enum err memory_seed(struct store *s, const struct store_counter *of, uint64_t used,
                     struct why *why)
{
    struct memory *m = (struct memory *)s;
    char text[MEMORY_NAME_MAX];
    struct mark mark = { of->window.begin, of->window.end, used };
    struct str name = memory_name(of, of->key, text);
    pthread_mutex_lock(&m->lock);
    enum err e = may_serve(m, why);
    if (e == ERR_OK && m->marks == NULL)
        e = why_set(why, ERR_UNSUPPORTED, "there is no file for quotas");
    if (e == ERR_OK && map_get(&m->counters, name) == NULL && marks_get(m->marks, name) == NULL) {
        e = marks_put(m->marks, name, &mark);
        if (e == ERR_OK) e = marks_flush(m->marks, why);
    }
    pthread_mutex_unlock(&m->lock);
    return e;
}
