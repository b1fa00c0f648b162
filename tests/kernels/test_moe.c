/* test_moe.c - the router's choice worked out by hand and by sorting; the mixture against sums in
 * double and, bit for bit, against the plain ops one token and one expert at a time. */
#include "kernels/cpu/moe_route.h"
#include "tests/kernels/cpu_fixture.h"

enum { MAX_EXPERTS = 70, MAX_THREADS = 4 };

/* --- a mixture with random weights ------------------------------------------------------------ */

struct mixture {
    struct moe moe;
    enum dtype dtype;
    int32_t hidden, inner;
    struct linear gate_up[MAX_EXPERTS], down[MAX_EXPERTS];
    float *gate_up_values, *down_values; /* as the weights' dtype holds them, expert by expert */
    char *memory;                        /* packed, all experts the same distance apart */
    float *biases;
    float score_bias[MAX_EXPERTS];
};

static float *values_of(int32_t count, int32_t in_features, enum dtype dtype)
{
    float *x = random_floats((size_t)count, 1.0f / sqrtf((float)in_features));
    void *rounded = malloc((size_t)count * sizeof *x);
    dtype_convert(rounded, dtype, x, DTYPE_F32, (size_t)count);
    dtype_convert(x, DTYPE_F32, rounded, dtype, (size_t)count);
    free(rounded);
    return x;
}

static void plan(const struct cpu_device *d, struct linear *l, int32_t out_features,
                 int32_t in_features, enum dtype dtype)
{
    struct status st;
    *l = (struct linear){ .out_features = out_features,
                          .in_features = in_features,
                          .format = quant_format_of_dtype(dtype) };
    assert_true(cpu_linear_plan(&d->base, l, &st));
}

static void pack_experts(struct cpu_device *d, struct mixture *m, bool with_bias)
{
    struct linear gate_up, down;
    size_t experts = (size_t)m->moe.num_experts;
    plan(d, &gate_up, 2 * m->inner, m->hidden, m->dtype);
    plan(d, &down, m->hidden, m->inner, m->dtype);
    size_t bytes = gate_up.packed_bytes + down.packed_bytes;
    size_t per_expert = 2 * (size_t)m->inner + (size_t)m->hidden;
    assert_int_equal(posix_memalign((void **)&m->memory, 64, experts * bytes), 0);
    memset(m->memory, 0, experts * bytes);
    m->biases = random_floats(experts * per_expert, 0.5f);
    for (size_t e = 0; e < experts; e++) {
        gate_up.packed = m->memory + e * gate_up.packed_bytes;
        down.packed = m->memory + experts * gate_up.packed_bytes + e * down.packed_bytes;
        gate_up.bias = with_bias ? m->biases + e * per_expert : NULL;
        down.bias = with_bias ? m->biases + e * per_expert + 2 * m->inner : NULL;
        m->gate_up[e] = gate_up;
        m->down[e] = down;
        cpu_linear_pack(&d->base, &m->gate_up[e], 0, 2 * m->inner,
                        m->gate_up_values + e * 2 * (size_t)(m->inner * m->hidden),
                        &quant_format_float32);
        cpu_linear_pack(&d->base, &m->down[e], 0, m->hidden,
                        m->down_values + e * (size_t)(m->inner * m->hidden), &quant_format_float32);
    }
    m->moe.gate_up = m->gate_up;
    m->moe.down = m->down;
}

