/* test_request_queue.c - bounds, their messages, order, waking and closing, also between threads.
 */
#include "base/thread.h"
#include "engine/request_queue.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

static struct request *make_request(int32_t num_prompt_tokens)
{
    static const int32_t ids[64] = { 0 };
    struct sampling_params params;
    sampling_params_defaults(&params);
    return request_new(ids, num_prompt_tokens, 1, &params, NULL, NULL);
}

/* Pushes one and keeps no reference. */
static bool push_one(struct request_queue *q, int32_t num_prompt_tokens, struct status *st)
{
    struct request *r = make_request(num_prompt_tokens);
    bool accepted = request_queue_push(q, &r, 1, st);
    request_unref(r);
    return accepted;
}

static void start_and_drop(struct request_queue *q, struct request *r)
{
    request_queue_started(q, r);
    request_unref(r);
}

static void test_order_and_wrap(void **state)
{
    (void)state;
    struct request_queue *q = request_queue_new(3, 100);
    struct request *out[3];
    struct status st;
    int32_t next_in = 1, next_out = 1;
    for (int32_t round = 0; round < 10; round++) {
        for (int32_t i = 0; i < 2; i++)
            assert_true(push_one(q, next_in++, &st));
        assert_int_equal(request_queue_drain(q, out, 1, false), 1);
        assert_int_equal(request_queue_drain(q, out + 1, 2, true), 1);
        for (int32_t i = 0; i < 2; i++) {
            assert_int_equal(out[i]->num_prompt_tokens, next_out++);
            start_and_drop(q, out[i]);
        }
    }
    assert_int_equal(request_queue_drain(q, out, 3, false), 0);
    request_queue_free(q);
}

/* What the scheduler holds back still counts, until it has started. */
static void test_full_by_requests(void **state)
{
    (void)state;
    struct request_queue *q = request_queue_new(2, 100);
    struct request *out[2];
    struct status st;
    assert_true(push_one(q, 1, &st));
    assert_true(push_one(q, 1, &st));
    assert_false(push_one(q, 1, &st));
    assert_int_equal(st.code, STATUS_OVERLOADED);
    assert_non_null(strstr(st.message, "2 requests are already waiting"));
    assert_int_equal(request_queue_drain(q, out, 2, false), 2);
    assert_false(push_one(q, 1, &st));
    start_and_drop(q, out[0]);
    assert_true(push_one(q, 1, &st));
    start_and_drop(q, out[1]);
    request_queue_free(q); /* with one inside */
}

static void test_full_by_tokens(void **state)
{
    (void)state;
    struct request_queue *q = request_queue_new(10, 50);
    struct request *out[2];
    struct status st;
    assert_true(push_one(q, 30, &st));
    assert_false(push_one(q, 21, &st));
    assert_int_equal(st.code, STATUS_OVERLOADED);
    assert_non_null(strstr(st.message, "30 prompt tokens are already waiting"));
    assert_true(push_one(q, 20, &st));
    assert_int_equal(request_queue_drain(q, out, 2, false), 2);
    start_and_drop(q, out[0]);
    assert_false(push_one(q, 31, &st));
    assert_true(push_one(q, 30, &st));
    start_and_drop(q, out[1]);
    request_queue_free(q);
}

static void test_all_or_none(void **state)
{
    (void)state;
    struct request_queue *q = request_queue_new(3, 100);
    struct request *choices[4], *out[4];
    struct status st;
    for (int32_t i = 0; i < 4; i++)
        choices[i] = make_request(2);
    assert_true(push_one(q, 1, &st));
    assert_false(request_queue_push(q, choices, 3, &st));
    assert_int_equal(st.code, STATUS_OVERLOADED);
    assert_int_equal(request_queue_drain(q, out, 4, false), 1);
    start_and_drop(q, out[0]);
    assert_true(request_queue_push(q, choices, 3, &st));
    /* More than fits at the best of times is not a matter of patience. */
    assert_false(request_queue_push(q, choices, 4, &st));
    assert_int_equal(st.code, STATUS_INVALID);
    assert_string_equal(st.param, "n");
    for (int32_t i = 0; i < 4; i++)
        request_unref(choices[i]);
    request_queue_free(q);
    q = request_queue_new(3, 10);
    assert_false(push_one(q, 11, &st));
    assert_int_equal(st.code, STATUS_INVALID);
    request_queue_free(q);
}

