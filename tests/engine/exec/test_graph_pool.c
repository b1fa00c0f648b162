/* test_graph_pool.c - steps replayed as graphs on the emulated GPU: the bits of steps that run op
 * by op, whatever the padding, the model, its weights and its cache; captures in order, which
 * allocate nothing and wait for nothing; and failures that end cleanly. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "tests/engine/model/arch_fixture.h"
#include "tests/hang_alarm.h"
#include "tests/kernels/cuda/plugin_path.h"
#include "engine/exec/executor.h"
#include "kernels/plugin.h"
#include "tests/cuda_emu/emu_control.h"

#include <dlfcn.h>
#include <unistd.h>

enum {
    MAX_SEQS = 5,
    PROMPT_LEN = 5,
    NUM_STEPS = 6,
    MAX_LEN = 12,
    BLOCK_SIZE = 4,
    BLOCKS_PER_SEQ = MAX_LEN / BLOCK_SIZE,
    MAX_GROUPS = 4,
    MAX_LOGPROBS = 3,
    TOP = 1 + MAX_LOGPROBS,
    LEN_TO_CAPTURE = 8,
    NUM_DRAFTS = 2,
    ROWS = 1 + NUM_DRAFTS
};

struct run {
    struct model *model;
    struct executor executor;
    struct memory_plan plan;
    int32_t num_seqs;
    struct request *requests[MAX_SEQS];
    struct step_seq seqs[MAX_SEQS];
    int32_t tables[MAX_SEQS][MAX_GROUPS * BLOCKS_PER_SEQ];
    struct step step;
    struct step_output output;
    /* [MAX_SEQS][output.max_sampled] */
    int32_t num_sampled[MAX_SEQS], sampled[MAX_SEQS * ROWS];
    struct token_logprob logprobs[MAX_SEQS * ROWS][TOP];
};

static struct {
    void (*get_record)(struct emu_record *out);
    void (*fail_call)(const char *function, int after, int error);
} emu;

static struct fixture llama;

static struct emu_record get_record(void)
{
    struct emu_record r;
    emu.get_record(&r);
    return r;
}

/* --- a model on the GPU ----------------------------------------------------------------------- */

struct variant {
    const char *dir, *dtype;
    const char *kv_dtype;     /* as --kv-cache-dtype; NULL: that of the weights */
    const char *quantization; /* NULL: none */
    int32_t num_drafts;       /* most of a sequence */
};

static void open_model(struct run *r, const struct variant *v, enum graph_mode mode,
                       const char *sizes)
{
    struct status st;
    struct model_options model = {
        .path = v->dir, .load_format = "auto", .dtype = v->dtype, .quantization = v->quantization
    };
    struct device_options device = { .index = 0 };
    struct executor_ranks ranks = { .count = 1 };
    memset(r, 0, sizeof *r);
    if (!model_open(&model, &r->model, &st))
        rig_fail(v->dir, &st);
    enum dtype kv_dtype = r->model->weight_format->dtype;
    assert_true(!v->kv_dtype || kv_cache_dtype_parse(v->kv_dtype, &kv_dtype));
    struct memory_plan_options options = {
        .memory_utilization = 0.5,
        .num_blocks_override = 1 + MAX_GROUPS * MAX_SEQS * BLOCKS_PER_SEQ,
        .max_model_len = MAX_LEN,
        .block_size = BLOCK_SIZE,
        .max_num_seqs = MAX_SEQS,
        .max_num_batched_tokens = MAX_SEQS * PROMPT_LEN,
        .max_logprobs = MAX_LOGPROBS,
        .max_draft_tokens = v->num_drafts,
        .num_batches = 2,
        .kv_cache_dtype = kv_dtype,
        .graph_mode = mode,
        .graph_sizes = sizes,
        .max_seq_len_to_capture = LEN_TO_CAPTURE,
    };
    if (!executor_open(&r->executor, "cuda", &device, &ranks, &st) ||
        !memory_plan_make(r->model, r->executor.workers[0].device, &options, &r->plan, &st) ||
        !executor_load_weights(&r->executor, r->model, &st) ||
        !executor_allocate(&r->executor, &r->plan, &st) || !executor_start(&r->executor, &st))
        rig_fail(v->dir, &st);
    r->output = (struct step_output){ .num_sampled = r->num_sampled,
                                      .sampled_ids = r->sampled,
                                      .max_sampled = 1 + v->num_drafts,
                                      .logprobs = &r->logprobs[0][0],
                                      .logprobs_stride = TOP };
}

