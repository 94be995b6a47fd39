/* SPDX-License-Identifier: Apache-2.0 */
/* Keys and credentials on their way into a stored body: in clear in the request only. */
#ifndef CONFIG_MODEL_SECRET_H
#define CONFIG_MODEL_SECRET_H

#include "model.h"

/* Seals auth.credential and proxy.password of an upstream, or keeps what is sealed in `old` (NULL:
 * none). */
enum err secret_take_credentials(const struct secrets *s, const struct rng *rng, struct json *o,
                                 const struct json *old, struct problems *p) MUSTCHECK;
/* Sets prefix and hmac of a key: from input's secret, from `old`, or from a new secret (there is no
 * old one, or input's is empty), which goes to made ("" otherwise). */
enum err secret_take_key(const struct secrets *s, const struct rng *rng, const struct json *input,
                         struct json *o, const struct json *old, struct problems *p,
                         char made[SECRET_MAX + 1]) MUSTCHECK;

#endif
