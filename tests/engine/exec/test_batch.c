/* test_batch.c - a step laid out as flat arrays, and its outputs spread back, on the CPU device. */
#include "engine/exec/batch.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct device *device;
static struct batch batch;
static const struct batch_limits limits = { .max_num_seqs = 4,
                                            .max_num_tokens = 32,
                                            .max_model_len = 64,
                                            .block_size = 4,
                                            .max_logprobs = 3,
                                            .max_draft_tokens = 2,
                                            .num_kv_groups = 2 };

static int open_batch(void **state)
{
    (void)state;
    struct status st;
    struct device_options options = { .num_threads = 1, .isa = "scalar" };
    if (!backend_cpu.open(&device, &options, &st) ||
        !batch_open(&batch, &limits, device, NULL, &st)) {
        print_error("%s\n", st.message);
        return -1;
    }
    return 0;
}

static int close_batch(void **state)
{
    (void)state;
    batch_close(&batch, device);
    backend_cpu.close(device);
    return 0;
}

static struct request *make_request(int32_t num_prompt, int32_t max_tokens, int32_t first_id,
                                    const struct sampling_params *params)
{
    int32_t ids[64];
    for (int32_t i = 0; i < num_prompt; i++)
        ids[i] = first_id + i;
    return request_new(ids, num_prompt, max_tokens, params, NULL, NULL);
}

static void test_layout(void **state)
{
    (void)state;
    struct sampling_params p;
    sampling_params_defaults(&p);
    p.temperature = 0.5f;
    p.top_k = -1;
    struct request *a = make_request(10, 5, 100, &p), *b = make_request(7, 5, 200, &p);
    a->seed = 77;
    a->token_ids[10] = 150; /* one output so far */
    /* Of two groups each, 4 entries apart; the second group of the decode has given a block back.
     */
    const int32_t tables_a[] = { 9, 3, 5, 0, -1, 7, 6, 0 }, tables_b[] = { 2, 8, 0, 0, 1, 4, 0, 0 };
    const int32_t firsts_a[] = { 0, 1 }, firsts_b[] = { 0, 0 };
    struct step_seq seqs[] = {
        { a, 11, 10, 1, 0, tables_a, firsts_a, 3, true, false, 0 }, /* a decode */
        { b, 7, 2, 4, 0, tables_b, firsts_b, 2, false, false,
          0 }, /* a chunk of a prompt, not its end */
    };
    struct step step = { 2, 5, seqs, 4 };
    batch_fill(&batch, &step, NULL);

    const int32_t ids[] = { 150, 202, 203, 204, 205 }, positions[] = { 10, 2, 3, 4, 5 };
    const int32_t slots[] = { 5 * 4 + 2, 2 * 4 + 2, 2 * 4 + 3, 8 * 4 + 0, 8 * 4 + 1 };
    const int32_t slots_2[] = { 6 * 4 + 2, 1 * 4 + 2, 1 * 4 + 3, 4 * 4 + 0, 4 * 4 + 1 };
    const int32_t starts[] = { 0, 1, 5 }, lens[] = { 11, 6 };
    assert_memory_equal(batch.input_ids, ids, sizeof ids);
    assert_memory_equal(batch.positions, positions, sizeof positions);
    assert_memory_equal(batch.slot_mapping, slots, sizeof slots);
    assert_memory_equal(batch.query_start_loc, starts, sizeof starts);
    assert_memory_equal(batch.seq_lens, lens, sizeof lens);
    const struct attn_metadata *attn = batch.forward.attn;
    const int32_t stride = batch.block_table_stride;
    assert_ptr_equal(attn[0].slot_mapping, batch.slot_mapping);
    assert_ptr_equal(attn[0].block_tables, batch.block_tables);
    assert_memory_equal(attn[0].block_tables, tables_a, 3 * sizeof *tables_a);
    assert_memory_equal(attn[0].block_tables + stride, tables_b, 2 * sizeof *tables_b);
    assert_memory_equal(attn[1].slot_mapping, slots_2, sizeof slots_2);
    assert_memory_equal(attn[1].block_tables + 1, tables_a + 5, 2 * sizeof *tables_a);
    assert_memory_equal(attn[1].block_tables + stride, tables_b + 4, 2 * sizeof *tables_b);
    assert_int_equal(batch.forward.num_tokens, 5);
    for (int32_t g = 0; g < 2; g++) {
        assert_int_equal(attn[g].num_seqs, 2);
        assert_int_equal(attn[g].num_tokens, 5);
        assert_int_equal(attn[g].max_query_len, 4);
        assert_int_equal(attn[g].max_seq_len, 11);
        assert_ptr_equal(attn[g].seq_lens, batch.seq_lens);
        assert_ptr_equal(attn[g].query_start_loc, batch.query_start_loc);
    }

    assert_int_equal(batch.num_sample_rows, 1);
    assert_int_equal(batch.sample_rows[0], 0);
    assert_int_equal(batch.sample_start[1], 1);
    assert_int_equal(batch.sample_start[2], 1);
    assert_int_equal(batch.draft_ids[0], -1);
    assert_false(batch.any_drafts);
    assert_int_equal(batch.sampling.position[0], 1);
    assert_int_equal(batch.sampling.seed[0], 77);
    assert_int_equal(batch.sampling.top_k[0], 0);
    assert_ptr_equal(batch.sampling.token_ids[0], a->token_ids);
    assert_int_equal(batch.sampling.bias_start[1], 0);
    assert_false(batch.any_logprobs);
    assert_int_equal(batch.num_prompt_rows, 0);
    request_unref(a);
    request_unref(b);
}

