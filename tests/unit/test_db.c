/* SPDX-License-Identifier: Apache-2.0 */
/* The same tests against SQLite and against a MariaDB that the test starts for itself. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/buf.h"
#include "rt/db.h"
#include "rt/db_url.h"
#include "support_port.h"

static char folder[64], sqlite_url[128], mysql_url[128];
static uint16_t mysql_port;
static pid_t mariadb;

/* --- a private MariaDB --- */

static void run_shell(const char *fmt, ...) PRINTF_LIKE(1, 2);
static void run_shell(const char *fmt, ...)
{
    struct buf b;
    va_list ap;
    buf_init(&b, 4096);
    va_start(ap, fmt);
    assert_int_equal(buf_vprintf(&b, fmt, ap), ERR_OK);
    va_end(ap);
    assert_int_equal(system(buf_z(&b)), 0);
    buf_done(&b);
}

static pid_t start_mariadb(void)
{
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        char data[128], tmp[128], sock[128], pidfile[128], port[32];
        const char *user = geteuid() == 0 ? "--user=root" : "--skip-name-resolve";
        (void)snprintf(data, sizeof(data), "--datadir=%s/data", folder);
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        (void)snprintf(tmp, sizeof(tmp), "--tmpdir=%s/tmp", folder);
        (void)snprintf(sock, sizeof(sock), "--socket=%s/s", folder);
        (void)snprintf(pidfile, sizeof(pidfile), "--pid-file=%s/pid", folder);
        (void)snprintf(port, sizeof(port), "--port=%u", (unsigned)mysql_port);
        char log[128];
        (void)snprintf(log, sizeof(log), "%s/log", folder);
        (void)freopen(log, "a", stderr);
        (void)freopen("/dev/null", "a", stdout);
        execlp("mariadbd", "mariadbd", "--no-defaults", data, tmp, sock, pidfile, port,
               "--bind-address=127.0.0.1", "--skip-name-resolve", user, (char *)NULL);
        _exit(127);
    }
    return pid;
}

static void stop_mariadb(int how)
{
    if (mariadb <= 0) return;
    kill(mariadb, how);
    (void)waitpid(mariadb, NULL, 0);
    mariadb = 0;
}

/* A server says that it is there by accepting; until then connecting is refused at once. */
static struct db *open_patiently(const char *url)
{
    struct db *d = NULL;
    struct why why = { "" };
    for (int i = 0; i < 600; i++) {
        if (db_open(url, &d, &why) == ERR_OK) return d;
        usleep(50000);
    }
    fail_msg("%s", why.text);
    return NULL;
}

static int set_up(void **state)
{
    (void)state;
    (void)snprintf(folder, sizeof(folder), "/tmp/aigw-db-XXXXXX");
    assert_non_null(mkdtemp(folder));
    (void)snprintf(sqlite_url, sizeof(sqlite_url), "sqlite:%s/test.db", folder);
    mysql_port = support_free_port();
    (void)snprintf(mysql_url, sizeof(mysql_url), "mysql://root@127.0.0.1:%u/aigw_test",
                   (unsigned)mysql_port);
    /* Temporary tables in a folder of its own: others in /tmp may have theirs. */
    run_shell("mkdir %s/tmp && mariadb-install-db --no-defaults --datadir=%s/data --tmpdir=%s/tmp "
              "--auth-root-authentication-method=normal --skip-test-db --skip-name-resolve %s "
              ">%s/install.log 2>&1",
              folder, folder, folder, geteuid() == 0 ? "--user=root" : "", folder);
    mariadb = start_mariadb();
    db_close(open_patiently(mysql_url));
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    stop_mariadb(SIGKILL);
    run_shell("rm -rf %s", folder);
    return 0;
}

/* --- what both do --- */

static const char *urls(int i)
{
    return i == 0 ? sqlite_url : mysql_url;
}

static void must(struct db *d, const char *sql)
{
    struct why why = { "" };
    if (db_exec(d, sql, NULL, 0, NULL, &why) != ERR_OK) fail_msg("%s: %s", sql, why.text);
}

static const struct db_migration migrations[] = {
    { 1,
      "things",
      { "CREATE TABLE IF NOT EXISTS things (id VARCHAR(36) NOT NULL PRIMARY KEY, n BIGINT, "
        "x DOUBLE, body MEDIUMTEXT)" } },
    { 2,
      "parts of things",
      { "CREATE TABLE IF NOT EXISTS parts (id BIGINT NOT NULL PRIMARY KEY, thing VARCHAR(36) NOT "
        "NULL, FOREIGN KEY (thing) REFERENCES things(id))" } },
};

