/* test_comm_cuda.c - ranks on several GPUs, through each other's memory and through NCCL: the same
 * bits at every rank and in rank order, whatever the shapes, in graphs too; what is asked of NCCL;
 * and a rank that does not come holds nobody up. The GPUs are emulated ones, and NCCL is the
 * stand-in of tests/cuda_emu. */
#include "tests/kernels/cuda/cuda_fixture.h"

#include "base/thread.h"
#include "kernels/comm.h"
#include "tests/cuda_emu/fake_nccl.h"
#include "tests/hang_alarm.h"
#include "tests/kernels/cuda/emu_fixture.h"

#include <pthread.h>

enum { MAX_RANKS = 5, MAX_CALLS = 256, STAGED = 128 << 10 }; /* floats that peers take at once */

struct rank {
    struct device *device;
    struct comm *comm;
    pthread_t thread;
    struct tensor x, out;        /* on the device */
    struct tensor before, after; /* on the host */
    struct tensor gathered;
    struct graph *graph;
    bool ok;
    struct status status;
};

static const struct backend *ops;
static struct device *cpu; /* the plug-in takes functions from the program, that is, from here */
static struct rank ranks[MAX_RANKS];
static int32_t num_ranks;

static struct emu_control emu;

static struct {
    size_t (*calls)(struct fake_nccl_call *out, size_t capacity);
    void (*clear)(void);
    void (*fail_call)(enum fake_nccl_kind kind, int result);
} nccl;

/* --- the stand-in ----------------------------------------------------------------------------- */

static void load_nccl(int version)
{
    setenv("FAKE_NCCL_RUNTIME", gpu_plugin_path(), 1);
    void *library = emu_load_library("libnccl.so.2");
    *(void **)&nccl.calls = emu_symbol(library, "fake_nccl_calls");
    *(void **)&nccl.clear = emu_symbol(library, "fake_nccl_clear");
    *(void **)&nccl.fail_call = emu_symbol(library, "fake_nccl_fail");
    void (*set_version)(int version_);
    *(void **)&set_version = emu_symbol(library, "fake_nccl_set_version");
    set_version(version);
}

/* --- a world ---------------------------------------------------------------------------------- */

static const struct workspace_desc workspace = { .max_num_tokens = 40,
                                                 .max_num_seqs = 4,
                                                 .max_logits_rows = 4,
                                                 .max_model_len = 64,
                                                 .block_size = 16,
                                                 .max_in_features = 9000,
                                                 .max_out_features = 9000,
                                                 .num_heads = 2,
                                                 .num_kv_heads = 2,
                                                 .head_dim = 16,
                                                 .vocab_size = 50 };

static bool try_world(int32_t size, bool peers, struct status *st)
{
    struct device *devices[MAX_RANKS];
    struct comm *comms[MAX_RANKS];
    num_ranks = size;
    emu.set_device_count(size, peers);
    for (int32_t i = 0; i < size; i++) {
        struct device_options options = { .index = i };
        struct workspace_desc w = workspace;
        w.num_ranks = size;
        memset(&ranks[i], 0, sizeof ranks[i]);
        if (!ops->open(&ranks[i].device, &options, st) ||
            !ops->reserve_workspace(ranks[i].device, &w, st))
            gpu_fail("open", st);
        devices[i] = ranks[i].device;
    }
    if (!ops->comm_open(comms, devices, size, st)) {
        for (int32_t i = 0; i < size; i++)
            ops->close(ranks[i].device);
        return false;
    }
    for (int32_t i = 0; i < size; i++) {
        ranks[i].comm = comms[i];
        assert_int_equal(comms[i]->rank, i);
        assert_int_equal(comms[i]->world_size, size);
        assert_true(comms[i]->can_capture);
    }
    return true;
}

static void open_world(int32_t size, bool peers)
{
    struct status st;
    if (!try_world(size, peers, &st))
        gpu_fail("comm_open", &st);
}

static void close_world(void)
{
    for (int32_t i = 0; i < num_ranks; i++) {
        ranks[i].comm->close(ranks[i].comm);
        ops->close(ranks[i].device);
    }
}

