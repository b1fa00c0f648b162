/* kv_cache_manager.c - block tables as rows of one array, filled from the pool: a row holds the
 * tables of one sequence, group by group. */
#include "engine/sched/kv_cache_manager.h"
#include "base/alloc.h"
#include "engine/sched/block_hash.h"
#include "engine/sched/block_pool.h"

#include <assert.h>
#include <stdlib.h>

struct kv_cache_manager {
    struct kv_cache_config config;
    struct block_pool *pool;
    int32_t table_len;     /* entries of one table */
    int32_t *tables;       /* [max_num_seqs][num_groups][table_len] */
    int32_t *firsts;       /* [max_num_seqs][num_groups] the first entry that names a block */
    int32_t *free_rows;    /* [max_num_seqs] a stack of the rows not in use */
    int32_t num_free_rows; /* the next row, on top of the stack, is a lookup's scratch */
    struct hash128
        *hit_hashes; /* [table_len + 1] of the latest lookup: the root, then each block */
};

struct kv_cache_manager *kv_cache_manager_new(const struct kv_cache_config *config)
{
    const struct kv_cache_groups *groups = &config->groups;
    assert(groups->block_size > 0 && groups->block_size <= MAX_BLOCK_SIZE);
    assert(groups->num_groups > 0 && groups->num_groups <= LIMIT_KV_CACHE_GROUPS);
    assert(config->max_num_seqs > 0 && config->max_model_len > 0);
    struct kv_cache_manager *m = xcalloc(1, sizeof *m);
    m->config = *config;
    m->pool = block_pool_new(config->num_blocks);
    m->table_len = kv_cache_groups_table_len(
        groups, kv_cache_groups_longest(groups, config->num_blocks, config->max_model_len));
    /* Zeroed by the system, so rows cost memory only as far as they are filled. */
    size_t num_tables = (size_t)config->max_num_seqs * (size_t)groups->num_groups;
    m->tables = xcalloc(num_tables * (size_t)m->table_len + 1, sizeof *m->tables);
    m->firsts = xcalloc(num_tables, sizeof *m->firsts);
    m->hit_hashes = xcalloc((size_t)m->table_len + 1, sizeof *m->hit_hashes);
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
    free(m->firsts);
    free(m->hit_hashes);
    free(m->free_rows);
    free(m);
}

int32_t kv_cache_manager_num_free(const struct kv_cache_manager *m)
{
    return block_pool_num_free(m->pool);
}

static int32_t num_groups(const struct kv_cache_manager *m)
{
    return m->config.groups.num_groups;
}

/* The table of one group. */
static int32_t *table_of(const struct kv_cache_manager *m, int32_t row, int32_t group)
{
    assert(row >= 0 && row < m->config.max_num_seqs);
    return m->tables + ((size_t)row * (size_t)num_groups(m) + (size_t)group) * (size_t)m->table_len;
}

static int32_t *firsts_of(const struct kv_cache_manager *m, int32_t row)
{
    return m->firsts + (size_t)row * (size_t)num_groups(m);
}

const int32_t *kv_cache_manager_tables(const struct kv_cache_manager *m, const struct sequence *seq)
{
    return table_of(m, seq->table, 0);
}

const int32_t *kv_cache_manager_firsts(const struct kv_cache_manager *m, const struct sequence *seq)
{
    return firsts_of(m, seq->table);
}

int32_t kv_cache_manager_stride(const struct kv_cache_manager *m)
{
    return m->table_len;
}

static struct hash128 hash_block(const struct kv_cache_manager *m, const struct sequence *seq,
                                 struct hash128 parent, int32_t block_index)
{
    const int32_t block_size = m->config.groups.block_size;
    const int32_t *ids = seq->request->token_ids + (size_t)block_index * (size_t)block_size;
    return block_hash_chain(m->config.hash_key, parent, ids, block_size);
}

