/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What it costs to find a request's namespace and route among few and among many: 10, 1,000 and
 * 10,000 namespaces, each with one matcher and one route, selected by header, by path prefix, by
 * network and by a condition of two parts; beside trying one matcher after the other.
 *
 *   match [--seconds S]
 *
 * One JSON line each: {"by","namespaces","ns","linear_ns"}. ns: CPU time of one decision, the best
 * batch. Then {"credential","ns"}: what it costs to know who asks, by key and by signed token.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "rt/crypto.h"
#include "services/edge/match/tokens.h"
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

static int by_hmac(const void *a, const void *b)
{
    const struct snap_key *x = a, *y = b;
    return memcmp(x->hmac, y->hmac, sizeof x->hmac);
}

/* --- credentials --- */

/* A token of 2048-bit RSA, good until 2100, and its public key: made for this and used nowhere. */
static const char jwks[] =
    "{\"keys\":[{\"kty\":\"RSA\",\"kid\":\"k1\",\"e\":\"AQAB\",\"n\":\""
    "tky06W7vj1QSB4VOmA5LaaV1yZOpPaDLWmZvPAFFUlzuTDcRGS--O4e_heF4JfGxYoiK429A6AAIvMbVKQLV"
    "10rta5h2VKHPZbonWlJY42kuHKOQr88cDA62ZMxXkASSa0_2QUxUH9ctPs6wNnnJ54SkE3u7JzPsqL_uBAj7"
    "hMqo2sbVxh5KPlxPnxbeDGq-simie-5sZXIVhgG6-3EzruDpYwRWaF896Wk7ymtuMAomxb-zqJ15wv3Lw5Ze"
    "iIOh_KeKsi02LrxrzhTddE7zuH_1DMZp29pTDixiY4JolvZ88E5VC25y5w8d68qaTfGsoqTFmIPVNDlBktCI"
    "VL-vxw"
    "\"}]}";
static const char jwt[] =
    "eyJhbGciOiJSUzI1NiIsInR5cCI6IkpXVCIsImtpZCI6ImsxIn0.eyJpc3MiOiJodHRwczovL2lkLmV4YW1w"
    "bGUiLCJzdWIiOiIwYzlmNWE3ZS05MGYxLTRiMWUtOGEzZS02YTVhNDNmMGEwMDEiLCJhdWQiOlsiZ2F0ZXdh"
    "eSJdLCJpYXQiOjE3MDAwMDAwMDAsImV4cCI6NDEwMjQ0NDgwMCwiZ3JvdXBzIjpbInJlZCIsImVuZ2luZWVy"
    "aW5nIiwiZXZlcnlvbmUiXSwiZW1haWwiOiJzb21lYm9keUBjb3JwLmV4YW1wbGUiLCJuYW1lIjoiU29tZSBC"
    "b2R5IiwidGVuYW50IjoiY29ycCJ9.E9gqunqOlajsKa6QK7FisDl2Iq4kBg3qcDq75zwW4Bes0-ULfQq51Dr"
    "V8JjwTv2cayry1ayAhK-7BQRXz5v0C8Y9PIdL9qE3a4jnECqeAIz2LTpRBp1bjhWOrSkcT3AmgzkxEnPTSiH"
    "rQ71dLmiklB9R48Q-2EzDTkGdUFJKYnHuLA3mXxxy9Pct1_Vp_Ys8XPvuxWuiVbY65-xclgK2OwQ26jGHB4_"
    "Fh7L2applkIryGYp_7IhTABkcBXVsUABycPZ7ZdfWHOo3QXGPR1oIMSWx4WEbylNVhxysfsB7QQBUhku4rf9"
    "hB5k52KxvFBDZx3222_FRDGDiwheHEbFPug";

/* ns: CPU time of one, the best of many batches. */
static double best_credential(void (*one)(void *ctx), void *ctx, unsigned batch, double seconds)
{
    uint64_t best = UINT64_MAX, begin = cpu_ns();
    while ((double)(cpu_ns() - begin) < seconds * 1e9) {
        uint64_t from = cpu_ns();
        for (unsigned k = 0; k < batch; k++) one(ctx);
        best = MIN(best, cpu_ns() - from);
    }
    return (double)best / batch;
}

struct credentials {
    struct snapshot snap;
    struct matching *matching;
    struct tokens *tokens;
    unsigned found;
};

static void find_key(void *ctx)
{
    static const char pepper[32] = "0123456789abcdef0123456789abcde";
    struct credentials *c = ctx;
    unsigned char hmac[SNAP_HMAC_LEN];
    crypto_hmac_sha256(str_n(pepper, sizeof pepper),
                       STR("sk-aigw-0123456789abcdef0123456789abcdef"), hmac);
    c->found += match_key(&c->snap, hmac) != NULL;
}

static void verify(void *ctx)
{
    struct credentials *c = ctx;
    struct token *t;
    struct why why;
    ASSERT(tokens_verify(c->tokens, &c->snap, c->matching, str_of(jwt), 1800000000, &t, &why) ==
           ERR_OK);
    token_unref(t);
}

static void verify_anew(void *ctx)
{
    tokens_forget(((struct credentials *)ctx)->tokens);
    verify(ctx);
}

static void measure_credentials(double seconds)
{
    static struct snap_key keys[MOST];
    static const struct str audience[] = { { "gateway", 7 } };
    static const struct snap_namespace space = { .slug = { "a", 1 }, .auth = SNAP_AUTH_JWT };
    struct snap_issuer issuer = { .id = STR("i1"),
                                  .slug = STR("corp"),
                                  .issuer = STR("https://id.example"),
                                  .enabled = true,
                                  .audiences = { audience, 1 },
                                  .algorithms = 1u << JWT_RS256,
                                  .jwks = STR(""),
                                  .refresh_s = 600,
                                  .leeway_s = 60 };
    struct credentials c = { .found = 0 };
    struct rng_fake rng;
    struct why why;
    issuer.jwks = str_of(jwks);
    rng_fake_init(&rng, 1);
    for (size_t i = 0; i < MOST; i++) rng.rng.fill(rng.rng.ctx, keys[i].hmac, sizeof keys[i].hmac);
    qsort(keys, MOST, sizeof *keys, by_hmac);
    c.snap = (struct snapshot){ .namespaces = &space,
                                .namespaces_n = 1,
                                .issuers = &issuer,
                                .issuers_n = 1,
                                .keys = keys,
                                .keys_n = MOST };
    ASSERT(matching_new(&c.snap, &c.matching, &why) == ERR_OK);
    struct keyring *keyring = keyring_new(clock_system(), NULL, NULL);
    keyring_use(keyring, &c.snap);
    c.tokens = tokens_new(keyring);
    printf("{\"credential\":\"key, among %d\",\"ns\":%.0f}\n", MOST,
           best_credential(find_key, &c, 1000, seconds));
    printf("{\"credential\":\"token of %zu bytes, seen before\",\"ns\":%.0f}\n", sizeof jwt - 1,
           best_credential(verify, &c, 1000, seconds));
    printf("{\"credential\":\"token, new (RS256)\",\"ns\":%.0f}\n",
           best_credential(verify_anew, &c, 10, seconds));
    tokens_free(c.tokens);
    keyring_free(keyring);
    matching_free(c.matching);
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
    measure_credentials(seconds);
    return 0;
}
