/* test_sampling.c - the sampler against one that sorts the whole vocabulary; its distribution;
 * ties, forbidden tokens, NaN; and that a row knows nothing of the others. */
#include "tests/kernels/cpu_fixture.h"

#include "kernels/cpu/op_kernels.h"

enum { MAX_ROWS = 6, MAX_VOCAB = 5000, MAX_TOKENS = 60, MAX_BIAS = 20 };

/* A batch with memory of its own; the metadata points into it. */
struct batch {
    struct sampling_metadata m;
    int32_t vocab, stride;
    float *logits;
    float temperature[MAX_ROWS], top_p[MAX_ROWS], min_p[MAX_ROWS];
    int32_t top_k[MAX_ROWS];
    float presence[MAX_ROWS], frequency[MAX_ROWS], repetition[MAX_ROWS];
    uint64_t seed[MAX_ROWS], position[MAX_ROWS];
    int32_t tokens[MAX_ROWS][MAX_TOKENS];
    const int32_t *token_ids[MAX_ROWS];
    int32_t num_prompt[MAX_ROWS], num_tokens[MAX_ROWS];
    int32_t bias_start[MAX_ROWS + 1], bias_ids[MAX_ROWS * MAX_BIAS];
    float bias_values[MAX_ROWS * MAX_BIAS];
    uint32_t masks[MAX_ROWS][(MAX_VOCAB + 31) / 32];
    const uint32_t *allowed_mask[MAX_ROWS];
};

/* Nothing but logits of 0 and a temperature of 1. */
static struct batch *plain_batch(int32_t rows, int32_t vocab)
{
    struct batch *b = calloc(1, sizeof *b);
    b->vocab = vocab;
    b->stride = vocab + 3;
    b->logits = calloc((size_t)(rows * b->stride), sizeof(float));
    for (int32_t r = 0; r < rows; r++) {
        b->temperature[r] = b->top_p[r] = b->repetition[r] = 1;
        b->token_ids[r] = b->tokens[r];
        b->seed[r] = (uint64_t)random_word() << 32 | random_word();
        b->position[r] = (uint64_t)random_int(0, 1000);
    }
    b->m = (struct sampling_metadata){ .num_rows = rows,
                                       .temperature = b->temperature,
                                       .top_p = b->top_p,
                                       .min_p = b->min_p,
                                       .top_k = b->top_k,
                                       .presence_penalty = b->presence,
                                       .frequency_penalty = b->frequency,
                                       .repetition_penalty = b->repetition,
                                       .seed = b->seed,
                                       .position = b->position,
                                       .token_ids = b->token_ids,
                                       .num_prompt_tokens = b->num_prompt,
                                       .num_tokens = b->num_tokens,
                                       .bias_start = b->bias_start,
                                       .bias_ids = b->bias_ids,
                                       .bias_values = b->bias_values,
                                       .allowed_mask = b->allowed_mask };
    return b;
}

static void free_batch(struct batch *b)
{
    free(b->logits);
    free(b);
}

static struct cpu_device *open_for(enum cpu_isa isa, int32_t threads)
{
    struct workspace_desc w = { .vocab_size = MAX_VOCAB, .head_dim = 1, .max_num_seqs = 1 };
    return fixture_open(isa, threads, &w);
}

static void run(struct cpu_device *d, const struct batch *b, int32_t *ids)
{
    size_t count = (size_t)(b->m.num_rows * b->stride);
    float *before = malloc(count * sizeof *before);
    memcpy(before, b->logits, count * sizeof *before);
    struct tensor logits = { b->logits, DTYPE_F32, b->m.num_rows, b->vocab, b->stride };
    cpu_sample(&d->base, ids, &logits, &b->m);
    assert_memory_equal(before, b->logits, count * sizeof *before);
    free(before);
}

/* --- random batches --------------------------------------------------------------------------- */

static void random_logits(float *x, int32_t vocab)
{
    const int32_t kind = random_int(0, 3);
    const float width = random_uniform(0.1f, 6);
    for (int32_t i = 0; i < vocab; i++) {
        x[i] = width * random_normal();
        if (kind == 0)
            x[i] = (float)random_int(-3, 3); /* many ties */
        if (kind == 1)
            x[i] = roundf(x[i] * 4) / 4;
    }
}

