/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What it costs to read answers and to count their tokens, without a connection: streams of each
 * dialect as they come in reads of many events and of one, a thousand streams of one event in turn
 * (none finds what it needs in the first cache), and a whole answer with usage.
 *
 *   answers [--seconds S] [--vocab FILE]
 *
 * One JSON line each: {"what","read","ns"}. ns: CPU time of one event, or of one whole answer; the
 * best batch.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "services/edge/dialects/answer.h"

enum { EVENTS = 200, BATCH = 50, STREAMS = 1000 };

static uint64_t cpu_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static const char *const words[] = { " harbour", " light",  " seven", " boats",
                                     " water",   ",\\nthe", " night", " \xe4\xbd\xa0" };

/* An event of the stream: @ is its choice, # its number, ~ its text. */
static const struct stream {
    const char *name;
    const struct dialect *dialect;
    bool two, hide; /* of two choices, in turn; the client did not ask for usage */
    const char *event;
} streams[] = {
    { "chat", &dialect_openai, false, false,
      "data: {\"id\":\"c-bench\",\"object\":\"chat.completion.chunk\",\"created\":1700000000,"
      "\"model\":\"Qwen3-8B\",\"choices\":[{\"index\":@,\"delta\":{\"content\":\"~\"},"
      "\"finish_reason\":null}],\"fp\":\"------------\"}\n\n" },
    { "chat, padded, usage hidden", &dialect_openai, false, true,
      "data: {\"id\":\"c-bench\",\"object\":\"chat.completion.chunk\",\"created\":1700000000,"
      "\"model\":\"gpt\",\"choices\":[{\"index\":@,\"delta\":{\"content\":\"~\"},"
      "\"finish_reason\":null}],\"usage\":null,\"obfuscation\":\"##\"}\n\n" },
    { "chat, two choices", &dialect_openai, true, false,
      "data: {\"id\":\"c-bench\",\"object\":\"chat.completion.chunk\",\"created\":1700000000,"
      "\"model\":\"Qwen3-8B\",\"choices\":[{\"index\":@,\"delta\":{\"content\":\"~\"},"
      "\"finish_reason\":null}]}\n\n" },
    { "messages", &dialect_anthropic, false, false,
      "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":@,"
      "\"delta\":{\"type\":\"text_delta\",\"text\":\"~\"}}\n\n" },
    { "responses", &dialect_responses, false, false,
      "event: response.output_text.delta\ndata: {\"type\":\"response.output_text.delta\","
      "\"sequence_number\":#,\"item_id\":\"msg_bench\",\"output_index\":@,"
      "\"content_index\":0,\"delta\":\"~\",\"logprobs\":[],\"obfuscation\":\"##\"}\n\n" },
};

static void must(enum err e, const char *what)
{
    if (e == ERR_OK) return;
    fprintf(stderr, "answers: %s: %s\n", what, err_name(e));
    exit(1);
}

static struct answer *begin(const struct dialect *d, struct vocab *v, uint64_t limit, bool hide)
{
    struct answer_options o = { .dialect = d,
                                .vocab = v,
                                .limit = limit,
                                .reserved = true,
                                .allowance = 1000000,
                                .hide_usage = hide };
    struct answer *a = answer_new(&o);
    if (a == NULL) must(ERR_NOMEM, "begin");
    return a;
}

/* CPU time of one pass, in reads of `step` bytes. */
static uint64_t pass(const struct stream *s, struct vocab *v, struct str bytes, const size_t *ends,
                     bool single, struct buf *out)
{
    struct answer *a = begin(s->dialect, v, 100000000, s->hide);
    uint64_t start = cpu_ns();
    size_t at = 0;
    for (size_t i = 0; i < EVENTS && single; i++) {
        buf_clear(out);
        must(answer_feed(a, str_n(bytes.p + at, ends[i] - at), out), s->name);
        at = ends[i];
    }
    buf_clear(out);
    if (!single) must(answer_feed(a, bytes, out), s->name);
    uint64_t took = cpu_ns() - start;
    if (answer_tokens(a) < EVENTS || answer_waits(a)) must(ERR_INVALID, "nothing was counted");
    answer_free(a);
    return took;
}

/* The same of many streams in turn, an event of each. */
static uint64_t pass_turns(const struct stream *s, struct vocab *v, struct str bytes,
                           const size_t *ends, struct buf *out)
{
    static struct answer *answers[STREAMS];
    for (size_t k = 0; k < STREAMS; k++) answers[k] = begin(s->dialect, v, 100000000, s->hide);
    uint64_t start = cpu_ns();
    size_t at = 0;
    for (size_t i = 0; i < EVENTS; i++) {
        for (size_t k = 0; k < STREAMS; k++) {
            buf_clear(out);
            must(answer_feed(answers[k], str_n(bytes.p + at, ends[i] - at), out), s->name);
        }
        at = ends[i];
    }
    uint64_t took = cpu_ns() - start;
    for (size_t k = 0; k < STREAMS; k++) answer_free(answers[k]);
    return took / STREAMS;
}

