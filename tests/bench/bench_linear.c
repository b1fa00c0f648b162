/* bench_linear.c - speed of the linear op next to what the machine can do, measured in one run.
 *
 * Usage: bench_linear [format [threads [isa [K N M...]]]]
 * A format is one of the table below (what --quantization and checkpoints give), or any of
 * kernels/quant that has no parameters: bfloat16, q4_0, ...
 * Prints for each shape and number of rows: the time, GFLOP/s and its share of the measured
 * arithmetic peak, GB/s of weights read and its share of the measured read bandwidth, and the share
 * of what both limits together allow (the slower of the two). Weights are walked through enough
 * copies that none is still in a cache. Times are the best of several, the machine being shared. */
#include "kernels/backend.h"
#include "kernels/cpu/cpu_device.h"

#include "base/clock.h"
#include "base/rng.h"
#include "kernels/quant/fp8.h"
#include "kernels/quant/int_group.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

enum { CHAINS = 20, PEAK_STEPS = 200000, MAX_ROW_COUNTS = 16 };

/* Weights of one shape in all its copies: beyond any cache. */
static const size_t cold_bytes = (size_t)384 << 20;
static volatile float sink;

/* --- formats ---------------------------------------------------------------------------------- */

static const struct format_row {
    const char *name;
    struct int_group_params group; /* bits 0: fp8 */
    bool act_order;                /* columns of x in another order */
} format_rows[] = {
    { "int4", { 4, 32, QUANT_OFFSET_MIN, DTYPE_F16 }, false },
    { "int8", { 8, 128, QUANT_OFFSET_MIDDLE, DTYPE_F16 }, false },
    { "fp8", { 0, 32, QUANT_OFFSET_MIDDLE, DTYPE_F16 }, false },
    { "fp8-channel", { 0, 0, QUANT_OFFSET_MIDDLE, DTYPE_BF16 }, false },
    { "w8a8", { 8, 0, QUANT_OFFSET_MIDDLE, DTYPE_BF16 }, false },
    { "awq", { 4, 128, QUANT_OFFSET_ZERO, DTYPE_F16 }, false },
    { "gptq", { 4, 128, QUANT_OFFSET_MIDDLE, DTYPE_F16 }, false },
    { "gptq-act-order", { 4, 128, QUANT_OFFSET_MIDDLE, DTYPE_F16 }, true },
};

/* `made` holds a format with parameters. NULL: unknown. */
static const struct quant_format *choose_format(struct quant_format *made, bool *act_order,
                                                const char *name)
{
    *act_order = false;
    for (size_t i = 0; i < sizeof format_rows / sizeof format_rows[0]; i++) {
        const struct format_row *row = &format_rows[i];
        if (strcmp(row->name, name) != 0)
            continue;
        *made = row->group.bits ? int_group_format(&row->group)
                                : fp8_format(row->group.group_size, row->group.scale_dtype);
        *act_order = row->act_order;
        return made;
    }
    return quant_format_find(name);
}

/* --- the machine's own limits ------------------------------------------------------------------
 */

#if defined(__x86_64__)
__attribute__((target("avx512f,avx512bf16"))) static float spin_bf16(void)
{
    __m512 sum[CHAINS];
    __m512bh a = (__m512bh)_mm512_set1_epi32(0x3f003f00),
             b = (__m512bh)_mm512_set1_epi32(0x3e003e00);
    __asm__ volatile("" : "+v"(a), "+v"(b));
#pragma GCC unroll 20
    for (int i = 0; i < CHAINS; i++) {
        sum[i] = _mm512_setzero_ps();
        __asm__ volatile("" : "+v"(sum[i])); /* equal chains would be merged */
    }
    for (int s = 0; s < PEAK_STEPS; s++) {
#pragma GCC unroll 20
        for (int i = 0; i < CHAINS; i++)
            sum[i] = _mm512_dpbf16_ps(sum[i], a, b);
    }
    float total = 0;
#pragma GCC unroll 20
    for (int i = 0; i < CHAINS; i++)
        total += _mm512_reduce_add_ps(sum[i]);
    return total;
}

__attribute__((target("avx512f"))) static float spin_avx512(void)
{
    __m512 sum[CHAINS], a = _mm512_set1_ps(0.5f), b = _mm512_set1_ps(0.125f);
    __asm__ volatile("" : "+v"(a), "+v"(b));
#pragma GCC unroll 20
    for (int i = 0; i < CHAINS; i++) {
        sum[i] = _mm512_setzero_ps();
        __asm__ volatile("" : "+v"(sum[i])); /* equal chains would be merged */
    }
    for (int s = 0; s < PEAK_STEPS; s++) {
#pragma GCC unroll 20
        for (int i = 0; i < CHAINS; i++)
            sum[i] = _mm512_fmadd_ps(a, b, sum[i]);
    }
    float total = 0;
#pragma GCC unroll 20
    for (int i = 0; i < CHAINS; i++)
        total += _mm512_reduce_add_ps(sum[i]);
    return total;
}

