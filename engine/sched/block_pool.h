/* block_pool.h - the physical KV blocks: who uses each, which are free, which content is cached.
 *
 * A block is in use while its reference count is above zero; several sequences with one prefix may
 * share it. A free block keeps its content, and its hash, until it is handed out again. Free blocks
 * wait in a list whose front goes first: blocks without cached content stand before those with it,
 * and the latter are in the order in which they were released (least recently used first).
 *
 * Every block can be given out: there is no null block, because padded rows of a batch carry slot
 * -1 instead of pointing somewhere harmless.
 *
 * Engine thread only. All memory is taken in block_pool_new; every call is O(1), the index lookups
 * in expectation. Block ids are 0 .. num_blocks - 1. */
#ifndef INFERD_ENGINE_SCHED_BLOCK_POOL_H
#define INFERD_ENGINE_SCHED_BLOCK_POOL_H

#include "base/hash.h"
#include "base/status.h"
#include <stdint.h>

enum { BLOCK_NONE = -1 };

struct block_pool;

struct block_pool *block_pool_new(int32_t num_blocks);
void block_pool_free(struct block_pool *p);
int32_t block_pool_num_blocks(const struct block_pool *p);
int32_t block_pool_num_free(const struct block_pool *p);
int32_t block_pool_ref_count(const struct block_pool *p, int32_t block);

/* Hands out the front of the free list with one reference; its cached content is forgotten now.
 * There must be a free block. */
int32_t block_pool_take(struct block_pool *p);
/* One more user of a block that block_pool_find gave; a free one leaves the free list. */
void block_pool_ref(struct block_pool *p, int32_t block);
/* One user less; without users the block is free. Release a sequence's blocks last one first, so
 * that prefixes outlive what follows them. */
void block_pool_unref(struct block_pool *p, int32_t block);

/* The block whose content has this hash, or BLOCK_NONE. No side effect. */
int32_t block_pool_find(const struct block_pool *p, struct hash128 hash);
/* Makes the content of a full, computed block findable. Where another block already holds equal
 * content that one stays the findable one: equal blocks are not merged. */
void block_pool_register(struct block_pool *p, int32_t block, struct hash128 hash);
/* The block's content is not to be found any more. Harmless where it never was. */
void block_pool_forget(struct block_pool *p, int32_t block);
/* Forgets all contents; false, with nothing done, while a block is in use. */
bool block_pool_reset(struct block_pool *p);

/* Recounts everything, for tests: reference counts against `expected_refs` [num_blocks], the free
 * list against the counts, the index against the blocks. */
bool block_pool_check(const struct block_pool *p, const int32_t *expected_refs, struct status *st);

#endif