static void open_run(struct run *r, const char *dtype, enum graph_mode mode, const char *sizes)
{
    const struct variant v = { .dir = llama.dir, .dtype = dtype };
    open_model(r, &v, mode, sizes);
}

static void end_requests(struct run *r)
{
    for (int32_t i = 0; i < r->num_seqs; i++)
        request_unref(r->requests[i]);
    r->num_seqs = 0;
}

static void close_run(struct run *r)
{
    end_requests(r);
    executor_stop(&r->executor);
    const int64_t others = get_record().graphs - r->executor.workers[0].runner.graphs.num_captured;
    executor_release(&r->executor);
    assert_int_equal(get_record().graphs, others);
    executor_unload_weights(&r->executor);
    executor_close(&r->executor);
    model_close(r->model);
}

static struct graph_pool *pool_of(struct run *r)
{
    return &r->executor.workers[0].runner.graphs;
}

static void count_captured(void *arg, int32_t done, int32_t total)
{
    int32_t *captured = arg;
    assert_int_equal(done, ++*captured);
    assert_true(done <= total);
}

static void capture_all(struct run *r)
{
    struct status st;
    int32_t captured = 0;
    if (!executor_capture(&r->executor, count_captured, &captured, &st))
        rig_fail("capture", &st);
    assert_int_equal(captured, graph_buckets_count(&r->plan.graphs));
}

/* --- its requests ----------------------------------------------------------------------------- */

static const float no_bias = -1;
static const int32_t biased_id = 5;

/* Of all kinds: greedy, drawn, with penalties, with a bias, with and without log-probabilities. */
static struct sampling_params params_of(int32_t seq)
{
    struct sampling_params p;
    sampling_params_defaults(&p);
    p.temperature = seq % 3 == 0 ? 0 : 0.9f;
    p.top_k = seq % 3 == 2 ? 9 : -1;
    p.num_logprobs = seq % 2 == 0 ? MAX_LOGPROBS - seq % 3 : -1;
    p.repetition_penalty = seq == 1 ? 1.4f : 1;
    p.frequency_penalty = seq == 3 ? 0.7f : 0;
    if (seq == 4) {
        p.num_logit_bias = 1;
        p.logit_bias_ids = (int32_t *)&biased_id;
        p.logit_bias_values = (float *)&no_bias;
    }
    return p;
}

/* The prompts of `num_seqs` sequences, in one step. */
static void start_requests(struct run *r, int32_t num_seqs)
{
    static const int32_t first_blocks[MAX_GROUPS];
    const int32_t vocab_size = r->model->desc.vocab_size;
    assert_true(r->plan.kv_spec.num_groups <= MAX_GROUPS);
    r->num_seqs = num_seqs;
    for (int32_t s = 0; s < num_seqs; s++) {
        int32_t ids[PROMPT_LEN];
        struct sampling_params params = params_of(s);
        for (int32_t i = 0; i < PROMPT_LEN; i++)
            ids[i] = (7 * i + 3 + 11 * s) % vocab_size;
        r->requests[s] = request_new(ids, PROMPT_LEN, NUM_STEPS + 1, &params, NULL, NULL);
        r->requests[s]->seed = 100 + (uint64_t)s;
        for (int32_t i = 0; i < MAX_GROUPS * BLOCKS_PER_SEQ; i++)
            r->tables[s][i] = 1 + i * MAX_SEQS + s;
        r->seqs[s] = (struct step_seq){ .request = r->requests[s],
                                        .num_tokens = PROMPT_LEN,
                                        .num_scheduled_tokens = PROMPT_LEN,
                                        .block_tables = r->tables[s],
                                        .first_blocks = first_blocks,
                                        .num_blocks = BLOCKS_PER_SEQ,
                                        .sample = true };
    }
    r->step = (struct step){ .num_seqs = num_seqs,
                             .num_tokens = num_seqs * PROMPT_LEN,
                             .seqs = r->seqs,
                             .block_table_stride = BLOCKS_PER_SEQ };
}

