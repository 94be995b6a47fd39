/* SPDX-License-Identifier: Apache-2.0 */
/* The flow's struct and what its files share: flow.c (head to admission), flow_send.c (the request
 * that goes upstream), flow_answer.c (the answer), flow_settle.c (the record and the metrics). */
#ifndef EDGE_FLOW_IMPL_H
#define EDGE_FLOW_IMPL_H

#include "answer.h"
#include "base/arena.h"
#include "base/uuid.h"
#include "count.h"
#include "flow.h"
#include "ruleset.h"
#include "upstream.h"

enum {
    FLOW_ARENA_MAX = 1024 * 1024,
    REQUEST_ID_MAX = 128,
    ANSWER_WHOLE_MAX = 32 * 1024 * 1024, /* bytes of an answer that is metered as a whole */
    CLIENT_HIGH_WATER = 256 *
                        1024 /* bytes that wait for the client: beyond, the upstream is not read */
};

/* How the answer's body is passed on. */
enum relay_mode {
    RELAY_RAW,    /* as it comes */
    RELAY_STREAM, /* events, metered */
    RELAY_WHOLE   /* gathered, then metered */
};

struct flow {
    struct worker *w;
    struct client *client; /* NULL when it is gone */
    struct ruleset *rules;
    enum flow_state state;
    struct arena arena;
    unsigned async; /* callbacks that will still come: the flow stays until then */
    struct loop_timer timer;
    uint64_t began_ns, began_wall_ms, ready_ns, sent_ns, total_deadline, last_byte_ns;

    /* what the head told */
    char id[UUID_LEN + 1], request_id[REQUEST_ID_MAX + 1];
    bool head_decided; /* namespace and key are settled */
    const struct snap_namespace *ns;
    const struct snap_key *key;
    const struct snap_route *route;
    const struct snap_upstream *upstream;
    enum snap_endpoint endpoint;
    const struct dialect *dialect;
    bool is_head;

    /* the body */
    size_t body_raw,
        body_len; /* of chunked: undecoded bytes begin at body_raw behind the head; decoded bytes */
    bool body_done;
    struct chunked *chunked; /* in the arena */
    struct request_scan scan;
    bool scanned;
    struct str model, upstream_model; /* decoded, in the arena */
    const struct snap_model *model_cfg;

    /* count and admission */
    struct count_result count;
    struct model_info info; /* how the model counts; borrows from rules */
    struct admit_ticket ticket;
    bool admitted, injected_usage;
    uint64_t output_limit; /* tokens; METER_NO_LIMIT */

    /* upstream */
    const struct snap_server *server;
    struct exchange *exchange;
    struct str up_head, up_body; /* in the arena; sent again on a retry */
    uint64_t retries_left, attempt_began_ns;
    bool stale_retried, paused;

    /* the answer */
    int status; /* sent to the client, 0: none yet */
    enum relay_mode mode;
    struct answer *answer;
    struct buf
        gather; /* what goes to the client with the next flush; of RELAY_WHOLE: the whole body */
    uint64_t first_token_ns;
    uint64_t raw_bytes;
    struct str whole_fields; /* of RELAY_WHOLE: header lines, in the arena */
    bool stream_counted;

    /* the end */
    struct usage_handle *usage;
    struct usage_record record;
    enum usage_outcome outcome;
    uint64_t progress_ns;
};

static inline struct edge *flow_edge(const struct flow *f)
{
    return f->w->edge;
}

/* flow.c: ends the request with an answer of ours. param may be NULL. */
void flow_refuse(struct flow *f, enum refusal r, struct str message, const char *param);
/* The same with a policy's verdict. */
void flow_refuse_limit(struct flow *f, const struct admit_outcome *o);

/* flow_send.c: builds the request. ERR_LIMIT, ERR_NOMEM. */
enum err flow_build_body(struct flow *f) MUSTCHECK;
enum err flow_build_head(struct flow *f) MUSTCHECK;

/* flow_answer.c: sends it, and everything behind. */
void flow_enter_wait(struct flow *f);

/* flow_settle.c: the one way out. After it the flow is gone, or goes when its callbacks have come.
 */
void flow_fill_record(struct flow *f);
void flow_settle(struct flow *f, enum usage_outcome outcome);
/* Nano-units for these tokens and the input; 0 when the model has no price. */
int64_t flow_cost(const struct flow *f, uint64_t cached, uint64_t output);
void flow_note_attempt(struct flow *f, unsigned status);
/* Header fields that every answer carries: x-request-id, x-aigw-revision, rate limits, overhead. */
enum err flow_own_fields(struct flow *f, struct buf *out) MUSTCHECK;

#endif
