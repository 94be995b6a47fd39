/* SPDX-License-Identifier: Apache-2.0 */
/* A folder of vocabularies that changes under the library's eyes: real files, real inotify. */
#include <dirent.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/log.h"
#include "config/library.h"
#include "support_bytes_vocab.h"

enum { SETTLE_MS = 200 };

struct fixture {
    char root[64], dir[96], state[96];
    struct library *lib;
    atomic_int changes, warnings;
};

static void changed(void *ctx, struct models *vocabularies)
{
    struct fixture *f = ctx;
    ASSERT(models_count(vocabularies) < 100);
    atomic_fetch_add(&f->changes, 1);
}

static void report(void *ctx, int level, const char *what, const char *file, const char *why)
{
    struct fixture *f = ctx;
    (void)what, (void)file, (void)why;
    if (level == LOG_WARN) atomic_fetch_add(&f->warnings, 1);
}

/* A vocabulary called `name` whose template says `template`. */
static void make_vocab(const char *name, const char *template, struct buf *ret)
{
    buf_init(ret, 64u << 20);
    bytes_vocab_file(name, template, "", ret);
}

static void put_bytes(const char *path, const char *how, const char *p, size_t n)
{
    FILE *to = fopen(path, how);
    assert_non_null(to);
    assert_int_equal(fwrite(p, 1, n, to), n);
    assert_int_equal(fclose(to), 0);
}

static const char *in(const struct fixture *f, const char *name)
{
    static _Thread_local char path[4][256];
    static _Thread_local unsigned turn;
    char *p = path[turn++ % 4];
    (void)snprintf(p, sizeof path[0], "%s/%s", f->dir, name);
    return p;
}

static void put(const struct fixture *f, const char *file, const char *name, const char *template)
{
    struct buf b;
    make_vocab(name, template, &b);
    put_bytes(in(f, file), "wb", b.data, b.len);
    buf_done(&b);
}

static struct library_options options(struct fixture *f)
{
    return (struct library_options){ .dir = f->dir,
                                     .state_dir = f->state,
                                     .clock = clock_system(),
                                     .settle_ms = SETTLE_MS,
                                     .changed = changed,
                                     .report = report,
                                     .ctx = f };
}

static void begin(struct fixture *f)
{
    struct library_options o = options(f);
    struct why why = { "" };
    assert_int_equal(library_new(&o, &f->lib, &why), ERR_OK);
}

static int setup(void **state)
{
    struct fixture *f = xcalloc(1, sizeof *f);
    (void)snprintf(f->root, sizeof f->root, "/tmp/aigw-library-XXXXXX");
    assert_non_null(mkdtemp(f->root));
    (void)snprintf(f->dir, sizeof f->dir, "%s/vocab", f->root);
    (void)snprintf(f->state, sizeof f->state, "%s/state", f->root);
    assert_int_equal(mkdir(f->dir, 0700), 0);
    assert_int_equal(mkdir(f->state, 0700), 0);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    char command[128];
    library_free(f->lib);
    (void)snprintf(command, sizeof command, "rm -rf %s", f->root);
    assert_int_equal(system(command), 0);
    free(f);
    return 0;
}

/* How many tokens "abc" has in a chat of that model; 0 when it is an estimate. */
static uint64_t tokens(struct fixture *f, const char *model)
{
    struct models *m = library_models(f->lib);
    struct model_info info;
    struct chat_count c = { .tokens = 0 };
    struct chat_slices in_slices = { .messages = STR("[{\"role\":\"u\",\"content\":\"abc\"}]") };
    models_find(m, str_of(model), &info);
    if (info.vocab != NULL) assert_int_equal(chat_count(&info, &in_slices, &c, NULL), ERR_OK);
    models_unref(m);
    return c.tokens;
}

static void wait_tokens(struct fixture *f, const char *model, uint64_t want)
{
    for (uint64_t end = clock_mono_ms(clock_system()) + 60000; tokens(f, model) != want;) {
        if (clock_mono_ms(clock_system()) > end)
            fail_msg("%s: %d, want %d", model, (int)tokens(f, model), (int)want);
        usleep(2000);
    }
}

struct found {
    const char *file;
    enum library_served served;
    char reason[400];
    int n;
};

static void note_problem(void *ctx, const struct library_problem *p)
{
    struct found *found = ctx;
    if (strcmp(p->file, found->file) != 0) return;
    found->n++;
    found->served = p->served;
    (void)str_copyz(found->reason, sizeof found->reason, str_of(p->reason));
}

static struct found problem_of(struct fixture *f, const char *file)
{
    struct found found = { .file = file };
    library_problems(f->lib, note_problem, &found);
    return found;
}