static bool run_step(struct run *r)
{
    memset(r->sampled, 0, sizeof r->sampled);
    memset(r->logprobs, 0, sizeof r->logprobs);
    executor_submit(&r->executor, &r->step);
    executor_collect(&r->executor, &r->output);
    return r->output.status.code == STATUS_OK;
}

/* The sampled tokens become the inputs of the next step. */
static void advance(struct run *r)
{
    for (int32_t s = 0; s < r->num_seqs; s++) {
        struct step_seq *q = &r->seqs[s];
        r->requests[s]->token_ids[q->num_tokens++] =
            r->sampled[step_output_place(&r->output, s, 0)];
        q->num_computed_tokens = q->num_tokens - 1;
        q->num_scheduled_tokens = 1;
    }
    r->step.num_tokens = r->num_seqs;
}

/* Both run the same requests; every step's answers must have the same bits. Returns how many graphs
 * `b` has launched. */
static int64_t compare(struct run *a, struct run *b, int32_t num_seqs)
{
    int64_t launched = 0;
    start_requests(a, num_seqs);
    start_requests(b, num_seqs);
    for (int32_t i = 0; i < NUM_STEPS; i++) {
        assert_true(run_step(a));
        const int64_t before = get_record().graph_launches;
        assert_true(run_step(b));
        launched += get_record().graph_launches - before;
        assert_memory_equal(a->sampled, b->sampled, sizeof a->sampled);
        assert_memory_equal(a->logprobs, b->logprobs, sizeof a->logprobs);
        advance(a);
        advance(b);
    }
    end_requests(a);
    end_requests(b);
    return launched;
}

/* The same, but `b` submits each step before it has collected the one before: the ids it goes on
 * from are on the device alone. */
static void compare_ahead(struct run *a, struct run *b, int32_t num_seqs)
{
    struct step_seq seqs[2][MAX_SEQS];
    start_requests(a, num_seqs);
    start_requests(b, num_seqs);
    struct step steps[2] = { b->step, b->step };
    memcpy(seqs[0], b->seqs, sizeof b->seqs);
    steps[0].seqs = seqs[0];
    steps[1].seqs = seqs[1];
    executor_submit(&b->executor, &steps[0]);
    for (int32_t i = 0; i < NUM_STEPS; i++) {
        struct step_seq *now = seqs[i % 2], *next = seqs[(i + 1) % 2];
        for (int32_t s = 0; s < num_seqs; s++) {
            next[s] = now[s];
            next[s].num_computed_tokens = next[s].num_tokens++;
            next[s].num_scheduled_tokens = 1;
            next[s].fed = true;
            next[s].previous = s;
        }
        steps[(i + 1) % 2].num_tokens = num_seqs;
        if (i + 1 < NUM_STEPS)
            executor_submit(&b->executor, &steps[(i + 1) % 2]);
        memset(b->sampled, 0, sizeof b->sampled);
        memset(b->logprobs, 0, sizeof b->logprobs);
        executor_collect(&b->executor, &b->output);
        assert_int_equal(b->output.status.code, STATUS_OK);
        assert_true(run_step(a));
        assert_memory_equal(a->sampled, b->sampled, sizeof a->sampled);
        assert_memory_equal(a->logprobs, b->logprobs, sizeof a->logprobs);
        for (int32_t s = 0; s < num_seqs; s++)
            b->requests[s]->token_ids[PROMPT_LEN + i] = b->sampled[s];
        advance(a);
    }
    end_requests(a);
    end_requests(b);
}

/* What a request gets without drafts. */
struct answer {
    int32_t ids[NUM_STEPS];
    struct token_logprob logprobs[NUM_STEPS][TOP];
};

