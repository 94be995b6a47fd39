/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The keys of counters: what a policy's `per` list says of a request, as text such as
 * "ns=<id>;ip=203.0.113.7;header:x-team=h:0123456789abcdef". Pure, no allocation; what has to be
 * hashed or formatted is so once per request, whatever number of policies ask for it.
 *
 * What a client supplies (user, headers, models that are not configured) enters only as a keyed
 * hash of its first ADMIT_VALUE_MAX bytes. A source that the request lacks is "-".
 */
#ifndef EDGE_ADMIT_KEY_H
#define EDGE_ADMIT_KEY_H

#include "http/h1.h"
#include "proto/lease_msg.h"
#include "proto/snapshot.h"

enum {
    ADMIT_VALUE_MAX = 256,
    ADMIT_HASH_LEN = 18, /* "h:" and 16 digits */
    ADMIT_KEY_ROOM = SNAP_PER_MAX * 160
};

/* Who asks for what. */
struct admit_subject {
    const struct snap_namespace *ns;
    const struct snap_key *key;           /* NULL: none */
    const struct snap_upstream *upstream; /* NULL: none */
    struct str model;                     /* as the client wrote it; n == 0: none */
    const struct snap_model *model_known; /* the configured model it matched, or NULL */
    const struct h1_head *head;           /* for headers; NULL: none */
    bool has_address;
    unsigned char address[16]; /* the client's; IPv4 as IPv4-mapped */
    bool has_user;
    uint64_t user_hash; /* admit_hash() of the user that the body names */
};

uint64_t admit_hash(struct str value, const unsigned char hash_key[16]);

/* What was made for this request already. Begin with admit_keys_init(). */
struct admit_keys {
    const struct admit_subject *subject;
    const unsigned char *hash_key;
    bool plain_address; /* an address is written as it is, not hashed */
    char model[ADMIT_HASH_LEN];
    bool model_made;
    char address[48];
    size_t address_n;
    unsigned address_prefix; /* that it was made for */
    struct {
        struct str name;
        char text[ADMIT_HASH_LEN];
        size_t n;
    } headers[4];
    size_t headers_n;
};

/* Borrows both. */
void admit_keys_init(struct admit_keys *k, const struct admit_subject *s,
                     const unsigned char hash_key[16], bool plain_address);
/* The key of that policy's counter, in out; at most LEASE_KEY_MAX bytes, the end of a longer one is
 * a hash of the whole. */
struct str admit_key(struct admit_keys *k, const struct snap_policy *p, char out[ADMIT_KEY_ROOM]);

#endif
