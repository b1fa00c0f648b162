/* attention_mla_prefill.cu - latent attention for sequences with many rows in a step: a block walks
 * the context of its rows, span after span. There are more sums than registers, so that what the
 * spans before have given waits in `out`. */
#include "kernels/cuda/attention_mla.cuh"

/* Adds a span to the rows' sums; is_first: there are none yet; is_last: what is written is the
 * result. */
__device__ __forceinline__ void merge_mla_span(float max[2], float sum[2], const mla_state &span,
                                               const struct cuda_attention &a,
                                               const struct row_pair &r, bool is_first,
                                               bool is_last)
{
    const int32_t dim = a.params.value_head_dim, column = first_column();
    /* All loops are unrolled, so that the span's sums stay in registers. */
#pragma unroll
    for (int i = 0; i < 2; i++) {
        const float greater = fmaxf(max[i], span.max[i]);
        const float kept = weight_of(max[i], greater), taken = weight_of(span.max[i], greater);
        sum[i] = merge_sums(sum[i], kept, span.sum[i * 2], taken);
        max[i] = greater;
        const struct row_end e = end_row(a.params, r.head[i], max[i], sum[i]);
        float *out =
            (float *)a.out.data + r.query[i] * a.out.stride + (int64_t)r.head[i] * dim + column;
        const int32_t cols = r.end[i] == 0 ? 0 : dim - column;
#pragma unroll
        for (int n = 0; n < MLA_NUM; n++) {
            if (n * 8 >= cols)
                continue;
#pragma unroll
            for (int j = 0; j < 2; j++) {
                const float before = is_first ? 0.0f : out[n * 8 + j];
                const float total = merge_sums(before, kept, span.out[n][i * 2 + j], taken);
                out[n * 8 + j] = is_last ? end_value(e, total) : total;
            }
        }
    }
}

/* blockIdx.x counts the tiles of rows of all sequences, as in attention_prefill.cuh. */
template <typename E, typename S>
__global__ void __launch_bounds__(S::THREADS) mla_prefill_kernel(struct cuda_attention a)
{
    DYNAMIC_SHARED(memory);
    typedef typename kv_element<E>::T T;
    struct mla_shared<T, S> *shared = (struct mla_shared<T, S> *)memory;
    const int32_t heads = a.params.num_heads, *starts = a.m.query_start_loc;
    int32_t seq = 0;
    for (int32_t low = 0, high = a.m.num_seqs - 1; low <= high;) {
        const int32_t middle = (low + high) / 2;
        if ((int64_t)starts[middle] * heads / S::MLA_ROWS + middle <= (int64_t)blockIdx.x) {
            seq = middle;
            low = middle + 1;
        } else {
            high = middle - 1;
        }
    }
    const int32_t num_rows = (starts[seq + 1] - starts[seq]) * heads;
    const int32_t first =
        (int32_t)(blockIdx.x - ((int64_t)starts[seq] * heads / S::MLA_ROWS + seq)) * S::MLA_ROWS;
    if (first >= num_rows || num_rows <= cuda_mla_decode_rows(heads))
        return; /* no sequence's, or the decode kernel's */
    const struct mla_rows b = find_block_rows(a, seq, first, S::MLA_ROWS);
    const struct row_pair r = find_warp_rows(a, b);
    const int32_t begin = b.from / MLA_TILE * MLA_TILE, first_span_end = (begin / SPAN + 1) * SPAN;
    float max[2] = { -INFINITY, -INFINITY }, sum[2] = { 0, 0 };
    mla_state span;
    clear(&span);
    if (S::TILES > 1)
        load_keys<E, S>(shared->k[begin / MLA_TILE % S::TILES], a, b, begin);
    cp_async_commit();
    load_queries<T, S>(shared, a, b);
    for (int32_t at = begin; at < b.to; at += MLA_TILE) {
        const int32_t next = at + MLA_TILE, ahead = at + (S::TILES - 1) * MLA_TILE;
        if (ahead < b.to)
            load_keys<E, S>(shared->k[ahead / MLA_TILE % S::TILES], a, b, ahead);
        cp_async_commit();
        cp_async_wait<S::TILES - 1>();
        __syncthreads();
        attend_keys<T, S>(&span, shared, shared->k[at / MLA_TILE % S::TILES], a, r, at);
        if (next % SPAN == 0 || next >= b.to) {
            merge_mla_span(max, sum, span, a, r, next <= first_span_end, next >= b.to);
            clear(&span);
        }
        __syncthreads(); /* nobody reads the tile that is loaded into next */
    }
}

template <typename E, typename S>
static void launch(const struct cuda_attention *a, cudaStream_t stream)
{
    auto *kernel = mla_prefill_kernel<E, S>;
    const int32_t bytes = sizeof(struct mla_shared<typename kv_element<E>::T, S>);
    const int64_t rows = (int64_t)a->m.num_tokens * a->params.num_heads;
    const dim3 grid((uint32_t)(rows / S::MLA_ROWS + a->m.num_seqs));
    if (a->m.num_seqs > 0 &&
        cudaFuncSetAttribute((const void *)kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                             bytes) == cudaSuccess)
        CUDA_LAUNCH(kernel, grid, dim3(S::THREADS), bytes, stream, *a);
}

template <typename E> static void launch_any(const struct cuda_attention *a, cudaStream_t stream)
{
    if (mla_fits<E, mla_wide>(*a))
        launch<E, mla_wide>(a, stream);
    else
        launch<E, mla_narrow>(a, stream);
}

extern "C" void cuda_launch_attention_mla_prefill(const struct cuda_attention *a,
                                                  cudaStream_t stream)
{
    if (a->kv.dtype == DTYPE_BF16)
        launch_any<bf16>(a, stream);
    else if (a->kv.dtype == DTYPE_F16)
        launch_any<f16>(a, stream);
    else
        launch_any<kv_byte>(a, stream);
}