static void run_plain(struct run *r, int32_t num_seqs, struct answer answers[MAX_SEQS])
{
    start_requests(r, num_seqs);
    for (int32_t i = 0; i < NUM_STEPS; i++) {
        assert_true(run_step(r));
        for (int32_t s = 0; s < num_seqs; s++) {
            answers[s].ids[i] = r->sampled[s];
            memcpy(answers[s].logprobs[i], r->logprobs[s], sizeof r->logprobs[s]);
        }
        advance(r);
    }
    end_requests(r);
}

/* A sequence's drafts: `num_right` of them are. */
static void add_drafts(struct run *r, int32_t s, const struct answer *answer, int32_t num_right)
{
    struct step_seq *q = &r->seqs[s];
    for (int32_t k = 0; k < NUM_DRAFTS; k++) {
        const int32_t id = answer->ids[q->num_tokens - PROMPT_LEN + k];
        r->requests[s]->token_ids[q->num_tokens + k] =
            k < num_right ? id : (id + 1) % r->model->desc.vocab_size;
    }
    q->num_draft_tokens = NUM_DRAFTS;
    q->num_scheduled_tokens = 1 + NUM_DRAFTS;
    r->step.num_tokens += NUM_DRAFTS;
}

static void check_new_tokens(const struct run *r, int32_t s, const struct answer *answer)
{
    const struct step_seq *q = &r->seqs[s];
    for (int32_t k = 0; k < r->num_sampled[s]; k++) {
        const int32_t place = step_output_place(&r->output, s, k);
        const int32_t at = q->num_tokens - PROMPT_LEN + k;
        assert_int_equal(r->sampled[place], answer->ids[at]);
        assert_memory_equal(r->logprobs[place], answer->logprobs[at], sizeof r->logprobs[place]);
    }
}

/* The same requests with drafts: each step's new tokens must have the bits of `answers`. Returns
 * how many graphs were launched. */
static int64_t run_drafts(struct run *r, int32_t num_seqs, const struct answer answers[MAX_SEQS],
                          int32_t num_right)
{
    int64_t launched = 0;
    start_requests(r, num_seqs);
    while (r->seqs[0].num_tokens + NUM_DRAFTS < PROMPT_LEN + NUM_STEPS) {
        const bool drafts = r->seqs[0].num_tokens > PROMPT_LEN;
        for (int32_t s = 0; drafts && s < num_seqs; s++)
            add_drafts(r, s, &answers[s], num_right);
        const int64_t before = get_record().graph_launches;
        assert_true(run_step(r));
        launched += get_record().graph_launches - before;
        r->step.num_tokens = num_seqs;
        for (int32_t s = 0; s < num_seqs; s++) {
            struct step_seq *q = &r->seqs[s];
            assert_int_equal(r->num_sampled[s], drafts ? 1 + num_right : 1);
            check_new_tokens(r, s, &answers[s]);
            for (int32_t k = 0; k < r->num_sampled[s]; k++)
                r->requests[s]->token_ids[q->num_tokens++] =
                    r->sampled[step_output_place(&r->output, s, k)];
            q->num_computed_tokens = q->num_tokens - 1;
            q->num_scheduled_tokens = 1;
            q->num_draft_tokens = 0;
        }
    }
    end_requests(r);
    return launched;
}

/* Steps whose longest sequence has at most LEN_TO_CAPTURE tokens; the first is the prompts'. */
enum { STEPS_IN_BUCKETS = LEN_TO_CAPTURE - PROMPT_LEN };

/* --- tests ------------------------------------------------------------------------------------ */

static int setup(void **state)
{
    (void)state;
    if (!gpu_is_emulated())
        return 0;
    fixture_open_in(&llama, "tests/golden/parallel/", "llama_dynamic");
    struct status st;
    const char *plugin = gpu_link_plugin();
    assert_non_null(backend_load(plugin, &st));
    void *object = dlopen(plugin, RTLD_NOW | RTLD_NOLOAD);
    assert_non_null(object);
    *(void **)&emu.get_record = dlsym(object, "emu_get_record");
    *(void **)&emu.fail_call = dlsym(object, "emu_fail");
    assert_non_null(emu.fail_call);
    dlclose(object);
    hang_alarm(300);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    if (!gpu_is_emulated())
        return 0;
    fixture_close(&llama);
    return 0;
}

static void need_emulation(void)
{
    if (!gpu_is_emulated())
        skip();
}

