/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See answer.h: an answer that is one body of JSON. Its texts are fed to meters as those of an
 * event are; at a cut the body is rewritten by splices, its usage and reasons among them.
 */
#include <stdio.h>
#include <stdlib.h>

#include "answer.h"
#include "answer_impl.h"

/* What the usage of a cut answer says: tokens delivered. The numbers live in text. */
static size_t usage_splices(struct answer *a, char text[2][24], struct splice *s)
{
    const struct chunk *c = a->chunk;
    uint64_t values[2] = { answer_tokens(a), a->reported.input + answer_tokens(a) };
    struct js_val at[2] = { c->completion_tokens, c->total_tokens };
    size_t n = 0;
    for (int i = 0; i < 2; i++) {
        if (!js_is(at[i], JS_NUMBER)) continue;
        int len = snprintf(text[i], sizeof text[i], "%llu", (unsigned long long)values[i]);
        s[n++] = (struct splice){ at[i].raw.p, at[i].raw.n, str_n(text[i], (size_t)len) };
    }
    return n;
}

static bool was_cut(const struct answer *a, uint32_t choice, const struct mark *marks)
{
    for (size_t k = 0; k < a->chunk->deltas_n; k++)
        if (a->chunk->deltas[k].choice == choice &&
            answer_deliverable(&a->texts[marks[k].text]) < marks[k].end)
            return true;
    return false;
}

static enum err write_cut_answer(struct answer *a, struct str body, const struct mark *marks)
{
    char numbers[2][24];
    bool any;
    const struct chunk *c = a->chunk;
    struct splice *s = malloc((c->deltas_n + 2 * CHUNK_MAX_CHOICES + 4) * sizeof *s);
    if (s == NULL) return ERR_NOMEM;
    size_t n = answer_cut_splices(a, marks, c->deltas_n, s, &any);
    for (size_t i = 0; i < c->choices_n; i++) {
        struct js_val reason = c->choices[i].finish_reason;
        if (was_cut(a, c->choices[i].index, marks) && reason.raw.p != NULL)
            s[n++] = (struct splice){ reason.raw.p, reason.raw.n, a->o.dialect->length_reason };
    }
    if (c->incomplete_details.raw.p != NULL)
        s[n++] = (struct splice){ c->incomplete_details.raw.p, c->incomplete_details.raw.n,
                                  STR("{\"reason\":\"max_output_tokens\"}") };
    n += usage_splices(a, numbers, s + n);
    a->state = ANSWER_CUT;
    enum err e = splice_apply(body, s, n, a->out);
    free(s);
    return e;
}

static enum err pass_whole(struct answer *a, struct str body, struct str *ret)
{
    struct mark few[MARKS_FEW], *marks = answer_marks(a->chunk->deltas_n, few);
    if (marks == NULL) return ERR_NOMEM;
    enum err e = answer_feed_chunk(a, true, marks);
    if (e == ERR_OK && answer_any_cut(a)) {
        e = write_cut_answer(a, body, marks);
        if (e == ERR_OK) *ret = buf_str(a->out);
    } else if (e == ERR_OK) {
        a->state = ANSWER_DONE;
        *ret = body;
    }
    answer_marks_done(marks, few);
    return e;
}

enum err answer_whole(struct answer *a, struct str body, struct buf *out, struct str *ret)
{
    struct js_val root;
    struct js_mark marks[JS_MARKS_MAX];
    struct chunk chunk;
    a->out = out;
    a->asked = false;
    a->chunk = &chunk;
    chunk_init(&chunk);
    enum err e = js_parse_marked(body, marks, JS_MARKS_MAX, &root, NULL);
    if (e == ERR_OK) e = a->o.dialect->parse_answer(root, a->chunk);
    if (e == ERR_OK) {
        answer_note_usage(a, &chunk.reported);
        a->error = chunk.is_error;
        if (chunk.uncountable) a->uncounted = true;
        e = pass_whole(a, body, ret);
    } else {
        a->uncounted = true;
        e = ERR_OK;
        *ret = body;
    }
    chunk_done(&chunk);
    a->chunk = NULL;
    return e;
}
