/* SPDX-License-Identifier: Apache-2.0 */
#include "proto/envelope.h"

#include "base/uuid.h"

struct json *envelope_new(const struct clock *clock, const struct rng *rng, const char *from)
{
    char id[UUID_LEN + 1], ts[TIME_RFC3339_LEN + 1];
    struct json *m = json_object();
    uuid_v7(clock, rng, id);
    time_rfc3339(clock_wall_ns(clock), ts);
    json_set_u64(m, "v", ENVELOPE_VERSION);
    json_setz(m, "id", id);
    json_setz(m, "ts", ts);
    json_setz(m, "from", from);
    return m;
}

enum err envelope_parse(struct str data, struct json **ret, struct why *why)
{
    struct json *m;
    uint64_t v;
    enum err e = json_parse(data, MESSAGE_MAX_BYTES, &m, why);
    if (e != ERR_OK) return e;
    if (json_get_u64(m, "v", &v) != ERR_OK) {
        e = why_set(why, ERR_INVALID, "v: missing or not a whole number");
    } else if (v != ENVELOPE_VERSION) {
        e = why_set(why, ERR_UNSUPPORTED, "v: version %llu is not supported, %d is",
                    (unsigned long long)v, ENVELOPE_VERSION);
    } else {
        *ret = m;
        return ERR_OK;
    }
    json_free(m);
    return e;
}

struct json *envelope_error(const struct clock *clock, const struct rng *rng, const char *from,
                            enum err code, const char *message)
{
    struct json *m = envelope_new(clock, rng, from), *error = json_object();
    json_setz(error, "code", err_name(code));
    json_setz(error, "message", message);
    json_set(m, "error", error);
    return m;
}

enum err envelope_check_error(const struct json *reply, struct why *why)
{
    const struct json *error = json_get(reply, "error");
    struct str code = json_str(json_get(error, "code")),
               text = json_str(json_get(error, "message"));
    if (error == NULL) return ERR_OK;
    for (int e = ERR_OK + 1; e < ERR_MAX; e++)
        if (str_eqz(code, err_name((enum err)e)))
            return why_set(why, (enum err)e, "%.*s", STR_ARG(text));
    return why_set(why, ERR_INTERNAL, "%.*s", STR_ARG(text));
}
