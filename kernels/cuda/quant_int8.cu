/* quant_int8.cu - products and embeddings of 8-bit whole numbers, see quant_words.cuh. */
#include "kernels/cuda/codecs.cuh"
#include "kernels/cuda/quant_words.cuh"

INT_CODEC(int8);
