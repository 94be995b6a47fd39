/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The scenarios of the simulator, and what has to come out of each: bounds and starvation always,
 * utilisation and messages where they are stated. Exits with 1 when something else does.
 *
 *   limits [--quick] [--seed N] [--only WORD] [--list]
 *
 * A run is determined by its scenario and its seed: what a failure prints repeats it.
 */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "sim.h"

enum { SIM_TOKENS_KIND = LEDGER_SLOTS + 1, ENOUGH = 10000000 };

#define BUCKET(l, w_ms, b)                                 \
    {                                                      \
        LEDGER_BUCKET, l, b, (w_ms)*1000u, ttl_us(w_ms), 0 \
    }
#define SLIDING(l, w_ms)                                    \
    {                                                       \
        LEDGER_SLIDING, l, 0, (w_ms)*1000u, ttl_us(w_ms), 0 \
    }
#define FIXED(l, w_ms)                                    \
    {                                                     \
        LEDGER_FIXED, l, 0, (w_ms)*1000u, ttl_us(w_ms), 0 \
    }
#define SLOTS(l)                          \
    {                                     \
        LEDGER_SLOTS, l, 0, 0, 2000000, 0 \
    }
#define ttl_us(w_ms) ((w_ms) / 20 > 2000 ? 2000000u : (w_ms) / 20 * 1000u)

#define FAULTS                                                                             \
    .loss = 0.05, .repeat = 0.05, .slow = 0.02, .crash_ns = 5 * SEC, .freeze_ns = 5 * SEC, \
    .engine_crash_ns = 20 * SEC, .rate_error = 0.0099
#define SHAKY .loss = 0.05, .repeat = 0.05, .slow = 0.02, .rate_error = 0.0099