static void random_row(struct batch *b, int32_t r)
{
    b->temperature[r] = random_int(0, 3) ? random_uniform(0.05f, 2) : RANDOM_OF(0, 1);
    b->top_p[r] = random_int(0, 1) ? 1 : random_uniform(0.01f, 1);
    b->min_p[r] = random_int(0, 2) ? 0 : random_uniform(0, 0.3f);
    b->top_k[r] = random_int(0, 1) ? 0 : random_int(1, random_int(1, b->vocab + 5));
    random_logits(b->logits + r * b->stride, b->vocab);
    if (random_int(0, 2) == 0) {
        b->presence[r] = random_uniform(-2, 2);
        b->frequency[r] = random_uniform(-2, 2);
        b->repetition[r] = random_uniform(0.5f, 2);
    }
    b->num_tokens[r] = random_int(0, MAX_TOKENS);
    b->num_prompt[r] = random_int(0, b->num_tokens[r]);
    for (int32_t i = 0; i < b->num_tokens[r]; i++)
        b->tokens[r][i] = random_int(-1, b->vocab < 20 ? b->vocab : 20); /* some outside */
    int32_t biases = random_int(0, 2) ? 0 : random_int(0, MAX_BIAS), at = b->bias_start[r];
    for (int32_t i = 0; i < biases; i++, at++) {
        b->bias_ids[at] = random_int(-1, b->vocab);
        b->bias_values[at] = random_int(0, 3) ? random_uniform(-5, 5) : -INFINITY;
    }
    b->bias_start[r + 1] = at;
    if (random_int(0, 3) == 0) {
        for (int32_t i = 0; i < (b->vocab + 31) / 32; i++)
            b->masks[r][i] = random_word() | random_word();
        b->allowed_mask[r] = b->masks[r];
    }
}

static struct batch *random_batch(void)
{
    struct batch *b = plain_batch(random_int(1, MAX_ROWS),
                                  RANDOM_OF(1, 2, 15, 16, 17, 33, 100, 1000, 1003, MAX_VOCAB));
    for (int32_t r = 0; r < b->m.num_rows; r++)
        random_row(b, r);
    return b;
}

/* --- the sampler that sorts ------------------------------------------------------------------- */

struct candidate {
    float logit;
    int32_t id;
    uint64_t mass;
};

static int by_order(const void *a, const void *b)
{
    const struct candidate *x = a, *y = b;
    if (x->logit != y->logit)
        return x->logit > y->logit ? -1 : 1;
    return x->id < y->id ? -1 : x->id > y->id;
}

static int by_id(const void *a, const void *b)
{
    const struct candidate *x = a, *y = b;
    return x->id < y->id ? -1 : x->id > y->id;
}

static void change_logits(float *x, const struct batch *b, int32_t r)
{
    for (int32_t i = 0; i < b->vocab; i++)
        if (b->allowed_mask[r] && !(b->masks[r][i / 32] >> (i % 32) & 1))
            x[i] = -INFINITY;
    for (int32_t i = b->bias_start[r]; i < b->bias_start[r + 1]; i++)
        if (b->bias_ids[i] >= 0 && b->bias_ids[i] < b->vocab)
            x[b->bias_ids[i]] += b->bias_values[i];
    for (int32_t id = 0; id < b->vocab; id++) {
        int32_t seen = 0, in_output = 0;
        for (int32_t i = 0; i < b->num_tokens[r]; i++) {
            seen += b->tokens[r][i] == id;
            in_output += b->tokens[r][i] == id && i >= b->num_prompt[r];
        }
        if (seen)
            x[id] = x[id] > 0 ? x[id] / b->repetition[r] : x[id] * b->repetition[r];
        if (in_output) {
            x[id] -= b->frequency[r] * (float)in_output;
            x[id] -= b->presence[r];
        }
    }
}

/* How many of the sorted candidates stay; their mass in *mass. */
static int32_t filter(const struct candidate *c, int32_t count, const struct batch *b, int32_t r,
                      uint64_t *mass)
{
    uint64_t total = 0, before = 0;
    if (b->top_k[r] > 0 && b->top_k[r] < count)
        count = b->top_k[r];
    for (int32_t i = 0; i < count; i++)
        total += c[i].mass;
    int32_t kept = 0;
    *mass = 0;
    while (kept < count && (kept == 0 || b->top_p[r] >= 1 ||
                            (double)before < (double)b->top_p[r] * (double)total)) {
        before += c[kept].mass;
        *mass = before;
        kept++;
    }
    return kept;
}

