/* test_device_cuda.c - the host's side of a GPU: errors in words, memory, copies, graphs, and that
 * ops allocate nothing. Much of it asks the emulated device to fail, so on a real one only what can
 * be done there runs. */
#include "tests/kernels/cuda/cuda_fixture.h"

#include "tests/kernels/cuda/emu_fixture.h"

#include <signal.h>
#include <sys/wait.h>

static const struct workspace_desc workspace = { .max_num_tokens = 20,
                                                 .max_num_seqs = 4,
                                                 .max_logits_rows = 3,
                                                 .max_model_len = 2000,
                                                 .block_size = 16,
                                                 .max_in_features = 100,
                                                 .max_out_features = 100,
                                                 .num_heads = 4,
                                                 .num_kv_heads = 2,
                                                 .head_dim = 64,
                                                 .vocab_size = 50 };

static struct emu_control emu;

static int open_gpu(void **state)
{
    gpu_workspace = workspace;
    gpu_setup(state);
    if (gpu_is_emulated())
        emu = emu_get_control();
    return 0;
}

static void need_emulation(void)
{
    if (!gpu_is_emulated())
        skip();
}

/* Why a device cannot be opened. */
static const char *refusal(const struct device_options *options)
{
    static struct status st;
    struct device *d = NULL;
    if (gpu.ops->open(&d, options, &st))
        fail_msg("the device opened");
    assert_null(d);
    return st.message;
}

static void refusals_say_what_to_do(void **state)
{
    (void)state;
    struct device_options options = { .index = 0 };
    need_emulation();
    emu.fail_call("cudaGetDeviceCount", 1, 100);
    assert_non_null(strstr(refusal(&options), "shows no GPU"));
    emu.fail_call("cudaGetDeviceCount", 1, 35);
    assert_non_null(strstr(refusal(&options), "update the driver"));
    emu.fail_call("cudaStreamCreateWithFlags", 2, 719);
    assert_non_null(strstr(refusal(&options), "cudaErrorLaunchFailure"));
    emu.set_device(7, 5, (size_t)2 << 30);
    assert_non_null(strstr(refusal(&options), "compute capability 7.5, and 8.0 is the least"));
    emu.set_device(9, 0, (size_t)2 << 30);
    options.index = 3;
    assert_non_null(strstr(refusal(&options), "there is no GPU 3: this machine shows 1"));
}

/* The first error of any op sticks until sync has told it; then all is well again. */
static void errors_stick(void **state)
{
    (void)state;
    struct status st;
    need_emulation();
    struct tensor x = random_tensor(2, 10, 1), x_at = gpu_tensor(&gpu, &x);
    emu.fail_call("launch", 2, 719);
    gpu.ops->scale(gpu.device, &x_at, 2);
    gpu.ops->add(gpu.device, &x_at, &x_at);
    emu.fail_call("cudaMemcpyAsync", 1, 1);
    gpu.ops->copy(gpu.device, x_at.data, x.data, 8, COPY_TO_DEVICE);
    gpu.ops->scale(gpu.device, &x_at, 2);
    assert_false(gpu.ops->sync(gpu.device, &st));
    assert_non_null(strstr(st.message, "add: "));
    assert_non_null(strstr(st.message, "cudaErrorLaunchFailure"));
    assert_true(gpu.ops->sync(gpu.device, &st));
    free(x.data);
    gpu_release(&gpu);
}

/* Pieces of several shapes, there and back; what lies between them stays. */
static void pieces_are_copied(void **state)
{
    (void)state;
    enum { SIZE = 30000, PIECES = 4 };
    static const int32_t shapes[PIECES][4] = { /* begin, width, pitch, rows */
                                               { 0, 1, 0, 1 },
                                               { 16, 9001, 0, 1 },
                                               { 10000, 3, 7, 50 },
                                               { 12000, 300, 1000, 17 }
    };
    struct status st;
    struct buffer host, device;
    assert_true(gpu.ops->alloc(gpu.device, &host, SIZE * sizeof(int32_t), MEMORY_PINNED, &st));
    assert_true(gpu.ops->alloc(gpu.device, &device, host.size_bytes, MEMORY_DEVICE, &st));
    int32_t *words = host.data, *there = device.data;
    struct copy_piece in[PIECES], back[PIECES];
    for (int32_t i = 0; i < PIECES; i++) {
        const int32_t *s = shapes[i];
        in[i] = (struct copy_piece){ there + s[0], words + s[0], (size_t)s[1] * 4, (size_t)s[2] * 4,
                                     s[3] };
        back[i] = in[i];
        back[i].dst = words + s[0];
        back[i].src = there + s[0];
    }
    for (int32_t i = 0; i < SIZE; i++)
        words[i] = i + 1;
    gpu.ops->copy_pieces(gpu.device, in, PIECES);
    gpu_sync(&gpu);
    memset(words, 0, host.size_bytes);
    gpu.ops->copy_pieces(gpu.device, back, PIECES);
    gpu_sync(&gpu);
    int32_t num_set = 0;
    for (int32_t i = 0; i < PIECES; i++)
        for (int32_t row = 0; row < shapes[i][3]; row++)
            for (int32_t k = 0; k < shapes[i][1]; k++, num_set++)
                assert_int_equal(words[shapes[i][0] + row * shapes[i][2] + k],
                                 shapes[i][0] + row * shapes[i][2] + k + 1);
    for (int32_t i = 0; i < SIZE; i++)
        num_set -= words[i] != 0;
    assert_int_equal(num_set, 0);
    gpu.ops->free(gpu.device, &device);
    gpu.ops->free(gpu.device, &host);
}

