/* SPDX-License-Identifier: Apache-2.0 */
#include "supervise.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "backoff.h"
#include "base/buf.h"
#include "base/log.h"
#include "probe.h"
#include "proc.h"
#include "rt/loop.h"

enum state {
    ST_WAITING,  /* for others to be ready */
    ST_STARTING, /* runs, was not ready in this life */
    ST_READY,
    ST_UNREADY, /* runs, was ready */
    ST_PAUSED,  /* died, will be started again */
    ST_STOPPING,
    ST_STOPPED
};
static const char *const state_names[] = { "waiting", "starting", "ready",  "unready",
                                           "paused",  "stopping", "stopped" };

struct child {
    struct supervisor *s;
    const struct plan_process *p;
    enum state state;
    pid_t pid; /* 0: does not run */
    uint64_t started_ms;
    uint64_t since; /* wall, seconds: of the state */
    uint64_t restarts;
    unsigned deaths; /* before it was ever ready */
    bool was_ready;
    uint64_t probe_wait_ms;
    uint64_t told_ms;          /* when we last told what it waits for, or started */
    char said[PROBE_SAID_MAX]; /* why it is not ready, in its own words, or "" */
    struct backoff backoff;
    struct probe probe;
    struct loop_timer next, deadline; /* next: probe or start; deadline: ready or kill */
    char log_path[4096], pid_path[4096];
};

struct supervisor {
    const struct supervise_options *o;
    struct loop *loop;
    struct child *children;
    size_t n;
    bool all_ready, stopping, failed;
    int signal_fd, report_fd;
    struct loop_io signals, report;
    struct loop_timer rotate;
};

static uint64_t now_ms(const struct supervisor *s)
{
    return loop_now_ns(s->loop) / 1000000;
}

static void begin_stop(struct supervisor *s);
static void start_what_can(struct supervisor *s);

/* --- telling --- */

static void report_close(struct supervisor *s)
{
    if (s->report_fd < 0) return;
    if (s->report.generation != 0) loop_remove(s->loop, &s->report);
    close(s->report_fd);
    s->report_fd = -1;
}

static void PRINTF_LIKE(3, 4) report(struct supervisor *s, char kind, const char *fmt, ...)
{
    if (s->report_fd < 0) return;
    struct buf b;
    buf_init(&b, 4096);
    va_list ap;
    va_start(ap, fmt);
    enum err e = buf_append_char(&b, kind);
    if (e == ERR_OK) e = buf_vprintf(&b, fmt, ap);
    if (e == ERR_OK) e = buf_append_char(&b, '\n');
    va_end(ap);
    if (e == ERR_OK) {
        ssize_t n = write(s->report_fd, b.data, b.len);
        (void)n; /* who reads may be gone: noticed elsewhere */
    }
    buf_done(&b);
    if (kind != ' ') report_close(s);
}

static void write_status(struct supervisor *s)
{
    struct buf b;
    buf_init(&b, 256 * 1024);
    enum err e = ERR_OK;
    for (size_t i = 0; e == ERR_OK && i < s->n; i++) {
        const struct child *c = &s->children[i];
        e = buf_printf(&b, "%s\t%s\t%ld\t%llu\t%llu\n", c->p->name, state_names[c->state],
                       (long)c->pid, (unsigned long long)c->restarts, (unsigned long long)c->since);
    }
    char path[4096];
    int n = snprintf(path, sizeof path, "%s/" SUPERVISE_STATUS_FILE, s->o->run_dir);
    if (e == ERR_OK && n > 0 && (size_t)n < sizeof path) e = file_write(path, buf_str(&b));
    if (e != ERR_OK) log_warn("the status file could not be written: kept the old one", LERR(e));
    buf_done(&b);
}

static void set_state(struct child *c, enum state state)
{
    if (c->state == state) return;
    c->state = state;
    c->since = clock_wall_ns(clock_system()) / 1000000000;
    write_status(c->s);
}

static void fail_start(struct child *c, const char *why)
{
    struct supervisor *s = c->s;
    log_error("start failed", LS("process", c->p->name), LS("err", why));
    report(s, '!', "%s %s; its log: %s%s%s", c->p->name, why, c->log_path,
           c->said[0] != '\0' ? "; it says: " : "", c->said);
    s->failed = true;
    begin_stop(s);
}

