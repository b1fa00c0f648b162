/* linear_cuda.c - weights on the GPU: the table of products, and how rows get there.
 *
 * Rows of the file are converted on the loading threads straight into pinned buffers, several of
 * which are on their way to the device at once. */
#include "kernels/cuda/cuda_device.h"

#include "base/alloc.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

/* gemv and dense give the same bits, so that the number of rows may choose between them. */
static void run_mma(const struct cuda_product *p, cudaStream_t stream)
{
    if (p->rows <= CUDA_GEMV_MAX_ROWS)
        cuda_launch_gemv(p, stream);
    else
        cuda_launch_linear_dense(p, stream);
}

/* The last row that fits is taken. */
static const struct linear_kernel kernels[] = {
    { "f32_simt", DTYPE_F32, 80, CUDA_BATCH_INVARIANT, cuda_launch_linear_f32 },
    { "bf16_mma", DTYPE_BF16, 80, CUDA_BATCH_INVARIANT, run_mma },
    { "f16_mma", DTYPE_F16, 80, CUDA_BATCH_INVARIANT, run_mma },
};

static const struct linear_kernel *choose(const struct cuda_device *d, enum dtype weights)
{
    const struct linear_kernel *chosen = NULL;
    for (size_t i = 0; i < sizeof kernels / sizeof kernels[0]; i++)
        if (kernels[i].weights == weights && kernels[i].min_arch <= d->arch)
            chosen = &kernels[i];
    return chosen;
}

/* --- plan and pack ---------------------------------------------------------------------------- */

struct cuda_matrix cuda_matrix_of(const struct linear *l)
{
    return (struct cuda_matrix){ .data = l->packed,
                                 .dtype = l->kernel->weights,
                                 .rows = l->out_features,
                                 .cols = l->in_features,
                                 .stride = cuda_weight_stride(l->in_features) };
}

static size_t packed_row_bytes(const struct linear *l)
{
    return (size_t)cuda_weight_stride(l->in_features) * dtype_size(l->kernel->weights);
}

bool cuda_linear_plan(const struct device *d, struct linear *l, struct status *st)
{
    if (l->out_features < 1 || l->in_features < 1)
        return status_set(st, STATUS_INVALID, "a weight of %d x %d: both sizes must be positive",
                          l->out_features, l->in_features);
    if (!l->format)
        return status_set(st, STATUS_INVALID, "a weight of %d x %d without a format",
                          l->out_features, l->in_features);
    /* A format without a kernel of its own is widened to the plain dtype nearest to it. */
    const struct quant_format *plain = quant_format_of_dtype(l->format->dtype);
    l->kernel = plain ? choose((const struct cuda_device *)d, plain->dtype) : NULL;
    if (!l->kernel)
        return status_set(st, STATUS_UNSUPPORTED, "the cuda backend cannot hold %s weights",
                          l->format->name);
    l->format = plain;
    if (packed_row_bytes(l) > CUDA_STAGING_BYTES)
        return status_set(st, STATUS_UNSUPPORTED,
                          "a weight of %d x %d: the cuda backend takes rows of up to %d bytes",
                          l->out_features, l->in_features, CUDA_STAGING_BYTES);
    l->packed_bytes = (size_t)l->out_features * packed_row_bytes(l);
    return true;
}

const char *cuda_linear_layout(const struct linear *l)
{
    return l->kernel->name;
}

/* A pinned buffer that nobody uses; waits until there is one. NULL after a failure, which then
 * sticks to the device. */
static struct cuda_staging *take_staging(struct cuda_device *d)
{
    struct cuda_staging *s = NULL;
    cudaError_t error = cudaSuccess;
    pthread_mutex_lock(&d->mutex);
    for (int32_t i = 0; !s; i = (i + 1) % CUDA_NUM_STAGING) {
        if (!d->staging[i].busy)
            s = &d->staging[i];
        else if (i == CUDA_NUM_STAGING - 1)
            pthread_cond_wait(&d->changed, &d->mutex);
    }
    s->busy = true;
    d->loading = true;
    if (!s->data)
        error = cudaHostAlloc(&s->data, CUDA_STAGING_BYTES, cudaHostAllocPortable);
    if (error == cudaSuccess && !s->copied)
        error = cudaEventCreateWithFlags(&s->copied, cudaEventDisableTiming);
    else if (error == cudaSuccess)
        error = cudaEventSynchronize(s->copied); /* what it held last has left */
    pthread_mutex_unlock(&d->mutex);
    cuda_check(d, error, "a pinned buffer for weights");
    return s;
}

