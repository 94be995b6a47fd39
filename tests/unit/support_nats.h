/* SPDX-License-Identifier: Apache-2.0 */
/* A real nats-server with JetStream in a temporary folder, on a free port of the loopback. It dies
 * with the test. */
#ifndef TESTS_SUPPORT_NATS_H
#define TESTS_SUPPORT_NATS_H

#include <errno.h>
#include <ftw.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/err.h"
#include "support_port.h"

struct nats_server {
    pid_t pid; /* 0: not running */
    int log_fd;
    int port; /* stays over restarts */
    char dir[64], url[64];
};

/* Reads the server's log until it is ready, and finds its port there. */
static inline void nats_server_wait_ready(struct nats_server *s)
{
    char log[32768];
    size_t n = 0;
    while (n < sizeof log - 1) {
        ssize_t got = read(s->log_fd, log + n, sizeof log - 1 - n);
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0) break;
        n += (size_t)got;
        log[n] = '\0';
        if (strstr(log, "Server is ready") == NULL) continue;
        const char *at = strstr(log, "Listening for client connections on 127.0.0.1:");
        ASSERT(at != NULL && sscanf(at, "%*[^:]:%d", &s->port) == 1);
        return;
    }
    fprintf(stderr, "nats-server did not start:\n%.*s\n", (int)n, log);
    abort();
}

/* Starts it, or starts it again with what it had stored and on the same port. config: NULL, or a
 * file's text. */
static inline void nats_server_start(struct nats_server *s, const char *config)
{
    int pipe_fds[2];
    char port[16], conf[96] = "";
    if (s->dir[0] == '\0') {
        snprintf(s->dir, sizeof s->dir, "/tmp/aigw-nats-XXXXXX");
        ASSERT(mkdtemp(s->dir) != NULL);
        s->port = support_free_port();
    }
    if (config != NULL) {
        snprintf(conf, sizeof conf, "%s/nats.conf", s->dir);
        FILE *f = fopen(conf, "w");
        ASSERT(f != NULL && fputs(config, f) >= 0 && fclose(f) == 0);
    }
    snprintf(port, sizeof port, "%d", s->port);
    ASSERT(pipe(pipe_fds) == 0);
    s->pid = fork();
    ASSERT(s->pid >= 0);
    if (s->pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        dup2(pipe_fds[1], STDERR_FILENO);
        dup2(pipe_fds[1], STDOUT_FILENO);
        close(pipe_fds[0]);
        close(pipe_fds[1]);
        if (config != NULL)
            execlp("nats-server", "nats-server", "-a", "127.0.0.1", "-p", port, "-js", "-sd",
                   s->dir, "-c", conf, (char *)NULL);
        else
            execlp("nats-server", "nats-server", "-a", "127.0.0.1", "-p", port, "-js", "-sd",
                   s->dir, (char *)NULL);
        _exit(127);
    }
    close(pipe_fds[1]);
    s->log_fd = pipe_fds[0];
    nats_server_wait_ready(s);
    snprintf(s->url, sizeof s->url, "nats://127.0.0.1:%d", s->port);
}

static inline void nats_server_signal(struct nats_server *s, int sig)
{
    if (s->pid > 0) kill(s->pid, sig);
}

static inline void nats_server_kill(struct nats_server *s)
{
    if (s->pid <= 0) return;
    kill(s->pid, SIGKILL);
    waitpid(s->pid, NULL, 0);
    close(s->log_fd);
    s->pid = 0;
}

static inline int nats_server_rm(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st;
    (void)type;
    (void)ftw;
    return remove(path);
}

/* Kills it and removes what it stored. */
static inline void nats_server_done(struct nats_server *s)
{
    nats_server_kill(s);
    if (s->dir[0] != '\0') nftw(s->dir, nats_server_rm, 16, FTW_DEPTH | FTW_PHYS);
    s->dir[0] = '\0';
}

#endif
