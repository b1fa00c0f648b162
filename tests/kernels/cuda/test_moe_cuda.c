/* test_moe_cuda.c - mixtures of experts on the GPU: the choice and the sums against the scalar CPU,
 * whatever the router's rules and the sizes; that a token's bits do not depend on the others; and a
 * linear for each head against the linears one by one. */
#include "tests/kernels/cuda/cuda_fixture.h"

#include "kernels/cpu/moe_route.h"
#include "kernels/cpu/op_kernels.h"
#include "kernels/quant/fp8.h"
#include "kernels/quant/ggml_formats.h"
#include "kernels/quant/int_group.h"

enum { MAX_EXPERTS = 70, MAX_CHOSEN = 12, MAX_TOKENS = 150, MAX_HIDDEN = 330, MAX_INNER = 270 };

static struct workspace_desc limits(void)
{
    struct workspace_desc w = products_workspace(MAX_TOKENS, MAX_HIDDEN, 512);
    w.num_experts = MAX_EXPERTS;
    w.num_experts_per_tok = MAX_CHOSEN;
    w.moe_hidden_size = MAX_HIDDEN;
    w.moe_intermediate_size = MAX_INNER;
    return w;
}

/* --- the same mixture on both devices --------------------------------------------------------- */

/* One kind of linear of all experts: [experts, out, in] and its biases, in one block each. */
struct experts {
    int32_t out, in;
    struct linear cpu[MAX_EXPERTS], gpu[MAX_EXPERTS];
    void *rows[MAX_EXPERTS]; /* as checkpoints bring them */
    char *cpu_memory;
    float *bias;
    int32_t *orders;
};

struct mixture {
    struct moe cpu, gpu;
    const struct quant_format *format;
    int32_t hidden, inner;
    struct experts gate_up, down;
    float *score_bias;
};

/* Plans and packs the same rows on one device; expert e's memory lies e times `distance` on. */
static void pack_experts(const struct backend *ops, struct device *d, struct linear *l,
                         int32_t count, char *memory, size_t distance, void *const *rows)
{
    for (int32_t e = 0; e < count; e++) {
        l[e].packed = memory + (size_t)e * distance;
        ops->linear_pack(d, &l[e], 0, l[e].out_features, rows[e], l[e].format);
    }
}

static size_t plan_experts(const struct backend *ops, struct device *d, struct linear *l,
                           int32_t count, const struct linear *like)
{
    struct status st;
    for (int32_t e = 0; e < count; e++) {
        l[e] = *like;
        if (!ops->linear_plan(d, &l[e], &st))
            gpu_fail("linear_plan", &st);
    }
    /* Some room between them. */
    return (l->packed_bytes + 63) / 64 * 64 + 64;
}

/* MXFP4, which nothing here quantizes to: any codes, and exponents that make values of the size
 * that the others have. The caller frees them. */
static void *random_rows(const struct quant_format *f, int32_t out, int32_t in)
{
    const size_t row_bytes = quant_row_bytes(f, in);
    unsigned char *rows = malloc((size_t)out * row_bytes);
    for (size_t i = 0; f == &quant_format_mxfp4 && i < (size_t)out * row_bytes; i++)
        rows[i] = i % (size_t)f->block_bytes == 0 ? (unsigned char)random_int(118, 122)
                                                  : (unsigned char)random_word();
    float *values = random_floats((size_t)out * (size_t)in, 1.0f / sqrtf((float)in));
    for (int32_t r = 0; f != &quant_format_mxfp4 && r < out; r++)
        f->quantize(f, rows + (size_t)r * row_bytes, values + (size_t)r * (size_t)in, in);
    free(values);
    return rows;
}

