/* attention.cuh - the arithmetic of one tile of attention, shared by prefill and decode so that a
 * row gets the same bits from both.
 *
 * A warp's tile is 16 rows (row i is head i % group of the kv head, of query i / group) against 64
 * positions. Within a span of 512 positions the softmax is computed online, tile by tile (Milakov
 * and Gimelshein, 2018; Dao et al., 2022); spans are then merged in rising order. Scores and sums
 * are float32; the weights are rounded to the cache's dtype before they meet V, and their sum is
 * taken by the same mma, against a column of ones, so that what is divided by is what was summed.
 *
 * Products and sums outside of an mma are written as intrinsics, which the compiler leaves as they
 * are: a contraction in one kernel and not in the other would change bits. */
#ifndef INFERD_KERNELS_CUDA_ATTENTION_CUH
#define INFERD_KERNELS_CUDA_ATTENTION_CUH

#include "kernels/cuda/kv_cache.cuh"

enum {
    TILE = CUDA_ATTENTION_TILE,
    SPAN = CUDA_ATTENTION_SPAN,
    ROWS = CUDA_ATTENTION_ROWS, /* of a warp */
    ATTENTION_WARPS = 4,
    PAD = 8 /* elements between rows in shared memory, so that 8 rows lie in different banks */
};

#define LOG2_E 1.44269504f

/* e^(x - max); 0 where x is -inf, whatever max is. */
__device__ __forceinline__ float weight_of(float x, float max)
{
    return exp2f(__fmul_rn(__fsub_rn(x, max == -INFINITY ? 0.0f : max), LOG2_E));
}

/* K and V of one tile. */
template <typename T, int DIM> struct kv_tile {
    enum { STRIDE = DIM + PAD };
    T k[TILE][STRIDE], v[TILE][STRIDE];
};

/* Positions [begin, begin + TILE) of a kv head; those outside of [from, to) and columns past
 * head_dim become zero, and what lies in their place is not read. Elements of 16 bits go past the
 * registers, those of 8 are widened there. */
template <typename E, int DIM, int THREADS>
__device__ __forceinline__ void load_tile(struct kv_tile<typename kv_element<E>::T, DIM> *tile,
                                          const struct cuda_kv &kv, const int32_t *block_table,
                                          int32_t kv_head, int32_t begin, int32_t from, int32_t to)
{
    enum { PIECE = 8, PIECES = DIM / PIECE };
    for (int i = threadIdx.x; i < TILE * PIECES; i += THREADS) {
        const int32_t row = i / PIECES, col = i % PIECES * PIECE, position = begin + row;
        const bool valid = position >= from && position < to && col < kv.head_dim;
        const int64_t block = valid ? block_table[position / kv.block_size] : 0;
        const int32_t offset = valid ? position % kv.block_size : 0;
        if constexpr (kv_element<E>::BYTES != 0) {
            uint4 k = {}, v = {};
            if (valid) {
                k = kv_eight(kv, kv_vector_at<E>(kv, kv.k, block, kv_head, offset), col);
                v = kv_eight(kv, kv_vector_at<E>(kv, kv.v, block, kv_head, offset), col);
            }
            *(uint4 *)&tile->k[row][col] = k;
            *(uint4 *)&tile->v[row][col] = v;
        } else {
            const int32_t at = valid ? col : 0;
            cp_async_16(&tile->k[row][col], kv_data_at<E>(kv, kv.k, block, kv_head, offset) + at,
                        valid);
            cp_async_16(&tile->v[row][col], kv_data_at<E>(kv, kv.v, block, kv_head, offset) + at,
                        valid);
        }
    }
}

/* The two rows of a lane: lane / 4 and lane / 4 + 8 of the warp's. */
struct row_pair {
    int32_t begin[2], end[2]; /* the positions they see; end 0: no such row */
    int64_t query[2];         /* token row */
    int32_t head[2];
};

