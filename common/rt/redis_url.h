/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where Redis is: redis://[user:password@]host[:port][/db] for one server, and
 * redis+sentinel://[user:password@]host[:port],host[:port],…/master-name[/db] for the master that
 * these Sentinels name (their port is 26379 unless it is given). Pure.
 */
#ifndef RT_REDIS_URL_H
#define RT_REDIS_URL_H

#include "base/str.h"

enum { REDIS_PLACES_MAX = 8 };

struct redis_place {
    char host[256];
    int port;
};

struct redis_address {
    char user[128], password[256], master[128];
    bool by_sentinel;
    struct redis_place places[REDIS_PLACES_MAX]; /* the server, or the Sentinels */
    size_t places_n;
    int db;
};

/* ERR_INVALID. Nothing of the address, which may hold a password, is in why. */
enum err redis_url_parse(struct str url, struct redis_address *ret, struct why *why) MUSTCHECK;

#endif
