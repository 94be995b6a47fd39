/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Template text into tokens, with Jinja2's white space rules (trim_blocks and lstrip_blocks on):
 * one newline behind a block or comment goes, blanks before one on its line go, `-` takes all white
 * space on its side, `+` keeps it. Pure; runs where a template is compiled.
 */
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "tokenizer/jinja/jinja_int.h"

struct lexer {
    struct arena *a;
    struct str src;
    size_t at;
    uint32_t line;
    bool line_starting; /* what came last ended with a newline (or nothing came yet) */
    struct jtok *v;
    size_t n, cap;
    struct why *why;
};

static enum err lex_error(struct lexer *l, const char *what)
{
    return why_set(l->why, ERR_INVALID, "template line %u: %s", l->line, what);
}

static enum err add(struct lexer *l, struct jtok t)
{
    if (l->n == l->cap) {
        size_t cap = l->cap == 0 ? 512 : l->cap * 2;
        struct jtok *v = realloc(l->v, cap * sizeof *v);
        if (v == NULL) return ERR_NOMEM;
        l->v = v;
        l->cap = cap;
    }
    t.line = l->line;
    l->v[l->n++] = t;
    return ERR_OK;
}

static bool at_z(const struct lexer *l, size_t at, const char *z)
{
    size_t n = strlen(z);
    return l->src.n - at >= n && memcmp(l->src.p + at, z, n) == 0;
}

static void count_lines(struct lexer *l, size_t from, size_t to)
{
    for (size_t i = from; i < to; i++)
        if (l->src.p[i] == '\n') l->line++;
}

static void skip_spaces(struct lexer *l)
{
    struct str rest = str_n(l->src.p + l->at, l->src.n - l->at);
    struct str kept = jstr_strip(rest, NULL, 1);
    size_t from = l->at;
    l->at += rest.n - kept.n;
    count_lines(l, from, l->at);
}

/* Behind the tag's own end: what its sign and trim_blocks take away. */
static void after_tag(struct lexer *l, char sign, bool trims)
{
    l->line_starting = false;
    if (sign == '-') {
        size_t from = l->at;
        skip_spaces(l);
        l->line_starting = l->at > from && l->src.p[l->at - 1] == '\n';
    } else if (trims && sign != '+' && l->at < l->src.n && l->src.p[l->at] == '\n') {
        l->at++;
        l->line++;
        l->line_starting = true;
    }
}

/* Text from..to stands before a tag with that sign. */
static enum err add_data(struct lexer *l, size_t from, size_t to, char sign, bool block)
{
    struct str text = str_n(l->src.p + from, to - from);
    if (sign == '-') {
        text = jstr_strip(text, NULL, 2);
    } else if (sign != '+' && block) {
        size_t nl = text.n;
        while (nl > 0 && text.p[nl - 1] != '\n') nl--;
        struct str tail = str_n(text.p + nl, text.n - nl);
        if ((nl > 0 || l->line_starting) && jstr_strip(tail, NULL, 1).n == 0) text.n = nl;
    }
    if (text.n == 0) return ERR_OK;
    return add(l, (struct jtok){ .type = JT_DATA, .text = text });
}

static bool is_name_start(unsigned char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || c >= 0x80;
}

static bool is_digit(unsigned char c)
{
    return c >= '0' && c <= '9';
}

static char lex_peek(const struct lexer *l, size_t ahead)
{
    return l->at + ahead < l->src.n ? l->src.p[l->at + ahead] : '\0';
}

/* The value of an escape's digits. */
static bool digits(struct str s, unsigned base, uint32_t *ret)
{
    uint32_t v = 0;
    for (size_t i = 0; i < s.n; i++) {
        char c = s.p[i];
        unsigned d = c >= '0' && c <= '9'   ? (unsigned)(c - '0')
                     : c >= 'a' && c <= 'f' ? (unsigned)(c - 'a' + 10)
                     : c >= 'A' && c <= 'F' ? (unsigned)(c - 'A' + 10)
                                            : 99;
        if (d >= base) return false;
        v = v * base + d;
    }
    *ret = v;
    return s.n > 0;
}

