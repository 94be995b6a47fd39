/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Templates and their values as input: nothing may crash, run on, or print more than allowed; and
 * rendering twice gives the same. Input: a template, a NUL, a JSON context (default: a small one).
 */
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "tokenizer/jinja/jinja.h"

enum { OUTPUT_MAX = 1 << 16, STEPS_MAX = 50000, MEMORY_MAX = 4 << 20 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static enum err to_buf(void *ctx, const char *p, size_t n)
{
    return buf_append(ctx, p, n);
}

static enum err render(const struct jinja *t, struct str context, struct buf *out)
{
    struct arena a;
    struct why why;
    struct jinja_run run = {
        .now = 1767323045, .limits = { STEPS_MAX, OUTPUT_MAX }, .sink = to_buf, .sink_ctx = out
    };
    arena_init(&a, MEMORY_MAX);
    enum err e = jv_read_json(&a, context, &run.context, &why);
    if (e == ERR_OK) e = jinja_render(t, &a, &run, &why);
    arena_done(&a);
    if (e == ERR_INTERNAL) abort();
    return e;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static const char dflt[] =
        "{\"messages\":[{\"role\":\"user\",\"content\":\"h\xc3\xa9\",\"l\":[1,2.5,null]},"
        "{\"role\":\"assistant\",\"content\":\"<think>a</think>b\"}],"
        "\"tools\":[{\"name\":\"f\",\"p\":{\"a\":true}}],\"n\":3,\"s\":\"Ab c\"}";
    struct jinja *t;
    struct why why;
    struct buf first, again;
    const char *source = (const char *)data, *nul = n > 0 ? memchr(source, '\0', n) : NULL;
    struct str context = STR_NULL;
    size_t source_n = n;
    if (nul != NULL) {
        source_n = (size_t)(nul - source);
        context = str_n(nul + 1, n - source_n - 1);
    }
    if (context.n == 0) context = str_n(dflt, sizeof dflt - 1);
    if (n == 0 || jinja_compile(str_n(source, source_n), &t, &why) != ERR_OK) return 0;
    buf_init(&first, OUTPUT_MAX);
    buf_init(&again, OUTPUT_MAX);
    enum err e = render(t, context, &first);
    if (e != render(t, context, &again) || !str_eq(buf_str(&first), buf_str(&again))) abort();
    buf_done(&first);
    buf_done(&again);
    jinja_free(t);
    return 0;
}
