/* test_attention_cuda.c - paged attention on the GPU against the scalar CPU: prompts, decode and
 * mixtures of both, windows, soft caps, sinks, every cache dtype; and that the bits of a row depend
 * on nothing but its own sequence up to its own position. */
#include "tests/kernels/cuda/attention_fixture.h"

static const struct workspace_desc workspace = { .max_num_tokens = MAX_TOKENS,
                                                 .max_num_seqs = MAX_PARTS,
                                                 .max_logits_rows = 1,
                                                 .max_model_len = MAX_LEN,
                                                 .block_size = 16,
                                                 .max_in_features = 64,
                                                 .max_out_features = 64,
                                                 .num_heads = 66,
                                                 .num_kv_heads = 2,
                                                 .head_dim = 256,
                                                 .vocab_size = 16 };

/* --- tests ------------------------------------------------------------------------------------ */

static void check_one(enum dtype dtype, int32_t head_dim, int32_t len, int32_t queries)
{
    struct layer l;
    random_layer(&l, dtype, head_dim);
    check_layer(&l, len, queries);
}

static void follows_the_cpu(void **state)
{
    (void)state;
    static const int32_t dims[] = { 64, 128, 256, 8, 80, 96, 33, 40 };
    for (int n = 0; n < NUM_CACHE_DTYPES; n++) {
        const enum dtype dtype = cache_dtypes[n];
        for (size_t i = 0; i < sizeof dims / sizeof dims[0]; i++) {
            const int32_t len = RANDOM_OF(1, 15, 16, 17, 63, 64, 65, 130);
            check_one(dtype, dims[i], len, len);
            check_one(dtype, dims[i], RANDOM_OF(1, 64, 200, 511, 512, 513, 700), 1);
        }
        check_one(dtype, 64, RANDOM_OF(520, 600, 1100), random_int(2, 40));
    }
}

static void check_bits(enum dtype dtype, int32_t head_dim, int32_t len)
{
    struct layer l;
    random_layer(&l, dtype, head_dim);
    check_layer_bits(&l, len);
}

static void bits_depend_on_own_sequence_only(void **state)
{
    (void)state;
    check_bits(DTYPE_F32, 24, random_int(1, 90));
    check_bits(DTYPE_BF16, 64, random_int(1, 130));
    check_bits(DTYPE_BF16, 128, random_int(100, 130));
    check_bits(DTYPE_BF16, 64, random_int(513, 600));
    check_bits(DTYPE_F16, 72, random_int(60, 130));
    check_bits(DTYPE_F16, 256, random_int(60, 90));
    check_bits(DTYPE_BF16, 33, random_int(1, 60));
    check_bits(DTYPE_F8_E4M3, 64, random_int(60, 130));
    check_bits(DTYPE_I8, 128, random_int(60, 130));
    check_bits(DTYPE_I8, 64, random_int(513, 560));
    check_bits(DTYPE_I8, 33, random_int(1, 60));
}

/* Past the first span: what prefill computes among others, decode computes alone. */
static void spans_are_merged_alike(void **state)
{
    (void)state;
    for (int n = 1; n < NUM_CACHE_DTYPES; n++) {
        struct layer l;
        random_layer(&l, cache_dtypes[n], RANDOM_OF(64, 128));
        l.params.sliding_window = RANDOM_OF(0, 900, 530);
        l.params.num_heads = l.params.num_kv_heads * RANDOM_OF(1, 2, 5, 9);
        const int32_t len = random_int(1040, 1090);
        struct sequence s = random_sequence(&l, len);
        const int32_t num_many = 70, num_few = RANDOM_OF(2, 7, 13);
        struct part many = new_part(&s, len - num_many, len), one = new_part(&s, len - 1, len);
        struct part few = new_part(&s, len - num_few, len);
        run_gpu(&l, &many, 1);
        run_gpu(&l, &few, 1);
        run_gpu(&l, &one, 1);
        struct tensor same = rows_of(&many.out, num_many - 1, 1);
        assert_tensors_equal(&one.out, &same, describe(&l));
        same = rows_of(&many.out, num_many - num_few, num_few);
        assert_tensors_equal(&few.out, &same, describe(&l));
        free(many.out.data);
        free(few.out.data);
        free(one.out.data);
        free_sequence(&s);
    }
}

