/* embedding.c - rows of the embedding matrix, and the ops that move or add whole rows.
 *
 * The matrix is read back out of the panels that the product uses, so that tied embeddings need one
 * copy. A row is scattered over one panel; a step reads few rows, so this costs little. */
#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/linear.h"

#include <assert.h>
#include <string.h>

/* Fewer elements than this are done by the calling thread alone. */
enum { MIN_PARALLEL_ELEMENTS = 16 << 10, TASKS_PER_THREAD = 4 };

struct row_job {
    struct tensor *out;
    const struct tensor *x;
    const struct linear *weight;
    const int32_t *indices;
    float factor;
    int32_t rows_per_task;
    void (*row)(const struct row_job *job, int32_t row);
};

static float *row_at(const struct tensor *t, int64_t row)
{
    return (float *)t->data + row * t->stride;
}

static void rows_task(void *arg, int32_t task, int32_t thread)
{
    const struct row_job *job = arg;
    int32_t end = (task + 1) * job->rows_per_task;
    (void)thread;
    if (end > job->out->rows)
        end = job->out->rows;
    for (int32_t r = task * job->rows_per_task; r < end; r++)
        job->row(job, r);
}

static void run_rows(struct device *d, struct row_job *job)
{
    struct cpu_device *c = cpu_device_of(d);
    int32_t rows = job->out->rows;
    if (rows < 1)
        return;
    int32_t num_tasks = c->num_threads * TASKS_PER_THREAD;
    if ((int64_t)rows * job->out->cols < MIN_PARALLEL_ELEMENTS)
        num_tasks = 1;
    job->rows_per_task = (rows + num_tasks - 1) / num_tasks;
    num_tasks = (rows + job->rows_per_task - 1) / job->rows_per_task;
    thread_pool_run(c->pool, num_tasks, rows_task, job);
}

/* An index outside the matrix is a mistake further up; the row is zeroed and the step fails. */
static void check_indices(struct device *d, const char *op, const int32_t *indices, int32_t count,
                          int32_t limit)
{
    for (int32_t i = 0; i < count; i++) {
        if (indices[i] >= 0 && indices[i] < limit)
            continue;
        if (d->error.code == STATUS_OK)
            status_set(&d->error, STATUS_INTERNAL, "%s: index %d of row %d is not in [0, %d)", op,
                       indices[i], i, limit);
        return;
    }
}

static void embedding_row(const struct row_job *job, int32_t row)
{
    const struct linear *l = job->weight;
    int32_t id = job->indices[row], begin = l->vocab_begin;
    float *out = row_at(job->out, row);
    if (id >= begin && id - begin < l->out_features)
        l->kernel->unpack_row(out, l, id - begin);
    else
        memset(out, 0, (size_t)l->in_features * sizeof *out);
}

void cpu_embedding(struct device *d, struct tensor *out, const int32_t *input_ids,
                   const struct linear *weight)
{
    assert(out->dtype == DTYPE_F32 && out->cols == weight->in_features);
    int32_t limit = weight->vocab_size > 0 ? weight->vocab_size : weight->out_features;
    check_indices(d, "embedding", input_ids, out->rows, limit);
    run_rows(d, &(struct row_job){
                    .out = out, .weight = weight, .indices = input_ids, .row = embedding_row });
}

static void gather_row(const struct row_job *job, int32_t row)
{
    int32_t from = job->indices[row];
    size_t bytes = (size_t)job->out->cols * sizeof(float);
    if (from >= 0 && from < job->x->rows)
        memcpy(row_at(job->out, row), row_at(job->x, from), bytes);
    else
        memset(row_at(job->out, row), 0, bytes);
}

void cpu_gather_rows(struct device *d, struct tensor *out, const struct tensor *x,
                     const int32_t *indices)
{
    assert(out->dtype == DTYPE_F32 && x->dtype == DTYPE_F32 && out->cols == x->cols);
    check_indices(d, "gather_rows", indices, out->rows, x->rows);
    run_rows(d, &(struct row_job){ .out = out, .x = x, .indices = indices, .row = gather_row });
}

static void add_row(const struct row_job *job, int32_t row)
{
    float *restrict out = row_at(job->out, row);
    const float *restrict x = row_at(job->x, row);
    for (int32_t i = 0; i < job->out->cols; i++)
        out[i] += x[i];
}

void cpu_add(struct device *d, struct tensor *x, const struct tensor *y)
{
    assert(x->dtype == DTYPE_F32 && y->dtype == DTYPE_F32);
    assert(x->rows == y->rows && x->cols == y->cols);
    run_rows(d, &(struct row_job){ .out = x, .x = y, .row = add_row });
}

static void scale_row(const struct row_job *job, int32_t row)
{
    float *out = row_at(job->out, row);
    for (int32_t i = 0; i < job->out->cols; i++)
        out[i] *= job->factor;
}

void cpu_scale(struct device *d, struct tensor *x, float factor)
{
    assert(x->dtype == DTYPE_F32);
    run_rows(d, &(struct row_job){ .out = x, .factor = factor, .row = scale_row });
}
