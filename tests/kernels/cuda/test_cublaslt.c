/* test_cublaslt.c - large products through cuBLASLt: the numbers over odd shapes, what is chosen,
 * and that kernels of ours do whatever it does not. On the emulated device the library is that of
 * tests/cuda_emu, which checks every argument; on a real one it is NVIDIA's, where there is one. */
#include "tests/kernels/cuda/codes_fixture.h"
#include "tests/kernels/cuda/linear_fixture.h"

#include "kernels/cuda/cublaslt_api.h"
#include "tests/cuda_emu/cublaslt_control.h"
#include "tests/kernels/cuda/emu_fixture.h"

enum { MAX_ROWS = 140, MAX_IN = 330, FIRST_ROWS = 17 };

static struct {
    void *library; /* NULL before it is loaded, and on a real device */
    void (*get_record)(struct fake_cublaslt_record *out);
    void (*set_version)(size_t version);
    void (*fail_call)(const char *function, int32_t status);
    void (*limit_algorithm_0)(int64_t rows);
} fake;

static void open_gpu(bool batch_variant)
{
    gpu_workspace = products_workspace(MAX_ROWS, MAX_IN, 512);
    gpu_workspace.max_logits_rows = 40;
    gpu_workspace.batch_variant = batch_variant;
    gpu_workspace.int8_products = !batch_variant;
    gpu_open(&gpu, &gpu_workspace);
}

/* Chooses anew, for the weights planned so far. */
static void reserve(void)
{
    struct status st;
    if (!gpu.ops->reserve_workspace(gpu.device, &gpu_workspace, &st))
        gpu_fail("reserve_workspace", &st);
}

static void load_fake(void)
{
    fake.library = emu_load_library("libcublasLt.so.13");
    *(void **)&fake.get_record = emu_symbol(fake.library, "fake_cublaslt_get_record");
    *(void **)&fake.set_version = emu_symbol(fake.library, "fake_cublaslt_set_version");
    *(void **)&fake.fail_call = emu_symbol(fake.library, "fake_cublaslt_fail");
    *(void **)&fake.limit_algorithm_0 = emu_symbol(fake.library, "fake_cublaslt_limit_algorithm_0");
}

static void need_fake(void)
{
    if (!gpu_is_emulated())
        skip();
    if (!fake.library)
        load_fake();
}

static int64_t num_products(void)
{
    struct fake_cublaslt_record record;
    fake.get_record(&record);
    return record.products;
}

/* Whether a product of that many rows went to cuBLASLt; its numbers are checked. */
static bool goes_to_cublaslt(const struct product *p, int32_t rows)
{
    const int64_t before = num_products();
    struct tensor out = run_rows(&gpu, p, 0, rows);
    check_formula(p, &out, "a product");
    free(out.data);
    return num_products() > before;
}

static void without_the_library(void **state)
{
    (void)state;
    if (!gpu_is_emulated() || dlopen("libcublasLt.so.13", RTLD_NOW) ||
        dlopen("libcublasLt.so.12", RTLD_NOW))
        skip();
    open_gpu(true);
    struct product p = random_product(&gpu, DTYPE_BF16, 40, 33, 100);
    struct tensor out = run_rows(&gpu, &p, 0, 40);
    check_formula(&p, &out, "without cuBLASLt");
    free(out.data);
    free_product(&gpu, &p);
    gpu_close(&gpu);
}

/* Also on a real device, where nothing says who did it. */
static void follows_the_formula(void **state)
{
    (void)state;
    static const struct {
        int32_t rows, out, in;
    } shapes[] = {
        { 17, 1, 1 },     { 17, 65, 320 },  { 32, 64, 64 },   { 33, 128, 330 }, { 40, 70, 31 },
        { 64, 250, 129 }, { 129, 130, 96 }, { 140, 36, 257 }, { 128, 7, 192 },
    };
    if (gpu_is_emulated())
        need_fake();
    for (int dtype = DTYPE_BF16; dtype <= DTYPE_F16; dtype++) {
        for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
            const int32_t rows = shapes[i].rows, out = shapes[i].out;
            open_gpu(true);
            struct product p = random_product(&gpu, (enum dtype)dtype, rows, out, shapes[i].in);
            char what[100];
            if (random_int(0, 1)) /* with what prepare chooses; else at the first product */
                reserve();
            snprintf(what, sizeof what, "%s, %d rows of %d, %d features",
                     dtype_name((enum dtype)dtype), rows, p.x.cols, out);
            if (gpu_is_emulated())
                assert_true(goes_to_cublaslt(&p, rows));
            struct tensor y = run_rows(&gpu, &p, 0, rows);
            check_formula(&p, &y, what);
            free(y.data);
            free_product(&gpu, &p);
            gpu_close(&gpu);
        }
    }
}

