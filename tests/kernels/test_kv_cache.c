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
    int32_t offset = slot % kv->block_size, block = slot / kv->block_size;
    const char *at = kv_head_data(kv, (void *)data, block, head);
    size_t index = is_k ? kv_k_index(kv, offset, dim) : kv_v_index(kv, offset, dim);
    float scale = kv_layer_factor(kv, is_k ? kv->k_scale : kv->v_scale);
    if (kv->dtype == DTYPE_I8)
        memcpy(&scale, kv_head_scales(kv, (void *)data, block, head) + offset * 4, 4);
    return kv_read(at, index, kv->dtype) * scale;
}

/* How far from x its stored value may lie: half a step of the dtype. `max` is the greatest
 * magnitude of its vector, scale that of the layer; the last factor is for the scales' own
 * rounding. */
static float bound(float x, float max, enum dtype dtype, float scale)
{
    float held = fminf(fabsf(x), 448 * scale);
    switch (dtype) {
    case DTYPE_I8: /* a quotient and a product are rounded on the way */
        return max / 254 * 1.00001f + fabsf(x) * 0x1p-22f;
    case DTYPE_F8_E4M3:
        return fmaxf(held / 16, scale / 1024) * 1.00001f + fabsf(x) - held;
    case DTYPE_BF16:
        return fabsf(x) / 256;
    case DTYPE_F16:
        return fmaxf(fabsf(x) / 2048, 0x1p-25f);
    default:
        return 0;
    }
}

static void check_vector(const struct kv_layer *kv, const void *data, int32_t slot, int32_t head,
                         const float *x, bool is_k)
{
    float max = 0, scale = is_k ? kv->k_scale : kv->v_scale;
    for (int32_t i = 0; x && i < kv->head_dim; i++)
        max = fmaxf(max, fabsf(x[i]));
    for (int32_t i = 0; i < kv->head_dim; i++) {
        float got = element(kv, data, slot, head, i, is_k);
        if (!x)
            assert_true(isnan(got));
        else if (fabsf(got - x[i]) > bound(x[i], max, kv->dtype, scale > 0 ? scale : 1))
            fail_msg("%s: %.9g is stored as %.9g", dtype_name(kv->dtype), (double)x[i],
                     (double)got);
    }
}

static enum dtype random_dtype(void)
{
    return RANDOM_OF(DTYPE_F32, DTYPE_BF16, DTYPE_F16, DTYPE_F8_E4M3, DTYPE_I8);
}

/* Every element of a block has a place of its own within the block. */
static void layout_is_one_to_one(void **state)
{
    (void)state;
    for (int round = 0; round < 100; round++) {
        struct kv_layer kv = { .dtype = random_dtype(),
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
    struct kv_layer kv = { .dtype = random_dtype(),
                           .num_blocks = random_int(1, 9),
                           .block_size = RANDOM_OF(1, 5, 16, 32),
                           .num_kv_heads = random_int(1, 4),
                           .head_dim = RANDOM_OF(1, 7, 8, 64, 300),
                           .k_scale = RANDOM_OF(0, 1, 0.25f, 0.013f),
                           .v_scale = RANDOM_OF(0, 1, 0.25f, 0.013f) };
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
        for (int32_t h = 0; h < kv.num_kv_heads; h++) {
            const float *from = x + writer[s] * stride + h * kv.head_dim;
            check_vector(&kv, kv.k, s, h, writer[s] < 0 ? NULL : from, true);
            check_vector(&kv, kv.v, s, h, writer[s] < 0 ? NULL : from + cols, false);
        }
    }
    free(kv.k);
    free(kv.v);
    free(x);
    free(slots);
    free(writer);
}

/* One token of one head, K and V alike, written and read back. */
static void write_one(struct kv_layer *kv, const float *in, float *out)
{
    struct cpu_device *d = fixture_open(cpu_isa_detect(), 1, &no_workspace);
    int32_t slot = 0;
    kv->num_blocks = kv->block_size = kv->num_kv_heads = 1;
    kv->k = calloc(1, kv_block_bytes(kv));
    kv->v = calloc(1, kv_block_bytes(kv));
    struct tensor t = tensor_view((void *)in, DTYPE_F32, 1, kv->head_dim);
    cpu_reshape_and_cache(&d->base, kv, &t, &t, &slot);
    for (int32_t i = 0; i < kv->head_dim; i++) {
        out[i] = element(kv, kv->k, 0, 0, i, true);
        float v = element(kv, kv->v, 0, 0, i, false);
        assert_true(memcmp(&out[i], &v, sizeof v) == 0);
    }
    free(kv->k);
    free(kv->v);
    fixture_close(d);
}

static void eight_bits_at_their_edges(void **state)
{
    (void)state;
    const float x[] = { 1e30f, -500, 0x1p-10f * 1.01f, NAN, INFINITY, -0.0f };
    const float even[] = { 127, -127, 0.49f, 63.5f, 64.5f, 0 };
    const float none[] = { 0, -0.0f, 0, 0, 0, 0 }, tiny[] = { 1e-45f, -3e-45f, 0, 0, 0, 0 };
    const float bad[] = { 1, 2, NAN, 3, 4, 5 }, wide[] = { 1, 2, -INFINITY, 3, 4, 5 };
    float out[6];
    struct kv_layer f8 = { .dtype = DTYPE_F8_E4M3, .head_dim = 6 };
    write_one(&f8, x, out);
    assert_true(out[0] == 448 && out[1] == -448 && out[2] == 0x1p-9f);
    assert_true(isnan(out[3]) && out[4] == 448 && out[5] == 0);
    f8.k_scale = f8.v_scale = 2;
    write_one(&f8, x, out);
    assert_true(out[0] == 896 && out[1] == -512 && out[2] == 0);
    struct kv_layer i8 = { .dtype = DTYPE_I8, .head_dim = 6 };
    write_one(&i8, even, out);
    const float expected[] = { 127, -127, 0, 64, 64, 0 };
    assert_memory_equal(out, expected, sizeof out);
    write_one(&i8, none, out);
    for (int i = 0; i < 6; i++)
        assert_true(out[i] == 0);
    write_one(&i8, tiny, out); /* below what a scale can hold */
    for (int i = 0; i < 6; i++)
        assert_true(fabsf(out[i]) <= 3e-45f);
    /* What is not finite must not be hidden: the logits show it, and the request ends. */
    write_one(&i8, bad, out);
    assert_true(isnan(out[0]) && isnan(out[5]));
    write_one(&i8, wide, out);
    assert_true(isnan(out[0]) && isnan(out[2]));
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
        cmocka_unit_test(eight_bits_at_their_edges),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
