/* bench_attention.c - speed of attention at the shape of Llama-3.2-1B (32 heads, 8 kv heads,
 * head_dim 64), beside what the machine can do at all.
 *
 *   bench_attention [threads [isa [dtype of the cache]]]
 *
 * Prefill counts 4 * head_dim operations per head and visible position; decode counts the bytes of
 * K and V that must be read. Both peaks are measured here: fused multiply-adds on registers, and
 * reading memory that no cache holds. */
#include "base/clock.h"
#include "engine/model/kv_cache_spec.h"
#include "kernels/backend.h"
#include "kernels/cpu/cpu_device.h"
#include "kernels/cpu/kv_layout.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { NUM_HEADS = 32, NUM_KV_HEADS = 8, HEAD_DIM = 64, BLOCK_SIZE = 32, NUM_LAYERS = 16 };

static double seconds_since(uint64_t start_ns)
{
    return clock_seconds_between(start_ns, clock_now_ns());
}

/* --- peaks ------------------------------------------------------------------------------------ */

#if defined(__x86_64__)
#include <immintrin.h>

__attribute__((target("avx512f"))) static float fma_avx512(int64_t rounds)
{
    __m512 x = _mm512_set1_ps(0.999f), sum[12];
    for (int i = 0; i < 12; i++)
        sum[i] = _mm512_set1_ps((float)i);
    for (int64_t n = 0; n < rounds; n++)
        for (int i = 0; i < 12; i++)
            sum[i] = _mm512_fmadd_ps(sum[i], x, x);
    for (int i = 1; i < 12; i++)
        sum[0] = _mm512_add_ps(sum[0], sum[i]);
    return _mm512_cvtss_f32(sum[0]);
}

__attribute__((target("avx2,fma"))) static float fma_avx2(int64_t rounds)
{
    __m256 x = _mm256_set1_ps(0.999f), sum[12];
    for (int i = 0; i < 12; i++)
        sum[i] = _mm256_set1_ps((float)i);
    for (int64_t n = 0; n < rounds; n++)
        for (int i = 0; i < 12; i++)
            sum[i] = _mm256_fmadd_ps(sum[i], x, x);
    for (int i = 1; i < 12; i++)
        sum[0] = _mm256_add_ps(sum[0], sum[i]);
    return _mm256_cvtss_f32(sum[0]);
}
#endif

struct peak_args {
    enum cpu_isa isa;
    const uint64_t *memory; /* [words] read in as many pieces as there are tasks */
    size_t words;
    volatile uint64_t sink;
};

enum { FMA_ROUNDS = 1000 * 1000 };

static void fma_task(void *arg, int32_t task, int32_t thread)
{
    struct peak_args *a = arg;
    (void)task;
    (void)thread;
#if defined(__x86_64__)
    a->sink = (uint64_t)(a->isa >= CPU_ISA_AVX512 ? fma_avx512(FMA_ROUNDS) : fma_avx2(FMA_ROUNDS));
#endif
}

static double peak_gflops(struct cpu_device *d)
{
    struct peak_args a = { .isa = d->isa };
    const double lanes = d->isa >= CPU_ISA_AVX512 ? 16 : 8;
    if (d->isa == CPU_ISA_SCALAR)
        return 0;
    double best = 1e30;
    for (int i = 0; i < 20; i++) {
        uint64_t start = clock_now_ns();
        thread_pool_run(d->pool, d->num_threads, fma_task, &a);
        double seconds = seconds_since(start);
        best = seconds < best ? seconds : best;
    }
    return 2.0 * 12 * lanes * FMA_ROUNDS * d->num_threads / best / 1e9;
}

enum { READ_TASKS = 64 };

static void read_task(void *arg, int32_t task, int32_t thread)
{
    struct peak_args *a = arg;
    const size_t count = a->words / READ_TASKS;
    const uint64_t *p = a->memory + (size_t)task * count;
    uint64_t sum[8] = { 0 };
    (void)thread;
    for (size_t i = 0; i + 8 <= count; i += 8)
        for (int j = 0; j < 8; j++)
            sum[j] += p[i + (size_t)j];
    for (int j = 0; j < 8; j++)
        a->sink += sum[j];
}

static struct buffer allocate(struct device *d, size_t bytes)
{
    struct buffer buffer;
    struct status st;
    if (!backend_cpu.alloc(d, &buffer, bytes, MEMORY_DEVICE, &st)) {
        fprintf(stderr, "%s\n", st.message);
        exit(1);
    }
    return buffer;
}