/* --- readiness --- */

static void on_probe_time(void *ctx);

static void became_ready(struct child *c)
{
    struct supervisor *s = c->s;
    loop_timer_clear(s->loop, &c->deadline);
    c->deaths = 0;
    if (!c->was_ready || c->state == ST_STARTING) {
        double seconds = (double)(now_ms(s) - c->started_ms) / 1000;
        log_info("ready", LS("process", c->p->name), LI("pid", c->pid),
                 LI("ms", now_ms(s) - c->started_ms));
        report(s, ' ', "%-12s ready after %.1f s", c->p->name, seconds);
    }
    c->was_ready = true;
    set_state(c, ST_READY);
    bool all = true;
    for (size_t i = 0; i < s->n; i++) all &= s->children[i].was_ready;
    if (all && !s->all_ready) {
        s->all_ready = true;
        log_info("all are ready", LI("processes", s->n));
        report(s, '+', "%zu processes are ready", s->n);
    }
    start_what_can(s);
}

/* Whoever waits for the start sees what it waits for. */
static void tell_wait(struct child *c, int status)
{
    probe_said(str_n(c->probe.answer, c->probe.answer_n), c->said);
    if (c->was_ready || now_ms(c->s) - c->told_ms < TELL_EVERY_MS) return;
    c->told_ms = now_ms(c->s);
    report(c->s, ' ', "%-12s is not ready yet: %s", c->p->name,
           c->said[0] != '\0' ? c->said
           : status != 0      ? "it says no reason"
                              : "it does not answer");
}

static void on_probed(void *ctx, int status)
{
    struct child *c = ctx;
    if (c->pid == 0 || c->s->stopping) return;
    if (status == 200) {
        c->said[0] = '\0';
        if (c->state != ST_READY) became_ready(c);
        c->probe_wait_ms = PROBE_IDLE_MS;
    } else {
        if (c->state == ST_READY) {
            log_warn("is no longer ready: waiting for it", LS("process", c->p->name),
                     LI("status", status));
            set_state(c, ST_UNREADY);
            c->probe_wait_ms = PROBE_FIRST_MS;
        }
        tell_wait(c, status);
        c->probe_wait_ms = MIN(2 * c->probe_wait_ms, (uint64_t)PROBE_MAX_MS);
    }
    loop_timer_set(c->s->loop, &c->next, loop_now_ns(c->s->loop) + c->probe_wait_ms * 1000000,
                   on_probe_time, c);
}

static void on_probe_time(void *ctx)
{
    struct child *c = ctx;
    probe_start(&c->probe, c->s->loop, &c->p->ready, on_probed, c);
}

static void on_ready_deadline(void *ctx)
{
    struct child *c = ctx;
    if (!c->s->all_ready && !c->was_ready)
        fail_start(c, "was not ready in time");
    else
        log_warn("is not ready in time: waiting on", LS("process", c->p->name));
}

/* --- lives and deaths --- */

static void on_start_time(void *ctx);

static void pause_child(struct child *c, const char *what, int code)
{
    struct supervisor *s = c->s;
    uint64_t wait = backoff_died(&c->backoff, now_ms(s) - c->started_ms);
    if (!c->was_ready) c->deaths++;
    log_warn("died: starting it again after a pause", LS("process", c->p->name), LS("how", what),
             LI("code", code), LI("pause_ms", wait));
    set_state(c, ST_PAUSED);
    if (!s->all_ready && c->deaths >= START_MAX_DEATHS) {
        fail_start(c, "died at each start");
        return;
    }
    report(s, ' ', "%-12s died (%s %d), starting again in %.1f s", c->p->name, what, code,
           (double)wait / 1000);
    loop_timer_set(s->loop, &c->next, loop_now_ns(s->loop) + wait * 1000000, on_start_time, c);
}

