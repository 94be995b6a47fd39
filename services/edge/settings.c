/* SPDX-License-Identifier: Apache-2.0 */
/* See the header. */
#include "settings.h"

#include <stddef.h>
#include <string.h>

#include "http/h1.h"
#include "net/address.h"
#include "records/access_log.h"
#include "records/identity.h"
#include "rt/crypto.h"

#define F(member) offsetof(struct edge_settings, member)
/* clang-format off */
const struct opt edge_opts[] = {
    { "GATEWAY_BIND", OPT_ADDRESS, F(bind), "127.0.0.1", 0, 0, NULL, "Address of the proxy's listener." },
    { "GATEWAY_PORT", OPT_INT, F(port), "8081", 1, 65535, NULL, "Port of the proxy's listener." },
    { "TLS_CERT_FILE", OPT_STR, F(tls_cert), NULL, 0, 0, NULL, "Certificate chain of the proxy's listener (PEM): set, the listener speaks TLS. A renewed file is taken without a restart." },
    { "TLS_KEY_FILE", OPT_STR, F(tls_key), NULL, 0, 0, NULL, "The certificate's key (PEM)." },
    { "TRUSTED_PROXIES", OPT_STR, F(trusted_proxies), NULL, 0, 0, NULL, "Networks of proxies in front, such as 10.0.0.0/8, 2001:db8::/32: from them ADDRESS_HEADER tells the client's address, taken from its right end." },
    { "ADDRESS_HEADER", OPT_STR, F(address_field), "x-forwarded-for", 0, 0, NULL, "The header field in which TRUSTED_PROXIES tell the client's address: x-forwarded-for or forwarded (RFC 7239). The other one is not looked at." },
    { "PROXY_PROTOCOL", OPT_BOOL, F(proxy_protocol), "false", 0, 0, NULL, "Every connection begins with a PROXY header (version 1 or 2), before TLS, from a load balancer; where TRUSTED_PROXIES is set, from those only." },
    { "EDGE_WORKERS", OPT_INT, F(workers), "0", 0, 256, NULL, "Threads that serve requests; 0: one per CPU." },
    { "MAX_BODY_BYTES", OPT_INT, F(max_body), "16777216", 1024, 1073741824, "bytes", "Largest request body: 413 beyond." },
    { "MAX_CONNECTIONS", OPT_INT, F(max_connections), "60000", 1, 1000000, NULL, "Client connections at a time; further ones are answered with 503 and closed." },
    { "MAX_CONNECTIONS_PER_ADDRESS", OPT_INT, F(max_per_address), "0", 0, 1000000, NULL, "Client connections at a time from one IPv4 address or IPv6 /64, as the edge sees it (behind a load balancer that is the balancer's): further ones are answered with 503 and closed. 0: no limit." },
    { "MAX_REQUESTS_PER_CONNECTION", OPT_INT, F(max_requests), "10000", 0, INT64_C(1) << 40, NULL, "Requests on one connection; the last one's answer says Connection: close. 0: no limit." },
    { "MAX_HEAD_BYTES", OPT_INT, F(max_head), "65536", 1024, 262144, "bytes", "Largest request line and header fields together: 431 beyond; the request line alone at most 16384: 414 beyond." },
    { "MAX_HEADER_FIELDS", OPT_INT, F(max_fields), "100", 8, H1_MAX_HEADERS, NULL, "Header fields of a request: 431 beyond." },
    { "MEMORY_MAX_BYTES", OPT_INT, F(memory_max), "1073741824", 0, INT64_C(1) << 40, "bytes", "Memory that requests, answers and connections may hold, before new requests (and bodies that are still coming) are refused with 503. 0: no limit." },
    { "HEAD_TIMEOUT_MS", OPT_INT, F(head_timeout_ms), "10000", 100, 600000, "ms", "How long a request's head may take." },
    { "BODY_TIMEOUT_MS", OPT_INT, F(body_timeout_ms), "60000", 100, 3600000, "ms", "How long a request's body may take." },
    { "IDLE_TIMEOUT_MS", OPT_INT, F(idle_timeout_ms), "75000", 100, 3600000, "ms", "How long a client's connection may be idle between requests." },
    { "WRITE_TIMEOUT_MS", OPT_INT, F(write_timeout_ms), "60000", 100, 3600000, "ms", "How long a client may take nothing of its answer." },
    { "VOCAB_DIR", OPT_STR, F(vocab_dir), "vocab", 0, 0, NULL, "Folder of the vocabularies (*.aigwvocab and models' folders), which is watched." },
    { "TOKEN_SERVICE_URL", OPT_URL, F(token_service_url), NULL, 0, 0, NULL, "Address of a token service, such as http://token:8002: long prompts are counted there over HTTP instead of over the bus." },
    { "USE_PRECISE_TOKEN_CALCULATION", OPT_BOOL, F(precise), "true", 0, 0, NULL, "false: estimate tokens (marked as such) instead of counting them." },
    { "REMOTE_COUNT_BYTES", OPT_INT, F(remote_count_bytes), "65536", 0, 1073741824, "bytes", "Prompts above this are counted off the worker's thread, so that they do not stall its streams." },
    { "ASK_TIMEOUT_MS", OPT_INT, F(ask_timeout_ms), "50", 5, 10000, "ms", "How long a request waits for the policy engine when leases do not cover it; then on_unavailable of its policies decides." },
    { "MASTER_KEY", OPT_SECRET, F(master_key), NULL, 0, 0, NULL, "64 hex digits: opens the upstreams' credentials; the same as the config center's." },
    { "KEY_PEPPER", OPT_SECRET, F(key_pepper), NULL, 0, 0, NULL, "64 hex digits: virtual keys are known by their HMAC under it; the same as the config center's." },
    { "USAGE_IDENTITIES", OPT_STR, F(identities), "hash", 0, 0, NULL, "The client's address and user in usage records: plain, hash (the same value always gives the same digits, under KEY_PEPPER), or none." },
    { "ACCESS_LOG", OPT_STR, F(access_log), "off", 0, 0, NULL, "A file to which each request is written as a line of JSON, - for standard output, or off. A file that was renamed is opened anew, at SIGHUP at once." },
    { "ACCESS_LOG_SAMPLE", OPT_STR, F(access_sample), "1", 0, 0, NULL, "The part of requests that are written to the access log, 0 to 1; those that did not end well all are." },
    { "TRACE_CONTEXT", OPT_STR, F(trace), "take", 0, 0, NULL, "W3C trace context: take (a traceparent that is valid is passed on with a span of ours), make (requests without one get one), off (it passes like any field)." },
    { "ON_CLIENT_GONE", OPT_STR, F(client_gone), "cancel", 0, 0, NULL, "What becomes of an answer that has begun when its client leaves: cancel (the upstream is closed at once) or drain (it is read to its end, so that the usage it reports is known; what comes is counted and thrown away)." },
    { "CLIENT_GONE_DRAIN_MS", OPT_INT, F(drain_ms), "10000", 100, 600000, "ms", "How long drain may take; then the upstream is closed." },
    { "ADMISSION_LOG", OPT_STR, F(admission_log), NULL, 0, 0, NULL, "For tests: a file to which every admission and every paid token is written, with the clock reading that decided it. Slow." },
    USAGE_OPTS(struct edge_settings, usage),
};
/* clang-format on */
#undef F