/* Durations are those of the whole run; the quick one takes an eighth. */
static const struct sim_scenario scenarios[] = {
    /* every bound under every fault, nothing admitted without a lease: exactly 1 */
    { .name = "bucket-chaos",
      .rules = { BUCKET(1000, 10000, 50) },
      .rules_n = 1,
      .away = LEASE_AWAY_DENY,
      .edges = 8,
      .per_edge_s = 1000,
      FAULTS,
      .duration_ns = 1200 * SEC },
    { .name = "bucket-chaos-bursts",
      .rules = { BUCKET(200, 1000, 200) },
      .rules_n = 1,
      .away = LEASE_AWAY_DENY,
      .edges = 8,
      .per_edge_s = 1000,
      .bursts = true,
      FAULTS,
      .duration_ns = 600 * SEC },
    { .name = "bucket-chaos-200-edges",
      .rules = { BUCKET(3000, 1000, 1000) },
      .rules_n = 1,
      .away = LEASE_AWAY_DENY,
      .edges = 200,
      .per_edge_s = 100,
      .bursts = true,
      .mixed = true,
      FAULTS,
      .duration_ns = 100 * SEC },
    { .name = "bucket-chaos-tiny",
      .rules = { BUCKET(5, 1000, 5) },
      .rules_n = 1,
      .away = LEASE_AWAY_DENY,
      .edges = 8,
      .per_edge_s = 500,
      .bursts = true,
      FAULTS,
      .duration_ns = 300 * SEC },
    { .name = "sliding-chaos",
      .rules = { SLIDING(3000, 10000) },
      .rules_n = 1,
      .away = LEASE_AWAY_DENY,
      .edges = 8,
      .per_edge_s = 1000,
      FAULTS,
      .duration_ns = 1000 * SEC },
    { .name = "sliding-chaos-bursts",
      .rules = { SLIDING(500, 3000) },
      .rules_n = 1,
      .away = LEASE_AWAY_DENY,
      .edges = 8,
      .per_edge_s = 1000,
      .bursts = true,
      FAULTS,
      .duration_ns = 500 * SEC },
    { .name = "sliding-chaos-200-edges",
      .rules = { SLIDING(20000, 10000) },
      .rules_n = 1,
      .away = LEASE_AWAY_DENY,
      .edges = 200,
      .per_edge_s = 100,
      .bursts = true,
      .mixed = true,
      FAULTS,
      .duration_ns = 100 * SEC },
    { .name = "sliding-chaos-tiny",
      .rules = { SLIDING(5, 2000) },
      .rules_n = 1,
      .away = LEASE_AWAY_DENY,
      .edges = 8,
      .per_edge_s = 500,
      .bursts = true,
      FAULTS,
      .duration_ns = 300 * SEC },
    { .name = "fixed-chaos",
      .rules = { FIXED(5000, 10000) },
      .rules_n = 1,
      .away = LEASE_AWAY_DENY,
      .edges = 8,
      .per_edge_s = 1000,
      .bursts = true,
      .mixed = true,
      FAULTS,
      .duration_ns = 1500 * SEC },
    { .name = "fixed-chaos-200-edges",
      .rules = { FIXED(50000, 20000) },
      .rules_n = 1,
      .away = LEASE_AWAY_DENY,
      .edges = 200,
      .per_edge_s = 100,
      FAULTS,
      .duration_ns = 250 * SEC },
    { .name = "slots-chaos",
      .rules = { SLOTS(40) },
      .rules_n = 1,
      .load = SIM_SLOTS,
      .away = LEASE_AWAY_DENY,
      .strict = true,
      .edges = 8,
      .per_edge_s = 1000,
      .hold_ns = 100 * MS,
      .bursts = true,
      .mixed = true,
      FAULTS,
      .duration_ns = 2000 * SEC },
    { .name = "slots-chaos-200-edges",
      .rules = { SLOTS(1000) },
      .rules_n = 1,
      .load = SIM_SLOTS,
      .away = LEASE_AWAY_DENY,
      .strict = true,
      .edges = 200,
      .per_edge_s = 100,
      .hold_ns = 300 * MS,
      FAULTS,
      .duration_ns = 200 * SEC },
    { .name = "tokens-bucket-chaos",
      .rules = { BUCKET(60000, 10000, 20000) },
      .rules_n = 1,
      .load = SIM_TOKENS,
      .away = LEASE_AWAY_DENY,
      .edges = 8,
      .per_edge_s = 30,
      FAULTS,
      .duration_ns = 5000 * SEC },
    { .name = "tokens-sliding-chaos",
      .rules = { SLIDING(60000, 10000), SLIDING(50000, 10000), BUCKET(20000, 10000, 5000) },
      .rules_n = 3,
      .load = SIM_TOKENS,
      .away = LEASE_AWAY_DENY,
      .edges = 8,
      .per_edge_s = 30,
      .bursts = true,
      .mixed = true,
      FAULTS,
      .duration_ns = 4000 * SEC },
    { .name = "tokens-chaos-tiny",
      .rules = { SLIDING(100, 6000) },
      .rules_n = 1,
      .load = SIM_TOKENS,
      .away = LEASE_AWAY_DENY,
      .edges = 4,
      .per_edge_s = 50,
      FAULTS,
      .duration_ns = 1500 * SEC },
    { .name = "tokens-quota-200-edges",
      .rules = { FIXED(1000000, 60000), BUCKET(30000, 1000, 30000) },
      .rules_n = 2,
      .load = SIM_TOKENS,
      .away = LEASE_AWAY_DENY,
      .edges = 200,
      .per_edge_s = 2,
      FAULTS,
      .duration_ns = 600 * SEC },
    { .name = "several-chaos",
      .rules = { BUCKET(100, 1000, 100), SLIDING(400, 5000), FIXED(3000, 30000) },
      .rules_n = 3,
      .away = LEASE_AWAY_DENY,
      .edges = 8,
      .per_edge_s = 400,
      .bursts = true,
      .mixed = true,
      FAULTS,
      .duration_ns = 300 * SEC },
    { .name = "kept-state-chaos",
      .rules = { BUCKET(1000, 1000, 300), SLIDING(4000, 5000) },
      .rules_n = 2,
      .away = LEASE_AWAY_DENY,
      .edges = 8,
      .per_edge_s = 400,
      FAULTS,
      .engine_keeps = true,
      .duration_ns = 300 * SEC },

    /* shares: above the algorithm's own bound by the shares of edges that fell silent */
    { .name = "bucket-share",
      .rules = { BUCKET(1000, 1000, 300) },
      .rules_n = 1,
      .away = LEASE_AWAY_SHARE,
      .edges = 8,
      .per_edge_s = 500,
      SHAKY,
      .engine_crash_ns = 15 * SEC,
      .cut_ns = 10 * SEC,
      .bound = 2,
      .duration_ns = 300 * SEC },
    { .name = "sliding-share",
      .rules = { SLIDING(2000, 4000) },
      .rules_n = 1,
      .away = LEASE_AWAY_SHARE,
      .edges = 8,
      .per_edge_s = 500,
      SHAKY,
      .engine_crash_ns = 15 * SEC,
      .cut_ns = 10 * SEC,
      .bound = 2,
      .duration_ns = 300 * SEC },
    /* edges that come later, and limits that are seldom asked for: what was told is out of date */
    { .name = "sliding-share-joins",
      .rules = { SLIDING(60, 4000) },
      .rules_n = 1,
      .away = LEASE_AWAY_SHARE,
      .edges = 8,
      .keys = 20,
      .per_edge_s = 200,
      .bursts = true,
      SHAKY,
      .joins_ns = 10 * SEC,
      .engine_crash_ns = 15 * SEC,
      .cut_ns = 5 * SEC,
      .bound = 2,
      .duration_ns = 300 * SEC },
    { .name = "fixed-share",
      .rules = { FIXED(20000, 20000) },
      .rules_n = 1,
      .away = LEASE_AWAY_SHARE,
      .edges = 8,
      .per_edge_s = 500,
      SHAKY,
      .engine_crash_ns = 30 * SEC,
      .cut_ns = 10 * SEC,
      .bound = 2,
      .engine_keeps = true,
      .duration_ns = 300 * SEC },
    { .name = "slots-share",
      .rules = { SLOTS(80) },
      .rules_n = 1,
      .load = SIM_SLOTS,
      .away = LEASE_AWAY_SHARE,
      .edges = 8,
      .per_edge_s = 200,
      .hold_ns = 200 * MS,
      SHAKY,
      .engine_crash_ns = 15 * SEC,
      .cut_ns = 10 * SEC,
      .bound = 2,
      .duration_ns = 300 * SEC },
    { .name = "tokens-share",
      .rules = { SLIDING(60000, 10000) },
      .rules_n = 1,
      .load = SIM_TOKENS,
      .away = LEASE_AWAY_SHARE,
      .edges = 8,
      .per_edge_s = 30,
      SHAKY,
      .engine_crash_ns = 15 * SEC,
      .cut_ns = 10 * SEC,
      .bound = 2,
      .duration_ns = 300 * SEC },

    /* how much of the limit is used */
    { .name = "bucket-use",
      .rules = { BUCKET(1000, 1000, 1000) },
      .rules_n = 1,
      .away = LEASE_AWAY_DENY,
      .edges = 8,
      .per_edge_s = 250,
      .utilisation = 0.99,
      .starves = true,
      .duration_ns = 300 * SEC },
    { .name = "bucket-use-small",
      .rules = { BUCKET(20, 1000, 20) },
      .rules_n = 1,
      .away = LEASE_AWAY_DENY,
      .edges = 8,
      .per_edge_s = 25,
      .utilisation = 0.99,
      .starves = true,
      .duration_ns = 300 * SEC },
    { .name = "bucket-use-minute",
      .rules = { BUCKET(6000, 60000, 600) },
      .rules_n = 1,
      .away = LEASE_AWAY_DENY,
      .edges = 40,
      .per_edge_s = 5,
      .bursts = true,
      .mixed = true,
      .utilisation = 0.99,
      .starves = true,
      .duration_ns = 900 * SEC },
    { .name = "sliding-use",
      .rules = { SLIDING(6000, 60000) },
      .rules_n = 1,
      .away = LEASE_AWAY_DENY,
      .edges = 8,
      .per_edge_s = 25,
      .utilisation = 0.97,
      .starves = true,
      .duration_ns = 1800 * SEC },
    { .name = "sliding-use-small",
      .rules = { SLIDING(60, 60000) },
      .rules_n = 1,
      .away = LEASE_AWAY_DENY,
      .edges = 8,
      .per_edge_s = 2,
      .utilisation = 0.97,
      .starves = true,
      .duration_ns = 1800 * SEC },
    { .name = "fixed-use",
      .rules = { FIXED(6000, 60000) },
      .rules_n = 1,
      .away = LEASE_AWAY_DENY,
      .edges = 8,
      .per_edge_s = 25,
      .utilisation = 0.99,
      .starves = true,
      .duration_ns = 1800 * SEC },
    { .name = "slots-use",
      .rules = { SLOTS(100) },
      .rules_n = 1,
      .load = SIM_SLOTS,
      .away = LEASE_AWAY_DENY,
      .edges = 8,
      .per_edge_s = 100,
      .hold_ns = 500 * MS,
      .utilisation = 0.9,
      .starves = true,
      .duration_ns = 200 * SEC },
    { .name = "tokens-use",
      .rules = { SLIDING(600000, 60000) },
      .rules_n = 1,
      .load = SIM_TOKENS,
      .away = LEASE_AWAY_DENY,
      .edges = 8,
      .per_edge_s = 30,
      .utilisation = 0.95,
      .starves = true,
      .duration_ns = 2400 * SEC },
    { .name = "bucket-use-crashes",
      .rules = { BUCKET(1000, 1000, 1000) },
      .rules_n = 1,
      .away = LEASE_AWAY_DENY,
      .edges = 8,
      .per_edge_s = 250,
      .crash_ns = 5 * SEC,
      .utilisation = 0.85,
      .starves = true,
      .duration_ns = 300 * SEC },
    { .name = "sliding-use-crashes",
      .rules = { SLIDING(6000, 60000) },
      .rules_n = 1,
      .away = LEASE_AWAY_DENY,
      .edges = 8,
      .per_edge_s = 25,
      .crash_ns = 5 * SEC,
      SHAKY,
      .utilisation = 0.85,
      .starves = true,
      .duration_ns = 1800 * SEC },
    { .name = "skewed",
      .rules = { BUCKET(1000, 1000, 1000) },
      .rules_n = 1,
      .away = LEASE_AWAY_DENY,
      .edges = 20,
      .per_edge_s = 400,
      .skew = 0.8,
      .bursts = true,
      .mixed = true,
      .utilisation = 0.97,
      .starves = true,
      .duration_ns = 300 * SEC },
    /* a tenth of all asks gets no answer, which the second try hides */
    { .name = "lost-messages",
      .rules = { SLIDING(100, 10000) },
      .rules_n = 1,
      .away = LEASE_AWAY_DENY,
      .edges = 8,
      .per_edge_s = 2,
      .loss = 0.05,
      .unavailable = 0.02,
      .duration_ns = 1800 * SEC },
    { .name = "three-a-minute",
      .rules = { SLIDING(3, 60000) },
      .rules_n = 1,
      .away = LEASE_AWAY_DENY,
      .edges = 4,
      .per_edge_s = 5,
      .exactly = 3,
      .duration_ns = 59 * SEC },

    /* how little is said: 10,000 requests a second over 1,000 keys */
    { .name = "keys-2-edges",
      .rules = { BUCKET(1200, 60000, 1200) },
      .rules_n = 1,
      .keys = 1000,
      .away = LEASE_AWAY_DENY,
      .edges = 2,
      .per_edge_s = 5000,
      .messages = 0.05,
      .ops = 0.2,
      .duration_ns = 60 * SEC },
    { .name = "keys-4-edges",
      .rules = { SLIDING(1200, 60000) },
      .rules_n = 1,
      .keys = 1000,
      .away = LEASE_AWAY_DENY,
      .edges = 4,
      .per_edge_s = 2500,
      .messages = 0.05,
      .duration_ns = 240 * SEC },
};

