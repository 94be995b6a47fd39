/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A configuration snapshot: what the config center pushes and every other daemon works from.
 *
 * On the bus it is content-addressed JSON, so that a change moves only what it touches:
 *
 *   manifest
 * {"v","id","ts","from","format":1,"min_reader":1,"revision":N,"digest":"<sha256>","pages":["<sha256>",…]}
 *   page       {"kind":"index","parts":[{"kind","namespace","index","digest","bytes"},…]}
 *   part       {"kind":"policies","namespace":"<id>"|null,"index":0,"items":[<entity>,…]}
 *
 * Parts are per namespace and kind (namespaces: the namespace itself, matchers, routes, policies,
 * keys) or global (upstreams, models, issuers, policies), at most PART_MAX_BYTES each; a kind that
 * outgrows one part is spread over a power of two of them by the hash of the entity's id, so that a
 * change still touches one. Parts are listed by pages: entry -> page by the hash of (namespace,
 * kind, index), a power of two of pages of about 1000 entries. The digest of a part or page is the
 * SHA-256 of its bytes; that of a manifest the SHA-256 of its page digests, each followed by "\n".
 * In the bucket: "manifest.<revision>", "part.<digest>" (pages too), and "latest" = the newest
 * manifest.
 *
 * A reader takes format N and N-1, and refuses a manifest whose min_reader is above
 * SNAPSHOT_FORMAT.
 *
 * In memory it is immutable, reference counted, and belongs to nobody's thread.
 */
#ifndef PROTO_SNAPSHOT_H
#define PROTO_SNAPSHOT_H

#include <stdatomic.h>
#include <stdint.h>

#include "base/arena.h"
#include "rt/crypto_jwk.h"
#include "rt/json.h"

enum { SNAPSHOT_FORMAT = 1, PART_MAX_BYTES = 256 * 1024, SNAPSHOT_KEEP = 64 };

/* A list of strings. */
struct snap_strings {
    const struct str *v;
    size_t n;
};

/* IPv4 networks are kept as their IPv4-mapped IPv6 ones: ::ffff:10.0.0.0/104 for 10.0.0.0/8. */
struct snap_network {
    unsigned char address[16];
    unsigned bits; /* 0 to 128 */
};

/* {"all":[…]} {"any":[…]} {"not":…} {"source","name"?,"op","value"|"values"} */
enum snap_cond_kind { SNAP_COND_ALL, SNAP_COND_ANY, SNAP_COND_NOT, SNAP_COND_TEST };
enum snap_source {
    SNAP_SRC_HEADER,
    SNAP_SRC_QUERY,
    SNAP_SRC_PATH,
    SNAP_SRC_METHOD,
    SNAP_SRC_HOST, /* without port and last dot; compared without case */
    SNAP_SRC_MODEL,
    SNAP_SRC_CLIENT_IP, /* values are networks; equals and in only */
    SNAP_SRC_KEY,       /* the virtual key's id or slug */
    SNAP_SRC_CLAIM,     /* of a verified token */
    SNAP_SRC_BODY       /* a member of the request's JSON body */
};
enum snap_op {
    SNAP_OP_EQUALS,
    SNAP_OP_IN,
    SNAP_OP_PREFIX,
    SNAP_OP_SUFFIX,
    SNAP_OP_CONTAINS,
    SNAP_OP_EXISTS,
    SNAP_OP_REGEX /* anywhere in the value, unless it says ^ and $ */
};
enum {
    SNAP_COND_MAX_DEPTH = 8,
    SNAP_COND_MAX_NODES = 64,
    SNAP_REGEX_STEPS = 100000, /* that one match may take */
    SNAP_POINTERS_MAX = 64     /* members of bodies, and of tokens, that a snapshot may look at */
};
struct snap_cond {
    enum snap_cond_kind kind;
    const struct snap_cond *children; /* of ALL, ANY, NOT */
    size_t children_n;
    enum snap_source source; /* of TEST */
    struct str name; /* header (lower case), query argument; of claim and body a JSON pointer */
    enum snap_op op;
    struct snap_strings values;          /* one, or several of "in"; none of "exists" */
    const struct snap_network *networks; /* of client_ip: as many as values */
};

