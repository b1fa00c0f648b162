/* attention_decode.cu - attention for sequences with few rows in a step: the context is cut into
 * spans of a fixed size, one block each, whose results a second kernel merges in rising order.
 *
 * The rows of a kv head's group fill one mma; those of a few drafts, or of a large group, some,
 * each a block's of its own, side by side, so that what one has loaded the others find in the
 * cache. The block's warps share a tile of the context: each scores 16 of its positions, and takes
 * a quarter of V's columns. Every number is what prefill computes. Tiles are loaded one ahead where
 * shared memory has room for two. */
#include "kernels/cuda/attention.cuh"

enum { DECODE_THREADS = ATTENTION_WARPS * WARP };

/* A (sequence, span)'s place in the partial results: per kv head and tile of rows [ROWS] greatest
 * scores, [ROWS] sums, [ROWS, head_dim] sums of values. */
struct partial {
    float *max, *sum, *out;
};

__host__ __device__ static inline int32_t num_spans(const struct cuda_attention &a)
{
    return (a.m.max_seq_len + SPAN - 1) / SPAN;
}

__host__ __device__ static inline int32_t num_row_tiles(const struct cuda_attention &a)
{
    return a.decode_rows / ROWS;
}

__device__ __forceinline__ struct partial partial_at(const struct cuda_attention &a, int32_t seq,
                                                     int32_t span, int32_t kv_head, int32_t tile)
{
    const int64_t pair = (int64_t)(seq - a.seq_begin) * num_spans(a) + span;
    const int64_t place = (pair * a.params.num_kv_heads + kv_head) * num_row_tiles(a) + tile;
    float *at = a.partials + place * ROWS * (a.params.head_dim + 2);
    return { at, at + ROWS, at + 2 * ROWS };
}

/* The sequence's rows per kv head; 0 where it is not this kernel's. */
__device__ __forceinline__ int32_t decode_rows(const struct cuda_attention &a, int32_t seq)
{
    const int32_t rows = (a.m.query_start_loc[seq + 1] - a.m.query_start_loc[seq]) * head_group(a);
    return rows <= a.decode_rows ? rows : 0;
}

/* The first position that a row of the sequence sees. */
__device__ __forceinline__ int32_t first_position(const struct cuda_attention &a, int32_t seq)
{
    const int32_t query_len = a.m.query_start_loc[seq + 1] - a.m.query_start_loc[seq];
    const int32_t lowest_end = a.m.seq_lens[seq] - query_len + 1, window = a.params.sliding_window;
    return window > 0 && lowest_end > window ? lowest_end - window : 0;
}

template <typename T, int DIM, int TILES> struct decode_shared {
    struct kv_tile<T, DIM> tiles[TILES];
    T weights[ROWS][TILE + PAD];
    float max[ATTENTION_WARPS][ROWS];
};

template <typename T, int DIM, int TILES>
__device__ __forceinline__ void attend_tile(struct softmax_state<DIM / 8 / ATTENTION_WARPS> *span,
                                            const uint32_t q[DIM / 16][4],
                                            struct decode_shared<T, DIM, TILES> *shared,
                                            const struct kv_tile<T, DIM> *tile,
                                            const struct cuda_attention &a,
                                            const struct row_pair &r, int32_t begin)
{
    const int32_t warp = threadIdx.x / WARP, lane = threadIdx.x % WARP, group = lane / 4;
    float s[2][4], max[2] = { span->max[0], span->max[1] };
    uint32_t p[4];
    score_pair<T, DIM>(s, q, tile, warp);
    finish_scores<1>(&s, a.params, r, begin + warp * 16);
    for (int i = 0; i < 2; i++) {
        float mine =
            fmaxf(fmaxf(s[0][i * 2], s[0][i * 2 + 1]), fmaxf(s[1][i * 2], s[1][i * 2 + 1]));
        mine = quad_max(mine);
        if (lane % 4 == 0)
            shared->max[warp][group + i * 8] = mine;
    }
    __syncthreads();
    for (int i = 0; i < 2; i++)
        for (int w = 0; w < ATTENTION_WARPS; w++)
            max[i] = fmaxf(max[i], shared->max[w][group + i * 8]);
    raise_max(span, max);
    weight_pair<T>(p, s, max);
    for (int i = 0; i < 4; i++)
        *(uint32_t *)&shared->weights[group + i % 2 * 8][warp * 16 + i / 2 * 8 + lane % 4 * 2] =
            p[i];
    __syncthreads();
    for (int pair = 0; pair < TILE / 16; pair++) {
        ldmatrix_x4(p, &shared->weights[lane / 8 % 2 * 8 + lane % 8][pair * 16 + lane / 16 * 8]);
        add_values<T, DIM, DIM / 8 / ATTENTION_WARPS>(span->out, span->sum, p, tile, pair,
                                                      warp * (DIM / ATTENTION_WARPS));
    }
}

