/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The limits that need no counter: body_size, access, input_tokens, output_tokens. Pure. Policies
 * in shadow mode are looked at like the others, and only told.
 */
#ifndef EDGE_ADMIT_LOCAL_H
#define EDGE_ADMIT_LOCAL_H

#include "admit_key.h"

struct admit_list; /* admit.h */

enum { ADMIT_SHADOW_MAX = 16 };

/* What the policies of one kind said. */
struct admit_check {
    const struct snap_policy *policy; /* the first that refuses; NULL: none */
    uint64_t used;                    /* what it was compared with; its limit is in the policy */
    const struct snap_policy *shadow[ADMIT_SHADOW_MAX]; /* would have refused */
    size_t shadow_n;
};

/* Whether the policy is for that model, or for all. A model is known by the name the client wrote
 * and by the names of the one it stands for, so that an alias does not lead around a limit. */
bool admit_is_for_model(const struct snap_policy *p, const struct admit_subject *s);

/* The most bytes a body may have while its model is not known: the smallest body_size limit in
 * force that is for all models. False: none. */
bool admit_body_bound(const struct admit_list *l, const struct snap_policy **ret);
void admit_body_size(const struct admit_list *l, const struct admit_subject *s, uint64_t bytes,
                     struct admit_check *ret);
void admit_input_tokens(const struct admit_list *l, const struct admit_subject *s, uint64_t tokens,
                        struct admit_check *ret);

/* model_pending: the body was not read yet. What depends on the model is left undecided then, and
 * nobody is refused for it. */
void admit_access(const struct admit_list *l, const struct admit_subject *s, struct str method,
                  struct str path, bool model_pending, struct admit_check *ret);

/* The smallest output_tokens limit in force, and the smallest in shadow mode. NULL: none. */
void admit_output_tokens(const struct admit_list *l, const struct admit_subject *s,
                         const struct snap_policy **ret, const struct snap_policy **ret_shadow);

#endif
