/* SPDX-License-Identifier: Apache-2.0 */
/* Usage records from the edge into a real JetStream: each once, whoever dies. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <time.h>

#include <cmocka.h>

#include "../support_nats.h"
#include "base/log.h"
#include "base/uuid.h"
#include "proto/subjects.h"
#include "proto/usage_batch.h"
#include "services/edge/records/usage.h"

enum { WORKERS = 2, PER_WORKER = 1500, RECORDS_MAX = 20000 };

struct fixture {
    struct nats_server nats;
    struct usage_settings settings;
    char dir[64];
};

static int setup(void **state)
{
    struct fixture *f = xcalloc(1, sizeof *f);
    log_setup("test", "test", LOG_OFF);
    nats_server_start(&f->nats, NULL);
    f->settings = (struct usage_settings){ .max_bytes = 64 << 20, .sync_ms = 5, .records = true };
    (void)snprintf(f->dir, sizeof f->dir, "/tmp/test-usage-XXXXXX");
    assert_non_null(mkdtemp(f->dir));
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    nats_server_done(&f->nats);
    (void)nftw(f->dir, nats_server_rm, 16, FTW_DEPTH | FTW_PHYS);
    free(f);
    return 0;
}

static void note_problem(void *ctx, const char *why)
{
    if (strstr(why, "max_payload of the server is 512 bytes") != NULL)
        atomic_store((atomic_bool *)ctx, true);
}

/* told, should it not be NULL, becomes true when a limit of 512 bytes is reported. */
static struct bus *open_bus_at(const char *url, atomic_bool *told)
{
    return bus_new(&(struct bus_options){ .url = url,
                                          .instance = "edge-1",
                                          .service = "edge",
                                          .version = "0",
                                          .description = "test",
                                          .prefix = "aigw",
                                          .clock = clock_system(),
                                          .rng = rng_system(),
                                          .on_error = told != NULL ? note_problem : NULL,
                                          .ctx = told });
}

static struct bus *open_bus(struct fixture *f)
{
    return open_bus_at(f->nats.url, NULL);
}

static struct bus *open_no_bus(void)
{
    return open_bus_at("nats://127.0.0.1:1", NULL);
}

static struct usage *open_usage(struct fixture *f, struct bus *bus, const char *instance)
{
    struct usage *u = NULL;
    struct why why = { "" };
    struct usage_options o = { .state_dir = f->dir,
                               .workers = WORKERS,
                               .settings = &f->settings,
                               .bus = bus,
                               .instance = instance,
                               .clock = clock_system(),
                               .rng = rng_system() };
    if (usage_new(&o, &u, &why) != ERR_OK) fail_msg("%s", why.text);
    return u;
}

static void wait_ms(long ms)
{
    struct timespec t = { ms / 1000, ms % 1000 * 1000000 };
    (void)nanosleep(&t, NULL);
}

