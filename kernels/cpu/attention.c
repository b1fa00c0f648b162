/* attention.c - causal attention over the paged cache: cuts the batch into work items, lets a
 * kernel compute partitions of the context, merges them; and the scalar kernel.
 *
 * A work item is up to 128 query rows that share one kv head; row i is head i % group of token
 * i / group, so that all heads of a group use one K and V. Where there are fewer items than
 * threads could use, an item is also cut along the context: a task then computes one partition
 * into shared scratch and a second round merges. Merging is in rising order either way, so the
 * result is the same. */
#include "kernels/cpu/attention_kernel.h"
#include "kernels/cpu/cpu_ops.h"

#include <assert.h>
#include <math.h>
#include <string.h>

/* --- the scalar kernel ------------------------------------------------------------------------ */

/* The scale of what one token keeps in K or V. */
static float token_scale(const struct attention_tile *t, void *data, int32_t block, int32_t offset)
{
    float scale = 1;
    if (t->kv->dtype == DTYPE_I8)
        memcpy(&scale,
               kv_head_scales(t->kv, data, block, t->kv_head) + (size_t)offset * sizeof scale,
               sizeof scale);
    return scale;
}

static float score_scalar(const struct attention_tile *t, int32_t row, int32_t position)
{
    const struct kv_layer *kv = t->kv;
    const int32_t block = t->block_table[position / kv->block_size];
    const int32_t offset = position % kv->block_size;
    const char *k = kv_head_data(kv, kv->k, block, t->kv_head);
    const float *q =
        t->q + (size_t)(row / ATTENTION_ROW_BLOCK) * ATTENTION_ROW_BLOCK * (size_t)t->head_dim;
    float score = 0;
    for (int32_t i = 0; i < t->head_dim; i++)
        score += q[i * ATTENTION_ROW_BLOCK + row % ATTENTION_ROW_BLOCK] *
                 kv_read(k, kv_k_index(kv, offset, i), kv->dtype);
    score *= token_scale(t, kv->k, block, offset);
    return t->softcap > 0 ? t->softcap * tanhf(score / t->softcap) : score;
}

static void add_values_scalar(const struct attention_tile *t, float *out, float p, int32_t position)
{
    const struct kv_layer *kv = t->kv;
    const int32_t block = t->block_table[position / kv->block_size];
    const int32_t offset = position % kv->block_size;
    void *data = kv->v ? kv->v : kv->k;
    const char *v = kv_head_data(kv, data, block, t->kv_head);
    p *= token_scale(t, data, block, offset);
    for (int32_t i = 0; i < t->value_dim; i++)
        out[i] += p * kv_read(v, kv->v ? kv_v_index(kv, offset, i) : kv_k_index(kv, offset, i),
                              kv->dtype);
}

/* One row against positions [begin, end) of one tile. */
static void tile_scalar(const struct attention_tile *t, int32_t row, int32_t begin, int32_t end)
{
    float *scores = t->scores, *out = t->out + (size_t)row * (size_t)t->padded_dim;
    float max = t->max[row];
    for (int32_t i = 0; i < end - begin; i++) {
        scores[i] = score_scalar(t, row, begin + i);
        max = scores[i] > max || isnan(scores[i]) ? scores[i] : max;
    }
    float kept = expf(t->max[row] - max);
    t->sum[row] *= kept;
    for (int32_t i = 0; i < t->value_dim; i++)
        out[i] *= kept;
    for (int32_t i = 0; i < end - begin; i++) {
        float p = expf(scores[i] - max);
        t->sum[row] += p;
        add_values_scalar(t, out, p, begin + i);
    }
    t->max[row] = max;
}

static void partition_scalar(const struct attention_tile *t, int32_t begin, int32_t end)
{
    for (int32_t row = 0; row < t->num_rows; row++) {
        int32_t from = t->begin[row] > begin ? t->begin[row] : begin;
        int32_t to = t->end[row] < end ? t->end[row] : end;
        t->max[row] = -INFINITY;
        t->sum[row] = 0;
        memset(t->out + (size_t)row * (size_t)t->padded_dim, 0,
               (size_t)t->padded_dim * sizeof *t->out);
        while (from < to) {
            int32_t tile_end = (from / ATTENTION_TILE + 1) * ATTENTION_TILE;
            int32_t stop = tile_end < to ? tile_end : to;
            tile_scalar(t, row, from, stop);
            from = stop;
        }
    }
}

