/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The models that were looked up last, so that a name that comes with every request is not compared
 * with every pattern each time. One owner thread.
 */
#ifndef TOKENIZER_MODELS_MEMORY_H
#define TOKENIZER_MODELS_MEMORY_H

#include "tokenizer/models/models.h"

struct models_memory;

struct models_memory *models_memory_new(void);
void models_memory_free(struct models_memory *mm); /* NULL is fine */

/* As models_find(). Keeps a reference of m until it is asked with another one; what it knew is
 * forgotten then. *ret borrows from m, as ever. */
void models_memory_find(struct models_memory *mm, struct models *m, struct str model,
                        struct model_info *ret);

#endif