/* Who may send requests of a namespace: with one of its keys, with a token of an issuer, with
 * either, or anyone. */
enum snap_auth { SNAP_AUTH_KEY, SNAP_AUTH_NONE, SNAP_AUTH_JWT, SNAP_AUTH_KEY_OR_JWT };

/* {"id","slug","name","enabled","auth":"key"|"none"|"jwt"|"key_or_jwt","claims"?:<cond>,
 *  "default":bool} */
struct snap_namespace {
    struct str id, slug, name;
    bool enabled, is_default;
    enum snap_auth auth;
    const struct snap_cond *claims; /* what a token must say to be let in; NULL: nothing */
};

/* {"id","slug","enabled","issuer","audiences":[…],"algorithms":["RS256",…],
 *  "jwks":{"keys":[…]} | "jwks_url":"https://…","refresh_s","leeway_s"}: whose tokens are taken */
struct snap_issuer {
    struct str id, slug, issuer;
    bool enabled;
    struct snap_strings audiences;     /* one of them must be the token's; never empty */
    unsigned algorithms;               /* bits 1 << enum jwt_alg; never 0 */
    struct str jwks;                   /* the JSON text; p == NULL: fetched from jwks_url */
    struct str jwks_url, jwks_ca_file; /* ca_file "": the system's authorities */
    uint64_t refresh_s, leeway_s;      /* defaults 600, 60 */
};

/* {"id","namespace":"<id>","slug","priority","when":<cond>}: the highest priority that holds wins.
 */
struct snap_matcher {
    struct str id, slug;
    const struct snap_namespace *ns;
    int64_t priority;
    const struct snap_cond *when;
};

enum snap_policy_kind {
    SNAP_REQUEST_RATE,  /* requests per window */
    SNAP_CONCURRENCY,   /* requests in flight */
    SNAP_TOKEN_RATE,    /* tokens per window: `count` */
    SNAP_QUOTA,         /* tokens, requests or cost per calendar period: `unit`, `count` */
    SNAP_INPUT_TOKENS,  /* of one request */
    SNAP_OUTPUT_TOKENS, /* of one response */
    SNAP_ACCESS,        /* `rules`: the first that matches decides, else `otherwise` */
    SNAP_BODY_SIZE      /* bytes of one request */
};
enum snap_algorithm { SNAP_BUCKET, SNAP_SLIDING, SNAP_FIXED };
enum snap_unavailable { SNAP_SHARE, SNAP_DENY, SNAP_ALLOW };
enum snap_unit { SNAP_UNIT_TOKENS, SNAP_UNIT_REQUESTS, SNAP_UNIT_COST };
enum snap_count { SNAP_COUNT_TOTAL, SNAP_COUNT_INPUT, SNAP_COUNT_OUTPUT };
enum snap_period { SNAP_PERIOD_HOUR, SNAP_PERIOD_DAY, SNAP_PERIOD_WEEK, SNAP_PERIOD_MONTH };
enum snap_per {
    SNAP_PER_NAMESPACE,
    SNAP_PER_KEY,
    SNAP_PER_MODEL,
    SNAP_PER_UPSTREAM,
    SNAP_PER_IP,    /* the client's address; of IPv6 the first ipv6_prefix bits */
    SNAP_PER_USER,  /* the request's own word for its user */
    SNAP_PER_HEADER /* "header:NAME" */
};
enum { SNAP_PER_MAX = 6, SNAP_RULES_MAX = 64, SNAP_NETWORKS_MAX = 64 };

/* {"effect":"allow"|"deny","models":[…],"paths":[…],"methods":[…],"networks":["10.0.0.0/8",…]}:
 * matches when every list that is not empty has an entry that does. '*' in models and paths matches
 * any run; models are compared without case. */
struct snap_rule {
    bool allow;
    struct snap_strings models, paths, methods;
    const struct snap_network *networks;
    size_t networks_n;
};

