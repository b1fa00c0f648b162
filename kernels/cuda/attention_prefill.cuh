/* attention_prefill.cuh - attention for sequences with many rows in a step: a block takes 64 rows
 * of one kv head and walks their context, tile after tile, one load ahead. Instantiated per dtype
 * and head size in attention_prefill_*.cu; attention_prefill_256.cu has a kernel of its own. */
#ifndef INFERD_KERNELS_CUDA_ATTENTION_PREFILL_CUH
#define INFERD_KERNELS_CUDA_ATTENTION_PREFILL_CUH

#include "kernels/cuda/attention.cuh"

enum {
    PREFILL_ROWS = ATTENTION_WARPS * ROWS,
    PREFILL_THREADS = ATTENTION_WARPS * WARP,
    PREFILL_TILES = 2 /* of up to 128 columns: they fit the shared memory of every GPU */
};

/* The rows' greatest scores so far, of the span and of a tile. */
template <int NUM>
__device__ __forceinline__ void greatest_scores(float max[2], const float s[TILE / 16][2][4],
                                                const struct softmax_state<NUM> &span)
{
#pragma unroll
    for (int i = 0; i < 2; i++) {
        max[i] = span.max[i];
#pragma unroll
        for (int n = 0; n < TILE / 8; n++)
            max[i] = fmaxf(max[i], fmaxf(s[n / 2][n % 2][i * 2], s[n / 2][n % 2][i * 2 + 1]));
        max[i] = quad_max(max[i]);
    }
}

/* One tile into the warp's span. */
template <typename T, int DIM>
__device__ __forceinline__ void attend_tile(struct softmax_state<DIM / 8> *span,
                                            const uint32_t q[DIM / 16][4],
                                            const struct kv_tile<T, DIM> *tile,
                                            const struct cuda_attention &a,
                                            const struct row_pair &r, int32_t begin)
{
    float s[TILE / 16][2][4], max[2];
#pragma unroll
    for (int pair = 0; pair < TILE / 16; pair++)
        score_pair<T, DIM>(s[pair], q, tile, pair);
    finish_scores<TILE / 16>(s, a.params, r, begin);
    greatest_scores(max, s, *span);
    raise_max(span, max);
#pragma unroll
    for (int pair = 0; pair < TILE / 16; pair++) {
        uint32_t p[4];
        weight_pair<T>(p, s[pair], max);
        add_values<T, DIM, DIM / 8>(span->out, span->sum, p, tile, pair, 0);
    }
}

template <int NUM>
__device__ __forceinline__ void merge_span(struct softmax_state<NUM> *total,
                                           const struct softmax_state<NUM> *span)
{
    float kept[2], taken[2];
    for (int i = 0; i < 2; i++) {
        const float max = fmaxf(total->max[i], span->max[i]);
        kept[i] = weight_of(total->max[i], max);
        taken[i] = weight_of(span->max[i], max);
        total->max[i] = max;
    }
    for (int i = 0; i < 4; i++)
        total->sum[i] = merge_sums(total->sum[i], kept[i / 2], span->sum[i], taken[i / 2]);
#pragma unroll
    for (int i = 0; i < NUM * 4; i++)
        total->out[i / 4][i % 4] = merge_sums(total->out[i / 4][i % 4], kept[i / 2 % 2],
                                              span->out[i / 4][i % 4], taken[i / 2 % 2]);
}

template <int DIM>
__device__ __forceinline__ void store_rows(const struct softmax_state<DIM / 8> *total,
                                           const struct cuda_attention &a, const struct row_pair &r)
{
    for (int i = 0; i < 2; i++) {
        if (r.end[i] == 0)
            continue;
        const struct row_end e = end_row(a.params, r.head[i], total->max[i], total->sum[i * 2]);
        float *out = (float *)a.out.data + r.query[i] * a.out.stride +
                     (int64_t)r.head[i] * a.params.head_dim;
#pragma unroll
        for (int n = 0; n < DIM / 8; n++)
            for (int j = 0; j < 2; j++)
                if (n * 8 < a.params.head_dim)
                    out[n * 8 + threadIdx.x % 4 * 2 + j] = end_value(e, total->out[n][i * 2 + j]);
    }
}

