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

/* 2^(x - max), scores being in units of log2(e); 0 where x is -inf, whatever max is. */
__device__ __forceinline__ float weight_of(float x, float max)
{
    return exp2_approx(__fsub_rn(x, max == -INFINITY ? 0.0f : max));
}

/* K and V of one tile. */
template <typename T, int DIM> struct kv_tile {
    enum { STRIDE = DIM + PAD };
    T k[TILE][STRIDE], v[TILE][STRIDE];
};

/* A sequence's context as a block reads it: a kv head's positions [from, to). */
struct context {
    const int32_t *block_table;
    int32_t kv_head, from, to;
};
__device__ __forceinline__ struct context context_of(const struct cuda_attention &a, int32_t seq,
                                                     int32_t kv_head, int32_t from, int32_t to)
{
    return { a.m.block_tables + (int64_t)seq * a.m.block_table_stride, kv_head, from, to };
}

/* Positions [begin, begin + TILE) of K, V or both of a context; those outside of it and columns
 * past head_dim become zero, and what lies in their place is not read. Elements of 16 bits go past
 * the registers, those of 8 are widened there. */
enum tile_parts { TILE_K = 1, TILE_V = 2 };

template <typename E, int DIM, int THREADS, int PARTS>
__device__ __forceinline__ void load_tile(struct kv_tile<typename kv_element<E>::T, DIM> *tile,
                                          const struct cuda_kv &kv, const struct context &c,
                                          int32_t begin)
{
    enum { PIECE = 8, PIECES = DIM / PIECE, ROWS_AT_ONCE = THREADS / PIECES };
    const int32_t first = (int32_t)(threadIdx.x / PIECES);
    const int32_t col = (int32_t)(threadIdx.x % PIECES) * PIECE;
#pragma unroll 4
    for (int n = 0; n < TILE / ROWS_AT_ONCE; n++) {
        const int32_t row = first + n * ROWS_AT_ONCE, position = begin + row;
        const bool valid = position >= c.from && position < c.to && col < kv.head_dim;
        const int32_t place = valid ? kv_block_of(kv, position) : 0;
        const int32_t block = valid ? c.block_table[place] : 0;
        const int32_t offset = valid ? position - place * kv.block_size : 0;
        for (int part = TILE_K; part <= TILE_V; part++) {
            if (!(PARTS & part))
                continue;
            void *const base = part == TILE_K ? kv.k : kv.v;
            void *const to = part == TILE_K ? &tile->k[row][col] : &tile->v[row][col];
            if constexpr (kv_element<E>::BYTES != 0)
                *(uint4 *)to =
                    valid ? kv_eight(kv, kv_vector_at<E>(kv, base, block, c.kv_head, offset), col)
                          : make_uint4(0, 0, 0, 0);
            else
                cp_async_16(to,
                            kv_data_at<E>(kv, base, block, c.kv_head, offset) + (valid ? col : 0),
                            valid);
        }
    }
}

/* A block's rows [first, last) of a sequence (row i is head i % group of query i / group), and the
 * positions that any of them sees. */
struct block_rows {
    int32_t seq, first, last;
    int32_t from, to;
};
__device__ __forceinline__ int32_t head_group(const struct cuda_attention &a)
{
    return a.params.num_heads / a.params.num_kv_heads;
}
__device__ __forceinline__ struct block_rows find_block_rows(const struct cuda_attention &a,
                                                             int32_t seq, int32_t first,
                                                             int32_t count)
{
    struct block_rows b = { seq, first, first + count, 0, 0 };
    const int32_t group = head_group(a), window = a.params.sliding_window;
    const int32_t query_len = a.m.query_start_loc[seq + 1] - a.m.query_start_loc[seq];
    const int32_t computed = a.m.seq_lens[seq] - query_len;
    b.last = b.last < query_len * group ? b.last : query_len * group;
    const int32_t lowest = computed + first / group + 1;
    b.from = window > 0 && lowest > window ? lowest - window : 0;
    b.to = computed + (b.last - 1) / group + 1;
    return b;
}

/* Prefill: the rows of block `tile`, ROWS_AT_ONCE of them; none (first == last) where there are
 * none, or where they are decode's, which takes sequences of up to a.decode_rows. The tiles
 * of sequence s begin at query_start_loc[s] * group / ROWS_AT_ONCE + s, which leaves room for all
 * of each, and a few numbers that belong to none. */