static void tokens_are_fed(void **state)
{
    (void)state;
    const int32_t sampled[] = { 7, -1, 9, 3 }, rows[] = { 3, 1, 0 };
    int32_t *ids = gpu_new(&gpu, 5 * sizeof *ids), got[5];
    int32_t *const dst[] = { ids + 4, ids + 2, ids };
    const int32_t before[] = { 50, 51, 52, 53, 54 }, after[] = { 7, 51, 0, 53, 3 };
    gpu.ops->copy(gpu.device, ids, before, sizeof before, COPY_TO_DEVICE);
    gpu.ops->feed_tokens(gpu.device, gpu_put(&gpu, dst, sizeof dst),
                         gpu_put(&gpu, sampled, sizeof sampled), gpu_put(&gpu, rows, sizeof rows),
                         3);
    gpu.ops->copy(gpu.device, got, ids, sizeof got, COPY_TO_HOST);
    gpu_sync(&gpu);
    assert_memory_equal(got, after, sizeof after);
    gpu_release(&gpu);
}

/* Each mark has the errors of what was enqueued before it, of the host's calls and of kernels. */
static void marks_have_their_own_errors(void **state)
{
    (void)state;
    struct status st;
    const int32_t good[] = { 1 }, bad[] = { 5 };
    struct tensor x = { .data = gpu_new(&gpu, 4 * 8 * sizeof(float)), .rows = 4, .cols = 8 };
    struct tensor out = x;
    x.dtype = out.dtype = DTYPE_F32;
    x.stride = out.stride = 8;
    out.rows = 1;
    out.data = gpu_new(&gpu, 8 * sizeof(float));
    const int32_t *good_row = gpu_put(&gpu, good, sizeof good);
    const int32_t *bad_row = gpu_put(&gpu, bad, sizeof bad);
    gpu_sync(&gpu);
    gpu.ops->gather_rows(gpu.device, &out, &x, bad_row);
    gpu.ops->mark(gpu.device, 0);
    gpu.ops->gather_rows(gpu.device, &out, &x, good_row);
    gpu.ops->mark(gpu.device, 1);
    assert_false(gpu.ops->await(gpu.device, 0, &st));
    assert_non_null(strstr(st.message, "gather_rows: index 5 of row 0 is not in [0, 4)"));
    assert_true(gpu.ops->await(gpu.device, 1, &st));
    gpu.ops->mark(gpu.device, 0);
    status_set(&gpu.device->error, STATUS_INTERNAL, "a call failed");
    gpu.ops->mark(gpu.device, 1);
    assert_true(gpu.ops->await(gpu.device, 0, &st));
    assert_false(gpu.ops->await(gpu.device, 1, &st));
    assert_string_equal(st.message, "a call failed");
    gpu_sync(&gpu);
    gpu_release(&gpu);
}

static void memory_is_zeroed_and_bounded(void **state)
{
    (void)state;
    struct status st;
    struct buffer b, pinned;
    struct memory_info before, after;
    assert_true(gpu.ops->memory_info(gpu.device, &before, &st));
    assert_true(gpu.ops->alloc(gpu.device, &b, 3 << 20, MEMORY_DEVICE, &st));
    assert_true(gpu.ops->alloc(gpu.device, &pinned, 3 << 20, MEMORY_PINNED, &st));
    assert_true(gpu.ops->memory_info(gpu.device, &after, &st));
    assert_true(before.available_bytes - after.available_bytes >= 3u << 20);
    ((char *)pinned.data)[77] = 5;
    gpu_get(&gpu, pinned.data, b.data, 3 << 20);
    for (size_t i = 0; i < 3u << 20; i++)
        assert_int_equal(((char *)pinned.data)[i], 0);
    gpu.ops->free(gpu.device, &pinned);
    gpu.ops->free(gpu.device, &b);
    assert_null(b.data);
    assert_true(gpu.ops->memory_info(gpu.device, &after, &st));
    assert_int_equal(after.available_bytes, before.available_bytes);
    assert_false(gpu.ops->alloc(gpu.device, &b, (size_t)1 << 50, MEMORY_DEVICE, &st));
    assert_non_null(strstr(st.message, "on GPU 0: "));
    assert_true(gpu.ops->sync(gpu.device, &st)); /* it was told already */
}

