/* linear_f32.cu - products of float32 weights, without tensor cores, which would round them.
 *
 * A warp computes 4 features for 8 rows. A lane sums every 32nd group of 4 columns; then 31
 * exchanges leave lane i with the sum of feature i / 8 for row i % 8. */
#include "kernels/cuda/product_tile.cuh"

enum { WARPS = 8, FEATURES = 4, ROWS = 8 };

__device__ __forceinline__ float dot(float sum, const float4 &a, const float4 &b)
{
    sum = fmaf(a.x, b.x, sum);
    sum = fmaf(a.y, b.y, sum);
    sum = fmaf(a.z, b.z, sum);
    return fmaf(a.w, b.w, sum);
}

__global__ void __launch_bounds__(WARPS *WARP) linear_f32_kernel(struct cuda_product p)
{
    const int32_t lane = threadIdx.x % WARP;
    const int32_t feature = (blockIdx.y * WARPS + threadIdx.x / WARP) * FEATURES;
    const int32_t row = take_tile(&p, blockIdx.x), stride = (int32_t)p.weight.stride;
    if (row < 0)
        return;
    const float *w[FEATURES], *x[ROWS];
    float sum[FEATURES * ROWS] = {};
    /* What lies past the end repeats the last one, and is not stored. */
    for (int f = 0; f < FEATURES; f++)
        w[f] = (const float *)p.weight.data +
               (int64_t)(feature + f < p.weight.rows ? feature + f : p.weight.rows - 1) * stride;
    for (int r = 0; r < ROWS; r++)
        x[r] = (const float *)p.x + (int64_t)(row + r < p.rows ? row + r : p.rows - 1) * stride;
    for (int32_t k = lane * 4; k < stride; k += WARP * 4) {
        float4 xs[ROWS];
#pragma unroll
        for (int r = 0; r < ROWS; r++)
            xs[r] = *(const float4 *)(x[r] + k);
#pragma unroll
        for (int f = 0; f < FEATURES; f++) {
            const float4 ws = *(const float4 *)(w[f] + k);
#pragma unroll
            for (int r = 0; r < ROWS; r++)
                sum[f * ROWS + r] = dot(sum[f * ROWS + r], ws, xs[r]);
        }
    }
    /* Of two halves a lane keeps one and hands the other to its partner. */
#pragma unroll
    for (int n = WARP / 2; n > 0; n /= 2) {
#pragma unroll
        for (int i = 0; i < n; i++) {
            const bool upper = lane & n;
            const float keep = upper ? sum[i + n] : sum[i], give = upper ? sum[i] : sum[i + n];
            sum[i] = keep + __shfl_xor_sync(FULL_WARP, give, n);
        }
    }
    const int32_t f = feature + lane / ROWS, r = row + lane % ROWS;
    if (f < p.weight.rows && r < p.rows)
        p.out[r * p.out_stride + f] = p.bias ? sum[0] + p.bias[f] : sum[0];
}

extern "C" void cuda_launch_linear_f32(const struct cuda_product *p, cudaStream_t stream)
{
    const dim3 grid(num_tiles(p), blocks_for(p->weight.rows, WARPS * FEATURES));
    if (p->rows > 0)
        CUDA_LAUNCH(linear_f32_kernel, grid, dim3(WARPS * WARP), 0, stream, *p);
}
