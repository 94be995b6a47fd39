/* SPDX-License-Identifier: Apache-2.0 */
/*
 * aigw-run: keeps the processes of a plan running.
 *
 *   aigw-run start PLAN STATE    in the background; returns when all are ready, or none runs
 *   aigw-run foreground PLAN STATE
 *   aigw-run stop STATE          ends exactly what was started, also what a killed aigw-run left
 *   aigw-run status STATE
 *
 * STATE/log has a log per process, STATE/run says what runs. A lock on STATE/run/lock is held as
 * long as the supervisor lives, so that there is one per state folder.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/file.h"
#include "base/clock.h"
#include "base/log.h"
#include "proc.h"
#include "supervise.h"

enum { EXIT_USAGE = 2, LEFTOVER_GRACE_MS = 5000 };

struct paths {
    char log_dir[3800], run_dir[3800], lock[3900], supervisor[3900], plan[3900];
};

static bool fail(const char *what, const char *why)
{
    fprintf(stderr, "aigw-run: %s: %s\n", what, why);
    return false;
}

static bool make_paths(const char *state, struct paths *ret)
{
    struct stat st;
    if (strlen(state) > 3700) return fail(state, "too long a name");
    (void)snprintf(ret->log_dir, sizeof ret->log_dir, "%s/log", state);
    (void)snprintf(ret->run_dir, sizeof ret->run_dir, "%s/run", state);
    (void)snprintf(ret->lock, sizeof ret->lock, "%s/lock", ret->run_dir);
    (void)snprintf(ret->supervisor, sizeof ret->supervisor, "%s/supervisor.pid", ret->run_dir);
    (void)snprintf(ret->plan, sizeof ret->plan, "%s/plan", ret->run_dir);
    const char *const dirs[] = { state, ret->log_dir, ret->run_dir };
    for (size_t i = 0; i < ARRAY_LEN(dirs); i++) {
        if (mkdir(dirs[i], 0700) != 0 && errno != EEXIST) return fail(dirs[i], strerror(errno));
        if (stat(dirs[i], &st) != 0 || !S_ISDIR(st.st_mode)) return fail(dirs[i], "not a folder");
    }
    return true;
}

/* The lock's descriptor; -1 with errno EWOULDBLOCK when a supervisor holds it. */
static int take_lock(const struct paths *p)
{
    int fd = open(p->lock, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) != 0) {
        close(fd);
        errno = EWOULDBLOCK;
        return -1;
    }
    return fd;
}

/* Ends what the pid files in run_dir name, the ones that a killed supervisor left behind. Returns
 * how many were alive. */
static size_t end_leftovers(const struct paths *p)
{
    DIR *d = opendir(p->run_dir);
    if (d == NULL) return 0;
    struct proc_id ids[PLAN_MAX_PROCESSES];
    size_t n = 0;
    struct dirent *entry;
    while ((entry = readdir(d)) != NULL) {
        char path[4096];
        if (!str_ends(str_of(entry->d_name), STR(".pid"))) continue;
        int len = snprintf(path, sizeof path, "%s/%s", p->run_dir, entry->d_name);
        if (len < 0 || (size_t)len >= sizeof path) continue;
        struct proc_id id;
        if (n < ARRAY_LEN(ids) && proc_record_read(path, &id) == ERR_OK && proc_is_alive(id)) {
            printf("  %-12s was left running (pid %ld): ending it\n", entry->d_name, (long)id.pid);
            ids[n++] = id;
        }
        (void)unlink(path);
    }
    closedir(d);
    (void)fflush(stdout);
    for (size_t i = 0; i < n; i++) proc_signal(ids[i].pid, SIGTERM);
    for (size_t i = 0; i < n; i++) proc_end_leftover(ids[i], LEFTOVER_GRACE_MS);
    return n;
}

/* Is there something listening, on any address? */
static bool port_is_free(uint16_t port)
{
    struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons(port) };
    a.sin_addr.s_addr = htonl(INADDR_ANY);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1;
    if (fd < 0) return true;
    (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    const struct sockaddr *any = (const void *)&a;
    bool is_free = bind(fd, any, sizeof a) == 0 || errno != EADDRINUSE;
    close(fd);
    return is_free;
}