__attribute__((target("avx2,fma"))) static float spin_avx2(void)
{
    __m256 sum[12], a = _mm256_set1_ps(0.5f), b = _mm256_set1_ps(0.125f);
    __asm__ volatile("" : "+x"(a), "+x"(b));
#pragma GCC unroll 12
    for (int i = 0; i < 12; i++) {
        sum[i] = _mm256_setzero_ps();
        __asm__ volatile("" : "+x"(sum[i]));
    }
    for (int s = 0; s < PEAK_STEPS; s++) {
#pragma GCC unroll 12
        for (int i = 0; i < 12; i++)
            sum[i] = _mm256_fmadd_ps(a, b, sum[i]);
    }
    float total = 0;
#pragma GCC unroll 12
    for (int i = 0; i < 12; i++)
        total += _mm256_cvtss_f32(sum[i]);
    return total;
}
#endif

static float spin_scalar(void)
{
    float sum[32] = { 0 };
    volatile float factor = 0.5f;
    for (int s = 0; s < PEAK_STEPS; s++) {
        float a = factor;
        for (int i = 0; i < 32; i++)
            sum[i] = sum[i] + a * 0.125f;
    }
    return sum[0] + sum[31];
}

struct spin {
    float (*run)(void);
    double flops_per_step;
};

static struct spin spin_of(enum cpu_isa isa, enum dtype weights)
{
#if defined(__x86_64__)
    if (isa >= CPU_ISA_AVX512_BF16 && weights == DTYPE_BF16)
        return (struct spin){ spin_bf16, CHAINS * 64.0 };
    if (isa >= CPU_ISA_AVX512)
        return (struct spin){ spin_avx512, CHAINS * 32.0 };
    if (isa >= CPU_ISA_AVX2)
        return (struct spin){ spin_avx2, 12 * 16.0 };
#endif
    (void)isa;
    (void)weights;
    return (struct spin){ spin_scalar, 64.0 };
}

static void spin_task(void *arg, int32_t task, int32_t thread)
{
    (void)task;
    (void)thread;
    sink = ((struct spin *)arg)->run();
}

struct sweep {
    const char *data;
    size_t bytes;
    int32_t num_tasks;
};

#if defined(__x86_64__)
__attribute__((target("avx2"))) static void sweep_task(void *arg, int32_t task, int32_t thread)
{
    const struct sweep *s = arg;
    size_t part = s->bytes / (size_t)s->num_tasks;
    const char *at = s->data + part * (size_t)task, *end = at + part;
    __m256i sum[8];
    (void)thread;
    for (int i = 0; i < 8; i++)
        sum[i] = _mm256_setzero_si256();
    for (; at + 256 <= end; at += 256) {
        for (int i = 0; i < 4; i++)
            _mm_prefetch(at + 4096 + 64 * i, _MM_HINT_T0);
#pragma GCC unroll 8
        for (int i = 0; i < 8; i++)
            sum[i] = _mm256_xor_si256(sum[i], _mm256_load_si256((const __m256i *)at + i));
    }
    for (int i = 1; i < 8; i++)
        sum[0] = _mm256_xor_si256(sum[0], sum[i]);
    sink = (float)_mm256_extract_epi32(sum[0], 0);
}
#else
static void sweep_task(void *arg, int32_t task, int32_t thread)
{
    const struct sweep *s = arg;
    size_t part = s->bytes / (size_t)s->num_tasks / 8;
    const uint64_t *at = (const uint64_t *)s->data + part * (size_t)task;
    uint64_t sum = 0;
    (void)thread;
    for (size_t i = 0; i < part; i++)
        sum ^= at[i];
    sink = (float)sum;
}
#endif

static double peak_flops(struct cpu_device *c, enum dtype weights)
{
    struct spin spin = spin_of(c->isa, weights);
    double best = 0;
    for (int i = 0; i < 24; i++) {
        uint64_t start = clock_now_ns();
        thread_pool_run(c->pool, c->num_threads, spin_task, &spin);
        double s = clock_seconds_between(start, clock_now_ns());
        double flops = spin.flops_per_step * PEAK_STEPS * c->num_threads / s;
        best = flops > best ? flops : best;
    }
    return best;
}

/* Reads `count` regions of `bytes` one after the other; the best single region counts, as the best
 * single call of the op does. */
