/* tensor_map.c - rules times layers, looked up one by one; then what is left over. */
#include "engine/model/tensor_map.h"
#include "base/alloc.h"
#include "config/limits.h"
#include "engine/model/kv_scales.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What tensor_map_make works on. */
struct mapping {
    const struct model_arch *arch;
    const struct decoder_desc *desc;
    const struct checkpoint *checkpoint;
    struct quant_config *quant; /* or NULL */
    bool *used;                 /* per tensor of the checkpoint */
    struct quant_source *stack; /* of the last stack; or NULL */
    struct tensor_map *map;
    size_t capacity;
};

static int32_t num_parts(const struct tensor_rule *rule)
{
    return rule->num_parts > 0 ? rule->num_parts : 1;
}

/* Whether both fill some part of one slot. */
static bool same_place(const struct tensor_rule *a, const struct tensor_rule *b)
{
    return a->slot == b->slot && a->slot < NUM_WEIGHT_SLOTS && a->part < b->part + num_parts(b) &&
           b->part < a->part + num_parts(a);
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

struct place {
    int32_t layer, expert;
};

/* The rule's name with the layer in the place of the first {} and the expert in that of the second.
 * False when it does not fit. */
static bool expand_name(const char *pattern, const struct place *place, const char *suffix,
                        char *out, size_t size)
{
    const int32_t numbers[2] = { place->layer, place->expert };
    size_t used = 0;
    for (int i = 0; i < 2; i++) {
        const char *hole = strstr(pattern, "{}");
        int n = hole ? snprintf(out + used, size - used, "%.*s%d", (int)(hole - pattern), pattern,
                                numbers[i])
                     : 0;
        if (n < 0 || (size_t)n >= size - used)
            return false;
        used += (size_t)n;
        pattern = hole ? hole + 2 : pattern;
    }
    int n = snprintf(out + used, size - used, "%s%s", pattern, suffix);
    return n > 0 && (size_t)n < size - used;
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

/* The prefix that this family's checkpoints may leave out, or NULL. */
static const char *optional_prefix(const struct model_arch *arch)
{
    while (arch && !arch->optional_prefix)
        arch = arch->base;
    return arch ? arch->optional_prefix : NULL;
}

/* `name` (or a pattern) without the optional prefix; NULL when it does not begin with it. */
static const char *without_prefix(const struct mapping *m, const char *name)
{
    const char *prefix = optional_prefix(m->arch);
    size_t len = prefix ? strlen(prefix) : 0;
    return prefix && strncmp(name, prefix, len) == 0 ? name + len : NULL;
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
    return true;
}

/* Only the rows of linears can be other than plain numbers, and only as they are. */
static bool check_type(const struct checkpoint_tensor *t, bool plain_only, struct status *st)
{
    const struct quant_format *format = t->type->format;
    if (t->type->is_float)
        return true;
    if (!format || plain_only)
        return status_set(st, STATUS_UNSUPPORTED,
                          "%s: tensor '%s' is of dtype %s; weights can be F32, BF16 or F16",
                          t->file, t->name, t->type->name);
    int64_t row = t->shape[t->num_dims - 1];
    if (row % format->block_elements != 0)
        return status_set(st, STATUS_INVALID,
                          "%s: tensor '%s': rows of %lld weights are no whole blocks of %s",
                          t->file, t->name, (long long)row, t->type->name);
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

static const struct checkpoint_tensor *find_tensor(struct mapping *m, const char *name)
{
    const struct checkpoint_tensor *t = checkpoint_find(m->checkpoint, name);
    const char *shorter = without_prefix(m, name);
    if (!t && shorter)
        t = checkpoint_find(m->checkpoint, shorter);
    if (t)
        m->used[t - m->checkpoint->tensors] = true;
    return t;
}

/* A part of the rule's tensor, given where the tensor's rows for it begin. */
static void add_part(struct mapping *m, const struct tensor_rule *rule,
                     const struct weight_shape *shape, int32_t part,
                     const struct tensor_map_entry *whole)
{
    struct tensor_map_entry entry = *whole;
    for (int32_t i = 0; i < part; i++)
        entry.row_begin += shape->part_rows[i];
    entry.part = part;
    entry.rows = shape->part_rows[part];
    if (rule->row_order == ROWS_INTERLEAVED) {
        assert(shape->part_rows[part] == shape->part_rows[rule->part]);
        entry.src_row_begin += part - rule->part;
        entry.src_row_step = num_parts(rule);
        add_entry(m, &entry);
        return;
    }
    if (rule->row_order == ROWS_BY_PART) {
        for (int32_t i = rule->part; i < part; i++)
            entry.src_row_begin += shape->part_rows[i];
        add_entry(m, &entry);
        return;
    }
    int32_t heads = shape->heads[part], head_rows = entry.rows / heads, stride = 0;
    for (int32_t i = rule->part; i < rule->part + num_parts(rule); i++) {
        assert(shape->heads[i] == heads);
        entry.src_row_begin += i < part ? shape->part_rows[i] / heads : 0;
        stride += shape->part_rows[i] / heads;
    }
    entry.rows = head_rows;
    for (int32_t head = 0; head < heads; head++) {
        add_entry(m, &entry);
        entry.row_begin += head_rows;
        entry.src_row_begin += stride;
    }
}

static const char *suffix(const struct tensor_rule *rule, bool is_bias)
{
    if (rule->bare)
        return is_bias ? "_bias" : "";
    return is_bias ? ".bias" : ".weight";
}

/* Fills in the shape that the rule's tensor must have; returns how many dimensions it has. */
static int32_t expected_shape(const struct tensor_rule *rule, const struct weight_shape *shape,
                              bool is_bias, int64_t dims[3])
{
    int32_t n = 0;
    int64_t rows = 0;
    for (int32_t i = rule->part; i < rule->part + num_parts(rule); i++)
        rows += shape->part_rows[i];
    if (rule->stacked && shape->stack_rows > 0) {
        dims[n++] = (int64_t)shape->num_experts * shape->stack_rows;
        dims[n++] = rule->transposed ? rows : shape->cols;
        return n;
    }
    if (rule->stacked)
        dims[n++] = shape->num_experts;
    if (shape->is_vector || is_bias) {
        dims[n++] = shape->is_vector ? shape->cols : rows;
        return n;
    }
    dims[n++] = rule->transposed ? shape->cols : rows;
    dims[n++] = rule->transposed ? rows : shape->cols;
    return n;
}

static void add_entries(struct mapping *m, const struct tensor_rule *rule,
                        const struct weight_shape *shape, struct tensor_map_entry *whole)
{
    whole->slot = rule->slot;
    whole->partition = rule->partition;
    whole->stack_size = rule->stacked ? shape->num_experts : 1;
    whole->stack_index = rule->stacked ? whole->expert : 0;
    whole->src_row_begin = shape->stack_row_begin;
    whole->src_row_step = 1;
    for (int32_t i = rule->part; i < rule->part + num_parts(rule); i++)
        add_part(m, rule, shape, i, whole);
}

/* --- quantized linears ------------------------------------------------------------------------ */

/* The tensors of a source whose scheme and name are set; false when one is missing. */
static bool find_quantized(struct mapping *m, struct quant_source *s, const char *separator,
                           struct status *st)
{
    const struct quant_layout *layout = s->scheme->layout;
    char name[LIMIT_TENSOR_NAME_BYTES + 1];
    for (int i = 0; i < QUANT_MAX_TENSORS && layout->tensors[i].suffix; i++) {
        snprintf(name, sizeof name, "%s%s%s", s->name, separator, layout->tensors[i].suffix + 1);
        s->tensors[i] = find_tensor(m, name);
        if (!s->tensors[i] && !layout->tensors[i].optional)
            return status_set(st, STATUS_INVALID,
                              "tensor '%s' is missing; quantization_config of config.json says %s",
                              name, m->quant->method);
    }
    return true;
}

static struct quant_source *add_source(struct mapping *m, const struct tensor_rule *rule,
                                       const struct weight_shape *shape,
                                       const struct quant_scheme *scheme, const char *module)
{
    struct quant_source *s = arena_alloc(&m->map->sources, sizeof *s);
    *s = (struct quant_source){ .scheme = scheme,
                                .name = arena_strdup(&m->map->sources, module),
                                .cols = shape->cols,
                                .stack_size = rule->stacked ? shape->num_experts : 1 };
    for (int32_t i = rule->part; i < rule->part + num_parts(rule); i++)
        s->rows += shape->part_rows[i];
    s->entry_rows = s->rows;
    if (shape->stack_rows > 0) { /* one matrix, so many rows of which belong to each head */
        s->cols = rule->transposed ? s->rows : shape->cols;
        s->entry_rows = shape->stack_rows;
        s->rows = shape->num_experts * shape->stack_rows;
        s->stack_size = 1;
    }
    return s;
}

/* Whether the checkpoint has the linear quantized; *mapped then tells whether all was right. */
static bool map_quantized(struct mapping *m, const struct tensor_rule *rule,
                          const struct weight_shape *shape, const struct place *place, bool *mapped,
                          struct status *st)
{
    char module[LIMIT_TENSOR_NAME_BYTES], first[LIMIT_TENSOR_NAME_BYTES + 1];
    const char *separator = rule->bare ? "_" : ".";
    *mapped = false;
    if (!expand_name(rule->name, place, "", module, sizeof module))
        return false;
    const struct quant_scheme *scheme = quant_config_scheme(m->quant, module);
    if (!scheme)
        return false;
    snprintf(first, sizeof first, "%s%s%s", module, separator,
             scheme->layout->tensors[0].suffix + 1);
    const struct checkpoint_tensor *t = find_tensor(m, first);
    if (!t || (t->type->is_float && strcmp(scheme->layout->tensors[0].suffix, ".weight") == 0))
        return false;
    if (shape->stack_rows == 0 && (rule->stacked || rule->transposed) && !scheme->layout->stacked) {
        status_set(st, STATUS_UNSUPPORTED, "%s: '%s' cannot be quantized with %s here", t->file,
                   module, scheme->layout->name);
        return true;
    }
    struct quant_source *s = m->stack;
    if (!rule->stacked || !s || s->tensors[0] != t) /* one for all matrices of a stack */
        s = add_source(m, rule, shape, scheme, module);
    if (!s->format &&
        (!find_quantized(m, s, separator, st) || !quant_source_check(s, &m->quant->formats, st)))
        return true;
    if (shape->stack_rows > 0 && s->has_order) {
        status_set(st, STATUS_UNSUPPORTED,
                   "%s: '%s' has its columns in an order of its own (desc_act), which the heads of "
                   "latent attention cannot have",
                   t->file, module);
        return true;
    }
    if (rule->stacked)
        m->stack = s;
    struct tensor_map_entry whole = { .tensor = t,
                                      .quant = s,
                                      .layer = place->layer,
                                      .expert = place->expert,
                                      .cols = shape->cols,
                                      .transposed = shape->stack_rows > 0 && rule->transposed };
    add_entries(m, rule, shape, &whole);
    *mapped = true;
    return true;
}

/* --- rules ------------------------------------------------------------------------------------ */

/* The weight or the bias of one rule in one layer, for one expert. */
static bool map_tensor(struct mapping *m, const struct tensor_rule *rule,
                       const struct weight_shape *shape, const struct place *place, bool is_bias,
                       struct status *st)
{
    char name[256];
    int64_t dims[3];
    bool mapped;
    if (m->quant && !is_bias && !shape->is_vector &&
        map_quantized(m, rule, shape, place, &mapped, st))
        return mapped;
    if (!expand_name(rule->name, place, suffix(rule, is_bias), name, sizeof name))
        return status_set(st, STATUS_INTERNAL, "the name of rule %s is too long", rule->name);
    const struct checkpoint_tensor *t = find_tensor(m, name);
    if (!t)
        return status_set(st, STATUS_INVALID,
                          "tensor '%s' is missing; %s needs it by its config.json", name,
                          m->desc->architecture);
    int32_t num_dims = expected_shape(rule, shape, is_bias, dims);
    if (!check_tensor(t, dims, num_dims, st) ||
        !check_type(t, shape->is_vector || is_bias || rule->transposed, st))
        return false;
    struct tensor_map_entry whole = { .tensor = t,
                                      .is_bias = is_bias,
                                      .layer = place->layer,
                                      .expert = place->expert,
                                      .cols = is_bias && !shape->is_vector ? 1 : shape->cols,
                                      .transposed =
                                          rule->transposed && !shape->is_vector && !is_bias };
    add_entries(m, rule, shape, &whole);
    return true;
}

static bool map_rule(struct mapping *m, const struct tensor_rule *rule, struct status *st)
{
    struct weight_shape shape = weight_slot_shape(m->desc, rule->slot);
    assert(rule->part >= 0);
    if (rule->part >= shape.num_parts)
        return true; /* a base's rule for a part that this model has not: the gate of a plain MLP */
    assert(rule->part + num_parts(rule) <= shape.num_parts);
    int32_t layers = weight_slot_is_per_layer(rule->slot) ? m->desc->num_hidden_layers : 1;
    for (struct place at = { 0, 0 }; shape.present && at.layer < layers; at.layer++) {
        if (!weight_slot_in_layer(m->desc, rule->slot, at.layer))
            continue;
        for (at.expert = 0; at.expert < shape.num_experts; at.expert++)
            if (!map_tensor(m, rule, &shape, &at, false, st) ||
                (shape.has_bias && !map_tensor(m, rule, &shape, &at, true, st)))
                return false;
    }
    return true;
}

static bool map_all(struct mapping *m, struct status *st)
{
    for (const struct model_arch *a = m->arch; a; a = a->base)
        for (const struct tensor_rule *r = a->tensors; r && r->name; r++)
            if (r->slot < NUM_WEIGHT_SLOTS && !is_replaced(m->arch, a, r) && !map_rule(m, r, st))
                return false;
    return true;
}

/* --- leftovers ------------------------------------------------------------------------------- */

/* A tied head may be stored all the same: it repeats the embedding, and is not read. */
static bool is_tied_head(const struct mapping *m, const struct tensor_rule *rule, const char *name)
{
    char weight[256];
    return rule->slot == W_LM_HEAD && m->desc->tie_word_embeddings &&
           expand_name(rule->name, &(struct place){ 0, 0 }, suffix(rule, false), weight,
                       sizeof weight) &&
           strcmp(weight, name) == 0;
}

/* Whether the rule is for layers behind the last and the tensor belongs to one of them. */
static bool is_in_ignored_layer(const struct mapping *m, const struct tensor_rule *rule,
                                const char *name)
{
    char prefix[256];
    if (rule->slot != W_IGNORED_LAYER)
        return false;
    for (int32_t i = 0; i < m->desc->num_nextn_predict_layers; i++) {
        struct place place = { m->desc->num_hidden_layers + i, 0 };
        if (expand_name(rule->name, &place, ".", prefix, sizeof prefix) &&
            strncmp(name, prefix, strlen(prefix)) == 0)
            return true;
    }
    return false;
}

static bool is_ignored(const struct mapping *m, const char *name)
{
    for (const struct model_arch *a = m->arch; a; a = a->base) {
        for (const struct tensor_rule *r = a->tensors; r && r->name; r++) {
            const char *shorter = without_prefix(m, r->name);
            if ((r->slot == W_IGNORED && name_matches(r->name, name)) || is_tied_head(m, r, name) ||
                is_in_ignored_layer(m, r, name) ||
                (r->slot == W_IGNORED && shorter && name_matches(shorter, name)))
                return true;
        }
    }
    return kv_scales_name(name, m->desc->num_hidden_layers);
}

/* AutoGPTQ writes a bias for every linear; where the model has none they are zeros. */
static bool is_zero_bias(const struct mapping *m, const struct checkpoint_tensor *t)
{
    size_t len = strlen(t->name);
    bool bias = m->quant && strcmp(m->quant->method, "gptq") == 0 && len > 5 &&
                strcmp(t->name + len - 5, ".bias") == 0 && t->num_dims == 1 && t->type->is_float;
    for (size_t i = 0; bias && i < t->size_bytes; i++)
        bias = t->data[i] == 0;
    return bias;
}

static bool check_leftovers(const struct mapping *m, struct status *st)
{
    for (size_t i = 0; i < m->checkpoint->num_tensors; i++) {
        const struct checkpoint_tensor *t = &m->checkpoint->tensors[i];
        if (!m->used[i] && !is_ignored(m, t->name) && !is_zero_bias(m, t) &&
            !quant_config_ignores(m->quant, t->name))
            return status_set(st, STATUS_INVALID,
                              "%s: tensor '%s' is no part of a %s with this config.json", t->file,
                              t->name, m->desc->architecture);
    }
    return true;
}

/* --- the order of the entries ----------------------------------------------------------------- */

static int compare(int64_t a, int64_t b)
{
    return (a > b) - (a < b);
}

static int by_place(const void *a, const void *b)
{
    const struct tensor_map_entry *x = a, *y = b;
    int order = compare(x->slot, y->slot);
    order = order ? order : compare(x->layer, y->layer);
    order = order ? order : compare(x->expert, y->expert);
    order = order ? order : compare(x->is_bias, y->is_bias);
    return order ? order : compare(x->row_begin, y->row_begin);
}

const struct tensor_map_entry *tensor_map_find(const struct tensor_map *map, enum weight_slot slot,
                                               int32_t layer, int32_t expert, int32_t part)
{
    struct tensor_map_entry key = { .slot = slot, .layer = layer, .expert = expert };
    size_t low = 0, high = map->count;
    while (low < high) { /* the first that is not before the key */
        size_t middle = low + (high - low) / 2;
        if (by_place(&map->entries[middle], &key) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    for (; low < map->count; low++) {
        const struct tensor_map_entry *e = &map->entries[low];
        if (e->slot != slot || e->layer != layer || e->expert != expert || e->is_bias)
            break;
        if (e->part == part)
            return e;
    }
    return NULL;
}

const struct quant_format *tensor_map_entry_format(const struct tensor_map_entry *e)
{
    const struct checkpoint_type *type = e->tensor->type;
    if (e->quant)
        return e->quant->format;
    return type->is_float ? quant_format_of_dtype(type->dtype) : type->format;
}

bool tensor_map_make(const struct model_arch *arch, const struct decoder_desc *desc,
                     const struct checkpoint *c, struct quant_config *quant, struct tensor_map *out,
                     struct status *st)
{
    struct mapping m = { .arch = arch, .desc = desc, .checkpoint = c, .quant = quant, .map = out };
    *out = (struct tensor_map){ 0 };
    arena_init(&out->sources);
    m.used = xcalloc(c->num_tensors + 1, sizeof *m.used);
    bool ok = map_all(&m, st) && check_leftovers(&m, st);
    free(m.used);
    if (out->count > 1)
        qsort(out->entries, out->count, sizeof *out->entries, by_place);
    if (!ok)
        tensor_map_free(out);
    return ok;
}

void tensor_map_free(struct tensor_map *map)
{
    free(map->entries);
    arena_free(&map->sources);
    *map = (struct tensor_map){ 0 };
}