/* The second link's output begins at any multiple of 4 bytes. */
static void links_of_a_chain(void **state)
{
    (void)state;
    need_fake();
    open_gpu(true);
    for (int32_t first = 20; first <= 23; first++) {
        struct product a = random_product(&gpu, DTYPE_BF16, 40, first, 70);
        struct product b = random_product(&gpu, DTYPE_F16, 40, 9, 70);
        free(b.x.data);
        b.x = copy_tensor(&a.x);
        struct tensor wanted_b = run_rows(&gpu, &b, 0, 40);
        a.l.next = &b.l;
        struct tensor out = random_tensor(40, first + 9, 1);
        struct tensor x_at = gpu_tensor(&gpu, &a.x), out_at = gpu_tensor(&gpu, &out);
        const int64_t before = num_products();
        gpu.ops->linear(gpu.device, &out_at, &x_at, &a.l);
        gpu_get_tensor(&gpu, &out, &out_at);
        assert_int_equal(num_products(), before + 2);
        struct tensor second = tensor_columns(&out, first, 9);
        assert_tensors_close(&second, &wanted_b, 1e-4, 1e-4, "the second link");
        check_formula(&a, &out, "the first link");
        free(wanted_b.data);
        free(out.data);
        free_product(&gpu, &a);
        free_product(&gpu, &b);
    }
    gpu_close(&gpu);
}

static void who_does_what(void **state)
{
    (void)state;
    need_fake();
    open_gpu(true);
    struct product p = random_product(&gpu, DTYPE_BF16, MAX_ROWS, 40, 100);
    assert_false(goes_to_cublaslt(&p, FIRST_ROWS - 1));
    assert_true(goes_to_cublaslt(&p, FIRST_ROWS));
    assert_true(goes_to_cublaslt(&p, MAX_ROWS));
    free_product(&gpu, &p);
    p = random_product(&gpu, DTYPE_F32, 40, 40, 100);
    assert_false(goes_to_cublaslt(&p, 40));
    free_product(&gpu, &p);
    gpu_close(&gpu);
    open_gpu(false); /* batch-invariant */
    p = random_product(&gpu, DTYPE_BF16, MAX_ROWS, 40, 100);
    assert_false(goes_to_cublaslt(&p, MAX_ROWS));
    free_product(&gpu, &p);
    gpu_close(&gpu);
}

/* By whom a product was done whose output's rows lie as a decoder's do. */
static int32_t algorithm_for(const struct product *p, int32_t rows)
{
    struct fake_cublaslt_record record;
    const int64_t before = num_products();
    struct tensor x = p->x, out = { NULL, DTYPE_F32, rows, p->l.out_features, p->l.out_features };
    x.rows = rows;
    struct tensor x_at = gpu_tensor(&gpu, &x);
    out.data = gpu_new(&gpu, tensor_bytes(&out));
    gpu.ops->linear(gpu.device, &out, &x_at, &p->l);
    gpu_sync(&gpu);
    fake.get_record(&record);
    return record.products > before ? record.algorithm : -1;
}

/* The fastest by the device's clock, not the one ranked first; without timing that one. */
static void timing_chooses(void **state)
{
    (void)state;
    struct fake_cublaslt_record before, after;
    need_fake();
    open_gpu(true);
    struct product p = random_product(&gpu, DTYPE_BF16, MAX_ROWS, 48, 100);
    assert_int_equal(algorithm_for(&p, 100), 0);
    reserve();
    fake.get_record(&before);
    for (int32_t rows = FIRST_ROWS; rows <= MAX_ROWS; rows += 41)
        assert_int_equal(algorithm_for(&p, rows), 1);
    fake.get_record(&after);
    assert_int_equal(after.heuristics, before.heuristics); /* remembered */
    free_product(&gpu, &p);
    gpu_close(&gpu);
}