static void *on_device(struct rank *r, const struct tensor *host)
{
    struct status st;
    struct buffer b;
    if (!ops->alloc(r->device, &b, tensor_bytes(host) + 1, MEMORY_DEVICE, &st))
        gpu_fail("alloc", &st);
    ops->copy(r->device, b.data, host->data, tensor_bytes(host), COPY_TO_DEVICE);
    return b.data;
}

static void free_on_device(struct rank *r, const struct tensor *t, const struct tensor *host)
{
    struct buffer b = { t->data, tensor_bytes(host) + 1 };
    ops->free(r->device, &b);
}

/* Random rows at every rank, of one shape; `pad` more columns between rows. */
static void give_rows(int32_t rows, int32_t cols, int32_t pad)
{
    for (int32_t i = 0; i < num_ranks; i++) {
        struct rank *r = &ranks[i];
        const int32_t wide = num_ranks * cols;
        r->before = (struct tensor){ NULL, DTYPE_F32, rows, cols, cols + pad };
        r->before.data = random_floats((size_t)rows * (size_t)(cols + pad) + 1, 1);
        r->after = copy_tensor(&r->before);
        r->gathered = (struct tensor){ NULL, DTYPE_F32, rows, wide, wide + pad };
        r->gathered.data = random_floats((size_t)rows * (size_t)(wide + pad) + 1, 1);
        r->x = r->before;
        r->x.data = on_device(r, &r->before);
        r->out = r->gathered;
        r->out.data = on_device(r, &r->gathered);
        assert_true(ops->sync(r->device, &r->status));
    }
}

static void take_rows(void)
{
    for (int32_t i = 0; i < num_ranks; i++) {
        struct rank *r = &ranks[i];
        free_on_device(r, &r->x, &r->before);
        free_on_device(r, &r->out, &r->gathered);
        free(r->before.data);
        free(r->after.data);
        free(r->gathered.data);
    }
}

static void *reduce_and_gather(void *arg)
{
    struct rank *r = arg;
    ops->bind_thread(r->device);
    r->comm->all_gather(r->comm, r->device, &r->out, &r->x);
    r->comm->all_reduce(r->comm, r->device, &r->x);
    ops->copy(r->device, r->after.data, r->x.data, tensor_bytes(&r->after), COPY_TO_HOST);
    ops->copy(r->device, r->gathered.data, r->out.data, tensor_bytes(&r->gathered), COPY_TO_HOST);
    r->ok = ops->sync(r->device, &r->status);
    return NULL;
}

static void run_all(void *(*work)(void *))
{
    struct status st;
    for (int32_t i = 0; i < num_ranks; i++)
        assert_true(thread_start(&ranks[i].thread, "rank", work, &ranks[i], &st));
    for (int32_t i = 0; i < num_ranks; i++)
        pthread_join(ranks[i].thread, NULL);
    for (int32_t i = 0; i < num_ranks; i++)
        if (!ranks[i].ok)
            gpu_fail("a rank", &ranks[i].status);
}

static const float *row_of(const struct tensor *t, int32_t row)
{
    return (const float *)t->data + row * t->stride;
}

/* Rank by rank; what lies between the rows stays as it was. */
static void check_sums(void)
{
    const struct tensor *first = &ranks[0].before;
    for (int32_t row = 0; row < first->rows; row++)
        for (int32_t col = 0; col < first->stride; col++) {
            const bool inside = col < first->cols;
            float sum = row_of(first, row)[col];
            if (!inside && row == first->rows - 1)
                break; /* the last row has no end */
            for (int32_t i = 1; i < num_ranks; i++)
                sum += row_of(&ranks[i].before, row)[col];
            for (int32_t i = 0; i < num_ranks; i++)
                assert_memory_equal(&row_of(&ranks[i].after, row)[col],
                                    inside ? &sum : &row_of(&ranks[i].before, row)[col],
                                    sizeof sum);
        }
}

