/* SPDX-License-Identifier: Apache-2.0 */
/* The flow's struct and what its files share: flow.c (head to admission), flow_body.c (the body),
 * flow_send.c (the request that goes upstream), flow_upstream.c (to which server, and what is tried
 * next), flow_answer.c (the answer), flow_settle.c (the record and the metrics). */
#ifndef EDGE_FLOW_IMPL_H
#define EDGE_FLOW_IMPL_H

#include "limits/admit_local.h"
#include "dialects/answer.h"
#include "base/arena.h"
#include "base/uuid.h"
#include "count.h"
#include "upstreams/fleet.h"
#include "flow.h"
#include "http/chunked.h"
#include "http/gzip.h"
#include "match/match.h"
#include "match/params.h"
#include "match/tokens.h"
#include "match/ruleset.h"
#include "records/trace.h"
#include "upstreams/upstream.h"

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

struct flow;
struct decoding; /* flow_decode.c */

enum { BODY_MARKS = 128 }; /* of JSON: some 20 messages */

/* What is only needed until the answer begins: freed then, so that an open stream is small. */
struct asked {
    struct count_result count; /* why, when the input cannot be counted; not set before it is */
    struct arena arena;        /* from here to `match` all is zeroed */
    struct chunked chunked;
    struct request_scan scan;     /* slices of the client's input buffer */
    struct admit_subject subject; /* of policies */
    struct token *token;          /* that it was let in with */
    enum err token_err;           /* a token was presented, and not taken, because: */
    const char *token_why;
    struct keyring_waiter keys; /* while the keys of a token's issuer are being fetched */
    uint64_t key_fetches;       /* that had ended when it was looked at */
    uint64_t keys_until;        /* 0: it has not waited for keys */
    void (*keys_then)(struct flow *);
    struct str upstream_path; /* by the route */
    bool parsed;              /* the body is JSON, and what is below is known */
    struct js_val root;
    struct js_val *found;             /* by place in matching_body_wants() */
    struct match_values *members;     /* the same as texts */
    struct params *params;            /* of the route, when the body was scanned; NULL: none */
    struct str body;                  /* as it goes upstream; sent again on a retry */
    struct balance_ask ask;           /* of the upstream it goes to now */
    struct waiter waiter;             /* while no server has room */
    struct buf edited;                /* the body, when it is not the client's own */
    struct match_input match;         /* and of rules */
    struct js_mark marks[BODY_MARKS]; /* of root; not zeroed */
};

/* One exchange with a server. */
struct attempt {
    const struct snap_upstream *upstream;
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
    _Atomic bool gone;   /* it is settled: what is counted for it need not be */
    struct loop_timer timer;
    uint64_t began_ns, began_wall_ms, ready_ns, sent_ns, total_deadline, last_byte_ns;

    /* what the head told */
    char id[UUID_LEN + 1];
    char *request_id;  /* the client's own (owned), or id */
    bool head_decided; /* namespace and key are settled */
    const struct snap_namespace *ns;
    const struct snap_key *key;
    const struct snap_route *route;
    const struct snap_upstream *upstream;
    enum snap_endpoint endpoint;
    const struct dialect *dialect;
    bool is_head;
    char client_ip[IDENTITY_LEN + 1]; /* as it is recorded, and so the user: */
    char *user;                       /* owned, NULL: empty */

    /* the body */
    uint64_t body_max; /* bytes, and the policy that says so; NULL: the setting */
    const struct snap_policy *body_policy;
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
    struct model_info info;      /* how the model counts; borrows from rules */
    struct admit_ticket *ticket; /* from FLOW_ADMIT on */
    bool admitted, injected_usage, input_paid;
    unsigned char admissions;                /* how often it was tried */
    uint64_t output_limit;                   /* tokens; METER_NO_LIMIT */
    const struct snap_policy *output_shadow; /* an output_tokens limit in shadow mode */
    uint64_t asked_at_ns;                    /* the admission waits since then; 0: it did not */

    /* tokens under limits, see flow_tokens.c */
    uint64_t paid;                 /* of the answer's */
    uint64_t extend_at_ns;         /* no more are asked for ahead until then */
    bool extending;                /* asked for more: the callback will come */
    bool ended;                    /* the upstream's answer is whole, and waits for tokens */
    bool token_paused;             /* the upstream is not read: events wait for tokens */
    struct loop_timer slots_timer; /* when strict slots are looked at again */