static void random_rules(struct mixture *m)
{
    struct moe *moe = &m->moe;
    moe->scoring = (enum moe_scoring)random_int(MOE_SOFTMAX, MOE_SIGMOID);
    /* As published; and sums of two softmax scores would depend on their rounding. */
    moe->group_score =
        moe->scoring == MOE_SIGMOID && random_int(0, 1) ? MOE_GROUP_TOP2 : MOE_GROUP_MAX;
    moe->norm_topk_prob = random_int(0, 1);
    moe->routed_scaling_factor = RANDOM_OF(0, 1) ? 1.0f : 2.5f;
    moe->act = (enum activation)random_int(0, NUM_ACTIVATIONS - 1);
    moe->num_experts = RANDOM_OF(1, 2, 5, 8, 12, 64);
    moe->num_experts_per_tok = random_int(1, moe->num_experts < 8 ? moe->num_experts : 8);
    if (random_int(0, 3) == 0)
        moe->num_experts_per_tok = moe->num_experts;
    moe->num_groups = moe->topk_groups = 0;
    if (moe->num_experts % 4 == 0 && random_int(0, 1)) {
        int32_t size = moe->num_experts / 4;
        int32_t least = (moe->num_experts_per_tok + size - 1) / size;
        moe->num_groups = 4;
        moe->topk_groups = random_int(least, 4);
    }
    for (int32_t i = 0; i < moe->num_experts; i++)
        m->score_bias[i] = random_uniform(-0.5f, 0.5f);
    /* With a softmax no model has one. */
    moe->score_bias = moe->scoring == MOE_SIGMOID && random_int(0, 1) ? m->score_bias : NULL;
}

static struct mixture *mixture_new(struct cpu_device *d, enum dtype dtype)
{
    struct mixture *m = calloc(1, sizeof *m);
    m->dtype = dtype;
    m->hidden = RANDOM_OF(1, 7, 31, 32, 64, 97, 160);
    m->inner = RANDOM_OF(1, 3, 16, 33, 48, 80);
    random_rules(m);
    int32_t count = m->moe.num_experts * m->inner * m->hidden;
    m->gate_up_values = values_of(2 * count, m->hidden, dtype);
    m->down_values = values_of(count, m->inner, dtype);
    pack_experts(d, m, random_int(0, 1));
    return m;
}

static void mixture_free(struct mixture *m)
{
    free(m->gate_up_values);
    free(m->down_values);
    free(m->memory);
    free(m->biases);
    free(m);
}

/* --- a device whose scratch memory is exactly what was asked for ------------------------------ */

static struct cpu_device *open_device(enum cpu_isa isa, int32_t num_threads, int32_t max_num_tokens)
{
    struct workspace_desc w = { .max_num_tokens = max_num_tokens,
                                .max_num_seqs = 1,
                                .max_logits_rows = 1,
                                .max_model_len = 16,
                                .block_size = 16,
                                .max_in_features = 160,
                                .max_out_features = 160,
                                .num_heads = 1,
                                .num_kv_heads = 1,
                                .head_dim = 16,
                                .vocab_size = 32,
                                .num_experts = MAX_EXPERTS,
                                .num_experts_per_tok = 64,
                                .moe_hidden_size = 160,
                                .moe_intermediate_size = 80 };
    struct cpu_device *d = fixture_open(isa, num_threads, &w);
    d->linear_scratch_bytes = cpu_linear_scratch_bytes(d, &w);
    d->moe_scratch_bytes = cpu_moe_scratch_bytes(d, &w);
    assert_int_equal(posix_memalign(&d->linear_scratch, 64, d->linear_scratch_bytes), 0);
    assert_int_equal(posix_memalign(&d->moe_scratch, 64, d->moe_scratch_bytes), 0);
    memset(d->linear_scratch, 0xff, d->linear_scratch_bytes);
    memset(d->moe_scratch, 0xff, d->moe_scratch_bytes);
    return d;
}

static void close_device(struct cpu_device *d)
{
    free(d->linear_scratch);
    free(d->moe_scratch);
    fixture_close(d);
}

/* Distinct within a row and far enough apart for any way of computing the scores. */
static float *random_logits(int32_t rows, int32_t experts)
{
    float *logits = malloc((size_t)(rows * experts) * sizeof *logits);
    for (int32_t r = 0; r < rows; r++) {
        float *row = logits + r * experts;
        int32_t *order = random_order(experts);
        for (int32_t i = 0; i < experts; i++)
            row[i] = 0.07f * (float)(order[i] - experts / 2);
        free(order);
    }
    return logits;
}