bool kv_cache_manager_looks_up(const struct kv_cache_manager *m, const struct sequence *seq)
{
    /* The log-probabilities of prompt tokens need their logits, so those must be computed; once
     * there is output they have been, and a preempted sequence may find its own blocks again. */
    return m->config.enable_prefix_caching &&
           (seq->request->params.num_prompt_logprobs < 0 || sequence_num_output_tokens(seq) > 0);
}

/* How many leading blocks, of at most max_blocks, every group that keeps everything has cached; all
 * of them where none does. Leaves their ids in the tables of `row` and their hashes behind. */
static int32_t find_from_start(struct kv_cache_manager *m, const struct sequence *seq, int32_t row,
                               int32_t max_blocks)
{
    for (int32_t b = 0; b < max_blocks; b++) {
        struct hash128 hash = hash_block(m, seq, m->hit_hashes[b], b);
        for (int32_t g = 0; g < num_groups(m); g++) {
            if (m->config.groups.sliding_window[g] > 0)
                continue;
            int32_t block = block_pool_find(m->pool, block_hash_of_group(hash, g));
            if (block == BLOCK_NONE)
                return b;
            table_of(m, row, g)[b] = block;
        }
        m->hit_hashes[b + 1] = hash;
    }
    return max_blocks;
}

/* Looks at block b for the groups with windows; false where one of them has it not and needs it for
 * a prefix of num_blocks. */
static bool find_in_windows(struct kv_cache_manager *m, int32_t row, int32_t b, int32_t num_blocks)
{
    const struct kv_cache_groups *groups = &m->config.groups;
    for (int32_t g = 0; g < groups->num_groups; g++) {
        if (groups->sliding_window[g] == 0 ||
            b < kv_cache_groups_first(groups, g, num_blocks * groups->block_size))
            continue;
        int32_t block = block_pool_find(m->pool, block_hash_of_group(m->hit_hashes[b + 1], g));
        table_of(m, row, g)[b] = block;
        if (block == BLOCK_NONE)
            return false;
    }
    return true;
}

/* The longest prefix, of at most num_blocks, whose windows are cached: from its end backwards; a
 * block that is missing makes it end before that block. */
static int32_t find_windows(struct kv_cache_manager *m, int32_t row, int32_t num_blocks)
{
    const struct kv_cache_groups *groups = &m->config.groups;
    int32_t widest = -1; /* the group that needs the earliest block */
    for (int32_t g = 0; g < groups->num_groups; g++)
        if (groups->sliding_window[g] > 0 &&
            (widest < 0 || groups->sliding_window[g] > groups->sliding_window[widest]))
            widest = g;
    if (widest < 0)
        return num_blocks;
    for (int32_t b = num_blocks - 1;
         b >= kv_cache_groups_first(groups, widest, num_blocks * groups->block_size); b--)
        if (!find_in_windows(m, row, b, num_blocks))
            num_blocks = b;
    return num_blocks;
}

struct kv_cache_hit kv_cache_manager_lookup(struct kv_cache_manager *m, const struct sequence *seq)
{
    assert(seq->table < 0 && m->num_free_rows > 0);
    const struct kv_cache_groups *groups = &m->config.groups;
    const int32_t row = m->free_rows[m->num_free_rows - 1];
    struct kv_cache_hit hit = { 0 };
    int32_t num_blocks = 0;
    if (m->config.enable_prefix_caching)
        m->hit_hashes[0] = block_hash_root(m->config.hash_key, seq->request->cache_salt);
    if (kv_cache_manager_looks_up(m, seq)) {
        /* At least one token is left to compute: its logits give the next one. */
        num_blocks = find_from_start(m, seq, row, (seq->num_tokens - 1) / groups->block_size);
        num_blocks = find_windows(m, row, num_blocks);
    }
    hit.num_tokens = num_blocks * groups->block_size;
    for (int32_t g = 0; g < groups->num_groups; g++)
        for (int32_t b = kv_cache_groups_first(groups, g, hit.num_tokens); b < num_blocks; b++)
            hit.num_free += block_pool_ref_count(m->pool, table_of(m, row, g)[b]) == 0;
    hit.num_missing = kv_cache_groups_missing(groups, hit.num_tokens, num_blocks, seq->num_tokens);
    return hit;
}

