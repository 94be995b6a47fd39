/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a decision costs when leases cover it: five policies of one request, keys and all, on one
 * thread. The engine is a function that grants whatever is asked for.
 *
 *   limits [--seconds S]
 *
 * One JSON line: {"policies","ns","best_ns","decisions","messages"}. ns: CPU time of admitting and
 * releasing, the mean of all batches and the best one.
 */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "services/edge/limits/admit_list.h"
#include "tests/unit/edge/support_engine.h"

enum { BATCH = 2000, POLICIES = 5 };

static uint64_t cpu_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static void done(void *ctx, struct admit_ticket *t)
{
    (void)ctx;
    (void)t;
}

/* Requests per key, per user and per header, slots, and two kinds of tokens. */
static struct snap_policy policies[POLICIES] = {
    { .id = { "requests:100000000000", 21 }, .kind = SNAP_REQUEST_RATE, .per = { SNAP_PER_KEY } },
    { .id = { "users:100000000000", 18 },
      .kind = SNAP_REQUEST_RATE,
      .per = { SNAP_PER_NAMESPACE, SNAP_PER_USER } },
    { .id = { "slots:100000000000", 18 },
      .kind = SNAP_CONCURRENCY,
      .per = { SNAP_PER_NAMESPACE, SNAP_PER_MODEL } },
    { .id = { "tokens:100000000000", 19 },
      .kind = SNAP_TOKEN_RATE,
      .per = { SNAP_PER_KEY, SNAP_PER_MODEL } },
    { .id = { "teams:100000000000", 18 }, .kind = SNAP_QUOTA, .per = { SNAP_PER_HEADER } },
};

int main(int argc, char **argv)
{
    static const struct snap_namespace ns = { .id = { "01890a5d-ac96-774b-bcce-b302099a8057",
                                                      36 } };
    static const struct snap_key key = { .id = { "01890a5d-ac96-774b-bcce-b302099a8058", 36 } };
    static const struct snap_model model = { .id = { "01890a5d-ac96-774b-bcce-b302099a8059", 36 } };
    static struct h1_head head = { .fields_len = 8 };
    static struct engine engine;
    const struct snap_policy *all[POLICIES];
    double seconds = argc > 2 ? strtod(argv[2], NULL) : 2;
    uint64_t total = 0, best = UINT64_MAX, n = 0, begin = cpu_ns();

    engine = (struct engine){ .clock = clock_system(), .rng = rng_system() };
    pthread_mutex_init(&engine.lock, NULL);
    for (size_t i = 0; i < POLICIES; i++) {
        struct snap_policy *p = &policies[i];
        p->limit = p->burst = 100000000000;
        p->window_ms = 60000;
        p->enabled = true;
        p->algorithm = p->kind == SNAP_QUOTA ? SNAP_FIXED : SNAP_BUCKET;
        p->per_n = i == 0 || i == 4 ? 1 : 2;
        p->per_header[0] = STR("x-team");
        all[i] = p;
    }
    for (size_t i = 0; i < 8; i++)
        head.fields[i] = (struct h1_field){ STR("accept-something"), STR("value"), H1_UNKNOWN };
    head.fields[7] = (struct h1_field){ STR("X-Team"), STR("blue"), H1_UNKNOWN };
    struct admit_list list = { all, POLICIES };
    struct admit_request r = {
        .policies = &list,
        .subject = { .ns = &ns,
                     .key = &key,
                     .model = STR("Qwen3-8B"),
                     .model_known = &model,
                     .head = &head,
                     .has_user = true,
                     .user_hash = 12345 },
        .counted = true,
        .answers = true,
        .stream = true,
        .input_tokens = 100,
        .output_most = 4000,
        .choices = 1,
    };
    struct limiter *l = limiter_new(&(struct limiter_options){ .prefix = "aigw",
                                                               .instance = "bench",
                                                               .clock = engine.clock,
                                                               .rng = engine.rng,
                                                               .request = engine_request,
                                                               .request_ctx = &engine });
    struct admit_ticket *t = calloc(1, sizeof *t);
    while ((double)(cpu_ns() - begin) < seconds * 1e9) {
        uint64_t from = cpu_ns();
        for (int i = 0; i < BATCH; i++) {
            if (limiter_admit(l, &r, t, done, NULL) != ADMIT_OK && t->outcome.verdict != ADMIT_OK)
                return 1;
            limiter_release(l, t);
        }
        uint64_t took = cpu_ns() - from;
        total += took;
        best = MIN(best, took);
        n += BATCH;
    }
    printf("{\"policies\":%d,\"ns\":%.0f,\"best_ns\":%.0f,\"decisions\":%llu,\"messages\":%zu}\n",
           POLICIES, (double)total / (double)n, (double)best / BATCH, (unsigned long long)n,
           engine.messages);
    limiter_free(l);
    free(t);
    return 0;
}
