/* executor_fixture.h - an executor with a tiny model and one greedy request, whose first step is
 * ready to be submitted. Include after cmocka.h. */
#ifndef INFERD_TESTS_ENGINE_EXEC_EXECUTOR_FIXTURE_H
#define INFERD_TESTS_ENGINE_EXEC_EXECUTOR_FIXTURE_H

#include "engine/exec/executor.h"
#include "tests/engine/model/arch_fixture.h"

enum { PROMPT_LEN = 9, MAX_STEPS = 12, BLOCK_SIZE = 16, VOCAB_SIZE = 71 };

struct run {
    struct model *model;
    struct executor executor;
    struct memory_plan plan;
    struct request *request;
    struct step_seq seqs[2]; /* of the steps */
    struct step steps[2];    /* which take turns where one is submitted ahead */
    struct step_output output;
    int32_t num_sampled, sampled;
};

static inline struct memory_plan_options run_plan_options(int32_t num_ranks, int32_t num_batches)
{
    return (struct memory_plan_options){ .memory_utilization = 0.5,
                                         .num_blocks_override = 8,
                                         .max_model_len = 48,
                                         .block_size = BLOCK_SIZE,
                                         .max_num_seqs = 2,
                                         .max_num_batched_tokens = 32,
                                         .num_batches = num_batches,
                                         .tensor_parallel_size = num_ranks };
}

static inline int32_t prompt_token(int32_t i)
{
    return (7 * i + 3) % VOCAB_SIZE;
}

static inline void run_make_steps(struct run *r)
{
    static const int32_t table[] = { 2, 1, 3 }, first_blocks[] = { 0 };
    struct sampling_params params;
    int32_t ids[PROMPT_LEN];
    for (int32_t i = 0; i < PROMPT_LEN; i++)
        ids[i] = prompt_token(i);
    sampling_params_defaults(&params);
    params.temperature = 0;
    r->request = request_new(ids, PROMPT_LEN, MAX_STEPS + 1, &params, NULL, NULL);
    for (int32_t i = 0; i < 2; i++) {
        r->seqs[i] = (struct step_seq){ .request = r->request,
                                        .num_tokens = PROMPT_LEN,
                                        .num_scheduled_tokens = PROMPT_LEN,
                                        .block_tables = table,
                                        .first_blocks = first_blocks,
                                        .num_blocks = 2,
                                        .sample = true };
        r->steps[i] = (struct step){
            .num_seqs = 1, .num_tokens = PROMPT_LEN, .seqs = &r->seqs[i], .block_table_stride = 3
        };
    }
    r->output = (struct step_output){ .num_sampled = &r->num_sampled,
                                      .sampled_ids = &r->sampled,
                                      .max_sampled = 1 };
}

/* As many ranks as the options say, of `backend`, with the checkpoint in `dir`. */
static inline void run_open(struct run *r, const char *dir, const char *backend,
                            const struct memory_plan_options *options)
{
    struct status st;
    struct model_options model = { .path = dir, .load_format = "auto", .dtype = "float32" };
    struct device_options device = { .num_threads = 2, .isa = "auto", .pin_threads = true };
    struct executor_ranks ranks = { .count = options->tensor_parallel_size };
    memset(r, 0, sizeof *r);
    if (!model_open(&model, &r->model, &st) ||
        !executor_open(&r->executor, backend, &device, &ranks, &st) ||
        !memory_plan_make(r->model, r->executor.workers[0].device, options, &r->plan, &st) ||
        !executor_load_weights(&r->executor, r->model, &st) ||
        !executor_allocate(&r->executor, &r->plan, &st) || !executor_start(&r->executor, &st))
        rig_fail(dir, &st);
    run_make_steps(r);
}

static inline void run_close(struct run *r)
{
    executor_stop(&r->executor);
    executor_release(&r->executor);
    executor_unload_weights(&r->executor);
    executor_close(&r->executor);
    request_unref(r->request);
    model_close(r->model);
}

/* Tokens of so many steps, each of which is submitted before the one before has been collected. One
 * more is under way at the end. */
static inline void run_ahead(struct run *r, int32_t *tokens, int32_t num_steps)
{
    executor_submit(&r->executor, &r->steps[0]);
    for (int32_t i = 0; i < num_steps; i++) {
        struct step_seq *next = &r->seqs[(i + 1) % 2];
        *next = r->seqs[i % 2];
        next->num_computed_tokens = next->num_tokens++;
        next->num_scheduled_tokens = r->steps[(i + 1) % 2].num_tokens = 1;
        next->fed = true;
        executor_submit(&r->executor, &r->steps[(i + 1) % 2]);
        executor_collect(&r->executor, &r->output);
        if (r->output.status.code != STATUS_OK)
            rig_fail("a step", &r->output.status);
        r->request->token_ids[PROMPT_LEN + i] = tokens[i] = r->sampled;
    }
}

#endif
