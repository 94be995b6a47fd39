/* SPDX-License-Identifier: Apache-2.0 */
/* See the header. Runs on the keeper's thread. */
#include "claim.h"

#include "rt/json.h"

enum { VALUE_MAX = 1024 };
#define MS UINT64_C(1000000)

void claim_init(struct claim *c, const struct claim_kv *kv, const char *key, const char *instance,
                const struct clock *clock, const struct rng *rng)
{
    *c = (struct claim){ .kv = *kv, .clock = clock };
    (void)str_copyz(c->key, sizeof c->key, str_of(key));
    (void)str_copyz(c->instance, sizeof c->instance, str_of(instance));
    uuid_v7(clock, rng, c->incarnation);
}

bool claim_is_first(const struct claim *c)
{
    return c->first;
}

const char *claim_marks(const struct claim *c)
{
    return c->marks;
}

void claim_set_marks(struct claim *c, const char *marks)
{
    (void)str_copyz(c->marks, sizeof c->marks, str_of(marks));
}

const char *claim_holder(const struct claim *c)
{
    return c->holder;
}

static enum err write_claim(struct claim *c, uint64_t expected, bool released)
{
    struct json *o = json_object();
    struct buf b;
    buf_init(&b, VALUE_MAX);
    json_setz(o, "instance", c->instance);
    json_setz(o, "incarnation", c->incarnation);
    json_set_u64(o, "renewed", c->renewals);
    json_set_bool(o, "released", released);
    json_setz(o, "marks", c->marks);
    enum err e = json_print(o, &b);
    if (e == ERR_OK) e = c->kv.update(c->kv.ctx, c->key, buf_str(&b), expected, &c->revision);
    if (e == ERR_OK) c->renewals++;
    buf_done(&b);
    json_free(o);
    return e;
}

static enum claim_event is_ours(struct claim *c, uint64_t sent_ns, bool won, uint64_t *ret_until_ns)
{
    c->held = true;
    *ret_until_ns = sent_ns + CLAIM_TTL_MS * MS - CLAIM_TTL_MS * MS / 100;
    return won ? CLAIM_WON : CLAIM_HELD;
}

static enum claim_event try_to_take(struct claim *c, uint64_t expected, bool first,
                                    uint64_t *ret_until_ns)
{
    uint64_t sent = clock_mono_ns(c->clock);
    enum err e = write_claim(c, expected, false);
    if (e == ERR_CONFLICT) return CLAIM_OTHER;
    if (e != ERR_OK) return CLAIM_AWAY;
    c->first = first;
    return is_ours(c, sent, true, ret_until_ns);
}

/* What stands in the bucket: ours (after a renewal whose answer was lost), another's, or none. */
static enum claim_event look(struct claim *c, uint64_t *ret_until_ns)
{
    struct buf b;
    struct json *o = NULL;
    uint64_t revision = 0, now = clock_mono_ns(c->clock);
    enum claim_event event = CLAIM_OTHER;
    bool released = false;
    buf_init(&b, VALUE_MAX);
    enum err e = c->kv.get(c->kv.ctx, c->key, &b, &revision);
    if (e == ERR_NOT_FOUND) {
        buf_done(&b);
        c->held = false;
        return try_to_take(c, 0, true, ret_until_ns);
    }
    if (e != ERR_OK) {
        buf_done(&b);
        return CLAIM_AWAY;
    }
    /* a value that is none of ours is somebody's claim all the same */
    if (json_parse(buf_str(&b), VALUE_MAX, &o, NULL) != ERR_OK) o = NULL;
    struct str incarnation = json_str(json_get(o, "incarnation"));
    struct str holder = json_str(json_get(o, "instance"));
    if (json_get_bool(o, "released", &released) != ERR_OK) released = false;
    struct str marks = json_str(json_get(o, "marks"));
    if (!c->held) (void)str_copyz(c->marks, sizeof c->marks, marks.p != NULL ? marks : STR(""));
    if (str_eqz(incarnation, c->incarnation)) {
        uint64_t sent = clock_mono_ns(c->clock);
        bool held = c->held;
        e = write_claim(c, revision, false);
        event = e == ERR_OK         ? is_ours(c, sent, !held, ret_until_ns)
                : e == ERR_CONFLICT ? CLAIM_OTHER
                                    : CLAIM_AWAY;
    } else if (released ||
               (c->seen_revision == revision && now - c->seen_ns >= CLAIM_TTL_MS * MS)) {
        c->held = false;
        event = try_to_take(c, revision, false, ret_until_ns);
    } else if (c->seen_revision != revision) {
        c->seen_revision = revision;
        c->seen_ns = now;
    }
    if (event == CLAIM_OTHER) {
        c->held = false;
        (void)str_copyz(c->holder, sizeof c->holder, holder.n > 0 ? holder : STR("unknown"));
    }
    json_free(o);
    buf_done(&b);
    return event;
}

enum claim_event claim_step(struct claim *c, uint64_t *ret_until_ns)
{
    uint64_t sent = clock_mono_ns(c->clock);
    if (!c->held) return look(c, ret_until_ns);
    enum err e = write_claim(c, c->revision, false);
    if (e == ERR_OK) return is_ours(c, sent, false, ret_until_ns);
    if (e == ERR_CONFLICT) return look(c, ret_until_ns);
    return CLAIM_AWAY;
}

void claim_release(struct claim *c)
{
    if (!c->held) return;
    c->held = false;
    if (write_claim(c, c->revision, true) != ERR_OK) return; /* the others wait a little longer */
}