static int failures, runs, bad_runs;
static uint64_t decisions[SIM_TOKENS_KIND + 1]; /* by algorithm */

static void expect(bool good, const char *what, double is, double should)
{
    if (good) return;
    failures++;
    printf("    FAILED: %s is %.6g, should be %.6g\n", what, is, should);
}

static void judge(const struct sim_scenario *s, const struct sim_result *r, bool quick)
{
    double bound = s->bound > 0 ? s->bound : 1, requests = (double)MAX(r->decisions, UINT64_C(1));
    double worst_wait = LEASE_ASK_TIMEOUT_MS * 1.02 + (s->freeze_ns > 0 ? 4100 : 0);
    expect(r->worst <= bound, "the worst interval, as a part of the bound,", r->worst, bound);
    expect(r->admitted > 0, "admitted", (double)r->admitted, 1);
    expect((double)r->longest_wait_ns / 1e6 <= worst_wait, "the longest wait in ms",
           (double)r->longest_wait_ns / 1e6, worst_wait);
    /* what an edge that died held is not the others' for a lease time after the last of its
     * messages has come */
    uint64_t starves_ms = LEASE_TTL_MS + (s->crash_ns > 0 && s->slow > 0 ? SIM_SLOWEST_MS : 1000);
    if (s->starves)
        expect(r->starved_ns <= starves_ms * MS, "starved for s", (double)r->starved_ns / 1e9,
               (double)starves_ms / 1e3);
    if (s->utilisation > 0 && !quick)
        expect(r->utilisation >= s->utilisation, "utilisation", r->utilisation, s->utilisation);
    if (s->messages > 0 && !quick)
        expect((double)r->messages <= requests * s->messages, "messages per request",
               (double)r->messages / requests, s->messages);
    if (s->ops > 0 && !quick)
        expect((double)r->ops <= requests * s->ops, "counter asks per request",
               (double)r->ops / requests, s->ops);
    if (s->unavailable > 0)
        expect((double)r->unavailable <= requests * s->unavailable, "undecided requests, a part",
               (double)r->unavailable / requests, s->unavailable);
    if (s->exactly > 0)
        expect(r->admitted == s->exactly, "admitted", (double)r->admitted, (double)s->exactly);
}

