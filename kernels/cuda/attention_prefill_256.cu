/* attention_prefill_256.cu - the prefill kernel for head sizes up to 256. A row's sums fill half of
 * the registers, so that queries stay in shared memory, and what the spans before have given waits
 * in `out`. K of the next tile is loaded while weights meet V, and V while queries meet K. */
#include "kernels/cuda/attention_prefill.cuh"

enum { WIDE_DIM = 256 };

template <typename T, int WARPS> struct wide_shared {
    struct kv_tile<T, WIDE_DIM> tile;
    T q[WARPS * ROWS][WIDE_DIM + PAD];
};

/* The warp's queries to its part of shared memory, as ldmatrix takes them: behind the barrier at
 * which the first keys are there. */
template <typename T>
__device__ __forceinline__ void store_queries(T (*q)[WIDE_DIM + PAD],
                                              const struct cuda_attention &a,
                                              const struct row_pair &r)
{
    const int32_t group = threadIdx.x % WARP / 4, column = threadIdx.x % 4 * 2;
    uint32_t pairs[WIDE_DIM / 16][4];
    load_q<T, WIDE_DIM>(pairs, a, r);
#pragma unroll
    for (int j = 0; j < WIDE_DIM / 16; j++)
#pragma unroll
        for (int i = 0; i < 4; i++)
            *(uint32_t *)&q[group + i % 2 * 8][j * 16 + i / 2 * 8 + column] = pairs[j][i];
}

/* The products of the warp's queries with a tile of keys, each in the order of score_pair. */
template <typename T>
__device__ __forceinline__ void score_tile(float s[TILE / 16][2][4], const T (*q)[WIDE_DIM + PAD],
                                           const T (*k)[WIDE_DIM + PAD])
{
    const int32_t lane = threadIdx.x % WARP;
    const T *q_at = &q[lane / 8 % 2 * 8 + lane % 8][lane / 16 * 8];
    const T *k_at = &k[lane / 16 * 8 + lane % 8][lane / 8 % 2 * 8];
#pragma unroll
    for (int n = 0; n < TILE / 2; n++)
        (&s[0][0][0])[n] = 0;
#pragma unroll 4
    for (int j = 0; j < WIDE_DIM / 16; j++) {
        uint32_t left[4];
        ldmatrix_x4(left, q_at + j * 16);
#pragma unroll
        for (int pair = 0; pair < TILE / 16; pair++) {
            uint32_t b[4];
            ldmatrix_x4(b, k_at + pair * 16 * (WIDE_DIM + PAD) + j * 16);
            mma_16816<T>(s[pair][0], left, b);
            mma_16816<T>(s[pair][1], left, b + 2);
        }
    }
}

template <typename E, int WARPS>
__global__ void __launch_bounds__(WARPS *WARP, 1) prefill_wide_kernel(struct cuda_attention a)
{
    DYNAMIC_SHARED(memory);
    typedef typename kv_element<E>::T T;
    struct wide_shared<T, WARPS> *shared = (struct wide_shared<T, WARPS> *)memory;
    const int32_t kv_head = blockIdx.y, row = (int32_t)threadIdx.x / WARP * ROWS;
    const struct block_rows b = find_row_tile<WARPS * ROWS>(a, blockIdx.x);
    if (b.first >= b.last)
        return;
    const struct row_pair r = find_rows(a, b.seq, kv_head, b.first + row);
    const struct context c = context_of(a, b.seq, kv_head, b.from, b.to);
    const int32_t begin = b.from / TILE * TILE, first_span_end = (begin / SPAN + 1) * SPAN;
    float before_max[2] = { -INFINITY, -INFINITY }, before_sum[2] = { 0, 0 };
    struct softmax_state<WIDE_DIM / 8> span;
    clear(&span);
    load_tile<E, WIDE_DIM, WARPS * WARP, TILE_K>(&shared->tile, a.kv, c, begin);
    cp_async_commit();
    store_queries<T>(shared->q + row, a, r);
    for (int32_t at = begin; at < b.to; at += TILE) {
        const int32_t next = at + TILE;
        float s[TILE / 16][2][4], max[2];
        cp_async_wait<0>();
        __syncthreads(); /* K is there, and nobody reads V */
        load_tile<E, WIDE_DIM, WARPS * WARP, TILE_V>(&shared->tile, a.kv, c, at);
        cp_async_commit();
        score_tile<T>(s, shared->q + row, shared->tile.k);
        finish_scores<TILE / 16>(s, a.params, r, at);
        greatest_scores(max, s, span);
        raise_max(&span, max);
        cp_async_wait<0>();
        __syncthreads(); /* V is there, and nobody reads K */
        if (next < b.to)
            load_tile<E, WIDE_DIM, WARPS * WARP, TILE_K>(&shared->tile, a.kv, c, next);
        cp_async_commit();
#pragma unroll
        for (int pair = 0; pair < TILE / 16; pair++) {
            uint32_t p[4];
            weight_pair<T>(p, s[pair], max);
            add_values<T, WIDE_DIM, WIDE_DIM / 8>(span.out, span.sum, p, &shared->tile, pair, 0);
        }
        if (next % SPAN == 0 || next >= b.to) {
            const struct out_place place = { a.params.head_dim, (int32_t)threadIdx.x % 4 * 2,
                                             next <= first_span_end, next >= b.to };
            merge_into_out(before_max, before_sum, span, a, r, place);
            clear(&span);
        }
    }
}

template <typename E, int WARPS>
static void launch_wide(const struct cuda_attention *a, cudaStream_t stream)
{
    launch_prefill_blocks(prefill_wide_kernel<E, WARPS>, WARPS,
                          sizeof(struct wide_shared<typename kv_element<E>::T, WARPS>), a, stream);
}

/* 8 warps take 132 KiB, 4 warps 99 KiB, which all GPUs have. */
template <typename E> static void launch_widest(const struct cuda_attention *a, cudaStream_t stream)
{
    if (sizeof(struct wide_shared<typename kv_element<E>::T, 8>) <= (size_t)a->max_shared_bytes)
        launch_wide<E, 8>(a, stream);
    else
        launch_wide<E, 4>(a, stream);
}

void cuda_prefill_256(const struct cuda_attention *a, cudaStream_t stream)
{
    if (a->kv.dtype == DTYPE_BF16)
        launch_widest<bf16>(a, stream);
    else if (a->kv.dtype == DTYPE_F16)
        launch_widest<f16>(a, stream);
    else
        launch_widest<kv_byte>(a, stream);
}
