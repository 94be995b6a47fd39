/* SPDX-License-Identifier: Apache-2.0 */
#include "config/names.h"

#include <stdlib.h>

enum err config_models(const struct models *base, const struct snapshot *s, struct models **ret)
{
    size_t n = 0, max = 0;
    for (size_t i = 0; i < s->models_n; i++) max += 1 + s->models[i].patterns.n;
    struct models_entry *entries = xcalloc(max + 1, sizeof *entries);
    for (size_t i = 0; i < s->models_n; i++) {
        const struct snap_model *m = &s->models[i];
        if (m->vocabulary.n == 0) continue; /* by the built-in patterns */
        if (m->name.n > 0) entries[n++] = (struct models_entry){ m->name, m->vocabulary };
        for (size_t k = 0; k < m->patterns.n; k++)
            entries[n++] = (struct models_entry){ m->patterns.v[k], m->vocabulary };
    }
    enum err e = models_with_entries(base, entries, n, ret);
    free(entries);
    return e;
}
