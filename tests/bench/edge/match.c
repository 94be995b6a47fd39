/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What it costs to find a request's namespace and route among few and among many: 10, 1,000 and
 * 10,000 namespaces, each with one matcher and one route, selected by header, by path prefix, by
 * network and by a condition of two parts; beside trying one matcher after the other.
 *
 *   match [--seconds S]
 *
 * One JSON line each: {"by","namespaces","ns","linear_ns"}. ns: CPU time of one decision, the best
 * batch.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "tests/unit/edge/support_match.h"

enum { MOST = 10000, REQUESTS = 512, BATCHES_LEAST = 5 };

static uint64_t cpu_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

enum by { BY_HEADER, BY_PREFIX, BY_NETWORK, BY_BOTH, BY_MAX };
static const char *const by_names[] = { "header", "path prefix", "network", "method and header" };

struct space {
    char slug[16], prefix[32];
    struct str value[2];
    struct snap_network network;
    struct snap_cond parts[2], cond;
};

struct world {
    struct snapshot snap;
    struct snap_namespace *namespaces;
    struct snap_matcher *matchers;
    struct snap_route *routes;
    struct space *spaces;
    char heads[REQUESTS][640];
    struct h1_request requests[REQUESTS];
    unsigned char addresses[REQUESTS][16];
};

static struct snap_cond test_of(enum snap_source source, const char *name, enum snap_op op,
                                const struct str *value)
{
    return (struct snap_cond){ .kind = SNAP_COND_TEST,
                               .source = source,
                               .op = op,
                               .name = str_of(name),
                               .values = { value, 1 } };
}

static void make_space(struct world *w, enum by by, unsigned i)
{
    struct space *s = &w->spaces[i];
    (void)snprintf(s->slug, sizeof s->slug, "team-%u", i);
    (void)snprintf(s->prefix, sizeof s->prefix, "/t%u/", i);
    s->value[0] = str_of(s->slug);
    s->value[1] = str_of(s->prefix);
    s->network = (struct snap_network){ .bits = 120 };
    s->network.address[10] = s->network.address[11] = 0xff;
    s->network.address[12] = 10;
    s->network.address[13] = (unsigned char)(i >> 8);
    s->network.address[14] = (unsigned char)i;
    static const struct str post = { "POST", 4 };
    s->parts[0] = test_of(SNAP_SRC_METHOD, "", SNAP_OP_EQUALS, &post);
    s->parts[1] = test_of(SNAP_SRC_HEADER, "x-channel-code", SNAP_OP_EQUALS, &s->value[0]);
    switch (by) {
    case BY_PREFIX: s->cond = test_of(SNAP_SRC_PATH, "", SNAP_OP_PREFIX, &s->value[1]); break;
    case BY_NETWORK:
        s->cond = test_of(SNAP_SRC_CLIENT_IP, "", SNAP_OP_IN, &s->value[0]);
        s->cond.networks = &s->network;
        break;
    case BY_BOTH:
        s->cond = (struct snap_cond){ .kind = SNAP_COND_ALL,
                                      .children = s->parts,
                                      .children_n = 2 };
        break;
    default: s->cond = s->parts[1];
    }
    w->namespaces[i] = (struct snap_namespace){ .slug = s->value[0], .enabled = true };
    w->matchers[i] = (struct snap_matcher){ .ns = &w->namespaces[i], .when = &s->cond };
    w->routes[i] = (struct snap_route){ .ns = &w->namespaces[i],
                                        .path_kind = SNAP_PATH_PREFIX,
                                        .path = STR("/") };
}

static void make_request(struct world *w, unsigned k, unsigned i)
{
    static const struct h1_limits limits = H1_LIMITS_DEFAULT;
    struct h1_error why;
    (void)snprintf(w->heads[k], sizeof w->heads[k],
                   "POST %sv1/chat/completions HTTP/1.1\r\nHost: gateway.example\r\n"
                   "User-Agent: OpenAI/JS 4.55.0\r\nAccept: application/json\r\n"
                   "Content-Type: application/json\r\nAuthorization: Bearer sk-aigw-0123456789\r\n"
                   "X-Channel-Code: %s\r\nContent-Length: 600\r\n\r\n",
                   w->spaces[i].prefix, w->spaces[i].slug);
    ASSERT(h1_parse_request(w->heads[k], strlen(w->heads[k]), &limits, &w->requests[k], &why) ==
           H1_DONE);
    memcpy(w->addresses[k], w->spaces[i].network.address, 16);
    w->addresses[k][15] = 7;
}

static void decide(const struct world *w, const struct matching *m, unsigned k, bool linear)
{
    struct match_input in;
    const struct snap_route *r;
    match_input_init(&in, &w->requests[k]);
    in.address = w->addresses[k];
    struct match_space s = linear ? linear_namespace(&w->snap, &in, m) : match_namespace(m, &in);
    ASSERT(s.ns != NULL);
    ASSERT(match_route(m, s.ns, &in, &r) == MATCH_OK && r->ns == s.ns);
}

static double best_of(const struct world *w, const struct matching *m, bool linear, double seconds)
{
    uint64_t best = UINT64_MAX, begin = cpu_ns();
    for (int n = 0; n < BATCHES_LEAST || (double)(cpu_ns() - begin) < seconds * 1e9; n++) {
        uint64_t from = cpu_ns();
        for (unsigned k = 0; k < REQUESTS; k++) decide(w, m, k, linear);
        best = MIN(best, cpu_ns() - from);
        if (linear) break;
    }
    return (double)best / REQUESTS;
}

static void measure(struct world *w, enum by by, unsigned n, double seconds)
{
    struct matching *m;
    struct why why;
    struct rng_fake rng;
    rng_fake_init(&rng, 1);
    for (unsigned i = 0; i < n; i++) make_space(w, by, i);
    for (unsigned k = 0; k < REQUESTS; k++) make_request(w, k, (unsigned)rng_below(&rng.rng, n));
    w->snap = (struct snapshot){ .namespaces = w->namespaces,
                                 .namespaces_n = n,
                                 .matchers = w->matchers,
                                 .matchers_n = n,
                                 .routes = w->routes,
                                 .routes_n = n };
    ASSERT(matching_new(&w->snap, &m, &why) == ERR_OK);
    double ns = best_of(w, m, false, seconds), linear = best_of(w, m, true, 0);
    printf("{\"by\":\"%s\",\"namespaces\":%u,\"ns\":%.0f,\"linear_ns\":%.0f}\n", by_names[by], n,
           ns, linear);
    matching_free(m);
}

int main(int argc, char **argv)
{
    static const unsigned sizes[] = { 10, 1000, MOST };
    double seconds = argc > 2 ? strtod(argv[2], NULL) : 0.5;
    struct world *w = xcalloc(1, sizeof *w);
    w->namespaces = xcalloc(MOST, sizeof *w->namespaces);
    w->matchers = xcalloc(MOST, sizeof *w->matchers);
    w->routes = xcalloc(MOST, sizeof *w->routes);
    w->spaces = xcalloc(MOST, sizeof *w->spaces);
    for (int by = 0; by < BY_MAX; by++)
        for (size_t i = 0; i < ARRAY_LEN(sizes); i++) measure(w, (enum by)by, sizes[i], seconds);
    return 0;
}