static int32_t sorting_sampler(const struct batch *b, int32_t r)
{
    float *x = malloc((size_t)b->vocab * sizeof *x), max = -INFINITY;
    struct candidate *c = malloc((size_t)b->vocab * sizeof *c);
    int32_t answer = -1, count = 0;
    memcpy(x, b->logits + r * b->stride, (size_t)b->vocab * sizeof *x);
    change_logits(x, b, r);
    for (int32_t i = 0; i < b->vocab; i++)
        max = x[i] > max ? x[i] : max;
    for (int32_t i = 0; i < b->vocab && max > -INFINITY; i++) {
        float factor = b->temperature[r] > 0 ? 1 / b->temperature[r] : 1;
        float distance = (max - x[i]) * factor;
        if (b->min_p[r] > 0 && !(distance <= -logf(b->min_p[r])))
            continue;
        c[count++] = (struct candidate){ x[i], i, weight_mass(expf(-distance)) };
    }
    qsort(c, (size_t)count, sizeof *c, by_order);
    if (count > 0 && !(b->temperature[r] > 0)) {
        answer = c[0].id;
    } else if (count > 0) {
        uint64_t mass, sum = 0;
        count = filter(c, count, b, r, &mass);
        struct rng_block block = rng_philox(b->seed[r], 0, b->position[r]);
        uint64_t u = (uint64_t)block.word[0] << 32 | block.word[1];
        uint64_t at = (uint64_t)((unsigned __int128)u * mass >> 64);
        qsort(c, (size_t)count, sizeof *c, by_id);
        for (int32_t i = 0; i < count && answer < 0; i++) {
            sum += c[i].mass;
            if (sum > at)
                answer = c[i].id;
        }
    }
    free(x);
    free(c);
    return answer;
}

/* The scalar row is the sorting sampler to the last token. The others have an exponential of their
 * own, which may move a draw that falls right between two tokens, or the end of top_p. */
static void follows_the_sorting_sampler(void **state)
{
    (void)state;
    enum cpu_isa isas[NUM_CPU_ISAS];
    int num_isas = fixture_isas(isas);
    for (int i = 0; i < num_isas; i++) {
        struct cpu_device *d = open_for(isas[i], 2);
        int32_t rows = 0, others = 0;
        for (int round = 0; round < 500; round++) {
            struct batch *b = random_batch();
            int32_t ids[MAX_ROWS];
            run(d, b, ids);
            for (int32_t r = 0; r < b->m.num_rows; r++, rows++) {
                int32_t want = sorting_sampler(b, r);
                if (ids[r] != want && (isas[i] == CPU_ISA_SCALAR || b->temperature[r] == 0))
                    fail_msg("%s: vocab %d, row %d: %d, not %d (temperature %g, top_k %d, top_p "
                             "%g, min_p %g)",
                             cpu_isa_name(isas[i]), b->vocab, r, ids[r], want,
                             (double)b->temperature[r], b->top_k[r], (double)b->top_p[r],
                             (double)b->min_p[r]);
                others += ids[r] != want;
            }
            free_batch(b);
        }
        printf("%s: %d of %d draws differ\n", cpu_isa_name(isas[i]), others, rows);
        assert_true(others <= rows / 100);
        fixture_close(d);
    }
}

static void rows_are_alone(void **state)
{
    (void)state;
    enum cpu_isa isas[NUM_CPU_ISAS];
    int num_isas = fixture_isas(isas);
    for (int i = 0; i < num_isas; i++) {
        struct cpu_device *many = open_for(isas[i], 4), *one = open_for(isas[i], 1);
        for (int round = 0; round < 100; round++) {
            struct batch *b = random_batch();
            int32_t ids[MAX_ROWS], again[MAX_ROWS], spoiled = random_int(0, b->m.num_rows - 1);
            run(many, b, ids);
            run(one, b, again);
            assert_memory_equal(ids, again, (size_t)b->m.num_rows * sizeof *ids);
            b->allowed_mask[spoiled] = NULL;
            b->logits[spoiled * b->stride + random_int(0, b->vocab - 1)] = NAN;
            for (int32_t t = b->bias_start[spoiled]; t < b->bias_start[spoiled + 1]; t++)
                b->bias_values[t] = 0;
            run(many, b, again);
            for (int32_t r = 0; r < b->m.num_rows; r++)
                assert_int_equal(again[r], r == spoiled ? -1 : ids[r]);
            free_batch(b);
        }
        fixture_close(many);
        fixture_close(one);
    }
}