#define UNTIL(cond)                                                \
    do {                                                           \
        for (int tries_ = 0; !(cond); tries_++) {                  \
            if (tries_ > 12000) fail_msg("never came: %s", #cond); \
            wait_ms(5);                                            \
        }                                                          \
    } while (0)

static void make_stream(struct bus *bus)
{
    struct bus_stream s = { .name = "AIGW_USAGE",
                            .subjects = { "aigw.usage.*" },
                            .duplicates_ns = 120000000000,
                            .discard_new = true };
    UNTIL(bus_stream_ensure(bus, &s, NULL) == ERR_OK);
}

/* A record with a number in its id. */
struct made {
    char id[UUID_LEN + 1];
    struct usage_record r;
};

static const struct usage_record *make(struct made *m, unsigned n)
{
    (void)snprintf(m->id, sizeof m->id, "00000000-0000-7000-8000-%012u", n);
    m->r = (struct usage_record){ .id = str_of(m->id),
                                  .ts_ms = 1736496930123u,
                                  .edge = STR("edge-1"),
                                  .namespace_slug = n % 2 == 0 ? STR("team-a") : STR("team-b"),
                                  .model = STR("Qwen3-8B"),
                                  .input_tokens = 9,
                                  .input_source = USAGE_SOURCE_EXACT,
                                  .cost = { 900, STR("USD"), 1 } };
    return &m->r;
}

/* What is in the stream. */
struct content {
    unsigned count, messages, batches;
    struct {
        bool seen;
        enum usage_outcome outcome;
        uint64_t output_tokens;
        int64_t cost;
        bool from_successor, fell_back;
    } of[RECORDS_MAX];
};

struct reading {
    struct content *c;
    struct str subject;
};

static void read_part(void *ctx, const struct usage_part *p)
{
    const struct reading *reading = ctx;
    struct content *c = reading->c;
    uint64_t n = 0;
    if (p->e != ERR_OK) fail_msg("%s", p->why);
    const struct usage_record *r = p->record;
    assert_int_equal(str_to_u64(str_n(r->id.p + 24, 12), &n), ERR_OK);
    assert_in_range(n, 0, RECORDS_MAX - 1);
    assert_false(c->of[n].seen);
    assert_true(str_ends(reading->subject, n % 2 == 0 ? STR(".team-a") : STR(".team-b")));
    c->of[n].seen = true;
    c->of[n].outcome = r->outcome;
    c->of[n].output_tokens = r->output_tokens;
    c->of[n].cost = r->cost.nano;
    c->of[n].from_successor = str_eqz(r->from, "edge-2") && str_eqz(r->edge, "edge-1");
    c->of[n].fell_back = str_eqz(r->upstream, "second");
    if (!c->of[n].fell_back) assert_true(str_eqz(r->model, "Qwen3-8B"));
    c->count++;
    if (!p->alone && p->index == 0) c->batches++;
}

static void read_one(struct content *c, struct bus_js_msg *m)
{
    struct arena arena;
    struct why why = { "" };
    struct reading reading = { c, bus_js_subject(m) };
    arena_init(&arena, 256 * 1024);
    if (usage_read(bus_js_data(m), &arena, read_part, &reading, &why) != ERR_OK)
        fail_msg("%s", why.text);
    c->messages++;
    arena_done(&arena);
}

/* Reads what is there: so many records, and what should not be there. */
static struct content *read_stream(struct bus *bus, size_t want)
{
    struct bus_consumer_options o = { "AIGW_USAGE", "metrics", 30000, 10000 };
    struct bus_consumer *consumer = NULL;
    struct bus_js_msg *msgs[256];
    struct content *c = xcalloc(1, sizeof *c);
    int n = 0;
    UNTIL(bus_consumer_open(bus, &o, &consumer, NULL) == ERR_OK);
    while (bus_consumer_fetch(consumer, 256, c->count < want ? 60000 : 1500, msgs, &n) == ERR_OK) {
        for (int i = 0; i < n; i++) {
            read_one(c, msgs[i]);
            bus_js_ack(msgs[i]);
        }
    }
    bus_consumer_close(consumer);
    return c;
}

/* --- tests --- */

static void settled_and_refused_requests_are_published_once(void **state)
{
    struct fixture *f = *state;
    struct bus *bus = open_bus(f);
    make_stream(bus);
    struct usage *u = open_usage(f, bus, "edge-1");
    struct usage_handle *h = NULL;
    struct made m;
    struct usage_record r = *make(&m, 0);
    assert_int_equal(usage_open(u, 0, &r, &h), ERR_OK);
    assert_non_null(h);
    usage_progress(h, 5, 100, 10);
    assert_int_equal(usage_pending(u), 1);
    r.outcome = USAGE_CUT;
    r.output_tokens = 64;
    usage_settle(u, 0, h, &r);
    struct made refused;
    struct usage_record no = *make(&refused, 1);
    no.outcome = USAGE_REJECTED;
    no.status = 429;
    usage_settle(u, 1, NULL, &no);
    assert_true(usage_flush(u, 60000));
    assert_int_equal(usage_pending(u), 0);
    struct usage_stats st;
    usage_stats(u, &st);
    assert_int_equal(st.published, 2);
    assert_int_equal(st.lost, 0);
    usage_free(u);
    struct content *c = read_stream(bus, 2);
    assert_int_equal(c->count, 2);
    assert_int_equal(c->of[0].outcome, USAGE_CUT);
    assert_int_equal(c->of[0].output_tokens, 64);
    assert_int_equal(c->of[1].outcome, USAGE_REJECTED);
    free(c);
    bus_free(bus);
}

/* What a record said at its opening is not what counts when it went elsewhere. */
static void a_request_that_fell_back_is_recorded_where_it_went(void **state)
{
    struct fixture *f = *state;
    struct bus *bus = open_bus(f);
    make_stream(bus);
    struct usage *u = open_usage(f, bus, "edge-1");
    for (unsigned n = 0; n < 40; n++) {
        struct usage_handle *h = NULL;
        struct made m;
        struct usage_record r = *make(&m, n);
        r.upstream = STR("first");
        assert_int_equal(usage_open(u, n % WORKERS, &r, &h), ERR_OK);
        if (n % 4 == 1) r.upstream = STR("second");
        r.outcome = USAGE_OK;
        r.output_tokens = n;
        usage_settle(u, n % WORKERS, h, &r);
    }
    assert_true(usage_flush(u, 60000));
    usage_free(u);
    struct content *c = read_stream(bus, 40);
    assert_int_equal(c->count, 40);
    for (unsigned n = 0; n < 40; n++) {
        assert_int_equal(c->of[n].fell_back, n % 4 == 1);
        assert_int_equal(c->of[n].outcome, USAGE_OK);
        assert_int_equal(c->of[n].output_tokens, n);
    }
    free(c);
    bus_free(bus);
}

struct worker {
    struct usage *u;
    unsigned index;
    pthread_t thread;
};

static void *work(void *arg)
{
    struct worker *w = arg;
    for (unsigned i = 0; i < PER_WORKER; i++) {
        struct usage_handle *h = NULL;
        struct made m;
        struct usage_record r = *make(&m, w->index * PER_WORKER + i);
        ASSERT(usage_open(w->u, w->index, &r, &h) == ERR_OK);
        usage_progress(h, i, 2, 3);
        r.outcome = USAGE_OK;
        r.output_tokens = 7;
        usage_settle(w->u, w->index, h, &r);
        if (i % 50 == 0) wait_ms(5);
    }
    return NULL;
}

static void nothing_is_lost_while_the_bus_is_killed(void **state)
{
    struct fixture *f = *state;
    struct bus *bus = open_bus(f);
    make_stream(bus);
    struct usage *u = open_usage(f, bus, "edge-1");
    struct worker w[WORKERS];
    for (unsigned i = 0; i < WORKERS; i++) {
        w[i] = (struct worker){ .u = u, .index = i };
        assert_int_equal(pthread_create(&w[i].thread, NULL, work, &w[i]), 0);
    }
    for (int i = 0; i < 3; i++) {
        wait_ms(40);
        nats_server_kill(&f->nats);
        wait_ms(60);
        nats_server_start(&f->nats, NULL);
    }
    for (unsigned i = 0; i < WORKERS; i++) (void)pthread_join(w[i].thread, NULL);
    assert_true(usage_flush(u, 60000));
    struct usage_stats st;
    usage_stats(u, &st);
    assert_int_equal(st.published, WORKERS * PER_WORKER);
    usage_free(u);
    struct content *c = read_stream(
        bus, WORKERS * PER_WORKER); /* which fails on a record that is there twice */
    assert_int_equal(c->count, WORKERS * PER_WORKER);
    assert_in_range(c->messages, 2, c->count / 4); /* most went together */
    assert_in_range(c->batches, 2, c->messages);
    free(c);
    bus_free(bus);
}

/* An edge that has no bus, and is killed: 0 … 99 settled, 100 … 149 open, with progress for some.
 */
static void be_an_edge_that_dies(struct fixture *f)
{
    struct bus *bus = open_no_bus();
    struct usage *u = open_usage(f, bus, "edge-1");
    for (unsigned n = 0; n < 150; n++) {
        struct usage_handle *h = NULL;
        struct made m;
        struct usage_record r = *make(&m, n);
        if (usage_open(u, n / 2 % WORKERS, &r, &h) != ERR_OK) _exit(1);
        if (n >= 100) {
            if (n % 5 == 0) usage_progress(h, n, (int64_t)n * 10, 1000);
            continue;
        }
        r.outcome = USAGE_OK;
        r.output_tokens = 1;
        usage_settle(u, n / 2 % WORKERS, h, &r);
    }
    (void)raise(SIGKILL);
}

static void a_killed_edge_is_accounted_for_by_the_next(void **state)
{
    struct fixture *f = *state;
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) be_an_edge_that_dies(f);
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);

    struct bus *bus = open_bus(f);
    make_stream(bus);
    struct usage *u = open_usage(f, bus, "edge-2");
    struct usage_stats st;
    usage_stats(u, &st);
    assert_int_equal(st.adopted, 150);
    assert_int_equal(st.crashed, 50);
    assert_true(usage_flush(u, 60000));
    usage_free(u);
    struct content *c = read_stream(bus, 150);
    assert_int_equal(c->count, 150);
    for (unsigned n = 0; n < 150; n++) {
        assert_int_equal(c->of[n].outcome, n < 100 ? USAGE_OK : USAGE_CRASHED);
        assert_int_equal(c->of[n].from_successor, n >= 100);
        if (n < 100) continue;
        assert_int_equal(c->of[n].output_tokens, n % 5 == 0 ? n : 0);
        assert_int_equal(c->of[n].cost, n % 5 == 0 ? n * 10 : 900); /* else that of the input */
    }
    free(c);
    bus_free(bus);
}