/* {"id","namespace":"<id>"|null,"slug","kind","enabled","mode":"enforce"|"shadow","priority",
 *  "models":[…], and of its kind:
 *    per, ipv6_prefix, on_unavailable    request_rate, concurrency, token_rate, quota
 *    limit                               all but access
 *    window, algorithm, burst            request_rate, token_rate
 *    count                               token_rate, quota of tokens
 *    unit, period, timezone, currency    quota
 *    strict                              concurrency
 *    rules, otherwise                    access} */
struct snap_policy {
    struct str id, slug;
    const struct snap_namespace *ns; /* NULL: applies to all */
    enum snap_policy_kind kind;
    bool enabled, shadow, strict;
    int64_t priority;
    enum snap_per per[SNAP_PER_MAX];
    size_t per_n;
    struct str per_header[SNAP_PER_MAX]; /* of SNAP_PER_HEADER: its name in lower case */
    unsigned ipv6_prefix;                /* of SNAP_PER_IP */
    uint64_t limit;     /* requests, slots, tokens, bytes, or nano-units of the currency */
    uint64_t window_ms; /* of rates; of a quota the longest its period can be */
    uint64_t burst;     /* of bucket */
    enum snap_algorithm algorithm; /* of rates; SNAP_FIXED of quotas */
    enum snap_unavailable on_unavailable;
    enum snap_unit unit;           /* of quotas; of request_rate and token_rate what they count */
    enum snap_count count;         /* of tokens */
    enum snap_period period;       /* of quotas */
    struct str timezone;           /* of quotas: an IANA name */
    struct str currency;           /* of quotas of cost: three capital letters; else "" */
    struct snap_strings models;    /* empty: all */
    const struct snap_rule *rules; /* of access */
    size_t rules_n;
    bool otherwise_allow; /* of access: when no rule matches */
};

/* Whether units of this kind are leased from the policy engine. */
bool snap_policy_is_leased(const struct snap_policy *p);
/* The word of the configuration: "request_rate". */
const char *snap_policy_kind_name(enum snap_policy_kind k);
const char *snap_period_name(enum snap_period p);
/* "10.0.0.0/8", "2001:db8::/32", or an address alone. NULL when it is one, else what is wrong. */
const char *snap_network_parse(struct str s, struct snap_network *ret);
/* address: 16 bytes, IPv4 as IPv4-mapped. */
bool snap_network_has(const struct snap_network *n, const unsigned char address[16]);
/* '*' in the pattern matches any run; fold: compared without case (ASCII). Time is at most the
 * product of both lengths. */
bool snap_glob(struct str pattern, struct str s, bool fold);

/* {"id","slug","url":"http://host:port/base","weight","priority","max_requests","enabled"} */
struct snap_server {
    struct str id, slug, url, host,
        base_path;        /* host without port and brackets; base_path without its last '/' */
    struct str authority; /* as the header field Host says it */
    uint16_t port;
    bool tls, enabled;
    uint64_t weight;
    uint64_t max_requests; /* at a time, per edge; 0: any number */
    unsigned priority;     /* 0 first; others when none of those before is usable */
};

enum snap_dialect { SNAP_OPENAI, SNAP_ANTHROPIC };
enum snap_upstream_auth { SNAP_UPAUTH_NONE, SNAP_UPAUTH_BEARER, SNAP_UPAUTH_HEADER };
enum snap_balance {
    SNAP_ROUND_ROBIN,
    SNAP_WEIGHTED_ROUND_ROBIN,
    SNAP_RANDOM,
    SNAP_LEAST_REQUESTS,
    SNAP_HASH
};
enum { SNAP_SERVERS_MAX = 128, SNAP_FALLBACKS_MAX = 4 };

/* {"by":"header"|"key"|"user"|"prompt"|"path","header"?,"prompt_bytes","load_percent"} */
enum snap_hash_by {
    SNAP_HASH_HEADER,
    SNAP_HASH_KEY,
    SNAP_HASH_USER,
    SNAP_HASH_PROMPT,
    SNAP_HASH_PATH
};
struct snap_hash {
    enum snap_hash_by by;
    struct str header;     /* lower case */
    uint64_t prompt_bytes; /* of the messages, from their beginning */
    uint64_t load_percent; /* of its share: a server that has more is passed over */
};

