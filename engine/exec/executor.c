/* executor.c - a step goes to every rank; rank 0's samples count, since all compute the same. */
#include "engine/exec/executor.h"

#include "base/alloc.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

bool executor_open(struct executor *x, const char *backend_name,
                   const struct device_options *options, struct status *st)
{
    memset(x, 0, sizeof *x);
    x->workers = xcalloc(1, sizeof *x->workers);
    for (; x->num_workers < 1; x->num_workers++) {
        if (!worker_open(&x->workers[x->num_workers], x->num_workers, backend_name, options, st)) {
            executor_close(x);
            return false;
        }
    }
    return true;
}

void executor_close(struct executor *x)
{
    for (int32_t i = x->num_workers - 1; i >= 0; i--)
        worker_close(&x->workers[i]);
    free(x->workers);
    memset(x, 0, sizeof *x);
}

bool executor_load_weights(struct executor *x, const struct model *m, struct status *st)
{
    for (int32_t i = 0; i < x->num_workers; i++)
        if (!worker_load_weights(&x->workers[i], m, st))
            return false;
    return true;
}

size_t executor_taken_bytes(const struct executor *x)
{
    size_t bytes = 0;
    for (int32_t i = 0; i < x->num_workers; i++) {
        const struct weights *w = x->workers[i].weights;
        bytes += x->workers[i].device->allocated_bytes;
        bytes += w && w->arena_is_mapped ? w->size.bytes : 0;
    }
    return bytes;
}

void executor_unload_weights(struct executor *x)
{
    for (int32_t i = x->num_workers - 1; i >= 0; i--)
        worker_unload_weights(&x->workers[i]);
}

bool executor_allocate(struct executor *x, const struct model *m, const struct memory_plan *plan,
                       struct status *st)
{
    for (int32_t i = 0; i < x->num_workers; i++) {
        if (!worker_allocate(&x->workers[i], m, plan, st)) {
            executor_release(x);
            return false;
        }
    }
    if (!batch_open(&x->batch, &plan->batch_limits, x->workers[0].device, st)) {
        executor_release(x);
        return false;
    }
    return true;
}

void executor_release(struct executor *x)
{
    if (x->batch.host.data)
        batch_close(&x->batch, x->workers[0].device);
    for (int32_t i = x->num_workers - 1; i >= 0; i--)
        worker_release(&x->workers[i]);
}

bool executor_start(struct executor *x, struct status *st)
{
    for (int32_t i = 0; i < x->num_workers; i++) {
        if (!worker_start(&x->workers[i], st)) {
            executor_stop(x);
            return false;
        }
    }
    return true;
}

void executor_stop(struct executor *x)
{
    for (int32_t i = 0; i < x->num_workers; i++)
        worker_stop(&x->workers[i]);
}

void executor_submit(struct executor *x, const struct step *step)
{
    assert(!x->submitted);
    batch_fill(&x->batch, step);
    x->submitted = step;
    for (int32_t i = 0; i < x->num_workers; i++)
        worker_post(&x->workers[i], &x->batch);
}

void executor_collect(struct executor *x, struct step_output *output)
{
    assert(x->submitted);
    status_clear(&output->status);
    for (int32_t i = 0; i < x->num_workers; i++) {
        struct status st;
        if (!worker_wait(&x->workers[i], &st) && output->status.code == STATUS_OK)
            output->status = st;
    }
    if (output->status.code == STATUS_OK)
        batch_collect(&x->batch, x->submitted, output);
    x->submitted = NULL;
}