void kv_cache_manager_admit(struct kv_cache_manager *m, struct sequence *seq,
                            const struct kv_cache_hit *hit, int32_t num_tokens)
{
    assert(seq->table < 0 && seq->num_blocks == 0 && m->num_free_rows > 0);
    const struct kv_cache_groups *groups = &m->config.groups;
    seq->table = m->free_rows[--m->num_free_rows];
    seq->num_blocks = seq->num_keyed_blocks = hit->num_tokens / groups->block_size;
    seq->num_computed_tokens = hit->num_tokens;
    seq->last_hash = m->hit_hashes[seq->num_blocks];
    /* All hits leave the free list first: taking new blocks must not hand one of them out. */
    for (int32_t g = 0; g < groups->num_groups; g++) {
        int32_t *table = table_of(m, seq->table, g);
        int32_t first = kv_cache_groups_first(groups, g, hit->num_tokens);
        for (int32_t b = 0; b < first; b++)
            table[b] = BLOCK_NONE;
        for (int32_t b = first; b < seq->num_blocks; b++)
            block_pool_ref(m->pool, table[b]);
        firsts_of(m, seq->table)[g] = first;
    }
    bool enough = kv_cache_manager_grow(m, seq, num_tokens);
    assert(enough);
    (void)enough;
}

bool kv_cache_manager_grow(struct kv_cache_manager *m, struct sequence *seq, int32_t num_tokens)
{
    int32_t num_blocks = kv_cache_groups_table_len(&m->config.groups, num_tokens);
    assert(num_blocks <= m->table_len);
    if ((int64_t)(num_blocks - seq->num_blocks) * num_groups(m) > block_pool_num_free(m->pool))
        return false;
    for (; seq->num_blocks < num_blocks; seq->num_blocks++)
        for (int32_t g = 0; g < num_groups(m); g++)
            table_of(m, seq->table, g)[seq->num_blocks] = block_pool_take(m->pool);
    return true;
}

int64_t kv_cache_manager_missing(const struct kv_cache_manager *m, const struct sequence *seq)
{
    return kv_cache_groups_missing(&m->config.groups, seq->num_computed_tokens, seq->num_blocks,
                                   seq->num_tokens);
}

void kv_cache_manager_trim(struct kv_cache_manager *m, struct sequence *seq)
{
    for (int32_t g = 0; g < num_groups(m); g++) {
        int32_t *table = table_of(m, seq->table, g), *at = &firsts_of(m, seq->table)[g];
        int32_t first = kv_cache_groups_first(&m->config.groups, g, seq->num_computed_tokens);
        for (; *at < first; (*at)++) {
            block_pool_unref(m->pool, table[*at]);
            table[*at] = BLOCK_NONE;
        }
    }
}

void kv_cache_manager_register(struct kv_cache_manager *m, struct sequence *seq)
{
    if (!m->config.enable_prefix_caching)
        return;
    int32_t num_full = seq->num_computed_tokens / m->config.groups.block_size;
    for (; seq->num_keyed_blocks < num_full; seq->num_keyed_blocks++) {
        seq->last_hash = hash_block(m, seq, seq->last_hash, seq->num_keyed_blocks);
        for (int32_t g = 0; g < num_groups(m); g++)
            block_pool_register(m->pool, table_of(m, seq->table, g)[seq->num_keyed_blocks],
                                block_hash_of_group(seq->last_hash, g));
    }
}

