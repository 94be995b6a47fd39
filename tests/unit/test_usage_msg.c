/* SPDX-License-Identifier: Apache-2.0 */
/* The usage record's codec: round trips, samples, bounds, and what must be refused. */
#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include "base/clock.h"
#include "proto/usage_msg.h"

static struct usage_record full_record(void)
{
    return (struct usage_record){
        .id = STR("01944d2e-8a00-7cc3-98c4-dc0c0c07398f"),
        .ts_ms = 1736496930123u,
        .from = STR("edge-2"),
        .edge = STR("edge-1"),
        .namespace_slug = STR("team-a"),
        .namespace_id = STR("ns-id"),
        .key_id = STR("key-id"),
        .route = STR("chat"),
        .route_id = STR("route-id"),
        .dialect = STR("openai"),
        .model = STR("Qwen3-8B"),
        .upstream_model = STR("Qwen/Qwen3-8B"),
        .upstream = STR("vllm"),
        .upstream_id = STR("upstream-id"),
        .stream = true,
        .status = 200,
        .outcome = USAGE_CUT,
        .reject = { STR("daily"), STR("tokens") },
        .input_tokens = 9,
        .output_tokens = 64,
        .cached_tokens = 4,
        .reasoning_tokens = 10,
        .input_source = USAGE_SOURCE_EXACT,
        .output_source = USAGE_SOURCE_ESTIMATE,
        .upstream_reported = { true, 9, 66 },
        .cost = { -73000, STR("USD"), 3 },
        .attempts = { { STR("vllm"), STR("vllm-1"), 503, 0, 12 },
                      { STR("vllm"), STR("vllm-2"), 200, 64, 1830 } },
        .attempts_n = 2,
        .has_ttft = true,
        .ttft_ms = 140,
        .duration_ms = 1842,
        .overhead_us = 310,
        .revision = 42,
        .client_ip = STR("10.1.2.3"),
        .trace_id = STR("4bf92f3577b34da6a3ce929d0e0e4736"),
        .user = STR("a \"quoted\"\n\x01 user 用户"),
    };
}

static void assert_str(struct str a, struct str b)
{
    if (!str_eq(a, b)) fail_msg("'%.*s' is not '%.*s'", STR_ARG(a), STR_ARG(b));
}

static void assert_same(const struct usage_record *a, const struct usage_record *b)
{
    const struct str *as[] = { &a->id,
                               &a->from,
                               &a->edge,
                               &a->namespace_slug,
                               &a->namespace_id,
                               &a->key_id,
                               &a->route,
                               &a->route_id,
                               &a->dialect,
                               &a->model,
                               &a->upstream_model,
                               &a->upstream,
                               &a->upstream_id,
                               &a->reject.policy,
                               &a->reject.dimension,
                               &a->cost.currency,
                               &a->client_ip,
                               &a->trace_id,
                               &a->user };
    const struct str *bs[] = { &b->id,
                               &b->from,
                               &b->edge,
                               &b->namespace_slug,
                               &b->namespace_id,
                               &b->key_id,
                               &b->route,
                               &b->route_id,
                               &b->dialect,
                               &b->model,
                               &b->upstream_model,
                               &b->upstream,
                               &b->upstream_id,
                               &b->reject.policy,
                               &b->reject.dimension,
                               &b->cost.currency,
                               &b->client_ip,
                               &b->trace_id,
                               &b->user };
    for (size_t i = 0; i < ARRAY_LEN(as); i++) assert_str(*as[i], *bs[i]);
    assert_int_equal(a->ts_ms, b->ts_ms);
    assert_int_equal(a->stream, b->stream);
    assert_int_equal(a->status, b->status);
    assert_int_equal(a->outcome, b->outcome);
    assert_int_equal(a->input_tokens, b->input_tokens);
    assert_int_equal(a->output_tokens, b->output_tokens);
    assert_int_equal(a->cached_tokens, b->cached_tokens);
    assert_int_equal(a->reasoning_tokens, b->reasoning_tokens);
    assert_int_equal(a->input_source, b->input_source);
    assert_int_equal(a->output_source, b->output_source);
    assert_int_equal(a->upstream_reported.known, b->upstream_reported.known);
    assert_int_equal(a->upstream_reported.input, b->upstream_reported.input);
    assert_int_equal(a->upstream_reported.output, b->upstream_reported.output);
    assert_int_equal(a->cost.nano, b->cost.nano);
    assert_int_equal(a->cost.price_revision, b->cost.price_revision);
    assert_int_equal(a->has_ttft, b->has_ttft);
    assert_int_equal(a->ttft_ms, b->ttft_ms);
    assert_int_equal(a->duration_ms, b->duration_ms);
    assert_int_equal(a->overhead_us, b->overhead_us);
    assert_int_equal(a->revision, b->revision);
    assert_int_equal(a->attempts_n, b->attempts_n);
    for (size_t i = 0; i < a->attempts_n; i++) {
        assert_str(a->attempts[i].upstream, b->attempts[i].upstream);
        assert_str(a->attempts[i].server, b->attempts[i].server);
        assert_int_equal(a->attempts[i].status, b->attempts[i].status);
        assert_int_equal(a->attempts[i].tokens, b->attempts[i].tokens);
        assert_int_equal(a->attempts[i].ms, b->attempts[i].ms);
    }
}

