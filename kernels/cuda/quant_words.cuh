/* quant_words.cuh - codecs of the formats whose rows are rearranged, see cuda_sizes.h: whole
 * numbers of 4 and 8 bits, FP8 and NF4. S is the dtype of their scales, or what NF4 is rounded to.
 */
#ifndef INFERD_KERNELS_CUDA_QUANT_WORDS_CUH
#define INFERD_KERNELS_CUDA_QUANT_WORDS_CUH

#include "kernels/cuda/float8.cuh"
#include "kernels/cuda/quant_rows.cuh"

#include <type_traits>

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

/* COUNT neighbours that begin at a multiple of their size, or of 16 bytes. */
template <typename E, int COUNT> __device__ __forceinline__ void load_row(E out[COUNT], const E *at)
{
    union {
        uint4 all[sizeof(E) * COUNT < 16 ? 1 : sizeof(E) * COUNT / 16];
        uint2 two;
        uint32_t word;
        E elements[COUNT];
    } u;
    if constexpr (sizeof(E) * COUNT == 4) {
        u.word = *(const uint32_t *)at;
    } else if constexpr (sizeof(E) * COUNT == 8) {
        u.two = *(const uint2 *)at;
    } else {
#pragma unroll
        for (int i = 0; i < (int)(sizeof(E) * COUNT / 16); i++)
            u.all[i] = load_shared_by_blocks((const uint4 *)at + i);
    }
#pragma unroll
    for (int i = 0; i < COUNT; i++)
        out[i] = u.elements[i];
}

/* Of the group that `col` lies in. */
template <typename S>
__device__ __forceinline__ struct raw_head<S> read_head(const struct cuda_matrix &m,
                                                        const unsigned char *row, int32_t col) {
    const S *at = (const S *)(row + m.layout.heads_at);
    const int32_t group = col >> m.layout.group_shift;
    if (m.layout.offset == QUANT_OFFSET_MIDDLE)
        return { at[group], at[group] };
    S both[2];
    load_row<S, 2>(both, at + group * 2);
    return { both[0], both[1] };
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
    enum {
        STEPS = 16 / sizeof(Words),
        PLAIN = 0,
        AT_ONCE = 8 / STEPS,
        HEAD_MODES = 1,
        READ_SHIFT = STEPS == 4 ? 7 : 6,
        STEP_SHIFT = 5
    };
    static __device__ __forceinline__ raw read_one(const struct cuda_matrix &m,
                                                   const unsigned char *row, int32_t step, int quad)
    {
        const unsigned char *chunk = row + (int64_t)(step / STEPS) * CUDA_CODE_CHUNK + quad * 16;
        return { ((const Words *)chunk)[step % STEPS],
                 read_head<Head>(m, row, step * STEP_COLS + quad * LANE_COLS) };
    }
    /* Of reads that lie in a row whole. */
    static __device__ __forceinline__ enum head_mode mode(const struct cuda_matrix &m)
    {
        return m.layout.group_shift >= READ_SHIFT   ? HEADS_ONE
               : m.layout.group_shift == STEP_SHIFT ? HEADS_EACH
                                                    : HEADS_ANY;
    }
    template <head_mode MODE>
    static __device__ __forceinline__ void read_heads(struct raw_head<Head> out[STEPS],
                                                      const struct cuda_matrix &m,
                                                      const unsigned char *row, int32_t step,
                                                      int quad)
    {
        if constexpr (MODE == HEADS_EACH) {
            const Head *at = (const Head *)(row + m.layout.heads_at);
            Head heads[STEPS * 2];
            if (m.layout.head_bytes == sizeof(Head))
                load_row<Head, STEPS>(heads, at + step);
            else
                load_row<Head, STEPS * 2>(heads, at + step * 2);
#pragma unroll
            for (int i = 0; i < STEPS; i++)
                out[i] = m.layout.head_bytes == sizeof(Head)
                             ? raw_head<Head>{ heads[i], heads[i] }
                             : raw_head<Head>{ heads[i * 2], heads[i * 2 + 1] };
        } else {
            /* Of the last chunk, steps past the stride have codes, but no group. */
            const int32_t last = (int32_t)m.stride - 1;
#pragma unroll
            for (int i = 0; i < STEPS; i++) {
                const int32_t col = (step + i) * STEP_COLS + quad * LANE_COLS;
                out[i] =
                    MODE == HEADS_ONE && i > 0
                        ? out[0]
                        : read_head<Head>(m, row, MODE == HEADS_ONE || col < last ? col : last);
            }
        }
    }
    template <head_mode MODE>
    static __device__ __forceinline__ void read(raw out[STEPS], const struct cuda_matrix &m,
                                                const unsigned char *row, int32_t first, int n,
                                                int quad)
    {
        const int64_t chunk = (uint32_t)first / STEPS;
        union {
            uint4 all;
            Words words[STEPS];
        } u = { load_once(row + chunk * CUDA_CODE_CHUNK + quad * 16 + n * CUDA_CODE_CHUNK) };
        struct raw_head<Head> heads[STEPS];
        read_heads<MODE>(heads, m, row, first + n * STEPS, quad);
#pragma unroll
        for (int i = 0; i < STEPS; i++)
            out[i] = { u.words[i], heads[i] };
    }
};

