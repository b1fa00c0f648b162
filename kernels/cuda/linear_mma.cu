/* linear_mma.cu - the table of codecs, and what memory holds as it is. */
#include "kernels/cuda/codecs.cuh"

/* Of embeddings alone: products of float32 are linear_f32.cu's. */
struct float32_codec {
    typedef float S;
    struct raw {
        float4 first, second;
    };
    static __device__ __forceinline__ raw read_one(const struct cuda_matrix &,
                                                   const unsigned char *row, int32_t step, int quad)
    {
        const float4 *at = (const float4 *)row + step * (STEP_COLS / 4) + quad * 2;
        return { at[0], at[1] };
    }
    static __device__ __forceinline__ void values(float out[LANE_COLS], const struct cuda_matrix &,
                                                  const raw &r)
    {
        *(float4 *)out = r.first;
        *(float4 *)(out + 4) = r.second;
    }
};

static void launch_plain(const struct cuda_product *p, cudaStream_t stream)
{
    if (p->weight.dtype == DTYPE_BF16)
        launch_linear<plain_codec<bf16>>(p, stream);
    else
        launch_linear<plain_codec<f16>>(p, stream);
}

static void embed_plain(const struct tensor *out, const int32_t *ids,
                        const struct cuda_matrix *weight, struct cuda_fault *fault,
                        cudaStream_t stream)
{
    if (weight->dtype == DTYPE_F32)
        launch_embedding<float32_codec>(out, ids, weight, fault, stream);
    else if (weight->dtype == DTYPE_BF16)
        launch_embedding<plain_codec<bf16>>(out, ids, weight, fault, stream);
    else
        launch_embedding<plain_codec<f16>>(out, ids, weight, fault, stream);
}

const struct codec_launchers codec_plain = { launch_plain, embed_plain };

/* By enum cuda_codec. */
static const struct codec_launchers *const codecs[NUM_CUDA_CODECS] = {
    &codec_plain, &codec_int4, &codec_int8, &codec_fp8,    &codec_nf4,    &codec_q4_0,
    &codec_q4_1,  &codec_q5_0, &codec_q5_1, &codec_q8_0,   &codec_q2_k,   &codec_q3_k,
    &codec_q4_k,  &codec_q5_k, &codec_q6_k, &codec_iq4_nl, &codec_iq4_xs, &codec_mxfp4,
};

extern "C" void cuda_launch_linear_mma(const struct cuda_product *p, cudaStream_t stream)
{
    if (p->rows > 0)
        codecs[p->weight.layout.codec]->linear(p, stream);
}

extern "C" void cuda_launch_embedding(const struct tensor *out, const int32_t *ids,
                                      const struct cuda_matrix *weight, struct cuda_fault *fault,
                                      cudaStream_t stream)
{
    codecs[weight->layout.codec]->embedding(out, ids, weight, fault, stream);
}
