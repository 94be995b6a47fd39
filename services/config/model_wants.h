/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How many members of bodies, and of tokens, the whole configuration looks at: edges read them in
 * one pass and take at most SNAP_POINTERS_MAX of each kind, so that a configuration with more is
 * refused here, at the place that is one too many. The handler's thread.
 */
#ifndef CONFIG_MODEL_WANTS_H
#define CONFIG_MODEL_WANTS_H

#include "model.h"

/* Of everything that is stored and, when it is not NULL, of this row with its body o instead of
 * what it replaces. Violations go to `problems`; errors are the store's. */
enum err model_check_wants(struct tx *t, const struct row *row, const struct json *o,
                           struct problems *problems, struct why *why) MUSTCHECK;

#endif