/* Chosen for the most rows of a bucket, an algorithm must do the others too, and the other way
 * round; and what cannot be timed, as there is no memory for it, is the library's first choice. */
static void choices_that_are_left(void **state)
{
    (void)state;
    need_fake();
    fake.limit_algorithm_0(100);
    open_gpu(true);
    struct product p = random_product(&gpu, DTYPE_BF16, MAX_ROWS, 48, 100);
    /* The first cudaMalloc is the workspace's. */
    emu_get_control().fail_call("cudaMalloc", 2, cudaErrorMemoryAllocation);
    reserve();
    assert_int_equal(algorithm_for(&p, 60), 0);
    assert_int_equal(algorithm_for(&p, 70), 1); /* its bucket ends at 128 */
    fake.limit_algorithm_0(INT64_MAX);
    free_product(&gpu, &p);
    gpu_close(&gpu);
}

/* Each failure sends the product to a kernel of ours, without one that sticks. */
static void refusals_fall_back(void **state)
{
    (void)state;
    static const char *const functions[] = { "cublasLtCreate", "cublasLtMatmulDescCreate",
                                             "cublasLtMatmulAlgoGetHeuristic",
                                             "cublasLtMatmulAlgoCheck", "cublasLtMatmul" };
    need_fake();
    for (size_t i = 0; i < sizeof functions / sizeof functions[0]; i++) {
        struct fake_cublaslt_record record;
        fake.fail_call(functions[i], LT_NOT_SUPPORTED);
        open_gpu(true);
        struct product p = random_product(&gpu, DTYPE_BF16, 140, 48, 100);
        assert_int_equal(algorithm_for(&p, 100), -1);
        assert_false(goes_to_cublaslt(&p, 100));
        fake.fail_call(NULL, 0);
        if (i > 1) { /* other buckets of the shape are asked for anew */
            assert_int_equal(algorithm_for(&p, 101), -1);
            assert_int_equal(algorithm_for(&p, 140), 0);
        }
        free_product(&gpu, &p);
        gpu_close(&gpu);
        fake.get_record(&record);
        assert_int_equal(record.handles, 0);
        assert_int_equal(record.objects, 0);
    }
}

static void versions(void **state)
{
    (void)state;
    static const struct {
        size_t version;
        bool known;
    } all[] = { { 110803, false }, { 120000, true }, { 131000, true }, { 140000, false } };
    need_fake();
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        fake.set_version(all[i].version);
        open_gpu(true);
        struct product p = random_product(&gpu, DTYPE_BF16, 100, 48, 100);
        assert_int_equal(goes_to_cublaslt(&p, 100), all[i].known);
        free_product(&gpu, &p);
        gpu_close(&gpu);
    }
    fake.set_version(130000);
}

/* Captured products run at every launch, and neither they nor others allocate. */
static void captured_without_allocating(void **state)
{
    (void)state;
    struct status st;
    struct graph *graph;
    struct emu_record before, after;
    need_fake();
    open_gpu(true);
    const struct emu_control emu = emu_get_control();
    struct product p = random_product(&gpu, DTYPE_BF16, 90, 48, 100);
    reserve();
    struct tensor out = { calloc(90 * 48, sizeof(float)), DTYPE_F32, 90, 48, 48 };
    struct tensor x_at = gpu_tensor(&gpu, &p.x), out_at = gpu_tensor(&gpu, &out);
    gpu_sync(&gpu);
    emu.get_record(&before);
    assert_true(gpu.ops->capture_begin(gpu.device, &st));
    gpu.ops->linear(gpu.device, &out_at, &x_at, &p.l);
    assert_true(gpu.ops->capture_end(gpu.device, &graph, &st));
    emu.get_record(&after);
    assert_int_equal(after.launches, before.launches + 1); /* of the input alone */
    for (int i = 0; i < 2; i++) {
        memset(out.data, 0, tensor_bytes(&out));
        gpu.ops->copy(gpu.device, out_at.data, out.data, tensor_bytes(&out), COPY_TO_DEVICE);
        assert_true(gpu.ops->graph_launch(gpu.device, graph));
        gpu_get_tensor(&gpu, &out, &out_at);
        check_formula(&p, &out, "a replayed product");
    }
    emu.get_record(&after);
    assert_int_equal(after.allocations, before.allocations);
    gpu.ops->graph_free(gpu.device, graph);
    free(out.data);
    free_product(&gpu, &p);
    gpu_close(&gpu);
}