/* Whether an earlier process of the plan has the port; says so. */
static bool is_given_twice(const struct plan *plan, size_t process, const struct plan_port *port)
{
    for (size_t i = 0; i < process; i++)
        for (size_t k = 0; k < plan->processes[i].ports_n; k++) {
            const struct plan_port *other = &plan->processes[i].ports[k];
            if (other->port != port->port) continue;
            fprintf(stderr, "aigw-run: port %u is to be for %s (%s) and for %s (%s)\n",
                    (unsigned)port->port, plan->processes[i].name, other->setting,
                    plan->processes[process].name, port->setting);
            return true;
        }
    return false;
}

static bool check_ports(const struct plan *plan)
{
    bool ok = true;
    for (size_t i = 0; i < plan->n; i++)
        for (size_t k = 0; k < plan->processes[i].ports_n; k++) {
            const struct plan_port *port = &plan->processes[i].ports[k];
            if (is_given_twice(plan, i, port)) {
                ok = false;
                continue;
            }
            if (port_is_free(port->port)) continue;
            ok = false;
            fprintf(stderr, "aigw-run: port %u, which %s needs, is taken by another program",
                    (unsigned)port->port, plan->processes[i].name);
            if (port->setting[0] != '\0')
                fprintf(stderr, ": stop that, or choose another with %s=…", port->setting);
            fputc('\n', stderr);
        }
    return ok;
}

static bool read_plan(const char *path, struct buf *ret_text, struct plan *ret)
{
    struct why why = { "cannot be read" };
    enum err e = file_read(path, ret_text);
    if (e == ERR_OK) e = plan_parse(buf_str(ret_text), ret, &why);
    return e == ERR_OK || fail(path, why.text);
}

/* The supervisor itself, in its own session when it is in the background. */
static bool be_supervisor(const struct plan *plan, const struct paths *p, int report_fd)
{
    struct proc_id self;
    enum err e = proc_identify(getpid(), &self);
    if (e == ERR_OK) e = proc_record_write(p->supervisor, self);
    if (e != ERR_OK) return fail(p->supervisor, err_name(e));
    struct supervise_options o = { plan, p->log_dir, p->run_dir, report_fd };
    bool ok = supervise(&o);
    (void)unlink(p->supervisor);
    return ok;
}

/* Hands the lines of the supervisor on to the terminal until all are ready, or it failed. */
static bool relay_report(int fd)
{
    FILE *f = fdopen(fd, "r");
    if (f == NULL) return false;
    char line[5000];
    char last = '!';
    bool told = false;
    while (fgets(line, sizeof line, f) != NULL) {
        last = line[0];
        told = last != ' ';
        FILE *out = last == '!' ? stderr : stdout;
        fprintf(out, "%s%s", last == '!' ? "aigw-run: " : "  ", line + 1);
        (void)fflush(out);
    }
    (void)fclose(f);
    if (!told) fputs("aigw-run: the supervisor ended unexpectedly\n", stderr);
    return last == '+';
}

static bool to_background(const struct plan *plan, const struct paths *p)
{
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) != 0) return fail("pipe", strerror(errno));
    (void)fflush(NULL);
    pid_t pid = fork();
    if (pid < 0) return fail("fork", strerror(errno));
    if (pid > 0) {
        close(ends[1]);
        bool ok = relay_report(ends[0]);
        int status;
        if (!ok) (void)waitpid(pid, &status, 0); /* until everything is stopped again */
        return ok;
    }
    close(ends[0]);
    char log[4096];
    (void)snprintf(log, sizeof log, "%s/run.log", p->log_dir);
    if (log_rotate(log, LOG_ROTATE_BYTES) != ERR_OK) fputs("run.log was not rotated\n", stderr);
    int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
    int out = open(log, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    bool ok = setsid() >= 0 && null >= 0 && out >= 0 && dup2(null, STDIN_FILENO) >= 0 &&
              dup2(out, STDOUT_FILENO) >= 0 && dup2(out, STDERR_FILENO) >= 0;
    if (ok) ok = be_supervisor(plan, p, ends[1]);
    _exit(ok ? 0 : 1);
}