/* One is padded to 2, three to 4, five is above all sizes. */
static void test_replay_has_the_same_bits(void **state)
{
    (void)state;
    static const char *const dtypes[] = { "float32", "bfloat16" };
    need_emulation();
    for (size_t i = 0; i < 2; i++) {
        struct run eager, full, lazy;
        open_run(&eager, dtypes[i], GRAPH_MODE_NONE, NULL);
        open_run(&full, dtypes[i], GRAPH_MODE_FULL, "2,4");
        open_run(&lazy, dtypes[i], GRAPH_MODE_LAZY, "2,4");
        capture_all(&full);
        for (int32_t num_seqs = 1; num_seqs <= MAX_SEQS; num_seqs += num_seqs > 2 ? 2 : 1) {
            const bool fits = num_seqs <= 4, first = num_seqs == 1 || num_seqs == 3;
            assert_int_equal(compare(&eager, &full, num_seqs), fits ? STEPS_IN_BUCKETS : 0);
            if (num_seqs > 1 && i == 1)
                continue; /* by now it is the same as full */
            assert_int_equal(compare(&eager, &lazy, num_seqs), fits ? STEPS_IN_BUCKETS - first : 0);
        }
        assert_int_equal(pool_of(&eager)->num_captured, 0);
        assert_int_equal(pool_of(&lazy)->num_captured, 2 - (int32_t)i);
        close_run(&lazy);
        close_run(&full);
        close_run(&eager);
    }
}

/* With graphs and without, and where graphs are made on the way. */
static void test_a_step_ahead(void **state)
{
    (void)state;
    need_emulation();
    struct run eager, full, lazy;
    open_run(&eager, "float32", GRAPH_MODE_NONE, NULL);
    open_run(&full, "float32", GRAPH_MODE_FULL, "2,4");
    open_run(&lazy, "float32", GRAPH_MODE_LAZY, "2,4");
    capture_all(&full);
    compare_ahead(&full, &eager, 4);
    for (int32_t num_seqs = 1; num_seqs <= MAX_SEQS; num_seqs += 2) {
        compare_ahead(&eager, &full, num_seqs);
        compare_ahead(&eager, &lazy, num_seqs);
    }
    close_run(&lazy);
    close_run(&full);
    close_run(&eager);
}

static void check_drafts(const char *dtype, const int32_t (*cases)[2], int32_t num_cases)
{
    struct run plain, eager, full;
    struct variant v = { .dir = llama.dir, .dtype = dtype };
    open_model(&plain, &v, GRAPH_MODE_NONE, NULL);
    v.num_drafts = NUM_DRAFTS;
    open_model(&eager, &v, GRAPH_MODE_NONE, NULL);
    open_model(&full, &v, GRAPH_MODE_FULL, "2,4");
    assert_int_equal(graph_buckets_count(&full.plan.graphs), 4);
    capture_all(&full);
    for (int32_t i = 0; i < num_cases; i++) {
        const int32_t num_seqs = cases[i][0], num_right = cases[i][1];
        struct answer answers[MAX_SEQS];
        run_plain(&plain, num_seqs, answers);
        assert_int_equal(run_drafts(&eager, num_seqs, answers, num_right), 0);
        /* From 6 tokens on, with the drafts: 8 are the most in a bucket. */
        assert_int_equal(run_drafts(&full, num_seqs, answers, num_right), num_seqs <= 4);
    }
    assert_int_equal(compare(&eager, &full, 1), STEPS_IN_BUCKETS);
    close_run(&full);
    close_run(&eager);
    close_run(&plain);
}

/* Right and wrong drafts, in graphs and without: what comes is what comes without drafts, of which
 * the steps that are in a bucket are replayed. */
static void test_drafts(void **state)
{
    (void)state;
    static const int32_t in_float[][2] = { { 1, 0 }, { 3, 2 }, { MAX_SEQS, 1 } };
    static const int32_t in_half[][2] = { { 3, 1 }, { 1, 2 } };
    need_emulation();
    check_drafts("float32", in_float, 3);
    check_drafts("bfloat16", in_half, 2);
}

