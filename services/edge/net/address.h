/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whose request it is: the peer's address, or, when the peer is a proxy that the configuration
 * trusts, what it says. Addresses are 16 bytes, IPv4 as IPv4-mapped. Pure; any thread.
 */
#ifndef EDGE_ADDRESS_H
#define EDGE_ADDRESS_H

#include <sys/socket.h>

#include "http/h1.h"
#include "proto/snapshot.h"

enum { ADDRESS_NETWORKS_MAX = 64, ADDRESS_TEXT = 46, ADDRESS_HOPS_MAX = 64 };

/* Networks of a setting: "10.0.0.0/8, 2001:db8::/32". */
struct address_networks {
    struct snap_network v[ADDRESS_NETWORKS_MAX];
    size_t n;
};
/* text may be NULL. ERR_INVALID with why. */
enum err address_networks_parse(const char *text, struct address_networks *ret,
                                struct why *why) MUSTCHECK;
bool address_is_in(const struct address_networks *n, const unsigned char address[16]);

/* False: neither IPv4 nor IPv6; out is zero then. */
bool address_of_socket(const struct sockaddr_storage *a, unsigned char out[16]);
/* An address as X-Forwarded-For and Forwarded have it: with brackets, with a port, or bare. */
bool address_parse(struct str s, unsigned char out[16]);
/* "203.0.113.7", "2001:db8::1". */
void address_print(const unsigned char address[16], char out[ADDRESS_TEXT]);
/* Loopback and private networks. */
bool address_is_private(const unsigned char address[16]);

/* Which field proxies write, and the client's own words in the other are not looked at. */
enum address_field { ADDRESS_X_FORWARDED_FOR, ADDRESS_FORWARDED };
enum err address_field_parse(struct str name, enum address_field *ret) MUSTCHECK;

/*
 * Turns the peer's address into the client's, by that field (all of its name are one list) from its
 * right end: each trusted proxy vouches for the address to the left of its own. What
 * is no address ends the walk: what came so far is known, what lies behind is hearsay.
 */
void address_of_client(const struct address_networks *trusted, enum address_field field,
                       const struct h1_head *head, unsigned char address[16]);

#endif
