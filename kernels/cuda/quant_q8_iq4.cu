/* quant_q8_iq4.cu - products and embeddings of ggml's formats, see quant_ggml.cuh. */
#include "kernels/cuda/codecs.cuh"
#include "kernels/cuda/quant_ggml.cuh"

GGML_CODEC(q8_0);
GGML_CODEC(iq4_nl);
GGML_CODEC(iq4_xs);
GGML_CODEC(mxfp4);