static void put_event(struct buf *b, const struct stream *s, unsigned i)
{
    for (const char *p = s->event; *p != '\0'; p++) {
        if (*p == '@')
            must(buf_printf(b, "%u", s->two ? i % 2 : 0), "memory");
        else if (*p == '#')
            must(buf_printf(b, "%u", i), "memory");
        else
            must(*p == '~' ? buf_appendz(b, words[i % 8]) : buf_append_char(b, *p), "memory");
    }
}

static void run_stream(const struct stream *s, struct vocab *v, double seconds)
{
    struct buf bytes, out;
    size_t ends[EVENTS];
    buf_init(&bytes, 1 << 20), buf_init(&out, 1 << 20);
    for (unsigned i = 0; i < EVENTS; i++) {
        put_event(&bytes, s, i);
        ends[i] = bytes.len;
    }
    for (int single = 0; single < 2; single++) {
        uint64_t best = UINT64_MAX, until = cpu_ns() + (uint64_t)(seconds * 5e8);
        while (cpu_ns() < until)
            for (int i = 0; i < BATCH; i++)
                best = MIN(best, pass(s, v, buf_str(&bytes), ends, single != 0, &out));
        printf("{\"what\":\"%s\",\"read\":\"%s\",\"ns\":%.0f}\n", s->name,
               single ? "one event" : "200 events", (double)best / EVENTS);
    }
    uint64_t best = UINT64_MAX;
    for (uint64_t until = cpu_ns() + (uint64_t)(seconds * 5e8); cpu_ns() < until;)
        best = MIN(best, pass_turns(s, v, buf_str(&bytes), ends, &out));
    printf("{\"what\":\"%s\",\"read\":\"one event, 1,000 streams in turn\",\"ns\":%.0f}\n", s->name,
           (double)best / EVENTS);
    buf_done(&bytes), buf_done(&out);
}

static void run_whole(struct vocab *v, double seconds)
{
    static const char prose[] =
        "The harbour was quiet when the first boats came back, and the men on the quay counted "
        "them twice before anyone said a word. Seven had left, and seven lights stood on the "
        "water, small and steady. A gateway does much the same: it knows what went out, it waits "
        "for what returns, and it writes down each of them once. ";
    char text[1201];
    struct buf body, out;
    uint64_t best = UINT64_MAX, until = cpu_ns() + (uint64_t)(seconds * 1e9);
    for (size_t i = 0; i < sizeof text - 1; i++) text[i] = prose[i % (sizeof prose - 1)];
    text[sizeof text - 1] = '\0';
    buf_init(&body, 1 << 20), buf_init(&out, 1 << 20);
    must(buf_printf(&body,
                    "{\"id\":\"chatcmpl-bench\",\"object\":\"chat.completion\",\"created\":"
                    "1700000000,\"model\":\"Qwen3-8B\",\"choices\":[{\"index\":0,\"message\":{"
                    "\"role\":\"assistant\",\"content\":\"%s\"},\"logprobs\":null,"
                    "\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":130,"
                    "\"completion_tokens\":240,\"total_tokens\":370}}",
                    text),
         "memory");
    while (cpu_ns() < until) {
        for (int i = 0; i < BATCH; i++) {
            uint64_t start = cpu_ns();
            struct answer *a = begin(&dialect_openai, v, 100000000, false);
            struct str passed;
            buf_clear(&out);
            must(answer_whole(a, buf_str(&body), &out, &passed), "whole");
            if (answer_tokens(a) < EVENTS) must(ERR_INVALID, "nothing was counted");
            answer_free(a);
            best = MIN(best, cpu_ns() - start);
        }
    }
    printf("{\"what\":\"whole answer, 1.5 KB\",\"read\":\"one body\",\"ns\":%" PRIu64 "}\n", best);
    buf_done(&body), buf_done(&out);
}

int main(int argc, char **argv)
{
    double seconds = 1;
    const char *file = "vocab/qwen3" VOCAB_SUFFIX;
    struct vocab *v;
    struct why why;
    for (int i = 1; i + 1 < argc; i += 2) {
        if (strcmp(argv[i], "--seconds") == 0) seconds = strtod(argv[i + 1], NULL);
        if (strcmp(argv[i], "--vocab") == 0) file = argv[i + 1];
    }
    if (vocab_open(file, &v, &why) != ERR_OK) {
        fprintf(stderr, "%s: %s (make vocab)\n", file, why.text);
        return 1;
    }
    for (size_t i = 0; i < ARRAY_LEN(streams); i++) run_stream(&streams[i], v, seconds);
    run_whole(v, seconds);
    vocab_unref(v);
    return 0;
}
