/* SPDX-License-Identifier: Apache-2.0 */
/* What an edge is told by its environment. Set before the first thread, and the same from then on.
 */
#ifndef EDGE_SETTINGS_H
#define EDGE_SETTINGS_H

#include "base/opt.h"
#include "records/usage.h"

struct edge_settings {
    const char *bind, *vocab_dir, *master_key, *key_pepper, *token_service_url, *identities,
        *admission_log, *tls_cert, *tls_key, *trusted_proxies, *address_field;
    int64_t port, workers, max_body, max_connections, head_timeout_ms, body_timeout_ms,
        idle_timeout_ms, write_timeout_ms;
    const char *access_log, *access_sample, *trace;
    const char *client_gone;
    int64_t drain_ms;
    int64_t max_head, max_fields, max_requests, max_per_address, memory_max;
    int64_t remote_count_bytes, ask_timeout_ms;
    bool precise, proxy_protocol;
    struct usage_settings usage;
};

extern const struct opt edge_opts[];
extern const size_t edge_opts_len;

/* What depends on another setting, or is one of several words: a sentence per problem. settings: a
 * struct edge_settings. */
void edge_settings_check(const void *settings, struct opt_problems *problems);

/* Of TRACE_CONTEXT. */
enum trace_mode { TRACE_OFF, TRACE_TAKE, TRACE_MAKE };
enum err trace_mode_parse(struct str s, enum trace_mode *ret) MUSTCHECK;

#endif