static void what_is_encoded_is_decoded(void **state)
{
    struct usage_record r = full_record(), back;
    struct arena arena;
    struct buf b;
    struct why why;
    (void)state;
    arena_init(&arena, 1 << 20);
    buf_init(&b, USAGE_MAX_BYTES);
    for (unsigned o = 0; o < USAGE_OUTCOME_MAX; o++) {
        r.outcome = (enum usage_outcome)o;
        r.has_ttft = o % 2 == 0;
        if (!r.has_ttft) r.ttft_ms = 0;
        buf_clear(&b);
        assert_int_equal(usage_encode(&r, &b), ERR_OK);
        assert_int_equal(usage_decode(buf_str(&b), &arena, &back, &why), ERR_OK);
        assert_same(&r, &back);
    }
    buf_done(&b);
    arena_done(&arena);
}

static void a_record_is_its_head_and_then_its_tail(void **state)
{
    struct usage_record all[] = { full_record(), full_record(), { .id = STR("x") } };
    struct buf whole, parts;
    size_t head_n = 0;
    (void)state;
    buf_init(&whole, USAGE_MAX_BYTES + 3);
    buf_init(&parts, USAGE_MAX_BYTES + 3);
    all[1].outcome = USAGE_CRASHED; /* as when it was opened */
    all[1].status = 0;
    all[1].attempts_n = 0;
    for (size_t i = 0; i < ARRAY_LEN(all); i++) {
        buf_clear(&whole);
        buf_clear(&parts);
        assert_int_equal(buf_append_str(&parts, STR("abc")), ERR_OK);
        assert_int_equal(usage_encode(&all[i], &whole), ERR_OK);
        assert_int_equal(usage_encode_parts(&all[i], &parts, &head_n), ERR_OK);
        assert_str(str_n(parts.data + 3, parts.len - 3), buf_str(&whole));
        assert_in_range(head_n, 1, whole.len - 1);
        parts.len = 3 + head_n;
        assert_int_equal(usage_encode_tail(&all[i], &parts), ERR_OK);
        assert_str(str_n(parts.data + 3, parts.len - 3), buf_str(&whole));
    }
    /* The head of the first goes before the tail of the second. */
    buf_clear(&whole);
    buf_clear(&parts);
    assert_int_equal(usage_encode_parts(&all[0], &parts, &head_n), ERR_OK);
    parts.len = head_n;
    assert_int_equal(usage_encode_tail(&all[1], &parts), ERR_OK);
    assert_int_equal(usage_encode(&all[1], &whole), ERR_OK);
    assert_str(buf_str(&parts), buf_str(&whole));
    buf_done(&whole);
    buf_done(&parts);
}

/* An opening's text is that of any record with its outcome, also where something is known of its
 * end. */
