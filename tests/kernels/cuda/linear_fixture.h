/* linear_fixture.h - random products for the tests of linear on the GPU, and the sums they must be.
 */
#ifndef INFERD_TESTS_KERNELS_CUDA_LINEAR_FIXTURE_H
#define INFERD_TESTS_KERNELS_CUDA_LINEAR_FIXTURE_H

#include "tests/kernels/cuda/cuda_fixture.h"

struct product {
    enum dtype dtype;
    struct linear l;
    float *w, *bias; /* w rounded to dtype; bias may be NULL */
    struct tensor x; /* not rounded */
};

static inline struct product random_product(struct gpu *g, enum dtype dtype, int32_t rows,
                                            int32_t out, int32_t in)
{
    struct status st;
    struct product p = { .dtype = dtype };
    const size_t count = (size_t)out * (size_t)in;
    p.w = random_floats(count, 1);
    p.x = random_tensor(rows, in, 1);
    p.l = (struct linear){ .out_features = out,
                           .in_features = in,
                           .format = quant_format_of_dtype(dtype) };
    if (random_int(0, 1)) {
        p.bias = random_floats((size_t)out, 1);
        p.l.bias = gpu_put(g, p.bias, (size_t)out * sizeof *p.bias);
    }
    if (!g->ops->linear_plan(g->device, &p.l, &st))
        gpu_fail("linear_plan", &st);
    p.l.packed = gpu_new(g, p.l.packed_bytes);
    void *stored = malloc(count * dtype_size(dtype));
    dtype_convert(stored, dtype, p.w, DTYPE_F32, count);
    dtype_convert(p.w, DTYPE_F32, stored, dtype, count);
    g->ops->linear_pack(g->device, &p.l, 0, out, stored, p.l.format);
    gpu_sync(g);
    free(stored);
    return p;
}

static inline void free_product(struct gpu *g, struct product *p)
{
    free(p->w);
    free(p->bias);
    free(p->x.data);
    gpu_release(g);
}

/* Rows [begin, begin + count) of x alone. The caller frees data. */
static inline struct tensor run_rows(struct gpu *g, const struct product *p, int32_t begin,
                                     int32_t count)
{
    struct tensor x = p->x, out = random_tensor(count, p->l.out_features, 1);
    x.data = (float *)x.data + begin * x.stride;
    x.rows = count;
    struct tensor x_at = gpu_tensor(g, &x), out_at = gpu_tensor(g, &out);
    g->ops->linear(g->device, &out_at, &x_at, &p->l);
    gpu_get_tensor(g, &out, &out_at);
    return out;
}

static inline void check_formula(const struct product *p, const struct tensor *out,
                                 const char *what)
{
    float *x = malloc((size_t)p->x.cols * sizeof *x);
    for (int32_t i = 0; i < 40; i++) {
        const int32_t r = random_int(0, out->rows - 1), f = random_int(0, p->l.out_features - 1);
        double want = p->bias ? p->bias[f] : 0, size = 0;
        memcpy(x, (float *)p->x.data + r * p->x.stride, (size_t)p->x.cols * sizeof *x);
        round_floats(x, (size_t)p->x.cols, p->dtype);
        for (int32_t k = 0; k < p->x.cols; k++) {
            const double product = (double)x[k] * p->w[(int64_t)f * p->x.cols + k];
            want += product;
            size += fabs(product);
        }
        assert_close((float *)out->data + r * out->stride + f, &want, 1, 1e-6 + 2e-6 * size, 1e-6,
                     what);
    }
    free(x);
}

#endif
