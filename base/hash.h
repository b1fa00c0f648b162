/* hash.h - keyed hashing: SipHash-2-4 with a 128-bit result (Aumasson and Bernstein, 2012).
 *
 * Keyed, because what is hashed comes from clients: without the key nobody can craft two prompts
 * that share a cached block. 128 bits, because an equal hash is taken as equal content. */
#ifndef INFERD_BASE_HASH_H
#define INFERD_BASE_HASH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct hash128 {
    uint64_t low, high;
};

struct hash_key {
    uint64_t k0, k1;
};

struct hash128 hash_sip128(struct hash_key key, const void *data, size_t len);
static inline bool hash128_equal(struct hash128 a, struct hash128 b)
{
    return a.low == b.low && a.high == b.high;
}

#endif
