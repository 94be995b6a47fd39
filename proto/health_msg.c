/* SPDX-License-Identifier: Apache-2.0 */
/* The codec of what edges saw of servers; see the header. Pure: any thread. */
#include "proto/health_msg.h"

enum { TEXT_MAX = 128, WHY_MAX = 256 };

enum err health_msg_encode(const struct health_msg *m, const struct clock *clock,
                           const struct rng *rng, const char *from, struct buf *out)
{
    struct json *o = envelope_new(clock, rng, from);
    json_set_str(o, "upstream", m->upstream);
    json_set_str(o, "upstream_slug", m->upstream_slug);
    json_set_str(o, "server", m->server);
    json_set_str(o, "server_slug", m->server_slug);
    json_setz(o, "state", m->up ? "up" : "down");
    json_setz(o, "seen", m->by_check ? "check" : "requests");
    json_set_str(o, "why", str_n(m->why.p, MIN(m->why.n, (size_t)WHY_MAX)));
    enum err e = json_print(o, out);
    json_free(o);
    return e;
}

static enum err get_text(const struct json *o, const char *key, size_t max, struct str *ret,
                         struct why *why)
{
    if (json_get_str(o, key, ret) != ERR_OK || ret->n == 0 || ret->n > max)
        return why_set(why, ERR_INVALID, "%s: not a string of 1 to %zu bytes", key, max);
    return ERR_OK;
}

/* One of two words. */
static enum err get_word(const struct json *o, const char *key, const char *yes, const char *no,
                         bool *ret, struct why *why)
{
    struct str s;
    if (json_get_str(o, key, &s) != ERR_OK || !(str_eqz(s, yes) || str_eqz(s, no)))
        return why_set(why, ERR_INVALID, "%s: neither %s nor %s", key, yes, no);
    *ret = str_eqz(s, yes);
    return ERR_OK;
}

enum err health_msg_decode(struct str data, struct health_msg *ret, struct why *why)
{
    struct health_msg m = { .up = false };
    enum err e = envelope_parse(data, &m.root, why);
    if (e != ERR_OK) return e;
    e = get_text(m.root, "from", TEXT_MAX, &m.from, why);
    if (e == ERR_OK) e = get_text(m.root, "upstream", TEXT_MAX, &m.upstream, why);
    if (e == ERR_OK) e = get_text(m.root, "upstream_slug", TEXT_MAX, &m.upstream_slug, why);
    if (e == ERR_OK) e = get_text(m.root, "server", TEXT_MAX, &m.server, why);
    if (e == ERR_OK) e = get_text(m.root, "server_slug", TEXT_MAX, &m.server_slug, why);
    if (e == ERR_OK) e = get_text(m.root, "why", WHY_MAX, &m.why, why);
    if (e == ERR_OK) e = get_word(m.root, "state", "up", "down", &m.up, why);
    if (e == ERR_OK) e = get_word(m.root, "seen", "check", "requests", &m.by_check, why);
    if (e != ERR_OK) {
        health_msg_done(&m);
        return e;
    }
    *ret = m;
    return ERR_OK;
}

void health_msg_done(struct health_msg *m)
{
    json_free(m->root);
    *m = (struct health_msg){ .up = false };
}
