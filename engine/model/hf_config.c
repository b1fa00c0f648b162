/* hf_config.c - walks the architecture's rows over config.json, then derives what they leave open.
 */
#include "engine/model/hf_config.h"
#include "config/limits.h"
#include "engine/model/json_file.h"
#include "engine/model/rope_desc.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

/* JSON null is how transformers writes a key that is not set. */
static const json_t *present(const json_t *object, const char *key)
{
    const json_t *value = json_object_get(object, key);
    return json_is_null(value) ? NULL : value;
}

/* --- rows ------------------------------------------------------------------------------------ */

static bool wrong_value(const struct config_key *row, const json_t *value, const char *expected,
                        struct status *st)
{
    return status_set(st, STATUS_INVALID, "config.json: %s is %s, expected %s", row->key,
                      json_show(value).text, expected);
}

static bool read_number(const struct config_key *row, const json_t *value, double *out,
                        struct status *st)
{
    char expected[96];
    *out = value ? json_number_value(value) : row->fallback;
    if (row->need == NULLABLE && json_is_null(value)) {
        *out = 0;
        return true;
    }
    bool fits = row->type == CONFIG_INT ? json_is_integer(value) : json_is_number(value);
    if (!value || (fits && *out >= row->min && *out <= row->max))
        return true;
    snprintf(expected, sizeof expected, "a %s from %.15g to %.15g",
             row->type == CONFIG_INT ? "whole number" : "number", row->min, row->max);
    return wrong_value(row, value, expected, st);
}

static bool read_bool(const struct config_key *row, const json_t *value, bool *out,
                      struct status *st)
{
    *out = value ? json_is_true(value) : row->fallback != 0;
    return !value || json_is_boolean(value) || wrong_value(row, value, "true or false", st);
}

/* The names that this family knows, as a message lists them. */
static void list_names(const struct config_name *names, char *out, size_t size)
{
    size_t used = 0;
    for (const struct config_name *n = names; n->name && used < size; n++)
        used += (size_t)snprintf(out + used, size - used, "%s%s", n == names ? "" : ", ", n->name);
}

static bool read_name(const struct config_key *row, const json_t *value, int *out,
                      struct status *st)
{
    char known[200];
    *out = (int)row->fallback;
    if (!value)
        return true;
    for (const struct config_name *n = row->names; json_is_string(value) && n->name; n++) {
        if (strcmp(json_string_value(value), n->name) == 0) {
            *out = n->value;
            return true;
        }
    }
    list_names(row->names, known, sizeof known);
    return status_set(st, STATUS_UNSUPPORTED,
                      "config.json: %s is %s; known for this architecture: %s", row->key,
                      json_show(value).text, known);
}

static bool read_activation(const struct config_key *row, const json_t *value, enum activation *out,
                            struct status *st)
{
    /* Different spellings of one formula share a row's value; see transformers' ACT2CLS. */
    static const struct {
        const char *name;
        enum activation act;
    } known[] = { { "silu", ACT_SILU },
                  { "swish", ACT_SILU },
                  { "gelu", ACT_GELU },
                  { "gelu_python", ACT_GELU },
                  { "gelu_new", ACT_GELU_TANH },
                  { "gelu_fast", ACT_GELU_TANH },
                  { "gelu_pytorch_tanh", ACT_GELU_TANH },
                  { "gelu_python_tanh", ACT_GELU_TANH },
                  { "relu", ACT_RELU } };
    *out = (enum activation)row->fallback;
    if (!value)
        return true;
    for (size_t i = 0; json_is_string(value) && i < sizeof known / sizeof known[0]; i++) {
        if (strcmp(json_string_value(value), known[i].name) == 0) {
            *out = known[i].act;
            return true;
        }
    }
    status_set(st, STATUS_UNSUPPORTED,
               "config.json: %s is %s; known are silu, gelu, gelu_pytorch_tanh, relu and their "
               "other names",
               row->key, json_show(value).text);
    return false;
}

static bool check_fixed(const struct config_key *row, const json_t *value, struct status *st)
{
    if (!value || (json_is_number(value) && json_number_value(value) == row->fallback) ||
        (json_is_boolean(value) && json_is_true(value) == (row->fallback != 0)))
        return true;
    return status_set(st, STATUS_UNSUPPORTED,
                      "config.json: %s is %s; this architecture is only known with %g", row->key,
                      json_show(value).text, row->fallback);
}