static void random_experts(struct experts *x, int32_t count, int32_t out, int32_t in,
                           const struct quant_format *format)
{
    const struct linear like = { .out_features = out, .in_features = in, .format = format };
    const bool has_bias = random_int(0, 1), has_order = random_int(0, 3) == 0;
    *x = (struct experts){ .out = out, .in = in };
    for (int32_t e = 0; e < count; e++)
        x->rows[e] = random_rows(format, out, in);
    const size_t cpu_each = plan_experts(&backend_cpu, gpu.cpu, x->cpu, count, &like);
    assert_int_equal(posix_memalign((void **)&x->cpu_memory, 64, cpu_each * (size_t)count), 0);
    pack_experts(&backend_cpu, gpu.cpu, x->cpu, count, x->cpu_memory, cpu_each, x->rows);
    const size_t gpu_each = plan_experts(gpu.ops, gpu.device, x->gpu, count, &like);
    pack_experts(gpu.ops, gpu.device, x->gpu, count, gpu_new(&gpu, gpu_each * (size_t)count),
                 gpu_each, x->rows);
    x->bias = random_floats((size_t)(count * out), 0.5f);
    x->orders = malloc((size_t)(count * in) * sizeof *x->orders);
    for (int32_t e = 0; e < count; e++) {
        int32_t *order = random_order(in);
        memcpy(x->orders + e * in, order, (size_t)in * sizeof *order);
        free(order);
    }
    const float *bias_at = gpu_put(&gpu, x->bias, (size_t)(count * out) * sizeof *x->bias);
    const int32_t *orders_at = gpu_put(&gpu, x->orders, (size_t)(count * in) * sizeof(int32_t));
    for (int32_t e = 0; e < count; e++) {
        x->cpu[e].bias = has_bias ? x->bias + e * out : NULL;
        x->gpu[e].bias = has_bias ? bias_at + e * out : NULL;
        x->cpu[e].input_order = has_order ? x->orders + e * in : NULL;
        x->gpu[e].input_order = has_order ? orders_at + e * in : NULL;
    }
    gpu_sync(&gpu);
}

static void random_rules(struct moe *moe)
{
    moe->scoring = (enum moe_scoring)random_int(MOE_SOFTMAX, MOE_SIGMOID);
    /* As published; and sums of two softmax scores would depend on their rounding. */
    moe->group_score =
        moe->scoring == MOE_SIGMOID && random_int(0, 1) ? MOE_GROUP_TOP2 : MOE_GROUP_MAX;
    moe->norm_topk_prob = random_int(0, 1);
    moe->routed_scaling_factor = random_int(0, 1) ? 1.0f : 2.5f;
    moe->act = (enum activation)random_int(0, NUM_ACTIVATIONS - 1);
    moe->num_experts = RANDOM_OF(1, 2, 5, 8, 12, 64, 70);
    moe->num_experts_per_tok = random_int(1, moe->num_experts < 8 ? moe->num_experts : 8);
    if (moe->num_experts <= MAX_CHOSEN && random_int(0, 3) == 0)
        moe->num_experts_per_tok = moe->num_experts;
    moe->num_groups = moe->topk_groups = 0;
    if (moe->num_experts % 4 == 0 && random_int(0, 1)) {
        const int32_t size = moe->num_experts / 4;
        moe->num_groups = 4;
        moe->topk_groups = random_int((moe->num_experts_per_tok + size - 1) / size, 4);
    }
}

static struct mixture *mixture_new(const struct quant_format *format, int32_t hidden, int32_t inner)
{
    struct mixture *m = calloc(1, sizeof *m);
    m->format = format;
    m->hidden = hidden;
    m->inner = inner;
    random_rules(&m->cpu);
    const int32_t count = m->cpu.num_experts;
    random_experts(&m->gate_up, count, 2 * inner, hidden, format);
    random_experts(&m->down, count, hidden, inner, format);
    m->score_bias = malloc((size_t)count * sizeof *m->score_bias);
    for (int32_t i = 0; i < count; i++)
        m->score_bias[i] = random_uniform(-0.5f, 0.5f);
    m->gpu = m->cpu;
    m->cpu.gate_up = m->gate_up.cpu;
    m->cpu.down = m->down.cpu;
    m->gpu.gate_up = m->gate_up.gpu;
    m->gpu.down = m->down.gpu;
    /* With a softmax no model has one. */
    if (m->cpu.scoring == MOE_SIGMOID && random_int(0, 1)) {
        m->cpu.score_bias = m->score_bias;
        m->gpu.score_bias = gpu_put(&gpu, m->score_bias, (size_t)count * sizeof(float));
    }
    return m;
}

