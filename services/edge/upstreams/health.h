/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whether one upstream server is fit to be asked: what active checks say, what became of requests,
 * and what it asks for itself. Pure: time comes in as monotonic nanoseconds, and whoever owns the
 * struct sees to it that one thread at a time uses it.
 *
 *   check       up <-> down after `healthy` or `unhealthy` results in a row
 *   ejection    after `failures` in a row, for base_ms doubling to most_ms; the next failure behind
 *               it ejects again, a success forgets all. Only when the share of ejected servers
 *               permits
 *   breaker     closed -> open when error_percent of at least min_requests in the window failed;
 *               open -> half-open after open_ms (doubling, at most BREAKER_MOST_MS);
 *               half-open: at most `probes` requests at a time; as many successes close it, one
 *               failure opens it again. Only probes of this half-opening count: one of an earlier
 *               that ends late tells nothing
 *   cool-down   until the time that the server named, at most cooldown_max_ms; a longer one that
 *               comes later counts, a shorter one does not
 *   suspicion   another edge saw it fail: for a while the first failure here ejects
 *
 * A server that came back gets its share back over slow_start_ms.
 */
#ifndef EDGE_HEALTH_H
#define EDGE_HEALTH_H

#include "proto/snapshot.h"

enum { HEALTH_SLOTS = 10, BREAKER_MOST_MS = 60000, SUSPICION_MS = 10000, HEALTH_FULL = 1000 };

enum health_check_state { CHECK_UNKNOWN, CHECK_UP, CHECK_DOWN };
enum breaker_state { BREAKER_CLOSED, BREAKER_OPEN, BREAKER_HALF_OPEN };

struct health {
    enum health_check_state checked;
    unsigned run; /* results of checks in a row that speak against the state */
    unsigned failures, ejections;
    uint64_t ejected_until, suspect_until, cool_until;
    enum breaker_state breaker;
    uint64_t open_until;
    unsigned opens, probes, probes_ok; /* in a row; under way; succeeded */
    unsigned turn;                     /* the number of this half-opening, from 1 */
    struct {
        uint64_t slot;
        unsigned ok, bad;
    } window[HEALTH_SLOTS];
    uint64_t back_since; /* when it came back; 0: it was always here */
    bool limited;        /* it cools down since its rate limit is used up, not its strength */
};

/* Why a server is not asked. */
enum health_bar { HEALTH_FIT, HEALTH_DOWN, HEALTH_EJECTED, HEALTH_OPEN, HEALTH_COOLING };

/* What an observation changed. */
enum health_change {
    HEALTH_SAME,
    HEALTH_WENT_DOWN, /* by checks */
    HEALTH_CAME_UP,
    HEALTH_GOT_EJECTED,
    HEALTH_BREAKER_OPENED,
    HEALTH_BREAKER_CLOSED
};

/* now 0: it was there from the beginning; else it comes new, and starts slowly. */
void health_init(struct health *h, uint64_t now);
/* Whether it may be asked now; else since when it may again in *ret_at (0: not by time). */
enum health_bar health_look(const struct health *h, const struct snap_upstream *u, uint64_t now,
                            uint64_t *ret_at);
/* A request begins. Not 0: as a probe of the half-open breaker, in this turn; to be told to the
 * three below. */
unsigned health_begin(struct health *h, uint64_t now);
/* What became of it. may_eject: the share of servers that are ejected has room for one. */
enum health_change health_succeeded(struct health *h, const struct snap_upstream *u, unsigned probe,
                                    uint64_t now);
enum health_change health_failed(struct health *h, const struct snap_upstream *u, unsigned probe,
                                 bool may_eject, uint64_t now);
/* The probe ended without telling anything. */
void health_probe_lost(struct health *h, unsigned probe);
enum health_change health_checked(struct health *h, const struct snap_upstream *u, bool ok,
                                  uint64_t now);
/* limited: it is a rate limit. False: it cools down for at least as long already, or never does. */
bool health_cool(struct health *h, const struct snap_upstream *u, uint64_t ms, bool limited,
                 uint64_t now);
void health_suspect(struct health *h, uint64_t now);
static inline bool health_is_ejected(const struct health *h, uint64_t now)
{
    return now < h->ejected_until;
}
/* Its share of what it would get, in thousandths: HEALTH_FULL, or less while it starts. */
unsigned health_share(const struct health *h, const struct snap_upstream *u, uint64_t now);

#endif
