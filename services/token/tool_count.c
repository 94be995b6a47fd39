/* SPDX-License-Identifier: Apache-2.0 */
/*
 * aigw-count: counts tokens on the command line. JSON lines in, one answer per line out:
 *
 *   {"text": ...} | {"messages": ..., "tools"?, "add_generation_prompt"?, "chat_template_kwargs"?}
 *   -> {"tokens":N,"exact":true,"method":"template",...} | {"error":...}
 *
 * A line may name its own "model" and "special". Answers are written in blocks, and at once when
 * stdin pauses, so that a program can ask line by line. One thread.
 */
#include <errno.h>
#include <getopt.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "proto/token_msg.h"
#include "tokenizer/models/models.h"

enum {
    LINE_MAX_BYTES = 64 << 20,
    OUT_BLOCK = 64 << 10, /* answers that are written at once */
    READ_BLOCK = 256 << 10,
    ARENA_BASE = 16 << 20,
    ARENA_PER_BYTE = 32,
    BENCH_NS = 1000000000,
};
enum { EXIT_TROUBLE = 1, EXIT_USAGE = 2 };

struct tool {
    struct models *models;
    struct str model;
    enum special_mode special;
    bool ids, render;
    /* used again from line to line */
    struct arena arena;
    struct buf rendered, out;
    struct token_list list;
};

