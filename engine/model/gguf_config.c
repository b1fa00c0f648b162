/* gguf_config.c - a GGUF's keys as config.json and generation_config.json. */
#include "engine/model/gguf_arch.h"
#include "engine/model/json_file.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static const struct gguf_key common_keys[] = {
    { "embedding_length", "hidden_size", GGUF_KEY_INT, true },
    { "block_count", "num_hidden_layers", GGUF_KEY_INT, true },
    { "feed_forward_length", "intermediate_size", GGUF_KEY_INT, true },
    { "attention.head_count", "num_attention_heads", GGUF_KEY_INT, true },
    { "context_length", "max_position_embeddings", GGUF_KEY_INT, true },
    { "attention.layer_norm_rms_epsilon", "rms_norm_eps", GGUF_KEY_FLOAT, true },
    { 0 },
};

/* What the steps below work on. */
struct translation {
    const struct gguf *g;
    const struct gguf_metadata *keys;
    const struct gguf_arch *arch;
    json_t *config;
    int64_t hidden_size, heads, head_dim, layers;
};

struct full_key {
    char text[LIMIT_GGUF_KEY_BYTES];
};

static struct full_key full_key(const struct translation *t, const char *key)
{
    struct full_key full;
    snprintf(full.text, sizeof full.text, "%s.%s", t->arch->name, key);
    return full;
}

static bool get_int(const struct translation *t, const char *key, int64_t *out, struct status *st)
{
    return gguf_get_uniform_int(t->keys, full_key(t, key).text, 0, INT32_MAX, out, st);
}

static bool get_float(const struct translation *t, const char *key, double *out, struct status *st)
{
    return gguf_get_float(t->keys, full_key(t, key).text, out, st);
}

static bool has(const struct translation *t, const char *key)
{
    return gguf_find(t->keys, full_key(t, key).text) != NULL;
}

static void set_int(struct translation *t, const char *key, int64_t value)
{
    json_object_set_new(t->config, key, json_integer(value));
}

static void set_float(struct translation *t, const char *key, double value)
{
    json_object_set_new(t->config, key, json_real(value));
}

/* --- keys that have one of their own ---------------------------------------------------------- */

static bool copy_key(struct translation *t, const struct gguf_key *row, struct status *st)
{
    int64_t whole = 0;
    double number = 0;
    if (!has(t, row->key))
        return !row->required || status_set(st, STATUS_INVALID, "%s: key '%s' is missing",
                                            t->keys->file, full_key(t, row->key).text);
    if (row->type == GGUF_KEY_INT ? !get_int(t, row->key, &whole, st)
                                  : !get_float(t, row->key, &number, st))
        return false;
    if (row->type == GGUF_KEY_INT)
        set_int(t, row->config, whole);
    else
        set_float(t, row->config, number);
    return true;
}

static bool copy_keys(struct translation *t, const struct gguf_key *rows, struct status *st)
{
    for (; rows && rows->key; rows++)
        if (!copy_key(t, rows, st))
            return false;
    return true;
}

/* --- sizes ------------------------------------------------------------------------------------ */

static bool set_vocab_size(struct translation *t, struct status *st)
{
    const struct gguf_value *tokens;
    int64_t size = 0;
    if (!gguf_get_array(t->keys, "tokenizer.ggml.tokens", GGUF_STRING, &tokens, st))
        return false;
    if (tokens && tokens->count <= LIMIT_VOCAB_SIZE)
        size = (int64_t)tokens->count;
    else if (!get_int(t, "vocab_size", &size, st))
        return false;
    set_int(t, "vocab_size", size);
    return size > 0 ||
           status_set(st, STATUS_INVALID,
                      "%s: neither 'tokenizer.ggml.tokens', up to %d of them, nor '%s' says the "
                      "size of the vocabulary",
                      t->keys->file, LIMIT_VOCAB_SIZE, full_key(t, "vocab_size").text);
}

static bool set_heads(struct translation *t, struct status *st)
{
    int64_t kv_heads, value_dim, rotary_dim;
    t->hidden_size = json_integer_value(json_object_get(t->config, "hidden_size"));
    t->layers = json_integer_value(json_object_get(t->config, "num_hidden_layers"));
    t->heads = kv_heads = json_integer_value(json_object_get(t->config, "num_attention_heads"));
    t->head_dim = t->heads > 0 ? t->hidden_size / t->heads : 0;
    if (!get_int(t, "attention.head_count_kv", &kv_heads, st) ||
        !get_int(t, "attention.key_length", &t->head_dim, st))
        return false;
    value_dim = rotary_dim = t->head_dim;
    if (!get_int(t, "attention.value_length", &value_dim, st) ||
        !get_int(t, "rope.dimension_count", &rotary_dim, st))
        return false;
    if (value_dim != t->head_dim || rotary_dim > t->head_dim)
        return status_set(st, STATUS_UNSUPPORTED,
                          "%s: heads of %lld elements in keys (%lld of which rotate) and %lld in "
                          "values are not supported",
                          t->keys->file, (long long)t->head_dim, (long long)rotary_dim,
                          (long long)value_dim);
    set_int(t, "num_key_value_heads", kv_heads);
    set_int(t, "head_dim", t->head_dim);
    /* Half an element more, so that cutting head_dim times this to a whole number gives it back. */
    if (rotary_dim < t->head_dim)
        set_float(t, "partial_rotary_factor", ((double)rotary_dim + 0.5) / (double)t->head_dim);
    return true;
}