/* Padding after a larger step: nothing of that is left in its rows, and the ops are told the
 * bucket's bounds. */
static void test_padding(void **state)
{
    (void)state;
    struct sampling_params p;
    sampling_params_defaults(&p);
    p.temperature = 0.5f;
    p.num_logprobs = 1;
    struct request *r = make_request(6, 5, 100, &p);
    const int32_t tables[] = { 9, 3, 5, 0, 8, 7, 6, 0 }, firsts[] = { 0, 0 };
    struct step_seq seqs[4];
    for (int32_t i = 0; i < 4; i++)
        seqs[i] = (struct step_seq){ r, 6, 5, 1, 0, tables, firsts, 2, true, false, 0 };
    struct step step = { 4, 4, seqs, 4 };
    batch_fill(&batch, &step, NULL);
    assert_int_equal(batch_uniform_query_len(&batch), 1);
    step = (struct step){ 1, 1, seqs, 4 };
    batch_fill(&batch, &step, NULL);
    const struct graph_bucket bucket = { 2, 3, 1, 32 };
    batch_pad(&batch, &bucket);
    const int32_t starts[] = { 0, 1, 1, 1 }, lens[] = { 6, 0, 0 }, rows[] = { 0, 1, 2 };
    const int32_t ids[] = { 105, 0, 0 }, positions[] = { 5, 0, 0 }, tops[] = { 1, -1, -1 };
    assert_memory_equal(batch.query_start_loc, starts, sizeof starts);
    assert_memory_equal(batch.seq_lens, lens, sizeof lens);
    assert_memory_equal(batch.input_ids, ids, sizeof ids);
    assert_memory_equal(batch.positions, positions, sizeof positions);
    assert_memory_equal(batch.sample_rows, rows, sizeof rows);
    assert_memory_equal(batch.num_top, tops, sizeof tops);
    assert_int_equal(batch.num_sample_rows, 1);
    assert_int_equal(batch.num_run_rows, 3);
    assert_int_equal(batch.forward.num_tokens, 3);
    for (int32_t g = 0; g < 2; g++) {
        const struct attn_metadata *m = &batch.attn[g];
        const int32_t slots[] = { (g ? 7 : 3) * 4 + 1, -1, -1 };
        assert_memory_equal(m->slot_mapping, slots, sizeof slots);
        assert_int_equal(m->num_seqs, 3);
        assert_int_equal(m->num_tokens, 3);
        assert_int_equal(m->max_query_len, 1);
        assert_int_equal(m->max_seq_len, 32);
    }
    for (int32_t i = 1; i < 3; i++) {
        assert_true(batch.sampling.temperature[i] == 0);
        assert_null(batch.sampling.token_ids[i]);
        assert_null(batch.sampling.allowed_mask[i]);
        assert_int_equal(batch.sampling.bias_start[i + 1], 0);
    }
    batch_fill(&batch, &step, NULL); /* a step that is not padded has no bucket */
    assert_int_equal(batch.bucket.num_seqs, 0);
    assert_int_equal(batch.num_run_rows, 1);
    request_unref(r);
}