static void experts_free(struct experts *x)
{
    for (int32_t e = 0; e < MAX_EXPERTS; e++)
        free(x->rows[e]);
    free(x->cpu_memory);
    free(x->bias);
    free(x->orders);
}

static void mixture_free(struct mixture *m)
{
    experts_free(&m->gate_up);
    experts_free(&m->down);
    free(m->score_bias);
    free(m);
    gpu_release(&gpu);
}

static const char *describe(const struct mixture *m, int32_t rows)
{
    static char text[256];
    snprintf(text, sizeof text,
             "%s, %d rows of %d, %d inside, %d of %d experts, %d of %d groups, scoring %d, act %d",
             m->format->name, rows, m->hidden, m->inner, m->cpu.num_experts_per_tok,
             m->cpu.num_experts, m->cpu.topk_groups, m->cpu.num_groups, (int)m->cpu.scoring,
             (int)m->cpu.act);
    return text;
}

/* Distinct within a row and far enough apart for any way of computing the scores. */
static struct tensor random_logits(int32_t rows, int32_t experts)
{
    struct tensor t = random_tensor(rows, experts, 1);
    for (int32_t r = 0; r < rows; r++) {
        int32_t *order = random_order(experts);
        for (int32_t i = 0; i < experts; i++)
            ((float *)t.data)[r * t.stride + i] = 0.07f * (float)(order[i] - experts / 2);
        free(order);
    }
    return t;
}

/* The caller frees data. */
static struct tensor run_gpu(const struct mixture *m, const struct tensor *x,
                             const struct tensor *logits, bool in_place)
{
    const int32_t kept = gpu.num_buffers;
    struct tensor out = random_tensor(x->rows, x->cols, 1);
    struct tensor x_at = gpu_tensor(&gpu, x), logits_at = gpu_tensor(&gpu, logits);
    struct tensor out_at = x_at;
    if (in_place)
        out.stride = x->stride, out.data = realloc(out.data, tensor_bytes(x));
    else
        out_at = gpu_tensor(&gpu, &out);
    gpu.ops->moe(gpu.device, &out_at, &x_at, &logits_at, &m->gpu);
    gpu_get_tensor(&gpu, &out, &out_at);
    while (gpu.num_buffers > kept)
        gpu.ops->free(gpu.device, &gpu.buffers[--gpu.num_buffers]);
    return out;
}

static struct tensor rows_of(const struct tensor *t, int32_t begin, int32_t count)
{
    struct tensor rows = *t;
    rows.data = (float *)t->data + begin * t->stride;
    rows.rows = count;
    return rows;
}

/* --- how far the two may be apart ------------------------------------------------------------- */

/* The GPU rounds to 16 bits what the CPU does not, or what another order of sums has given: x, what
 * goes into down, and quantized weights. Each is off by up to `unit` of itself, independently; that
 * their sum strays by 6 times the root of the sum of the squares has a probability below 3e-8
 * (Hoeffding, 1963), and far below it, as most roundings are less than a unit. */
struct noise {
    const struct mixture *m;
    double unit, weight_factor; /* 2 where weights are rounded as well as what meets them, else 1 */
    float gate_up[2 * MAX_INNER * MAX_HIDDEN], down[MAX_HIDDEN * MAX_INNER]; /* of one expert */
    double variance[MAX_TOKENS * MAX_HIDDEN];                                /* [rows, hidden] */
};