static double peak_gbytes(struct cpu_device *d)
{
    const size_t bytes = (size_t)512 << 20;
    struct buffer memory = allocate(&d->base, bytes);
    memset(memory.data, 1, bytes);
    struct peak_args a = { .memory = memory.data, .words = bytes / sizeof(uint64_t) };
    double best = 0;
    for (int i = 0; i < 8; i++) {
        uint64_t start = clock_now_ns();
        thread_pool_run(d->pool, READ_TASKS, read_task, &a);
        double rate = (double)bytes / seconds_since(start) / 1e9;
        best = rate > best ? rate : best;
    }
    backend_cpu.free(&d->base, &memory);
    return best;
}

/* --- attention -------------------------------------------------------------------------------- */

/* One step of num_seqs sequences, each with query_len queries that end at seq_len. */
struct shape {
    int32_t num_seqs, query_len, seq_len;
};

struct run {
    struct kv_layer layers[NUM_LAYERS]; /* as in a model, so that decode finds no layer cached */
    struct buffer memory[2 * NUM_LAYERS + 2];
    int32_t num_buffers;
    struct tensor q, out;
    struct attn_metadata m;
    int32_t *tables, *start, *lens;
};

static float pattern(size_t i)
{
    return (float)((i * 2654435761u >> 8) % 2001) / 1000.0f - 1;
}

static void *room(struct device *d, struct run *r, size_t bytes)
{
    struct buffer *memory = &r->memory[r->num_buffers++];
    *memory = allocate(d, bytes);
    return memory->data;
}

static float *filled(struct device *d, struct run *r, size_t count)
{
    float *data = room(d, r, count * sizeof *data);
    for (size_t i = 0; i < count; i++)
        data[i] = pattern(i);
    return data;
}

/* The first block is written, the others are copies: filling must not take longer than measuring.
 */
static void fill_cache(struct device *d, const struct kv_layer *kv)
{
    enum { COLS = NUM_KV_HEADS * HEAD_DIM };
    static float rows[BLOCK_SIZE * COLS];
    int32_t slots[BLOCK_SIZE];
    const size_t bytes = kv_block_bytes(kv);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        rows[i] = pattern(i);
    for (int32_t i = 0; i < BLOCK_SIZE; i++)
        slots[i] = i;
    struct tensor t = tensor_view(rows, DTYPE_F32, BLOCK_SIZE, COLS);
    backend_cpu.reshape_and_cache(d, kv, &t, &t, slots);
    for (int32_t i = 1; i < kv->num_blocks; i++) {
        memcpy((char *)kv->k + (size_t)i * bytes, kv->k, bytes);
        memcpy((char *)kv->v + (size_t)i * bytes, kv->v, bytes);
    }
}

static struct run make_run(struct device *d, enum dtype dtype, struct shape s)
{
    struct run r = { 0 };
    const int32_t cols = NUM_HEADS * HEAD_DIM, per_seq = (s.seq_len + BLOCK_SIZE - 1) / BLOCK_SIZE;
    const int32_t blocks = per_seq * s.num_seqs, tokens = s.num_seqs * s.query_len;
    r.q = tensor_view(filled(d, &r, (size_t)tokens * cols), DTYPE_F32, tokens, cols);
    r.out = tensor_view(filled(d, &r, (size_t)tokens * cols), DTYPE_F32, tokens, cols);
    for (int i = 0; i < NUM_LAYERS; i++) {
        struct kv_layer *kv = &r.layers[i];
        *kv = (struct kv_layer){ .dtype = dtype,
                                 .num_blocks = blocks,
                                 .block_size = BLOCK_SIZE,
                                 .num_kv_heads = NUM_KV_HEADS,
                                 .head_dim = HEAD_DIM };
        kv->k = room(d, &r, (size_t)blocks * kv_block_bytes(kv));
        kv->v = room(d, &r, (size_t)blocks * kv_block_bytes(kv));
        fill_cache(d, kv);
    }
    r.tables = malloc((size_t)blocks * sizeof *r.tables);
    for (int32_t i = 0; i < blocks; i++) /* a permutation, as a long-running server has it */
        r.tables[i] = (int32_t)((int64_t)i * 7919 % blocks);
    if (blocks % 7919 == 0)
        abort();
    r.start = malloc(((size_t)s.num_seqs + 1) * sizeof *r.start);
    r.lens = malloc((size_t)s.num_seqs * sizeof *r.lens);
    for (int32_t i = 0; i <= s.num_seqs; i++)
        r.start[i] = i * s.query_len;
    for (int32_t i = 0; i < s.num_seqs; i++)
        r.lens[i] = s.seq_len;
    r.m = (struct attn_metadata){ .num_seqs = s.num_seqs,
                                  .num_tokens = tokens,
                                  .max_query_len = s.query_len,
                                  .max_seq_len = s.seq_len,
                                  .query_start_loc = r.start,
                                  .seq_lens = r.lens,
                                  .block_tables = r.tables,
                                  .block_table_stride = per_seq };
    return r;
}

