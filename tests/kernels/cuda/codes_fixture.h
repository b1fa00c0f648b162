/* codes_fixture.h - random linears with activations in 8 bits, on the GPU and on the scalar CPU. */
#ifndef INFERD_TESTS_KERNELS_CUDA_CODES_FIXTURE_H
#define INFERD_TESTS_KERNELS_CUDA_CODES_FIXTURE_H

#include "tests/kernels/cuda/cuda_fixture.h"

#include "kernels/quant/fp8.h"
#include "kernels/quant/int_group.h"

/* One weight, held twice. */
struct codes {
    struct quant_format format;
    struct linear gpu, cpu;
    float *bias;
    void *packed; /* the CPU's */
};

static inline void random_codes_row(const struct quant_format *f, unsigned char *row, int32_t cols)
{
    const float scale = random_uniform(0.001f, 0.02f);
    uint32_t bits;
    dtype_convert(&bits, f->dtype, &scale, DTYPE_F32, 1);
    memcpy(row, &bits, dtype_size(f->dtype));
    for (int32_t i = 0; i < cols; i++) {
        unsigned char *code = row + f->header_bytes + i;
        *code = (unsigned char)random_word();
        if (fp8_is(f) && (*code & 0x7f) == 0x7f) /* no number */
            *code = 0x7e;
    }
}

static inline void place_codes(const struct backend *ops, struct device *d, struct linear *l,
                               void *(*take)(void *arg, size_t bytes), void *arg,
                               const unsigned char *rows)
{
    struct status st;
    if (!ops->linear_plan(d, l, &st))
        fail_msg("linear_plan: %s", st.message);
    l->packed = take(arg, l->packed_bytes);
    ops->linear_pack(d, l, 0, l->out_features, rows, l->format);
}

static inline void *take_gpu(void *g, size_t bytes)
{
    return gpu_new(g, bytes);
}

static inline void *take_cpu(void *at, size_t bytes)
{
    void *memory = aligned_alloc(64, (bytes + 63) / 64 * 64);
    memset(memory, 0, bytes);
    *(void **)at = memory;
    return memory;
}

/* `c` stays where it is: it holds the format. */
static inline void random_codes(struct gpu *g, struct codes *c, struct input_quant input,
                                enum dtype scales, int32_t out, int32_t in)
{
    const struct int_group_params whole = { 8, 0, QUANT_OFFSET_MIDDLE, scales };
    memset(c, 0, sizeof *c);
    c->format = input.kind == INPUT_QUANT_FP8 ? fp8_format(0, scales) : int_group_format(&whole);
    c->gpu = c->cpu = (struct linear){
        .out_features = out, .in_features = in, .format = &c->format, .input_quant = input
    };
    if (random_int(0, 1)) {
        c->bias = random_floats((size_t)out, 1);
        c->cpu.bias = c->bias;
        c->gpu.bias = gpu_put(g, c->bias, (size_t)out * sizeof *c->bias);
    }
    const size_t row_bytes = quant_row_bytes(&c->format, in);
    unsigned char *rows = malloc((size_t)out * row_bytes);
    for (int32_t r = 0; r < out; r++)
        random_codes_row(&c->format, rows + (size_t)r * row_bytes, in);
    place_codes(g->ops, g->device, &c->gpu, take_gpu, g, rows);
    place_codes(&backend_cpu, g->cpu, &c->cpu, take_cpu, &c->packed, rows);
    gpu_sync(g);
    free(rows);
}

static inline void free_codes(struct gpu *g, struct codes *c)
{
    free(c->packed);
    free(c->bias);
    gpu_release(g);
}

/* The caller frees data, here and below. */
static inline struct tensor gpu_codes_product(struct gpu *g, const struct codes *c,
                                              const struct tensor *x)
{
    struct tensor out = random_tensor(x->rows, c->gpu.out_features, 1);
    struct tensor x_at = gpu_tensor(g, x), out_at = gpu_tensor(g, &out);
    g->ops->linear(g->device, &out_at, &x_at, &c->gpu);
    gpu_get_tensor(g, &out, &out_at);
    return out;
}

/* The scalar CPU's and the GPU's are close: the CPU multiplies float32s, and adds up as many. */
static inline void check_codes(struct gpu *g, const struct codes *c, const struct tensor *x,
                               const char *what)
{
    struct tensor got = gpu_codes_product(g, c, x);
    struct tensor want = random_tensor(x->rows, c->cpu.out_features, 1);
    backend_cpu.linear(g->cpu, &want, x, &c->cpu);
    /* What the terms of a sum are as large as: every element times the greatest weight;
     * an infinity is held at less than 10. */
    for (int32_t r = 0; r < x->rows; r++) {
        double size = 1;
        const float *row = (const float *)x->data + r * x->stride;
        for (int32_t i = 0; i < x->cols; i++)
            size += (isfinite(row[i]) ? fabs((double)row[i]) : 10) * 0.02 *
                    (fp8_is(&c->format) ? 448 : 128);
        struct tensor one = got, other = want;
        one.data = (float *)got.data + r * got.stride;
        other.data = (float *)want.data + r * want.stride;
        one.rows = other.rows = 1;
        assert_tensors_close(&one, &other, 1e-6 * size, 1e-6, what);
    }
    free(got.data);
    free(want.data);
}

#endif
