/* SPDX-License-Identifier: Apache-2.0 */
/* The codec of instances that are gone; see the header. Pure: any thread. */
#include "proto/gone_msg.h"

enum err gone_msg_encode(struct str instance, const struct clock *clock, const struct rng *rng,
                         const char *from, struct buf *out)
{
    struct json *o = envelope_new(clock, rng, from);
    json_set_str(o, "instance", instance);
    enum err e = json_print(o, out);
    json_free(o);
    return e;
}

enum err gone_msg_decode(struct str data, char ret_instance[GONE_INSTANCE_MAX + 1], struct why *why)
{
    struct json *o;
    struct str instance;
    enum err e = envelope_parse(data, &o, why);
    if (e != ERR_OK) return e;
    if (json_get_str(o, "instance", &instance) != ERR_OK || instance.n == 0 ||
        !str_copyz(ret_instance, GONE_INSTANCE_MAX + 1, instance))
        e = why_set(why, ERR_INVALID, "instance: not a string of 1 to %d bytes", GONE_INSTANCE_MAX);
    json_free(o);
    return e;
}
