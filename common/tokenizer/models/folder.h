/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A model's folder, as it is downloaded: tokenizer.json (with tokenizer_config.json and
 * chat_template.jinja beside it), or tekken.json, or one *.tiktoken. Reads files, so it is for
 * threads that may wait; several processes may work on one folder at the same time.
 */
#ifndef TOKENIZER_FOLDER_H
#define TOKENIZER_FOLDER_H

#include <stdbool.h>

#include "tokenizer/convert/convert.h"

/* The converted form is kept in the folder under this name, if it can be written to. */
#define FOLDER_CACHE "converted" VOCAB_SUFFIX

/* Is there anything in dir that folder_convert() would take? */
bool folder_is_model(const char *dir);

/*
 * Converts what is in dir (o: name, pattern and specials; what else it holds is found here) and
 * appends the vocabulary file to ret. Errors as those of convert.h, and ERR_NOT_FOUND: no model
 * file in dir; ERR_IO.
 */
enum err folder_convert(const char *dir, const struct convert_opts *o, struct buf *ret,
                        struct why *why) MUSTCHECK;

/*
 * The vocabulary of a model folder, called as the folder is: mapped from FOLDER_CACHE when that was
 * made of the files as they are now, else converted first (seconds) and kept there; held in memory
 * when the folder cannot be written to. One process converts, others wait for it. A folder that is
 * still being copied is ERR_INVALID: try again when it has changed.
 */
enum err folder_open(const char *dir, struct vocab **ret, struct why *why) MUSTCHECK;

#endif