/* {"type":"none"|"http"|"tcp"|"models","path"?,"status"?,"model"?,"interval_ms","timeout_ms",
 *  "healthy","unhealthy"} */
enum snap_check_kind { SNAP_CHECK_NONE, SNAP_CHECK_HTTP, SNAP_CHECK_TCP, SNAP_CHECK_MODELS };
struct snap_check {
    enum snap_check_kind kind;
    struct str path, model; /* model: that the list must have; "": any */
    unsigned status;        /* of HTTP: the one expected */
    uint64_t interval_ms, timeout_ms;
    unsigned healthy, unhealthy; /* results in a row that change its state */
};

/* "ejection":{"failures","base_ms","most_ms","max_percent"} */
struct snap_eject {
    unsigned failures; /* in a row; 0: never */
    uint64_t base_ms, most_ms;
    unsigned max_percent; /* of the servers, at a time */
};

/* "breaker":{"error_percent","min_requests","window_ms","open_ms","probes"} */
struct snap_breaker {
    unsigned error_percent; /* 0: never opens */
    unsigned min_requests;
    uint64_t window_ms, open_ms;
    unsigned probes; /* at a time, and as many must succeed */
};

enum {
    SNAP_RETRY_CONNECT = 1, /* no connection: nothing was sent */
    SNAP_RETRY_RESET = 2,   /* broken, or unusable, before anything was passed on */
    SNAP_RETRY_TIMEOUT = 4,
    SNAP_RETRY_STREAM = 8 /* begins with an error, or ends before it begins */
};
/* "retry":{"causes":["connect","reset","timeout","stream","503",…],"budget_percent","budget_min",
 * "backoff_ms","hold_ms"} */
struct snap_retry {
    unsigned causes; /* a set of the above */
    const unsigned *statuses;
    size_t statuses_n;
    unsigned budget_percent, budget_min; /* of the requests of the last 10 s, and beside them */
    uint64_t backoff_ms;                 /* 0: at once; else doubling, with jitter */
    uint64_t hold_ms; /* that the events in front of a stream's first output are held back */
};

/* How its servers are reached: "transport":"direct"|"curl","http"?:"auto"|"1.1"|"2","max_streams"?,
 *  "proxy"?:{"url","user"?,"password"? (sealed, aad = upstream id),"ca_file"?} */
enum snap_transport { SNAP_DIRECT, SNAP_CURL };
enum snap_http { SNAP_HTTP_AUTO, SNAP_HTTP_1_1, SNAP_HTTP_2 };
enum snap_proxy_kind { SNAP_PROXY_NONE, SNAP_PROXY_HTTP, SNAP_PROXY_HTTPS, SNAP_PROXY_SOCKS5 };
struct snap_proxy {
    enum snap_proxy_kind kind;
    struct str url, host; /* host: of the URL, without brackets */
    uint16_t port;
    struct str user, password_sealed, ca_file; /* "": none */
};

/* {"id","slug","name","dialect","balance","hash"?,"auth":{"type","header"?,"credential"? (sealed,
 *  aad = upstream id)},
 *  "timeouts":{"connect_ms","first_byte_ms","first_token_ms","idle_ms","total_ms"},"retries",
 *  "retry"?,"health_check"?,"ejection"?,"breaker"?,"cooldown"?:{"max_ms"},"slow_start_ms",
 *  "queue"?:{"max","timeout_ms"},"servers":[…],
 *  "tls"?:{"ca_file","cert_file","key_file","server_name"}}: files on the edges' disks */
