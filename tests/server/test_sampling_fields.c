/* Tests of sampling_fields.h: every rule, one row per case. */
#include "config/limits.h"
#include "server/sampling_fields.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>

enum { VOCAB = 100 };

static struct arena arena;
static struct sampling_params defaults;

static int set_up(void **state)
{
    (void)state;
    arena_init(&arena);
    sampling_params_defaults(&defaults);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    arena_free(&arena);
    return 0;
}

static bool read(const char *text, enum generation_kind kind, struct generation_params *out,
                 struct status *st)
{
    const struct sampling_limits limits = { .defaults = &defaults,
                                            .vocab_size = VOCAB,
                                            .max_logprobs = 20 };
    json_t *root = NULL;
    memset(out, 0, sizeof *out);
    if (!json_parse(text, strlen(text), &root, st))
        fail_msg("%s: %s", text, st->message);
    struct json_node body = json_root(root);
    bool ok = sampling_fields_read(&body, kind, &limits, &arena, out, st);
    json_decref(root); /* nothing may point into it */
    return ok;
}

static void read_ok(const char *text, enum generation_kind kind, struct generation_params *out)
{
    struct status st;
    if (!read(text, kind, out, &st))
        fail_msg("%s: %s", text, st.message);
}

static void test_defaults(void **state)
{
    struct generation_params p;
    (void)state;
    defaults.temperature = 0.6f;
    defaults.top_k = 20;
    read_ok("{\"temperature\":null,\"stop\":null,\"n\":null,\"logit_bias\":null,\"seed\":null}",
            GENERATION_COMPLETION, &p);
    assert_true(p.sampling.temperature == 0.6f);
    assert_int_equal(p.sampling.top_k, 20);
    assert_int_equal(p.sampling.seed, -1);
    assert_int_equal(p.n, 1);
    assert_int_equal(p.max_tokens, -1);
    assert_int_equal(p.num_stop, 0);
    assert_int_equal(p.sampling.num_logprobs, -1);
    assert_int_equal(p.sampling.num_prompt_logprobs, -1);
    assert_true(p.add_special_tokens);
    sampling_lists_unref(p.lists);
    read_ok("{}", GENERATION_CHAT, &p);
    assert_false(p.add_special_tokens);
    sampling_lists_unref(p.lists);
}

static void test_all_fields(void **state)
{
    struct generation_params p;
    (void)state;
    read_ok("{\"temperature\":0.5,\"top_p\":0.9,\"min_p\":0.1,\"top_k\":-1,\"presence_penalty\":-2,"
            "\"frequency_penalty\":2,\"repetition_penalty\":1.5,\"seed\":-9223372036854775808,"
            "\"min_tokens\":3,\"max_tokens\":4,\"ignore_eos\":true,\"skip_special_tokens\":false,"
            "\"include_stop_str_in_output\":true,\"stop\":[\"a\",\"bc\"],\"stop_token_ids\":[1,99],"
            "\"logit_bias\":{\"7\":-200,\"8\":1.5},\"allowed_token_ids\":[0,33,99],\"n\":3,"
            "\"stream\":true,\"stream_options\":{\"include_usage\":true,"
            "\"continuous_usage_stats\":true},\"logprobs\":5,\"echo\":true,\"cache_salt\":\"s\"}",
            GENERATION_COMPLETION, &p);
    const struct sampling_params *s = &p.sampling;
    assert_true(s->temperature == 0.5f && s->top_p == 0.9f && s->min_p == 0.1f);
    assert_int_equal(s->top_k, -1);
    assert_true(s->presence_penalty == -2 && s->frequency_penalty == 2);
    assert_true(s->repetition_penalty == 1.5f);
    assert_true(s->seed == INT64_MIN);
    assert_int_equal(s->min_tokens, 3);
    assert_true(s->ignore_eos && !s->skip_special_tokens && s->include_stop_str_in_output);
    assert_int_equal(p.num_stop, 2);
    assert_string_equal(p.stop[1], "bc");
    assert_int_equal(s->num_stop_token_ids, 2);
    assert_int_equal(s->stop_token_ids[1], 99);
    assert_int_equal(s->num_logit_bias, 2);
    for (int i = 0; i < 2; i++)
        assert_true(s->logit_bias_values[i] == (s->logit_bias_ids[i] == 7 ? -100.0f : 1.5f));
    assert_int_equal(s->allowed_mask[0], 1);
    assert_int_equal(s->allowed_mask[1], 2);
    assert_int_equal(s->allowed_mask[3], 8);
    assert_int_equal(p.n, 3);
    assert_int_equal(p.max_tokens, 4);
    assert_true(p.stream && p.include_usage && p.continuous_usage_stats && p.echo);
    assert_int_equal(s->num_logprobs, 5);
    assert_int_equal(s->num_prompt_logprobs, 5);
    assert_true(p.cache_salt.low != 0 || p.cache_salt.high != 0);
    sampling_lists_unref(p.lists);
}

