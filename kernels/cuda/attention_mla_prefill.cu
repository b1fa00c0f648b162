/* attention_mla_prefill.cu - latent attention for sequences with many rows in a step: a block walks
 * the context of its rows, span after span. There are more sums than registers, so that what the
 * spans before have given waits in `out`. */
#include "kernels/cuda/attention_mla.cuh"

template <typename E, typename S>
__global__ void __launch_bounds__(S::THREADS) mla_prefill_kernel(struct cuda_attention a)
{
    DYNAMIC_SHARED(memory);
    typedef typename kv_element<E>::T T;
    struct mla_shared<T, S> *shared = (struct mla_shared<T, S> *)memory;
    const struct block_rows b = find_row_tile<S::MLA_ROWS>(a, blockIdx.x);
    if (b.first >= b.last)
        return;
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
            const struct out_place place = { a.params.value_head_dim, first_column(),
                                             next <= first_span_end, next >= b.to };
            merge_into_out(max, sum, span, a, r, place);
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
