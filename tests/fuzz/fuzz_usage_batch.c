/* SPDX-License-Identifier: Apache-2.0 */
/* Messages with usage records as they come from the bus: no input may crash the reader; its good
 * records, written again, are read the same. */
#include <stdlib.h>

#include "proto/usage_batch.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

struct seen {
    struct buf out, one;
    size_t parts, good;
};

static void on_part(void *ctx, const struct usage_part *p)
{
    struct seen *s = ctx;
    if (p->index != s->parts++ || s->parts > USAGE_BATCH_RECORDS) abort();
    if ((p->e == ERR_OK) != (p->record != NULL) || (p->e == ERR_OK) != (p->why == NULL)) abort();
    if (p->e != ERR_OK || p->alone) return;
    buf_clear(&s->one);
    if (usage_encode(p->record, &s->one) != ERR_OK) return;
    if (usage_batch_add(&s->out, STR_NULL, buf_str(&s->one)) != ERR_OK) return;
    s->good++;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct seen s = { 0 }, again = { 0 };
    struct arena arena;
    struct why why;
    struct str id = STR("01a2063b-35ae-7bde-8289-6b3949d763a1");
    arena_init(&arena, 1 << 20);
    buf_init(&s.out, USAGE_BATCH_MAX_BYTES);
    buf_init(&s.one, USAGE_MAX_BYTES);
    buf_init(&again.out, USAGE_BATCH_MAX_BYTES);
    buf_init(&again.one, USAGE_MAX_BYTES);
    if (usage_batch_begin(&s.out, id, 0, STR("edge-1")) != ERR_OK) abort();
    enum err e = usage_read(str_n((const char *)data, n), &arena, on_part, &s, &why);
    if (e != ERR_OK && s.parts > 0) abort();
    if (e == ERR_OK && s.parts == 0) abort();
    if (s.good > 0 && usage_batch_end(&s.out) == ERR_OK) {
        arena_reset(&arena);
        if (usage_read(buf_str(&s.out), &arena, on_part, &again, &why) != ERR_OK) abort();
        if (again.parts != s.good) abort();
    }
    buf_done(&s.out);
    buf_done(&s.one);
    buf_done(&again.out);
    buf_done(&again.one);
    arena_done(&arena);
    return 0;
}
