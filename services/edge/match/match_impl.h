/* SPDX-License-Identifier: Apache-2.0 */
/* The rules as they are compiled: match_build.c makes them, match.c and match_route.c use them. */
#ifndef EDGE_MATCH_IMPL_H
#define EDGE_MATCH_IMPL_H

#include "base/map.h"
#include "match.h"
#include "match_index.h"
#include "rt/regex.h"

/* A condition, its values made ready. */
struct match_node {
    enum snap_cond_kind kind;
    const struct match_node *children;
    size_t children_n;
    enum snap_source source;
    enum snap_op op;
    struct str name;
    struct snap_strings values; /* of hosts in lower case */
    const struct snap_network *networks;
    const struct regex *regex;
    size_t place;   /* of claims and body members */
    uint32_t group; /* in the index */
};

/* Groups of the index of matchers. The others: one for each thing that conditions look at. */
enum { GROUP_ALWAYS, GROUP_PENDING, GROUP_FIRST };

/* One thing that conditions look at: values of it are looked up in the group beside it. */
struct match_probe {
    enum snap_source source;
    struct str name;
    size_t place;
    uint32_t group;
};

/* A matcher of an enabled namespace. */
struct match_rule {
    const struct snap_matcher *matcher;
    const struct match_node *when;
    const struct snap_namespace *ns;
    bool sure; /* it holds when one of its keys does; of nothing in the body */
};

struct matching {
    const struct snapshot *snap;
    struct arena arena; /* nodes and their values */
    struct js_wants *body, *claims;
    struct regex **regexes; /* all of them, to be freed */
    size_t regexes_n;
    /* matchers, in their order */
    struct match_rule *rules;
    size_t rules_n;
    struct match_index *index;
    struct match_probe *probes;
    size_t probes_n;
    const struct snap_namespace *otherwise; /* the default one */
    const struct match_node **claims_of;    /* by namespace; NULL: none */
    /* routes: a rank is a place in the snapshot, a group a namespace's */
    struct match_index *routes;
    const struct regex **route_regexes; /* by route */
    const size_t **route_params;        /* by route: places of its parameters */
    /* models: a rank is a place in the snapshot */
    struct map model_names; /* in lower case */
    struct match_index *model_patterns;
};

enum maybe { NO, YES, MAYBE };
/* What a condition says; MAYBE while the body is not known. */
enum maybe match_node_says(const struct match_node *n, const struct match_input *in);
/* The values of one thing. one: room for texts that are not in a list. */
void match_source(enum snap_source source, struct str name, size_t place,
                  const struct match_input *in, struct str one[2], struct match_values *ret);
/* ASCII in lower case; n == 0 when there is no room. */
struct str match_lower(struct str s, char *room, size_t cap);

#endif