static void an_opening_says_what_is_known(void **state)
{
    const struct usage_record full = full_record();
    struct buf opening, other;
    (void)state;
    buf_init(&opening, USAGE_MAX_BYTES);
    buf_init(&other, USAGE_MAX_BYTES);
    for (int known = 0; known <= 16; known++) {
        struct usage_record r = { .id = full.id, .namespace_slug = full.namespace_slug };
        size_t head_n = 0;
        if (known == 1) r.stream = true;
        if (known == 2) r.status = 200;
        if (known == 3) r.reject.policy = full.reject.policy;
        if (known == 4) r.reject.dimension = full.reject.dimension;
        if (known == 5) r.input_tokens = 9;
        if (known == 6) r.output_tokens = 9;
        if (known == 7) r.cached_tokens = 9;
        if (known == 8) r.reasoning_tokens = 9;
        if (known == 9) r.input_source = USAGE_SOURCE_EXACT;
        if (known == 10) r.output_source = USAGE_SOURCE_EXACT;
        if (known == 11) r.upstream_reported.known = true;
        if (known == 12) r.cost.currency = full.cost.currency;
        if (known == 13) r.attempts[0] = full.attempts[0], r.attempts_n = 1;
        if (known == 14) r.has_ttft = true;
        if (known == 15) r.duration_ms = 9;
        if (known == 16) r.overhead_us = 9;
        buf_clear(&opening);
        buf_clear(&other);
        assert_int_equal(usage_encode_opening(&r, NULL, &opening, &head_n), ERR_OK);
        r.outcome = USAGE_TIMEOUT; /* as long as "crashed" */
        assert_int_equal(usage_encode(&r, &other), ERR_OK);
        char *word = memmem(other.data, other.len, "\"timeout\"", 9);
        assert_non_null(word);
        memcpy(word, "\"crashed\"", 9);
        assert_str(buf_str(&opening), buf_str(&other));
        assert_in_range(head_n, 1, opening.len - 1);
    }
    buf_done(&opening);
    buf_done(&other);
}

/* One record after the other, of which each differs from some earlier one in a single string, also
 * where another lay at the same place before: written with what was kept of those it is the text
 * that it is without. */
static void what_heads_have_in_common_is_never_that_of_another(void **state)
{
    enum { ROUNDS = 20000, TEXTS = 16 };
    static const struct str odd[] = { { "", 0 },    { "a\"b", 3 }, { "a\nlonger one", 12 },
                                      { "x", 1 },   { "-", 1 },    { "tail of 16 bytes", 16 },
                                      { "\xff", 1 } };
    static char room[TEXTS][512];
    const struct usage_record full = full_record();
    struct usage_places *places = usage_places_new();
    struct buf with, without;
    uint64_t seed = 7;
    (void)state;
    buf_init(&with, USAGE_MAX_BYTES);
    buf_init(&without, USAGE_MAX_BYTES);
    for (unsigned n = 0; n < ROUNDS; n++) {
        struct usage_record r = full;
        struct str *const texts[TEXTS] = {
            &r.id,           &r.from,      &r.edge,           &r.namespace_slug,
            &r.namespace_id, &r.key_id,    &r.route,          &r.route_id,
            &r.dialect,      &r.model,     &r.upstream_model, &r.upstream,
            &r.upstream_id,  &r.client_ip, &r.user,           &r.trace_id
        };
        size_t a = 0, b = 0;
        for (size_t i = 0; i < TEXTS; i++) {
            memcpy(room[i], texts[i]->p, texts[i]->n);
            texts[i]->p = room[i];
        }
        seed = seed * UINT64_C(6364136223846793005) + 1442695040888963407u;
        size_t which = (seed >> 33) % TEXTS, how = (seed >> 45) % 12;
        struct str *t = texts[which];
        if (how < ARRAY_LEN(odd)) {
            memcpy(room[which], odd[how].p, odd[how].n);
            t->n = odd[how].n;
        } else if (how < 10 && t->n > 0) {
            room[which][(seed >> 50) % t->n] ^= 1; /* one byte is another */
        } else if (how == 10) {
            memset(room[which], 'y', t->n = 1 + (seed >> 50) % 300);
        }
        r.ts_ms += (seed >> 40) % 4000;
        buf_clear(&with);
        buf_clear(&without);
        assert_int_equal(usage_encode_opening(&r, places, &with, &a), ERR_OK);
        assert_int_equal(usage_encode_opening(&r, NULL, &without, &b), ERR_OK);
        assert_str(buf_str(&with), buf_str(&without));
        assert_int_equal(a, b);
    }
    usage_places_free(places);
    buf_done(&with);
    buf_done(&without);
}