/* Rows [first, first + 16) of the sequence's (query, head of the group) pairs. */
__device__ __forceinline__ struct row_pair find_rows(const struct cuda_attention &a, int32_t seq,
                                                     int32_t kv_head, int32_t first)
{
    struct row_pair r;
    const int32_t group = a.params.num_heads / a.params.num_kv_heads;
    const int32_t query_begin = a.m.query_start_loc[seq];
    const int32_t query_len = a.m.query_start_loc[seq + 1] - query_begin;
    for (int i = 0; i < 2; i++) {
        const int32_t row = first + (int32_t)(threadIdx.x % WARP) / 4 + 8 * i;
        const bool valid = row < query_len * group;
        const int32_t query = valid ? row / group : 0;
        r.query[i] = query_begin + query;
        r.head[i] = kv_head * group + row % group;
        r.end[i] = valid ? a.m.seq_lens[seq] - query_len + query + 1 : 0;
        r.begin[i] = a.params.sliding_window > 0 && r.end[i] > a.params.sliding_window
                         ? r.end[i] - a.params.sliding_window
                         : 0;
    }
    return r;
}

/* q of the warp's rows as the left matrix of an mma; zero past head_dim and past the last row. */
template <typename T, int DIM>
__device__ __forceinline__ void load_q(uint32_t q[DIM / 16][4], const struct cuda_attention &a,
                                       const struct row_pair &r)
{
    const int32_t column = threadIdx.x % 4 * 2, dim = a.params.head_dim;
#pragma unroll
    for (int i = 0; i < 2; i++) {
        const float *row = (const float *)a.q.data + r.query[i] * a.q.stride +
                           (int64_t)(r.end[i] > 0 ? r.head[i] : 0) * dim;
#pragma unroll
        for (int j = 0; j < DIM / 16; j++) {
#pragma unroll
            for (int half = 0; half < 2; half++) {
                const int32_t at = j * 16 + half * 8 + column; /* head_dim is a multiple of 8 */
                const bool valid = at < dim && r.end[i] > 0;
                q[j][half * 2 + i] = valid ? pack_pair<T>(row[at], row[at + 1]) : 0;
            }
        }
    }
}

/* Scores of 16 positions (from column 16 * pair of the tile on) as two mma results. */
template <typename T, int DIM>
__device__ __forceinline__ void score_pair(float s[2][4], const uint32_t q[DIM / 16][4],
                                           const struct kv_tile<T, DIM> *tile, int32_t pair)
{
    const int32_t lane = threadIdx.x % WARP;
    const T *k = &tile->k[pair * 16 + lane / 16 * 8 + lane % 8][lane / 8 % 2 * 8];
#pragma unroll
    for (int i = 0; i < 4; i++)
        s[0][i] = s[1][i] = 0;
#pragma unroll
    for (int j = 0; j < DIM / 16; j++) {
        uint32_t b[4];
        ldmatrix_x4(b, k + j * 16);
        mma_16816<T>(s[0], q[j], b);
        mma_16816<T>(s[1], q[j], b + 2);
    }
}

/* Scales, caps, and takes out what a row does not see. `position`: of the pair's first column. */
__device__ __forceinline__ void finish_scores(float s[2][4], const struct attention_params &params,
                                              const struct row_pair &r, int32_t position)
{
    const float cap = params.logit_softcap;
#pragma unroll
    for (int n = 0; n < 2; n++) {
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const int32_t at = position + n * 8 + (int32_t)threadIdx.x % 4 * 2 + i % 2;
            float x = __fmul_rn(s[n][i], params.scale);
            if (cap > 0)
                x = __fmul_rn(cap, tanhf(x / cap));
            s[n][i] = at >= r.begin[i / 2] && at < r.end[i / 2] ? x : -INFINITY;
        }
    }
}

/* The greatest of a row's scores that its four lanes hold. */
__device__ __forceinline__ float quad_max(float x)
{
    x = fmaxf(x, __shfl_xor_sync(FULL_WARP, x, 1));
    return fmaxf(x, __shfl_xor_sync(FULL_WARP, x, 2));
}

