/* linear_cuda.c - weights on the GPU: the table of products, and how rows get there.
 *
 * Rows of the file are converted on the loading threads straight into pinned buffers, several of
 * which are on their way to the device at once. */
#include "kernels/cuda/cuda_device.h"

#include "base/alloc.h"
#include "base/log.h"
#include "kernels/cuda/weight_rows.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define QUANT_KERNEL(name, codec)                                                                  \
    {                                                                                              \
        name "_mma", codec, DTYPE_BF16, 80, CUDA_BATCH_INVARIANT, cuda_launch_linear_mma,          \
            INPUT_QUANT_NONE                                                                       \
    }

/* The last row that fits is taken. */
static const struct linear_kernel kernels[] = {
    { "f32_simt", CUDA_PLAIN, DTYPE_F32, 80, CUDA_BATCH_INVARIANT, cuda_launch_linear_f32,
      INPUT_QUANT_NONE },
    { "bf16_mma", CUDA_PLAIN, DTYPE_BF16, 80, CUDA_BATCH_INVARIANT | CUDA_CUBLASLT,
      cuda_launch_linear_mma, INPUT_QUANT_NONE },
    { "f16_mma", CUDA_PLAIN, DTYPE_F16, 80, CUDA_BATCH_INVARIANT | CUDA_CUBLASLT,
      cuda_launch_linear_mma, INPUT_QUANT_NONE },
    QUANT_KERNEL("int4", CUDA_INT4),
    QUANT_KERNEL("int8", CUDA_INT8),
    QUANT_KERNEL("fp8", CUDA_FP8),
    QUANT_KERNEL("nf4", CUDA_NF4),
    QUANT_KERNEL("q4_0", CUDA_Q4_0),
    QUANT_KERNEL("q4_1", CUDA_Q4_1),
    QUANT_KERNEL("q5_0", CUDA_Q5_0),
    QUANT_KERNEL("q5_1", CUDA_Q5_1),
    QUANT_KERNEL("q8_0", CUDA_Q8_0),
    QUANT_KERNEL("q2_k", CUDA_Q2_K),
    QUANT_KERNEL("q3_k", CUDA_Q3_K),
    QUANT_KERNEL("q4_k", CUDA_Q4_K),
    QUANT_KERNEL("q5_k", CUDA_Q5_K),
    QUANT_KERNEL("q6_k", CUDA_Q6_K),
    QUANT_KERNEL("iq4_nl", CUDA_IQ4_NL),
    QUANT_KERNEL("iq4_xs", CUDA_IQ4_XS),
    QUANT_KERNEL("mxfp4", CUDA_MXFP4),
    { "int8_codes", CUDA_INT8, DTYPE_I8, 80, CUDA_BATCH_INVARIANT | CUDA_CUBLASLT,
      cuda_launch_linear_codes, INPUT_QUANT_INT8 },
    { "fp8_codes", CUDA_FP8, DTYPE_F8_E4M3, 80, CUDA_BATCH_INVARIANT | CUDA_CUBLASLT,
      cuda_launch_linear_codes, INPUT_QUANT_FP8 },
};

static const struct linear_kernel *choose(const struct cuda_device *d, const struct linear *l,
                                          const struct cuda_weight_layout *layout)
{
    const struct linear_kernel *chosen = NULL;
    for (size_t i = 0; i < sizeof kernels / sizeof kernels[0]; i++)
        if (kernels[i].codec == layout->codec && kernels[i].input == l->input_quant.kind &&
            kernels[i].min_arch <= d->arch &&
            (layout->codec != CUDA_PLAIN || kernels[i].weights == layout->dtype))
            chosen = &kernels[i];
    return chosen;
}

/* --- plan and pack ---------------------------------------------------------------------------- */

static struct cuda_weight_layout layout_of(const struct linear *l)
{
    struct cuda_weight_layout layout;
    cuda_weight_layout(&layout, l->kernel->codec, l->format, l->in_features);
    return layout;
}

struct cuda_matrix cuda_matrix_of(const struct linear *l)
{
    struct cuda_matrix m = { .data = l->packed,
                             .rows = l->out_features,
                             .cols = l->in_features,
                             .stride = cuda_weight_stride(l->in_features),
                             .layout = layout_of(l),
                             .first_id = l->vocab_begin,
                             .num_ids = l->vocab_size > 0 ? l->vocab_size : l->out_features };
    m.dtype = m.layout.dtype;
    return m;
}