static void pinned_memory_can_be_short(void **state)
{
    (void)state;
    struct status st;
    struct buffer b;
    need_emulation();
    emu.fail_call("cudaHostAlloc", 1, 2);
    assert_false(gpu.ops->alloc(gpu.device, &b, 100, MEMORY_PINNED, &st));
    assert_non_null(strstr(st.message, "limit on locked memory"));
}

static void workspace_is_exact(void **state)
{
    (void)state;
    struct status st;
    struct emu_record before, after;
    struct workspace_desc w = workspace;
    need_emulation();
    w.max_num_tokens = 30;
    size_t old = gpu.ops->workspace_bytes(gpu.device, &workspace);
    emu.get_record(&before);
    assert_true(gpu.ops->reserve_workspace(gpu.device, &w, &st));
    emu.get_record(&after);
    assert_int_equal(after.device_bytes - before.device_bytes,
                     gpu.ops->workspace_bytes(gpu.device, &w) - old);
    assert_true(gpu.ops->reserve_workspace(gpu.device, &workspace, &st));
}

/* What the attention kernels cannot take is refused at start-up. */
static void values_have_a_limit(void **state)
{
    (void)state;
    struct status st;
    struct workspace_desc large = workspace, latent = workspace;
    large.head_dim = 520;
    assert_false(gpu.ops->reserve_workspace(gpu.device, &large, &st));
    assert_int_equal(st.code, STATUS_UNSUPPORTED);
    assert_string_equal(st.message,
                        "the model's attention has values of 520 elements, and the cuda "
                        "backend's kernels take up to 512: serve it with --device cpu");
    latent.head_dim = 576; /* of a latent's key */
    latent.latent_dim = 512;
    assert_true(gpu.ops->reserve_workspace(gpu.device, &latent, &st));
    latent.latent_dim = 513;
    assert_false(gpu.ops->reserve_workspace(gpu.device, &latent, &st));
    assert_true(gpu.ops->reserve_workspace(gpu.device, &workspace, &st));
}

/* A graph does again what was captured, with what then lies at the same addresses; ops neither
 * allocate nor wait. */
static void graphs_replay(void **state)
{
    (void)state;
    struct status st;
    struct graph *graph;
    struct emu_record before, after;
    struct tensor x = random_tensor(3, 40, 1), y = random_tensor(3, 40, 1);
    struct tensor x_at = gpu_tensor(&gpu, &x), y_at = gpu_tensor(&gpu, &y), out = copy_tensor(&x);
    struct norm norm = { .kind = NORM_RMS, .size = 40, .eps = 1e-5f };
    gpu_sync(&gpu);
    if (gpu_is_emulated())
        emu.get_record(&before);
    if (!gpu.ops->capture_begin(gpu.device, &st))
        gpu_fail("capture_begin", &st);
    gpu.ops->add(gpu.device, &x_at, &y_at);
    gpu.ops->norm(gpu.device, &y_at, NULL, &x_at, &norm);
    if (!gpu.ops->capture_end(gpu.device, &graph, &st))
        gpu_fail("capture_end", &st);
    for (int round = 0; round < 3; round++)
        assert_true(gpu.ops->graph_launch(gpu.device, graph));
    if (gpu_is_emulated()) {
        emu.get_record(&after);
        assert_int_equal(after.allocations, before.allocations);
        assert_int_equal(after.syncs, before.syncs);
        assert_int_equal(after.graph_launches, before.graph_launches + 3);
    }
    for (int round = 0; round < 3; round++) {
        backend_cpu.add(gpu.cpu, &x, &y);
        backend_cpu.norm(gpu.cpu, &y, NULL, &x, &norm);
    }
    gpu_get_tensor(&gpu, &out, &x_at);
    assert_tensors_close(&out, &x, 1e-5, 1e-5, "after three replays");
    gpu.ops->graph_free(gpu.device, graph);
    free(x.data);
    free(y.data);
    free(out.data);
    gpu_release(&gpu);
}

