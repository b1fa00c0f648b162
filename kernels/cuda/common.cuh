/* common.cuh - what the kernels share: launching, element types, sums and maxima over a warp or a
 * block. Sums over threads go in one order, which the number of threads fixes. */
#ifndef INFERD_KERNELS_CUDA_COMMON_CUH
#define INFERD_KERNELS_CUDA_COMMON_CUH

#include "kernels/cuda/launch.h"
#include "kernels/cuda/ptx.cuh"

#include <math.h>

/* `kernel` is a function or a pointer to one. */
#ifdef INFERD_CUDA_EMU
#define CUDA_LAUNCH(kernel, grid, block, shared_bytes, stream, ...)                                \
    emu_launch(kernel, grid, block, shared_bytes, stream, __VA_ARGS__)
#define DYNAMIC_SHARED(name) unsigned char *name = emu_dynamic_shared
#else
#define CUDA_LAUNCH(kernel, grid, block, shared_bytes, stream, ...)                                \
    kernel<<<grid, block, shared_bytes, stream>>>(__VA_ARGS__)
#define DYNAMIC_SHARED(name) extern __shared__ __align__(16) unsigned char name[]
#endif

enum { WARP = 32 };
#define FULL_WARP 0xffffffffu

typedef __nv_bfloat16 bf16;
typedef __half f16;

/* --- elements --------------------------------------------------------------------------------- */

__device__ __forceinline__ float to_float(float x)
{
    return x;
}
__device__ __forceinline__ float to_float(bf16 x)
{
    return __bfloat162float(x);
}
__device__ __forceinline__ float to_float(f16 x)
{
    return __half2float(x);
}

template <typename T> struct element;
template <> struct element<float> {
    static __device__ __forceinline__ float of(float x)
    {
        return x;
    }
};
template <> struct element<bf16> {
    static __device__ __forceinline__ bf16 of(float x)
    {
        return __float2bfloat16_rn(x);
    }
};
/* float16 ends at 65504: what lies beyond is held there, since an infinity would turn into NaN
 * further on. NaN stays. */
template <> struct element<f16> {
    static __device__ __forceinline__ f16 of(float x)
    {
        x = x > 65504.0f ? 65504.0f : x < -65504.0f ? -65504.0f : x;
        return __float2half_rn(x);
    }
};

/* To the nearest, and to an infinity where that is nearest. */
template <typename T> struct nearest_element {
    static __device__ __forceinline__ T of(float x)
    {
        return element<T>::of(x);
    }
};
template <> struct nearest_element<f16> {
    static __device__ __forceinline__ f16 of(float x)
    {
        return __float2half_rn(x);
    }
};

/* Two neighbours as one word, the first in the lower half. */
template <typename T, template <typename> class ELEMENT = element>
__device__ __forceinline__ uint32_t pack_pair(float first, float second)
{
    union {
        T pair[2];
        uint32_t word;
    } u = { { ELEMENT<T>::of(first), ELEMENT<T>::of(second) } };
    return u.word;
}

/* Two neighbours as float32. */
template <typename T> __device__ __forceinline__ float2 split_pair(uint32_t word)
{
    union {
        uint32_t word;
        T pair[2];
    } u = { word };
    return make_float2(to_float(u.pair[0]), to_float(u.pair[1]));
}

/* --- a warp and a block ----------------------------------------------------------------------- */

struct add_op {
    template <typename T> __device__ __forceinline__ T operator()(T a, T b) const
    {
        return a + b;
    }
};
/* NaN if there is one. */
struct max_op {
    __device__ __forceinline__ float operator()(float a, float b) const
    {
        return a > b || a != a ? a : b;
    }
};

template <typename Op, typename T> __device__ __forceinline__ T warp_reduce(T value, Op op)
{
    for (int offset = WARP / 2; offset > 0; offset /= 2)
        value = op(value, __shfl_xor_sync(FULL_WARP, value, offset));
    return value;
}

/* Over WARPS whole warps; every thread gets the result. May follow itself at once. */
template <int WARPS, typename Op, typename T>
__device__ __forceinline__ T block_reduce(T value, Op op)
{
    __shared__ T parts[WARPS];
    value = warp_reduce(value, op);
    if (WARPS == 1)
        return value;
    if (threadIdx.x % WARP == 0)
        parts[threadIdx.x / WARP] = value;
    __syncthreads();
    T total = parts[0];
    for (int i = 1; i < WARPS; i++)
        total = op(total, parts[i]);
    __syncthreads();
    return total;
}

/* The sum over the threads before this one; the sum over all in *total. */
template <int WARPS, typename T> __device__ __forceinline__ T block_exclusive_sum(T value, T *total)
{
    __shared__ T sums[WARPS];
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    T inclusive = value;
    for (int offset = 1; offset < WARP; offset *= 2) {
        T other = __shfl_up_sync(FULL_WARP, inclusive, offset);
        if (lane >= offset)
            inclusive += other;
    }
    if (lane == WARP - 1)
        sums[warp] = inclusive;
    __syncthreads();
    T before = 0, all = 0;
    for (int i = 0; i < WARPS; i++) {
        before += i < warp ? sums[i] : 0;
        all += sums[i];
    }
    __syncthreads();
    *total = all;
    return before + inclusive - value;
}

/* The sequence that owns row `token` of the batch; num_seqs where none does (a padded row). */
__device__ __forceinline__ int32_t find_sequence(const int32_t *query_start_loc, int32_t num_seqs,
                                                 int32_t token)
{
    int32_t low = 0, high = num_seqs;
    while (low < high) {
        int32_t middle = (low + high) / 2;
        if (query_start_loc[middle + 1] <= token)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static inline int32_t blocks_for(int64_t count, int32_t per_block)
{
    return (int32_t)((count + per_block - 1) / per_block);
}

#endif
