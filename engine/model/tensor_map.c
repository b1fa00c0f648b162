/* tensor_map.c - rules times layers, looked up one by one; then what is left over. */
#include "engine/model/tensor_map.h"
#include "base/alloc.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What tensor_map_make works on. */
struct mapping {
    const struct model_arch *arch;
    const struct decoder_desc *desc;
    const struct checkpoint *checkpoint;
    bool *used; /* per tensor of the checkpoint */
    struct tensor_map *map;
    size_t capacity;
};

static bool same_place(const struct tensor_rule *a, const struct tensor_rule *b)
{
    return a->slot == b->slot && a->part == b->part && a->slot != W_IGNORED;
}

/* Whether an architecture nearer to the checkpoint's own has a rule for the same place. */
static bool is_replaced(const struct model_arch *arch, const struct model_arch *owner,
                        const struct tensor_rule *rule)
{
    for (; arch != owner; arch = arch->base)
        for (const struct tensor_rule *r = arch->tensors; r && r->name; r++)
            if (same_place(r, rule))
                return true;
    return false;
}

/* The rule's name with the layer in the place of {}. False when it does not fit. */
static bool expand_name(const char *pattern, int32_t layer, const char *suffix, char *out,
                        size_t size)
{
    const char *hole = strstr(pattern, "{}");
    int n = hole ? snprintf(out, size, "%.*s%d%s%s", (int)(hole - pattern), pattern, layer,
                            hole + 2, suffix)
                 : snprintf(out, size, "%s%s", pattern, suffix);
    return n > 0 && (size_t)n < size;
}

/* {} stands for a decimal number. */
static bool name_matches(const char *pattern, const char *name)
{
    const char *hole = strstr(pattern, "{}");
    if (!hole)
        return strcmp(pattern, name) == 0;
    size_t before = (size_t)(hole - pattern);
    size_t digits = strncmp(pattern, name, before) ? 0 : strspn(name + before, "0123456789");
    return digits > 0 && strcmp(hole + 2, name + before + digits) == 0;
}

/* --- expected tensors ------------------------------------------------------------------------ */

static bool check_tensor(const struct checkpoint_tensor *t, const int64_t *shape, int32_t num_dims,
                         struct status *st)
{
    bool same = t->num_dims == num_dims;
    for (int32_t i = 0; same && i < num_dims; i++)
        same = t->shape[i] == shape[i];
    if (!same)
        return status_set(st, STATUS_INVALID,
                          "%s: tensor '%s' has shape %s, config.json asks for %s", t->file, t->name,
                          shape_show(t->shape, t->num_dims).text, shape_show(shape, num_dims).text);
    if (!t->type->is_float)
        return status_set(st, STATUS_UNSUPPORTED,
                          "%s: tensor '%s' is of dtype %s; weights can be F32, BF16 or F16",
                          t->file, t->name, t->type->name);
    return true;
}

static void add_entry(struct mapping *m, const struct tensor_map_entry *entry)
{
    if (m->map->count == m->capacity) {
        m->capacity = m->capacity ? 2 * m->capacity : 64;
        m->map->entries = xrealloc(m->map->entries, m->capacity * sizeof *m->map->entries);
    }
    m->map->entries[m->map->count++] = *entry;
}

/* The weight or the bias of one rule in one layer. */
static bool map_tensor(struct mapping *m, const struct tensor_rule *rule,
                       const struct weight_shape *shape, int32_t layer, bool is_bias,
                       struct status *st)
{
    char name[256];
    if (!expand_name(rule->name, layer, is_bias ? ".bias" : ".weight", name, sizeof name))
        return status_set(st, STATUS_INTERNAL, "the name of rule %s is too long", rule->name);
    const struct checkpoint_tensor *t = checkpoint_find(m->checkpoint, name);
    if (!t)
        return status_set(st, STATUS_INVALID,
                          "tensor '%s' is missing; %s needs it by its config.json", name,
                          m->desc->architecture);
    m->used[t - m->checkpoint->tensors] = true;

    struct tensor_map_entry entry = { .tensor = t,
                                      .slot = rule->slot,
                                      .partition = rule->partition,
                                      .is_bias = is_bias,
                                      .layer = layer,
                                      .rows = shape->part_rows[rule->part],
                                      .cols = is_bias ? 1 : shape->cols };
    for (int32_t i = 0; i < rule->part; i++)
        entry.row_begin += shape->part_rows[i];
    const int64_t dims[2] = { entry.rows, entry.cols };
    bool vector = shape->is_norm || is_bias;
    if (!check_tensor(t, shape->is_norm ? dims + 1 : dims, vector ? 1 : 2, st))
        return false;
    add_entry(m, &entry);
    return true;
}

static bool map_rule(struct mapping *m, const struct tensor_rule *rule, struct status *st)
{
    struct weight_shape shape = weight_slot_shape(m->desc, rule->slot);
    assert(rule->part >= 0 && (!shape.present || rule->part < shape.num_parts));
    int32_t layers = weight_slot_is_per_layer(rule->slot) ? m->desc->num_hidden_layers : 1;
    for (int32_t layer = 0; shape.present && layer < layers; layer++) {
        if (!map_tensor(m, rule, &shape, layer, false, st))
            return false;
        if (shape.has_bias && !map_tensor(m, rule, &shape, layer, true, st))
            return false;
    }
    return true;
}

static bool map_all(struct mapping *m, struct status *st)
{
    for (const struct model_arch *a = m->arch; a; a = a->base)
        for (const struct tensor_rule *r = a->tensors; r && r->name; r++)
            if (r->slot != W_IGNORED && !is_replaced(m->arch, a, r) && !map_rule(m, r, st))
                return false;
    return true;
}

/* --- leftovers ------------------------------------------------------------------------------- */

/* A tied head may be stored all the same: it repeats the embedding, and is not read. */
static bool is_tied_head(const struct mapping *m, const struct tensor_rule *rule, const char *name)
{
    char weight[256];
    return rule->slot == W_LM_HEAD && m->desc->tie_word_embeddings &&
           expand_name(rule->name, 0, ".weight", weight, sizeof weight) &&
           strcmp(weight, name) == 0;
}

static bool is_ignored(const struct mapping *m, const char *name)
{
    for (const struct model_arch *a = m->arch; a; a = a->base)
        for (const struct tensor_rule *r = a->tensors; r && r->name; r++)
            if ((r->slot == W_IGNORED && name_matches(r->name, name)) || is_tied_head(m, r, name))
                return true;
    return false;
}

static bool check_leftovers(const struct mapping *m, struct status *st)
{
    for (size_t i = 0; i < m->checkpoint->num_tensors; i++) {
        const struct checkpoint_tensor *t = &m->checkpoint->tensors[i];
        if (!m->used[i] && !is_ignored(m, t->name))
            return status_set(st, STATUS_INVALID,
                              "%s: tensor '%s' is no part of a %s with this config.json", t->file,
                              t->name, m->desc->architecture);
    }
    return true;
}

bool tensor_map_make(const struct model_arch *arch, const struct decoder_desc *desc,
                     const struct checkpoint *c, struct tensor_map *out, struct status *st)
{
    struct mapping m = { .arch = arch, .desc = desc, .checkpoint = c, .map = out };
    *out = (struct tensor_map){ 0 };
    m.used = xcalloc(c->num_tensors + 1, sizeof *m.used);
    bool ok = map_all(&m, st) && check_leftovers(&m, st);
    free(m.used);
    if (!ok)
        tensor_map_free(out);
    return ok;
}

void tensor_map_free(struct tensor_map *map)
{
    free(map->entries);
    *map = (struct tensor_map){ 0 };
}
