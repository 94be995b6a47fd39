/* SPDX-License-Identifier: Apache-2.0 */
/* The configuration's models as names of vocabularies: the same at everyone who counts. Pure. */
#ifndef CONFIG_NAMES_H
#define CONFIG_NAMES_H

#include "proto/snapshot.h"
#include "tokenizer/models/models.h"

/* The vocabularies of base under the built-in names and, first, those of the snapshot's models. The
 * reference returned is the caller's. ERR_NOMEM. */
enum err config_models(const struct models *base, const struct snapshot *s,
                       struct models **ret) MUSTCHECK;

#endif