/* --- layers that slide ------------------------------------------------------------------------ */

static bool layer_slides(const struct gguf_value *list, int64_t pattern, int64_t layer)
{
    return list ? gguf_array_int(list, (uint64_t)layer) != 0 : (layer + 1) % pattern != 0;
}

/* An integer n, or a flag for each layer. */
static bool set_layer_types(struct translation *t, int64_t window, struct status *st)
{
    struct full_key key = full_key(t, "attention.sliding_window_pattern");
    const struct gguf_value *value = gguf_find(t->keys, key.text), *list = NULL;
    int64_t pattern = t->arch->sliding_pattern;
    if (value && value->type == GGUF_ARRAY) {
        if (!gguf_get_array(t->keys, key.text, GGUF_BOOL, &list, st))
            return false;
        if (list->count != (uint64_t)t->layers)
            return status_set(st, STATUS_INVALID,
                              "%s: key '%s' has %llu entries, expected one for each of %lld layers",
                              t->keys->file, key.text, (unsigned long long)list->count,
                              (long long)t->layers);
    } else if (!gguf_get_int(t->keys, key.text, 1, INT32_MAX, &pattern, st)) {
        return false;
    }
    json_t *types = json_array();
    for (int64_t i = 0; i < t->layers && i < LIMIT_NUM_LAYERS; i++)
        json_array_append_new(types, json_string(window > 0 && layer_slides(list, pattern, i)
                                                     ? "sliding_attention"
                                                     : "full_attention"));
    json_object_set_new(t->config, "layer_types", types);
    return true;
}

static bool set_sliding(struct translation *t, struct status *st)
{
    int64_t window = t->arch->default_sliding_window;
    if (!get_int(t, "attention.sliding_window", &window, st))
        return false;
    json_object_set_new(t->config, "sliding_window",
                        window > 0 ? json_integer(window) : json_null());
    return t->arch->sliding_pattern == 0 || set_layer_types(t, window, st);
}

/* --- rope ------------------------------------------------------------------------------------- */

/* A vector of float32 as a list; NULL in *out when there is no such tensor. */
static bool read_factors(const struct translation *t, const char *name, json_t **out,
                         struct status *st)
{
    const struct checkpoint_tensor *tensor = checkpoint_find(t->g->checkpoint, name);
    *out = NULL;
    if (!tensor)
        return true;
    if (tensor->num_dims != 1 || tensor->shape[0] > LIMIT_HEAD_DIM / 2 || !tensor->type->is_float ||
        tensor->type->dtype != DTYPE_F32)
        return status_set(st, STATUS_INVALID,
                          "%s: tensor '%s' is %s of %s, expected at most %d float32", tensor->file,
                          name, shape_show(tensor->shape, tensor->num_dims).text,
                          tensor->type->name, LIMIT_HEAD_DIM / 2);
    *out = json_array();
    for (int64_t i = 0; i < tensor->shape[0]; i++) {
        float value;
        memcpy(&value, tensor->data + i * (int64_t)sizeof value, sizeof value);
        json_array_append_new(*out, isfinite(value) ? json_real((double)value) : json_null());
    }
    return true;
}

/* Divisors of the frequencies: one list for all lengths, or two. */
static bool set_rope_factors(struct translation *t, json_t *rope, struct status *st)
{
    json_t *all, *longer = NULL, *shorter = NULL;
    int64_t original = 0;
    double attention = 0;
    bool ok = read_factors(t, "rope_freqs.weight", &all, st) &&
              read_factors(t, "rope_factors_long.weight", &longer, st) &&
              read_factors(t, "rope_factors_short.weight", &shorter, st) &&
              get_int(t, "rope.scaling.original_context_length", &original, st) &&
              get_float(t, "rope.scaling.attn_factor", &attention, st);
    if (ok && (all || longer || shorter)) {
        json_object_set_new(rope, "rope_type", json_string("longrope"));
        json_object_set(rope, "long_factor", all ? all : longer ? longer : shorter);
        json_object_set(rope, "short_factor", all ? all : shorter ? shorter : longer);
    }
    if (ok && !all && (longer || shorter)) {
        if (original > 0)
            set_int(t, "original_max_position_embeddings", original);
        if (attention > 0)
            json_object_set_new(rope, "attention_factor", json_real(attention));
    }
    json_decref(all);
    json_decref(longer);
    json_decref(shorter);
    return ok;
}