/* A backslash escape of Python's strings at in.p[i] (behind the backslash): writes to w, returns
 * the bytes it took, 0 when it is malformed. */
static size_t string_escape(struct str in, size_t i, char **w)
{
    static const char from[] = "nrtabfv'\"\\", to[] = "\n\r\t\a\b\f\v'\"\\";
    char c = in.p[i];
    const char *known = c != '\0' ? strchr(from, c) : NULL;
    if (known != NULL) {
        *(*w)++ = to[known - from];
        return 1;
    }
    if (c == '\n') return 1; /* a joined line */
    size_t n = c == 'x' ? 2 : c == 'u' ? 4 : c == 'U' ? 8 : 0;
    uint32_t cp;
    if (n > 0) {
        if (in.n - i - 1 < n || !digits(str_n(in.p + i + 1, n), 16, &cp) || cp > 0x10ffff) return 0;
        if (cp >= 0xd800 && cp < 0xe000) cp = 0xfffd;
        *w += utf8_encode(cp, *w);
        return n + 1;
    }
    if (c >= '0' && c <= '7') {
        n = 1;
        while (n < 3 && i + n < in.n && in.p[i + n] >= '0' && in.p[i + n] <= '7') n++;
        (void)digits(str_n(in.p + i, n), 8, &cp);
        *w += utf8_encode(cp, *w);
        return n;
    }
    *(*w)++ = '\\'; /* unknown escapes stay as they are */
    *(*w)++ = c;
    return 1;
}

static enum err lex_string(struct lexer *l)
{
    char quote = l->src.p[l->at++];
    size_t from = l->at;
    while (l->at < l->src.n && l->src.p[l->at] != quote) l->at += l->src.p[l->at] == '\\' ? 2 : 1;
    if (l->at >= l->src.n) return lex_error(l, "a string is not closed");
    struct str in = str_n(l->src.p + from, l->at - from);
    char *out = arena_alloc(l->a, in.n * 2 + 8);
    if (out == NULL) return ERR_NOMEM;
    char *w = out;
    for (size_t i = 0; i < in.n;) {
        if (in.p[i] != '\\') {
            *w++ = in.p[i++];
            continue;
        }
        size_t took = string_escape(in, i + 1, &w);
        if (took == 0) return lex_error(l, "bad escape in a string");
        i += 1 + took;
    }
    l->at++;
    enum err e = add(l, (struct jtok){ .type = JT_STRING, .text = str_n(out, (size_t)(w - out)) });
    count_lines(l, from, l->at);
    return e;
}

static enum err lex_number(struct lexer *l)
{
    char z[64];
    size_t n = 0;
    bool real = false;
    char c1 = lex_peek(l, 1);
    bool based = lex_peek(l, 0) == '0' && c1 != '\0' && strchr("xXbBoO", c1) != NULL;
    while (n < sizeof z - 1) {
        char c = lex_peek(l, 0);
        if (c == '_') {
            l->at++;
            continue;
        }
        bool exponent = !based && (c == 'e' || c == 'E') &&
                        (is_digit((unsigned char)lex_peek(l, 1)) ||
                         ((lex_peek(l, 1) == '-' || lex_peek(l, 1) == '+') &&
                          is_digit((unsigned char)lex_peek(l, 2))));
        bool point = !based && c == '.' && !real && is_digit((unsigned char)lex_peek(l, 1));
        if (exponent || point) real = true;
        bool takes = is_digit((unsigned char)c) || exponent || point ||
                     (based && is_name_start((unsigned char)c)) ||
                     (real && (c == '-' || c == '+') && (z[n - 1] == 'e' || z[n - 1] == 'E'));
        if (!takes) break;
        z[n++] = c;
        l->at++;
    }
    z[n] = '\0';
    char *end;
    struct jtok t = { .type = real ? JT_FLOAT : JT_INT };
    if (real) {
        t.number = strtod(z, &end);
    } else {
        bool prefixed = based && c1 != 'x' && c1 != 'X';
        long long v = strtoll(prefixed ? z + 2 : z, &end,
                              !based                     ? 10
                              : c1 == 'x' || c1 == 'X'   ? 16
                              : (c1 == 'b' || c1 == 'B') ? 2
                                                         : 8);
        t.number = (double)v;
        if (v > (1LL << 53)) return lex_error(l, "integer literal is too large");
    }
    if (*end != '\0' || n == 0) return lex_error(l, "malformed number");
    return add(l, t);
}

