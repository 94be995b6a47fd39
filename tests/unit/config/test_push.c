/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From a committed change to a follower's snapshot: store, push thread, bucket, follower, disk,
 * with the fake bus in between.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include <pthread.h>
#include <stdatomic.h>

#include "../../../services/config/fleet.h"
#include "../../../services/config/push.h"
#include "../../fake/bus_fake.c"
#include "base/map.h"
#include "config/follower.h"
#include "proto/subjects.h"
#include "support.h"

struct world {
    struct bench bench;
    struct bus_fake *server;
    struct bus *config_bus, *edge_bus;
    struct push *push;
    struct fleet *fleet;
    struct bus_sub *applied;
    atomic_int pushes;
    struct follower *follower;
    char state_dir[96];
    _Atomic uint64_t refuse_from; /* revisions from here on are refused by apply() */
};

static struct bus *make_bus(struct bus_fake *server, const char *instance)
{
    struct bus_options o = { .url = bus_fake_url(server),
                             .instance = instance,
                             .service = "test",
                             .version = "0",
                             .description = "",
                             .prefix = "aigw",
                             .clock = clock_system(),
                             .rng = rng_system() };
    return bus_new(&o);
}

static void on_pushed(void *ctx, uint64_t revision, uint64_t ms)
{
    struct world *w = ctx;
    (void)revision;
    (void)ms;
    atomic_fetch_add(&w->pushes, 1);
}

static void wake(void *ctx)
{
    push_wake(((struct world *)ctx)->push);
}

static void start_push(struct world *w)
{
    struct push_options o = { .store = w->bench.store,
                              .bus = w->config_bus,
                              .clock = clock_system(),
                              .rng = rng_system(),
                              .on_pushed = on_pushed,
                              .ctx = w };
    w->push = push_new(&o);
    store_on_change(w->bench.store, wake, w);
}

static void stop_push(struct world *w)
{
    store_on_change(w->bench.store, NULL, NULL);
    push_free(w->push);
    w->push = NULL;
}

static enum err apply(void *ctx, struct snapshot *s, struct why *why)
{
    struct world *w = ctx;
    uint64_t from = atomic_load(&w->refuse_from);
    if (from != 0 && s->revision >= from) return why_set(why, ERR_INVALID, "not to my taste");
    return ERR_OK;
}

static struct follower *make_follower(struct world *w, struct bus *bus, const char *dir)
{
    struct follower_options o = { .bus = bus,
                                  .state_dir = dir,
                                  .clock = clock_system(),
                                  .rng = rng_system(),
                                  .apply = apply,
                                  .ctx = w };
    return follower_new(&o);
}

static void on_applied(void *ctx, const struct bus_msg *msg)
{
    fleet_applied(((struct world *)ctx)->fleet, msg->data);
}

static void open_world(struct world *w)
{
    memset(w, 0, sizeof(*w));
    bench_init(&w->bench);
    (void)snprintf(w->state_dir, sizeof(w->state_dir), "%s", w->bench.folder);
    w->server = bus_fake_new();
    w->config_bus = make_bus(w->server, "config-1");
    w->edge_bus = make_bus(w->server, "edge-1");
    w->fleet = fleet_new(clock_system());
    assert_int_equal(
        bus_subscribe(w->config_bus, "aigw.config.applied", NULL, on_applied, w, &w->applied),
        ERR_OK);
    start_push(w);
    for (int i = 0; i < 12000 && !store_is_open(w->bench.store); i++) usleep(5000);
    assert_true(store_is_open(w->bench.store));
}

static void close_world(struct world *w)
{
    follower_free(w->follower);
    bus_unsubscribe(w->applied);
    if (w->push != NULL) stop_push(w);
    bus_free(w->edge_bus);
    bus_free(w->config_bus);
    fleet_free(w->fleet);
    bus_fake_free(w->server);
    bench_done(&w->bench);
}