static struct db *fresh(int which)
{
    struct why why = { "" };
    struct db *d = open_patiently(urls(which));
    must(d, "DROP TABLE IF EXISTS parts");
    must(d, "DROP TABLE IF EXISTS things");
    must(d, "DROP TABLE IF EXISTS test_migrations");
    if (db_migrate(d, "test", migrations, ARRAY_LEN(migrations), &why) != ERR_OK)
        fail_msg("%s", why.text);
    return d;
}

static int64_t count(struct db *d, const char *sql)
{
    struct db_rows *r;
    struct why why = { "" };
    if (db_query(d, sql, NULL, 0, &r, &why) != ERR_OK) fail_msg("%s", why.text);
    assert_int_equal(db_rows_next(r), ERR_OK);
    int64_t n = db_int(r, 0);
    db_rows_free(r);
    return n;
}

static void migrations_run_once_and_refuse_a_newer_database(void **state)
{
    (void)state;
    for (int w = 0; w < 2; w++) {
        struct why why = { "" };
        struct db *d = fresh(w);
        assert_int_equal(db_migrate(d, "test", migrations, 2, NULL), ERR_OK);
        assert_int_equal(count(d, "SELECT COUNT(*) FROM test_migrations"), 2);
        assert_int_equal(db_migrate(d, "test", migrations, 1, &why), ERR_CONFLICT);
        assert_non_null(strstr(why.text, "version 2"));
        static const struct db_migration broken[] = { { 3, "broken", { "CREATE NONSENSE" } } };
        assert_int_equal(db_migrate(d, "test", broken, 1, &why), ERR_INVALID);
        assert_non_null(strstr(why.text, "migration 3 of test (broken)"));
        assert_int_equal(count(d, "SELECT MAX(version) FROM test_migrations"), 2);
        db_close(d);
    }
}

static void values_come_back_as_they_went_in(void **state)
{
    (void)state;
    static const char bytes[] = "a\0b'\"`\xe4\xbd\xa0\xf0\x9f\x98\x80";
    for (int w = 0; w < 2; w++) {
        struct db *d = fresh(w);
        struct buf big;
        buf_init(&big, 4 * 1024 * 1024);
        while (big.len < 3000000) assert_int_equal(buf_appendz(&big, "0123456789"), ERR_OK);
        struct str texts[] = { str_n(bytes, sizeof(bytes) - 1), STR(""), buf_str(&big) };
        int64_t numbers[] = { INT64_MIN, 0, INT64_MAX };
        double doubles[] = { 0.1, -1e300, 12345.678 };
        for (size_t i = 0; i < 3; i++) {
            char id[2] = { (char)('a' + i), 0 };
            struct db_value p[] = { DBV_TEXT(str_of(id)), DBV_INT(numbers[i]),
                                    DBV_DOUBLE(doubles[i]), DBV_TEXT(texts[i]) };
            assert_int_equal(db_exec(d, "INSERT INTO things (id, n, x, body) VALUES (?, ?, ?, ?)",
                                     p, 4, NULL, NULL),
                             ERR_OK);
        }
        struct db_value nulls[] = { DBV_TEXT(STR("d")), DBV_NULL, DBV_NULL, DBV_NULL };
        assert_int_equal(db_exec(d, "INSERT INTO things (id, n, x, body) VALUES (?, ?, ?, ?)",
                                 nulls, 4, NULL, NULL),
                         ERR_OK);
        struct db_rows *r;
        assert_int_equal(
            db_query(d, "SELECT id, n, x, body FROM things ORDER BY id", NULL, 0, &r, NULL),
            ERR_OK);
        for (size_t i = 0; i < 3; i++) {
            assert_int_equal(db_rows_next(r), ERR_OK);
            assert_int_equal(db_text(r, 0).p[0], 'a' + (char)i);
            assert_true(db_int(r, 1) == numbers[i]);
            assert_true(db_double(r, 2) == doubles[i]);
            assert_false(db_is_null(r, 3));
            assert_true(str_eq(db_text(r, 3), texts[i]));
        }
        assert_int_equal(db_rows_next(r), ERR_OK);
        for (int c = 1; c < 4; c++) assert_true(db_is_null(r, c));
        assert_null(db_text(r, 3).p);
        assert_int_equal(db_int(r, 1), 0);
        assert_int_equal(db_rows_next(r), ERR_NOT_FOUND);
        db_rows_free(r);
        buf_done(&big);
        db_close(d);
    }
}