static bool apply_row(const struct config_key *row, const json_t *config, struct decoder_desc *desc,
                      struct status *st)
{
    void *field = (char *)desc + row->offset;
    const json_t *value =
        row->need == NULLABLE ? json_object_get(config, row->key) : present(config, row->key);
    double number = 0;
    if (!value && row->need == REQUIRED)
        return status_set(st, STATUS_INVALID, "config.json: \"%s\" is missing", row->key);
    if (row->need == CONSTANT)
        value = NULL; /* the fallback */
    switch (row->type) {
    case CONFIG_INT:
        if (!read_number(row, value, &number, st))
            return false;
        *(int32_t *)field = (int32_t)number;
        return true;
    case CONFIG_FLOAT:
        if (!read_number(row, value, &number, st))
            return false;
        *(float *)field = (float)number;
        return true;
    case CONFIG_DOUBLE:
        return read_number(row, value, field, st);
    case CONFIG_BOOL:
        return read_bool(row, value, field, st);
    case CONFIG_ACTIVATION:
        return read_activation(row, value, field, st);
    case CONFIG_NAME:
        return read_name(row, value, field, st);
    case CONFIG_FIXED:
        return check_fixed(row, value, st);
    case CONFIG_IGNORED:
        return true;
    case CONFIG_END:
        break;
    }
    assert(!"a row without a type");
    return false;
}

static bool has_key(const struct model_arch *arch, const char *key)
{
    for (const struct config_key *row = arch->config; row && row->key; row++)
        if (strcmp(row->key, key) == 0)
            return true;
    return false;
}

static void copy_traits(const struct model_arch *arch, struct decoder_desc *desc)
{
    while (arch && !arch->traits)
        arch = arch->base;
    if (arch)
        desc->traits = *arch->traits;
}

bool hf_config_apply(const struct model_arch *arch, const json_t *config, struct decoder_desc *desc,
                     struct status *st)
{
    copy_traits(arch, desc);
    for (const struct model_arch *a = arch; a; a = a->base) {
        for (const struct config_key *row = a->config; row && row->key; row++) {
            bool replaced = false;
            for (const struct model_arch *b = arch; b != a; b = b->base)
                replaced = replaced || has_key(b, row->key);
            if (!replaced && !apply_row(row, config, desc, st))
                return false;
        }
    }
    for (const struct model_arch *a = arch; a; a = a->base)
        if (a->finish)
            return a->finish(desc, config, st);
    return true;
}

/* --- what all architectures share ------------------------------------------------------------ */

static bool find_arch(const json_t *config, struct decoder_desc *desc,
                      const struct model_arch **arch, struct status *st)
{
    const json_t *names = present(config, "architectures");
    const json_t *model_type = present(config, "model_type");
    if (json_array_size(names) == 0)
        return status_set(st, STATUS_INVALID,
                          "config.json: \"architectures\" is missing or no list of names");
    if (json_is_string(model_type))
        snprintf(desc->model_type, sizeof desc->model_type, "%s", json_string_value(model_type));
    for (size_t i = 0; i < json_array_size(names); i++) {
        const char *name = json_string_value(json_array_get(names, i));
        *arch = name ? model_arch_find(name) : NULL;
        if (*arch) {
            snprintf(desc->architecture, sizeof desc->architecture, "%s", name);
            return true;
        }
    }
    struct buf known;
    buf_init(&known, 300);
    model_arch_list(&known);
    status_set(st, STATUS_UNSUPPORTED, "config.json: architectures %s are not supported; known: %s",
               json_show(names).text, buf_str(&known));
    buf_free(&known);
    return false;
}

/* torch_dtype until transformers 4, dtype since. */
static bool read_dtype(const json_t *config, struct decoder_desc *desc, bool *has_dtype,
                       struct status *st)
{
    const json_t *old_key = present(config, "torch_dtype"), *value = present(config, "dtype");
    if (value && old_key && !json_equal(value, old_key))
        return status_set(st, STATUS_INVALID, "config.json: dtype is %s but torch_dtype is %s",
                          json_show(value).text, json_show(old_key).text);
    if (!value)
        value = old_key;
    desc->checkpoint_dtype = DTYPE_F32;
    *has_dtype = value != NULL;
    if (!value ||
        (json_is_string(value) && dtype_parse(json_string_value(value), &desc->checkpoint_dtype) &&
         desc->checkpoint_dtype != DTYPE_I32))
        return true;
    return status_set(st, STATUS_UNSUPPORTED,
                      "config.json: dtype is %s; known are float32, bfloat16 and float16",
                      json_show(value).text);
}

static bool token_id(const struct decoder_desc *desc, const json_t *value)
{
    return json_is_integer(value) && json_integer_value(value) >= 0 &&
           json_integer_value(value) < desc->vocab_size;
}

