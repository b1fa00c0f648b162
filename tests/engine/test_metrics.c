/* test_metrics.c - exact text: names, labels, buckets and numbers as vLLM's dashboards expect. */
#include "base/thread.h"
#include "engine/metrics.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#define LABELS "engine=\"0\",model_name=\"tiny\""

static char *render(const struct metrics *m)
{
    struct buf b;
    buf_init(&b, 0);
    metrics_render(m, &b);
    return buf_take(&b);
}

/* The text has this as a whole line. */
static void assert_line(const char *text, const char *line)
{
    size_t len = strlen(line);
    for (const char *p = text; (p = strstr(p, line)); p++)
        if ((p == text || p[-1] == '\n') && p[len] == '\n')
            return;
    fail_msg("no line '%s'", line);
}

/* The value of a sample without labels. */
static double plain_value(const char *text, const char *name)
{
    char head[128];
    snprintf(head, sizeof head, "\n%s ", name);
    const char *p = strstr(text, head);
    if (!p)
        fail_msg("no sample '%s'", name);
    return strtod(p + strlen(head), NULL);
}

static void test_gauges_and_counters(void **state)
{
    (void)state;
    struct metrics *m = metrics_new("tiny", 100);
    metrics_gauge_set(&m->num_requests_running, 3);
    metrics_gauge_set(&m->kv_cache_usage_perc, 0.1);
    metrics_count(&m->prompt_tokens, 1234567);
    metrics_count(&m->generation_tokens, 99999);
    assert_true(metrics_gauge_get(&m->kv_cache_usage_perc) == 0.1);
    char *text = render(m);
    assert_line(text, "# TYPE vllm:num_requests_running gauge");
    assert_line(text, "vllm:num_requests_running{" LABELS "} 3.0");
    assert_line(text, "vllm:num_requests_waiting{" LABELS "} 0.0");
    assert_line(text, "vllm:kv_cache_usage_perc{" LABELS "} 0.1");
    assert_line(text, "# TYPE vllm:prompt_tokens_total counter");
    assert_line(text, "vllm:prompt_tokens_total{" LABELS "} 1.234567e+06");
    assert_line(text, "vllm:generation_tokens_total{" LABELS "} 99999.0");
    assert_line(text, "vllm:prefix_cache_hits_total{" LABELS "} 0.0");
    assert_line(text, "vllm:gpu_prefix_cache_hits_total{" LABELS "} 0.0");
    assert_line(text, "# HELP vllm:num_preemptions_total Preemptions, cumulative.");
    free(text);
    metrics_free(m);
}

static void test_histogram(void **state)
{
    (void)state;
    struct metrics *m = metrics_new("tiny", 100);
    metrics_observe(&m->request_params_n, 1); /* a bound belongs to its bucket */
    metrics_observe(&m->request_params_n, 3);
    metrics_observe(&m->request_params_n, 21);
    char *text = render(m);
    const char *expected =
        "# HELP vllm:request_params_n n of requests.\n"
        "# TYPE vllm:request_params_n histogram\n"
        "vllm:request_params_n_bucket{engine=\"0\",le=\"1.0\",model_name=\"tiny\"} 1.0\n"
        "vllm:request_params_n_bucket{engine=\"0\",le=\"2.0\",model_name=\"tiny\"} 1.0\n"
        "vllm:request_params_n_bucket{engine=\"0\",le=\"5.0\",model_name=\"tiny\"} 2.0\n"
        "vllm:request_params_n_bucket{engine=\"0\",le=\"10.0\",model_name=\"tiny\"} 2.0\n"
        "vllm:request_params_n_bucket{engine=\"0\",le=\"20.0\",model_name=\"tiny\"} 2.0\n"
        "vllm:request_params_n_bucket{engine=\"0\",le=\"+Inf\",model_name=\"tiny\"} 3.0\n"
        "vllm:request_params_n_count{" LABELS "} 3.0\n"
        "vllm:request_params_n_sum{" LABELS "} 25.0\n";
    assert_non_null(strstr(text, expected));
    free(text);
    metrics_free(m);
}

