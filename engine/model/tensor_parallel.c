/* tensor_parallel.c - the sizes of a share, and its piece of each tensor. */
#include "engine/model/tensor_parallel.h"
#include "base/alloc.h"
#include "config/limits.h"
#include "engine/model/checkpoint.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

/* --- what can be divided ---------------------------------------------------------------------- */

/* These three say in `why` what stands against it, when something does. */
static bool sizes_divide(const struct decoder_desc *d, int32_t size, struct buf *why)
{
    bool dense = weight_slot_shape(d, W_GATE_UP).present;
    const struct {
        const char *key;
        int32_t value;
    } sizes[] = {
        { "num_attention_heads", d->num_attention_heads },
        { "intermediate_size", dense ? d->intermediate_size : 0 },
        { "intermediate_size of the experts", d->num_experts > 0 ? d->moe_intermediate_size : 0 },
        { "intermediate_size of the shared expert", d->shared_expert_intermediate_size },
    };
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        if (sizes[i].value % size == 0)
            continue;
        buf_printf(why, "%s %d is no multiple of it", sizes[i].key, sizes[i].value);
        return false;
    }
    int64_t vocab_rows = (d->vocab_size - 1) / size + 1;
    if (vocab_rows * (size - 1) >= d->vocab_size) {
        buf_printf(why, "vocab_size %d is too small for it", d->vocab_size);
        return false;
    }
    int32_t kv_heads = d->num_key_value_heads;
    if (kv_heads % size == 0 || size % kv_heads == 0)
        return true;
    buf_printf(why, "num_key_value_heads %d is neither a multiple nor a divisor of it", kv_heads);
    return false;
}

/* Whose blocks the entry's rows go into: as they are stored, or what --quantization makes of them.
 */
static const struct quant_format *block_format(const struct model *m,
                                               const struct tensor_map_entry *e)
{
    const struct quant_format *stored = tensor_map_entry_format(e);
    bool becomes = m->load_quant && quant_format_is_plain(stored);
    return becomes && weight_slot_quantized_at_load(e->slot) ? m->load_quant : stored;
}

/* A row that is cut must be cut between blocks of its format: each share then holds the very
 * numbers that the whole would. */
static bool blocks_divide(const struct model *m, int32_t size, struct buf *why)
{
    for (size_t i = 0; i < m->tensors.count; i++) {
        const struct tensor_map_entry *e = &m->tensors.entries[i];
        if (e->partition != ROW_PARALLEL || e->is_bias)
            continue;
        const struct quant_format *format = block_format(m, e);
        if (e->quant && e->quant->has_order) {
            buf_printf(why, "the columns of '%s' are in an order of their own (desc_act)",
                       e->quant->name);
            return false;
        }
        if (e->cols / size % format->block_elements == 0)
            continue;
        buf_printf(why,
                   "a share of '%s' is %d columns, no multiple of the %d that %s keeps together",
                   e->tensor->name, e->cols / size, format->block_elements, format->name);
        return false;
    }
    return true;
}

static bool divides(const struct model *m, int32_t size, struct buf *why)
{
    return size == 1 || (sizes_divide(&m->desc, size, why) && blocks_divide(m, size, why));
}

bool tensor_parallel_check(const struct model *m, int32_t size, struct status *st)
{
    struct buf why, ignored, work;
    buf_init(&why, 1024);
    buf_init(&ignored, 1024);
    buf_init(&work, 1024);
    bool ok = divides(m, size, &why);
    for (int32_t n = 1; !ok && n <= LIMIT_TENSOR_PARALLEL_SIZE; n++) {
        buf_clear(&ignored);
        if (divides(m, n, &ignored))
            buf_printf(&work, "%s%d", work.len ? ", " : "", n);
    }
    if (!ok) {
        status_set(st, STATUS_INVALID, "--tensor-parallel-size %d: %s; sizes that work: %s", size,
                   buf_str(&why), buf_str(&work));
        status_detail(st, "tensor_parallel_size", NULL);
    }
    buf_free(&why);
    buf_free(&ignored);
    buf_free(&work);
    return ok;
}

/* --- a share's sizes -------------------------------------------------------------------------- */

static void divide_sizes(struct decoder_desc *d, int32_t rank, int32_t size)
{
    d->tensor_parallel_rank = rank;
    d->tensor_parallel_size = size;
    d->num_attention_heads /= size;
    d->num_key_value_heads = d->num_key_value_heads > size ? d->num_key_value_heads / size : 1;
    d->intermediate_size /= size;
    d->moe_intermediate_size /= size;
    d->shared_expert_intermediate_size /= size;
}

/* --- a share's tensors ------------------------------------------------------------------------ */

struct cut {
    const struct model *whole;
    struct model *share;
    int32_t rank, size;
    size_t capacity;
};

static void add_entry(struct cut *c, const struct tensor_map_entry *entry)
{
    struct tensor_map *map = &c->share->tensors;
    if (map->count == c->capacity) {
        c->capacity = 2 * c->capacity;
        map->entries = xrealloc(map->entries, c->capacity * sizeof *map->entries);
    }
    map->entries[map->count++] = *entry;
}