template <int ROWS_AT_ONCE>
__device__ __forceinline__ struct block_rows find_row_tile(const struct cuda_attention &a,
                                                           int32_t tile)
{
    const int32_t group = head_group(a), *starts = a.m.query_start_loc;
    int32_t seq = 0;
    for (int32_t low = 0, high = a.m.num_seqs - 1; low <= high;) {
        const int32_t middle = (low + high) / 2;
        if ((int64_t)starts[middle] * group / ROWS_AT_ONCE + middle <= (int64_t)tile) {
            seq = middle;
            low = middle + 1;
        } else {
            high = middle - 1;
        }
    }
    const int32_t num_rows = (starts[seq + 1] - starts[seq]) * group;
    const int32_t first =
        (int32_t)(tile - ((int64_t)starts[seq] * group / ROWS_AT_ONCE + seq)) * ROWS_AT_ONCE;
    if (first >= num_rows || num_rows <= a.decode_rows)
        return { seq, 0, 0, 0, 0 };
    return find_block_rows(a, seq, first, ROWS_AT_ONCE);
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
    const int32_t group = head_group(a);
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

/* A score in units of log2(e), from the product of query and key: what softmax makes of it is a
 * power of 2 then, and scaling costs nothing more. */
__device__ __forceinline__ float score_of(float product, const struct attention_params &params)
{
    const float cap = params.logit_softcap;
    if (cap > 0)
        return __fmul_rn(__fmul_rn(cap, LOG2_E), tanhf(__fmul_rn(product, params.scale / cap)));
    return __fmul_rn(product, __fmul_rn(params.scale, LOG2_E));
}

/* The scores of NUM times 16 positions from `position` on; those that a row does not see become
 * -inf. Tiles that all rows of the warp see whole, most of a prompt's, are not looked through. */
template <int NUM>
__device__ __forceinline__ void finish_scores(float s[NUM][2][4],
                                              const struct attention_params &params,
                                              const struct row_pair &r, int32_t position)
{
    if (params.logit_softcap > 0) { /* once, not for each score */
#pragma unroll
        for (int n = 0; n < NUM * 8; n++)
            (&s[0][0][0])[n] = score_of((&s[0][0][0])[n], params);
    } else {
#pragma unroll
        for (int n = 0; n < NUM * 8; n++)
            (&s[0][0][0])[n] = score_of((&s[0][0][0])[n], params);
    }
    const bool whole = position >= r.begin[0] && position >= r.begin[1] &&
                       position + NUM * 16 <= r.end[0] && position + NUM * 16 <= r.end[1];
    if (__ballot_sync(FULL_WARP, whole) == FULL_WARP)
        return;
#pragma unroll
    for (int n = 0; n < NUM * 2; n++) {
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const int32_t at = position + n * 8 + (int32_t)threadIdx.x % 4 * 2 + i % 2;
            if (at < r.begin[i / 2] || at >= r.end[i / 2])
                s[n / 2][n % 2][i] = -INFINITY;
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
        p[i] = pack_pair<T, nearest_element>(weight_of(s[i / 2][i % 2 * 2], max[i % 2]),
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
        const float sink = __fmul_rn(params.sinks[head], LOG2_E), greater = fmaxf(sink, max);
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

/* Where the lane's first column goes: in `dim` columns of `out`, `column`. is_first: no span came
 * before; is_last: what is written is the result. */
struct out_place {
    int32_t dim, column;
    bool is_first, is_last;
};

/* Adds a span to the rows' sums where registers hold one set of sums only: those of the spans
 * before wait in `out`. */
template <int NUM>
__device__ __forceinline__ void merge_into_out(float max[2], float sum[2],
                                               const struct softmax_state<NUM> &span,
                                               const struct cuda_attention &a,
                                               const struct row_pair &r, const struct out_place &at)
{
    /* All loops are unrolled, so that the span's sums stay in registers. */
#pragma unroll
    for (int i = 0; i < 2; i++) {
        const float greater = fmaxf(max[i], span.max[i]);
        const float kept = weight_of(max[i], greater), taken = weight_of(span.max[i], greater);
        sum[i] = merge_sums(sum[i], kept, span.sum[i * 2], taken);
        max[i] = greater;
        const struct row_end e = end_row(a.params, r.head[i], max[i], sum[i]);
        float *out = (float *)a.out.data + r.query[i] * a.out.stride + (int64_t)r.head[i] * at.dim +
                     at.column;
        const int32_t cols = r.end[i] == 0 ? 0 : at.dim - at.column;
#pragma unroll
        for (int n = 0; n < NUM; n++) {
            if (n * 8 >= cols)
                continue;
#pragma unroll
            for (int j = 0; j < 2; j++) {
                const float before = at.is_first ? 0.0f : out[n * 8 + j];
                const float total = merge_sums(before, kept, span.out[n][i * 2 + j], taken);
                out[n * 8 + j] = at.is_last ? end_value(e, total) : total;
            }
        }
    }
}

#endif