/* Every op that a model may need takes counts as upper bounds. */
static void test_architectures(void **state)
{
    (void)state;
    static const char *const names[] = { "gemma2",    "gemma3",      "gpt2",
                                         "gpt_neox",  "gpt_oss",     "mixtral",
                                         "qwen3_moe", "deepseek_v2", "olmo2" };
    need_emulation();
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        struct fixture f;
        struct run eager, full;
        fixture_open_in(&f, "tests/golden/parallel/", names[i]);
        const struct variant v = { .dir = f.dir, .dtype = "bfloat16" };
        open_model(&eager, &v, GRAPH_MODE_NONE, NULL);
        struct status st;
        const struct backend *backend = eager.executor.workers[0].device->backend;
        if (decoder_check_ops(&eager.model->desc, backend, &st)) {
            open_model(&full, &v, GRAPH_MODE_FULL, "3");
            capture_all(&full);
            assert_int_equal(compare(&eager, &full, 2), STEPS_IN_BUCKETS);
            close_run(&full);
        } else {
            print_message("%s\n", st.message);
        }
        close_run(&eager);
        fixture_close(&f);
    }
}

/* A graph that was captured before any request has come: what it launches is the same for whatever
 * the steps then find in memory. */
static void check_variant(const struct variant *v)
{
    struct run eager, full;
    open_model(&eager, v, GRAPH_MODE_NONE, NULL);
    open_model(&full, v, GRAPH_MODE_FULL, "2,4");
    capture_all(&full);
    assert_int_equal(compare(&eager, &full, 1), STEPS_IN_BUCKETS);
    assert_int_equal(compare(&eager, &full, 4), STEPS_IN_BUCKETS);
    assert_int_equal(compare(&eager, &full, 3), STEPS_IN_BUCKETS);
    close_run(&full);
    close_run(&eager);
}

/* Packed experts, chosen anew by every step, packed kv_b_proj, latents on tensor cores, caches of 8
 * bits: as checkpoints have them, or as options make them. */
static void test_weights_and_caches(void **state)
{
    (void)state;
    static const struct {
        const char *model;
        struct variant v;
        bool latent;
    } cases[] = {
        { "qwen2_moe", { NULL, "bfloat16", "fp8", "int8", 0 }, false },
        { "gpt_oss", { NULL, "float16", "int8", NULL, 0 }, false },
        { "gemma3", { NULL, "bfloat16", "fp8", "int4", 0 }, false },
        { "deepseek_v2", { NULL, "bfloat16", "int8", "fp8", 0 }, true },
        { "deepseek_v3", { NULL, "bfloat16", NULL, "int8", 0 }, true },
        { "deepseek_v3", { NULL, "float32", "fp8", NULL, 0 }, false },
    };
    static const struct variant checkpoints[] = {
        { "tests/golden/quant/mxfp4", "auto", NULL, NULL, 0 },
        { "tests/golden/quant/fp8_block_deepseek", "auto", "fp8", NULL, 0 },
        { "tests/golden/quant/gptq_4bit_g16_act_order", "auto", "int8", NULL, 0 },
    };
    need_emulation();
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct fixture f;
        struct variant v = cases[i].v;
        if (cases[i].latent)
            fixture_open_latent(&f, cases[i].model, 64, 16);
        else
            fixture_open(&f, cases[i].model);
        v.dir = f.dir;
        check_variant(&v);
        fixture_close(&f);
    }
    for (size_t i = 0; i < sizeof checkpoints / sizeof checkpoints[0]; i++)
        check_variant(&checkpoints[i]);
}

