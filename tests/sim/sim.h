/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The simulator of limits: the lease tables of many edges and the ledgers of one allocator, the
 * code of production, on a virtual clock. Messages are lost, repeated, delayed and overtaken; edges
 * crash, freeze, are cut off and have clocks of other rates; the allocator crashes, with or without
 * its state. Every interval of every counter's admission log is checked as it is written.
 *
 *   sim_world.c   events, edges, messages, faults
 *   sim_engine.c  the allocator
 *   sim_load.c    requests: what they ask for and how they go on
 *   sim_check.c   the logs: bounds, starvation
 *   sim_main.c    scenarios, and what has to come out
 */
#ifndef SIM_H
#define SIM_H

#include "base/clock.h"
#include "services/edge/limits/lease.h"
#include "services/policy/ledger.h"
#include "services/policy/shares.h"

#define MS UINT64_C(1000000)
#define SEC (1000 * MS)

enum {
    SIM_EDGES = 200,
    SIM_POLICIES = 4,
    SIM_SLOWEST_MS = 3000 /* that a message which is slow takes */
};

enum sim_load {
    SIM_REQUESTS, /* each costs one unit of every policy */
    SIM_SLOTS,    /* each holds one, for a while */
    SIM_TOKENS    /* tokens are reserved, spent as they flow, and settled */
};

struct sim_scenario {
    const char *name;
    struct ledger_rule rules[SIM_POLICIES];
    size_t rules_n;
    enum sim_load load;
    enum lease_away away;
    bool strict;
    int edges;
    size_t keys;               /* counters per policy; 0: 1 */
    double per_edge_s;         /* requests per second and edge, on average */
    bool bursts;               /* silence, then all at once */
    bool mixed;                /* half of the edges in bursts */
    double skew;               /* so much of the load goes to the first edge */
    double loss, repeat, slow; /* of messages: probabilities */
    /* on average so often; 0: never */
    uint64_t crash_ns, freeze_ns, cut_ns, engine_crash_ns;
    bool engine_keeps; /* its state, when it crashes */
    uint64_t joins_ns; /* the edges begin one after the other, so long apart */
    uint64_t hold_ns;  /* how long a request holds its slot, on average */
    double rate_error; /* of the edges' clocks */
    uint64_t duration_ns;
    /* what has to come out */
    double bound;         /* times the algorithm's own; 0: 1, exactly */
    double utilisation;   /* at least; 0: not asserted */
    double messages, ops; /* per request, at most; 0: not asserted */
    double unavailable;   /* of the requests, the part that could not be decided, at most; 0: any */
    bool starves;         /* the longest starvation is asserted */
    uint64_t exactly;     /* admitted in the whole run; 0: any */
};

struct sim_result {
    uint64_t decisions, admitted, refused, unavailable, units, messages, ops, waited;
    uint64_t debt, cut; /* units charged beyond what was reserved; streams cut short */
    double worst;       /* of any interval of any counter, as a part of its bound */
    double overshoot;   /* units above the algorithm's own bound, at worst */
    double utilisation; /* of the first policy */
    uint64_t starved_ns;
    uint64_t longest_wait_ns;
};

struct sim_result sim_run(const struct sim_scenario *s, uint64_t seed);

/* --- between the parts --- */

enum sim_event_kind {
    SIM_ARRIVE,
    SIM_WAKE,
    SIM_ASK,
    SIM_REPLY,
    SIM_AGAIN,
    SIM_TIMEOUT,
    SIM_FLOW, /* a request goes on */
    SIM_LOOK, /* whether it still holds its slot */
    SIM_PRESENCE,
    SIM_JOIN,
    SIM_SILENT, /* an edge that is frozen has lost its slots by now */
    SIM_CRASH,
    SIM_FREEZE,
    SIM_CUT,
    SIM_ENGINE_CRASH,
    SIM_ENGINE_UP
};

struct sim_event {
    uint64_t at, order;
    enum sim_event_kind kind;
    int edge;
    uint64_t life; /* of the edge that it is meant for */
    void *p;
    uint64_t serial; /* of the request */
};

