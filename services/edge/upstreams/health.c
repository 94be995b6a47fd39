/* SPDX-License-Identifier: Apache-2.0 */
/* See the header. Pure; the owner's lock. */
#include "health.h"

enum { SHARE_LEAST = 100, DOUBLINGS = 16 };
static const uint64_t ms = 1000000;

void health_init(struct health *h, uint64_t now)
{
    *h = (struct health){ .back_since = now };
}

enum health_bar health_look(const struct health *h, const struct snap_upstream *u, uint64_t now,
                            uint64_t *ret_at)
{
    enum health_bar bar = HEALTH_FIT;
    uint64_t at = 0;
    if (u->check.kind != SNAP_CHECK_NONE && h->checked == CHECK_DOWN) {
        *ret_at = 0;
        return HEALTH_DOWN;
    }
    if (now < h->ejected_until) bar = HEALTH_EJECTED, at = h->ejected_until;
    if (h->breaker == BREAKER_OPEN && now < h->open_until)
        bar = HEALTH_OPEN, at = MAX(at, h->open_until);
    if (h->breaker == BREAKER_HALF_OPEN && h->probes >= u->breaker.probes)
        bar = HEALTH_OPEN, at = MAX(at, now);
    if (now < h->cool_until) bar = HEALTH_COOLING, at = MAX(at, h->cool_until);
    *ret_at = at;
    return bar;
}

unsigned health_begin(struct health *h, uint64_t now)
{
    if (h->breaker == BREAKER_OPEN && now >= h->open_until) {
        h->breaker = BREAKER_HALF_OPEN;
        h->probes = h->probes_ok = 0;
        if (++h->turn == 0) h->turn = 1;
    }
    if (h->breaker != BREAKER_HALF_OPEN) return 0;
    h->probes++;
    return h->turn;
}

/* Whether it is one of those that this half-opening waits for. */
static bool is_awaited(const struct health *h, unsigned probe)
{
    return h->breaker == BREAKER_HALF_OPEN && probe == h->turn;
}

void health_probe_lost(struct health *h, unsigned probe)
{
    if (is_awaited(h, probe) && h->probes > 0) h->probes--;
}

/* --- the breaker --- */

static uint64_t slot_ns(const struct snap_upstream *u)
{
    return MAX(u->breaker.window_ms * ms / HEALTH_SLOTS, UINT64_C(1));
}

static void count(struct health *h, const struct snap_upstream *u, bool ok, uint64_t now)
{
    uint64_t slot = now / slot_ns(u);
    size_t i = slot % HEALTH_SLOTS;
    if (h->window[i].slot != slot) {
        h->window[i].slot = slot;
        h->window[i].ok = h->window[i].bad = 0;
    }
    if (ok)
        h->window[i].ok++;
    else
        h->window[i].bad++;
}

static bool too_many_errors(const struct health *h, const struct snap_upstream *u, uint64_t now)
{
    uint64_t slot = now / slot_ns(u), all = 0, bad = 0;
    for (size_t i = 0; i < HEALTH_SLOTS; i++) {
        if (h->window[i].slot + HEALTH_SLOTS <= slot) continue;
        all += (uint64_t)h->window[i].ok + h->window[i].bad;
        bad += h->window[i].bad;
    }
    return u->breaker.error_percent > 0 && all >= u->breaker.min_requests &&
           bad * 100 >= all * u->breaker.error_percent;
}

static void open_breaker(struct health *h, const struct snap_upstream *u, uint64_t now)
{
    uint64_t wait = u->breaker.open_ms << MIN(h->opens, (unsigned)DOUBLINGS);
    wait = MIN(wait, MAX(u->breaker.open_ms, (uint64_t)BREAKER_MOST_MS));
    h->breaker = BREAKER_OPEN;
    h->open_until = now + wait * ms;
    h->probes = h->probes_ok = 0;
    h->opens++;
}

