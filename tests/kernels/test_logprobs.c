/* test_logprobs.c - log-probabilities, ranks and the best few against a full sort in double. */
#include "tests/kernels/cpu_fixture.h"

enum { MAX_ROWS = 5 };

struct batch {
    struct logprobs_request request;
    struct tensor logits;
    int32_t target_ids[MAX_ROWS], num_top[MAX_ROWS], target_rank[MAX_ROWS];
    float target_logprob[MAX_ROWS];
};

static struct batch *new_batch(int32_t rows, int32_t vocab, int32_t max_top)
{
    struct batch *b = calloc(1, sizeof *b);
    const int32_t stride = vocab + random_int(0, 4);
    size_t top = (size_t)(rows * max_top);
    b->logits = (struct tensor){ random_floats((size_t)(rows * stride), random_uniform(0.1f, 5)),
                                 DTYPE_F32, rows, vocab, stride };
    for (int32_t i = 0; i < rows * stride && random_int(0, 1); i++)
        ((float *)b->logits.data)[i] = roundf(((float *)b->logits.data)[i]); /* some ties */
    for (int32_t r = 0; r < rows; r++) {
        b->target_ids[r] = random_int(0, vocab - 1);
        b->num_top[r] = random_int(-1, max_top);
    }
    b->request = (struct logprobs_request){ .num_rows = rows,
                                            .max_top = max_top,
                                            .target_ids = b->target_ids,
                                            .num_top = b->num_top,
                                            .target_logprob = b->target_logprob,
                                            .target_rank = b->target_rank,
                                            .top_ids = malloc((top + 1) * sizeof(int32_t)),
                                            .top_logprobs = malloc((top + 1) * sizeof(float)) };
    for (int32_t r = 0; r < rows; r++)
        b->target_rank[r] = -7;
    for (size_t i = 0; i < top; i++)
        b->request.top_ids[i] = -7;
    return b;
}

static void free_batch(struct batch *b)
{
    free(b->logits.data);
    free(b->request.top_ids);
    free(b->request.top_logprobs);
    free(b);
}

static const float *sorted_row;
static int by_order(const void *a, const void *b)
{
    int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;
    if (sorted_row[x] != sorted_row[y])
        return sorted_row[x] > sorted_row[y] ? -1 : 1;
    return x < y ? -1 : x > y;
}

static void check_row(const struct batch *b, int32_t r)
{
    const int32_t vocab = b->logits.cols, max_top = b->request.max_top;
    const float *x = (const float *)b->logits.data + r * b->logits.stride;
    const int32_t *top_ids = b->request.top_ids + r * max_top;
    const float *top = b->request.top_logprobs + r * max_top;
    int32_t *ids = malloc((size_t)vocab * sizeof *ids), rank = 1;
    double sum = 0, want;
    if (b->num_top[r] < 0) {
        assert_int_equal(b->target_rank[r], -7); /* a row that is skipped is not written */
        free(ids);
        return;
    }
    for (int32_t i = 0; i < vocab; i++) {
        ids[i] = i;
        sum += exp(x[i]);
        rank += x[i] > x[b->target_ids[r]];
    }
    sorted_row = x;
    qsort(ids, (size_t)vocab, sizeof *ids, by_order);
    want = x[b->target_ids[r]] - log(sum);
    assert_close(&b->target_logprob[r], &want, 1, 2e-6, 1e-6, "target");
    assert_int_equal(b->target_rank[r], rank);
    for (int32_t i = 0; i < max_top; i++) {
        if (i >= b->num_top[r]) {
            assert_int_equal(top_ids[i], -7);
            continue;
        }
        assert_int_equal(top_ids[i], i < vocab ? ids[i] : -1);
        want = i < vocab ? x[ids[i]] - log(sum) : -INFINITY;
        assert_close(&top[i], &want, 1, 2e-6, 1e-6, "one of the best");
    }
    free(ids);
}

static void follows_the_sort(void **state)
{
    (void)state;
    struct workspace_desc w = { .vocab_size = 1, .head_dim = 1, .max_num_seqs = 1 };
    enum cpu_isa isas[NUM_CPU_ISAS];
    int num_isas = fixture_isas(isas);
    for (int i = 0; i < num_isas; i++) {
        struct cpu_device *few = fixture_open(isas[i], 1, &w), *many = fixture_open(isas[i], 4, &w);
        for (int round = 0; round < 100; round++) {
            int32_t vocab = RANDOM_OF(1, 2, 15, 16, 17, 100, 1023, 1024, 1025, 20000);
            struct batch *b =
                new_batch(random_int(1, MAX_ROWS), vocab, RANDOM_OF(0, 1, 5, 20, 100));
            float before[MAX_ROWS];
            cpu_logprobs(&many->base, &b->request, &b->logits);
            for (int32_t r = 0; r < b->request.num_rows; r++)
                check_row(b, r);
            memcpy(before, b->target_logprob, sizeof before);
            cpu_logprobs(&few->base, &b->request, &b->logits);
            assert_same_bits(b->target_logprob, before, (size_t)b->request.num_rows, "one thread");
            /* The last row by itself. */
            int32_t last = b->request.num_rows - 1;
            struct tensor row = { (float *)b->logits.data + last * b->logits.stride, DTYPE_F32, 1,
                                  vocab, vocab };
            struct logprobs_request alone = b->request;
            alone.num_rows = 1;
            alone.target_ids += last;
            alone.num_top += last;
            cpu_logprobs(&few->base, &alone, &row);
            if (b->num_top[last] >= 0)
                assert_same_bits(b->target_logprob, &before[last], 1, "a row alone");
            free_batch(b);
        }
        fixture_close(few);
        fixture_close(many);
    }
}

static void edges(void **state)
{
    (void)state;
    struct workspace_desc w = { .vocab_size = 1, .head_dim = 1, .max_num_seqs = 1 };
    enum cpu_isa isas[NUM_CPU_ISAS];
    int num_isas = fixture_isas(isas);
    for (int i = 0; i < num_isas; i++) {
        struct cpu_device *d = fixture_open(isas[i], 1, &w);
        struct batch *b = new_batch(3, 30, 4);
        float *x = b->logits.data;
        for (int32_t r = 0; r < 3; r++)
            b->num_top[r] = 4;
        for (int32_t j = 0; j < 30; j++)
            x[j] = j % 3 ? -INFINITY : 1; /* forbidden tokens, and ties */
        x[b->logits.stride + 9] = NAN;
        b->target_ids[0] = 3;
        b->target_ids[2] = -1; /* the row could not be sampled */
        cpu_logprobs(&d->base, &b->request, &b->logits);
        double want = log(0.1);
        assert_close(&b->target_logprob[0], &want, 1, 1e-6, 0, "one of ten equals");
        assert_int_equal(b->target_rank[0], 1);
        for (int j = 0; j < 4; j++)
            assert_int_equal(b->request.top_ids[j], 3 * j);
        assert_true(isnan(b->target_logprob[1]));
        for (int j = 4; j < 8; j++) {
            assert_true(isnan(b->request.top_logprobs[j]));
            assert_int_not_equal(b->request.top_ids[j], 9);
        }
        assert_true(b->target_logprob[2] == -INFINITY);
        assert_int_equal(b->target_rank[2], 0);
        assert_true(isfinite(b->request.top_logprobs[8]));
        free_batch(b);
        fixture_close(d);
    }
}

int main(void)
{
    fixture_start();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(follows_the_sort),
        cmocka_unit_test(edges),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
