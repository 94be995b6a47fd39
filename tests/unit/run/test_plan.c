/* SPDX-License-Identifier: Apache-2.0 */
/* What a plan file may say, the order it leads to, and how its mistakes are named. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "../../../services/run/plan.h"

static void reads_every_word(void **state)
{
    (void)state;
    struct plan p;
    struct why why = { "" };
    assert_int_equal(plan_parse(STR("# first\n"
                                    "process nats\n"
                                    "  command nats-server -c \"a b/nats.conf\" \"say \\\"x\\\"\"\n"
                                    "\n"
                                    "process edge-1\n"
                                    "\tafter nats\n"
                                    "  command aigw-edge\n"
                                    "  env A=1 = 2\n"
                                    "  env B=\n"
                                    "  env-file state/e.env\n"
                                    "  directory /tmp\n"
                                    "  ready http://[::1]:9081/readyz?x=1\n"
                                    "  ready-timeout 5s\n"
                                    "  stop-timeout 250ms\n"
                                    "  port 8081 GATEWAY_PORT\n"
                                    "  port 9081\n"),
                                &p, &why),
                     ERR_OK);
    assert_int_equal(p.n, 2);
    assert_string_equal(p.processes[0].name, "nats");
    assert_string_equal(p.processes[0].argv[0], "nats-server");
    assert_string_equal(p.processes[0].argv[2], "a b/nats.conf");
    assert_string_equal(p.processes[0].argv[3], "say \"x\"");
    assert_null(p.processes[0].argv[4]);
    assert_null(p.processes[0].ready.host);
    assert_int_equal(p.processes[0].ready_timeout_ms, PLAN_READY_TIMEOUT_MS);
    const struct plan_process *e = &p.processes[1];
    assert_int_equal(e->after_n, 1);
    assert_int_equal(e->after[0], 0);
    assert_int_equal(e->env_n, 2);
    assert_string_equal(e->env[0], "A=1 = 2");
    assert_string_equal(e->env[1], "B=");
    assert_null(e->env[2]);
    assert_string_equal(e->env_file, "state/e.env");
    assert_string_equal(e->directory, "/tmp");
    assert_string_equal(e->ready.host, "::1");
    assert_int_equal(e->ready.port, 9081);
    assert_string_equal(e->ready.path, "/readyz?x=1");
    assert_int_equal(e->ready_timeout_ms, 5000);
    assert_int_equal(e->stop_timeout_ms, 250);
    assert_int_equal(e->ports_n, 2);
    assert_int_equal(e->ports[0].port, 8081);
    assert_string_equal(e->ports[0].setting, "GATEWAY_PORT");
    assert_string_equal(e->ports[1].setting, "");
    plan_done(&p);
}

static void puts_each_process_behind_what_it_waits_for(void **state)
{
    (void)state;
    struct plan p;
    struct why why = { "" };
    assert_int_equal(plan_parse(STR("process c\n after a b\n command x\n"
                                    "process b\n after a\n command x\n"
                                    "process a\n command x\n"
                                    "process d\n command x\n"),
                                &p, &why),
                     ERR_OK);
    size_t place[4] = { 0 };
    for (size_t i = 0; i < p.n; i++) place[p.processes[i].name[0] - 'a'] = i;
    assert_true(place[0] < place[1]);
    assert_true(place[1] < place[2]);
    for (size_t i = 0; i < p.n; i++)
        for (size_t k = 0; k < p.processes[i].after_n; k++)
            assert_true(p.processes[i].after[k] < i);
    const struct plan_process *c = &p.processes[place[2]];
    assert_string_equal(p.processes[c->after[0]].name, "a");
    assert_string_equal(p.processes[c->after[1]].name, "b");
    plan_done(&p);
}

static void refuses_what_it_does_not_understand(void **state)
{
    (void)state;
    static const struct {
        const char *text, *why;
    } bad[] = {
        { "", "no process" },
        { "command x\n", "line 1: the first line" },
        { "process A\n", "line 1: a process name" },
        { "process a\n command x\nprocess a\n", "line 3: a second process" },
        { "process a\n", "line 1: the process has no command" },
        { "process a\n command\n", "line 2: command needs" },
        { "process a\n command x\n command y\n", "line 3: a second command" },
        { "process a\n command \"x\n", "line 2: a quote" },
        { "process a\n command x\n env 1A=x\n", "line 3: env needs" },
        { "process a\n command x\n env A\n", "line 3: env needs" },
        { "process a\n command x\n env =x\n", "line 3: env needs" },
        { "process a\n command x\n after b\n", "no process is called b" },
        { "process a\n command x\n after a\n", "circle" },
        { "process a\n command x\n after b\nprocess b\n command x\n after a\n", "circle" },
        { "process a\n command x\n ready https://127.0.0.1:1/\n", "line 3: ready" },
        { "process a\n command x\n ready http://example:1/\n", "line 3: ready" },
        { "process a\n command x\n ready http://127.0.0.1:0/\n", "line 3: ready" },
        { "process a\n command x\n ready http://127.0.0.1:70000/\n", "line 3: ready" },
        { "process a\n command x\n ready http://127.0.0.1/\n", "line 3: ready" },
        { "process a\n command x\n ready-timeout 5\n", "line 3: a time" },
        { "process a\n command x\n stop-timeout 99999999m\n", "line 3: a time" },
        { "process a\n command x\n port x\n", "line 3: not a port" },
        { "process a\n command x\n colour red\n", "line 3: unknown word" },
    };
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        struct plan p;
        struct why why = { "" };
        assert_int_equal(plan_parse(str_of(bad[i].text), &p, &why), ERR_INVALID);
        if (strstr(why.text, bad[i].why) == NULL)
            fail_msg("%s: said \"%s\" instead of \"%s\"", bad[i].text, why.text, bad[i].why);
    }
}

static void reads_an_env_file(void **state)
{
    (void)state;
    struct arena a;
    arena_init(&a, 4096);
    struct why why = { "" };
    char **env = NULL;
    size_t n = 0;
    assert_int_equal(plan_parse_env(STR("# secrets\nA=x=y\n\n  B=2"), &a, &env, &n, &why), ERR_OK);
    assert_int_equal(n, 2);
    assert_string_equal(env[0], "A=x=y");
    assert_string_equal(env[1], "B=2");
    assert_null(env[2]);
    assert_int_equal(plan_parse_env(STR("A=1\nsecret\n"), &a, &env, &n, &why), ERR_INVALID);
    assert_string_equal(why.text, "line 2 is not NAME=VALUE"); /* never the line itself */
    assert_int_equal(plan_parse_env(STR(""), &a, &env, &n, &why), ERR_OK);
    assert_int_equal(n, 0);
    arena_done(&a);
}

static void takes_localhost_for_the_loopback_address(void **state)
{
    (void)state;
    struct arena a;
    arena_init(&a, 4096);
    struct plan_url u;
    assert_int_equal(plan_parse_url(STR("http://localhost:80"), &a, &u), ERR_OK);
    assert_string_equal(u.host, "127.0.0.1");
    assert_string_equal(u.path, "/");
    assert_int_equal(plan_parse_url(STR("http://127.0.0.1:80/a b"), &a, &u), ERR_INVALID);
    assert_int_equal(plan_parse_url(STR("http://127.0.0.1:80/a\r\nX: y"), &a, &u), ERR_INVALID);
    arena_done(&a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_every_word),
        cmocka_unit_test(puts_each_process_behind_what_it_waits_for),
        cmocka_unit_test(refuses_what_it_does_not_understand),
        cmocka_unit_test(reads_an_env_file),
        cmocka_unit_test(takes_localhost_for_the_loopback_address),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
