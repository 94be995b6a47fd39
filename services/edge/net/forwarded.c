/* SPDX-License-Identifier: Apache-2.0 */
/* See the header. */
#include "forwarded.h"

struct cursor {
    struct str field;
    size_t at;
};

static char peek(const struct cursor *c)
{
    return c->at < c->field.n ? c->field.p[c->at] : '\0';
}

static void skip_space(struct cursor *c)
{
    while (peek(c) == ' ' || peek(c) == '\t') c->at++;
}

static bool take(struct cursor *c, char what)
{
    if (c->at >= c->field.n || c->field.p[c->at] != what) return false;
    c->at++;
    return true;
}

/* Characters of a token; of values those of addresses, too, which some write without quotes. */
static struct str take_token(struct cursor *c, const char *more)
{
    size_t from = c->at;
    for (char x; (x = peek(c)) != '\0'; c->at++) {
        bool alnum = (x >= 'a' && x <= 'z') || (x >= 'A' && x <= 'Z') || (x >= '0' && x <= '9');
        if (!alnum && strchr("!#$%&'*+-.^_`|~", x) == NULL && strchr(more, x) == NULL) break;
    }
    return str_n(c->field.p + from, c->at - from);
}

/* What is between the quotes; escapes stay as they are: no address has any. */
static bool take_quoted(struct cursor *c, struct str *ret)
{
    size_t from = ++c->at;
    for (; c->at < c->field.n; c->at++) {
        if (c->field.p[c->at] == '"') {
            *ret = str_n(c->field.p + from, c->at - from);
            c->at++;
            return true;
        }
        if (c->field.p[c->at] == '\\') c->at++;
    }
    return false;
}

/* name=value */
static bool take_pair(struct cursor *c, struct str *for_value)
{
    struct str value, name = take_token(c, "");
    if (name.n == 0 || !take(c, '=')) return false;
    if (peek(c) == '"') {
        if (!take_quoted(c, &value)) return false;
    } else {
        value = take_token(c, ":[]");
        if (value.n == 0) return false;
    }
    if (!str_ieqz(name, "for")) return true;
    if (for_value->p != NULL) return false;
    *for_value = value;
    return true;
}

bool forwarded_parse(struct str field, struct str ret_for[FORWARDED_MAX], size_t *ret_n)
{
    struct cursor c = { field, 0 };
    size_t n = 0;
    do {
        struct str value = STR_NULL;
        do {
            skip_space(&c);
            if (!take_pair(&c, &value)) return false;
            skip_space(&c);
        } while (take(&c, ';'));
        if (n == FORWARDED_MAX) return false;
        ret_for[n++] = value;
    } while (take(&c, ','));
    *ret_n = n;
    return c.at == field.n;
}
