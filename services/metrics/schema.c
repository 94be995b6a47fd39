/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tables of the ledger. Statements that SQLite and MySQL both take.
 *
 * usage_records  one row per request; body is the message without the client's data, which ages out
 * usage_dims     the label values behind a roll-up's dim
 * usage_names    what a namespace is called now: its usage is kept by id
 * usage_rollups  sums; step_s 0 is all time (start_ms 0). latency_0 … are counts per bucket
 */
#include "store_impl.h"

const struct db_migration store_migrations[] = {
    { 1,
      "ledger and roll-ups",
      { "CREATE TABLE IF NOT EXISTS usage_records ("
        "id VARCHAR(36) NOT NULL PRIMARY KEY, ts_ms BIGINT NOT NULL, "
        "stored_ms BIGINT NOT NULL, "
        "namespace_id VARCHAR(128) NOT NULL, key_id VARCHAR(128) NOT NULL, "
        "model VARCHAR(768) NOT NULL, outcome VARCHAR(16) NOT NULL, status INT NOT NULL, "
        "input_tokens BIGINT NOT NULL, output_tokens BIGINT NOT NULL, "
        "client_ip VARCHAR(768), user_name VARCHAR(768), body TEXT NOT NULL, "
        /* Indexes, in the one spelling that both take inside of CREATE TABLE. */
        "UNIQUE (stored_ms, id), UNIQUE (namespace_id, id))",
        "CREATE TABLE IF NOT EXISTS usage_dims ("
        "dim VARCHAR(32) NOT NULL PRIMARY KEY, namespace_id VARCHAR(128) NOT NULL, "
        "model VARCHAR(128) NOT NULL, route VARCHAR(128) NOT NULL, "
        "upstream VARCHAR(128) NOT NULL, key_id VARCHAR(128) NOT NULL, "
        "outcome VARCHAR(16) NOT NULL, status INT NOT NULL, currency VARCHAR(128) NOT NULL)",
        "CREATE TABLE IF NOT EXISTS usage_names ("
        "namespace_id VARCHAR(128) NOT NULL PRIMARY KEY, slug VARCHAR(63) NOT NULL)",
        "CREATE TABLE IF NOT EXISTS usage_rollups ("
        "step_s INT NOT NULL, start_ms BIGINT NOT NULL, dim VARCHAR(32) NOT NULL, "
        "requests BIGINT NOT NULL, input_tokens BIGINT NOT NULL, output_tokens BIGINT NOT NULL, "
        "cached_tokens BIGINT NOT NULL, reasoning_tokens BIGINT NOT NULL, "
        "cost_nano BIGINT NOT NULL, duration_ms BIGINT NOT NULL, overhead_us BIGINT NOT NULL, "
        "ttft_ms BIGINT NOT NULL, ttft_count BIGINT NOT NULL, "
        "latency_0 BIGINT NOT NULL, latency_1 BIGINT NOT NULL, latency_2 BIGINT NOT NULL, "
        "latency_3 BIGINT NOT NULL, latency_4 BIGINT NOT NULL, latency_5 BIGINT NOT NULL, "
        "latency_6 BIGINT NOT NULL, latency_7 BIGINT NOT NULL, latency_8 BIGINT NOT NULL, "
        "latency_9 BIGINT NOT NULL, latency_10 BIGINT NOT NULL, latency_11 BIGINT NOT NULL, "
        "latency_12 BIGINT NOT NULL, latency_13 BIGINT NOT NULL, latency_14 BIGINT NOT NULL, "
        "PRIMARY KEY (step_s, start_ms, dim))" } },
};
const size_t store_migrations_n = ARRAY_LEN(store_migrations);
