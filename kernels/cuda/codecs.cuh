/* codecs.cuh - what is instantiated for each codec, and the table's rows made of it. */
#ifndef INFERD_KERNELS_CUDA_CODECS_CUH
#define INFERD_KERNELS_CUDA_CODECS_CUH

#include "kernels/cuda/embedding.cuh"
#include "kernels/cuda/gemv.cuh"
#include "kernels/cuda/linear_dense.cuh"

extern "C" {
#include "kernels/quant/quant_format.h"
}

/* A row of the table in linear_mma.cu, one per enum cuda_codec. */
struct codec_launchers {
    void (*linear)(const struct cuda_product *p, cudaStream_t stream);
    void (*embedding)(const struct tensor *out, const int32_t *ids,
                      const struct cuda_matrix *weight, struct cuda_fault *fault,
                      cudaStream_t stream);
};

/* gemv and dense give the same bits, so that the tile may choose between them. */
template <typename C> static void launch_linear(const struct cuda_product *p, cudaStream_t stream)
{
    if (p->tile_rows <= CUDA_GEMV_MAX_ROWS)
        launch_gemv<C>(p, stream);
    else
        launch_dense<C>(p, stream);
}

/* Of a family of codecs, the one for the dtype of the scales. */
template <template <typename> class C>
static void launch_words(const struct cuda_product *p, cudaStream_t stream)
{
    if (p->weight.layout.scale_dtype == DTYPE_F32)
        launch_linear<C<float>>(p, stream);
    else if (p->weight.layout.scale_dtype == DTYPE_BF16)
        launch_linear<C<bf16>>(p, stream);
    else
        launch_linear<C<f16>>(p, stream);
}
template <template <typename> class C>
static void embed_words(const struct tensor *out, const int32_t *ids,
                        const struct cuda_matrix *weight, struct cuda_fault *fault,
                        cudaStream_t stream)
{
    if (weight->layout.scale_dtype == DTYPE_F32)
        launch_embedding<C<float>>(out, ids, weight, fault, stream);
    else if (weight->layout.scale_dtype == DTYPE_BF16)
        launch_embedding<C<bf16>>(out, ids, weight, fault, stream);
    else
        launch_embedding<C<f16>>(out, ids, weight, fault, stream);
}

extern const struct codec_launchers codec_plain, codec_int4, codec_int8, codec_fp8, codec_nf4,
    codec_q4_0, codec_q4_1, codec_q5_0, codec_q5_1, codec_q8_0, codec_q2_k, codec_q3_k, codec_q4_k,
    codec_q5_k, codec_q6_k, codec_iq4_nl, codec_iq4_xs, codec_mxfp4;

/* Whole numbers: those with a minimum are another codec for products. */
template <template <typename> class C, template <typename> class WITH_MIN>
static void launch_ints(const struct cuda_product *p, cudaStream_t stream)
{
    if (p->weight.layout.offset == QUANT_OFFSET_MIN)
        launch_words<WITH_MIN>(p, stream);
    else
        launch_words<C>(p, stream);
}

#define INT_CODEC(name)                                                                            \
    const struct codec_launchers codec_##name = { launch_ints<name##_codec, name##_min_codec>,     \
                                                  embed_words<name##_codec> }
#define WORDS_CODEC(name)                                                                          \
    const struct codec_launchers codec_##name = { launch_words<name##_codec>,                      \
                                                  embed_words<name##_codec> }
#define GGML_CODEC(name)                                                                           \
    const struct codec_launchers codec_##name = { launch_linear<ggml_codec<name##_block>>,         \
                                                  launch_embedding<ggml_codec<name##_block>> }

#endif
