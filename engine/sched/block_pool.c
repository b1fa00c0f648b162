/* block_pool.c - blocks as an array, the free list as indices in it, the index as open addressing.
 *
 * The index is a table of block ids, twice as large as there are blocks, probed linearly from the
 * hash's low bits; the hash itself is in the block. Removal moves later entries of the cluster back
 * instead of leaving tombstones, so that years of churn do not slow it down. */
#include "engine/sched/block_pool.h"
#include "base/alloc.h"

#include <assert.h>
#include <stdlib.h>

struct block {
    struct hash128 hash; /* of the content, where findable */
    int32_t ref_count;
    int32_t prev, next; /* in the free list, while ref_count is 0 */
    bool findable;      /* in the index */
};

struct block_pool {
    int32_t num_blocks, num_free;
    uint32_t index_mask;
    int32_t *index;       /* [index_mask + 1] block id or BLOCK_NONE */
    struct block *blocks; /* [num_blocks + 1]; the last one is the free list's sentinel */
};

struct block_pool *block_pool_new(int32_t num_blocks)
{
    assert(num_blocks > 0 && num_blocks <= 1 << 29);
    struct block_pool *p = xcalloc(1, sizeof *p);
    p->num_blocks = p->num_free = num_blocks;
    p->blocks = xcalloc((size_t)num_blocks + 1, sizeof *p->blocks);
    for (int32_t b = 0; b <= num_blocks; b++) {
        p->blocks[b].prev = b == 0 ? num_blocks : b - 1;
        p->blocks[b].next = b == num_blocks ? 0 : b + 1;
    }
    uint32_t size = 4;
    while (size < 2 * (uint32_t)num_blocks)
        size *= 2;
    p->index_mask = size - 1;
    p->index = xmalloc(size * sizeof *p->index);
    for (uint32_t i = 0; i < size; i++)
        p->index[i] = BLOCK_NONE;
    return p;
}

void block_pool_free(struct block_pool *p)
{
    if (!p)
        return;
    free(p->index);
    free(p->blocks);
    free(p);
}

int32_t block_pool_num_blocks(const struct block_pool *p)
{
    return p->num_blocks;
}

int32_t block_pool_num_free(const struct block_pool *p)
{
    return p->num_free;
}

int32_t block_pool_ref_count(const struct block_pool *p, int32_t block)
{
    assert(block >= 0 && block < p->num_blocks);
    return p->blocks[block].ref_count;
}

static void unlink_free(struct block_pool *p, int32_t block)
{
    struct block *b = &p->blocks[block];
    p->blocks[b->prev].next = b->next;
    p->blocks[b->next].prev = b->prev;
    p->num_free--;
}

/* Puts the block between two neighbours of the free list. */
static void link_free(struct block_pool *p, int32_t block, int32_t prev, int32_t next)
{
    p->blocks[block].prev = prev;
    p->blocks[block].next = next;
    p->blocks[prev].next = block;
    p->blocks[next].prev = block;
    p->num_free++;
}

int32_t block_pool_take(struct block_pool *p)
{
    assert(p->num_free > 0);
    int32_t block = p->blocks[p->num_blocks].next;
    assert(p->blocks[block].ref_count == 0);
    unlink_free(p, block);
    block_pool_forget(p, block);
    p->blocks[block].ref_count = 1;
    return block;
}

void block_pool_ref(struct block_pool *p, int32_t block)
{
    assert(block >= 0 && block < p->num_blocks);
    if (p->blocks[block].ref_count++ == 0)
        unlink_free(p, block);
}

void block_pool_unref(struct block_pool *p, int32_t block)
{
    assert(block >= 0 && block < p->num_blocks && p->blocks[block].ref_count > 0);
    struct block *b = &p->blocks[block];
    if (--b->ref_count > 0)
        return;
    struct block *ends = &p->blocks[p->num_blocks];
    if (b->findable)
        link_free(p, block, ends->prev, p->num_blocks);
    else
        link_free(p, block, p->num_blocks, ends->next);
}

