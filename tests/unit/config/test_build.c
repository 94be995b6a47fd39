/* SPDX-License-Identifier: Apache-2.0 */
/* Parts, pages and manifest: deterministic, bounded, and what a reader takes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include <stdio.h>

#include "../../../services/config/build.h"
#include "base/map.h"

static const struct origin origin = { "01930000-0000-7000-8000-000000000001",
                                      "2026-01-31T12:00:00.000Z", "config-1" };

struct set {
    struct item *v;
    size_t n;
    struct arena arena;
};

static void add(struct set *s, const char *kind, const char *ns, const char *id, const char *body)
{
    s->v = realloc(s->v, (s->n + 1) * sizeof(*s->v));
    assert_non_null(s->v);
    s->v[s->n] = (struct item){ .kind = kind };
    assert_int_equal(arena_dup(&s->arena, str_of(ns), &s->v[s->n].ns), ERR_OK);
    assert_int_equal(arena_dup(&s->arena, str_of(id), &s->v[s->n].id), ERR_OK);
    assert_int_equal(arena_dup(&s->arena, str_of(body), &s->v[s->n].body), ERR_OK);
    s->n++;
}

/* n keys in one namespace, each some 250 bytes. */
static void fill(struct set *s, size_t n)
{
    char id[32], body[512];
    *s = (struct set){ 0 };
    arena_init(&s->arena, 1 << 30);
    add(s, "namespaces", "n1", "n1", "{\"id\":\"n1\",\"slug\":\"team\"}");
    for (size_t i = 0; i < n; i++) {
        (void)snprintf(id, sizeof(id), "key-%06zu", i);
        (void)snprintf(body, sizeof(body),
                       "{\"id\":\"%s\",\"namespace\":\"n1\",\"slug\":\"k%zu\",\"hmac\":\"%064zx\","
                       "\"prefix\":\"sk-aigw-abcd\",\"models\":[\"a-model-with-a-long-name\","
                       "\"another-model-with-a-long-name\"]}",
                       id, i, i);
        add(s, "keys", "n1", id, body);
    }
}

static void drop(struct set *s)
{
    free(s->v);
    arena_done(&s->arena);
}

static struct built *must_build(const struct set *s, uint64_t revision)
{
    struct built *b = NULL;
    struct why why = { "" };
    if (build_snapshot(revision, &origin, s->v, s->n, &b, &why) != ERR_OK) fail_msg("%s", why.text);
    return b;
}

/* What a follower does: manifest, pages, parts, snapshot. */
static struct snapshot *read_back(const struct built *b)
{
    struct manifest m;
    struct str *texts = calloc(b->blobs_n + 1, sizeof(*texts));
    struct snapshot *s = NULL;
    struct why why = { "" };
    size_t n = 0;
    assert_int_equal(manifest_parse(b->manifest, &m, &why), ERR_OK);
    assert_string_equal(m.digest, b->digest);
    for (size_t i = 0; i < m.pages_n; i++) {
        const struct blob *page = built_find(b, str_of(m.pages[i].hex));
        struct snap_digest *d = NULL;
        size_t parts = 0;
        assert_non_null(page);
        assert_int_equal(page_parse(page->text, &d, &parts, &why), ERR_OK);
        for (size_t k = 0; k < parts; k++) {
            const struct blob *part = built_find(b, str_of(d[k].hex));
            assert_non_null(part);
            assert_true(part->text.n <= PART_MAX_BYTES);
            texts[n++] = part->text;
        }
        free(d);
    }
    if (snapshot_build(m.revision, m.digest, texts, n, &s, &why) != ERR_OK)
        fail_msg("%s", why.text);
    manifest_done(&m);
    free(texts);
    return s;
}

static void everything_comes_back(void **state)
{
    (void)state;
    static const size_t sizes[] = { 0, 1, 10, 300, 5000 };
    for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
        struct set set;
        fill(&set, sizes[i]);
        struct built *b = must_build(&set, 42);
        struct snapshot *s = read_back(b);
        assert_int_equal(s->revision, 42);
        assert_int_equal(s->keys_n, sizes[i]);
        assert_int_equal(s->namespaces_n, 1);
        snapshot_unref(s);
        built_unref(b);
        drop(&set);
    }
}

static void an_empty_configuration_is_one_too(void **state)
{
    (void)state;
    struct built *b = NULL;
    assert_int_equal(build_snapshot(0, &origin, NULL, 0, &b, NULL), ERR_OK);
    struct snapshot *s = read_back(b);
    assert_int_equal(s->namespaces_n, 0);
    snapshot_unref(s);
    built_unref(b);
}

