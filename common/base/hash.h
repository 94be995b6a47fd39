/* SPDX-License-Identifier: Apache-2.0 */
/* Hashes that are not for secrets: table look-ups with keys clients choose (keyed), and checksums
 * of our own files. */
#ifndef BASE_HASH_H
#define BASE_HASH_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* SipHash-1-3 (Aumasson and Bernstein) of n bytes under a 128-bit key: collisions cannot be aimed
 * without the key. */
uint64_t hash_sip(const void *data, size_t n, const uint64_t key[2]);

/* SipHash-1-3 under a key drawn once per process. For tables in memory only: values differ between
 * processes. */
uint64_t hash_bytes(const void *data, size_t n);

/* A number of the last eight bytes, or of all of a shorter text: for places in caches that compare
 * what they find there. Not keyed, and texts of other lengths may have the same. */
static inline uint64_t hash_tail(const char *p, size_t n)
{
    uint64_t v = 0;
    uint32_t first, last;
    if (n >= 8) {
        memcpy(&v, p + n - 8, 8);
    } else if (n >= 4) {
        memcpy(&first, p, 4);
        memcpy(&last, p + n - 4, 4);
        v = (uint64_t)first << 32 | last;
    } else if (n > 0) {
        v = (uint64_t)(unsigned char)p[0] << 16 | (uint64_t)(unsigned char)p[n / 2] << 8 |
            (unsigned char)p[n - 1];
    }
    return v;
}

/* CRC-32C (Castagnoli, RFC 3720 appendix B.4), continuing from crc (0 to begin). */
uint32_t hash_crc32c(uint32_t crc, const void *data, size_t n);

#endif