static void run(struct cpu_device *d, const struct mixture *m, float *out, const float *x,
                const float *logits, int32_t rows)
{
    struct tensor to = tensor_view(out, DTYPE_F32, rows, m->hidden);
    struct tensor from = tensor_view((void *)(uintptr_t)x, DTYPE_F32, rows, m->hidden);
    struct tensor scores =
        tensor_view((void *)(uintptr_t)logits, DTYPE_F32, rows, m->moe.num_experts);
    cpu_moe(&d->base, &to, &from, &scores, &m->moe);
}

/* --- the choice, by sorting ------------------------------------------------------------------- */

static float choice_of(const struct moe *moe, const float *logits, int32_t i)
{
    float score = moe->scoring == MOE_SIGMOID ? 1.0f / (1.0f + expf(-logits[i])) : logits[i];
    return moe->score_bias ? score + moe->score_bias[i] : score;
}

/* How many are better than number i: its rank. */
static int32_t rank_of(const float *values, int32_t count, int32_t i)
{
    int32_t rank = 0;
    for (int32_t j = 0; j < count; j++)
        rank += values[j] > values[i] || (values[j] == values[i] && j < i);
    return rank;
}

static void expected_ids(const struct moe *moe, const float *logits, int32_t *ids)
{
    float choice[MAX_EXPERTS], groups[MAX_EXPERTS];
    int32_t num_groups = moe->num_groups > 1 ? moe->num_groups : 1;
    int32_t size = moe->num_experts / num_groups;
    for (int32_t i = 0; i < moe->num_experts; i++)
        choice[i] = choice_of(moe, logits, i);
    for (int32_t g = 0; g < num_groups; g++) {
        groups[g] = 0;
        for (int32_t i = 0; i < size; i++) {
            int32_t rank = rank_of(choice + g * size, size, i);
            if (rank == 0 || (rank == 1 && moe->group_score == MOE_GROUP_TOP2))
                groups[g] += choice[g * size + i];
        }
    }
    for (int32_t i = 0; i < moe->num_experts && moe->num_groups > 1; i++)
        if (rank_of(groups, num_groups, i / size) >= moe->topk_groups)
            choice[i] = -INFINITY;
    for (int32_t i = 0; i < moe->num_experts; i++) {
        int32_t rank = rank_of(choice, moe->num_experts, i);
        if (rank < moe->num_experts_per_tok)
            ids[rank] = i;
    }
}

static void expected_weights(const struct moe *moe, const float *logits, const int32_t *ids,
                             double *weights)
{
    double all = 0, chosen = 0, sum = 0;
    for (int32_t i = 0; i < moe->num_experts; i++)
        all += exp((double)logits[i]);
    for (int32_t n = 0; n < moe->num_experts_per_tok; n++)
        chosen += exp((double)logits[ids[n]]);
    for (int32_t n = 0; n < moe->num_experts_per_tok; n++) {
        double l = (double)logits[ids[n]];
        weights[n] = moe->scoring == MOE_SIGMOID   ? 1 / (1 + exp(-l))
                     : moe->scoring == MOE_SOFTMAX ? exp(l) / all
                                                   : exp(l) / chosen;
        sum += weights[n];
    }
    for (int32_t n = 0; n < moe->num_experts_per_tok; n++)
        weights[n] *= (double)moe->routed_scaling_factor / (moe->norm_topk_prob ? sum : 1);
}

