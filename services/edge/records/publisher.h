/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Takes settled records out of the spool and publishes them to JetStream, as many of a namespace in
 * one message as there are and as fit (proto/usage_batch.h), until each message is acknowledged;
 * then the spool forgets its records. A message that failed goes again as it was, under its own id,
 * so that the stream takes it once; whatever happens besides, the ledger counts each record's id
 * once.
 *
 * It looks for records every 20 ms, and sends what there is then: a record that comes alone goes
 * alone, as the record itself. So does each that another process wrote: should it be no record, it
 * spoils no other.
 *
 * Threads: one of its own; acknowledgements come on a thread of the bus. The functions here may be
 * called from any.
 */
#ifndef EDGE_PUBLISHER_H
#define EDGE_PUBLISHER_H

#include "rt/bus.h"
#include "spool.h"

struct publisher;

struct publisher_options {
    struct spool *spool; /* both borrowed until publisher_free() */
    struct bus *bus;
    const char *instance;
    const struct clock *clock;
};

enum err publisher_new(const struct publisher_options *o, struct publisher **ret) MUSTCHECK;
/* Ends when all messages under way are answered, or their time is over. NULL is fine. */
void publisher_free(struct publisher *p);
/* Waits until a message is answered, at most ms. */
void publisher_wait(struct publisher *p, unsigned ms);

struct publisher_stats {
    uint64_t published;  /* records acknowledged by JetStream */
    uint64_t duplicates; /* of those, in messages that it had before */
    uint64_t retries;    /* messages that failed, and go again */
    uint64_t messages;   /* acknowledged */
};
void publisher_stats(struct publisher *p, struct publisher_stats *ret);

#endif
