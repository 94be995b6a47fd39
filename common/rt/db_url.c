/* SPDX-License-Identifier: Apache-2.0 */
#include "rt/db_url.h"

#include <stdlib.h>

/* NULL when a percent sign is not followed by two hexadecimal digits, or it hides a NUL. */
static char *decoded(struct str s)
{
    char *out = xmalloc(s.n + 1);
    size_t n = 0;
    for (size_t i = 0; i < s.n; i++) {
        unsigned char c = (unsigned char)s.p[i];
        if (c == '%') {
            if (s.n - i < 3 || hex_decode(str_n(s.p + i + 1, 2), &c, 1) != ERR_OK || c == 0) {
                free(out);
                return NULL;
            }
            i += 2;
        }
        out[n++] = (char)c;
    }
    out[n] = '\0';
    return out;
}

/* host[:port], with an IPv6 address in brackets. */
static enum err parse_host(struct str s, struct db_url *u)
{
    struct str host = s, port = STR_NULL;
    uint64_t number = 3306;
    const char *end = s.n > 0 && s.p[0] == '[' ? memchr(s.p, ']', s.n) : NULL;
    if (end != NULL) {
        host = str_n(s.p + 1, (size_t)(end - s.p) - 1);
        port = str_n(end + 1, s.n - host.n - 2);
        if (port.n > 0 && port.p[0] != ':') return ERR_INVALID;
        port = port.n > 0 ? str_n(port.p + 1, port.n - 1) : STR_NULL;
    } else {
        port = s;
        host = str_cut(&port, ':');
    }
    if (port.p != NULL &&
        (str_to_u64(port, &number) != ERR_OK || number == 0 || number > UINT16_MAX))
        return ERR_INVALID;
    if (host.n == 0) return ERR_INVALID;
    u->host = str_dupz(host);
    u->port = (uint16_t)number;
    return ERR_OK;
}

enum err db_url_parse(const char *url, struct db_url *ret, struct why *why)
{
    struct db_url u = { 0 };
    struct str rest = str_of(url), password;
    if (!str_starts(rest, STR("mysql://"))) goto bad;
    rest = str_n(rest.p + 8, rest.n - 8);
    /* The last '@' ends the password, so that one written without encoding works too. */
    const char *at = rest.n > 0 ? memrchr(rest.p, '@', rest.n) : NULL;
    if (at == NULL) goto bad;
    password = str_n(rest.p, (size_t)(at - rest.p));
    rest = str_n(at + 1, rest.n - password.n - 1);
    u.user = decoded(str_cut(&password, ':'));
    u.password = decoded(password.p != NULL ? password : STR(""));
    struct str host = str_cut(&rest, '/');
    if (rest.n == 0 || rest.n > 64 || parse_host(host, &u) != ERR_OK) goto bad;
    u.database = decoded(rest);
    if (u.user == NULL || u.user[0] == '\0' || u.password == NULL || u.database == NULL) goto bad;
    *ret = u;
    return ERR_OK;
bad:
    db_url_done(&u);
    return why_set(why, ERR_INVALID, "must be mysql://user:password@host:port/database");
}

void db_url_done(struct db_url *u)
{
    free(u->user);
    free(u->password);
    free(u->host);
    free(u->database);
    *u = (struct db_url){ 0 };
}

static enum err encode(const char *s, struct buf *out)
{
    enum err e = ERR_OK;
    for (; *s != '\0' && e == ERR_OK; s++) {
        bool plain = (*s >= 'a' && *s <= 'z') || (*s >= 'A' && *s <= 'Z') ||
                     (*s >= '0' && *s <= '9') || strchr("-._~", *s) != NULL;
        e = plain ? buf_append_char(out, *s) : buf_printf(out, "%%%02X", (unsigned char)*s);
    }
    return e;
}

enum err db_url_compose(const char *user, const char *password, const char *host, uint16_t port,
                        const char *database, struct buf *out)
{
    bool v6 = strchr(host, ':') != NULL;
    enum err e = buf_appendz(out, "mysql://");
    if (e == ERR_OK) e = encode(user, out);
    if (e == ERR_OK) e = buf_append_char(out, ':');
    if (e == ERR_OK) e = encode(password, out);
    if (e == ERR_OK)
        e = buf_printf(out, "@%s%s%s:%u/", v6 ? "[" : "", host, v6 ? "]" : "", (unsigned)port);
    if (e == ERR_OK) e = encode(database, out);
    return e;
}