template <typename E, int DIM, int TILES>
__global__ void __launch_bounds__(DECODE_THREADS) decode_kernel(struct cuda_attention a)
{
    DYNAMIC_SHARED(memory);
    typedef typename kv_element<E>::T T;
    struct decode_shared<T, DIM, TILES> *shared = (struct decode_shared<T, DIM, TILES> *)memory;
    enum { NUM = DIM / 8 / ATTENTION_WARPS };
    const int32_t kv_head = blockIdx.y, seq = a.seq_begin + blockIdx.z;
    const int32_t num_tiles = num_row_tiles(a);
    const int32_t span_index = blockIdx.x / num_tiles, row_tile = blockIdx.x % num_tiles;
    if (row_tile * ROWS >= decode_rows(a, seq))
        return;
    const int32_t span_begin = span_index * SPAN, seq_len = a.m.seq_lens[seq];
    const int32_t from = first_position(a, seq);
    const int32_t begin = (from > span_begin ? from : span_begin) / TILE * TILE;
    const int32_t to = seq_len < span_begin + SPAN ? seq_len : span_begin + SPAN;
    if (begin >= to)
        return;
    const struct row_pair r = find_rows(a, seq, kv_head, row_tile * ROWS);
    const struct context c = context_of(a, seq, kv_head, from, to);
    uint32_t q[DIM / 16][4];
    struct softmax_state<NUM> span;
    load_q<T, DIM>(q, a, r);
    clear(&span);
    if (TILES > 1)
        load_tile<E, DIM, DECODE_THREADS, TILE_K | TILE_V>(&shared->tiles[begin / TILE % TILES],
                                                           a.kv, c, begin);
    cp_async_commit();
    for (int32_t at = begin; at < to; at += TILE) {
        const int32_t ahead = at + (TILES - 1) * TILE;
        if (ahead < to)
            load_tile<E, DIM, DECODE_THREADS, TILE_K | TILE_V>(&shared->tiles[ahead / TILE % TILES],
                                                               a.kv, c, ahead);
        cp_async_commit();
        cp_async_wait<TILES - 1>();
        __syncthreads();
        attend_tile<T, DIM>(&span, q, shared, &shared->tiles[at / TILE % TILES], a, r, at);
        __syncthreads();
    }
    const struct partial out = partial_at(a, seq, span_index, kv_head, row_tile);
    const int32_t warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    for (int i = 0; i < 2; i++) {
        const int32_t row = lane / 4 + i * 8;
        if (warp == 0 && lane % 4 == 0) {
            out.max[row] = span.max[i];
            out.sum[row] = span.sum[i * 2];
        }
#pragma unroll
        for (int n = 0; n < NUM; n++) {
            const int32_t col = warp * (DIM / ATTENTION_WARPS) + n * 8 + lane % 4 * 2;
            if (col < a.params.head_dim) {
                out.out[row * a.params.head_dim + col] = span.out[n][i * 2];
                out.out[row * a.params.head_dim + col + 1] = span.out[n][i * 2 + 1];
            }
        }
    }
}

/* One warp per row and head. */
__global__ void merge_kernel(struct cuda_attention a)
{
    const int32_t seq = a.seq_begin + blockIdx.y, head = blockIdx.x;
    const int32_t group = head_group(a), kv_head = head / group;
    if (decode_rows(a, seq) == 0)
        return;
    const int32_t query_begin = a.m.query_start_loc[seq];
    const int32_t query_len = a.m.query_start_loc[seq + 1] - query_begin;
    const int32_t seq_len = a.m.seq_lens[seq], dim = a.params.head_dim;
    const int32_t first_span = first_position(a, seq) / SPAN;
    for (int32_t query = threadIdx.x / WARP; query < query_len; query += blockDim.x / WARP) {
        const int32_t seq_row = query * group + head % group;
        const int32_t tile = seq_row / ROWS, row = seq_row % ROWS;
        for (int32_t col = threadIdx.x % WARP; col < dim; col += WARP) {
            float max = -INFINITY, sum = 0, out = 0;
            for (int32_t span = first_span; span * SPAN < seq_len; span++) {
                const struct partial p = partial_at(a, seq, span, kv_head, tile);
                const float greater = fmaxf(max, p.max[row]);
                const float kept = weight_of(max, greater), taken = weight_of(p.max[row], greater);
                sum = merge_sums(sum, kept, p.sum[row], taken);
                out = merge_sums(out, kept, p.out[row * dim + col], taken);
                max = greater;
            }
            float *dst = (float *)a.out.data + (int64_t)(query_begin + query) * a.out.stride;
            dst[head * dim + col] = end_value(end_row(a.params, head, max, sum), out);
        }
    }
}

template <typename E, int DIM, int TILES>
static void launch(const struct cuda_attention *a, cudaStream_t stream)
{
    auto *kernel = decode_kernel<E, DIM, TILES>;
    const int32_t bytes = sizeof(struct decode_shared<typename kv_element<E>::T, DIM, TILES>);
    const int32_t num_seqs = a->seq_end - a->seq_begin;
    const dim3 grid(num_spans(*a) * num_row_tiles(*a), a->params.num_kv_heads, num_seqs);
    if (num_seqs <= 0 || a->m.max_seq_len <= 0 || a->decode_rows == 0 ||
        cudaFuncSetAttribute((const void *)kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                             bytes) != cudaSuccess)
        return;
    CUDA_LAUNCH(kernel, grid, dim3(DECODE_THREADS), bytes, stream, *a);
    CUDA_LAUNCH(merge_kernel, dim3(a->params.num_heads, num_seqs), dim3(4 * WARP), 0, stream, *a);
}

template <typename E> static void launch_any(const struct cuda_attention *a, cudaStream_t stream)
{
    if (a->params.head_dim <= 64)
        launch<E, 64, 2>(a, stream);
    else if (a->params.head_dim <= 128)
        launch<E, 128, 2>(a, stream);
    else if (sizeof(struct decode_shared<typename kv_element<E>::T, 256, 2>) <=
             (size_t)a->max_shared_bytes)
        launch<E, 256, 2>(a, stream);
    else
        launch<E, 256, 1>(a, stream);
}

extern "C" void cuda_launch_attention_decode(const struct cuda_attention *a, cudaStream_t stream)
{
    if (a->kv.dtype == DTYPE_BF16)
        launch_any<bf16>(a, stream);
    else if (a->kv.dtype == DTYPE_F16)
        launch_any<f16>(a, stream);
    else
        launch_any<kv_byte>(a, stream);
}