static void constraints_have_their_own_errors(void **state)
{
    (void)state;
    for (int w = 0; w < 2; w++) {
        struct db *d = fresh(w);
        struct why why = { "" };
        uint64_t changed = 99;
        must(d, "INSERT INTO things (id, n) VALUES ('a', 1)");
        assert_int_equal(
            db_exec(d, "INSERT INTO things (id, n) VALUES ('a', 2)", NULL, 0, &changed, &why),
            ERR_EXISTS);
        assert_int_equal(changed, 99);
        assert_int_equal(db_exec(d, "INSERT INTO parts VALUES (1, 'no')", NULL, 0, NULL, &why),
                         ERR_CONFLICT);
        assert_int_equal(db_exec(d, "SELECT FROM WHERE", NULL, 0, NULL, &why), ERR_INVALID);
        /* Rows that were matched count, also when they did not change. Text compares with case. */
        assert_int_equal(
            db_exec(d, "UPDATE things SET n = 1 WHERE id = 'a'", NULL, 0, &changed, NULL), ERR_OK);
        assert_int_equal(changed, 1);
        assert_int_equal(
            db_exec(d, "UPDATE things SET n = 1 WHERE id = 'A'", NULL, 0, &changed, NULL), ERR_OK);
        assert_int_equal(changed, 0);
        struct db_value one = DBV_INT(1);
        assert_int_equal(db_exec(d, "DELETE FROM things", &one, 1, NULL, &why), ERR_INTERNAL);
        db_close(d);
    }
}

static void a_rollback_undoes_and_a_commit_keeps(void **state)
{
    (void)state;
    for (int w = 0; w < 2; w++) {
        struct db *d = fresh(w), *other = open_patiently(urls(w));
        assert_int_equal(db_begin(d, NULL), ERR_OK);
        must(d, "INSERT INTO things (id, n) VALUES ('a', 1)");
        assert_int_equal(count(other, "SELECT COUNT(*) FROM things"), 0);
        db_rollback(d);
        assert_int_equal(count(d, "SELECT COUNT(*) FROM things"), 0);
        db_rollback(d); /* without a transaction: nothing */
        assert_int_equal(db_begin(d, NULL), ERR_OK);
        must(d, "INSERT INTO things (id, n) VALUES ('a', 1)");
        assert_int_equal(db_commit(d, NULL), ERR_OK);
        assert_int_equal(count(other, "SELECT COUNT(*) FROM things"), 1);
        db_close(other);
        db_close(d);
    }
}

static void queries_can_be_nested_even_with_the_same_text(void **state)
{
    (void)state;
    for (int w = 0; w < 2; w++) {
        struct db *d = fresh(w);
        struct db_rows *outer, *inner;
        for (int i = 0; i < 5; i++) {
            char sql[80];
            (void)snprintf(sql, sizeof(sql), "INSERT INTO things (id, n) VALUES ('t%d', %d)", i, i);
            must(d, sql);
        }
        int pairs = 0;
        static const char all[] = "SELECT n FROM things ORDER BY n";
        assert_int_equal(db_query(d, all, NULL, 0, &outer, NULL), ERR_OK);
        while (db_rows_next(outer) == ERR_OK) {
            assert_int_equal(db_query(d, all, NULL, 0, &inner, NULL), ERR_OK);
            while (db_rows_next(inner) == ERR_OK) pairs++;
            db_rows_free(inner);
            must(d, "UPDATE things SET x = 1");
        }
        db_rows_free(outer);
        assert_int_equal(pairs, 25);
        db_close(d);
    }
}

static void more_statements_than_the_cache_holds(void **state)
{
    (void)state;
    for (int w = 0; w < 2; w++) {
        struct db *d = fresh(w);
        for (int round = 0; round < 2; round++) {
            for (int i = 0; i < 150; i++) {
                char sql[80];
                (void)snprintf(sql, sizeof(sql), "SELECT %d + COUNT(*) FROM things", i);
                assert_int_equal(count(d, sql), i);
            }
        }
        db_close(d);
    }
}