static void start_child(struct child *c)
{
    struct supervisor *s = c->s;
    struct why why = { "" };
    c->started_ms = c->told_ms = now_ms(s);
    c->said[0] = '\0';
    enum err e = proc_spawn(c->p, c->log_path, &c->pid, &why);
    if (e != ERR_OK) {
        log_error("could not be started", LS("process", c->p->name), LS("err", why.text));
        report(s, ' ', "%-12s %s", c->p->name, why.text);
        pause_child(c, "could not be started", 0);
        return;
    }
    struct proc_id id;
    e = proc_identify(c->pid, &id);
    if (e == ERR_OK) e = proc_record_write(c->pid_path, id);
    if (e != ERR_OK) log_warn("no pid file: a later run could not end it", LERR(e));
    log_info("started", LS("process", c->p->name), LI("pid", c->pid));
    set_state(c, ST_STARTING);
    if (c->p->ready.host == NULL) {
        became_ready(c);
        return;
    }
    c->probe_wait_ms = PROBE_FIRST_MS;
    uint64_t now = loop_refresh_now(s->loop);
    loop_timer_set(s->loop, &c->next, now + c->probe_wait_ms * 1000000, on_probe_time, c);
    loop_timer_set(s->loop, &c->deadline, now + c->p->ready_timeout_ms * 1000000, on_ready_deadline,
                   c);
}

static void on_start_time(void *ctx)
{
    struct child *c = ctx;
    c->restarts++;
    start_child(c);
}

static void start_what_can(struct supervisor *s)
{
    for (size_t i = 0; !s->stopping && i < s->n; i++) {
        struct child *c = &s->children[i];
        if (c->state != ST_WAITING) continue;
        bool can = true;
        for (size_t k = 0; k < c->p->after_n; k++) can &= s->children[c->p->after[k]].was_ready;
        if (can) start_child(c);
    }
}

/* --- the end --- */

static void on_kill_time(void *ctx)
{
    struct child *c = ctx;
    if (c->pid == 0) return;
    log_warn("did not end in time: killing it", LS("process", c->p->name), LI("pid", c->pid));
    proc_signal(c->pid, SIGKILL);
}

/* Ends those that nobody who still runs depends on. */
static void stop_what_can(struct supervisor *s)
{
    for (size_t i = s->n; i-- > 0;) {
        struct child *c = &s->children[i];
        if (c->state == ST_STOPPED || c->state == ST_STOPPING) continue;
        bool needed = false;
        for (size_t k = i + 1; k < s->n; k++)
            for (size_t d = 0; d < s->children[k].p->after_n; d++)
                needed |= s->children[k].p->after[d] == i && s->children[k].state != ST_STOPPED;
        if (needed) continue;
        loop_timer_clear(s->loop, &c->next);
        probe_cancel(&c->probe);
        if (c->pid == 0) {
            set_state(c, ST_STOPPED);
            i = s->n; /* look again: what it depended on may go now */
            continue;
        }
        log_info("stopping", LS("process", c->p->name), LI("pid", c->pid));
        set_state(c, ST_STOPPING);
        proc_signal(c->pid, SIGTERM);
        loop_timer_set(s->loop, &c->deadline,
                       loop_refresh_now(s->loop) + c->p->stop_timeout_ms * 1000000, on_kill_time,
                       c);
    }
    for (size_t i = 0; i < s->n; i++)
        if (s->children[i].state != ST_STOPPED) return;
    loop_stop(s->loop);
}

static void begin_stop(struct supervisor *s)
{
    if (s->stopping) return;
    s->stopping = true;
    for (size_t i = 0; i < s->n; i++) {
        loop_timer_clear(s->loop, &s->children[i].next);
        loop_timer_clear(s->loop, &s->children[i].deadline);
        probe_cancel(&s->children[i].probe);
    }
    stop_what_can(s);
}

static void kill_all(struct supervisor *s)
{
    log_warn("told twice to stop: killing what runs");
    for (size_t i = 0; i < s->n; i++)
        if (s->children[i].pid != 0) proc_signal(s->children[i].pid, SIGKILL);
}

static void child_ended(struct child *c, const siginfo_t *info)
{
    struct supervisor *s = c->s;
    const char *how = info->si_code == CLD_EXITED ? "exit" : "signal";
    c->pid = 0;
    (void)unlink(c->pid_path);
    loop_timer_clear(s->loop, &c->next);
    loop_timer_clear(s->loop, &c->deadline);
    probe_cancel(&c->probe);
    if (!s->stopping) {
        pause_child(c, how, info->si_status);
        return;
    }
    log_info("ended", LS("process", c->p->name), LS("how", how), LI("code", info->si_status));
    set_state(c, ST_STOPPED);
    stop_what_can(s);
}

