/* rotary_embedding.cu - positions as rotations of pairs of elements, applied to q and k in place.
 */
#include "kernels/cuda/common.cuh"
#include "kernels/weight.h"

__global__ void cos_sin_kernel(struct tensor out, const int32_t *positions, struct rope rope)
{
    const int32_t half = rope.rotary_dim / 2;
    float *dst = (float *)out.data + blockIdx.x * out.stride;
    const float position = (float)positions[blockIdx.x];
    for (int32_t i = threadIdx.x; i < half; i += blockDim.x) {
        /* The angle is rounded to float32, as transformers does it. */
        const float angle = __fmul_rn(position, rope.inv_freq[i]);
        dst[i] = cosf(angle) * rope.attention_scaling;
        dst[half + i] = sinf(angle) * rope.attention_scaling;
    }
}

extern "C" void cuda_launch_rotary_cos_sin(const struct tensor *cos_sin, const int32_t *positions,
                                           const struct rope *rope, cudaStream_t stream)
{
    if (cos_sin->rows > 0)
        CUDA_LAUNCH(cos_sin_kernel, dim3(cos_sin->rows), dim3(64), 0, stream, *cos_sin, positions,
                    *rope);
}

/* One block per row; a thread takes pairs, over all heads. */
__global__ void rotary_kernel(struct tensor x, int32_t head_dim, struct tensor cos_sin,
                              int32_t half, bool interleaved)
{
    float *row = (float *)x.data + blockIdx.x * x.stride;
    const float *cos = (const float *)cos_sin.data + blockIdx.x * cos_sin.stride;
    const int32_t pairs = x.cols / head_dim * half;
    for (int32_t i = threadIdx.x; i < pairs; i += blockDim.x) {
        const int32_t j = i % half;
        float *head = row + i / half * head_dim;
        float *first = head + (interleaved ? 2 * j : j);
        float *second = interleaved ? first + 1 : first + half;
        const float a = *first, b = *second, c = cos[j], s = cos[half + j];
        *first = __fsub_rn(__fmul_rn(a, c), __fmul_rn(b, s));
        *second = __fadd_rn(__fmul_rn(b, c), __fmul_rn(a, s));
    }
}

extern "C" void cuda_launch_rotary_embedding(const struct tensor *x, int32_t head_dim,
                                             const struct tensor *cos_sin, const struct rope *rope,
                                             cudaStream_t stream)
{
    if (x->rows > 0)
        CUDA_LAUNCH(rotary_kernel, dim3(x->rows), dim3(256), 0, stream, *x, head_dim, *cos_sin,
                    rope->rotary_dim / 2, rope->interleaved);
}
