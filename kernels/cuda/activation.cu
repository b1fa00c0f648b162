/* activation.cu - the middle of an MLP: act(gate) * up, or act(up) alone; and a gated sum. */
#include "kernels/cuda/activation.cuh"

enum { THREADS = 256, COLS_PER_BLOCK = 4 * THREADS };

template <enum activation ACT, bool GATED>
__global__ void activation_kernel(struct tensor out, struct tensor x)
{
    float *dst = (float *)out.data + blockIdx.x * out.stride;
    const float *src = (const float *)x.data + blockIdx.x * x.stride;
    const int32_t begin = blockIdx.y * COLS_PER_BLOCK + threadIdx.x;
    for (int32_t i = begin; i < out.cols && i < (int32_t)(blockIdx.y + 1) * COLS_PER_BLOCK;
         i += THREADS) {
        float y = activate<ACT>(src[i]);
        dst[i] = GATED ? y * gated<ACT>(src[out.cols + i]) : y;
    }
}

typedef void activation_fn(struct tensor out, struct tensor x);

#define BOTH(act)                                                                                  \
    {                                                                                              \
        activation_kernel<act, false>, activation_kernel<act, true>                                \
    }
static activation_fn *const kernels[NUM_ACTIVATIONS][2] = {
    BOTH(ACT_SILU), BOTH(ACT_GELU), BOTH(ACT_GELU_TANH), BOTH(ACT_RELU), BOTH(ACT_SWIGLU_OAI),
};

extern "C" void cuda_launch_activation(const struct tensor *out, const struct tensor *x,
                                       int32_t act, bool gated, cudaStream_t stream)
{
    activation_fn *kernel = kernels[act][gated];
    if (out->rows > 0)
        CUDA_LAUNCH(kernel, dim3(out->rows, blocks_for(out->cols, COLS_PER_BLOCK)), dim3(THREADS),
                    0, stream, *out, *x);
}

__global__ void add_gated_kernel(struct tensor x, struct tensor y, struct tensor gate)
{
    float *dst = (float *)x.data + blockIdx.x * x.stride;
    const float *src = (const float *)y.data + blockIdx.x * y.stride;
    const float g = ((const float *)gate.data)[blockIdx.x * gate.stride];
    const float factor = 1.0f / (1.0f + expf(-g));
    for (int32_t i = threadIdx.x; i < x.cols; i += blockDim.x)
        dst[i] += factor * src[i];
}

extern "C" void cuda_launch_add_gated(const struct tensor *x, const struct tensor *y,
                                      const struct tensor *gate, cudaStream_t stream)
{
    if (x->rows > 0)
        CUDA_LAUNCH(add_gated_kernel, dim3(x->rows), dim3(THREADS), 0, stream, *x, *y, *gate);
}