static void expert_weights(float *dst, const struct experts *x, int32_t e,
                           const struct quant_format *f)
{
    const char *row = x->rows[e];
    for (int32_t r = 0; r < x->out; r++, row += quant_row_bytes(f, x->in))
        f->dequantize(f, dst + r * x->in, row, 0, x->in);
}

/* An element of what gate_up gives, and how far it strays. */
static float product(const struct noise *n, const struct linear *l, int32_t row, const float *x,
                     float *stray)
{
    float sum = l->bias ? l->bias[row] : 0, squares = 0;
    const float *w = n->gate_up + row * l->in_features;
    for (int32_t i = 0; i < l->in_features; i++) {
        const float p = w[i] * x[l->input_order ? l->input_order[i] : i];
        sum += p;
        squares += p * p;
    }
    *stray = (float)(n->unit * sqrt(n->weight_factor * (double)squares));
    return sum;
}

static double activated(const struct noise *n, float gate, float up)
{
    float h;
    activation_kernel_for(cpu_device_of(gpu.cpu))->run(&h, &gate, &up, 1, n->m->cpu.act);
    return (double)h;
}

/* The square of how far that is off where gate and up are. */
static double off_by(const struct noise *n, float gate, float up, float d_gate, float d_up)
{
    const double h = activated(n, gate, up);
    return fmax(pow(activated(n, gate + d_gate, up + d_up) - h, 2),
                pow(activated(n, gate - d_gate, up - d_up) - h, 2));
}

/* The variance that expert e with this weight brings into a row. */
static void add_variance(const struct noise *n, double *row, const float *x, int32_t e,
                         float weight)
{
    const struct linear *down = &n->m->cpu.down[e];
    double variance[MAX_INNER];
    for (int32_t j = 0; j < down->in_features; j++) {
        float dg, du;
        const float g = product(n, &n->m->cpu.gate_up[e], j, x, &dg);
        const float u = product(n, &n->m->cpu.gate_up[e], n->m->inner + j, x, &du);
        variance[j] = off_by(n, g, u, dg, 0) + off_by(n, g, u, 0, du) +
                      n->weight_factor * pow(n->unit * activated(n, g, u), 2);
    }
    for (int32_t i = 0; i < down->out_features; i++)
        for (int32_t j = 0; j < down->in_features; j++)
            row[i] += pow((double)(weight * n->down[i * down->in_features + j]), 2) *
                      variance[down->input_order ? down->input_order[j] : j];
}

/* Of the rows from `first` on, one in `step`. */
static struct noise *noise_new(const struct mixture *m, const struct tensor *x,
                               const struct tensor *logits, int32_t first, int32_t step)
{
    struct noise *n = calloc(1, sizeof *n);
    n->m = m;
    n->unit = m->format->dtype == DTYPE_F16 ? 0x1p-11 : 0x1p-8;
    n->weight_factor = quant_format_is_plain(m->format) ? 1 : 2;
    for (int32_t e = 0; m->format != &quant_format_float32 && e < m->cpu.num_experts; e++) {
        expert_weights(n->gate_up, &m->gate_up, e, m->format);
        expert_weights(n->down, &m->down, e, m->format);
        for (int32_t r = first; r < x->rows; r += step) {
            int32_t ids[MAX_EXPERTS];
            float weights[MAX_EXPERTS], *row = (float *)x->data + r * x->stride;
            moe_route(&m->cpu, (float *)logits->data + r * logits->stride, ids, weights);
            for (int32_t k = 0; k < m->cpu.num_experts_per_tok; k++)
                if (ids[k] == e)
                    add_variance(n, n->variance + r * m->hidden, row, e, weights[k]);
        }
    }
    return n;
}

/* --- tests ------------------------------------------------------------------------------------ */

