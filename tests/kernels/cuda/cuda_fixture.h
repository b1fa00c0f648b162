/* cuda_fixture.h - what the tests of the CUDA backend share: a device, opened through the plug-in
 * as the daemon does it, and the scalar CPU beside it.
 *
 * Which plug-in: see plugin_path.h. */
#ifndef INFERD_TESTS_KERNELS_CUDA_CUDA_FIXTURE_H
#define INFERD_TESTS_KERNELS_CUDA_CUDA_FIXTURE_H

#include "tests/kernels/cpu_fixture.h"
#include "tests/kernels/cuda/plugin_path.h"
#include "tests/kernels/products_device.h"

#include "kernels/plugin.h"

enum { GPU_MAX_BUFFERS = 64 };

struct gpu {
    const struct backend *ops;
    struct device *device;
    struct device *cpu; /* scalar, one thread: the oracle */
    struct buffer buffers[GPU_MAX_BUFFERS];
    int32_t num_buffers;
};

static inline void gpu_fail(const char *what, const struct status *st)
{
    fail_msg("%s: %s", what, st->message);
}

static inline void gpu_open(struct gpu *g, const struct workspace_desc *w)
{
    struct status st;
    struct device_options options = { .num_threads = 1, .isa = "scalar" };
    memset(g, 0, sizeof *g);
    g->ops = backend_load(gpu_plugin_path(), &st);
    if (!g->ops || !g->ops->open(&g->device, &options, &st) ||
        !g->ops->reserve_workspace(g->device, w, &st))
        gpu_fail(gpu_plugin_path(), &st);
    g->ops->bind_thread(g->device);
    if (!backend_cpu.open(&g->cpu, &options, &st) || !backend_cpu.reserve_workspace(g->cpu, w, &st))
        gpu_fail("cpu", &st);
}

/* Frees what gpu_put and gpu_new gave. */
static inline void gpu_release(struct gpu *g)
{
    while (g->num_buffers > 0)
        g->ops->free(g->device, &g->buffers[--g->num_buffers]);
}

static inline void gpu_close(struct gpu *g)
{
    gpu_release(g);
    g->ops->close(g->device);
    backend_cpu.close(g->cpu);
}

/* What a program's tests run on, if it says so with gpu_run_tests. */
static struct gpu gpu;
static struct workspace_desc gpu_workspace;

static inline int gpu_setup(void **state)
{
    (void)state;
    gpu_open(&gpu, &gpu_workspace);
    return 0;
}

static inline int gpu_teardown(void **state)
{
    (void)state;
    gpu_close(&gpu);
    return 0;
}

/* Runs the tests, an array, with `gpu` open for `workspace`; what main returns. */
#define gpu_run_tests(tests, workspace)                                                            \
    (gpu_workspace = (workspace), cmocka_run_group_tests(tests, gpu_setup, gpu_teardown))

static inline void *gpu_new(struct gpu *g, size_t bytes)
{
    struct status st;
    assert_true(g->num_buffers < GPU_MAX_BUFFERS);
    struct buffer *b = &g->buffers[g->num_buffers++];
    if (!g->ops->alloc(g->device, b, bytes ? bytes : 1, MEMORY_DEVICE, &st))
        gpu_fail("alloc", &st);
    return b->data;
}

static inline void *gpu_put(struct gpu *g, const void *host, size_t bytes)
{
    void *at = gpu_new(g, bytes);
    g->ops->copy(g->device, at, host, bytes, COPY_TO_DEVICE);
    return at;
}

static inline void gpu_sync(struct gpu *g)
{
    struct status st;
    if (!g->ops->sync(g->device, &st))
        gpu_fail("sync", &st);
}

static inline void gpu_get(struct gpu *g, void *host, const void *at, size_t bytes)
{
    g->ops->copy(g->device, host, at, bytes, COPY_TO_HOST);
    gpu_sync(g);
}

/* The last row ends with its last column, so that what is read past it is seen. */
static inline size_t tensor_bytes(const struct tensor *t)
{
    if (t->rows == 0)
        return 0;
    return ((size_t)(t->rows - 1) * (size_t)t->stride + (size_t)t->cols) * dtype_size(t->dtype);
}

static inline struct tensor gpu_tensor(struct gpu *g, const struct tensor *host)
{
    struct tensor t = *host;
    t.data = gpu_put(g, host->data, tensor_bytes(host));
    return t;
}

static inline void gpu_get_tensor(struct gpu *g, const struct tensor *host, const struct tensor *at)
{
    gpu_get(g, host->data, at->data, tensor_bytes(host));
}

/* A tensor of normal numbers; rows up to 9 elements apart. The caller frees data. */
static inline struct tensor random_tensor(int32_t rows, int32_t cols, float deviation)
{
    struct tensor t = { NULL, DTYPE_F32, rows, cols, cols + random_int(0, 9) };
    t.data = random_floats((size_t)rows * (size_t)t.stride, deviation);
    return t;
}

static inline struct tensor copy_tensor(const struct tensor *t)
{
    struct tensor copy = *t;
    copy.data = malloc(tensor_bytes(t) + 1);
    memcpy(copy.data, t->data, tensor_bytes(t));
    return copy;
}

/* Rounds to dtype and back. */
static inline void round_floats(float *x, size_t count, enum dtype dtype)
{
    uint32_t bits;
    for (size_t i = 0; i < count; i++) {
        dtype_convert(&bits, dtype, &x[i], DTYPE_F32, 1);
        dtype_convert(&x[i], DTYPE_F32, &bits, dtype, 1);
    }
}

/* |a - b| <= absolute + relative |b| in the columns of every row; NaN equals NaN. */
static inline void assert_tensors_close(const struct tensor *a, const struct tensor *b,
                                        double absolute, double relative, const char *what)
{
    char text[512];
    for (int32_t r = 0; r < a->rows; r++) {
        const float *x = (const float *)a->data + r * a->stride;
        const float *y = (const float *)b->data + r * b->stride;
        double *want = malloc((size_t)a->cols * sizeof *want);
        for (int32_t i = 0; i < a->cols; i++)
            want[i] = y[i];
        snprintf(text, sizeof text, "%s, row %d of %d", what, r, a->rows);
        assert_close(x, want, (size_t)a->cols, absolute, relative, text);
        free(want);
    }
}

static inline void assert_tensors_equal(const struct tensor *a, const struct tensor *b,
                                        const char *what)
{
    char text[512];
    for (int32_t r = 0; r < a->rows; r++) {
        snprintf(text, sizeof text, "%s, row %d of %d", what, r, a->rows);
        assert_same_bits((const float *)a->data + r * a->stride,
                         (const float *)b->data + r * b->stride, (size_t)a->cols, text);
    }
}

#endif
