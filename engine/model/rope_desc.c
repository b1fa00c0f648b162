/* rope_desc.c - the three spellings of rope settings, and the frequencies they stand for. */
#include "engine/model/rope_desc.h"
#include "config/limits.h"
#include "engine/model/json_file.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

/* Where a value may stand, the first that has it wins: in the rope object, then at the top. */
struct rope_source {
    const json_t *params; /* rope_parameters or rope_scaling; NULL: neither */
    const char *params_name;
    const json_t *config;
};

static const json_t *present(const json_t *object, const char *key)
{
    const json_t *value = json_object_get(object, key);
    return json_is_null(value) ? NULL : value;
}

static bool read_number(const struct rope_source *src, const char *key, double min, double max,
                        double *out, struct status *st)
{
    const json_t *value = present(src->params, key);
    if (!value)
        return status_set(st, STATUS_INVALID, "config.json: %s lacks \"%s\"", src->params_name,
                          key);
    *out = json_number_value(value);
    if (!json_is_number(value) || !(*out >= min && *out <= max))
        return status_set(st, STATUS_INVALID,
                          "config.json: %s.%s is %s, expected a number from %g to %g",
                          src->params_name, key, json_show(value).text, min, max);
    return true;
}

static bool read_theta(const struct rope_source *src, struct rope_desc *rope, struct status *st)
{
    const json_t *value = present(src->params, "rope_theta");
    if (!value)
        value = present(src->config, "rope_theta");
    rope->theta = value ? json_number_value(value) : 10000.0;
    if (value && (!json_is_number(value) || !(rope->theta > 1 && rope->theta <= 1e15)))
        return status_set(st, STATUS_INVALID,
                          "config.json: rope_theta is %s, expected a number above 1, up to 1e15",
                          json_show(value).text);
    return true;
}

static bool read_type(const struct rope_source *src, struct rope_desc *rope, struct status *st)
{
    static const char *const names[NUM_ROPE_TYPES] = {
        [ROPE_DEFAULT] = "default", [ROPE_LINEAR] = "linear", [ROPE_LLAMA3] = "llama3"
    };
    const json_t *type = present(src->params, "rope_type");
    const json_t *old_type = present(src->params, "type");
    if (type && old_type && !json_equal(type, old_type))
        return status_set(st, STATUS_INVALID,
                          "config.json: %s has rope_type %s and type %s, which disagree",
                          src->params_name, json_show(type).text, json_show(old_type).text);
    if (!type)
        type = old_type;
    rope->type = ROPE_DEFAULT;
    if (!type) { /* a theta may stand alone; anything more would need a type to mean something */
        if (present(src->params, "factor"))
            return status_set(st, STATUS_INVALID, "config.json: %s has a factor but no rope_type",
                              src->params_name);
        return true;
    }
    for (int i = 0; i < NUM_ROPE_TYPES; i++) {
        if (json_is_string(type) && strcmp(json_string_value(type), names[i]) == 0) {
            rope->type = (enum rope_type)i;
            return true;
        }
    }
    return status_set(st, STATUS_UNSUPPORTED,
                      "config.json: %s.rope_type is %s; known are default, linear and llama3",
                      src->params_name, json_show(type).text);
}

static bool read_llama3(const struct rope_source *src, struct rope_desc *rope, struct status *st)
{
    double original = 0;
    if (!read_number(src, "factor", 1, 1e6, &rope->factor, st) ||
        !read_number(src, "low_freq_factor", 1e-6, 1e6, &rope->low_freq_factor, st) ||
        !read_number(src, "high_freq_factor", 1e-6, 1e6, &rope->high_freq_factor, st) ||
        !read_number(src, "original_max_position_embeddings", 1, LIMIT_MODEL_LEN, &original, st))
        return false;
    if (rope->high_freq_factor <= rope->low_freq_factor)
        return status_set(st, STATUS_INVALID,
                          "config.json: %s.high_freq_factor %g is not above low_freq_factor %g",
                          src->params_name, rope->high_freq_factor, rope->low_freq_factor);
    rope->original_max_position_embeddings = (int32_t)original;
    if (rope->original_max_position_embeddings != original)
        return status_set(st, STATUS_INVALID,
                          "config.json: %s.original_max_position_embeddings is no whole number",
                          src->params_name);
    return true;
}