static enum err lex_op(struct lexer *l, int *balance)
{
    static const struct {
        const char *z;
        enum jop op;
    } ops[] = {
        { "//", JOP_FLOORDIV }, { "**", JOP_POW },      { "==", JOP_EQ },    { "!=", JOP_NE },
        { ">=", JOP_GE },       { "<=", JOP_LE },       { "+", JOP_ADD },    { "-", JOP_SUB },
        { "/", JOP_DIV },       { "*", JOP_MUL },       { "%", JOP_MOD },    { "~", JOP_CONCAT },
        { "[", JOP_LBRACKET },  { "]", JOP_RBRACKET },  { "(", JOP_LPAREN }, { ")", JOP_RPAREN },
        { "{", JOP_LBRACE },    { "}", JOP_RBRACE },    { ">", JOP_GT },     { "<", JOP_LT },
        { "=", JOP_ASSIGN },    { ".", JOP_DOT },       { ":", JOP_COLON },  { "|", JOP_PIPE },
        { ",", JOP_COMMA },     { ";", JOP_SEMICOLON },
    };
    for (size_t i = 0; i < ARRAY_LEN(ops); i++) {
        if (!at_z(l, l->at, ops[i].z)) continue;
        l->at += strlen(ops[i].z);
        if (ops[i].op >= JOP_LPAREN) *balance += (ops[i].op - JOP_LPAREN) % 2 == 0 ? 1 : -1;
        return add(l, (struct jtok){ .type = JT_OP, .op = (uint8_t)ops[i].op });
    }
    return lex_error(l, "unexpected character");
}

/* The inside of {{ }} or {% %}, up to and with its end. */
static enum err lex_inside(struct lexer *l, bool block)
{
    const char *close = block ? "%}" : "}}";
    int balance = 0;
    for (;;) {
        skip_spaces(l);
        if (l->at >= l->src.n) return lex_error(l, "a tag is not closed");
        char sign = l->src.p[l->at];
        bool signed_end = (sign == '-' || (block && sign == '+')) && at_z(l, l->at + 1, close);
        if (balance <= 0 && (signed_end || at_z(l, l->at, close))) {
            enum err e = add(l, (struct jtok){ .type = block ? JT_BLOCK_END : JT_VAR_END });
            l->at += signed_end ? 3 : 2;
            after_tag(l, signed_end ? sign : ' ', block);
            return e;
        }
        unsigned char c = (unsigned char)sign;
        enum err e;
        if (is_name_start(c)) {
            size_t from = l->at;
            while (l->at < l->src.n && (is_name_start((unsigned char)l->src.p[l->at]) ||
                                        is_digit((unsigned char)l->src.p[l->at])))
                l->at++;
            e = add(l,
                    (struct jtok){ .type = JT_NAME, .text = str_n(l->src.p + from, l->at - from) });
        } else if (is_digit(c)) {
            e = lex_number(l);
        } else if (c == '"' || c == '\'') {
            e = lex_string(l);
        } else {
            e = lex_op(l, &balance);
        }
        if (e != ERR_OK) return e;
    }
}