static void check_mixture(const struct quant_format *format, int32_t rows)
{
    const bool plain = quant_format_is_plain(format);
    struct mixture *m =
        mixture_new(format, plain ? RANDOM_OF(1, 7, 32, 64, 97, 330) : RANDOM_OF(32, 64, 160, 320),
                    plain ? RANDOM_OF(1, 3, 16, 33, 80, 270) : RANDOM_OF(32, 96, 256));
    struct tensor x = random_tensor(rows, m->hidden, 1);
    struct tensor logits = random_logits(rows, m->cpu.num_experts), want = copy_tensor(&x);
    backend_cpu.moe(gpu.cpu, &want, &x, &logits, &m->cpu);
    struct tensor got = run_gpu(m, &x, &logits, random_int(0, 1));
    /* Not each of many: that they have the bits which they have alone is tested below. */
    const int32_t step = 1 + rows / 32, first = random_int(0, step - 1);
    struct noise *n = noise_new(m, &x, &logits, first, step);
    const double weight = m->cpu.num_experts_per_tok * (double)m->cpu.routed_scaling_factor;
    for (int32_t r = first; r < rows; r += step)
        for (int32_t i = 0; i < m->hidden; i++) {
            const double a = (double)((float *)got.data)[r * got.stride + i];
            const double b = (double)((float *)want.data)[r * want.stride + i];
            const double stray = 6 * sqrt(n->variance[r * m->hidden + i]);
            if (!(fabs(a - b) <= stray + 4e-6 * (1 + weight + fabs(b)))) /* sums of float32 */
                fail_msg("%s: row %d, element %d is %.9g, not %.9g; it may stray by %.3g",
                         describe(m, rows), r, i, a, b, stray);
        }
    free(n);
    free(x.data);
    free(logits.data);
    free(want.data);
    free(got.data);
    mixture_free(m);
}

static void follows_the_cpu(void **state)
{
    (void)state;
    static const int32_t rows[] = { 1, 2, 9, 17, 33 };
    for (int dtype = DTYPE_F32; dtype <= DTYPE_F16; dtype++)
        for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
            check_mixture(quant_format_of_dtype((enum dtype)dtype), rows[i]);
}

static void quantized_experts(void **state)
{
    (void)state;
    static const int32_t rows[] = { 1, 9, 40, MAX_TOKENS };
    const struct quant_format fp8 = fp8_format(32, DTYPE_F16);
    const struct quant_format int4 =
        int_group_format(&(struct int_group_params){ 4, 32, QUANT_OFFSET_MIN, DTYPE_F16 });
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        check_mixture(&quant_format_mxfp4, rows[i]);
        check_mixture(&fp8, rows[i]);
        check_mixture(&int4, rows[i]);
    }
}

/* Alone, with some others or with all: tiles of 8, 16, 32 and 128 rows. */
static void rows_are_alone(void **state)
{
    (void)state;
    for (int round = 0; round < 3; round++) {
        struct mixture *m =
            mixture_new(quant_format_of_dtype((enum dtype)round), 130, RANDOM_OF(20, 65));
        struct tensor x = random_tensor(MAX_TOKENS, m->hidden, 1);
        struct tensor logits = random_logits(MAX_TOKENS, m->cpu.num_experts);
        struct tensor whole = run_gpu(m, &x, &logits, false);
        for (int i = 0; i < 4; i++) {
            const int32_t count = RANDOM_OF(1, 3, 20, 60);
            const int32_t begin = random_int(0, MAX_TOKENS - count);
            struct tensor x_part = rows_of(&x, begin, count);
            struct tensor logits_part = rows_of(&logits, begin, count);
            struct tensor part = run_gpu(m, &x_part, &logits_part, random_int(0, 1));
            struct tensor same = rows_of(&whole, begin, count);
            assert_tensors_equal(&part, &same, describe(m, count));
            free(part.data);
        }
        free(x.data);
        free(logits.data);
        free(whole.data);
        mixture_free(m);
    }
}

