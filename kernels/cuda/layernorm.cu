/* layernorm.cu - RMSNorm and LayerNorm over rows or heads, with the residual addition fused.
 *
 * How many threads share a group of norm->size elements depends on that size alone, and so does the
 * order of the sums. */
#include "kernels/cuda/common.cuh"
#include "kernels/weight.h"

enum { SMALL = 512, WARPS_SMALL = 8, WARPS_LARGE = 16 };

/* Sum over the threads of one group: a warp, or the block. */
template <bool LARGE> __device__ __forceinline__ float group_sum(float value)
{
    return LARGE ? block_reduce<WARPS_LARGE>(value, add_op()) : warp_reduce(value, add_op());
}

/* A group is `size` elements at the same place of out, residual and x; out may be x. */
template <bool LARGE>
__device__ void norm_group(float *out, float *residual, const float *x, const struct norm &norm,
                           int32_t thread, int32_t threads)
{
    const int32_t n = norm.size;
    float mean = 0, square = 0;
    if (residual) {
        for (int32_t i = thread; i < n; i += threads)
            residual[i] += x[i];
        x = residual; /* each thread reads again what it wrote itself */
    }
    if (norm.kind == NORM_LAYER) {
        for (int32_t i = thread; i < n; i += threads)
            mean += x[i];
        mean = group_sum<LARGE>(mean) / n;
    }
    for (int32_t i = thread; i < n; i += threads)
        square += (x[i] - mean) * (x[i] - mean);
    const float factor = 1.0f / sqrtf(group_sum<LARGE>(square) / n + norm.eps);
    for (int32_t i = thread; i < n; i += threads) {
        float y = (x[i] - mean) * factor;
        if (norm.weight)
            y *= norm.weight[i] + norm.weight_offset;
        out[i] = norm.bias ? y + norm.bias[i] : y;
    }
}

/* Small groups: one warp each. Large ones: one block each. */
template <bool LARGE>
__global__ void norm_kernel(struct tensor out, struct tensor residual, struct tensor x,
                            struct norm norm, int32_t groups_per_row)
{
    const int64_t group =
        LARGE ? blockIdx.x : (int64_t)blockIdx.x * WARPS_SMALL + threadIdx.x / WARP;
    if (group >= (int64_t)x.rows * groups_per_row)
        return; /* a whole warp */
    const int64_t row = group / groups_per_row, at = group % groups_per_row * norm.size;
    norm_group<LARGE>((float *)out.data + row * out.stride + at,
                      residual.data ? (float *)residual.data + row * residual.stride + at : NULL,
                      (const float *)x.data + row * x.stride + at, norm,
                      LARGE ? threadIdx.x : threadIdx.x % WARP,
                      LARGE ? blockDim.x : (unsigned)WARP);
}

extern "C" void cuda_launch_norm(const struct tensor *out, const struct tensor *residual,
                                 const struct tensor *x, const struct norm *norm,
                                 cudaStream_t stream)
{
    const int32_t groups_per_row = x->cols / norm->size;
    const int64_t groups = (int64_t)x->rows * groups_per_row;
    const bool large = norm->size > SMALL;
    const dim3 grid(large ? (int32_t)groups : blocks_for(groups, WARPS_SMALL));
    auto *kernel = large ? norm_kernel<true> : norm_kernel<false>;
    if (groups > 0)
        CUDA_LAUNCH(kernel, grid, dim3(WARP * (large ? WARPS_LARGE : WARPS_SMALL)), 0, stream, *out,
                    *residual, *x, *norm, groups_per_row);
}
