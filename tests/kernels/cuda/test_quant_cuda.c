/* test_quant_cuda.c - quantized weights on the GPU: products of packed rows have the bits of those
 * of the same rows dequantized by kernels/quant and held in a plain dtype, for every format, odd
 * shapes and any number of rows; embeddings have the bits of kernels/quant; plans for GPUs that are
 * not here say the same bytes. */
#include "tests/kernels/cuda/cuda_fixture.h"

#include "kernels/profile/gpu_profile.h"
#include "kernels/quant/fp8.h"
#include "kernels/quant/ggml_formats.h"
#include "kernels/quant/int_group.h"
#include "kernels/quant/nf4.h"

enum { MAX_ROWS = 140, MAX_IN = 2304 };

/* --- random rows of every format -------------------------------------------------------------- */

static void put_float(void *at, enum dtype dtype, float value)
{
    uint32_t bits;
    dtype_convert(&bits, dtype, &value, DTYPE_F32, 1);
    memcpy(at, &bits, dtype_size(dtype));
}

/* Where the blocks of ggml's formats have their scales, float16 each; -1: none. */
static const struct ggml_row {
    const struct quant_format *format;
    int16_t halves[2];
} ggml_rows[] = {
    { &quant_format_q4_0, { 0, -1 } },   { &quant_format_q4_1, { 0, 2 } },
    { &quant_format_q5_0, { 0, -1 } },   { &quant_format_q5_1, { 0, 2 } },
    { &quant_format_q8_0, { 0, -1 } },   { &quant_format_q2_k, { 80, 82 } },
    { &quant_format_q3_k, { 108, -1 } }, { &quant_format_q4_k, { 0, 2 } },
    { &quant_format_q5_k, { 0, 2 } },    { &quant_format_q6_k, { 208, -1 } },
    { &quant_format_iq4_nl, { 0, -1 } }, { &quant_format_iq4_xs, { 0, -1 } },
    { &quant_format_mxfp4, { -1, -1 } },
};
enum { NUM_GGML = sizeof ggml_rows / sizeof ggml_rows[0] };

static void random_ggml_row(const struct ggml_row *g, unsigned char *row, int32_t count)
{
    const size_t bytes = quant_row_bytes(g->format, count);
    for (size_t i = 0; i < bytes; i++)
        row[i] = (unsigned char)random_word();
    for (size_t b = 0; b < bytes; b += (size_t)g->format->block_bytes) {
        for (int i = 0; i < 2; i++)
            if (g->halves[i] >= 0)
                put_float(row + b + g->halves[i], DTYPE_F16, random_normal() * 0.05f);
        if (g->format == &quant_format_mxfp4)
            row[b] = (unsigned char)(random_int(0, 20) ? random_int(115, 130) : random_int(0, 3));
    }
}

static bool is_fp8(const struct quant_format *f)
{
    return strncmp(f->name, "fp8", 3) == 0;
}

static void random_words_row(const struct quant_format *f, unsigned char *row, int32_t count)
{
    const size_t bytes = quant_row_bytes(f, count);
    const bool is_nf4 = strncmp(f->name, "nf4", 3) == 0;
    for (size_t i = 0; i < bytes; i++) {
        row[i] = (unsigned char)random_word();
        if (is_fp8(f) && (row[i] & 0x7f) == 0x7f)
            row[i] = 0x7e;
    }
    for (size_t at = 0; at < bytes; at += (size_t)f->block_bytes) {
        uint32_t scale, min;
        put_float(&scale, is_nf4 ? DTYPE_F32 : f->dtype, random_normal() * 0.01f);
        put_float(&min, f->dtype, random_normal());
        if (is_fp8(f) || is_nf4)
            memcpy(row + at, &scale, is_nf4 ? 4 : dtype_size(f->dtype));
        else
            int_group_set_head(f, row + at, &scale, random_int(-3, 1 << f->bits), &min);
        if (f->header_bytes > 0)
            break;
    }
}