static struct found wait_problem(struct fixture *f, const char *file, int n)
{
    for (uint64_t end = clock_mono_ms(clock_system()) + 60000;;) {
        struct found found = problem_of(f, file);
        if (found.n == n) return found;
        if (clock_mono_ms(clock_system()) > end) fail_msg("%s: %d problems", file, found.n);
        usleep(2000);
    }
}

#define PLAIN "{% for m in messages %}{{ m.content }}{% endfor %}"
#define TWICE "{% for m in messages %}{{ m.content }}{{ m.content }}{% endfor %}"

static void what_is_there_at_the_start_is_loaded_before_anyone_asks(void **state)
{
    struct fixture *f = *state;
    put(f, "a.aigwvocab", "a", PLAIN);
    begin(f);
    assert_int_equal(tokens(f, "a"), 3);
    assert_int_equal(atomic_load(&f->changes), 0);
}

static void a_file_put_there_is_served_replaced_and_removed(void **state)
{
    struct fixture *f = *state;
    begin(f);
    assert_int_equal(tokens(f, "a"), 0);
    put(f, "a.aigwvocab", "a", PLAIN);
    wait_tokens(f, "a", 3);
    assert_true(atomic_load(&f->changes) >= 1);
    put(f, "new", "a", TWICE);
    assert_int_equal(rename(in(f, "new"), in(f, "a.aigwvocab")), 0);
    wait_tokens(f, "a", 6);
    assert_int_equal(unlink(in(f, "a.aigwvocab")), 0);
    wait_tokens(f, "a", 0);
    assert_int_equal(atomic_load(&f->warnings), 0);
}

static void who_holds_the_old_registry_keeps_its_vocabulary(void **state)
{
    struct fixture *f = *state;
    struct model_info info;
    uint64_t n = 0;
    put(f, "a.aigwvocab", "a", PLAIN);
    begin(f);
    struct models *old = library_models(f->lib);
    models_find(old, STR("a"), &info);
    assert_int_equal(unlink(in(f, "a.aigwvocab")), 0);
    wait_tokens(f, "a", 0);
    assert_int_equal(token_count(info.vocab, STR("abc"), SPECIAL_TEXT, &n), ERR_OK);
    assert_int_equal(n, 3);
    models_unref(old);
}

static void a_file_overwritten_in_place_does_not_pull_the_old_one_away(void **state)
{
    struct fixture *f = *state;
    put(f, "a.aigwvocab", "a", PLAIN);
    begin(f);
    /* Mapped as it lies, this would be a bus error at the next count. */
    assert_int_equal(truncate(in(f, "a.aigwvocab"), 0), 0);
    assert_int_equal(tokens(f, "a"), 3);
    struct found found = wait_problem(f, "a.aigwvocab", 1);
    assert_int_equal(found.served, LIBRARY_BEFORE);
    assert_int_equal(tokens(f, "a"), 3);
    put(f, "a.aigwvocab", "a", TWICE);
    wait_tokens(f, "a", 6);
    (void)wait_problem(f, "a.aigwvocab", 0);
}

static void a_file_that_grows_is_left_alone_until_it_is_whole(void **state)
{
    struct fixture *f = *state;
    struct buf b;
    struct library_options o = options(f);
    struct why why = { "" };
    make_vocab("slow", PLAIN, &b);
    o.settle_ms = 8000;
    assert_int_equal(library_new(&o, &f->lib, &why), ERR_OK);
    size_t step = b.len / 20 + 1;
    for (size_t at = 0; at < b.len; at += step) {
        put_bytes(in(f, "slow.aigwvocab"), at == 0 ? "wb" : "ab", b.data + at,
                  MIN(step, b.len - at));
        usleep(5000); /* far less than what settles */
    }
    buf_done(&b);
    wait_tokens(f, "slow", 3);
    assert_int_equal(atomic_load(&f->warnings), 0);
}

static void a_bad_file_is_reported_and_hurts_nobody_else(void **state)
{
    struct fixture *f = *state;
    put(f, "a.aigwvocab", "a", PLAIN);
    begin(f);
    put_bytes(in(f, "bad.aigwvocab"), "wb", "nonsense", 8);
    struct found found = wait_problem(f, "bad.aigwvocab", 1);
    assert_int_equal(found.served, LIBRARY_NOT);
    assert_true(strlen(found.reason) > 0);
    assert_null(strstr(found.reason, f->root)); /* the file's name says where it is */
    assert_int_equal(tokens(f, "a"), 3);
    assert_int_equal(atomic_load(&f->warnings), 1);
    put(f, "bad.aigwvocab", "bad", PLAIN);
    wait_tokens(f, "bad", 3);
    (void)wait_problem(f, "bad.aigwvocab", 0);
    put(f, "no-template.aigwvocab", "nt", "{% if %}");
    found = wait_problem(f, "no-template.aigwvocab", 1);
    assert_int_equal(found.served, LIBRARY_NO_TEMPLATE);
}

