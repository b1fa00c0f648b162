/* quant_q4_q6_k.cu - products and embeddings of ggml's formats, see quant_ggml.cuh. */
#include "kernels/cuda/codecs.cuh"
#include "kernels/cuda/quant_ggml.cuh"

GGML_CODEC(q4_k);
GGML_CODEC(q5_k);
GGML_CODEC(q6_k);
