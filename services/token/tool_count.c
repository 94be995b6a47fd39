/* SPDX-License-Identifier: Apache-2.0 */
/*
 * aigw-count: counts tokens on the command line. JSON lines in, one answer per line out:
 *
 *   {"text": ...} | {"messages": ..., "tools"?, "add_generation_prompt"?, "chat_template_kwargs"?}
 *   -> {"tokens":N,"exact":true,"method":"template",...} | {"error":...}
 *
 * A line may name its own "model" and "special". One thread.
 */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "proto/token_msg.h"
#include "tokenizer/models.h"

enum {
    LINE_MAX_BYTES = 64 << 20,
    ARENA_BASE = 16 << 20,
    ARENA_PER_BYTE = 32,
    BENCH_NS = 1000000000,
};

struct tool {
    struct models *models;
    struct str model;
    enum special_mode special;
    bool ids, render;
};

static void usage(FILE *to)
{
    fputs("usage: aigw-count --model NAME [options] <lines >counts\n"
          "       aigw-count --model NAME --bench FILE\n"
          "       aigw-count --list\n\n"
          "Counts tokens: one JSON object per line, {\"text\":...} or {\"messages\":[...]}.\n\n"
          "  --model NAME        how to count lines that name no model\n"
          "  --vocab-dir DIR     where the vocabularies are (default: $VOCAB_DIR)\n"
          "  --special text|control   what special strings in a text are (default: text)\n"
          "  --ids               print the token ids too\n"
          "  --render            print the text that the chat template makes, too\n"
          "  --bench FILE        count the file's text again and again for a second, print MB/s\n"
          "  --list              list the vocabularies\n",
          to);
}

static void report(void *ctx, const char *file, const char *problem)
{
    (void)ctx;
    fprintf(stderr, "aigw-count: %s: %s\n", file, problem);
}

static enum err print_ids(struct buf *out, const struct token_list *l)
{
    enum err e = buf_appendz(out, ",\"ids\":[");
    for (size_t i = 0; e == ERR_OK && i < l->len; i++)
        e = buf_printf(out, i > 0 ? ",%u" : "%u", l->ids[i]);
    return e == ERR_OK ? buf_appendz(out, "]") : e;
}

static enum err answer(struct buf *out, struct tool *t, struct str line, struct chat_error *error)
{
    struct arena a;
    struct buf rendered;
    struct jv object;
    struct token_request q;
    struct model_info info;
    struct chat_count c;
    struct token_list ids = { .ids = NULL };
    arena_init(&a, ARENA_BASE + ARENA_PER_BYTE * line.n);
    buf_init(&rendered, LINE_MAX_BYTES);
    enum err e = jv_read_json(&a, line, &object, &error->why);
    if (e == ERR_OK) e = token_request_read(&a, object, &q, error);
    if (e == ERR_OK && q.model.p == NULL) q.model = t->model;
    if (e == ERR_OK && q.model.p == NULL)
        e = why_set(&error->why, ERR_INVALID, "no model: use --model, or \"model\" in the line");
    if (e == ERR_OK) {
        if (t->special == SPECIAL_CONTROL) q.special = SPECIAL_CONTROL;
        q.chat.now = (int64_t)time(NULL);
        q.chat.to = t->ids ? &ids : NULL;
        q.chat.rendered = t->render && !q.is_text ? &rendered : NULL;
        models_find(t->models, q.model, &info);
        e = token_request_count(&q, &info, &a, &c, error);
    }
    if (e == ERR_OK) e = buf_appendz(out, "{");
    if (e == ERR_OK) e = token_count_members(out, q.model, &c);
    if (e == ERR_OK && t->ids && info.vocab != NULL) e = print_ids(out, &ids);
    if (e == ERR_OK && q.chat.rendered != NULL && c.method == CHAT_TEMPLATE) {
        e = buf_appendz(out, ",\"text\":");
        if (e == ERR_OK) e = buf_append_json(out, buf_str(&rendered));
    }
    if (e == ERR_OK) e = buf_appendz(out, "}");
    token_list_done(&ids);
    buf_done(&rendered);
    arena_done(&a);
    return e;
}

static int count_lines(struct tool *t)
{
    char *line = NULL;
    size_t cap = 0;
    ssize_t n;
    struct buf out;
    bool failed = false;
    buf_init(&out, (size_t)LINE_MAX_BYTES * 8);
    while ((n = getline(&line, &cap, stdin)) >= 0) {
        struct chat_error error = { .raised = false };
        struct str text = str_trim(str_n(line, (size_t)n - (n > 0 && line[n - 1] == '\n')));
        if (text.n > 0 && text.p[text.n - 1] == '\r') text.n--;
        if (text.n == 0) continue;
        buf_clear(&out);
        enum err e = n > LINE_MAX_BYTES ? why_set(&error.why, ERR_LIMIT, "the line is too long")
                                        : answer(&out, t, text, &error);
        if (e != ERR_OK) {
            buf_clear(&out);
            if (error.why.text[0] == '\0') why_set(&error.why, e, "%s", err_name(e));
            e = buf_appendz(&out, "{\"error\":");
            if (e == ERR_OK) e = buf_append_json(&out, str_of(error.why.text));
            if (e == ERR_OK && error.param[0] != '\0') {
                e = buf_appendz(&out, ",\"param\":");
                if (e == ERR_OK) e = buf_append_json(&out, str_of(error.param));
            }
            if (e == ERR_OK) e = buf_appendz(&out, "}");
        }
        if (e == ERR_OK) e = buf_append_char(&out, '\n');
        failed = e != ERR_OK || fwrite(out.data, 1, out.len, stdout) != out.len;
        if (failed) break;
    }
    failed = fflush(stdout) != 0 || failed;
    if (failed) fputs("aigw-count: cannot write\n", stderr);
    free(line);
    buf_done(&out);
    return failed;
}

