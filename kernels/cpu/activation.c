/* activation.c - the middle of an MLP: act(gate) * up, or act(up) alone; and the softcap of logits.
 */
#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/cpu_rows.h"
#include "kernels/cpu/op_kernels.h"

#include <assert.h>
#include <math.h>

static float activate(float x, enum activation act)
{
    switch (act) {
    case ACT_SILU:
        return x / (1.0f + expf(-x));
    case ACT_GELU:
        return 0.5f * x * erfcf(-x * (float)M_SQRT1_2);
    case ACT_GELU_TANH:
        return 0.5f * x * (1.0f + tanhf(0.79788456f * (x + 0.044715f * x * x * x)));
    case ACT_RELU:
        return x > 0 || isnan(x) ? x : 0;
    case ACT_SWIGLU_OAI:
        x = x > SWIGLU_OAI_LIMIT ? SWIGLU_OAI_LIMIT : x;
        return x / (1.0f + expf(-SWIGLU_OAI_ALPHA * x));
    case NUM_ACTIVATIONS:
        break;
    }
    assert(!"not an activation");
    return NAN;
}

/* What an activated gate is multiplied with. */
static float gated(float up, enum activation act)
{
    if (act != ACT_SWIGLU_OAI)
        return up;
    up = up > SWIGLU_OAI_LIMIT ? SWIGLU_OAI_LIMIT : up;
    return (up < -SWIGLU_OAI_LIMIT ? -SWIGLU_OAI_LIMIT : up) + 1.0f;
}

static void activation_scalar(float *out, const float *gate, const float *up, int32_t count,
                              enum activation act)
{
    for (int32_t i = 0; i < count; i++)
        out[i] = up ? activate(gate[i], act) * gated(up[i], act) : activate(gate[i], act);
}

static void softcap_scalar(float *x, int32_t count, float cap)
{
    for (int32_t i = 0; i < count; i++)
        x[i] = cap * tanhf(x[i] / cap);
}

static const struct activation_kernel activation_kernel_scalar = { CPU_ISA_SCALAR,
                                                                   activation_scalar,
                                                                   softcap_scalar };

static const struct activation_kernel *const kernels[] = {
    &activation_kernel_scalar,
#if defined(__x86_64__)
    &activation_kernel_avx2,
    &activation_kernel_avx512,
#endif
};

const struct activation_kernel *activation_kernel_for(const struct cpu_device *d)
{
    const struct activation_kernel *chosen = kernels[0];
    for (size_t i = 1; i < sizeof kernels / sizeof *kernels; i++)
        if (kernels[i]->needs <= d->isa)
            chosen = kernels[i];
    return chosen;
}

struct activation_args {
    const struct activation_kernel *kernel;
    struct tensor out, x;
    enum activation act;
    float cap;
};

static void activation_rows(const void *arg, int32_t begin, int32_t end)
{
    const struct activation_args *a = arg;
    const int32_t n = a->out.cols;
    for (int32_t row = begin; row < end; row++) {
        const float *x = (const float *)a->x.data + row * a->x.stride;
        a->kernel->run((float *)a->out.data + row * a->out.stride, x, x + n, n, a->act);
    }
}

void cpu_act_and_mul(struct device *d, struct tensor *out, const struct tensor *x,
                     enum activation act)
{
    struct cpu_device *c = cpu_device_of(d);
    assert(x->dtype == DTYPE_F32 && out->dtype == DTYPE_F32);
    assert(x->cols == 2 * out->cols && x->rows == out->rows);
    struct activation_args args = { activation_kernel_for(c), *out, *x, act, 0 };
    /* An exponential costs several times what a copy does. */
    cpu_run_rows(c, out->rows, 4 * (int64_t)out->cols, activation_rows, &args);
}

static void act_rows(const void *arg, int32_t begin, int32_t end)
{
    const struct activation_args *a = arg;
    for (int32_t row = begin; row < end; row++) {
        float *x = (float *)a->x.data + row * a->x.stride;
        a->kernel->run(x, x, NULL, a->x.cols, a->act);
    }
}

void cpu_act(struct device *d, struct tensor *x, enum activation act)
{
    struct cpu_device *c = cpu_device_of(d);
    assert(x->dtype == DTYPE_F32);
    struct activation_args args = { .kernel = activation_kernel_for(c), .x = *x, .act = act };
    cpu_run_rows(c, x->rows, 4 * (int64_t)x->cols, act_rows, &args);
}

static void softcap_rows(const void *arg, int32_t begin, int32_t end)
{
    const struct activation_args *a = arg;
    for (int32_t row = begin; row < end; row++)
        a->kernel->softcap((float *)a->x.data + row * a->x.stride, a->x.cols, a->cap);
}

void cpu_softcap(struct device *d, struct tensor *x, float cap)
{
    struct cpu_device *c = cpu_device_of(d);
    assert(x->dtype == DTYPE_F32 && cap > 0);
    struct activation_args args = { .kernel = activation_kernel_for(c), .x = *x, .cap = cap };
    cpu_run_rows(c, x->rows, 4 * (int64_t)x->cols, softcap_rows, &args);
}
