/* logprobs.c - log_softmax of raw logits: the target's, its rank, and the best few of each row. */
#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/cpu_rows.h"
#include "kernels/cpu/op_kernels.h"

#include <assert.h>
#include <math.h>

/* --- the best few: a heap whose root is the worst of those kept ------------------------------- */

struct top {
    float *logits;
    int32_t *ids;
    int32_t count;
};

static bool worse(const struct top *t, int32_t a, int32_t b)
{
    return t->logits[a] < t->logits[b] || (t->logits[a] == t->logits[b] && t->ids[a] > t->ids[b]);
}

static void swap(struct top *t, int32_t a, int32_t b)
{
    float logit = t->logits[a];
    int32_t id = t->ids[a];
    t->logits[a] = t->logits[b];
    t->ids[a] = t->ids[b];
    t->logits[b] = logit;
    t->ids[b] = id;
}

static void sift_down(struct top *t, int32_t at, int32_t count)
{
    for (;;) {
        int32_t child = 2 * at + 1;
        if (child >= count)
            return;
        if (child + 1 < count && worse(t, child + 1, child))
            child++;
        if (!worse(t, child, at))
            return;
        swap(t, at, child);
        at = child;
    }
}

/* Leaves the t->count best of x in falling order of logit, then rising id; NaN counts as -inf. */
static void top_find(struct top *t, const struct logits_kernel *kernel, const float *x,
                     int32_t vocab)
{
    for (int32_t i = 0; i < t->count; i++) {
        t->logits[i] = isnan(x[i]) ? -INFINITY : x[i];
        t->ids[i] = i;
    }
    for (int32_t i = t->count / 2 - 1; i >= 0; i--)
        sift_down(t, i, t->count);
    for (int32_t i = t->count; t->count > 0; i++) {
        i = kernel->find_not_less(x, i, vocab, t->logits[0]);
        if (i == vocab)
            break;
        if (x[i] == t->logits[0])
            continue; /* an equal with a higher id is worse */
        t->logits[0] = x[i];
        t->ids[0] = i;
        sift_down(t, 0, t->count);
    }
    for (int32_t left = t->count - 1; left > 0; left--) {
        swap(t, 0, left);
        sift_down(t, 0, left);
    }
}

/* --- the op ----------------------------------------------------------------------------------- */

struct logprobs_args {
    const struct logits_kernel *kernel;
    const struct logprobs_request *request;
    struct tensor logits;
};

static void logprobs_row(const struct logprobs_args *a, int32_t row)
{
    const struct logprobs_request *q = a->request;
    const float *x = (const float *)a->logits.data + row * a->logits.stride;
    const int32_t vocab = a->logits.cols, target = q->target_ids[row];
    int32_t num_top = q->num_top[row];
    if (num_top < 0)
        return;
    const float max = a->kernel->max(x, vocab);
    const double log_sum = log(a->kernel->sum_exp(x, vocab, max));
    if (target >= 0 && target < vocab) {
        q->target_logprob[row] = (float)((double)x[target] - max - log_sum);
        q->target_rank[row] = 1 + a->kernel->count_greater(x, vocab, x[target]);
    } else {
        q->target_logprob[row] = -INFINITY;
        q->target_rank[row] = 0;
    }
    if (num_top > q->max_top)
        num_top = q->max_top;
    struct top top = { .logits = q->top_logprobs + (int64_t)row * q->max_top,
                       .ids = q->top_ids + (int64_t)row * q->max_top,
                       .count = num_top < vocab ? num_top : vocab };
    if (top.count > 0)
        top_find(&top, a->kernel, x, vocab);
    for (int32_t i = 0; i < top.count; i++)
        top.logits[i] = (float)((double)top.logits[i] - max - log_sum);
    for (int32_t i = top.count; i < num_top; i++) {
        top.logits[i] = -INFINITY;
        top.ids[i] = -1;
    }
}

static void logprobs_rows(const void *arg, int32_t begin, int32_t end)
{
    for (int32_t row = begin; row < end; row++)
        logprobs_row(arg, row);
}

void cpu_logprobs(struct device *d, const struct logprobs_request *request,
                  const struct tensor *logits)
{
    struct cpu_device *c = cpu_device_of(d);
    assert(logits->dtype == DTYPE_F32 && logits->cols > 0 && logits->rows >= request->num_rows);
    struct logprobs_args args = { logits_kernel_for(c), request, *logits };
    cpu_run_rows(c, request->num_rows, logits->cols, logprobs_rows, &args);
}