struct sim_request {
    struct list_node node; /* of its edge's; or in the free list */
    struct lease_waiter w;
    int edge;
    size_t key;
    uint64_t serial, arrived_ns;
    bool waits, admitted, extends;
    /* of tokens */
    uint64_t input, length, delivered, hidden, asked_for;
    bool streams;
};

struct sim_message { /* an ask; the reply refers to it */
    int edge, refs;
    bool back; /* given to lease_apply() or lease_fail() */
    struct sim_place {
        size_t policy, key;
    } places[LEASE_BATCH_OPS]; /* of each op: its edge may be gone when it arrives */
    struct lease_batch batch;
};
struct sim_reply {
    struct sim_message *ask;
    int refs;
    char epoch[LEASE_ID_MAX + 1];
    uint64_t edges;
    size_t n;
    struct lease_result results[LEASE_BATCH_OPS];
};

struct sim_edge {
    struct lease_table *table;
    char name[16];
    uint64_t life, frozen_until, cut_until, offset;
    double rate;
    struct list_node requests; /* waiting or running */
    uint64_t running;          /* that hold a slot */
    bool silent;               /* frozen for longer than its slots are its own */
    bool bursts;
    uint64_t wake_at;
};

/* One counter: the log's checks. */
struct sim_meter {
    double level, worst; /* bucket */
    uint64_t at_us;
    struct sim_entry {
        uint64_t at_us, units;
    } * log; /* sliding: a ring of what is inside the window */
    size_t first, n, cap;
    uint64_t inside, most; /* sliding; fixed: of the window, slots: held now */
    uint64_t window;       /* fixed: its number */
    uint64_t units;
    uint64_t starving_ns, looked_ns; /* since when; 0: it is not */
};

struct sim {
    const struct sim_scenario *s;
    struct rng_fake rng;
    struct sim_result r;
    size_t keys;
    struct sim_edge edges[SIM_EDGES];
    struct sim_event *heap;
    size_t heap_n, heap_cap;
    uint64_t now, order, serials;
    struct list_node spare; /* requests */
    /* the allocator */
    struct shares shares;
    struct sim_counter {
        struct ledger ledger;
        bool made;
    } * counters; /* policy * keys + key */
    bool engine_up;
    uint64_t engine_no, warm_us;
    struct ledger_birth birth;
    char epoch[32];
    /* the logs */
    struct sim_meter *meters;
};

double sim_uniform(struct sim *m);
bool sim_chance(struct sim *m, double p);
double sim_exponential(struct sim *m, double mean);
void sim_push(struct sim *m, uint64_t at, enum sim_event_kind kind, int edge, void *p,
              uint64_t serial);
uint64_t sim_edge_time(const struct sim *m, int e);
/* Sends what is due at the edge and plans its next look. */
void sim_flush(struct sim *m, int e);

void sim_engine_begin(struct sim *m, bool first);
/* False: no reply. */
bool sim_engine_serve(struct sim *m, const struct sim_message *ask, struct sim_reply *ret);
void sim_engine_free(struct sim *m);
/* Units that the allocator could grant or has granted and that are not spent. */
bool sim_engine_has(struct sim *m, size_t policy, size_t key, uint64_t reserve);
uint64_t sim_time_us(const struct sim *m); /* the allocator's clock */

void sim_arrive(struct sim *m, int e);
void sim_flow(struct sim *m, struct sim_request *r);
/* Whether it holds its slot still. */
void sim_look(struct sim *m, struct sim_request *r);
/* The same of one whose edge was silent, so that its slot was not counted. */
void sim_thaw(struct sim *m, struct sim_request *r);
void sim_decided(struct sim *m, struct sim_request *r);
/* Gives up a request whose edge died. */
void sim_abandon(struct sim *m, struct sim_request *r);

void sim_log(struct sim *m, size_t policy, size_t key, uint64_t units);
void sim_log_slot(struct sim *m, size_t policy, size_t key, int64_t by);
void sim_log_refusal(struct sim *m, size_t policy, size_t key, uint64_t reserve);
void sim_check_finish(struct sim *m);

#endif
