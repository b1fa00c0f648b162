/* memory_plan.c - the arithmetic of the plan, and its refusals. */
#include "engine/exec/memory_plan.h"

#include "engine/model/tensor_parallel.h"
#include "kernels/backend.h"

#include <string.h>

/* Logits of this many rows are made at once. 128 rows keep the head's product compute-bound, so a
 * larger piece would only cost memory (vocabulary * rows * 4 bytes). */
enum { MAX_LOGITS_ROWS = 128 };

static bool choose_max_model_len(const struct model *m, const struct memory_plan_options *o,
                                 struct memory_plan *p, struct status *st)
{
    int32_t derived = model_max_len(&m->desc);
    if (o->max_model_len > derived) {
        status_set(st, STATUS_INVALID,
                   "--max-model-len %d is more than the model's %d (max_position_embeddings and "
                   "rope scaling of config.json); give at most that",
                   o->max_model_len, derived);
        return status_detail(st, "max_model_len", NULL);
    }
    p->max_model_len = o->max_model_len > 0 ? o->max_model_len : derived;
    return true;
}

static void set_limits(const struct model *m, const struct device *d,
                       const struct memory_plan_options *o, struct memory_plan *p)
{
    const bool host_memory = d->backend->caps & BACKEND_HOST_MEMORY;
    p->decoder_limits.max_num_tokens = o->max_num_batched_tokens;
    const int64_t sample_rows = (int64_t)o->max_num_seqs * (1 + o->max_draft_tokens);
    p->decoder_limits.max_logits_rows =
        sample_rows < MAX_LOGITS_ROWS ? (int32_t)sample_rows : MAX_LOGITS_ROWS;
    p->batch_limits =
        (struct batch_limits){ .max_num_seqs = o->max_num_seqs,
                               .max_num_tokens = o->max_num_batched_tokens,
                               .max_model_len = p->max_model_len,
                               .block_size = o->block_size,
                               .max_logprobs = o->max_logprobs,
                               .max_draft_tokens = o->max_draft_tokens,
                               .num_kv_groups = p->kv_spec.num_groups,
                               .vocab_size = m->desc.vocab_size,
                               .copy_references = !host_memory || p->num_batches > 1 };
    p->batch_is_shared = host_memory;
    /* Where the device has memory of its own the batches have one twin there. */
    p->batch_bytes = (host_memory ? (size_t)p->num_batches : 1) * batch_bytes(&p->batch_limits);
    memset(&p->workspace, 0, sizeof p->workspace);
    decoder_workspace(&m->desc, &p->decoder_limits, &p->workspace);
    p->workspace.max_num_seqs = o->max_num_seqs;
    p->workspace.max_model_len = p->max_model_len;
    p->workspace.block_size = o->block_size;
    p->workspace.batch_variant = o->batch_variant;
    p->workspace.int8_products = quant_config_has_int8_input(m->quant);
}

/* What a kernel takes in a captured graph: users of NVIDIA's driver have seen 62 to 66 KB for each
 * further one, and 26 MB for a step's (vLLM's log). Layers launch fewer than this many. */
enum { GRAPH_KERNEL_BYTES = 64 << 10, GRAPH_KERNELS_PER_LAYER = 16, GRAPH_KERNELS_BESIDE = 12 };

static bool plan_graphs(const struct model *m, const struct device *d,
                        const struct memory_plan_options *o, struct memory_plan *p,
                        struct status *st)
{
    const bool can_capture = d->backend->caps & BACKEND_CAN_CAPTURE;
    const struct graph_buckets_options options = {
        .mode = can_capture ? o->graph_mode : GRAPH_MODE_NONE,
        .sizes = o->graph_sizes,
        .max_num_seqs = o->max_num_seqs,
        .max_num_tokens = o->max_num_batched_tokens,
        .max_draft_tokens = o->max_draft_tokens,
        .max_model_len = p->max_model_len,
        .max_seq_len_to_capture = o->max_seq_len_to_capture,
    };
    if (!graph_buckets_make(&options, &p->graphs, st))
        return false;
    size_t kernels =
        (size_t)m->desc.num_hidden_layers * GRAPH_KERNELS_PER_LAYER + GRAPH_KERNELS_BESIDE;
    p->graph_bytes = (size_t)graph_buckets_count(&p->graphs) * kernels * GRAPH_KERNEL_BYTES;
    return true;
}

/* All but the KV cache and the batch, of one rank. */
static size_t own_bytes(const struct memory_plan *p)
{
    return p->weights.bytes + p->activation_bytes + p->workspace_bytes + p->graph_bytes;
}

/* All but the KV cache, of all ranks of a device. */
static size_t fixed_bytes(const struct memory_plan *p)
{
    size_t batches = p->batch_is_shared ? 1 : (size_t)p->ranks_per_device;
    return (size_t)p->ranks_per_device * own_bytes(p) + batches * p->batch_bytes;
}

/* The most blocks, over all groups, that one request of max_model_len holds at a time. */
static int64_t blocks_of_request(const struct memory_plan *p)
{
    return kv_cache_groups_blocks(&p->kv_groups, p->max_model_len);
}

/* Of the host's memory a share of what is free now, since others need the rest; of a GPU a share of
 * all, which others' use leaves as it is but must fit beside. */
static size_t budget_of(const struct device *d, const struct memory_plan_options *o,
                        const struct memory_info *memory)
{
    if (d->backend->caps & BACKEND_HOST_MEMORY)
        return (size_t)((double)memory->available_bytes * o->memory_utilization);
    size_t share = (size_t)((double)memory->total_bytes * o->memory_utilization);
    share = share > o->comm_bytes ? share - o->comm_bytes : 0;
    return share < memory->available_bytes ? share : memory->available_bytes;
}