/* --- codes ------------------------------------------------------------------------------------ */

static const struct input_quant inputs[] = {
    { INPUT_QUANT_INT8, 0 },
    { INPUT_QUANT_FP8, 0 },
    { INPUT_QUANT_FP8, 0.02f },
};

/* Whether a product of codes went to cuBLASLt; it is compared with that of few rows at a time,
 * which kernels of ours do: of whole numbers it has the same bits. */
static bool codes_go_to_cublaslt(const struct codes *c, int32_t rows)
{
    const int64_t before = gpu_is_emulated() ? num_products() : 0;
    const int32_t cols = c->gpu.out_features;
    struct tensor x = random_tensor(rows, c->gpu.in_features, 2);
    /* As a decoder's lie: a row follows the other at once. */
    struct tensor out = { random_floats((size_t)(rows * cols), 1), DTYPE_F32, rows, cols, cols };
    struct tensor x_at = gpu_tensor(&gpu, &x), out_at = gpu_tensor(&gpu, &out);
    gpu.ops->linear(gpu.device, &out_at, &x_at, &c->gpu);
    gpu_get_tensor(&gpu, &out, &out_at);
    const bool went = gpu_is_emulated() && num_products() > before;
    for (int32_t r = 0; r < rows; r += FIRST_ROWS - 1) {
        struct tensor few = x, same = out;
        few.data = (float *)x.data + r * x.stride;
        same.data = (float *)out.data + r * out.stride;
        few.rows = same.rows = rows - r < FIRST_ROWS - 1 ? rows - r : FIRST_ROWS - 1;
        struct tensor alone = gpu_codes_product(&gpu, c, &few);
        if (c->gpu.input_quant.kind == INPUT_QUANT_INT8)
            assert_tensors_equal(&same, &alone, "whole numbers");
        else
            assert_tensors_close(&same, &alone, 0.01, 1e-4, "floats");
        free(alone.data);
    }
    free(out.data);
    free(x.data);
    return went;
}

/* Also on a real device, where nothing says who did it. */
static void codes(void **state)
{
    (void)state;
    static const struct {
        int32_t rows, out, in;
    } shapes[] = {
        { 17, 16, 1 },    { 32, 64, 64 },  { 33, 128, 330 }, { 40, 80, 31 },
        { 64, 256, 129 }, { 129, 48, 96 }, { 140, 32, 257 },
    };
    if (gpu_is_emulated())
        need_fake();
    for (int kind = 0; kind < 3; kind++) {
        for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
            struct codes c;
            open_gpu(true);
            random_codes(&gpu, &c, inputs[kind], (enum dtype)random_int(DTYPE_F32, DTYPE_F16),
                         shapes[i].out, shapes[i].in);
            if (random_int(0, 1)) /* with what prepare chooses; else at the first product */
                reserve();
            const bool went = codes_go_to_cublaslt(&c, shapes[i].rows);
            assert_int_equal(went, gpu_is_emulated());
            struct tensor x = random_tensor(shapes[i].rows, shapes[i].in, 3);
            check_codes(&gpu, &c, &x, "codes");
            free(x.data);
            free_codes(&gpu, &c);
            gpu_close(&gpu);
        }
    }
}

static bool goes(bool batch_variant, struct input_quant input, int32_t out)
{
    struct codes c;
    open_gpu(batch_variant);
    random_codes(&gpu, &c, input, DTYPE_F32, out, 100);
    const bool went = codes_go_to_cublaslt(&c, 40);
    assert_false(codes_go_to_cublaslt(&c, FIRST_ROWS - 1));
    free_codes(&gpu, &c);
    gpu_close(&gpu);
    return went;
}

/* Whole numbers always, for the numbers of features that the library takes; floats only where bits
 * may depend on the batch, and the GPU has them. */
