/* methods.c - what the quant_methods that describe all modules at once say: AWQ, GPTQ, FP8,
 * bitsandbytes, MXFP4. The names of the keys are those that transformers writes. */
#include "engine/model/json_file.h"
#include "engine/model/quant_config.h"

#include <string.h>
#include <strings.h>

static bool read_awq(const json_t *config, struct quant_config *out, struct status *st)
{
    struct quant_scheme *s = quant_config_add(out);
    int64_t bits;
    bool zero_point;
    const char *version;
    s->layout = &quant_layout_awq;
    if (!quant_key_int(config, "bits", 4, &bits, st) ||
        !quant_key_group_size(config, 128, &s->group_size, st) ||
        !quant_key_bool(config, "zero_point", true, &zero_point, st) ||
        !quant_key_text(config, "version", "gemm", &version, st))
        return false;
    s->bits = (int32_t)bits;
    if (bits != 4)
        return quant_unsupported(config, "bits", "4", st);
    if (!zero_point)
        return quant_unsupported(config, "zero_point", "true", st);
    if (strcasecmp(version, "gemm") != 0)
        return quant_unsupported(config, "version", "gemm", st);
    return true;
}

/* gptqmodel's "dynamic" gives modules settings of their own ("+:" or nothing before the
 * expression), or leaves them alone ("-:"). */
static bool check_dynamic(const json_t *config, struct status *st)
{
    const char *key;
    const json_t *value;
    json_t *dynamic = json_object_get(config, "dynamic");
    json_object_foreach(dynamic, key, value)
    {
        if (strncmp(key, "-:", 2) != 0 && json_object_size(value) > 0)
            return quant_unsupported(config, "dynamic", "modules that are left out (\"-:\")", st);
    }
    return true;
}

static bool read_gptq(const json_t *config, struct quant_config *out, struct status *st)
{
    struct quant_scheme *s = quant_config_add(out);
    int64_t bits;
    bool marlin;
    const char *format, *other;
    s->layout = &quant_layout_gptq;
    if (!quant_key_int(config, "bits", 4, &bits, st) ||
        !quant_key_group_size(config, 128, &s->group_size, st) ||
        !quant_key_bool(config, "desc_act", false, &s->act_order, st) ||
        !quant_key_bool(config, "sym", true, &s->symmetric, st) ||
        !quant_key_bool(config, "is_marlin_format", false, &marlin, st) ||
        !quant_key_text(config, "format", "gptq", &other, st) ||
        !quant_key_text(config, "checkpoint_format", other, &format, st) ||
        !check_dynamic(config, st))
        return false;
    s->bits = (int32_t)bits;
    if (bits != 4 && bits != 8)
        return quant_unsupported(config, "bits", "4, 8", st);
    if (marlin)
        return quant_unsupported(config, "is_marlin_format", "false", st);
    s->zero_bias = strcasecmp(format, "gptq") == 0;
    if (!s->zero_bias && strcasecmp(format, "gptq_v2") != 0)
        return quant_unsupported(
            config, json_object_get(config, "checkpoint_format") ? "checkpoint_format" : "format",
            "gptq, gptq_v2", st);
    return true;
}

/* weight_block_size: [rows, columns]. */
static bool read_block_size(const json_t *config, struct quant_scheme *s, struct status *st)
{
    const json_t *block = json_object_get(config, "weight_block_size");
    s->layout = &quant_layout_fp8;
    s->whole_tensor = true;
    if (!block || json_is_null(block))
        return true;
    const json_t *rows = json_array_get(block, 0), *cols = json_array_get(block, 1);
    if (json_array_size(block) != 2 || !json_is_integer(rows) || !json_is_integer(cols) ||
        json_integer_value(rows) < 1 || json_integer_value(rows) > INT32_MAX ||
        json_integer_value(cols) < 1 || json_integer_value(cols) > QUANT_MAX_BLOCK)
        return quant_unsupported(config, "weight_block_size", "two sizes, the second up to 1024",
                                 st);
    s->layout = &quant_layout_fp8_block;
    s->whole_tensor = false;
    s->block_rows = (int32_t)json_integer_value(rows);
    s->group_size = (int32_t)json_integer_value(cols);
    return true;
}

static bool read_fp8(const json_t *config, struct quant_config *out, struct status *st)
{
    struct quant_scheme *s = quant_config_add(out);
    const char *scheme, *fmt;
    s->bits = 8;
    s->symmetric = true;
    if (!quant_key_text(config, "activation_scheme", "dynamic", &scheme, st) ||
        !quant_key_text(config, "fmt", "e4m3", &fmt, st) || !read_block_size(config, s, st))
        return false;
    if (strcmp(fmt, "e4m3") != 0)
        return quant_unsupported(config, "fmt", "e4m3", st);
    if (strcmp(scheme, "dynamic") != 0 && strcmp(scheme, "static") != 0)
        return quant_unsupported(config, "activation_scheme", "dynamic, static", st);
    /* With blocks a row of activations has a scale for each block of it, which is not followed. */
    s->input = s->group_size == 0 ? INPUT_QUANT_FP8 : INPUT_QUANT_NONE;
    s->input_static = strcmp(scheme, "static") == 0;
    return true;
}

static bool read_bitsandbytes(const json_t *config, struct quant_config *out, struct status *st)
{
    struct quant_scheme *s = quant_config_add(out);
    const char *type;
    bool four, eight;
    s->layout = &quant_layout_nf4;
    s->bits = 4;
    s->group_size = 64;
    if (!quant_key_bool(config, "load_in_4bit", false, &four, st) ||
        !quant_key_bool(config, "load_in_8bit", false, &eight, st) ||
        !quant_key_text(config, "bnb_4bit_quant_type", "fp4", &type, st))
        return false;
    if (eight || !four)
        return quant_unsupported(config, "load_in_4bit", "true", st);
    if (strcmp(type, "nf4") != 0)
        return quant_unsupported(config, "bnb_4bit_quant_type", "nf4", st);
    return true;
}

/* No key says how: the format has no parameters. */
static bool read_mxfp4(const json_t *config, struct quant_config *out, struct status *st)
{
    struct quant_scheme *s = quant_config_add(out);
    (void)config;
    (void)st;
    s->layout = &quant_layout_mxfp4;
    s->bits = 4;
    s->group_size = 32;
    s->symmetric = true;
    return true;
}

const struct quant_method quant_method_awq = { "awq", read_awq };
const struct quant_method quant_method_gptq = { "gptq", read_gptq };
const struct quant_method quant_method_fp8 = { "fp8", read_fp8 };
const struct quant_method quant_method_bitsandbytes = { "bitsandbytes", read_bitsandbytes };
const struct quant_method quant_method_mxfp4 = { "mxfp4", read_mxfp4 };