/* Weights of 16 positions as the left matrix of an mma. */
template <typename T>
__device__ __forceinline__ void weight_pair(uint32_t p[4], const float s[2][4], const float max[2])
{
#pragma unroll
    for (int i = 0; i < 4; i++)
        p[i] = pack_pair<T>(weight_of(s[i / 2][i % 2 * 2], max[i % 2]),
                            weight_of(s[i / 2][i % 2 * 2 + 1], max[i % 2]));
}

template <typename T> __device__ __forceinline__ uint32_t pair_of_ones(void)
{
    return pack_pair<T>(1.0f, 1.0f);
}

/* out[n] += p V for NUM columns-of-8 from column `first` on, and sum += p 1, for 16 positions. */
template <typename T, int DIM, int NUM>
__device__ __forceinline__ void add_values(float out[NUM][4], float sum[4], const uint32_t p[4],
                                           const struct kv_tile<T, DIM> *tile, int32_t pair,
                                           int32_t first)
{
    const int32_t lane = threadIdx.x % WARP;
    const T *v = &tile->v[pair * 16 + lane / 8 % 2 * 8 + lane % 8][first + lane / 16 * 8];
    const uint32_t ones[2] = { pair_of_ones<T>(), pair_of_ones<T>() };
#pragma unroll
    for (int n = 0; n < NUM; n += 2) {
        uint32_t b[4];
        ldmatrix_x4_trans(b, v + n * 8);
        mma_16816<T>(out[n], p, b);
        mma_16816<T>(out[n + 1], p, b + 2);
    }
    mma_16816<T>(sum, p, ones);
}

/* What a warp knows of its rows after some positions. Column c of a row's result is out[c / 8] of
 * the lane that an mma gives it to; NUM columns-of-8 are the warp's. */
template <int NUM> struct softmax_state {
    float max[2];
    float sum[4]; /* an mma's result whose columns are all the same */
    float out[NUM][4];
};

template <int NUM> __device__ __forceinline__ void clear(struct softmax_state<NUM> *s)
{
    s->max[0] = s->max[1] = -INFINITY;
#pragma unroll
    for (int i = 0; i < 4; i++)
        s->sum[i] = 0;
#pragma unroll
    for (int i = 0; i < NUM * 4; i++)
        s->out[i / 4][i % 4] = 0;
}

/* The state for a new maximum that is no less. */
template <int NUM>
__device__ __forceinline__ void raise_max(struct softmax_state<NUM> *s, const float max[2])
{
    float kept[2];
#pragma unroll
    for (int i = 0; i < 2; i++) {
        kept[i] = weight_of(s->max[i], max[i]);
        s->max[i] = max[i];
    }
#pragma unroll
    for (int i = 0; i < 4; i++)
        s->sum[i] = __fmul_rn(s->sum[i], kept[i / 2]);
#pragma unroll
    for (int i = 0; i < NUM * 4; i++)
        s->out[i / 4][i % 4] = __fmul_rn(s->out[i / 4][i % 4], kept[i / 2 % 2]);
}

/* How two spans' sums are put together: kept * total + taken * span. */
__device__ __forceinline__ float merge_sums(float total, float kept, float span, float taken)
{
    return __fmaf_rn(total, kept, __fmul_rn(span, taken));
}

/* A row's result from its sums; `sink` is an extra logit of the denominator. */
struct row_end {
    float factor, sum;
};
__device__ __forceinline__ struct row_end end_row(const struct attention_params &params,
                                                  int32_t head, float max, float sum)
{
    struct row_end e = { 1.0f, sum };
    if (params.sinks) {
        const float sink = params.sinks[head], greater = fmaxf(sink, max);
        e.factor = weight_of(max, greater);
        e.sum = __fmaf_rn(sum, e.factor, weight_of(sink, greater));
    }
    return e;
}
__device__ __forceinline__ float end_value(const struct row_end &e, float value)
{
    /* Adding 0 makes -0 a 0. */
    return __fadd_rn(__fmul_rn(value, e.factor) / e.sum, 0.0f);
}

#endif
