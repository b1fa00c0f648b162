/* quant_ggml.cuh - codecs of ggml's formats, whose blocks are read as they are in the file. The
 * layouts and formulas are those of kernels/quant, 8 columns at a time: in every format these are 8
 * neighbouring bytes' halves, quarters or bytes. */
#ifndef INFERD_KERNELS_CUDA_QUANT_GGML_CUH
#define INFERD_KERNELS_CUDA_QUANT_GGML_CUH

#include "kernels/cuda/quant_rows.cuh"

/* Blocks begin at even addresses, but for MXFP4's. */
__device__ __forceinline__ uint32_t load_2(const unsigned char *at)
{
    return *(const uint16_t *)at;
}
__device__ __forceinline__ uint32_t load_4(const unsigned char *at)
{
    return load_2(at) | load_2(at + 2) << 16;
}
__device__ __forceinline__ float load_half(const unsigned char *at)
{
    return to_float(*(const f16 *)at);
}

struct eight_bytes {
    uint32_t low, high;
    __device__ __forceinline__ uint32_t at(int i) const
    {
        return (i < 4 ? low : high) >> i % 4 * 8 & 255u;
    }
};
__device__ __forceinline__ struct eight_bytes load_8(const unsigned char *at)
{
    return { load_4(at), load_4(at + 4) };
}

__device__ __forceinline__ float times(float a, int32_t b)
{
    return __fmul_rn(a, (float)b);
}

/* Entry `code` of a table of 16 signed bytes, the first in the lowest bits of `low`. */
__device__ __forceinline__ int32_t table_entry(uint64_t low, uint64_t high, uint32_t code)
{
    return (int8_t)((code & 8u ? high : low) >> (code & 7u) * 8);
}
__device__ __forceinline__ int32_t iq4_entry(uint32_t code)
{
    return table_entry(0xf6eaddcfbfad9881ull, 0x7159453526190d01ull, code);
}
__device__ __forceinline__ int32_t mxfp4_entry(uint32_t code)
{
    return table_entry(0x0c08060403020100ull, 0xf4f8fafcfdfeff00ull, code);
}

/* Each has its block's size and `block`: the elements from `col` on, a multiple of 8. */

struct q4_0_block {
    enum { COLS = 32, BYTES = 18 };
    static __device__ __forceinline__ void block(float out[LANE_COLS], const unsigned char *b,
                                                 int col)
    {
        const float d = load_half(b);
        const struct eight_bytes codes = load_8(b + 2 + col % 16);
        for (int i = 0; i < LANE_COLS; i++)
            out[i] = times(d, (int32_t)(codes.at(i) >> col / 16 * 4 & 15u) - 8);
    }
};

struct q4_1_block {
    enum { COLS = 32, BYTES = 20 };
    static __device__ __forceinline__ void block(float out[LANE_COLS], const unsigned char *b,
                                                 int col)
    {
        const float d = load_half(b), min = load_half(b + 2);
        const struct eight_bytes codes = load_8(b + 4 + col % 16);
        for (int i = 0; i < LANE_COLS; i++)
            out[i] = __fadd_rn(times(d, (int32_t)(codes.at(i) >> col / 16 * 4 & 15u)), min);
    }
};

/* Codes of 5 bits; `b`: the fifth bits, then the others as in Q4_0. */
__device__ __forceinline__ void five_bits(int32_t out[LANE_COLS], const unsigned char *b, int col)
{
    const uint32_t fifth = load_4(b) >> col;
    const struct eight_bytes codes = load_8(b + 4 + col % 16);
    for (int i = 0; i < LANE_COLS; i++)
        out[i] = (int32_t)((codes.at(i) >> col / 16 * 4 & 15u) | (fifth >> i & 1u) << 4);
}

struct q5_0_block {
    enum { COLS = 32, BYTES = 22 };
    static __device__ __forceinline__ void block(float out[LANE_COLS], const unsigned char *b,
                                                 int col)
    {
        int32_t codes[LANE_COLS];
        five_bits(codes, b + 2, col);
        for (int i = 0; i < LANE_COLS; i++)
            out[i] = times(load_half(b), codes[i] - 16);
    }
};