static bool add_eos(struct decoder_desc *desc, const json_t *id, const char *file,
                    struct status *st)
{
    if (!token_id(desc, id))
        return status_set(st, STATUS_INVALID,
                          "%s: eos_token_id holds %s, which is not an id below vocab_size %d", file,
                          json_show(id).text, desc->vocab_size);
    for (int32_t i = 0; i < desc->num_eos_token_ids; i++)
        if (desc->eos_token_ids[i] == json_integer_value(id))
            return true;
    if (desc->num_eos_token_ids == MAX_EOS_IDS)
        return status_set(st, STATUS_INVALID, "%s: more than %d different eos_token_id", file,
                          MAX_EOS_IDS);
    desc->eos_token_ids[desc->num_eos_token_ids++] = (int32_t)json_integer_value(id);
    return true;
}

/* One id or a list of them. */
static bool read_eos(const json_t *object, const char *file, struct decoder_desc *desc,
                     struct status *st)
{
    const json_t *value = present(object, "eos_token_id");
    if (!json_is_array(value))
        return !value || add_eos(desc, value, file, st);
    for (size_t i = 0; i < json_array_size(value); i++)
        if (!add_eos(desc, json_array_get(value, i), file, st))
            return false;
    return true;
}

static bool read_token_ids(const json_t *config, struct decoder_desc *desc, struct status *st)
{
    const json_t *bos = present(config, "bos_token_id");
    if (bos && !token_id(desc, bos))
        return status_set(st, STATUS_INVALID,
                          "config.json: bos_token_id is %s, which is not an id below vocab_size %d",
                          json_show(bos).text, desc->vocab_size);
    desc->bos_token_id = bos ? (int32_t)json_integer_value(bos) : -1;
    return read_eos(config, "config.json", desc, st);
}

static bool derive_heads(struct decoder_desc *desc, struct status *st)
{
    if (desc->num_key_value_heads == 0)
        desc->num_key_value_heads = desc->num_attention_heads;
    if (desc->num_attention_heads % desc->num_key_value_heads != 0)
        return status_set(st, STATUS_INVALID,
                          "config.json: num_attention_heads %d is no multiple of "
                          "num_key_value_heads %d",
                          desc->num_attention_heads, desc->num_key_value_heads);
    if (desc->head_dim == 0) {
        desc->head_dim = desc->hidden_size / desc->num_attention_heads;
        if (desc->hidden_size % desc->num_attention_heads != 0 || desc->head_dim > LIMIT_HEAD_DIM)
            return status_set(st, STATUS_INVALID,
                              "config.json: hidden_size %d over num_attention_heads %d gives no "
                              "head size up to %d, and there is no head_dim",
                              desc->hidden_size, desc->num_attention_heads, LIMIT_HEAD_DIM);
    }
    if (desc->query_pre_attn_scalar > 0)
        desc->attention_scale = (float)(1 / sqrt(desc->query_pre_attn_scalar));
    if (desc->attention_scale == 0)
        desc->attention_scale = (float)(1 / sqrt(desc->head_dim));
    return true;
}

/* A list with an entry per layer, or NULL in *out when there is none. */
static bool find_layer_list(const struct decoder_desc *desc, const json_t *config, const char *key,
                            const json_t **out, struct status *st)
{
    *out = present(config, key);
    if (!*out || (json_is_array(*out) && json_array_size(*out) == (size_t)desc->num_hidden_layers))
        return true;
    return status_set(st, STATUS_INVALID,
                      "config.json: %s is %s, expected a list with num_hidden_layers = %d entries",
                      key, json_show(*out).text, desc->num_hidden_layers);
}

/* no_rope_layers has 1 for a layer that rotates, 0 for one that does not. */
static bool derive_layer_rope(const struct decoder_desc *desc, const json_t *no_rope, int32_t i,
                              struct layer_desc *layer, struct status *st)
{
    int32_t interval = desc->no_rope_layer_interval;
    bool rotates = (i + 1) % interval != 0;
    if (no_rope) {
        const json_t *value = json_array_get(no_rope, (size_t)i);
        if (!json_is_integer(value) || json_integer_value(value) < 0 ||
            json_integer_value(value) > 1)
            return status_set(st, STATUS_INVALID,
                              "config.json: no_rope_layers holds %s, expected 0 or 1",
                              json_show(value).text);
        rotates = json_integer_value(value) == 1;
    }
    layer->rope = rotates ? LAYER_ROPE : LAYER_NO_ROPE;
    return true;
}