/* rope_scaling goes before rope_parameters where a file has both, as in transformers 5. */
static bool find_source(const json_t *config, struct rope_source *src, struct status *st)
{
    static const char *const names[] = { "rope_scaling", "rope_parameters" };
    const char *key;
    json_t *value;
    *src = (struct rope_source){ .config = config, .params_name = "rope_scaling" };
    for (int i = 0; i < 2 && !src->params; i++) {
        src->params_name = names[i];
        src->params = present(config, names[i]);
    }
    if (!src->params)
        return true;
    if (!json_is_object(src->params))
        return status_set(st, STATUS_INVALID, "config.json: %s is %s, expected an object or null",
                          src->params_name, json_show(src->params).text);
    json_object_foreach((json_t *)src->params, key, value)
    {
        if (json_is_object(value))
            return status_set(st, STATUS_UNSUPPORTED,
                              "config.json: %s differs between layers (it holds %s), which this "
                              "architecture does not do",
                              src->params_name, json_show(value).text);
    }
    const json_t *partial = present(src->params, "partial_rotary_factor");
    if (partial && json_number_value(partial) != 1.0)
        return status_set(st, STATUS_UNSUPPORTED,
                          "config.json: %s.partial_rotary_factor is %s; only 1 is supported",
                          src->params_name, json_show(partial).text);
    return true;
}

bool rope_desc_read(const json_t *config, struct decoder_desc *desc, struct status *st)
{
    struct rope_source src;
    struct rope_desc *rope = &desc->rope;
    *rope = (struct rope_desc){ .rotary_dim = desc->head_dim, .factor = 1 };
    if (!find_source(config, &src, st) || !read_theta(&src, rope, st) || !read_type(&src, rope, st))
        return false;
    if (desc->head_dim % 2 != 0)
        return status_set(st, STATUS_INVALID,
                          "config.json: head_dim %d is odd, rotary embedding needs pairs",
                          desc->head_dim);
    if (rope->type == ROPE_LINEAR)
        return read_number(&src, "factor", 1, 1e6, &rope->factor, st);
    if (rope->type == ROPE_LLAMA3)
        return read_llama3(&src, rope, st);
    return true;
}

/* Long wavelengths are divided by the factor, short ones kept, those between interpolated. */
static double llama3_frequency(const struct rope_desc *rope, double frequency)
{
    double rotations =
        rope->original_max_position_embeddings * frequency / (2 * 3.14159265358979323846);
    if (rotations < rope->low_freq_factor)
        return frequency / rope->factor;
    if (rotations > rope->high_freq_factor)
        return frequency;
    double smooth =
        (rotations - rope->low_freq_factor) / (rope->high_freq_factor - rope->low_freq_factor);
    return (1 - smooth) * frequency / rope->factor + smooth * frequency;
}

void rope_desc_inv_freq(const struct rope_desc *rope, float *inv_freq)
{
    for (int32_t i = 0; i < rope->rotary_dim / 2; i++) {
        double frequency = pow(rope->theta, -2.0 * i / rope->rotary_dim);
        switch (rope->type) {
        case ROPE_DEFAULT:
            break;
        case ROPE_LINEAR:
            frequency /= rope->factor;
            break;
        case ROPE_LLAMA3:
            frequency = llama3_frequency(rope, frequency);
            break;
        case NUM_ROPE_TYPES:
            assert(!"not a rope type");
        }
        inv_freq[i] = (float)frequency;
    }
}
