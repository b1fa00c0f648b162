/* quant_fp8.cu - products and embeddings of FP8, see quant_words.cuh. */
#include "kernels/cuda/codecs.cuh"
#include "kernels/cuda/quant_words.cuh"

WORDS_CODEC(fp8);
