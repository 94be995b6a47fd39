/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How the mock answers one request: what it says, how fast, in which pieces, and what goes wrong.
 * Written as key=value pairs in the header `x-mock` (separated by ';'), behind an '@' in the
 * model's name (separated by ','), or as the process's default. Pure.
 */
#ifndef BEHAVE_H
#define BEHAVE_H

#include "base/buf.h"

enum chunking { CHUNKING_EVENT, CHUNKING_BATCH, CHUNKING_BYTES, CHUNKING_SPLIT };
enum framing { FRAMING_AUTO, FRAMING_LENGTH, FRAMING_CHUNKED, FRAMING_CLOSE };
enum eol { EOL_LF, EOL_CRLF, EOL_CR };
enum echo { ECHO_NONE, ECHO_PROMPT, ECHO_REQUEST };
enum usage_mode { USAGE_ASKED, USAGE_NONE, USAGE_ALWAYS, USAGE_CLAIM };
enum encoding { ENCODING_NONE, ENCODING_GZIP, ENCODING_DEFLATE };
enum bad_chunk { BAD_LETTER, BAD_PLUS, BAD_PREFIX, BAD_SPACE, BAD_LONG, BAD_NO_CRLF, BAD_BARE_LF };

enum fault {
    FAULT_NONE,
    FAULT_STATUS,  /* fail_arg: the status; retry_after */
    FAULT_REFUSE,  /* reset instead of an answer */
    FAULT_HANG,    /* never answer */
    FAULT_EARLY,   /* answer fail_arg when the head is there, and close */
    FAULT_GARBAGE, /* bytes that are not HTTP */
    FAULT_SLOW_HEADERS,
    FAULT_HANG_AFTER, /* fail_arg: events of a stream, bytes of a whole body */
    FAULT_RESET_AFTER,
    FAULT_CLOSE_AFTER,
    FAULT_NO_DONE,
    FAULT_NO_NEWLINE,
    FAULT_BAD_CHUNK,
    FAULT_BAD_JSON,
    FAULT_ERROR_EVENT,
    FAULT_BIG_EVENT,
    FAULT_TWO_LENGTHS,
    FAULT_LENGTH_AND_CHUNKED,
    FAULT_LONG_LENGTH,
    FAULT_EXTRA_BYTES,
    FAULT_INTERIM,
    FAULT_BIG_HEADER,
    FAULT_MANY_HEADERS,
    FAULT_NUL_HEADER,
    FAULT_BODY_ON_204,
};

enum { BEHAVE_MAX_HEADERS = 4 };

struct behave {
    int64_t tokens; /* of the content; -1: a natural length */
    int64_t reasoning;
    char tool[64]; /* name of the tool to call; "*": the first of the request */
    char finish[32];
    enum echo echo;
    bool ignore_max;
    enum usage_mode usage;
    uint64_t claim_prompt, claim_completion;

    int64_t ttft_ms, gap_ms;
    uint64_t interval_ns; /* between tokens; 0: as fast as can be */
    bool early_head;

    int64_t per_event; /* tokens */
    enum chunking chunking;
    uint64_t chunking_arg;
    int64_t wire; /* bytes of each write to the socket; 0: as they come */
    enum framing framing;
    enum eol eol;
    bool comments, bom, nospace, multiline, extra_fields;
    enum encoding encoding;

    enum fault fail;
    uint64_t fail_arg;
    enum bad_chunk bad_chunk;
    char retry_after[40];
    int64_t times; /* the fault strikes only this often per id; 0: always */
    bool close;    /* end the connection after the answer */

    char id[80], tag[48];
    size_t headers_len;
    char headers[BEHAVE_MAX_HEADERS][192]; /* "Name: value" */
};

void behave_init(struct behave *b);

/*
 * Takes key=value pairs separated by sep into b, over what it holds. White space around pairs is
 * ignored. ERR_INVALID says why; then b may hold some of them.
 */
enum err behave_parse(struct behave *b, struct str text, char sep, struct why *why) MUSTCHECK;

/* A model's name without what stands behind '@', which goes to *ret_rest (p == NULL: nothing). */
struct str behave_model(struct str name, struct str *ret_rest);

/* The table of keys and of faults, as Markdown. */
enum err behave_markdown(struct buf *out) MUSTCHECK;

#endif