    /* upstream */
    const struct snap_server *server;
    struct exchange *exchange;
    struct seat seat;
    struct str model_wanted; /* of the upstream; p == NULL: the client's */
    uint64_t retries_left, attempt_began_ns, retry_after_s; /* that the last failure told */
    uint32_t backoff_ms;
    uint8_t fallbacks_used;
    const char *http; /* of the answer by transport curl: its version; NULL: none */
    bool stale_retried, paused, waiting, backing_off, awaits_keys;
    /* The last ones, at most USAGE_ATTEMPTS_MAX; the one under way too. Most have one. */
    struct attempt *attempts; /* NULL, &attempt, or owned */
    struct attempt attempt;
    size_t attempts_n;

    /* the answer */
    int status; /* sent to the client, 0: none yet */
    enum relay_mode mode;
    struct answer *answer;
    struct buf
        gather; /* what goes to the client with the next flush; of RELAY_WHOLE: the whole body */
    uint64_t first_token_ns;
    uint64_t opened_ns; /* its first event came, and is held back since; 0: it is not */
    uint64_t raw_bytes;
    struct decoding *decoding; /* the upstream sends it compressed; NULL: it does not */
    struct str whole_fields;   /* of RELAY_WHOLE: header lines; owned */
    bool stream_counted;

    /* the end */
    struct usage_handle *usage;
    bool drained;                /* its client is gone, and the upstream is read to its end */
    struct list_node in_drained; /* of the worker */
    size_t bytes_in, bytes_out;  /* the head's, beside body_len; what went to the client */
    char *said;                  /* of the access log: members that the head told; owned */
    struct trace *trace;         /* NULL: none; owned */
    struct str reject_policy, reject_dimension;
    enum usage_outcome outcome;
    uint64_t progress_ns;
};

static inline struct edge *flow_edge(const struct flow *f)
{
    return f->w->edge;
}

/* A series of its worker's: counters and histograms. */
static inline struct metric *flow_metric(const struct flow *f, enum edge_metric m,
                                         const struct str *labels)
{
    return metrics_get(f->w->metrics, m, labels);
}

/* flow.c: ends the request with an answer of ours. param may be NULL. */
void flow_refuse(struct flow *f, enum refusal r, struct str message, const char *param);
/* The same for a policy that needs no counter, and for one that does. */
void flow_refuse_policy(struct flow *f, enum refusal r, const struct snap_policy *p,
                        struct str message, const char *param);
void flow_refuse_outcome(struct flow *f, enum refusal r, const struct admit_outcome *o,
                         struct str message);
/* Admitted: on to a server. */
void flow_forward(struct flow *f);

/* flow_limit.c: limits before it is forwarded. False: it was answered. */
void flow_bound_body(struct flow *f); /* body_max, by what is known of the request */
bool flow_body_fits(struct flow *f, uint64_t bytes);
bool flow_check_body(struct flow *f); /* the body is whole, and its model known */
bool flow_check_access(struct flow *f, bool model_pending);
bool flow_check_input(struct flow *f);
void flow_enter_admit(struct flow *f);
/* Once more, when what was reserved ended before it could be used. */
void flow_admit_again(struct flow *f);
void flow_refuse_limit(struct flow *f, const struct admit_outcome *o);

/* flow_tokens.c: limits while the answer passes. */
bool flow_tokens_limited(const struct flow *f);
/* Tokens of output that may be delivered by now, since the beginning. */
uint64_t flow_tokens_had(const struct flow *f);
/* Of an answer (answer.h, `more`): asks for more unless it is being asked for. */
uint64_t flow_tokens_more(void *flow, uint64_t wants);
/* Asks for more; of ADMIT_WAIT flow_tokens_came() tells the end. */
enum admit_verdict flow_tokens_extend(struct flow *f, uint64_t tokens);
/* Of a stream, behind each feed and before anything is sent: pays for what is in `gather`, and lets
 * pass what waited as far as tokens are to be had. */
enum err flow_tokens_pump(struct flow *f) MUSTCHECK;
/* Of an answer in one piece: pays for all of it. False: it cannot be delivered. */
bool flow_tokens_pay(struct flow *f);
/* Gives back what the request holds, and charges what it used. Once or more often: in front of the
 * answer's last bytes, since who has them may ask again at once, maybe of another worker; at the
 * latest when it is settled. Nothing may be paid for behind it. */
void flow_tokens_end(struct flow *f);
/* flow_answer.c: more tokens have come, or none. */
void flow_tokens_came(struct flow *f);
/* Cuts the request when strict slots of its are lost. */
void flow_watch_slots(struct flow *f);