static void check_gathered(void)
{
    const struct tensor *first = &ranks[0].before;
    for (int32_t i = 0; i < num_ranks; i++)
        for (int32_t row = 0; row < first->rows; row++)
            for (int32_t from = 0; from < num_ranks; from++)
                assert_memory_equal(row_of(&ranks[i].gathered, row) + from * first->cols,
                                    row_of(&ranks[from].before, row),
                                    (size_t)first->cols * sizeof(float));
}

static void check_shape(int32_t rows, int32_t cols, int32_t pad)
{
    give_rows(rows, cols, pad);
    run_all(reduce_and_gather);
    check_sums();
    check_gathered();
    take_rows();
}

static void check_shapes(int32_t size, bool peers)
{
    open_world(size, peers);
    check_shape(1, 1, 0);
    check_shape(1, 64, 0);
    check_shape(3, 65, 0);
    check_shape(0, 8, 0);
    for (int round = 0; round < 4; round++)
        check_shape(random_int(1, 9), random_int(1, 200), 4 * random_int(0, 1));
    check_shape(2, 60, 3);
    close_world();
}

/* --- through each other's memory -------------------------------------------------------------- */

static void test_peers(void **state)
{
    (void)state;
    for (int32_t size = 2; size <= MAX_RANKS; size += 1 + (size > 2))
        check_shapes(size, true);
    /* More than fits at once: rows in turns, and a row in turns. */
    open_world(2, true);
    assert_non_null(strstr(ranks[0].comm->description, "peer memory; no NCCL ("));
    check_shape(5, STAGED / 2 - 4, 0);
    check_shape(2, STAGED + 12, 4);
    close_world();
}

static void *broadcast_bytes(void *arg)
{
    struct rank *r = arg;
    const size_t bytes = tensor_bytes(&r->before) - 3;
    ops->bind_thread(r->device);
    r->comm->broadcast(r->comm, r->device, r->x.data, bytes, num_ranks - 1);
    ops->copy(r->device, r->after.data, r->x.data, tensor_bytes(&r->after), COPY_TO_HOST);
    r->ok = ops->sync(r->device, &r->status) && r->comm->barrier(r->comm, &r->status);
    return NULL;
}

static void check_broadcast(void)
{
    give_rows(1, 37, 0);
    run_all(broadcast_bytes);
    for (int32_t i = 0; i < num_ranks; i++)
        assert_memory_equal(ranks[i].after.data, ranks[num_ranks - 1].before.data,
                            37 * sizeof(float) - 3);
    take_rows();
}

static void *capture_and_replay(void *arg)
{
    struct rank *r = arg;
    ops->bind_thread(r->device);
    r->ok = ops->capture_begin(r->device, &r->status);
    r->comm->all_reduce(r->comm, r->device, &r->x);
    r->ok = r->ok && ops->capture_end(r->device, &r->graph, &r->status);
    for (int round = 0; r->ok && round < 3; round++)
        r->ok = ops->graph_launch(r->device, r->graph);
    ops->copy(r->device, r->after.data, r->x.data, tensor_bytes(&r->after), COPY_TO_HOST);
    r->ok = r->ok && ops->sync(r->device, &r->status);
    ops->graph_free(r->device, r->graph);
    return NULL;
}

/* A captured sum, three times: each meets the others anew. */
static void test_peers_in_graphs(void **state)
{
    (void)state;
    open_world(3, true);
    give_rows(2, 50, 0);
    run_all(capture_and_replay);
    for (int32_t i = 0; i < 100; i++) {
        float sum = ((float *)ranks[0].before.data)[i];
        for (int32_t r = 1; r < 3; r++)
            sum += ((float *)ranks[r].before.data)[i];
        for (int round = 1; round < 3; round++)
            sum = sum + sum + sum;
        for (int32_t r = 0; r < 3; r++)
            assert_memory_equal((float *)ranks[r].after.data + i, &sum, sizeof sum);
    }
    take_rows();
    check_broadcast();
    close_world();
}

/* --- ranks that fail -------------------------------------------------------------------------- */