/* Sequences without queries in this step, a batch of none, and padded rows at the end. */
static void empty_queries(void **state)
{
    (void)state;
    for (int n = 0; n < NUM_CACHE_DTYPES; n++) {
        struct layer l;
        random_layer(&l, cache_dtypes[n], 64);
        struct sequence s = random_sequence(&l, 30);
        struct part parts[3] = { new_part(&s, 30, 30), new_part(&s, 10, 30), new_part(&s, 7, 7) };
        struct part want = new_part(&s, 10, 30);
        run_cpu(&l, &want, 1);
        run_gpu(&l, parts, 3);
        assert_tensors_close(&parts[1].out, &want.out, tolerance(l.dtype), tolerance(l.dtype),
                             "with empty neighbours");
        run_gpu(&l, parts, 1);
        run_gpu(&l, parts, 0);
        for (int i = 0; i < 3; i++)
            free(parts[i].out.data);
        free(want.out.data);
        free_sequence(&s);
    }
}

/* Rows with slot -1 write nothing. */
static void padded_rows(void **state)
{
    (void)state;
    struct kv_layer kv = {
        .dtype = DTYPE_F16, .num_blocks = 2, .block_size = 4, .num_kv_heads = 2, .head_dim = 8
    };
    const int32_t slots[3] = { 5, -1, 0 };
    struct tensor k = random_tensor(3, 16, 1), v = random_tensor(3, 16, 1);
    uint16_t cache[2 * 4 * 16];
    ((float *)k.data)[0] = 1e6f; /* held at the greatest float16 */
    struct tensor k_at = gpu_tensor(&gpu, &k), v_at = gpu_tensor(&gpu, &v);
    memset(cache, 0xff, sizeof cache);
    kv.k = gpu_put(&gpu, cache, sizeof cache);
    kv.v = gpu_put(&gpu, cache, sizeof cache);
    gpu.ops->reshape_and_cache(gpu.device, &kv, &k_at, &v_at, gpu_put(&gpu, slots, sizeof slots));
    gpu_get(&gpu, cache, kv.k, sizeof cache);
    int32_t written = 0;
    for (size_t i = 0; i < sizeof cache / sizeof cache[0]; i++)
        written += cache[i] != 0xffff;
    assert_int_equal(written, 2 * 16);
    /* Block 1, head 0, offset 1. */
    assert_true(f16_to_f32(cache[64 + 8]) == 65504.0f);
    assert_int_equal(cache[64 + 9], f16_from_f32(((float *)k.data)[1]));
    free(k.data);
    free(v.data);
    gpu_release(&gpu);
}

/* --- caches of 8 bits ------------------------------------------------------------------------- */

/* Writes k and v into both caches, full of 0xff before; `cpu` and `got` are [2][cache_bytes]. */
static void write_both(struct kv_layer kv, const struct tensor *k, const struct tensor *v,
                       const int32_t *slots, unsigned char *cpu, unsigned char *got)
{
    const size_t bytes = cache_bytes(&kv);
    memset(cpu, 0xff, 2 * bytes);
    kv.k = gpu_put(&gpu, cpu, bytes);
    kv.v = gpu_put(&gpu, cpu, bytes);
    struct tensor k_at = gpu_tensor(&gpu, k), v_at = gpu_tensor(&gpu, v);
    int32_t *slots_at = gpu_put(&gpu, slots, (size_t)k->rows * sizeof *slots);
    gpu.ops->reshape_and_cache(gpu.device, &kv, &k_at, &v_at, slots_at);
    gpu_get(&gpu, got, kv.k, bytes);
    gpu_get(&gpu, got + bytes, kv.v, bytes);
    kv.k = cpu;
    kv.v = cpu + bytes;
    backend_cpu.reshape_and_cache(gpu.cpu, &kv, k, v, slots);
    gpu_release(&gpu);
}

/* The CPU has K turned over within a head's part of a block. */
static void turn_over(unsigned char *k, const struct kv_layer *kv)
{
    const size_t part = kv_layer_head_bytes(kv->dtype, kv->block_size, kv->head_dim);
    const size_t count = (size_t)kv->block_size * (size_t)kv->head_dim;
    unsigned char *old = malloc(count);
    for (int32_t i = 0; i < kv->num_blocks * kv->num_kv_heads; i++, k += part) {
        memcpy(old, k, count);
        for (int32_t offset = 0; offset < kv->block_size; offset++)
            for (int32_t dim = 0; dim < kv->head_dim; dim++)
                k[offset * kv->head_dim + dim] = old[dim * kv->block_size + offset];
    }
    free(old);
}

