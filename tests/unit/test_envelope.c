/* SPDX-License-Identifier: Apache-2.0 */
/* What every message has, and the samples of those that have little more. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <dirent.h>
#include <stdio.h>

#include "proto/envelope.h"

static int samples(const char *folder, bool good)
{
    int n = 0;
    struct dirent *entry;
    DIR *dir = opendir(folder);
    if (dir == NULL) fail_msg("%s", folder);
    while ((entry = readdir(dir)) != NULL) {
        char path[512], text[4096];
        struct json *m = NULL;
        struct why why = { "" };
        if (entry->d_name[0] == '.') continue;
        (void)snprintf(path, sizeof path, "%s/%s", folder, entry->d_name);
        FILE *f = fopen(path, "rb");
        assert_non_null(f);
        size_t len = fread(text, 1, sizeof text, f);
        fclose(f);
        enum err e = envelope_parse(str_n(text, len), &m, &why);
        if ((e == ERR_OK) != good) fail_msg("%s: %s %s", path, err_name(e), why.text);
        if (!good) assert_true(why.text[0] != '\0');
        json_free(m);
        n++;
    }
    closedir(dir);
    return n;
}

/* The config center looks at nothing else before it answers. */
static void samples_are_what_they_are_called(void **state)
{
    (void)state;
    assert_int_equal(samples("proto/samples/config_get/good", true), 3);
    assert_int_equal(samples("proto/samples/config_get/bad", false), 3);
}

static void versions_are_told_from_rubbish(void **state)
{
    struct json *m = NULL;
    (void)state;
    assert_int_equal(envelope_parse(STR("{\"v\":2}"), &m, NULL), ERR_UNSUPPORTED);
    assert_int_equal(envelope_parse(STR("{\"v\":\"1\"}"), &m, NULL), ERR_INVALID);
    assert_int_equal(envelope_parse(STR("[]"), &m, NULL), ERR_INVALID);
    assert_int_equal(envelope_parse(STR(""), &m, NULL), ERR_INVALID);
    assert_null(m);
}

static void errors_come_back_as_what_they_were(void **state)
{
    struct why why = { "" };
    (void)state;
    struct json *m = envelope_error(clock_system(), rng_system(), "x", ERR_LIMIT, "too much");
    assert_int_equal(envelope_check_error(m, &why), ERR_LIMIT);
    assert_string_equal(why.text, "too much");
    json_free(m);
    m = envelope_new(clock_system(), rng_system(), "x");
    assert_int_equal(envelope_check_error(m, &why), ERR_OK);
    json_free(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(samples_are_what_they_are_called),
        cmocka_unit_test(versions_are_told_from_rubbish),
        cmocka_unit_test(errors_come_back_as_what_they_were),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