static const struct attention_kernel attention_kernel_scalar = { CPU_ISA_SCALAR, partition_scalar };

static const struct attention_kernel *const kernels[] = {
    &attention_kernel_scalar,
#if defined(__x86_64__)
    &attention_kernel_avx2,
    &attention_kernel_avx512,
#endif
};

static const struct attention_kernel *choose(const struct cpu_device *d)
{
    const struct attention_kernel *chosen = kernels[0];
    for (size_t i = 1; i < sizeof kernels / sizeof *kernels; i++)
        if (kernels[i]->needs <= d->isa)
            chosen = kernels[i];
    return chosen;
}

/* --- scratch ---------------------------------------------------------------------------------- */

/* Counted in floats; every piece is a multiple of 16 of them, so that all begin at a cache line. */
static size_t aligned_floats(size_t count)
{
    return (count + 15) / 16 * 16;
}

static int32_t padded_rows(int32_t num_rows)
{
    return (num_rows + ATTENTION_ROW_BLOCK - 1) / ATTENTION_ROW_BLOCK * ATTENTION_ROW_BLOCK;
}

static int32_t padded_dim(int32_t head_dim)
{
    return (head_dim + 15) / 16 * 16;
}

/* max, sum and out of `rows` rows. */
static size_t result_floats(int32_t rows, int32_t dim)
{
    return (size_t)rows * (size_t)dim + 2 * aligned_floats((size_t)rows);
}

static size_t thread_floats(int32_t head_dim)
{
    const int32_t dim = padded_dim(head_dim);
    const size_t rows = ATTENTION_MAX_ROWS;
    return 2 * rows                                      /* begin, end */
           + rows * (size_t)dim                          /* q */
           + 2 * ATTENTION_TILE * (size_t)dim            /* k_tile, v_tile */
           + 2 * ATTENTION_TILE                          /* k_scales, v_scales */
           + rows * ATTENTION_TILE                       /* scores */
           + 2 * result_floats(ATTENTION_MAX_ROWS, dim); /* a partition, and the total */
}

/* Rows of partition results kept at once: room for twice as many one-token items as threads, each
 * cut into all its partitions. */
static size_t shared_rows(const struct cpu_device *d, const struct workspace_desc *w)
{
    if (d->num_threads == 1)
        return 0;
    int32_t group = w->num_kv_heads > 0 ? w->num_heads / w->num_kv_heads : 1;
    int32_t rows = padded_rows(group < ATTENTION_MAX_ROWS ? group : ATTENTION_MAX_ROWS);
    int32_t partitions = (w->max_model_len + ATTENTION_PARTITION - 1) / ATTENTION_PARTITION;
    return 2 * (size_t)d->num_threads * (size_t)rows * (size_t)partitions;
}

/* Per row its part of out; max and sum take at most 32 floats for each 8 rows. */
static size_t shared_floats(const struct cpu_device *d, const struct workspace_desc *w)
{
    return shared_rows(d, w) * ((size_t)padded_dim(w->head_dim) + 4);
}

static size_t items_floats(const struct workspace_desc *w)
{
    return aligned_floats((size_t)w->max_num_seqs + 1);
}

size_t cpu_attention_scratch_bytes(const struct cpu_device *d, const struct workspace_desc *w)
{
    return sizeof(float) * (items_floats(w) + shared_floats(d, w) +
                            (size_t)d->num_threads * thread_floats(w->head_dim));
}

struct results {
    float *max, *sum, *out;
};

static struct results results_at(float *at, int32_t rows, int32_t dim)
{
    float *max = at + (size_t)rows * (size_t)dim;
    return (struct results){ max, max + aligned_floats((size_t)rows), at };
}

/* --- one work item ---------------------------------------------------------------------------- */

