/* SPDX-License-Identifier: Apache-2.0 */
/* Looking at counters in Redis, resetting them, and giving back what was lost. Any thread. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "store_redis_impl.h"

enum { SCANS = 200, PAGE = 256, KEEP_MS = 2 * 86400000 };

/* --- which keys --- */

struct keys {
    char text[PAGE][REDIS_KEY_MAX];
    struct str all[1 + PAGE]; /* for the script: what is known of durable ones, and then them */
    struct str *v;
    size_t n, head; /* bytes in front of the counter's own key */
};

/* For SCAN: what is special to it in the part in front is escaped. */
static struct str pattern_of(struct str head, char out[2 * REDIS_KEY_MAX])
{
    size_t n = 0;
    for (size_t i = 0; i < head.n; i++) {
        if (strchr("*?[]\\^", head.p[i]) != NULL) out[n++] = '\\';
        out[n++] = head.p[i];
    }
    out[n++] = '*';
    return str_n(out, n);
}

/* A few pages of SCAN from *cursor on; *cursor 0: that was all. */
static enum err scan(struct redis_store *s, const struct store_counter *of, uint64_t *cursor,
                     struct keys *ret, struct why *why)
{
    char head[REDIS_KEY_MAX], pattern[2 * REDIS_KEY_MAX], number[REDIS_NUMBER_MAX];
    const struct redis_value *v = NULL;
    struct str front = redis_store_key(s, of->policy, of->unit, of->durable, STR(""), head);
    ret->n = 0;
    ret->head = front.n;
    for (int i = 0; i < SCANS && ret->n == 0; i++) {
        snprintf(number, sizeof number, "%" PRIu64, *cursor);
        const struct str args[] = { STR("SCAN"),  str_of(number),
                                    STR("MATCH"), pattern_of(front, pattern),
                                    STR("COUNT"), STR("100") };
        enum err e = redis_command(s->redis, args, 6, &v, why);
        if (e == ERR_OK &&
            (redis_len(v) != 2 || str_to_u64(redis_str(redis_at(v, 0)), cursor) != ERR_OK))
            e = why_set(why, ERR_UNAVAILABLE, "Redis: an odd reply");
        if (e != ERR_OK) return e;
        const struct redis_value *found = redis_at(v, 1);
        for (size_t k = 0; k < redis_len(found) && ret->n < PAGE; k++) {
            struct str key = redis_str(redis_at(found, k));
            if (key.n <= front.n || key.n >= REDIS_KEY_MAX) continue;
            memcpy(ret->text[ret->n], key.p, key.n);
            ret->v[ret->n] = str_n(ret->text[ret->n], key.n);
            ret->n++;
        }
        if (*cursor == 0) break;
    }
    return ERR_OK;
}

/* The one key that was asked for, or some of all. */
static enum err next_keys(struct redis_store *s, const struct store_counter *of, uint64_t *cursor,
                          struct keys *ret, struct why *why)
{
    char head[REDIS_KEY_MAX];
    if (of->key.p == NULL) return scan(s, of, cursor, ret, why);
    ret->head = redis_store_key(s, of->policy, of->unit, of->durable, STR(""), head).n;
    ret->v[0] = redis_store_key(s, of->policy, of->unit, of->durable, of->key, ret->text[0]);
    ret->n = 1;
    *cursor = 0;
    return ERR_OK;
}

/* --- the script --- */

static enum err run(struct redis_store *s, const struct keys *keys, const struct str *args,
                    size_t args_n, const struct redis_value **ret, struct why *why)
{
    enum err e = redis_eval(s->redis, script_counter, keys->all, 1 + keys->n, args, args_n, ret,
                            why);
    if (e == ERR_OK && redis_len(*ret) != 2 * keys->n)
        e = why_set(why, ERR_UNAVAILABLE, "Redis: an odd reply");
    if (e != ERR_OK) redis_store_pause(s, e);
    return e;
}

static enum err begin(struct redis_store *s, struct keys **ret, struct why *why)
{
    struct keys *k = malloc(sizeof *k);
    if (k == NULL) return why_set(why, ERR_NOMEM, "out of memory");
    k->all[0] = str_of(s->lost_key);
    k->v = k->all + 1;
    pthread_mutex_lock(&s->lock);
    enum err e = redis_store_ensure(s, why);
    if (e == ERR_OK) {
        *ret = k;
        return ERR_OK;
    }
    pthread_mutex_unlock(&s->lock);
    free(k);
    return e;
}

static void end(struct redis_store *s, struct keys *k)
{
    pthread_mutex_unlock(&s->lock);
    free(k);
}

static void number_of(uint64_t v, char out[REDIS_NUMBER_MAX])
{
    snprintf(out, REDIS_NUMBER_MAX, "%" PRIu64, v);
}

/* --- looks --- */

struct seen {
    struct str key;
    int64_t leased, used; /* used: of a calendar window */
};