/* --- pairs of elements ------------------------------------------------------------------------ */

/* Two times a number of float16, exact up to 2048. */
__device__ __forceinline__ uint32_t f16_twice(float x)
{
    return pack_pair<f16, nearest_element>(x, x);
}

/* What multiplies and is added to a pair of whole numbers in float16. */
template <typename S> struct pair_scale {
    float scale, min;
    uint32_t twice; /* the scale, if it is of float16 */
};
template <typename S>
__device__ __forceinline__ struct pair_scale<S> make_pair_scale(S scale, float min) {
    return { to_float(scale), min, f16_twice(to_float(scale)) };
}

/* The elements of a pair of numbers, which float16 holds exactly. A number has up to 9 bits: its
 * product with a scale of 16 bits is exact in float32, so that rounding it once, as float16 or
 * together with the minimum, gives the bits of values(). */
template <typename S, typename T, bool MIN>
__device__ __forceinline__ uint32_t scale_pair(const struct pair_scale<S> &s, uint32_t numbers)
{
    if constexpr (std::is_same<S, f16>::value && !MIN) {
        return fma_pair<f16>(numbers, s.twice, 0x80008000u);
    } else {
        const float2 n = split_pair<f16>(numbers);
        float a, b;
        if constexpr (!MIN) {
            a = __fmul_rn(n.x, s.scale);
            b = __fmul_rn(n.y, s.scale);
        } else if constexpr (std::is_same<S, float>::value) {
            a = __fadd_rn(__fmul_rn(n.x, s.scale), s.min);
            b = __fadd_rn(__fmul_rn(n.y, s.scale), s.min);
        } else {
            a = __fmaf_rn(n.x, s.scale, s.min);
            b = __fmaf_rn(n.y, s.scale, s.min);
        }
        return pack_pair<T, nearest_element>(a, b);
    }
}

/* --- the codecs ------------------------------------------------------------------------------- */

/* Code i of 8, from 0 to 255; memory holds it less 128, as tensor cores of 8 bits take it. */
__device__ __forceinline__ uint32_t int8_code(const uint2 &words, int i)
{
    return ((i < 4 ? words.x : words.y) ^ 0x80808080u) >> i % 4 * 8 & 255u;
}

/* Whole numbers of 4 bits (Words is uint32_t) or 8. MIN: with a minimum (QUANT_OFFSET_MIN), for
 * `packed`; zero points lie in [-256, 256]. */
