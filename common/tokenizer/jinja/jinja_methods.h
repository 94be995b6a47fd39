/* SPDX-License-Identifier: Apache-2.0 */
/* Inside of the Jinja interpreter: the methods of strings, for the table in jinja_methods.c. */
#ifndef TOKENIZER_JINJA_METHODS_H
#define TOKENIZER_JINJA_METHODS_H

#include "tokenizer/jinja/jinja_int.h"

typedef struct jv jmethod_fn(struct jr *r, struct jv self, const struct jargs *args);

jmethod_fn jm_startswith, jm_endswith, jm_strip, jm_lstrip, jm_rstrip, jm_split, jm_rsplit,
    jm_splitlines, jm_partition, jm_rpartition, jm_upper, jm_lower, jm_title, jm_capitalize,
    jm_swapcase, jm_replace, jm_find, jm_rfind, jm_join, jm_removeprefix, jm_removesuffix,
    jm_isspace, jm_isdigit, jm_isalpha, jm_isalnum, jm_isupper, jm_islower, jm_format;
/* Of lists, too. */
jmethod_fn jm_index, jm_count;

#endif