/* --- the distribution ------------------------------------------------------------------------- */

/* Chi-square of `draws` draws against the formula; seeds are fixed, so this passes or fails always.
 * Limit: mean + 4 standard deviations of the statistic. */
static void check_distribution(struct cpu_device *d, struct batch *b, const double *want)
{
    enum { DRAWS = 20000 };
    int32_t *seen = calloc((size_t)b->vocab, sizeof *seen), id;
    double statistic = 0, freedom = -1;
    for (int32_t i = 0; i < DRAWS; i++) {
        b->position[0] = (uint64_t)i;
        run(d, b, &id);
        assert_in_range(id, 0, b->vocab - 1);
        seen[id]++;
    }
    for (int32_t i = 0; i < b->vocab; i++) {
        double expected = want[i] * DRAWS;
        if (want[i] == 0) {
            assert_int_equal(seen[i], 0);
            continue;
        }
        statistic += (seen[i] - expected) * (seen[i] - expected) / expected;
        freedom++;
    }
    if (statistic > freedom + 4 * sqrt(2 * freedom) + 4)
        fail_msg("chi-square %.1f at %.0f degrees of freedom", statistic, freedom);
    free(seen);
}

static void draws_follow_the_softmax(void **state)
{
    (void)state;
    enum cpu_isa isas[NUM_CPU_ISAS];
    int num_isas = fixture_isas(isas);
    const float logits[8] = { 1, 3, 2, -1, 3, 0, 2.5f, -40 };
    for (int i = 0; i < num_isas; i++) {
        struct cpu_device *d = open_for(isas[i], 1);
        for (int filters = 0; filters < 4; filters++) {
            struct batch *b = plain_batch(1, 8);
            double want[8] = { 0 }, sum = 0;
            memcpy(b->logits, logits, sizeof logits);
            b->seed[0] = 12345;
            b->temperature[0] = 1.5f;
            /* In order: 1, 4, 6, 2, 0, 5, 3, 7. */
            static const int kept[4][8] = { { 1, 1, 1, 1, 1, 1, 1, 0 }, /* 7 is 1e-12 of 1 */
                                            { 0, 1, 0, 0, 1, 0, 1, 0 },
                                            { 0, 1, 1, 0, 1, 0, 1, 0 },
                                            { 0, 1, 0, 0, 1, 0, 1, 0 } };
            b->top_k[0] = filters == 1 ? 3 : 0;
            b->top_p[0] = filters == 2 ? 0.75f : 1; /* 0.27, 0.53, 0.72, 0.86, ... */
            b->min_p[0] = filters == 3 ? 0.6f : 0;  /* 1, 1, 0.72, 0.51, ... */
            for (int j = 0; j < 8; j++)
                sum += want[j] = kept[filters][j] ? exp(logits[j] / 1.5) : 0;
            for (int j = 0; j < 8; j++)
                want[j] /= sum;
            check_distribution(d, b, want);
            free_batch(b);
        }
        fixture_close(d);
    }
}

static void flat_logits_reach_every_token(void **state)
{
    (void)state;
    struct cpu_device *d = open_for(cpu_isa_detect(), 1);
    struct batch *b = plain_batch(1, 100);
    double want[100];
    b->seed[0] = 777;
    for (int i = 0; i < 100; i++)
        want[i] = 0.01;
    check_distribution(d, b, want);
    b->top_k[0] = 30; /* of equals the lowest ids stay */
    for (int i = 0; i < 100; i++)
        want[i] = i < 30 ? 1.0 / 30 : 0;
    check_distribution(d, b, want);
    b->top_k[0] = 0;
    b->top_p[0] = 0.5f;
    for (int i = 0; i < 100; i++)
        want[i] = i < 50 ? 1.0 / 50 : 0;
    check_distribution(d, b, want);
    free_batch(b);
    fixture_close(d);
}

/* --- edges ------------------------------------------------------------------------------------ */

static int32_t sample_one(struct cpu_device *d, const struct batch *b)
{
    int32_t id = -2;
    run(d, b, &id);
    return id;
}

