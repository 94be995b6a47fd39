/* SPDX-License-Identifier: Apache-2.0 */
/*
 * aigw-policy: the allocator of every limit. Answers policy.lease (queue group policy) from
 * counters in memory (COUNTER_URL=memory:, one engine at a time) or in Redis (redis://…, any
 * number).
 *
 * Threads: asks run on a thread of the bus; the keeper (keeper.c) looks after claim, store and
 * subscription once a second; the follower brings new limits.
 */
#include <stdlib.h>

#include "keeper.h"
#include "rt/redis_url.h"

#define F(member) offsetof(struct settings, member)
/* clang-format off */
static const struct opt opts[] = {
    { "COUNTER_URL", OPT_SECRET, F(counter_url), "memory:", 0, 0, NULL, "Where counters live: memory: (this process), redis://[user:password@]host[:port][/db], or redis+sentinel://[user:password@]host[:port],…/master-name[/db]." },
    { "COUNTERS_MAX", OPT_INT, F(max_counters), "262144", 16, 100000000, NULL, "Counters kept in memory at most; further keys of a policy share one." },
    { "QUOTA_MARGIN_PERCENT", OPT_INT, F(quota_margin), "1", 0, 100, NULL, "Added to what the usage ledger says was used of a quota that was lost, in hundredths of its limit: requests that were under way are not in the ledger." },
    { "COUNTER_TIMEOUT_MS", OPT_INT, F(timeout_ms), "40", 1, 10000, "ms", "How long a call to Redis may take; edges wait 50 ms altogether." },
};

static const struct metric_def metrics[M_MAX] = {
    [M_MESSAGES] = { "aigw_policy_messages_total", METRIC_COUNTER, "Messages of edges: served, failed (the store was away, or no configuration yet) or bad.", { "result" }, { 0 }, 4 },
    [M_OPS] = { "aigw_policy_ops_total", METRIC_COUNTER, "Ops in the messages that were served.", { "op" }, { 0 }, 8 },
    [M_RESULTS] = { "aigw_policy_results_total", METRIC_COUNTER, "What they were answered.", { "status" }, { 0 }, 16 },
    [M_GRANTED] = { "aigw_policy_granted_units_total", METRIC_COUNTER, "Requests and slots granted in leases, spent or not.", { NULL }, { 0 }, 0 },
    [M_EPOCHS] = { "aigw_policy_epochs_total", METRIC_COUNTER, "Epochs begun by this engine: each but the first means that counters were lost.", { NULL }, { 0 }, 0 },
    [M_CLOCK_STEPS] = { "aigw_policy_clock_steps_total", METRIC_COUNTER, "Times the clock of Redis did not go on as ours did.", { NULL }, { 0 }, 0 },
    [M_STORE_ERRORS] = { "aigw_policy_store_errors_total", METRIC_COUNTER, "Calls to the store that failed.", { NULL }, { 0 }, 0 },
    [M_OVERFLOWS] = { "aigw_policy_overflows_total", METRIC_COUNTER, "Ops counted on a policy's overflow counter, since there was no room for one of their own.", { NULL }, { 0 }, 0 },
    [M_LOSSES] = { "aigw_policy_losses_total", METRIC_COUNTER, "Times the memory of quotas was lost: Redis was flushed, or another engine had counted with a file that is not ours.", { NULL }, { 0 }, 0 },
    [M_LOST] = { "aigw_policy_lost_quotas", METRIC_GAUGE, "Quotas that were asked for and wait for the usage ledger to say what was used.", { NULL }, { 0 }, 0 },
    [M_SEEDED] = { "aigw_policy_rebuilt_quotas_total", METRIC_COUNTER, "Quotas that were rebuilt from the usage ledger.", { NULL }, { 0 }, 0 },
    [M_MARK_WRITES] = { "aigw_policy_mark_writes_total", METRIC_COUNTER, "Writes of high-water marks of quotas to the disk: done or failed.", { "result" }, { 0 }, 2 },
    [M_UTILIZATION] = { "aigw_policy_utilization_ratio", METRIC_GAUGE, "How much of a limit is used or leased, of the policy's counter that was asked for last; above 1: debt.", { "policy" }, { 0 }, 1000 },
    [M_REFUSALS] = { "aigw_policy_refusals_total", METRIC_COUNTER, "Asks that were refused or can never be granted, by policy.", { "policy" }, { 0 }, 1000 },
    [M_COUNTERS] = { "aigw_policy_counters", METRIC_GAUGE, "Counters in memory.", { NULL }, { 0 }, 0 },
    [M_EDGES] = { "aigw_policy_edges", METRIC_GAUGE, "Edges that have a share of each limit; 0 while the engine has not listened for a lease time.", { NULL }, { 0 }, 0 },
    [M_SILENT] = { "aigw_policy_silent_edges", METRIC_GAUGE, "Edges that neither signed off nor were heard of for a lease time: what they may be using by themselves is set aside.", { NULL }, { 0 }, 0 },
    [M_POLICIES] = { "aigw_policy_policies", METRIC_GAUGE, "Policies that are counted here.", { NULL }, { 0 }, 0 },
    [M_SERVING] = { "aigw_policy_serving", METRIC_GAUGE, "1 when this engine answers asks.", { NULL }, { 0 }, 0 },
    [M_SECONDS] = { "aigw_policy_serve_seconds", METRIC_HISTOGRAM, "Time that a message takes.", { NULL }, { 0.00001, 0.00003, 0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1 }, 0 },
};
/* clang-format on */
#undef F

static void check(const void *settings, struct opt_problems *problems)
{
    const struct settings *s = settings;
    struct redis_address address;
    struct why why;
    struct str url = str_of(s->counter_url);
    if (!str_eqz(url, "memory:") && redis_url_parse(url, &address, &why) != ERR_OK)
        opt_problem(problems, "COUNTER_URL: must be memory:, redis://[user:password@]host[:port]"
                              "[/db] or redis+sentinel://[user:password@]host[:port],…/"
                              "master-name[/db]");
}

static enum err start(struct daemon *d, struct why *why)
{
    struct keeper *k = NULL;
    enum err e = keeper_new(d, &k, why);
    if (e == ERR_OK) daemon_set_state(d, k);
    return e;
}

static void quiesce(struct daemon *d)
{
    keeper_quiesce(daemon_state(d));
}

static size_t inflight(struct daemon *d)
{
    return keeper_inflight(daemon_state(d));
}

static void stop(struct daemon *d)
{
    keeper_free(daemon_state(d));
}

static void scrape(struct daemon *d)
{
    keeper_scrape(daemon_state(d));
}

int main(int argc, char **argv)
{
    static const struct daemon_desc desc = {
        .name = "policy",
        .about = "Allocates what edges may spend of every limit.",
        .opts = opts,
        .opts_len = ARRAY_LEN(opts),
        .settings_size = sizeof(struct settings),
        .metrics = metrics,
        .metrics_len = M_MAX,
        .ops_port = 9004,
        .check = check,
        .start = start,
        .quiesce = quiesce,
        .inflight = inflight,
        .stop = stop,
        .scrape = scrape,
    };
    return daemon_main(argc, argv, &desc);
}
