/* SPDX-License-Identifier: Apache-2.0 */
#include "params.h"

#include <math.h>
#include <stdlib.h>

enum { NUMBER_MAX_BYTES = 64 };

static bool is_output_bound(struct str name)
{
    return str_eqz(name, "max_tokens") || str_eqz(name, "max_completion_tokens") ||
           str_eqz(name, "max_output_tokens");
}

/* A number that is too long to be read is taken for a large one. */
static double number_of(struct str text)
{
    char room[NUMBER_MAX_BYTES + 1];
    if (!str_copyz(room, sizeof room, text)) return text.p[0] == '-' ? -HUGE_VAL : HUGE_VAL;
    return strtod(room, NULL);
}

static uint64_t tokens_of(double number)
{
    if (number < 1) return 1;
    return number < 1e15 ? (uint64_t)number : PARAMS_NO_MAX;
}

static bool is_number(struct str json)
{
    return json.n > 0 && (json.p[0] == '-' || (json.p[0] >= '0' && json.p[0] <= '9'));
}

static bool is_missing(struct js_val v)
{
    return v.raw.p == NULL || v.type == JS_NULL;
}

/* What is sent in the place of v; p == NULL: v as it is. */
static struct str value_for(const struct snap_param *p, struct js_val v)
{
    struct str value = is_missing(v) ? p->value : STR_NULL;
    struct str had = is_missing(v) ? p->value : v.raw;
    if (p->max.p != NULL && is_number(had) && number_of(had) > p->max_number) value = p->max;
    return value;
}

static void take_output_bound(const struct snap_param *p, struct params *out)
{
    if (p->max.p != NULL) out->output_max = MIN(out->output_max, tokens_of(p->max_number));
    if (!is_number(p->value)) return;
    out->output_name = p->name;
    out->output_default = tokens_of(number_of(p->value));
}

/* How many texts each prompt gets: the larger of n and best_of. */
static uint64_t texts(struct js_val n, struct js_val best_of)
{
    uint64_t a = 1, b = 1;
    if (js_u64(n, &a) != ERR_OK) a = 1;
    if (js_u64(best_of, &b) != ERR_OK) b = 1;
    return MAX(MAX(a, b), UINT64_C(1));
}

/* n or best_of changed: so does the number of texts. */
static void count_choices(struct request_scan *scan, const struct params *out)
{
    struct js_val n = js_get(scan->root, "n"), best_of = js_get(scan->root, "best_of");
    uint64_t was = texts(n, best_of);
    for (size_t i = 0; i < out->edits_n; i++) {
        struct js_val v = { JS_NUMBER, out->edits[i].value, NULL };
        if (str_eqz(out->edits[i].name, "n")) n = v;
        if (str_eqz(out->edits[i].name, "best_of")) best_of = v;
    }
    scan->choices = MAX(scan->choices / was, UINT64_C(1)) * texts(n, best_of);
}

void params_apply(const struct snap_route *r, const struct js_val *const *found,
                  struct request_scan *scan, struct params *ret)
{
    bool choices = false;
    ret->edits_n = 0;
    ret->output_max = PARAMS_NO_MAX;
    ret->output_name = STR_NULL;
    ret->output_default = 0;
    for (size_t i = 0; i < r->params_n; i++) {
        const struct snap_param *p = &r->params[i];
        if (is_output_bound(p->name)) {
            take_output_bound(p, ret);
            continue;
        }
        struct str value = value_for(p, *found[i]);
        if (value.p == NULL) continue;
        ret->edits[ret->edits_n++] = (struct param_edit){ *found[i], p->name, value };
        choices = choices || str_eqz(p->name, "n") || str_eqz(p->name, "best_of");
    }
    if (choices) count_choices(scan, ret);
    if (ret->output_name.p != NULL) ret->output_default = MIN(ret->output_default, ret->output_max);
    if (scan->max_tokens == 0) scan->max_tokens = ret->output_default;
    if (ret->output_max != PARAMS_NO_MAX)
        scan->max_tokens = scan->max_tokens > 0 ? MIN(scan->max_tokens, ret->output_max)
                                                : ret->output_max;
}