/* Waits for a state, at most ten seconds; the last look decides. */
#define WAIT(condition)                                                              \
    do {                                                                             \
        for (int wait_i = 0; wait_i < 12000 && !(condition); wait_i++) usleep(5000); \
        if (!(condition)) fail_msg("line %d: %s", __LINE__, #condition);             \
    } while (0)

static uint64_t follower_revision(struct follower *f)
{
    struct snapshot *s = follower_snapshot(f);
    uint64_t revision = s != NULL ? s->revision : UINT64_MAX;
    snapshot_unref(s);
    return revision;
}

static uint64_t put_policy(struct world *w, int i, int limit)
{
    char text[256];
    (void)snprintf(
        text, sizeof(text),
        "{\"namespace\":\"team\",\"slug\":\"p%d\",\"kind\":\"concurrency\",\"limit\":%d}", i,
        limit);
    return bench_put(&w->bench, KIND_POLICY, text, NULL, NULL);
}

static void seed(struct world *w)
{
    bench_put(&w->bench, KIND_NAMESPACE, "{\"slug\":\"team\"}", NULL, NULL);
    bench_put(&w->bench, KIND_NAMESPACE, "{\"slug\":\"other\"}", NULL, NULL);
    bench_put(&w->bench, KIND_UPSTREAM,
              "{\"slug\":\"mock\",\"servers\":[{\"slug\":\"a\",\"url\":\"http://h:1\"}]}", NULL,
              NULL);
    bench_put(&w->bench, KIND_ROUTE,
              "{\"namespace\":\"other\",\"slug\":\"r\",\"path\":{\"prefix\":\"/\"},\"upstream\":"
              "\"mock\"}",
              NULL, NULL);
    put_policy(w, 0, 1);
}

/* --- tests -------------------------------------------------------------------------------------
 */

static void a_change_moves_only_its_own_part(void **state)
{
    (void)state;
    struct world w;
    open_world(&w);
    seed(&w);
    w.follower = make_follower(&w, w.edge_bus, NULL);
    WAIT(follower_revision(w.follower) == 5);
    /* Two namespaces, upstreams, routes of one, policies of the other. */
    WAIT(follower_parts_fetched(w.follower) == 5);
    for (int i = 1; i <= 10; i++) {
        uint64_t revision = put_policy(&w, 0, 100 + i);
        WAIT(follower_revision(w.follower) == revision);
        assert_int_equal(follower_parts_fetched(w.follower), 5 + i);
    }
    struct snapshot *s = follower_snapshot(w.follower);
    assert_int_equal(s->policies_n, 1);
    assert_int_equal(s->policies[0].limit, 110);
    assert_int_equal(s->routes_n, 1);
    snapshot_unref(s);
    close_world(&w);
}

static void a_burst_of_changes_is_pushed_in_few_steps(void **state)
{
    (void)state;
    struct world w;
    open_world(&w);
    seed(&w);
    w.follower = make_follower(&w, w.edge_bus, NULL);
    WAIT(follower_revision(w.follower) == 5);
    int before = atomic_load(&w.pushes);
    uint64_t revision = 0, began = clock_mono_ms(clock_system());
    for (int i = 0; i < 100; i++) revision = put_policy(&w, i, i + 5);
    uint64_t took = clock_mono_ms(clock_system()) - began;
    WAIT(follower_revision(w.follower) == revision);
    /* One at once, then one per 50 ms, and one for what came last. */
    assert_true(atomic_load(&w.pushes) - before <= (int)(took / 50) + 3);
    struct snapshot *s = follower_snapshot(w.follower);
    assert_int_equal(s->policies_n, 100);
    snapshot_unref(s);
    close_world(&w);
}

static void what_was_committed_without_a_bus_is_pushed_when_it_is_back(void **state)
{
    (void)state;
    struct world w;
    open_world(&w);
    seed(&w);
    w.follower = make_follower(&w, w.edge_bus, NULL);
    WAIT(follower_revision(w.follower) == 5);
    bus_fake_away(w.server, true);
    uint64_t revision = put_policy(&w, 0, 77);
    usleep(100000);
    assert_int_equal(follower_revision(w.follower), 5);
    bus_fake_away(w.server, false);
    WAIT(follower_revision(w.follower) == revision);
    close_world(&w);
}

static void what_a_crash_left_in_the_outbox_is_pushed_by_the_next_process(void **state)
{
    (void)state;
    struct world w;
    struct db *d;
    uint64_t pending = 0;
    open_world(&w);
    seed(&w);
    w.follower = make_follower(&w, w.edge_bus, NULL);
    WAIT(follower_revision(w.follower) == 5);
    stop_push(&w);
    uint64_t revision = put_policy(&w, 0, 77);
    assert_int_equal(store_borrow(w.bench.store, &d, NULL), ERR_OK);
    assert_int_equal(outbox_pending(d, &pending, NULL), ERR_OK);
    assert_int_equal(pending, 1);
    start_push(&w);
    WAIT(follower_revision(w.follower) == revision);
    WAIT(push_revision(w.push) == revision);
    assert_int_equal(outbox_pending(d, &pending, NULL), ERR_OK);
    assert_int_equal(pending, 0);
    store_return(w.bench.store, d);
    close_world(&w);
}

struct keys {
    int manifests, parts;
    bool first;
};

static void count_key(void *ctx, struct str key)
{
    struct keys *k = ctx;
    if (str_starts(key, STR("manifest."))) k->manifests++;
    if (str_starts(key, STR("part."))) k->parts++;
    if (str_eqz(key, "manifest.1")) k->first = true;
}

static void the_bucket_keeps_the_last_manifests_and_what_they_need(void **state)
{
    (void)state;
    struct world w;
    struct bus_kv *kv;
    struct keys keys = { 0, 0, false };
    open_world(&w);
    seed(&w);
    for (int i = 0; i < 90; i++) {
        uint64_t revision = put_policy(&w, 0, 1000 + i);
        WAIT(push_revision(w.push) == revision);
        if (i != 50) continue;
        stop_push(&w); /* another process knows the manifests only from the bucket */
        start_push(&w);
    }
    assert_int_equal(bus_kv_open(w.edge_bus, "AIGW_CONFIG", false, &kv, NULL), ERR_OK);
    assert_int_equal(bus_kv_keys(kv, count_key, &keys), ERR_OK);
    bus_kv_close(kv);
    assert_in_range(keys.manifests, SNAPSHOT_KEEP, SNAPSHOT_KEEP + 8);
    /* Each manifest has a page and a policy part of its own; four parts never changed. */
    assert_int_equal(keys.parts, 2 * keys.manifests + 4);
    assert_false(keys.first);
    w.follower = make_follower(&w, w.edge_bus, NULL);
    WAIT(follower_revision(w.follower) == 95);
    close_world(&w);
}

static void a_store_that_began_a_new_history_is_followed_backwards(void **state)
{
    (void)state;
    struct world w;
    open_world(&w);
    seed(&w);
    put_policy(&w, 0, 77);
    w.follower = make_follower(&w, w.edge_bus, NULL);
    WAIT(follower_revision(w.follower) == 6);
    stop_push(&w);
    bench_done(&w.bench);
    bench_init(&w.bench); /* an empty one in its place */
    start_push(&w);
    WAIT(store_is_open(w.bench.store));
    usleep(300000);
    assert_int_equal(follower_revision(w.follower), 6); /* an empty store wipes nothing out */
    bench_put(&w.bench, KIND_NAMESPACE, "{\"slug\":\"fresh\"}", NULL, NULL);
    WAIT(follower_revision(w.follower) == 1);
    struct snapshot *s = follower_snapshot(w.follower);
    assert_int_equal(s->namespaces_n, 1);
    assert_true(str_eqz(s->namespaces[0].slug, "fresh"));
    snapshot_unref(s);
    close_world(&w);
}

static void delete_part(void *ctx, struct str key)
{
    struct map *m = ctx;
    if (str_starts(key, STR("part."))) assert_int_equal(map_put(m, key, m, NULL), ERR_OK);
}

static void parts_that_the_bucket_lost_come_from_the_config_center(void **state)
{
    (void)state;
    struct world w;
    struct bus_kv *kv;
    struct map names;
    struct map_entry *e;
    size_t i = 0;
    open_world(&w);
    seed(&w);
    WAIT(push_revision(w.push) == 5);
    map_init(&names, 1000);
    assert_int_equal(bus_kv_open(w.edge_bus, "AIGW_CONFIG", false, &kv, NULL), ERR_OK);
    assert_int_equal(bus_kv_keys(kv, delete_part, &names), ERR_OK);
    bool damage = true;
    while ((e = map_next(&names, &i)) != NULL) {
        /* Half are gone, half hold something else than their name says. */
        assert_int_equal(damage ? bus_kv_put(kv, e->key.p, STR("{\"kind\":\"index\"}"))
                                : bus_kv_delete(kv, e->key.p),
                         ERR_OK);
        damage = !damage;
    }
    map_done(&names);
    bus_kv_close(kv);
    w.follower = make_follower(&w, w.edge_bus, NULL);
    WAIT(follower_revision(w.follower) == 5);
    close_world(&w);
}

static void an_emptied_bucket_is_filled_again(void **state)
{
    (void)state;
    struct world w;
    struct bus_kv *kv;
    open_world(&w);
    seed(&w);
    WAIT(push_revision(w.push) == 5);
    assert_int_equal(bus_kv_open(w.edge_bus, "AIGW_CONFIG", false, &kv, NULL), ERR_OK);
    assert_int_equal(bus_kv_delete(kv, "latest"), ERR_OK);
    struct buf b;
    buf_init(&b, 65536);
    WAIT(bus_kv_get(kv, "latest", &b, NULL) == ERR_OK); /* looked at every 5 s */
    buf_done(&b);
    bus_kv_close(kv);
    close_world(&w);
}

static const struct json *applied_of(struct json *list)
{
    const struct json *it = json_first(list);
    while (it != NULL && !str_eqz(json_str(json_get(it, "instance")), "edge-1")) it = json_next(it);
    return json_get(it, "applied");
}

static bool fleet_has(struct fleet *f, uint64_t revision, bool ok)
{
    struct json *list = fleet_list(f);
    const struct json *applied = applied_of(list);
    uint64_t r = 0;
    bool o = false;
    bool has = json_get_u64(applied, "revision", &r) == ERR_OK &&
               json_get_bool(applied, "ok", &o) == ERR_OK && r == revision && o == ok;
    if (has && !ok) assert_true(str_eqz(json_str(json_get(applied, "error")), "not to my taste"));
    json_free(list);
    return has;
}

static void a_refused_snapshot_leaves_the_old_one_and_says_so(void **state)
{
    (void)state;
    struct world w;
    open_world(&w);
    seed(&w);
    w.follower = make_follower(&w, w.edge_bus, NULL);
    WAIT(follower_revision(w.follower) == 5);
    WAIT(fleet_has(w.fleet, 5, true));
    atomic_store(&w.refuse_from, 6);
    put_policy(&w, 0, 77);
    WAIT(fleet_has(w.fleet, 6, false));
    assert_int_equal(follower_revision(w.follower), 5);
    atomic_store(&w.refuse_from, 0);
    uint64_t revision = put_policy(&w, 0, 78);
    WAIT(follower_revision(w.follower) == revision);
    WAIT(fleet_has(w.fleet, revision, true));
    close_world(&w);
}

static void a_lost_announcement_is_found_out(void **state)
{
    (void)state;
    struct world w;
    open_world(&w);
    seed(&w);
    w.follower = make_follower(&w, w.edge_bus, NULL);
    WAIT(follower_revision(w.follower) == 5);
    bus_fake_lose(w.server, "aigw.config.changed", 1);
    uint64_t revision = put_policy(&w, 0, 77);
    WAIT(follower_revision(w.follower) == revision);
    close_world(&w);
}

static void an_old_announcement_changes_nothing(void **state)
{
    (void)state;
    struct world w;
    struct bus_kv *kv;
    struct buf old;
    open_world(&w);
    seed(&w);
    WAIT(push_revision(w.push) == 5);
    uint64_t revision = put_policy(&w, 0, 77);
    WAIT(push_revision(w.push) == revision);
    w.follower = make_follower(&w, w.edge_bus, NULL);
    WAIT(follower_revision(w.follower) == revision);
    buf_init(&old, 65536);
    assert_int_equal(bus_kv_open(w.edge_bus, "AIGW_CONFIG", false, &kv, NULL), ERR_OK);
    assert_int_equal(bus_kv_get(kv, "manifest.5", &old, NULL), ERR_OK);
    assert_int_equal(bus_publish(w.config_bus, "aigw.config.changed", buf_str(&old)), ERR_OK);
    assert_int_equal(bus_publish(w.config_bus, "aigw.config.changed", STR("rubbish")), ERR_OK);
    bus_fake_settle(w.server);
    usleep(300000);
    assert_int_equal(follower_revision(w.follower), revision);
    bus_kv_close(kv);
    buf_done(&old);
    close_world(&w);
}

static void the_last_good_snapshot_is_on_disk(void **state)
{
    (void)state;
    struct world w;
    char command[256];
    open_world(&w);
    seed(&w);
    w.follower = make_follower(&w, w.edge_bus, w.state_dir);
    WAIT(follower_revision(w.follower) == 5);
    uint64_t revision = put_policy(&w, 0, 77);
    WAIT(follower_revision(w.follower) == revision);
    follower_free(w.follower); /* waits until it is written */
    bus_fake_away(w.server, true);
    w.follower = make_follower(&w, w.edge_bus, w.state_dir);
    WAIT(follower_revision(w.follower) == revision);
    assert_int_equal(follower_parts_fetched(w.follower), 0);
    follower_free(w.follower);
    /* One changed byte in a part: not used, also not in pieces. */
    (void)snprintf(command, sizeof(command),
                   "cd %s/snapshot && for f in ????????????????*.json; do sed -i s/77/78/ $f; done",
                   w.state_dir);
    assert_int_equal(system(command), 0);
    w.follower = make_follower(&w, w.edge_bus, w.state_dir);
    usleep(300000);
    assert_null(follower_snapshot(w.follower));
    /* With the bus back it is fetched, and the disk is right again. */
    bus_fake_away(w.server, false);
    WAIT(follower_revision(w.follower) == revision);
    follower_free(w.follower);
    bus_fake_away(w.server, true);
    w.follower = make_follower(&w, w.edge_bus, w.state_dir);
    WAIT(follower_revision(w.follower) == revision);
    close_world(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_change_moves_only_its_own_part),
        cmocka_unit_test(a_burst_of_changes_is_pushed_in_few_steps),
        cmocka_unit_test(what_was_committed_without_a_bus_is_pushed_when_it_is_back),
        cmocka_unit_test(what_a_crash_left_in_the_outbox_is_pushed_by_the_next_process),
        cmocka_unit_test(the_bucket_keeps_the_last_manifests_and_what_they_need),
        cmocka_unit_test(a_store_that_began_a_new_history_is_followed_backwards),
        cmocka_unit_test(parts_that_the_bucket_lost_come_from_the_config_center),
        cmocka_unit_test(an_emptied_bucket_is_filled_again),
        cmocka_unit_test(a_refused_snapshot_leaves_the_old_one_and_says_so),
        cmocka_unit_test(a_lost_announcement_is_found_out),
        cmocka_unit_test(an_old_announcement_changes_nothing),
        cmocka_unit_test(the_last_good_snapshot_is_on_disk),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
