/* weight.h - what a layer owns in device memory, in the form its kernels want it. */
#ifndef INFERD_KERNELS_WEIGHT_H
#define INFERD_KERNELS_WEIGHT_H

#include "kernels/quant/input_quant.h"
#include "kernels/quant/quant_format.h"
#include "kernels/tensor.h"

struct linear_kernel; /* a row of the backend's table, private to it */

/* y = x W^T + bias. W is [out_features, in_features] as checkpoints store it; several checkpoint
 * tensors may be stacked along out_features (q, k, v; gate, up), and where these are held in
 * different formats each is a link of a chain: the first one's rows, then `next`'s. Each link is
 * filled in three steps: the loader sets the sizes and the format; backend->linear_plan chooses the
 * kernel and sets packed_bytes; the loader gives `packed` memory and calls backend->linear_pack per
 * piece of rows. Afterwards const. */
struct linear {
    int32_t out_features, in_features; /* out_features: of this link */
    const struct quant_format *format; /* how the weights are held in memory */
    struct linear *next;               /* the rows below, over the same x; NULL: none */
    /* [in_features] device memory: column i of W belongs to x[input_order[i]]. NULL: to x[i]. */
    const int32_t *input_order;
    /* What x is rounded to first; only where input_quant_fits, without an input_order, and never of
     * experts or heads. */
    struct input_quant input_quant;
    /* Of the embedding op: the table has vocab_size rows, of which these begin at vocab_begin.
     * vocab_size 0: all of them are here. */
    int32_t vocab_begin, vocab_size;
    bool needs_rows; /* also read by the embedding op (tied embeddings) */
    const struct linear_kernel *kernel;
    size_t panel_bytes;  /* private to the backend */
    size_t packed_bytes; /* of `packed`, padding included */
    void *packed;        /* 64-byte aligned device memory in the kernel's layout */
    const float *bias;   /* [out_features] device memory, or NULL */
};

/* Of the whole chain. */
static inline int32_t linear_out_features(const struct linear *l)
{
    int32_t total = 0;
    for (; l; l = l->next)
        total += l->out_features;
    return total;
}

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

enum activation {
    ACT_SILU,
    ACT_GELU,
    ACT_GELU_TANH,
    ACT_RELU,
    /* gpt-oss: x sigmoid(1.702 x) with x up to 7; what it multiplies is clamped to -7..7 and raised
     * by 1. Constants: swiglu_alpha and swiglu_limit of its published configurations. */
    ACT_SWIGLU_OAI,
    NUM_ACTIVATIONS
};
#define SWIGLU_OAI_ALPHA 1.702f
#define SWIGLU_OAI_LIMIT 7.0f

/* How the router's logits become an expert's score. */
enum moe_scoring {
    MOE_SOFTMAX,      /* over all experts */
    MOE_SOFTMAX_TOPK, /* over the chosen ones only */
    MOE_SIGMOID       /* each by itself (DeepSeek-V3) */
};
/* What a group of experts is worth where only the best groups take part. */
enum moe_group_score {
    MOE_GROUP_MAX, /* its best expert (DeepSeek-V2) */
    MOE_GROUP_TOP2 /* the sum of its two best (DeepSeek-V3) */
};

enum { MOE_MAX_EXPERTS = 1024 }; /* twice the most that is published */

/* A mixture of experts: of num_experts gated MLPs each token runs num_experts_per_tok, those that a
 * router chooses, and takes their weighted sum (Shazeer et al., 2017).
 *
 * For a token with router logits l: score = scoring(l). The experts with the greatest
 * score + score_bias are chosen (ties: the lower id), with groups only from the topk_groups best
 * groups. Their weights are their scores without the bias, divided by their sum with
 * norm_topk_prob, times routed_scaling_factor. Groups: DeepSeek-AI, 2024 (arXiv:2405.04434); the
 * bias and the sigmoid: arXiv:2412.19437.
 *
 * All experts have the same sizes, format and kernel, one link each, and lie in memory in rising
 * order, the same distance apart, so that a backend may address them as one block. */
struct moe {
    int32_t num_experts;         /* up to MOE_MAX_EXPERTS */
    int32_t num_experts_per_tok; /* up to num_experts */
    enum moe_scoring scoring;
    enum moe_group_score group_score;
    int32_t num_groups;  /* a divisor of num_experts; 0 or 1: no groups */
    int32_t topk_groups; /* they hold num_experts_per_tok experts or more */
    bool norm_topk_prob;
    float routed_scaling_factor;
    const float *score_bias; /* [num_experts] device memory, or NULL */
    enum activation act;
    struct linear router;         /* [num_experts, hidden_size] */
    const struct linear *gate_up; /* host array [num_experts]: [2 * intermediate, hidden_size] */
    const struct linear *down;    /* host array [num_experts]: [hidden_size, intermediate] */
};

/* Rotary embedding (Su et al., 2021), rotate-half row order unless `interleaved`. */
struct rope {
    int32_t rotary_dim;      /* leading elements of a head that rotate; even */
    bool interleaved;        /* pairs (2i, 2i+1) instead of (i, i + rotary_dim / 2) */
    const float *inv_freq;   /* [rotary_dim / 2] device memory */
    float attention_scaling; /* multiplies cos and sin (yarn, longrope); 1 otherwise */
};

/* One layer's paged KV cache. Block b holds block_size tokens of K, for all kv heads, in the
 * num_kv_heads * kv_layer_head_bytes from k + b times that many on, and of V likewise; v is NULL
 * where a layer keeps one vector per token and nothing else (head_dim is its length, num_kv_heads
 * 1), whose leading elements are the value. How they lie within a block is the backend's own affair
 * (the CPU's: kernels/cpu/kv_layout.h); whoever copies blocks copies them whole. */
struct kv_layer {
    void *k, *v;
    enum dtype dtype;
    int32_t num_blocks, block_size, num_kv_heads, head_dim;
    int32_t group; /* layers of one group have one attn_metadata, with its tables and slots */
    /* fp8_e4m3: what stored elements of K and V are multiplied by; 0 stands for 1. */
    float k_scale, v_scale;
};

/* Bytes that one kv head takes in a block of K, or of V: its elements, and behind those of int8 a
 * float32 scale for each token. */
static inline size_t kv_layer_head_bytes(enum dtype dtype, int32_t block_size, int32_t head_dim)
{
    size_t bytes = (size_t)block_size * (size_t)head_dim * dtype_size(dtype);
    return dtype == DTYPE_I8 ? bytes + (size_t)block_size * sizeof(float) : bytes;
}

#endif
