/* reshape_and_cache.cu - writes new keys and values into the paged cache: within a block
 * [num_kv_heads, block_size, head_dim], so that the positions of a head lie one after another. */
#include "kernels/cuda/common.cuh"

template <typename T>
__global__ void reshape_and_cache_kernel(struct cuda_kv kv, struct tensor k, struct tensor v,
                                         const int32_t *slot_mapping)
{
    const int32_t token = blockIdx.x, slot = slot_mapping[token];
    if (slot < 0)
        return; /* a padded row */
    const int64_t block = slot / kv.block_size, offset = slot % kv.block_size;
    const float *k_row = (const float *)k.data + token * k.stride;
    const float *v_row = (const float *)v.data + token * v.stride;
    for (int32_t i = threadIdx.x; i < k.cols; i += blockDim.x) {
        const int32_t head = i / kv.head_dim, dim = i % kv.head_dim;
        const int64_t at =
            ((block * kv.num_kv_heads + head) * kv.block_size + offset) * kv.head_dim + dim;
        ((T *)kv.k)[at] = element<T>::of(k_row[i]);
        ((T *)kv.v)[at] = element<T>::of(v_row[i]);
    }
}

extern "C" void cuda_launch_reshape_and_cache(const struct cuda_kv *kv, const struct tensor *k,
                                              const struct tensor *v, const int32_t *slot_mapping,
                                              cudaStream_t stream)
{
    auto *kernel = kv->dtype == DTYPE_F32    ? reshape_and_cache_kernel<float>
                   : kv->dtype == DTYPE_BF16 ? reshape_and_cache_kernel<bf16>
                                             : reshape_and_cache_kernel<f16>;
    if (k->rows > 0)
        CUDA_LAUNCH(kernel, dim3(k->rows), dim3(128), 0, stream, *kv, *k, *v, slot_mapping);
}
