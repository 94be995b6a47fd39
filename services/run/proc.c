/* SPDX-License-Identifier: Apache-2.0 */
#include "proc.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/file.h"

extern char **environ;

/* --- files --- */

enum err file_write(const char *path, struct str content)
{
    char tmp[4096];
    int n = snprintf(tmp, sizeof tmp, "%s.new", path);
    if (n < 0 || (size_t)n >= sizeof tmp) return ERR_LIMIT;
    int fd = open(tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0) return ERR_IO;
    enum err e = file_write_all(fd, content);
    if (close(fd) != 0 && e == ERR_OK) e = ERR_IO;
    if (e == ERR_OK && rename(tmp, path) != 0) e = ERR_IO;
    if (e != ERR_OK) (void)unlink(tmp);
    return e;
}

enum err log_rotate(const char *path, off_t max)
{
    struct stat st;
    if (stat(path, &st) != 0) return errno == ENOENT ? ERR_OK : ERR_IO;
    if (st.st_size <= max) return ERR_OK;
    char old[4096];
    int n = snprintf(old, sizeof old, "%s.1", path);
    if (n < 0 || (size_t)n >= sizeof old) return ERR_LIMIT;
    int from = open(path, O_RDWR | O_CLOEXEC);
    if (from < 0) return ERR_IO;
    int to = open(old, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    enum err e = to >= 0 ? ERR_OK : ERR_IO;
    static const size_t step = 1024 * 1024;
    /* What is written between the last read and the cut is lost: keep the two close. */
    while (e == ERR_OK) {
        ssize_t got = copy_file_range(from, NULL, to, NULL, step, 0);
        if (got == 0) break;
        if (got < 0 && errno != EINTR) e = ERR_IO;
    }
    if (e == ERR_OK && ftruncate(from, 0) != 0) e = ERR_IO;
    close(from);
    if (to >= 0) close(to);
    return e;
}

/* --- identity --- */

/* State and start time out of /proc/PID/stat: the fields behind the command, which is in
 * parentheses and may hold anything. */
static enum err read_stat(pid_t pid, char *ret_state, uint64_t *ret_started)
{
    char path[64];
    (void)snprintf(path, sizeof path, "/proc/%ld/stat", (long)pid);
    struct buf b;
    buf_init(&b, 4096);
    enum err e = file_read(path, &b);
    if (e == ERR_IO) e = ERR_NOT_FOUND; /* ESRCH: it ended while we read */
    if (e != ERR_OK) goto out;
    size_t end = b.len;
    while (end > 0 && b.data[end - 1] != ')') end--;
    struct str rest = str_trim(str_n(b.data + end, b.len - end));
    enum { STATE_FIELD = 3, START_FIELD = 22 };
    e = ERR_INVALID;
    for (int field = STATE_FIELD; rest.p != NULL && rest.n > 0; field++) {
        struct str s = str_cut(&rest, ' ');
        if (field == STATE_FIELD && s.n == 1) *ret_state = s.p[0];
        if (field == START_FIELD) {
            e = str_to_u64(s, ret_started);
            break;
        }
    }
out:
    buf_done(&b);
    return e;
}

enum err proc_identify(pid_t pid, struct proc_id *ret)
{
    char state = 0;
    uint64_t started = 0;
    enum err e = read_stat(pid, &state, &started);
    if (e != ERR_OK) return e;
    *ret = (struct proc_id){ pid, started };
    return ERR_OK;
}

bool proc_is_alive(struct proc_id id)
{
    char state = 0;
    uint64_t started = 0;
    return read_stat(id.pid, &state, &started) == ERR_OK && started == id.started && state != 'Z' &&
           state != 'X';
}

static enum err boot_id(struct buf *ret)
{
    enum err e = file_read("/proc/sys/kernel/random/boot_id", ret);
    if (e == ERR_OK) ret->len = str_trim(str_n(ret->data, MIN(ret->len, (size_t)36))).n;
    return e;
}

enum err proc_record_write(const char *path, struct proc_id id)
{
    struct buf b, boot;
    buf_init(&b, 256);
    buf_init(&boot, 128);
    enum err e = boot_id(&boot);
    if (e == ERR_OK)
        e = buf_printf(&b, "%ld %llu %.*s\n", (long)id.pid, (unsigned long long)id.started,
                       STR_ARG(buf_str(&boot)));
    if (e == ERR_OK) e = file_write(path, buf_str(&b));
    buf_done(&boot);
    buf_done(&b);
    return e;
}

enum err proc_record_read(const char *path, struct proc_id *ret)
{
    struct buf b, boot;
    buf_init(&b, 256);
    buf_init(&boot, 128);
    enum err e = file_read(path, &b);
    if (e == ERR_OK) e = boot_id(&boot);
    if (e != ERR_OK) goto out;
    struct str line = buf_str(&b), rest = str_cut(&line, '\n');
    uint64_t pid, started;
    e = ERR_INVALID;
    if (str_to_u64(str_cut(&rest, ' '), &pid) != ERR_OK || pid < 2 || pid > INT32_MAX) goto out;
    if (str_to_u64(str_cut(&rest, ' '), &started) != ERR_OK) goto out;
    if (!str_eq(rest, buf_str(&boot))) {
        e = ERR_NOT_FOUND;
        goto out;
    }
    *ret = (struct proc_id){ (pid_t)pid, started };
    e = ERR_OK;
out:
    buf_done(&boot);
    buf_done(&b);
    return e;
}

/* --- starting and ending --- */

static bool same_name(const char *a, const char *b)
{
    size_t i = 0;
    while (a[i] != '\0' && a[i] != '=' && a[i] == b[i]) i++;
    return (a[i] == '=' || a[i] == '\0') && (b[i] == '=' || b[i] == '\0');
}

static void env_put(char **env, size_t *n, char *assignment)
{
    for (size_t i = 0; i < *n; i++) {
        if (!same_name(env[i], assignment)) continue;
        env[i] = assignment;
        return;
    }
    env[(*n)++] = assignment;
}

/* Our own environment less what make put there, then the env-file, then the plan; later ones win.
 * The strings are borrowed, the array is the arena's. */
static enum err build_env(const struct plan_process *p, struct arena *a, char ***ret,
                          struct why *why)
{
    static const char *const dropped[] = { "MAKEFLAGS", "MAKELEVEL", "MFLAGS", "MAKE_TERMOUT",
                                           "MAKE_TERMERR" };
    char **from_file = NULL;
    size_t from_file_n = 0, own_n = 0, n = 0;
    if (p->env_file != NULL) {
        struct buf b;
        buf_init(&b, PLAN_MAX_BYTES);
        enum err e = file_read(p->env_file, &b);
        struct why inner = { "cannot be read" };
        if (e == ERR_OK) e = plan_parse_env(buf_str(&b), a, &from_file, &from_file_n, &inner);
        buf_done(&b);
        if (e != ERR_OK) return why_set(why, ERR_INVALID, "%s: %s", p->env_file, inner.text);
    }
    while (environ[own_n] != NULL) own_n++;
    char **env = arena_calloc(a, (own_n + from_file_n + p->env_n + 1) * sizeof *env);
    if (env == NULL) return ERR_NOMEM;
    for (size_t i = 0; i < own_n; i++) {
        bool drop = false;
        for (size_t k = 0; k < ARRAY_LEN(dropped); k++) drop |= same_name(environ[i], dropped[k]);
        if (!drop) env[n++] = environ[i];
    }
    for (size_t i = 0; i < from_file_n; i++) env_put(env, &n, from_file[i]);
    for (size_t i = 0; i < p->env_n; i++) env_put(env, &n, p->env[i]);
    *ret = env;
    return ERR_OK;
}

/* Between fork and exec: only what is allowed there. */
static void __attribute__((noreturn))
become(const struct plan_process *p, char **env, int null, int log, pid_t parent)
{
    static const char cannot[] = "aigw-run: cannot run this program, or not in this directory: ";
    sigset_t none;
    sigemptyset(&none);
    bool ok = setpgid(0, 0) == 0 && prctl(PR_SET_PDEATHSIG, SIGTERM) == 0;
    if (getppid() != parent) _exit(127); /* it died before we could ask to be told */
    (void)signal(SIGPIPE, SIG_DFL);
    ok = ok && sigprocmask(SIG_SETMASK, &none, NULL) == 0;
    ok = ok && dup2(null, STDIN_FILENO) >= 0 && dup2(log, STDOUT_FILENO) >= 0 &&
         dup2(log, STDERR_FILENO) >= 0;
    ok = ok && (p->directory == NULL || chdir(p->directory) == 0);
    if (ok) execvpe(p->argv[0], p->argv, env);
    ssize_t n = write(log, cannot, sizeof cannot - 1);
    n = write(log, p->argv[0], strlen(p->argv[0]));
    n = write(log, "\n", 1);
    (void)n;
    _exit(127);
}

enum err proc_spawn(const struct plan_process *p, const char *log_path, pid_t *ret, struct why *why)
{
    struct arena a;
    arena_init(&a, 4 * PLAN_MAX_BYTES);
    char **env = NULL;
    int null = -1, log = -1;
    enum err e = build_env(p, &a, &env, why);
    if (e != ERR_OK) goto out;
    null = open("/dev/null", O_RDONLY | O_CLOEXEC);
    log = open(log_path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    if (null < 0 || log < 0) {
        e = why_set(why, ERR_IO, "%s: %s", log_path, strerror(errno));
        goto out;
    }
    pid_t parent = getpid(), pid = fork();
    if (pid == 0) become(p, env, null, log, parent);
    if (pid < 0) {
        e = why_set(why, ERR_IO, "fork: %s", strerror(errno));
        goto out;
    }
    (void)setpgid(pid, pid); /* the child does it too: whoever comes first */
    *ret = pid;
out:
    if (null >= 0) close(null);
    if (log >= 0) close(log);
    arena_done(&a);
    return e;
}

void proc_signal(pid_t pid, int sig)
{
    ASSERT(pid > 1);
    /* Once only: a daemon takes a second SIGTERM as "now". */
    if (kill(-pid, sig) != 0) (void)kill(pid, sig);
}

/* True when it is gone within the time. A pidfd becomes readable at that moment. */
static bool wait_gone(struct proc_id id, int timeout_ms)
{
    int fd = (int)syscall(SYS_pidfd_open, id.pid, 0);
    if (fd < 0 || !proc_is_alive(id)) {
        if (fd >= 0) close(fd);
        return !proc_is_alive(id);
    }
    struct pollfd p = { fd, POLLIN, 0 };
    (void)poll(&p, 1, timeout_ms);
    close(fd);
    return !proc_is_alive(id);
}

void proc_end_leftover(struct proc_id id, uint64_t grace_ms)
{
    if (!proc_is_alive(id)) return;
    proc_signal(id.pid, SIGTERM);
    if (wait_gone(id, (int)MIN(grace_ms, (uint64_t)600000))) return;
    proc_signal(id.pid, SIGKILL);
    (void)wait_gone(id, 5000);
}
