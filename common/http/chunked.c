/* SPDX-License-Identifier: Apache-2.0 */
/* The chunked transfer coding as a state machine, a byte at a time but for the data; see the
 * header. Pure. */
#include "http/chunked.h"

#include "http/h1.h"

enum state {
    SIZE, /* in the digits; the start */
    EXT_NAME_FIRST,
    EXT_NAME,
    EXT_VALUE_FIRST,
    EXT_VALUE,
    EXT_QUOTED,
    EXT_ESCAPED,
    EXT_AFTER_QUOTED,
    SIZE_LF, /* a CR was seen */
    DATA,
    DATA_CR,
    DATA_LF,
    TRAILER_LINE, /* at the beginning of a line */
    TRAILER_NAME,
    TRAILER_VALUE,
    TRAILER_LF,
    END_LF,
    DONE,
    BAD,
};

static int hex_value(char c)
{
    if (c >= '0' && c <= '9') return c - '0';
    c = (char)(c | 0x20);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static bool is_token_char(char c)
{
    return h1_is_token(str_n(&c, 1));
}

/* Any character a quoted string or a field value may hold. */
static bool is_text(char c)
{
    return h1_is_field_value(str_n(&c, 1));
}

static bool fail(struct chunked *c, const char *reason)
{
    c->state = BAD;
    c->reason = reason;
    return false;
}

/* A byte of an extension, behind the ';'. */
static bool extension_byte(struct chunked *c, char ch)
{
    static const char malformed[] = "a chunk extension is malformed";
    if (ch == '\r' &&
        (c->state == EXT_NAME || c->state == EXT_VALUE || c->state == EXT_AFTER_QUOTED)) {
        c->state = SIZE_LF;
        return true;
    }
    if (++c->extension > CHUNKED_MAX_EXTENSION || ++c->extensions > CHUNKED_MAX_EXTENSIONS)
        return fail(c, "chunk extensions are too long");
    switch ((enum state)c->state) {
    case EXT_NAME_FIRST:
        if (!is_token_char(ch)) return fail(c, malformed);
        c->state = EXT_NAME;
        return true;
    case EXT_VALUE_FIRST:
        if (ch == '"') {
            c->state = EXT_QUOTED;
            return true;
        }
        if (!is_token_char(ch)) return fail(c, malformed);
        c->state = EXT_VALUE;
        return true;
    case EXT_QUOTED:
        if (!is_text(ch)) return fail(c, malformed);
        if (ch == '\\')
            c->state = EXT_ESCAPED;
        else if (ch == '"')
            c->state = EXT_AFTER_QUOTED;
        return true;
    case EXT_ESCAPED:
        if (!is_text(ch)) return fail(c, malformed);
        c->state = EXT_QUOTED;
        return true;
    default: /* EXT_NAME, EXT_VALUE, EXT_AFTER_QUOTED */
        if (ch == ';') {
            c->state = EXT_NAME_FIRST;
            return true;
        }
        if (ch == '=' && c->state == EXT_NAME) {
            c->state = EXT_VALUE_FIRST;
            return true;
        }
        if (c->state == EXT_AFTER_QUOTED || !is_token_char(ch)) return fail(c, malformed);
        return true;
    }
}

static bool size_byte(struct chunked *c, char ch)
{
    int v = hex_value(ch);
    if (v >= 0) {
        if (c->digits == 16 || c->left >> 59 != 0) return fail(c, "a chunk size is too large");
        c->digits++;
        c->left = c->left << 4 | (uint64_t)v;
        return true;
    }
    if (c->digits == 0) return fail(c, "a chunk size has no digits");
    if (ch == ';') {
        c->state = EXT_NAME_FIRST;
        c->extension = 0;
        return true;
    }
    if (ch != '\r') return fail(c, "a chunk size holds a bad character");
    c->state = SIZE_LF;
    return true;
}

static bool trailer_byte(struct chunked *c, char ch)
{
    if (++c->trailer > CHUNKED_MAX_TRAILER) return fail(c, "the trailer is too long");
    switch ((enum state)c->state) {
    case TRAILER_LINE:
        if (ch == '\r') {
            c->state = END_LF;
            return true;
        }
        if (!is_token_char(ch)) return fail(c, "a trailer field name is malformed");
        c->state = TRAILER_NAME;
        return true;
    case TRAILER_NAME:
        if (ch == ':')
            c->state = TRAILER_VALUE;
        else if (!is_token_char(ch))
            return fail(c, "a trailer field name is malformed");
        return true;
    case TRAILER_VALUE:
        if (ch == '\r')
            c->state = TRAILER_LF;
        else if (!is_text(ch))
            return fail(c, "a trailer field value holds a control character");
        return true;
    default: /* TRAILER_LF */
        if (ch != '\n') return fail(c, "a CR stands alone in the trailer");
        c->state = TRAILER_LINE;
        return true;
    }
}

/* One byte of anything but data. Returns false when the decoder went BAD. */
static bool control_byte(struct chunked *c, char ch)
{
    switch ((enum state)c->state) {
    case SIZE: return size_byte(c, ch);
    case SIZE_LF:
        if (ch != '\n') return fail(c, "a chunk size line does not end with CRLF");
        c->state = c->left > 0 ? DATA : TRAILER_LINE;
        c->digits = 0;
        return true;
    case DATA_CR:
        if (ch != '\r') return fail(c, "a chunk does not end with CRLF");
        c->state = DATA_LF;
        return true;
    case DATA_LF:
        if (ch != '\n') return fail(c, "a chunk does not end with CRLF");
        c->state = SIZE;
        return true;
    case TRAILER_LINE:
    case TRAILER_NAME:
    case TRAILER_VALUE:
    case TRAILER_LF: return trailer_byte(c, ch);
    case END_LF:
        if (ch != '\n') return fail(c, "the body does not end with CRLF");
        c->state = DONE;
        return true;
    default: return extension_byte(c, ch);
    }
}

enum chunked_status chunked_decode(struct chunked *c, struct str *in, struct str *ret_data)
{
    for (;;) {
        if (c->state == DONE) return CHUNKED_DONE;
        if (c->state == BAD) return CHUNKED_BAD;
        if (in->n == 0) return CHUNKED_MORE;
        if (c->state == DATA) {
            size_t n = c->left < in->n ? (size_t)c->left : in->n;
            *ret_data = str_n(in->p, n);
            *in = str_n(in->p + n, in->n - n);
            c->left -= n;
            c->body += n;
            if (c->left == 0) c->state = DATA_CR;
            return CHUNKED_DATA;
        }
        char ch = *in->p;
        if (!control_byte(c, ch)) return CHUNKED_BAD;
        *in = str_n(in->p + 1, in->n - 1);
    }
}

enum chunked_status chunked_unwrap(struct chunked *c, char *p, size_t n, size_t *ret_n,
                                   size_t *ret_used)
{
    struct str in = str_n(p, n), piece;
    enum chunked_status st;
    size_t have = 0;
    while ((st = chunked_decode(c, &in, &piece)) == CHUNKED_DATA) {
        if (piece.p != p + have) memmove(p + have, piece.p, piece.n);
        have += piece.n;
    }
    *ret_n = have;
    *ret_used = (size_t)(in.p - p);
    return st;
}

size_t chunked_header(uint64_t n, char out[CHUNKED_HEADER_MAX])
{
    static const char digits[] = "0123456789abcdef";
    size_t len = 1;
    while (len < 16 && n >> (4 * len) != 0) len++;
    for (size_t i = 0; i < len; i++) out[i] = digits[n >> (4 * (len - 1 - i)) & 15];
    out[len] = '\r';
    out[len + 1] = '\n';
    return len + 2;
}