static double cpu_s(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts);
    return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static void run(const struct sim_scenario *like, uint64_t seed, bool quick)
{
    struct sim_scenario s = *like;
    if (quick && s.exactly == 0) s.duration_ns /= 16;
    double begun = cpu_s();
    struct sim_result r = sim_run(&s, seed);
    double n = (double)MAX(r.decisions, UINT64_C(1));
    printf("%-24s %5llu %11llu %10llu %9.4f %9.0f %8.4f %8.3f %8.4f %7.4f %7.1f %6.1f\n", s.name,
           (unsigned long long)seed, (unsigned long long)r.decisions,
           (unsigned long long)r.admitted, r.worst, r.overshoot, r.utilisation,
           (double)r.starved_ns / 1e9, (double)r.messages / n, (double)r.ops / n,
           (double)r.longest_wait_ns / 1e6, cpu_s() - begun);
    fflush(stdout);
    int before = failures;
    judge(&s, &r, quick);
    runs++;
    decisions[s.load == SIM_TOKENS ? SIM_TOKENS_KIND : (int)s.rules[0].kind] += r.decisions;
    if (failures > before) bad_runs++;
    if (failures > before)
        printf("    again: limits --only %s --seed %llu%s\n", s.name, (unsigned long long)seed,
               quick ? " --quick" : "");
}

