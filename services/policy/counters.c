/* SPDX-License-Identifier: Apache-2.0 */
/* See the header. */
#include "counters.h"

#include <stdio.h>

#include "proto/counters_msg.h"

static void on_view(void *ctx, const struct store_view *v)
{
    struct json *o = json_object();
    json_set_str(o, "key", v->key);
    json_set_u64(o, "limit", v->limit);
    json_set_u64(o, "used", v->used);
    json_set_u64(o, "leased", v->leased);
    json_set_u64(o, "left", v->left);
    json_set_u64(o, "reset_ms", v->reset_ms);
    json_push(ctx, o);
}

static enum err look(struct engine *e, const struct counters_ask *ask, struct json *out,
                     struct why *why)
{
    char from[STORE_CURSOR_LEN], next[STORE_CURSOR_LEN] = "";
    struct json *list = json_array();
    enum err err = ERR_OK;
    size_t most = ask->limit > 0 ? ask->limit : COUNTERS_PAGE;
    (void)str_copyz(from, sizeof from, ask->cursor);
    if (ask->keys_n == 0)
        err = engine_look(e, ask->policy, STR_NULL, from, most, on_view, list, next, why);
    for (size_t i = 0; i < ask->keys_n && err == ERR_OK; i++)
        err = engine_look(e, ask->policy, ask->keys[i], "", 1, on_view, list, next, why);
    json_set(out, "counters", list);
    if (next[0] != '\0' && ask->keys_n == 0)
        json_setz(out, "next", next);
    else
        json_set_null(out, "next");
    return err;
}

static enum err reset(struct engine *e, const struct counters_ask *ask, struct json *out,
                      char note[256], struct why *why)
{
    enum err err = ERR_OK;
    size_t n = 0, some = 0;
    if (ask->keys_n == 0) err = engine_reset(e, ask->policy, STR_NULL, &n, why);
    for (size_t i = 0; i < ask->keys_n && err == ERR_OK; i++) {
        err = engine_reset(e, ask->policy, ask->keys[i], &some, why);
        n += some;
    }
    json_set_u64(out, "reset", n);
    if (err == ERR_OK)
        snprintf(note, 256, "%zu counters of policy %.*s were reset by %.*s", n,
                 STR_ARG(ask->policy), STR_ARG(ask->from));
    return err;
}

static void describe(struct engine *e, struct str policy, const struct clock *clock,
                     struct json *out)
{
    static const char *const kinds[] = { [LEDGER_BUCKET] = "bucket",
                                         [LEDGER_SLIDING] = "sliding",
                                         [LEDGER_FIXED] = "fixed",
                                         [LEDGER_SLOTS] = "slots" };
    char text[TIME_RFC3339_LEN + 1];
    struct rules *rules = engine_rules(e);
    const struct rule *r = rules != NULL ? rules_get(rules, policy) : NULL;
    json_set_str(out, "policy", policy);
    if (r != NULL) {
        json_setz(out, "kind", kinds[r->ledger.kind]);
        json_setz(out, "unit", rule_unit_name(r));
        json_set_u64(out, "revision", rules_revision(rules));
    }
    if (r != NULL && r->ledger.kind == LEDGER_FIXED) {
        struct ledger_window w = rule_window(r, clock_wall_ns(clock) / 1000);
        struct json *o = json_object();
        time_rfc3339(w.begin * 1000, text);
        json_setz(o, "from", text);
        time_rfc3339(w.end * 1000, text);
        json_setz(o, "to", text);
        json_set(out, "window", o);
    }
    rules_unref(rules);
}

enum err counters_serve(struct engine *e, const struct clock *clock, const struct rng *rng,
                        const char *instance, struct str data, struct buf *reply,
                        char ret_note[256], struct why *why)
{
    struct counters_ask ask;
    struct json *out = NULL;
    ret_note[0] = '\0';
    enum err err = counters_ask_decode(data, &ask, why);
    if (err == ERR_OK) {
        out = envelope_new(clock, rng, instance);
        describe(e, ask.policy, clock, out);
        err = ask.op == COUNTERS_LOOK ? look(e, &ask, out, why)
                                      : reset(e, &ask, out, ret_note, why);
        counters_ask_done(&ask);
    }
    if (err != ERR_OK) {
        json_free(out);
        out = envelope_error(clock, rng, instance, err, why->text);
    }
    enum err printed = json_print(out, reply);
    json_free(out);
    return err != ERR_OK ? err : printed;
}