/* Chunks of prompts, rows that do not sample and wanted prompt log-probabilities are no decode. */
static void test_what_is_decode(void **state)
{
    (void)state;
    struct sampling_params p;
    sampling_params_defaults(&p);
    struct request *r = make_request(6, 5, 100, &p);
    p.num_prompt_logprobs = 1;
    struct request *prompted = make_request(6, 5, 100, &p);
    const int32_t tables[] = { 9, 3, 5, 0, 8, 7, 6, 0 }, firsts[] = { 0, 0 };
    const struct {
        struct step_seq seq;
        bool is_decode;
    } rows[] = {
        { { r, 6, 5, 1, 0, tables, firsts, 2, true, false, 0 },
          true }, /* the end of a prompt is like one */
        { { r, 6, 4, 2, 0, tables, firsts, 2, true, false, 0 }, false },
        { { r, 6, 4, 1, 0, tables, firsts, 2, false, false, 0 }, false },
        { { prompted, 6, 4, 1, 0, tables, firsts, 2, false, false, 0 }, false },
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct step_seq seqs[] = { rows[0].seq, rows[i].seq };
        struct step step = { 2, 1 + seqs[1].num_scheduled_tokens, seqs, 4 };
        batch_fill(&batch, &step, NULL);
        assert_int_equal(batch_uniform_query_len(&batch), rows[i].is_decode);
    }
    request_unref(prompted);
    request_unref(r);
}

static void test_bias_and_min_tokens(void **state)
{
    (void)state;
    struct sampling_params p;
    sampling_params_defaults(&p);
    const int32_t bias_ids[] = { 4, 6 }, eos[] = { 2 }, stops[] = { 11, 12 };
    const float bias[] = { 1.5f, -2.0f };
    p.num_logit_bias = 2;
    p.logit_bias_ids = bias_ids;
    p.logit_bias_values = bias;
    p.num_eos_token_ids = 1;
    p.eos_token_ids = eos;
    p.num_stop_token_ids = 2;
    p.stop_token_ids = stops;
    p.min_tokens = 1;
    struct request *r = make_request(3, 5, 100, &p);
    const int32_t table[] = { 1, 2, 3, 4 }, firsts[] = { 0, 0 };
    struct step_seq seqs[] = { { r, 3, 0, 3, 0, table, firsts, 1, true, false, 0 },
                               { r, 4, 3, 1, 0, table, firsts, 1, true, false, 0 } };
    struct step step = { 2, 4, seqs, 2 };
    batch_fill(&batch, &step, NULL);
    const struct batch_sampling *s = &batch.sampling;
    const int32_t starts[] = { 0, 5, 7 }, ids[] = { 4, 6, 2, 11, 12, 4, 6 };
    assert_memory_equal(s->bias_start, starts, sizeof starts);
    assert_memory_equal(s->bias_ids, ids, sizeof ids);
    assert_true(s->bias_values[0] == 1.5f && s->bias_values[1] == -2.0f);
    for (int i = 2; i < 5; i++)
        assert_true(isinf(s->bias_values[i]) && s->bias_values[i] < 0);
    request_unref(r);
}