/* --- MariaDB only --- */

static void a_restarted_server_is_found_again(void **state)
{
    (void)state;
    struct why why = { "" };
    struct db *d = fresh(1);
    assert_int_equal(db_begin(d, NULL), ERR_OK);
    must(d, "INSERT INTO things (id, n) VALUES ('lost', 1)");
    stop_mariadb(SIGKILL);
    assert_int_equal(db_exec(d, "INSERT INTO things (id, n) VALUES ('x', 1)", NULL, 0, NULL, &why),
                     ERR_UNAVAILABLE);
    assert_int_equal(db_commit(d, &why), ERR_UNAVAILABLE);
    assert_int_equal(db_exec(d, "SELECT 1", NULL, 0, NULL, &why), ERR_UNAVAILABLE);
    mariadb = start_mariadb();
    db_close(open_patiently(mysql_url));
    assert_int_equal(count(d, "SELECT COUNT(*) FROM things"), 0);
    db_close(d);
}

/* --- URLs --- */

static void urls_are_taken_apart_and_put_together(void **state)
{
    (void)state;
    struct db_url u;
    struct buf b;
    buf_init(&b, 512);
    assert_int_equal(db_url_parse("mysql://me:p%40s%2fs@db.example:3307/conf", &u, NULL), ERR_OK);
    assert_string_equal(u.user, "me");
    assert_string_equal(u.password, "p@s/s");
    assert_string_equal(u.host, "db.example");
    assert_int_equal(u.port, 3307);
    assert_string_equal(u.database, "conf");
    assert_int_equal(db_url_compose(u.user, u.password, u.host, u.port, u.database, &b), ERR_OK);
    assert_string_equal(buf_z(&b), "mysql://me:p%40s%2Fs@db.example:3307/conf");
    db_url_done(&u);
    assert_int_equal(db_url_parse("mysql://me@[::1]/conf", &u, NULL), ERR_OK);
    assert_string_equal(u.host, "::1");
    assert_int_equal(u.port, 3306);
    assert_string_equal(u.password, "");
    db_url_done(&u);
    static const char *const bad[] = {
        "mysql://",           "mysql://host/db",    "mysql://u@host",     "mysql://u@host/",
        "mysql://@host/db",   "mysql://u@/db",      "mysql://u@h:0/db",   "mysql://u@h:99999/db",
        "mysql://u@h:x/db",   "mysql://u:%zz@h/db", "mysql://u:%00@h/db", "mysql://u@[::1/db",
        "mysql://u@[::1]x/db"
    };
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        assert_int_equal(db_url_parse(bad[i], &u, NULL), ERR_INVALID);
    buf_done(&b);
}

static void passwords_do_not_appear_in_redacted_urls(void **state)
{
    (void)state;
    char out[128];
    db_redact_url("mysql://me:secret@host:3306/db", out, sizeof(out));
    assert_string_equal(out, "mysql://me:***@host:3306/db");
    db_redact_url("mysql://me:se:cr@et@host/db", out, sizeof(out));
    assert_string_equal(out, "mysql://me:***@host/db");
    db_redact_url("mysql://me@host:3306/db", out, sizeof(out));
    assert_string_equal(out, "mysql://me@host:3306/db");
    db_redact_url("sqlite:/var/lib/x.db", out, sizeof(out));
    assert_string_equal(out, "sqlite:/var/lib/x.db");
    struct db *d;
    assert_int_equal(db_open("postgres://x", &d, NULL), ERR_INVALID);
    assert_int_equal(db_open("sqlite:", &d, NULL), ERR_INVALID);
    assert_int_equal(db_open("sqlite:/nonexistent/folder/x.db", &d, NULL), ERR_IO);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(migrations_run_once_and_refuse_a_newer_database),
        cmocka_unit_test(values_come_back_as_they_went_in),
        cmocka_unit_test(constraints_have_their_own_errors),
        cmocka_unit_test(a_rollback_undoes_and_a_commit_keeps),
        cmocka_unit_test(queries_can_be_nested_even_with_the_same_text),
        cmocka_unit_test(more_statements_than_the_cache_holds),
        cmocka_unit_test(a_restarted_server_is_found_again),
        cmocka_unit_test(urls_are_taken_apart_and_put_together),
        cmocka_unit_test(passwords_do_not_appear_in_redacted_urls),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