/* Whatever of a record is changed: where the head is another, the stamp is. */
static void a_stamp_tells_of_another_head(void **state)
{
    struct usage_record r = full_record();
    const struct usage_record was = r;
    struct str *const texts[] = {
        &r.id,          &r.from,      &r.edge,    &r.namespace_slug, &r.namespace_id,   &r.key_id,
        &r.route,       &r.route_id,  &r.dialect, &r.model,          &r.upstream_model, &r.upstream,
        &r.upstream_id, &r.client_ip, &r.user,    &r.trace_id
    };
    const uint64_t stamp = usage_head_stamp(&was);
    struct buf a, b;
    size_t a_n = 0, b_n = 0;
    (void)state;
    buf_init(&a, USAGE_MAX_BYTES);
    buf_init(&b, USAGE_MAX_BYTES);
    assert_int_equal(usage_encode_parts(&was, &a, &a_n), ERR_OK);
    for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
        const struct str to[] = { STR("another"), str_n(texts[i]->p, texts[i]->n - 1), STR("") };
        for (size_t k = 0; k < ARRAY_LEN(to); k++) {
            r = was;
            *texts[i] = to[k];
            buf_clear(&b);
            assert_int_equal(usage_encode_parts(&r, &b, &b_n), ERR_OK);
            assert_false(str_eq(str_n(a.data, a_n), str_n(b.data, b_n)));
            assert_true(usage_head_stamp(&r) != stamp);
        }
    }
    r = was, r.ts_ms++;
    assert_true(usage_head_stamp(&r) != stamp);
    r = was, r.revision++;
    assert_true(usage_head_stamp(&r) != stamp);
    /* Any other byte of it: the head is the same, or the stamp is another. */
    for (size_t i = 0; i < sizeof r; i++) {
        r = was;
        ((unsigned char *)&r)[i] ^= 1;
        if (usage_head_stamp(&r) != stamp) continue; /* may point to nowhere now */
        r.outcome = was.outcome, r.attempts_n = was.attempts_n, r.reject = was.reject;
        r.cost = was.cost, r.input_source = was.input_source, r.output_source = was.output_source;
        r.stream = was.stream, r.has_ttft = was.has_ttft;
        r.upstream_reported = was.upstream_reported;
        memcpy(r.attempts, was.attempts, sizeof r.attempts);
        buf_clear(&b);
        assert_int_equal(usage_encode_parts(&r, &b, &b_n), ERR_OK);
        assert_str(str_n(b.data, b_n), str_n(a.data, a_n));
    }
    buf_done(&a);
    buf_done(&b);
}

static void a_bare_record_gets_the_sender_and_no_namespace(void **state)
{
    struct usage_record r = { .id = STR("01944d2e-8a00-7cc3-98c4-dc0c0c07398f"),
                              .edge = STR("edge-1") };
    struct usage_record back;
    struct arena arena;
    struct buf b;
    (void)state;
    arena_init(&arena, 1 << 16);
    buf_init(&b, USAGE_MAX_BYTES);
    assert_int_equal(usage_encode(&r, &b), ERR_OK);
    assert_int_equal(usage_decode(buf_str(&b), &arena, &back, NULL), ERR_OK);
    assert_str(back.namespace_slug, STR("-"));
    assert_str(back.from, STR("edge-1"));
    assert_int_equal(back.cost.currency.n, 0);
    assert_false(back.upstream_reported.known);
    assert_false(str_contains(buf_str(&b), STR("cost")));
    buf_done(&b);
    arena_done(&arena);
}

static void long_and_broken_texts_are_cut_and_still_decode(void **state)
{
    char text[2000], wide[2000];
    struct usage_record r = full_record(), back;
    struct arena arena;
    struct buf b;
    (void)state;
    memset(text, 0xff, sizeof text);
    for (size_t i = 0; i + 3 <= sizeof wide; i += 3) memcpy(wide + i, "\xe7\x94\xa8", 3);
    r.user = str_n(text, sizeof text);
    r.model = str_n(wide, sizeof wide - 2);
    arena_init(&arena, 1 << 16);
    buf_init(&b, USAGE_MAX_BYTES);
    assert_int_equal(usage_encode(&r, &b), ERR_OK);
    assert_int_equal(usage_decode(buf_str(&b), &arena, &back, NULL), ERR_OK);
    assert_int_equal(back.user.n, 3 * USAGE_TEXT_MAX);
    assert_int_equal(back.model.n, USAGE_TEXT_MAX - USAGE_TEXT_MAX % 3);
    assert_true(str_is_utf8(back.model));
    buf_done(&b);
    arena_done(&arena);
}

/* Any byte at any place of a short and of a long text comes out as buf_append_json() has it. */
static void texts_are_escaped_as_everywhere_else(void **state)
{
    char text[48];
    struct buf b, want;
    (void)state;
    buf_init(&b, USAGE_MAX_BYTES);
    buf_init(&want, 1024);
    for (size_t n = 1; n <= sizeof text; n++) {
        for (size_t at = 0; at < n; at++) {
            for (unsigned byte = 0; byte < 256; byte++) {
                struct usage_record r = full_record();
                memset(text, 'x', sizeof text);
                text[at] = (char)byte;
                r.user = str_n(text, n);
                buf_clear(&b);
                buf_clear(&want);
                assert_int_equal(usage_encode(&r, &b), ERR_OK);
                assert_int_equal(buf_appendz(&want, "\"user\":"), ERR_OK);
                assert_int_equal(buf_append_json(&want, r.user), ERR_OK);
                assert_int_equal(buf_append_char(&want, ','), ERR_OK);
                if (!str_contains(buf_str(&b), buf_str(&want)))
                    fail_msg("byte %u at %zu of %zu", byte, at, n);
            }
        }
    }
    buf_done(&b);
    buf_done(&want);
}

