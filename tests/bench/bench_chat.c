/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What counting a chat costs, from the request's JSON to the number, on one thread:
 *
 *   bench_chat [--seconds S] [--shape NAME] VOCAB_DIR [MODEL...]
 *                                          (default: all shapes, each vocabulary with a template)
 *
 * One JSON line per model and shape: {"model","shape","bytes","tokens","us","mean_us","rounds"}, or
 * "refused" where the model's template does not take it.
 * bytes: of the messages' texts; us: CPU time of one count, the best of many batches. Shapes:
 * `short` two messages of 600 bytes, `prompt` one of 16 KiB, `talk` forty messages with tools.
 */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/buf.h"
#include "tokenizer/chat/chat.h"
#include "tokenizer/models/models.h"

enum { BATCH_NS = 2000000, REQUEST_MAX = 1 << 20 };

static const char prose[] =
    "The gateway counts what a request costs before it is sent upstream, since a limit that is "
    "known only afterwards is no limit at all. Please read the following report about the water "
    "supply of the town, list the three decisions that were taken in March, say who is "
    "responsible for each, and add the date by which it has to be finished. Answer in short "
    "sentences; where the report says nothing, write \"unknown\" and do not guess. In 2019 the "
    "pumps delivered 1,240 cubic metres per hour, 12.5 % more than planned: ";

struct request {
    struct buf messages, tools;
    size_t text; /* bytes of the messages' texts */
};

static uint64_t cpu_ns(void)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* n bytes of text for a message, beginning at another place of the prose for each `turn`. */
static enum err add_message(struct request *q, const char *role, size_t n, size_t turn)
{
    char text[16384];
    size_t at = turn * 37 % (sizeof prose - 1);
    n = MIN(n, sizeof text);
    for (size_t i = 0; i < n; i++) text[i] = prose[(at + i) % (sizeof prose - 1)];
    if (n > 0 && text[n - 1] == ' ') text[n - 1] = '.';
    if (n > 0 && text[0] == ' ') text[0] = 'A';
    enum err e = buf_printf(
        &q->messages, "%s{\"role\":\"%s\",\"content\":", q->messages.len > 1 ? "," : "", role);
    if (e == ERR_OK) e = buf_append_json(&q->messages, str_n(text, n));
    if (e == ERR_OK) e = buf_append_char(&q->messages, '}');
    q->text += n;
    return e;
}

static enum err add_tools(struct request *q)
{
    enum err e = buf_appendz(&q->tools, "[");
    for (int i = 0; e == ERR_OK && i < 5; i++)
        e = buf_printf(&q->tools,
                       "%s{\"type\":\"function\",\"function\":{\"name\":\"look_up_%d\","
                       "\"description\":\"Finds the records of a place and a year.\","
                       "\"parameters\":{\"type\":\"object\",\"properties\":{\"place\":{\"type\":"
                       "\"string\",\"description\":\"Name of the place\"},\"year\":{\"type\":"
                       "\"integer\"},\"unit\":{\"type\":\"string\",\"enum\":[\"m3\",\"l\"]}},"
                       "\"required\":[\"place\"]}}}",
                       i > 0 ? "," : "", i);
    return e == ERR_OK ? buf_appendz(&q->tools, "]") : e;
}

/* Alternating turns: what every family's template takes. */
static enum err make_short(struct request *q)
{
    enum err e = add_message(q, "user", 400, 0);
    return e == ERR_OK ? add_message(q, "assistant", 200, 5) : e;
}

static enum err make_prompt(struct request *q)
{
    return add_message(q, "user", 16384, 0);
}

static enum err make_talk(struct request *q)
{
    enum err e = add_tools(q);
    for (size_t i = 0; e == ERR_OK && i < 40; i++)
        e = add_message(q, i % 2 == 0 ? "user" : "assistant", 80 + i * 13 % 300, i);
    return e;
}

static const struct shape {
    const char *name;
    enum err (*make)(struct request *q);
} shapes[] = { { "short", make_short }, { "prompt", make_prompt }, { "talk", make_talk } };

