/* SPDX-License-Identifier: Apache-2.0 */
/* Strict parsing of HTTP/1.1 heads; see the header. Pure functions, any thread. */
#include "http/h1.h"

/* --- characters --- */

enum {
    TOKEN = 1,  /* tchar, RFC 9110 5.6.2 */
    PATH = 2,   /* pchar and '/', RFC 3986 3.3; '%' is looked at apart */
    QUERY = 4,  /* what may stand in a query */
    HOST = 8,   /* reg-name as DNS and container names use it */
    HEX = 16,   /* hexadecimal digit */
    DIGIT = 32, /* decimal digit */
};

#define ALNUM(extra) (TOKEN | PATH | QUERY | HOST | (extra))
static const uint8_t class_of[256] = {
    ['0' ... '9'] = ALNUM(HEX | DIGIT),
    ['A' ... 'F'] = ALNUM(HEX),
    ['G' ... 'Z'] = ALNUM(0),
    ['a' ... 'f'] = ALNUM(HEX),
    ['g' ... 'z'] = ALNUM(0),
    ['-'] = TOKEN | PATH | QUERY | HOST,
    ['.'] = TOKEN | PATH | QUERY | HOST,
    ['_'] = TOKEN | PATH | QUERY | HOST,
    ['~'] = TOKEN | PATH | QUERY,
    ['!'] = TOKEN | PATH | QUERY,
    ['$'] = TOKEN | PATH | QUERY,
    ['&'] = TOKEN | PATH | QUERY,
    ['\''] = TOKEN | PATH | QUERY,
    ['*'] = TOKEN | PATH | QUERY,
    ['+'] = TOKEN | PATH | QUERY,
    ['%'] = TOKEN | PATH | QUERY,
    ['('] = PATH | QUERY,
    [')'] = PATH | QUERY,
    [','] = PATH | QUERY,
    [';'] = PATH | QUERY,
    ['='] = PATH | QUERY,
    [':'] = PATH | QUERY,
    ['@'] = PATH | QUERY,
    ['/'] = PATH | QUERY,
    ['?'] = QUERY,
    ['['] = QUERY,
    [']'] = QUERY,
    ['{'] = QUERY,
    ['}'] = QUERY,
    ['#'] = TOKEN,
    ['^'] = TOKEN | QUERY,
    ['`'] = TOKEN | QUERY,
    ['|'] = TOKEN | QUERY,
};

static bool is(char c, uint8_t classes)
{
    return (class_of[(unsigned char)c] & classes) != 0;
}

static bool all(struct str s, uint8_t classes)
{
    for (size_t i = 0; i < s.n; i++)
        if (!is(s.p[i], classes)) return false;
    return true;
}

bool h1_is_token(struct str s)
{
    return s.n > 0 && all(s, TOKEN);
}

/* Not 0 when one of eight bytes may be a control character: the sign bits of (x - 0x20) & ~x are
 * set for bytes below 0x20, those of ((x ^ 0x7f) - 1) & ~(x ^ 0x7f) for DEL. A borrow can only
 * raise a false alarm. */
static inline uint64_t control_hits(const char *p)
{
    const uint64_t ones = 0x0101010101010101u, high = 0x8080808080808080u;
    uint64_t x, del;
    memcpy(&x, p, sizeof x);
    del = x ^ (ones * 0x7f);
    return (((x - ones * 0x20) & ~x) | ((del - ones) & ~del)) & high;
}

/* No control character but HTAB: eight bytes at a time, of which the last may be looked at twice,
 * and one by one where that finds something. */
bool h1_is_field_value(struct str s)
{
    if (s.n >= 8) {
        uint64_t hits = control_hits(s.p + s.n - 8);
        for (size_t i = 0; i < s.n - 8; i += 8) hits |= control_hits(s.p + i);
        if (hits == 0) return true;
    }
    for (size_t i = 0; i < s.n; i++) {
        unsigned char c = (unsigned char)s.p[i];
        if ((c < 0x20 && c != '\t') || c == 0x7f) return false;
    }
    return true;
}

static enum h1_status bad(struct h1_error *err, int status, const char *reason)
{
    *err = (struct h1_error){ status, reason };
    return H1_BAD;
}

/* --- the end of the head --- */

/* Searches from where the last call stopped. H1_DONE: head->len is set. On H1_MORE `*ret_line` is
 * the length of the start line without CRLF, or 0 while it is not complete. */
