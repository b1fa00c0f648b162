/* kv_cache_manager.c - block tables as rows of one array, filled from the pool. */
#include "engine/sched/kv_cache_manager.h"
#include "base/alloc.h"
#include "engine/sched/block_hash.h"
#include "engine/sched/block_pool.h"

#include <assert.h>
#include <stdlib.h>

struct kv_cache_manager {
    struct kv_cache_config config;
    struct block_pool *pool;
    int32_t table_len;       /* blocks of one row */
    int32_t *tables;         /* [max_num_seqs][table_len] */
    int32_t *free_rows;      /* [max_num_seqs] a stack of the rows not in use */
    int32_t num_free_rows;   /* the next row, on top of the stack, is a lookup's scratch */
    struct hash128 hit_hash; /* of the last block that the latest lookup found, or the root */
};

struct kv_cache_manager *kv_cache_manager_new(const struct kv_cache_config *config)
{
    assert(config->block_size > 0 && config->block_size <= MAX_BLOCK_SIZE);
    assert(config->max_num_seqs > 0 && config->max_model_len > 0);
    struct kv_cache_manager *m = xcalloc(1, sizeof *m);
    m->config = *config;
    m->pool = block_pool_new(config->num_blocks);
    m->table_len = kv_cache_manager_blocks_for(m, config->max_model_len);
    if (m->table_len > config->num_blocks)
        m->table_len = config->num_blocks;
    /* Zeroed by the system, so rows cost memory only as far as they are filled. */
    m->tables = xcalloc((size_t)config->max_num_seqs * (size_t)m->table_len, sizeof *m->tables);
    m->free_rows = xmalloc((size_t)config->max_num_seqs * sizeof *m->free_rows);
    for (int32_t i = 0; i < config->max_num_seqs; i++)
        m->free_rows[i] = config->max_num_seqs - 1 - i;
    m->num_free_rows = config->max_num_seqs;
    return m;
}

void kv_cache_manager_free(struct kv_cache_manager *m)
{
    if (!m)
        return;
    block_pool_free(m->pool);
    free(m->tables);
    free(m->free_rows);
    free(m);
}

int32_t kv_cache_manager_num_free(const struct kv_cache_manager *m)
{
    return block_pool_num_free(m->pool);
}

int32_t kv_cache_manager_blocks_for(const struct kv_cache_manager *m, int32_t num_tokens)
{
    return num_tokens / m->config.block_size + (num_tokens % m->config.block_size != 0);
}

static int32_t *table_row(const struct kv_cache_manager *m, int32_t row)
{
    assert(row >= 0 && row < m->config.max_num_seqs);
    return m->tables + (size_t)row * (size_t)m->table_len;
}

const int32_t *kv_cache_manager_table(const struct kv_cache_manager *m, const struct sequence *seq)
{
    return table_row(m, seq->table);
}

static struct hash128 hash_block(const struct kv_cache_manager *m, const struct sequence *seq,
                                 struct hash128 parent, int32_t block_index)
{
    const int32_t *ids =
        seq->request->token_ids + (size_t)block_index * (size_t)m->config.block_size;
    return block_hash_chain(m->config.hash_key, parent, ids, m->config.block_size);
}

bool kv_cache_manager_looks_up(const struct kv_cache_manager *m, const struct sequence *seq)
{
    /* The log-probabilities of prompt tokens need their logits, so those must be computed; once
     * there is output they have been, and a preempted sequence may find its own blocks again. */
    return m->config.enable_prefix_caching &&
           (seq->request->params.num_prompt_logprobs < 0 || sequence_num_output_tokens(seq) > 0);
}

struct kv_cache_hit kv_cache_manager_lookup(struct kv_cache_manager *m, const struct sequence *seq)
{
    assert(seq->table < 0 && m->num_free_rows > 0);
    struct kv_cache_hit hit = { 0 };
    if (!m->config.enable_prefix_caching)
        return hit;
    m->hit_hash = block_hash_root(m->config.hash_key, seq->request->cache_salt);
    if (!kv_cache_manager_looks_up(m, seq))
        return hit;
    int32_t *row = table_row(m, m->free_rows[m->num_free_rows - 1]);
    /* At least one token is left to compute: its logits give the next one. */
    int32_t max_blocks = (seq->num_tokens - 1) / m->config.block_size;
    int32_t n = 0;
    for (; n < max_blocks; n++) {
        struct hash128 hash = hash_block(m, seq, m->hit_hash, n);
        row[n] = block_pool_find(m->pool, hash);
        if (row[n] == BLOCK_NONE)
            break;
        hit.num_free += block_pool_ref_count(m->pool, row[n]) == 0;
        m->hit_hash = hash;
    }
    hit.num_tokens = n * m->config.block_size;
    return hit;
}

