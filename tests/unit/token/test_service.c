/* SPDX-License-Identifier: Apache-2.0 */
/* aigw-token's two faces over real sockets: its HTTP API, and token.count on a real nats-server.
 * With vocabularies of bytes, so that counts can be told by looking. */
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "../support_bytes_vocab.h"
#include "../support_nats.h"
#include "proto/subjects.h"
#include "rt/http_client.h"
#include "rt/yaml.h"
#include "services/token/service.h"

static const struct metric_def defs[M_MAX] = {
    [M_REQUESTS] = { "requests",
                     METRIC_COUNTER,
                     "",
                     { "endpoint", "status", "outcome" },
                     { 0 },
                     0 },
    [M_TOKENS] = { "tokens", METRIC_COUNTER, "", { "vocabulary" }, { 0 }, 0 },
    [M_BYTES] = { "bytes", METRIC_COUNTER, "", { "vocabulary" }, { 0 }, 0 },
    [M_SECONDS] = { "seconds", METRIC_HISTOGRAM, "", { "vocabulary" }, { 1 }, 0 },
    [M_WAITING] = { "waiting", METRIC_GAUGE, "", { "lane" }, { 0 }, 0 },
    [M_RUNNING] = { "running", METRIC_GAUGE, "", { "lane" }, { 0 }, 0 },
    [M_VOCABULARIES] = { "vocabularies", METRIC_GAUGE, "", { NULL }, { 0 }, 0 },
    [M_UNUSABLE] = { "unusable", METRIC_GAUGE, "", { NULL }, { 0 }, 0 },
};

enum { QUEUE_JOBS = 8 };

struct fixture {
    struct nats_server nats;
    struct settings settings;
    struct service s;
    struct http_client *client;
    char dir[64], file[128];
    struct buf body;
    int status;
};

static int setup(void **state)
{
    struct fixture *f = xcalloc(1, sizeof *f);
    struct why why = { "" };
    struct buf b;
    (void)snprintf(f->dir, sizeof f->dir, "/tmp/aigw-token-XXXXXX");
    assert_non_null(mkdtemp(f->dir));
    (void)snprintf(f->file, sizeof f->file, "%s/qwen3.aigwvocab", f->dir);
    buf_init(&b, 64u << 20);
    bytes_vocab_file(
        "qwen3",
        "{% for m in messages %}{% if m.role == 'bad' %}{{ raise_exception('no bad roles') }}{% endif %}"
        "<|a|>{{ m.content }}{% endfor %}{% if add_generation_prompt %}>{% endif %}",
        "", &b);
    FILE *to = fopen(f->file, "wb");
    assert_non_null(to);
    assert_int_equal(fwrite(b.data, 1, b.len, to), b.len);
    assert_int_equal(fclose(to), 0);
    buf_done(&b);
    nats_server_start(&f->nats, NULL);
    struct bus_options bo = { .url = f->nats.url,
                              .instance = "token-1",
                              .service = "token",
                              .version = "1",
                              .description = "",
                              .prefix = "aigw",
                              .clock = clock_system(),
                              .rng = rng_system() };
    f->settings = (struct settings){ .bind = "127.0.0.1", .port = 0 };
    f->s = (struct service){
        .settings = &f->settings, .threads = 2, .clock = clock_system(), .rng = rng_system()
    };
    f->s.metrics = metrics_new(defs, M_MAX);
    f->s.bus = bus_new(&bo);
    pthread_mutex_init(&f->s.lock, NULL);
    assert_int_equal(models_load(f->dir, NULL, 0, NULL, NULL, &f->s.vocabularies, &why), ERR_OK);
    f->s.models = models_ref(f->s.vocabularies);
    struct pool_options po = { .threads = 2, .jobs = QUEUE_JOBS, .bytes = 64 << 20 };
    assert_int_equal(yaml_parse(openapi_yaml(), SIZE_MAX, &f->s.openapi, &why), ERR_OK);
    assert_int_equal(pool_new(&po, &f->s.pool, &why), ERR_OK);
    assert_int_equal(bus_face_start(&f->s, &f->s.face, &why), ERR_OK);
    assert_int_equal(http_start(&f->s, &why), ERR_OK);
    f->client = http_client_new();
    buf_init(&f->body, 1 << 24);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    http_client_free(f->client);
    bus_face_quiesce(f->s.face);
    pool_end(f->s.pool);
    http_server_free(f->s.http);
    bus_face_free(f->s.face);
    pool_free(f->s.pool);
    json_free(f->s.openapi);
    bus_free(f->s.bus);
    models_unref(f->s.models);
    models_unref(f->s.vocabularies);
    metrics_free(f->s.metrics);
    pthread_mutex_destroy(&f->s.lock);
    nats_server_done(&f->nats);
    unlink(f->file);
    rmdir(f->dir);
    buf_done(&f->body);
    free(f);
    return 0;
}