/* A sequence with two drafts between two without: a row for each of its tokens, sampled as if what
 * stands before were output; and what comes of it. */
static void test_drafts(void **state)
{
    (void)state;
    struct sampling_params p;
    sampling_params_defaults(&p);
    const int32_t eos[] = { 2 };
    p.num_eos_token_ids = 1;
    p.eos_token_ids = eos;
    p.min_tokens = 2;
    p.num_logprobs = 0;
    struct request *r = make_request(6, 8, 100, &p), *other = make_request(6, 8, 200, &p);
    const int32_t tables[] = { 9, 3, 5, 0, 8, 7, 6, 0 }, firsts[] = { 0, 0 };
    r->token_ids[6] = 150; /* output; then two drafts */
    r->token_ids[7] = 151;
    r->token_ids[8] = 152;
    struct step_seq seqs[] = { { other, 6, 2, 4, 0, tables, firsts, 2, true, false, 0 },
                               { r, 7, 6, 3, 2, tables, firsts, 3, true, false, 0 },
                               { other, 6, 1, 2, 0, tables, firsts, 2, false, false, 0 } };
    struct step step = { 3, 9, seqs, 4 };
    batch_fill(&batch, &step, NULL);
    const int32_t ids[] = { 150, 151, 152 }, rows[] = { 3, 4, 5, 6 }, starts[] = { 0, 1, 4, 4 };
    const int32_t drafts[] = { -1, 151, 152, -1 }, num_tokens[] = { 6, 7, 8, 9 };
    const uint64_t positions[] = { 0, 1, 2, 3 };
    const int32_t bias_starts[] = { 0, 1, 2, 2, 2 }; /* no EOS before two tokens */
    assert_memory_equal(batch.input_ids + 4, ids, sizeof ids);
    assert_int_equal(batch.num_sample_rows, 4);
    assert_true(batch.any_drafts);
    assert_memory_equal(batch.sample_rows, rows, sizeof rows);
    assert_memory_equal(batch.sample_start, starts, sizeof starts);
    assert_memory_equal(batch.draft_ids, drafts, sizeof drafts);
    assert_memory_equal(batch.sampling.num_tokens, num_tokens, sizeof num_tokens);
    assert_memory_equal(batch.sampling.position, positions, sizeof positions);
    assert_memory_equal(batch.sampling.bias_start, bias_starts, sizeof bias_starts);
    assert_int_equal(batch_uniform_query_len(&batch), 0);

    const int32_t sampled[] = { 40, 151, 77, 78 };
    memcpy(batch.sampled_ids, sampled, sizeof sampled);
    batch.num_accepted[1] = 1;
    for (int32_t i = 0; i < 4; i++)
        batch.logprobs.target_logprob[i] = -1.0f - (float)i;
    int32_t num_sampled[3] = { 0 }, got[9] = { 0 };
    struct token_logprob logprobs[9 * 4] = { 0 };
    struct step_output output = { .num_sampled = num_sampled,
                                  .sampled_ids = got,
                                  .max_sampled = 3,
                                  .logprobs = logprobs,
                                  .logprobs_stride = 4 };
    batch_collect(&batch, &step, &output);
    const int32_t counts[] = { 1, 2, 0 }, expected[] = { 40, 0, 0, 151, 77, 0, 0, 0, 0 };
    assert_memory_equal(num_sampled, counts, sizeof counts);
    assert_memory_equal(got, expected, sizeof expected);
    assert_true(logprobs[3 * 4].logprob == -2.0f && logprobs[3 * 4].token_id == 151);
    assert_true(logprobs[4 * 4].logprob == -3.0f && logprobs[4 * 4].token_id == 77);
    assert_int_equal(logprobs[5 * 4].token_id, 0);

    /* Equal numbers of drafts are what a graph may be of; the padding has none. */
    step = (struct step){ 2, 6, (struct step_seq[]){ seqs[1], seqs[1] }, 4 };
    batch_fill(&batch, &step, NULL);
    assert_int_equal(batch_uniform_query_len(&batch), 3);
    const struct graph_bucket bucket = { 5, 4, 3, 32 };
    const int32_t padded_starts[] = { 0, 3, 6, 6, 6 };
    batch_pad(&batch, &bucket);
    assert_int_equal(batch.num_run_rows, 12);
    assert_int_equal(batch.forward.num_tokens, 12);
    assert_int_equal(batch.attn[1].max_query_len, 3);
    assert_memory_equal(batch.sample_start, padded_starts, sizeof padded_starts);
    assert_memory_equal(batch.query_start_loc, padded_starts, sizeof padded_starts);
    for (int32_t i = 6; i < 12; i++) {
        assert_int_equal(batch.slot_mapping[i], -1);
        assert_int_equal(batch.slot_mapping[limits.max_num_tokens + i], -1);
        assert_int_equal(batch.draft_ids[i], -1);
        assert_int_equal(batch.num_top[i], -1);
    }
    request_unref(r);
    request_unref(other);
}