struct q5_1_block {
    enum { COLS = 32, BYTES = 24 };
    static __device__ __forceinline__ void block(float out[LANE_COLS], const unsigned char *b,
                                                 int col)
    {
        int32_t codes[LANE_COLS];
        five_bits(codes, b + 4, col);
        for (int i = 0; i < LANE_COLS; i++)
            out[i] = __fadd_rn(times(load_half(b), codes[i]), load_half(b + 2));
    }
};

struct q8_0_block {
    enum { COLS = 32, BYTES = 34 };
    static __device__ __forceinline__ void block(float out[LANE_COLS], const unsigned char *b,
                                                 int col)
    {
        const float d = load_half(b);
        const struct eight_bytes codes = load_8(b + 2 + col);
        for (int i = 0; i < LANE_COLS; i++)
            out[i] = times(d, (int8_t)codes.at(i));
    }
};

/* The byte from which on the codes of 2 bits of Q2_K and Q3_K lie, and how far they are up in it.
 */
__device__ __forceinline__ int two_bits_at(int col)
{
    return col / 128 * 32 + col % 32;
}
__device__ __forceinline__ int two_bits_shift(int col)
{
    return col % 128 / 32 * 2;
}

struct q2_k_block {
    enum { COLS = 256, BYTES = 84 };
    static __device__ __forceinline__ void block(float out[LANE_COLS], const unsigned char *b,
                                                 int col)
    {
        const int32_t scales = b[col / 16];
        const float scale = times(load_half(b + 80), scales & 15);
        const float min = times(load_half(b + 82), scales >> 4);
        const struct eight_bytes codes = load_8(b + 16 + two_bits_at(col));
        for (int i = 0; i < LANE_COLS; i++)
            out[i] =
                __fsub_rn(times(scale, (int32_t)(codes.at(i) >> two_bits_shift(col) & 3u)), min);
    }
};

struct q3_k_block {
    enum { COLS = 256, BYTES = 110 };
    static __device__ __forceinline__ void block(float out[LANE_COLS], const unsigned char *b,
                                                 int col)
    {
        const int group = col / 16;
        const unsigned char *packed = b + 96;
        const int low = group < 8 ? packed[group] & 15 : packed[group - 8] >> 4;
        const int high = packed[8 + group % 4] >> group / 4 * 2 & 3;
        const float scale = times(load_half(b + 108), (low | high << 4) - 32);
        const struct eight_bytes codes = load_8(b + 32 + two_bits_at(col)),
                                 third = load_8(b + col % 32);
        for (int i = 0; i < LANE_COLS; i++) {
            const int32_t code = (int32_t)(codes.at(i) >> two_bits_shift(col) & 3u);
            out[i] = times(scale, code - (third.at(i) >> col / 32 & 1u ? 0 : 4));
        }
    }
};

/* Q4_K and Q5_K: `high` is 0 or where the fifth bits lie. */
template <int BYTES_, int HIGH, int CODES> struct k_block {
    enum { COLS = 256, BYTES = BYTES_ };
    static __device__ __forceinline__ void block(float out[LANE_COLS], const unsigned char *b,
                                                 int col)
    {
        const int group = col / 32, i4 = group % 4;
        const unsigned char *packed = b + 4;
        int scale6 = packed[i4] & 63, min6 = packed[4 + i4] & 63;
        if (group >= 4) {
            scale6 = (packed[8 + i4] & 15) | (packed[i4] >> 2 & 48);
            min6 = packed[8 + i4] >> 4 | (packed[4 + i4] >> 2 & 48);
        }
        const float scale = times(load_half(b), scale6), min = times(load_half(b + 2), min6);
        const struct eight_bytes codes = load_8(b + CODES + group / 2 * 32 + col % 32),
                                 fifth = load_8(b + HIGH + col % 32);
        for (int i = 0; i < LANE_COLS; i++) {
            uint32_t code = codes.at(i) >> group % 2 * 4 & 15u;
            if (HIGH > 0)
                code |= (fifth.at(i) >> group & 1u) << 4;
            out[i] = __fsub_rn(times(scale, (int32_t)code), min);
        }
    }
};
typedef k_block<144, 0, 16> q4_k_block;
typedef k_block<176, 16, 48> q5_k_block;