template <typename S_, typename Words, bool MIN> struct int_codec : word_reader<Words, S_> {
    typedef S_ S;
    typedef typename product_dtype<S>::T T;
    enum { PACKED = 1, IS_4 = sizeof(Words) == 4 };
    static __device__ __forceinline__ float middle(void)
    {
        return IS_4 ? 8.0f : 128.0f;
    }
    static __device__ __forceinline__ void values(float out[LANE_COLS], const struct cuda_matrix &m,
                                                  const word_codes<Words, S> &r)
    {
        const struct group_head h = open_head(m, r.head, middle());
#pragma unroll
        for (int i = 0; i < LANE_COLS; i++) {
            if constexpr (IS_4)
                out[i] = int_value(h, r.words >> (i / 2 * 4 + i % 2 * 16) & 15u);
            else
                out[i] = int_value(h, int8_code(r.words, i));
        }
    }
    static __device__ __forceinline__ uint4 packed(const struct cuda_matrix &m,
                                                   const word_codes<Words, S> &r)
    {
        const struct pair_scale<S> s =
            make_pair_scale<S>(r.head.scale, MIN ? to_float(r.head.second) : 0.0f);
        const float zero = MIN                                    ? 0.0f
                           : m.layout.offset == QUANT_OFFSET_ZERO ? zero_point(r.head.second)
                                                                  : middle();
        uint32_t out[4];
        if constexpr (IS_4 && std::is_same<S, bf16>::value && !MIN) {
            /* The low bits of 128 in bfloat16. */
            const float from = -128.0f - zero, scale = s.scale;
            const uint32_t minus = pack_pair<bf16>(from, from), by = pack_pair<bf16>(scale, scale);
#pragma unroll
            for (int i = 0; i < 4; i++) {
                const uint32_t biased = and_or(r.words >> i * 4, 0x000f000fu, 0x43004300u);
                out[i] =
                    fma_pair<bf16>(fma_pair<bf16>(biased, 0x3f803f80u, minus), by, 0x80008000u);
            }
        } else if constexpr (IS_4) {
            /* The low bits of 1024 in float16, or 4 bits further up: 16 times as much. */
            const uint32_t low = f16_twice(-1024.0f - zero), high = f16_twice(-64.0f - zero);
#pragma unroll
            for (int i = 0; i < 4; i++) {
                const uint32_t word = r.words >> i / 2 * 8;
                const uint32_t biased =
                    and_or(word, i % 2 ? 0x00f000f0u : 0x000f000fu, 0x64006400u);
                const uint32_t numbers =
                    fma_pair<f16>(biased, i % 2 ? 0x2c002c00u : 0x3c003c00u, i % 2 ? high : low);
                out[i] = scale_pair<S, T, MIN>(s, numbers);
            }
        } else {
            const uint32_t minus = f16_twice(-1024.0f - zero);
#pragma unroll
            for (int i = 0; i < 4; i++) {
                const uint32_t biased = __byte_perm((i < 2 ? r.words.x : r.words.y) ^ 0x80808080u,
                                                    0x64646464u, i % 2 ? 0x4342 : 0x4140);
                out[i] = scale_pair<S, T, MIN>(s, fma_pair<f16>(biased, 0x3c003c00u, minus));
            }
        }
        return make_uint4(out[0], out[1], out[2], out[3]);
    }
};
template <typename S> using int4_codec = int_codec<S, uint32_t, false>;
template <typename S> using int4_min_codec = int_codec<S, uint32_t, true>;
template <typename S> using int8_codec = int_codec<S, uint2, false>;
template <typename S> using int8_min_codec = int_codec<S, uint2, true>;

template <typename S_> struct fp8_codec : word_reader<uint2, S_> {
    typedef S_ S;
    typedef typename product_dtype<S>::T T;
    enum { PACKED = 1 };
    static __device__ __forceinline__ void values(float out[LANE_COLS], const struct cuda_matrix &,
                                                  const word_codes<uint2, S> &r)
    {
        const float scale = to_float(r.head.scale);
#pragma unroll
        for (int i = 0; i < LANE_COLS; i++)
            out[i] = __fmul_rn(float_of_e4m3((i < 4 ? r.words.x : r.words.y) >> i % 4 * 8 & 255u),
                               scale);
    }
    static __device__ __forceinline__ uint4 packed(const struct cuda_matrix &m,
                                                   const word_codes<uint2, S> &r)
    {
        const struct pair_scale<S> s = make_pair_scale<S>(r.head.scale, 0.0f);
        if (!e4m3_pairs_are_right(r.words.x) || !e4m3_pairs_are_right(r.words.y))
            return packed_values<fp8_codec<S>>(m, r);
        return make_uint4(scale_pair<S, T, false>(s, e4m3_pair(r.words.x, 0)),
                          scale_pair<S, T, false>(s, e4m3_pair(r.words.x, 1)),
                          scale_pair<S, T, false>(s, e4m3_pair(r.words.y, 0)),
                          scale_pair<S, T, false>(s, e4m3_pair(r.words.y, 1)));
    }
};

static __device__ const float nf4_table[16] = NF4_VALUES;

template <typename S_> struct nf4_codec : word_reader<uint32_t, float> {
    typedef S_ S;
    typedef typename product_dtype<S>::T T;
    enum { PACKED = 0 };
    static __device__ __forceinline__ void values(float out[LANE_COLS], const struct cuda_matrix &,
                                                  const word_codes<uint32_t, float> &r)
    {
#pragma unroll
        for (int i = 0; i < LANE_COLS; i++)
            out[i] = __fmul_rn(nf4_table[r.words >> (i / 2 * 4 + i % 2 * 16) & 15u], r.head.scale);
    }
};

#endif
