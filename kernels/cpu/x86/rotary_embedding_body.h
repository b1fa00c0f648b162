/* rotary_embedding_body.h - rotations in vectors, compiled once per instruction set.
 *
 * Products are rounded before they are added, as in the scalar row: the results are the same bits
 * on every instruction set. */
#include "kernels/cpu/op_kernels.h"

static void rotate_halves(float *x, const float *cos, const float *sin, int32_t half)
{
    for (int32_t i = 0; i < half; i += VEC_LANES) {
        vm lanes = vm_first(half - i);
        vf a = vf_load_masked(lanes, x + i), b = vf_load_masked(lanes, x + half + i);
        vf c = vf_load_masked(lanes, cos + i), s = vf_load_masked(lanes, sin + i);
        vf_store_masked(lanes, x + i, vf_sub(vf_mul(a, c), vf_mul(b, s)));
        vf_store_masked(lanes, x + half + i, vf_add(vf_mul(b, c), vf_mul(a, s)));
    }
}

/* Left to the compiler, which turns the strided loads into shuffles. */
static void rotate_interleaved(float *restrict x, const float *restrict cos,
                               const float *restrict sin, int32_t half)
{
    for (int32_t i = 0; i < half; i++) {
        float a = x[2 * i], b = x[2 * i + 1];
        x[2 * i] = a * cos[i] - b * sin[i];
        x[2 * i + 1] = b * cos[i] + a * sin[i];
    }
}

const struct rotary_kernel VEC_NAME(rotary_kernel) = { VEC_NEEDS, rotate_halves,
                                                       rotate_interleaved };
