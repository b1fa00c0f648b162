/* linear_input.cu - a product's activations, rounded once to the dtype of its weights. */
#include "kernels/cuda/common.cuh"

template <typename T>
__global__ void linear_input_kernel(T *dst, int64_t stride, struct tensor x, const int32_t *order)
{
    const float *src = (const float *)x.data + blockIdx.x * x.stride;
    T *out = dst + blockIdx.x * stride;
    for (int64_t i = threadIdx.x; i < stride; i += blockDim.x)
        out[i] = element<T>::of(i < x.cols ? src[order ? order[i] : i] : 0.0f);
}

template <typename T>
static void launch(void *dst, const struct tensor *x, const int32_t *order, int64_t stride,
                   cudaStream_t stream)
{
    auto *kernel = linear_input_kernel<T>;
    if (x->rows > 0)
        CUDA_LAUNCH(kernel, dim3(x->rows), dim3(256), 0, stream, (T *)dst, stride, *x, order);
}

extern "C" void cuda_launch_linear_input(void *dst, const struct tensor *x, const int32_t *order,
                                         const struct cuda_matrix *weight, cudaStream_t stream)
{
    if (weight->dtype == DTYPE_F32)
        launch<float>(dst, x, order, weight->stride, stream);
    else if (weight->dtype == DTYPE_BF16)
        launch<bf16>(dst, x, order, weight->stride, stream);
    else
        launch<f16>(dst, x, order, weight->stride, stream);
}
