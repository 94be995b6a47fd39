/* SPDX-License-Identifier: Apache-2.0 */
/* Keys of behaviours: one table that parses and documents them. Pure. */
#include "behave.h"

#include "http/h1.h"

enum kind { K_INT, K_FLAG, K_ENUM, K_TEXT, K_SPECIAL };

struct word {
    const char *name;
    int value;
};

struct key {
    const char *name;
    enum kind kind;
    size_t offset, size; /* size: of the char array of K_TEXT */
    int64_t min, max;    /* of K_INT */
    const struct word *words;
    enum err (*parse)(struct behave *b, struct str value, struct why *why);
    const char *doc;
};

static const struct word framings[] = { { "length", FRAMING_LENGTH },
                                        { "chunked", FRAMING_CHUNKED },
                                        { "close", FRAMING_CLOSE },
                                        { NULL, 0 } };
static const struct word eols[] = {
    { "lf", EOL_LF }, { "crlf", EOL_CRLF }, { "cr", EOL_CR }, { NULL, 0 }
};
static const struct word echoes[] = { { "prompt", ECHO_PROMPT },
                                      { "request", ECHO_REQUEST },
                                      { NULL, 0 } };
static const struct word encodings[] = { { "gzip", ENCODING_GZIP },
                                         { "deflate", ENCODING_DEFLATE },
                                         { NULL, 0 } };
static const struct word bad_chunks[] = { { "letter", BAD_LETTER }, { "plus", BAD_PLUS },
                                          { "prefix", BAD_PREFIX }, { "space", BAD_SPACE },
                                          { "long", BAD_LONG },     { "nocrlf", BAD_NO_CRLF },
                                          { "lf", BAD_BARE_LF },    { NULL, 0 } };

struct fault_word {
    const char *name;
    enum fault fault;
    bool takes_arg;
    uint64_t def, max;
    const char *doc;
};
static const struct fault_word faults[] = {
    { "refuse", FAULT_REFUSE, false, 0, 0, "reset the connection instead of answering" },
    { "hang", FAULT_HANG, false, 0, 0, "never answer, keep the connection" },
    { "early", FAULT_EARLY, true, 413, 599,
      "answer this status (413) before the body is read, then close; header or default only" },
    { "garbage", FAULT_GARBAGE, false, 0, 0, "answer with bytes that are not HTTP" },
    { "slow_headers", FAULT_SLOW_HEADERS, true, 100, 60000,
      "one byte of the head every so many ms (100)" },
    { "hang_after", FAULT_HANG_AFTER, true, 1, UINT32_MAX,
      "stop after so many events (bytes of a body that is not streamed), keep the connection" },
    { "reset_after", FAULT_RESET_AFTER, true, 1, UINT32_MAX, "the same, then RST" },
    { "close_after", FAULT_CLOSE_AFTER, true, 1, UINT32_MAX, "the same, then FIN, no terminator" },
    { "no_done", FAULT_NO_DONE, false, 0, 0,
      "end the stream properly for HTTP, without its last event ([DONE], message_stop, ...)" },
    { "no_newline", FAULT_NO_NEWLINE, false, 0, 0,
      "leave the line ends behind the last event away" },
    { "bad_json", FAULT_BAD_JSON, true, 2, UINT32_MAX,
      "event number so many (2, counted from 0) is cut in the middle; a whole body, too" },
    { "error_event", FAULT_ERROR_EVENT, true, 0, UINT32_MAX,
      "an error event after so many events (0), then the end" },
    { "big_event", FAULT_BIG_EVENT, true, 1 << 20, 1 << 28,
      "the third event has a content of so many bytes" },
    { "two_lengths", FAULT_TWO_LENGTHS, false, 0, 0, "Content-Length twice, differing" },
    { "length_and_chunked", FAULT_LENGTH_AND_CHUNKED, false, 0, 0,
      "Content-Length with Transfer-Encoding" },
    { "long_length", FAULT_LONG_LENGTH, false, 0, 0,
      "Content-Length is 100 more than what comes before FIN" },
    { "extra_bytes", FAULT_EXTRA_BYTES, false, 0, 0, "bytes behind the end of the answer" },
    { "interim", FAULT_INTERIM, true, 1, 100000, "so many 103 answers first" },
    { "big_header", FAULT_BIG_HEADER, true, 1 << 20, 1 << 24, "a field of so many bytes" },
    { "many_headers", FAULT_MANY_HEADERS, true, 10000, 1000000, "so many fields" },
    { "nul_header", FAULT_NUL_HEADER, false, 0, 0, "a NUL in a field value" },
    { "body_on_204", FAULT_BODY_ON_204, false, 0, 0, "status 204 with a body" },
};

