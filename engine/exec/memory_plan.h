/* memory_plan.h - every byte the engine will hold on a device, worked out before any is taken.
 *
 * With several ranks, which are alike, it is the plan of each. On the host they share the memory
 * and one batch; GPUs have theirs, and a batch for each rank.
 *
 * `inferd plan` prints it and `inferd serve` allocates by it; both come from here. The KV cache
 * gets what the utilization leaves, or an exact size. A plan that cannot hold one request of
 * max_model_len is refused with the needed and available bytes and the longest length that fits. */
#ifndef INFERD_ENGINE_EXEC_MEMORY_PLAN_H
#define INFERD_ENGINE_EXEC_MEMORY_PLAN_H

#include "base/buf.h"
#include "engine/exec/batch.h"
#include "engine/model/decoder.h"
#include "engine/model/kv_cache_spec.h"
#include "engine/sched/kv_cache_groups.h"

struct memory_plan_options {
    double memory_utilization;
    int64_t kv_cache_memory_bytes; /* 0: by utilization */
    int32_t num_blocks_override;   /* 0: none */
    int32_t max_model_len;         /* 0: the model's */
    int32_t block_size;
    int32_t max_num_seqs, max_num_batched_tokens, max_logprobs;
    int32_t max_draft_tokens;             /* of a sequence in a step */
    int32_t long_prefill_token_threshold; /* 0: none */
    int32_t tensor_parallel_size;         /* ranks */
    int32_t ranks_per_device;             /* that share a device's memory; 0: all */
    int32_t num_batches;                  /* steps that may be under way: 2, else 1 */
    size_t comm_bytes;                    /* what ranks took of a device to meet, before the plan */
    bool batch_variant;                   /* see struct workspace_desc */
    enum dtype kv_cache_dtype;
    /* Which graphs are captured, by the device's power to. */
    enum graph_mode graph_mode;
    const char *graph_sizes; /* NULL: the default ones */
    int32_t max_seq_len_to_capture;
};

struct memory_plan {
    struct memory_info memory; /* before anything was allocated */
    int32_t num_ranks, ranks_per_device, num_batches;
    bool batch_is_shared; /* by the ranks: it lies in the host's memory */
    struct weights_size weights;
    size_t activation_bytes; /* the decoder's arena, logits included */
    size_t workspace_bytes;  /* the device's scratch */
    size_t comm_bytes;       /* what the ranks took to meet; no longer available */
    size_t graph_bytes;      /* what captured steps will take of the driver, an estimate */
    size_t batch_bytes;      /* a step's inputs and outputs on the device, or on the host all */
    size_t kv_cache_bytes;   /* num_blocks * block_bytes */
    size_t block_bytes;      /* the layers of a group, K and V */
    int32_t num_blocks, block_size;
    int64_t kv_cache_tokens; /* of full-length requests */
    int32_t max_model_len;
    int32_t longest_len;    /* of one request alone: the model's longest, or what the blocks hold */
    double max_concurrency; /* full-length requests that fit at once, at their largest */
    struct kv_cache_spec kv_spec;
    struct kv_cache_groups kv_groups;
    struct decoder_limits decoder_limits;
    struct batch_limits batch_limits;
    struct workspace_desc workspace;
    struct graph_buckets graphs;
};

/* `m` is the whole model, `d` the device of those with the least memory left. */
bool memory_plan_make(const struct model *m, struct device *d,
                      const struct memory_plan_options *options, struct memory_plan *out,
                      struct status *st);
/* All that a device holds. */
size_t memory_plan_total_bytes(const struct memory_plan *p);
/* The same of one rank that has a device of its own, and the batch on it. */
size_t memory_plan_rank_bytes(const struct memory_plan *p);

/* --- memory_plan_text.c --- */

/* The table for people, or one JSON object. */
void memory_plan_describe(const struct memory_plan *p, bool json, struct buf *out);
/* After a refusal: which single change of the options would make the plan fit, one line each; empty
 * where none of those tried does. */
void memory_plan_advise(const struct model *m, struct device *d,
                        const struct memory_plan_options *options, struct buf *out);

#endif
