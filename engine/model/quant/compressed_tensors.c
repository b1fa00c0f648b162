/* compressed_tensors.c - the config_groups of compressed-tensors: each says how the weights of its
 * targets are quantized, and which of them have activations in 8 bits. */
#include "engine/model/json_file.h"
#include "engine/model/quant_config.h"

#include <regex.h>
#include <string.h>
#include <strings.h>

enum {
    MAX_GROUPS = 64,
    MAX_TARGETS = 4096, /* of one group */
    MAX_EXPRESSION_BYTES = 256
};

/* --- weights --------------------------------------------------------------------------------- */

/* strategy, group_size, block_structure -> group_size, block_rows, whole_tensor. */
static bool read_strategy(const json_t *weights, struct quant_scheme *s, struct status *st)
{
    const json_t *block = json_object_get(weights, "block_structure");
    const char *strategy;
    int64_t group;
    if (!quant_key_int(weights, "group_size", 0, &group, st) ||
        !quant_key_text(weights, "strategy",
                        group > 0    ? "group"
                        : group == 0 ? "tensor"
                                     : "channel",
                        &strategy, st))
        return false;
    s->whole_tensor = strcasecmp(strategy, "tensor") == 0;
    if (s->whole_tensor || strcasecmp(strategy, "channel") == 0)
        return true;
    if (strcasecmp(strategy, "group") == 0)
        return quant_key_group_size(weights, 0, &s->group_size, st);
    if (strcasecmp(strategy, "block") != 0)
        return quant_unsupported(weights, "strategy", "tensor, channel, group, block", st);
    const json_t *rows = json_array_get(block, 0), *cols = json_array_get(block, 1);
    if (json_array_size(block) != 2 || !json_is_integer(rows) || !json_is_integer(cols) ||
        json_integer_value(rows) < 1 || json_integer_value(rows) > INT32_MAX ||
        json_integer_value(cols) < 1 || json_integer_value(cols) > QUANT_MAX_BLOCK)
        return quant_unsupported(weights, "block_structure", "two sizes, the second up to 1024",
                                 st);
    s->block_rows = (int32_t)json_integer_value(rows);
    s->group_size = (int32_t)json_integer_value(cols);
    return true;
}

static bool read_order(const json_t *weights, struct quant_scheme *s, struct status *st)
{
    const json_t *order = json_object_get(weights, "actorder");
    const char *name = json_string_value(order);
    if (!order || json_is_null(order) || json_is_false(order) ||
        (name && (strcasecmp(name, "weight") == 0 || strcasecmp(name, "static") == 0)))
        return true; /* the weights lie in their own order all the same */
    s->act_order = true;
    if (json_is_true(order) ||
        (name && (strcasecmp(name, "group") == 0 || strcasecmp(name, "dynamic") == 0)))
        return true;
    return quant_unsupported(weights, "actorder", "null, weight, group", st);
}

/* The layout for a format and a type of numbers. */
static bool choose_layout(const json_t *weights, const char *format, const char *type,
                          struct quant_scheme *s, struct status *st)
{
    bool plain = strcmp(format, "naive-quantized") == 0, whole = strcasecmp(type, "int") == 0;
    if (whole && strcmp(format, "pack-quantized") == 0) {
        s->layout = &quant_layout_pack;
        return s->bits == 4 || s->bits == 8 || quant_unsupported(weights, "num_bits", "4, 8", st);
    }
    if (whole && (plain || strcmp(format, "int-quantized") == 0)) {
        s->layout = &quant_layout_int8;
        if (s->act_order)
            return quant_unsupported(weights, "actorder", "null, weight", st);
        return s->bits == 8 || quant_unsupported(weights, "num_bits", "8", st);
    }
    if (strcasecmp(type, "float") == 0 && (plain || strcmp(format, "float-quantized") == 0)) {
        s->layout = &quant_layout_fp8;
        if (!s->symmetric)
            return quant_unsupported(weights, "symmetric", "true", st);
        return s->bits == 8 || quant_unsupported(weights, "num_bits", "8", st);
    }
    return status_set(
        st, STATUS_UNSUPPORTED,
        "config.json: quantization_config: format %.40s with weights of type %.40s is "
        "not supported; supported: pack-quantized and int-quantized with int, "
        "float-quantized with float, naive-quantized with either",
        format, type);
}

static bool read_weights(const json_t *weights, const char *format, struct quant_scheme *s,
                         struct status *st)
{
    const char *type;
    int64_t bits;
    bool dynamic;
    if (!quant_key_int(weights, "num_bits", 8, &bits, st) ||
        !quant_key_text(weights, "type", "int", &type, st) ||
        !quant_key_bool(weights, "symmetric", true, &s->symmetric, st) ||
        !quant_key_bool(weights, "dynamic", false, &dynamic, st) ||
        !read_strategy(weights, s, st) || !read_order(weights, s, st))
        return false;
    if (dynamic)
        return quant_unsupported(weights, "dynamic", "false", st);
    s->bits = bits == 4 || bits == 8 ? (int32_t)bits : 0;
    return choose_layout(weights, format, type, s, st);
}

/* --- activations ----------------------------------------------------------------------------- */

/* One scale for each token (int and float), or one for all (float). What else there is (groups,
 * zero points, one for each step) is not followed: such activations are not rounded. */