static void the_largest_record_fits(void **state)
{
    char text[USAGE_TEXT_MAX];
    struct usage_record r = full_record();
    struct buf b;
    (void)state;
    memset(text, 1, sizeof text); /* six bytes each as an escape */
    struct str t = str_n(text, sizeof text);
    struct str *all[] = { &r.from,
                          &r.edge,
                          &r.namespace_id,
                          &r.key_id,
                          &r.route,
                          &r.route_id,
                          &r.dialect,
                          &r.model,
                          &r.upstream_model,
                          &r.upstream,
                          &r.upstream_id,
                          &r.reject.policy,
                          &r.reject.dimension,
                          &r.client_ip,
                          &r.user };
    for (size_t i = 0; i < ARRAY_LEN(all); i++) *all[i] = t;
    r.attempts_n = USAGE_ATTEMPTS_MAX;
    for (size_t i = 0; i < r.attempts_n; i++)
        r.attempts[i] = (struct usage_attempt){ STR("a-slug-of-an-upstream"), STR("server-1"), 503,
                                                UINT64_MAX, UINT64_MAX };
    buf_init(&b, USAGE_MAX_BYTES);
    assert_int_equal(usage_encode(&r, &b), ERR_OK);
    buf_done(&b);
}

static void a_buffer_that_is_too_small_stays_as_it_was(void **state)
{
    struct usage_record r = full_record();
    struct buf b;
    (void)state;
    for (size_t max = 3; max < 700; max++) {
        buf_init(&b, max);
        assert_int_equal(buf_append_str(&b, STR("abc")), ERR_OK);
        assert_int_equal(usage_encode(&r, &b), ERR_LIMIT);
        assert_str(buf_str(&b), STR("abc"));
        buf_done(&b);
    }
}

static void times_are_read_strictly(void **state)
{
    static const char *const bad[] = {
        "",
        "2025-01-10",
        "2025-01-10T08:15:30",
        "2025-01-10T08:15:30+00:00",
        "2025-13-10T08:15:30Z",
        "2025-00-10T08:15:30Z",
        "2025-02-29T08:15:30Z",
        "2025-01-10T24:00:00Z",
        "2025-01-10T08:60:30Z",
        "2025-01-10T08:15:30.Z",
        "2025-01-10T08:15:30.12xZ",
        "1969-12-31T23:59:59Z",
        "2025-01-10 08:15:30Z",
    };
    uint64_t ms = 7;
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        if (usage_parse_ts(str_of(bad[i]), &ms) != ERR_INVALID) fail_msg("took '%s'", bad[i]);
    assert_int_equal(ms, 7);
    assert_int_equal(usage_parse_ts(STR("1970-01-01T00:00:00Z"), &ms), ERR_OK);
    assert_int_equal(ms, 0);
    assert_int_equal(usage_parse_ts(STR("2024-02-29T23:59:59.999999Z"), &ms), ERR_OK);
    assert_int_equal(ms, 1709251199999u);
}

static void times_are_written_as_everywhere_else(void **state)
{
    struct rng_fake f;
    struct arena arena;
    struct buf b;
    (void)state;
    rng_fake_init(&f, 1);
    arena_init(&arena, 1 << 16);
    buf_init(&b, USAGE_MAX_BYTES);
    for (int i = 0; i < 3000; i++) {
        char ts[TIME_RFC3339_LEN + 1];
        struct usage_record r = full_record();
        uint64_t back;
        r.ts_ms = rng_below(&f.rng, 253402300800000u); /* the year 10000 */
        if (i < 60) r.ts_ms = (uint64_t)(i / 2) * 31536000000u + 86400000u * 59 - (i % 2 == 0);
        buf_clear(&b);
        assert_int_equal(usage_encode(&r, &b), ERR_OK);
        /* wall_ns of far years does not fit 64 bits: compare those that do with libc's way */
        if (r.ts_ms < UINT64_MAX / 1000000) {
            time_rfc3339(r.ts_ms * 1000000, ts);
            assert_true(str_contains(buf_str(&b), str_of(ts)));
        }
        struct usage_record decoded;
        arena_reset(&arena);
        assert_int_equal(usage_decode(buf_str(&b), &arena, &decoded, NULL), ERR_OK);
        back = decoded.ts_ms;
        assert_int_equal(back, r.ts_ms);
    }
    buf_done(&b);
    arena_done(&arena);
}

