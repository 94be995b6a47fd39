/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Answers questions from the ledger. The thread that has the connection.
 *
 * A range of time is answered from the coarsest roll-ups that end where it does (days, hours, else
 * minutes, to which it is widened); what was used is in the answer. Without a range: all time.
 */
#ifndef METRICS_QUERY_H
#define METRICS_QUERY_H

#include "proto/query_msg.h"
#include "rt/db.h"

/* Appends the result (see proto/query_msg.h) as JSON. ERR_INVALID: the question; ERR_LIMIT: the
 * answer is too long; else the database. On an error out is as it was. */
enum err query_answer(struct db *db, const struct metrics_query *q, uint64_t now_ms,
                      struct buf *out, struct why *why) MUSTCHECK;

#endif
