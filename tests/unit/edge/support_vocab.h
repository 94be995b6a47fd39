/* SPDX-License-Identifier: Apache-2.0 */
/* The vocabulary that tests count with, from VOCAB_DIR; `make test` always has it. The group's
 * set-up and its end. */
#ifndef SUPPORT_VOCAB_H
#define SUPPORT_VOCAB_H

#include <stdio.h>
#include <stdlib.h>

#include "tokenizer/models/vocab.h"

static struct vocab *qwen3;

static inline int vocab_load(void **state)
{
    char path[512];
    struct why why;
    const char *dir = getenv("VOCAB_DIR");
    (void)state;
    (void)snprintf(path, sizeof path, "%s/qwen3" VOCAB_SUFFIX, dir != NULL ? dir : "vocab");
    if (vocab_open(path, &qwen3, &why) != ERR_OK) {
        fprintf(stderr, "%s: %s (make vocab)\n", path, why.text);
        return 1;
    }
    return 0;
}

static inline int vocab_unload(void **state)
{
    (void)state;
    vocab_unref(qwen3);
    return 0;
}

#endif
