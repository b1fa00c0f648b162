/* device.h - what every opened device begins with.
 *
 * A device belongs to one worker thread, which alone calls its ops. */
#ifndef INFERD_KERNELS_DEVICE_H
#define INFERD_KERNELS_DEVICE_H

#include "base/status.h"
#include "kernels/tensor.h"

struct backend;

struct device_options {
    int32_t index;       /* of the GPU; unused by the CPU */
    int32_t num_threads; /* of the CPU's pool; 0: one per allowed CPU */
    const char *isa;     /* CPU: "auto", "scalar", "avx2", "avx512", "avx512_bf16" */
    bool pin_threads;
    /* CPU: one of so many equal shares of the CPUs and of num_threads; num_shares 0: all. */
    int32_t share, num_shares;
};

/* Upper bounds of everything a step may ask for; the workspace is sized by them once. */
struct workspace_desc {
    int32_t max_num_tokens, max_num_seqs, max_logits_rows;
    int32_t max_model_len, block_size;
    int32_t max_in_features, max_out_features; /* over all linears */
    int32_t num_heads, num_kv_heads, head_dim;
    int32_t latent_dim; /* of the values of latent attention; 0: there is none */
    int32_t vocab_size;
    /* Large products may be done by the vendor's library, whose sums may depend on how many rows
     * there are. */
    bool batch_variant;
    /* Some linears multiply whole numbers of 8 bits, whose sums are the same whoever makes them. */
    bool int8_products;
    /* The largest mixture of experts; all 0: none. */
    int32_t num_experts, num_experts_per_tok, moe_hidden_size, moe_intermediate_size;
    int32_t num_ranks; /* that share the model; 0 or 1: there is one */
};

struct memory_info {
    size_t total_bytes;     /* of the device, or what the cgroup allows */
    size_t available_bytes; /* free now, reclaimable page cache included */
};

enum { DEVICE_NUM_MARKS = 2 };

struct device {
    const struct backend *backend;
    struct status error; /* sticky: the first failure of any op since the last sync or mark */
    struct status marked[DEVICE_NUM_MARKS]; /* that of the ops which a mark stands for */
    size_t allocated_bytes; /* device memory that alloc and reserve_workspace have given out */
    char description[128];  /* for the log: "AMD EPYC, 2 threads, avx512_bf16" */
};

/* True where `error`, one of a device's, is none; else false, and st has it: the device no more. */
static inline bool device_take_error(struct status *error, struct status *st)
{
    if (error->code == STATUS_OK)
        return true;
    *st = *error;
    status_clear(error);
    return false;
}

#endif