static void test_the_choice_matches_a_sort(void **state)
{
    (void)state;
    for (int round = 0; round < 3000; round++) {
        struct mixture m = { 0 };
        int32_t ids[MAX_EXPERTS], wanted[MAX_EXPERTS];
        float weights[MAX_EXPERTS];
        double exact[MAX_EXPERTS];
        random_rules(&m);
        float *logits = random_logits(1, m.moe.num_experts);
        moe_route(&m.moe, logits, ids, weights);
        expected_ids(&m.moe, logits, wanted);
        assert_memory_equal(ids, wanted, (size_t)m.moe.num_experts_per_tok * sizeof *ids);
        expected_weights(&m.moe, logits, ids, exact);
        assert_close(weights, exact, (size_t)m.moe.num_experts_per_tok, 0, 3e-6, "weights");
        free(logits);
    }
}

/* --- the choice, by hand ---------------------------------------------------------------------- */

static void test_equal_scores_go_to_the_lower_id(void **state)
{
    (void)state;
    const float logits[6] = { 1, 3, 3, 1, 3, 1 };
    for (int scoring = MOE_SOFTMAX; scoring <= MOE_SIGMOID; scoring++) {
        struct moe moe = { .num_experts = 6,
                           .num_experts_per_tok = 4,
                           .scoring = (enum moe_scoring)scoring,
                           .norm_topk_prob = true,
                           .routed_scaling_factor = 1 };
        int32_t ids[4];
        float weights[4];
        moe_route(&moe, logits, ids, weights);
        assert_memory_equal(ids, ((int32_t[]){ 1, 2, 4, 0 }), sizeof ids);
        assert_true(weights[0] == weights[1] && weights[1] == weights[2]);
        assert_true(weights[3] < weights[2]);
    }
}

static void test_groups_limit_the_choice(void **state)
{
    (void)state;
    /* Three groups of two. By the best expert the last two groups win; by the two best, the first
     * two. The best of all scores is not among the chosen where its group is not. */
    const float logits[6] = { 2, 2, 1, 2.5f, 3, -4 };
    struct moe moe = { .num_experts = 6,
                       .num_experts_per_tok = 2,
                       .scoring = MOE_SOFTMAX_TOPK,
                       .group_score = MOE_GROUP_MAX,
                       .num_groups = 3,
                       .topk_groups = 2,
                       .routed_scaling_factor = 1 };
    int32_t ids[2];
    float weights[2];
    moe_route(&moe, logits, ids, weights);
    assert_memory_equal(ids, ((int32_t[]){ 4, 3 }), sizeof ids);
    moe.group_score = MOE_GROUP_TOP2;
    moe_route(&moe, logits, ids, weights);
    assert_memory_equal(ids, ((int32_t[]){ 3, 0 }), sizeof ids);
}

static void test_the_bias_chooses_and_does_not_weigh(void **state)
{
    (void)state;
    const float logits[3] = { 0, 0, 0 }, bias[3] = { -0.1f, 0.3f, 0.2f };
    struct moe moe = { .num_experts = 3,
                       .num_experts_per_tok = 2,
                       .scoring = MOE_SIGMOID,
                       .routed_scaling_factor = 3,
                       .score_bias = bias };
    int32_t ids[2];
    float weights[2];
    moe_route(&moe, logits, ids, weights);
    assert_memory_equal(ids, ((int32_t[]){ 1, 2 }), sizeof ids);
    assert_true(weights[0] == 1.5f && weights[1] == 1.5f);
    moe.norm_topk_prob = true;
    moe_route(&moe, logits, ids, weights);
    assert_true(weights[0] == 1.5f && weights[1] == 1.5f);
}

static void test_any_logits_give_valid_ids(void **state)
{
    (void)state;
    for (int round = 0; round < 2000; round++) {
        struct mixture m = { 0 };
        float logits[MAX_EXPERTS], weights[MAX_EXPERTS];
        int32_t ids[MAX_EXPERTS];
        bool seen[MAX_EXPERTS] = { false };
        random_rules(&m);
        for (int32_t i = 0; i < m.moe.num_experts; i++)
            logits[i] = ((const float[]){ NAN, INFINITY, -INFINITY, 0, 1e38f,
                                          -1e38f })[random_int(0, round % 2 ? 5 : 0)];
        moe_route(&m.moe, logits, ids, weights);
        for (int32_t n = 0; n < m.moe.num_experts_per_tok; n++) {
            assert_in_range(ids[n], 0, m.moe.num_experts - 1);
            assert_false(seen[ids[n]]);
            seen[ids[n]] = true;
        }
        if (round % 2 == 0)
            assert_true(isnan(weights[0]));
    }
}