struct q6_k_block {
    enum { COLS = 256, BYTES = 210 };
    static __device__ __forceinline__ void block(float out[LANE_COLS], const unsigned char *b,
                                                 int col)
    {
        const int half = col / 128, quarter = col % 128 / 32;
        const float scale = times(load_half(b + 208), (int8_t)b[192 + col / 16]);
        const struct eight_bytes low = load_8(b + half * 64 + quarter % 2 * 32 + col % 32),
                                 high = load_8(b + 128 + half * 32 + col % 32);
        for (int i = 0; i < LANE_COLS; i++) {
            const uint32_t code =
                (low.at(i) >> quarter / 2 * 4 & 15u) | (high.at(i) >> quarter * 2 & 3u) << 4;
            out[i] = times(scale, (int32_t)code - 32);
        }
    }
};

struct iq4_nl_block {
    enum { COLS = 32, BYTES = 18 };
    static __device__ __forceinline__ void block(float out[LANE_COLS], const unsigned char *b,
                                                 int col)
    {
        const struct eight_bytes codes = load_8(b + 2 + col % 16);
        for (int i = 0; i < LANE_COLS; i++)
            out[i] = times(load_half(b), iq4_entry(codes.at(i) >> col / 16 * 4 & 15u));
    }
};

struct iq4_xs_block {
    enum { COLS = 256, BYTES = 136 };
    static __device__ __forceinline__ void block(float out[LANE_COLS], const unsigned char *b,
                                                 int col)
    {
        const int group = col / 32;
        const int low = b[4 + group / 2] >> group % 2 * 4 & 15;
        const int high = b[2 + group / 4] >> group % 4 * 2 & 3;
        const float scale = times(load_half(b), (low | high << 4) - 32);
        const struct eight_bytes codes = load_8(b + 8 + group * 16 + col % 16);
        for (int i = 0; i < LANE_COLS; i++)
            out[i] = times(scale, iq4_entry(codes.at(i) >> col % 32 / 16 * 4 & 15u));
    }
};

/* Codes twice what they stand for, the scale half of it; the smallest two are subnormals. */
struct mxfp4_block {
    enum { COLS = 32, BYTES = 17 };
    static __device__ __forceinline__ void block(float out[LANE_COLS], const unsigned char *b,
                                                 int col)
    {
        const uint32_t exponent = b[0];
        const float d =
            __uint_as_float(exponent < 2 ? 0x00200000u << exponent : (exponent - 1) << 23);
        for (int i = 0; i < LANE_COLS; i++)
            out[i] = times(d, mxfp4_entry(b[1 + col % 16 + i] >> col / 16 * 4 & 15u));
    }
};

template <typename Block> struct ggml_codec {
    typedef bf16 T;
    typedef float S;
    enum { STEPS = 1, PLAIN = 0, PACKED = 0, AT_ONCE = 1, HEAD_MODES = 0 };
    struct raw {
        float value[LANE_COLS];
    };
    static __device__ __forceinline__ raw read_one(const struct cuda_matrix &,
                                                   const unsigned char *row, int32_t step, int quad)
    {
        raw r;
        const int32_t col = step * STEP_COLS + quad * LANE_COLS;
        Block::block(r.value, row + (int64_t)(col / Block::COLS) * Block::BYTES, col % Block::COLS);
        return r;
    }
    template <head_mode MODE>
    static __device__ __forceinline__ void read(raw out[STEPS], const struct cuda_matrix &m,
                                                const unsigned char *row, int32_t first, int n,
                                                int quad)
    {
        out[0] = read_one(m, row, first + n, quad);
    }
    static __device__ __forceinline__ void values(float out[LANE_COLS], const struct cuda_matrix &,
                                                  const raw &r)
    {
        for (int i = 0; i < LANE_COLS; i++)
            out[i] = r.value[i];
    }
};

#endif