static void test_captures_come_in_order(void **state)
{
    (void)state;
    struct run r;
    struct status st;
    need_emulation();
    open_run(&r, "bfloat16", GRAPH_MODE_FULL, "1,2,4,5");
    assert_int_equal(graph_buckets_count(&r.plan.graphs), 4);
    /* The third has no room: the two largest are there. */
    emu.fail_call("cudaGraphInstantiate", 3, 2);
    assert_false(executor_capture(&r.executor, NULL, NULL, &st));
    assert_non_null(strstr(st.message, "2 sequences of up to 8 tokens, 1 in the step: "));
    assert_non_null(strstr(st.message, "out of memory"));
    assert_int_equal(pool_of(&r)->num_captured, 2);
    assert_non_null(pool_of(&r)->graphs[3]);
    assert_non_null(pool_of(&r)->graphs[2]);
    assert_null(pool_of(&r)->graphs[1]);
    close_run(&r);

    open_run(&r, "bfloat16", GRAPH_MODE_FULL, "1,2,4,5");
    const struct emu_record before = get_record();
    capture_all(&r);
    const struct emu_record after = get_record();
    assert_int_equal(after.allocations, before.allocations);
    assert_int_equal(after.syncs - before.syncs, 4); /* the run before each capture */
    assert_int_equal(after.graphs, 4);
    assert_int_equal(after.graph_launches, before.graph_launches);
    assert_true(graph_pool_bytes(pool_of(&r)) > 0);
    assert_int_equal(graph_pool_bytes(pool_of(&r)), after.device_bytes - before.device_bytes);
    assert_true(graph_pool_bytes(pool_of(&r)) <= r.plan.graph_bytes);
    close_run(&r);
}

static void test_no_more_than_the_plan_says(void **state)
{
    (void)state;
    struct run with, without;
    need_emulation();
    open_run(&without, "float32", GRAPH_MODE_NONE, "1,2");
    open_run(&with, "float32", GRAPH_MODE_FULL, "1,2");
    assert_int_equal(without.plan.graph_bytes, 0);
    assert_true(with.plan.graph_bytes > 0);
    assert_int_equal(memory_plan_total_bytes(&with.plan) - memory_plan_total_bytes(&without.plan),
                     with.plan.graph_bytes);
    close_run(&with);
    close_run(&without);
}

/* A step that fails is one failure; the next one runs as ever, from the graph. */
static void test_a_failed_step(void **state)
{
    (void)state;
    struct run eager, r;
    need_emulation();
    open_run(&eager, "bfloat16", GRAPH_MODE_NONE, NULL);
    open_run(&r, "bfloat16", GRAPH_MODE_FULL, "2");
    capture_all(&r);
    start_requests(&r, 2);
    assert_true(run_step(&r));
    advance(&r);
    emu.fail_call("cudaGraphLaunch", 1, 719);
    assert_false(run_step(&r));
    assert_non_null(strstr(r.output.status.message, "launching a graph: "));
    r.requests[1]->token_ids[PROMPT_LEN] = 71;
    assert_false(run_step(&r));
    assert_string_equal(r.output.status.message, "embedding: index 71 of row 1 is not in [0, 71)");
    end_requests(&r);
    assert_int_equal(compare(&eager, &r, 2), STEPS_IN_BUCKETS);
    close_run(&r);
    close_run(&eager);
}

/* What cannot be captured when it is asked for runs op by op. */
static void test_a_failed_capture(void **state)
{
    (void)state;
    static const struct {
        const char *function;
        int after;
    } calls[] = { { "cudaStreamBeginCapture", 1 },
                  { "cudaStreamEndCapture", 1 },
                  { "cudaGraphInstantiate", 1 },
                  { "cudaGraphUpload", 1 } };
    need_emulation();
    for (size_t i = 0; i < sizeof calls / sizeof calls[0]; i++) {
        struct run eager, lazy;
        open_run(&eager, "float32", GRAPH_MODE_NONE, NULL);
        open_run(&lazy, "float32", GRAPH_MODE_LAZY, "2,4");
        emu.fail_call(calls[i].function, calls[i].after, 2);
        assert_int_equal(compare(&eager, &lazy, 2), 0);
        assert_int_equal(pool_of(&lazy)->num_captured, 0);
        close_run(&lazy);
        close_run(&eager);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_replay_has_the_same_bits),
        cmocka_unit_test(test_a_step_ahead),
        cmocka_unit_test(test_drafts),
        cmocka_unit_test(test_architectures),
        cmocka_unit_test(test_weights_and_caches),
        cmocka_unit_test(test_captures_come_in_order),
        cmocka_unit_test(test_no_more_than_the_plan_says),
        cmocka_unit_test(test_a_failed_step),
        cmocka_unit_test(test_a_failed_capture),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