/* Where the probing for a hash begins. */
static uint32_t index_home(const struct block_pool *p, struct hash128 hash)
{
    return (uint32_t)hash.low & p->index_mask;
}

/* The index entry with that hash, or the empty one where it would go. */
static uint32_t index_find(const struct block_pool *p, struct hash128 hash)
{
    uint32_t i = index_home(p, hash);
    while (p->index[i] != BLOCK_NONE && !hash128_equal(p->blocks[p->index[i]].hash, hash))
        i = (i + 1) & p->index_mask;
    return i;
}

int32_t block_pool_find(const struct block_pool *p, struct hash128 hash)
{
    return p->index[index_find(p, hash)];
}

void block_pool_register(struct block_pool *p, int32_t block, struct hash128 hash)
{
    assert(block >= 0 && block < p->num_blocks);
    struct block *b = &p->blocks[block];
    assert(b->ref_count > 0 && !b->findable);
    uint32_t i = index_find(p, hash);
    if (p->index[i] != BLOCK_NONE)
        return;
    p->index[i] = block;
    b->hash = hash;
    b->findable = true;
}

void block_pool_forget(struct block_pool *p, int32_t block)
{
    assert(block >= 0 && block < p->num_blocks);
    if (!p->blocks[block].findable)
        return;
    p->blocks[block].findable = false;
    uint32_t hole = index_find(p, p->blocks[block].hash);
    assert(p->index[hole] == block);
    /* An entry further on fills the hole unless its home lies after the hole, cyclically. */
    for (uint32_t i = (hole + 1) & p->index_mask; p->index[i] != BLOCK_NONE;
         i = (i + 1) & p->index_mask) {
        uint32_t home = index_home(p, p->blocks[p->index[i]].hash);
        if (((i - home) & p->index_mask) >= ((i - hole) & p->index_mask)) {
            p->index[hole] = p->index[i];
            hole = i;
        }
    }
    p->index[hole] = BLOCK_NONE;
}

bool block_pool_reset(struct block_pool *p)
{
    if (p->num_free != p->num_blocks)
        return false;
    for (int32_t b = 0; b < p->num_blocks; b++)
        block_pool_forget(p, b);
    return true;
}

bool block_pool_check(const struct block_pool *p, const int32_t *expected_refs, struct status *st)
{
    int32_t used = 0, num_findable = 0, num_listed = 0;
    for (int32_t b = 0; b < p->num_blocks; b++) {
        const struct block *block = &p->blocks[b];
        if (block->ref_count != expected_refs[b])
            return status_set(st, STATUS_INTERNAL, "block %d has %d references, its users are %d",
                              b, block->ref_count, expected_refs[b]);
        used += block->ref_count > 0;
        num_findable += block->findable;
        if (block->findable && block_pool_find(p, block->hash) != b)
            return status_set(st, STATUS_INTERNAL, "block %d is not found by its hash", b);
    }
    if (used + p->num_free != p->num_blocks)
        return status_set(st, STATUS_INTERNAL, "%d blocks used and %d free are not %d", used,
                          p->num_free, p->num_blocks);
    int32_t prev = p->num_blocks;
    for (int32_t b = p->blocks[prev].next; b != p->num_blocks; prev = b, b = p->blocks[b].next) {
        if (p->blocks[b].ref_count != 0 || p->blocks[b].prev != prev)
            return status_set(st, STATUS_INTERNAL, "the free list is broken at block %d", b);
        if (++num_listed > p->num_free)
            break;
    }
    if (num_listed != p->num_free)
        return status_set(st, STATUS_INTERNAL, "the free list does not hold its %d blocks",
                          p->num_free);
    for (uint32_t i = 0; i <= p->index_mask; i++)
        num_findable -= p->index[i] != BLOCK_NONE;
    if (num_findable != 0)
        return status_set(st, STATUS_INTERNAL, "the hash index and the blocks differ by %d entries",
                          num_findable);
    return true;
}
