/* SPDX-License-Identifier: Apache-2.0 */
/* How a client's address and user stand in usage records: as they are, hashed, or not at all. Pure.
 */
#ifndef EDGE_IDENTITY_H
#define EDGE_IDENTITY_H

#include "base/str.h"

enum identity_mode { IDENTITY_NONE, IDENTITY_HASH, IDENTITY_PLAIN };
enum { IDENTITY_LEN = 64 };

/* none, hash or plain. */
enum err identity_mode_parse(struct str s, enum identity_mode *ret) MUSTCHECK;

/* HASH: 16 hex digits of the HMAC-SHA-256 under key, the same for the same value at every edge.
 * PLAIN: cut at IDENTITY_LEN bytes. An empty value stays empty. */
void identity_write(enum identity_mode mode, const unsigned char key[32], struct str value,
                    char out[IDENTITY_LEN + 1]);

#endif