static void test_chat_fields(void **state)
{
    struct generation_params p;
    (void)state;
    read_ok("{\"logprobs\":true,\"top_logprobs\":4,\"max_tokens\":9,\"max_completion_tokens\":5,"
            "\"prompt_logprobs\":2}",
            GENERATION_CHAT, &p);
    assert_int_equal(p.sampling.num_logprobs, 4);
    assert_int_equal(p.sampling.num_prompt_logprobs, 2);
    assert_true(p.wants_prompt_logprobs);
    assert_int_equal(p.max_tokens, 5);
    sampling_lists_unref(p.lists);
    read_ok("{\"logprobs\":true}", GENERATION_CHAT, &p);
    assert_int_equal(p.sampling.num_logprobs, 0);
    sampling_lists_unref(p.lists);
}

static void test_temperature_edges(void **state)
{
    struct generation_params p;
    (void)state;
    read_ok("{\"temperature\":0.001}", GENERATION_CHAT, &p);
    assert_true(p.sampling.temperature == 0.01f);
    sampling_lists_unref(p.lists);
    read_ok("{\"temperature\":1e-7}", GENERATION_CHAT, &p);
    assert_true(p.sampling.temperature == 0);
    sampling_lists_unref(p.lists);
}

static void test_harmless_forms_of_refused_fields(void **state)
{
    struct generation_params p;
    (void)state;
    read_ok("{\"suffix\":null,\"use_beam_search\":false,\"bad_words\":[],\"priority\":0,"
            "\"best_of\":1,\"response_format\":{\"type\":\"text\"},\"no_such_field\":1}",
            GENERATION_COMPLETION, &p);
    sampling_lists_unref(p.lists);
}