static void test_prompt_logprobs_reach_the_request(void **state)
{
    (void)state;
    struct sampling_params p;
    sampling_params_defaults(&p);
    p.num_prompt_logprobs = 2;
    p.num_logprobs = 1;
    struct request *r = make_request(6, 4, 100, &p);
    const int32_t table[] = { 1, 2, 3, 4 }, firsts[] = { 0, 0 };
    struct step_seq seq = { r, 6, 2, 4, 0, table, firsts, 2, true, false, 0 };
    struct step step = { 1, 4, &seq, 2 };
    batch_fill(&batch, &step, NULL);
    /* Positions 2..5 predict 3..6; 6 is not of the prompt. */
    assert_int_equal(batch.num_prompt_rows, 3);
    for (int32_t i = 0; i < 3; i++) {
        assert_int_equal(batch.prompt_rows[i], i);
        assert_int_equal(batch.prompt_targets[i], 103 + i);
        batch.prompt_logprobs.target_logprob[i] = -1.0f - (float)i;
        batch.prompt_logprobs.target_rank[i] = 7;
        for (int32_t k = 0; k < 2; k++) {
            batch.prompt_logprobs.top_ids[i * 3 + k] = 10 * i + k;
            batch.prompt_logprobs.top_logprobs[i * 3 + k] = -0.5f * (float)k;
        }
    }
    batch.sampled_ids[0] = 42;
    batch.logprobs.target_logprob[0] = -3.0f;
    batch.logprobs.target_rank[0] = 5;
    batch.logprobs.top_ids[0] = 41;
    batch.logprobs.top_logprobs[0] = -0.25f;
    int32_t sampled[4] = { 0 };
    struct token_logprob logprobs[16] = { 0 };
    int32_t num_sampled = 0;
    struct step_output output = { .num_sampled = &num_sampled,
                                  .sampled_ids = sampled,
                                  .max_sampled = 1,
                                  .logprobs = logprobs,
                                  .logprobs_stride = 4 };
    batch_collect(&batch, &step, &output);
    assert_int_equal(num_sampled, 1);
    assert_int_equal(sampled[0], 42);
    assert_int_equal(logprobs[0].token_id, 42);
    assert_int_equal(logprobs[0].rank, 5);
    assert_int_equal(logprobs[1].token_id, 41);
    const struct token_logprob *at = r->prompt_logprobs + 4 * 3;
    assert_int_equal(at[0].token_id, 104);
    assert_true(at[0].logprob == -2.0f);
    assert_int_equal(at[1].token_id, 10);
    assert_int_equal(at[2].token_id, 11);
    assert_int_equal(at[2].rank, 2);
    request_unref(r);
}