static enum h1_status find_end(const char *buf, size_t n, const struct h1_limits *limits,
                               struct h1_head *head, struct h1_error *err)
{
    size_t within = MIN(n, limits->head), i = head->scan_from;
    if (n > 0 && !is(buf[0], TOKEN))
        return bad(err, 400, "a message begins with a byte that cannot begin a start line");
    while (i < within) {
        const char *lf = memchr(buf + i, '\n', within - i);
        if (lf == NULL) break;
        i = (size_t)(lf - buf);
        if (i == 0 || buf[i - 1] != '\r') return bad(err, 400, "a line ends without CR");
        if (i >= 3 && buf[i - 2] == '\n') {
            head->len = i + 1;
            return H1_DONE;
        }
        i++;
    }
    /* A CR that stands alone is told at once, not when the peer's patience is over. The last byte
     * may become a pair. */
    for (size_t from = head->scan_from > 0 ? head->scan_from - 1 : 0; from + 1 < within;) {
        const char *cr = memchr(buf + from, '\r', within - from - 1);
        if (cr == NULL) break;
        if (cr[1] != '\n') return bad(err, 400, "a CR stands alone");
        from = (size_t)(cr - buf) + 2;
    }
    head->scan_from = within;
    if (n >= limits->head) return bad(err, 431, "the head of the message is too long");
    return H1_MORE;
}

/* Takes the line that begins at *at off the head: without CRLF. */
static struct str take_line(const char *buf, size_t len, size_t *at)
{
    const char *lf = memchr(buf + *at, '\n', len - *at);
    struct str line = { buf + *at, (size_t)(lf - buf) - *at - 1 };
    *at = (size_t)(lf - buf) + 1;
    return line;
}

/* --- fields --- */

static enum h1_status parse_fields(const char *buf, size_t at, const struct h1_limits *limits,
                                   struct h1_head *head, struct h1_error *err)
{
    size_t max = MIN(limits->headers, (size_t)H1_MAX_HEADERS);
    head->fields_len = 0;
    memset(head->first, 0, sizeof head->first);
    for (;;) {
        struct str line = take_line(buf, head->len, &at), name;
        if (line.n == 0) return H1_DONE;
        if (head->fields_len >= max) return bad(err, 431, "too many header fields");
        if (line.p[0] == ' ' || line.p[0] == '\t')
            return bad(err, 400, "a header field is folded over lines");
        size_t i = 0;
        while (i < line.n && is(line.p[i], TOKEN)) i++;
        if (i == line.n) return bad(err, 400, "a header line has no colon");
        if (line.p[i] != ':') return bad(err, 400, "a header field name holds a bad character");
        if (i == 0) return bad(err, 400, "a header field has no name");
        name = str_n(line.p, i);
        struct str value = str_trim(str_n(line.p + i + 1, line.n - i - 1));
        if (!h1_is_field_value(value))
            return bad(err, 400, "a header field value holds a control character");

        struct h1_field *f = &head->fields[head->fields_len];
        f->name = name;
        f->value = value;
        f->known = h1_known_lookup(name, false);
        if (f->known == H1_UNKNOWN) {
            if (memchr(name.p, '_', name.n) != NULL && h1_known_lookup(name, true) != H1_UNKNOWN)
                return bad(err, 400, "a header field name has '_' where a known one has '-'");
        } else if (head->first[f->known] == 0) {
            head->first[f->known] = (uint8_t)(head->fields_len + 1);
        } else if (f->known == H1_CONTENT_LENGTH) {
            return bad(err, 400, "more than one Content-Length");
        } else if (f->known == H1_HOST) {
            return bad(err, 400, "more than one Host");
        } else if (f->known == H1_TRANSFER_ENCODING) {
            return bad(err, 400, "more than one Transfer-Encoding");
        } else if (f->known == H1_EXPECT) {
            return bad(err, 400, "more than one Expect");
        }
        head->fields_len++;
    }
}

static enum h1_status parse_connection(struct h1_head *head, struct h1_error *err)
{
    bool close = false, keep = false;
    struct h1_tokens it = { 0 };
    struct str token;
    head->upgrade = false;
    if (head->first[H1_CONNECTION] != 0) {
        while (h1_connection_next(head, &it, &token)) {
            if (!h1_is_token(token)) return bad(err, 400, "Connection is not a list of tokens");
            if (str_ieq(token, STR("close")))
                close = true;
            else if (str_ieq(token, STR("keep-alive")))
                keep = true;
            else if (str_ieq(token, STR("upgrade")))
                head->upgrade = true;
        }
    }
    head->keep_alive = !close && (head->version_minor >= 1 || keep);
    return H1_DONE;
}