/* The bounds of a histogram as the text gives them. */
static void assert_bounds(const char *text, const char *name, const char *expected)
{
    char head[160], found[1024] = "";
    snprintf(head, sizeof head, "\n%s_bucket{engine=\"0\",le=\"", name);
    size_t used = 0;
    for (const char *p = text; (p = strstr(p, head)); p++) {
        const char *bound = p + strlen(head);
        int len = (int)strcspn(bound, "\"");
        used += (size_t)snprintf(found + used, sizeof found - used, "%.*s ", len, bound);
    }
    assert_string_equal(found, expected);
}

static void test_bucket_lists(void **state)
{
    (void)state;
    struct metrics *m = metrics_new("tiny", 2500000);
    char *text = render(m);
    const char *lengths = "1.0 2.0 5.0 10.0 20.0 50.0 100.0 200.0 500.0 1000.0 2000.0 5000.0 "
                          "10000.0 20000.0 50000.0 100000.0 200000.0 500000.0 1e+06 2e+06 +Inf ";
    assert_bounds(text, "vllm:request_prompt_tokens", lengths);
    assert_bounds(text, "vllm:request_max_num_generation_tokens", lengths);
    assert_bounds(text, "vllm:iteration_tokens_total",
                  "1.0 8.0 16.0 32.0 64.0 128.0 256.0 512.0 1024.0 2048.0 4096.0 8192.0 16384.0 "
                  "+Inf ");
    assert_bounds(text, "vllm:time_to_first_token_seconds",
                  "0.001 0.005 0.01 0.02 0.04 0.06 0.08 0.1 0.25 0.5 0.75 1.0 2.5 5.0 7.5 10.0 "
                  "20.0 40.0 80.0 160.0 640.0 2560.0 +Inf ");
    const char *per_token = "0.01 0.025 0.05 0.075 0.1 0.15 0.2 0.3 0.4 0.5 0.75 1.0 2.5 5.0 7.5 "
                            "10.0 20.0 40.0 80.0 +Inf ";
    assert_bounds(text, "vllm:time_per_output_token_seconds", per_token);
    assert_bounds(text, "vllm:inter_token_latency_seconds", per_token);
    assert_bounds(text, "vllm:e2e_request_latency_seconds",
                  "0.3 0.5 0.8 1.0 1.5 2.0 2.5 5.0 10.0 15.0 20.0 30.0 40.0 50.0 60.0 120.0 240.0 "
                  "480.0 960.0 1920.0 7680.0 +Inf ");
    free(text);
    metrics_free(m);
    m = metrics_new("tiny", 50);
    text = render(m);
    assert_bounds(text, "vllm:request_prompt_tokens", "1.0 2.0 5.0 10.0 20.0 50.0 +Inf ");
    free(text);
    metrics_free(m);
    m = metrics_new("tiny", INT32_MAX);
    metrics_observe(&m->request_prompt_tokens, 2e9);
    metrics_free(m);
}

static struct request *finished_request(int32_t num_output_tokens, enum finish_reason reason)
{
    struct sampling_params params;
    sampling_params_defaults(&params);
    struct request *r = request_new((int32_t[]){ 1, 2, 3 }, 3, 16, &params, NULL, NULL);
    r->arrival_ns = 1000000000u;
    r->finished_ns = 9000000000u;
    request_publish(r, num_output_tokens, reason);
    return r;
}

