/* kv_cache.cuh - where a token's vector lies in the paged cache, and what its elements stand for.
 *
 * A kv head's part of a block is its elements, [block_size, head_dim], and behind those of int8 a
 * float32 scale for each token. An fp8_e4m3 element is to be multiplied by its layer's scale, an
 * int8 one by its token's, as kernels/cpu/kv_layout.h has it. */
#ifndef INFERD_KERNELS_CUDA_KV_CACHE_CUH
#define INFERD_KERNELS_CUDA_KV_CACHE_CUH

#include "kernels/cuda/float8.cuh"

/* An element of 8 bits; kv.dtype says which of the two. */
struct kv_byte {
    unsigned char bits;
};

/* What tensor cores take of E. All that 8 bits can say is exact in float16; times a scale it is
 * rounded to it, by less than a tenth of what 8 bits did. */
template <typename E> struct kv_element {
    typedef E T;
    enum { BYTES = 0 };
};
template <> struct kv_element<kv_byte> {
    typedef f16 T;
    enum { BYTES = 1 };
};

/* One token's vector of one kv head. */
template <typename E> struct kv_vector {
    E *data;
    float scale; /* of 8 bits, else not set */
};

/* The place in a sequence's block table of the block that holds `position`. */
__device__ __forceinline__ int32_t kv_block_of(const struct cuda_kv &kv, int32_t position)
{
    return (int32_t)((uint64_t)(uint32_t)position * kv.block_multiplier >> kv.block_shift);
}

/* int8: where the token's scale lies; not aligned where block_size * head_dim is odd. */
__device__ __forceinline__ unsigned char *kv_scale_at(const struct cuda_kv &kv, void *base,
                                                      int64_t part, int32_t offset)
{
    const int64_t elements = (int64_t)kv.block_size * kv.head_dim;
    return (unsigned char *)base + part * (elements + kv.block_size * (int64_t)sizeof(float)) +
           elements + offset * (int64_t)sizeof(float);
}
__device__ __forceinline__ float load_scale(const unsigned char *at)
{
    if ((uintptr_t)at % sizeof(float) == 0)
        return *(const float *)at;
    return __uint_as_float(at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 |
                           (uint32_t)at[3] << 24);
}
__device__ __forceinline__ void store_scale(unsigned char *at, float scale)
{
    const uint32_t bits = __float_as_uint(scale);
    for (int i = 0; i < (int)sizeof bits; i++)
        at[i] = (unsigned char)(bits >> i * 8);
}

/* Token `offset` of `block`, without its scale; `base` is kv.k or kv.v. */
template <typename E>
__device__ __forceinline__ E *kv_data_at(const struct cuda_kv &kv, void *base, int64_t block,
                                         int32_t kv_head, int32_t offset)
{
    uint32_t part = (uint32_t)(kv.block_size * kv.head_dim);
    if (kv_element<E>::BYTES && kv.dtype == DTYPE_I8)
        part += (uint32_t)(kv.block_size * (int32_t)sizeof(float));
    /* One wide product: a block has less than 2^31 elements. */
    return (E *)base + (uint64_t)(uint32_t)block * ((uint32_t)kv.num_kv_heads * part) +
           ((uint32_t)kv_head * part + (uint32_t)(offset * kv.head_dim));
}

/* 0 stands for 1. */
__device__ __forceinline__ float kv_layer_scale(float scale)
{
    return scale > 0 ? scale : 1.0f;
}

template <typename E>
__device__ __forceinline__ struct kv_vector<E> kv_vector_at(const struct cuda_kv &kv, void *base,
                                                            int64_t block, int32_t kv_head,
                                                            int32_t offset) {
    struct kv_vector<E> v = {
        kv_data_at<E>(kv, base, block, kv_head, offset), 1.0f
    };
    if constexpr (kv_element<E>::BYTES != 0) {
        if (kv.dtype == DTYPE_I8)
            v.scale = load_scale(kv_scale_at(kv, base, block * kv.num_kv_heads + kv_head, offset));
        else
            v.scale = kv_layer_scale(base == kv.k ? kv.k_scale : kv.v_scale);
    }
    return v;
}

__device__ __forceinline__ float
kv_byte_value(const struct cuda_kv &kv, uint32_t bits, float scale)
{
    return __fmul_rn(kv.dtype == DTYPE_I8 ? (float)(int8_t)bits : float_of_e4m3(bits), scale);
}

template <typename E>
__device__ __forceinline__ float kv_value(const struct cuda_kv &kv, const struct kv_vector<E> &v,
                                          int32_t i)
{
    if constexpr (kv_element<E>::BYTES != 0)
        return kv_byte_value(kv, v.data[i].bits, v.scale);
    else
        return to_float(v.data[i]);
}

/* 8 elements from `col` on, a multiple of 8 as head_dim is, as 16 bytes of float16. */
__device__ __forceinline__ uint4 kv_eight(const struct cuda_kv &kv,
                                          const struct kv_vector<kv_byte> &v, int32_t col)
{
    /* Only scales in blocks of an odd number of tokens move a vector by 4 bytes. */
    const uint32_t *at = (const uint32_t *)(v.data + col);
    uint2 bytes;
    if ((uintptr_t)at % sizeof bytes == 0)
        bytes = *(const uint2 *)at;
    else
        bytes = { at[0], at[1] };
    uint32_t out[4];
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const uint32_t two = (i < 2 ? bytes.x : bytes.y) >> i % 2 * 16;
        out[i] = pack_pair<f16>(kv_byte_value(kv, two & 255u, v.scale),
                                kv_byte_value(kv, two >> 8 & 255u, v.scale));
    }
    return make_uint4(out[0], out[1], out[2], out[3]);
}

#endif
