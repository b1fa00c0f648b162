/* rotary_embedding.c - positions as rotations of pairs of elements, applied to q and k in place. */
#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/cpu_rows.h"
#include "kernels/cpu/op_kernels.h"

#include <assert.h>
#include <math.h>

/* --- cos and sin ------------------------------------------------------------------------------ */

struct cos_sin_args {
    struct tensor out;
    const int32_t *positions;
    const struct rope *rope;
};

static void cos_sin_rows(const void *arg, int32_t begin, int32_t end)
{
    const struct cos_sin_args *a = arg;
    const int32_t half = a->rope->rotary_dim / 2;
    for (int32_t row = begin; row < end; row++) {
        float *out = (float *)a->out.data + row * a->out.stride;
        const float position = (float)a->positions[row];
        for (int32_t i = 0; i < half; i++) {
            /* The angle is rounded to float32, as transformers does it. */
            float angle = position * a->rope->inv_freq[i];
            out[i] = cosf(angle) * a->rope->attention_scaling;
            out[half + i] = sinf(angle) * a->rope->attention_scaling;
        }
    }
}

void cpu_rotary_cos_sin(struct device *d, struct tensor *cos_sin, const int32_t *positions,
                        const struct rope *rope)
{
    assert(cos_sin->dtype == DTYPE_F32 && rope->rotary_dim % 2 == 0);
    assert(cos_sin->cols >= rope->rotary_dim);
    struct cos_sin_args args = { *cos_sin, positions, rope };
    cpu_run_rows(cpu_device_of(d), cos_sin->rows, 16 * (int64_t)rope->rotary_dim, cos_sin_rows,
                 &args);
}

/* --- the rotation ----------------------------------------------------------------------------- */

static void halves_scalar(float *x, const float *cos, const float *sin, int32_t half)
{
    for (int32_t i = 0; i < half; i++) {
        float a = x[i], b = x[half + i];
        x[i] = a * cos[i] - b * sin[i];
        x[half + i] = b * cos[i] + a * sin[i];
    }
}

static void interleaved_scalar(float *x, const float *cos, const float *sin, int32_t half)
{
    for (int32_t i = 0; i < half; i++) {
        float a = x[2 * i], b = x[2 * i + 1];
        x[2 * i] = a * cos[i] - b * sin[i];
        x[2 * i + 1] = b * cos[i] + a * sin[i];
    }
}

static const struct rotary_kernel rotary_kernel_scalar = { CPU_ISA_SCALAR, halves_scalar,
                                                           interleaved_scalar };

static const struct rotary_kernel *const kernels[] = {
    &rotary_kernel_scalar,
#if defined(__x86_64__)
    &rotary_kernel_avx2,
    &rotary_kernel_avx512,
#endif
};

static const struct rotary_kernel *choose(const struct cpu_device *d)
{
    const struct rotary_kernel *chosen = kernels[0];
    for (size_t i = 1; i < sizeof kernels / sizeof *kernels; i++)
        if (kernels[i]->needs <= d->isa)
            chosen = kernels[i];
    return chosen;
}

struct rotary_args {
    void (*run)(float *x, const float *cos, const float *sin, int32_t half);
    struct tensor x, cos_sin;
    int32_t head_dim, half;
};

static void rotary_rows(const void *arg, int32_t begin, int32_t end)
{
    const struct rotary_args *a = arg;
    for (int32_t row = begin; row < end; row++) {
        float *x = (float *)a->x.data + row * a->x.stride;
        const float *cos = (const float *)a->cos_sin.data + row * a->cos_sin.stride;
        for (int32_t at = 0; at < a->x.cols; at += a->head_dim)
            a->run(x + at, cos, cos + a->half, a->half);
    }
}

void cpu_rotary_embedding(struct device *d, struct tensor *x, int32_t head_dim,
                          const struct tensor *cos_sin, const struct rope *rope)
{
    struct cpu_device *c = cpu_device_of(d);
    assert(x->dtype == DTYPE_F32 && cos_sin->dtype == DTYPE_F32 && x->rows <= cos_sin->rows);
    assert(head_dim > 0 && x->cols % head_dim == 0 && rope->rotary_dim <= head_dim);
    const struct rotary_kernel *kernel = choose(c);
    struct rotary_args args = { rope->interleaved ? kernel->interleaved : kernel->halves, *x,
                                *cos_sin, head_dim, rope->rotary_dim / 2 };
    cpu_run_rows(c, x->rows, x->cols, rotary_rows, &args);
}
