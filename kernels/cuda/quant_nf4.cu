/* quant_nf4.cu - products and embeddings of NF4, see quant_words.cuh. */
#include "kernels/cuda/codecs.cuh"
#include "kernels/cuda/quant_words.cuh"

WORDS_CODEC(nf4);
