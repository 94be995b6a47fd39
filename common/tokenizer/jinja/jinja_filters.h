/* SPDX-License-Identifier: Apache-2.0 */
/* Inside of the Jinja interpreter: the filters on sequences, for the table in jinja_filters.c. */
#ifndef TOKENIZER_JINJA_FILTERS_H
#define TOKENIZER_JINJA_FILTERS_H

#include "tokenizer/jinja/jinja_int.h"

#define FILTER(name) static struct jv name(struct jr *r, struct jv v, const struct jargs *args)

jfilter_fn jf_join, jf_items, jf_list, jf_select, jf_reject, jf_selectattr, jf_rejectattr, jf_map,
    jf_dictsort, jf_first, jf_last, jf_reverse, jf_sort, jf_unique, jf_sum, jf_min, jf_max,
    jf_batch, jf_groupby;

#endif
