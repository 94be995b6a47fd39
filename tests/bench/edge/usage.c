/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What usage records cost the edge at a steady rate, with a real JetStream behind: the worker's
 * part (opened, settled), and each thread of the spool, the publisher and its bus connection.
 *
 *   usage [--rate R] [--seconds S] [--namespaces N] [--cpu C]
 *
 * Lines of JSON: {"records","per_second","messages","worker_us","others_us"}, {"write":…} with how
 * long single writes took (wall clock, so that what other programs do counts), then {"thread",…}
 * for each. CPU is per record. With --cpu the process keeps to that CPU, the server to the others.
 */
#include <dirent.h>
#include <sched.h>
#include <time.h>

#include "base/heap.h"
#include "base/log.h"
#include "base/uuid.h"
#include "services/edge/records/usage.h"
#include "tests/unit/support_nats.h"

enum { BURST_NS = 1000000, OPEN_AT_ONCE = 64, THREADS_MAX = 64, BUCKETS = 4096, BUCKET_NS = 250 };

struct load {
    unsigned rate, seconds, namespaces;
    int cpu;
    char dir[64];
    struct usage *usage;
    struct usage_handle *open[OPEN_AT_ONCE];
    char ids[OPEN_AT_ONCE][UUID_LEN + 1];
    uint64_t ts[OPEN_AT_ONCE];
    uint64_t writes[BUCKETS + 1], slowest_ns, begun;
};

static uint64_t now_ns(clockid_t c)
{
    struct timespec t;
    (void)clock_gettime(c, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void wait_ns(uint64_t until)
{
    struct timespec t = { (time_t)(until / 1000000000u), (long)(until % 1000000000u) };
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL) == EINTR) continue;
}

/* --- records --- */

static void fill(const struct load *l, uint64_t n, struct usage_record *r, char slug[32])
{
    (void)snprintf(slug, 32, "team-%u", (unsigned)(n % l->namespaces));
    *r = (struct usage_record){ .id = str_of(l->ids[n % OPEN_AT_ONCE]),
                                .ts_ms = l->ts[n % OPEN_AT_ONCE],
                                .from = STR("edge-1"),
                                .edge = STR("edge-1"),
                                .namespace_slug = str_of(slug),
                                .namespace_id = STR("01a2063a-e052-7d51-b2ed-44f116c357a6"),
                                .key_id = STR("01a2063a-e052-7a00-9a52-0f6f4a1f7f2b"),
                                .route = STR("chat"),
                                .route_id = STR("01a2063a-e052-7b11-8c1d-1f2a3b4c5d6e"),
                                .dialect = STR("openai"),
                                .model = STR("Qwen3-8B"),
                                .upstream_model = STR("Qwen/Qwen3-8B"),
                                .upstream = STR("vllm"),
                                .upstream_id = STR("01a2063a-e052-7c22-9d3e-2a3b4c5d6e7f"),
                                .input_tokens = 130,
                                .input_source = USAGE_SOURCE_EXACT,
                                .cost = { 26000, STR("USD"), 3 },
                                .revision = 42 };
}

static void note(struct load *l, uint64_t ns)
{
    l->writes[MIN(ns / BUCKET_NS, (uint64_t)BUCKETS)]++;
    l->slowest_ns = MAX(l->slowest_ns, ns);
}

/* Settles the oldest of the open records, opens one more. */
static void one(struct load *l)
{
    uint64_t n = l->begun++;
    struct usage_handle **h = &l->open[n % OPEN_AT_ONCE];
    struct usage_record r;
    char slug[32];
    if (n >= OPEN_AT_ONCE) {
        fill(l, n - OPEN_AT_ONCE, &r, slug);
        r.status = 200;
        r.outcome = USAGE_OK;
        r.output_tokens = 300;
        r.output_source = USAGE_SOURCE_EXACT;
        r.upstream_reported.known = true;
        r.upstream_reported.input = 130, r.upstream_reported.output = 300;
        r.attempts[r.attempts_n++] = (struct usage_attempt){ STR("vllm"), STR("vllm-1"), 200, 300,
                                                             3 };
        r.has_ttft = true;
        r.duration_ms = 3, r.overhead_us = 90;
        uint64_t at = now_ns(CLOCK_MONOTONIC);
        usage_settle(l->usage, 0, *h, &r);
        note(l, now_ns(CLOCK_MONOTONIC) - at);
    }
    uuid_v7(clock_system(), rng_system(), l->ids[n % OPEN_AT_ONCE]);
    l->ts[n % OPEN_AT_ONCE] = clock_wall_ms(clock_system());
    fill(l, n, &r, slug);
    uint64_t at = now_ns(CLOCK_MONOTONIC);
    ASSERT(usage_open(l->usage, 0, &r, h) == ERR_OK);
    note(l, now_ns(CLOCK_MONOTONIC) - at);
}