/* --- values with a form of their own --- */

static enum err parse_tps(struct behave *b, struct str v, struct why *why)
{
    uint64_t tps;
    if (str_to_u64(v, &tps) != ERR_OK || tps > 1000000000)
        return why_set(why, ERR_INVALID, "tps: tokens per second, 0 to 1000000000");
    b->interval_ns = tps == 0 ? 0 : 1000000000 / tps;
    return ERR_OK;
}

static enum err parse_chunking(struct behave *b, struct str v, struct why *why)
{
    struct str rest = v, name = str_cut(&rest, ':');
    uint64_t arg = 1;
    if (str_eqz(name, "event") && rest.p == NULL) {
        b->chunking = CHUNKING_EVENT;
        return ERR_OK;
    }
    if (rest.p == NULL || str_to_u64(rest, &arg) != ERR_OK)
        return why_set(why, ERR_INVALID, "chunking: event, batch:K, bytes:K or split:SEED");
    if (str_eqz(name, "split")) {
        b->chunking = CHUNKING_SPLIT;
    } else if (arg == 0 || arg > 1 << 20) {
        return why_set(why, ERR_INVALID, "chunking: K is 1 to 1048576");
    } else if (str_eqz(name, "batch")) {
        b->chunking = CHUNKING_BATCH;
    } else if (str_eqz(name, "bytes")) {
        b->chunking = CHUNKING_BYTES;
    } else {
        return why_set(why, ERR_INVALID, "chunking: event, batch:K, bytes:K or split:SEED");
    }
    b->chunking_arg = arg;
    return ERR_OK;
}

static enum err parse_usage(struct behave *b, struct str v, struct why *why)
{
    struct str rest = v, first = str_cut(&rest, ':');
    if (str_eqz(v, "asked")) {
        b->usage = USAGE_ASKED;
    } else if (str_eqz(v, "none")) {
        b->usage = USAGE_NONE;
    } else if (str_eqz(v, "always")) {
        b->usage = USAGE_ALWAYS;
    } else if (rest.p != NULL && str_to_u64(first, &b->claim_prompt) == ERR_OK &&
               str_to_u64(rest, &b->claim_completion) == ERR_OK) {
        b->usage = USAGE_CLAIM;
    } else {
        return why_set(why, ERR_INVALID, "usage: asked, none, always or PROMPT:COMPLETION");
    }
    return ERR_OK;
}

static enum err parse_fail(struct behave *b, struct str v, struct why *why)
{
    struct str rest = v, name = str_cut(&rest, ':');
    uint64_t status;
    b->retry_after[0] = '\0';
    if (str_eqz(name, "none") && rest.p == NULL) {
        b->fail = FAULT_NONE;
        return ERR_OK;
    }
    if (name.n == 3 && str_to_u64(name, &status) == ERR_OK && status >= 400 && status <= 599) {
        b->fail = FAULT_STATUS;
        b->fail_arg = status;
        if (rest.p != NULL &&
            (!h1_is_field_value(rest) || !str_copyz(b->retry_after, sizeof b->retry_after, rest)))
            return why_set(why, ERR_INVALID, "fail: Retry-After is too long or no field value");
        return ERR_OK;
    }
    if (str_eqz(name, "bad_chunk")) {
        b->bad_chunk = BAD_LETTER;
        for (const struct word *w = bad_chunks; rest.p != NULL; w++) {
            if (w->name == NULL)
                return why_set(why, ERR_INVALID,
                               "fail: bad_chunk: letter, plus, prefix, space, long, nocrlf or lf");
            if (!str_eqz(rest, w->name)) continue;
            b->bad_chunk = (enum bad_chunk)w->value;
            break;
        }
        b->fail = FAULT_BAD_CHUNK;
        return ERR_OK;
    }
    for (size_t i = 0; i < ARRAY_LEN(faults); i++) {
        const struct fault_word *f = &faults[i];
        if (!str_eqz(name, f->name)) continue;
        b->fail_arg = f->def;
        if (rest.p != NULL &&
            (!f->takes_arg || str_to_u64(rest, &b->fail_arg) != ERR_OK || b->fail_arg > f->max))
            return why_set(why, ERR_INVALID, "fail: what stands behind %s: is not in range",
                           f->name);
        if (f->fault == FAULT_EARLY && b->fail_arg < 200)
            return why_set(why, ERR_INVALID, "fail: early: is a status from 200");
        b->fail = f->fault;
        return ERR_OK;
    }
    return why_set(why, ERR_INVALID, "fail: no such fault");
}

