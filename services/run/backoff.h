/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How long to wait before a process that died is started again: 0.2 s, doubling up to 10 s; a life
 * of a minute begins at 0.2 s again. Pure; one owner.
 */
#ifndef RUN_BACKOFF_H
#define RUN_BACKOFF_H

#include <stdint.h>

enum { BACKOFF_FIRST_MS = 200, BACKOFF_MAX_MS = 10000, BACKOFF_HEALTHY_MS = 60000 };

struct backoff {
    uint64_t delay_ms; /* of the last wait; 0: none yet */
};

/* The process died after lived_ms: returns how long to wait, in ms. */
uint64_t backoff_died(struct backoff *b, uint64_t lived_ms);

#endif
