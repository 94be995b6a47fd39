/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the limiter tells others: refusals as sampled events, and every decision in the admission
 * log when a test asks for one. Any thread.
 *
 * A line of the log: <clock, ns> <policy id> <units> <what> <key>. The clock is the machine's
 * CLOCK_BOOTTIME, the same for all edges on it, and its reading is the one that decided (rule 11).
 * One write() each, so that lines of several processes may share a file and a kill takes none.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/log.h"
#include "limiter_impl.h"
#include "proto/rejected_msg.h"

enum { EVENT_MAX_BYTES = 4096, LINE_MAX_BYTES = 1024 };
#define EVENT_EVERY_NS UINT64_C(1000000000)
#define ALLOWED_EVERY_NS UINT64_C(10000000000)

/* --- events --- */

/* How many refusals the event stands for; 0: not now. */
static uint64_t sample(struct limiter *l, const struct snap_policy *p, uint64_t now)
{
    struct event_slot *s = &l->events[((uintptr_t)p / sizeof *p) % LIMITER_EVENT_SLOTS];
    uint64_t count = 0;
    pthread_mutex_lock(&l->events_lock);
    if (s->policy != p) *s = (struct event_slot){ .policy = p };
    s->count++;
    if (s->at_ns == 0 || now - s->at_ns >= EVENT_EVERY_NS) {
        count = s->count;
        s->count = 0;
        s->at_ns = now;
    }
    pthread_mutex_unlock(&l->events_lock);
    return count;
}

static void send_event(struct limiter *l, struct rejected_msg *m, const struct snap_namespace *ns,
                       const struct snap_policy *p, uint64_t now)
{
    struct buf b;
    if (l->o.bus == NULL || (m->count = sample(l, p, now)) == 0) return;
    m->policy = p->id;
    m->slug = p->slug;
    m->ns = ns != NULL ? ns->slug : STR("-");
    m->dimension = str_of(admit_dimension(p));
    buf_init(&b, EVENT_MAX_BYTES);
    if (rejected_msg_encode(m, l->o.clock, l->o.rng, l->instance, &b) == ERR_OK &&
        bus_publish(l->o.bus, l->rejected_subject, buf_str(&b)) != ERR_OK)
        limiter_bump(&l->errors, 1); /* an event that is lost is only that */
    buf_done(&b);
}

void limiter_publish(struct limiter *l, const struct snap_namespace *ns,
                     const struct snap_policy *p, const struct admit_outcome *o, bool shadow,
                     uint64_t now)
{
    struct rejected_msg m = { .shadow = shadow, .limit = p->limit, .used = p->limit };
    if (!shadow) {
        m.used = o->used;
        m.retry_ms = o->retry_after_ms;
        m.for_good = o->for_good;
        m.unavailable = o->verdict == ADMIT_UNAVAILABLE;
    }
    send_event(l, &m, ns, p, now);
}

void limiter_report(struct limiter *l, const struct snap_namespace *ns, const struct snap_policy *p,
                    uint64_t used, bool shadow)
{
    struct rejected_msg m = { .shadow = shadow, .limit = p->limit, .used = used, .for_good = true };
    send_event(l, &m, ns, p, limiter_now(l));
}

/* --- the log --- */

void limiter_warn_allowed(struct limiter *l, uint64_t now, unsigned policies)
{
    uint64_t told = atomic_load(&l->allowed_told_ns);
    if (policies == 0) return;
    limiter_bump(&l->allowed_since, policies);
    if (told != 0 && now - told < ALLOWED_EVERY_NS) return;
    if (!atomic_compare_exchange_strong(&l->allowed_told_ns, &told, now)) return;
    log_warn("the policy engine is away: requests pass limits that say allow, uncounted",
             LI("decisions", atomic_exchange(&l->allowed_since, 0)));
}

/* --- the admission log --- */

/* The keys of a ticket's counters. */
struct admit_note {
    struct {
        char text[LEASE_KEY_MAX];
        size_t n;
    } keys[LEASE_MAX_CLAIMS];
};

void limiter_log_open(struct limiter *l)
{
    l->log_fd = -1;
    if (l->o.admission_log == NULL || *l->o.admission_log == '\0') return;
    l->log_fd = open(l->o.admission_log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (l->log_fd < 0) log_error("the admission log cannot be opened", LS("why", strerror(errno)));
}

void limiter_log_bind(struct limiter *l, struct admit_ticket *t, size_t i, struct str key)
{
    if (l->log_fd < 0) return;
    if (t->note == NULL) t->note = xcalloc(1, sizeof *t->note);
    t->note->keys[i].n = MIN(key.n, sizeof t->note->keys[i].text);
    memcpy(t->note->keys[i].text, key.p, t->note->keys[i].n);
}

void limiter_log_forget(struct admit_ticket *t)
{
    free(t->note);
    t->note = NULL;
}

void limiter_log(struct limiter *l, const struct admit_ticket *t, uint64_t now,
                 enum limiter_log_what what, uint64_t tokens)
{
    static const char *const words[] = { "admit", "input", "output", "debt" };
    char line[LINE_MAX_BYTES];
    if (l->log_fd < 0 || t->note == NULL) return;
    for (size_t i = 0; i < t->waiter.claims_n; i++) {
        const struct lease_claim *c = &t->waiter.claims[i];
        const struct snap_policy *p = c->owner;
        uint64_t units = what == LIMITER_LOG_ADMIT   ? (c->reserve ? 0 : c->units)
                         : !c->reserve               ? 0
                         : what == LIMITER_LOG_INPUT ? admit_charge(c, tokens, 0)
                                                     : admit_charge(c, 0, tokens);
        if (units == 0 || c->shadow) continue;
        int n = snprintf(line, sizeof line, "%llu %.*s %llu %s %.*s\n", (unsigned long long)now,
                         STR_ARG(p->id), (unsigned long long)units, words[what],
                         (int)t->note->keys[i].n, t->note->keys[i].text);
        if (n > 0 && write(l->log_fd, line, MIN((size_t)n, sizeof line - 1)) < 0)
            limiter_bump(&l->errors, 1);
    }
}
