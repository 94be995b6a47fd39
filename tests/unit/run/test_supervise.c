/* SPDX-License-Identifier: Apache-2.0 */
/* The pause before a restart, the reading of a probe's answer, and who a recorded process is. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../../../services/run/backoff.h"
#include "../../../services/run/probe.h"
#include "../../../services/run/proc.h"
#include "base/file.h"

static void pauses_double_up_to_ten_seconds(void **state)
{
    (void)state;
    struct backoff b = { 0 };
    static const uint64_t want[] = { 200, 400, 800, 1600, 3200, 6400, 10000, 10000 };
    for (size_t i = 0; i < ARRAY_LEN(want); i++)
        assert_int_equal(backoff_died(&b, BACKOFF_HEALTHY_MS - 1), want[i]);
}

static void a_long_life_begins_the_pauses_anew(void **state)
{
    (void)state;
    struct backoff b = { 0 };
    for (int i = 0; i < 5; i++) (void)backoff_died(&b, 0);
    assert_int_equal(backoff_died(&b, BACKOFF_HEALTHY_MS), 200);
    assert_int_equal(backoff_died(&b, 0), 400);
}

static void reads_a_status_line(void **state)
{
    (void)state;
    assert_int_equal(probe_status(STR("HTTP/1.1 200 OK")), 200);
    assert_int_equal(probe_status(STR("HTTP/1.0 503")), 503);
    assert_int_equal(probe_status(STR("HTTP/1.1 20")), 0);
    assert_int_equal(probe_status(STR("HTTP/1.1 2x0")), 0);
    assert_int_equal(probe_status(STR("HTTP/2 200 OK ")), 0);
    assert_int_equal(probe_status(STR("SSH-2.0-OpenSSH")), 0);
    assert_int_equal(probe_status(STR("")), 0);
}

static void tells_why_it_is_not_ready(void **state)
{
    (void)state;
    char said[PROBE_SAID_MAX];
    probe_said(STR("HTTP/1.1 503 No\r\nX: y\r\n\r\nnot ready: no bus\nnot ready: more\n"), said);
    assert_string_equal(said, "no bus");
    probe_said(STR("HTTP/1.1 503 No\r\n\r\n{\"status\":\"\x1b[2J\"}"), said);
    assert_string_equal(said, "{\"status\":\"[2J\"}");
    probe_said(STR("HTTP/1.1 503 No\r\nX: not ready: y\r\n"), said);
    assert_string_equal(said, "");
    probe_said(STR("HTTP/1.1 503 No\r\n\r\n"), said);
    assert_string_equal(said, "");
    probe_said(STR(""), said);
    assert_string_equal(said, "");
    char long_one[600] = "HTTP/1.1 503 No\r\n\r\n";
    size_t n = strlen(long_one);
    memset(long_one + n, 'x', sizeof long_one - n);
    probe_said(str_n(long_one, sizeof long_one), said);
    assert_int_equal(strlen(said), PROBE_SAID_MAX - 1);
}

static void tells_a_process_from_a_later_one(void **state)
{
    (void)state;
    char dir[] = "/tmp/aigw-test-run-XXXXXX", path[64];
    assert_non_null(mkdtemp(dir));
    (void)snprintf(path, sizeof path, "%s/x.pid", dir);
    struct proc_id self, read_back;
    assert_int_equal(proc_identify(getpid(), &self), ERR_OK);
    assert_true(proc_is_alive(self));
    assert_int_equal(proc_record_write(path, self), ERR_OK);
    assert_int_equal(proc_record_read(path, &read_back), ERR_OK);
    assert_int_equal(read_back.pid, self.pid);
    assert_int_equal(read_back.started, self.started);
    struct proc_id stranger = { self.pid, self.started + 1 };
    assert_false(proc_is_alive(stranger));

    assert_int_equal(file_write(path, STR("1 2 3\n")), ERR_OK); /* never process 1 */
    assert_int_equal(proc_record_read(path, &read_back), ERR_INVALID);
    assert_int_equal(file_write(path, STR("77 5 another-boot\n")), ERR_OK);
    assert_int_equal(proc_record_read(path, &read_back), ERR_NOT_FOUND);
    assert_int_equal(file_write(path, STR("")), ERR_OK);
    assert_int_equal(proc_record_read(path, &read_back), ERR_INVALID);
    (void)unlink(path);
    assert_int_equal(proc_record_read(path, &read_back), ERR_NOT_FOUND);
    (void)rmdir(dir);
}