static struct quant_format random_words_format(int kind, enum dtype dtype)
{
    const int32_t group = RANDOM_OF(8, 16, 24, 32, 40, 64, 96, 128, 256, 1000, 0);
    if (kind == 2)
        return fp8_format(group, dtype);
    if (kind == 3)
        return nf4_format(group > 0 ? group : 64, dtype);
    return int_group_format(&(struct int_group_params){
        .bits = kind == 0 ? 4 : 8,
        .group_size = group,
        .offset = (enum quant_offset)random_int(QUANT_OFFSET_MIDDLE, QUANT_OFFSET_MIN),
        .scale_dtype = dtype });
}

/* --- a weight twice: packed, and dequantized -------------------------------------------------- */

struct twins {
    struct linear packed, plain;
    unsigned char *rows;
    float *values; /* of kernels/quant */
    float *bias;
};

static void place(struct linear *l, const void *rows, const struct quant_format *format)
{
    struct status st;
    if (!gpu.ops->linear_plan(gpu.device, l, &st))
        gpu_fail("linear_plan", &st);
    l->packed = gpu_new(&gpu, l->packed_bytes);
    const int32_t cut = random_int(0, l->out_features);
    const size_t bytes = quant_row_bytes(format, l->in_features);
    gpu.ops->linear_pack(gpu.device, l, cut, l->out_features - cut,
                         (const char *)rows + (size_t)cut * bytes, format);
    gpu.ops->linear_pack(gpu.device, l, 0, cut, rows, format);
    gpu_sync(&gpu); /* they are there */
}

static struct twins make_twins(const struct quant_format *f, const struct ggml_row *g, int32_t out,
                               int32_t in)
{
    const size_t bytes = quant_row_bytes(f, in);
    struct twins t = { .rows = malloc((size_t)out * bytes),
                       .values = malloc((size_t)out * (size_t)in * sizeof(float)),
                       .bias = random_floats((size_t)out, 1) };
    for (int32_t r = 0; r < out; r++) {
        unsigned char *row = t.rows + (size_t)r * bytes;
        if (g)
            random_ggml_row(g, row, in);
        else
            random_words_row(f, row, in);
        f->dequantize(f, t.values + (size_t)r * (size_t)in, row, 0, in);
    }
    t.packed = (struct linear){ .out_features = out, .in_features = in, .format = f };
    place(&t.packed, t.rows, f);
    t.plain = (struct linear){ .out_features = out, .in_features = in };
    t.plain.format = quant_format_of_dtype(f->dtype == DTYPE_F32 ? DTYPE_BF16 : f->dtype);
    unsigned char *rounded = malloc((size_t)out * (size_t)in * 2);
    dtype_convert(rounded, t.plain.format->dtype, t.values, DTYPE_F32, (size_t)out * (size_t)in);
    place(&t.plain, rounded, t.plain.format);
    free(rounded);
    if (random_int(0, 1))
        t.packed.bias = t.plain.bias = gpu_put(&gpu, t.bias, (size_t)out * sizeof(float));
    return t;
}

static void free_twins(struct twins *t)
{
    free(t->rows);
    free(t->values);
    free(t->bias);
    gpu_release(&gpu);
}

static struct tensor product(const struct linear *l, const struct tensor *x)
{
    struct tensor out = random_tensor(x->rows, l->out_features, 1);
    struct tensor x_at = gpu_tensor(&gpu, x), out_at = gpu_tensor(&gpu, &out);
    gpu.ops->linear(gpu.device, &out_at, &x_at, l);
    gpu_get_tensor(&gpu, &out, &out_at);
    return out;
}

static void check_products(const struct twins *t, int32_t rows, const char *what)
{
    struct tensor x = random_tensor(rows, t->packed.in_features, 1);
    struct tensor got = product(&t->packed, &x), want = product(&t->plain, &x);
    assert_tensors_equal(&got, &want, what);
    free(x.data);
    free(got.data);
    free(want.data);
}

