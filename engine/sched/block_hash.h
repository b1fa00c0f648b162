/* block_hash.h - the identity of a full KV block: a keyed hash of its tokens chained to its
 * parent's, so that an equal hash means an equal whole prefix (and an equal cache_salt).
 *
 * The rule is vLLM's: hash(block) = H(parent hash, token ids), the salt entering at the root. Keyed
 * with a key of this process, so that no client can craft two prompts that share a block. */
#ifndef INFERD_ENGINE_SCHED_BLOCK_HASH_H
#define INFERD_ENGINE_SCHED_BLOCK_HASH_H

#include "base/hash.h"
#include <stdint.h>
#include <string.h>

enum { MAX_BLOCK_SIZE = 256 }; /* tokens; the highest value the option block_size takes */

/* The parent of a request's first block. Its input has an odd length, which no block's has, so a
 * chosen salt cannot stand in for a block. */
static inline struct hash128 block_hash_root(struct hash_key key, struct hash128 cache_salt)
{
    unsigned char data[sizeof cache_salt.low + sizeof cache_salt.high + 1];
    memcpy(data, &cache_salt.low, sizeof cache_salt.low);
    memcpy(data + sizeof cache_salt.low, &cache_salt.high, sizeof cache_salt.high);
    data[sizeof data - 1] = 'r';
    return hash_sip128(key, data, sizeof data);
}

/* token_ids: [block_size], block_size <= MAX_BLOCK_SIZE */
static inline struct hash128 block_hash_chain(struct hash_key key, struct hash128 parent,
                                              const int32_t *token_ids, int32_t block_size)
{
    uint64_t data[2 + MAX_BLOCK_SIZE * sizeof(int32_t) / sizeof(uint64_t)];
    size_t tokens_bytes = (size_t)block_size * sizeof *token_ids;
    data[0] = parent.low;
    data[1] = parent.high;
    memcpy(data + 2, token_ids, tokens_bytes);
    return hash_sip128(key, data, 2 * sizeof data[0] + tokens_bytes);
}

/* The identity of what a group of layers keeps of that block. Another number in the low word also
 * sends the groups of one block to different places of an index. */
static inline struct hash128 block_hash_of_group(struct hash128 block, int32_t group)
{
    block.low += (uint64_t)group * 0x9e3779b97f4a7c15u;
    return block;
}

#endif
