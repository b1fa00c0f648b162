/* quant_rows.cuh - how a thread reads weights: the interface, and the plain dtypes. One codec per
 * format; quant_words.cuh and quant_ggml.cuh have the quantized ones.
 *
 * A codec is a struct with these members.
 *
 * T: what products take, bf16 or f16. S: what its elements are rounded to before that; float:
 * nothing. STEPS: how many steps of 32 columns one read covers. AT_ONCE: reads of a feature whose
 * results fit the registers together. PLAIN: whether memory holds T itself.
 *
 * raw: what a lane holds of 8 columns, as it was read. read: the 8 columns from quad * 8 on, of
 * each of the STEPS steps from first + n * STEPS on, `first` being a multiple of STEPS; HEAD_MODES
 * says whether it takes one of the ways of enum head_mode, which `mode` tells. read_one: the same
 * of one step, any.
 *
 * values: the 8 elements as float32, not yet rounded to S, bit for bit as kernels/quant computes
 * them: products and sums are intrinsics, which the compiler does not contract. PACKED: whether
 * `packed` makes of them, with the same bits, what an mma takes. */
#ifndef INFERD_KERNELS_CUDA_QUANT_ROWS_CUH
#define INFERD_KERNELS_CUDA_QUANT_ROWS_CUH

#include "kernels/cuda/common.cuh"

enum { STEP_COLS = CUDA_STEP_COLS, LANE_COLS = 8 };

/* How the numbers of groups go with a read of several steps: any way; one group for all of it; one
 * for each step. */
enum head_mode { HEADS_ANY, HEADS_ONE, HEADS_EACH };

__device__ __forceinline__ const unsigned char *weight_row(const struct cuda_matrix &m, int64_t row)
{
    return (const unsigned char *)m.data + row * m.layout.row_bytes;
}

template <typename T_> struct plain_codec {
    typedef T_ T;
    typedef T_ S;
    typedef uint4 raw;
    enum { STEPS = 1, PLAIN = 1, PACKED = 0, AT_ONCE = 4, HEAD_MODES = 0 };
    static __device__ __forceinline__ raw read_one(const struct cuda_matrix &,
                                                   const unsigned char *row, int32_t step, int quad)
    {
        return load_once(row + ((int64_t)step * STEP_COLS + quad * LANE_COLS) * sizeof(T));
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
        union {
            uint4 words;
            T elements[LANE_COLS];
        } u = { r };
        for (int i = 0; i < LANE_COLS; i++)
            out[i] = to_float(u.elements[i]);
    }
};

/* The elements as an mma takes them, made of float32. */
template <typename C>
__device__ __forceinline__ uint4 packed_values(const struct cuda_matrix &m,
                                               const typename C::raw &r)
{
    typedef typename C::T T;
    float v[LANE_COLS];
    C::values(v, m, r);
    return make_uint4(
        pack_pair<T, nearest_element>(v[0], v[1]), pack_pair<T, nearest_element>(v[2], v[3]),
        pack_pair<T, nearest_element>(v[4], v[5]), pack_pair<T, nearest_element>(v[6], v[7]));
}

template <typename C>
__device__ __forceinline__ uint4 operand(const struct cuda_matrix &m, const typename C::raw &r)
{
    if constexpr (C::PLAIN) {
        return r;
    } else if constexpr (C::PACKED) {
        return C::packed(m, r);
    } else {
        return packed_values<C>(m, r);
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
