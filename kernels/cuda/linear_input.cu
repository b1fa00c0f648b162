/* linear_input.cu - a product's activations, rounded once to the dtype of its weights. */
#include "kernels/cuda/common.cuh"

/* blockIdx.y is the head: its columns of x, and its rows of dst. */
template <typename T>
__global__ void linear_input_kernel(T *dst, int64_t stride, struct tensor x, int32_t cols,
                                    const int32_t *order)
{
    const float *src = (const float *)x.data + blockIdx.x * x.stride + (int64_t)blockIdx.y * cols;
    T *out = dst + ((int64_t)blockIdx.y * x.rows + blockIdx.x) * stride;
    for (int64_t i = threadIdx.x; i < stride; i += blockDim.x)
        out[i] = element<T>::of(i < cols ? src[order ? order[i] : i] : 0.0f);
}

template <typename T>
static void launch(void *dst, const struct tensor *x, int32_t num_heads, const int32_t *order,
                   const struct cuda_matrix *weight, cudaStream_t stream)
{
    auto *kernel = linear_input_kernel<T>;
    if (x->rows > 0)
        CUDA_LAUNCH(kernel, dim3(x->rows, num_heads), dim3(256), 0, stream, (T *)dst,
                    weight->stride, *x, weight->cols, order);
}

static void launch_any(void *dst, const struct tensor *x, int32_t num_heads, const int32_t *order,
                       const struct cuda_matrix *weight, cudaStream_t stream)
{
    if (weight->dtype == DTYPE_F32)
        launch<float>(dst, x, num_heads, order, weight, stream);
    else if (weight->dtype == DTYPE_BF16)
        launch<bf16>(dst, x, num_heads, order, weight, stream);
    else
        launch<f16>(dst, x, num_heads, order, weight, stream);
}

extern "C" void cuda_launch_linear_input(void *dst, const struct tensor *x, const int32_t *order,
                                         const struct cuda_matrix *weight, cudaStream_t stream)
{
    launch_any(dst, x, 1, order, weight, stream);
}

extern "C" void cuda_launch_linear_heads_input(void *dst, const struct tensor *x, int32_t num_heads,
                                               const struct cuda_matrix *weight,
                                               cudaStream_t stream)
{
    launch_any(dst, x, num_heads, NULL, weight, stream);
}