static void reap(struct supervisor *s)
{
    for (;;) {
        siginfo_t info = { 0 };
        if (waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) != 0 || info.si_pid == 0) return;
        struct child *c = NULL;
        for (size_t i = 0; i < s->n; i++)
            if (s->children[i].pid == info.si_pid) c = &s->children[i];
        /* While the dead leader is not collected its number is not used again, so what is left of
         * its group can be ended without hitting a stranger. */
        if (c != NULL) (void)kill(-info.si_pid, SIGKILL);
        (void)waitid(P_PID, (id_t)info.si_pid, &info, WEXITED);
        if (c != NULL) child_ended(c, &info);
    }
}

static void on_signal(void *ctx, unsigned events)
{
    struct supervisor *s = ctx;
    struct signalfd_siginfo info;
    (void)events;
    while (read(s->signal_fd, &info, sizeof info) == (ssize_t)sizeof info) {
        if (info.ssi_signo == SIGCHLD) continue;
        if (s->stopping) {
            kill_all(s);
        } else {
            log_info("told to stop", LI("signal", info.ssi_signo));
            begin_stop(s);
        }
    }
    (void)loop_refresh_now(s->loop);
    reap(s);
}

/* Whoever started us went away before all was ready: ^C, most likely. */
static void on_report_gone(void *ctx, unsigned events)
{
    struct supervisor *s = ctx;
    if ((events & (LOOP_ERROR | LOOP_HANGUP)) == 0) return;
    report_close(s);
    log_warn("the start was given up: stopping");
    s->failed = true;
    begin_stop(s);
}

static void on_rotate(void *ctx)
{
    struct supervisor *s = ctx;
    for (size_t i = 0; i < s->n; i++) {
        enum err e = log_rotate(s->children[i].log_path, LOG_ROTATE_BYTES);
        if (e != ERR_OK)
            log_warn("its log grows on: it could not be rotated",
                     LS("process", s->children[i].p->name), LERR(e));
    }
    loop_timer_set(s->loop, &s->rotate, loop_now_ns(s->loop) + 1000000000, on_rotate, s);
}

bool supervise(const struct supervise_options *o)
{
    struct supervisor s = { .o = o, .n = o->plan->n, .report_fd = o->report_fd };
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGCHLD);
    ASSERT(sigprocmask(SIG_BLOCK, &set, NULL) == 0);
    (void)signal(SIGPIPE, SIG_IGN);
    s.signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    ASSERT(s.signal_fd >= 0);
    s.loop = loop_new(clock_system());
    s.children = xcalloc(s.n, sizeof *s.children);
    for (size_t i = 0; i < s.n; i++) {
        struct child *c = &s.children[i];
        c->s = &s;
        c->p = &o->plan->processes[i];
        c->since = clock_wall_ns(clock_system()) / 1000000000;
        int a = snprintf(c->log_path, sizeof c->log_path, "%s/%s.log", o->log_dir, c->p->name);
        int b = snprintf(c->pid_path, sizeof c->pid_path, "%s/%s.pid", o->run_dir, c->p->name);
        ASSERT(a > 0 && (size_t)a < sizeof c->log_path && b > 0 && (size_t)b < sizeof c->pid_path);
    }
    ASSERT(loop_add(s.loop, &s.signals, s.signal_fd, LOOP_READ, on_signal, &s) == ERR_OK);
    if (s.report_fd >= 0 &&
        loop_add(s.loop, &s.report, s.report_fd, 0, on_report_gone, &s) != ERR_OK)
        log_warn("cannot notice when the starter goes away: going on");
    loop_timer_set(s.loop, &s.rotate, loop_now_ns(s.loop) + 1000000000, on_rotate, &s);
    write_status(&s);
    start_what_can(&s);
    loop_run(s.loop);
    report_close(&s);
    loop_free(s.loop);
    close(s.signal_fd);
    free(s.children);
    return !s.failed;
}
