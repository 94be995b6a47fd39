/* SPDX-License-Identifier: Apache-2.0 */
/* See the header. Any thread. */
#include "rt/redis_url.h"

/* Percent-decodes s into out. */
static bool decode(struct str s, char *out, size_t cap)
{
    size_t n = 0;
    for (size_t i = 0; i < s.n; i++) {
        unsigned char byte;
        if (n + 1 >= cap) return false;
        if (s.p[i] != '%') {
            out[n++] = s.p[i];
        } else if (i + 2 < s.n && hex_decode(str_n(s.p + i + 1, 2), &byte, 1) == ERR_OK &&
                   byte != 0) {
            out[n++] = (char)byte;
            i += 2;
        } else {
            return false;
        }
    }
    out[n] = '\0';
    return true;
}

static bool parse_login(struct redis_address *a, struct str login)
{
    const char *colon = memchr(login.p, ':', login.n);
    struct str user = login, password = STR("");
    if (colon != NULL) {
        user.n = (size_t)(colon - login.p);
        password = str_n(colon + 1, login.n - user.n - 1);
    }
    return decode(user, a->user, sizeof a->user) &&
           decode(password, a->password, sizeof a->password);
}

static bool parse_place(struct redis_place *ret, struct str place, uint64_t usual_port)
{
    struct str host = place, port = STR_NULL;
    uint64_t number = usual_port;
    const char *end = NULL;
    if (place.n > 0 && place.p[0] == '[') {
        end = memchr(place.p, ']', place.n);
        if (end == NULL) return false;
        host = str_n(place.p + 1, (size_t)(end - place.p) - 1);
        port = str_n(end + 1, place.n - (size_t)(end + 1 - place.p));
        if (port.n > 0 && port.p[0] != ':') return false;
        if (port.n > 0) port = str_n(port.p + 1, port.n - 1);
    } else if ((end = memchr(place.p, ':', place.n)) != NULL) {
        host.n = (size_t)(end - place.p);
        port = str_n(end + 1, place.n - host.n - 1);
    }
    if (end != NULL && port.n > 0 && str_to_u64(port, &number) != ERR_OK) return false;
    if (number == 0 || number > 65535 || memchr(host.p, ',', host.n) != NULL) return false;
    ret->port = (int)number;
    return host.n > 0 && decode(host, ret->host, sizeof ret->host);
}

static bool parse_places(struct redis_address *a, struct str places)
{
    while (places.n > 0) {
        struct str place = str_cut(&places, ',');
        if (a->places_n == REDIS_PLACES_MAX) return false;
        if (!parse_place(&a->places[a->places_n], place, 26379)) return false;
        a->places_n++;
    }
    return a->places_n > 0;
}

static bool parse(struct redis_address *a, struct str url)
{
    struct str rest, first, db;
    uint64_t number = 0;
    a->by_sentinel = str_starts(url, STR("redis+sentinel://"));
    if (!a->by_sentinel && !str_starts(url, STR("redis://"))) return false;
    size_t scheme = a->by_sentinel ? 17 : 8;
    rest = str_n(url.p + scheme, url.n - scheme);
    for (size_t i = rest.n; i > 0; i--) { /* the last @: a password may hold one */
        if (rest.p[i - 1] != '@') continue;
        if (!parse_login(a, str_n(rest.p, i - 1))) return false;
        rest = str_n(rest.p + i, rest.n - i);
        break;
    }
    first = str_cut(&rest, '/');
    if (first.n == 0) return false;
    if (a->by_sentinel) {
        struct str master = str_cut(&rest, '/');
        if (master.n == 0 || !decode(master, a->master, sizeof a->master)) return false;
        if (!parse_places(a, first)) return false;
    } else {
        if (!parse_place(&a->places[0], first, 6379)) return false;
        a->places_n = 1;
    }
    db = rest;
    if (db.n > 0 && (str_to_u64(db, &number) != ERR_OK || number > 1000000)) return false;
    a->db = (int)number;
    return true;
}

enum err redis_url_parse(struct str url, struct redis_address *ret, struct why *why)
{
    struct redis_address a = { .places_n = 0 };
    if (!parse(&a, url))
        return why_set(why, ERR_INVALID,
                       "must be redis://[user:password@]host[:port][/db] or "
                       "redis+sentinel://[user:password@]host[:port],…/master-name[/db]");
    *ret = a;
    return ERR_OK;
}