static void test_finished_requests(void **state)
{
    (void)state;
    struct metrics *m = metrics_new("tiny", 100);
    struct request *whole = finished_request(5, FINISH_STOP);
    whole->scheduled_ns = 2000000000u;
    whole->first_token_ns = 4000000000u;
    whole->last_token_ns = 8000000000u;
    struct request *early = finished_request(0, FINISH_ABORT);
    struct request *failed = finished_request(0, FINISH_ERROR);
    failed->scheduled_ns = 5000000000u;
    metrics_request_finished(m, whole);
    metrics_request_finished(m, early);
    metrics_request_finished(m, failed);
    char *text = render(m);
    assert_line(text, "# TYPE vllm:request_success_total counter");
    assert_line(text, "vllm:request_success_total{engine=\"0\",finished_reason=\"stop\","
                      "model_name=\"tiny\"} 1.0");
    assert_line(text, "vllm:request_success_total{engine=\"0\",finished_reason=\"length\","
                      "model_name=\"tiny\"} 0.0");
    assert_line(text, "vllm:request_success_total{engine=\"0\",finished_reason=\"abort\","
                      "model_name=\"tiny\"} 1.0");
    assert_line(text, "vllm:request_success_total{engine=\"0\",finished_reason=\"error\","
                      "model_name=\"tiny\"} 1.0");
    assert_line(text, "vllm:request_prompt_tokens_sum{" LABELS "} 9.0");
    assert_line(text, "vllm:request_generation_tokens_sum{" LABELS "} 5.0");
    assert_line(text, "vllm:request_params_max_tokens_sum{" LABELS "} 48.0");
    assert_line(text, "vllm:e2e_request_latency_seconds_sum{" LABELS "} 24.0");
    assert_line(text, "vllm:request_queue_time_seconds_sum{" LABELS "} 5.0");
    assert_line(text, "vllm:request_queue_time_seconds_count{" LABELS "} 2.0");
    assert_line(text, "vllm:request_prefill_time_seconds_sum{" LABELS "} 2.0");
    assert_line(text, "vllm:request_decode_time_seconds_sum{" LABELS "} 4.0");
    assert_line(text, "vllm:request_inference_time_seconds_sum{" LABELS "} 6.0");
    assert_line(text, "vllm:request_time_per_output_token_seconds_sum{" LABELS "} 1.0");
    assert_line(text, "vllm:request_time_per_output_token_seconds_count{" LABELS "} 1.0");
    free(text);
    request_unref(whole);
    request_unref(early);
    request_unref(failed);
    metrics_free(m);
}

static void test_labels_are_escaped(void **state)
{
    (void)state;
    struct metrics *m = metrics_new("a\"b\\c\nd", 100);
    snprintf(m->cache_config_labels, sizeof m->cache_config_labels,
             "block_size=\"16\",num_gpu_blocks=\"512\"");
    char *text = render(m);
    assert_line(text, "vllm:num_requests_running{engine=\"0\",model_name=\"a\\\"b\\\\c\\nd\"} 0.0");
    assert_line(text,
                "vllm:cache_config_info{engine=\"0\",block_size=\"16\",num_gpu_blocks=\"512\"} "
                "1.0");
    free(text);
    metrics_free(m);
    /* A name too long is cut between characters. */
    char name[400] = "";
    for (int32_t i = 0; i < 130; i++)
        strcat(name, "é");
    m = metrics_new(name, 100);
    assert_int_equal(strlen(m->model_name), 254);
    metrics_free(m);
}

/* They are there where tokens are drafted, each place of a draft by its own. */
static void test_drafts(void **state)
{
    (void)state;
    struct metrics *m = metrics_new("tiny", 100);
    char *text = render(m);
    assert_null(strstr(text, "spec_decode"));
    free(text);
    m->num_speculative_tokens = 2;
    metrics_count(&m->num_drafts, 3);
    metrics_count(&m->num_draft_tokens, 6);
    metrics_count(&m->num_accepted_tokens, 4);
    metrics_count(&m->num_accepted_tokens_per_pos[0], 3);
    metrics_count(&m->num_accepted_tokens_per_pos[1], 1);
    text = render(m);
    assert_line(text, "# TYPE vllm:spec_decode_num_drafts_total counter");
    assert_line(text, "vllm:spec_decode_num_drafts_total{" LABELS "} 3.0");
    assert_line(text, "vllm:spec_decode_num_draft_tokens_total{" LABELS "} 6.0");
    assert_line(text, "vllm:spec_decode_num_accepted_tokens_total{" LABELS "} 4.0");
    assert_line(text, "vllm:spec_decode_num_accepted_tokens_per_pos_total{engine=\"0\","
                      "position=\"1\",model_name=\"tiny\"} 1.0");
    assert_null(strstr(text, "position=\"2\""));
    free(text);
    metrics_free(m);
}