static double peak_bytes(struct cpu_device *c, const char *memory, size_t bytes, int32_t count)
{
    double best = 0;
    for (int i = 0; i < 2 * count; i++) {
        struct sweep sweep = { memory + (size_t)(i % count) * bytes, bytes, c->num_threads * 8 };
        uint64_t start = clock_now_ns();
        thread_pool_run(c->pool, sweep.num_tasks, sweep_task, &sweep);
        double rate = (double)bytes / clock_seconds_between(start, clock_now_ns());
        best = rate > best ? rate : best;
    }
    return best;
}

/* --- the op ----------------------------------------------------------------------------------- */

struct bench {
    struct device *d;
    const struct quant_format *format;
    bool act_order;
    double peak_flops;
};

static void fail(const struct status *st)
{
    fprintf(stderr, "bench_linear: %s\n", st->message);
    exit(1);
}

static void *must_alloc(struct device *d, struct buffer *b, size_t bytes)
{
    struct status st = { 0 };
    if (!d->backend->alloc(d, b, bytes, MEMORY_DEVICE, &st))
        fail(&st);
    return b->data;
}

/* Copies of one weight matrix, so that each call reads memory that no cache holds. */
struct weights {
    struct linear *copies;
    struct buffer memory, order;
    int32_t count;
};

/* Some row, whatever the format: of one that is only read, bytes whose scales are plain numbers. */
static void make_row(const struct quant_format *f, void *stored, float *row, int32_t r, int32_t k)
{
    unsigned char *bytes = stored;
    for (int32_t c = 0; c < k; c++)
        row[c] = (float)((r * 7 + c * 13) % 101 - 50) * 0.01f;
    for (size_t i = 0; i < quant_row_bytes(f, k) && !f->quantize; i++)
        bytes[i] = (unsigned char)(0x20 + (i * 7 + (size_t)r) % 16);
    if (f->quantize)
        f->quantize(f, stored, row, k);
}

/* Columns far apart, each once. */
static const int32_t *make_order(struct bench *b, struct buffer *memory, int32_t k)
{
    int32_t *order = must_alloc(b->d, memory, (size_t)k * sizeof *order), step = k / 3;
    for (int32_t i = 0, at = 0; i < k; i++, at += step) {
        if (at >= k)
            at = at % step + 1;
        order[i] = at;
    }
    return order;
}

static struct weights make_weights(struct bench *b, int32_t k, int32_t n)
{
    struct weights w = { .count = 0 };
    struct status st = { 0 };
    const struct quant_format *format = b->format;
    struct linear l = { .out_features = n, .in_features = k, .format = format };
    if (b->act_order)
        l.input_order = make_order(b, &w.order, k);
    if (!b->d->backend->linear_plan(b->d, &l, &st))
        fail(&st);
    size_t step = (l.packed_bytes + 63) / 64 * 64;
    w.count = (int32_t)(cold_bytes / step) + 1;
    w.copies = calloc((size_t)w.count, sizeof *w.copies);
    char *packed = must_alloc(b->d, &w.memory, step * (size_t)w.count);
    float *row = malloc((size_t)k * sizeof *row);
    void *stored = malloc(quant_row_bytes(format, k));
    for (int32_t i = 0; i < w.count; i++) {
        w.copies[i] = l;
        w.copies[i].packed = packed + step * (size_t)i;
        for (int32_t r = 0; i == 0 && r < n; r++) {
            make_row(format, stored, row, r, k);
            b->d->backend->linear_pack(b->d, &w.copies[0], r, 1, stored, format);
        }
        if (i > 0)
            memcpy(w.copies[i].packed, w.copies[0].packed, l.packed_bytes);
    }
    free(row);
    free(stored);
    return w;
}

static double peak_bytes_of(struct bench *b, const struct weights *w)
{
    size_t step = (w->copies[0].packed_bytes + 63) / 64 * 64;
    return peak_bytes(cpu_device_of(b->d), w->memory.data, step, w->count);
}

static double best_time(struct bench *b, const struct weights *w, struct tensor *out,
                        const struct tensor *x)
{
    double best = 1e9, spent = 0;
    for (int32_t i = 0; (spent < 1.0 && i < 4000) || i < 5; i++) {
        uint64_t start = clock_now_ns();
        b->d->backend->linear(b->d, out, x, &w->copies[i % w->count]);
        double s = clock_seconds_between(start, clock_now_ns());
        best = s < best ? s : best;
        spent += s;
    }
    return best;
}

