/* test_request.c - publishing from one thread to another, sleeping, lifetime, and lazy memory. */
#include "base/clock.h"
#include "base/thread.h"
#include "engine/request.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

static struct sampling_params defaults(int32_t num_logprobs, int32_t num_prompt_logprobs)
{
    struct sampling_params params;
    sampling_params_defaults(&params);
    params.num_logprobs = num_logprobs;
    params.num_prompt_logprobs = num_prompt_logprobs;
    return params;
}

static void count_release(void *data)
{
    ++*(int32_t *)data;
}

static void test_new_and_last_reference(void **state)
{
    (void)state;
    int32_t released = 0;
    struct sampling_params params = defaults(2, 1);
    params.seed = 42;
    const int32_t ids[] = { 11, 12, 13 };
    struct request *r = request_new(ids, 3, 5, &params, &released, count_release);
    assert_memory_equal(r->token_ids, ids, sizeof ids);
    assert_int_equal(r->num_prompt_tokens, 3);
    assert_int_equal(r->max_tokens, 5);
    assert_int_equal(r->seed, 42);
    assert_true(r->arrival_ns > 0);
    assert_int_equal(request_finish_reason(r), FINISH_NONE);
    assert_int_equal(request_num_output_tokens(r), 0);
    /* Every element is there to be written. */
    memset(r->token_ids + 3, 1, 5 * sizeof *r->token_ids);
    memset(r->logprobs, 1, (size_t)5 * 3 * sizeof *r->logprobs);
    memset(r->prompt_logprobs, 1, (size_t)3 * 2 * sizeof *r->prompt_logprobs);
    assert_memory_equal(r->token_ids, ids, sizeof ids);
    request_ref(r);
    request_unref(r);
    assert_int_equal(released, 0);
    request_unref(r);
    assert_int_equal(released, 1);
    request_unref(NULL);
}

static void test_arrays_only_where_asked_for(void **state)
{
    (void)state;
    struct sampling_params params = defaults(-1, -1);
    struct request *r = request_new((int32_t[]){ 1 }, 1, 0, &params, NULL, NULL);
    assert_null(r->logprobs);
    assert_null(r->prompt_logprobs);
    assert_int_equal(request_bytes(1, 0, &params), r->bytes);
    request_unref(r);
}

static int64_t resident_bytes(void)
{
    long long size = 0, resident = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    assert_non_null(file);
    assert_int_equal(fscanf(file, "%lld %lld", &size, &resident), 2);
    fclose(file);
    return resident * sysconf(_SC_PAGESIZE);
}

/* A gigabyte of possible log-probabilities costs next to nothing until they come. */
static void test_large_arrays_are_lazy(void **state)
{
    (void)state;
    struct sampling_params params = defaults(99, -1);
    int64_t before = resident_bytes();
    struct request *r = request_new((int32_t[]){ 1 }, 1, 1000000, &params, NULL, NULL);
    assert_non_null(r);
    assert_true(r->bytes > (size_t)1 << 30);
    assert_true(resident_bytes() - before < 8 << 20);
    r->logprobs[(size_t)1000000 * 100 - 1].token_id = 7;
    r->token_ids[1000000] = 8;
    request_unref(r);
}

static void test_impossible_sizes(void **state)
{
    (void)state;
    struct sampling_params params = defaults(INT32_MAX - 1, INT32_MAX - 1);
    assert_true(request_bytes(INT32_MAX, INT32_MAX, &params) == SIZE_MAX);
    int32_t released = 0;
    assert_null(request_new(NULL, INT32_MAX, INT32_MAX, &params, &released, count_release));
    assert_int_equal(released, 0);
    /* Addressable, but no system has it. */
    params = defaults(100000, -1);
    size_t bytes = request_bytes(1, INT32_MAX, &params);
    assert_true(bytes < SIZE_MAX && bytes > (size_t)1 << 51);
    assert_null(request_new((int32_t[]){ 1 }, 1, INT32_MAX, &params, NULL, NULL));
}

static void test_wait_keeps_its_time(void **state)
{
    (void)state;
    struct sampling_params params = defaults(-1, -1);
    struct request *r = request_new((int32_t[]){ 1 }, 1, 4, &params, NULL, NULL);
    assert_false(request_wait(r, 0, 0));
    uint64_t start_ns = clock_now_ns();
    assert_false(request_wait(r, 0, 30));
    double waited = clock_seconds_between(start_ns, clock_now_ns());
    assert_true(waited >= 0.03 && waited < 5.0);
    request_publish(r, 2, FINISH_NONE);
    assert_true(request_wait(r, 1, 0));
    assert_false(request_wait(r, 2, 0));
    request_publish(r, 2, FINISH_STOP);
    assert_true(request_wait(r, 2, -1));
    assert_int_equal(request_finish_reason(r), FINISH_STOP);
    request_unref(r);
}

