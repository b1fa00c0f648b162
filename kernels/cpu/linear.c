/* linear.c - y = x W^T + bias: the table of kernels, and how a product is cut into tasks. */
#include "kernels/cpu/linear.h"

#include "base/alloc.h"
#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/linear_ggml.h"
#include "kernels/cpu/linear_words.h"
#include "kernels/quant/ggml_formats.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

enum {
    /* More rows than this are done in turns, which bounds the scratch memory; at this height the
     * weights that are read again no longer matter next to the arithmetic. */
    MAX_ROWS_AT_ONCE = 1024,
    /* Converted rows are this many elements longer than in_features, rounded up: a row length
     * that is a power of two would put all rows of a tile into the same few cache sets. */
    ROW_PADDING = 32,
    TASKS_PER_THREAD = 8,
    /* Rows of one task where a product is also cut along its rows: a multiple of every tile. */
    ROWS_PER_TASK = 48,
    /* Below these a product or conversion costs less than handing it to another thread. */
    MIN_PARALLEL_PRODUCTS = 64 << 10,
    MIN_PARALLEL_CONVERT = 32 << 10
};

static void convert_f32(void *dst, const float *src, int32_t count)
{
    memcpy(dst, src, (size_t)count * sizeof *src);
}

/* The rounding of bf16_from_f32, its result kept as float32. */
static void convert_bf16_as_f32(void *dst, const float *src, int32_t count)
{
    float *out = dst;
    for (int32_t i = 0; i < count; i++) {
        uint32_t bits;
        memcpy(&bits, src + i, sizeof bits);
        uint32_t rounded = bits + 0x7fffu + (bits >> 16 & 1u);
        rounded = (bits & 0x7fffffffu) > 0x7f800000u ? bits | 0x400000u : rounded;
        rounded &= 0xffff0000u;
        memcpy(out + i, &rounded, sizeof rounded);
    }
}

#define BF16(NAME, ISA, RUN)                                                                       \
    {                                                                                              \
        NAME, ISA, DTYPE_BF16, LINEAR_INPUT_BF16_AS_F32, convert_bf16_as_f32, RUN,                 \
            linear_pack_pairs, linear_unpack_row_pairs, NULL, NULL                                 \
    }
#define F32(NAME, ISA, RUN)                                                                        \
    {                                                                                              \
        NAME, ISA, DTYPE_F32, LINEAR_INPUT_F32, convert_f32, RUN, linear_pack_f32,                 \
            linear_unpack_row_f32, NULL, NULL                                                      \
    }
#define F16(NAME, ISA, RUN)                                                                        \
    {                                                                                              \
        NAME, ISA, DTYPE_F16, LINEAR_INPUT_F32, convert_f32, RUN, linear_pack_f16,                 \
            linear_unpack_row_f16, NULL, NULL                                                      \
    }
/* Any format, and the last choice: they stand before all others made for formats. */
#define DEQUANT(NAME, ISA, RUN)                                                                    \
    {                                                                                              \
        NAME, ISA, DTYPE_F32, LINEAR_INPUT_F32, convert_f32, RUN, linear_pack_rows,                \
            linear_unpack_row_rows, linear_panel_bytes_rows, NULL                                  \
    }

/* One format, by whole numbers. */
#define GGML(FORMAT, ISA_NAME, ISA)                                                                \
    {                                                                                              \
#FORMAT "_" #ISA_NAME, ISA, DTYPE_F32, LINEAR_INPUT_Q16, linear_convert_q16_##ISA_NAME,    \
            linear_run_##FORMAT##_##ISA_NAME, linear_ggml_pack, linear_ggml_unpack_row,            \
            linear_ggml_panel_bytes, &quant_format_##FORMAT                                        \
    }
#define WORDS(NAME, ISA, RUN)                                                                      \
    {                                                                                              \
        NAME, ISA, DTYPE_F32, LINEAR_INPUT_F32, convert_f32, RUN, linear_pack_words,               \
            linear_unpack_row_words, linear_panel_bytes_words, NULL                                \
    }

