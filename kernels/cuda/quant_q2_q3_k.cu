/* quant_q2_q3_k.cu - products and embeddings of ggml's formats, see quant_ggml.cuh. */
#include "kernels/cuda/codecs.cuh"
#include "kernels/cuda/quant_ggml.cuh"

GGML_CODEC(q2_k);
GGML_CODEC(q3_k);
