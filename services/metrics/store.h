/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The ledger: every usage record once, and its roll-ups, in SQLite or MySQL. A store is one
 * connection, used by one thread at a time; any number of them, in any number of instances, may
 * work on the same MySQL database.
 */
#ifndef METRICS_STORE_H
#define METRICS_STORE_H

#include "proto/usage_msg.h"
#include "rt/db.h"
#include "rollup.h"

struct store;

/* Opens, brings the schema up to date. models_max: distinct values of the label model; NULL label
 * sets are for stores that only read. */
enum err store_open(const char *url, size_t models_max, struct store **ret,
                    struct why *why) MUSTCHECK;
void store_close(struct store *s); /* NULL is fine */
struct db *store_db(struct store *s);

/* For sqlite: takes the lock file beside the database, so that one instance has it; nothing to do
 * for other databases (*ret_fd is -1). ERR_CONFLICT: another one has it, why says so. */
enum err store_lock(const char *url, int *ret_fd, struct why *why) MUSTCHECK;

enum store_verdict {
    STORE_NEW,       /* stored and counted now */
    STORE_DUPLICATE, /* was there before: nothing changed */
    STORE_REFUSED    /* the database does not take this one: nothing changed */
};

/* Stores n records and their roll-ups in one transaction; ret[i] is set for each. now_ms: wall
 * clock. After an error nothing is stored, and it can be called again. ERR_UNAVAILABLE,
 * ERR_CONFLICT … */
enum err store_ingest(struct store *s, const struct usage_record *const *records, size_t n,
                      uint64_t now_ms, enum store_verdict *ret, struct why *why) MUSTCHECK;

/* Times of the wall clock; 0: everything stays. */
struct store_retention {
    /* Records that were STORED before this go: however old a record was when it came, it is known
     * for that long, should it come again. */
    uint64_t records_before_ms;
    uint64_t clients_before_ms; /* the same for their client's address and user */
    uint64_t minutes_before_ms; /* sums of earlier minutes go; those per hour and day stay */
};
/* Removes what is too old, some thousand rows at a time; *ret_more: there is more. */
enum err store_expire(struct store *s, const struct store_retention *r, bool *ret_more,
                      struct why *why) MUSTCHECK;

#endif