static enum err parse_header(struct behave *b, struct str v, struct why *why)
{
    const char *colon = v.n > 0 ? memchr(v.p, ':', v.n) : NULL;
    if (colon == NULL || !h1_is_token(str_n(v.p, (size_t)(colon - v.p))) || !h1_is_field_value(v))
        return why_set(why, ERR_INVALID, "header: Name:value");
    if (b->headers_len == BEHAVE_MAX_HEADERS || v.n >= sizeof b->headers[0])
        return why_set(why, ERR_INVALID, "header: too many or too long");
    str_copyz(b->headers[b->headers_len++], sizeof b->headers[0], v);
    return ERR_OK;
}

static enum err parse_tool(struct behave *b, struct str v, struct why *why)
{
    if (!str_copyz(b->tool, sizeof b->tool, v.n == 0 ? STR("*") : v))
        return why_set(why, ERR_INVALID, "tool: the name is too long");
    return ERR_OK;
}

/* --- the table --- */

#define AT(m) offsetof(struct behave, m)
#define INT(m, lo, hi, text)                          \
    {                                                 \
#m, K_INT, AT(m), 0, lo, hi, NULL, NULL, text \
    }
#define FLAG(m, text)                                \
    {                                                \
#m, K_FLAG, AT(m), 0, 0, 0, NULL, NULL, text \
    }
#define ONEOF(m, list, text)                         \
    {                                                \
#m, K_ENUM, AT(m), 0, 0, 0, list, NULL, text \
    }
#define TEXT(m, text)                                                              \
    {                                                                              \
#m, K_TEXT, AT(m), sizeof(((struct behave *)0)->m), 0, 0, NULL, NULL, text \
    }
#define SPECIAL(name, fn, text)                     \
    {                                               \
        name, K_SPECIAL, 0, 0, 0, 0, NULL, fn, text \
    }
static const struct key keys[] = {
    INT(tokens, 0, 10000000, "exactly so many tokens of content, unless max_tokens is less"),
    INT(reasoning, 0, 10000000, "so many tokens of reasoning before the content"),
    SPECIAL("tool", parse_tool, "call this tool instead of answering (no value: the first one)"),
    TEXT(finish, "this finish reason"),
    ONEOF(echo, echoes,
          "the content is the last user message (prompt) or the request as the mock got it"),
    FLAG(ignore_max, "generate past max_tokens"),
    SPECIAL("usage", parse_usage,
            "asked: as the API says; none; always; or P:C to claim these figures"),
    INT(ttft_ms, 0, 86400000, "time to the first token"),
    SPECIAL("tps", parse_tps, "tokens per second of each choice; 0: at once"),
    FLAG(early_head, "the head of a stream goes out before the first token"),
    INT(per_event, 1, 100000, "tokens per stream event"),
    SPECIAL("chunking", parse_chunking,
            "HTTP chunks and writes: event, batch:K events, bytes:K, split:SEED (1 to 64 bytes)"),
    INT(wire, 0, 1 << 20, "bytes per write to the socket, framing and all"),
    INT(gap_ms, 0, 60000, "pause between the writes of chunking and wire"),
    ONEOF(framing, framings, "length, chunked or close; default: streams chunked, others length"),
    ONEOF(eol, eols, "line ends of streams: lf, crlf, cr"),
    FLAG(comments, "a comment line before each stream event"),
    FLAG(bom, "a byte order mark before the stream"),
    FLAG(nospace, "no space behind `data:`"),
    FLAG(multiline, "each event's data over two lines"),
    FLAG(extra_fields, "id, retry and unknown fields in each event"),
    ONEOF(encoding, encodings, "compress the answer: gzip or deflate, asked for or not"),
    SPECIAL("fail", parse_fail, "a fault, see below"),
    INT(times, 0, 1000000, "the fault strikes the first so many requests of this id only"),
    FLAG(close, "Connection: close"),
    TEXT(id, "name under which /mock/requests shows this request"),
    TEXT(tag, "name under which /mock/stats adds up"),
    SPECIAL("header", parse_header, "Name:value added to the answer; up to four"),
};

