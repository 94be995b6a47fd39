/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the token library costs, for `make bench-tokens`: `tokens WHAT VOCABULARY [FILE…]`. A FILE
 * holds documents, each as its length on a line, then its bytes. WHAT is
 *   text    for each line of stdin, the number of a file: a copy of the process, which remembers
 *           nothing, counts its documents, new and seen before (a line of JSON as of the peers)
 *   counts  the tokens of each document of a file, one a line
 *   hard    1 MB each of what makes others slow
 *   stream  a file's documents, fed to a meter token by token
 *   runs    endless runs of one kind fed three or four bytes at a time: ns for each, far in
 *   chat    two messages of 600 bytes, rendered and counted
 *   load    open the vocabulary
 *   hold    open it, count the file, say "ready", wait for the end of stdin
 * Time is that of the processor, not of the clock on the wall. One thread.
 */
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "tokenizer/chat/chat.h"
#include "tokenizer/meter/meter.h"
#include "tokenizer/tokenizer.h"

static const double AGAIN = 0.12; /* seconds that text seen before is counted for */
enum { MAX_RUNS = 9, MAX_DOCS = 100000, HARD = 1000000, MESSAGE = 300 };

/* Every allocation of the program passes here: how many were there? */
extern void *__libc_malloc(size_t n);
extern void *__libc_calloc(size_t n, size_t m);
extern void *__libc_realloc(void *p, size_t n);
static unsigned long long allocations;
void *malloc(size_t n)
{
    allocations++;
    return __libc_malloc(n);
}
void *calloc(size_t n, size_t m)
{
    allocations++;
    return __libc_calloc(n, m);
}
void *realloc(void *p, size_t n)
{
    allocations++;
    return __libc_realloc(p, n);
}