/* What is left is told by the state machine itself: an op on no lease changes nothing but time. */
static enum err view(struct store *store, const struct store_counter *of, const struct seen *seen,
                     size_t n, store_view_fn fn, void *ctx, struct why *why)
{
    char epoch[LEASE_ID_MAX + 1];
    struct store_item *items = calloc(n, sizeof *items);
    struct lease_op *ops = calloc(n, sizeof *ops);
    enum err e = items == NULL || ops == NULL ? ERR_NOMEM : ERR_OK;
    struct store_status status;
    store_status(store, &status);
    memcpy(epoch, status.epoch, sizeof epoch);
    for (size_t i = 0; i < n && e == ERR_OK; i++) {
        ops[i] = (struct lease_op){
            .kind = LEASE_SETTLE, .policy = of->policy, .key = seen[i].key, .lease = STR("-")
        };
        items[i] = (struct store_item){ .op = &ops[i],
                                        .rule = of->rule,
                                        .window = of->window,
                                        .unit = of->unit,
                                        .durable = of->durable };
    }
    if (e == ERR_OK) e = store_serve(store, str_of(epoch), items, n, epoch, why);
    for (size_t i = 0; i < n && e == ERR_OK; i++) {
        const struct lease_result *r = &items[i].result;
        uint64_t limit = ledger_capacity(of->rule), leased = (uint64_t)seen[i].leased;
        bool fixed = of->rule->kind == LEDGER_FIXED;
        uint64_t used = limit - MIN(limit, r->remaining + leased);
        if (r->status != LEASE_ENDED) continue; /* warming, lost, or the epoch ended meanwhile */
        fn(ctx, &(struct store_view){ .key = seen[i].key,
                                      .limit = limit,
                                      .used = fixed ? (uint64_t)seen[i].used : used,
                                      .leased = leased,
                                      .left = r->remaining,
                                      .reset_ms = r->reset_ms });
    }
    free(items);
    free(ops);
    return e;
}

enum err redis_store_look(struct store *store, const struct store_counter *of, const char *cursor,
                          size_t most, store_view_fn fn, void *ctx,
                          char ret_cursor[STORE_CURSOR_LEN], struct why *why)
{
    struct redis_store *s = (struct redis_store *)store;
    const struct redis_value *v = NULL;
    char begins[REDIS_NUMBER_MAX];
    number_of(of->window.begin, begins);
    const struct str args[] = { STR("view"), STR("0"), str_of(begins) };
    struct keys *keys;
    struct seen seen[PAGE];
    uint64_t at = 0;
    size_t told = 0;
    if (cursor[0] != '\0' && str_to_u64(str_of(cursor), &at) != ERR_OK)
        return why_set(why, ERR_INVALID, "the cursor is none of ours");
    do {
        size_t n = 0;
        enum err e = begin(s, &keys, why);
        if (e != ERR_OK) return e;
        e = next_keys(s, of, &at, keys, why);
        if (e == ERR_OK && keys->n > 0) e = run(s, keys, args, 3, &v, why);
        for (size_t i = 0; e == ERR_OK && i < keys->n; i++) {
            struct str k = keys->v[i];
            int64_t leased = redis_int(redis_at(v, 2 * i));
            if (leased < 0) continue;
            seen[n++] = (struct seen){ str_n(k.p + keys->head, k.n - keys->head), leased,
                                       redis_int(redis_at(v, 2 * i + 1)) };
        }
        pthread_mutex_unlock(&s->lock);
        if (e == ERR_OK && n > 0) e = view(store, of, seen, n, fn, ctx, why);
        free(keys);
        if (e != ERR_OK) return e;
        told += n;
    } while (at != 0 && told < most);
    ret_cursor[0] = '\0';
    if (at != 0) snprintf(ret_cursor, STORE_CURSOR_LEN, "%" PRIu64, at);
    return ERR_OK;
}

/* --- resets and seeds --- */

static enum err seed(struct redis_store *s, const struct store_counter *of, struct keys *keys,
                     uint64_t used, struct why *why)
{
    char numbers[4][REDIS_NUMBER_MAX];
    const struct redis_value *v = NULL;
    number_of(used, numbers[0]);
    number_of(of->window.begin, numbers[1]);
    number_of(of->window.end, numbers[2]);
    number_of(of->window.left_us / 1000 + KEEP_MS, numbers[3]);
    const struct str args[] = { STR("seed"), str_of(numbers[0]), str_of(numbers[1]),
                                str_of(numbers[2]), str_of(numbers[3]) };
    return run(s, keys, args, 5, &v, why);
}

enum err redis_store_reset(struct store *store, const struct store_counter *of, size_t *ret_n,
                           struct why *why)
{
    struct redis_store *s = (struct redis_store *)store;
    char burst[REDIS_NUMBER_MAX];
    const struct redis_value *v = NULL;
    struct keys *keys;
    uint64_t at = 0;
    size_t n = 0;
    enum err e = begin(s, &keys, why);
    if (e != ERR_OK) return e;
    number_of(of->rule->burst, burst);
    const struct str args[] = { STR("reset"), str_of(burst) };
    do {
        e = next_keys(s, of, &at, keys, why);
        if (e == ERR_OK && keys->n > 0) e = run(s, keys, args, 2, &v, why);
        for (size_t i = 0; e == ERR_OK && i < keys->n; i++)
            if (redis_int(redis_at(v, 2 * i)) >= 0) n++;
    } while (e == ERR_OK && at != 0);
    if (e == ERR_OK && n == 0 && of->key.p != NULL && of->durable) {
        e = seed(s, of, keys, 0, why);
        n = 1;
    }
    end(s, keys);
    if (e == ERR_OK) *ret_n = n;
    return e;
}

enum err redis_store_seed(struct store *store, const struct store_counter *of, uint64_t used,
                          struct why *why)
{
    struct redis_store *s = (struct redis_store *)store;
    struct keys *keys;
    uint64_t at;
    enum err e = begin(s, &keys, why);
    if (e != ERR_OK) return e;
    e = next_keys(s, of, &at, keys, why);
    if (e == ERR_OK) e = seed(s, of, keys, used, why);
    end(s, keys);
    return e;
}