/* Whole in size, wrong in one bit: what a disk or a copy that went wrong leaves behind. */
static void a_file_with_one_wrong_bit_anywhere_is_not_taken(void **state)
{
    struct fixture *f = *state;
    struct buf b;
    put(f, "good.aigwvocab", "good", PLAIN);
    make_vocab("flipped", PLAIN, &b);
    begin(f);
    for (size_t i = 0; i < 9; i++) {
        size_t at = b.len / 9 * i + b.len / 18;
        b.data[at] ^= 0x10;
        put_bytes(in(f, "flipped.aigwvocab"), "wb", b.data, b.len);
        struct found found = wait_problem(f, "flipped.aigwvocab", 1);
        assert_int_equal(found.served, LIBRARY_NOT);
        assert_null(strstr(found.reason, f->root));
        assert_int_equal(tokens(f, "flipped"), 0);
        b.data[at] ^= 0x10;
        assert_int_equal(unlink(in(f, "flipped.aigwvocab")), 0);
        (void)wait_problem(f, "flipped.aigwvocab", 0);
    }
    put_bytes(in(f, "flipped.aigwvocab"), "wb", b.data, b.len);
    wait_tokens(f, "flipped", 3);
    assert_int_equal(tokens(f, "good"), 3);
    buf_done(&b);
}

static void of_two_with_one_name_the_first_is_served(void **state)
{
    struct fixture *f = *state;
    put(f, "a.aigwvocab", "same", PLAIN);
    put(f, "b.aigwvocab", "same", TWICE);
    begin(f);
    assert_int_equal(tokens(f, "same"), 3);
    assert_int_equal(problem_of(f, "b.aigwvocab").n, 1);
    assert_int_equal(unlink(in(f, "a.aigwvocab")), 0);
    wait_tokens(f, "same", 6);
    (void)wait_problem(f, "b.aigwvocab", 0);
}

static void a_folder_that_comes_later_is_found_by_looking(void **state)
{
    struct fixture *f = *state;
    struct library_options o = options(f);
    assert_int_equal(rmdir(f->dir), 0);
    o.scan_ms = 20;
    assert_int_equal(library_new(&o, &f->lib, NULL), ERR_OK);
    assert_int_equal(mkdir(f->dir, 0700), 0);
    put(f, "a.aigwvocab", "a", PLAIN);
    wait_tokens(f, "a", 3);
}

static void rules_for_images_are_followed_too(void **state)
{
    struct fixture *f = *state;
    begin(f);
    put_bytes(in(f, "images.rules"), "wb", "no such rule at all\n", 20);
    struct found found = wait_problem(f, "images.rules", 1);
    assert_int_equal(found.served, LIBRARY_NOT);
    assert_int_equal(atomic_load(&f->warnings), 1);
    assert_int_equal(unlink(in(f, "images.rules")), 0);
    (void)wait_problem(f, "images.rules", 0);
}

static int count_files(const char *dir)
{
    DIR *d = opendir(dir);
    int n = 0;
    if (d == NULL) return 0;
    for (const struct dirent *e; (e = readdir(d)) != NULL;) n += e->d_name[0] != '.';
    closedir(d);
    return n;
}

static void copies_that_nobody_uses_are_removed(void **state)
{
    struct fixture *f = *state;
    char copies[128];
    (void)snprintf(copies, sizeof copies, "%s/.mapped", f->dir);
    put(f, "a.aigwvocab", "a", PLAIN);
    begin(f);
    assert_int_equal(count_files(copies), 1);
    put(f, "a.aigwvocab", "a", TWICE);
    wait_tokens(f, "a", 6);
    for (int i = 0; i < 60000 && count_files(copies) != 1; i++) usleep(1000);
    assert_int_equal(count_files(copies), 1);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(what_is_there_at_the_start_is_loaded_before_anyone_asks),
        T(a_file_put_there_is_served_replaced_and_removed),
        T(who_holds_the_old_registry_keeps_its_vocabulary),
        T(a_file_overwritten_in_place_does_not_pull_the_old_one_away),
        T(a_file_that_grows_is_left_alone_until_it_is_whole),
        T(a_bad_file_is_reported_and_hurts_nobody_else),
        T(a_file_with_one_wrong_bit_anywhere_is_not_taken),
        T(of_two_with_one_name_the_first_is_served),
        T(a_folder_that_comes_later_is_found_by_looking),
        T(rules_for_images_are_followed_too),
        T(copies_that_nobody_uses_are_removed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
