/* linear_codes.cu - products of codes with codes: activations become 8-bit codes with a scale for
 * each row, and the sums that come of them are scaled afterwards.
 *
 * Sums of whole numbers are exact, whoever makes them and in whatever order: these kernels do in
 * pieces that float32 holds exactly, which int32 adds up; cuBLASLt does in int32. Codes are
 * bfloat16 without loss, so that the kernels are those of all other formats. */
#include "kernels/cuda/codecs.cuh"
#include "kernels/cuda/quant_words.cuh"
#include "kernels/cuda/quantize.cuh"

/* The words' rows without their scales. */
struct int8_code_codec : word_reader<uint2, bf16> {
    typedef float S;
    typedef bf16 T;
    enum { PACKED = 0 };
    static __device__ __forceinline__ void values(float out[LANE_COLS], const struct cuda_matrix &,
                                                  const word_codes<uint2, bf16> &r)
    {
        const struct group_head h = { 1, 128, -0.0f };
#pragma unroll
        for (int i = 0; i < LANE_COLS; i++)
            out[i] = int_value(h, int8_code(r.words, i));
    }
};
struct fp8_code_codec : word_reader<uint2, bf16> {
    typedef float S;
    typedef bf16 T;
    enum { PACKED = 0 };
    static __device__ __forceinline__ void values(float out[LANE_COLS], const struct cuda_matrix &,
                                                  const word_codes<uint2, bf16> &r)
    {
#pragma unroll
        for (int i = 0; i < LANE_COLS; i++)
            out[i] = float_of_e4m3((i < 4 ? r.words.x : r.words.y) >> i % 4 * 8 & 255u);
    }
};

template <> struct product_sum<int8_code_codec> {
    typedef int32_t T;
};

extern "C" void cuda_launch_linear_codes(const struct cuda_product *p, cudaStream_t stream)
{
    if (p->rows > 0 && p->weight.layout.codec == CUDA_INT8)
        launch_linear<int8_code_codec>(p, stream);
    else if (p->rows > 0)
        launch_linear<fp8_code_codec>(p, stream);
}

/* --- activations ------------------------------------------------------------------------------ */

enum { QUANTIZE_WARPS = 8 };

/* By the row's greatest magnitude. */
template <bool FP8> __device__ __forceinline__ float row_scale(const float *src, int32_t cols)
{
    float most = 0;
    for (int32_t i = threadIdx.x; i < cols; i += blockDim.x)
        most = max_op()(fabsf(src[i]), most);
    return scale_of<FP8>(block_reduce<QUANTIZE_WARPS>(most, max_op()));
}

/* A row for each block; 8 columns for a thread at once, as a lane of a product has them. */
template <bool FP8, bool PACKED>
__global__ void quantize_kernel(struct cuda_codes dst, struct tensor x)
{
    const float *src = (const float *)x.data + blockIdx.x * x.stride;
    const float scale = dst.scale > 0 ? dst.scale : row_scale<FP8>(src, x.cols);
    if (threadIdx.x == 0)
        dst.scales[blockIdx.x] = scale;
    for (int32_t col = threadIdx.x * LANE_COLS; col < dst.stride; col += blockDim.x * LANE_COLS) {
        union {
            bf16 wide[LANE_COLS];
            uint4 words;
        } plain;
        union {
            unsigned char codes[LANE_COLS];
            uint2 words;
        } packed;
#pragma unroll
        for (int i = 0; i < LANE_COLS; i++) {
            const uint32_t code = col + i < x.cols ? code_of<FP8>(src[col + i], scale) : 0;
            packed.codes[i] = (unsigned char)code;
            plain.wide[i] = wide_code<FP8>(code);
        }
        char *row = code_row<PACKED>(dst, blockIdx.x);
        if (PACKED)
            *(uint2 *)(row + packed_place(col)) = packed.words;
        else
            *(uint4 *)(row + col * sizeof(bf16)) = plain.words;
    }
}

extern "C" void cuda_launch_quantize(const struct cuda_codes *dst, const struct tensor *x,
                                     cudaStream_t stream)
{
    auto *kernel = dst->is_fp8
                       ? dst->packed ? quantize_kernel<true, true> : quantize_kernel<true, false>
                   : dst->packed ? quantize_kernel<false, true>
                                 : quantize_kernel<false, false>;
    if (x->rows > 0)
        CUDA_LAUNCH(kernel, dim3(x->rows), dim3(QUANTIZE_WARPS * WARP), 0, stream, *dst, *x);
}

/* --- sums ------------------------------------------------------------------------------------- */

enum { SCALE_THREADS = 256 };

template <typename S, bool WHOLE>
__global__ void scale_sums_kernel(struct cuda_product p, const float *scales)
{
    const int32_t feature = blockIdx.y * SCALE_THREADS + threadIdx.x;
    if (feature >= p.weight.rows)
        return;
    const S *head = (const S *)(weight_row(p.weight, feature) + p.weight.layout.heads_at);
    float *out = p.out + blockIdx.x * p.out_stride + feature;
    const float sum = WHOLE ? (float)(int32_t)__float_as_uint(*out) : *out;
    const float scaled = __fmul_rn(__fmul_rn(sum, scales[blockIdx.x]), to_float(*head));
    *out = p.bias ? __fadd_rn(scaled, p.bias[feature]) : scaled;
}

template <typename S>
static void launch_scale_sums(const struct cuda_product *p, const float *scales, bool whole,
                              cudaStream_t stream)
{
    auto *kernel = whole ? scale_sums_kernel<S, true> : scale_sums_kernel<S, false>;
    const dim3 grid(p->rows, blocks_for(p->weight.rows, SCALE_THREADS));
    if (p->rows > 0)
        CUDA_LAUNCH(kernel, grid, dim3(SCALE_THREADS), 0, stream, *p, scales);
}

extern "C" void cuda_launch_scale_sums(const struct cuda_product *p, const float *scales,
                                       cudaStream_t stream)
{
    const bool whole = p->weight.layout.codec == CUDA_INT8;
    if (p->weight.layout.scale_dtype == DTYPE_F32)
        launch_scale_sums<float>(p, scales, whole, stream);
    else if (p->weight.layout.scale_dtype == DTYPE_BF16)
        launch_scale_sums<bf16>(p, scales, whole, stream);
    else
        launch_scale_sums<f16>(p, scales, whole, stream);
}
