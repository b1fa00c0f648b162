/* layernorm.cu - RMSNorm and LayerNorm over rows or heads, with the residual addition fused,
 * and where it is asked for the rounding to 8-bit codes.
 *
 * How many threads share a group of norm->size elements depends on that size alone, and so does the
 * order of the sums. */
#include "kernels/cuda/quantize.cuh"
#include "kernels/weight.h"

enum { SMALL = 512, WARPS_SMALL = 8, WARPS_LARGE = 16 };

/* Sum over the threads of one group: a warp, or the block. */
template <bool LARGE> __device__ __forceinline__ float group_sum(float value)
{
    return LARGE ? block_reduce<WARPS_LARGE>(value, add_op()) : warp_reduce(value, add_op());
}

template <bool LARGE> __device__ __forceinline__ float group_max(float value)
{
    return LARGE ? block_reduce<WARPS_LARGE>(value, max_op()) : warp_reduce(value, max_op());
}

/* What all elements of a group are normed with. */
struct moments {
    const float *x; /* the residual, if there is one */
    float mean, factor;
};

/* A group is `size` elements at the same place of residual and x. */
template <bool LARGE>
__device__ __forceinline__ struct moments add_up(float *residual, const float *x,
                                                 const struct norm &norm, int32_t thread,
                                                 int32_t threads)
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
        square = fmaf(x[i] - mean, x[i] - mean, square);
    return { x, mean, 1.0f / sqrtf(group_sum<LARGE>(square) / n + norm.eps) };
}

/* By intrinsics, so that all who ask get the same bits. */
__device__ __forceinline__ float normed(const struct moments &m, const struct norm &norm, int32_t i)
{
    float y = __fmul_rn(m.x[i] - m.mean, m.factor);
    if (norm.weight)
        y = __fmul_rn(y, norm.weight[i] + norm.weight_offset);
    return norm.bias ? __fadd_rn(y, norm.bias[i]) : y;
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
    const int32_t thread = LARGE ? threadIdx.x : threadIdx.x % WARP;
    const int32_t threads = LARGE ? blockDim.x : (unsigned)WARP;
    const struct moments m =
        add_up<LARGE>(residual.data ? (float *)residual.data + row * residual.stride + at : NULL,
                      (const float *)x.data + row * x.stride + at, norm, thread, threads);
    float *to = (float *)out.data + row * out.stride + at; /* may be x */
    for (int32_t i = thread; i < norm.size; i += threads)
        to[i] = normed(m, norm, i);
}

/* A row each; elements are normed twice, instead of going through memory. */
template <bool LARGE, bool FP8, bool PACKED>
__global__ void norm_quantize_kernel(struct cuda_codes dst, struct tensor residual, struct tensor x,
                                     struct norm norm)
{
    const int64_t row = LARGE ? blockIdx.x : (int64_t)blockIdx.x * WARPS_SMALL + threadIdx.x / WARP;
    if (row >= x.rows)
        return; /* a whole warp */
    const int32_t thread = LARGE ? threadIdx.x : threadIdx.x % WARP;
    const int32_t threads = LARGE ? blockDim.x : (unsigned)WARP;
    const struct moments m =
        add_up<LARGE>(residual.data ? (float *)residual.data + row * residual.stride : NULL,
                      (const float *)x.data + row * x.stride, norm, thread, threads);
    float scale = dst.scale, most = 0;
    if (!(scale > 0)) {
        for (int32_t i = thread; i < norm.size; i += threads)
            most = max_op()(fabsf(normed(m, norm, i)), most);
        scale = scale_of<FP8>(group_max<LARGE>(most));
    }
    if (thread == 0)
        dst.scales[row] = scale;
    char *to = code_row<PACKED>(dst, row);
    for (int32_t i = thread; i < dst.stride; i += threads) {
        const uint32_t code = i < norm.size ? code_of<FP8>(normed(m, norm, i), scale) : 0;
        if (PACKED)
            to[packed_place(i / 8 * 8) + i % 8] = (char)code;
        else
            ((bf16 *)to)[i] = wide_code<FP8>(code);
    }
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

template <bool LARGE>
static void launch_norm_quantize(const struct cuda_codes *dst, const struct tensor *residual,
                                 const struct tensor *x, const struct norm *norm,
                                 cudaStream_t stream)
{
    auto *kernel = dst->is_fp8   ? dst->packed ? norm_quantize_kernel<LARGE, true, true>
                                               : norm_quantize_kernel<LARGE, true, false>
                     : dst->packed ? norm_quantize_kernel<LARGE, false, true>
                                 : norm_quantize_kernel<LARGE, false, false>;
    const dim3 grid(LARGE ? x->rows : blocks_for(x->rows, WARPS_SMALL));
    if (x->rows > 0)
        CUDA_LAUNCH(kernel, grid, dim3(WARP * (LARGE ? WARPS_LARGE : WARPS_SMALL)), 0, stream, *dst,
                    *residual, *x, *norm);
}

extern "C" void cuda_launch_norm_quantize(const struct cuda_codes *dst,
                                          const struct tensor *residual, const struct tensor *x,
                                          const struct norm *norm, cudaStream_t stream)
{
    if (norm->size > SMALL)
        launch_norm_quantize<true>(dst, residual, x, norm, stream);
    else
        launch_norm_quantize<false>(dst, residual, x, norm, stream);
}
