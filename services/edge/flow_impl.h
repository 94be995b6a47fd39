/* SPDX-License-Identifier: Apache-2.0 */
/* The flow's struct and what its files share: flow.c (head to admission), flow_body.c (the body),
 * flow_send.c (the request that goes upstream), flow_answer.c (the answer), flow_settle.c (the
 * record and the metrics). */
#ifndef EDGE_FLOW_IMPL_H
#define EDGE_FLOW_IMPL_H

#include "answer.h"
#include "base/arena.h"
#include "base/uuid.h"
#include "count.h"
#include "flow.h"
#include "http/chunked.h"
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

/* What is only needed until the answer begins: freed then, so that an open stream is small. */
struct asked {
    struct arena arena;
    struct chunked chunked;
    struct request_scan scan;  /* slices of the client's input buffer */
    struct count_result count; /* why, when the input cannot be counted */
    struct str head, body;     /* as they go upstream; sent again on a retry */
    struct buf edited;         /* the body, when it is not the client's own */
};

/* One exchange with a server. */
struct attempt {
    const struct snap_server *server;
    unsigned status; /* 0: no answer */
    uint64_t ms;
};

struct flow {
    struct worker *w;
    struct client *client; /* NULL when it is gone */
    struct ruleset *rules;
    enum flow_state state;
    struct asked *asked; /* NULL when the answer has begun */
    unsigned async;      /* callbacks that will still come: the flow stays until then */
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
    char client_ip[IDENTITY_LEN + 1], user[IDENTITY_LEN + 1]; /* as they are recorded */

    /* the body */
    size_t body_raw,
        body_len; /* of chunked: undecoded bytes begin at body_raw behind the head; decoded bytes */
    bool scanned, stream, wants_usage;
    enum snap_endpoint read_as; /* what it was scanned as */
    struct str model;           /* decoded; owned */
    struct str upstream_model;
    const struct snap_model *model_cfg;

    /* count and admission */
    uint64_t input_tokens;
    bool input_exact;
    struct model_info info; /* how the model counts; borrows from rules */
    struct admit_ticket ticket;
    bool admitted, injected_usage;
    uint64_t output_limit; /* tokens; METER_NO_LIMIT */

    /* upstream */
    const struct snap_server *server;
    struct exchange *exchange;
    uint64_t retries_left, attempt_began_ns;
    bool stale_retried, paused;
    struct attempt attempts[USAGE_ATTEMPTS_MAX]; /* the last ones; the one under way too */
    size_t attempts_n;

    /* the answer */
    int status; /* sent to the client, 0: none yet */
    enum relay_mode mode;
    struct answer *answer;
    struct buf
        gather; /* what goes to the client with the next flush; of RELAY_WHOLE: the whole body */
    uint64_t first_token_ns;
    uint64_t raw_bytes;
    struct str whole_fields; /* of RELAY_WHOLE: header lines; owned */
    bool stream_counted;

    /* the end */
    struct usage_handle *usage;
    struct str reject_policy, reject_dimension;
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

/* flow_body.c: reads the body as that endpoint's, unless it was; false when it was answered. What
 * is not read is not metered: nothing may pass to such an endpoint unread. */
bool flow_read_body(struct flow *f, enum snap_endpoint ep);
/* The model that a JSON body names, for matchers, when its path does not tell what it is. False
 * when it was answered. */
bool flow_peek_model(struct flow *f);

/* flow_send.c: builds the request. ERR_LIMIT, ERR_NOMEM. */
enum err flow_build_body(struct flow *f) MUSTCHECK;
enum err flow_build_head(struct flow *f) MUSTCHECK;

/* flow_answer.c: sends it, and everything behind. */
void flow_enter_wait(struct flow *f);
/* An answer that has begun cannot be completed: an error event where there is a stream, and an end
 * without terminator. The client is let go. */
void flow_break_answer(struct flow *f, enum refusal r, const char *text);

/* flow_settle.c: the one way out. After it the flow is gone, or goes when its callbacks have come.
 */
void flow_fill_record(const struct flow *f, struct usage_record *r); /* of a zeroed one */
void flow_settle(struct flow *f, enum usage_outcome outcome);
/* Nano-units for these tokens and the input; 0 when the model has no price. */
int64_t flow_cost(const struct flow *f, uint64_t cached, uint64_t output);
/* An attempt begins; its answer's head came; it is over. */
void flow_attempt_begins(struct flow *f);
void flow_attempt_answered(struct flow *f, unsigned status);
void flow_attempt_ends(struct flow *f);
/* The answer has begun, or never will: the request is not needed any more. */
void flow_forget_request(struct flow *f);
/* Header fields that every answer carries: x-request-id, x-aigw-revision, rate limits, overhead. */
enum err flow_own_fields(struct flow *f, struct buf *out) MUSTCHECK;

#endif
