/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A template, and texts for the messages: conversations of one form with those texts in turn are
 * rendered by the template and by plans, and both must write the same; a plan that was cut must
 * count what the whole has. The input is the template and up to eight texts, with zero bytes
 * between them.
 */
#include <stdlib.h>
#include <string.h>

#include "../unit/support_bytes_vocab.h"
#include "../unit/support_plan.h"

enum { TEXTS = 8, TURNS = 10, SOURCE_MAX = 4096 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static struct str next(struct str *rest)
{
    const char *z = memchr(rest->p, '\0', rest->n);
    size_t n = z != NULL ? (size_t)(z - rest->p) : rest->n;
    struct str s = str_n(rest->p, n);
    rest->p += n + (z != NULL);
    rest->n -= n + (z != NULL);
    return s;
}

/* One for all inputs. */
static const struct vocab *vocabulary(void)
{
    static struct vocab *v;
    if (v == NULL) v = bytes_vocab("bytes", "", "");
    return v;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static const char *const roles[] = { "system", "user", "assistant" };
    struct str rest = str_n((const char *)data, n), texts[TEXTS], source;
    struct why why;
    struct chat_template *t;
    struct planned s;
    struct buf b;
    size_t texts_n = 0;
    if (n == 0) return 0;
    source = next(&rest);
    if (source.n > SOURCE_MAX || chat_template_new_source(source, NULL, &t, &why) != ERR_OK)
        return 0;
    while (rest.n > 0 && texts_n < TEXTS) texts[texts_n++] = next(&rest);
    if (texts_n == 0) texts[texts_n++] = STR("text");
    planned_init(&s);
    s.vocab = vocabulary();
    buf_init(&b, 4 << 20);
    for (size_t turn = 0; turn < TURNS; turn++) {
        buf_clear(&b);
        for (size_t i = 0; i < 3; i++)
            if (buf_printf(&b, "%s{\"role\":\"%s\",\"content\":", i > 0 ? "," : "[", roles[i]) !=
                    ERR_OK ||
                buf_append_json(&b, texts[(turn * (i + 1)) % texts_n]) != ERR_OK ||
                buf_append_char(&b, '}') != ERR_OK)
                abort();
        if (buf_append_char(&b, ']') != ERR_OK) abort();
        if (!planned_agrees(&s, t, &(struct chat_slices){ .messages = buf_str(&b) })) abort();
    }
    buf_done(&b);
    planned_done(&s);
    chat_template_free(t);
    return 0;
}
