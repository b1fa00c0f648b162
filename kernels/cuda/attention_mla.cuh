/* attention_mla.cuh - latent attention with tensor cores: all heads share one key, whose leading
 * elements are the value, so that one tile in shared memory serves for both.
 *
 * A block takes 64 rows (row i is head i % num_heads of query i / num_heads) and walks positions 32
 * at a time, one load ahead. Its warps are four times 16 rows, and two of them share these: each
 * scores 16 of the positions and then takes one half of the value's columns. Spans and their
 * merging are those of attention.cuh, for prompts and decode alike. Where a block has less shared
 * memory than that takes, it is 32 rows and nothing is loaded ahead; the bits are the same. */
#ifndef INFERD_KERNELS_CUDA_ATTENTION_MLA_CUH
#define INFERD_KERNELS_CUDA_ATTENTION_MLA_CUH

#include "kernels/cuda/attention.cuh"

enum {
    MLA_DIM = CUDA_MLA_MAX_HEAD_DIM,
    MLA_VALUE = CUDA_MLA_MAX_VALUE_DIM,
    MLA_TILE = 32,
    MLA_STRIDE = MLA_DIM + PAD,
    MLA_NUM = MLA_VALUE / 2 / 8 /* columns-of-8 of a warp */
};

/* The shape of a block: its rows, and tiles in shared memory. */
template <int NUM_ROWS, int NUM_TILES> struct mla_shape {
    enum { MLA_ROWS = NUM_ROWS, TILES = NUM_TILES, THREADS = 2 * NUM_ROWS / ROWS * WARP };
};
typedef struct mla_shape<CUDA_MLA_ROWS, 2> mla_wide; /* 152 KiB: capability 8.0 and 9.0 */
typedef struct mla_shape<32, 1> mla_narrow;          /* 76 KiB, of the 99 that all others have */

template <typename T, typename S> struct mla_shared {
    T k[S::TILES][MLA_TILE][MLA_STRIDE];
    T q[S::MLA_ROWS][MLA_STRIDE];
    T weights[S::MLA_ROWS][MLA_TILE + PAD];
    float max[2][S::MLA_ROWS];
};

typedef struct softmax_state<MLA_NUM> mla_state;

/* The rows' queries, both parts of each; zero past head_dim and past the last row. */
template <typename T, typename S>
__device__ __forceinline__ void load_queries(struct mla_shared<T, S> *shared,
                                             const struct cuda_attention &a,
                                             const struct block_rows &b)
{
    const int32_t dim = a.params.head_dim, latent = a.params.value_head_dim;
    const int32_t heads = a.params.num_heads, token = a.m.query_start_loc[b.seq];
    for (int32_t i = threadIdx.x; i < S::MLA_ROWS * (MLA_DIM / 2); i += S::THREADS) {
        const int32_t r = i / (MLA_DIM / 2), col = i % (MLA_DIM / 2) * 2, row = b.first + r;
        const int64_t query = token + row / heads, head = row % heads;
        uint32_t pair = 0;
        if (row < b.last && col < dim) {
            const float *x =
                col < latent ? (const float *)a.q.data + query * a.q.stride + head * latent + col
                             : (const float *)a.q_rope.data + query * a.q_rope.stride +
                                   head * (dim - latent) + col - latent;
            pair = pack_pair<T>(x[0], x[1]);
        }
        *(uint32_t *)&shared->q[r][col] = pair;
    }
}

/* As load_tile of attention.cuh. */
template <typename E, typename S>
__device__ __forceinline__ void load_keys(typename kv_element<E>::T (*k)[MLA_STRIDE],
                                          const struct cuda_attention &a,
                                          const struct block_rows &b, int32_t begin)
{
    enum { PIECE = 8, PIECES = MLA_DIM / PIECE };
    const struct cuda_kv &kv = a.kv;
    const int32_t *table = a.m.block_tables + (int64_t)b.seq * a.m.block_table_stride;
#pragma unroll 3
    for (int i = threadIdx.x; i < MLA_TILE * PIECES; i += S::THREADS) {
        const int32_t row = i / PIECES, col = i % PIECES * PIECE, position = begin + row;
        const bool valid = position >= b.from && position < b.to && col < kv.head_dim;
        const int32_t place = valid ? kv_block_of(kv, position) : 0;
        const int32_t block = valid ? table[place] : 0;
        const int32_t offset = valid ? position - place * kv.block_size : 0;
        if constexpr (kv_element<E>::BYTES != 0)
            *(uint4 *)&k[row][col] =
                valid ? kv_eight(kv, kv_vector_at<E>(kv, kv.k, block, 0, offset), col)
                      : make_uint4(0, 0, 0, 0);
        else
            cp_async_16(&k[row][col], kv_data_at<E>(kv, kv.k, block, 0, offset) + (valid ? col : 0),
                        valid);
    }
}

