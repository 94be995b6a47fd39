/* SPDX-License-Identifier: Apache-2.0 */
/* The access log: every line whole and once, whoever writes it and wherever its file is meanwhile.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"
#include "services/edge/records/access_log.h"

enum { WRITERS = 4, LINES = 1500, LINE = 300, MUCH = 16 << 20 };

struct folder {
    char dir[64], path[96], moved[96];
};

static void make_folder(struct folder *f)
{
    (void)snprintf(f->dir, sizeof f->dir, "/tmp/aigw-log-XXXXXX");
    assert_non_null(mkdtemp(f->dir));
    (void)snprintf(f->path, sizeof f->path, "%s/access.log", f->dir);
    (void)snprintf(f->moved, sizeof f->moved, "%s/access.log.1", f->dir);
}

static void remove_folder(const struct folder *f)
{
    (void)unlink(f->path);
    (void)unlink(f->moved);
    assert_int_equal(rmdir(f->dir), 0);
}

static void read_whole(const char *path, struct buf *out)
{
    char chunk[65536];
    size_t n;
    FILE *file = fopen(path, "rb");
    if (file == NULL) return;
    while ((n = fread(chunk, 1, sizeof chunk, file)) > 0)
        assert_int_equal(buf_append(out, chunk, n), ERR_OK);
    fclose(file);
}

struct writer {
    struct access_log *log;
    unsigned number;
    unsigned put;
};

/* Lines of many lengths, no more than the queue holds. */
static void *write_many(void *ctx)
{
    struct writer *w = ctx;
    char line[LINE + 40];
    for (; w->put < LINES; w->put++) {
        int n = snprintf(
            line, sizeof line, "%u %u %.*s\n", w->number, w->put, (int)(w->put * 7 % LINE),
            "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx");
        access_log_put(w->log, str_n(line, (size_t)n));
    }
    return NULL;
}

static void check_lines(struct str text, unsigned *next)
{
    while (text.n > 0) {
        unsigned number, at;
        struct str line = str_cut(&text, '\n');
        assert_int_equal(sscanf(line.p, "%u %u ", &number, &at), 2);
        assert_true(number < WRITERS);
        assert_int_equal(at, next[number]); /* each writer's own in their order */
        next[number]++;
    }
}

static void every_line_is_written_once_and_whole(void **state)
{
    struct folder f;
    struct access_log *log;
    struct writer w[WRITERS];
    pthread_t threads[WRITERS];
    unsigned next[WRITERS] = { 0 };
    struct buf text;
    struct why why;
    (void)state;
    make_folder(&f);
    assert_int_equal(access_log_new(f.path, 10000, &log, &why), ERR_OK);
    for (unsigned i = 0; i < WRITERS; i++) {
        w[i] = (struct writer){ log, i, 0 };
        assert_int_equal(pthread_create(&threads[i], NULL, write_many, &w[i]), 0);
    }
    for (unsigned i = 0; i < WRITERS; i++) pthread_join(threads[i], NULL);
    assert_int_equal(access_log_dropped(log), 0);
    access_log_free(log); /* writes what is queued */
    buf_init(&text, MUCH);
    read_whole(f.path, &text);
    check_lines(buf_str(&text), next);
    for (unsigned i = 0; i < WRITERS; i++) assert_int_equal(next[i], LINES);
    buf_done(&text);
    remove_folder(&f);
}

/* Nothing is lost by a file that is moved away, and what comes later is in the new one. */
static void a_file_that_was_renamed_is_opened_anew(void **state)
{
    struct folder f;
    struct access_log *log;
    struct buf old, new;
    struct why why;
    (void)state;
    make_folder(&f);
    assert_int_equal(access_log_new(f.path, 10000, &log, &why), ERR_OK);
    access_log_put(log, STR("first\n"));
    buf_init(&old, MUCH), buf_init(&new, MUCH);
    while (old.len == 0) read_whole(f.path, &old); /* until it is there */
    assert_int_equal(rename(f.path, f.moved), 0);
    uint64_t put = 0, dropped;
    for (; new.len == 0; put++) { /* it is noticed while lines go on coming */
        access_log_put(log, STR("later\n"));
        read_whole(f.path, &new);
    }
    while (access_log_dropped(log) == 0 && put < 20000) {
        access_log_put(log, STR("later\n"));
        put++;
    }
    dropped = access_log_dropped(log);
    access_log_free(log);
    buf_clear(&old), buf_clear(&new);
    read_whole(f.moved, &old);
    read_whole(f.path, &new);
    assert_int_equal(old.len + new.len, 6 + (put - dropped) * 6);
    buf_done(&old), buf_done(&new);
    remove_folder(&f);
}

/* A pipe whose reader has stopped reading: the end does not wait for it. */
static void a_reader_that_has_stopped_does_not_hold_up_the_end(void **state)
{
    struct folder f;
    struct access_log *log;
    struct why why;
    static char line[4096];
    (void)state;
    make_folder(&f);
    assert_int_equal(mkfifo(f.path, 0600), 0);
    int reader = open(f.path, O_RDWR | O_CLOEXEC);
    assert_true(reader >= 0);
    assert_int_equal(access_log_new(f.path, 10000, &log, &why), ERR_OK);
    memset(line, 'x', sizeof line);
    line[sizeof line - 1] = '\n';
    for (int i = 0; i < 1000; i++) access_log_put(log, str_n(line, sizeof line)); /* 4 MB */
    access_log_free(log);                                                         /* returns */
    close(reader); /* ends the writer: nobody can read any more */
    remove_folder(&f);
}

int main(void)
{
    (void)signal(SIGPIPE, SIG_IGN);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_line_is_written_once_and_whole),
        cmocka_unit_test(a_file_that_was_renamed_is_opened_anew),
        cmocka_unit_test(a_reader_that_has_stopped_does_not_hold_up_the_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