static enum err set(const struct key *k, struct behave *b, struct str v, bool has_value,
                    struct why *why)
{
    char *at = (char *)b + k->offset;
    switch (k->kind) {
    case K_INT: {
        int64_t n;
        if (str_to_i64(v, &n) != ERR_OK || n < k->min || n > k->max)
            return why_set(why, ERR_INVALID, "%s: a number from %lld to %lld", k->name,
                           (long long)k->min, (long long)k->max);
        memcpy(at, &n, sizeof n);
        return ERR_OK;
    }
    case K_FLAG: {
        bool on = true;
        if (has_value && str_to_bool(v, &on) != ERR_OK)
            return why_set(why, ERR_INVALID, "%s: yes or no", k->name);
        memcpy(at, &on, sizeof on);
        return ERR_OK;
    }
    case K_ENUM:
        for (const struct word *w = k->words; w->name != NULL; w++) {
            if (!str_eqz(v, w->name)) continue;
            memcpy(at, &w->value, sizeof w->value);
            return ERR_OK;
        }
        return why_set(why, ERR_INVALID, "%s: no such value", k->name);
    case K_TEXT:
        if (v.n == 0 || !h1_is_field_value(v) || !str_copyz(at, k->size, v))
            return why_set(why, ERR_INVALID, "%s: empty, too long or no plain text", k->name);
        return ERR_OK;
    case K_SPECIAL: return k->parse(b, v, why);
    }
    return ERR_INTERNAL;
}

void behave_init(struct behave *b)
{
    memset(b, 0, sizeof *b);
    b->tokens = -1;
    b->per_event = 1;
}

enum err behave_parse(struct behave *b, struct str text, char sep, struct why *why)
{
    while (text.p != NULL) {
        struct str value = str_trim(str_cut(&text, sep));
        if (value.n == 0) continue;
        struct str name = str_trim(str_cut(&value, '='));
        bool has_value = value.p != NULL;
        value = has_value ? str_trim(value) : STR("");
        size_t i = 0;
        while (i < ARRAY_LEN(keys) && !str_eqz(name, keys[i].name)) i++;
        if (i == ARRAY_LEN(keys))
            return why_set(why, ERR_INVALID, "no behaviour is called '%.*s'",
                           (int)MIN(name.n, (size_t)40), name.p);
        enum err e = set(&keys[i], b, value, has_value, why);
        if (e != ERR_OK) return e;
    }
    return ERR_OK;
}

struct str behave_model(struct str name, struct str *ret_rest)
{
    const char *at = name.n > 0 ? memchr(name.p, '@', name.n) : NULL;
    if (at == NULL) {
        *ret_rest = STR_NULL;
        return name;
    }
    size_t n = (size_t)(at - name.p);
    *ret_rest = str_n(at + 1, name.n - n - 1);
    return str_n(name.p, n);
}

enum err behave_markdown(struct buf *out)
{
    enum err e = buf_appendz(out, "| key | meaning |\n|---|---|\n");
    for (size_t i = 0; i < ARRAY_LEN(keys) && e == ERR_OK; i++)
        e = buf_printf(out, "| `%s` | %s |\n", keys[i].name, keys[i].doc);
    if (e == ERR_OK)
        e = buf_appendz(out, "\n| fault | what happens |\n|---|---|\n"
                             "| `NNN[:RETRY_AFTER]` | an error with this status, 400 to 599; "
                             "`Retry-After` as given |\n"
                             "| `bad_chunk[:KIND]` | a malformed chunk: letter, plus, prefix, "
                             "space, long, nocrlf or lf |\n");
    for (size_t i = 0; i < ARRAY_LEN(faults) && e == ERR_OK; i++)
        e = buf_printf(out, "| `%s%s` | %s |\n", faults[i].name, faults[i].takes_arg ? "[:N]" : "",
                       faults[i].doc);
    return e;
}