struct snap_upstream {
    struct str id, slug, name;
    enum snap_dialect dialect;
    enum snap_balance balance;
    struct snap_hash hash;
    enum snap_upstream_auth auth;
    struct str auth_header, credential_sealed;
    /* of https servers; "": the system's authorities, no certificate, the server's own name */
    struct str tls_ca_file, tls_cert_file, tls_key_file, tls_server_name;
    enum snap_transport transport;
    enum snap_http http;     /* of curl */
    unsigned max_streams;    /* of curl: at a time on a connection of HTTP/2 */
    struct snap_proxy proxy; /* of curl */
    uint64_t connect_ms, first_byte_ms, first_token_ms, idle_ms,
        total_ms;     /* defaults 5000, 300000, 300000, 120000, 3600000 */
    uint64_t retries; /* on other servers; default 1 */
    struct snap_retry retry;
    struct snap_check check;
    struct snap_eject eject;
    struct snap_breaker breaker;
    uint64_t cooldown_max_ms; /* of what an upstream asks for; 0: not honoured */
    uint64_t slow_start_ms;
    uint64_t queue_max, queue_ms; /* requests that wait for a server with room, per edge */
    const struct snap_server *servers;
    size_t servers_n;
    size_t index; /* in the snapshot */
};
bool snap_retries_status(const struct snap_upstream *u, unsigned status);

/* What the bodies on a route look like; AUTO decides by the path's end (…/chat/completions,
 * /completions, /embeddings, /responses, /messages, /models). */
enum snap_endpoint {
    SNAP_EP_AUTO,
    SNAP_EP_CHAT,
    SNAP_EP_COMPLETIONS,
    SNAP_EP_EMBEDDINGS,
    SNAP_EP_RESPONSES,
    SNAP_EP_MESSAGES,
    SNAP_EP_MODELS,
    SNAP_EP_PASSTHROUGH,
    SNAP_EP_COUNT_TOKENS /* Anthropic's count_tokens: known by its path, never configured */
};

enum snap_path_kind { SNAP_PATH_EXACT, SNAP_PATH_REGEX, SNAP_PATH_PREFIX };

/* A parameter of request bodies: what is sent upstream when the client gave none, and the most. */
struct snap_param {
    struct str name;
    struct str value; /* JSON text; p == NULL: no default */
    struct str max;   /* JSON text of a number; p == NULL: none */
    double max_number;
};

/* Header fields of what passes on: those of `remove` and of `set` go, then all of `set` and `add`
 * come. */
struct snap_field {
    struct str name, value;
};
struct snap_header_edits {
    const struct snap_field *set, *add;
    size_t set_n, add_n;
    struct snap_strings remove;
};
/* {"upstream":"<id>","upstream_model":null|"name"}: of the same dialect as the route's upstream */
struct snap_fallback {
    const struct snap_upstream *upstream;
    struct str upstream_model; /* p == NULL: the client's */
};
enum { SNAP_PARAMS_MAX = 16, SNAP_EDITS_MAX = 16, SNAP_HOSTS_MAX = 32 };

/* {"id","namespace","slug","priority","path":{"exact":"/api/chat"}|{"prefix":"/v1/"}|{"regex":"/t/([a-z]+)/.*"},
 *  "hosts":[…],"methods":[…],"models":[…],"endpoint","upstream":"<id>",
 *  "rewrite_path":null|"/v1/chat/completions","upstream_model":null|"name",
 *  "defaults":{"temperature":0.7,…},"max":{"max_tokens":4096,…},
 *  "headers":{"request":{"set":{…},"add":{…},"remove":[…]},"response":{…}},
 *  "fallbacks":[{"upstream":"<id>","upstream_model"?}]} */
struct snap_route {
    struct str id, slug;
    const struct snap_namespace *ns;
    int64_t priority;
    enum snap_path_kind path_kind;
    struct str path;           /* of a regular expression: its pattern, of the whole path */
    struct snap_strings hosts; /* "*" in front matches any run; without case */
    struct snap_strings methods;
    struct snap_strings models; /* patterns. Of all lists: empty is all */
    enum snap_endpoint endpoint;
    const struct snap_upstream *upstream;
    /* p == NULL: as the client sent it. rewrite_path of a regular expression: $0 to $9 are its
     * groups, $$ is a $ */
    struct str rewrite_path, upstream_model;
    const struct snap_param *params;
    size_t params_n;
    struct snap_header_edits request, response;
    const struct snap_fallback *fallbacks; /* tried in turn when the upstream cannot answer */
    size_t fallbacks_n;
};