/* flow_select.c: credentials, namespace, route and model, as far as the head tells, and the rest
 * when the body is there. False: it was answered. */
bool flow_select_by_head(struct flow *f);
bool flow_select_by_body(struct flow *f);
/* Whether the request waits for the keys of its token's issuer; when they are there, or after a
 * few seconds without, then() goes on. */
bool flow_await_keys(struct flow *f, void (*then)(struct flow *));
void flow_leave_keys(struct flow *f);
/* The body of GET /v1/models. */
enum err flow_list_models(const struct flow *f, struct buf *out) MUSTCHECK;
/* The header field Allow, of a 405. */
enum err flow_allow(const struct flow *f, struct buf *out) MUSTCHECK;

/* flow_body.c: reads the body as that endpoint's, unless it was; false when it was answered. What
 * is not read is not metered: nothing may pass to such an endpoint unread. */
bool flow_read_body(struct flow *f, enum snap_endpoint ep);
/* What matchers look at in a JSON body when its path does not tell what it is. False when it was
 * answered. */
bool flow_peek_body(struct flow *f);

/* flow_send.c: builds the request. ERR_LIMIT, ERR_NOMEM. */
enum err flow_build_body(struct flow *f) MUSTCHECK;
enum err flow_build_head(struct flow *f, struct buf *b) MUSTCHECK;

/* flow_upstream.c: which server it goes to, and what is tried next. */
/* Sets the timer by what is waited for now. */
void flow_arm(struct flow *f);
void flow_count_upstream_error(struct flow *f, const char *why);
/* The exchange is over without a whole answer; why: of the metric. */
void flow_attempt_failed(struct flow *f, const char *why);
/* The server's answer has a head: what that tells of the server. */
void flow_note_head(struct flow *f, const struct h1_response *res);
/* A status that is about the gateway's own credential: the answer is not for the client. */
bool flow_is_denied(const struct flow *f, unsigned status);
/* Ends the attempt and makes another, when it may be and is to be had; cause: SNAP_RETRY_*, or a
 * status. False: nothing has changed. */
bool flow_try_again(struct flow *f, unsigned cause, unsigned status);
/* Whether it does no harm when a server does it twice. */
bool flow_is_safe(const struct flow *f);
/* Whether another server could be tried should this attempt fail now. */
bool flow_may_try_again(const struct flow *f);
/* The same attempt once more, since its pooled connection was closed. */
void flow_again_on_fresh(struct flow *f);
/* Waits for a place no more. False: it did not, or on_place() is on its way. */
bool flow_leave_queue(struct flow *f);

/* flow_answer.c: the answer. */
extern const struct exchange_events flow_exchange_events;
/* The stream's own end came already: what breaks behind it takes nothing from the client. */
bool flow_has_ended(const struct flow *f);
void flow_end_stream(struct flow *f);
/* What opens the stream was held back long enough: it goes to the client. */
void flow_hold_no_longer(struct flow *f);
void flow_fail_with(struct flow *f, enum refusal r, const char *text);
/* An answer that has begun cannot be completed: an error event where there is a stream, and an end
 * without terminator. The client is let go. */
void flow_break_answer(struct flow *f, enum refusal r, const char *text);

/* flow_decode.c: a metered answer with this content coding; mode is set. False: it cannot be read.
 */
bool flow_decode_begin(struct flow *f, struct str coding);
/* Hands what data stands for to take, in pieces, until events wait for tokens: the rest is kept for
 * the next call, which may come without data. Errors of take, ERR_INVALID, ERR_LIMIT, ERR_NOMEM. */
enum err flow_decode(struct flow *f, struct str data,
                     enum err (*take)(struct flow *, struct str)) MUSTCHECK;
bool flow_decode_rests(const struct flow *f); /* something is kept */
bool flow_decode_ended(const struct flow *f); /* nothing is missing at the body's end */
size_t flow_decode_memory(const struct flow *f);
void flow_decode_done(struct flow *f); /* what comes next may not be compressed */

/* flow_log.c: what the head tells of the trace and for the access log; the request's line in it. */
void flow_note_request(struct flow *f);
void flow_log(struct flow *f, const struct usage_record *r);
void flow_log_forget(struct flow *f);
/* Fields for the upstream, and whether one of the client's ends here. */
enum err flow_trace_fields(const struct flow *f, struct buf *b) MUSTCHECK;
bool flow_is_trace_field(const struct flow *f, const struct h1_field *fl);

/* flow_drain.c: the client is gone; true when the request goes on without it for a while. */
bool flow_drain(struct flow *f);

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
