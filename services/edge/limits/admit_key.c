/* SPDX-License-Identifier: Apache-2.0 */
/* See the header. On the request's worker. */
#include "admit_key.h"

#include <arpa/inet.h>
#include <stdio.h>

#include "base/hash.h"

uint64_t admit_hash(struct str value, const unsigned char hash_key[16])
{
    uint64_t key[2];
    memcpy(key, hash_key, sizeof key);
    return hash_sip(value.p, MIN(value.n, (size_t)ADMIT_VALUE_MAX), key);
}

static void write_hash(uint64_t h, char out[ADMIT_HASH_LEN])
{
    static const char digits[] = "0123456789abcdef";
    out[0] = 'h';
    out[1] = ':';
    for (int i = 0; i < 16; i++) out[2 + i] = digits[h >> (60 - 4 * i) & 15];
}

void admit_keys_init(struct admit_keys *k, const struct admit_subject *s,
                     const unsigned char hash_key[16], bool plain_address)
{
    k->subject = s;
    k->hash_key = hash_key;
    k->plain_address = plain_address;
    k->model_made = false;
    k->address_n = 0;
    k->headers_n = 0;
}

/* --- sources --- */

static struct str model_of(struct admit_keys *k)
{
    const struct admit_subject *s = k->subject;
    if (s->model_known != NULL) return s->model_known->id;
    if (s->model.n == 0) return STR_NULL;
    if (!k->model_made) write_hash(admit_hash(s->model, k->hash_key), k->model);
    k->model_made = true;
    return str_n(k->model, ADMIT_HASH_LEN);
}

static bool is_mapped_v4(const unsigned char a[16])
{
    static const unsigned char prefix[12] = { [10] = 0xff, [11] = 0xff };
    return memcmp(a, prefix, sizeof prefix) == 0;
}

static size_t write_address(const unsigned char a[16], unsigned prefix, char out[48])
{
    if (is_mapped_v4(a)) {
        (void)inet_ntop(AF_INET, a + 12, out, 48);
        return strlen(out);
    }
    unsigned char masked[16] = { 0 };
    memcpy(masked, a, prefix / 8);
    if (prefix % 8 != 0) masked[prefix / 8] = (unsigned char)(a[prefix / 8] & 0xff00 >> prefix % 8);
    (void)inet_ntop(AF_INET6, masked, out, 48);
    size_t n = strlen(out);
    int more = prefix < 128 ? snprintf(out + n, 48 - n, "/%u", prefix) : 0;
    return n + (size_t)more;
}

/* An IPv4 address whole, of IPv6 as many bits as the policy says: a client has a whole network of
 * the latter. */
static struct str address_of(struct admit_keys *k, const struct snap_policy *p)
{
    const struct admit_subject *s = k->subject;
    unsigned prefix = MIN(p->ipv6_prefix, 128u);
    if (!s->has_address) return STR_NULL;
    if (k->address_n == 0 || k->address_prefix != prefix) {
        k->address_prefix = prefix;
        k->address_n = write_address(s->address, prefix, k->address);
        if (!k->plain_address) {
            write_hash(admit_hash(str_n(k->address, k->address_n), k->hash_key), k->address);
            k->address_n = ADMIT_HASH_LEN;
        }
    }
    return str_n(k->address, k->address_n);
}

static struct str header_of(struct admit_keys *k, struct str name)
{
    size_t i = 0;
    if (k->subject->head == NULL) return STR_NULL;
    while (i < k->headers_n && !str_eq(k->headers[i].name, name)) i++;
    if (i == k->headers_n) {
        if (i == ARRAY_LEN(k->headers)) i = 0; /* made anew */
        struct str v = h1_header(k->subject->head, name);
        k->headers[i].name = name;
        k->headers[i].n = 0;
        if (v.n > 0) {
            write_hash(admit_hash(v, k->hash_key), k->headers[i].text);
            k->headers[i].n = ADMIT_HASH_LEN;
        }
        if (i == k->headers_n) k->headers_n++;
    }
    return str_n(k->headers[i].text, k->headers[i].n);
}

/* --- the key --- */

struct writer {
    char *p;
    size_t n;
};

static void put(struct writer *w, struct str s)
{
    /* ids have at most 64 bytes, as names of headers do */
    ASSERT(s.n <= ADMIT_KEY_ROOM - w->n);
    memcpy(w->p + w->n, s.p, s.n);
    w->n += s.n;
}

static void add(struct writer *w, struct str name, struct str value)
{
    if (w->n > 0) put(w, STR(";"));
    put(w, name);
    put(w, STR("="));
    put(w, value.p != NULL && value.n > 0 ? value : STR("-"));
}

struct str admit_key(struct admit_keys *k, const struct snap_policy *p, char out[ADMIT_KEY_ROOM])
{
    const struct admit_subject *s = k->subject;
    struct writer w = { out, 0 };
    char user[ADMIT_HASH_LEN];
    for (size_t i = 0; i < p->per_n; i++) {
        switch (p->per[i]) {
        case SNAP_PER_NAMESPACE: add(&w, STR("ns"), s->ns->id); break;
        case SNAP_PER_KEY: add(&w, STR("key"), s->key != NULL ? s->key->id : STR_NULL); break;
        case SNAP_PER_MODEL: add(&w, STR("model"), model_of(k)); break;
        case SNAP_PER_UPSTREAM:
            add(&w, STR("up"), s->upstream != NULL ? s->upstream->id : STR_NULL);
            break;
        case SNAP_PER_IP: add(&w, STR("ip"), address_of(k, p)); break;
        case SNAP_PER_USER:
            if (s->has_user) write_hash(s->user_hash, user);
            add(&w, STR("user"), s->has_user ? str_n(user, sizeof user) : STR_NULL);
            break;
        case SNAP_PER_HEADER:
            put(&w, w.n > 0 ? STR(";header:") : STR("header:"));
            put(&w, p->per_header[i]);
            put(&w, STR("="));
            struct str v = header_of(k, p->per_header[i]);
            put(&w, v.n > 0 ? v : STR("-"));
            break;
        }
    }
    if (w.n == 0) add(&w, STR("all"), STR("1"));
    if (w.n > LEASE_KEY_MAX) {
        uint64_t key[2];
        memcpy(key, k->hash_key, sizeof key);
        write_hash(hash_sip(out, w.n, key), out + LEASE_KEY_MAX - ADMIT_HASH_LEN);
        w.n = LEASE_KEY_MAX;
    }
    return str_n(out, w.n);
}
