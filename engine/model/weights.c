/* weights.c - one arena on the device: laid out by one function for plan and load alike, then
 * filled piece by piece from several threads. */
#include "engine/model/weights.h"
#include "base/alloc.h"
#include "base/clock.h"
#include "base/log.h"
#include "engine/model/checkpoint.h"
#include "engine/model/column_order.h"
#include "engine/model/input_scales.h"
#include "engine/model/packed_weights.h"
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
    struct buf *description; /* of what lies where, a line each; NULL: not wanted */
};

/* A linear that is being laid out. */
struct linear_place {
    const struct weight_shape *shape;
    enum weight_slot slot;
    int32_t layer, expert;
    const struct quant_format *format; /* of all parts; NULL: as they come */
};

static void *place(struct layout *a, size_t bytes)
{
    void *at = a->base ? a->base + a->used_bytes : NULL;
    a->used_bytes += (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    return at;
}

/* How a part of a weight is held: as it is stored, or else in the dtype of the model. */
static const struct quant_format *held_format(const struct model *m, enum weight_slot slot,
                                              int32_t layer, int32_t expert, int32_t part)
{
    const struct tensor_map_entry *e = tensor_map_find(&m->tensors, slot, layer, expert, part);
    const struct quant_format *stored = e ? tensor_map_entry_format(e) : NULL;
    /* A rounded router sends tokens to other experts; and it is small. */
    if (slot == W_ROUTER)
        return &quant_format_float32;
    /* Heads are cut out of one matrix and turned: codes cannot be, and there are few of them. */
    if (slot == W_KV_B_K || slot == W_KV_B_V)
        return stored && m->keep_formats && quant_format_is_plain(stored) ? stored
                                                                          : m->weight_format;
    if (stored && !quant_format_is_plain(stored))
        return stored;
    if (m->load_quant && weight_slot_quantized_at_load(slot))
        return m->load_quant;
    return stored && m->keep_formats ? stored : m->weight_format;
}

/* Where the columns of the entry's rows are in an order of their own, it is one of the link's too.
 */
static const struct quant_source *ordered_source(const struct model *m,
                                                 const struct linear_place *at, int32_t part)
{
    const struct tensor_map_entry *e =
        tensor_map_find(&m->tensors, at->slot, at->layer, at->expert, part);
    return e && e->quant && e->quant->has_order ? e->quant : NULL;
}

/* What a part's activations are rounded to; a static scale is input_scales.h's. */
static enum input_quant_kind part_input(const struct model *m, const struct linear_place *at,
                                        int32_t part, const struct quant_format *format)
{
    const struct tensor_map_entry *e =
        tensor_map_find(&m->tensors, at->slot, at->layer, at->expert, part);
    if (!e || !e->quant || at->format || e->quant->has_order || format != e->quant->format)
        return INPUT_QUANT_NONE;
    const enum input_quant_kind kind = e->quant->scheme->input;
    return input_quant_fits(kind, format, at->shape->cols) ? kind : INPUT_QUANT_NONE;
}

/* Experts are addressed as one block: where not all of them are stored alike, all are held in the
 * dtype of the model. */
static const struct quant_format *expert_format(const struct model *m, enum weight_slot slot,
                                                const struct weight_shape *shape, int32_t layer)
{
    const struct quant_format *first = held_format(m, slot, layer, 0, 0);
    for (int32_t expert = 0; expert < shape->num_experts; expert++)
        for (int32_t part = 0; part < shape->num_parts; part++)
            if (held_format(m, slot, layer, expert, part) != first)
                return m->weight_format;
    return first;
}

/* Without what packing adds to them. */
static size_t stored_bytes(const struct linear *l)
{
    return l->format ? (size_t)l->out_features * quant_row_bytes(l->format, l->in_features) : 0;
}

static void count_format(struct weights_size *size, const struct linear *l)
{
    int32_t i = 0;
    while (i < size->num_formats && strcmp(size->formats[i].format, l->format->name) != 0)
        i++;
    if (i == MAX_WEIGHT_FORMATS)
        i--;
    else if (i == size->num_formats)
        size->formats[size->num_formats++].format = l->format->name;
    size->formats[i].bytes += l->packed_bytes;
}

/* l->format is set, and l->bias if there is one. */
static bool lay_out_link(struct device *d, struct layout *a, struct weights *w, struct linear *l,
                         struct status *st)
{
    if (!d->backend->linear_plan(d, l, st))
        return false;
    if (a->description)
        buf_printf(a->description, "%zu %s %s %d %d %zu\n", a->used_bytes, l->format->name,
                   d->backend->linear_layout(l), l->out_features, l->in_features, l->packed_bytes);
    l->packed = place(a, l->packed_bytes);
    count_format(&w->size, l);
    w->size.decode_bytes += stored_bytes(l);
    return true;
}

/* Parts that are held alike share a link. */
static bool lay_out_linear(const struct model *m, struct device *d, struct layout *a,
                           struct weights *w, const struct linear_place *at, struct status *st)
{
    const struct weight_shape *shape = at->shape;
    struct linear *l = weights_linear(w, at->slot, at->layer, at->expert);
    const float *bias = shape->has_bias ? place(a, (size_t)shape->rows * sizeof *bias) : NULL;
    int32_t row = 0;
    bool was_ordered = false;
    w->size.decode_bytes += shape->has_bias ? (size_t)shape->rows * sizeof *bias : 0;
    for (int32_t part = 0; part < shape->num_parts; part++) {
        const struct quant_format *format =
            at->format ? at->format : held_format(m, at->slot, at->layer, at->expert, part);
        const enum input_quant_kind input = part_input(m, at, part, format);
        bool ordered = ordered_source(m, at, part) != NULL;
        if (part > 0 && at->format && ordered != was_ordered)
            return status_set(st, STATUS_UNSUPPORTED,
                              "layer %d: experts with desc_act for some of their parts only",
                              at->layer);
        /* Two orders may be the same; only experts need to know, and find out when they load. */
        if (part == 0 || format != l->format || input != l->input_quant.kind ||
            ((ordered || was_ordered) && !at->format)) {
            if (part > 0 && !lay_out_link(d, a, w, l, st))
                return false;
            if (part > 0)
                l = l->next = arena_alloc(&w->links, sizeof *l);
            *l = (struct linear){ .in_features = shape->cols,
                                  .format = format,
                                  .input_quant.kind = input,
                                  .needs_rows =
                                      at->slot == W_EMBEDDING || at->slot == W_POSITION_EMBEDDING,
                                  .bias = bias ? bias + row : NULL };
            if (ordered)
                l->input_order = place(a, (size_t)shape->cols * sizeof *l->input_order);
            if (at->slot == W_EMBEDDING) {
                l->vocab_begin = m->desc.tensor_parallel_rank * shape->rows;
                l->vocab_size = m->desc.vocab_size;
            }
        }
        was_ordered = ordered;
        l->out_features += shape->part_rows[part];
        row += shape->part_rows[part];
    }
    return lay_out_link(d, a, w, l, st);
}

static bool lay_out_slot(const struct model *m, struct device *d, struct layout *a,
                         struct weights *w, enum weight_slot slot, int32_t layer, struct status *st)
{
    struct weight_shape shape = weight_slot_shape(&m->desc, slot);
    if (!shape.present || !weight_slot_in_layer(&m->desc, slot, layer))
        return true;
    const float **vector = weights_vector(w, slot, layer);
    size_t bytes = (size_t)shape.cols * sizeof(float);
    if (vector) {
        *vector = place(a, bytes);
        return true;
    }
    if (shape.is_vector) {
        struct norm *norm = weights_norm(w, slot, layer);
        bool of_latent = slot == W_Q_A_NORM || slot == W_KV_A_NORM;
        *norm = (struct norm){ .kind = m->desc.traits.norm_kind,
                               .size = shape.cols,
                               .weight = place(a, bytes),
                               .eps = of_latent ? m->desc.latent_norm_eps : m->desc.rms_norm_eps,
                               .weight_offset = m->desc.traits.norm_weight_offset };
        if (shape.has_bias)
            norm->bias = place(a, bytes);
        w->size.decode_bytes += shape.has_bias ? 2 * bytes : bytes;
        return true;
    }
    struct linear_place at = { .shape = &shape, .slot = slot, .layer = layer };
    if (slot == W_EXPERT_GATE_UP || slot == W_EXPERT_DOWN)
        at.format = expert_format(m, slot, &shape, layer);
    for (; at.expert < shape.num_experts; at.expert++)
        if (!lay_out_linear(m, d, a, w, &at, st))
            return false;
    return true;
}

static void describe_moe(const struct decoder_desc *desc, struct layer_weights *layer)
{
    struct moe *moe = &layer->moe;
    moe->num_experts = desc->num_experts;
    moe->num_experts_per_tok = desc->num_experts_per_tok;
    moe->scoring = desc->moe_scoring;
    moe->norm_topk_prob = desc->norm_topk_prob;
    moe->num_groups = desc->topk_method == TOPK_GREEDY ? 0 : desc->n_group;
    moe->topk_groups = desc->topk_group;
    moe->group_score = desc->topk_method == TOPK_NOAUX_TC ? MOE_GROUP_TOP2 : MOE_GROUP_MAX;
    moe->routed_scaling_factor = desc->routed_scaling_factor > 0 ? desc->routed_scaling_factor : 1;
    moe->act = desc->hidden_act;
    moe->gate_up = layer->expert_gate_up;
    moe->down = layer->expert_down;
}

static struct rope lay_out_rope(struct layout *a, const struct rope_desc *desc)
{
    double factor = desc->attention_factor;
    return (struct rope){ .rotary_dim = desc->rotary_dim,
                          .interleaved = desc->interleaved,
                          .inv_freq = place(a, (size_t)desc->rotary_dim / 2 * sizeof(float)),
                          .attention_scaling = factor > 0 ? (float)factor : 1.0f };
}

/* In the order of execution, so that a forward pass reads the arena from front to back. */
static bool lay_out(const struct model *m, struct device *d, struct layout *a, struct weights *w,
                    struct status *st)
{
    const struct decoder_desc *desc = &m->desc;
    w->size = (struct weights_size){ 0 };
    if (!lay_out_slot(m, d, a, w, W_EMBEDDING, 0, st) ||
        !lay_out_slot(m, d, a, w, W_POSITION_EMBEDDING, 0, st))
        return false;
    w->rope = lay_out_rope(a, &desc->rope);
    w->sliding_rope = lay_out_rope(a, &desc->sliding_rope);
    for (int32_t layer = 0; layer < desc->num_hidden_layers; layer++)
        for (int slot = W_INPUT_NORM; slot < NUM_WEIGHT_SLOTS; slot++)
            if (!lay_out_slot(m, d, a, w, (enum weight_slot)slot, layer, st))
                return false;
    if (!lay_out_slot(m, d, a, w, W_FINAL_NORM, 0, st) ||
        !lay_out_slot(m, d, a, w, W_LM_HEAD, 0, st))
        return false;
    w->head = desc->tie_word_embeddings ? &w->embedding : &w->lm_head;
    w->size.bytes = a->used_bytes;
    if (!desc->tie_word_embeddings) /* only single rows of it are looked up */
        w->size.decode_bytes -= stored_bytes(&w->embedding);
    w->size.decode_bytes -= stored_bytes(&w->positions);
    return true;
}

static struct weights *weights_new(const struct decoder_desc *desc)
{
    struct weights *w = xcalloc(1, sizeof *w);
    w->layers = xcalloc((size_t)desc->num_hidden_layers, sizeof *w->layers);
    for (int32_t i = 0; i < desc->num_hidden_layers; i++) {
        struct layer_weights *layer = &w->layers[i];
        if (desc->kv_lora_rank > 0) {
            layer->kv_b_k = xcalloc(2 * (size_t)desc->num_attention_heads, sizeof(struct linear));
            layer->kv_b_v = layer->kv_b_k + desc->num_attention_heads;
        }
        if (!desc->layers[i].moe)
            continue;
        layer->expert_gate_up = xcalloc(2 * (size_t)desc->num_experts, sizeof(struct linear));
        layer->expert_down = layer->expert_gate_up + desc->num_experts;
        describe_moe(desc, layer);
    }
    w->num_layers = desc->num_hidden_layers;
    arena_init(&w->links);
    return w;
}

/* All but the arena. */
static void free_structs(struct weights *w)
{
    for (int32_t i = 0; i < w->num_layers; i++) {
        free(w->layers[i].expert_gate_up);
        free(w->layers[i].kv_b_k);
    }
    free(w->layers);
    arena_free(&w->links);
    free(w);
}

bool weights_plan(const struct model *m, struct device *d, struct weights_size *out,
                  struct status *st)
{
    struct layout counting = { 0 };
    struct weights *w = weights_new(&m->desc);
    bool ok = lay_out(m, d, &counting, w, st);
    *out = w->size;
    free_structs(w);
    return ok;
}

/* --- vectors: norms, biases, frequencies ----------------------------------------------------- */

static bool upload(struct device *d, const float *dst, const float *src, int32_t count,
                   struct status *st)
{
    d->backend->copy(d, (void *)(uintptr_t)dst, src, (size_t)count * sizeof *src, COPY_TO_DEVICE);
    return d->backend->sync(d, st); /* the source is reused for the next one */
}

/* Where a norm's weight or bias, another vector or a linear's bias lies. */
static const float *vector_place(struct weights *w, enum weight_slot slot, int32_t layer,
                                 int32_t expert, bool is_bias)
{
    const struct norm *norm = weights_norm(w, slot, layer);
    const float **vector = weights_vector(w, slot, layer);
    if (vector)
        return *vector;
    if (!norm)
        return weights_linear(w, slot, layer, expert)->bias;
    return is_bias ? norm->bias : norm->weight;
}

static bool load_vectors(const struct model *m, struct device *d, struct weights *w,
                         struct status *st)
{
    size_t num_read = 0;
    for (size_t i = 0; i < m->tensors.count; i++) {
        const struct tensor_map_entry *e = &m->tensors.entries[i];
        if (!e->is_bias && weights_linear(w, e->slot, e->layer, e->expert))
            continue;
        int32_t count = e->rows * e->cols;
        float *values = xmalloc((size_t)count * sizeof *values);
        weights_read_vector(values, e);
        const float *place = vector_place(w, e->slot, e->layer, e->expert, e->is_bias);
        bool ok = upload(d, place + e->row_begin, values, count, st);
        free(values);
        if (!ok)
            return false;
        if (++num_read % 8 == 0) /* each may have brought in the 2 MB around it */
            checkpoint_release_pages(m->checkpoint);
    }
    return true;
}

/* One vector of each layer and expert: norms of one, biases and others of either sign. */
static bool dummy_vector(const struct model *m, struct device *d, struct weights *w,
                         enum weight_slot slot, bool is_bias, struct status *st)
{
    struct weight_shape shape = weight_slot_shape(&m->desc, slot);
    int32_t count = shape.is_vector ? shape.cols : shape.rows;
    int32_t layers = weight_slot_is_per_layer(slot) ? m->desc.num_hidden_layers : 1;
    float *values = xmalloc((size_t)count * sizeof *values);
    bool ok = true;
    for (int32_t layer = 0; ok && layer < layers; layer++) {
        int32_t experts = weight_slot_in_layer(&m->desc, slot, layer) ? shape.num_experts : 0;
        for (int32_t i = 0; i < count; i++)
            values[i] = is_bias || weights_vector(w, slot, layer)
                            ? weights_dummy_bias(slot, layer, i)
                            : 1.0f - m->desc.traits.norm_weight_offset;
        for (int32_t e = 0; ok && e < experts; e++)
            ok = upload(d, vector_place(w, slot, layer, e, is_bias), values, count, st);
    }
    free(values);
    return ok;
}

static bool dummy_vectors(const struct model *m, struct device *d, struct weights *w,
                          struct status *st)
{
    for (int s = W_EMBEDDING; s < NUM_WEIGHT_SLOTS; s++) {
        enum weight_slot slot = (enum weight_slot)s;
        struct weight_shape shape = weight_slot_shape(&m->desc, slot);
        if ((shape.present && shape.is_vector && !dummy_vector(m, d, w, slot, false, st)) ||
            (shape.present && shape.has_bias && !dummy_vector(m, d, w, slot, true, st)))
            return false;
    }
    return true;
}

static bool upload_rope(const struct rope_desc *desc, struct device *d, const struct rope *rope,
                        struct status *st)
{
    int32_t count = desc->rotary_dim / 2;
    if (count == 0)
        return true;
    float *inv_freq = xmalloc((size_t)count * sizeof *inv_freq);
    rope_desc_inv_freq(desc, inv_freq);
    bool ok = upload(d, rope->inv_freq, inv_freq, count, st);
    free(inv_freq);
    return ok;
}

/* --- load ------------------------------------------------------------------------------------ */

/* Packs everything into a new arena. */
static bool pack_arena(const struct model *m, struct device *d, struct weights *w,
                       const struct weights_progress *report, struct status *st)
{
    size_t planned = w->size.bytes;
    if (!d->backend->alloc(d, &w->arena, planned, MEMORY_DEVICE, st))
        return status_prefix(st, "weights of %zu bytes: ", planned);
    struct layout placing = { .base = w->arena.data };
    bool ok = lay_out(m, d, &placing, w, st);
    assert(!ok || placing.used_bytes == planned);
    ok = ok && column_orders_upload(m, d, w, st) &&
         (m->checkpoint ? load_vectors(m, d, w, st) : dummy_vectors(m, d, w, st));
    if (ok)
        weights_pack_all(m, d, w, report);
    return ok && d->backend->sync(d, st);
}

/* The image of an earlier start, where there is one that fits. */
static bool map_arena(const struct model *m, struct device *d, struct weights *w,
                      const struct packed_cache_id *id)
{
    uint64_t start = clock_now_ns();
    struct status st;
    if (!packed_cache_map(m->packed_weights_cache, id, &w->arena, &st)) {
        if (st.code != STATUS_NOT_FOUND)
            log_warning("packed weights are made anew: %s", st.message);
        return false;
    }
    w->arena_is_mapped = true;
    struct layout placing = { .base = w->arena.data };
    bool ok = lay_out(m, d, &placing, w, &st); /* as it went when the bytes were counted */
    assert(ok && placing.used_bytes == id->arena_bytes);
    (void)ok;
    log_info("packed weights: %zu bytes mapped and checked in %.0f ms", id->arena_bytes,
             clock_seconds_between(start, clock_now_ns()) * 1e3);
    return true;
}

/* Counts the bytes, and finds the id of their image unless `id` is NULL. */
static bool describe_arena(const struct model *m, struct device *d, struct weights *w, int32_t rank,
                           struct packed_cache_id *id, struct status *st)
{
    struct buf description;
    buf_init(&description, 0);
    struct layout counting = { .description = &description };
    bool ok = lay_out(m, d, &counting, w, st);
    if (ok && id)
        *id = packed_weights_id(m, d, rank, &description, counting.used_bytes);
    buf_free(&description);
    return ok;
}

bool weights_load(const struct model *m, struct device *d, struct comm *c,
                  void (*progress)(void *arg, size_t done_bytes, size_t total_bytes),
                  void *progress_arg, struct weights **out, struct status *st)
{
    assert(c->world_size == decoder_desc_num_ranks(&m->desc));
    struct weights_progress report = { progress, progress_arg };
    struct weights *w = weights_new(&m->desc);
    struct packed_cache_id id;
    bool cached =
        m->packed_weights_cache && m->checkpoint && (d->backend->caps & BACKEND_HOST_MEMORY);
    bool ok = describe_arena(m, d, w, c->rank, cached ? &id : NULL, st) &&
              ((cached && map_arena(m, d, w, &id)) || pack_arena(m, d, w, &report, st)) &&
              input_scales_read(m, w, st) && upload_rope(&m->desc.rope, d, &w->rope, st) &&
              upload_rope(&m->desc.sliding_rope, d, &w->sliding_rope, st) &&
              d->backend->sync(d, st);
    if (!ok) {
        weights_free(w, d);
        return false;
    }
    if (cached && !w->arena_is_mapped)
        w->cache_writer = packed_cache_write_begin(m->packed_weights_cache, &id, w->arena.data);
    *out = w;
    return true;
}

void weights_free(struct weights *w, struct device *d)
{
    if (!w)
        return;
    packed_cache_write_end(w->cache_writer);
    if (w->arena_is_mapped)
        packed_cache_unmap(&w->arena);
    else
        d->backend->free(d, &w->arena);
    free_structs(w);
}
