/* attention_prefill_256.cu - the prefill kernel for head sizes up to 256. */
#include "kernels/cuda/attention_prefill.cuh"

INSTANTIATE_PREFILL(256)