const struct linear_kernel linear_kernels[] = {
    BF16("bf16_scalar", CPU_ISA_SCALAR, linear_run_bf16_scalar),
    F32("f32_scalar", CPU_ISA_SCALAR, linear_run_f32_scalar),
    F16("f16_scalar", CPU_ISA_SCALAR, linear_run_f16_scalar),
    DEQUANT("dequant_scalar", CPU_ISA_SCALAR, linear_run_dequant_scalar),
    WORDS("words_scalar", CPU_ISA_SCALAR, linear_run_words_scalar),
#if defined(__x86_64__)
    BF16("bf16_avx2", CPU_ISA_AVX2, linear_run_bf16_avx2),
    F32("f32_avx2", CPU_ISA_AVX2, linear_run_f32_avx2),
    F16("f16_avx2", CPU_ISA_AVX2, linear_run_f16_avx2),
    DEQUANT("dequant_avx2", CPU_ISA_AVX2, linear_run_dequant_avx2),
    WORDS("words_avx2", CPU_ISA_AVX2, linear_run_words_avx2),
    BF16("bf16_avx512", CPU_ISA_AVX512, linear_run_bf16_avx512),
    F32("f32_avx512", CPU_ISA_AVX512, linear_run_f32_avx512),
    F16("f16_avx512", CPU_ISA_AVX512, linear_run_f16_avx512),
    DEQUANT("dequant_avx512", CPU_ISA_AVX512, linear_run_dequant_avx512),
    WORDS("words_avx512", CPU_ISA_AVX512, linear_run_words_avx512),
    { "bf16_avx512bf16", CPU_ISA_AVX512_BF16, DTYPE_BF16, LINEAR_INPUT_BF16,
      linear_convert_bf16_avx512bf16, linear_run_bf16_avx512bf16, linear_pack_pairs,
      linear_unpack_row_pairs, NULL, NULL },
    GGML(q4_0, avx2, CPU_ISA_AVX2),
    GGML(q4_1, avx2, CPU_ISA_AVX2),
    GGML(q5_0, avx2, CPU_ISA_AVX2),
    GGML(q5_1, avx2, CPU_ISA_AVX2),
    GGML(q8_0, avx2, CPU_ISA_AVX2),
    GGML(q4_k, avx2, CPU_ISA_AVX2),
    GGML(q5_k, avx2, CPU_ISA_AVX2),
    GGML(q6_k, avx2, CPU_ISA_AVX2),
    GGML(iq4_nl, avx2, CPU_ISA_AVX2),
    GGML(iq4_xs, avx2, CPU_ISA_AVX2),
    GGML(mxfp4, avx2, CPU_ISA_AVX2),
#endif
    { .name = NULL },
};

/* --- plan and pack ---------------------------------------------------------------------------- */

/* Of one panel; 0 when the kernel is for other weights. */
static size_t panel_bytes(const struct linear_kernel *k, const struct linear *l)
{
    bool plain = quant_format_is_plain(l->format);
    if (k->format && k->format != l->format)
        return 0;
    if (k->panel_bytes)
        return plain ? 0 : k->panel_bytes(l);
    return plain && k->weights == l->format->dtype ? linear_panel_bytes(k->weights, l->in_features)
                                                   : 0;
}

static const struct linear_kernel *best_kernel(enum cpu_isa isa, const struct linear *l)
{
    const struct linear_kernel *best = NULL;
    for (const struct linear_kernel *k = linear_kernels; k->name; k++)
        if (k->isa <= isa && panel_bytes(k, l) > 0)
            best = k;
    return best;
}

int32_t linear_num_panels(const struct linear *l)
{
    return (l->out_features - 1) / LINEAR_PANEL + 1;
}

bool cpu_linear_plan(const struct device *d, struct linear *l, struct status *st)
{
    const struct cpu_device *c = (const struct cpu_device *)d;
    if (l->out_features < 1 || l->in_features < 1)
        return status_set(st, STATUS_INVALID, "a weight of %d x %d: both sizes must be positive",
                          l->out_features, l->in_features);
    if (!l->format)
        return status_set(st, STATUS_INVALID, "a weight of %d x %d without a format",
                          l->out_features, l->in_features);
    assert(l->format->block_elements <= QUANT_MAX_BLOCK);
    l->kernel = best_kernel(c->isa, l);
    assert(l->kernel);
    l->panel_bytes = panel_bytes(l->kernel, l);
    l->packed_bytes = (size_t)linear_num_panels(l) * l->panel_bytes;
    return true;
}

const char *cpu_linear_layout(const struct linear *l)
{
    return l->kernel->name;
}

void *linear_panel_at(const struct linear *l, int32_t panel)
{
    return (char *)l->packed + (size_t)panel * l->panel_bytes;
}

/* Rows of another format, or at an odd address, as rows of l->format. */
static void convert_rows(void *dst, const struct linear *l, const void *src, int32_t num_rows,
                         const struct quant_format *format, void *row, float *wide)
{
    size_t src_bytes = quant_row_bytes(format, l->in_features);
    size_t dst_bytes = quant_row_bytes(l->format, l->in_features);
    for (int32_t r = 0; r < num_rows; r++) {
        memcpy(row, (const char *)src + (size_t)r * src_bytes, src_bytes);
        format->dequantize(format, wide, row, 0, l->in_features);
        l->format->quantize(l->format, (char *)dst + (size_t)r * dst_bytes, wide, l->in_features);
    }
}