struct attention_args {
    struct cpu_device *d;
    const struct attention_kernel *kernel;
    struct tensor out, q;
    struct tensor q_rope; /* the last elements of each query; no columns: all are in q */
    const struct kv_layer *kv;
    const struct attn_metadata *m;
    const struct attention_params *params;
    int32_t value_dim;         /* elements of a value */
    int32_t group;             /* query heads of a kv head */
    const int32_t *item_start; /* [num_seqs + 1] items of the sequences before */
    float *shared;             /* partition results, where items are cut along the context */
    int32_t partitions;        /* of the longest context: slots of an item in there */
    int32_t slot_rows;         /* padded rows of the largest item */
};

struct item {
    int32_t seq, kv_head;
    int32_t row_begin, num_rows; /* among the sequence's query_len * group rows of this kv head */
};

static int32_t items_of_seq(const struct attention_args *a, int32_t seq)
{
    int32_t query_len = a->m->query_start_loc[seq + 1] - a->m->query_start_loc[seq];
    int64_t rows = (int64_t)query_len * a->group;
    return (int32_t)((rows + ATTENTION_MAX_ROWS - 1) / ATTENTION_MAX_ROWS) *
           a->params->num_kv_heads;
}

/* A sequence's items come with the last rows first: they see most and take longest. */
static struct item find_item(const struct attention_args *a, int32_t index)
{
    int32_t low = 0, high = a->m->num_seqs;
    while (high - low > 1) {
        int32_t middle = low + (high - low) / 2;
        if (a->item_start[middle] <= index)
            low = middle;
        else
            high = middle;
    }
    const int32_t kv_heads = a->params->num_kv_heads;
    const int32_t tiles = (a->item_start[low + 1] - a->item_start[low]) / kv_heads;
    const int32_t nth = index - a->item_start[low];
    const int32_t rows = (a->m->query_start_loc[low + 1] - a->m->query_start_loc[low]) * a->group;
    struct item item = { .seq = low, .kv_head = nth % kv_heads };
    item.row_begin = (tiles - 1 - nth / kv_heads) * ATTENTION_MAX_ROWS;
    item.num_rows =
        rows - item.row_begin < ATTENTION_MAX_ROWS ? rows - item.row_begin : ATTENTION_MAX_ROWS;
    return item;
}

/* Query row `row` of the item: where it lies in q and out, and what it sees. */
struct query {
    int32_t token, head, begin, end;
};

static struct query find_query(const struct attention_args *a, const struct item *item, int32_t row)
{
    const int32_t start = a->m->query_start_loc[item->seq];
    const int32_t query_len = a->m->query_start_loc[item->seq + 1] - start;
    const int32_t nth = (item->row_begin + row) / a->group;
    struct query q = { .token = start + nth,
                       .head = item->kv_head * a->group + (item->row_begin + row) % a->group };
    q.end = a->m->seq_lens[item->seq] - query_len + nth + 1;
    q.begin = 0;
    if (a->params->sliding_window > 0 && q.end > a->params->sliding_window)
        q.begin = q.end - a->params->sliding_window;
    return q;
}

/* `count` elements times the scale, to every ATTENTION_ROW_BLOCK-th place. */
static void load_part(float *dst, const float *src, int32_t count, float scale)
{
    for (int32_t i = 0; i < count; i++)
        dst[i * ATTENTION_ROW_BLOCK] = src[i] * scale;
}

/* q times the scale, interleaved by row blocks, and the bounds; padding rows repeat the last. */
static void load_rows(const struct attention_args *a, const struct item *item, int32_t *begin,
                      int32_t *end, float *q)
{
    const int32_t dim = a->params->head_dim, padded = padded_rows(item->num_rows);
    const int32_t rope_dim = a->q_rope.cols / a->params->num_heads, first_dim = dim - rope_dim;
    const float scale = a->params->scale * kv_layer_factor(a->kv, a->kv->k_scale);
    for (int32_t row = 0; row < padded; row++) {
        int32_t from = row < item->num_rows ? row : item->num_rows - 1;
        struct query query = find_query(a, item, from);
        const float *src =
            (const float *)a->q.data + query.token * a->q.stride + (int64_t)query.head * first_dim;
        float *dst = q + (size_t)(row / ATTENTION_ROW_BLOCK) * ATTENTION_ROW_BLOCK * (size_t)dim +
                     row % ATTENTION_ROW_BLOCK;
        load_part(dst, src, first_dim, scale);
        if (rope_dim > 0)
            load_part(dst + first_dim * ATTENTION_ROW_BLOCK,
                      (const float *)a->q_rope.data + query.token * a->q_rope.stride +
                          (int64_t)query.head * rope_dim,
                      rope_dim, scale);
        begin[row] = query.begin;
        end[row] = query.end;
    }
}

