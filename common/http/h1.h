/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Heads of HTTP/1.1 messages (RFC 9112), parsed strictly: what two parsers could read in two ways
 * is refused, never guessed. Pure: no I/O, no allocation, no state outside the struct; any thread.
 *
 *      buf                        head.len                                  n
 *      | start line, fields, CRLF |  body (content_length, chunked, ...)     |
 *
 * The bytes of one message begin at buf[0]. Call again with the same struct and the same buffer
 * (it may have moved) when more bytes came: only the new ones are searched for the end of the head.
 * Every view in the result points into buf and is valid while the buffer stays where it is; on
 * H1_DONE only.
 *
 * Refused beside what the grammar refuses: a bare CR or LF, an empty line in front, obs-fold, white
 * space before a colon, any second Content-Length or Host (equal or not), Content-Length together
 * with Transfer-Encoding, a Transfer-Encoding other than the one word "chunked", a target that is
 * not plain RFC 3986 (the query may hold []{}|^` as browsers send them), and names that differ from
 * a well-known one by '_' for '-' only (Content_Length, X_Api_Key), since some servers read them as
 * the same; other names with '_' are accepted.
 */
#ifndef HTTP_H1_H
#define HTTP_H1_H

#include "base/buf.h"
#include "base/str.h"

enum h1_status {
    H1_MORE, /* the head is not complete */
    H1_DONE,
    H1_BAD, /* see struct h1_error; the connection cannot be used any more */
};

enum { H1_MAX_HEADERS = 100 };

struct h1_limits {
    size_t head;    /* bytes of start line and fields together: 431 beyond */
    size_t line;    /* bytes of the request line: 414 beyond */
    size_t headers; /* at most H1_MAX_HEADERS: 431 beyond */
};
#define H1_LIMITS_DEFAULT                                               \
    {                                                                   \
        .head = 64 * 1024, .line = 16 * 1024, .headers = H1_MAX_HEADERS \
    }

struct h1_error {
    int status;         /* what to answer: 400, 414, 417, 431, 501, 505; 502 for a bad response */
    const char *reason; /* a static sentence without anything the peer sent */
};

enum h1_method {
    H1_OTHER, /* a token we have no name for */
    H1_GET,
    H1_HEAD,
    H1_POST,
    H1_PUT,
    H1_PATCH,
    H1_DELETE,
    H1_OPTIONS,
    H1_TRACE,
};

/* Well-known field names, in order of length: each is found without a search. */
enum h1_known {
    H1_UNKNOWN,
    H1_TE,
    H1_DATE,
    H1_HOST,
    H1_ALLOW,
    H1_ACCEPT,
    H1_COOKIE,
    H1_EXPECT,
    H1_ORIGIN,
    H1_SERVER,
    H1_TRAILER,
    H1_UPGRADE,
    H1_FORWARDED,
    H1_X_API_KEY,
    H1_CONNECTION,
    H1_KEEP_ALIVE,
    H1_SET_COOKIE,
    H1_TRACESTATE,
    H1_USER_AGENT,
    H1_RETRY_AFTER,
    H1_TRACEPARENT,
    H1_CONTENT_TYPE,
    H1_X_REQUEST_ID,
    H1_AUTHORIZATION,
    H1_CONTENT_LENGTH,
    H1_RETRY_AFTER_MS,
    H1_X_SHOULD_RETRY,
    H1_ACCEPT_ENCODING,
    H1_X_FORWARDED_FOR,
    H1_CONTENT_ENCODING,
    H1_PROXY_CONNECTION,
    H1_X_FORWARDED_HOST,
    H1_TRANSFER_ENCODING,
    H1_ANTHROPIC_VERSION,
    H1_X_FORWARDED_PROTO,
    H1_PROXY_AUTHENTICATE,
    H1_PROXY_AUTHORIZATION,
    H1_KNOWN_MAX
};

struct h1_field {
    struct str name, value; /* the value without white space around it; may be empty */
    enum h1_known known;
};

enum h1_framing {
    H1_BODY_NONE,    /* no body follows */
    H1_BODY_LENGTH,  /* content_length bytes follow (may be 0) */
    H1_BODY_CHUNKED, /* see chunked.h */
    H1_BODY_CLOSE,   /* of responses: up to the end of the connection */
};

/* What requests and responses share. */
struct h1_head {
    size_t scan_from;   /* how far the search for the end got */
    bool start_checked; /* the start line was looked at already */

    size_t len;        /* bytes of the head with the empty line */
    int version_minor; /* 0 or 1 */
    enum h1_framing framing;
    uint64_t content_length; /* of H1_BODY_LENGTH, else 0; at most 2^63 - 1 */
    bool keep_alive;         /* the connection may carry another message after this one */
    bool upgrade;            /* Connection names "upgrade" */
    size_t fields_len;
    uint8_t first[H1_KNOWN_MAX]; /* 1 + place of the first field of that name; 0: none */
    struct h1_field fields[H1_MAX_HEADERS];
};

struct h1_request {
    struct h1_head head;
    enum h1_method method;
    struct str method_str;
    struct str target;      /* as received */
    struct str path, query; /* path: begins with '/', or is "*"; query: behind '?', p == NULL when
                               there is no '?'. Both as received, percent signs and all */
    struct str host;        /* of the absolute target, else of Host; n = 0 with HTTP/1.0 only */
    bool expect_continue;   /* Expect: 100-continue; never with HTTP/1.0 */
};

struct h1_response {
    struct h1_head head;
    int status; /* 100 to 599; an answer below 200 is an interim one: parse on behind it */
    struct str reason;
};

/* Before the first byte of each message: zeroes all but the fields' places. */
void h1_begin(struct h1_head *head);

enum h1_status h1_parse_request(const char *buf, size_t n, const struct h1_limits *limits,
                                struct h1_request *ret, struct h1_error *err);

/* to_head: the request was HEAD, so no body follows whatever the fields say. */
enum h1_status h1_parse_response(const char *buf, size_t n, const struct h1_limits *limits,
                                 bool to_head, struct h1_response *ret, struct h1_error *err);

/* The value of the first field of that name, without regard to case; p == NULL when there is none.
 */
struct str h1_header(const struct h1_head *head, struct str name);
static inline struct str h1_header_known(const struct h1_head *head, enum h1_known k)
{
    return head->first[k] != 0 ? head->fields[head->first[k] - 1].value : STR_NULL;
}

enum h1_known h1_known_of(struct str name);
/* The same; `loose` takes '_' in s for '-'. */
enum h1_known h1_known_lookup(struct str s, bool loose);
struct str h1_known_name(enum h1_known k); /* in lower case */

/* Fields that belong to one connection and are never passed on (RFC 9110, 7.6.1). What Connection
 * names beside them: h1_connection_has(). */
bool h1_is_hop_by_hop(struct str name);
bool h1_known_is_hop_by_hop(enum h1_known k);
bool h1_field_is_hop_by_hop(const struct h1_field *f);

/* The tokens of all Connection fields: struct h1_tokens it = { 0 }; while
 * (h1_connection_next(head, &it, &token)) ... */
struct h1_tokens {
    size_t field; /* the next one to look at */
    struct str rest;
};
bool h1_connection_next(const struct h1_head *head, struct h1_tokens *it, struct str *ret);
bool h1_connection_has(const struct h1_head *head, struct str token);

/* For building messages out of parsed or configured parts: what may stand there. */
bool h1_is_token(struct str s); /* at least one character */
bool h1_is_field_value(struct str s);
/* "name: value\r\n"; both may stand there. */
static inline enum err MUSTCHECK h1_put_field(struct buf *out, struct str name, struct str value)
{
    return buf_put(out, name, STR(": "), value, STR("\r\n"));
}

#endif
