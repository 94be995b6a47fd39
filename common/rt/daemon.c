/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The skeleton of every daemon; see the header. The main thread runs the loop: signals (signalfd),
 * presence, the drain. Ops requests run on the HTTP server's thread.
 */
#include "rt/daemon_impl.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include "proto/envelope.h"
#include "proto/subjects.h"

#define F(member) offsetof(struct common_settings, member)
static const struct opt common_opts[] = {
    { "INSTANCE", OPT_STR, F(instance), NULL, 0, 0, NULL,
      "Name of this process among all: log lines, $SRV id, `from` of messages. Default: the service and the host's name." },
    { "LOG_LEVEL", OPT_LEVEL, F(log_level), "info", 0, 0, NULL,
      "debug, info, warn, error or off." },
    { "OPS_BIND", OPT_ADDRESS, F(ops_bind), "127.0.0.1", 0, 0, NULL,
      "Address of the ops listener (/healthz, /readyz, /metrics)." },
    { "OPS_PORT", OPT_INT, F(ops_port), NULL, 0, 65535, NULL,
      "Port of the ops listener; 0: any free one." },
    { "STATE_DIR", OPT_STR, F(state_dir), "state", 0, 0, NULL,
      "Folder of everything this daemon keeps on disk; made when it is not there." },
    { "NATS_URL", OPT_URL, F(nats_url), "nats://127.0.0.1:4222", 0, 0, NULL,
      "Servers of the bus, separated by commas." },
    { "NATS_USER", OPT_STR, F(nats_user), NULL, 0, 0, NULL,
      "User at the bus; its permissions are in nats.conf." },
    { "NATS_PASSWORD", OPT_SECRET, F(nats_password), NULL, 0, 0, NULL, "Password of NATS_USER." },
    { "SUBJECT_PREFIX", OPT_STR, F(prefix), "aigw", 0, 0, NULL,
      "First token of all subjects, so that environments can share a bus." },
    { "DRAIN_GRACE_MS", OPT_INT, F(drain_grace_ms), "0", 0, 600000, "ms",
      "After SIGTERM: how long to go on accepting while not ready, until load balancers have noticed." },
    { "DRAIN_TIMEOUT_MS", OPT_INT, F(drain_timeout_ms), "30000", 0, 86400000, "ms",
      "How long work in flight may take to end after the grace period." },
};
#undef F

/* --- accessors --- */

const void *daemon_settings(const struct daemon *d)
{
    return d->settings;
}
void daemon_set_state(struct daemon *d, void *state)
{
    d->state = state;
}
void *daemon_state(const struct daemon *d)
{
    return d->state;
}
struct loop *daemon_loop(const struct daemon *d)
{
    return d->loop;
}
struct bus *daemon_bus(const struct daemon *d)
{
    return d->bus;
}
struct metrics *daemon_metrics(const struct daemon *d)
{
    return d->metrics[0];
}
struct metrics *daemon_more_metrics(struct daemon *d)
{
    size_t n = atomic_load(&d->metrics_n);
    if (n == ARRAY_LEN(d->metrics)) return d->metrics[n - 1];
    d->metrics[n] = metrics_new(d->desc->metrics, d->desc->metrics_len);
    atomic_store(&d->metrics_n, n + 1);
    return d->metrics[n];
}
const struct clock *daemon_clock(const struct daemon *d)
{
    return (void)d, clock_system();
}
const struct rng *daemon_rng(const struct daemon *d)
{
    return (void)d, rng_system();
}
const char *daemon_instance(const struct daemon *d)
{
    return d->common.instance;
}
const char *daemon_state_dir(const struct daemon *d)
{
    return d->common.state_dir;
}
bool daemon_is_draining(const struct daemon *d)
{
    return atomic_load(&d->draining);
}
void daemon_set_revision(struct daemon *d, uint64_t revision)
{
    atomic_store(&d->revision, revision);
}
void daemon_set_load(struct daemon *d, uint64_t load)
{
    atomic_store(&d->load, load);
}