struct docs {
    char *data;
    struct str *text;
    size_t n, bytes;
};

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static int smaller(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static bool docs_read(const char *path, struct docs *d)
{
    struct buf b;
    FILE *f = fopen(path, "rb");
    char *room;
    size_t n = 1;
    if (f == NULL) return false;
    buf_init(&b, (size_t)1 << 30);
    while (n > 0 && buf_reserve(&b, 1 << 20, &room) == ERR_OK) {
        n = fread(room, 1, 1 << 20, f);
        b.len += n;
    }
    fclose(f);
    *d = (struct docs){ .data = b.data, .text = calloc(MAX_DOCS, sizeof *d->text) };
    for (size_t at = 0; at < b.len && d->n < MAX_DOCS;) {
        char *end;
        size_t len = strtoull(b.data + at, &end, 10);
        at = (size_t)(end - b.data) + 1;
        if (len > b.len - at) return false;
        d->text[d->n++] = str_n(b.data + at, len);
        d->bytes += len;
        at += len;
    }
    return d->n > 0;
}

static uint64_t count_some(const struct vocab *v, const struct docs *d, size_t from, size_t to)
{
    uint64_t sum = 0;
    for (size_t i = from; i < to; i++) {
        uint64_t n = 0;
        if (token_count(v, d->text[i], SPECIAL_TEXT, &n) != ERR_OK) abort();
        sum += n;
    }
    return sum;
}

/* The second half, of which nothing was ever seen, with what the first half left in caches; then
 * all of it again. As the peers do it. */
static void text(const struct vocab *v, const struct docs *d)
{
    double took[MAX_RUNS];
    size_t half = d->n / 2, runs = 0, bytes = 0;
    for (size_t i = half; i < d->n; i++) bytes += d->text[i].n;
    uint64_t tokens = count_some(v, d, 0, half);
    double between = seconds();
    tokens += count_some(v, d, half, d->n);
    double begin = seconds(), fresh = begin - between;
    while (runs < MAX_RUNS && (runs < 1 || seconds() - begin < AGAIN)) {
        double from = seconds();
        (void)count_some(v, d, 0, d->n);
        took[runs++] = seconds() - from;
    }
    qsort(took, runs, sizeof *took, smaller);
    printf("{\"docs\":[%zu,%zu],\"tokens\":%llu,\"new\":%.2f,\"seen\":%.2f}\n", half, d->n - half,
           (unsigned long long)tokens, (double)bytes / fresh / 1e6,
           (double)d->bytes / took[runs / 2] / 1e6);
}

static int text_of_file(const struct vocab *v, const char *file)
{
    struct docs d = { .n = 0 };
    if (!docs_read(file, &d)) return 1;
    text(v, &d);
    fflush(stdout);
    return 0;
}

/* Each line of stdin is the number of a file. A copy of the process measures, so that this one
 * never counts anything. */
static int texts(const struct vocab *v, char **files, int n)
{
    char line[32];
    puts("{\"ready\":true}");
    fflush(stdout);
    while (fgets(line, sizeof line, stdin) != NULL) {
        int status = 1;
        long k = strtol(line, NULL, 10);
        if (k < 0 || k >= n) return 1;
        pid_t child = fork();
        if (child == 0) _exit(text_of_file(v, files[k]));
        if (child < 0 || waitpid(child, &status, 0) < 0 || status != 0) {
            fprintf(stderr, "tokens: %s could not be measured\n", files[k]);
            return 1;
        }
    }
    return 0;
}

/* One megabyte of each, as it comes the first time. */
#define SPACES_30 "                              "
#define SPACES_270 \
    SPACES_30 SPACES_30 SPACES_30 SPACES_30 SPACES_30 SPACES_30 SPACES_30 SPACES_30 SPACES_30

static void hard(const struct vocab *v)
{
    static const struct {
        const char *name, *unit; /* NULL: any bytes */
        size_t at_random;        /* bytes of each of its characters, if they come at random */
    } rows[] = {
        { "'a'", "a", 0 },
        { "'ab'", "ab", 0 },
        { "'中'", "中", 0 },
        { "spaces", " ", 0 },
        { "newlines", "\n", 0 },
        { "CRLF", "\r\n", 0 },
        { "spaces, x", "   x", 0 },
        { "270 spaces, x", SPACES_270 "x", 0 },
        { "270 spaces, newline", SPACES_270 "\n", 0 },
        { "combining marks", "\xcc\x81", 0 },
        { "digits", "7", 0 },
        { "punctuation", "!", 0 },
        { "'*'", "*", 0 },
        { "'=-'", "=-", 0 },
        { "'s", "'s", 0 },
        { "ZWJ emoji", "👩‍💻", 0 },
        { "Hangul", "한", 0 },
        { "not UTF-8", "\xff", 0 },
        { "random bytes", NULL, 0 },
        { "random letters", "abcdefghijklmnopqrstuvwxyz", 1 },
        { "in either case", "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ", 1 },
        { "random signs", "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~", 1 },
        { "random white space", " \t\r\n", 1 },
        { "random Han", "的一是不了人我在有他这中大来上国", 3 },
        { "random marks", "\u0301\u0323\u0345\u0334\u0300\u0302\u0308\u0327\u0328\u031b", 2 },
    };
    char *p = malloc(HARD);
    uint64_t seed = 1;
    for (size_t r = 0; r < ARRAY_LEN(rows); r++) {
        size_t n = rows[r].unit != NULL ? strlen(rows[r].unit) : 0;
        size_t len = MAX(rows[r].at_random, (size_t)1), at = 0;
        uint64_t tokens = 0;
        for (size_t i = 0; i < HARD; i++) {
            seed = seed * 6364136223846793005u + 1442695040888963407u;
            if (i % len == 0) at = rows[r].at_random == 0 ? i : (seed >> 33) % (n / len) * len;
            p[i] = n > 0 ? rows[r].unit[(at + i % len) % n] : (char)(seed >> 56);
        }
        double from = seconds();
        if (token_count(v, str_n(p, HARD), SPECIAL_TEXT, &tokens) != ERR_OK) abort();
        printf("{\"input\":\"%s\",\"tokens\":%llu,\"fresh\":%.2f}\n", rows[r].name,
               (unsigned long long)tokens, HARD / (seconds() - from) / 1e6);
    }
    free(p);
}

/* Every token's bytes as one delta, the count and what may be delivered asked for after each. */
static void stream(struct vocab *v, const struct docs *d, uint64_t limit)
{
    struct token_list l = { .want_ends = true };
    double best = 1e9;
    unsigned long long deltas = 0, allocated = 0, sum = 0;
    for (int k = 0; k < 5; k++) {
        double spent = 0;
        deltas = allocated = 0;
        for (size_t i = 0; i < d->n; i++) {
            l.len = 0;
            if (token_encode(v, d->text[i], SPECIAL_TEXT, &l) != ERR_OK) abort();
            struct token_meter *m = meter_new(v, SPECIAL_TEXT);
            if (m == NULL) abort();
            meter_set_limit(m, limit);
            unsigned long long before = allocations;
            double from = seconds();
            for (size_t t = 0, at = 0; t < l.len; at = l.ends[t++]) {
                if (meter_feed(m, str_n(d->text[i].p + at, l.ends[t] - at)) != ERR_OK) abort();
                sum += meter_count(m) + meter_deliverable(m);
            }
            spent += seconds() - from;
            allocated += allocations - before;
            deltas += l.len;
            meter_free(m);
        }
        best = MIN(best, spent);
    }
    printf("{\"limit\":%s,\"deltas\":%llu,\"ns\":%.1f,\"allocations\":%llu,\"check\":%llu}\n",
           limit == METER_NO_LIMIT ? "false" : "true", deltas, best * 1e9 / (double)deltas,
           allocated, sum);
    token_list_done(&l);
}

/* What a delta of those from *at to `to` costs, the count asked for after each. */
static void deltas_at(struct token_meter *m, const char *p, size_t *at, size_t to, double *ret,
                      unsigned long long *sum)
{
    size_t n = 0;
    double begin = seconds();
    for (; *at < to; n++) {
        size_t some = 3 + n % 2;
        if (meter_feed(m, str_n(p + *at, some)) != ERR_OK) abort();
        *sum += meter_count(m);
        *at += some;
    }
    *ret = MIN(*ret, (seconds() - begin) * 1e9 / (double)n);
}

static void runs(struct vocab *v)
{
    static const struct {
        const char *name, *units[8];
    } rows[] = {
        { "a", { "a" } },
        { "letters", { "q", "z", "e", "t", "o", "i", "n", "r" } },
        { "中", { "中" } },
        { "Han", { "的", "一", "是", "不", "了", "人", "我", "在" } },
        { "Kana", { "の", "に", "は", "を", "か", "な", "た", "し" } },
        { "Hangul", { "한", "국", "어", "는", "이", "다", "가", "고" } },
        { "combining marks", { "\xcc\x81" } },
        { "emoji", { "😀", "🚀", "🎉", "👍" } },
        { "ZWJ emoji", { "👩‍💻" } },
        { "emoji with VS16", { "🤷‍♀️", "👍🏽" } },
        { "spaces", { " " } },
        { "newlines", { "\n" } },
        { "CRLF", { "\r\n" } },
        { "white lines", { "\n", " ", "  ", "\t", "\r\n" } },
        { "signs", { "!", "=", "-", "/", "*", "(", ";", "<" } },
        { "signs, not ASCII", { "…", "–", "€", "!", "→", "•", "«", "=" } },
        { "digits", { "7", "0", "3" } },
        { "not UTF-8", { "\xff", "\xfe" } },
        { "marks to be sorted", { "\xcc\x81", "\xcc\xa3", "\xcd\x85", "\xcc\xb4" } },
    };
    /* where the deltas are looked at: 1 KB, the 4 KB before a tail is full, beyond 100 KB */
    enum { AT = 4, SIZE = 110000 };
    static const size_t from[AT] = { 900, 3800, 100000 }, to[AT] = { 1100, 4050, 104096 };
    char *p = malloc(SIZE);
    if (p == NULL) abort();
    for (size_t r = 0; r < ARRAY_LEN(rows); r++) {
        double ns[AT] = { 1e9, 1e9, 1e9, 1e9 };
        size_t n = 0, units = 0;
        uint64_t seed = r + 1;
        unsigned long long sum = 0;
        bool exact = false;
        while (units < ARRAY_LEN(rows[r].units) && rows[r].units[units] != NULL) units++;
        while (n + 20 < SIZE) {
            seed = seed * 6364136223846793005u + 1442695040888963407u;
            const char *unit = rows[r].units[(seed >> 40) % units];
            memcpy(p + n, unit, strlen(unit));
            n += strlen(unit);
        }
        for (int k = 0; k < 3; k++) {
            struct token_meter *m = meter_new(v, SPECIAL_TEXT);
            size_t at = 0;
            if (m == NULL) abort();
            for (size_t i = 0; to[i] > 0; i++) {
                if (meter_feed(m, str_n(p + at, from[i] - at)) != ERR_OK) abort();
                at = from[i];
                for (int warm = 0; warm < 4; warm++, at += 4) {
                    if (meter_feed(m, str_n(p + at, 4)) != ERR_OK) abort();
                    sum += meter_count(m);
                }
                deltas_at(m, p, &at, to[i], &ns[i], &sum);
            }
            exact = meter_exact(m);
            meter_free(m);
        }
        printf("{\"run\":\"%s\",\"ns_1k\":%.0f,\"ns_4k\":%.0f,\"ns_100k\":%.0f,\"exact\":%s,"
               "\"check\":%llu}\n",
               rows[r].name, ns[0], ns[1], ns[2], exact ? "true" : "false", sum);
    }
    free(p);
}

static int chat(struct vocab *v)
{
    static const char words[] =
        "The gateway counts what a model is given before it is sent on, and "
        "what comes back while it passes; nobody waits for it. ";
    struct model_info m = { .vocab = v, .vocabulary = vocab_name(v) };
    struct chat_template *t = NULL;
    struct chat_count c = { .tokens = 0 };
    struct why why = { "" };
    struct buf b;
    double best = 1e9;
    enum { LOOPS = 2000 };
    enum err e = chat_template_new(v, &t, &why);
    if (e == ERR_NOT_FOUND) m.openai = true;
    if (e != ERR_OK && e != ERR_NOT_FOUND) return 1;
    m.chat = t;
    buf_init(&b, 1 << 16);
    for (int k = 0; k < 2; k++) {
        e = buf_appendz(&b, k == 0 ? "[{\"role\":\"system\",\"content\":\""
                                   : "\"},{\"role\":\"user\",\"content\":\"");
        for (size_t i = 0; e == ERR_OK && i < MESSAGE; i++)
            e = buf_append(&b, words + i % (sizeof words - 1), 1);
    }
    if (e == ERR_OK) e = buf_appendz(&b, "\"}]");
    struct chat_scratch *scratch = chat_scratch_new();
    if (scratch == NULL) e = ERR_NOMEM;
    for (int k = 0; e == ERR_OK && k < 7; k++) {
        double from = seconds();
        for (int i = 0; e == ERR_OK && i < LOOPS; i++) {
            struct chat_slices in = { .messages = buf_str(&b),
                                      .now = 1767323045,
                                      .scratch = scratch };
            e = chat_count(&m, &in, &c, NULL);
        }
        best = MIN(best, seconds() - from);
    }
    if (e == ERR_OK)
        printf("{\"tokens\":%llu,\"us\":%.2f,\"method\":\"%s\"}\n", (unsigned long long)c.tokens,
               best * 1e6 / LOOPS, chat_method_name(c.method));
    chat_scratch_free(scratch);
    buf_done(&b);
    chat_template_free(t);
    return e != ERR_OK;
}

static int load(const char *path)
{
    double took[MAX_RUNS];
    for (size_t i = 0; i < MAX_RUNS; i++) {
        struct vocab *v;
        struct why why;
        double from = seconds();
        if (vocab_open(path, &v, &why) != ERR_OK) return 1;
        took[i] = seconds() - from;
        vocab_unref(v);
    }
    double first = took[0];
    qsort(took, MAX_RUNS, sizeof *took, smaller);
    printf("{\"first_ms\":%.2f,\"best_ms\":%.2f}\n", first * 1e3, took[0] * 1e3);
    return 0;
}

int main(int argc, char **argv)
{
    struct why why = { "" };
    struct vocab *v = NULL;
    struct docs d = { .n = 0 };
    if (argc < 3) {
        fputs("usage: tokens text|counts|hard|stream|runs|chat|load|hold VOCABULARY [FILE...]\n",
              stderr);
        return 2;
    }
    if (strcmp(argv[1], "load") == 0) return load(argv[2]);
    if (vocab_open(argv[2], &v, &why) != ERR_OK) {
        fprintf(stderr, "tokens: %s\n", why.text);
        return 1;
    }
    if (strcmp(argv[1], "hard") == 0) hard(v);
    if (strcmp(argv[1], "runs") == 0) runs(v);
    if (strcmp(argv[1], "chat") == 0) return chat(v);
    if (strcmp(argv[1], "text") == 0) return texts(v, argv + 3, argc - 3);
    for (int i = 3; i < argc; i++) {
        if (!docs_read(argv[i], &d)) {
            fprintf(stderr, "tokens: cannot read %s\n", argv[i]);
            return 1;
        }
        if (strcmp(argv[1], "hold") == 0) (void)count_some(v, &d, 0, d.n);
        if (strcmp(argv[1], "stream") == 0) {
            stream(v, &d, METER_NO_LIMIT);
            stream(v, &d, 1000000);
        }
        for (size_t k = 0; strcmp(argv[1], "counts") == 0 && k < d.n; k++) {
            uint64_t n = 0;
            if (token_count(v, d.text[k], SPECIAL_TEXT, &n) != ERR_OK) return 1;
            printf("%llu\n", (unsigned long long)n);
        }
        free(d.text);
        free(d.data);
    }
    if (strcmp(argv[1], "hold") == 0) {
        puts("ready");
        fflush(stdout);
        while (getchar() != EOF) continue;
    }
    vocab_unref(v);
    return 0;
}