const size_t edge_opts_len = ARRAY_LEN(edge_opts);

enum err trace_mode_parse(struct str s, enum trace_mode *ret)
{
    static const char *const words[] = { "off", "take", "make" };
    for (size_t i = 0; i < ARRAY_LEN(words); i++)
        if (str_eqz(s, words[i])) return *ret = (enum trace_mode)i, ERR_OK;
    return ERR_INVALID;
}

void edge_settings_check(const void *settings, struct opt_problems *problems)
{
    const struct edge_settings *s = settings;
    unsigned char key[32];
    struct why why;
    if (crypto_parse_key(str_of(s->master_key), key, &why) != ERR_OK)
        opt_problem(problems, "MASTER_KEY: %s", why.text);
    if (crypto_parse_key(str_of(s->key_pepper), key, &why) != ERR_OK)
        opt_problem(problems, "KEY_PEPPER: %s", why.text);
    if ((*s->tls_cert != '\0') != (*s->tls_key != '\0'))
        opt_problem(problems, "TLS_CERT_FILE and TLS_KEY_FILE go together: %s is not set",
                    *s->tls_cert != '\0' ? "TLS_KEY_FILE" : "TLS_CERT_FILE");
    if (*s->token_service_url != '\0' && strncmp(s->token_service_url, "http://", 7) != 0 &&
        strncmp(s->token_service_url, "https://", 8) != 0)
        opt_problem(problems, "TOKEN_SERVICE_URL: must be http://host:port or https://host:port");
    enum address_field field;
    struct address_networks networks;
    if (address_networks_parse(s->trusted_proxies, &networks, &why) != ERR_OK)
        opt_problem(problems, "TRUSTED_PROXIES: %s", why.text);
    if (address_field_parse(str_of(s->address_field), &field) != ERR_OK)
        opt_problem(problems, "ADDRESS_HEADER: \"%s\" is not x-forwarded-for or forwarded",
                    s->address_field);
    unsigned sample;
    enum trace_mode trace;
    if (strcmp(s->client_gone, "cancel") != 0 && strcmp(s->client_gone, "drain") != 0)
        opt_problem(problems, "ON_CLIENT_GONE: \"%s\" is not cancel or drain", s->client_gone);
    if (access_log_parse_sample(str_of(s->access_sample), &sample) != ERR_OK)
        opt_problem(problems, "ACCESS_LOG_SAMPLE: \"%s\" is not from 0 to 1", s->access_sample);
    if (trace_mode_parse(str_of(s->trace), &trace) != ERR_OK)
        opt_problem(problems, "TRACE_CONTEXT: \"%s\" is not off, take or make", s->trace);
    enum identity_mode mode;
    if (identity_mode_parse(str_of(s->identities), &mode) != ERR_OK)
        opt_problem(problems, "USAGE_IDENTITIES: \"%s\" is not plain, hash or none", s->identities);
}