void daemon_log_report(void *ctx, int level, const char *what, uint64_t revision, const char *why)
{
    (void)ctx;
    LOG_AT((enum log_level)level, what, LI("revision", revision),
           LS("why", why != NULL ? why : ""));
}

/* --- presence --- */

static void publish_presence(void *ctx)
{
    struct daemon *d = ctx;
    char subject[SUBJECT_LEN];
    struct buf b;
    struct json *m = envelope_new(clock_system(), rng_system(), d->common.instance);
    if (d->desc->inflight != NULL && atomic_load(&d->started))
        atomic_store(&d->load, d->desc->inflight(d));
    json_setz(m, "service", d->desc->name);
    json_setz(m, "version", AIGW_VERSION);
    json_set_u64(m, "revision", atomic_load(&d->revision));
    json_set_u64(m, "load", atomic_load(&d->load));
    json_setz(m, "state", atomic_load(&d->draining) ? "draining" : "serving");
    if (d->desc->presence != NULL && atomic_load(&d->started)) d->desc->presence(d, m);
    buf_init(&b, 4096);
    subject_make(d->common.prefix, SUBJECT_PRESENCE, NULL, subject);
    if (json_print(m, &b) == ERR_OK && bus_publish(d->bus, subject, buf_str(&b)) != ERR_OK)
        log_debug("presence not published: the bus is away");
    buf_done(&b);
    json_free(m);
    uint64_t ms = d->desc->presence_ms > 0 ? (uint64_t)d->desc->presence_ms : PRESENCE_MS;
    loop_timer_set(d->loop, &d->presence_timer, loop_now_ns(d->loop) + ms * 1000000u,
                   publish_presence, d);
}

static void bus_state(void *ctx, bool connected, const char *why)
{
    (void)ctx;
    if (connected)
        log_info("connected to the bus", LS("nats", why));
    else
        log_warn("the bus is away: retrying in the background", LS("why", why));
}

static void bus_problem(void *ctx, const char *why)
{
    (void)ctx;
    log_warn("the bus reports a problem", LS("why", why));
}

/* --- the end --- */

static void drain_step(void *ctx)
{
    struct daemon *d = ctx;
    uint64_t now = loop_now_ns(d->loop);
    if (d->phase == PHASE_GRACE) {
        d->phase = PHASE_DRAINING;
        d->drain_deadline = now + (uint64_t)d->common.drain_timeout_ms * 1000000u;
        if (d->desc->quiesce != NULL) d->desc->quiesce(d);
    }
    size_t left = d->desc->inflight != NULL ? d->desc->inflight(d) : 0;
    if (left > 0 && now < d->drain_deadline) {
        loop_timer_set(d->loop, &d->drain_timer, now + DRAIN_POLL_MS * 1000000ull, drain_step, d);
        return;
    }
    if (left > 0)
        log_warn("the drain deadline passed: ending what is in flight", LI("inflight", left));
    d->phase = PHASE_STOPPED;
    loop_stop(d->loop);
}

static void begin_drain(struct daemon *d, const char *why)
{
    if (d->phase != PHASE_SERVING) return;
    d->phase = PHASE_GRACE;
    daemon_unready(d, "draining");
    atomic_store(&d->draining, true);
    log_info("draining", LS("why", why));
    loop_timer_set(d->loop, &d->drain_timer,
                   loop_now_ns(d->loop) + (uint64_t)d->common.drain_grace_ms * 1000000u, drain_step,
                   d);
}

struct end_request {
    struct daemon *d;
    char why[256];
};

static void end_posted(void *ctx)
{
    struct end_request *r = ctx;
    begin_drain(r->d, r->why);
    free(r);
}

void daemon_end(struct daemon *d, const char *why)
{
    struct end_request *r = xcalloc(1, sizeof *r);
    r->d = d;
    (void)str_copyz(r->why, sizeof r->why, str_of(why));
    if (loop_post(d->loop, end_posted, r) != ERR_OK) free(r);
}

