/* SPDX-License-Identifier: Apache-2.0 */
#include "base/hash.h"

#include <pthread.h>
#include <string.h>
#include <sys/random.h>

#include "base/err.h"

static inline uint64_t rotl(uint64_t x, int b)
{
    return x << b | x >> (64 - b);
}

static inline void sip_round(uint64_t v[4])
{
    v[0] += v[1], v[1] = rotl(v[1], 13) ^ v[0], v[0] = rotl(v[0], 32);
    v[2] += v[3], v[3] = rotl(v[3], 16) ^ v[2];
    v[0] += v[3], v[3] = rotl(v[3], 21) ^ v[0];
    v[2] += v[1], v[1] = rotl(v[1], 17) ^ v[2], v[2] = rotl(v[2], 32);
}

static inline uint64_t load64(const unsigned char *p, size_t n)
{
    uint64_t w = 0;
    memcpy(&w, p, n); /* little-endian machines only, as everything else here */
    return w;
}

uint64_t hash_sip(const void *data, size_t n, const uint64_t key[2])
{
    const unsigned char *p = data;
    uint64_t v[4] = { key[0] ^ 0x736f6d6570736575u, key[1] ^ 0x646f72616e646f6du,
                      key[0] ^ 0x6c7967656e657261u, key[1] ^ 0x7465646279746573u };
    size_t left = n;
    for (; left >= 8; p += 8, left -= 8) {
        uint64_t m = load64(p, 8);
        v[3] ^= m;
        sip_round(v);
        v[0] ^= m;
    }
    uint64_t m = (left > 0 ? load64(p, left) : 0) | (uint64_t)n << 56;
    v[3] ^= m;
    sip_round(v);
    v[0] ^= m;
    v[2] ^= 0xff;
    sip_round(v), sip_round(v), sip_round(v);
    return v[0] ^ v[1] ^ v[2] ^ v[3];
}

static uint64_t process_key[2];
static pthread_once_t process_key_once = PTHREAD_ONCE_INIT;

static void draw_process_key(void)
{
    ASSERT(getrandom(process_key, sizeof process_key, 0) == sizeof process_key);
}

uint64_t hash_bytes(const void *data, size_t n)
{
    (void)pthread_once(&process_key_once, draw_process_key);
    return hash_sip(data, n, process_key);
}

static uint32_t crc_table[256];
static pthread_once_t crc_once = PTHREAD_ONCE_INIT;

static void fill_crc_table(void)
{
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t c = i;
        for (int k = 0; k < 8; k++) c = c & 1 ? 0x82f63b78u ^ c >> 1 : c >> 1;
        crc_table[i] = c;
    }
}

#if defined(__x86_64__)
/* The processor's own instruction (SSE 4.2), eight bytes at a time. */
__attribute__((target("sse4.2"))) static uint32_t crc_hardware(uint32_t crc, const unsigned char *p,
                                                               size_t n)
{
    uint64_t c = crc;
    for (; n >= 8; p += 8, n -= 8) c = __builtin_ia32_crc32di(c, load64(p, 8));
    uint32_t c32 = (uint32_t)c;
    for (; n > 0; p++, n--) c32 = __builtin_ia32_crc32qi(c32, *p);
    return c32;
}
#endif

uint32_t hash_crc32c(uint32_t crc, const void *data, size_t n)
{
    const unsigned char *p = data;
#if defined(__x86_64__)
    if (__builtin_cpu_supports("sse4.2")) return ~crc_hardware(~crc, p, n);
#endif
    (void)pthread_once(&crc_once, fill_crc_table);
    crc = ~crc;
    while (n-- > 0) crc = crc_table[(crc ^ *p++) & 0xff] ^ crc >> 8;
    return ~crc;
}