static void test_close_and_wake(void **state)
{
    (void)state;
    struct request_queue *q = request_queue_new(3, 100);
    struct request *out[1];
    struct status st;
    request_queue_wake(q); /* remembered until the next sleep */
    assert_int_equal(request_queue_drain(q, out, 1, true), 0);
    assert_true(push_one(q, 1, &st));
    assert_false(request_queue_closed(q));
    request_queue_close(q);
    assert_true(request_queue_closed(q));
    assert_false(push_one(q, 1, &st));
    assert_int_equal(st.code, STATUS_UNAVAILABLE);
    assert_string_equal(st.message, "the server is shutting down");
    assert_int_equal(request_queue_drain(q, out, 1, true), 1);
    start_and_drop(q, out[0]);
    assert_int_equal(request_queue_drain(q, out, 1, true), 0);
    request_queue_free(q);
}

enum { NUM_PUSHERS = 3, PUSHES = 3000 };

struct pusher {
    struct request_queue *q;
    int32_t num_prompt_tokens, num_refused;
    pthread_t thread;
};

static void *push_many(void *arg)
{
    struct pusher *p = arg;
    struct status st;
    for (int32_t i = 0; i < PUSHES;) {
        if (push_one(p->q, p->num_prompt_tokens, &st)) {
            i++;
        } else {
            p->num_refused++;
            usleep(10);
        }
    }
    return NULL;
}

static void test_many_pushers(void **state)
{
    (void)state;
    struct request_queue *q = request_queue_new(7, 20);
    struct pusher pushers[NUM_PUSHERS];
    struct status st;
    for (int32_t i = 0; i < NUM_PUSHERS; i++) {
        pushers[i] = (struct pusher){ .q = q, .num_prompt_tokens = i + 1 };
        assert_true(thread_start(&pushers[i].thread, "pusher", push_many, &pushers[i], &st));
    }
    int32_t counts[NUM_PUSHERS + 1] = { 0 };
    for (int32_t total = 0; total < NUM_PUSHERS * PUSHES;) {
        struct request *out[4];
        int32_t n = request_queue_drain(q, out, 4, true);
        for (int32_t i = 0; i < n; i++) {
            counts[out[i]->num_prompt_tokens]++;
            start_and_drop(q, out[i]);
        }
        total += n;
    }
    for (int32_t i = 0; i < NUM_PUSHERS; i++) {
        pthread_join(pushers[i].thread, NULL);
        assert_int_equal(counts[i + 1], PUSHES);
    }
    request_queue_free(q);
}

static void *close_later(void *arg)
{
    usleep(20000);
    request_queue_close(arg);
    return NULL;
}

static void test_close_ends_a_sleep(void **state)
{
    (void)state;
    struct request_queue *q = request_queue_new(1, 1);
    struct request *out[1];
    struct status st;
    pthread_t thread;
    assert_true(thread_start(&thread, "closer", close_later, q, &st));
    assert_int_equal(request_queue_drain(q, out, 1, true), 0);
    pthread_join(thread, NULL);
    request_queue_free(q);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_order_and_wrap),     cmocka_unit_test(test_full_by_requests),
        cmocka_unit_test(test_full_by_tokens),     cmocka_unit_test(test_all_or_none),
        cmocka_unit_test(test_close_and_wake),     cmocka_unit_test(test_many_pushers),
        cmocka_unit_test(test_close_ends_a_sleep),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
