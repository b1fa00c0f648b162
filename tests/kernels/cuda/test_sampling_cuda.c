/* test_sampling_cuda.c - the sampler and the log-probabilities on the GPU against the scalar CPU:
 * every filter, penalties, bias, masks, ties, rows without an answer. */
#include "tests/kernels/cuda/cuda_fixture.h"

enum { MAX_ROWS = 5, MAX_VOCAB = 3000, MAX_HISTORY = 60, MAX_BIAS = 20, MAX_TOP = 6 };

static const struct workspace_desc workspace = { .max_num_tokens = 1,
                                                 .max_num_seqs = MAX_ROWS,
                                                 .max_logits_rows = MAX_ROWS,
                                                 .max_model_len = 16,
                                                 .block_size = 16,
                                                 .max_in_features = 64,
                                                 .max_out_features = 64,
                                                 .num_heads = 1,
                                                 .num_kv_heads = 1,
                                                 .head_dim = 64,
                                                 .vocab_size = MAX_VOCAB };

/* All arrays of a batch in one piece, so that one copy puts them on the device. */
struct arrays {
    float temperature[MAX_ROWS], top_p[MAX_ROWS], min_p[MAX_ROWS];
    int32_t top_k[MAX_ROWS];
    float presence[MAX_ROWS], frequency[MAX_ROWS], repetition[MAX_ROWS];
    uint64_t seed[MAX_ROWS], position[MAX_ROWS];
    int32_t tokens[MAX_ROWS][MAX_HISTORY];
    const int32_t *token_ids[MAX_ROWS];
    int32_t num_prompt[MAX_ROWS], num_tokens[MAX_ROWS];
    int32_t bias_start[MAX_ROWS + 1], bias_ids[MAX_ROWS * MAX_BIAS];
    float bias_values[MAX_ROWS * MAX_BIAS];
    uint32_t masks[MAX_ROWS][(MAX_VOCAB + 31) / 32];
    const uint32_t *allowed_mask[MAX_ROWS];
};

static struct sampling_metadata metadata_of(const struct arrays *a, int32_t rows)
{
    return (struct sampling_metadata){ .num_rows = rows,
                                       .temperature = a->temperature,
                                       .top_p = a->top_p,
                                       .min_p = a->min_p,
                                       .top_k = a->top_k,
                                       .presence_penalty = a->presence,
                                       .frequency_penalty = a->frequency,
                                       .repetition_penalty = a->repetition,
                                       .seed = a->seed,
                                       .position = a->position,
                                       .token_ids = a->token_ids,
                                       .num_prompt_tokens = a->num_prompt,
                                       .num_tokens = a->num_tokens,
                                       .bias_start = a->bias_start,
                                       .bias_ids = a->bias_ids,
                                       .bias_values = a->bias_values,
                                       .allowed_mask = a->allowed_mask };
}

/* Pointers within the arrays, for an `a` that will lie at `at`; rows without a mask have none. */
static void point_into(struct arrays *a, const struct arrays *at, const bool masked[MAX_ROWS])
{
    for (int32_t r = 0; r < MAX_ROWS; r++) {
        a->token_ids[r] = at->tokens[r];
        a->allowed_mask[r] = masked[r] ? at->masks[r] : NULL;
    }
}

static void plain_arrays(struct arrays *a)
{
    memset(a, 0, sizeof *a);
    for (int32_t r = 0; r < MAX_ROWS; r++) {
        a->temperature[r] = a->top_p[r] = a->repetition[r] = 1;
        a->seed[r] = (uint64_t)random_word() << 32 | random_word();
        a->position[r] = (uint64_t)random_int(0, 1000);
    }
}

static void random_logits(float *x, int32_t vocab)
{
    const int32_t kind = random_int(0, 3);
    const float width = random_uniform(0.1f, 6);
    for (int32_t i = 0; i < vocab; i++) {
        x[i] = width * random_normal();
        if (kind == 0)
            x[i] = (float)random_int(-3, 3); /* many ties */
    }
}