/* Content-Length and Transfer-Encoding (RFC 9112, 6.1 to 6.3): sets framing to NONE, LENGTH or
 * CHUNKED. */
static enum h1_status parse_framing(struct h1_head *head, struct h1_error *err)
{
    struct str te = h1_header_known(head, H1_TRANSFER_ENCODING);
    struct str cl = h1_header_known(head, H1_CONTENT_LENGTH);
    head->framing = H1_BODY_NONE;
    head->content_length = 0;
    if (te.p != NULL) {
        if (cl.p != NULL) return bad(err, 400, "both Content-Length and Transfer-Encoding");
        if (head->version_minor == 0) return bad(err, 400, "Transfer-Encoding in HTTP/1.0");
        if (!str_ieq(te, STR("chunked"))) {
            /* A coding in front of chunked is a thing we do not do; anything else has no end. */
            size_t n = te.n;
            while (n > 0 && te.p[n - 1] != ',') n--;
            bool chunked_last = n > 0 &&
                                str_ieq(str_trim(str_n(te.p + n, te.n - n)), STR("chunked"));
            struct str before = str_trim(str_n(te.p, n > 0 ? n - 1 : 0));
            if (chunked_last && h1_is_token(before) && !str_ieq(before, STR("chunked")))
                return bad(err, 501, "a transfer coding other than chunked");
            return bad(err, 400, "Transfer-Encoding does not say just chunked");
        }
        head->framing = H1_BODY_CHUNKED;
    } else if (cl.p != NULL) {
        if (cl.n == 0 || cl.n > 19 || !all(cl, DIGIT))
            return bad(err, 400, "Content-Length is not a number");
        uint64_t v = 0;
        for (size_t i = 0; i < cl.n; i++) v = v * 10 + (uint64_t)(cl.p[i] - '0');
        if (v > INT64_MAX) return bad(err, 400, "Content-Length is too large");
        head->framing = H1_BODY_LENGTH;
        head->content_length = v;
    }
    return H1_DONE;
}

/* --- requests --- */

static bool is_port(struct str s)
{
    if (s.n == 0 || s.n > 5 || !all(s, DIGIT)) return false;
    unsigned v = 0;
    for (size_t i = 0; i < s.n; i++) v = v * 10 + (unsigned)(s.p[i] - '0');
    return v <= 65535;
}

/* uri-host [":" port]: a name, an IPv4 address, or an IPv6 address in brackets. */
static bool is_host(struct str s)
{
    size_t i = 0;
    if (s.n > 0 && s.p[0] == '[') {
        for (i = 1; i < s.n && (is(s.p[i], HEX) || s.p[i] == ':' || s.p[i] == '.');) i++;
        if (i < 4 || i >= s.n || s.p[i] != ']') return false; /* "[::]" is the shortest */
        if (memchr(s.p, ':', i) == NULL) return false;
        i++;
    } else {
        while (i < s.n && is(s.p[i], HOST)) i++;
        if (i == 0 || i > 255) return false;
    }
    return i == s.n || (s.p[i] == ':' && is_port(str_n(s.p + i + 1, s.n - i - 1)));
}

/* Every '%' is followed by two hexadecimal digits. */
static bool percent_ok(struct str s)
{
    const char *end = s.p + s.n, *at = s.p;
    while (at < end && (at = memchr(at, '%', (size_t)(end - at))) != NULL) {
        if (end - at < 3 || !is(at[1], HEX) || !is(at[2], HEX)) return false;
        at += 3;
    }
    return true;
}

static enum h1_method method_of(struct str m)
{
    static const struct {
        struct str name;
        enum h1_method method;
    } methods[] = {
        { { "GET", 3 }, H1_GET },         { { "HEAD", 4 }, H1_HEAD },
        { { "POST", 4 }, H1_POST },       { { "PUT", 3 }, H1_PUT },
        { { "PATCH", 5 }, H1_PATCH },     { { "DELETE", 6 }, H1_DELETE },
        { { "OPTIONS", 7 }, H1_OPTIONS }, { { "TRACE", 5 }, H1_TRACE },
    };
    for (size_t i = 0; i < ARRAY_LEN(methods); i++)
        if (str_eq(m, methods[i].name)) return methods[i].method;
    return H1_OTHER;
}