static void usage(FILE *to)
{
    fputs(
        "usage: aigw-count --model NAME [options] <lines >counts\n"
        "       aigw-count --model NAME --bench FILE\n"
        "       aigw-count --list\n\n"
        "Counts tokens exactly, offline. Each line of stdin is a JSON object of at most 64 MiB:\n\n"
        "  {\"text\":\"...\"}                      a text, as it stands\n"
        "  {\"messages\":[...],\"tools\":[...],    a chat, as the model's own template renders it\n"
        "   \"add_generation_prompt\":true,       (all but messages may be left out)\n"
        "   \"chat_template_kwargs\":{...}}\n\n"
        "and may name its own \"model\" and \"special\". Each is answered by a line on stdout:\n\n"
        "  {\"model\":...,\"tokens\":N,\"exact\":true,\"method\":\"template\",\"vocabulary\":...}\n"
        "  {\"error\":\"why\",\"param\":\"field\"}  for one that cannot be counted; the next ones are\n\n"
        "Empty lines are passed over. Answers are written at once when stdin pauses.\n\n"
        "  -m, --model NAME         how to count lines that name no model\n"
        "  -d, --vocab-dir DIR      where the vocabularies are (default: $VOCAB_DIR)\n"
        "  -s, --special text|control   what special strings in a text are, where the line does not\n"
        "                           say (default: text)\n"
        "  -i, --ids                print the token ids too\n"
        "  -r, --render             print the text that the chat template makes, too\n"
        "  -b, --bench FILE         count the file's text again and again for a second, print MB/s\n"
        "  -l, --list               list the vocabularies\n"
        "  -h, --help               this\n\n"
        "exit status: 0 every line was answered (an error is an answer); 1 stdin, stdout or the\n"
        "             vocabularies cannot be read or written; 2 wrong usage\n",
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

static enum err answer(struct tool *t, struct str line, struct chat_error *error)
{
    struct jv object;
    struct token_request q;
    struct model_info info;
    struct chat_count c;
    struct buf *out = &t->out;
    arena_reset(&t->arena);
    t->arena.budget = ARENA_BASE + ARENA_PER_BYTE * line.n;
    buf_clear(&t->rendered);
    t->list.len = 0;
    enum err e = jv_read_json(&t->arena, line, &object, &error->why);
    if (e == ERR_OK) e = token_request_read(&t->arena, object, &q, error);
    if (e == ERR_OK && q.model.p == NULL) q.model = t->model;
    if (e == ERR_OK && q.model.p == NULL)
        e = why_set(&error->why, ERR_INVALID, "no model: use --model, or \"model\" in the line");
    if (e == ERR_OK) {
        const struct jv *special = jv_member(object, STR("special"));
        if (special == NULL || special->type == JV_NONE) q.special = t->special;
        q.chat.now = (int64_t)time(NULL);
        q.chat.to = t->ids ? &t->list : NULL;
        q.chat.rendered = t->render && !q.is_text ? &t->rendered : NULL;
        models_find(t->models, q.model, &info);
        e = token_request_count(&q, &info, &t->arena, &c, error);
    }
    if (e == ERR_OK) e = buf_appendz(out, "{");
    if (e == ERR_OK) e = token_count_members(out, q.model, &c);
    /* OpenAI's rule and estimates have no ids. */
    if (e == ERR_OK && t->ids && info.vocab != NULL && (q.is_text || c.method == CHAT_TEMPLATE))
        e = print_ids(out, &t->list);
    if (e == ERR_OK && q.chat.rendered != NULL && c.method == CHAT_TEMPLATE) {
        e = buf_appendz(out, ",\"text\":");
        if (e == ERR_OK) e = buf_append_json(out, buf_str(&t->rendered));
    }
    return e == ERR_OK ? buf_appendz(out, "}\n") : e;
}

static enum err append_error(struct buf *out, enum err e, struct chat_error *error)
{
    if (error->why.text[0] == '\0') why_set(&error->why, e, "%s", err_name(e));
    e = buf_appendz(out, "{\"error\":");
    if (e == ERR_OK) e = buf_append_json(out, str_of(error->why.text));
    if (e == ERR_OK && error->param[0] != '\0') {
        e = buf_appendz(out, ",\"param\":");
        if (e == ERR_OK) e = buf_append_json(out, str_of(error->param));
    }
    return e == ERR_OK ? buf_appendz(out, "}\n") : e;
}

/* --- lines in, answers out --- */

static bool write_out(struct buf *out)
{
    for (size_t at = 0; at < out->len;) {
        ssize_t n = write(STDOUT_FILENO, out->data + at, out->len - at);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return false;
        at += (size_t)n;
    }
    buf_clear(out);
    return true;
}

/* Reads blocks and looks at each byte once, however the lines come. */
struct lines {
    char *data;
    size_t cap, begin, end; /* [begin, end): read, not given out yet */
    size_t seen;            /* [begin, seen) has no end of a line */
    bool eof, failed, dropping;
};

/* More input; what was answered goes out first when that means to wait. False: no more. */
static bool read_more(struct lines *l, struct buf *out)
{
    struct pollfd p = { .fd = STDIN_FILENO, .events = POLLIN };
    if (l->begin > 0 && l->cap - l->end < READ_BLOCK) {
        memmove(l->data, l->data + l->begin, l->end - l->begin);
        l->end -= l->begin, l->seen -= l->begin, l->begin = 0;
    }
    if (l->cap - l->end < READ_BLOCK) {
        size_t cap = MAX(l->cap * 2, (size_t)2 * READ_BLOCK);
        l->data = xrealloc(l->data, cap);
        l->cap = cap;
    }
    if (out->len > 0 && poll(&p, 1, 0) == 0 && !write_out(out)) {
        l->failed = true;
        return false;
    }
    ssize_t n;
    while ((n = read(STDIN_FILENO, l->data + l->end, l->cap - l->end)) < 0 && errno == EINTR) {
    }
    l->failed = n < 0;
    l->eof = n <= 0;
    if (n > 0) l->end += (size_t)n;
    return n > 0;
}

/* The next line without its end, borrowed until the next call. False: no more. Of one that is too
 * long only so much is kept as shows that. */
static bool next_line(struct lines *l, struct buf *out, struct str *ret, bool *ret_too_long)
{
    *ret_too_long = false;
    for (;;) {
        char *nl = l->end > l->seen ? memchr(l->data + l->seen, '\n', l->end - l->seen) : NULL;
        size_t stop = nl != NULL ? (size_t)(nl - l->data) : l->end;
        if (stop - l->begin > LINE_MAX_BYTES) l->dropping = true;
        if (l->dropping) l->begin = stop;
        l->seen = stop;
        if (nl == NULL && !l->eof && read_more(l, out)) continue;
        if (l->failed || (nl == NULL && l->begin == l->end && !l->dropping)) return false;
        *ret = str_n(l->data + l->begin, stop - l->begin);
        *ret_too_long = l->dropping;
        l->dropping = false;
        l->begin = l->seen = nl != NULL ? stop + 1 : stop;
        return true;
    }
}

static bool is_blank(struct str s)
{
    while (s.n > 0 && (s.p[0] == ' ' || s.p[0] == '\t' || s.p[0] == '\r')) s.p++, s.n--;
    return s.n == 0;
}

static int count_lines(struct tool *t)
{
    struct lines l = { .data = NULL };
    struct str line;
    bool too_long;
    enum err e = ERR_OK;
    while (e == ERR_OK && next_line(&l, &t->out, &line, &too_long)) {
        struct chat_error error = { .raised = false };
        size_t before = t->out.len;
        if (!too_long && is_blank(line)) continue;
        e = too_long ? why_set(&error.why, ERR_LIMIT, "the line is longer than 64 MiB")
                     : answer(t, line, &error);
        if (e != ERR_OK) {
            t->out.len = before;
            e = append_error(&t->out, e, &error);
        }
        if (e == ERR_OK && t->out.len >= OUT_BLOCK && !write_out(&t->out)) e = ERR_IO;
    }
    if (e == ERR_OK && !write_out(&t->out)) e = ERR_IO;
    free(l.data);
    if (e != ERR_OK || l.failed) {
        fprintf(stderr, "aigw-count: cannot read or write: %s\n", strerror(errno));
        return EXIT_TROUBLE;
    }
    return EXIT_SUCCESS;
}

static int bench(struct tool *t, const char *path)
{
    struct model_info info;
    struct buf text;
    struct chat_count c = { .tokens = 0 };
    char chunk[65536];
    size_t n;
    FILE *f = fopen(path, "rb");
    int status = EXIT_TROUBLE;
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
            return EXIT_USAGE;
        default: usage(stderr); return EXIT_USAGE;
        }
    }
    if (optind < argc || (bench_file != NULL && t.model.p == NULL)) {
        usage(stderr);
        return EXIT_USAGE;
    }
    struct why why = { "" };
    if (dir == NULL || dir[0] == '\0')
        fputs("aigw-count: no vocabularies (--vocab-dir, VOCAB_DIR): all counts are estimates\n",
              stderr);
    if (models_load(dir, NULL, 0, report, NULL, &t.models, &why) != ERR_OK) {
        fprintf(stderr, "aigw-count: %s\n", why.text);
        return EXIT_TROUBLE;
    }
    arena_init(&t.arena, 0);
    buf_init(&t.rendered, (size_t)LINE_MAX_BYTES * 2);
    buf_init(&t.out, (size_t)LINE_MAX_BYTES * 16);
    status = lists ? list(&t) : bench_file != NULL ? bench(&t, bench_file) : count_lines(&t);
    arena_done(&t.arena);
    buf_done(&t.rendered);
    buf_done(&t.out);
    token_list_done(&t.list);
    models_unref(t.models);
    return status;
}