static void test_process(void **state)
{
    (void)state;
    struct metrics *m = metrics_new("tiny", 100);
    char *text = render(m);
    assert_true(plain_value(text, "process_resident_memory_bytes") > 100e3);
    assert_true(plain_value(text, "process_virtual_memory_bytes") >=
                plain_value(text, "process_resident_memory_bytes"));
    assert_true(plain_value(text, "process_start_time_seconds") > 1.6e9);
    assert_true(plain_value(text, "process_cpu_seconds_total") >= 0);
    assert_true(plain_value(text, "process_max_fds") >= 3);
    double open_fds = plain_value(text, "process_open_fds");
    free(text);
    FILE *file = fopen("/proc/self/stat", "r");
    text = render(m);
    assert_true(plain_value(text, "process_open_fds") == open_fds + 1);
    fclose(file);
    free(text);
    metrics_free(m);
}

/* Every line is a comment or `name{labels} value`, and each name has one HELP and TYPE before it.
 */
static void test_every_line_has_the_form(void **state)
{
    (void)state;
    struct metrics *m = metrics_new("tiny", 100);
    metrics_observe(&m->time_to_first_token, 1.0 / 3);
    char *text = render(m);
    char family[128] = "", *rest = NULL;
    for (char *line = strtok_r(text, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
        char name[128], kind[16];
        if (sscanf(line, "# HELP %127s", name) == 1) {
            snprintf(family, sizeof family, "%s", name);
            continue;
        }
        if (sscanf(line, "# TYPE %127s %15s", name, kind) == 2) {
            assert_string_equal(name, family);
            assert_true(!strcmp(kind, "gauge") || !strcmp(kind, "counter") ||
                        !strcmp(kind, "histogram"));
            continue;
        }
        assert_int_equal(strncmp(line, family, strlen(family)), 0);
        char *end, *value = strrchr(line, ' ');
        assert_non_null(value);
        assert_true(value[-1] == '}' || !strchr(line, '{'));
        strtod(value + 1, &end);
        assert_true(*end == '\0' && end > value + 1);
    }
    free(text);
    metrics_free(m);
}

static void *observe_many(void *arg)
{
    struct metrics *m = arg;
    for (int32_t i = 0; i < 20000; i++) {
        metrics_observe(&m->request_params_n, 2);
        metrics_count(&m->generation_tokens, 1);
    }
    return NULL;
}

static void test_threads_lose_nothing(void **state)
{
    (void)state;
    struct metrics *m = metrics_new("tiny", 100);
    pthread_t threads[3];
    struct status st;
    for (int32_t i = 0; i < 3; i++)
        assert_true(thread_start(&threads[i], "observer", observe_many, m, &st));
    free(render(m));
    for (int32_t i = 0; i < 3; i++)
        pthread_join(threads[i], NULL);
    char *text = render(m);
    assert_line(text, "vllm:request_params_n_count{" LABELS "} 60000.0");
    assert_line(text, "vllm:request_params_n_sum{" LABELS "} 120000.0");
    assert_line(text, "vllm:generation_tokens_total{" LABELS "} 60000.0");
    free(text);
    metrics_free(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gauges_and_counters),
        cmocka_unit_test(test_histogram),
        cmocka_unit_test(test_bucket_lists),
        cmocka_unit_test(test_finished_requests),
        cmocka_unit_test(test_labels_are_escaped),
        cmocka_unit_test(test_drafts),
        cmocka_unit_test(test_process),
        cmocka_unit_test(test_every_line_has_the_form),
        cmocka_unit_test(test_threads_lose_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