static void close_breaker(struct health *h, uint64_t now)
{
    h->breaker = BREAKER_CLOSED;
    h->opens = h->probes = h->probes_ok = 0;
    h->back_since = now;
    for (size_t i = 0; i < HEALTH_SLOTS; i++) h->window[i].ok = h->window[i].bad = 0;
}

/* --- what became of requests --- */

enum health_change health_succeeded(struct health *h, const struct snap_upstream *u, unsigned probe,
                                    uint64_t now)
{
    h->failures = h->ejections = 0;
    h->suspect_until = 0;
    if (h->breaker == BREAKER_CLOSED) count(h, u, true, now);
    if (!is_awaited(h, probe)) return HEALTH_SAME;
    health_probe_lost(h, probe);
    if (++h->probes_ok < u->breaker.probes) return HEALTH_SAME;
    close_breaker(h, now);
    return HEALTH_BREAKER_CLOSED;
}

static bool eject(struct health *h, const struct snap_upstream *u, uint64_t now)
{
    unsigned most = now < h->suspect_until ? 1 : u->eject.failures;
    if (u->eject.failures == 0 || h->failures < most || now < h->ejected_until) return false;
    uint64_t wait = MIN(u->eject.base_ms << MIN(h->ejections, (unsigned)DOUBLINGS),
                        u->eject.most_ms);
    h->ejected_until = h->back_since = now + wait * ms;
    h->ejections++;
    /* Back then, one more failure is enough. */
    h->failures = u->eject.failures - 1;
    return true;
}

enum health_change health_failed(struct health *h, const struct snap_upstream *u, unsigned probe,
                                 bool may_eject, uint64_t now)
{
    if (h->failures < UINT32_MAX) h->failures++;
    if (is_awaited(h, probe)) {
        open_breaker(h, u, now);
        return HEALTH_BREAKER_OPENED;
    }
    if (h->breaker == BREAKER_CLOSED) {
        count(h, u, false, now);
        if (too_many_errors(h, u, now)) {
            open_breaker(h, u, now);
            return HEALTH_BREAKER_OPENED;
        }
    }
    return may_eject && eject(h, u, now) ? HEALTH_GOT_EJECTED : HEALTH_SAME;
}

/* --- checks, and what it asks for itself --- */

enum health_change health_checked(struct health *h, const struct snap_upstream *u, bool ok,
                                  uint64_t now)
{
    bool was_down = h->checked == CHECK_DOWN;
    if (ok != was_down) {
        h->run = 0;
        if (h->checked == CHECK_UNKNOWN) h->checked = CHECK_UP;
        return HEALTH_SAME;
    }
    if (++h->run < (ok ? u->check.healthy : u->check.unhealthy)) return HEALTH_SAME;
    h->run = 0;
    h->checked = ok ? CHECK_UP : CHECK_DOWN;
    if (!ok) return HEALTH_WENT_DOWN;
    h->failures = h->ejections = 0;
    h->ejected_until = h->suspect_until = 0;
    h->back_since = now;
    return HEALTH_CAME_UP;
}

bool health_cool(struct health *h, const struct snap_upstream *u, uint64_t wait_ms, bool limited,
                 uint64_t now)
{
    uint64_t until = now + MIN(wait_ms, u->cooldown_max_ms) * ms;
    if (until <= MAX(h->cool_until, now)) return false;
    h->cool_until = until;
    h->limited = limited;
    return true;
}

void health_suspect(struct health *h, uint64_t now)
{
    h->suspect_until = now + SUSPICION_MS * ms;
}

unsigned health_share(const struct health *h, const struct snap_upstream *u, uint64_t now)
{
    uint64_t all = u->slow_start_ms * ms;
    if (h->back_since == 0 || all == 0 || now >= h->back_since + all) return HEALTH_FULL;
    if (now <= h->back_since) return SHARE_LEAST;
    uint64_t part = (uint64_t)((double)(now - h->back_since) * HEALTH_FULL / (double)all);
    return (unsigned)MAX(part, (uint64_t)SHARE_LEAST);
}
