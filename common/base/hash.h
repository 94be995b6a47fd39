/* SPDX-License-Identifier: Apache-2.0 */
/* Hashes that are not for secrets: table look-ups with keys clients choose (keyed), and checksums
 * of our own files. */
#ifndef BASE_HASH_H
#define BASE_HASH_H

#include <stddef.h>
#include <stdint.h>

/* SipHash-1-3 (Aumasson and Bernstein) of n bytes under a 128-bit key: collisions cannot be aimed
 * without the key. */
uint64_t hash_sip(const void *data, size_t n, const uint64_t key[2]);

/* SipHash-1-3 under a key drawn once per process. For tables in memory only: values differ between
 * processes. */
uint64_t hash_bytes(const void *data, size_t n);

/* CRC-32C (Castagnoli, RFC 3720 appendix B.4), continuing from crc (0 to begin). */
uint32_t hash_crc32c(uint32_t crc, const void *data, size_t n);

#endif