/* "HTTP/1.0" or "HTTP/1.1"; 505 for another version that is well-formed. */
static enum h1_status parse_version(struct str v, int *ret_minor, struct h1_error *err)
{
    if (v.n != 8 || memcmp(v.p, "HTTP/", 5) != 0 || !is(v.p[5], DIGIT) || v.p[6] != '.' ||
        !is(v.p[7], DIGIT))
        return bad(err, 400, "the start line has no HTTP version");
    if (v.p[5] != '1' || v.p[7] > '1') return bad(err, 505, "HTTP versions are 1.0 and 1.1");
    *ret_minor = v.p[7] - '0';
    return H1_DONE;
}

static enum h1_status parse_target(struct h1_request *r, struct h1_error *err)
{
    struct str t = r->target, rest = t;
    r->host = STR_NULL;
    r->query = STR_NULL;
    if (t.n == 1 && t.p[0] == '*') {
        if (r->method != H1_OPTIONS) return bad(err, 400, "the target '*' is for OPTIONS only");
        r->path = t;
        return H1_DONE;
    }
    if (t.p[0] != '/') { /* absolute-form */
        size_t scheme = 0;
        if (t.n > 7 && str_ieq(str_n(t.p, 7), STR("http://")))
            scheme = 7;
        else if (t.n > 8 && str_ieq(str_n(t.p, 8), STR("https://")))
            scheme = 8;
        else
            return bad(err, 400, "the request target is neither a path nor an http URL");
        size_t end = scheme;
        while (end < t.n && t.p[end] != '/' && t.p[end] != '?') end++;
        r->host = str_n(t.p + scheme, end - scheme);
        if (!is_host(r->host)) return bad(err, 400, "the request target has a bad host");
        rest = str_n(t.p + end, t.n - end);
        if (rest.n == 0 || rest.p[0] == '?') {
            r->path = STR("/");
            if (rest.n > 0) r->query = str_n(rest.p + 1, rest.n - 1);
            rest = STR_NULL;
        }
    }
    if (rest.p != NULL) {
        const char *q = memchr(rest.p, '?', rest.n);
        r->path = str_n(rest.p, q != NULL ? (size_t)(q - rest.p) : rest.n);
        if (q != NULL) r->query = str_n(q + 1, rest.n - r->path.n - 1);
    }
    if (!all(r->path, PATH) || !percent_ok(r->path))
        return bad(err, 400, "the request path holds a bad character");
    if (r->query.p != NULL && (!all(r->query, QUERY) || !percent_ok(r->query)))
        return bad(err, 400, "the request query holds a bad character");
    return H1_DONE;
}

static enum h1_status parse_request_line(struct str line, const struct h1_limits *limits,
                                         struct h1_request *r, struct h1_error *err)
{
    if (line.n > limits->line) return bad(err, 414, "the request line is too long");
    const char *sp = memchr(line.p, ' ', line.n);
    if (sp == NULL) return bad(err, 400, "the request line is not method, target, version");
    r->method_str = str_n(line.p, (size_t)(sp - line.p));
    if (!h1_is_token(r->method_str)) return bad(err, 400, "the method is not a token");
    struct str rest = { sp + 1, line.n - r->method_str.n - 1 };
    sp = rest.n > 0 ? memchr(rest.p, ' ', rest.n) : NULL;
    if (sp == NULL || sp == rest.p)
        return bad(err, 400, "the request line is not method, target, version");
    r->target = str_n(rest.p, (size_t)(sp - rest.p));
    enum h1_status s = parse_version(str_n(sp + 1, rest.n - r->target.n - 1),
                                     &r->head.version_minor, err);
    if (s != H1_DONE) return s;
    if (str_eq(r->method_str, STR("CONNECT"))) return bad(err, 501, "CONNECT is not supported");
    if (r->method_str.n > 32) return bad(err, 501, "the method is not known");
    r->method = method_of(r->method_str);
    return parse_target(r, err);
}

static enum h1_status parse_host(struct h1_request *r, struct h1_error *err)
{
    struct str host = h1_header_known(&r->head, H1_HOST);
    if (host.p == NULL) {
        if (r->head.version_minor >= 1) return bad(err, 400, "no Host");
        return H1_DONE;
    }
    if (!is_host(host)) return bad(err, 400, "Host is not a host name");
    if (r->host.p == NULL) r->host = host; /* an absolute target wins: RFC 9112, 3.2.2 */
    return H1_DONE;
}

static enum h1_status parse_expect(struct h1_request *r, struct h1_error *err)
{
    struct str expect = h1_header_known(&r->head, H1_EXPECT);
    r->expect_continue = false;
    if (expect.p == NULL || r->head.version_minor == 0) return H1_DONE;
    if (!str_ieq(expect, STR("100-continue"))) return bad(err, 417, "Expect is not 100-continue");
    r->expect_continue = true;
    return H1_DONE;
}

