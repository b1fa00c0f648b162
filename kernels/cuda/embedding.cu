/* embedding.cu - rows of the embedding matrix as float32. */
#include "kernels/cuda/common.cuh"

template <typename T>
__global__ void embedding_kernel(struct tensor out, const int32_t *ids, struct cuda_matrix weight,
                                 struct cuda_fault *fault)
{
    const int32_t row = blockIdx.x, id = ids[row];
    float *dst = (float *)out.data + row * out.stride;
    const bool valid = id >= 0 && id < weight.rows;
    const T *src = (const T *)weight.data + (valid ? id : 0) * weight.stride;
    for (int32_t i = threadIdx.x; i < out.cols; i += blockDim.x)
        dst[i] = valid ? to_float(src[i]) : 0.0f;
    if (!valid && threadIdx.x == 0 &&
        atomicCAS(&fault->kind, (int32_t)CUDA_FAULT_NONE, (int32_t)CUDA_FAULT_EMBEDDING) ==
            CUDA_FAULT_NONE) {
        fault->row = row;
        fault->index = id;
        fault->limit = weight.rows;
    }
}

extern "C" void cuda_launch_embedding(const struct tensor *out, const int32_t *ids,
                                      const struct cuda_matrix *weight, struct cuda_fault *fault,
                                      cudaStream_t stream)
{
    auto *kernel = weight->dtype == DTYPE_F32    ? embedding_kernel<float>
                   : weight->dtype == DTYPE_BF16 ? embedding_kernel<bf16>
                                                 : embedding_kernel<f16>;
    if (out->rows > 0)
        CUDA_LAUNCH(kernel, dim3(out->rows), dim3(256), 0, stream, *out, ids, *weight, fault);
}