static void edges_on(struct cpu_device *d)
{
    struct batch *b = plain_batch(1, 40);
    b->temperature[0] = 0;
    assert_int_equal(sample_one(d, b), 0); /* all equal */
    b->logits[0] = -1;
    b->logits[1] = -0.0f; /* equal to the zeros after it */
    assert_int_equal(sample_one(d, b), 1);
    b->logits[37] = b->logits[21] = 2;
    assert_int_equal(sample_one(d, b), 21);
    /* Greedy hears penalties and bias. */
    b->tokens[0][0] = 21;
    b->num_tokens[0] = 1;
    b->presence[0] = 0.5f;
    assert_int_equal(sample_one(d, b), 37);
    b->num_prompt[0] = 1; /* presence looks at the output only */
    assert_int_equal(sample_one(d, b), 21);
    b->repetition[0] = 1.1f; /* repetition at the prompt as well */
    assert_int_equal(sample_one(d, b), 37);
    b->bias_start[1] = 2;
    b->bias_ids[0] = 37;
    b->bias_values[0] = -INFINITY;
    b->bias_ids[1] = 5;
    b->bias_values[1] = 3;
    assert_int_equal(sample_one(d, b), 5);
    /* A forbidden token may be NaN or infinite, another may not. */
    b->logits[37] = INFINITY;
    assert_int_equal(sample_one(d, b), 5);
    b->logits[6] = INFINITY;
    assert_int_equal(sample_one(d, b), -1);
    b->logits[6] = -INFINITY;
    b->allowed_mask[0] = b->masks[0]; /* none */
    assert_int_equal(sample_one(d, b), -1);
    b->temperature[0] = 1;
    assert_int_equal(sample_one(d, b), -1);
    b->masks[0][1] = 1u << 7; /* only id 39 */
    assert_int_equal(sample_one(d, b), 39);
    b->logits[3] = NAN; /* forbidden as well */
    assert_int_equal(sample_one(d, b), 39);
    b->allowed_mask[0] = NULL;
    assert_int_equal(sample_one(d, b), -1);
    free_batch(b);
}

/* Extreme parameters leave at least the best token, and nothing that is forbidden. */
static void extremes_on(struct cpu_device *d)
{
    struct batch *b = plain_batch(1, 1000);
    for (int round = 0; round < 100; round++) {
        for (int32_t i = 0; i < 1000; i++)
            b->logits[i] = i % 2 ? -INFINITY : random_normal();
        b->logits[random_int(0, 499) * 2] = 30;
        int32_t best = -1;
        for (int32_t i = 0; i < 1000; i++)
            best = b->logits[i] == 30 ? i : best;
        b->position[0] = (uint64_t)round;
        b->top_p[0] = b->temperature[0] = 1;
        b->min_p[0] = 0;
        b->top_k[0] = 0;
        switch (round % 5) {
        case 0:
            b->top_p[0] = 1e-30f;
            break;
        case 1:
            b->temperature[0] = 1e-40f;
            break;
        case 2:
            b->min_p[0] = 1;
            break;
        case 3:
            b->top_k[0] = 1;
            break;
        default:
            b->temperature[0] = INFINITY; /* flat over what is allowed */
            assert_int_equal(sample_one(d, b) % 2, 0);
            continue;
        }
        assert_int_equal(sample_one(d, b), best);
    }
    free_batch(b);
}

static void edges(void **state)
{
    (void)state;
    enum cpu_isa isas[NUM_CPU_ISAS];
    int num_isas = fixture_isas(isas);
    for (int i = 0; i < num_isas; i++) {
        struct cpu_device *d = open_for(isas[i], 1);
        edges_on(d);
        extremes_on(d);
        fixture_close(d);
    }
}

/* Arrays that no row uses may be missing. */
static void optional_arrays(void **state)
{
    (void)state;
    struct cpu_device *d = open_for(cpu_isa_detect(), 1);
    struct batch *b = plain_batch(2, 10);
    int32_t ids[2];
    b->m.token_ids = NULL;
    b->m.bias_start = NULL;
    b->m.allowed_mask = NULL;
    b->logits[7] = 100;
    run(d, b, ids);
    assert_int_equal(ids[0], 7);
    b->m.num_rows = 0;
    run(d, b, ids);
    free_batch(b);
    fixture_close(d);
}

int main(void)
{
    fixture_start();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(follows_the_sorting_sampler),
        cmocka_unit_test(rows_are_alone),
        cmocka_unit_test(draws_follow_the_softmax),
        cmocka_unit_test(flat_logits_reach_every_token),
        cmocka_unit_test(edges),
        cmocka_unit_test(optional_arrays),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
