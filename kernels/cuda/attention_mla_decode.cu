/* attention_mla_decode.cu - latent attention for sequences whose rows in a step are few: a block
 * per span, whose results a second kernel merges in rising order. */
#include "kernels/cuda/attention_mla.cuh"

/* A (sequence, span)'s place in the partial results: [rows] greatest scores, [rows] sums, [rows,
 * value_head_dim] sums of values. */
struct mla_partial {
    float *max, *sum, *out;
};

__host__ __device__ static inline int32_t num_spans(const struct cuda_attention &a)
{
    return (a.m.max_seq_len + SPAN - 1) / SPAN;
}

__device__ __forceinline__ struct mla_partial mla_partial_at(const struct cuda_attention &a,
                                                             int32_t seq, int32_t span)
{
    const int64_t rows = a.decode_rows;
    const int64_t place = (int64_t)(seq - a.seq_begin) * num_spans(a) + span;
    float *at = a.partials + place * rows * (a.params.value_head_dim + 2);
    return { at, at + rows, at + 2 * rows };
}

__device__ __forceinline__ int32_t rows_of(const struct cuda_attention &a, int32_t seq)
{
    return (a.m.query_start_loc[seq + 1] - a.m.query_start_loc[seq]) * a.params.num_heads;
}

template <typename E, typename S>
__global__ void __launch_bounds__(S::THREADS) mla_decode_kernel(struct cuda_attention a)
{
    DYNAMIC_SHARED(memory);
    typedef typename kv_element<E>::T T;
    struct mla_shared<T, S> *shared = (struct mla_shared<T, S> *)memory;
    const int32_t seq = a.seq_begin + blockIdx.z, first = blockIdx.y * S::MLA_ROWS;
    const int32_t num_rows = rows_of(a, seq);
    if (first >= num_rows || num_rows > a.decode_rows)
        return;
    struct block_rows b = find_block_rows(a, seq, first, S::MLA_ROWS);
    const int32_t span_begin = blockIdx.x * SPAN, span_end = span_begin + SPAN;
    const int32_t begin = (b.from > span_begin ? b.from : span_begin) / MLA_TILE * MLA_TILE;
    b.to = b.to < span_end ? b.to : span_end;
    const struct row_pair r = find_warp_rows(a, b);
    mla_state span;
    clear(&span);
    if (S::TILES > 1 && begin < b.to)
        load_keys<E, S>(shared->k[begin / MLA_TILE % S::TILES], a, b, begin);
    cp_async_commit();
    load_queries<T, S>(shared, a, b);
    for (int32_t at = begin; at < b.to; at += MLA_TILE) {
        const int32_t ahead = at + (S::TILES - 1) * MLA_TILE;
        if (ahead < b.to)
            load_keys<E, S>(shared->k[ahead / MLA_TILE % S::TILES], a, b, ahead);
        cp_async_commit();
        cp_async_wait<S::TILES - 1>();
        __syncthreads();
        attend_keys<T, S>(&span, shared, shared->k[at / MLA_TILE % S::TILES], a, r, at);
        __syncthreads();
    }
    /* What no row of the block sees is written too: the merge reads all spans of the sequence. */
    const struct mla_partial out = mla_partial_at(a, seq, blockIdx.x);
    const int32_t dim = a.params.value_head_dim, column = first_column();
    for (int i = 0; i < 2; i++) {
        const int32_t row = first + (int32_t)threadIdx.x / WARP / 2 * ROWS +
                            (int32_t)threadIdx.x % WARP / 4 + i * 8;
        if (column == 0) {
            out.max[row] = span.max[i];
            out.sum[row] = span.sum[i * 2];
        }
#pragma unroll
        for (int n = 0; n < MLA_NUM; n++)
            if (column + n * 8 < dim)
                *(float2 *)&out.out[(int64_t)row * dim + column + n * 8] =
                    make_float2(span.out[n][i * 2], span.out[n][i * 2 + 1]);
    }
}

/* One block per sequence and head. */
__global__ void mla_merge_kernel(struct cuda_attention a)
{
    const int32_t seq = a.seq_begin + blockIdx.y, head = blockIdx.x, heads = a.params.num_heads;
    const int32_t num_rows = rows_of(a, seq), dim = a.params.value_head_dim;
    if (num_rows == 0 || num_rows > a.decode_rows)
        return;
    const int32_t seq_len = a.m.seq_lens[seq], query_len = num_rows / heads;
    const int32_t first_span = find_block_rows(a, seq, 0, 1).from / SPAN;
    for (int32_t query = 0; query < query_len; query++) {
        const int32_t row = query * heads + head;
        for (int32_t col = threadIdx.x; col < dim; col += blockDim.x) {
            float max = -INFINITY, sum = 0, out = 0;
            for (int32_t span = first_span; span * SPAN < seq_len; span++) {
                const struct mla_partial p = mla_partial_at(a, seq, span);
                const float greater = fmaxf(max, p.max[row]);
                const float kept = weight_of(max, greater), taken = weight_of(p.max[row], greater);
                sum = merge_sums(sum, kept, p.sum[row], taken);
                out = merge_sums(out, kept, p.out[(int64_t)row * dim + col], taken);
                max = greater;
            }
            float *dst =
                (float *)a.out.data + (int64_t)(a.m.query_start_loc[seq] + query) * a.out.stride;
            dst[(int64_t)head * dim + col] = end_value(end_row(a.params, head, max, sum), out);
        }
    }
}

template <typename E, typename S>
static void launch(const struct cuda_attention *a, cudaStream_t stream)
{
    auto *kernel = mla_decode_kernel<E, S>;
    const int32_t bytes = sizeof(struct mla_shared<typename kv_element<E>::T, S>),
                  num_seqs = a->seq_end - a->seq_begin;
    const int32_t row_tiles = a->decode_rows / S::MLA_ROWS;
    const dim3 grid(num_spans(*a), row_tiles, num_seqs);
    if (num_seqs <= 0 || a->m.max_seq_len <= 0 ||
        cudaFuncSetAttribute((const void *)kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                             bytes) != cudaSuccess)
        return;
    CUDA_LAUNCH(kernel, grid, dim3(S::THREADS), bytes, stream, *a);
    CUDA_LAUNCH(mla_merge_kernel, dim3(a->params.num_heads, num_seqs), dim3(4 * WARP), 0, stream,
                *a);
}

template <typename E> static void launch_any(const struct cuda_attention *a, cudaStream_t stream)
{
    if (mla_fits<E, mla_wide>(*a))
        launch<E, mla_wide>(a, stream);
    else
        launch<E, mla_narrow>(a, stream);
}

extern "C" void cuda_launch_attention_mla_decode(const struct cuda_attention *a,
                                                 cudaStream_t stream)
{
    if (a->kv.dtype == DTYPE_BF16)
        launch_any<bf16>(a, stream);
    else if (a->kv.dtype == DTYPE_F16)
        launch_any<f16>(a, stream);
    else
        launch_any<kv_byte>(a, stream);
}