static void sum_up(bool whole)
{
    static const char *const names[] = { "bucket", "sliding", "fixed", "slots", "tokens" };
    int before = failures;
    printf("decisions:");
    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        printf(" %s %llu", names[i], (unsigned long long)decisions[i]);
    printf("\n");
    for (size_t i = 0; whole && i < ARRAY_LEN(names); i++)
        expect(decisions[i] >= ENOUGH, names[i], (double)decisions[i], ENOUGH);
    if (failures > before) bad_runs++;
    printf("%d passed, %d failed\n", runs - MIN(bad_runs, runs), bad_runs);
}

int main(int argc, char **argv)
{
    bool quick = false, list = false;
    const char *only = NULL;
    uint64_t seed = 1;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--quick") == 0) {
            quick = true;
        } else if (strcmp(argv[i], "--list") == 0) {
            list = true;
        } else if (strcmp(argv[i], "--only") == 0 && i + 1 < argc) {
            only = argv[++i];
        } else if (strcmp(argv[i], "--seed") == 0 && i + 1 < argc) {
            seed = strtoull(argv[++i], NULL, 10);
        } else {
            fprintf(stderr, "limits [--quick] [--seed N] [--only WORD] [--list]\n");
            return 2;
        }
    }
    if (!list)
        printf("%-24s %5s %11s %10s %9s %9s %8s %8s %8s %7s %7s %6s\n", "scenario", "seed",
               "decisions", "admitted", "worst", "over", "used", "starved", "messages", "asks",
               "wait ms", "cpu s");
    for (size_t i = 0; i < ARRAY_LEN(scenarios); i++) {
        if (only != NULL && strstr(scenarios[i].name, only) == NULL) continue;
        if (list)
            printf("%s\n", scenarios[i].name);
        else
            run(&scenarios[i], seed, quick);
    }
    if (!list) sum_up(!quick && only == NULL);
    return bad_runs > 0 ? 1 : 0;
}