static void check_embedding(const struct twins *t, const char *what)
{
    enum { NUM = 5 };
    const int32_t in = t->packed.in_features;
    int32_t ids[NUM];
    struct tensor out = random_tensor(NUM, in, 1);
    for (int i = 0; i < NUM; i++)
        ids[i] = random_int(0, t->packed.out_features - 1);
    struct tensor at = gpu_tensor(&gpu, &out);
    gpu.ops->embedding(gpu.device, &at, gpu_put(&gpu, ids, sizeof ids), &t->packed);
    gpu_get_tensor(&gpu, &out, &at);
    for (int i = 0; i < NUM; i++)
        assert_same_bits((const float *)out.data + i * out.stride,
                         t->values + (size_t)ids[i] * (size_t)in, (size_t)in, what);
    free(out.data);
}

static void check_format(const struct quant_format *f, const struct ggml_row *g, int32_t out,
                         int32_t in)
{
    static const int32_t rows[] = { 1, 9, 17, 130 };
    struct twins t = make_twins(f, g, out, in);
    char what[120];
    assert_ptr_equal(t.packed.format, f);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        snprintf(what, sizeof what, "%s, %d rows of %d, %d features", f->name, rows[i], in, out);
        check_products(&t, rows[i], what);
    }
    check_embedding(&t, f->name);
    free_twins(&t);
}

/* --- tests ------------------------------------------------------------------------------------ */

static void words(void **state)
{
    (void)state;
    static const int32_t sizes[] = { 1, 31, 64, 70, 96, 129, 250, 256, 300, 520 };
    for (int kind = 0; kind < 4; kind++)
        for (int dtype = DTYPE_F32; dtype <= DTYPE_F16; dtype++)
            for (int i = 0; i < 3; i++) {
                struct quant_format f = random_words_format(kind, (enum dtype)dtype);
                check_format(&f, NULL, random_int(1, 40), sizes[random_int(0, 9)]);
            }
    struct quant_format f = random_words_format(random_int(0, 3), DTYPE_F16);
    check_format(&f, NULL, 18, MAX_IN - random_int(0, 300));
}

static void ggml(void **state)
{
    (void)state;
    for (int i = 0; i < NUM_GGML; i++) {
        const struct quant_format *f = ggml_rows[i].format;
        check_format(f, &ggml_rows[i], random_int(1, 40),
                     f->block_elements * random_int(1, f->block_elements == 256 ? 3 : 12));
    }
}

/* A code that is no number is none in its own row, and only there. */
static void fp8_nan(void **state)
{
    (void)state;
    struct quant_format f = fp8_format(32, DTYPE_F16);
    unsigned char rows[3][4 * 34];
    for (int r = 0; r < 3; r++)
        random_words_row(&f, rows[r], 128);
    rows[1][34 + 2 + 5] = 0xff;
    struct linear l = { .out_features = 3, .in_features = 128, .format = &f };
    place(&l, rows, &f);
    for (int32_t count = 1; count < 40; count += 30) {
        struct tensor x = random_tensor(count, 128, 1), out = product(&l, &x);
        for (int32_t r = 0; r < count; r++)
            for (int i = 0; i < 3; i++)
                assert_int_equal(isnan(((float *)out.data)[r * out.stride + i]) != 0, i == 1);
        free(x.data);
        free(out.data);
    }
    gpu_release(&gpu);
}

