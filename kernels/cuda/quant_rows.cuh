/* quant_rows.cuh - how a thread reads weights: the interface, and the plain dtypes. One codec per
 * format; quant_words.cuh and quant_ggml.cuh have the quantized ones.
 *
 * A codec is a struct with
 *   T          what products take: bf16 or f16
 *   S          what its elements are rounded to before that; float: nothing
 *   STEPS      how many steps of 32 columns one read covers
 *   PLAIN      whether memory holds T itself
 *   raw        what a lane holds of 8 columns, as it was read
 *   read       the 8 columns from quad * 8 on, of each of the steps [step, step + STEPS), step
 * being a multiple of STEPS read_one   the same of one step, any values     the 8 elements as
 * float32, not yet rounded to S Values come out bit for bit as kernels/quant computes them:
 * products and sums are intrinsics, which the compiler does not contract. */
#ifndef INFERD_KERNELS_CUDA_QUANT_ROWS_CUH
#define INFERD_KERNELS_CUDA_QUANT_ROWS_CUH

#include "kernels/cuda/common.cuh"

enum { STEP_COLS = CUDA_STEP_COLS, LANE_COLS = 8 };

__device__ __forceinline__ const unsigned char *weight_row(const struct cuda_matrix &m, int64_t row)
{
    return (const unsigned char *)m.data + row * m.layout.row_bytes;
}

template <typename T_> struct plain_codec {
    typedef T_ T;
    typedef T_ S;
    typedef uint4 raw;
    enum { STEPS = 1, PLAIN = 1 };
    static __device__ __forceinline__ raw read_one(const struct cuda_matrix &,
                                                   const unsigned char *row, int32_t step, int quad)
    {
        return load_once(row + ((int64_t)step * STEP_COLS + quad * LANE_COLS) * sizeof(T));
    }
    static __device__ __forceinline__ void read(raw out[STEPS], const struct cuda_matrix &m,
                                                const unsigned char *row, int32_t step, int quad)
    {
        out[0] = read_one(m, row, step, quad);
    }
    static __device__ __forceinline__ void values(float out[LANE_COLS], const struct cuda_matrix &,
                                                  const raw &r)
    {
        union {
            uint4 words;
            T elements[LANE_COLS];
        } u = { r };
        for (int i = 0; i < LANE_COLS; i++)
            out[i] = to_float(u.elements[i]);
    }
};

/* The elements as an mma takes them. */
template <typename C>
__device__ __forceinline__ uint4 operand(const struct cuda_matrix &m, const typename C::raw &r)
{
    if constexpr (C::PLAIN) {
        return r;
    } else {
        union {
            typename C::T elements[LANE_COLS];
            uint4 words;
        } u;
        float value[LANE_COLS];
        C::values(value, m, r);
#pragma unroll
        for (int i = 0; i < LANE_COLS; i++)
            u.elements[i] = nearest_element<typename C::T>::of(value[i]);
        return u.words;
    }
}

/* Rounded to what the format says. */
template <typename S> __device__ __forceinline__ float rounded(float x)
{
    return to_float(nearest_element<S>::of(x));
}
template <> __device__ __forceinline__ float rounded<float>(float x)
{
    return x;
}

#endif
