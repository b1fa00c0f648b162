/* logits.cu - whole rows gathered, added, scaled and capped. */
#include "kernels/cuda/common.cuh"

enum { THREADS = 256, COLS_PER_BLOCK = 4 * THREADS };

__global__ void gather_rows_kernel(struct tensor out, struct tensor x, const int32_t *indices,
                                   struct cuda_fault *fault)
{
    const int32_t row = blockIdx.x, from = indices[row];
    float *dst = (float *)out.data + row * out.stride;
    const bool valid = from >= 0 && from < x.rows;
    const float *src = (const float *)x.data + (valid ? from : 0) * x.stride;
    for (int32_t i = threadIdx.x; i < out.cols; i += blockDim.x)
        dst[i] = valid ? src[i] : 0.0f;
    if (!valid && threadIdx.x == 0 &&
        atomicCAS(&fault->kind, (int32_t)CUDA_FAULT_NONE, (int32_t)CUDA_FAULT_GATHER) ==
            CUDA_FAULT_NONE) {
        fault->row = row;
        fault->index = from;
        fault->limit = x.rows;
    }
}

extern "C" void cuda_launch_gather_rows(const struct tensor *out, const struct tensor *x,
                                        const int32_t *indices, struct cuda_fault *fault,
                                        cudaStream_t stream)
{
    if (out->rows > 0)
        CUDA_LAUNCH(gather_rows_kernel, dim3(out->rows), dim3(THREADS), 0, stream, *out, *x,
                    indices, fault);
}

/* x = f(x, y) element by element; blocks are (row, piece of columns). */
template <typename F> __global__ void elements_kernel(struct tensor x, struct tensor y, F f)
{
    float *a = (float *)x.data + blockIdx.x * x.stride;
    const float *b = y.data ? (const float *)y.data + blockIdx.x * y.stride : a;
    const int32_t begin = blockIdx.y * COLS_PER_BLOCK + threadIdx.x;
    for (int32_t i = begin; i < x.cols && i < (int32_t)(blockIdx.y + 1) * COLS_PER_BLOCK;
         i += THREADS)
        a[i] = f(a[i], b[i]);
}

template <typename F>
static void launch_elements(const struct tensor *x, const struct tensor *y, F f,
                            cudaStream_t stream)
{
    struct tensor none = {};
    auto *kernel = elements_kernel<F>;
    if (x->rows > 0)
        CUDA_LAUNCH(kernel, dim3(x->rows, blocks_for(x->cols, COLS_PER_BLOCK)), dim3(THREADS), 0,
                    stream, *x, y ? *y : none, f);
}

struct sum_of {
    __device__ float operator()(float a, float b) const
    {
        return a + b;
    }
};
struct scaled {
    float factor;
    __device__ float operator()(float a, float) const
    {
        return a * factor;
    }
};
struct capped {
    float cap;
    __device__ float operator()(float a, float) const
    {
        return cap * tanhf(a / cap);
    }
};

extern "C" void cuda_launch_add(const struct tensor *x, const struct tensor *y, cudaStream_t stream)
{
    launch_elements(x, y, sum_of(), stream);
}

extern "C" void cuda_launch_scale(const struct tensor *x, float factor, cudaStream_t stream)
{
    launch_elements(x, NULL, scaled{ factor }, stream);
}

extern "C" void cuda_launch_softcap(const struct tensor *x, float cap, cudaStream_t stream)
{
    launch_elements(x, NULL, capped{ cap }, stream);
}