static bool copy_optional(struct translation *t, json_t *rope, const char *key, const char *config,
                          struct status *st)
{
    double value = 0;
    if (!has(t, key))
        return true;
    if (!get_float(t, key, &value, st))
        return false;
    json_object_set_new(rope, config, json_real(value));
    return true;
}

static bool set_yarn(struct translation *t, json_t *rope, struct status *st)
{
    double ext_factor = 1, log_multiplier = 0;
    int64_t original = json_integer_value(json_object_get(t->config, "max_position_embeddings"));
    if (!get_float(t, "rope.scaling.yarn_ext_factor", &ext_factor, st) ||
        !get_float(t, "rope.scaling.yarn_log_multiplier", &log_multiplier, st) ||
        !get_int(t, "rope.scaling.original_context_length", &original, st))
        return false;
    /* -1 stands for the default. */
    if ((ext_factor != 1 && ext_factor != -1) || log_multiplier != 0)
        return status_set(st, STATUS_UNSUPPORTED,
                          "%s: yarn with an ext_factor of %g and a log_multiplier of %g is not "
                          "supported",
                          t->keys->file, ext_factor, log_multiplier);
    json_object_set_new(rope, "original_max_position_embeddings", json_integer(original));
    return copy_optional(t, rope, "rope.scaling.yarn_beta_fast", "beta_fast", st) &&
           copy_optional(t, rope, "rope.scaling.yarn_beta_slow", "beta_slow", st) &&
           copy_optional(t, rope, "rope.scaling.yarn_attn_factor", "attention_factor", st);
}

static bool set_rope_type(struct translation *t, json_t *rope, struct status *st)
{
    const char *type = "linear"; /* what a factor without a type means */
    size_t len = strlen(type);
    double factor = 0;
    if (!gguf_get_string(t->keys, full_key(t, "rope.scaling.type").text, &type, &len, st) ||
        !get_float(t, has(t, "rope.scaling.factor") ? "rope.scaling.factor" : "rope.scale_linear",
                   &factor, st))
        return false;
    bool linear = len == 6 && memcmp(type, "linear", 6) == 0;
    bool yarn = len == 4 && memcmp(type, "yarn", 4) == 0;
    if (!linear && !yarn && !(len == 4 && memcmp(type, "none", 4) == 0) &&
        !(len == 8 && memcmp(type, "longrope", 8) == 0)) {
        json_t *shown = json_stringn(type, len);
        status_set(st, STATUS_UNSUPPORTED,
                   "%s: key '%s' is %s; known are none, linear, yarn and longrope", t->keys->file,
                   full_key(t, "rope.scaling.type").text, json_show(shown).text);
        json_decref(shown);
        return false;
    }
    if ((!linear && !yarn) || factor == 0 || factor == 1)
        return true;
    if (json_object_size(rope) > 0)
        return status_set(st, STATUS_UNSUPPORTED,
                          "%s: rope factors in a tensor together with a rope.scaling.factor of %g "
                          "are not supported",
                          t->keys->file, factor);
    json_object_set_new(rope, "rope_type", json_string(yarn ? "yarn" : "linear"));
    json_object_set_new(rope, "factor", json_real(factor));
    return linear || set_yarn(t, rope, st);
}

static bool set_rope(struct translation *t, struct status *st)
{
    double theta = 10000;
    json_t *rope = json_object();
    bool ok = get_float(t, "rope.freq_base", &theta, st) && set_rope_factors(t, rope, st) &&
              set_rope_type(t, rope, st);
    set_float(t, "rope_theta", theta);
    if (json_object_size(rope) > 0)
        json_object_set(t->config, "rope_scaling", rope);
    json_decref(rope);
    return ok;
}

/* --- the rest --------------------------------------------------------------------------------- */

static bool has_tensor(const struct translation *t, const char *name)
{
    return checkpoint_find(t->g->checkpoint, name) != NULL;
}

/* No key says these; the tensors do. */
static void set_from_tensors(struct translation *t)
{
    json_object_set_new(t->config, "tie_word_embeddings",
                        json_boolean(!has_tensor(t, "output.weight")));
    if (has_tensor(t, "blk.0.attn_output.bias"))
        json_object_set_new(t->config, "attention_bias", json_true());
    if (has_tensor(t, "blk.0.ffn_down.bias"))
        json_object_set_new(t->config, "mlp_bias", json_true());
}