void kv_cache_manager_admit(struct kv_cache_manager *m, struct sequence *seq,
                            const struct kv_cache_hit *hit, int32_t num_tokens)
{
    assert(seq->table < 0 && seq->num_blocks == 0 && m->num_free_rows > 0);
    seq->table = m->free_rows[--m->num_free_rows];
    seq->num_blocks = seq->num_keyed_blocks = hit->num_tokens / m->config.block_size;
    seq->num_computed_tokens = hit->num_tokens;
    seq->last_hash = m->hit_hash;
    /* All hits leave the free list first: taking new blocks must not hand one of them out. */
    const int32_t *row = table_row(m, seq->table);
    for (int32_t i = 0; i < seq->num_blocks; i++)
        block_pool_ref(m->pool, row[i]);
    bool enough = kv_cache_manager_grow(m, seq, num_tokens);
    assert(enough);
    (void)enough;
}

bool kv_cache_manager_grow(struct kv_cache_manager *m, struct sequence *seq, int32_t num_tokens)
{
    int32_t num_blocks = kv_cache_manager_blocks_for(m, num_tokens);
    assert(num_blocks <= m->table_len);
    if (num_blocks - seq->num_blocks > block_pool_num_free(m->pool))
        return false;
    int32_t *row = table_row(m, seq->table);
    while (seq->num_blocks < num_blocks)
        row[seq->num_blocks++] = block_pool_take(m->pool);
    return true;
}

void kv_cache_manager_register(struct kv_cache_manager *m, struct sequence *seq)
{
    if (!m->config.enable_prefix_caching)
        return;
    const int32_t *row = table_row(m, seq->table);
    int32_t num_full = seq->num_computed_tokens / m->config.block_size;
    for (; seq->num_keyed_blocks < num_full; seq->num_keyed_blocks++) {
        seq->last_hash = hash_block(m, seq, seq->last_hash, seq->num_keyed_blocks);
        block_pool_register(m->pool, row[seq->num_keyed_blocks], seq->last_hash);
    }
}

void kv_cache_manager_forget(struct kv_cache_manager *m, const struct sequence *seq)
{
    const int32_t *row = table_row(m, seq->table);
    for (int32_t i = 0; i < seq->num_blocks; i++)
        block_pool_forget(m->pool, row[i]);
}

void kv_cache_manager_release(struct kv_cache_manager *m, struct sequence *seq)
{
    const int32_t *row = table_row(m, seq->table);
    for (int32_t i = seq->num_blocks - 1; i >= 0; i--)
        block_pool_unref(m->pool, row[i]);
    m->free_rows[m->num_free_rows++] = seq->table;
    seq->table = -1;
    seq->num_blocks = seq->num_keyed_blocks = seq->num_computed_tokens = 0;
}

bool kv_cache_manager_reset(struct kv_cache_manager *m)
{
    return block_pool_reset(m->pool);
}

bool kv_cache_manager_check(const struct kv_cache_manager *m, const struct sequence_slab *slab,
                            struct status *st)
{
    int32_t *refs = xcalloc((size_t)m->config.num_blocks, sizeof *refs);
    int32_t num_rows = 0;
    bool ok = true;
    for (int32_t i = 0; ok && i < slab->num_touched; i++) {
        const struct sequence *seq = &slab->slots[i];
        if (seq->status != SEQUENCE_RUNNING) {
            if (seq->status != SEQUENCE_FREE &&
                (seq->table >= 0 || seq->num_blocks != 0 || seq->num_computed_tokens != 0))
                ok = status_set(st, STATUS_INTERNAL, "sequence %d waits and holds blocks", i);
            continue;
        }
        num_rows++;
        const int32_t *row = table_row(m, seq->table);
        for (int32_t b = 0; b < seq->num_blocks; b++)
            refs[row[b]]++;
        /* A block of which somebody still writes a part belongs to him alone. */
        int32_t num_full = seq->num_computed_tokens / m->config.block_size;
        for (int32_t b = num_full; b < seq->num_blocks; b++)
            if (block_pool_ref_count(m->pool, row[b]) != 1)
                ok = status_set(st, STATUS_INTERNAL, "sequence %d writes to shared block %d", i,
                                row[b]);
    }
    if (ok && num_rows + m->num_free_rows != m->config.max_num_seqs)
        ok = status_set(st, STATUS_INTERNAL, "%d tables used and %d free are not %d", num_rows,
                        m->num_free_rows, m->config.max_num_seqs);
    ok = ok && block_pool_check(m->pool, refs, st);
    free(refs);
    return ok;
}