static int run(const struct model_info *m, const struct shape *shape, double seconds)
{
    struct request q = { .text = 0 };
    struct chat_count c = { .tokens = 0 };
    struct chat_error error = { .raised = false };
    struct chat_scratch *scratch = chat_scratch_new();
    uint64_t best = UINT64_MAX, spent = 0, rounds = 0, batch = 1;
    buf_init(&q.messages, REQUEST_MAX);
    buf_init(&q.tools, REQUEST_MAX);
    enum err e = scratch != NULL ? buf_appendz(&q.messages, "[") : ERR_NOMEM;
    if (e == ERR_OK) e = shape->make(&q);
    if (e == ERR_OK) e = buf_appendz(&q.messages, "]");
    struct chat_slices in = { .messages = buf_str(&q.messages),
                              .tools = q.tools.len > 0 ? buf_str(&q.tools) : STR_NULL,
                              .scratch = scratch,
                              .now = 1767323045 };
    while (e == ERR_OK && (double)spent < seconds * 1e9) {
        uint64_t from = cpu_ns();
        for (uint64_t i = 0; e == ERR_OK && i < batch; i++) e = chat_count(m, &in, &c, &error);
        uint64_t took = cpu_ns() - from;
        best = MIN(best, took / batch);
        spent += took;
        rounds += batch;
        if (took < BATCH_NS) batch *= 2;
    }
    if (e == ERR_OK)
        printf("{\"model\":\"%.*s\",\"shape\":\"%s\",\"bytes\":%zu,\"tokens\":%llu,\"us\":%.2f,"
               "\"mean_us\":%.2f,\"rounds\":%llu}\n",
               STR_ARG(m->vocabulary), shape->name, q.text, (unsigned long long)c.tokens,
               (double)best / 1e3, (double)spent / 1e3 / (double)MAX(rounds, 1),
               (unsigned long long)rounds);
    else if (e == ERR_INVALID) /* this family's template does not take tools of that shape */
        printf("{\"model\":\"%.*s\",\"shape\":\"%s\",\"refused\":true}\n", STR_ARG(m->vocabulary),
               shape->name);
    else
        fprintf(stderr, "bench_chat: %.*s %s: %s\n", STR_ARG(m->vocabulary), shape->name,
                error.why.text);
    chat_scratch_free(scratch);
    buf_done(&q.messages);
    buf_done(&q.tools);
    return e != ERR_OK && e != ERR_INVALID;
}

static int run_all(const struct model_info *m, const char *shape, double seconds)
{
    int failed = 0;
    for (size_t i = 0; i < ARRAY_LEN(shapes); i++)
        if (shape == NULL || strcmp(shape, shapes[i].name) == 0)
            failed |= run(m, &shapes[i], seconds);
    return failed;
}

static void report(void *ctx, const char *file, const char *problem)
{
    (void)ctx;
    fprintf(stderr, "bench_chat: %s: %s\n", file, problem);
}

int main(int argc, char **argv)
{
    static const struct option options[] = { { "seconds", required_argument, NULL, 's' },
                                             { "shape", required_argument, NULL, 'h' },
                                             { NULL, 0, NULL, 0 } };
    const char *shape = NULL;
    double seconds = 0.5;
    int o, failed = 0;
    struct models *models = NULL;
    struct model_info m;
    struct why why = { "" };
    while ((o = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (o == 's') seconds = strtod(optarg, NULL);
        if (o == 'h') shape = optarg;
    }
    if (optind >= argc || models_load(argv[optind], NULL, 0, report, NULL, &models, &why)) {
        fprintf(stderr, "usage: bench_chat [--seconds S] VOCAB_DIR [MODEL...] %s\n", why.text);
        return 2;
    }
    for (int i = optind + 1; i < argc; i++) {
        models_find(models, str_of(argv[i]), &m);
        failed |= run_all(&m, shape, seconds);
    }
    for (size_t i = 0; optind + 1 == argc && i < models_count(models); i++) {
        models_at(models, i, &m);
        if (m.chat != NULL) failed |= run_all(&m, shape, seconds);
    }
    models_unref(models);
    return failed;
}