static enum err lex_comment(struct lexer *l)
{
    size_t from = l->at;
    while (l->at < l->src.n && !at_z(l, l->at, "#}")) l->at++;
    if (l->at >= l->src.n) return lex_error(l, "a comment is not closed");
    char sign = l->at > from ? l->src.p[l->at - 1] : ' ';
    l->at += 2;
    count_lines(l, from, l->at);
    after_tag(l, sign == '-' || sign == '+' ? sign : ' ', true);
    return ERR_OK;
}

/* The tag `{% word %}` at at (which points to "{%"): sets where it ends and its signs. */
static bool bare_tag(const struct lexer *l, size_t at, const char *word, size_t *ret_end,
                     char *ret_open, char *ret_close)
{
    at += 2;
    *ret_open = at < l->src.n && (l->src.p[at] == '-' || l->src.p[at] == '+') ? l->src.p[at++]
                                                                              : ' ';
    while (at < l->src.n && strchr(" \t\n", l->src.p[at]) != NULL) at++;
    if (!at_z(l, at, word)) return false;
    at += strlen(word);
    while (at < l->src.n && strchr(" \t\n", l->src.p[at]) != NULL) at++;
    *ret_close = at < l->src.n && (l->src.p[at] == '-' || l->src.p[at] == '+') ? l->src.p[at++]
                                                                               : ' ';
    if (!at_z(l, at, "%}")) return false;
    *ret_end = at + 2;
    return true;
}

/* Behind {% raw %}: text up to {% endraw %}. */
static enum err lex_raw(struct lexer *l)
{
    size_t from = l->at, end;
    char open, close;
    for (; l->at < l->src.n; l->at++) {
        if (!at_z(l, l->at, "{%") || !bare_tag(l, l->at, "endraw", &end, &open, &close)) continue;
        enum err e = add_data(l, from, l->at, open, true);
        count_lines(l, from, end);
        l->at = end;
        after_tag(l, close, true);
        return e;
    }
    return lex_error(l, "raw is not closed");
}

static enum err lex_all(struct lexer *l)
{
    while (l->at < l->src.n) {
        size_t from = l->at, end;
        while (l->at < l->src.n && !at_z(l, l->at, "{%") && !at_z(l, l->at, "{{") &&
               !at_z(l, l->at, "{#"))
            l->at++;
        enum err e;
        if (l->at >= l->src.n) return add_data(l, from, l->at, '+', false);
        char kind = l->src.p[l->at + 1], open, close;
        bool raw = kind == '%' && bare_tag(l, l->at, "raw", &end, &open, &close);
        char sign = l->at + 2 < l->src.n ? l->src.p[l->at + 2] : ' ';
        if (sign != '-' && sign != '+') sign = ' ';
        e = add_data(l, from, l->at, sign, kind != '{');
        if (e != ERR_OK) return e;
        count_lines(l, from, l->at);
        if (raw) {
            l->at = end;
            after_tag(l, close, false);
            e = lex_raw(l);
        } else {
            l->at += sign == ' ' ? 2 : 3;
            if (kind == '#') {
                e = lex_comment(l);
            } else {
                e = add(l, (struct jtok){ .type = kind == '%' ? JT_BLOCK_BEGIN : JT_VAR_BEGIN });
                if (e == ERR_OK) e = lex_inside(l, kind == '%');
            }
        }
        if (e != ERR_OK) return e;
    }
    return ERR_OK;
}

enum err jlex(struct arena *a, struct str src, struct jtoks *ret, struct why *why)
{
    struct lexer l = { .a = a, .src = src, .line = 1, .line_starting = true, .why = why };
    enum err e = lex_all(&l);
    if (e == ERR_OK) e = add(&l, (struct jtok){ .type = JT_EOF });
    if (e != ERR_OK) {
        free(l.v);
        return e;
    }
    *ret = (struct jtoks){ l.v, l.n };
    return ERR_OK;
}