static void *reduce_alone(void *arg)
{
    struct rank *r = arg;
    ops->bind_thread(r->device);
    r->comm->all_reduce(r->comm, r->device, &r->x);
    ops->sync(r->device, &r->status); /* the others do not come */
    r->comm->all_reduce(r->comm, r->device, &r->x);
    r->ok = ops->sync(r->device, &r->status);
    return NULL;
}

static void *stand_at_barrier(void *arg)
{
    struct rank *r = arg;
    r->ok = r->comm->barrier(r->comm, &r->status);
    return NULL;
}

static void test_abort(void **state)
{
    (void)state;
    struct status why, st;
    status_set(&why, STATUS_INTERNAL, "rank 2 is broken");
    open_world(3, true);
    give_rows(2, 30, 0);
    assert_true(thread_start(&ranks[0].thread, "rank", reduce_alone, &ranks[0], &st));
    assert_true(thread_start(&ranks[1].thread, "rank", stand_at_barrier, &ranks[1], &st));
    usleep(20000);
    ranks[2].comm->abort(ranks[2].comm, &why);
    for (int32_t i = 0; i < 2; i++) {
        pthread_join(ranks[i].thread, NULL);
        assert_false(ranks[i].ok);
        assert_string_equal(ranks[i].status.message, "rank 2 is broken");
    }
    take_rows();
    close_world();
}

/* No way to the other rank: no NCCL, or one that is too old. */
static void test_no_way(void **state)
{
    (void)state;
    struct status st;
    assert_false(try_world(2, false, &st));
    assert_non_null(strstr(st.message,
                           "GPUs 0 and 1 cannot reach each other's memory, and there is "
                           "no NCCL (libnccl.so.2: "));
    assert_non_null(strstr(st.message, "install libnccl2"));
    load_nccl(21705);
    assert_false(try_world(2, false, &st));
    assert_non_null(strstr(st.message, "is NCCL 2.17.5, and 2.18 is the least that works"));
}

/* --- through NCCL, from here on loaded -------------------------------------------------------- */

static void test_nccl(void **state)
{
    (void)state;
    load_nccl(23203);
    for (int32_t size = 2; size <= 4; size++)
        check_shapes(size, false);
    open_world(3, false);
    assert_string_equal(ranks[2].comm->description, "NCCL 2.32.3");
    check_broadcast();
    close_world();
    open_world(2, true);
    assert_non_null(strstr(ranks[0].comm->description, "and peer memory for small messages"));
    check_shape(40, 9000, 0); /* not small */
    close_world();
}

/* Where the next call of `rank` is, from `at` on. */
static size_t next_of(const struct fake_nccl_call *calls, size_t count, size_t at, int32_t rank)
{
    while (at < count && calls[at].rank != rank)
        at++;
    return at;
}

/* A sum is parts to everyone, and sums to everyone: each rank in order, with sizes that add up. */
static void check_calls_of(const struct fake_nccl_call *calls, size_t count, int32_t rank)
{
    static const size_t parts[3] = { 33, 33, 34 }, begins[3] = { 0, 33, 66 }; /* of 100 */
    const float *x = ranks[rank].x.data;
    size_t at = 0;
    for (int32_t step = 0; step < 2; step++)
        for (int32_t r = 0; r < 3; r++) {
            if (step == 1 && r == rank)
                continue;
            at = next_of(calls, count, at, rank);
            assert_true(at < count);
            assert_int_equal(calls[at].kind, FAKE_SEND);
            assert_int_equal(calls[at].peer, r);
            assert_int_equal(calls[at].count, parts[step == 0 ? r : rank]);
            assert_int_equal(calls[at].type, 7);
            assert_ptr_equal(calls[at].src, x + begins[step == 0 ? r : rank]);
            at = next_of(calls, count, at + 1, rank);
            assert_true(at < count);
            assert_int_equal(calls[at].kind, FAKE_RECV);
            assert_int_equal(calls[at].peer, r);
            assert_int_equal(calls[at].count, parts[step == 0 ? rank : r]);
            if (step == 1)
                assert_ptr_equal(calls[at].dst, x + begins[r]);
            at++;
        }
    assert_int_equal(next_of(calls, count, at, rank), count);
}