void kv_cache_manager_forget(struct kv_cache_manager *m, const struct sequence *seq)
{
    const int32_t *firsts = firsts_of(m, seq->table);
    int32_t last_first = 0;
    for (int32_t g = 0; g < num_groups(m); g++) {
        for (int32_t b = firsts[g]; b < seq->num_blocks; b++)
            block_pool_forget(m->pool, table_of(m, seq->table, g)[b]);
        last_first = firsts[g] > last_first ? firsts[g] : last_first;
    }
    if (!m->config.enable_prefix_caching)
        return;
    /* What was given back is known by its hash alone. */
    struct hash128 hash = block_hash_root(m->config.hash_key, seq->request->cache_salt);
    for (int32_t b = 0; b < last_first; b++) {
        hash = hash_block(m, seq, hash, b);
        for (int32_t g = 0; g < num_groups(m); g++) {
            int32_t block = block_pool_find(m->pool, block_hash_of_group(hash, g));
            if (block != BLOCK_NONE)
                block_pool_forget(m->pool, block);
        }
    }
}

void kv_cache_manager_release(struct kv_cache_manager *m, struct sequence *seq)
{
    const int32_t *firsts = firsts_of(m, seq->table);
    for (int32_t b = seq->num_blocks - 1; b >= 0; b--)
        for (int32_t g = 0; g < num_groups(m); g++)
            if (b >= firsts[g])
                block_pool_unref(m->pool, table_of(m, seq->table, g)[b]);
    m->free_rows[m->num_free_rows++] = seq->table;
    seq->table = -1;
    seq->num_blocks = seq->num_keyed_blocks = seq->num_computed_tokens = 0;
}

bool kv_cache_manager_reset(struct kv_cache_manager *m)
{
    return block_pool_reset(m->pool);
}

/* --- the recount
 * ---------------------------------------------------------------------------------*/

/* One table of a running sequence: counts its references, and sees that each block serves one group
 * at one place, that what is still to be written is nobody else's, and that the window is there. */
static bool check_table(const struct kv_cache_manager *m, const struct sequence *seq, int32_t group,
                        int32_t *refs, int32_t *places, struct status *st)
{
    const struct kv_cache_groups *groups = &m->config.groups;
    const int32_t *table = table_of(m, seq->table, group);
    const int32_t first = firsts_of(m, seq->table)[group];
    const int32_t num_full = seq->num_computed_tokens / groups->block_size;
    if (first > kv_cache_groups_first(groups, group, seq->num_computed_tokens))
        return status_set(st, STATUS_INTERNAL, "table %d of group %d begins at block %d, too late",
                          seq->table, group, first);
    for (int32_t b = 0; b < seq->num_blocks; b++) {
        if (b < first) {
            if (table[b] != BLOCK_NONE)
                return status_set(st, STATUS_INTERNAL, "block %d was given back and is listed",
                                  table[b]);
            continue;
        }
        if (table[b] < 0 || table[b] >= m->config.num_blocks)
            return status_set(st, STATUS_INTERNAL, "a table names block %d", table[b]);
        int32_t place = b * groups->num_groups + group;
        if (refs[table[b]]++ > 0 && places[table[b]] != place)
            return status_set(st, STATUS_INTERNAL, "block %d serves two places", table[b]);
        places[table[b]] = place;
        /* A block of which somebody still writes a part belongs to him alone. */
        if (b >= num_full && block_pool_ref_count(m->pool, table[b]) != 1)
            return status_set(st, STATUS_INTERNAL, "table %d writes to shared block %d", seq->table,
                              table[b]);
    }
    return true;
}

bool kv_cache_manager_check(const struct kv_cache_manager *m, const struct sequence_slab *slab,
                            struct status *st)
{
    int32_t *refs = xcalloc((size_t)m->config.num_blocks, sizeof *refs);
    int32_t *places = xcalloc((size_t)m->config.num_blocks, sizeof *places);
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
        for (int32_t g = 0; ok && g < num_groups(m); g++)
            ok = check_table(m, seq, g, refs, places, st);
    }
    if (ok && num_rows + m->num_free_rows != m->config.max_num_seqs)
        ok = status_set(st, STATUS_INTERNAL, "%d tables used and %d free are not %d", num_rows,
                        m->num_free_rows, m->config.max_num_seqs);
    ok = ok && block_pool_check(m->pool, refs, st);
    free(refs);
    free(places);
    return ok;
}
