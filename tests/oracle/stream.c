/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Counts each text on stdin (its length on a line, then its bytes) whole, then feeds it in random
 * pieces to a meter and to a counter: `stream VOCABULARY SEED`. The meter's count must be that of
 * the whole at the end and that of the part at a few places before; the counter's ids must be those
 * of the whole. Both with special strings as text and as control tokens. Prints
 *   TEXTS BYTES TOKENS FEEDS INEXACT DIFFERENT
 * where INEXACT are meters that said that they are (their counts are not compared). One thread.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tokenizer/meter/meter.h"
#include "tokenizer/tokenizer.h"

enum { MAX_TEXT = 64 << 20, LOOKS = 3 };

struct tally {
    unsigned long long texts, bytes, tokens, feeds, inexact, different;
};

static uint64_t next(uint64_t *state) /* splitmix64 */
{
    uint64_t z = (*state += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

/* How much of the rest to feed: small pieces as models send them, now and then much or nothing. */
static size_t piece(uint64_t *rng, size_t left)
{
    uint64_t r = next(rng);
    size_t n = r % 512 == 0 ? (r >> 16) % 5000 : r % 16 < 3 ? (r >> 16) % 60 : (r >> 16) % 8;
    return MIN(n, left);
}

static enum err meter_check(struct vocab *v, struct str text, enum special_mode mode,
                            uint64_t whole, uint64_t *rng, struct tally *t, bool *ret_same)
{
    struct token_meter *m = meter_new(v, mode);
    enum err e = m != NULL ? ERR_OK : ERR_NOMEM;
    bool same = true;
    unsigned looks = 0;
    for (size_t at = 0; e == ERR_OK && at < text.n; t->feeds++) {
        size_t n = piece(rng, text.n - at);
        e = meter_feed(m, str_n(text.p + at, n));
        at += n;
        if (e != ERR_OK || looks == LOOKS || next(rng) % (text.n / 8 + 1) != 0) continue;
        uint64_t part, count = meter_count(m); /* then meter_counted() tells of how much */
        looks++;
        e = token_count(v, str_n(text.p, meter_counted(m)), mode, &part);
        if (e == ERR_OK && meter_exact(m) && count != part) same = false;
    }
    if (e == ERR_OK) e = meter_finish(m);
    if (e == ERR_OK && !meter_exact(m))
        t->inexact++;
    else if (e == ERR_OK && meter_count(m) != whole)
        same = false;
    meter_free(m);
    if (e == ERR_OK) *ret_same = same;
    return e;
}

static enum err counter_check(const struct vocab *v, struct str text, enum special_mode mode,
                              const struct token_list *whole, uint64_t *rng, bool *ret_same)
{
    struct token_list ids = { .ids = NULL };
    struct token_counter c;
    uint64_t count = 0;
    enum err e = ERR_OK;
    token_counter_init(&c, v, mode, &ids);
    for (size_t at = 0; e == ERR_OK && at < text.n;) {
        size_t n = piece(rng, text.n - at);
        e = token_counter_feed(&c, str_n(text.p + at, n));
        at += n;
    }
    if (e == ERR_OK) e = token_counter_finish(&c, &count);
    if (e == ERR_OK)
        *ret_same = count == whole->len && ids.len == whole->len &&
                    (ids.len == 0 || memcmp(ids.ids, whole->ids, ids.len * sizeof *ids.ids) == 0);
    token_counter_done(&c);
    token_list_done(&ids);
    return e;
}

static enum err check(struct vocab *v, struct str text, uint64_t *rng, struct tally *t)
{
    enum err e = ERR_OK;
    for (int control = 0; e == ERR_OK && control < 2; control++) {
        enum special_mode mode = control ? SPECIAL_CONTROL : SPECIAL_TEXT;
        struct token_list whole = { .ids = NULL };
        bool metered = false, counted = false;
        e = token_encode(v, text, mode, &whole);
        if (e == ERR_OK) e = meter_check(v, text, mode, whole.len, rng, t, &metered);
        if (e == ERR_OK) e = counter_check(v, text, mode, &whole, rng, &counted);
        t->tokens += whole.len;
        if (e == ERR_OK && !(metered && counted)) {
            t->different++;
            fprintf(stderr, "stream: text %llu (%zu bytes, %s): %s differs\n", t->texts, text.n,
                    control ? "control" : "text", metered ? "counter" : "meter");
        }
        token_list_done(&whole);
    }
    t->texts++;
    t->bytes += text.n;
    return e;
}

int main(int argc, char **argv)
{
    struct why why = { "" };
    struct vocab *v = NULL;
    struct tally t = { 0 };
    if (argc != 3) {
        fputs("usage: stream VOCABULARY SEED <texts\n", stderr);
        return 2;
    }
    uint64_t rng = strtoull(argv[2], NULL, 10);
    if (vocab_open(argv[1], &v, &why) != ERR_OK) {
        fprintf(stderr, "stream: %s\n", why.text);
        return 1;
    }
    char line[32], *text = malloc(MAX_TEXT);
    enum err e = text != NULL ? ERR_OK : ERR_NOMEM;
    while (e == ERR_OK && fgets(line, sizeof line, stdin) != NULL) {
        size_t n = strtoull(line, NULL, 10);
        e = n <= MAX_TEXT && fread(text, 1, n, stdin) == n ? ERR_OK : ERR_INVALID;
        if (e == ERR_OK) e = check(v, str_n(text, n), &rng, &t);
    }
    free(text);
    vocab_unref(v);
    printf("%llu %llu %llu %llu %llu %llu\n", t.texts, t.bytes, t.tokens, t.feeds, t.inexact,
           t.different);
    if (e != ERR_OK) fprintf(stderr, "stream: %s\n", err_name(e));
    return e != ERR_OK || t.different > 0;
}