static void random_row(struct arrays *a, int32_t r, int32_t vocab, bool *masked)
{
    a->temperature[r] = random_int(0, 3) ? random_uniform(0.05f, 2) : (float)RANDOM_OF(0, 1);
    a->top_p[r] = random_int(0, 1) ? 1 : random_uniform(0.01f, 1);
    a->min_p[r] = random_int(0, 2) ? 0 : random_uniform(0, 0.3f);
    a->top_k[r] = random_int(0, 1) ? 0 : random_int(1, random_int(1, vocab + 5));
    if (random_int(0, 1) == 0) {
        a->presence[r] = random_uniform(-2, 2);
        a->frequency[r] = random_uniform(-2, 2);
        a->repetition[r] = random_uniform(0.5f, 2);
    }
    a->num_tokens[r] = random_int(0, MAX_HISTORY);
    a->num_prompt[r] = random_int(0, a->num_tokens[r]);
    for (int32_t i = 0; i < a->num_tokens[r]; i++)
        a->tokens[r][i] = random_int(-1, vocab < 20 ? vocab : 20); /* some outside */
    const int32_t biases = random_int(0, 2) ? 0 : random_int(0, MAX_BIAS);
    int32_t at = a->bias_start[r];
    for (int32_t i = 0; i < biases; i++, at++) {
        a->bias_ids[at] = random_int(-1, vocab < 30 ? vocab : 30); /* some twice */
        a->bias_values[at] = random_int(0, 3) ? random_uniform(-5, 5) : -INFINITY;
    }
    a->bias_start[r + 1] = at;
    *masked = random_int(0, 3) == 0;
    for (int32_t i = 0; i < (vocab + 31) / 32; i++)
        a->masks[r][i] = random_word() | random_word();
}

static void sample_both(struct arrays *a, const bool masked[MAX_ROWS], const struct tensor *logits,
                        int32_t *cpu, int32_t *device)
{
    struct tensor logits_at = gpu_tensor(&gpu, logits), after = copy_tensor(logits);
    point_into(a, a, masked);
    struct sampling_metadata m = metadata_of(a, logits->rows);
    backend_cpu.sample(gpu.cpu, cpu, logits, &m);
    struct arrays *at = gpu_new(&gpu, sizeof *a);
    point_into(a, at, masked);
    gpu.ops->copy(gpu.device, at, a, sizeof *a, COPY_TO_DEVICE);
    int32_t *ids_at = gpu_new(&gpu, MAX_ROWS * sizeof *ids_at);
    m = metadata_of(at, logits->rows);
    gpu.ops->sample(gpu.device, ids_at, &logits_at, &m);
    gpu_get(&gpu, device, ids_at, (size_t)logits->rows * sizeof *device);
    gpu_get_tensor(&gpu, &after, &logits_at);
    assert_tensors_equal(&after, logits, "logits that were sampled from");
    free(after.data);
    gpu_release(&gpu);
}

/* The emulated device has the host's exponential, so all draws are the same. A real one's differs
 * in the last bit, which moves a draw that falls right between two tokens, or the end of top_p. */
static void follows_the_cpu(void **state)
{
    (void)state;
    struct arrays *a = malloc(sizeof *a);
    int32_t rows = 0, others = 0;
    for (int round = 0; round < 120; round++) {
        const int32_t vocab = RANDOM_OF(1, 2, 31, 33, 100, 512, 513, 1003, MAX_VOCAB);
        struct tensor logits = random_tensor(random_int(1, MAX_ROWS), vocab, 1);
        bool masked[MAX_ROWS] = { false };
        int32_t cpu[MAX_ROWS], device[MAX_ROWS];
        plain_arrays(a);
        for (int32_t r = 0; r < logits.rows; r++) {
            random_logits((float *)logits.data + r * logits.stride, vocab);
            random_row(a, r, vocab, &masked[r]);
        }
        sample_both(a, masked, &logits, cpu, device);
        for (int32_t r = 0; r < logits.rows; r++, rows++) {
            if (cpu[r] == device[r])
                continue;
            others++;
            if (gpu_is_emulated() || a->temperature[r] == 0)
                fail_msg("vocab %d, row %d: %d, not %d (temperature %g, top_k %d, top_p %g, min_p "
                         "%g)",
                         vocab, r, device[r], cpu[r], (double)a->temperature[r], a->top_k[r],
                         (double)a->top_p[r], (double)a->min_p[r]);
        }
        free(logits.data);
    }
    assert_true(others <= rows / 50);
    free(a);
}

static void rows_without_an_answer(void **state)
{
    (void)state;
    struct arrays *a = malloc(sizeof *a);
    const bool masked[MAX_ROWS] = { false, false, true };
    int32_t cpu[MAX_ROWS], device[MAX_ROWS];
    struct tensor logits = random_tensor(5, 70, 1);
    float *x = logits.data;
    plain_arrays(a);
    x[33] = NAN;
    x[logits.stride + 69] = INFINITY;
    memset(a->masks[2], 0, sizeof a->masks[2]); /* every token is forbidden */
    a->bias_ids[0] = 7;
    a->bias_values[0] = -INFINITY; /* forbids even +inf */
    for (int r = 0; r <= MAX_ROWS; r++)
        a->bias_start[r] = r > 3;
    x[3 * logits.stride + 7] = INFINITY;
    a->temperature[4] = 1e-40f;
    x[4 * logits.stride + 11] = 50;
    sample_both(a, masked, &logits, cpu, device);
    for (int r = 0; r < 5; r++)
        assert_int_equal(device[r], cpu[r]);
    for (int r = 0; r < 3; r++)
        assert_int_equal(device[r], -1);
    assert_true(device[3] >= 0 && device[3] != 7);
    assert_int_equal(device[4], 11);
    free(logits.data);
    free(a);
}

