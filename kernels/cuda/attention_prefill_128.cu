/* attention_prefill_128.cu - the prefill kernel for head sizes up to 128. */
#include "kernels/cuda/attention_prefill.cuh"

INSTANTIATE_PREFILL(128)
