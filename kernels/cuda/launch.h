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

/* Of kernels/weight.h and backend.h: a launcher's own file includes it. */
struct copy_piece;
struct moe;
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
    /* Of an embedding: row 0 is that of id first_id; of num_ids ids others have the rest. */
    int32_t first_id, num_ids;
};

/* --- embedding.cuh, step_io.cu, logits.cu, activation.cu, layernorm.cu, rotary_embedding.cu
 * -----------------
 */

/* Zeros where another rank has the row. A row's elements are not rounded to weight->dtype, but to
 * layout.scale_dtype. */
void cuda_launch_embedding(const struct tensor *out, const int32_t *ids,
                           const struct cuda_matrix *weight, struct cuda_fault *fault,
                           cudaStream_t stream);
/* Copies pieces between the device and pinned host memory, both of which it can address. */
void cuda_launch_copy_pieces(const struct copy_piece *pieces, int32_t count, cudaStream_t stream);
/* *dst[i] = ids[rows[i]], or 0 where that is below 0. */
void cuda_launch_feed_tokens(int32_t *const *dst, const int32_t *ids, const int32_t *rows,
                             int32_t count, cudaStream_t stream);
/* Moves the fault to pinned memory: on the device there is none then. */
void cuda_launch_take_fault(struct cuda_fault *pinned, struct cuda_fault *fault,
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

/* Rows [row, row + the launch's tile_rows) of product `product`, or fewer at its end. */
struct cuda_tile {
    int32_t product, row;
};

/* Products of one size that share a launch, each with weights of its own, the same distance apart.
 * With tiles (of experts): product i has the rows [begin[i], begin[i + 1]) of x and out, and the
 * tiles cover all rows. Without (of heads): each has `rows` rows of x, one product's after the
 * other's, and columns of its own in out. */
struct cuda_group {
    int32_t num_products; /* 0: there is one, and what follows is not read */
    int64_t weight_bytes, bias_floats, out_floats; /* from one product's to the next one's */
    const int32_t *begin, *num_tiles;              /* device memory */
    const struct cuda_tile *tiles;                 /* device memory [*num_tiles], or NULL */
    int32_t max_tiles;
};

/* y = x W^T + bias. x is the scratch that cuda_launch_linear_input filled: [rows, weight.stride] of
 * weight.dtype, zero beyond weight.cols. */
struct cuda_product {
    struct cuda_matrix weight;
    const void *x;
    const float *bias; /* or NULL */
    float *out;
    int64_t out_stride;
    int32_t rows;
    int32_t tile_rows; /* of a block: cuda_tile_rows(the rows of a product) */
    struct cuda_group group;
};

/* What befits products of so many rows each: 8 and 16 are gemv.cuh's, the others
 * linear_dense.cuh's. The bits of a row do not depend on it. */
static inline int32_t cuda_tile_rows(enum dtype dtype, int32_t rows)
{
    if (dtype == DTYPE_F32 || rows <= 8)
        return 8;
    return rows <= 16 ? 16 : rows <= 128 ? 32 : 128;
}

/* Column i of dst is x's column order[i]; NULL: column i. */
void cuda_launch_linear_input(void *dst, const struct tensor *x, const int32_t *order,
                              const struct cuda_matrix *weight, cudaStream_t stream);
/* dst [num_heads, x->rows, weight->stride] = x's columns, weight->cols of them for each head. */
void cuda_launch_linear_heads_input(void *dst, const struct tensor *x, int32_t num_heads,
                                    const struct cuda_matrix *weight, cudaStream_t stream);
/* With tensor cores, any number of rows: in tiles of up to CUDA_GEMV_MAX_ROWS by gemv.cuh, of more
 * by linear_dense.cuh. An element of out has the same bits from both: sums run over pieces of
 * CUDA_SUM_PIECE columns, each in the order that mma_16816 takes them, and the pieces are added in
 * rising order. Quantized weights are dequantized, then rounded to the dtype of the activations. */
enum { CUDA_GEMV_MAX_ROWS = 16, CUDA_SUM_PIECE = 256 };
void cuda_launch_linear_mma(const struct cuda_product *p, cudaStream_t stream);
/* float32 */
void cuda_launch_linear_f32(const struct cuda_product *p, cudaStream_t stream);

/* --- linear_codes.cu: linears with an input_quant ----------------------------------------------
 */

/* Rows of codes and the scales of the rows, see kernels/quant/input_quant.h. */
struct cuda_codes {
    void *codes;   /* [rows, stride], zero from the last column on */
    float *scales; /* [rows] */
    int64_t stride;
    float scale; /* of all rows; 0: each has its own */
    bool is_fp8;
    /* A byte each, int8_t or E4M3, in the order of the weights' chunks; else bfloat16, in their
     * own. */
    bool packed;
};
void cuda_launch_quantize(const struct cuda_codes *dst, const struct tensor *x,
                          cudaStream_t stream);
/* layernorm.cu: the same of cuda_launch_norm's out, which is not written; x->cols is norm->size. */
void cuda_launch_norm_quantize(const struct cuda_codes *dst, const struct tensor *residual,
                               const struct tensor *x, const struct norm *norm,
                               cudaStream_t stream);
/* out = the sums of codes times codes: int32_t where the weights are INT8, else float32. p->x is
 * not packed; p->bias is not added. */
void cuda_launch_linear_codes(const struct cuda_product *p, cudaStream_t stream);
/* Sums become elements: times the row's scale, times the weights', plus p->bias. */
void cuda_launch_scale_sums(const struct cuda_product *p, const float *scales, cudaStream_t stream);

/* --- moe_route.cu, moe.cu ----------------------------------------------------------------------
 */

/* The arrays of one turn of a mixture, see struct cuda_moe_parts. */
struct cuda_moe_turn {
    int32_t num_tokens, num_experts, top_k;
    int32_t tile_rows; /* of both products */
    int32_t *ids, *places, *pairs, *counts, *begin, *num_tiles;
    float *weights;
    struct cuda_tile *tiles;
};

/* Fills ids and weights as struct moe says. */
void cuda_launch_moe_route(const struct cuda_moe_turn *t, const struct tensor *logits,
                           const struct moe *moe, cudaStream_t stream);
/* Fills all others from ids; within an expert pairs stay in their order. */
void cuda_launch_moe_sort(const struct cuda_moe_turn *t, cudaStream_t stream);
/* dst [pairs, weight.stride] = the places' rows of x, rounded to weight.dtype. `order` is expert
 * 0's, see struct linear, and the others' are order_ints apart; NULL: none have one. */
void cuda_launch_moe_gather(void *dst, const struct tensor *x, const struct cuda_moe_turn *t,
                            const struct cuda_matrix *weight, const int32_t *order,
                            int64_t order_ints, cudaStream_t stream);
/* dst = act(gate) * up of inner [pairs, 2 * weight.cols], likewise. act is an enum activation. */
void cuda_launch_moe_activate(void *dst, const float *inner, int32_t act,
                              const struct cuda_moe_turn *t, const struct cuda_matrix *weight,
                              const int32_t *order, int64_t order_ints, cudaStream_t stream);
/* out = the weighted sums of y [pairs, y_stride], by places. */
void cuda_launch_moe_combine(const struct tensor *out, const float *y, int64_t y_stride,
                             const struct cuda_moe_turn *t, cudaStream_t stream);

/* --- reshape_and_cache.cu, attention_*.cu ------------------------------------------------------
 */

/* A layer's paged cache; v is NULL where the value is the key's leading elements. Within a block K,
 * and V, are [num_kv_heads, block_size, head_dim]; int8 has scales behind each head, see
 * kv_cache.cuh. */
struct cuda_kv {
    void *k, *v;
    enum dtype dtype;
    int32_t num_blocks, block_size, num_kv_heads, head_dim;
    float k_scale, v_scale; /* of kernels/weight.h */
    /* A position's block is position * block_multiplier >> block_shift: a division takes longer
     * than the copy that it is for. */
    uint32_t block_multiplier;
    int32_t block_shift;
};

/* v->data may be NULL. */
void cuda_launch_reshape_and_cache(const struct cuda_kv *kv, const struct tensor *k,
                                   const struct tensor *v, const int32_t *slot_mapping,
                                   cudaStream_t stream);

struct cuda_attention {
    struct tensor out, q;
    struct tensor q_rope; /* latent attention: the other part of each query, see struct mla_query */
    struct cuda_kv kv;
    struct attn_metadata m;
    struct attention_params params;
    int32_t max_shared_bytes;   /* that a block may have: 99 KiB or more */
    int32_t decode_rows;        /* sequences of up to so many, per kv head, are decode's */
    int32_t seq_begin, seq_end; /* decode: the sequences of this launch */
    float *partials;            /* decode: see attention_decode.cu */
};
/* KV in 16 or 8 bits, head_dim a multiple of 8 up to 256. */
void cuda_launch_attention_prefill(const struct cuda_attention *a, cudaStream_t stream);
void cuda_launch_attention_decode(const struct cuda_attention *a, cudaStream_t stream);
/* Any dtype, values of up to 512 elements, latent attention too; for all sequences. */
void cuda_launch_attention_simt(const struct cuda_attention *a, cudaStream_t stream);
/* Latent attention with a cache in 16 or 8 bits; sizes are multiples of 8 up to CUDA_MLA_MAX_*. */
void cuda_launch_attention_mla_prefill(const struct cuda_attention *a, cudaStream_t stream);
void cuda_launch_attention_mla_decode(const struct cuda_attention *a, cudaStream_t stream);

/* --- peer.cu ----------------------------------------------------------------------------------
 */

/* Ranks whose GPUs reach each other's memory. A message lies in one half of each rank's staging. */
enum { CUDA_MAX_PEERS = 8, CUDA_PEER_BLOCKS = 16, CUDA_PEER_FLOATS = 128 << 10 };
struct cuda_peer_flags {
    uint32_t turn[CUDA_PEER_BLOCKS]; /* the last one of each block; only this rank's */
    uint32_t arrived[CUDA_PEER_BLOCKS][CUDA_MAX_PEERS]; /* in which turn each rank is; theirs */
};
struct cuda_peers {
    float *staging[CUDA_MAX_PEERS]; /* [2, CUDA_PEER_FLOATS] on each GPU */
    struct cuda_peer_flags *flags[CUDA_MAX_PEERS];
    const uint32_t *called_off; /* host memory: not 0 when nobody shall wait any more */
    int32_t rank, size;
};

/* Every rank of `peers` must launch the same one with the same shapes; messages of up to
 * CUDA_PEER_FLOATS floats, or as many bytes as these have. All ranks get the same bits.
 * all_gather: rank r's x goes to columns r * rank_cols and up of out, whose data may point at a
 * column further on. */
void cuda_launch_peer_all_reduce(const struct cuda_peers *peers, const struct tensor *x,
                                 cudaStream_t stream);
void cuda_launch_peer_all_gather(const struct cuda_peers *peers, const struct tensor *out,
                                 const struct tensor *x, int32_t rank_cols, cudaStream_t stream);
void cuda_launch_peer_broadcast(const struct cuda_peers *peers, void *data, int32_t bytes,
                                int32_t root, cudaStream_t stream);
/* out[i] = the sum of parts[r][i] for r = 0, 1, ...; parts is [num_parts, count]. */
void cuda_launch_sum_parts(float *out, const float *parts, int64_t count, int32_t num_parts,
                           cudaStream_t stream);

/* --- sampling.cu, rejection_sample.cu, logprobs.cu ---------------------------------------------
 */

/* scratch: [num_rows, 2 * vocab] 32-bit words. */
void cuda_launch_sample(int32_t *sampled_ids, const struct tensor *logits,
                        const struct sampling_metadata *m, void *scratch, cudaStream_t stream);
void cuda_launch_rejection_sample(int32_t *num_accepted, const struct rejection_request *request,
                                  cudaStream_t stream);
void cuda_launch_logprobs(const struct logprobs_request *request, const struct tensor *logits,
                          cudaStream_t stream);

#ifdef __cplusplus
}
#endif

#endif