struct thread_memory {
    struct attention_tile tile; /* its results are those of one partition */
    struct results total;
};

/* Cuts the thread's scratch up and loads the item's rows into it. */
static struct thread_memory prepare(const struct attention_args *a, const struct item *item,
                                    int32_t thread)
{
    const struct cpu_device *d = a->d;
    const int32_t key_dim = padded_dim(a->params->head_dim);
    const int32_t dim = padded_dim(a->value_dim);
    const size_t rows = ATTENTION_MAX_ROWS;
    float *at = (float *)d->attention_scratch + items_floats(&d->limits) +
                shared_floats(d, &d->limits) + (size_t)thread * thread_floats(d->limits.head_dim);
    int32_t *begin = (int32_t *)at, *end = begin + rows;
    float *q = at + 2 * rows;
    float *k_tile = q + rows * (size_t)key_dim;
    float *v_tile = k_tile + ATTENTION_TILE * (size_t)key_dim;
    float *k_scales = v_tile + ATTENTION_TILE * (size_t)dim;
    float *v_scales = k_scales + ATTENTION_TILE;
    float *scores = v_scales + ATTENTION_TILE;
    float *part = scores + rows * ATTENTION_TILE;
    struct results results = results_at(part, ATTENTION_MAX_ROWS, dim);
    struct results total =
        results_at(part + result_floats(ATTENTION_MAX_ROWS, dim), ATTENTION_MAX_ROWS, dim);
    load_rows(a, item, begin, end, q);
    return (struct thread_memory){
        .tile = { .kv = a->kv,
                  .block_table = a->m->block_tables + (int64_t)item->seq * a->m->block_table_stride,
                  .kv_head = item->kv_head,
                  .num_rows = item->num_rows,
                  .head_dim = a->params->head_dim,
                  .value_dim = a->value_dim,
                  .padded_dim = dim,
                  .softcap = a->params->logit_softcap,
                  .begin = begin,
                  .end = end,
                  .q = q,
                  .k_tile = k_tile,
                  .v_tile = v_tile,
                  .k_scales = k_scales,
                  .v_scales = v_scales,
                  .scores = scores,
                  .max = results.max,
                  .sum = results.sum,
                  .out = results.out },
        .total = total,
    };
}

/* --- merging ---------------------------------------------------------------------------------- */

static void merge_row(const struct results *total, const struct results *part, int32_t row,
                      int32_t dim)
{
    float *out = total->out + (size_t)row * (size_t)dim;
    const float *add = part->out + (size_t)row * (size_t)dim;
    const float max = fmaxf(total->max[row], part->max[row]);
    const float keep = expf(total->max[row] - max), take = expf(part->max[row] - max);
    total->max[row] = max;
    total->sum[row] = total->sum[row] * keep + part->sum[row] * take;
    for (int32_t i = 0; i < dim; i++)
        out[i] = out[i] * keep + add[i] * take;
}

/* Adds the partition that begins at `begin` to the rows that see any of it. */
static void merge(const struct attention_tile *t, const struct results *total,
                  const struct results *part, int32_t begin)
{
    const int32_t dim = t->padded_dim;
    for (int32_t row = 0; row < t->num_rows; row++) {
        if (t->end[row] <= begin || t->begin[row] >= begin + ATTENTION_PARTITION)
            continue;
        if (t->begin[row] < begin) {
            merge_row(total, part, row, dim);
            continue;
        }
        total->max[row] = part->max[row]; /* the row's first */
        total->sum[row] = part->sum[row];
        memcpy(total->out + (size_t)row * (size_t)dim, part->out + (size_t)row * (size_t)dim,
               (size_t)dim * sizeof(float));
    }
}