static bool derive_layer_sliding(const struct decoder_desc *desc, const json_t *types, int32_t i,
                                 struct layer_desc *layer, struct status *st)
{
    int32_t interval = desc->full_attention_interval;
    layer->sliding = desc->sliding_window > 0 && i >= desc->first_sliding_layer &&
                     (interval == 0 || (i + 1) % interval != 0) &&
                     (!desc->traits.sliding_without_rope || layer->rope == LAYER_NO_ROPE);
    if (types) {
        const json_t *value = json_array_get(types, (size_t)i);
        const char *name = json_is_string(value) ? json_string_value(value) : "";
        layer->sliding = strcmp(name, "sliding_attention") == 0;
        if (!layer->sliding && strcmp(name, "full_attention") != 0)
            return status_set(st, STATUS_UNSUPPORTED,
                              "config.json: layer_types holds %s; known are full_attention and "
                              "sliding_attention",
                              json_show(value).text);
        if (layer->sliding && desc->sliding_window == 0)
            return status_set(st, STATUS_INVALID,
                              "config.json: layer_types holds \"sliding_attention\", but this "
                              "model has no sliding_window");
    }
    if (layer->sliding && layer->rope == LAYER_ROPE && desc->traits.sliding_rope)
        layer->rope = LAYER_SLIDING_ROPE;
    return true;
}

static bool derive_layers(struct decoder_desc *desc, const json_t *config, struct status *st)
{
    const json_t *types, *no_rope = NULL;
    if (!desc->use_sliding_window)
        desc->sliding_window = 0;
    if (!find_layer_list(desc, config, "layer_types", &types, st) ||
        (desc->no_rope_layer_interval > 0 &&
         !find_layer_list(desc, config, "no_rope_layers", &no_rope, st)))
        return false;
    for (int32_t i = 0; i < desc->num_hidden_layers; i++) {
        struct layer_desc *layer = &desc->layers[i];
        if (desc->no_rope_layer_interval > 0 && !derive_layer_rope(desc, no_rope, i, layer, st))
            return false;
        if (!derive_layer_sliding(desc, types, i, layer, st))
            return false;
    }
    return true;
}

/* Which layers have experts: each n-th, but for the first ones, those that moe_layer_freq does not
 * divide, and those that mlp_only_layers names. */
static bool derive_moe_layers(struct decoder_desc *desc, const json_t *config, struct status *st)
{
    const json_t *dense = present(config, "mlp_only_layers");
    int32_t step = desc->decoder_sparse_step > 0 ? desc->decoder_sparse_step : 1;
    int32_t freq = desc->moe_layer_freq > 0 ? desc->moe_layer_freq : 1;
    if (dense && !json_is_array(dense))
        return status_set(st, STATUS_INVALID,
                          "config.json: mlp_only_layers is %s, expected a list of layers",
                          json_show(dense).text);
    for (int32_t i = 0; i < desc->num_hidden_layers; i++)
        desc->layers[i].moe =
            (i + 1) % step == 0 && i >= desc->first_k_dense_replace && i % freq == 0;
    for (size_t i = 0; i < json_array_size(dense); i++) {
        const json_t *layer = json_array_get(dense, i);
        if (!json_is_integer(layer) || json_integer_value(layer) < 0 ||
            json_integer_value(layer) >= desc->num_hidden_layers)
            return status_set(st, STATUS_INVALID,
                              "config.json: mlp_only_layers holds %s, expected layers below "
                              "num_hidden_layers = %d",
                              json_show(layer).text, desc->num_hidden_layers);
        desc->layers[json_integer_value(layer)].moe = false;
    }
    return true;
}

/* The groups that experts are chosen from, as moe_route wants them. */
static bool check_expert_groups(const struct decoder_desc *desc, struct status *st)
{
    int32_t groups = desc->n_group, size = groups > 0 ? desc->num_experts / groups : 0;
    if (desc->topk_method == TOPK_GREEDY)
        return true;
    if (groups < 1 || desc->num_experts % groups != 0)
        return status_set(st, STATUS_INVALID,
                          "config.json: n_group %d is no divisor of the %d experts", groups,
                          desc->num_experts);
    if (desc->topk_method == TOPK_NOAUX_TC && size < 2)
        return status_set(st, STATUS_INVALID,
                          "config.json: n_group %d leaves one of the %d experts for each group; "
                          "groups are compared by their best two",
                          groups, desc->num_experts);
    if (desc->topk_group < 1 || desc->topk_group > groups)
        return status_set(st, STATUS_INVALID, "config.json: topk_group is %d, expected 1 to %d",
                          desc->topk_group, groups);
    if (desc->num_experts_per_tok > desc->topk_group * size)
        return status_set(st, STATUS_INVALID,
                          "config.json: num_experts_per_tok %d is more than the %d experts of "
                          "topk_group %d",
                          desc->num_experts_per_tok, desc->topk_group * size, desc->topk_group);
    return true;
}