/* Remembers the sizes, for cuda_linear_prepare. */
static void note_planned(struct cuda_device *d, const struct linear *l,
                         const struct cuda_weight_layout *layout)
{
    const enum dtype dtype = l->kernel->weights;
    const struct cublaslt_weights w = { dtype, l->out_features, cuda_weight_stride(l->in_features),
                                        layout->row_bytes / (int64_t)dtype_size(dtype),
                                        l->bias && l->kernel->input == INPUT_QUANT_NONE };
    int32_t i = 0;
    pthread_mutex_lock(&d->mutex);
    while (i < d->num_planned &&
           (d->planned[i].dtype != w.dtype || d->planned[i].out_features != w.out_features ||
            d->planned[i].stride != w.stride || d->planned[i].has_bias != w.has_bias))
        i++;
    if (i == d->num_planned && i < CUBLASLT_MAX_SHAPES)
        d->planned[d->num_planned++] = w;
    pthread_mutex_unlock(&d->mutex);
}

bool cuda_linear_plan(const struct device *d, struct linear *l, struct status *st)
{
    struct cuda_weight_layout layout;
    if (l->out_features < 1 || l->in_features < 1)
        return status_set(st, STATUS_INVALID, "a weight of %d x %d: both sizes must be positive",
                          l->out_features, l->in_features);
    if (!l->format)
        return status_set(st, STATUS_INVALID, "a weight of %d x %d without a format",
                          l->out_features, l->in_features);
    l->kernel =
        cuda_weight_plan(&layout, l) ? choose((const struct cuda_device *)d, l, &layout) : NULL;
    if (!l->kernel)
        return status_set(st, STATUS_UNSUPPORTED, "the cuda backend cannot hold %s weights",
                          l->format->name);
    if (layout.row_bytes > CUDA_STAGING_BYTES)
        return status_set(st, STATUS_UNSUPPORTED,
                          "a weight of %d x %d: the cuda backend takes rows of up to %d bytes",
                          l->out_features, l->in_features, CUDA_STAGING_BYTES);
    l->packed_bytes = (size_t)l->out_features * (size_t)layout.row_bytes;
    if (l->kernel->flags & CUDA_CUBLASLT)
        note_planned((struct cuda_device *)(uintptr_t)d, l, &layout);
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

/* Rows of `format` as the device holds l's. */
static void convert_rows(unsigned char *dst, const struct linear *l, int32_t num_rows,
                         const unsigned char *src, const struct quant_format *format)
{
    const struct cuda_weight_layout layout = layout_of(l);
    const size_t src_bytes = quant_row_bytes(format, l->in_features);
    float *wide = NULL;
    unsigned char *row = NULL;
    if (format != l->format) {
        wide = xmalloc((size_t)l->in_features * sizeof *wide);
        row = xmalloc(quant_row_bytes(l->format, l->in_features));
    }
    for (int32_t r = 0; r < num_rows; r++, src += src_bytes, dst += layout.row_bytes) {
        if (row) {
            format->dequantize(format, wide, src, 0, l->in_features);
            l->format->quantize(l->format, row, wide, l->in_features);
        }
        cuda_pack_row(dst, &layout, l->format, row ? row : src, l->in_features);
    }
    free(wide);
    free(row);
}

void cuda_linear_pack(const struct device *device, const struct linear *l, int32_t row_begin,
                      int32_t num_rows, const void *rows, const struct quant_format *format)
{
    struct cuda_device *d = (struct cuda_device *)(uintptr_t)device;
    const size_t row_bytes = l->packed_bytes / (size_t)l->out_features;
    const int32_t at_once = (int32_t)(CUDA_STAGING_BYTES / row_bytes);
    assert(row_begin >= 0 && num_rows >= 0 && num_rows <= l->out_features - row_begin);
    bool ok = cuda_use(d);
    for (int32_t done = 0; ok && done < num_rows; done += at_once) {
        const int32_t count = num_rows - done < at_once ? num_rows - done : at_once;
        const unsigned char *src =
            (const unsigned char *)rows + (size_t)done * quant_row_bytes(format, l->in_features);
        struct cuda_staging *s = take_staging(d);
        ok = s->data && s->copied;
        if (ok) {
            convert_rows(s->data, l, count, src, format);
            cuda_check(d,
                       cudaMemcpyAsync((char *)l->packed + (size_t)(row_begin + done) * row_bytes,
                                       s->data, (size_t)count * row_bytes, cudaMemcpyHostToDevice,
                                       d->load_stream),
                       "loading weights");
            cuda_check(d, cudaEventRecord(s->copied, d->load_stream), "loading weights");
        }
        give_staging(d, s);
    }
}

/* --- cuBLASLt --------------------------------------------------------------------------------- */

static bool open_cublaslt(struct cuda_device *d)
{
    struct status st;
    if (!d->cublaslt && !cublaslt_open(&d->cublaslt, &st)) {
        log_warning("cuBLASLt is not used, kernels of ours do all products: %s", st.message);
        return false;
    }
    return true;
}

/* Sums of whole numbers are exact in any order, so that their bits do not depend on the batch. */
static bool may_be_cublaslts(const struct cuda_device *d, enum dtype dtype)
{
    enum { MIN_FP8_ARCH = 89 };
    return dtype == DTYPE_I8 ||
           (d->limits.batch_variant && (dtype != DTYPE_F8_E4M3 || d->arch >= MIN_FP8_ARCH));
}

void cuda_linear_prepare(struct cuda_device *d, void *workspace, size_t bytes)
{
    const struct workspace_desc *w = &d->limits;
    if (bytes == 0) {
        cublaslt_close(d->cublaslt);
        d->cublaslt = NULL;
        return;
    }
    if (!open_cublaslt(d))
        return;
    const int32_t max_rows =
        w->max_num_tokens > w->max_logits_rows ? w->max_num_tokens : w->max_logits_rows;
    cublaslt_set_workspace(d->cublaslt, workspace, bytes, max_rows);
    for (int32_t i = 0; i < d->num_planned; i++) {
        const struct cublaslt_weights *weights = &d->planned[i];
        /* The head works on the rows that are sampled from. */
        const bool is_head = weights->out_features == w->vocab_size;
        if (weights->stride <= cuda_weight_stride(w->max_in_features) &&
            may_be_cublaslts(d, weights->dtype))
            cublaslt_prepare(d->cublaslt, weights, is_head ? w->max_logits_rows : max_rows,
                             d->linear_input, d->stream);
    }
    cublaslt_log(d->cublaslt);
}

/* --- the product ------------------------------------------------------------------------------ */

/* A norm whose result is what is rounded. */
struct norm_of_input {
    struct tensor residual; /* that x is added to first; or no data */
    const struct norm *norm;
};

static void quantize(struct cuda_device *d, const struct cuda_codes *codes, const struct tensor *x,
                     const struct norm_of_input *norm)
{
    if (norm)
        cuda_launch_norm_quantize(codes, &norm->residual, x, norm->norm, d->stream);
    else
        cuda_launch_quantize(codes, x, d->stream);
}

/* Codes times codes; the rows' scales lie behind their codes. */
static void run_codes(struct cuda_device *d, const struct cuda_product *p, const struct tensor *x,
                      const struct linear *l, const struct norm_of_input *norm)
{
    struct cuda_product sums = *p, packed = *p;
    struct cuda_codes codes = { .codes = d->linear_input,
                                .stride = p->weight.stride,
                                .scale = l->input_quant.scale,
                                .is_fp8 = l->input_quant.kind == INPUT_QUANT_FP8 };
    const size_t code_bytes = (size_t)x->rows * (size_t)codes.stride * sizeof(uint16_t);
    codes.scales = (float *)((char *)d->linear_input + code_bytes);
    assert(code_bytes + (size_t)x->rows * sizeof(float) <= d->linear_input_bytes);
    assert(!l->input_order);
    sums.bias = packed.bias = NULL;
    packed.weight.dtype = l->kernel->weights;
    codes.packed = d->cublaslt && may_be_cublaslts(d, l->kernel->weights) &&
                   cublaslt_takes(d->cublaslt, &packed);
    quantize(d, &codes, x, norm);
    if (!codes.packed || !cublaslt_product(d->cublaslt, &packed, d->stream)) {
        if (codes.packed) { /* it failed just now */
            const struct norm_of_input added = { .norm = norm ? norm->norm : NULL };
            codes.packed = false;
            quantize(d, &codes, norm ? &norm->residual : x, norm ? &added : NULL);
        }
        l->kernel->run(&sums, d->stream);
    }
    cuda_launch_scale_sums(p, codes.scales, d->stream);
}

/* One link of the chain. */
static struct cuda_product product_of(const struct cuda_device *d, float *out, int64_t out_stride,
                                      const struct tensor *x, const struct linear *l)
{
    struct cuda_product p = {
        .weight = cuda_matrix_of(l),
        .x = d->linear_input,
        .bias = l->bias,
        .out = out,
        .out_stride = out_stride,
        .rows = x->rows,
    };
    p.tile_rows = cuda_tile_rows(p.weight.dtype, p.rows);
    assert(x->cols == l->in_features);
    assert((size_t)x->rows * (size_t)p.weight.stride * dtype_size(p.weight.dtype) <=
           d->linear_input_bytes);
    return p;
}

static void run_link(struct cuda_device *d, float *out, int64_t out_stride, const struct tensor *x,
                     const struct linear *l)
{
    const struct cuda_product p = product_of(d, out, out_stride, x, l);
    if (l->input_quant.kind != INPUT_QUANT_NONE) {
        run_codes(d, &p, x, l, NULL);
        return;
    }
    cuda_launch_linear_input(d->linear_input, x, l->input_order, &p.weight, d->stream);
    if (!d->cublaslt || !(l->kernel->flags & CUDA_CUBLASLT) ||
        !may_be_cublaslts(d, l->kernel->weights) || !cublaslt_product(d->cublaslt, &p, d->stream))
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

bool cuda_norm_codes_linear(struct cuda_device *d, struct tensor *out, struct tensor *residual,
                            const struct tensor *x, const struct norm *norm,
                            const struct linear *weight)
{
    const struct norm_of_input of = { *residual, norm };
    if (weight->input_quant.kind == INPUT_QUANT_NONE || weight->next)
        return false;
    const struct cuda_product p = product_of(d, out->data, out->stride, x, weight);
    run_codes(d, &p, x, weight, &of);
    cuda_check(d, cudaGetLastError(), "norm_linear");
    return true;
}

/* --- a product for each head ------------------------------------------------------------------ */

/* The heads' rows of x, rounded, one head's after the other's; then all products at once. */
static void run_heads(struct cuda_device *d, struct tensor *out, const struct tensor *x,
                      const struct linear *heads, int32_t num_heads)
{
    const struct cuda_matrix weight = cuda_matrix_of(heads);
    struct cuda_product p = { .weight = weight,
                              .x = d->linear_input,
                              .out = out->data,
                              .out_stride = out->stride,
                              .rows = x->rows,
                              .tile_rows = cuda_tile_rows(weight.dtype, x->rows) };
    p.group = (struct cuda_group){ .num_products = num_heads, .out_floats = heads->out_features };
    if (num_heads > 1)
        p.group.weight_bytes = (const char *)heads[1].packed - (const char *)heads[0].packed;
    cuda_launch_linear_heads_input(d->linear_input, x, num_heads, &weight, d->stream);
    heads->kernel->run(&p, d->stream);
}

static int32_t min_i32(int32_t a, int32_t b)
{
    return a < b ? a : b;
}

void cuda_linear_heads(struct device *device, struct tensor *out, const struct tensor *x,
                       const struct linear *heads, int32_t num_heads)
{
    struct cuda_device *d = cuda_device_of(device);
    assert(x->dtype == DTYPE_F32 && out->dtype == DTYPE_F32 && out->rows == x->rows);
    assert(num_heads > 0 && x->cols == num_heads * heads->in_features);
    assert(out->cols == num_heads * heads->out_features && !heads->bias && !heads->next);
    assert(!heads->input_order);
    /* The scratch holds max_in_features of each row, often less than all heads need. */
    const size_t row_bytes =
        (size_t)cuda_weight_stride(heads->in_features) * dtype_size(cuda_matrix_of(heads).dtype);
    const size_t fit = d->linear_input_bytes / row_bytes;
    const int32_t rows_at_once = fit < (size_t)x->rows ? (int32_t)fit : x->rows;
    assert(x->rows == 0 || rows_at_once > 0);
    for (int32_t row = 0; row < x->rows; row += rows_at_once) {
        const int32_t rows = min_i32(rows_at_once, x->rows - row);
        const size_t fit_heads = fit / (size_t)rows;
        const int32_t heads_at_once =
            fit_heads < (size_t)num_heads ? (int32_t)fit_heads : num_heads;
        for (int32_t head = 0; head < num_heads; head += heads_at_once) {
            const int32_t count = min_i32(heads_at_once, num_heads - head);
            struct tensor x_part =
                tensor_columns(x, head * heads->in_features, count * heads->in_features);
            struct tensor out_part =
                tensor_columns(out, head * heads->out_features, count * heads->out_features);
            x_part.data = (float *)x_part.data + row * x->stride;
            out_part.data = (float *)out_part.data + row * out->stride;
            x_part.rows = out_part.rows = rows;
            run_heads(d, &out_part, &x_part, heads + head, count);
        }
    }
    cuda_check(d, cudaGetLastError(), "linear_heads");
}
