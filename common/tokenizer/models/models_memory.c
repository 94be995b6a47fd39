/* SPDX-License-Identifier: Apache-2.0 */
/* See the header. A table in which each name has one place: another one takes it over. */
#include "tokenizer/models/models_memory.h"

#include <stdlib.h>
#include <string.h>

#include "base/hash.h"

enum { PLACES = 64, NAME_MAX_BYTES = 104 };

struct place {
    size_t n; /* 0: free */
    char name[NAME_MAX_BYTES];
    struct model_info info;
};

struct models_memory {
    struct models *of;
    struct place places[PLACES];
};

struct models_memory *models_memory_new(void)
{
    return xcalloc(1, sizeof(struct models_memory));
}

static void forget(struct models_memory *mm)
{
    for (size_t i = 0; i < PLACES; i++) mm->places[i].n = 0;
    models_unref(mm->of);
    mm->of = NULL;
}

void models_memory_free(struct models_memory *mm)
{
    if (mm == NULL) return;
    forget(mm);
    free(mm);
}

void models_memory_find(struct models_memory *mm, struct models *m, struct str model,
                        struct model_info *ret)
{
    if (model.n == 0 || model.n > NAME_MAX_BYTES) {
        models_find(m, model, ret);
        return;
    }
    if (mm->of != m) {
        forget(mm);
        mm->of = models_ref(m);
    }
    struct place *p = &mm->places[hash_bytes(model.p, model.n) % PLACES];
    if (p->n != model.n || memcmp(p->name, model.p, model.n) != 0) {
        models_find(m, model, &p->info);
        memcpy(p->name, model.p, model.n);
        p->n = model.n;
    }
    *ret = p->info;
}
