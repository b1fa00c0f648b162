/* weights.c - one arena on the device: laid out by one function for plan and load alike, then
 * filled piece by piece from several threads. */
#include "engine/model/weights.h"
#include "base/alloc.h"
#include "engine/model/checkpoint.h"
#include "engine/model/rope_desc.h"
#include "engine/model/weight_slot.h"
#include "engine/model/weights_load.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

enum { ALIGNMENT = 64 };

/* --- layout ---------------------------------------------------------------------------------- */

/* Hands out consecutive pieces of the arena; without a base it only counts. */
struct layout {
    unsigned char *base;
    size_t used_bytes;
};

static void *place(struct layout *a, size_t bytes)
{
    void *at = a->base ? a->base + a->used_bytes : NULL;
    a->used_bytes += (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    return at;
}

struct linear *weights_linear(struct weights *w, enum weight_slot slot, int32_t layer)
{
    switch (slot) {
    case W_EMBEDDING:
        return &w->embedding;
    case W_LM_HEAD:
        return &w->lm_head;
    case W_QKV:
        return &w->layers[layer].qkv;
    case W_O:
        return &w->layers[layer].o;
    case W_GATE_UP:
        return &w->layers[layer].gate_up;
    case W_DOWN:
        return &w->layers[layer].down;
    default:
        return NULL;
    }
}

struct norm *weights_norm(struct weights *w, enum weight_slot slot, int32_t layer)
{
    switch (slot) {
    case W_FINAL_NORM:
        return &w->final_norm;
    case W_INPUT_NORM:
        return &w->layers[layer].input_norm;
    case W_POST_ATTENTION_NORM:
        return &w->layers[layer].post_attention_norm;
    default:
        return NULL;
    }
}

static bool lay_out_linear(const struct model *m, struct device *d, struct layout *a,
                           const struct weight_shape *shape, struct linear *l, struct status *st)
{
    l->out_features = shape->rows;
    l->in_features = shape->cols;
    l->format = m->weight_format;
    if (shape->cols % l->format->block_elements != 0)
        return status_set(st, STATUS_UNSUPPORTED, "rows of %d weights are no whole blocks of %s",
                          shape->cols, l->format->name);
    if (!d->backend->linear_plan(d, l, st))
        return false;
    l->packed = place(a, l->packed_bytes);
    if (shape->has_bias)
        l->bias = place(a, (size_t)shape->rows * sizeof(float));
    return true;
}

static bool lay_out_slot(const struct model *m, struct device *d, struct layout *a,
                         struct weights *w, enum weight_slot slot, int32_t layer, struct status *st)
{
    struct weight_shape shape = weight_slot_shape(&m->desc, slot);
    if (!shape.present)
        return true;
    if (shape.is_norm) {
        *weights_norm(w, slot, layer) =
            (struct norm){ .kind = NORM_RMS,
                           .size = shape.cols,
                           .weight = place(a, (size_t)shape.cols * sizeof(float)),
                           .eps = m->desc.rms_norm_eps };
        return true;
    }
    struct linear *l = weights_linear(w, slot, layer);
    l->needs_rows = slot == W_EMBEDDING;
    return lay_out_linear(m, d, a, &shape, l, st);
}

/* In the order of execution, so that a forward pass reads the arena from front to back. */
static bool lay_out(const struct model *m, struct device *d, struct layout *a, struct weights *w,
                    struct status *st)
{
    const struct decoder_desc *desc = &m->desc;
    if (!lay_out_slot(m, d, a, w, W_EMBEDDING, 0, st))
        return false;
    w->rope =
        (struct rope){ .rotary_dim = desc->rope.rotary_dim,
                       .interleaved = desc->rope.interleaved,
                       .inv_freq = place(a, (size_t)desc->rope.rotary_dim / 2 * sizeof(float)),
                       .attention_scaling = 1.0f };
    for (int32_t layer = 0; layer < desc->num_hidden_layers; layer++)
        for (int slot = W_INPUT_NORM; slot < NUM_WEIGHT_SLOTS; slot++)
            if (!lay_out_slot(m, d, a, w, (enum weight_slot)slot, layer, st))
                return false;
    if (!lay_out_slot(m, d, a, w, W_FINAL_NORM, 0, st) ||
        !lay_out_slot(m, d, a, w, W_LM_HEAD, 0, st))
        return false;
    w->head = desc->tie_word_embeddings ? &w->embedding : &w->lm_head;
    w->device_bytes = a->used_bytes;
    return true;
}

static struct weights *weights_new(const struct decoder_desc *desc)
{
    struct weights *w = xcalloc(1, sizeof *w);
    w->layers = xcalloc((size_t)desc->num_hidden_layers, sizeof *w->layers);
    return w;
}

bool weights_plan(const struct model *m, struct device *d, size_t *bytes, struct status *st)
{
    struct layout counting = { 0 };
    struct weights *w = weights_new(&m->desc);
    bool ok = lay_out(m, d, &counting, w, st);
    *bytes = counting.used_bytes;
    free(w->layers);
    free(w);
    return ok;
}

/* --- vectors: norms, biases, frequencies ----------------------------------------------------- */

static bool upload(struct device *d, const float *dst, const float *src, int32_t count,
                   struct status *st)
{
    d->backend->copy(d, (void *)(uintptr_t)dst, src, (size_t)count * sizeof *src, COPY_TO_DEVICE);
    return d->backend->sync(d, st); /* the source is reused for the next one */
}

/* Where the entry's vector goes. */
static const float *vector_place(struct weights *w, const struct tensor_map_entry *e)
{
    return e->is_bias ? weights_linear(w, e->slot, e->layer)->bias + e->row_begin
                      : weights_norm(w, e->slot, e->layer)->weight;
}

static bool load_vectors(const struct model *m, struct device *d, struct weights *w,
                         struct status *st)
{
    for (size_t i = 0; i < m->tensors.count; i++) {
        const struct tensor_map_entry *e = &m->tensors.entries[i];
        if (!e->is_bias && !weights_norm(w, e->slot, e->layer))
            continue;
        int32_t count = e->rows * e->cols;
        float *values = xmalloc((size_t)count * sizeof *values);
        weights_read_elements(values, e->tensor, (size_t)count);
        bool ok = upload(d, vector_place(w, e), values, count, st);
        free(values);
        if (!ok)
            return false;
    }
    return true;
}

/* Norms of one and biases of either sign. */
static bool dummy_vectors(const struct model *m, struct device *d, struct weights *w,
                          struct status *st)
{
    bool ok = true;
    for (int slot = W_EMBEDDING; slot < NUM_WEIGHT_SLOTS; slot++) {
        struct weight_shape shape = weight_slot_shape(&m->desc, (enum weight_slot)slot);
        if (!shape.present || (!shape.is_norm && !shape.has_bias))
            continue;
        int32_t count = shape.is_norm ? shape.cols : shape.rows;
        int32_t layers =
            weight_slot_is_per_layer((enum weight_slot)slot) ? m->desc.num_hidden_layers : 1;
        float *values = xmalloc((size_t)count * sizeof *values);
        for (int32_t layer = 0; ok && layer < layers; layer++) {
            const struct norm *norm = weights_norm(w, (enum weight_slot)slot, layer);
            for (int32_t i = 0; i < count; i++)
                values[i] = norm ? 1.0f - norm->weight_offset
                                 : weights_dummy_bias((enum weight_slot)slot, layer, i);
            ok = upload(
                d, norm ? norm->weight : weights_linear(w, (enum weight_slot)slot, layer)->bias,
                values, count, st);
        }
        free(values);
    }
    return ok;
}

static bool upload_rope(const struct model *m, struct device *d, struct weights *w,
                        struct status *st)
{
    int32_t count = w->rope.rotary_dim / 2;
    float *inv_freq = xmalloc((size_t)count * sizeof *inv_freq);
    rope_desc_inv_freq(&m->desc.rope, inv_freq);
    bool ok = upload(d, w->rope.inv_freq, inv_freq, count, st);
    free(inv_freq);
    return ok;
}

/* --- load ------------------------------------------------------------------------------------ */

bool weights_load(const struct model *m, struct device *d, struct comm *c,
                  void (*progress)(void *arg, size_t done_bytes, size_t total_bytes),
                  void *progress_arg, struct weights **out, struct status *st)
{
    size_t planned = 0;
    if (c->world_size != 1)
        return status_set(st, STATUS_UNSUPPORTED, "weights cannot be split over %d ranks yet",
                          c->world_size);
    if (!weights_plan(m, d, &planned, st))
        return false;
    struct weights *w = weights_new(&m->desc);
    if (!d->backend->alloc(d, &w->arena, planned, MEMORY_DEVICE, st)) {
        status_prefix(st, "weights of %zu bytes: ", planned);
        free(w->layers);
        free(w);
        return false;
    }
    struct layout placing = { .base = w->arena.data };
    struct weights_progress report = { progress, progress_arg };
    bool ok = lay_out(m, d, &placing, w, st);
    assert(!ok || placing.used_bytes == planned);
    ok = ok && upload_rope(m, d, w, st) &&
         (m->checkpoint ? load_vectors(m, d, w, st) : dummy_vectors(m, d, w, st));
    if (ok)
        weights_pack_all(m, d, w, &report);
    ok = ok && d->backend->sync(d, st);
    if (!ok) {
        weights_free(w, d);
        return false;
    }
    *out = w;
    return true;
}

void weights_free(struct weights *w, struct device *d)
{
    if (!w)
        return;
    d->backend->free(d, &w->arena);
    free(w->layers);
    free(w);
}