/* What a record costs here that is not of the edge. */
static uint64_t own_cpu_ns(struct load *l)
{
    enum { N = 20000 };
    struct usage_record r;
    char slug[32];
    uint64_t at = now_ns(CLOCK_THREAD_CPUTIME_ID), sum = 0;
    for (unsigned i = 0; i < N; i++) {
        uuid_v7(clock_system(), rng_system(), l->ids[0]);
        for (int k = 0; k < 2; k++) {
            fill(l, i, &r, slug);
            sum += now_ns(CLOCK_MONOTONIC);
            sum -= now_ns(CLOCK_MONOTONIC);
        }
    }
    return (now_ns(CLOCK_THREAD_CPUTIME_ID) - at + (sum == 1)) / N;
}

/* --- threads --- */

struct thread {
    int id;
    char name[32];
    uint64_t cpu_ns, switches;
};

static bool read_line(const char *path, char *out, size_t cap)
{
    FILE *f = fopen(path, "r");
    if (f == NULL) return false;
    bool ok = fgets(out, (int)cap, f) != NULL;
    (void)fclose(f);
    if (ok) out[strcspn(out, "\n")] = '\0';
    return ok;
}

static size_t read_threads(struct thread list[THREADS_MAX])
{
    char path[128], line[128];
    size_t n = 0;
    DIR *d = opendir("/proc/self/task");
    struct dirent *e;
    while (d != NULL && (e = readdir(d)) != NULL && n < THREADS_MAX) {
        unsigned long long cpu, waited, slices;
        struct thread *t = &list[n];
        if (e->d_name[0] == '.') continue;
        (void)snprintf(path, sizeof path, "/proc/self/task/%.20s/comm", e->d_name);
        if (!read_line(path, t->name, sizeof t->name)) continue;
        (void)snprintf(path, sizeof path, "/proc/self/task/%.20s/schedstat", e->d_name);
        if (!read_line(path, line, sizeof line) ||
            sscanf(line, "%llu %llu %llu", &cpu, &waited, &slices) != 3)
            continue;
        if (sscanf(e->d_name, "%d", &t->id) != 1) continue;
        t->cpu_ns = cpu;
        t->switches = slices;
        n++;
    }
    if (d != NULL) (void)closedir(d);
    return n;
}

/* --- the run --- */

static uint64_t percentile(const struct load *l, double part)
{
    uint64_t all = 0, seen = 0;
    for (size_t i = 0; i <= BUCKETS; i++) all += l->writes[i];
    for (size_t i = 0; i <= BUCKETS; i++) {
        seen += l->writes[i];
        if ((double)seen >= part * (double)all) return (i + 1) * BUCKET_NS;
    }
    return 0;
}

static void run(struct load *l)
{
    static struct thread before[THREADS_MAX], after[THREADS_MAX];
    uint64_t own = own_cpu_ns(l), others = 0;
    unsigned per_burst = MAX(l->rate / 1000, 1u);
    uint64_t at = now_ns(CLOCK_MONOTONIC), end = at + l->seconds * UINT64_C(1000000000);
    uint64_t warm = at + 500000000, first = 0, worker = 0, began = at;
    size_t n = 0, m;
    struct usage_stats from = { 0 }, to;
    for (; at < end; at += BURST_NS) {
        for (unsigned i = 0; i < per_burst; i++) one(l);
        if (at >= warm && first == 0) {
            first = l->begun;
            began = now_ns(CLOCK_MONOTONIC);
            memset(l->writes, 0, sizeof l->writes);
            l->slowest_ns = 0;
            usage_stats(l->usage, &from);
            n = read_threads(before);
            worker = now_ns(CLOCK_THREAD_CPUTIME_ID);
        }
        wait_ns(at + BURST_NS);
    }
    worker = now_ns(CLOCK_THREAD_CPUTIME_ID) - worker;
    m = read_threads(after);
    usage_stats(l->usage, &to);
    double records = (double)(l->begun - first);
    double seconds = (double)(now_ns(CLOCK_MONOTONIC) - began) / 1e9;
    for (size_t i = 0; i < m; i++)
        for (size_t k = 0; k < n; k++)
            if (after[i].id == before[k].id) {
                after[i].cpu_ns -= before[k].cpu_ns;
                after[i].switches -= before[k].switches;
            }
    for (size_t i = 0; i < m; i++)
        if (after[i].id != getpid()) others += after[i].cpu_ns;
    printf("{\"records\":%.0f,\"per_second\":%.0f,\"messages\":%llu,\"lost\":%llu,"
           "\"worker_us\":%.2f,\"others_us\":%.2f}\n",
           records, records / seconds, (unsigned long long)(to.messages - from.messages),
           (unsigned long long)(to.lost + to.unprotected),
           ((double)worker / records - (double)own) / 1e3, (double)others / records / 1e3);
    printf("{\"write\":\"us\",\"median\":%.2f,\"p99\":%.2f,\"p99.9\":%.2f,\"max\":%.1f}\n",
           (double)percentile(l, 0.5) / 1e3, (double)percentile(l, 0.99) / 1e3,
           (double)percentile(l, 0.999) / 1e3, (double)l->slowest_ns / 1e3);
    for (size_t i = 0; i < m; i++)
        if (after[i].id != getpid() && after[i].cpu_ns > 100000)
            printf("{\"thread\":\"%s\",\"us\":%.3f,\"switches_per_second\":%.0f}\n", after[i].name,
                   (double)after[i].cpu_ns / records / 1e3, (double)after[i].switches / seconds);
}

