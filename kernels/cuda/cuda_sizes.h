/* cuda_sizes.h - what weights and workspace take on a GPU: the arithmetic alone, without CUDA, so
 * that a plan can be made where there is none. */
#ifndef INFERD_KERNELS_CUDA_CUDA_SIZES_H
#define INFERD_KERNELS_CUDA_CUDA_SIZES_H

#include "kernels/device.h"
#include "kernels/tensor.h"

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
    CUDA_WORKSPACE_ALIGN = 256,
    /* Codes of the words formats lie in chunks, see cuda_weight_layout. */
    CUDA_CODE_CHUNK = 64,
    CUDA_STEP_COLS = 32, /* of a product on tensor cores: what a warp takes at once */
    CUDA_ROW_ALIGN = 32, /* what one access to memory brings at least */
    CUDA_ONE_GROUP = 31  /* a shift that makes every column the first group's */
};

/* How a kernel reads weights. Up to CUDA_NF4 they are words, whose rows are rearranged; the others
 * are ggml's blocks as they are in the file. */
enum cuda_codec {
    CUDA_PLAIN,
    CUDA_INT4,
    CUDA_INT8,
    CUDA_FP8,
    CUDA_NF4,
    CUDA_Q4_0,
    CUDA_Q4_1,
    CUDA_Q5_0,
    CUDA_Q5_1,
    CUDA_Q8_0,
    CUDA_Q2_K,
    CUDA_Q3_K,
    CUDA_Q4_K,
    CUDA_Q5_K,
    CUDA_Q6_K,
    CUDA_IQ4_NL,
    CUDA_IQ4_XS,
    CUDA_MXFP4,
    NUM_CUDA_CODECS
};

/* A row of weights in device memory: row_bytes, a multiple of CUDA_ROW_ALIGN.
 *
 * Words: the codes, in chunks of 64 bytes for 128 columns of 4 bits or 64 of 8. A product's step
 * takes 32 columns, of which four lanes take 8 each: a chunk is the first lane's codes of its steps
 * (4 or 2), then the second's, and so on, so that a lane reads them with one load of 16 bytes. Of 8
 * codes of 4 bits the even ones are the lower half of their word, the odd ones the upper half.
 * From heads_at on each group has its scale and, as wide, its zero point (an integer) or minimum,
 * if the format has them. Groups are of 2^group_shift columns; what lies past the last column is
 * zero. */
struct cuda_weight_layout {
    enum cuda_codec codec;
    enum dtype dtype;       /* of activations, which weights are rounded to for products */
    enum dtype scale_dtype; /* which weights are rounded to before, unless it is float32 */
    int64_t row_bytes, heads_at;
    int32_t group_shift, head_bytes;
    int32_t offset; /* enum quant_offset */
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