static void bench_shape(struct bench *b, int32_t k, int32_t n, const int32_t *rows,
                        int32_t num_rows)
{
    struct weights w = make_weights(b, k, n);
    struct buffer x_memory, out_memory;
    int32_t most = rows[num_rows - 1];
    float *x = must_alloc(b->d, &x_memory, (size_t)most * (size_t)k * sizeof *x);
    float *out = must_alloc(b->d, &out_memory, (size_t)most * (size_t)n * sizeof *out);
    for (int64_t i = 0; i < (int64_t)most * k; i++)
        x[i] = rng_uniform(rng_philox(1, 2, (uint64_t)i).word[0]) - 0.5f;
    for (int32_t i = 0; i < num_rows; i++) {
        struct tensor xt = tensor_view(x, DTYPE_F32, rows[i], k);
        struct tensor ot = tensor_view(out, DTYPE_F32, rows[i], n);
        double bandwidth = peak_bytes_of(b, &w); /* it drifts: measured beside what it judges */
        double s = best_time(b, &w, &ot, &xt);
        double again = peak_bytes_of(b, &w);
        bandwidth = again > bandwidth ? again : bandwidth;
        double flops = 2.0 * rows[i] * k * n, bytes = (double)w.copies[0].packed_bytes;
        double by_flops = flops / b->peak_flops, by_bytes = bytes / bandwidth;
        double limit = by_flops > by_bytes ? by_flops : by_bytes;
        printf("%6d %7d %5d  %10.1f us  %8.1f GFLOP/s %4.0f %%  %6.2f of %6.2f GB/s %4.0f %%  "
               "%4.0f %%\n",
               k, n, rows[i], s * 1e6, flops / s * 1e-9, 100 * by_flops / s, bytes / s * 1e-9,
               bandwidth * 1e-9, 100 * by_bytes / s, 100 * limit / s);
        fflush(stdout);
    }
    b->d->backend->free(b->d, &x_memory);
    b->d->backend->free(b->d, &out_memory);
    b->d->backend->free(b->d, &w.memory);
    if (b->act_order)
        b->d->backend->free(b->d, &w.order);
    free(w.copies);
}

static void bench_all(struct bench *b)
{
    static const int32_t rows[] = { 1, 2, 4, 8, 16, 32, 64, 128, 512 };
    static const int32_t shapes[][2] = { { 2048, 2048 }, { 2048, 3072 },   { 2048, 16384 },
                                         { 8192, 2048 }, { 2048, 128256 }, { 576, 576 },
                                         { 576, 960 },   { 576, 3072 },    { 1536, 576 },
                                         { 576, 49152 } };
    for (size_t s = 0; s < sizeof shapes / sizeof shapes[0]; s++)
        bench_shape(b, shapes[s][0], shapes[s][1], rows, shapes[s][1] > 40000 ? 6 : 9);
}

int main(int argc, char **argv)
{
    struct bench b = { .d = NULL };
    struct quant_format made;
    const char *name = argc > 1 ? argv[1] : "bfloat16";
    struct status st = { 0 };
    struct device_options options = { .num_threads = argc > 2 ? atoi(argv[2]) : 0,
                                      .isa = argc > 3 ? argv[3] : "auto",
                                      .pin_threads = true };
    b.format = choose_format(&made, &b.act_order, name);
    if (!b.format) {
        fprintf(stderr, "bench_linear: unknown format \"%s\"\n", name);
        return 2;
    }
    if (!backend_cpu.open(&b.d, &options, &st))
        fail(&st);
    struct workspace_desc limits = { .max_num_tokens = 1024,
                                     .max_num_seqs = 1,
                                     .max_logits_rows = 1,
                                     .max_model_len = 16,
                                     .block_size = 16,
                                     .max_in_features = 16384,
                                     .max_out_features = 128256,
                                     .num_heads = 1,
                                     .num_kv_heads = 1,
                                     .head_dim = 64,
                                     .vocab_size = 32 };
    if (!b.d->backend->reserve_workspace(b.d, &limits, &st))
        fail(&st);
    b.d->backend->bind_thread(b.d);
    b.peak_flops = peak_flops(cpu_device_of(b.d), b.format->dtype);
    printf("%s, %s weights, peak %.1f GFLOP/s\n", b.d->description, b.format->name,
           b.peak_flops * 1e-9);
    printf("%6s %7s %5s  %13s  %24s  %29s  %s\n", "K", "N", "rows", "time", "arithmetic, of peak",
           "weights read, of bandwidth", "of limit");
    if (argc > 6) {
        int32_t rows[MAX_ROW_COUNTS], count = 0;
        for (; count < MAX_ROW_COUNTS && 6 + count < argc; count++)
            rows[count] = atoi(argv[6 + count]);
        bench_shape(&b, atoi(argv[4]), atoi(argv[5]), rows, count);
    } else {
        bench_all(&b);
    }
    b.d->backend->close(b.d);
    return 0;
}
