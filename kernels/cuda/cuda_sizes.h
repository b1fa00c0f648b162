/* cuda_sizes.h - what weights and workspace take on a GPU: the arithmetic alone, without CUDA, so
 * that a plan can be made where there is none. */
#ifndef INFERD_KERNELS_CUDA_CUDA_SIZES_H
#define INFERD_KERNELS_CUDA_CUDA_SIZES_H

#include "kernels/device.h"

enum {
    /* Rows of weights begin at a multiple of 16 bytes: elements of a row, rounded up to this. */
    CUDA_WEIGHT_ALIGN = 64,
    /* The context is taken in tiles of CUDA_ATTENTION_TILE positions; CUDA_ATTENTION_SPAN of them
     * make a span, which one block computes; spans are merged in rising order. Both are fixed, so
     * that a row's result depends on its own positions only. */
    CUDA_ATTENTION_TILE = 64,
    CUDA_ATTENTION_SPAN = 512,
    /* Rows (a query of one head each) that one warp's tile holds. Sequences with more in a step
     * are the prefill kernel's, the others the decode kernel's; the bits are the same. */
    CUDA_ATTENTION_ROWS = 16,
    CUDA_MAX_PARTIAL_SLOTS = 1024, /* (sequence, span) pairs that decode attention does at once */
    CUDA_WORKSPACE_ALIGN = 256
};

static inline int64_t cuda_weight_stride(int32_t cols)
{
    return ((int64_t)cols + CUDA_WEIGHT_ALIGN - 1) / CUDA_WEIGHT_ALIGN * CUDA_WEIGHT_ALIGN;
}

/* float32s of decode attention's partial results per sequence and span. */
static inline size_t cuda_attention_partial_floats(int32_t num_kv_heads, int32_t head_dim)
{
    return (size_t)num_kv_heads * CUDA_ATTENTION_ROWS * ((size_t)head_dim + 2);
}

/* The parts of the workspace, each a multiple of CUDA_WORKSPACE_ALIGN, in bytes. */
struct cuda_workspace_parts {
    size_t linear, attention, sampling;
    int32_t partial_slots;
};

static inline size_t cuda_workspace_aligned(size_t bytes)
{
    return (bytes + CUDA_WORKSPACE_ALIGN - 1) / CUDA_WORKSPACE_ALIGN * CUDA_WORKSPACE_ALIGN;
}

static inline int32_t cuda_num_spans(int32_t len)
{
    return (len + CUDA_ATTENTION_SPAN - 1) / CUDA_ATTENTION_SPAN;
}

/* Enough for one sequence of the greatest length; more sequences than fit are done in turns. */
static inline int32_t cuda_partial_slots(const struct workspace_desc *w)
{
    const int64_t spans = cuda_num_spans(w->max_model_len);
    const int64_t all = spans * w->max_num_seqs;
    const int64_t usual = CUDA_MAX_PARTIAL_SLOTS, most = spans > usual ? spans : usual;
    return (int32_t)(all < most ? all : most);
}

static inline struct cuda_workspace_parts cuda_workspace_parts(const struct workspace_desc *w)
{
    const int32_t rows =
        w->max_num_tokens > w->max_logits_rows ? w->max_num_tokens : w->max_logits_rows;
    struct cuda_workspace_parts p;
    p.partial_slots = cuda_partial_slots(w);
    p.linear = cuda_workspace_aligned(
        (size_t)rows * (size_t)cuda_weight_stride(w->max_in_features) * sizeof(float));
    p.attention = cuda_workspace_aligned(
        (size_t)p.partial_slots * cuda_attention_partial_floats(w->num_kv_heads, w->head_dim) *
        sizeof(float));
    p.sampling = cuda_workspace_aligned((size_t)w->max_logits_rows * 2 * (size_t)w->vocab_size *
                                        sizeof(float));
    return p;
}

#endif