/* All tokens to the same expert, and none to most: full tiles and empty experts. */
static void one_expert_for_all(void **state)
{
    (void)state;
    for (int dtype = DTYPE_F32; dtype <= DTYPE_F16; dtype++) {
        struct mixture *m = mixture_new(quant_format_of_dtype((enum dtype)dtype), 40, 24);
        struct tensor x = random_tensor(MAX_TOKENS, m->hidden, 1);
        struct tensor row = random_logits(1, m->cpu.num_experts);
        struct tensor logits = random_tensor(MAX_TOKENS, m->cpu.num_experts, 1);
        for (int32_t r = 0; r < MAX_TOKENS; r++)
            memcpy((float *)logits.data + r * logits.stride, row.data,
                   (size_t)row.cols * sizeof(float));
        struct tensor whole = run_gpu(m, &x, &logits, false);
        const int32_t at = random_int(0, MAX_TOKENS - 1);
        struct tensor x_row = rows_of(&x, at, 1), same = rows_of(&whole, at, 1);
        struct tensor alone = run_gpu(m, &x_row, &row, false);
        assert_tensors_equal(&alone, &same, describe(m, MAX_TOKENS));
        free(x.data);
        free(row.data);
        free(logits.data);
        free(whole.data);
        free(alone.data);
        mixture_free(m);
    }
}

/* Experts whose only output is their number: what the weights and the order of ids make of it shows
 * the choice itself. Equal scores, NaN and infinities among the logits. */
static void the_choice(void **state)
{
    (void)state;
    for (int round = 0; round < 60; round++) {
        struct moe moe = { 0 };
        int32_t ids[MAX_EXPERTS];
        float weights[MAX_EXPERTS], want[MAX_EXPERTS] = { 0 };
        random_rules(&moe);
        /* relu(1 * x) * 1 * x with x = 1, times a column that marks the expert. */
        moe.act = ACT_RELU;
        const int32_t n = moe.num_experts;
        struct linear gate_up[MAX_EXPERTS], down[MAX_EXPERTS];
        const struct linear up_like = { .out_features = 2,
                                        .in_features = n,
                                        .format = &quant_format_float32 };
        const struct linear down_like = { .out_features = n,
                                          .in_features = 1,
                                          .format = &quant_format_float32 };
        float ones[2 * MAX_EXPERTS], marks[MAX_EXPERTS][MAX_EXPERTS] = { 0 };
        void *up_rows[MAX_EXPERTS], *down_rows[MAX_EXPERTS];
        for (int32_t i = 0; i < 2 * n; i++)
            ones[i] = 1;
        for (int32_t e = 0; e < n; e++) {
            marks[e][e] = 1;
            up_rows[e] = ones;
            down_rows[e] = marks[e];
        }
        const size_t up_each = plan_experts(gpu.ops, gpu.device, gate_up, n, &up_like);
        const size_t down_each = plan_experts(gpu.ops, gpu.device, down, n, &down_like);
        pack_experts(gpu.ops, gpu.device, gate_up, n, gpu_new(&gpu, up_each * (size_t)n), up_each,
                     up_rows);
        pack_experts(gpu.ops, gpu.device, down, n, gpu_new(&gpu, down_each * (size_t)n), down_each,
                     down_rows);
        gpu_sync(&gpu);
        moe.gate_up = gate_up;
        moe.down = down;
        struct tensor x = random_tensor(1, n, 1), logits = random_tensor(1, n, 1);
        for (int32_t i = 0; i < n; i++) {
            ((float *)x.data)[i] = i == 0;
            ((float *)logits.data)[i] = (float)random_int(-3, 3);
            if (round % 3 == 0 && random_int(0, 5) == 0)
                ((float *)logits.data)[i] = random_int(0, 1) ? -INFINITY : -0.0f;
        }
        struct tensor x_at = gpu_tensor(&gpu, &x), logits_at = gpu_tensor(&gpu, &logits);
        gpu.ops->moe(gpu.device, &x_at, &x_at, &logits_at, &moe);
        gpu_get_tensor(&gpu, &x, &x_at);
        moe_route(&moe, logits.data, ids, weights);
        for (int32_t i = 0; i < moe.num_experts_per_tok; i++)
            want[ids[i]] = weights[i];
        double wide[MAX_EXPERTS];
        for (int32_t i = 0; i < n; i++)
            wide[i] = (double)want[i];
        assert_close(x.data, wide, (size_t)n, 1e-12, 3e-6, "the weight of each expert");
        free(x.data);
        free(logits.data);
        gpu_release(&gpu);
    }
}