static void who_does_codes(void **state)
{
    (void)state;
    need_fake();
    assert_true(goes(false, inputs[0], 20));
    assert_true(goes(true, inputs[0], 20));
    assert_false(goes(true, inputs[0], 22));
    assert_false(goes(false, inputs[1], 32));
    assert_true(goes(true, inputs[1], 32));
    assert_true(goes(true, inputs[2], 32));
    assert_false(goes(true, inputs[1], 24));
    const struct emu_control emu = emu_get_control();
    emu.set_device(8, 6, (size_t)2 << 30);
    assert_true(goes(true, inputs[0], 32));
    assert_false(goes(true, inputs[1], 32));
    emu.set_device(8, 9, (size_t)2 << 30);
    assert_true(goes(true, inputs[1], 32));
    emu.set_device(9, 0, (size_t)2 << 30);
    /* Beside them, what is not codes stays ours where bits may not depend on the batch. */
    open_gpu(false);
    struct product p = random_product(&gpu, DTYPE_BF16, 40, 32, 100);
    struct codes c;
    random_codes(&gpu, &c, inputs[0], DTYPE_F32, 32, 100);
    reserve();
    assert_true(codes_go_to_cublaslt(&c, 40));
    assert_false(goes_to_cublaslt(&p, 40));
    free_codes(&gpu, &c);
    free_product(&gpu, &p);
    gpu_close(&gpu);
}

/* The same bits, from a kernel of ours, at once and from then on. */
static void refused_codes_fall_back(void **state)
{
    (void)state;
    need_fake();
    for (int kind = 0; kind < 2; kind++) {
        struct codes c;
        open_gpu(true);
        random_codes(&gpu, &c, inputs[kind], DTYPE_F32, 32, 100);
        fake.fail_call("cublasLtMatmul", LT_NOT_SUPPORTED);
        assert_false(codes_go_to_cublaslt(&c, 100));
        fake.fail_call(NULL, 0);
        assert_false(codes_go_to_cublaslt(&c, 100));
        assert_true(codes_go_to_cublaslt(&c, 40));
        free_codes(&gpu, &c);
        gpu_close(&gpu);
    }
}

/* The library fails when the residual has already been added to: that is not done twice. */
static void refused_after_a_norm(void **state)
{
    (void)state;
    enum { ROWS = 40, IN = 96, OUT = 32 };
    need_fake();
    open_gpu(true);
    struct codes c;
    random_codes(&gpu, &c, inputs[0], DTYPE_F32, OUT, IN);
    const struct norm norm = { .kind = NORM_RMS, .size = IN, .eps = 1e-5f };
    struct tensor x = random_tensor(ROWS, IN, 1), sum = random_tensor(ROWS, IN, 1), out[2];
    struct tensor x_at, sum_at, out_at;
    for (int i = 0; i < 2; i++) {
        out[i] = (struct tensor){ random_floats(ROWS * OUT, 1), DTYPE_F32, ROWS, OUT, OUT };
        out_at = gpu_tensor(&gpu, &out[i]);
        sum_at = gpu_tensor(&gpu, &sum);
        x_at = gpu_tensor(&gpu, &x);
        if (i == 0)
            fake.fail_call("cublasLtMatmul", LT_NOT_SUPPORTED);
        gpu.ops->norm_linear(gpu.device, &out_at, &sum_at, &x_at, &norm, &c.gpu);
        fake.fail_call(NULL, 0);
        gpu_get_tensor(&gpu, &out[i], &out_at);
    }
    assert_tensors_equal(&out[0], &out[1], "at once, and by a kernel of ours from then on");
    free(out[0].data);
    free(out[1].data);
    free(x.data);
    free(sum.data);
    free_codes(&gpu, &c);
    gpu_close(&gpu);
}

int main(void)
{
    fixture_start();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(without_the_library), /* first: it stays loaded */
        cmocka_unit_test(follows_the_formula),
        cmocka_unit_test(links_of_a_chain),
        cmocka_unit_test(who_does_what),
        cmocka_unit_test(timing_chooses),
        cmocka_unit_test(choices_that_are_left),
        cmocka_unit_test(refusals_fall_back),
        cmocka_unit_test(versions),
        cmocka_unit_test(captured_without_allocating),
        cmocka_unit_test(codes),
        cmocka_unit_test(who_does_codes),
        cmocka_unit_test(refused_codes_fall_back),
        cmocka_unit_test(refused_after_a_norm),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
