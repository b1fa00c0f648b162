/* moe.c - a mixture of experts: tokens are sorted by expert, so that each expert's weights are read
 * once for all of its tokens.
 *
 * A pair is one token with one of its experts. The tokens' choices give the pairs, in turns of a
 * bounded number; sorted by expert they are the rows of two rounds of products, of which an expert
 * has as many tasks as befits its share of the rows. Then every token adds up its pairs in the
 * order of its choice. Each of the steps treats a row by itself, so no other token shows in it. */
#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/cpu_rows.h"
#include "kernels/cpu/linear.h"
#include "kernels/cpu/moe_route.h"
#include "kernels/cpu/op_kernels.h"

#include <assert.h>
#include <math.h>
#include <string.h>

enum {
    /* Pairs of a turn: with a hundred experts there are still dozens of rows for each, which hides
     * the reading of its weights; the scratch memory is a few KiB per pair. */
    MAX_PAIRS_AT_ONCE = 4096,
    TASKS_PER_THREAD = 8,
    /* Below this a round of products costs less than handing it to another thread. */
    MIN_PARALLEL_PRODUCTS = 64 << 10,
    ALIGNMENT = 64
};

/* --- scratch memory --------------------------------------------------------------------------- */

/* Parts of the scratch memory. A pair's place is its number in the order of experts. */
struct moe_scratch {
    int32_t *ids;        /* [tokens, k] the choices */
    float *weights;      /* [tokens, k] */
    int32_t *places;     /* [tokens, k] where each pair went */
    int32_t *tokens;     /* [pairs] of the pair at each place */
    int32_t *begin;      /* [num_experts + 1] each expert's places */
    int32_t *task_begin; /* [num_experts + 1] each expert's tasks */
    /* [pairs, outer_stride] x in the form that gate_up's kernel wants; later what down gives. */
    float *outer;
    /* [pairs, 2 * half_stride] what gate_up gives, as gate then up; after the activation the second
     * half holds the input of down. */
    float *inner;
    int64_t outer_stride, half_stride;
};

static int32_t pairs_at_once(int32_t num_tokens, int32_t top_k)
{
    int32_t tokens = MAX_PAIRS_AT_ONCE / top_k;
    tokens = tokens < 1 ? 1 : tokens;
    return (num_tokens < tokens ? num_tokens : tokens) * top_k;
}