void cpu_linear_pack(const struct device *d, const struct linear *l, int32_t row_begin,
                     int32_t num_rows, const void *rows, const struct quant_format *format)
{
    (void)d;
    assert(row_begin >= 0 && num_rows >= 0 && num_rows <= l->out_features - row_begin);
    bool same = format == l->format;
    assert(same || l->format->quantize);
    size_t row_bytes = quant_row_bytes(format, l->in_features);
    size_t packed_row_bytes = quant_row_bytes(l->format, l->in_features);
    void *converted = same ? NULL : xmalloc(LINEAR_PANEL * packed_row_bytes);
    void *row = same ? NULL : xmalloc(row_bytes);
    float *wide = same ? NULL : xmalloc((size_t)l->in_features * sizeof *wide);
    for (int32_t done = 0; done < num_rows;) {
        int32_t at = row_begin + done;
        int32_t first = at % LINEAR_PANEL;
        int32_t count = LINEAR_PANEL - first;
        if (count > num_rows - done)
            count = num_rows - done;
        const void *src = (const char *)rows + (size_t)done * row_bytes;
        if (!same)
            convert_rows(converted, l, src, count, format, row, wide);
        l->kernel->pack(linear_panel_at(l, at / LINEAR_PANEL), l, first, count,
                        same ? src : converted);
        done += count;
    }
    free(converted);
    free(row);
    free(wide);
}

/* --- the product ------------------------------------------------------------------------------ */

size_t linear_input_element_bytes(const struct linear *l)
{
    return l->kernel->input == LINEAR_INPUT_BF16 ? sizeof(uint16_t) : sizeof(float);
}

int64_t linear_input_stride(int32_t in_features)
{
    return ((int64_t)in_features + 63) / 64 * 64 + ROW_PADDING;
}

static void convert_in_order(const struct linear *l, void *dst, const float *src, size_t element)
{
    enum { CHUNK = 256 };
    float ordered[CHUNK];
    for (int32_t begin = 0; begin < l->in_features; begin += CHUNK) {
        int32_t count = l->in_features - begin < CHUNK ? l->in_features - begin : CHUNK;
        for (int32_t i = 0; i < count; i++)
            ordered[i] = src[l->input_order[begin + i]];
        l->kernel->convert((char *)dst + (size_t)begin * element, ordered, count);
    }
}

void linear_convert_row(const struct linear *l, void *dst, const float *src)
{
    size_t element = linear_input_element_bytes(l);
    if (l->input_quant.kind != INPUT_QUANT_NONE) {
        assert(l->kernel->input == LINEAR_INPUT_F32 && !l->input_order);
        input_quant_row(&l->input_quant, dst, src, l->in_features);
    } else if (l->input_order)
        convert_in_order(l, dst, src, element);
    else
        l->kernel->convert(dst, src, l->in_features);
    if (l->in_features % 2 != 0)
        memset((char *)dst + (size_t)l->in_features * element, 0, element);
}

size_t cpu_dequant_scratch_bytes(const struct cpu_device *d)
{
    return (size_t)d->num_threads * LINEAR_DEQUANT_BYTES;
}

void *linear_dequant_scratch(const struct cpu_device *d, int32_t thread)
{
    return (char *)d->dequant_scratch + (size_t)thread * LINEAR_DEQUANT_BYTES;
}

size_t cpu_linear_scratch_bytes(const struct cpu_device *d, const struct workspace_desc *w)
{
    (void)d;
    int32_t rows = w->max_num_tokens > w->max_logits_rows ? w->max_num_tokens : w->max_logits_rows;
    if (rows > MAX_ROWS_AT_ONCE)
        rows = MAX_ROWS_AT_ONCE;
    return (size_t)rows * (size_t)linear_input_stride(w->max_in_features) * sizeof(float);
}

struct product {
    const struct cpu_device *device;
    const struct linear *l;
    int32_t out_column; /* of the output, where the rows of `l` begin */
    const struct tensor *x;
    struct tensor *out;
    void *input; /* [rows, input_stride] converted rows of x */
    int64_t stride;
    size_t row_bytes;
    int32_t first_row, rows; /* of x and out in this turn */
    int32_t rows_per_task, row_parts, panels_per_task;
    int32_t convert_rows; /* per task */
};

static int32_t min_i32(int32_t a, int32_t b)
{
    return a < b ? a : b;
}

static void convert_task(void *arg, int32_t task, int32_t thread)
{
    const struct product *p = arg;
    int32_t begin = task * p->convert_rows;
    int32_t end = min_i32(p->rows, begin + p->convert_rows);
    (void)thread;
    for (int32_t r = begin; r < end; r++)
        linear_convert_row(p->l, (char *)p->input + (size_t)r * p->row_bytes,
                           (const float *)p->x->data + (p->first_row + r) * p->x->stride);
}

