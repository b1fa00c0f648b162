/* attention_prefill.cuh - attention for sequences with many rows in a step: a block takes 64 rows
 * of one kv head and walks their context, tile after tile, one load ahead where shared memory has
 * room for two. Instantiated per dtype and head size in attention_prefill_*.cu. */
#ifndef INFERD_KERNELS_CUDA_ATTENTION_PREFILL_CUH
#define INFERD_KERNELS_CUDA_ATTENTION_PREFILL_CUH

#include "kernels/cuda/attention.cuh"

enum { PREFILL_ROWS = ATTENTION_WARPS * ROWS, PREFILL_THREADS = ATTENTION_WARPS * WARP };

/* One tile into the warp's span. */
template <typename T, int DIM>
__device__ __forceinline__ void attend_tile(struct softmax_state<DIM / 8> *span,
                                            const uint32_t q[DIM / 16][4],
                                            const struct kv_tile<T, DIM> *tile,
                                            const struct cuda_attention &a,
                                            const struct row_pair &r, int32_t begin)
{
    float s[TILE / 16][2][4], max[2] = { span->max[0], span->max[1] };
#pragma unroll
    for (int pair = 0; pair < TILE / 16; pair++) {
        score_pair<T, DIM>(s[pair], q, tile, pair);
        finish_scores(s[pair], a.params, r, begin + pair * 16);
#pragma unroll
        for (int i = 0; i < 8; i++)
            max[i / 2 % 2] = fmaxf(max[i / 2 % 2], s[pair][i / 4][i % 4]);
    }
    for (int i = 0; i < 2; i++)
        max[i] = quad_max(max[i]);
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

/* blockIdx.x counts the tiles of rows of all sequences: those of sequence s begin at
 * query_start_loc[s] * group / PREFILL_ROWS + s, which leaves room for all of each, and a few
 * numbers that belong to none. */
template <typename E, int DIM, int TILES>
__global__ void __launch_bounds__(PREFILL_THREADS, 1) prefill_kernel(struct cuda_attention a)
{
    DYNAMIC_SHARED(shared);
    typedef typename kv_element<E>::T T;
    struct kv_tile<T, DIM> *tiles = (struct kv_tile<T, DIM> *)shared;
    const int32_t kv_head = blockIdx.y, group = a.params.num_heads / a.params.num_kv_heads;
    const int32_t *starts = a.m.query_start_loc;
    int32_t seq = 0;
    for (int32_t low = 0, high = a.m.num_seqs - 1; low <= high;) {
        const int32_t middle = (low + high) / 2;
        if ((int64_t)starts[middle] * group / PREFILL_ROWS + middle <= (int64_t)blockIdx.x) {
            seq = middle;
            low = middle + 1;
        } else {
            high = middle - 1;
        }
    }
    const int32_t num_rows = (starts[seq + 1] - starts[seq]) * group;
    const int32_t first =
        (int32_t)(blockIdx.x - ((int64_t)starts[seq] * group / PREFILL_ROWS + seq)) * PREFILL_ROWS;
    if (first >= num_rows || num_rows <= ROWS)
        return; /* no sequence's, or the decode kernel's */
    const int32_t last = first + PREFILL_ROWS < num_rows ? first + PREFILL_ROWS : num_rows;
    const struct row_pair r =
        find_rows(a, seq, kv_head, first + (int32_t)threadIdx.x / WARP * ROWS);
    /* What any row of the block sees. */
    const int32_t computed = a.m.seq_lens[seq] - num_rows / group;
    const int32_t to = computed + (last - 1) / group + 1, lowest = computed + first / group + 1;
    const int32_t window = a.params.sliding_window;
    const int32_t from = window > 0 && lowest > window ? lowest - window : 0;
    const int32_t *table = a.m.block_tables + (int64_t)seq * a.m.block_table_stride;
    uint32_t q[DIM / 16][4];
    struct softmax_state<DIM / 8> total, span;
    load_q<T, DIM>(q, a, r);
    clear(&total);
    clear(&span);
    const int32_t begin = from / TILE * TILE;
    if (TILES > 1)
        load_tile<E, DIM, PREFILL_THREADS>(&tiles[begin / TILE % TILES], a.kv, table, kv_head,
                                           begin, from, to);
    cp_async_commit();
    for (int32_t at = begin; at < to; at += TILE) {
        const int32_t ahead = at + (TILES - 1) * TILE;
        if (ahead < to)
            load_tile<E, DIM, PREFILL_THREADS>(&tiles[ahead / TILE % TILES], a.kv, table, kv_head,
                                               ahead, from, to);
        cp_async_commit();
        cp_async_wait<TILES - 1>();
        __syncthreads();
        attend_tile<T, DIM>(&span, q, &tiles[at / TILE % TILES], a, r, at);
        if ((at + TILE) % SPAN == 0 || at + TILE >= to) {
            merge_span(&total, &span);
            clear(&span);
        }
        __syncthreads(); /* nobody reads the tile that is loaded into next */
    }
    store_rows<DIM>(&total, a, r);
}

template <typename E, int DIM, int TILES>
static void launch_prefill(const struct cuda_attention *a, cudaStream_t stream)
{
    auto *kernel = prefill_kernel<E, DIM, TILES>;
    const int32_t bytes = TILES * sizeof(struct kv_tile<typename kv_element<E>::T, DIM>);
    const int64_t rows = (int64_t)a->m.num_tokens * (a->params.num_heads / a->params.num_kv_heads);
    const dim3 grid((uint32_t)(rows / PREFILL_ROWS + a->m.num_seqs), a->params.num_kv_heads);
    if (a->m.num_seqs > 0 &&
        cudaFuncSetAttribute((const void *)kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                             bytes) == cudaSuccess)
        CUDA_LAUNCH(kernel, grid, dim3(PREFILL_THREADS), bytes, stream, *a);
}

/* Two tiles of up to 128 columns fit the shared memory of every GPU. */
template <typename E, int DIM>
static void launch_prefill_any(const struct cuda_attention *a, cudaStream_t stream)
{
    const size_t bytes = 2 * sizeof(struct kv_tile<typename kv_element<E>::T, DIM>);
    if constexpr (DIM > 128) {
        if (bytes > (size_t)a->max_shared_bytes) {
            launch_prefill<E, DIM, 1>(a, stream);
            return;
        }
    }
    launch_prefill<E, DIM, 2>(a, stream);
}

/* Head sizes are padded to the next that is instantiated. */
void cuda_prefill_64(const struct cuda_attention *a, cudaStream_t stream);
void cuda_prefill_128(const struct cuda_attention *a, cudaStream_t stream);
void cuda_prefill_256(const struct cuda_attention *a, cudaStream_t stream);

#define INSTANTIATE_PREFILL(dim)                                                                   \
    void cuda_prefill_##dim(const struct cuda_attention *a, cudaStream_t stream)                   \
    {                                                                                              \
        if (a->kv.dtype == DTYPE_BF16)                                                             \
            launch_prefill_any<bf16, dim>(a, stream);                                              \
        else if (a->kv.dtype == DTYPE_F16)                                                         \
            launch_prefill_any<f16, dim>(a, stream);                                               \
        else                                                                                       \
            launch_prefill_any<kv_byte, dim>(a, stream);                                           \
    }

#endif
