/* column_order.c - see column_order.h. */
#include "engine/model/column_order.h"
#include "base/alloc.h"
#include "engine/model/weights_load.h"

#include <stdlib.h>
#include <string.h>

/* Checks what only the values of a quantized linear can tell. */
static bool check_sources(const struct model *m, struct status *st)
{
    const struct quant_source *last = NULL; /* entries of one lie together, but for their biases */
    for (size_t i = 0; i < m->tensors.count; i++) {
        const struct quant_source *s = m->tensors.entries[i].quant;
        if (s && s != last && s->scheme->layout->check_values &&
            !s->scheme->layout->check_values(s, st))
            return false;
        last = s ? s : last;
    }
    return true;
}

/* For each link with an order of its own; the parts of one link must have the same. */
static bool upload_order(const struct model *m, struct device *d, struct weights *w,
                         const struct tensor_map_entry *e, struct status *st)
{
    int32_t row = e->row_begin;
    const struct linear *l = weights_linear(w, e->slot, e->layer, e->expert);
    const struct tensor_map_entry *first =
        tensor_map_find(&m->tensors, e->slot, e->layer, e->expert, 0);
    for (; row >= l->out_features; l = l->next)
        row -= l->out_features;
    size_t bytes = (size_t)e->cols * sizeof(int32_t);
    int32_t *order = xmalloc(bytes), *other = xmalloc(bytes);
    bool ok = quant_source_order(e->quant, order, st);
    if (ok && row > 0) {
        ok = !first->quant || (quant_source_order(first->quant, other, st) &&
                               (memcmp(order, other, bytes) == 0 ||
                                status_set(st, STATUS_UNSUPPORTED,
                                           "%s: its columns are in another order than those of %s",
                                           e->quant->name, first->quant->name)));
    } else if (ok) {
        d->backend->copy(d, (void *)(uintptr_t)l->input_order, order, bytes, COPY_TO_DEVICE);
        ok = d->backend->sync(d, st);
    }
    free(order);
    free(other);
    return ok;
}

bool column_orders_upload(const struct model *m, struct device *d, struct weights *w,
                          struct status *st)
{
    if (!check_sources(m, st))
        return false;
    for (size_t i = 0; i < m->tensors.count; i++) {
        const struct tensor_map_entry *e = &m->tensors.entries[i];
        if (e->quant && e->quant->has_order && !upload_order(m, d, w, e, st))
            return false;
    }
    return true;
}