static bool read_activations(const json_t *group, struct quant_scheme *s, struct status *st)
{
    const json_t *input = json_object_get(group, "input_activations");
    const char *type, *strategy;
    int64_t bits;
    bool symmetric;
    if (!input || json_is_null(input))
        return true;
    if (!json_is_object(input))
        return quant_unsupported(group, "input_activations", "an object, null", st);
    const bool dynamic = json_is_true(json_object_get(input, "dynamic"));
    if (!quant_key_int(input, "num_bits", 8, &bits, st) ||
        !quant_key_text(input, "type", "int", &type, st) ||
        !quant_key_bool(input, "symmetric", true, &symmetric, st) ||
        !quant_key_text(input, "strategy", dynamic ? "token" : "tensor", &strategy, st))
        return false;
    if (bits != 8 || !symmetric || strcasecmp(strategy, dynamic ? "token" : "tensor") != 0)
        return true;
    if (strcasecmp(type, "float") == 0)
        s->input = INPUT_QUANT_FP8;
    else if (strcasecmp(type, "int") == 0 && dynamic)
        s->input = INPUT_QUANT_INT8;
    s->input_static = !dynamic;
    return true;
}

/* --- targets --------------------------------------------------------------------------------- */

/* POSIX expressions that cost little to compile and match: no counts, no references back. */
static bool check_expression(const char *text, struct status *st)
{
    regex_t compiled;
    bool plain = strlen(text) <= MAX_EXPRESSION_BYTES && !strchr(text, '{');
    for (const char *at = text; plain && (at = strchr(at, '\\')); at += 2) {
        plain = at[1] != '\0' && !(at[1] >= '0' && at[1] <= '9');
        if (!plain)
            break;
    }
    if (plain && regcomp(&compiled, text, REG_EXTENDED | REG_NOSUB) == 0) {
        regfree(&compiled);
        return true;
    }
    return status_set(st, STATUS_UNSUPPORTED,
                      "config.json: quantization_config: the target \"re:%.80s\" is no expression "
                      "that is supported: up to %d bytes, without { and references",
                      text, MAX_EXPRESSION_BYTES);
}

static bool read_targets(const json_t *group, struct quant_config *out, struct quant_scheme *s,
                         struct status *st)
{
    const json_t *targets = json_object_get(group, "targets");
    size_t count = json_array_size(targets);
    if (count == 0 || count > MAX_TARGETS)
        return status_set(st, STATUS_INVALID,
                          "config.json: quantization_config: targets is %s, expected a list of 1 "
                          "to %d names",
                          json_show(targets).text, MAX_TARGETS);
    s->targets = arena_array(&out->names, count, sizeof *s->targets);
    for (size_t i = 0; i < count; i++) {
        const json_t *target = json_array_get(targets, i);
        const char *text = json_string_value(target);
        if (!text)
            return status_set(st, STATUS_INVALID,
                              "config.json: quantization_config: targets holds %s, expected names",
                              json_show(target).text);
        if (strncmp(text, "re:", 3) == 0 && !check_expression(text + 3, st))
            return false;
        s->targets[i] = arena_strdup(&out->names, text);
    }
    s->num_targets = count;
    return true;
}

/* --- groups ---------------------------------------------------------------------------------- */

static bool read_group(const json_t *group, const char *format, struct quant_config *out,
                       struct status *st)
{
    const json_t *weights = json_object_get(group, "weights");
    const json_t *outputs = json_object_get(group, "output_activations");
    if (!json_is_object(group))
        return status_set(st, STATUS_UNSUPPORTED,
                          "config.json: quantization_config: config_groups holds %s, expected "
                          "objects",
                          json_show(group).text);
    if (!weights || json_is_null(weights))
        return true; /* only activations */
    if (!json_is_object(weights))
        return quant_unsupported(group, "weights", "an object", st);
    if (outputs && !json_is_null(outputs))
        return quant_unsupported(group, "output_activations", "null", st);
    struct quant_scheme *s = quant_config_add(out);
    return quant_key_text(group, "format", format, &format, st) &&
           read_weights(weights, format, s, st) && read_activations(group, s, st) &&
           read_targets(group, out, s, st);
}

/* An object that only says that there is nothing of the kind. */
static bool check_unused(const json_t *config, const char *key, const char *member,
                         struct status *st)
{
    const json_t *value = json_object_get(config, key);
    const json_t *inner = json_is_object(value) ? json_object_get(value, member) : value;
    const char *text = json_string_value(inner);
    if (!inner || json_is_null(inner) || (text && strcmp(text, "dense") == 0) ||
        (json_is_object(inner) && json_object_size(inner) == 0))
        return true;
    return quant_unsupported(config, key, "null", st);
}

static bool read_compressed_tensors(const json_t *config, struct quant_config *out,
                                    struct status *st)
{
    json_t *groups = json_object_get(config, "config_groups");
    const char *format, *name;
    json_t *group;
    if (!quant_key_text(config, "format", "dense", &format, st) ||
        !check_unused(config, "sparsity_config", "format", st) ||
        !check_unused(config, "transform_config", "config_groups", st))
        return false;
    if (!json_is_object(groups) || json_object_size(groups) > MAX_GROUPS)
        return status_set(st, STATUS_INVALID,
                          "config.json: quantization_config: config_groups is %s, expected an "
                          "object with up to %d groups",
                          json_show(groups).text, MAX_GROUPS);
    json_object_foreach(groups, name, group)
    {
        if (!read_group(group, format, out, st))
            return false;
    }
    return out->num_schemes > 0 ||
           status_set(st, STATUS_INVALID,
                      "config.json: quantization_config: no group says how weights are quantized");
}

const struct quant_method quant_method_compressed_tensors = { "compressed-tensors",
                                                              read_compressed_tensors };