template <typename E, int DIM>
__global__ void __launch_bounds__(PREFILL_THREADS, 1) prefill_kernel(struct cuda_attention a)
{
    DYNAMIC_SHARED(shared);
    typedef typename kv_element<E>::T T;
    struct kv_tile<T, DIM> *tiles = (struct kv_tile<T, DIM> *)shared;
    const int32_t kv_head = blockIdx.y;
    const struct block_rows b = find_row_tile<PREFILL_ROWS>(a, blockIdx.x);
    if (b.first >= b.last)
        return;
    const struct row_pair r =
        find_rows(a, b.seq, kv_head, b.first + (int32_t)threadIdx.x / WARP * ROWS);
    const struct context c = context_of(a, b.seq, kv_head, b.from, b.to);
    uint32_t q[DIM / 16][4];
    struct softmax_state<DIM / 8> total, span;
    load_q<T, DIM>(q, a, r);
    clear(&total);
    clear(&span);
    const int32_t begin = b.from / TILE * TILE;
    load_tile<E, DIM, PREFILL_THREADS, TILE_K | TILE_V>(&tiles[begin / TILE % PREFILL_TILES], a.kv,
                                                        c, begin);
    cp_async_commit();
    for (int32_t at = begin; at < b.to; at += TILE) {
        const int32_t ahead = at + (PREFILL_TILES - 1) * TILE;
        if (ahead < b.to)
            load_tile<E, DIM, PREFILL_THREADS, TILE_K | TILE_V>(
                &tiles[ahead / TILE % PREFILL_TILES], a.kv, c, ahead);
        cp_async_commit();
        cp_async_wait<PREFILL_TILES - 1>();
        __syncthreads();
        attend_tile<T, DIM>(&span, q, &tiles[at / TILE % PREFILL_TILES], a, r, at);
        if ((at + TILE) % SPAN == 0 || at + TILE >= b.to) {
            merge_span(&total, &span);
            clear(&span);
        }
        __syncthreads(); /* nobody reads the tile that is loaded into next */
    }
    store_rows<DIM>(&total, a, r);
}

/* A kernel of `warps` times ROWS rows a block. */
static inline void launch_prefill_blocks(void (*kernel)(struct cuda_attention), int32_t warps,
                                         size_t shared_bytes, const struct cuda_attention *a,
                                         cudaStream_t stream)
{
    const int64_t rows = (int64_t)a->m.num_tokens * (a->params.num_heads / a->params.num_kv_heads);
    const dim3 grid((uint32_t)(rows / (warps * ROWS) + a->m.num_seqs), a->params.num_kv_heads);
    if (a->m.num_seqs > 0 &&
        cudaFuncSetAttribute((const void *)kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                             (int)shared_bytes) == cudaSuccess)
        CUDA_LAUNCH(kernel, grid, dim3(warps * WARP), shared_bytes, stream, *a);
}

template <typename E, int DIM>
static void launch_prefill(const struct cuda_attention *a, cudaStream_t stream)
{
    launch_prefill_blocks(prefill_kernel<E, DIM>, ATTENTION_WARPS,
                          PREFILL_TILES * sizeof(struct kv_tile<typename kv_element<E>::T, DIM>), a,
                          stream);
}

/* Head sizes are padded to the next that is instantiated. */
void cuda_prefill_64(const struct cuda_attention *a, cudaStream_t stream);
void cuda_prefill_128(const struct cuda_attention *a, cudaStream_t stream);
void cuda_prefill_256(const struct cuda_attention *a, cudaStream_t stream);

#define INSTANTIATE_PREFILL(dim)                                                                   \
    void cuda_prefill_##dim(const struct cuda_attention *a, cudaStream_t stream)                   \
    {                                                                                              \
        if (a->kv.dtype == DTYPE_BF16)                                                             \
            launch_prefill<bf16, dim>(a, stream);                                                  \
        else if (a->kv.dtype == DTYPE_F16)                                                         \
            launch_prefill<f16, dim>(a, stream);                                                   \
        else                                                                                       \
            launch_prefill<kv_byte, dim>(a, stream);                                               \
    }

#endif