static void store_rows(const struct attention_args *a, const struct item *item,
                       const struct results *total)
{
    const int32_t head_dim = a->value_dim, dim = padded_dim(head_dim);
    const float v_factor = kv_layer_factor(a->kv, a->kv->v ? a->kv->v_scale : a->kv->k_scale);
    for (int32_t row = 0; row < item->num_rows; row++) {
        struct query query = find_query(a, item, row);
        float *dst =
            (float *)a->out.data + query.token * a->out.stride + (int64_t)query.head * head_dim;
        const float *src = total->out + (size_t)row * (size_t)dim;
        float sum = total->sum[row], factor = 1;
        if (a->params->sinks) {
            float sink = a->params->sinks[query.head], max = fmaxf(sink, total->max[row]);
            factor = expf(total->max[row] - max);
            sum = sum * factor + expf(sink - max);
        }
        factor *= v_factor;
        /* Adding 0 makes -0 a 0: which of them a sum of nothing but zeros gives is not fixed. */
        for (int32_t i = 0; i < head_dim; i++)
            dst[i] = src[i] * factor / sum + 0.0f;
    }
}

/* --- tasks ------------------------------------------------------------------------------------ */

static int32_t first_partition(const struct attention_tile *t)
{
    return t->begin[0] / ATTENTION_PARTITION * ATTENTION_PARTITION;
}

static void run_partition(const struct attention_args *a, const struct attention_tile *t,
                          int32_t begin)
{
    const int32_t stop = begin + ATTENTION_PARTITION, last = t->end[t->num_rows - 1];
    a->kernel->partition(t, begin, stop < last ? stop : last);
}

/* A whole item. */
static void item_task(void *arg, int32_t index, int32_t thread)
{
    const struct attention_args *a = arg;
    struct item item = find_item(a, index);
    struct thread_memory memory = prepare(a, &item, thread);
    const struct attention_tile *t = &memory.tile;
    struct results part = { t->max, t->sum, t->out };
    for (int32_t at = first_partition(t); at < t->end[t->num_rows - 1]; at += ATTENTION_PARTITION) {
        run_partition(a, t, at);
        merge(t, &memory.total, &part, at);
    }
    store_rows(a, &item, &memory.total);
}

/* Where the results of one partition of an item lie, when items are cut along the context. */
static struct results shared_slot(const struct attention_args *a, const struct item *item,
                                  int32_t index, int32_t partition)
{
    const int32_t dim = padded_dim(a->value_dim);
    size_t slot = (size_t)index * (size_t)a->partitions + (size_t)partition;
    return results_at(a->shared + slot * result_floats(a->slot_rows, dim),
                      padded_rows(item->num_rows), dim);
}

/* One partition of an item. */
static void partition_task(void *arg, int32_t task, int32_t thread)
{
    const struct attention_args *a = arg;
    const int32_t index = task / a->partitions, partition = task % a->partitions;
    const int32_t begin = partition * ATTENTION_PARTITION;
    struct item item = find_item(a, index);
    struct thread_memory memory = prepare(a, &item, thread);
    struct attention_tile *t = &memory.tile;
    if (begin < first_partition(t) || begin >= t->end[t->num_rows - 1])
        return;
    struct results slot = shared_slot(a, &item, index, partition);
    t->max = slot.max;
    t->sum = slot.sum;
    t->out = slot.out;
    run_partition(a, t, begin);
}

/* The partitions of an item, put together. */
static void merge_task(void *arg, int32_t index, int32_t thread)
{
    const struct attention_args *a = arg;
    struct item item = find_item(a, index);
    struct thread_memory memory = prepare(a, &item, thread);
    const struct attention_tile *t = &memory.tile;
    for (int32_t at = first_partition(t); at < t->end[t->num_rows - 1]; at += ATTENTION_PARTITION) {
        struct results slot = shared_slot(a, &item, index, at / ATTENTION_PARTITION);
        merge(t, &memory.total, &slot, at);
    }
    store_rows(a, &item, &memory.total);
}

/* --- the op ----------------------------------------------------------------------------------- */

/* Fills item_start; returns how many items there are. Also finds what cutting them would take, and
 * how much there is to do in all, in multiplications. */
