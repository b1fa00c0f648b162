/* reshape_and_cache.cu - writes new keys and values into the paged cache, see kv_cache.cuh. */
#include "kernels/cuda/kv_cache.cuh"

enum { CACHE_WARPS = 4 };

template <typename T>
__global__ void reshape_and_cache_kernel(struct cuda_kv kv, struct tensor k, struct tensor v,
                                         const int32_t *slot_mapping)
{
    const int32_t token = blockIdx.x, slot = slot_mapping[token];
    if (slot < 0)
        return; /* a padded row */
    const int32_t block = slot / kv.block_size, offset = slot % kv.block_size;
    const float *k_row = (const float *)k.data + token * k.stride;
    const float *v_row = (const float *)v.data + token * v.stride;
    for (int32_t i = threadIdx.x; i < k.cols; i += blockDim.x) {
        const int32_t head = i / kv.head_dim, dim = i % kv.head_dim;
        kv_data_at<T>(kv, kv.k, block, head, offset)[dim] = element<T>::of(k_row[i]);
        if (kv.v)
            kv_data_at<T>(kv, kv.v, block, head, offset)[dim] = element<T>::of(v_row[i]);
    }
}

/* A warp's share of a vector, and its scale. */
__device__ __forceinline__ void write_bytes(const struct cuda_kv &kv, void *base, int32_t slot,
                                            int32_t head, const float *in)
{
    const int32_t block = slot / kv.block_size, offset = slot % kv.block_size;
    const int32_t lane = threadIdx.x % WARP;
    struct kv_byte *out = kv_data_at<struct kv_byte>(kv, base, block, head, offset);
    if (kv.dtype == DTYPE_F8_E4M3) {
        const float scale = kv_layer_scale(base == kv.k ? kv.k_scale : kv.v_scale);
        for (int32_t i = lane; i < kv.head_dim; i += WARP)
            out[i].bits = (unsigned char)e4m3_of_float(in[i] / scale);
        return;
    }
    float most = 0;
    for (int32_t i = lane; i < kv.head_dim; i += WARP)
        most = max_op()(fabsf(in[i]), most);
    most = warp_reduce(most, max_op());
    /* What is not finite makes the scale NaN. */
    const float scale = most < INFINITY ? most / 127.0f : NAN;
    for (int32_t i = lane; i < kv.head_dim; i += WARP) {
        /* Where the scale is so small that it lost bits, the quotient may lie beyond. */
        const float code = scale > 0 ? rintf(in[i] / scale) : 0.0f;
        out[i].bits = (unsigned char)(int8_t)(code > 127 ? 127 : code < -127 ? -127 : code);
    }
    if (lane == 0)
        store_scale(kv_scale_at(kv, base, (int64_t)block * kv.num_kv_heads + head, offset), scale);
}

/* A warp per head. */
__global__ void reshape_and_cache_bytes(struct cuda_kv kv, struct tensor k, struct tensor v,
                                        const int32_t *slot_mapping)
{
    const int32_t token = blockIdx.x, slot = slot_mapping[token];
    const int32_t head = blockIdx.y * CACHE_WARPS + (int32_t)threadIdx.x / WARP;
    if (slot < 0 || head >= kv.num_kv_heads)
        return;
    write_bytes(kv, kv.k, slot, head,
                (const float *)k.data + token * k.stride + (int64_t)head * kv.head_dim);
    if (kv.v)
        write_bytes(kv, kv.v, slot, head,
                    (const float *)v.data + token * v.stride + (int64_t)head * kv.head_dim);
}

extern "C" void cuda_launch_reshape_and_cache(const struct cuda_kv *kv, const struct tensor *k,
                                              const struct tensor *v, const int32_t *slot_mapping,
                                              cudaStream_t stream)
{
    if (k->rows <= 0)
        return;
    if (kv->dtype == DTYPE_F8_E4M3 || kv->dtype == DTYPE_I8) {
        const dim3 grid(k->rows, blocks_for(kv->num_kv_heads, CACHE_WARPS));
        CUDA_LAUNCH(reshape_and_cache_bytes, grid, dim3(CACHE_WARPS * WARP), 0, stream, *kv, *k, *v,
                    slot_mapping);
        return;
    }
    auto *kernel = kv->dtype == DTYPE_F32    ? reshape_and_cache_kernel<float>
                   : kv->dtype == DTYPE_BF16 ? reshape_and_cache_kernel<bf16>
                                             : reshape_and_cache_kernel<f16>;
    CUDA_LAUNCH(kernel, dim3(k->rows), dim3(128), 0, stream, *kv, *k, *v, slot_mapping);
}