static void gives_a_process_its_environment_log_and_folder(void **state)
{
    (void)state;
    char dir[] = "/tmp/aigw-test-run-XXXXXX", log[64], env_file[64];
    assert_non_null(mkdtemp(dir));
    (void)snprintf(log, sizeof log, "%s/x.log", dir);
    (void)snprintf(env_file, sizeof env_file, "%s/x.env", dir);
    assert_int_equal(file_write(env_file, STR("A=file\nB=file\n")), ERR_OK);
    assert_int_equal(setenv("A", "outer", 1), 0);
    assert_int_equal(setenv("C", "outer", 1), 0);
    assert_int_equal(setenv("MAKEFLAGS", "-j", 1), 0);
    char sh[] = "sh", c[] = "-c", b[] = "B=plan";
    char script[] = "echo $A $B $C \"[$MAKEFLAGS]\"; pwd; echo problem >&2";
    char *argv[] = { sh, c, script, NULL }, *env[] = { b, NULL };
    struct plan_process p = { .name = "x", .argv = argv, .env = env, .env_n = 1 };
    p.env_file = env_file;
    p.directory = dir;
    pid_t pid = 0;
    struct why why = { "" };
    assert_int_equal(proc_spawn(&p, log, &pid, &why), ERR_OK);
    int status = -1;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    struct buf text;
    buf_init(&text, 4096);
    assert_int_equal(file_read(log, &text), ERR_OK);
    char want[128];
    (void)snprintf(want, sizeof want, "file plan outer []\n%s\nproblem\n", dir);
    assert_string_equal(buf_z(&text), want);
    buf_done(&text);

    assert_int_equal(file_write(env_file, STR("no assignment\n")), ERR_OK);
    assert_int_equal(proc_spawn(&p, log, &pid, &why), ERR_INVALID);
    assert_null(strstr(why.text, "no assignment"));
    (void)unlink(log);
    (void)unlink(env_file);
    (void)rmdir(dir);
}

static void ends_a_leftover_with_its_group(void **state)
{
    (void)state;
    char dir[] = "/tmp/aigw-test-run-XXXXXX", log[64];
    assert_non_null(mkdtemp(dir));
    (void)snprintf(log, sizeof log, "%s/x.log", dir);
    /* One that ignores SIGTERM, and so does its child. */
    char sh[] = "sh", c[] = "-c", script[] = "trap '' TERM; sleep 60 & echo $!; wait";
    char *argv[] = { sh, c, script, NULL }, *env[] = { NULL };
    struct plan_process p = { .name = "x", .argv = argv, .env = env };
    pid_t pid = 0;
    struct why why = { "" };
    assert_int_equal(proc_spawn(&p, log, &pid, &why), ERR_OK);
    struct proc_id id;
    assert_int_equal(proc_identify(pid, &id), ERR_OK);
    struct buf text;
    buf_init(&text, 4096);
    struct str first = STR("");
    uint64_t grandchild = 0;
    for (int i = 0; i < 6000 && first.n == 0; i++) { /* until it has said who its child is */
        buf_clear(&text);
        assert_int_equal(file_read(log, &text), ERR_OK);
        first = buf_str(&text);
        if (memchr(first.p != NULL ? first.p : "", '\n', first.n) == NULL) first.n = 0;
        (void)usleep(10000);
    }
    assert_int_equal(str_to_u64(str_cut(&first, '\n'), &grandchild), ERR_OK);
    struct proc_id grandchild_id;
    assert_int_equal(proc_identify((pid_t)grandchild, &grandchild_id), ERR_OK);
    proc_end_leftover(id, 100);
    assert_false(proc_is_alive(id));
    int status = 0;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status));
    for (int i = 0; i < 6000 && proc_is_alive(grandchild_id); i++) (void)usleep(10000);
    assert_false(proc_is_alive(grandchild_id));
    buf_done(&text);
    (void)unlink(log);
    (void)rmdir(dir);
}

static void cuts_a_log_while_it_is_written(void **state)
{
    (void)state;
    char dir[] = "/tmp/aigw-test-run-XXXXXX", log[64], old[72];
    assert_non_null(mkdtemp(dir));
    (void)snprintf(log, sizeof log, "%s/x.log", dir);
    (void)snprintf(old, sizeof old, "%s.1", log);
    FILE *f = fopen(log, "a");
    assert_non_null(f);
    assert_int_equal(fputs("0123456789\n", f) >= 0, 1);
    (void)fflush(f);
    assert_int_equal(log_rotate(log, 11), ERR_OK); /* not larger: left alone */
    struct stat st;
    assert_int_equal(stat(old, &st), -1);
    assert_int_equal(log_rotate(log, 10), ERR_OK);
    assert_int_equal(fputs("after\n", f) >= 0, 1);
    (void)fclose(f);
    struct buf text;
    buf_init(&text, 4096);
    assert_int_equal(file_read(old, &text), ERR_OK);
    assert_string_equal(buf_z(&text), "0123456789\n");
    buf_clear(&text);
    assert_int_equal(file_read(log, &text), ERR_OK);
    assert_string_equal(buf_z(&text), "after\n");
    buf_done(&text);
    assert_int_equal(log_rotate("/nonexistent/x.log", 10), ERR_OK);
    (void)unlink(log);
    (void)unlink(old);
    (void)rmdir(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pauses_double_up_to_ten_seconds),
        cmocka_unit_test(a_long_life_begins_the_pauses_anew),
        cmocka_unit_test(reads_a_status_line),
        cmocka_unit_test(tells_why_it_is_not_ready),
        cmocka_unit_test(tells_a_process_from_a_later_one),
        cmocka_unit_test(gives_a_process_its_environment_log_and_folder),
        cmocka_unit_test(ends_a_leftover_with_its_group),
        cmocka_unit_test(cuts_a_log_while_it_is_written),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