static int cmd_start(const char *plan_path, const char *state, bool background)
{
    struct paths paths;
    struct plan plan;
    struct buf text;
    bool ok = false, parsed = false;
    buf_init(&text, PLAN_MAX_BYTES + 1);
    int lock = -1;
    if (!make_paths(state, &paths)) goto out;
    lock = take_lock(&paths);
    if (lock < 0 && errno == EWOULDBLOCK) {
        puts("already running");
        ok = true;
        goto out;
    }
    if (lock < 0) {
        (void)fail(paths.lock, strerror(errno));
        goto out;
    }
    (void)end_leftovers(&paths);
    parsed = read_plan(plan_path, &text, &plan);
    if (!parsed || !check_ports(&plan)) goto out;
    if (file_write(paths.plan, buf_str(&text)) != ERR_OK) {
        (void)fail(paths.plan, "cannot be written");
        goto out;
    }
    ok = background ? to_background(&plan, &paths) : be_supervisor(&plan, &paths, dup(1));
out:
    if (lock >= 0) close(lock);
    if (parsed) plan_done(&plan);
    buf_done(&text);
    return ok ? 0 : 1;
}

/* Tells what has ended as it ends, until the supervisor is gone. */
static void wait_for_end(const struct paths *p, struct proc_id supervisor)
{
    int fd = open(p->lock, O_RDWR | O_CLOEXEC);
    if (fd < 0) return;
    int rc;
    do { /* granted when the holder is gone */
        rc = flock(fd, LOCK_EX);
    } while (rc != 0 && errno == EINTR);
    close(fd);
    proc_end_leftover(supervisor, 1000);
}

static int cmd_stop(const char *state)
{
    struct paths paths;
    struct stat st;
    if (stat(state, &st) != 0) {
        puts("nothing runs");
        return 0;
    }
    if (!make_paths(state, &paths)) return 1;
    int lock = take_lock(&paths);
    struct proc_id supervisor;
    if (lock < 0) {
        if (errno != EWOULDBLOCK) return fail(paths.lock, strerror(errno)), 1;
        if (proc_record_read(paths.supervisor, &supervisor) != ERR_OK)
            return fail(paths.supervisor, "does not say who runs"), 1;
        puts("stopping");
        (void)fflush(stdout);
        (void)kill(supervisor.pid, SIGTERM);
        wait_for_end(&paths, supervisor);
        lock = take_lock(&paths);
        (void)end_leftovers(&paths);
        puts("stopped");
    } else {
        puts(end_leftovers(&paths) > 0 ? "stopped" : "nothing runs");
    }
    if (lock >= 0) close(lock);
    return 0;
}

static void print_status_line(struct str line, uint64_t now)
{
    struct str name = str_cut(&line, '\t'), state = str_cut(&line, '\t');
    struct str pid = str_cut(&line, '\t'), restarts = str_cut(&line, '\t');
    uint64_t since = now;
    if (str_to_u64(line, &since) != ERR_OK || since > now) since = now;
    printf("%-14.*s %-9.*s pid %-8.*s restarts %-4.*s for %llu s\n", STR_ARG(name), STR_ARG(state),
           STR_ARG(pid), STR_ARG(restarts), (unsigned long long)(now - since));
}

static int cmd_status(const char *state)
{
    struct paths paths;
    struct stat st;
    int lock = -1;
    if (stat(state, &st) != 0 || (make_paths(state, &paths) && (lock = take_lock(&paths)) >= 0)) {
        if (lock >= 0) close(lock);
        puts("nothing runs");
        return 3;
    }
    char path[4096];
    (void)snprintf(path, sizeof path, "%s/" SUPERVISE_STATUS_FILE, paths.run_dir);
    struct buf b;
    buf_init(&b, 256 * 1024);
    bool ok = file_read(path, &b) == ERR_OK;
    struct str rest = buf_str(&b);
    while (ok && rest.p != NULL && rest.n > 0)
        print_status_line(str_cut(&rest, '\n'), clock_wall_ns(clock_system()) / 1000000000);
    buf_done(&b);
    return ok ? 0 : (int)!fail(path, "cannot be read");
}

int main(int argc, char **argv)
{
    log_setup("run", "run", LOG_INFO);
    const char *cmd = argc > 1 ? argv[1] : "";
    if (argc == 4 && strcmp(cmd, "start") == 0) return cmd_start(argv[2], argv[3], true);
    if (argc == 4 && strcmp(cmd, "foreground") == 0) return cmd_start(argv[2], argv[3], false);
    if (argc == 3 && strcmp(cmd, "stop") == 0) return cmd_stop(argv[2]);
    if (argc == 3 && strcmp(cmd, "status") == 0) return cmd_status(argv[2]);
    if (argc == 2 && strcmp(cmd, "-V") == 0) return puts("aigw-run " AIGW_VERSION) < 0;
    fputs("usage: aigw-run start|foreground PLAN STATE\n"
          "       aigw-run stop|status STATE\n",
          stderr);
    return EXIT_USAGE;
}