static bool set_token_ids(struct translation *t, struct status *st)
{
    static const char *const ends[] = { "tokenizer.ggml.eos_token_id",
                                        "tokenizer.ggml.eot_token_id",
                                        "tokenizer.ggml.eom_token_id" };
    json_t *list = json_array();
    int64_t id;
    json_object_set_new(t->config, "eos_token_id", list);
    for (size_t i = 0; i < sizeof ends / sizeof ends[0]; i++) {
        if (!gguf_find(t->keys, ends[i]))
            continue;
        if (!gguf_get_int(t->keys, ends[i], 0, INT32_MAX, &id, st))
            return false;
        json_array_append_new(list, json_integer(id));
    }
    if (!gguf_find(t->keys, "tokenizer.ggml.bos_token_id"))
        return true;
    if (!gguf_get_int(t->keys, "tokenizer.ggml.bos_token_id", 0, INT32_MAX, &id, st))
        return false;
    set_int(t, "bos_token_id", id);
    return true;
}

/* Keys whose other values mean a model that is computed otherwise. */
static bool refuse_others(struct translation *t, struct status *st)
{
    bool causal = true;
    int64_t gating = 1; /* softmax */
    double scale = 0;
    if (!gguf_get_bool(t->keys, full_key(t, "attention.causal").text, &causal, st) ||
        !get_int(t, "expert_gating_func", &gating, st) ||
        !get_float(t, "expert_weights_scale", &scale, st))
        return false;
    if (!causal)
        return status_set(st, STATUS_UNSUPPORTED,
                          "%s: attention.causal is false: no model that "
                          "generates text",
                          t->keys->file);
    if (gating > 1 || (scale != 0 && scale != 1))
        return status_set(st, STATUS_UNSUPPORTED,
                          "%s: expert_gating_func %lld with expert_weights_scale %g is not "
                          "supported",
                          t->keys->file, (long long)gating, scale);
    return true;
}

static void set_names(struct translation *t)
{
    json_object_set_new(t->config, "architectures", json_pack("[s]", t->arch->architecture));
    json_object_set_new(t->config, "model_type", json_string(t->arch->name));
    if (t->arch->constants) {
        json_t *constants = json_loads(t->arch->constants, 0, NULL);
        json_object_update(t->config, constants);
        json_decref(constants);
    }
}

static void set_attention_scale(struct translation *t)
{
    if (t->arch->wide_scale_layers == 0)
        return;
    int64_t width = t->layers == t->arch->wide_scale_layers && t->heads > 0
                        ? t->hidden_size / t->heads
                        : t->head_dim;
    set_int(t, "query_pre_attn_scalar", width);
}

json_t *gguf_config(const struct gguf *g, const struct gguf_arch *arch, struct status *st)
{
    struct translation t = { .g = g, .keys = &g->metadata, .arch = arch, .config = json_object() };
    set_names(&t);
    set_from_tensors(&t);
    if (copy_keys(&t, common_keys, st) && copy_keys(&t, arch->keys, st) && set_vocab_size(&t, st) &&
        set_heads(&t, st) && set_sliding(&t, st) && set_rope(&t, st) && set_token_ids(&t, st) &&
        refuse_others(&t, st)) {
        set_attention_scale(&t);
        return t.config;
    }
    json_decref(t.config);
    return NULL;
}

json_t *gguf_generation_config(const struct gguf *g, struct status *st)
{
    static const struct gguf_key rows[] = {
        { "general.sampling.temp", "temperature", GGUF_KEY_FLOAT, false },
        { "general.sampling.top_k", "top_k", GGUF_KEY_INT, false },
        { "general.sampling.top_p", "top_p", GGUF_KEY_FLOAT, false },
        { "general.sampling.min_p", "min_p", GGUF_KEY_FLOAT, false },
        { "general.sampling.penalty_repeat", "repetition_penalty", GGUF_KEY_FLOAT, false },
    };
    json_t *config = json_object();
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        int64_t whole = 0;
        double number = 0;
        if (!gguf_find(&g->metadata, rows[i].key))
            continue;
        bool is_int = rows[i].type == GGUF_KEY_INT;
        if (is_int ? !gguf_get_int(&g->metadata, rows[i].key, INT32_MIN, INT32_MAX, &whole, st)
                   : !gguf_get_float(&g->metadata, rows[i].key, &number, st)) {
            json_decref(config);
            return NULL;
        }
        json_object_set_new(config, rows[i].config,
                            is_int ? json_integer(whole) : json_real(number));
    }
    return config;
}