static void *reduce_only(void *arg)
{
    struct rank *r = arg;
    ops->bind_thread(r->device);
    r->comm->all_reduce(r->comm, r->device, &r->x);
    r->ok = ops->sync(r->device, &r->status);
    return NULL;
}

static void test_what_nccl_is_asked(void **state)
{
    (void)state;
    static struct fake_nccl_call calls[MAX_CALLS];
    size_t groups = 0;
    open_world(3, false);
    give_rows(4, 25, 0);
    nccl.clear();
    run_all(reduce_only);
    size_t count = nccl.calls(calls, MAX_CALLS);
    for (int32_t r = 0; r < 3; r++)
        check_calls_of(calls, count, r);
    for (size_t i = 0; i < count; i++)
        groups += calls[i].kind == FAKE_GROUP_START;
    assert_int_equal(groups, 2 * 3);
    take_rows();
    nccl.clear();
    close_world();
    assert_int_equal(nccl.calls(calls, MAX_CALLS), 3);
    for (int32_t r = 0; r < 3; r++)
        assert_int_equal(calls[r].kind, FAKE_COMM_DESTROY);
}

/* What NCCL says reaches whoever asks for the result. */
static void test_nccl_errors(void **state)
{
    (void)state;
    struct status st;
    nccl.fail_call(FAKE_COMM_INIT_ALL, 5);
    assert_false(try_world(2, true, &st));
    assert_string_equal(st.message,
                        "connecting the ranks: NCCL: invalid usage: told by the stand-in");
    nccl.fail_call(FAKE_GROUP_END, 3);
    assert_false(try_world(2, true, &st));
    assert_non_null(strstr(st.message, "the ranks' first messages: NCCL: internal error"));
    open_world(2, false);
    give_rows(1, 8, 0);
    ops->bind_thread(ranks[0].device);
    nccl.fail_call(FAKE_ALL_GATHER, 5);
    ranks[0].comm->all_gather(ranks[0].comm, ranks[0].device, &ranks[0].out, &ranks[0].x);
    assert_false(ops->sync(ranks[0].device, &st));
    assert_non_null(strstr(st.message, "all-gather: NCCL: invalid usage"));
    take_rows();
    close_world();
}

static void test_nccl_abort(void **state)
{
    (void)state;
    static struct fake_nccl_call calls[MAX_CALLS];
    struct status why;
    status_set(&why, STATUS_INTERNAL, "called off");
    open_world(2, false);
    give_rows(1, 8, 0);
    nccl.clear();
    ranks[0].comm->abort(ranks[0].comm, &why);
    ranks[1].comm->abort(ranks[1].comm, &why);
    assert_int_equal(nccl.calls(calls, MAX_CALLS), 2);
    assert_int_equal(calls[0].kind, FAKE_COMM_ABORT);
    assert_int_equal(calls[1].kind, FAKE_COMM_ABORT);
    reduce_only(&ranks[1]);
    assert_false(ranks[1].ok);
    assert_string_equal(ranks[1].status.message, "called off");
    take_rows();
    close_world();
}

static int begin(void **state)
{
    struct status st;
    struct device_options options = { .num_threads = 1, .isa = "scalar" };
    (void)state;
    fixture_start();
    assert_true(backend_cpu.open(&cpu, &options, &st));
    ops = backend_load(gpu_plugin_path(), &st);
    if (!ops)
        gpu_fail(gpu_plugin_path(), &st);
    emu = emu_get_control();
    hang_alarm(240);
    return 0;
}

static int end(void **state)
{
    (void)state;
    backend_cpu.close(cpu);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_peers),       cmocka_unit_test(test_peers_in_graphs),
        cmocka_unit_test(test_abort),       cmocka_unit_test(test_no_way),
        cmocka_unit_test(test_nccl),        cmocka_unit_test(test_what_nccl_is_asked),
        cmocka_unit_test(test_nccl_errors), cmocka_unit_test(test_nccl_abort),
    };
    if (!gpu_is_emulated()) {
        printf("skip: ranks on several GPUs are tested on emulated ones\n");
        return 0;
    }
    return cmocka_run_group_tests(tests, begin, end);
}