static void give_staging(struct cuda_device *d, struct cuda_staging *s)
{
    pthread_mutex_lock(&d->mutex);
    s->busy = false;
    pthread_cond_signal(&d->changed);
    pthread_mutex_unlock(&d->mutex);
}

void cuda_staging_close(struct cuda_device *d)
{
    for (int32_t i = 0; i < CUDA_NUM_STAGING; i++) {
        struct cuda_staging *s = &d->staging[i];
        if (s->copied) {
            cuda_check(d, cudaEventSynchronize(s->copied), "loading");
            cudaEventDestroy(s->copied);
        }
        cudaFreeHost(s->data);
        *s = (struct cuda_staging){ 0 };
    }
}

/* Rows of `format` as rows of l->format with the kernel's stride; `wide` is scratch. */
static void convert_rows(unsigned char *dst, const struct linear *l, int32_t num_rows,
                         const unsigned char *src, const struct quant_format *format, float *wide)
{
    const size_t src_bytes = quant_row_bytes(format, l->in_features);
    const size_t used = quant_row_bytes(l->format, l->in_features), stride = packed_row_bytes(l);
    for (int32_t r = 0; r < num_rows; r++, src += src_bytes, dst += stride) {
        if (format == l->format) {
            memcpy(dst, src, used);
        } else {
            format->dequantize(format, wide, src, 0, l->in_features);
            l->format->quantize(l->format, dst, wide, l->in_features);
        }
        memset(dst + used, 0, stride - used);
    }
}

void cuda_linear_pack(const struct device *device, const struct linear *l, int32_t row_begin,
                      int32_t num_rows, const void *rows, const struct quant_format *format)
{
    struct cuda_device *d = (struct cuda_device *)(uintptr_t)device;
    const size_t row_bytes = packed_row_bytes(l);
    const int32_t at_once = (int32_t)(CUDA_STAGING_BYTES / row_bytes);
    assert(row_begin >= 0 && num_rows >= 0 && num_rows <= l->out_features - row_begin);
    float *wide = xmalloc((size_t)l->in_features * sizeof *wide);
    bool ok = cuda_use(d);
    for (int32_t done = 0; ok && done < num_rows; done += at_once) {
        const int32_t count = num_rows - done < at_once ? num_rows - done : at_once;
        const unsigned char *src =
            (const unsigned char *)rows + (size_t)done * quant_row_bytes(format, l->in_features);
        struct cuda_staging *s = take_staging(d);
        ok = s->data && s->copied;
        if (ok) {
            convert_rows(s->data, l, count, src, format, wide);
            cuda_check(d,
                       cudaMemcpyAsync((char *)l->packed + (size_t)(row_begin + done) * row_bytes,
                                       s->data, (size_t)count * row_bytes, cudaMemcpyHostToDevice,
                                       d->load_stream),
                       "loading weights");
            cuda_check(d, cudaEventRecord(s->copied, d->load_stream), "loading weights");
        }
        give_staging(d, s);
    }
    free(wide);
}

/* --- the product ------------------------------------------------------------------------------ */

/* One link of the chain. */
static void run_link(struct cuda_device *d, float *out, int64_t out_stride, const struct tensor *x,
                     const struct linear *l)
{
    struct cuda_product p = { .weight = cuda_matrix_of(l),
                              .x = d->linear_input,
                              .bias = l->bias,
                              .out = out,
                              .out_stride = out_stride,
                              .rows = x->rows };
    assert(x->cols == l->in_features);
    assert((size_t)x->rows * packed_row_bytes(l) <= d->linear_input_bytes);
    cuda_launch_linear_input(d->linear_input, x, l->input_order, &p.weight, d->stream);
    l->kernel->run(&p, d->stream);
}

void cuda_linear(struct device *device, struct tensor *out, const struct tensor *x,
                 const struct linear *weight)
{
    struct cuda_device *d = cuda_device_of(device);
    float *at = out->data;
    assert(x->dtype == DTYPE_F32 && out->dtype == DTYPE_F32 && out->rows == x->rows);
    assert(out->cols == linear_out_features(weight));
    for (const struct linear *l = weight; l; at += l->out_features, l = l->next)
        run_link(d, at, out->stride, x, l);
    cuda_check(d, cudaGetLastError(), "linear");
}
