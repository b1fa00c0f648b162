/* layernorm.c - RMSNorm and LayerNorm over rows or heads, with the residual addition fused. */
#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/cpu_rows.h"
#include "kernels/cpu/op_kernels.h"

#include <assert.h>
#include <math.h>

static void norm_scalar(float *out, float *residual, const float *x, const struct norm *norm)
{
    const int32_t n = norm->size;
    double mean = 0, square = 0;
    if (residual) {
        for (int32_t i = 0; i < n; i++)
            residual[i] += x[i];
        x = residual;
    }
    if (norm->kind == NORM_LAYER) {
        for (int32_t i = 0; i < n; i++)
            mean += x[i];
        mean /= n;
    }
    for (int32_t i = 0; i < n; i++)
        square += (x[i] - mean) * (x[i] - mean);
    const float factor = (float)(1.0 / sqrt(square / n + norm->eps));
    for (int32_t i = 0; i < n; i++) {
        float y = (x[i] - (float)mean) * factor;
        if (norm->weight)
            y *= norm->weight[i] + norm->weight_offset;
        out[i] = norm->bias ? y + norm->bias[i] : y;
    }
}

static const struct norm_kernel norm_kernel_scalar = { CPU_ISA_SCALAR, norm_scalar };

static const struct norm_kernel *const kernels[] = {
    &norm_kernel_scalar,
#if defined(__x86_64__)
    &norm_kernel_avx2,
    &norm_kernel_avx512,
#endif
};

static const struct norm_kernel *choose(const struct cpu_device *d)
{
    const struct norm_kernel *chosen = kernels[0];
    for (size_t i = 1; i < sizeof kernels / sizeof *kernels; i++)
        if (kernels[i]->needs <= d->isa)
            chosen = kernels[i];
    return chosen;
}

struct norm_args {
    const struct norm_kernel *kernel;
    struct tensor out, residual, x;
    const struct norm *norm;
};

static void norm_rows(const void *arg, int32_t begin, int32_t end)
{
    const struct norm_args *a = arg;
    const int32_t size = a->norm->size;
    for (int32_t row = begin; row < end; row++) {
        float *out = (float *)a->out.data + row * a->out.stride;
        const float *x = (const float *)a->x.data + row * a->x.stride;
        float *residual =
            a->residual.data ? (float *)a->residual.data + row * a->residual.stride : NULL;
        for (int32_t at = 0; at < a->x.cols; at += size)
            a->kernel->run(out + at, residual ? residual + at : NULL, x + at, a->norm);
    }
}

void cpu_norm(struct device *d, struct tensor *out, struct tensor *residual, const struct tensor *x,
              const struct norm *norm)
{
    struct cpu_device *c = cpu_device_of(d);
    assert(x->dtype == DTYPE_F32 && out->dtype == DTYPE_F32);
    assert(norm->size > 0 && x->cols % norm->size == 0 && out->cols == x->cols);
    assert(out->rows == x->rows && (!residual || residual->rows == x->rows));
    struct norm_args args = { .kernel = choose(c), .out = *out, .x = *x, .norm = norm };
    if (residual)
        args.residual = *residual;
    cpu_run_rows(c, x->rows, x->cols, norm_rows, &args);
}