static void call(struct fixture *f, const char *method, const char *path, struct str body,
                 const char *type)
{
    char url[200], header[100];
    struct why why = { "" };
    (void)snprintf(url, sizeof url, "http://127.0.0.1:%u%s", http_server_port(f->s.http), path);
    (void)snprintf(header, sizeof header, "Content-Type: %s",
                   type != NULL ? type : "application/json");
    struct http_call c = { .method = method,
                           .url = url,
                           .body = body,
                           .headers = { header },
                           .connect_timeout_ms = 60000,
                           .timeout_ms = 120000 };
    buf_clear(&f->body);
    enum err e = http_client_call(f->client, &c, &f->status, &f->body, &why);
    if (e != ERR_OK) fail_msg("%s %s: %s", method, path, why.text);
}

static void expect(struct fixture *f, const char *path, const char *body, int status,
                   const char *words)
{
    call(f, "POST", path, str_of(body), NULL);
    if (f->status != status || !str_contains(buf_str(&f->body), str_of(words)))
        fail_msg("%s %s: %d %.*s, want %d with %s", path, body, f->status,
                 STR_ARG(buf_str(&f->body)), status, words);
}

static void calculate_counts_chats_and_texts(void **state)
{
    struct fixture *f = *state;
    expect(
        f, "/calculate",
        "{\"model\":\"Qwen3-8B\",\"messages\":[{\"role\":\"user\",\"content\":\"\xe4\xbd\xa0\xe5\xa5\xbd\"}]}",
        200,
        "{\"model\":\"Qwen3-8B\",\"tokens\":8,\"exact\":true,\"method\":\"template\",\"vocabulary\":\"qwen3\",\"template_digest\":\"");
    expect(
        f, "/calculate",
        "{\"model\":\"Qwen3-8B\",\"messages\":[{\"role\":\"user\",\"content\":\"x\"}],\"add_generation_prompt\":false}",
        200, "\"tokens\":2,");
    expect(f, "/calculate", "{\"model\":\"qwen3-8b\",\"text\":\"<|a|>\"}", 200, "\"tokens\":5,");
    expect(f, "/calculate", "{\"model\":\"qwen3-8b\",\"text\":\"<|a|>\",\"special\":\"control\"}",
           200, "\"tokens\":1,");
    expect(f, "/calculate", "{\"model\":\"unheard-of\",\"text\":\"hello\"}", 200,
           "\"exact\":false,\"method\":\"estimate\",\"vocabulary\":null,\"warnings\":[");
    call(f, "POST", "/calculate", STR("{\"model\":\"qwen3\",\"text\":\"a\"}"),
         "application/x-www-form-urlencoded");
    assert_int_equal(f->status, 200);
}

static void errors_name_the_field(void **state)
{
    struct fixture *f = *state;
    expect(f, "/calculate", "{", 400, "\"type\":\"invalid_request_error\",\"param\":null");
    expect(f, "/calculate", "[]", 400, "must be a JSON object");
    expect(f, "/calculate", "{\"messages\":[]}", 400, "\"param\":\"model\"");
    expect(f, "/calculate", "{\"model\":\"qwen3\"}", 400, "\"param\":\"messages\"");
    expect(f, "/calculate", "{\"model\":\"qwen3\",\"messages\":[{\"role\":\"u\",\"content\":3}]}",
           400, "\"param\":\"messages[0].content\"");
    expect(
        f, "/calculate", "{\"model\":\"qwen3\",\"messages\":[{\"role\":\"bad\"}]}", 400,
        "{\"error\":{\"message\":\"no bad roles\",\"type\":\"invalid_request_error\",\"param\":\"messages\",\"code\":\"template_error\"}}");
    call(f, "POST", "/calculate", STR("x"), "text/xml");
    assert_int_equal(f->status, 415);
    call(f, "GET", "/calculate", STR(""), NULL);
    assert_int_equal(f->status, 405);
    call(f, "GET", "/nowhere", STR(""), NULL);
    assert_int_equal(f->status, 404);
}

static void tokenize_gives_ids_and_offsets(void **state)
{
    struct fixture *f = *state;
    expect(f, "/v1/tokenize", "{\"model\":\"qwen3\",\"text\":\"ab\"}", 200,
           "\"ids\":[97,98],\"offsets\":[[0,1],[1,2]]}");
    expect(f, "/v1/tokenize",
           "{\"model\":\"qwen3\",\"messages\":[{\"role\":\"u\",\"content\":\"b\"}]}", 200,
           "\"ids\":[256,98,62],\"text\":\"<|a|>b>\"}");
    expect(f, "/v1/tokenize", "{\"model\":\"unheard-of\",\"text\":\"ab\"}", 400,
           "\"param\":\"model\"");
}

