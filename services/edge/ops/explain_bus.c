/* SPDX-License-Identifier: Apache-2.0 */
/* Explanations over the bus. Runs on a thread of the bus, with a reference of the rules. */
#include <stdlib.h>

#include "edge.h"
#include "explain.h"
#include "proto/subjects.h"

struct explainer {
    struct edge *edge;
    struct bus_sub *_Atomic sub;
};

static enum err answer(struct edge *e, struct str data, struct json *reply, struct why *why)
{
    struct explain_ask ask;
    pthread_mutex_lock(&e->rules_lock);
    struct ruleset *rules = e->rules != NULL ? ruleset_ref(e->rules) : NULL;
    pthread_mutex_unlock(&e->rules_lock);
    if (rules == NULL) return why_set(why, ERR_UNAVAILABLE, "no configuration yet");
    struct explain_env env = { .rules = rules,
                               .hash_key = e->key_pepper,
                               .plain_addresses = e->identities == IDENTITY_PLAIN,
                               .now_wall_ms = clock_wall_ms(e->clock) };
    enum err err = explain_ask_decode(data, &ask, why);
    if (err == ERR_OK) {
        err = explain(&env, &ask, reply, why);
        explain_ask_done(&ask);
    }
    ruleset_unref(rules);
    return err;
}

static void on_ask(void *ctx, const struct bus_msg *msg)
{
    struct explainer *x = ctx;
    struct edge *e = x->edge;
    const char *instance = daemon_instance(e->daemon);
    struct why why = { "" };
    struct buf text;
    struct json *reply = envelope_new(e->clock, e->rng, instance);
    json_setz(reply, "edge", instance);
    enum err err = answer(e, msg->data, reply, &why);
    if (err != ERR_OK) {
        json_free(reply);
        reply = envelope_error(e->clock, e->rng, instance, err, why.text);
        bus_endpoint_error(atomic_load(&x->sub), why.text);
    }
    buf_init(&text, MESSAGE_MAX_BYTES);
    if (json_print(reply, &text) != ERR_OK ||
        bus_reply(daemon_bus(e->daemon), msg->reply, buf_str(&text)) != ERR_OK)
        log_debug("an explanation could not be sent");
    buf_done(&text);
    json_free(reply);
}

struct explainer *explainer_new(struct edge *e)
{
    char subject[SUBJECT_LEN];
    struct bus *bus = daemon_bus(e->daemon);
    struct explainer *x = xcalloc(1, sizeof *x);
    struct bus_sub *sub = NULL;
    x->edge = e;
    subject_make(bus_prefix(bus), SUBJECT_EDGE_EXPLAIN, NULL, subject);
    struct bus_endpoint endpoint = { "explain", subject, subject_queue(SUBJECT_EDGE_EXPLAIN) };
    if (bus_serve(bus, &endpoint, on_ask, x, &sub) != ERR_OK) {
        free(x);
        return NULL;
    }
    atomic_store(&x->sub, sub);
    return x;
}

void explainer_free(struct explainer *x)
{
    if (x == NULL) return;
    bus_unsubscribe(atomic_load(&x->sub));
    free(x);
}