static void a_server_that_takes_little_gets_small_messages(void **state)
{
    struct fixture *f = *state;
    nats_server_kill(&f->nats);
    nats_server_start(&f->nats, "max_payload: 4096\n");
    struct bus *bus = open_bus(f);
    make_stream(bus);
    assert_int_equal(bus_payload_max(bus), 4096);
    struct usage *u = open_usage(f, bus, "edge-1");
    for (unsigned n = 0; n < 200; n++) {
        struct made m;
        usage_settle(u, 0, NULL, make(&m, n));
    }
    assert_true(usage_flush(u, 60000));
    struct usage_stats st;
    usage_stats(u, &st);
    assert_int_equal(st.published, 200);
    assert_int_equal(st.retries, 0);
    usage_free(u);
    struct content *c = read_stream(bus, 200);
    assert_int_equal(c->count, 200);
    assert_in_range(c->messages, 30, 150);
    free(c);
    bus_free(bus);
}

static struct usage_stats stats_of(struct usage *u)
{
    struct usage_stats st;
    usage_stats(u, &st);
    return st;
}

static void a_record_that_the_server_does_not_take_waits_until_it_does(void **state)
{
    struct fixture *f = *state;
    atomic_bool told = false;
    struct bus *bus = open_bus(f);
    make_stream(bus);
    bus_free(bus);
    nats_server_kill(&f->nats);
    nats_server_start(&f->nats, "max_payload: 512\n");
    bus = open_bus_at(f->nats.url, &told);
    struct usage *u = open_usage(f, bus, "edge-1");
    struct made m;
    char user[USAGE_TEXT_MAX];
    memset(user, 'u', sizeof user);
    make(&m, 1);
    m.r.user = m.r.upstream_model = str_n(user, sizeof user);
    usage_settle(u, 0, NULL, &m.r);
    UNTIL(atomic_load(&told));
    UNTIL(stats_of(u).retries >= 2);
    assert_int_equal(stats_of(u).published, 0);
    nats_server_kill(&f->nats);
    nats_server_start(&f->nats, "max_payload: 1MB\n");
    UNTIL(stats_of(u).published == 1);
    usage_free(u);
    struct content *c = read_stream(bus, 1);
    assert_int_equal(c->count, 1);
    free(c);
    bus_free(bus);
}

