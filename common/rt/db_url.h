/* SPDX-License-Identifier: Apache-2.0 */
/* mysql://user:password@host:port/database with percent-encoding in user, password and database.
 * Pure. */
#ifndef RT_DB_URL_H
#define RT_DB_URL_H

#include <stdint.h>

#include "base/buf.h"

struct db_url {
    char *user, *password, *host, *database; /* owned, never NULL once parsed */
    uint16_t port;                           /* 3306 when the URL has none */
};

enum err db_url_parse(const char *url, struct db_url *ret, struct why *why) MUSTCHECK;
void db_url_done(struct db_url *u);
/* Builds such a URL from its pieces, encoding what must be. */
enum err db_url_compose(const char *user, const char *password, const char *host, uint16_t port,
                        const char *database, struct buf *out) MUSTCHECK;

#endif