/* Blocks by the budget; never more than max_num_seqs full-length sequences can use, since a small
 * model would otherwise claim all memory for nothing. An explicit size is taken as it is. */
static int64_t count_blocks(const struct memory_plan_options *o, const struct memory_plan *p,
                            size_t budget, size_t *available_for_kv)
{
    *available_for_kv = budget > fixed_bytes(p) ? budget - fixed_bytes(p) : 0;
    *available_for_kv /= (size_t)p->ranks_per_device;
    if (o->kv_cache_memory_bytes > 0)
        *available_for_kv = (size_t)o->kv_cache_memory_bytes;
    int64_t blocks = (int64_t)(*available_for_kv / p->block_bytes);
    if (o->kv_cache_memory_bytes == 0) {
        int64_t useful = blocks_of_request(p) * o->max_num_seqs;
        blocks = blocks < useful ? blocks : useful;
    }
    if (o->num_blocks_override > 0)
        blocks = o->num_blocks_override;
    int64_t most = INT32_MAX / p->block_size; /* slots are int32 */
    return blocks < most ? blocks : most;
}

static bool refuse(const struct memory_plan *p, int64_t blocks, size_t available_for_kv,
                   struct status *st)
{
    size_t needed = (size_t)blocks_of_request(p) * p->block_bytes;
    int32_t fits = kv_cache_groups_longest(&p->kv_groups, blocks, p->max_model_len);
    bool slides = p->kv_groups.sliding_window[p->kv_groups.num_groups - 1] > 0;
    if (fits > 0)
        return status_set(st, STATUS_INVALID,
                          "the KV cache of one request of max_model_len %d needs %zu bytes, and "
                          "%zu are available for it; the longest length that fits is %d: lower "
                          "--max-model-len to it%s, or raise --gpu-memory-utilization or "
                          "--kv-cache-memory-bytes",
                          p->max_model_len, needed, available_for_kv, fits,
                          slides ? ", or lower --max-num-batched-tokens (layers with a sliding "
                                   "window keep it and one step's tokens)"
                                 : "");
    return status_set(st, STATUS_INVALID,
                      "weights, activations and workspace take %zu bytes, the KV cache of one "
                      "request of max_model_len %d needs %zu more, and %zu are available in all; "
                      "not one block fits: free memory, or lower --max-num-batched-tokens, or "
                      "raise --gpu-memory-utilization or --kv-cache-memory-bytes",
                      fixed_bytes(p), p->max_model_len, needed * (size_t)p->ranks_per_device,
                      p->memory.available_bytes);
}

/* `m` is what one rank holds. */
static bool plan_rank(const struct model *m, struct device *d, const struct memory_plan_options *o,
                      struct memory_plan *p, struct status *st)
{
    memset(p, 0, sizeof *p);
    p->num_ranks = decoder_desc_num_ranks(&m->desc);
    p->ranks_per_device = o->ranks_per_device > 0 ? o->ranks_per_device : p->num_ranks;
    p->num_batches = o->num_batches > 1 ? 2 : 1;
    p->comm_bytes = o->comm_bytes;
    p->block_size = o->block_size;
    if (!choose_max_model_len(m, o, p, st) || !d->backend->memory_info(d, &p->memory, st) ||
        !weights_plan(m, d, &p->weights, st) || !plan_graphs(m, d, o, p, st))
        return false;
    p->kv_spec = kv_cache_spec_make(&m->desc, o->kv_cache_dtype);
    kv_cache_spec_group(&p->kv_spec, &m->desc, p->max_model_len, o->block_size);
    p->kv_groups =
        kv_cache_groups_make(p->kv_spec.sliding_window, p->kv_spec.num_groups, o->block_size,
                             o->max_num_batched_tokens, o->long_prefill_token_threshold);
    p->block_bytes = kv_cache_block_bytes(&p->kv_spec, o->block_size);
    set_limits(m, d, o, p);
    p->activation_bytes = decoder_activation_bytes(&m->desc, &p->decoder_limits);
    p->workspace_bytes = d->backend->workspace_bytes(d, &p->workspace);
    size_t available_for_kv;
    int64_t blocks = count_blocks(o, p, budget_of(d, o, &p->memory), &available_for_kv);
    if (blocks < blocks_of_request(p))
        return refuse(p, blocks, available_for_kv, st);
    p->num_blocks = (int32_t)blocks;
    p->kv_cache_bytes = (size_t)blocks * p->block_bytes;
    int64_t full_len = kv_cache_groups_table_len(&p->kv_groups, p->max_model_len);
    p->kv_cache_tokens = blocks * full_len * p->block_size / blocks_of_request(p);
    p->longest_len = kv_cache_groups_longest(&p->kv_groups, blocks, model_max_len(&m->desc));
    p->max_concurrency = (double)blocks / (double)blocks_of_request(p);
    return true;
}

bool memory_plan_make(const struct model *m, struct device *d, const struct memory_plan_options *o,
                      struct memory_plan *p, struct status *st)
{
    if (o->tensor_parallel_size <= 1)
        return plan_rank(m, d, o, p, st);
    struct model *share = tensor_parallel_share(m, 0, o->tensor_parallel_size);
    bool ok = plan_rank(share, d, o, p, st);
    tensor_parallel_share_free(share);
    return ok;
}

size_t memory_plan_total_bytes(const struct memory_plan *p)
{
    return fixed_bytes(p) + (size_t)p->ranks_per_device * p->kv_cache_bytes;
}

size_t memory_plan_rank_bytes(const struct memory_plan *p)
{
    return own_bytes(p) + p->batch_bytes + p->kv_cache_bytes;
}