static void free_run(struct device *d, struct run *r)
{
    for (int32_t i = 0; i < r->num_buffers; i++)
        backend_cpu.free(d, &r->memory[i]);
    free(r->tables);
    free(r->start);
    free(r->lens);
}

static void measure(struct cpu_device *d, enum dtype dtype, struct shape s, double gflops,
                    double gbytes)
{
    const struct attention_params params = {
        .num_heads = NUM_HEADS, .num_kv_heads = NUM_KV_HEADS, .head_dim = HEAD_DIM, .scale = 0.125f
    };
    struct run r = make_run(&d->base, dtype, s);
    double best = 1e30;
    const uint64_t begin = clock_now_ns();
    for (int round = 0; round < 5 || (round < 200 && seconds_since(begin) < 1); round++) {
        uint64_t start = clock_now_ns();
        for (int i = 0; i < NUM_LAYERS; i++)
            backend_cpu.attention(&d->base, &r.out, &r.q, &r.layers[i], &r.m, &params);
        double seconds = seconds_since(start) / NUM_LAYERS;
        best = seconds < best ? seconds : best;
    }
    /* Query i of query_len sees seq_len - query_len + i + 1 positions. */
    double visible = s.query_len * (s.seq_len - (s.query_len - 1) / 2.0) * s.num_seqs;
    double flops = visible * NUM_HEADS * HEAD_DIM * 4.0;
    double bytes = 2.0 * s.num_seqs * s.seq_len * NUM_KV_HEADS *
                   (double)kv_layer_head_bytes(dtype, 1, HEAD_DIM);
    printf("%4d x %4d queries, context %5d: %9.1f us  %7.1f GFLOP/s (%3.0f%%)  %6.1f GB/s "
           "(%3.0f%%)\n",
           s.num_seqs, s.query_len, s.seq_len, best * 1e6, flops / best / 1e9,
           gflops > 0 ? 100 * flops / best / 1e9 / gflops : 0, bytes / best / 1e9,
           100 * bytes / best / 1e9 / gbytes);
    fflush(stdout);
    free_run(&d->base, &r);
}

int main(int argc, char **argv)
{
    static const struct shape shapes[] = {
        { 1, 512, 512 }, { 1, 2048, 2048 }, { 1, 512, 8192 }, { 1, 1, 512 },  { 1, 1, 2048 },
        { 1, 1, 8192 },  { 8, 1, 512 },     { 8, 1, 2048 },   { 1, 5, 2048 }, { 32, 1, 512 },
    };
    struct device_options options = { .num_threads = argc > 1 ? atoi(argv[1]) : 0,
                                      .isa = argc > 2 ? argv[2] : "auto",
                                      .pin_threads = true };
    struct workspace_desc w = { .max_num_tokens = 8192,
                                .max_num_seqs = 64,
                                .max_logits_rows = 1,
                                .max_model_len = 8192,
                                .block_size = BLOCK_SIZE,
                                .max_in_features = 64,
                                .max_out_features = 64,
                                .num_heads = NUM_HEADS,
                                .num_kv_heads = NUM_KV_HEADS,
                                .head_dim = HEAD_DIM,
                                .vocab_size = 16 };
    struct status st;
    struct device *opened;
    enum dtype dtype = DTYPE_F16;
    if (argc > 3 && !kv_cache_dtype_parse(argv[3], &dtype)) {
        fprintf(stderr, "not a dtype of a cache: %s\n", argv[3]);
        return 1;
    }
    if (!backend_cpu.open(&opened, &options, &st) ||
        !backend_cpu.reserve_workspace(opened, &w, &st)) {
        fprintf(stderr, "%s\n", st.message);
        return 1;
    }
    struct cpu_device *d = cpu_device_of(opened);
    double gflops = peak_gflops(d), gbytes = peak_gbytes(d);
    printf("%s, %s cache: %.0f GFLOP/s, reads %.1f GB/s\n", opened->description, dtype_name(dtype),
           gflops, gbytes);
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        if (d->isa != CPU_ISA_SCALAR || shapes[i].query_len < 512)
            measure(d, dtype, shapes[i], gflops, gbytes);
    backend_cpu.close(opened);
    return 0;
}