static void on_signal(void *ctx, unsigned events)
{
    struct daemon *d = ctx;
    struct signalfd_siginfo info;
    (void)events;
    while (read(d->signals.fd, &info, sizeof info) == sizeof info) {
        if (info.ssi_signo == SIGHUP) { /* configuration is pushed: there is nothing to reload */
            if (d->desc->hangup != NULL && d->phase == PHASE_SERVING) d->desc->hangup(d);
            continue;
        }
        if (d->phase != PHASE_SERVING) {
            log_warn("second signal: ending at once");
            _exit(1);
        }
        begin_drain(d, strsignal((int)info.ssi_signo));
    }
}

/* --- the beginning --- */

static int print_help(const struct daemon_desc *desc)
{
    struct buf b;
    buf_init(&b, 1 << 20);
    enum err e = buf_printf(
        &b,
        "aigw-%s: %s\n\nUsage: aigw-%s [-h] [-V] [-t] [-R]\n"
        "  -h  this text\n  -V  the version\n  -t  check the settings and exit\n"
        "  -R  settings and metrics as a reference page (Markdown)\n\n"
        "Settings are environment variables; NAME_FILE=path reads a value from a file.\n\n",
        desc->name, desc->about, desc->name);
    if (e == ERR_OK) e = opt_help(desc->opts, desc->opts_len, &b);
    if (e == ERR_OK) e = buf_appendz(&b, "\nOf every daemon:\n\n");
    if (e == ERR_OK) e = opt_help(common_opts, ARRAY_LEN(common_opts), &b);
    if (e == ERR_OK) fputs(buf_z(&b), stdout);
    buf_done(&b);
    return e == ERR_OK ? 0 : 1;
}

static int print_reference(const struct daemon_desc *desc)
{
    static const char head[] = "| setting | default | bounds | what it does |\n|---|---|---|---|\n";
    struct buf b;
    buf_init(&b, 1 << 20);
    enum err e = buf_printf(&b, "## aigw-%s\n\n%s Ops port %u.\n\n%s", desc->name, desc->about,
                            desc->ops_port, head);
    if (e == ERR_OK) e = opt_markdown(desc->opts, desc->opts_len, &b);
    if (e == ERR_OK) e = opt_markdown(common_opts, ARRAY_LEN(common_opts), &b);
    if (e == ERR_OK)
        e = buf_appendz(&b, "\n| metric | type | labels | what it counts |\n|---|---|---|---|\n");
    if (e == ERR_OK) e = metrics_markdown(desc->metrics, desc->metrics_len, &b);
    if (e == ERR_OK) fputs(buf_z(&b), stdout);
    buf_done(&b);
    return e == ERR_OK ? 0 : 1;
}

static void default_instance(struct daemon *d)
{
    char host[65] = "localhost", name[160];
    if (d->common.instance != NULL && *d->common.instance != '\0') return;
    (void)gethostname(host, sizeof host - 1);
    (void)snprintf(name, sizeof name, "%s-%s", d->desc->name, host);
    free((char *)(uintptr_t)d->common.instance);
    d->common.instance = xstrdup(name);
}

/* NATS and metrics take instance names: one token of plain characters. */
static bool instance_is_valid(struct str s)
{
    for (size_t i = 0; i < s.n; i++) {
        char c = s.p[i];
        if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
              c == '-' || c == '_'))
            return false;
    }
    return s.n > 0 && s.n <= 128;
}

/* Servers by commas; what is wrong with one shows only as a bus that never comes. */
static void check_nats_url(const char *url, struct opt_problems *problems)
{
    struct str rest = str_of(url);
    while (rest.n > 0) {
        struct str one = str_trim(str_cut(&rest, ','));
        if (!str_contains(one, STR("://")) || str_starts(one, STR("nats://")) ||
            str_starts(one, STR("tls://")))
            continue;
        opt_problem(problems, "NATS_URL: must be nats://host:port or tls://host:port, several by "
                              "commas");
        return;
    }
}

