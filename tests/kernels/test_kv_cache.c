/* test_kv_cache.c - what is written comes back from where kv_layout.h says, and nothing else is
 * touched. */
#include "tests/kernels/cpu_fixture.h"

#include "kernels/cpu/kv_layout.h"

static const struct workspace_desc no_workspace = { .vocab_size = 1,
                                                    .head_dim = 1,
                                                    .max_num_seqs = 1 };

static float element(const struct kv_layer *kv, const void *data, int32_t slot, int32_t head,
                     int32_t dim, bool is_k)
{
    int32_t offset = slot % kv->block_size;
    const char *at = kv_head_data(kv, (void *)data, slot / kv->block_size, head);
    size_t index = is_k ? kv_k_index(kv, offset, dim) : kv_v_index(kv, offset, dim);
    float value;
    dtype_convert(&value, DTYPE_F32, at + index * dtype_size(kv->dtype), kv->dtype, 1);
    return value;
}

static float rounded(float x, enum dtype dtype)
{
    uint32_t bits;
    dtype_convert(&bits, dtype, &x, DTYPE_F32, 1);
    dtype_convert(&x, DTYPE_F32, &bits, dtype, 1);
    return x;
}

/* Every element of a block has a place of its own within the block. */
static void layout_is_one_to_one(void **state)
{
    (void)state;
    for (int round = 0; round < 100; round++) {
        struct kv_layer kv = { .dtype = (enum dtype)random_int(DTYPE_F32, DTYPE_F16),
                               .block_size = random_int(1, 40),
                               .num_kv_heads = 1,
                               .head_dim = random_int(1, 40) };
        size_t count = (size_t)(kv.block_size * kv.head_dim);
        char *k_seen = calloc(count, 1), *v_seen = calloc(count, 1);
        for (int32_t offset = 0; offset < kv.block_size; offset++) {
            for (int32_t dim = 0; dim < kv.head_dim; dim++) {
                size_t k = kv_k_index(&kv, offset, dim), v = kv_v_index(&kv, offset, dim);
                assert_true(k < count && !k_seen[k] && v < count && !v_seen[v]);
                k_seen[k] = v_seen[v] = 1;
            }
        }
        free(k_seen);
        free(v_seen);
    }
}

static void check_round(struct cpu_device *d)
{
    struct kv_layer kv = { .dtype = (enum dtype)random_int(DTYPE_F32, DTYPE_F16),
                           .num_blocks = random_int(1, 9),
                           .block_size = RANDOM_OF(1, 5, 16, 32),
                           .num_kv_heads = random_int(1, 4),
                           .head_dim = RANDOM_OF(1, 7, 8, 64, 300) };
    const int32_t num_slots = kv.num_blocks * kv.block_size, cols = kv.num_kv_heads * kv.head_dim;
    const int32_t tokens = random_int(1, num_slots + 5), stride = 2 * cols + random_int(0, 5);
    size_t bytes = (size_t)kv.num_blocks * kv_block_bytes(&kv);
    kv.k = malloc(bytes);
    kv.v = malloc(bytes);
    memset(kv.k, 0xff, bytes);
    memset(kv.v, 0xff, bytes);
    float *x = random_floats((size_t)(tokens * stride), 10);
    int32_t *slots = malloc((size_t)tokens * sizeof *slots);
    int32_t *writer = malloc((size_t)num_slots * sizeof *writer);
    for (int32_t s = 0; s < num_slots; s++)
        writer[s] = -1;
    for (int32_t t = 0; t < tokens; t++) {
        slots[t] = random_int(-1, num_slots - 1);
        if (slots[t] >= 0 && writer[slots[t]] >= 0)
            slots[t] = -1; /* one writer per slot */
        if (slots[t] >= 0)
            writer[slots[t]] = t;
    }
    struct tensor k = { x, DTYPE_F32, tokens, cols, stride };
    struct tensor v = { x + cols, DTYPE_F32, tokens, cols, stride };
    cpu_reshape_and_cache(&d->base, &kv, &k, &v, slots);
    for (int32_t s = 0; s < num_slots; s++) {
        for (int32_t c = 0; c < cols; c++) {
            float got_k = element(&kv, kv.k, s, c / kv.head_dim, c % kv.head_dim, true);
            float got_v = element(&kv, kv.v, s, c / kv.head_dim, c % kv.head_dim, false);
            const float *from = x + writer[s] * stride + c;
            if (writer[s] < 0)
                assert_true(isnan(got_k) && isnan(got_v));
            else
                assert_true(got_k == rounded(from[0], kv.dtype) &&
                            got_v == rounded(from[cols], kv.dtype));
        }
    }
    free(kv.k);
    free(kv.v);
    free(x);
    free(slots);
    free(writer);
}

static void writes_its_slots_only(void **state)
{
    (void)state;
    for (int32_t threads = 1; threads <= 3; threads++) {
        struct cpu_device *d = fixture_open(cpu_isa_detect(), threads, &no_workspace);
        for (int round = 0; round < 60; round++)
            check_round(d);
        fixture_close(d);
    }
}

/* A float16 cache has no infinities to offer: large values are held at the largest it has. */
static void float16_saturates(void **state)
{
    (void)state;
    struct cpu_device *d = fixture_open(cpu_isa_detect(), 1, &no_workspace);
    uint16_t k_bits[4], v_bits[4];
    struct kv_layer kv = { .k = k_bits,
                           .v = v_bits,
                           .dtype = DTYPE_F16,
                           .num_blocks = 1,
                           .block_size = 1,
                           .num_kv_heads = 1,
                           .head_dim = 4 };
    float x[4] = { 1e6f, -1e30f, 65504.0f, NAN };
    struct tensor view = tensor_view(x, DTYPE_F32, 1, 4);
    const int32_t slot = 0;
    cpu_reshape_and_cache(&d->base, &kv, &view, &view, &slot);
    for (int i = 0; i < 3; i++)
        assert_true(fabsf(f16_to_f32(k_bits[i])) == 65504.0f && k_bits[i] == v_bits[i]);
    assert_true(f16_to_f32(k_bits[1]) < 0);
    assert_true(isnan(f16_to_f32(k_bits[3])));
    fixture_close(d);
}

int main(void)
{
    fixture_start();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(layout_is_one_to_one),
        cmocka_unit_test(writes_its_slots_only),
        cmocka_unit_test(float16_saturates),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