static void a_batch_answers_each_of_its_inputs(void **state)
{
    struct fixture *f = *state;
    expect(
        f, "/v1/count",
        "{\"model\":\"qwen3\",\"inputs\":[\"abc\",{\"messages\":[{\"role\":\"u\",\"content\":\"b\"}]},{\"text\":5},{\"model\":\"x\",\"text\":\"\"}]}",
        200, "{\"data\":[{\"model\":\"qwen3\",\"tokens\":3,");
    assert_true(str_contains(
        buf_str(&f->body),
        STR("{\"error\":{\"message\":\"text must be a string\",\"type\":\"invalid_request_error\","
            "\"param\":\"inputs[2].text\",\"code\":\"invalid_request\"}}")));
    assert_true(str_contains(buf_str(&f->body), STR("\"total_tokens\":6}")));
    expect(f, "/v1/count", "{\"model\":\"qwen3\"}", 400, "\"param\":\"inputs\"");
    expect(f, "/v1/count", "{\"model\":3,\"inputs\":[]}", 400, "\"param\":\"model\"");
    expect(f, "/v1/count", "{\"model\":\"qwen3\",\"inputs\":[7]}", 200, "\"param\":\"inputs[0]\"");
}

static void models_are_listed_and_looked_up(void **state)
{
    struct fixture *f = *state;
    call(f, "GET", "/v1/models", STR(""), NULL);
    assert_true(
        str_contains(buf_str(&f->body), STR("{\"object\":\"list\",\"data\":[{\"id\":\"qwen3\"")));
    call(f, "GET", "/v1/models/Qwen/Qwen3-8B-AWQ", STR(""), NULL);
    assert_true(str_contains(buf_str(&f->body), STR("\"vocabulary\":\"qwen3\"")));
}

static void the_api_describes_itself(void **state)
{
    struct fixture *f = *state;
    call(f, "GET", "/openapi.json", STR(""), NULL);
    assert_int_equal(f->status, 200);
    assert_true(str_contains(buf_str(&f->body), STR("\"/v1/tokenize\"")));
}

/* --- the pool's bounds, with jobs that wait until they are told to go on --- */

struct gate {
    atomic_int entered;
    atomic_bool open;
};

static void wait_at_gate(void *ctx)
{
    struct gate *g = ctx;
    atomic_fetch_add(&g->entered, 1);
    while (!atomic_load(&g->open)) sched_yield();
}

static void wait_until(const atomic_int *n, int want)
{
    for (uint64_t end = clock_mono_ms(clock_system()) + 60000; atomic_load(n) < want;) {
        if (clock_mono_ms(clock_system()) > end) fail_msg("%d of %d", atomic_load(n), want);
        sched_yield();
    }
}

static void wait_idle(const struct fixture *f)
{
    for (uint64_t end = clock_mono_ms(clock_system()) + 60000; pool_inflight(f->s.pool) > 0;) {
        if (clock_mono_ms(clock_system()) > end) fail_msg("jobs do not end");
        sched_yield();
    }
}

static void small_requests_pass_large_ones_and_a_full_queue_says_503(void **state)
{
    struct fixture *f = *state;
    struct gate large = { 0 }, small = { 0 };
    struct pool_stats stats;
    for (int i = 0; i < 2 + QUEUE_JOBS; i++) {
        while (pool_add(f->s.pool, POOL_SMALL_BYTES + 1, wait_at_gate, &large) != ERR_OK) {
            assert_int_equal(i, QUEUE_JOBS); /* the threads have not taken theirs yet */
            wait_until(&large.entered, 2);
        }
        if (i == 1) wait_until(&large.entered, 2);
    }
    assert_int_equal(pool_add(f->s.pool, POOL_SMALL_BYTES + 1, wait_at_gate, &large), ERR_LIMIT);
    pool_stats(f->s.pool, POOL_LARGE, &stats);
    assert_int_equal(stats.waiting, QUEUE_JOBS);
    assert_int_equal(stats.running, 2);
    expect(f, "/calculate", "{\"model\":\"qwen3\",\"text\":\"abc\"}", 200, "\"tokens\":3,");
    for (int i = 0; i < 2; i++) {
        assert_int_equal(pool_add(f->s.pool, 1, wait_at_gate, &small), ERR_OK);
        wait_until(&small.entered, i + 1);
    }
    for (int i = 0; i < QUEUE_JOBS; i++)
        assert_int_equal(pool_add(f->s.pool, 1, wait_at_gate, &small), ERR_OK);
    expect(f, "/calculate", "{\"model\":\"qwen3\",\"text\":\"abc\"}", 503, "\"code\":\"busy\"");
    atomic_store(&small.open, true);
    atomic_store(&large.open, true);
    wait_idle(f); /* the gates are on this stack */
    assert_int_equal(atomic_load(&large.entered), 2 + QUEUE_JOBS);
    assert_int_equal(atomic_load(&small.entered), 2 + QUEUE_JOBS);
    expect(f, "/calculate", "{\"model\":\"qwen3\",\"text\":\"abc\"}", 200, "\"tokens\":3,");
}