static void convert_input(struct thread_pool *pool, struct product *p)
{
    int64_t elements = (int64_t)p->rows * p->l->in_features;
    int32_t num_tasks = 1;
    if (elements >= MIN_PARALLEL_CONVERT && p->rows > 1)
        num_tasks = min_i32(p->rows, 4 * thread_pool_size(pool));
    p->convert_rows = (p->rows + num_tasks - 1) / num_tasks;
    num_tasks = (p->rows + p->convert_rows - 1) / p->convert_rows;
    thread_pool_run(pool, num_tasks, convert_task, p);
}

static void product_task(void *arg, int32_t task, int32_t thread)
{
    const struct product *p = arg;
    const struct linear *l = p->l;
    int32_t panel = task / p->row_parts * p->panels_per_task;
    int32_t row = task % p->row_parts * p->rows_per_task;
    int32_t col = panel * LINEAR_PANEL;
    struct linear_block b = {
        .x = (const char *)p->input + (size_t)row * p->row_bytes,
        .x_stride = p->stride,
        .packed = linear_panel_at(l, panel),
        .out = (float *)p->out->data + (p->first_row + row) * p->out->stride + p->out_column + col,
        .out_stride = p->out->stride,
        .bias = l->bias ? l->bias + col : NULL,
        .rows = min_i32(p->rows_per_task, p->rows - row),
        .cols = min_i32(p->panels_per_task * LINEAR_PANEL, l->out_features - col),
        .in_features = l->in_features,
        .linear = l,
        .scratch = linear_dequant_scratch(p->device, thread),
    };
    l->kernel->run(&b);
}

/* Cuts along panels, so that each thread reads weights of its own; along rows too where there are
 * too few panels to keep all threads busy to the end. */
static int32_t cut(struct product *p, int32_t num_threads)
{
    int32_t panels = linear_num_panels(p->l), wanted = num_threads * TASKS_PER_THREAD;
    int64_t products = (int64_t)p->rows * p->l->in_features * p->l->out_features;
    p->rows_per_task = p->rows;
    p->row_parts = 1;
    p->panels_per_task = panels;
    if (num_threads == 1 || products < MIN_PARALLEL_PRODUCTS)
        return 1;
    p->panels_per_task = panels > 2 * wanted ? panels / wanted : 1;
    if (panels < wanted && p->rows > ROWS_PER_TASK) {
        int32_t parts =
            min_i32((wanted + panels - 1) / panels, (p->rows + ROWS_PER_TASK - 1) / ROWS_PER_TASK);
        int32_t units = (p->rows + ROWS_PER_TASK - 1) / ROWS_PER_TASK;
        p->rows_per_task = (units + parts - 1) / parts * ROWS_PER_TASK;
        p->row_parts = (p->rows + p->rows_per_task - 1) / p->rows_per_task;
    }
    return (panels + p->panels_per_task - 1) / p->panels_per_task * p->row_parts;
}

/* One link of the chain. */
static void run_link(struct cpu_device *c, struct tensor *out, int32_t out_column,
                     const struct tensor *x, const struct linear *weight)
{
    struct product p = { .device = c,
                         .l = weight,
                         .out_column = out_column,
                         .x = x,
                         .out = out,
                         .input = c->linear_scratch };
    p.stride = linear_input_stride(weight->in_features);
    p.row_bytes = (size_t)p.stride * linear_input_element_bytes(weight);
    size_t fit = c->linear_scratch_bytes / p.row_bytes;
    assert(fit > 0);
    int32_t at_once = fit < MAX_ROWS_AT_ONCE ? (int32_t)fit : MAX_ROWS_AT_ONCE;
    for (int32_t row = 0; row < x->rows; row += at_once) {
        p.first_row = row;
        p.rows = min_i32(at_once, x->rows - row);
        convert_input(c->pool, &p);
        int32_t num_tasks = cut(&p, c->num_threads);
        thread_pool_run(c->pool, num_tasks, product_task, &p);
    }
}

void cpu_linear(struct device *d, struct tensor *out, const struct tensor *x,
                const struct linear *weight)
{
    int32_t out_column = 0;
    assert(x->dtype == DTYPE_F32 && out->dtype == DTYPE_F32 && out->rows == x->rows);
    assert(out->cols == linear_out_features(weight));
    for (const struct linear *l = weight; l; out_column += l->out_features, l = l->next) {
        assert(x->cols == l->in_features);
        run_link(cpu_device_of(d), out, out_column, x, l);
    }
}