enum h1_status h1_parse_request(const char *buf, size_t n, const struct h1_limits *limits,
                                struct h1_request *ret, struct h1_error *err)
{
    struct h1_head *head = &ret->head;
    enum h1_status s = find_end(buf, n, limits, head, err);
    if (s == H1_BAD && err->status == 431 && memchr(buf, '\n', MIN(n, limits->head)) == NULL)
        return bad(err, 414, "the request line is too long");
    if (s == H1_BAD) return s;
    if (s == H1_MORE) {
        /* A bad or endless request line is told before the rest of the head is there. */
        if (head->start_checked) return H1_MORE;
        const char *lf = n > 0 ? memchr(buf, '\n', n) : NULL;
        if (lf == NULL)
            return n > limits->line + 1 ? bad(err, 414, "the request line is too long") : H1_MORE;
        head->start_checked = true;
        s = parse_request_line(str_n(buf, (size_t)(lf - buf) - 1), limits, ret, err);
        return s == H1_DONE ? H1_MORE : s;
    }
    size_t at = 0;
    s = parse_request_line(take_line(buf, head->len, &at), limits, ret, err);
    if (s == H1_DONE) s = parse_fields(buf, at, limits, head, err);
    if (s == H1_DONE) s = parse_host(ret, err);
    if (s == H1_DONE) s = parse_framing(head, err);
    if (s == H1_DONE) s = parse_connection(head, err);
    if (s == H1_DONE) s = parse_expect(ret, err);
    return s;
}

/* --- responses --- */

static enum h1_status parse_status_line(struct str line, struct h1_response *r,
                                        struct h1_error *err)
{
    if (line.n < 12 || line.p[8] != ' ') return bad(err, 502, "the status line is malformed");
    enum h1_status s = parse_version(str_n(line.p, 8), &r->head.version_minor, err);
    if (s != H1_DONE) return s;
    const char *d = line.p + 9;
    if (d[0] < '1' || d[0] > '5' || !is(d[1], DIGIT) || !is(d[2], DIGIT))
        return bad(err, 502, "the status code is not 100 to 599");
    r->status = (d[0] - '0') * 100 + (d[1] - '0') * 10 + (d[2] - '0');
    /* Without a reason many servers leave the space away, too. */
    if (line.n > 12 && line.p[12] != ' ') return bad(err, 502, "the status line is malformed");
    r->reason = line.n > 13 ? str_n(line.p + 13, line.n - 13) : STR("");
    if (!h1_is_field_value(r->reason))
        return bad(err, 502, "the reason phrase holds a control character");
    return H1_DONE;
}

/* RFC 9112, 6.3. */
static enum h1_status response_framing(struct h1_response *r, bool to_head, struct h1_error *err)
{
    struct h1_head *head = &r->head;
    enum h1_status s = parse_framing(head, err);
    if (s != H1_DONE) return s;
    if (r->status < 200 || r->status == 204) {
        if (head->framing == H1_BODY_CHUNKED || head->content_length > 0)
            return bad(err, 502, "a status without a body comes with one");
        head->framing = H1_BODY_NONE;
    } else if (to_head || r->status == 304) {
        head->framing = H1_BODY_NONE;
        head->content_length = 0;
    } else if (head->framing == H1_BODY_NONE) {
        head->framing = H1_BODY_CLOSE;
    }
    return H1_DONE;
}

enum h1_status h1_parse_response(const char *buf, size_t n, const struct h1_limits *limits,
                                 bool to_head, struct h1_response *ret, struct h1_error *err)
{
    struct h1_head *head = &ret->head;
    enum h1_status s = find_end(buf, n, limits, head, err);
    if (s == H1_MORE && !head->start_checked) {
        const char *lf = n > 0 ? memchr(buf, '\n', n) : NULL;
        if (lf != NULL) {
            head->start_checked = true;
            s = parse_status_line(str_n(buf, (size_t)(lf - buf) - 1), ret, err);
            if (s == H1_DONE) s = H1_MORE;
        }
    } else if (s == H1_DONE) {
        size_t at = 0;
        s = parse_status_line(take_line(buf, head->len, &at), ret, err);
        if (s == H1_DONE) s = parse_fields(buf, at, limits, head, err);
        if (s == H1_DONE) s = response_framing(ret, to_head, err);
        if (s == H1_DONE) s = parse_connection(head, err);
        if (head->framing == H1_BODY_CLOSE) head->keep_alive = false;
    }
    if (s == H1_BAD) err->status = 502;
    return s;
}