static int32_t plan(struct attention_args *a, int32_t *item_start, int64_t *work)
{
    int32_t longest = 0, rows = 0;
    item_start[0] = 0;
    *work = 0;
    for (int32_t seq = 0; seq < a->m->num_seqs; seq++) {
        int32_t query_len = a->m->query_start_loc[seq + 1] - a->m->query_start_loc[seq];
        item_start[seq + 1] = item_start[seq] + items_of_seq(a, seq);
        if (query_len == 0)
            continue;
        longest = a->m->seq_lens[seq] > longest ? a->m->seq_lens[seq] : longest;
        rows = query_len * a->group > rows ? query_len * a->group : rows;
        *work += 2 * (int64_t)query_len * a->m->seq_lens[seq] * a->params->num_heads *
                 a->params->head_dim;
    }
    a->item_start = item_start;
    a->partitions = (longest + ATTENTION_PARTITION - 1) / ATTENTION_PARTITION;
    a->slot_rows = padded_rows(rows < ATTENTION_MAX_ROWS ? rows : ATTENTION_MAX_ROWS);
    return item_start[a->m->num_seqs];
}

static bool should_cut(const struct attention_args *a, int32_t items)
{
    const struct cpu_device *d = a->d;
    size_t slots = (size_t)items * (size_t)a->partitions;
    return items < 2 * d->num_threads && a->partitions > 1 &&
           slots * result_floats(a->slot_rows, padded_dim(a->value_dim)) <=
               shared_floats(d, &d->limits);
}

static void run(struct attention_args *a)
{
    /* Below this the work takes a few microseconds, about what waking a thread costs. */
    enum { MIN_PARALLEL_WORK = 200 * 1000 };
    struct cpu_device *c = a->d;
    const struct attention_params *params = a->params;
    assert(a->q.dtype == DTYPE_F32 && a->out.dtype == DTYPE_F32);
    assert(params->num_kv_heads > 0 && params->num_heads % params->num_kv_heads == 0);
    assert(a->kv->num_kv_heads == params->num_kv_heads && a->kv->head_dim == params->head_dim);
    assert(params->head_dim <= c->limits.head_dim && a->m->num_seqs <= c->limits.max_num_seqs);
    a->value_dim = params->value_head_dim > 0 ? params->value_head_dim : params->head_dim;
    assert(a->value_dim == params->head_dim || (a->value_dim < params->head_dim && !a->kv->v));
    assert(a->out.cols == params->num_heads * a->value_dim);
    int32_t *item_start = c->attention_scratch;
    int64_t work;
    a->kernel = choose(c);
    a->group = params->num_heads / params->num_kv_heads;
    a->shared = (float *)c->attention_scratch + items_floats(&c->limits);
    const int32_t items = plan(a, item_start, &work);
    if (c->num_threads == 1 || work < MIN_PARALLEL_WORK) {
        for (int32_t i = 0; i < items; i++)
            item_task(a, i, 0);
    } else if (should_cut(a, items)) {
        thread_pool_run(c->pool, items * a->partitions, partition_task, a);
        thread_pool_run(c->pool, items, merge_task, a);
    } else {
        thread_pool_run(c->pool, items, item_task, a);
    }
}

void cpu_attention(struct device *d, struct tensor *out, const struct tensor *q,
                   const struct kv_layer *kv, const struct attn_metadata *m,
                   const struct attention_params *params)
{
    struct attention_args args = {
        .d = cpu_device_of(d), .out = *out, .q = *q, .kv = kv, .m = m, .params = params
    };
    run(&args);
}

void cpu_attention_mla(struct device *d, struct tensor *out, const struct mla_query *q,
                       const struct kv_layer *kv, const struct attn_metadata *m,
                       const struct attention_params *params)
{
    struct attention_args args = { .d = cpu_device_of(d),
                                   .out = *out,
                                   .q = q->latent,
                                   .q_rope = q->rope,
                                   .kv = kv,
                                   .m = m,
                                   .params = params };
    assert(!kv->v && q->rope.dtype == DTYPE_F32);
    assert(q->latent.cols + q->rope.cols == params->num_heads * params->head_dim);
    run(&args);
}