static void a_full_spool_refuses_or_serves_as_it_is_told(void **state)
{
    struct fixture *f = *state;
    struct bus *bus = open_no_bus();
    for (int refuses = 0; refuses < 2; refuses++) {
        f->settings = (struct usage_settings){
            .max_bytes = 1 << 20, .sync_ms = 5, .records = true, .full_refuses = refuses == 1
        };
        struct usage *u = open_usage(f, bus, "edge-1");
        enum err e = ERR_OK;
        unsigned n = 0;
        struct usage_stats st = { 0 };
        for (; n < RECORDS_MAX && e == ERR_OK && st.unprotected == 0; n++) {
            struct usage_handle *h = NULL;
            struct made m;
            const struct usage_record *r = make(&m, n);
            e = usage_open(u, 0, r, &h);
            if (e == ERR_OK) usage_settle(u, 0, h, r);
            usage_stats(u, &st);
        }
        assert_in_range(n, 500, RECORDS_MAX - 1);
        assert_int_equal(e, refuses ? ERR_LIMIT : ERR_OK);
        assert_int_equal(st.refused, refuses ? 1 : 0);
        assert_int_equal(st.lost, refuses ? 0 : 1);
        usage_free(u);
        (void)nftw(f->dir, nats_server_rm, 16, FTW_DEPTH | FTW_PHYS);
        assert_int_equal(mkdir(f->dir, 0700), 0);
    }
    bus_free(bus);
}

static void without_records_nothing_is_opened_and_each_call_is_fine(void **state)
{
    struct fixture *f = *state;
    struct made m;
    struct usage_stats st;
    struct usage_handle *h = NULL;
    char path[sizeof f->dir + 16];
    f->settings.records = false;
    struct usage *u = open_usage(f, NULL, "edge-1");
    assert_null(u);
    assert_int_equal(usage_open(u, 0, make(&m, 1), &h), ERR_OK);
    assert_null(h);
    usage_progress(h, 1, 1, 1);
    usage_settle(u, 0, h, &m.r);
    assert_int_equal(usage_pending(u), 0);
    assert_true(usage_flush(u, 1000));
    usage_stats(u, &st);
    assert_int_equal(st.open + st.settled + st.spool_bytes + st.lost + st.unprotected, 0);
    usage_free(u);
    (void)snprintf(path, sizeof path, "%s/spool", f->dir);
    assert_int_equal(access(path, F_OK), -1);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        /* First, because it forks: the bus leaves threads behind. */
        T(a_killed_edge_is_accounted_for_by_the_next),
        T(settled_and_refused_requests_are_published_once),
        T(a_request_that_fell_back_is_recorded_where_it_went),
        T(nothing_is_lost_while_the_bus_is_killed),
        T(a_server_that_takes_little_gets_small_messages),
        T(a_record_that_the_server_does_not_take_waits_until_it_does),
        T(a_full_spool_refuses_or_serves_as_it_is_told),
        T(without_records_nothing_is_opened_and_each_call_is_fine),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
