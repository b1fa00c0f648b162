/* weight.h - what a layer owns in device memory, in the form its kernels want it. */
#ifndef INFERD_KERNELS_WEIGHT_H
#define INFERD_KERNELS_WEIGHT_H

#include "kernels/quant/quant_format.h"
#include "kernels/tensor.h"

struct linear_kernel; /* a row of the backend's table, private to it */

/* y = x W^T + bias. W is [out_features, in_features] as checkpoints store it; several checkpoint
 * tensors may be stacked along out_features (q, k, v; gate, up). Filled in three steps: the loader
 * sets the sizes and the format; backend->linear_plan chooses the kernel and sets packed_bytes; the
 * loader gives `packed` memory and calls backend->linear_pack per piece of rows. Afterwards const.
 */
struct linear {
    int32_t out_features, in_features;
    const struct quant_format *format; /* how the weights are held in memory */
    bool needs_rows;                   /* also read by the embedding op (tied embeddings) */
    const struct linear_kernel *kernel;
    size_t packed_bytes; /* of `packed`, padding included */
    void *packed;        /* 64-byte aligned device memory in the kernel's layout */
    const float *bias;   /* [out_features] device memory, or NULL */
};

/* RMSNorm: y = x / sqrt(mean(x^2) + eps) * (weight + weight_offset). LayerNorm has also a bias and
 * subtracts the mean. */
enum norm_kind { NORM_RMS, NORM_LAYER };
struct norm {
    enum norm_kind kind;
    int32_t size;
    const float *weight; /* [size] float32 device memory; NULL means all ones */
    const float *bias;   /* [size] or NULL */
    float eps;
    float weight_offset; /* 1 for Gemma, which stores weight - 1 */
};

enum activation { ACT_SILU, ACT_GELU, ACT_GELU_TANH, ACT_RELU, NUM_ACTIVATIONS };

/* Rotary embedding (Su et al., 2021), rotate-half row order unless `interleaved`. */
struct rope {
    int32_t rotary_dim;      /* leading elements of a head that rotate; even */
    bool interleaved;        /* pairs (2i, 2i+1) instead of (i, i + rotary_dim / 2) */
    const float *inv_freq;   /* [rotary_dim / 2] device memory */
    float attention_scaling; /* multiplies cos and sin (yarn, longrope); 1 otherwise */
};

/* One layer's paged KV cache. Block b holds block_size tokens of K, for all kv heads, in the
 * block_size * num_kv_heads * head_dim elements from k + b times that many on, and of V likewise.
 * How they lie within a block is the backend's own affair (the CPU's: kernels/cpu/kv_layout.h);
 * whoever copies blocks copies them whole. */
struct kv_layer {
    void *k, *v;
    enum dtype dtype;
    int32_t num_blocks, block_size, num_kv_heads, head_dim;
};

#endif