static bool derive_moe(struct decoder_desc *desc, const json_t *config, struct status *st)
{
    if (!desc->traits.moe)
        return true;
    if (desc->num_experts > 0 && desc->num_local_experts > 0 &&
        desc->num_experts != desc->num_local_experts)
        return status_set(st, STATUS_INVALID,
                          "config.json: num_experts is %d but num_local_experts is %d",
                          desc->num_experts, desc->num_local_experts);
    if (desc->num_experts == 0)
        desc->num_experts = desc->num_local_experts;
    if (desc->num_experts == 0)
        return status_set(st, STATUS_INVALID,
                          "config.json: \"num_experts\" (or \"num_local_experts\") is missing");
    if (desc->num_experts_per_tok > desc->num_experts)
        return status_set(st, STATUS_INVALID,
                          "config.json: num_experts_per_tok %d is more than num_experts %d",
                          desc->num_experts_per_tok, desc->num_experts);
    return check_expert_groups(desc, st) && derive_moe_layers(desc, config, st);
}

bool hf_config_read(const json_t *config, struct decoder_desc *desc, struct hf_config *out,
                    struct status *st)
{
    memset(desc, 0, sizeof *desc);
    desc->use_sliding_window = true; /* unless a row says otherwise */
    *out = (struct hf_config){ 0 };
    return find_arch(config, desc, &out->arch, st) &&
           hf_config_apply(out->arch, config, desc, st) && derive_heads(desc, st) &&
           derive_layers(desc, config, st) && derive_moe(desc, config, st) &&
           rope_desc_read(config, desc, st) && read_dtype(config, desc, &out->has_dtype, st) &&
           read_token_ids(config, desc, st);
}

/* --- generation_config.json ------------------------------------------------------------------ */

static bool is_generation_key(const char *key)
{
    static const char *const keys[] = { "temperature", "top_k", "top_p", "min_p",
                                        "repetition_penalty" };
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++)
        if (strcmp(key, keys[i]) == 0)
            return true;
    return false;
}

static bool read_default(const json_t *generation, const char *key, bool whole, double min,
                         double max, bool min_open, double *out, struct status *st)
{
    const json_t *value = is_generation_key(key) ? present(generation, key) : NULL;
    if (!value)
        return true;
    double number = json_number_value(value);
    if (!(whole ? json_is_integer(value) : json_is_number(value)) || !(number <= max) ||
        !(min_open ? number > min : number >= min))
        return status_set(st, STATUS_INVALID,
                          "generation_config.json: %s is %s, expected a %s %s %g, up to %g", key,
                          json_show(value).text, whole ? "whole number" : "number",
                          min_open ? "above" : "from", min, max);
    *out = number;
    return true;
}

static bool read_sampling_defaults(const json_t *generation, struct sampling_params *params,
                                   struct status *st)
{
    double number = 0;
#define SAMPLING_FLOAT(field, def, min, max, min_open)                                             \
    number = (double)params->field;                                                                \
    if (!read_default(generation, #field, false, min, max, min_open, &number, st))                 \
        return false;                                                                              \
    params->field = (float)number;
/* Not every integer parameter fits a double: only those a file may set go through one. */
#define SAMPLING_INT(field, def, min, max)                                                         \
    if (is_generation_key(#field)) {                                                               \
        number = (double)params->field;                                                            \
        if (!read_default(generation, #field, true, (double)(min), (double)(max), false, &number,  \
                          st))                                                                     \
            return false;                                                                          \
        params->field = (int64_t)number;                                                           \
    }
#define SAMPLING_BOOL(field, def)
#include "engine/sampling/sampling_params.def"
#undef SAMPLING_FLOAT
#undef SAMPLING_INT
#undef SAMPLING_BOOL
    return true;
}

bool hf_generation_config_read(const json_t *generation, struct decoder_desc *desc,
                               struct sampling_params *params, int32_t *max_new_tokens,
                               struct status *st)
{
    const json_t *cap = present(generation, "max_new_tokens");
    if (cap && (!json_is_integer(cap) || json_integer_value(cap) < 1 ||
                json_integer_value(cap) > INT32_MAX))
        return status_set(st, STATUS_INVALID,
                          "generation_config.json: max_new_tokens is %s, expected a whole number "
                          "from 1 to %d",
                          json_show(cap).text, INT32_MAX);
    if (cap)
        *max_new_tokens = (int32_t)json_integer_value(cap);
    return read_sampling_defaults(generation, params, st) &&
           read_eos(generation, "generation_config.json", desc, st);
}
