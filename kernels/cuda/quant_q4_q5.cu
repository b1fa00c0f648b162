/* quant_q4_q5.cu - products and embeddings of ggml's formats, see quant_ggml.cuh. */
#include "kernels/cuda/codecs.cuh"
#include "kernels/cuda/quant_ggml.cuh"

GGML_CODEC(q4_0);
GGML_CODEC(q4_1);
GGML_CODEC(q5_0);
GGML_CODEC(q5_1);
