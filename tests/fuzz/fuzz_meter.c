/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any text, split anywhere, with any limit: a meter counts what the whole counts, cuts where it
 * would without the split, and what it lets out counts at most the limit. The first bytes choose
 * the vocabulary, the mode, the limit and the splits.
 */
#include "../unit/support_chars.h"
#include "tokenizer/meter/meter.h"
#include "tokenizer/scan/scan_window.h"
#include "tokenizer/scan/scripts.h"
#include "tokenizer/models/vocab_file.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool ok)
{
    if (!ok) abort();
}

enum { VOCABS = 12 };

/* As what stands in front of its pre-tokenizer, or several splits, would make it. */
static struct vocab *reshaped(const struct support_vocab *made, enum scan_shape shape, bool nfc)
{
    struct vocab *v = support_open(made, "gpt2", nfc);
    ((struct vocab_header *)(void *)v->map)->shape = shape;
    v->window = scan_window_best(shape);
    v->count_scripts = scripts_best(v);
    return v;
}

/* One for each shape there is, and for what goes on behind normalization. */
static struct vocab *vocab_number(unsigned i)
{
    static struct vocab *v[VOCABS];
    static struct support_vocab made, chars;
    if (v[0] == NULL) {
        support_init(&made, support_words, sizeof support_words / sizeof support_words[0]);
        chars_init(&chars);
        v[0] = support_open(&made, PATTERN_QWEN, true);
        v[1] = support_open(&made, PATTERN_CL100K, false);
        /* the third is none: an estimate */
        v[3] = support_open(&made, "gpt2", false);
        v[4] = support_open(&made, "(?:" PATTERN_CL100K ")", false); /* run by PCRE2 */
        v[5] = support_open(&made, "o200k", false);
        v[6] = support_open(&made, "tekken", false);
        v[7] = reshaped(&made, SCAN_DEEPSEEK, false);
        v[8] = reshaped(&made, SCAN_DIGITS, true);
        v[9] = chars_open(&chars, &chars_shapes[0], "");
        v[10] = chars_open(&chars, &chars_shapes[2], ""); /* a space in front */
        v[11] = chars_open(&chars, &chars_shapes[4], ""); /* cut before each space */
    }
    return v[i % VOCABS];
}

/* Before any input: none of them is slow for making the vocabularies. */
int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc, (void)argv;
    for (unsigned i = 0; i < VOCABS; i++) (void)vocab_number(i);
    return 0;
}

struct outcome {
    uint64_t count, deliverable, cut;
    bool is_cut, exact;
};

static struct outcome stream(struct vocab *v, enum special_mode mode, struct str text,
                             uint64_t limit, struct rng_fake *rng, size_t step)
{
    struct token_meter *m = meter_new(v, mode);
    struct outcome r = { 0 };
    check(m != NULL);
    meter_set_limit(m, limit);
    for (size_t i = 0, len; i < text.n; i += len) {
        len = 1 + rng_below(&rng->rng, step);
        if (len > text.n - i) len = text.n - i;
        uint64_t before = meter_deliverable(m);
        check(meter_feed(m, str_n(text.p + i, len)) == ERR_OK);
        check(meter_deliverable(m) >= before && meter_deliverable(m) <= i + len);
        if (v == NULL || rng_below(&rng->rng, 8) != 0 || !meter_exact(m)) continue;
        uint64_t n;
        check(token_count(v, str_n(text.p, meter_deliverable(m)), mode, &n) == ERR_OK);
        check(n <= limit);
    }
    check(meter_finish(m) == ERR_OK);
    r = (struct outcome){ meter_count(m), meter_deliverable(m), 0, false, meter_exact(m) };
    r.is_cut = meter_cut(m, &r.cut);
    meter_free(m);
    return r;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 4) return 0;
    struct vocab *v = vocab_number(data[0]);
    enum special_mode mode = data[1] % 2 == 0 ? SPECIAL_TEXT : SPECIAL_CONTROL;
    uint64_t limit = data[2] == 255 ? METER_NO_LIMIT : data[2];
    struct str text = { (const char *)data + 4, size - 4 };
    struct rng_fake rng;
    rng_fake_init(&rng, data[3]);
    struct outcome a = stream(v, mode, text, limit, &rng, size);
    struct outcome b = stream(v, mode, text, limit, &rng, 1 + data[3] % 16);
    check(a.count == b.count && a.is_cut == b.is_cut && a.cut == b.cut && a.exact == b.exact);
    check(a.deliverable == (a.is_cut ? a.cut : text.n) && a.deliverable == b.deliverable);
    if (v == NULL) return 0;
    uint64_t n;
    check(token_count(v, str_n(text.p, a.deliverable), mode, &n) == ERR_OK);
    if (a.exact) check(a.count == n && n <= limit);
    return 0;
}