/* Scores of the warp's 16 rows from `row` on with 16 of the tile's positions. */
template <typename T, typename S>
__device__ __forceinline__ void score_keys(float s[2][4], const struct mla_shared<T, S> *shared,
                                           const T (*k)[MLA_STRIDE], int32_t row, int32_t half,
                                           int32_t dim)
{
    const int32_t lane = threadIdx.x % WARP;
    const T *q_at = &shared->q[row + lane / 8 % 2 * 8 + lane % 8][lane / 16 * 8];
    const T *k_at = &k[half * 16 + lane / 16 * 8 + lane % 8][lane / 8 % 2 * 8];
#pragma unroll
    for (int i = 0; i < 4; i++)
        s[0][i] = s[1][i] = 0;
#pragma unroll 4
    for (int32_t j = 0; j < dim; j += 16) {
        uint32_t q[4], b[4];
        ldmatrix_x4(q, q_at + j);
        ldmatrix_x4(b, k_at + j);
        mma_16816<T>(s[0], q, b);
        mma_16816<T>(s[1], q, b + 2);
    }
}

/* One tile into the warp's span. */
template <typename T, typename S>
__device__ __forceinline__ void attend_keys(mla_state *span, struct mla_shared<T, S> *shared,
                                            const T (*k)[MLA_STRIDE],
                                            const struct cuda_attention &a,
                                            const struct row_pair &r, int32_t begin)
{
    const int32_t warp = threadIdx.x / WARP, lane = threadIdx.x % WARP, group = lane / 4;
    const int32_t row = warp / 2 * ROWS, half = warp % 2, first = half * (MLA_VALUE / 2);
    const uint32_t ones[2] = { pair_of_ones<T>(), pair_of_ones<T>() };
    float s[2][4], max[2];
    uint32_t p[4];
    score_keys<T, S>(s, shared, k, row, half, a.params.head_dim);
    finish_scores<1>(&s, a.params, r, begin + half * 16);
    for (int i = 0; i < 2; i++) {
        max[i] = fmaxf(fmaxf(s[0][i * 2], s[0][i * 2 + 1]), fmaxf(s[1][i * 2], s[1][i * 2 + 1]));
        max[i] = quad_max(max[i]);
        if (lane % 4 == 0)
            shared->max[half][row + group + i * 8] = max[i];
    }
    __syncthreads();
    for (int i = 0; i < 2; i++)
        max[i] = fmaxf(span->max[i], fmaxf(shared->max[0][row + group + i * 8],
                                           shared->max[1][row + group + i * 8]));
    raise_max(span, max);
    weight_pair<T>(p, s, max);
    for (int i = 0; i < 4; i++)
        *(uint32_t *)&shared
             ->weights[row + group + i % 2 * 8][half * 16 + i / 2 * 8 + lane % 4 * 2] = p[i];
    __syncthreads();
#pragma unroll
    for (int pair = 0; pair < MLA_TILE / 16; pair++) {
        ldmatrix_x4(p,
                    &shared->weights[row + lane / 8 % 2 * 8 + lane % 8][pair * 16 + lane / 16 * 8]);
        const T *v = &k[pair * 16 + lane / 8 % 2 * 8 + lane % 8][first + lane / 16 * 8];
#pragma unroll
        for (int n = 0; n < MLA_NUM; n += 2) {
            if (first + n * 8 >= a.params.value_head_dim)
                continue; /* the same for all lanes */
            uint32_t b[4];
            ldmatrix_x4_trans(b, v + n * 8);
            mma_16816<T>(span->out[n], p, b);
            mma_16816<T>(span->out[n + 1], p, b + 2);
        }
        mma_16816<T>(span->sum, p, ones);
    }
}

template <typename E, typename S> static bool mla_fits(const struct cuda_attention &a)
{
    return sizeof(struct mla_shared<typename kv_element<E>::T, S>) <= (size_t)a.max_shared_bytes;
}

/* The warp's rows of the block. */
__device__ __forceinline__ struct row_pair find_warp_rows(const struct cuda_attention &a,
                                                          const struct block_rows &b)
{
    return find_rows(a, b.seq, 0, b.first + (int32_t)threadIdx.x / WARP / 2 * ROWS);
}

/* The first column of the lane's element 0 of out[0]. */
__device__ __forceinline__ int32_t first_column(void)
{
    return threadIdx.x / WARP % 2 * (MLA_VALUE / 2) + threadIdx.x % 4 * 2;
}

#endif