/* Float rows are quantized while they are packed. */
static void quantized_at_load(void **state)
{
    (void)state;
    enum { OUT = 20, IN = 200 };
    struct quant_format formats[3] = {
        fp8_format(32, DTYPE_F16),
        int_group_format(&(struct int_group_params){ 8, 128, QUANT_OFFSET_MIDDLE, DTYPE_F16 }),
        int_group_format(&(struct int_group_params){ 4, 32, QUANT_OFFSET_MIN, DTYPE_F16 })
    };
    for (int i = 0; i < 3; i++) {
        const struct quant_format *f = &formats[i];
        const size_t bytes = quant_row_bytes(f, IN);
        float *w = random_floats(OUT * IN, 0.1f);
        unsigned char *rows = malloc(OUT * bytes);
        for (int r = 0; r < OUT; r++)
            f->quantize(f, rows + (size_t)r * bytes, w + r * IN, IN);
        struct linear ready = { .out_features = OUT, .in_features = IN, .format = f }, made = ready;
        place(&ready, rows, f);
        place(&made, w, &quant_format_float32);
        struct tensor x = random_tensor(3, IN, 1);
        struct tensor want = product(&ready, &x), got = product(&made, &x);
        assert_tensors_equal(&got, &want, f->name);
        free(x.data);
        free(want.data);
        free(got.data);
        free(w);
        free(rows);
        gpu_release(&gpu);
    }
}

/* Groups that are no multiples of 8 have no kernels: they become the plain dtype of their scales.
 */
static void odd_groups_are_widened(void **state)
{
    (void)state;
    struct quant_format f =
        int_group_format(&(struct int_group_params){ 8, 12, QUANT_OFFSET_ZERO, DTYPE_BF16 });
    struct status st;
    struct linear l = { .out_features = 5, .in_features = 60, .format = &f };
    assert_true(gpu.ops->linear_plan(gpu.device, &l, &st));
    assert_ptr_equal(l.format, &quant_format_bfloat16);
    assert_int_equal(l.packed_bytes, 5 * 64 * 2);
}

static void check_plan(struct device *profile, const struct quant_format *f)
{
    struct status st;
    struct linear here = { .out_features = random_int(1, 300),
                           .in_features = f->block_elements * random_int(1, 9),
                           .format = f };
    struct linear there = here;
    if (!gpu.ops->linear_plan(gpu.device, &here, &st) ||
        !profile->backend->linear_plan(profile, &there, &st))
        gpu_fail(f->name, &st);
    assert_int_equal(here.packed_bytes, there.packed_bytes);
    assert_ptr_equal(here.format, there.format);
    /* Packed: beside the format's own bytes, only what rows are filled up with. */
    if (here.format == f && !quant_format_is_plain(f)) {
        const size_t own = quant_row_bytes(f, here.in_features);
        const size_t row = here.packed_bytes / (size_t)here.out_features;
        assert_true(row >= own);
    }
}

static void plans_are_the_devices(void **state)
{
    (void)state;
    struct status st;
    struct device *profile;
    const struct gpu_profile *h100 = gpu_profile_find("H100");
    assert_non_null(h100);
    assert_true(gpu_profile_open(h100, &profile, &st));
    for (int i = 0; quant_formats[i]; i++)
        check_plan(profile, quant_formats[i]);
    for (int i = 0; i < 60; i++) {
        struct quant_format f =
            random_words_format(i % 4, (enum dtype)random_int(DTYPE_F32, DTYPE_F16));
        check_plan(profile, &f);
    }
    profile->backend->close(profile);
    /* 4096 columns of 4 bits in groups of 128 take what the format says: nothing is widened. */
    struct quant_format f =
        int_group_format(&(struct int_group_params){ 4, 128, QUANT_OFFSET_MIDDLE, DTYPE_F16 });
    struct linear l = { .out_features = 10, .in_features = 4096, .format = &f };
    assert_true(gpu.ops->linear_plan(gpu.device, &l, &st));
    assert_int_equal(l.packed_bytes, 10 * quant_row_bytes(&f, 4096));
}

int main(void)
{
    fixture_start();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(words),
        cmocka_unit_test(ggml),
        cmocka_unit_test(fp8_nan),
        cmocka_unit_test(quantized_at_load),
        cmocka_unit_test(odd_groups_are_widened),
        cmocka_unit_test(plans_are_the_devices),
    };
    return gpu_run_tests(tests, products_workspace(MAX_ROWS, MAX_IN, 512));
}