static void a_failed_capture_is_told(void **state)
{
    (void)state;
    struct status st;
    struct graph *graph;
    need_emulation();
    struct tensor x = random_tensor(3, 40, 1), x_at = gpu_tensor(&gpu, &x);
    gpu_sync(&gpu);
    assert_true(gpu.ops->capture_begin(gpu.device, &st));
    emu.fail_call("launch", 1, 9);
    gpu.ops->scale(gpu.device, &x_at, 2);
    assert_false(gpu.ops->capture_end(gpu.device, &graph, &st));
    assert_null(graph);
    assert_non_null(strstr(st.message, "capturing a graph: scale: "));
    gpu_sync(&gpu);
    free(x.data);
    gpu_release(&gpu);
}

/* What allocates or waits ends the capture. */
static void a_capture_takes_nothing_else(void **state)
{
    (void)state;
    struct status st;
    struct graph *graph;
    struct buffer b;
    need_emulation();
    struct tensor x = random_tensor(3, 40, 1), x_at = gpu_tensor(&gpu, &x);
    gpu_sync(&gpu);
    for (int i = 0; i < 2; i++) {
        assert_true(gpu.ops->capture_begin(gpu.device, &st));
        gpu.ops->scale(gpu.device, &x_at, 2);
        if (i == 0)
            assert_false(gpu.ops->alloc(gpu.device, &b, 100, MEMORY_DEVICE, &st));
        else
            assert_false(gpu.ops->sync(gpu.device, &st));
        assert_false(gpu.ops->capture_end(gpu.device, &graph, &st));
        assert_null(graph);
        assert_non_null(strstr(st.message, "capturing a graph: "));
        gpu_sync(&gpu);
    }
    free(x.data);
    gpu_release(&gpu);
}

/* What the emulation is for: a host that reads device memory faults. */
static void device_memory_is_out_of_reach(void **state)
{
    (void)state;
    int status;
    need_emulation();
    const char *at = gpu_new(&gpu, 100);
    pid_t child = fork();
    if (child == 0) {
        signal(SIGSEGV, SIG_DFL);
        _exit(*(volatile const char *)at);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_false(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    gpu_release(&gpu);
}

/* More rows than a staging buffer holds, from several pieces. */
static void weights_arrive(void **state)
{
    (void)state;
    struct status st;
    enum { ROWS = 700, COLS = 9000 };
    struct linear l = { .out_features = ROWS,
                        .in_features = COLS,
                        .format = &quant_format_bfloat16 };
    uint16_t *rows = malloc((size_t)ROWS * COLS * sizeof *rows), *got;
    for (int32_t i = 0; i < ROWS * COLS; i++)
        rows[i] = (uint16_t)(i * 7 + i / COLS);
    assert_true(gpu.ops->linear_plan(gpu.device, &l, &st));
    l.packed = gpu_new(&gpu, l.packed_bytes);
    gpu.ops->linear_pack(gpu.device, &l, 3, ROWS - 3, rows + 3 * COLS, l.format);
    gpu.ops->linear_pack(gpu.device, &l, 0, 3, rows, l.format);
    got = malloc(l.packed_bytes);
    gpu_sync(&gpu);
    gpu_get(&gpu, got, l.packed, l.packed_bytes);
    const size_t stride = l.packed_bytes / ROWS / sizeof *got;
    for (size_t r = 0; r < ROWS; r++) {
        assert_memory_equal(got + r * stride, rows + r * COLS, COLS * sizeof *rows);
        for (size_t i = COLS; i < stride; i++)
            assert_int_equal(got[r * stride + i], 0);
    }
    free(rows);
    free(got);
    gpu_release(&gpu);
}

int main(void)
{
    fixture_start();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(refusals_say_what_to_do),
        cmocka_unit_test(errors_stick),
        cmocka_unit_test(pieces_are_copied),
        cmocka_unit_test(tokens_are_fed),
        cmocka_unit_test(marks_have_their_own_errors),
        cmocka_unit_test(memory_is_zeroed_and_bounded),
        cmocka_unit_test(pinned_memory_can_be_short),
        cmocka_unit_test(workspace_is_exact),
        cmocka_unit_test(values_have_a_limit),
        cmocka_unit_test(graphs_replay),
        cmocka_unit_test(a_failed_capture_is_told),
        cmocka_unit_test(a_capture_takes_nothing_else),
        cmocka_unit_test(device_memory_is_out_of_reach),
        cmocka_unit_test(weights_arrive),
    };
    return cmocka_run_group_tests(tests, open_gpu, gpu_teardown);
}