static void raise_file_limit(void)
{
    struct rlimit l;
    if (getrlimit(RLIMIT_NOFILE, &l) == 0 && l.rlim_cur < l.rlim_max) {
        l.rlim_cur = l.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &l);
    }
}

/* Too few would show as whatever happens to come when they are used up. */
static void check_file_limit(const struct daemon *d, struct opt_problems *problems)
{
    struct rlimit l;
    uint64_t need = DAEMON_DESCRIPTORS;
    if (d->desc->descriptors != NULL) need += d->desc->descriptors(d->settings);
    if (getrlimit(RLIMIT_NOFILE, &l) == 0 && l.rlim_cur < need)
        opt_problem(problems,
                    "ulimit -n: this process may have %llu file descriptors, and needs %llu",
                    (unsigned long long)l.rlim_cur, (unsigned long long)need);
}

static bool read_settings(struct daemon *d)
{
    struct opt_problems problems = { 0 };
    opt_read(common_opts, ARRAY_LEN(common_opts), &d->common, &problems);
    opt_read(d->desc->opts, d->desc->opts_len, d->settings, &problems);
    if (getenv("OPS_PORT") == NULL) d->common.ops_port = d->desc->ops_port;
    default_instance(d);
    if (!instance_is_valid(str_of(d->common.instance)))
        opt_problem(&problems, "INSTANCE: \"%s\" may hold letters, digits, '-' and '_' only",
                    d->common.instance);
    if (!subject_prefix_is_valid(d->common.prefix))
        opt_problem(&problems, "SUBJECT_PREFIX: \"%s\" is not [a-z0-9-]{1,32}", d->common.prefix);
    check_nats_url(d->common.nats_url, &problems);
    if (d->desc->check != NULL) d->desc->check(d->settings, &problems);
    raise_file_limit();
    check_file_limit(d, &problems);
    bool ok = problems.count == 0;
    if (!ok)
        fprintf(stderr, "aigw-%s: %zu problem%s with the settings:\n%s", d->desc->name,
                problems.count, problems.count == 1 ? "" : "s", buf_z(&problems.text));
    buf_done(&problems.text);
    return ok;
}

static void log_settings(const struct daemon *d)
{
    struct buf b;
    buf_init(&b, 65536);
    if (opt_print(d->desc->opts, d->desc->opts_len, d->settings, &b) == ERR_OK &&
        opt_print(common_opts, ARRAY_LEN(common_opts), &d->common, &b) == ERR_OK) {
        for (size_t i = 0; i < b.len; i++)
            if (b.data[i] == '\n') b.data[i] = ' ';
        log_info("starting", LS("version", AIGW_VERSION), LSTR("settings", str_trim(buf_str(&b))));
    }
    buf_done(&b);
}

static enum err make_dir(const char *path, struct why *why)
{
    char partial[4096];
    if (!str_copyz(partial, sizeof partial, str_of(path)))
        return why_set(why, ERR_INVALID, "STATE_DIR is too long");
    for (char *c = partial + 1;; c++) {
        if (*c != '/' && *c != '\0') continue;
        char was = *c;
        *c = '\0';
        if (mkdir(partial, 0700) != 0 && errno != EEXIST)
            return why_set(why, ERR_IO, "STATE_DIR: cannot make the folder %s: %s", partial,
                           strerror(errno));
        *c = was;
        if (was == '\0') return ERR_OK;
    }
}

static enum err open_signals(struct daemon *d, const sigset_t *set, struct why *why)
{
    int fd = signalfd(-1, set, SFD_CLOEXEC | SFD_NONBLOCK);
    if (fd < 0 || loop_add(d->loop, &d->signals, fd, LOOP_READ, on_signal, d) != ERR_OK)
        return why_set(why, ERR_IO, "signalfd: %s", strerror(errno));
    return ERR_OK;
}