static void *part(char *base, size_t *used, size_t bytes)
{
    void *at = base ? base + *used : NULL;
    *used += (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    return at;
}

/* Without a base only the size is of use. */
static size_t lay_out(struct moe_scratch *s, char *base, const struct workspace_desc *w,
                      int32_t num_pairs)
{
    size_t pairs = (size_t)num_pairs, experts = (size_t)w->num_experts + 1, used = 0;
    s->outer_stride = linear_input_stride(w->moe_hidden_size);
    s->half_stride = linear_input_stride(w->moe_intermediate_size);
    s->ids = part(base, &used, pairs * sizeof *s->ids);
    s->weights = part(base, &used, pairs * sizeof *s->weights);
    s->places = part(base, &used, pairs * sizeof *s->places);
    s->tokens = part(base, &used, pairs * sizeof *s->tokens);
    s->begin = part(base, &used, experts * sizeof *s->begin);
    s->task_begin = part(base, &used, experts * sizeof *s->task_begin);
    s->outer = part(base, &used, pairs * (size_t)s->outer_stride * sizeof *s->outer);
    s->inner = part(base, &used, pairs * 2 * (size_t)s->half_stride * sizeof *s->inner);
    return used;
}

size_t cpu_moe_scratch_bytes(const struct cpu_device *d, const struct workspace_desc *w)
{
    struct moe_scratch s;
    (void)d;
    if (w->num_experts == 0 || w->max_num_tokens == 0)
        return 0;
    return lay_out(&s, NULL, w, pairs_at_once(w->max_num_tokens, w->num_experts_per_tok));
}

/* --- one turn --------------------------------------------------------------------------------- */

struct turn {
    const struct moe *moe;
    struct moe_scratch s;
    const struct activation_kernel *act;
    struct tensor x, out, logits; /* the rows of this turn */
    int32_t num_pairs;
};

static const float *const_row(const struct tensor *t, int32_t row)
{
    return (const float *)t->data + row * t->stride;
}

static void route_rows(const void *arg, int32_t begin, int32_t end)
{
    const struct turn *t = arg;
    int32_t top_k = t->moe->num_experts_per_tok;
    for (int32_t row = begin; row < end; row++)
        moe_route(t->moe, const_row(&t->logits, row), t->s.ids + row * top_k,
                  t->s.weights + row * top_k);
}

/* A counting sort: begin, places, tokens from ids. */
static void sort_pairs(struct turn *t)
{
    int32_t *begin = t->s.begin, experts = t->moe->num_experts;
    memset(begin, 0, ((size_t)experts + 1) * sizeof *begin);
    for (int32_t i = 0; i < t->num_pairs; i++)
        begin[t->s.ids[i]]++;
    int32_t sum = 0;
    for (int32_t e = 0; e < experts; e++) {
        int32_t count = begin[e];
        begin[e] = sum;
        sum += count;
    }
    for (int32_t i = 0; i < t->num_pairs; i++) {
        int32_t place = begin[t->s.ids[i]]++;
        t->s.places[i] = place;
        t->s.tokens[place] = i / t->moe->num_experts_per_tok;
    }
    /* Each expert's beginning has moved to its end, which is the next one's beginning. */
    memmove(begin + 1, begin, (size_t)experts * sizeof *begin);
    begin[0] = 0;
}

static void gather_rows(const void *arg, int32_t begin, int32_t end)
{
    const struct turn *t = arg;
    int32_t e = 0; /* whose pair it is: experts may want their input in orders of their own */
    for (int32_t place = begin; place < end; place++) {
        while (place >= t->s.begin[e + 1])
            e++;
        linear_convert_row(&t->moe->gate_up[e], t->s.outer + place * t->s.outer_stride,
                           const_row(&t->x, t->s.tokens[place]));
    }
}

static void activate_rows(const void *arg, int32_t begin, int32_t end)
{
    const struct turn *t = arg;
    int32_t e = 0;
    for (int32_t place = begin; place < end; place++) {
        while (place >= t->s.begin[e + 1])
            e++;
        const struct linear *down = &t->moe->down[e];
        float *gate = t->s.inner + place * 2 * t->s.half_stride;
        t->act->run(gate, gate, gate + down->in_features, down->in_features, t->moe->act);
        linear_convert_row(down, gate + t->s.half_stride, gate);
    }
}

static void combine_rows(const void *arg, int32_t begin, int32_t end)
{
    const struct turn *t = arg;
    int32_t top_k = t->moe->num_experts_per_tok, cols = t->out.cols;
    for (int32_t row = begin; row < end; row++) {
        float *out = (float *)t->out.data + row * t->out.stride;
        for (int32_t n = 0; n < top_k; n++) {
            const float *y = t->s.outer + t->s.places[row * top_k + n] * t->s.outer_stride;
            float weight = t->s.weights[row * top_k + n];
            if (n == 0)
                for (int32_t i = 0; i < cols; i++)
                    out[i] = weight * y[i];
            else
                for (int32_t i = 0; i < cols; i++)
                    out[i] += weight * y[i];
        }
    }
}

/* --- a round of products ---------------------------------------------------------------------- */

/* Every expert's linear with its rows, all [pairs, ...]. */
struct round {
    const struct cpu_device *device;
    const struct turn *turn;
    const struct linear *linears; /* [num_experts] */
    const void *input;
    int64_t input_bytes; /* from one row to the next */
    float *out;
    int64_t out_stride;
};

/* The expert whose tasks hold this one. */
static int32_t expert_of(const struct turn *t, int32_t task)
{
    int32_t low = 0, high = t->moe->num_experts;
    while (high - low > 1) {
        int32_t middle = low + (high - low) / 2;
        if (t->s.task_begin[middle] <= task)
            low = middle;
        else
            high = middle;
    }
    return low;
}

static void round_task(void *arg, int32_t task, int32_t thread)
{
    const struct round *r = arg;
    const struct moe_scratch *s = &r->turn->s;
    int32_t e = expert_of(r->turn, task);
    const struct linear *l = &r->linears[e];
    int64_t panels = linear_num_panels(l), parts = s->task_begin[e + 1] - s->task_begin[e];
    int64_t piece = task - s->task_begin[e];
    int32_t begin = (int32_t)(panels * piece / parts);
    int32_t end = (int32_t)(panels * (piece + 1) / parts);
    int32_t col = begin * LINEAR_PANEL, row = s->begin[e];
    int32_t left = l->out_features - col, cols = (end - begin) * LINEAR_PANEL;
    struct linear_block b = {
        .x = (const char *)r->input + row * r->input_bytes,
        .x_stride = r->input_bytes / (int64_t)linear_input_element_bytes(l),
        .packed = linear_panel_at(l, begin),
        .out = r->out + row * r->out_stride + col,
        .out_stride = r->out_stride,
        .bias = l->bias ? l->bias + col : NULL,
        .rows = s->begin[e + 1] - row,
        .cols = cols < left ? cols : left,
        .in_features = l->in_features,
        .linear = l,
        .scratch = linear_dequant_scratch(r->device, thread),
    };
    l->kernel->run(&b);
}

/* Tasks of each expert in proportion to its rows, one at least; none without rows. */
static int32_t share_tasks(struct turn *t, const struct linear *l, int32_t wanted)
{
    int64_t panels = linear_num_panels(l);
    int32_t total = 0;
    for (int32_t e = 0; e < t->moe->num_experts; e++) {
        int64_t rows = t->s.begin[e + 1] - t->s.begin[e];
        int64_t parts = (rows * wanted + t->num_pairs - 1) / t->num_pairs;
        t->s.task_begin[e] = total;
        total += (int32_t)(parts < panels ? parts : panels);
    }
    t->s.task_begin[t->moe->num_experts] = total;
    return total;
}

static void run_round(struct cpu_device *d, struct turn *t, struct round *r)
{
    const struct linear *l = &r->linears[0];
    int64_t products = (int64_t)t->num_pairs * l->in_features * l->out_features;
    bool alone = d->num_threads == 1 || products < MIN_PARALLEL_PRODUCTS;
    int32_t num_tasks = share_tasks(t, l, alone ? 1 : d->num_threads * TASKS_PER_THREAD);
    r->turn = t;
    if (!alone)
        thread_pool_run(d->pool, num_tasks, round_task, r);
    for (int32_t task = 0; alone && task < num_tasks; task++)
        round_task(r, task, 0);
}

static void run_turn(struct cpu_device *d, struct turn *t)
{
    const struct moe *moe = t->moe;
    const struct moe_scratch *s = &t->s;
    int64_t inner_bytes = 2 * s->half_stride * (int64_t)sizeof(float);
    struct round gate_up = { .device = d,
                             .linears = moe->gate_up,
                             .input = s->outer,
                             .input_bytes = s->outer_stride * (int64_t)sizeof(float),
                             .out = s->inner,
                             .out_stride = 2 * s->half_stride };
    struct round down = { .device = d,
                          .linears = moe->down,
                          .input = s->inner + s->half_stride,
                          .input_bytes = inner_bytes,
                          .out = s->outer,
                          .out_stride = s->outer_stride };
    /* Exponentials count several times what copies do. */
    cpu_run_rows(d, t->x.rows, 16 * (int64_t)moe->num_experts, route_rows, t);
    sort_pairs(t);
    cpu_run_rows(d, t->num_pairs, t->x.cols, gather_rows, t);
    run_round(d, t, &gate_up);
    cpu_run_rows(d, t->num_pairs, 4 * (int64_t)moe->down->in_features, activate_rows, t);
    run_round(d, t, &down);
    cpu_run_rows(d, t->out.rows, (int64_t)moe->num_experts_per_tok * t->out.cols, combine_rows, t);
}

static struct tensor rows_of(const struct tensor *t, int32_t begin, int32_t count)
{
    struct tensor view = *t;
    view.data = (float *)t->data + begin * t->stride;
    view.rows = count;
    return view;
}

static void check(const struct cpu_device *c, const struct tensor *out, const struct tensor *x,
                  const struct tensor *logits, const struct moe *moe)
{
    assert(x->dtype == DTYPE_F32 && out->dtype == DTYPE_F32 && logits->dtype == DTYPE_F32);
    assert(out->rows == x->rows && logits->rows == x->rows);
    assert(moe->num_experts <= MOE_MAX_EXPERTS && logits->cols == moe->num_experts);
    assert(moe->num_experts_per_tok >= 1 && moe->num_experts_per_tok <= moe->num_experts);
    assert(moe->num_groups <= 1 ||
           (moe->num_experts % moe->num_groups == 0 && moe->topk_groups <= moe->num_groups &&
            moe->num_experts / moe->num_groups * moe->topk_groups >= moe->num_experts_per_tok));
    assert(x->cols == moe->gate_up->in_features && out->cols == moe->down->out_features);
    assert(!moe->gate_up->next && !moe->down->next);
    assert(moe->gate_up->out_features == 2 * moe->down->in_features);
    assert(moe->num_experts <= c->limits.num_experts && x->cols <= c->limits.moe_hidden_size &&
           moe->num_experts_per_tok <= c->limits.num_experts_per_tok &&
           moe->down->in_features <= c->limits.moe_intermediate_size);
}

void cpu_moe(struct device *d, struct tensor *out, const struct tensor *x,
             const struct tensor *router_logits, const struct moe *moe)
{
    struct cpu_device *c = cpu_device_of(d);
    struct turn t = { .moe = moe, .act = activation_kernel_for(c) };
    check(c, out, x, router_logits, moe);
    int32_t top_k = moe->num_experts_per_tok;
    int32_t reserved = pairs_at_once(c->limits.max_num_tokens, c->limits.num_experts_per_tok);
    int32_t at_once = reserved / top_k;
    lay_out(&t.s, c->moe_scratch, &c->limits, reserved);
    for (int32_t row = 0; row < x->rows; row += at_once) {
        int32_t rows = x->rows - row < at_once ? x->rows - row : at_once;
        t.x = rows_of(x, row, rows);
        t.out = rows_of(out, row, rows);
        t.logits = rows_of(router_logits, row, rows);
        t.num_pairs = rows * top_k;
        run_turn(c, &t);
    }
}

/* --- the shared expert's gate ----------------------------------------------------------------- */

struct gated_sum {
    struct tensor x, y, gate;
};

static void add_gated_rows(const void *arg, int32_t begin, int32_t end)
{
    const struct gated_sum *a = arg;
    for (int32_t row = begin; row < end; row++) {
        float *restrict x = (float *)a->x.data + row * a->x.stride;
        const float *restrict y = const_row(&a->y, row);
        float factor = 1.0f / (1.0f + expf(-*const_row(&a->gate, row)));
        for (int32_t i = 0; i < a->x.cols; i++)
            x[i] += factor * y[i];
    }
}

void cpu_add_gated(struct device *d, struct tensor *x, const struct tensor *y,
                   const struct tensor *gate)
{
    struct gated_sum a = { *x, *y, *gate };
    assert(x->dtype == DTYPE_F32 && y->dtype == DTYPE_F32 && gate->dtype == DTYPE_F32);
    assert(x->rows == y->rows && x->cols == y->cols && gate->rows == x->rows && gate->cols == 1);
    cpu_run_rows(cpu_device_of(d), x->rows, x->cols, add_gated_rows, &a);
}