static int bench(struct tool *t, const char *path)
{
    struct model_info info;
    struct buf text;
    struct chat_count c = { .tokens = 0 };
    char chunk[65536];
    size_t n;
    FILE *f = fopen(path, "rb");
    int status = 1;
    buf_init(&text, (size_t)1 << 30);
    models_find(t->models, t->model, &info);
    if (f == NULL || info.vocab == NULL) {
        fprintf(stderr, "aigw-count: %s\n", f == NULL ? "cannot read the file" : "unknown model");
        goto out;
    }
    while ((n = fread(chunk, 1, sizeof chunk, f)) > 0)
        if (buf_append(&text, chunk, n) != ERR_OK) goto out;
    const struct clock *clock = clock_system();
    uint64_t start = clock_mono_ns(clock), spent = 0, best = UINT64_MAX, rounds = 0;
    while (spent < BENCH_NS || rounds < 3) {
        uint64_t from = clock_mono_ns(clock);
        if (chat_count_text(&info, buf_str(&text), t->special, NULL, &c) != ERR_OK) goto out;
        uint64_t now = clock_mono_ns(clock);
        best = MIN(best, now - from);
        spent = now - start;
        rounds++;
    }
    printf(
        "{\"bytes\":%zu,\"tokens\":%llu,\"rounds\":%llu,\"MB_per_s\":%.1f,\"best_MB_per_s\":%.1f}\n",
        text.len, (unsigned long long)c.tokens, (unsigned long long)rounds,
        (double)text.len * (double)rounds * 1e3 / (double)spent,
        (double)text.len * 1e3 / (double)MAX(best, 1));
    status = 0;
out:
    if (f != NULL) fclose(f);
    buf_done(&text);
    return status;
}

static int list(const struct tool *t)
{
    for (size_t i = 0; i < models_count(t->models); i++) {
        struct model_info m;
        models_at(t->models, i, &m);
        printf("%-16.*s %7u ids  %s\n", STR_ARG(m.vocabulary), vocab_size(m.vocab),
               m.chat != NULL ? "chat template"
               : m.openai     ? "OpenAI's rule"
                              : "no template");
    }
    return 0;
}

int main(int argc, char **argv)
{
    static const struct option options[] = {
        { "model", required_argument, NULL, 'm' },
        { "vocab-dir", required_argument, NULL, 'd' },
        { "special", required_argument, NULL, 's' },
        { "ids", no_argument, NULL, 'i' },
        { "render", no_argument, NULL, 'r' },
        { "bench", required_argument, NULL, 'b' },
        { "list", no_argument, NULL, 'l' },
        { "help", no_argument, NULL, 'h' },
        { NULL, 0, NULL, 0 },
    };
    struct tool t = { .model = STR_NULL, .special = SPECIAL_TEXT };
    const char *dir = getenv("VOCAB_DIR"), *bench_file = NULL;
    bool lists = false;
    int o, status;
    while ((o = getopt_long(argc, argv, "m:d:s:irb:lh", options, NULL)) != -1) {
        switch (o) {
        case 'm': t.model = str_of(optarg); break;
        case 'd': dir = optarg; break;
        case 'i': t.ids = true; break;
        case 'r': t.render = true; break;
        case 'b': bench_file = optarg; break;
        case 'l': lists = true; break;
        case 'h': usage(stdout); return 0;
        case 's':
            if (strcmp(optarg, "text") == 0 || strcmp(optarg, "control") == 0) {
                t.special = optarg[0] == 'c' ? SPECIAL_CONTROL : SPECIAL_TEXT;
                break;
            }
            fputs("aigw-count: --special takes text or control\n", stderr);
            return 2;
        default: usage(stderr); return 2;
        }
    }
    if (optind < argc || (bench_file != NULL && t.model.p == NULL)) {
        usage(stderr);
        return 2;
    }
    struct why why = { "" };
    if (dir == NULL || dir[0] == '\0')
        fputs("aigw-count: no vocabularies (--vocab-dir, VOCAB_DIR): all counts are estimates\n",
              stderr);
    if (models_load(dir, NULL, 0, report, NULL, &t.models, &why) != ERR_OK) {
        fprintf(stderr, "aigw-count: %s\n", why.text);
        return 1;
    }
    status = lists ? list(&t) : bench_file != NULL ? bench(&t, bench_file) : count_lines(&t);
    models_unref(t.models);
    return status;
}
