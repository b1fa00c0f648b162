/* moe.cu - the rows of a mixture of experts around its products: in the order of experts, between
 * the two, and added up per token. One block per row. */
#include "kernels/cuda/activation.cuh"

enum { ROW_THREADS = 256 };

/* Column i of the place's row is column order[i]. */
__device__ __forceinline__ const int32_t *order_of(const struct cuda_moe_turn &t, int32_t place,
                                                   const int32_t *order, int64_t order_ints)
{
    return order ? order + t.ids[t.pairs[place]] * order_ints : NULL;
}

template <typename T>
__global__ void gather_kernel(T *dst, int64_t stride, struct tensor x, struct cuda_moe_turn t,
                              const int32_t *order, int64_t order_ints)
{
    const int32_t place = blockIdx.x, token = t.pairs[place] / t.top_k;
    const float *src = (const float *)x.data + token * x.stride;
    order = order_of(t, place, order, order_ints);
    for (int64_t i = threadIdx.x; i < stride; i += ROW_THREADS)
        dst[place * stride + i] = element<T>::of(i < x.cols ? src[order ? order[i] : i] : 0.0f);
}

template <typename T>
static void launch_gather(void *dst, const struct tensor *x, const struct cuda_moe_turn *t,
                          int64_t stride, const int32_t *order, int64_t order_ints,
                          cudaStream_t stream)
{
    auto *kernel = gather_kernel<T>;
    CUDA_LAUNCH(kernel, dim3(t->num_tokens * t->top_k), dim3(ROW_THREADS), 0, stream, (T *)dst,
                stride, *x, *t, order, order_ints);
}

extern "C" void cuda_launch_moe_gather(void *dst, const struct tensor *x,
                                       const struct cuda_moe_turn *t,
                                       const struct cuda_matrix *weight, const int32_t *order,
                                       int64_t order_ints, cudaStream_t stream)
{
    auto *launch = weight->dtype == DTYPE_F32    ? launch_gather<float>
                   : weight->dtype == DTYPE_BF16 ? launch_gather<bf16>
                                                 : launch_gather<f16>;
    launch(dst, x, t, weight->stride, order, order_ints, stream);
}

template <enum activation ACT> __device__ __forceinline__ float product(float gate, float up)
{
    return activate<ACT>(gate) * gated<ACT>(up);
}

__device__ __forceinline__ float product_of(int32_t act, float gate, float up)
{
    switch (act) {
    case ACT_SILU:
        return product<ACT_SILU>(gate, up);
    case ACT_GELU:
        return product<ACT_GELU>(gate, up);
    case ACT_GELU_TANH:
        return product<ACT_GELU_TANH>(gate, up);
    case ACT_RELU:
        return product<ACT_RELU>(gate, up);
    default:
        return product<ACT_SWIGLU_OAI>(gate, up);
    }
}

template <typename T>
__global__ void activate_kernel(T *dst, int64_t stride, int32_t cols, const float *inner,
                                int32_t act, struct cuda_moe_turn t, const int32_t *order,
                                int64_t order_ints)
{
    const int32_t place = blockIdx.x;
    const float *gate = inner + (int64_t)place * 2 * cols, *up = gate + cols;
    order = order_of(t, place, order, order_ints);
    for (int64_t i = threadIdx.x; i < stride; i += ROW_THREADS) {
        const int64_t from = i < cols && order ? order[i] : i;
        dst[place * stride + i] =
            element<T>::of(i < cols ? product_of(act, gate[from], up[from]) : 0.0f);
    }
}

template <typename T>
static void launch_activate(void *dst, const float *inner, int32_t act,
                            const struct cuda_moe_turn *t, const struct cuda_matrix *weight,
                            const int32_t *order, int64_t order_ints, cudaStream_t stream)
{
    auto *kernel = activate_kernel<T>;
    CUDA_LAUNCH(kernel, dim3(t->num_tokens * t->top_k), dim3(ROW_THREADS), 0, stream, (T *)dst,
                weight->stride, weight->cols, inner, act, *t, order, order_ints);
}

extern "C" void cuda_launch_moe_activate(void *dst, const float *inner, int32_t act,
                                         const struct cuda_moe_turn *t,
                                         const struct cuda_matrix *weight, const int32_t *order,
                                         int64_t order_ints, cudaStream_t stream)
{
    auto *launch = weight->dtype == DTYPE_F32    ? launch_activate<float>
                   : weight->dtype == DTYPE_BF16 ? launch_activate<bf16>
                                                 : launch_activate<f16>;
    launch(dst, inner, act, t, weight, order, order_ints, stream);
}

__global__ void combine_kernel(struct tensor out, const float *y, int64_t y_stride,
                               struct cuda_moe_turn t)
{
    const int32_t token = blockIdx.x, *places = t.places + token * t.top_k;
    const float *weights = t.weights + token * t.top_k;
    float *dst = (float *)out.data + token * out.stride;
    for (int32_t i = threadIdx.x; i < out.cols; i += ROW_THREADS) {
        float sum = __fmul_rn(weights[0], y[places[0] * y_stride + i]);
        for (int32_t n = 1; n < t.top_k; n++)
            sum = __fadd_rn(sum, __fmul_rn(weights[n], y[places[n] * y_stride + i]));
        dst[i] = sum;
    }
}

extern "C" void cuda_launch_moe_combine(const struct tensor *out, const float *y, int64_t y_stride,
                                        const struct cuda_moe_turn *t, cudaStream_t stream)
{
    CUDA_LAUNCH(combine_kernel, dim3(t->num_tokens), dim3(ROW_THREADS), 0, stream, *out, y,
                y_stride, *t);
}