/* --- the mixture ------------------------------------------------------------------------------ */

static double exact_activation(double x, enum activation act)
{
    switch (act) {
    case ACT_SILU:
        return x / (1 + exp(-x));
    case ACT_GELU:
        return 0.5 * x * (1 + erf(x * M_SQRT1_2));
    case ACT_GELU_TANH:
        return 0.5 * x * (1 + tanh(sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
    case ACT_SWIGLU_OAI:
        x = fmin(x, 7);
        return x / (1 + exp(-1.702 * x));
    default:
        return x > 0 ? x : 0;
    }
}

static double exact_product(double gate, double up, enum activation act)
{
    if (act == ACT_SWIGLU_OAI)
        up = fmax(fmin(up, 7), -7) + 1;
    return exact_activation(gate, act) * up;
}

static double dot(const float *w, const double *x, int32_t count)
{
    double sum = 0;
    for (int32_t i = 0; i < count; i++)
        sum += (double)w[i] * x[i];
    return sum;
}

/* One expert for one token, in double. */
static void exact_expert(const struct mixture *m, int32_t e, const float *x, double *y)
{
    double wide[160], middle[80];
    const float *gate_up = m->gate_up_values + (size_t)e * 2 * (size_t)(m->inner * m->hidden);
    const float *down = m->down_values + (size_t)e * (size_t)(m->inner * m->hidden);
    const float *bias = m->gate_up[e].bias, *down_bias = m->down[e].bias;
    for (int32_t i = 0; i < m->hidden; i++)
        wide[i] = (double)x[i];
    for (int32_t i = 0; i < m->inner; i++) {
        double gate = dot(gate_up + i * m->hidden, wide, m->hidden);
        double up = dot(gate_up + (m->inner + i) * m->hidden, wide, m->hidden);
        if (bias) {
            gate += (double)bias[i];
            up += (double)bias[m->inner + i];
        }
        middle[i] = exact_product(gate, up, m->moe.act);
    }
    for (int32_t i = 0; i < m->hidden; i++)
        y[i] = dot(down + i * m->inner, middle, m->inner) + (down_bias ? (double)down_bias[i] : 0);
}

static void check_against_double(struct cpu_device *d, enum dtype dtype)
{
    struct mixture *m = mixture_new(d, dtype);
    int32_t rows = RANDOM_OF(1, 2, 9, 40);
    float *x = values_of(rows * m->hidden, 1, dtype);
    float *logits = random_logits(rows, m->moe.num_experts);
    float *out = malloc((size_t)(rows * m->hidden) * sizeof *out);
    double *exact = calloc((size_t)(rows * m->hidden), sizeof *exact);
    run(d, m, out, x, logits, rows);
    for (int32_t r = 0; r < rows; r++) {
        int32_t ids[MAX_EXPERTS];
        double weights[MAX_EXPERTS], y[160];
        const float *l = logits + r * m->moe.num_experts;
        expected_ids(&m->moe, l, ids);
        expected_weights(&m->moe, l, ids, weights);
        for (int32_t n = 0; n < m->moe.num_experts_per_tok; n++) {
            exact_expert(m, ids[n], x + r * m->hidden, y);
            for (int32_t i = 0; i < m->hidden; i++)
                exact[r * m->hidden + i] += weights[n] * y[i];
        }
    }
    /* Between the products bfloat16 rounds once more, by 2^-9 of each of `inner` terms. */
    double weight = 0;
    for (int32_t n = 0; n < m->moe.num_experts_per_tok; n++)
        weight += (double)m->moe.routed_scaling_factor;
    double unit = dtype == DTYPE_BF16 ? 0.02 : 2e-5;
    assert_close(out, exact, (size_t)(rows * m->hidden), unit * (1 + weight), unit, "mixture");
    free(x);
    free(logits);
    free(out);
    free(exact);
    mixture_free(m);
}

static void test_against_double(void **state)
{
    (void)state;
    enum cpu_isa isas[NUM_CPU_ISAS];
    int num_isas = fixture_isas(isas);
    for (int i = 0; i < num_isas; i++)
        for (int32_t threads = 1; threads <= MAX_THREADS; threads++) {
            struct cpu_device *d = open_device(isas[i], threads, 40);
            for (int round = 0; round < 5; round++) {
                check_against_double(d, DTYPE_F32);
                check_against_double(d, DTYPE_BF16);
                check_against_double(d, DTYPE_F16);
            }
            close_device(d);
        }
}

/* One token and one expert at a time, with the ops that dense layers use. */
static void plain_token(struct cpu_device *d, const struct mixture *m, const float *x,
                        const float *logits, float *out)
{
    int32_t ids[MAX_EXPERTS];
    float weights[MAX_EXPERTS], inner[160], middle[80], y[160];
    struct tensor from = tensor_view((void *)(uintptr_t)x, DTYPE_F32, 1, m->hidden);
    struct tensor gate_up = tensor_view(inner, DTYPE_F32, 1, 2 * m->inner);
    struct tensor activated = tensor_view(middle, DTYPE_F32, 1, m->inner);
    struct tensor to = tensor_view(y, DTYPE_F32, 1, m->hidden);
    moe_route(&m->moe, logits, ids, weights);
    for (int32_t n = 0; n < m->moe.num_experts_per_tok; n++) {
        cpu_linear(&d->base, &gate_up, &from, &m->gate_up[ids[n]]);
        cpu_act_and_mul(&d->base, &activated, &gate_up, m->moe.act);
        cpu_linear(&d->base, &to, &activated, &m->down[ids[n]]);
        for (int32_t i = 0; i < m->hidden; i++)
            out[i] = n == 0 ? weights[n] * y[i] : out[i] + weights[n] * y[i];
    }
}

static void check_same_bits(struct cpu_device *d, struct cpu_device *other, int32_t rows)
{
    struct mixture *m = mixture_new(d, (enum dtype)RANDOM_OF(DTYPE_F32, DTYPE_BF16, DTYPE_F16));
    size_t count = (size_t)(rows * m->hidden);
    float *x = random_floats(count, 1), *logits = random_logits(rows, m->moe.num_experts);
    float *out = malloc(count * sizeof *out), *again = malloc(count * sizeof *out);
    if (random_int(0, 1) && m->moe.num_experts > 1) /* all tokens to the same few experts */
        for (int32_t r = 1; r < rows; r++)
            memcpy(logits + r * m->moe.num_experts, logits,
                   (size_t)m->moe.num_experts * sizeof *logits);
    run(d, m, out, x, logits, rows);
    for (int32_t r = 0; r < rows; r++)
        plain_token(d, m, x + r * m->hidden, logits + r * m->moe.num_experts,
                    again + r * m->hidden);
    assert_same_bits(out, again, count, "one by one");
    memcpy(again, x, count * sizeof *x);
    run(other, m, again, again, logits, rows); /* in place, on other threads */
    assert_same_bits(again, out, count, "other threads");
    int32_t begin = random_int(0, rows - 1), some = random_int(1, rows - begin);
    run(other, m, again, x + begin * m->hidden, logits + begin * m->moe.num_experts, some);
    assert_same_bits(again, out + begin * m->hidden, (size_t)(some * m->hidden), "some rows");
    free(x);
    free(logits);
    free(out);
    free(again);
    mixture_free(m);
}

static void test_a_row_depends_on_itself_alone(void **state)
{
    (void)state;
    enum cpu_isa isas[NUM_CPU_ISAS];
    int num_isas = fixture_isas(isas);
    for (int i = 0; i < num_isas; i++)
        for (int32_t threads = 1; threads <= MAX_THREADS; threads++) {
            /* 1100 tokens with their experts take several turns. */
            struct cpu_device *d = open_device(isas[i], threads, 1100);
            struct cpu_device *other = open_device(isas[i], random_int(1, MAX_THREADS), 100);
            for (int round = 0; round < 4; round++)
                check_same_bits(d, other, RANDOM_OF(1, 3, 17, 100));
            check_same_bits(d, other, 1100);
            close_device(other);
            close_device(d);
        }
}

/* A token whose router gives no number gets none, and no other token is touched. */
static void test_nan_stays_in_its_row(void **state)
{
    (void)state;
    struct cpu_device *d = open_device(cpu_isa_detect(), 2, 3);
    struct mixture *m = mixture_new(d, DTYPE_F32);
    float *x = random_floats(3 * (size_t)m->hidden, 1);
    float *logits = random_logits(3, m->moe.num_experts), out[3 * 160], clean[3 * 160];
    run(d, m, clean, x, logits, 3);
    for (int32_t i = 0; i < m->moe.num_experts; i++)
        logits[m->moe.num_experts + i] = NAN;
    run(d, m, out, x, logits, 3);
    for (int32_t i = 0; i < m->hidden; i++)
        assert_true(isnan(out[m->hidden + i]));
    assert_same_bits(out, clean, (size_t)m->hidden, "the row before");
    assert_same_bits(out + 2 * m->hidden, clean + 2 * m->hidden, (size_t)m->hidden,
                     "the row behind");
    free(x);
    free(logits);
    mixture_free(m);
    close_device(d);
}

static void test_nothing_is_reserved_without_experts(void **state)
{
    (void)state;
    struct workspace_desc w = { .max_num_tokens = 100 };
    assert_int_equal(cpu_moe_scratch_bytes(NULL, &w), 0);
}

static void test_add_gated(void **state)
{
    (void)state;
    struct cpu_device *d = open_device(cpu_isa_detect(), 2, 1);
    const int32_t rows = random_int(1, 900), cols = random_int(1, 130);
    size_t count = (size_t)(rows * cols);
    float *x = random_floats(count, 1), *y = random_floats(count, 1);
    float *gate = random_floats((size_t)rows, 3);
    double *exact = malloc(count * sizeof *exact);
    for (int32_t r = 0; r < rows; r++)
        for (int32_t i = 0; i < cols; i++)
            exact[r * cols + i] =
                (double)x[r * cols + i] + (double)y[r * cols + i] / (1 + exp(-(double)gate[r]));
    struct tensor to = tensor_view(x, DTYPE_F32, rows, cols);
    struct tensor from = tensor_view(y, DTYPE_F32, rows, cols);
    struct tensor by = tensor_view(gate, DTYPE_F32, rows, 1);
    cpu_add_gated(&d->base, &to, &from, &by);
    assert_close(x, exact, count, 1e-6, 1e-6, "gated sum");
    free(x);
    free(y);
    free(gate);
    free(exact);
    close_device(d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_choice_matches_a_sort),
        cmocka_unit_test(test_equal_scores_go_to_the_lower_id),
        cmocka_unit_test(test_groups_limit_the_choice),
        cmocka_unit_test(test_the_bias_chooses_and_does_not_weigh),
        cmocka_unit_test(test_any_logits_give_valid_ids),
        cmocka_unit_test(test_against_double),
        cmocka_unit_test(test_a_row_depends_on_itself_alone),
        cmocka_unit_test(test_nan_stays_in_its_row),
        cmocka_unit_test(test_nothing_is_reserved_without_experts),
        cmocka_unit_test(test_add_gated),
    };
    fixture_start();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