static void keep_to(int cpu, bool others)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    for (int i = 0; i < (int)sysconf(_SC_NPROCESSORS_ONLN); i++)
        if ((i == cpu) != others) CPU_SET(i, &set);
    if (CPU_COUNT(&set) > 0) (void)sched_setaffinity(0, sizeof set, &set);
}

static void make_stream(struct bus *bus)
{
    struct bus_stream s = { .name = "AIGW_USAGE",
                            .subjects = { "aigw.usage.*" },
                            .duplicates_ns = 120000000000,
                            .discard_new = true };
    while (bus_stream_ensure(bus, &s, NULL) != ERR_OK) wait_ns(now_ns(CLOCK_MONOTONIC) + 10000000);
}

int main(int argc, char **argv)
{
    struct load l = { .rate = 20000, .seconds = 5, .namespaces = 1, .cpu = -1 };
    struct nats_server nats = { 0 };
    struct usage_settings settings = { .max_bytes = 1 << 30, .sync_ms = 100, .records = true };
    struct why why = { "" };
    for (int i = 1; i + 1 < argc; i += 2) {
        uint64_t v = 0;
        if (str_to_u64(str_of(argv[i + 1]), &v) != ERR_OK || v > 10000000) return 2;
        if (strcmp(argv[i], "--rate") == 0) l.rate = (unsigned)v;
        if (strcmp(argv[i], "--seconds") == 0) l.seconds = (unsigned)v;
        if (strcmp(argv[i], "--namespaces") == 0) l.namespaces = MAX((unsigned)v, 1u);
        if (strcmp(argv[i], "--cpu") == 0) l.cpu = (int)v;
    }
    heap_keep(); /* as the edge does */
    log_setup("bench", "bench", LOG_WARN);
    if (l.cpu >= 0) keep_to(l.cpu, true);
    nats_server_start(&nats, NULL);
    if (l.cpu >= 0) keep_to(l.cpu, false);
    (void)snprintf(l.dir, sizeof l.dir, "/tmp/bench-usage-XXXXXX");
    if (mkdtemp(l.dir) == NULL) return 1;
    struct bus_options o = { .url = nats.url,
                             .instance = "edge-1",
                             .service = "edge",
                             .version = "0",
                             .description = "bench",
                             .prefix = "aigw",
                             .batches = true,
                             .clock = clock_system(),
                             .rng = rng_system() };
    struct bus *bus = bus_new(&o);
    make_stream(bus);
    struct usage_options uo = { .state_dir = l.dir,
                                .workers = 1,
                                .settings = &settings,
                                .bus = bus,
                                .instance = "edge-1",
                                .clock = clock_system(),
                                .rng = rng_system() };
    if (usage_new(&uo, &l.usage, &why) != ERR_OK) {
        fprintf(stderr, "%s\n", why.text);
        return 1;
    }
    run(&l);
    (void)usage_flush(l.usage, 5000);
    usage_free(l.usage);
    bus_free(bus);
    (void)nftw(l.dir, nats_server_rm, 16, FTW_DEPTH | FTW_PHYS);
    nats_server_done(&nats);
    return 0;
}