static void logprobs(void **state)
{
    (void)state;
    for (int round = 0; round < 25; round++) {
        const int32_t vocab = RANDOM_OF(1, 3, 31, 100, 513, 2000), rows = random_int(1, MAX_ROWS);
        struct {
            int32_t targets[MAX_ROWS], num_top[MAX_ROWS], rank[MAX_ROWS], ids[MAX_ROWS * MAX_TOP];
            float logprob[MAX_ROWS], top[MAX_ROWS * MAX_TOP];
        } cpu, device, *at;
        struct tensor logits = random_tensor(rows, vocab, 1);
        for (int32_t r = 0; r < rows; r++)
            random_logits((float *)logits.data + r * logits.stride, vocab);
        if (round == 0)
            ((float *)logits.data)[0] = NAN;
        memset(&cpu, 0x77, sizeof cpu);
        for (int32_t r = 0; r < rows; r++) {
            cpu.targets[r] = random_int(-1, vocab);
            cpu.num_top[r] = random_int(-1, MAX_TOP + 1);
        }
        at = gpu_put(&gpu, &cpu, sizeof cpu);
        struct tensor logits_at = gpu_tensor(&gpu, &logits);
        struct logprobs_request q = { rows,        MAX_TOP,  cpu.targets, cpu.num_top,
                                      cpu.logprob, cpu.rank, cpu.ids,     cpu.top };
        backend_cpu.logprobs(gpu.cpu, &q, &logits);
        q = (struct logprobs_request){ rows,        MAX_TOP,  at->targets, at->num_top,
                                       at->logprob, at->rank, at->ids,     at->top };
        gpu.ops->logprobs(gpu.device, &q, &logits_at);
        gpu_get(&gpu, &device, at, sizeof device);
        assert_memory_equal(device.rank, cpu.rank, sizeof cpu.rank);
        assert_memory_equal(device.ids, cpu.ids, sizeof cpu.ids);
        struct tensor a = tensor_view(device.logprob, DTYPE_F32, 1, MAX_ROWS + MAX_ROWS * MAX_TOP);
        struct tensor b = tensor_view(cpu.logprob, DTYPE_F32, 1, MAX_ROWS + MAX_ROWS * MAX_TOP);
        assert_tensors_close(&a, &b, 3e-6, 1e-6, "logprobs");
        free(logits.data);
        gpu_release(&gpu);
    }
}

/* Sequences without rows, without drafts, with more drafts than a warp has lanes. */
static void rejection(void **state)
{
    (void)state;
    enum { MAX_SEQS = 21, MAX_LEN = 70, ROWS = MAX_SEQS * MAX_LEN };
    struct {
        int32_t starts[MAX_SEQS + 1], sampled[ROWS], drafts[ROWS];
    } *a = calloc(1, sizeof *a), *at;
    for (int round = 0; round < 30; round++) {
        int32_t cpu[MAX_SEQS + 1], device[MAX_SEQS + 1];
        const int32_t num_seqs = random_int(1, MAX_SEQS), wrong = RANDOM_OF(2, 30, 300);
        for (int32_t s = 0; s < num_seqs; s++)
            a->starts[s + 1] = a->starts[s] + random_int(0, random_int(0, 2) ? 9 : MAX_LEN);
        for (int32_t i = 0; i < a->starts[num_seqs]; i++) {
            a->sampled[i] = random_int(-1, 3);
            a->drafts[i] = random_int(0, wrong) ? a->sampled[i] : random_int(0, 3);
        }
        struct rejection_request q = { num_seqs, a->starts, a->sampled, a->drafts };
        memset(cpu, 0x55, sizeof cpu); /* one more than there are is left alone */
        backend_cpu.rejection_sample(gpu.cpu, cpu, &q);
        at = gpu_put(&gpu, a, sizeof *a);
        q = (struct rejection_request){ num_seqs, at->starts, at->sampled, at->drafts };
        memset(device, 0x55, sizeof device);
        int32_t *device_at = gpu_put(&gpu, device, sizeof device);
        gpu.ops->rejection_sample(gpu.device, device_at, &q);
        gpu_get(&gpu, device, device_at, sizeof device);
        assert_memory_equal(device, cpu, sizeof cpu);
        gpu_release(&gpu);
    }
    free(a);
}

int main(void)
{
    fixture_start();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(follows_the_cpu),
        cmocka_unit_test(rows_without_an_answer),
        cmocka_unit_test(logprobs),
        cmocka_unit_test(rejection),
    };
    return gpu_run_tests(tests, workspace);
}
