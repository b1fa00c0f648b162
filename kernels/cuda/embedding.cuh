/* embedding.cuh - rows of the embedding matrix as float32. */
#ifndef INFERD_KERNELS_CUDA_EMBEDDING_CUH
#define INFERD_KERNELS_CUDA_EMBEDDING_CUH

#include "kernels/cuda/quant_rows.cuh"

template <typename C>
__global__ void embedding_kernel(struct tensor out, const int32_t *ids, struct cuda_matrix weight,
                                 struct cuda_fault *fault)
{
    const int32_t row = blockIdx.x, id = ids[row];
    float *dst = (float *)out.data + row * out.stride;
    const bool valid = id >= 0 && id < weight.num_ids;
    const bool here = valid && id >= weight.first_id && id - weight.first_id < weight.rows;
    const unsigned char *src = weight_row(weight, here ? id - weight.first_id : 0);
    for (int32_t at = threadIdx.x * LANE_COLS; at < out.cols; at += blockDim.x * LANE_COLS) {
        float value[LANE_COLS];
        C::values(value, weight,
                  C::read_one(weight, src, at / STEP_COLS, at % STEP_COLS / LANE_COLS));
        for (int32_t i = 0; i < LANE_COLS && at + i < out.cols; i++)
            dst[at + i] = here ? rounded<typename C::S>(value[i]) : 0.0f;
    }
    if (!valid && threadIdx.x == 0 &&
        atomicCAS(&fault->kind, (int32_t)CUDA_FAULT_NONE, (int32_t)CUDA_FAULT_EMBEDDING) ==
            CUDA_FAULT_NONE) {
        fault->row = row;
        fault->index = id;
        fault->limit = weight.num_ids;
    }
}

template <typename C>
static void launch_embedding(const struct tensor *out, const int32_t *ids,
                             const struct cuda_matrix *weight, struct cuda_fault *fault,
                             cudaStream_t stream)
{
    auto *kernel = embedding_kernel<C>;
    if (out->rows > 0)
        CUDA_LAUNCH(kernel, dim3(out->rows), dim3(128), 0, stream, *out, ids, *weight, fault);
}

#endif
