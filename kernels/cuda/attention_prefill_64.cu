/* attention_prefill_64.cu - the prefill kernel for head sizes up to 64. */
#include "kernels/cuda/attention_prefill.cuh"

INSTANTIATE_PREFILL(64)