static void a_new_registry_is_used_from_then_on(void **state)
{
    struct fixture *f = *state;
    const struct models_entry entry = { STR("house-model"), STR("qwen3") };
    struct models *m;
    expect(f, "/calculate", "{\"model\":\"house-model\",\"text\":\"abc\"}", 200, "estimate");
    assert_int_equal(models_with_entries(f->s.vocabularies, &entry, 1, &m), ERR_OK);
    service_use_models(&f->s, m);
    expect(f, "/calculate", "{\"model\":\"house-model\",\"text\":\"abc\"}", 200,
           "\"tokens\":3,\"exact\":true");
}

/* --- the bus */

static enum err ask(struct fixture *f, const struct token_slices *q, struct token_answer *ret,
                    struct chat_error *error)
{
    char subject[SUBJECT_LEN];
    struct buf out, in;
    buf_init(&out, 1 << 20);
    buf_init(&in, 1 << 20);
    subject_make("aigw", SUBJECT_TOKEN_COUNT, NULL, subject);
    assert_int_equal(token_msg_request(&out, clock_system(), rng_system(), "edge-1", q), ERR_OK);
    enum err e = ERR_UNAVAILABLE;
    /* Until the connection stands and the subscription is known to the server. */
    for (uint64_t end = clock_mono_ms(clock_system()) + 60000;
         e == ERR_UNAVAILABLE && clock_mono_ms(clock_system()) < end;)
        e = bus_request_wait(f->s.bus, subject, buf_str(&out), 60000, &in);
    if (e == ERR_OK) e = token_msg_answer_parse(buf_str(&in), ret, error);
    buf_done(&out);
    buf_done(&in);
    return e;
}

static void edges_are_answered_over_the_bus(void **state)
{
    struct fixture *f = *state;
    struct token_answer a;
    struct chat_error error = { .raised = false };
    struct token_slices q = { .model = STR("Qwen3-8B"),
                              .messages = STR("[{\"role\":\"user\",\"content\":\"abc\"}]") };
    assert_int_equal(ask(f, &q, &a, &error), ERR_OK);
    assert_int_equal(a.tokens, 5);
    assert_true(a.exact);
    assert_string_equal(a.vocabulary, "qwen3");
    q.messages = STR("[{\"role\":\"bad\",\"content\":\"abc\"}]");
    assert_int_equal(ask(f, &q, &a, &error), ERR_INVALID);
    assert_true(error.raised);
    assert_string_equal(error.why.text, "no bad roles");
    char *big = xmalloc(400000);
    memset(big, 'x', 400000);
    struct token_slices text = { .model = STR("qwen3"), .text = str_n(big, 400000) };
    assert_int_equal(ask(f, &text, &a, &error), ERR_OK);
    assert_int_equal(a.tokens, 400000);
    free(big);
    wait_idle(f); /* a thread is done shortly after its answer is out */
    bus_face_quiesce(f->s.face);
    char subject[SUBJECT_LEN];
    struct buf in;
    buf_init(&in, 1 << 16);
    subject_make("aigw", SUBJECT_TOKEN_COUNT, NULL, subject);
    assert_int_equal(bus_request_wait(f->s.bus, subject, STR("{}"), 60000, &in), ERR_UNAVAILABLE);
    buf_done(&in);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(calculate_counts_chats_and_texts),
        cmocka_unit_test(errors_name_the_field),
        cmocka_unit_test(tokenize_gives_ids_and_offsets),
        cmocka_unit_test(a_batch_answers_each_of_its_inputs),
        cmocka_unit_test(models_are_listed_and_looked_up),
        cmocka_unit_test(the_api_describes_itself),
        cmocka_unit_test(small_requests_pass_large_ones_and_a_full_queue_says_503),
        cmocka_unit_test(a_new_registry_is_used_from_then_on),
        cmocka_unit_test(edges_are_answered_over_the_bus),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