/* NaN among the logits, or nothing else: ids stay in range and the device without a fault. */
static void nan_is_no_fault(void **state)
{
    (void)state;
    struct mixture *m = mixture_new(&quant_format_float32, 32, 16);
    for (int round = 0; round < 4; round++) {
        struct tensor x = random_tensor(3, m->hidden, 1);
        struct tensor logits = random_logits(3, m->cpu.num_experts);
        for (int32_t r = 0; r < 3; r++)
            for (int32_t i = 0; i < logits.cols; i++)
                if (round == 0 || random_int(0, 2) == 0)
                    ((float *)logits.data)[r * logits.stride + i] = round < 2 ? NAN : INFINITY;
        struct tensor out = run_gpu(m, &x, &logits, false);
        free(out.data);
        free(x.data);
        free(logits.data);
    }
    mixture_free(m);
}

/* --- a linear for each head ------------------------------------------------------------------- */

static void check_heads(enum dtype dtype, int32_t rows)
{
    const int32_t count = RANDOM_OF(1, 3, 8), in = RANDOM_OF(1, 33, 64, 128);
    const int32_t out_features = RANDOM_OF(1, 31, 64, 100);
    struct experts e;
    random_experts(&e, count, out_features, in, quant_format_of_dtype(dtype));
    for (int32_t i = 0; i < count; i++) {
        e.gpu[i].bias = NULL;
        e.gpu[i].input_order = NULL;
    }
    struct tensor x = random_tensor(rows, count * in, 1);
    struct tensor out = random_tensor(rows, count * out_features, 1), want = copy_tensor(&out);
    struct tensor x_at = gpu_tensor(&gpu, &x), out_at = gpu_tensor(&gpu, &out);
    struct tensor want_at = gpu_tensor(&gpu, &want);
    gpu.ops->linear_heads(gpu.device, &out_at, &x_at, e.gpu, count);
    for (int32_t i = 0; i < count; i++) {
        struct tensor x_head = tensor_columns(&x_at, i * in, in);
        struct tensor out_head = tensor_columns(&want_at, i * out_features, out_features);
        gpu.ops->linear(gpu.device, &out_head, &x_head, &e.gpu[i]);
    }
    gpu_get_tensor(&gpu, &out, &out_at);
    gpu_get_tensor(&gpu, &want, &want_at);
    assert_tensors_equal(&out, &want, dtype_name(dtype));
    free(x.data);
    free(out.data);
    free(want.data);
    experts_free(&e);
    gpu_release(&gpu);
}

/* The scratch memory is for rows of MAX_HIDDEN: many rows of many heads take turns. */
static void heads_as_one_by_one(void **state)
{
    (void)state;
    static const int32_t rows[] = { 1, 5, 16, 40, MAX_TOKENS };
    for (int dtype = DTYPE_F32; dtype <= DTYPE_F16; dtype++)
        for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
            check_heads((enum dtype)dtype, rows[i]);
}

int main(void)
{
    fixture_start();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(follows_the_cpu),     cmocka_unit_test(quantized_experts),
        cmocka_unit_test(rows_are_alone),      cmocka_unit_test(one_expert_for_all),
        cmocka_unit_test(the_choice),          cmocka_unit_test(nan_is_no_fault),
        cmocka_unit_test(heads_as_one_by_one),
    };
    return gpu_run_tests(tests, limits());
}
