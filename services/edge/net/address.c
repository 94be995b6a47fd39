/* SPDX-License-Identifier: Apache-2.0 */
#include "address.h"

#include <arpa/inet.h>

#include "forwarded.h"

static const unsigned char mapped[12] = { 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff };

enum err address_networks_parse(const char *text, struct address_networks *ret, struct why *why)
{
    struct str rest = str_of(text != NULL ? text : "");
    struct address_networks n = { .n = 0 };
    while (rest.n > 0) {
        struct str one = str_trim(str_cut(&rest, ','));
        if (one.n == 0) continue;
        if (n.n == ADDRESS_NETWORKS_MAX)
            return why_set(why, ERR_INVALID, "at most %d networks", ADDRESS_NETWORKS_MAX);
        const char *problem = snap_network_parse(one, &n.v[n.n]);
        if (problem != NULL)
            return why_set(why, ERR_INVALID, "\"%.*s\" %s", (int)MIN(one.n, (size_t)64), one.p,
                           problem);
        n.n++;
    }
    *ret = n;
    return ERR_OK;
}

bool address_is_in(const struct address_networks *n, const unsigned char address[16])
{
    for (size_t i = 0; i < n->n; i++)
        if (snap_network_has(&n->v[i], address)) return true;
    return false;
}

bool address_of_socket(const struct sockaddr_storage *a, unsigned char out[16])
{
    memset(out, 0, 16);
    if (a->ss_family == AF_INET) {
        memcpy(out, mapped, sizeof mapped);
        memcpy(out + 12, &((const struct sockaddr_in *)(const void *)a)->sin_addr, 4);
    } else if (a->ss_family == AF_INET6) {
        memcpy(out, &((const struct sockaddr_in6 *)(const void *)a)->sin6_addr, 16);
    }
    return a->ss_family == AF_INET || a->ss_family == AF_INET6;
}

static bool is_port(struct str s)
{
    uint64_t port;
    return s.n > 0 && s.n <= 5 && str_to_u64(s, &port) == ERR_OK && port <= 65535;
}

bool address_parse(struct str s, unsigned char out[16])
{
    char text[ADDRESS_TEXT];
    unsigned char v4[4];
    s = str_trim(s);
    if (s.n == 0 || memchr(s.p, '\0', s.n) != NULL) return false;
    if (s.p[0] == '[') { /* [2001:db8::1]:4711 */
        const char *end = memchr(s.p, ']', s.n);
        if (end == NULL) return false;
        struct str behind = str_n(end + 1, s.n - (size_t)(end + 1 - s.p));
        if (behind.n > 0 && (behind.p[0] != ':' || !is_port(str_n(behind.p + 1, behind.n - 1))))
            return false;
        s = str_n(s.p + 1, (size_t)(end - s.p) - 1);
        return str_copyz(text, sizeof text, s) && inet_pton(AF_INET6, text, out) == 1;
    }
    const char *colon = memchr(s.p, ':', s.n);
    if (colon != NULL && memrchr(s.p, ':', s.n) == colon) { /* 203.0.113.7:4711 */
        if (!is_port(str_n(colon + 1, s.n - (size_t)(colon + 1 - s.p)))) return false;
        s.n = (size_t)(colon - s.p);
        colon = NULL;
    }
    if (!str_copyz(text, sizeof text, s)) return false;
    if (colon != NULL) return inet_pton(AF_INET6, text, out) == 1;
    if (inet_pton(AF_INET, text, v4) != 1) return false;
    memcpy(out, mapped, sizeof mapped);
    memcpy(out + 12, v4, 4);
    return true;
}

void address_print(const unsigned char address[16], char out[ADDRESS_TEXT])
{
    bool v4 = memcmp(address, mapped, sizeof mapped) == 0;
    if (inet_ntop(v4 ? AF_INET : AF_INET6, v4 ? address + 12 : address, out, ADDRESS_TEXT) == NULL)
        out[0] = '\0';
}

bool address_is_private(const unsigned char address[16])
{
    const unsigned char *b = address + 12;
    static const unsigned char loopback[16] = { [15] = 1 };
    if (memcmp(address, mapped, sizeof mapped) != 0)
        return memcmp(address, loopback, 16) == 0 || (address[0] & 0xfe) == 0xfc;
    return b[0] == 127 || b[0] == 10 || (b[0] == 172 && b[1] >> 4 == 1) ||
           (b[0] == 192 && b[1] == 168);
}

enum err address_field_parse(struct str name, enum address_field *ret)
{
    bool standard = str_ieqz(name, "forwarded");
    if (!standard && !str_ieqz(name, "x-forwarded-for")) return ERR_INVALID;
    *ret = standard ? ADDRESS_FORWARDED : ADDRESS_X_FORWARDED_FOR;
    return ERR_OK;
}

/* On the way from the peer to the client. */
struct walk {
    const struct address_networks *trusted;
    unsigned char *address;
    int hops;
};

/* Takes the next address to the left; false: here it ends. */
static bool step(struct walk *w, struct str text)
{
    unsigned char next[16];
    if (!address_is_in(w->trusted, w->address) || w->hops++ == ADDRESS_HOPS_MAX) return false;
    if (!address_parse(text, next)) return false;
    memcpy(w->address, next, 16);
    return true;
}

static bool walk_list(struct walk *w, struct str list)
{
    do {
        const char *comma = list.n > 0 ? memrchr(list.p, ',', list.n) : NULL;
        size_t from = comma != NULL ? (size_t)(comma + 1 - list.p) : 0;
        if (!step(w, str_n(list.p + from, list.n - from))) return false;
        list.n = from > 0 ? from - 1 : 0;
    } while (list.n > 0);
    return true;
}

static bool walk_forwarded(struct walk *w, struct str field)
{
    struct str of[FORWARDED_MAX];
    size_t n;
    if (!forwarded_parse(field, of, &n)) return false;
    while (n > 0)
        if (!step(w, of[--n])) return false;
    return true;
}

void address_of_client(const struct address_networks *trusted, enum address_field field,
                       const struct h1_head *head, unsigned char address[16])
{
    unsigned known = field == ADDRESS_FORWARDED ? H1_FORWARDED : H1_X_FORWARDED_FOR;
    struct walk w = { .trusted = trusted, .address = address };
    if (trusted->n == 0 || head->first[known] == 0) return;
    for (size_t i = head->fields_len; i-- > 0;) {
        const struct h1_field *f = &head->fields[i];
        if (f->known != known) continue;
        if (!(field == ADDRESS_FORWARDED ? walk_forwarded : walk_list)(&w, f->value)) return;
    }
}