static void test_cancel_and_stop(void **state)
{
    (void)state;
    struct sampling_params params = defaults(-1, -1);
    struct request *r = request_new((int32_t[]){ 1 }, 1, 4, &params, NULL, NULL);
    assert_false(request_cancelled(r));
    request_stop(r);
    assert_true(request_cancelled(r) && atomic_load(&r->stopped));
    request_unref(r);
}

enum { NUM_TOKENS = 20000 };

/* The engine's half: appends, publishes, ends, and lets go. */
static void *produce(void *arg)
{
    struct request *r = arg;
    r->scheduled_ns = 5;
    for (int32_t i = 0; i < NUM_TOKENS; i++) {
        r->token_ids[r->num_prompt_tokens + i] = i * 3;
        r->logprobs[i].token_id = i;
        if (i % 3 == 0) /* the last ones come together with the end */
            request_publish(r, i + 1, FINISH_NONE);
    }
    r->finished_ns = 77;
    request_publish(r, NUM_TOKENS, FINISH_LENGTH);
    request_unref(r);
    return NULL;
}

static void test_reader_sees_what_was_published(void **state)
{
    (void)state;
    for (int32_t round = 0; round < 5; round++) {
        struct sampling_params params = defaults(0, -1);
        struct request *r = request_new((int32_t[]){ 1 }, 1, NUM_TOKENS, &params, NULL, NULL);
        pthread_t thread;
        struct status st;
        assert_true(thread_start(&thread, "producer", produce, request_ref(r), &st));
        int32_t seen = 0;
        while (request_finish_reason(r) == FINISH_NONE || seen < request_num_output_tokens(r)) {
            assert_true(request_wait(r, seen, 20000));
            int32_t count = request_num_output_tokens(r);
            for (; seen < count; seen++) {
                assert_int_equal(r->token_ids[1 + seen], seen * 3);
                assert_int_equal(r->logprobs[seen].token_id, seen);
            }
        }
        assert_int_equal(seen, NUM_TOKENS);
        assert_int_equal(r->finished_ns, 77);
        request_unref(r);
        pthread_join(thread, NULL);
    }
}

/* One reader of several requests, each written by a thread of its own. */
static void test_group(void **state)
{
    (void)state;
    enum { NUM_MEMBERS = 3 };
    struct sampling_params params = defaults(0, -1);
    struct request *r[NUM_MEMBERS];
    pthread_t threads[NUM_MEMBERS];
    int32_t seen[NUM_MEMBERS] = { 0 }, num_open = NUM_MEMBERS;
    for (int32_t i = 0; i < NUM_MEMBERS; i++) {
        r[i] = request_new((int32_t[]){ 1 }, 1, NUM_TOKENS, &params, NULL, NULL);
        if (i > 0)
            request_wake_with(r[i], r[0]);
    }
    struct status st;
    for (int32_t i = 0; i < NUM_MEMBERS; i++)
        assert_true(thread_start(&threads[i], "producer", produce, request_ref(r[i]), &st));
    while (num_open > 0) {
        uint32_t publications = request_group_publications(r[0]);
        num_open = NUM_MEMBERS;
        for (int32_t i = 0; i < NUM_MEMBERS; i++) {
            num_open -= request_finish_reason(r[i]) != FINISH_NONE;
            int32_t count = request_num_output_tokens(r[i]);
            for (; seen[i] < count; seen[i]++)
                assert_int_equal(r[i]->token_ids[1 + seen[i]], seen[i] * 3);
        }
        if (num_open > 0)
            request_group_wait(r[0], publications, 20000);
    }
    /* The leader may be let go before its members. */
    for (int32_t i = 0; i < NUM_MEMBERS; i++) {
        assert_int_equal(seen[i], NUM_TOKENS);
        request_unref(r[i]);
    }
    for (int32_t i = 0; i < NUM_MEMBERS; i++)
        pthread_join(threads[i], NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_new_and_last_reference),
        cmocka_unit_test(test_arrays_only_where_asked_for),
        cmocka_unit_test(test_large_arrays_are_lazy),
        cmocka_unit_test(test_impossible_sizes),
        cmocka_unit_test(test_wait_keeps_its_time),
        cmocka_unit_test(test_cancel_and_stop),
        cmocka_unit_test(test_reader_sees_what_was_published),
        cmocka_unit_test(test_group),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