static void the_order_of_the_rows_does_not_matter(void **state)
{
    (void)state;
    struct set set;
    fill(&set, 700);
    struct built *a = must_build(&set, 1);
    for (size_t i = 0; i < set.n / 2; i++) {
        struct item swap = set.v[i];
        set.v[i] = set.v[set.n - 1 - i];
        set.v[set.n - 1 - i] = swap;
    }
    struct built *b = must_build(&set, 1);
    assert_true(str_eq(a->manifest, b->manifest));
    assert_int_equal(a->blobs_n, b->blobs_n);
    for (size_t i = 0; i < a->blobs_n; i++)
        assert_string_equal(a->blobs[i].digest, b->blobs[i].digest);
    built_unref(a);
    built_unref(b);
    drop(&set);
}

static void one_change_makes_one_new_part_and_one_new_page(void **state)
{
    (void)state;
    struct set set;
    fill(&set, 5000);
    struct built *a = must_build(&set, 1);
    struct str body;
    assert_int_equal(
        arena_dup(&set.arena,
                  STR("{\"id\":\"key-002500\",\"namespace\":\"n1\",\"slug\":\"changed\",\"hmac\":"
                      "\"ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff\"}"),
                  &body),
        ERR_OK);
    assert_true(str_eqz(set.v[2501].id, "key-002500"));
    set.v[2501].body = body;
    struct built *b = must_build(&set, 2);
    size_t parts = 0, pages = 0, parts_all = 0;
    for (size_t i = 0; i < b->blobs_n; i++) {
        if (!b->blobs[i].is_page) parts_all++;
        if (built_find(a, str_of(b->blobs[i].digest)) != NULL) continue;
        if (b->blobs[i].is_page) {
            pages++;
        } else {
            parts++;
        }
    }
    assert_int_equal(parts, 1);
    assert_int_equal(pages, 1);
    assert_true(parts_all > 16); /* 1.2 MB of keys in parts of 64 KiB at most */
    built_unref(a);
    built_unref(b);
    drop(&set);
}

static void many_namespaces_make_several_pages(void **state)
{
    (void)state;
    struct set set = { 0 };
    char id[32], body[128];
    arena_init(&set.arena, 1 << 30);
    for (int i = 0; i < 3000; i++) {
        (void)snprintf(id, sizeof(id), "n%d", i);
        (void)snprintf(body, sizeof(body), "{\"id\":\"%s\",\"slug\":\"team-%d\"}", id, i);
        add(&set, "namespaces", id, id, body);
    }
    struct built *b = must_build(&set, 1);
    size_t pages = 0;
    for (size_t i = 0; i < b->blobs_n; i++) {
        if (!b->blobs[i].is_page) continue;
        pages++;
        assert_true(b->blobs[i].text.n <= PART_MAX_BYTES);
    }
    assert_int_equal(pages, 4);
    struct snapshot *s = read_back(b);
    assert_int_equal(s->namespaces_n, 3000);
    snapshot_unref(s);
    built_unref(b);
    drop(&set);
}

static void large_entities_are_spread_and_too_large_ones_refused(void **state)
{
    (void)state;
    struct set set = { 0 };
    struct built *b = NULL;
    struct why why = { "" };
    char id[32];
    char *body = malloc(300000);
    arena_init(&set.arena, 1 << 30);
    for (int i = 0; i < 6; i++) {
        int head = snprintf(body, 300000, "{\"id\":\"m%d\",\"slug\":\"m%d\",\"unread\":\"", i, i);
        memset(body + head, 'x', 150000);
        (void)snprintf(body + head + 150000, 10, "\"}");
        (void)snprintf(id, sizeof(id), "m%d", i);
        add(&set, "models", "", id, body);
    }
    b = must_build(&set, 1);
    struct snapshot *s = read_back(b);
    assert_int_equal(s->models_n, 6);
    snapshot_unref(s);
    built_unref(b);
    memset(body, 'x', 270000);
    body[270000] = '\0';
    add(&set, "models", "", "huge", body);
    assert_int_equal(build_snapshot(1, &origin, set.v, set.n, &b, &why), ERR_LIMIT);
    assert_non_null(strstr(why.text, "models"));
    free(body);
    drop(&set);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(everything_comes_back),
        cmocka_unit_test(an_empty_configuration_is_one_too),
        cmocka_unit_test(the_order_of_the_rows_does_not_matter),
        cmocka_unit_test(one_change_makes_one_new_part_and_one_new_page),
        cmocka_unit_test(many_namespaces_make_several_pages),
        cmocka_unit_test(large_entities_are_spread_and_too_large_ones_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
