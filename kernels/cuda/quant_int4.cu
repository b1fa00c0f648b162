/* quant_int4.cu - products and embeddings of 4-bit whole numbers, see quant_words.cuh. */
#include "kernels/cuda/codecs.cuh"
#include "kernels/cuda/quant_words.cuh"

INT_CODEC(int4);