/* Those of the entry's rows that lie in [begin, end) of its part, for a share where they begin at
 * row `at`. */
static void cut_rows(struct cut *c, const struct tensor_map_entry *e, int32_t begin, int32_t end,
                     int32_t at)
{
    struct tensor_map_entry mine = *e;
    int32_t first = begin > e->row_begin ? begin : e->row_begin;
    int32_t last = end < e->row_begin + e->rows ? end : e->row_begin + e->rows;
    mine.rows = last > first ? last - first : 0;
    mine.row_begin = at + (first - begin);
    mine.src_row_begin += (first - e->row_begin) * e->src_row_step;
    if (mine.rows > 0)
        add_entry(c, &mine);
}

static int32_t rows_before(const struct weight_shape *shape, int32_t part)
{
    int32_t rows = 0;
    for (int32_t i = 0; i < part; i++)
        rows += shape->part_rows[i];
    return rows;
}

/* The share's rows of the entry's part: its own, or those of the KV head that it shares. */
static void cut_part(struct cut *c, const struct tensor_map_entry *e)
{
    struct weight_shape whole = weight_slot_shape(&c->whole->desc, e->slot);
    struct weight_shape share = weight_slot_shape(&c->share->desc, e->slot);
    int32_t rows = share.part_rows[e->part], heads = whole.heads[e->part];
    int32_t index = heads > 0 && heads < c->size ? c->rank * heads / c->size : c->rank;
    int32_t begin = rows_before(&whole, e->part) + index * rows;
    cut_rows(c, e, begin, begin + rows, rows_before(&share, e->part));
}

/* One of a stack of linears, of which each head has one. */
static void cut_stack(struct cut *c, const struct tensor_map_entry *e, int32_t share)
{
    struct tensor_map_entry mine = *e;
    if (e->expert / share != c->rank)
        return;
    mine.expert -= c->rank * share;
    add_entry(c, &mine);
}

/* Elements [begin, begin + count) of a vector, to those from `at` on. */
static void cut_vector(struct cut *c, const struct tensor_map_entry *e, int32_t begin,
                       int32_t count, int32_t at)
{
    struct tensor_map_entry mine = *e;
    mine.cols = count;
    mine.row_begin = at;
    mine.src_row_begin += begin * e->src_row_step;
    add_entry(c, &mine);
}

/* A norm over all KV heads meets them as the ranks bring them: those that several ranks share come
 * several times, and so must their weights. */
static void repeat_heads(struct cut *c, const struct tensor_map_entry *e)
{
    int32_t head_dim = c->whole->desc.head_dim, heads = e->cols / head_dim;
    for (int32_t i = 0; i < c->size; i++)
        cut_vector(c, e, i * heads / c->size * head_dim, head_dim, i * head_dim);
}

static void cut_entry(struct cut *c, const struct tensor_map_entry *e)
{
    struct weight_shape share = weight_slot_shape(&c->share->desc, e->slot);
    struct weight_shape whole = weight_slot_shape(&c->whole->desc, e->slot);
    struct tensor_map_entry mine = *e;
    switch (e->partition) {
    case REPLICATED:
        if (share.is_vector && share.cols > e->cols)
            repeat_heads(c, e);
        else
            add_entry(c, e);
        return;
    case COLUMN_PARALLEL:
        if (share.is_vector)
            cut_vector(c, e, c->rank * share.cols, share.cols, 0);
        else if (share.num_experts < whole.num_experts)
            cut_stack(c, e, share.num_experts);
        else
            cut_part(c, e);
        return;
    case ROW_PARALLEL:
        mine.cols = e->is_bias ? e->cols : share.cols;
        mine.src_col_begin = e->is_bias ? 0 : c->rank * share.cols;
        if (!e->is_bias || c->rank == 0) /* added once; elsewhere it stays zero */
            add_entry(c, &mine);
        return;
    case VOCAB_PARALLEL:
        cut_rows(c, e, c->rank * share.rows, (c->rank + 1) * share.rows, 0);
        return;
    }
    assert(!"not a partition");
}

struct model *tensor_parallel_share(const struct model *whole, int32_t rank, int32_t size)
{
    struct model *share = xmalloc(sizeof *share);
    struct cut c = { whole, share, rank, size, whole->tensors.count + 1 };
    assert(rank >= 0 && rank < size);
    *share = *whole;
    divide_sizes(&share->desc, rank, size);
    share->tensors = (struct tensor_map){ 0 };
    share->tensors.entries = xcalloc(c.capacity, sizeof *share->tensors.entries);
    for (size_t i = 0; i < whole->tensors.count; i++)
        cut_entry(&c, &whole->tensors.entries[i]);
    return share;
}

void tensor_parallel_share_free(struct model *share)
{
    if (!share)
        return;
    free(share->tensors.entries);
    free(share);
}
