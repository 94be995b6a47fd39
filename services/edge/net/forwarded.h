/* SPDX-License-Identifier: Apache-2.0 */
/* The header field Forwarded (RFC 7239). Pure; any thread. */
#ifndef EDGE_FORWARDED_H
#define EDGE_FORWARDED_H

#include "base/str.h"

enum { FORWARDED_MAX = 64 };

/*
 * The `for` of each element of one field, in their order: a slice of it, without quotes; p == NULL
 * where an element has none. False: the field is not what the RFC allows, at whatever place, or has
 * more than FORWARDED_MAX elements. It is read as a whole or not at all: a quote that a client
 * leaves open must not swallow, or make up, what a proxy wrote behind it.
 */
bool forwarded_parse(struct str field, struct str ret_for[FORWARDED_MAX], size_t *ret_n);

#endif