static void open_bus(struct daemon *d)
{
    struct bus_options o = {
        .url = d->common.nats_url,
        .user = d->common.nats_user,
        .password = d->common.nats_password,
        .instance = d->common.instance,
        .service = d->desc->name,
        .version = AIGW_VERSION,
        .description = d->desc->about,
        .prefix = d->common.prefix,
        .clock = clock_system(),
        .rng = rng_system(),
        .on_state = bus_state,
        .on_error = bus_problem,
        .ctx = d,
    };
    d->bus = bus_new(&o);
    loop_timer_set(d->loop, &d->presence_timer, loop_now_ns(d->loop) + 500000000u, publish_presence,
                   d);
}

static enum err serve(struct daemon *d, const sigset_t *set, struct why *why)
{
    enum err e = make_dir(d->common.state_dir, why);
    if (e == ERR_OK) e = open_signals(d, set, why);
    if (e == ERR_OK) e = daemon_open_ops(d, why);
    if (e != ERR_OK) return e;
    if (!d->desc->no_bus) open_bus(d);
    e = d->desc->start(d, why);
    if (e != ERR_OK) return e;
    log_info("started", LI("ops_port", http_server_port(d->ops)));
    atomic_store(&d->started, true);
    daemon_ready(d, "starting");
    loop_run(d->loop);
    /* The ops listener reads the daemon's state: it goes first. */
    http_server_free(d->ops);
    d->ops = NULL;
    d->desc->stop(d);
    return ERR_OK;
}

static void release(struct daemon *d)
{
    if (d->bus != NULL) bus_drain(d->bus, 2000);
    http_server_free(d->ops);
    bus_free(d->bus);
    if (d->signals.generation != 0) {
        int fd = d->signals.fd;
        loop_remove(d->loop, &d->signals);
        close(fd);
    }
    loop_free(d->loop);
    for (size_t i = 0; i < atomic_load(&d->metrics_n); i++) metrics_free(d->metrics[i]);
    free(d->routes);
    pthread_mutex_destroy(&d->lock);
}

static int run(struct daemon *d)
{
    sigset_t set;
    struct why why = { "" };
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGHUP);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    signal(SIGPIPE, SIG_IGN);
    log_setup(d->desc->name, d->common.instance, (enum log_level)d->common.log_level);
    log_settings(d);
    pthread_mutex_init(&d->lock, NULL);
    d->loop = loop_new(clock_system());
    (void)daemon_more_metrics(d);
    daemon_unready(d, "starting");
    enum err e = serve(d, &set, &why);
    if (e != ERR_OK) log_error("cannot start", LERR(e), LS("why", why.text));
    release(d);
    if (e == ERR_OK) log_info("stopped");
    return e == ERR_OK ? 0 : 1;
}

int daemon_main(int argc, char **argv, const struct daemon_desc *desc)
{
    struct daemon d = { .desc = desc };
    int opt, rc = 1;
    bool only_check = false;
    while ((opt = getopt(argc, argv, "hVtR")) != -1) {
        if (opt == 'h') return print_help(desc);
        if (opt == 'R') return print_reference(desc);
        if (opt == 'V') return printf("aigw-%s " AIGW_VERSION "\n", desc->name) > 0 ? 0 : 1;
        if (opt != 't') return fprintf(stderr, "Try aigw-%s -h\n", desc->name), 2;
        only_check = true;
    }
    if (optind < argc)
        return fprintf(stderr, "aigw-%s: takes no argument \"%s\"\n", desc->name, argv[optind]), 2;
    d.settings = xcalloc(1, desc->settings_size + 1);
    if (read_settings(&d)) {
        if (only_check) printf("aigw-%s: the settings are fine\n", desc->name);
        rc = only_check ? 0 : run(&d);
    }
    opt_done(desc->opts, desc->opts_len, d.settings);
    opt_done(common_opts, ARRAY_LEN(common_opts), &d.common);
    free(d.settings);
    return rc;
}
