/* quant_words.cuh - codecs of the formats whose rows are rearranged, see cuda_sizes.h: whole
 * numbers of 4 and 8 bits, FP8 and NF4. S is the dtype of their scales, or what NF4 is rounded to.
 */
#ifndef INFERD_KERNELS_CUDA_QUANT_WORDS_CUH
#define INFERD_KERNELS_CUDA_QUANT_WORDS_CUH

#include "kernels/cuda/float8.cuh"
#include "kernels/cuda/quant_rows.cuh"

extern "C" {
#include "kernels/quant/nf4.h"
}

/* Scales of float32 have bfloat16 products. */
template <typename S> struct product_dtype {
    typedef S T;
};
template <> struct product_dtype<float> {
    typedef bf16 T;
};

/* An element is (code - zero) * scale + min. Adding -0 changes nothing. */
struct group_head {
    float scale, zero, min;
};

/* A group's numbers as they are stored. */
template <typename S> struct raw_head {
    S scale, second;
};

__device__ __forceinline__ float zero_point(float bits)
{
    return (float)(int32_t)__float_as_uint(bits);
}
template <typename S> __device__ __forceinline__ float zero_point(S bits)
{
    union {
        S element;
        int16_t number;
    } u = { bits };
    return (float)u.number;
}

/* Of the group that `col` lies in. */
template <typename S>
__device__ __forceinline__ struct raw_head<S> read_head(const struct cuda_matrix &m,
                                                        const unsigned char *row, int32_t col) {
    const S *at = (const S *)(row + m.layout.heads_at);
    const int32_t group = col >> m.layout.group_shift;
    if (m.layout.offset == QUANT_OFFSET_MIDDLE)
        return { at[group], at[group] };
    return { at[group * 2], at[group * 2 + 1] };
}

template <typename S>
__device__ __forceinline__ struct group_head open_head(const struct cuda_matrix &m,
                                                       const struct raw_head<S> &raw, float middle)
{
    struct group_head h = { to_float(raw.scale), middle, -0.0f };
    if (m.layout.offset == QUANT_OFFSET_ZERO) {
        h.zero = zero_point(raw.second);
    } else if (m.layout.offset == QUANT_OFFSET_MIN) {
        h.zero = 0;
        h.min = to_float(raw.second);
    }
    return h;
}

/* `code` is below 2^23: as the low bits of 2^23 it is a float32 without a conversion. */
__device__ __forceinline__ float int_value(const struct group_head &h, uint32_t code)
{
    const float number = __fsub_rn(__uint_as_float(0x4b000000u | code), __fadd_rn(h.zero, 0x1p23f));
    return __fadd_rn(__fmul_rn(number, h.scale), h.min);
}

/* --- reading: Words is what 8 codes fill, uint32_t or uint2 ----------------------------------- */

template <typename Words, typename Head> struct word_codes {
    Words words;
    struct raw_head<Head> head;
};

template <typename Words, typename Head> struct word_reader {
    typedef struct word_codes<Words, Head> raw;
    enum { STEPS = 16 / sizeof(Words), PLAIN = 0 };
    static __device__ __forceinline__ raw read_one(const struct cuda_matrix &m,
                                                   const unsigned char *row, int32_t step, int quad)
    {
        const unsigned char *chunk = row + (int64_t)(step / STEPS) * CUDA_CODE_CHUNK + quad * 16;
        return { ((const Words *)chunk)[step % STEPS],
                 read_head<Head>(m, row, step * STEP_COLS + quad * LANE_COLS) };
    }
    static __device__ __forceinline__ void read(raw out[STEPS], const struct cuda_matrix &m,
                                                const unsigned char *row, int32_t step, int quad)
    {
        union {
            uint4 all;
            Words words[STEPS];
        } u = { load_once(row + (int64_t)(step / STEPS) * CUDA_CODE_CHUNK + quad * 16) };
        /* Of the last chunk, steps past the stride have codes, but no group. */
        const int32_t last = (int32_t)m.stride - 1;
#pragma unroll
        for (int i = 0; i < STEPS; i++) {
            const int32_t col = (step + i) * STEP_COLS + quad * LANE_COLS;
            out[i] = { u.words[i], read_head<Head>(m, row, col < last ? col : last) };
        }
    }
};

/* --- the codecs ------------------------------------------------------------------------------- */

template <typename S_> struct int4_codec : word_reader<uint32_t, S_> {
    typedef S_ S;
    typedef typename product_dtype<S>::T T;
    static __device__ __forceinline__ void values(float out[LANE_COLS], const struct cuda_matrix &m,
                                                  const word_codes<uint32_t, S> &r)
    {
        const struct group_head h = open_head(m, r.head, 8.0f);
#pragma unroll
        for (int i = 0; i < LANE_COLS; i++)
            out[i] = int_value(h, r.words >> (i / 2 * 4 + i % 2 * 16) & 15u);
    }
};

/* Code i of 8, from 0 to 255; memory holds it less 128, as tensor cores of 8 bits take it. */
__device__ __forceinline__ uint32_t int8_code(const uint2 &words, int i)
{
    return ((i < 4 ? words.x : words.y) ^ 0x80808080u) >> i % 4 * 8 & 255u;
}

template <typename S_> struct int8_codec : word_reader<uint2, S_> {
    typedef S_ S;
    typedef typename product_dtype<S>::T T;
    static __device__ __forceinline__ void values(float out[LANE_COLS], const struct cuda_matrix &m,
                                                  const word_codes<uint2, S> &r)
    {
        const struct group_head h = open_head(m, r.head, 128.0f);
#pragma unroll
        for (int i = 0; i < LANE_COLS; i++)
            out[i] = int_value(h, int8_code(r.words, i));
    }
};

template <typename S_> struct fp8_codec : word_reader<uint2, S_> {
    typedef S_ S;
    typedef typename product_dtype<S>::T T;
    static __device__ __forceinline__ void values(float out[LANE_COLS], const struct cuda_matrix &,
                                                  const word_codes<uint2, S> &r)
    {
        const float scale = to_float(r.head.scale);
#pragma unroll
        for (int i = 0; i < LANE_COLS; i++)
            out[i] = __fmul_rn(float_of_e4m3((i < 4 ? r.words.x : r.words.y) >> i % 4 * 8 & 255u),
                               scale);
    }
};

static __device__ const float nf4_table[16] = NF4_VALUES;

template <typename S_> struct nf4_codec : word_reader<uint32_t, float> {
    typedef S_ S;
    typedef typename product_dtype<S>::T T;
    static __device__ __forceinline__ void values(float out[LANE_COLS], const struct cuda_matrix &,
                                                  const word_codes<uint32_t, float> &r)
    {
#pragma unroll
        for (int i = 0; i < LANE_COLS; i++)
            out[i] = __fmul_rn(nf4_table[r.words >> (i / 2 * 4 + i % 2 * 16) & 15u], r.head.scale);
    }
};

#endif
