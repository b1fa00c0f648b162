/* attention_prefill.cu - which instance of the prefill kernel a head size takes. */
#include "kernels/cuda/attention_prefill.cuh"

extern "C" void cuda_launch_attention_prefill(const struct cuda_attention *a, cudaStream_t stream)
{
    if (a->params.head_dim <= 64)
        cuda_prefill_64(a, stream);
    else if (a->params.head_dim <= 128)
        cuda_prefill_128(a, stream);
    else
        cuda_prefill_256(a, stream);
}
