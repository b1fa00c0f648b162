/* linear_heads.c - a linear of its own for each head, all of them handed to the pool at once: one
 * by one they would be too small to share out. */
#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/cpu_rows.h"
#include "kernels/cpu/linear.h"

#include <assert.h>

enum {
    MAX_ROWS_AT_ONCE = 1024, /* of a turn, as in linear.c */
    TASKS_PER_THREAD = 8
};

/* A turn: some rows of some heads. */
struct turn {
    const struct cpu_device *device;
    const struct linear *heads; /* the turn's first */
    struct tensor x, out;       /* its rows and columns */
    int32_t num_heads, parts;   /* tasks of a head, which cut its panels */
    char *input;                /* [num_heads, rows, stride] converted rows of x */
    int64_t stride;
    size_t row_bytes;
};

static void convert_rows(const void *arg, int32_t begin, int32_t end)
{
    const struct turn *t = arg;
    for (int32_t i = begin; i < end; i++) {
        int32_t head = i / t->x.rows, row = i % t->x.rows;
        linear_convert_row(t->heads, t->input + (size_t)i * t->row_bytes,
                           (const float *)t->x.data + row * t->x.stride +
                               (int64_t)head * t->heads->in_features);
    }
}

static void head_task(void *arg, int32_t task, int32_t thread)
{
    const struct turn *t = arg;
    int32_t head = task / t->parts, part = task % t->parts;
    const struct linear *l = &t->heads[head];
    int64_t panels = linear_num_panels(l);
    int32_t begin = (int32_t)(panels * part / t->parts);
    int32_t end = (int32_t)(panels * (part + 1) / t->parts);
    int32_t col = begin * LINEAR_PANEL, left = l->out_features - col;
    int32_t cols = (end - begin) * LINEAR_PANEL;
    struct linear_block b = {
        .x = t->input + (size_t)head * (size_t)t->x.rows * t->row_bytes,
        .x_stride = t->stride,
        .packed = linear_panel_at(l, begin),
        .out = (float *)t->out.data + (int64_t)head * l->out_features + col,
        .out_stride = t->out.stride,
        .rows = t->x.rows,
        .cols = cols < left ? cols : left,
        .in_features = l->in_features,
        .linear = l,
        .scratch = linear_dequant_scratch(t->device, thread),
    };
    l->kernel->run(&b);
}

static void run_turn(struct cpu_device *c, struct turn *t)
{
    int32_t panels = linear_num_panels(t->heads), wanted = c->num_threads * TASKS_PER_THREAD;
    int32_t parts = (wanted + t->num_heads - 1) / t->num_heads;
    int64_t products = (int64_t)t->x.rows * t->x.cols * t->heads->out_features;
    bool alone = c->num_threads == 1 || products < CPU_MIN_PARALLEL_ELEMENTS;
    t->parts = alone ? 1 : parts < panels ? parts : panels;
    cpu_run_rows(c, t->num_heads * t->x.rows, t->heads->in_features, convert_rows, t);
    if (!alone)
        thread_pool_run(c->pool, t->num_heads * t->parts, head_task, t);
    for (int32_t head = 0; alone && head < t->num_heads; head++)
        head_task(t, head, 0);
}

/* Rows from `row` on of the columns of `count` heads from `head` on. */
static struct tensor part_of(const struct tensor *t, int32_t row, int32_t rows, int32_t head,
                             int32_t count, int32_t features)
{
    struct tensor view = tensor_columns(t, head * features, count * features);
    view.data = (float *)view.data + row * t->stride;
    view.rows = rows;
    return view;
}

static int32_t min_i32(int32_t a, int32_t b)
{
    return a < b ? a : b;
}

void cpu_linear_heads(struct device *d, struct tensor *out, const struct tensor *x,
                      const struct linear *heads, int32_t num_heads)
{
    struct cpu_device *c = cpu_device_of(d);
    assert(x->dtype == DTYPE_F32 && out->dtype == DTYPE_F32 && out->rows == x->rows);
    assert(num_heads > 0 && x->cols == num_heads * heads->in_features);
    assert(out->cols == num_heads * heads->out_features && !heads->bias && !heads->next);
    struct turn t = { .device = c, .input = c->linear_scratch };
    t.stride = linear_input_stride(heads->in_features);
    t.row_bytes = (size_t)t.stride * linear_input_element_bytes(heads);
    /* The scratch memory holds max_in_features for each row, often less than all heads need. */
    size_t fit = c->linear_scratch_bytes / t.row_bytes;
    int32_t rows_at_once = min_i32(x->rows, MAX_ROWS_AT_ONCE);
    if ((size_t)rows_at_once > fit)
        rows_at_once = (int32_t)fit;
    assert(x->rows == 0 || rows_at_once > 0);
    for (int32_t row = 0; row < x->rows; row += rows_at_once) {
        int32_t rows = min_i32(rows_at_once, x->rows - row);
        int32_t heads_at_once =
            fit / (size_t)rows < (size_t)num_heads ? (int32_t)(fit / (size_t)rows) : num_heads;
        for (int32_t head = 0; head < num_heads; head += heads_at_once) {
            t.num_heads = min_i32(heads_at_once, num_heads - head);
            t.heads = heads + head;
            t.x = part_of(x, row, rows, head, t.num_heads, heads->in_features);
            t.out = part_of(out, row, rows, head, t.num_heads, heads->out_features);
            run_turn(c, &t);
        }
    }
}
