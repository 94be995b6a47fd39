/* SPDX-License-Identifier: Apache-2.0 */
/* What the converters share. Only for convert*.c. Any thread. */
#ifndef TOKENIZER_CONVERT_PARTS_H
#define TOKENIZER_CONVERT_PARTS_H

#include <stdio.h>

#include "base/map.h"
#include "tokenizer/convert/convert.h"
#include "tokenizer/convert/jpull.h"
#include "tokenizer/convert/vocab_build.h"

/* Ids as values of a map, which holds pointers that are not NULL. */
static inline void *convert_value(uint32_t id)
{
    return (void *)((uintptr_t)id + 1);
}
static inline uint32_t convert_id(const void *value)
{
    return (uint32_t)((uintptr_t)value - 1);
}

/* Name, digest, templates, special strings, configuration. */
enum err convert_common(struct build *b, const struct convert_opts *o, struct why *why) MUSTCHECK;

/* Files that list tokens by rank and no merges: two tokens merge when their concatenation is a
 * token, the sooner the lower its id. `ids` maps the bytes of tokens from `first` on to their ids.
 */
enum err convert_pairs_from_ranks(struct build *b, uint32_t first, struct map *ids,
                                  struct why *why) MUSTCHECK;

/* Decodes one base64 word (with padding) into out, appending. */
enum err convert_base64(struct str s, struct buf *out) MUSTCHECK;

#endif
