/* launch.h - the border between C and CUDA C++: one launcher per op, which only enqueues.
 *
 * All pointers but those to the argument structs are device addresses. Counts are upper bounds
 * where kernels/metadata.h says so. Activations are float32. A launch that cannot be made leaves
 * its error with the runtime (cudaPeekAtLastError). */
#ifndef INFERD_KERNELS_CUDA_LAUNCH_H
#define INFERD_KERNELS_CUDA_LAUNCH_H

#ifdef __cplusplus
extern "C" {
#endif

#include "kernels/cuda/cuda_sizes.h"
#include "kernels/metadata.h"
#include "kernels/tensor.h"

#include <cuda_runtime_api.h>

/* Of kernels/weight.h: a launcher's own file includes it. */
struct norm;
struct rope;

/* What a kernel found wrong; the first one stays until the host has read it. */
enum cuda_fault_kind { CUDA_FAULT_NONE, CUDA_FAULT_EMBEDDING, CUDA_FAULT_GATHER };
struct cuda_fault {
    int32_t kind, row, index, limit; /* index[row] is not in [0, limit) */
};

/* Rows of weights, see cuda_sizes.h. They stand for [rows, stride] elements of which those from
 * `cols` on are finite; stride is a multiple of CUDA_WEIGHT_ALIGN. Activations have as many, zero
 * from `cols` on, of `dtype`. */
struct cuda_matrix {
    const void *data;
    enum dtype dtype;
    int32_t rows, cols;
    int64_t stride;
    struct cuda_weight_layout layout;
};

/* --- embedding.cuh, logits.cu, activation.cu, layernorm.cu, rotary_embedding.cu -----------------
 */

/* A row's elements are not rounded to weight->dtype, but to layout.scale_dtype. */
void cuda_launch_embedding(const struct tensor *out, const int32_t *ids,
                           const struct cuda_matrix *weight, struct cuda_fault *fault,
                           cudaStream_t stream);
void cuda_launch_gather_rows(const struct tensor *out, const struct tensor *x,
                             const int32_t *indices, struct cuda_fault *fault, cudaStream_t stream);
void cuda_launch_add(const struct tensor *x, const struct tensor *y, cudaStream_t stream);
void cuda_launch_scale(const struct tensor *x, float factor, cudaStream_t stream);
void cuda_launch_softcap(const struct tensor *x, float cap, cudaStream_t stream);
/* act is an enum activation. gated: x has twice out's columns; else x == out. */
void cuda_launch_activation(const struct tensor *out, const struct tensor *x, int32_t act,
                            bool gated, cudaStream_t stream);
void cuda_launch_add_gated(const struct tensor *x, const struct tensor *y,
                           const struct tensor *gate, cudaStream_t stream);
/* residual->data may be NULL. */
void cuda_launch_norm(const struct tensor *out, const struct tensor *residual,
                      const struct tensor *x, const struct norm *norm, cudaStream_t stream);
void cuda_launch_rotary_cos_sin(const struct tensor *cos_sin, const int32_t *positions,
                                const struct rope *rope, cudaStream_t stream);
void cuda_launch_rotary_embedding(const struct tensor *x, int32_t head_dim,
                                  const struct tensor *cos_sin, const struct rope *rope,
                                  cudaStream_t stream);

/* --- linear_input.cu, linear_mma.cu, linear_f32.cu ----------------------------------
 */

/* y = x W^T + bias. x is the scratch that cuda_launch_linear_input filled: [rows, weight.stride] of
 * weight.dtype, zero beyond weight.cols. */
struct cuda_product {
    struct cuda_matrix weight;
    const void *x;
    const float *bias; /* or NULL */
    float *out;
    int64_t out_stride;
    int32_t rows;
};

/* Column i of dst is x's column order[i]; NULL: column i. */
void cuda_launch_linear_input(void *dst, const struct tensor *x, const int32_t *order,
                              const struct cuda_matrix *weight, cudaStream_t stream);
/* With tensor cores, any number of rows: up to CUDA_GEMV_MAX_ROWS by gemv.cuh, else by
 * linear_dense.cuh. An element of out has the same bits from both: sums run over pieces of
 * CUDA_SUM_PIECE columns, each in the order that mma_16816 takes them, and the pieces are added in
 * rising order. Quantized weights are dequantized, then rounded to the dtype of the activations. */
enum { CUDA_GEMV_MAX_ROWS = 16, CUDA_SUM_PIECE = 256 };
void cuda_launch_linear_mma(const struct cuda_product *p, cudaStream_t stream);
/* float32 */
void cuda_launch_linear_f32(const struct cuda_product *p, cudaStream_t stream);

/* --- reshape_and_cache.cu, attention_*.cu ------------------------------------------------------
 */

/* A layer's paged cache. Within a block K, and V, are [num_kv_heads, block_size, head_dim]; int8
 * has scales behind each head, see kv_cache.cuh. */
struct cuda_kv {
    void *k, *v;
    enum dtype dtype;
    int32_t num_blocks, block_size, num_kv_heads, head_dim;
    float k_scale, v_scale; /* of kernels/weight.h */
};

void cuda_launch_reshape_and_cache(const struct cuda_kv *kv, const struct tensor *k,
                                   const struct tensor *v, const int32_t *slot_mapping,
                                   cudaStream_t stream);

struct cuda_attention {
    struct tensor out, q;
    struct cuda_kv kv;
    struct attn_metadata m;
    struct attention_params params;
    int32_t seq_begin, seq_end; /* decode: the sequences of this launch */
    float *partials;            /* decode: see attention_decode.cu */
};
/* KV in 16 or 8 bits, head_dim a multiple of 8 up to 256. */
void cuda_launch_attention_prefill(const struct cuda_attention *a, cudaStream_t stream);
void cuda_launch_attention_decode(const struct cuda_attention *a, cudaStream_t stream);
/* Any dtype, head_dim up to 512; for all sequences. */
void cuda_launch_attention_simt(const struct cuda_attention *a, cudaStream_t stream);

/* --- sampling.cu, logprobs.cu ------------------------------------------------------------------
 */

/* scratch: [num_rows, 2 * vocab] 32-bit words. */
void cuda_launch_sample(int32_t *sampled_ids, const struct tensor *logits,
                        const struct sampling_metadata *m, void *scratch, cudaStream_t stream);
void cuda_launch_logprobs(const struct logprobs_request *request, const struct tensor *logits,
                          cudaStream_t stream);

#ifdef __cplusplus
}
#endif

#endif
