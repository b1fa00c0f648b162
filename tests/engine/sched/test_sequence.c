/* test_sequence.c - the slab, the list, and the order of the stop checks. */
#include "engine/sched/sequence.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

static const int32_t prompt[] = { 5, 6, 7 };
static const int32_t eos_ids[] = { 2, 9 };
static const int32_t stop_ids[] = { 4, 9 };

static struct request *make_request(int32_t max_tokens)
{
    struct sampling_params params;
    sampling_params_defaults(&params);
    params.eos_token_ids = eos_ids;
    params.num_eos_token_ids = 2;
    params.stop_token_ids = stop_ids;
    params.num_stop_token_ids = 2;
    return request_new(prompt, 3, max_tokens, &params, NULL, NULL);
}

static void test_slab_reuses_slots(void **state)
{
    (void)state;
    struct sequence_slab slab;
    sequence_slab_init(&slab, 3);
    struct request *r = make_request(4);
    int32_t a = sequence_slab_take(&slab, r), b = sequence_slab_take(&slab, r);
    assert_int_not_equal(a, b);
    assert_int_equal(slab.num_used, 2);
    assert_int_equal(slab.slots[a].status, SEQUENCE_WAITING);
    assert_int_equal(slab.slots[a].num_tokens, 3);
    slab.slots[a].num_computed_tokens = 3;
    sequence_slab_put(&slab, a);
    assert_int_equal(slab.slots[a].status, SEQUENCE_FREE);
    assert_int_equal(sequence_slab_take(&slab, r), a);
    assert_int_equal(slab.slots[a].num_computed_tokens, 0);
    assert_int_equal(sequence_slab_take(&slab, r), 2);
    assert_int_equal(slab.num_used, 3);
    sequence_slab_free(&slab);
    request_unref(r);
}

static void assert_list(const struct sequence_slab *slab, const struct sequence_list *list,
                        const int32_t *expected, int32_t count)
{
    assert_int_equal(list->count, count);
    int32_t index = list->head, before = SEQUENCE_NONE;
    for (int32_t i = 0; i < count; i++) {
        assert_int_equal(index, expected[i]);
        assert_int_equal(slab->slots[index].prev, before);
        before = index;
        index = slab->slots[index].next;
    }
    assert_int_equal(index, SEQUENCE_NONE);
    assert_int_equal(list->tail, before);
}

static void test_list(void **state)
{
    (void)state;
    struct sequence_slab slab;
    struct sequence_list list;
    sequence_slab_init(&slab, 4);
    sequence_list_init(&list);
    struct request *r = make_request(1);
    for (int32_t i = 0; i < 4; i++)
        sequence_slab_take(&slab, r);
    assert_list(&slab, &list, NULL, 0);
    sequence_list_push_back(&list, &slab, 0);
    sequence_list_push_back(&list, &slab, 1);
    sequence_list_push_front(&list, &slab, 2);
    sequence_list_push_front(&list, &slab, 3);
    assert_list(&slab, &list, (int32_t[]){ 3, 2, 0, 1 }, 4);
    sequence_list_remove(&list, &slab, 2);
    assert_list(&slab, &list, (int32_t[]){ 3, 0, 1 }, 3);
    sequence_list_remove(&list, &slab, 3);
    sequence_list_remove(&list, &slab, 1);
    assert_list(&slab, &list, (int32_t[]){ 0 }, 1);
    sequence_list_remove(&list, &slab, 0);
    assert_list(&slab, &list, NULL, 0);
    sequence_list_push_front(&list, &slab, 1);
    assert_list(&slab, &list, (int32_t[]){ 1 }, 1);
    sequence_slab_free(&slab);
    request_unref(r);
}

struct stop_case {
    int32_t num_output, last_id, max_tokens, max_model_len, min_tokens;
    bool ignore_eos;
    enum finish_reason reason;
    int32_t stop_token_id;
};

static void test_stop_order(void **state)
{
    (void)state;
    static const struct stop_case cases[] = {
        { 1, 5, 10, 100, 0, false, FINISH_NONE, 0 },
        { 1, 2, 10, 100, 0, false, FINISH_STOP, -1 },
        { 1, 2, 10, 100, 0, true, FINISH_NONE, 0 },
        { 1, 4, 10, 100, 0, false, FINISH_STOP, 4 },
        { 1, 4, 10, 100, 0, true, FINISH_STOP, 4 },
        { 1, 9, 10, 100, 0, false, FINISH_STOP, -1 }, /* both: EOS comes first */
        { 1, 9, 10, 100, 0, true, FINISH_STOP, 9 },
        { 10, 5, 10, 100, 0, false, FINISH_LENGTH, 0 },
        { 10, 2, 10, 100, 0, false, FINISH_LENGTH, 0 }, /* length before EOS */
        { 10, 2, 10, 100, 11, false, FINISH_LENGTH, 0 },
        { 4, 5, 10, 7, 0, false, FINISH_LENGTH, 0 }, /* max_model_len */
        { 3, 5, 10, 7, 0, false, FINISH_NONE, 0 },
        { 2, 2, 10, 100, 3, false, FINISH_NONE, 0 },
        { 2, 4, 10, 100, 3, false, FINISH_NONE, 0 },
        { 3, 2, 10, 100, 3, false, FINISH_STOP, -1 },
        { 3, 4, 10, 100, 3, false, FINISH_STOP, 4 },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const struct stop_case *c = &cases[i];
        struct request *r = make_request(c->max_tokens);
        r->params.min_tokens = c->min_tokens;
        r->params.ignore_eos = c->ignore_eos;
        struct sequence seq = { .request = r, .num_tokens = 3 + c->num_output };
        r->token_ids[seq.num_tokens - 1] = c->last_id;
        int32_t stop_token_id = -2;
        enum finish_reason reason = sequence_check_stop(&seq, c->max_model_len, &stop_token_id);
        if (reason != c->reason)
            fail_msg("case %zu: reason %d, not %d", i, (int)reason, (int)c->reason);
        if (reason == FINISH_STOP)
            assert_int_equal(stop_token_id, c->stop_token_id);
        request_unref(r);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_slab_reuses_slots),
        cmocka_unit_test(test_list),
        cmocka_unit_test(test_stop_order),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