/* {"id","slug","name","patterns":["qwen3-*"],"vocabulary":"qwen3","context_window",
 *  "price":{"currency","revision","input_nano","output_nano","cached_nano"}}: nano-units per token
 */
struct snap_model {
    struct str id, slug, name;
    struct snap_strings patterns; /* '*' matches any run; compared without case; never empty: the
                                     name, or the slug, when none were given */
    struct str vocabulary;        /* "": by built-in patterns */
    uint64_t context_window;      /* tokens; 0: unknown */
    struct str currency;
    int64_t price_revision, input_nano, output_nano, cached_nano;
};

enum { SNAP_HMAC_LEN = 32 };
/* {"id","namespace","slug","prefix","hmac":"<hex>","enabled","expires_at":null|RFC
 * 3339,"models":[…]} */
struct snap_key {
    struct str id, slug, prefix;
    const struct snap_namespace *ns;
    unsigned char hmac[SNAP_HMAC_LEN]; /* HMAC-SHA-256 of the key under KEY_PEPPER */
    bool enabled;
    uint64_t expires_at_ms; /* wall clock; 0: never */
    struct snap_strings models;
};

struct snapshot {
    uint64_t revision;
    char digest[65];
    const struct snap_namespace *namespaces;
    const struct snap_matcher *matchers; /* highest priority first, then by id */
    const struct snap_policy *policies;  /* highest priority first, then by id; disabled ones too */
    const struct snap_upstream *upstreams;
    const struct snap_route *routes; /* highest priority first, then exact before regex before
                                        prefix, longer before shorter, then by id */
    const struct snap_model *models; /* by slug */
    const struct snap_key *keys;     /* sorted by hmac */
    const struct snap_issuer *issuers;
    size_t namespaces_n, matchers_n, policies_n, upstreams_n, routes_n, models_n, keys_n, issuers_n;
    /* private */
    struct arena arena;
    _Atomic unsigned refs;
};

/* Builds a snapshot from its parts' texts (any order; pages excluded). References between entities
 * are resolved; one that leads nowhere, a value out of bounds or an unknown word is ERR_INVALID
 * with the place in why. The caller has checked the digests. Returns owned, with one reference. */
enum err snapshot_build(uint64_t revision, const char *digest, const struct str *parts, size_t n,
                        struct snapshot **ret, struct why *why) MUSTCHECK;
struct snapshot *snapshot_ref(struct snapshot *s);
void snapshot_unref(struct snapshot *s); /* NULL is fine */

/* Decodes one entity of a kind ("namespaces", "matchers", …) only to check its shape: every problem
 * is reported with the JSON pointer of the member, such as "/limit". For the admin API; the same
 * rules as snapshot_build(). */
typedef void (*snap_problem_fn)(void *ctx, const char *pointer, const char *message);
void snapshot_check_entity(const char *kind, const struct json *entity, snap_problem_fn fn,
                           void *ctx);

/* "1s", "250ms", "10m", "1h", "1d" in milliseconds. */
enum err snapshot_parse_window(struct str s, uint64_t *ret_ms) MUSTCHECK;

/* --- manifest and index --- */

struct snap_digest {
    char hex[65];
};
struct manifest {
    uint64_t revision;
    char digest[65];
    struct snap_digest *pages; /* owned */
    size_t pages_n;
};
/* Decodes and checks format, min_reader and digest. Free with manifest_done(). */
enum err manifest_parse(struct str text, struct manifest *ret, struct why *why) MUSTCHECK;
void manifest_done(struct manifest *m);
/* The digest of a manifest with these pages, as hexadecimal digits. */
void manifest_digest(const struct snap_digest *pages, size_t n, char out[65]);
/* Digests of the parts that a page lists, appended to a heap array the caller frees. */
enum err page_parse(struct str text, struct snap_digest **ret, size_t *ret_n,
                    struct why *why) MUSTCHECK;

#endif