/* Whether byte i is of a scale that is NaN in both: of that the bits may differ. */
static bool in_nan_scales(const struct kv_layer *kv, const unsigned char *a, const unsigned char *b,
                          size_t i)
{
    const size_t part = kv_layer_head_bytes(kv->dtype, kv->block_size, kv->head_dim);
    const size_t elements = (size_t)kv->block_size * (size_t)kv->head_dim;
    if (i % part < elements)
        return false;
    const size_t begin = i - (i % part - elements) % sizeof(float);
    float x, y;
    memcpy(&x, a + begin, sizeof x);
    memcpy(&y, b + begin, sizeof y);
    return isnan(x) && isnan(y);
}

/* Numbers of every size, and some that are none: what is stored is the CPU's, bit for bit. */
static void bytes_are_the_cpus(void **state)
{
    (void)state;
    enum { ROWS = 40 };
    for (int n = 0; n < 12; n++) {
        struct kv_layer kv = { .dtype = n % 2 ? DTYPE_I8 : DTYPE_F8_E4M3,
                               .block_size = RANDOM_OF(16, 5, 1, 8),
                               .num_kv_heads = random_int(1, 6),
                               .head_dim = RANDOM_OF(64, 33, 8, 128),
                               .k_scale = random_int(0, 1) ? 0 : random_uniform(0.01f, 3),
                               .v_scale = random_int(0, 1) ? 0 : random_uniform(0.01f, 3) };
        kv.num_blocks = ROWS / kv.block_size + 2;
        struct tensor k = random_tensor(ROWS, kv.num_kv_heads * kv.head_dim, 1);
        struct tensor v = random_tensor(ROWS, kv.num_kv_heads * kv.head_dim, 100);
        static const float special[] = { INFINITY, NAN, 1e-42f, 3e38f, -448.5f, 0x1p-10f };
        for (int i = 0; i < 6; i++)
            ((float *)k.data)[random_int(0, ROWS - 1) * k.stride + random_int(0, k.cols - 1)] =
                special[i];
        for (int i = 0; i < v.cols; i++) /* a token of next to nothing */
            ((float *)v.data)[3 * v.stride + i] *= 1e-45f;
        int32_t slots[ROWS];
        for (int32_t i = 0; i < ROWS; i++)
            slots[i] = i % 7 == 3 ? -1 : i + kv.block_size;
        slots[3] = 0;
        unsigned char *cpu = malloc(2 * cache_bytes(&kv)), *got = malloc(2 * cache_bytes(&kv));
        write_both(kv, &k, &v, slots, cpu, got);
        turn_over(cpu, &kv);
        for (size_t i = 0; i < 2 * cache_bytes(&kv); i++)
            if (cpu[i] != got[i] && !in_nan_scales(&kv, cpu, got, i))
                fail_msg("%s, block %d, head_dim %d: byte %zu is %d, not %d", dtype_name(kv.dtype),
                         kv.block_size, kv.head_dim, i, got[i], cpu[i]);
        free(k.data);
        free(v.data);
        free(cpu);
        free(got);
    }
}

static void bits_on_gpus_with_less_shared_memory(void **state)
{
    (void)state;
    if (!gpu_is_emulated())
        skip();
    for (int n = 1; n < NUM_CACHE_DTYPES; n++) {
        struct layer l;
        random_layer(&l, cache_dtypes[n], 256);
        check_less_shared_memory(&l, &workspace, 700, 1);
        check_less_shared_memory(&l, &workspace, 150, 120);
    }
}

int main(void)
{
    fixture_start();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(follows_the_cpu),
        cmocka_unit_test(bits_depend_on_own_sequence_only),
        cmocka_unit_test(spans_are_merged_alike),
        cmocka_unit_test(empty_queries),
        cmocka_unit_test(padded_rows),
        cmocka_unit_test(bytes_are_the_cpus),
        cmocka_unit_test(bits_on_gpus_with_less_shared_memory),
    };
    return gpu_run_tests(tests, workspace);
}
