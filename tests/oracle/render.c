/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Renders a template for the oracle: `render TEMPLATE-FILE` reads one JSON object per line, the
 * context, and answers each with {"text": ...} or {"error": ..., "raised": bool} on one line.
 * The clock stands at 2026-01-02T03:04:05Z.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "tokenizer/jinja/jinja.h"

static enum err to_buf(void *ctx, const char *p, size_t n)
{
    return buf_append(ctx, p, n);
}

static char *read_all(const char *path, size_t *ret_n)
{
    FILE *f = fopen(path, "rb");
    struct buf b;
    buf_init(&b, 16 << 20);
    char chunk[4096];
    size_t n;
    if (f == NULL) return NULL;
    while ((n = fread(chunk, 1, sizeof chunk, f)) > 0)
        if (buf_append(&b, chunk, n) != ERR_OK) break;
    fclose(f);
    *ret_n = b.len;
    return xrealloc(b.data, b.len + 1);
}

static void render_line(const struct jinja *t, struct str line)
{
    struct arena a;
    struct buf text, out;
    struct why why = { "" };
    struct jinja_run run = { .now = 1767323045, .sink = to_buf, .sink_ctx = &text };
    arena_init(&a, 64u << 20);
    buf_init(&text, 64u << 20);
    buf_init(&out, 512u << 20);
    enum err e = jv_read_json(&a, line, &run.context, &why);
    if (e == ERR_OK) e = jinja_render(t, &a, &run, &why);
    enum err w = buf_appendz(&out, e == ERR_OK ? "{\"text\": " : "{\"error\": ");
    if (w == ERR_OK) w = buf_append_json(&out, e == ERR_OK ? buf_str(&text) : str_of(why.text));
    if (w == ERR_OK && e != ERR_OK)
        w = buf_appendz(&out, run.template_raised ? ", \"raised\": true" : ", \"raised\": false");
    if (w == ERR_OK) w = buf_appendz(&out, "}");
    puts(w == ERR_OK ? buf_z(&out) : "{}");
    buf_done(&out);
    buf_done(&text);
    arena_done(&a);
}

int main(int argc, char **argv)
{
    struct why why;
    struct jinja *t = NULL;
    size_t n = 0, cap = 0;
    char *line = NULL, *source = argc == 2 ? read_all(argv[1], &n) : NULL;
    if (source == NULL) {
        fputs("usage: render TEMPLATE-FILE\n", stderr);
        return 2;
    }
    if (jinja_compile(str_n(source, n), &t, &why) != ERR_OK) {
        fprintf(stderr, "%s\n", why.text);
        return 1;
    }
    ssize_t len;
    while ((len = getline(&line, &cap, stdin)) >= 0) render_line(t, str_n(line, (size_t)len));
    jinja_free(t);
    free(source);
    free(line);
    return 0;
}