/* Where the device does not read host memory, what a row names by pointer is copied; histories only
 * for the rows that look at them. */
static void test_references_are_copied(void **state)
{
    (void)state;
    struct status st;
    struct batch_limits copying = limits;
    struct batch b;
    struct sampling_params plain, p;
    const uint32_t mask[2] = { 0x12345678, 0x9 };
    copying.num_kv_groups = 1;
    copying.vocab_size = 40;
    copying.copy_references = true;
    if (!batch_open(&b, &copying, device, NULL, &st))
        fail_msg("%s", st.message);
    assert_int_equal(b.host.size_bytes + b.references_host.size_bytes, batch_bytes(&copying));
    sampling_params_defaults(&plain);
    p = plain;
    p.repetition_penalty = 1.5f;
    p.allowed_mask = mask;
    struct request *r[2] = { make_request(10, 5, 100, &plain), make_request(64, 0, 200, &p) };
    const int32_t table[16] = { 0 }, first = 0;
    struct step_seq seqs[] = { { r[0], 10, 9, 1, 0, table, &first, 3, true, false, 0 },
                               { r[1], 64, 63, 1, 0, table, &first, 16, true, false, 0 } };
    struct step step = { 2, 2, seqs, 16 };
    for (int round = 0; round < 2; round++) { /* a step begins with room for all */
        batch_fill(&b, &step, NULL);
        batch_upload(&b, device);
        assert_null(b.sampling.token_ids[0]);
        assert_null(b.sampling.allowed_mask[0]);
        assert_ptr_not_equal(b.sampling.token_ids[1], r[1]->token_ids);
        assert_memory_equal(b.sampling.token_ids[1], r[1]->token_ids, 64 * sizeof(int32_t));
        assert_memory_equal(b.sampling.allowed_mask[1], mask, sizeof mask);
    }
    request_unref(r[0]);
    request_unref(r[1]);
    batch_close(&b, device);
}

static void test_rows_are_offsets_of_the_whole(void **state)
{
    (void)state;
    struct sampling_metadata m;
    struct logprobs_request l;
    batch_sampling_rows(&batch, 2, 2, &m);
    batch_logprob_rows(&batch, 2, 2, &l);
    assert_int_equal(m.num_rows, 2);
    assert_ptr_equal(m.temperature, batch.sampling.temperature + 2);
    assert_ptr_equal(m.bias_start, batch.sampling.bias_start + 2);
    assert_ptr_equal(m.bias_ids, batch.sampling.bias_ids); /* starts are absolute */
    assert_ptr_equal(l.top_ids, batch.logprobs.top_ids + 2 * 3);
    assert_ptr_equal(l.target_ids, batch.sampled_ids + 2);
}

static void test_bytes_are_exact(void **state)
{
    (void)state;
    assert_int_equal(batch.host.size_bytes, batch_bytes(&limits));
    char *end = (char *)batch.prompt_logprobs.top_logprobs +
                sizeof(float) * (size_t)limits.max_num_tokens * (size_t)limits.max_logprobs;
    assert_true(end <= (char *)batch.host.data + batch.host.size_bytes);
    assert_true(end + 64 > (char *)batch.host.data + batch.host.size_bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_layout),
        cmocka_unit_test(test_padding),
        cmocka_unit_test(test_what_is_decode),
        cmocka_unit_test(test_bias_and_min_tokens),
        cmocka_unit_test(test_drafts),
        cmocka_unit_test(test_prompt_logprobs_reach_the_request),
        cmocka_unit_test(test_references_are_copied),
        cmocka_unit_test(test_rows_are_offsets_of_the_whole),
        cmocka_unit_test(test_bytes_are_exact),
    };
    return cmocka_run_group_tests(tests, open_batch, close_batch);
}