/* Calls fn with the content of each file of a folder of samples; returns how many there were. */
static size_t each_sample(const char *folder, void (*fn)(const char *name, struct str text))
{
    char path[512], text[USAGE_MAX_BYTES];
    DIR *d = opendir(folder);
    struct dirent *e;
    size_t n = 0;
    assert_non_null(d);
    while ((e = readdir(d)) != NULL) {
        if (e->d_name[0] == '.') continue;
        (void)snprintf(path, sizeof path, "%s/%s", folder, e->d_name);
        FILE *f = fopen(path, "rb");
        assert_non_null(f);
        size_t len = fread(text, 1, sizeof text, f);
        (void)fclose(f);
        fn(e->d_name, str_trim(str_n(text, len > 0 && text[len - 1] == '\n' ? len - 1 : len)));
        n++;
    }
    (void)closedir(d);
    return n;
}

static void good_sample(const char *name, struct str text)
{
    struct usage_record r, again;
    struct arena arena;
    struct buf b;
    struct why why = { "" };
    arena_init(&arena, 1 << 16);
    buf_init(&b, USAGE_MAX_BYTES);
    if (usage_decode(text, &arena, &r, &why) != ERR_OK) fail_msg("%s: %s", name, why.text);
    assert_int_equal(usage_encode(&r, &b), ERR_OK);
    assert_int_equal(usage_decode(buf_str(&b), &arena, &again, &why), ERR_OK);
    if (r.edge.n > 0) assert_same(&r, &again);
    /* The canonical form is what we write ourselves. */
    if (strcmp(name, "full.json") == 0) assert_str(buf_str(&b), text);
    buf_done(&b);
    arena_done(&arena);
}

static void bad_sample(const char *name, struct str text)
{
    struct usage_record r = { .status = 77 };
    struct arena arena;
    struct why why = { "" };
    arena_init(&arena, 1 << 16);
    enum err e = usage_decode(text, &arena, &r, &why);
    enum err want = strcmp(name, "version_2.json") == 0 ? ERR_UNSUPPORTED : ERR_INVALID;
    if (e != want) fail_msg("%s: %s instead of %s", name, err_name(e), err_name(want));
    assert_true(why.text[0] != '\0');
    assert_int_equal(r.status, 77);
    arena_done(&arena);
}

static void samples_are_taken_and_refused_as_they_should(void **state)
{
    (void)state;
    assert_true(each_sample("proto/samples/usage_record/good", good_sample) >= 4);
    assert_true(each_sample("proto/samples/usage_record/bad", bad_sample) >= 10);
}

static void an_arena_that_is_too_small_is_an_error(void **state)
{
    struct usage_record r = full_record(), back;
    struct arena arena;
    struct buf b;
    (void)state;
    buf_init(&b, USAGE_MAX_BYTES);
    assert_int_equal(usage_encode(&r, &b), ERR_OK);
    arena_init(&arena, 64);
    assert_int_equal(usage_decode(buf_str(&b), &arena, &back, NULL), ERR_NOMEM);
    arena_done(&arena);
    buf_done(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_encoded_is_decoded),
        cmocka_unit_test(a_record_is_its_head_and_then_its_tail),
        cmocka_unit_test(an_opening_says_what_is_known),
        cmocka_unit_test(what_heads_have_in_common_is_never_that_of_another),
        cmocka_unit_test(a_stamp_tells_of_another_head),
        cmocka_unit_test(a_bare_record_gets_the_sender_and_no_namespace),
        cmocka_unit_test(long_and_broken_texts_are_cut_and_still_decode),
        cmocka_unit_test(texts_are_escaped_as_everywhere_else),
        cmocka_unit_test(the_largest_record_fits),
        cmocka_unit_test(a_buffer_that_is_too_small_stays_as_it_was),
        cmocka_unit_test(times_are_read_strictly),
        cmocka_unit_test(times_are_written_as_everywhere_else),
        cmocka_unit_test(samples_are_taken_and_refused_as_they_should),
        cmocka_unit_test(an_arena_that_is_too_small_is_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