static void test_refusals(void **state)
{
    static const struct {
        const char *body, *param, *reason;
        bool chat;
    } cases[] = {
        { "{\"temperature\":-0.1}", "temperature", "decimal_below_min_value", false },
        { "{\"temperature\":\"hot\"}", "temperature", "invalid_type", false },
        { "{\"top_p\":0}", "top_p", "decimal_below_min_value", false },
        { "{\"top_p\":1.01}", "top_p", "decimal_above_max_value", false },
        { "{\"min_p\":-1}", "min_p", "decimal_below_min_value", false },
        { "{\"top_k\":-2}", "top_k", "integer_below_min_value", false },
        { "{\"presence_penalty\":2.1}", "presence_penalty", "decimal_above_max_value", false },
        { "{\"repetition_penalty\":0}", "repetition_penalty", "decimal_below_min_value", false },
        { "{\"n\":0}", "n", "integer_below_min_value", false },
        { "{\"n\":129}", "n", "integer_above_max_value", false },
        { "{\"n\":2,\"temperature\":0}", "n", "invalid_value", false },
        { "{\"best_of\":3}", "best_of", "unsupported_parameter", false },
        { "{\"best_of\":1,\"n\":2}", "best_of", "unsupported_parameter", false },
        { "{\"max_tokens\":0}", "max_tokens", "integer_below_min_value", false },
        { "{\"max_tokens\":0,\"echo\":true}", "max_tokens", "integer_below_min_value", true },
        { "{\"max_completion_tokens\":0}", "max_completion_tokens", "integer_below_min_value",
          true },
        { "{\"min_tokens\":5,\"max_tokens\":4}", "min_tokens", "integer_above_max_value", false },
        { "{\"stop\":\"\"}", "stop", "invalid_value", false },
        { "{\"stop\":[\"a\",\"\"]}", "stop[1]", "invalid_value", false },
        { "{\"stop\":[null]}", "stop[0]", "invalid_value", false },
        { "{\"stop\":5}", "stop", "invalid_type", false },
        { "{\"stop\":\"a\\u0000\"}", "stop", "invalid_value", false },
        { "{\"stop_token_ids\":[100]}", "stop_token_ids[0]", "token_id_out_of_range", false },
        { "{\"stop_token_ids\":[null]}", "stop_token_ids[0]", "token_id_out_of_range", false },
        { "{\"logit_bias\":[]}", "logit_bias", "invalid_type", false },
        { "{\"logit_bias\":{\"x\":1}}", "logit_bias.x", "invalid_value", false },
        { "{\"logit_bias\":{\"100\":1}}", "logit_bias.100", "token_id_out_of_range", false },
        { "{\"logit_bias\":{\"1\":\"a\"}}", "logit_bias.1", "invalid_type", false },
        { "{\"allowed_token_ids\":[]}", "allowed_token_ids", "invalid_value", false },
        { "{\"allowed_token_ids\":[-1]}", "allowed_token_ids[0]", "token_id_out_of_range", false },
        { "{\"logprobs\":21}", "logprobs", "integer_above_max_value", false },
        { "{\"logprobs\":true}", "logprobs", "invalid_type", false },
        { "{\"logprobs\":3}", "logprobs", "invalid_type", true },
        { "{\"top_logprobs\":1}", "top_logprobs", "invalid_value", true },
        { "{\"logprobs\":true,\"top_logprobs\":21}", "top_logprobs", "integer_above_max_value",
          true },
        { "{\"prompt_logprobs\":-1}", "prompt_logprobs", "integer_below_min_value", false },
        { "{\"prompt_logprobs\":1,\"stream\":true}", "prompt_logprobs", "invalid_value", false },
        { "{\"stream\":1}", "stream", "invalid_type", false },
        { "{\"stream_options\":{\"include_usage\":true}}", "stream_options", "invalid_value",
          false },
        { "{\"stream\":true,\"stream_options\":{\"include_usage\":1}}",
          "stream_options.include_usage", "invalid_type", false },
        { "{\"seed\":1.5}", "seed", "invalid_type", false },
        { "{\"cache_salt\":\"\"}", "cache_salt", "invalid_value", false },
        { "{\"suffix\":\"x\"}", "suffix", "unsupported_parameter", false },
        { "{\"guided_json\":{\"type\":\"object\"}}", "guided_json", "unsupported_parameter", true },
        { "{\"priority\":1}", "priority", "unsupported_parameter", true },
        { "{\"response_format\":{\"type\":\"json_object\"}}", "response_format.type",
          "unsupported_parameter", true },
        { "{\"response_format\":{}}", "response_format.type", "missing_required_parameter", true },
        { "{\"response_format\":\"text\"}", "response_format", "invalid_type", true },
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct generation_params p;
        struct status st = { 0 };
        if (read(cases[i].body, cases[i].chat ? GENERATION_CHAT : GENERATION_COMPLETION, &p, &st))
            fail_msg("accepted: %s", cases[i].body);
        if (strcmp(st.param, cases[i].param) != 0 || strcmp(st.reason, cases[i].reason) != 0)
            fail_msg("%s: %s, %s, %s", cases[i].body, st.param, st.reason, st.message);
        assert_int_equal(st.code, STATUS_INVALID);
        assert_null(p.lists);
    }
}

static void test_limits_of_lists(void **state)
{
    struct generation_params p;
    struct status st;
    struct buf b = { 0 };
    (void)state;
    buf_append_str(&b, "{\"stop\":[\"a\"");
    for (int i = 0; i < LIMIT_STOP_STRINGS; i++)
        buf_append_str(&b, ",\"b\"");
    buf_append_str(&b, "]}");
    assert_false(read(b.data, GENERATION_CHAT, &p, &st));
    assert_string_equal(st.reason, "array_above_max_length");
    buf_clear(&b);
    buf_append_str(&b, "{\"stop\":\"");
    for (int i = 0; i <= LIMIT_STOP_BYTES; i++)
        buf_append_char(&b, 'x');
    buf_append_str(&b, "\"}");
    assert_false(read(b.data, GENERATION_CHAT, &p, &st));
    assert_string_equal(st.reason, "string_above_max_length");
    buf_free(&b);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(test_defaults),
        TEST(test_all_fields),
        TEST(test_chat_fields),
        TEST(test_temperature_edges),
        TEST(test_harmless_forms_of_refused_fields),
        TEST(test_refusals),
        TEST(test_limits_of_lists),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
