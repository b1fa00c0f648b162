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
    const json_t *params;    /* rope_parameters or rope_scaling; NULL: neither */
    const char *params_name; /* as messages say it: "rope_parameters", "rope_parameters.full_..." */
    const json_t *config;
    double default_theta;
    const struct decoder_desc *desc;
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
    rope->theta = src->default_theta > 0 ? src->default_theta : 10000.0;
    if (value)
        rope->theta = json_number_value(value);
    if (value && (!json_is_number(value) || !(rope->theta > 1 && rope->theta <= 1e15)))
        return status_set(st, STATUS_INVALID,
                          "config.json: rope_theta is %s, expected a number above 1, up to 1e15",
                          json_show(value).text);
    return true;
}

/* A member that may be missing, or null. */
static bool read_optional(const struct rope_source *src, const char *key, double min, double max,
                          double fallback, double *out, struct status *st)
{
    *out = fallback;
    return !present(src->params, key) || read_number(src, key, min, max, out, st);
}

static const struct {
    const char *name;
    enum rope_type type;
} type_names[] = {
    { "default", ROPE_DEFAULT }, { "linear", ROPE_LINEAR }, { "dynamic", ROPE_DYNAMIC },
    { "yarn", ROPE_YARN },       { "llama3", ROPE_LLAMA3 }, { "longrope", ROPE_LONGROPE },
    { "su", ROPE_LONGROPE }, /* what Phi-3's first files call it */
};

static bool read_type(const struct rope_source *src, struct rope_desc *rope, struct status *st)
{
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
    for (size_t i = 0; json_is_string(type) && i < sizeof type_names / sizeof *type_names; i++) {
        if (strcmp(json_string_value(type), type_names[i].name) == 0) {
            rope->type = type_names[i].type;
            return true;
        }
    }
    return status_set(st, STATUS_UNSUPPORTED,
                      "config.json: %s.rope_type is %s; known are default, linear, dynamic, yarn, "
                      "longrope and llama3",
                      src->params_name, json_show(type).text);
}

/* One outside of the rope object goes first, as in transformers; without any, it is
 * max_position_embeddings. */
static bool read_original_max(const struct rope_source *src, struct rope_desc *rope,
                              struct status *st)
{
    struct rope_source outside = { .params = src->config, .params_name = "the model" };
    const char *key = "original_max_position_embeddings";
    bool is_outside = present(src->config, key) != NULL;
    double original;
    if (!read_optional(is_outside ? &outside : src, key, 1, LIMIT_MODEL_LEN,
                       src->desc->max_position_embeddings, &original, st))
        return false;
    rope->original_max_position_embeddings = (int32_t)original;
    return rope->original_max_position_embeddings == original ||
           status_set(st, STATUS_INVALID,
                      "config.json: original_max_position_embeddings %g is no whole number",
                      original);
}

/* The factor, by default how far the length was stretched. */
static bool read_stretch(const struct rope_source *src, struct rope_desc *rope, struct status *st)
{
    double stretch = (double)src->desc->max_position_embeddings;
    if (!read_original_max(src, rope, st))
        return false;
    stretch /= rope->original_max_position_embeddings;
    return read_optional(src, "factor", 1, 1e6, stretch, &rope->factor, st);
}

static double yarn_mscale(double factor, double mscale)
{
    return factor <= 1 ? 1 : 0.1 * mscale * log(factor) + 1;
}

static bool read_yarn(const struct rope_source *src, struct rope_desc *rope, struct status *st)
{
    double mscale, mscale_all_dim;
    const json_t *truncate = present(src->params, "truncate");
    if (truncate && !json_is_boolean(truncate))
        return status_set(st, STATUS_INVALID, "config.json: %s.truncate is %s, expected a boolean",
                          src->params_name, json_show(truncate).text);
    rope->truncate = !truncate || json_is_true(truncate);
    if (!read_stretch(src, rope, st) ||
        !read_optional(src, "beta_fast", 1e-6, 1e6, 32, &rope->beta_fast, st) ||
        !read_optional(src, "beta_slow", 1e-6, 1e6, 1, &rope->beta_slow, st) ||
        !read_optional(src, "mscale", 0, 1e6, 0, &mscale, st) ||
        !read_optional(src, "mscale_all_dim", 0, 1e6, 0, &mscale_all_dim, st))
        return false;
    if (mscale_all_dim > 0)
        rope->score_mscale = yarn_mscale(rope->factor, mscale_all_dim);
    double inferred = yarn_mscale(rope->factor, 1);
    if (mscale > 0 && mscale_all_dim > 0)
        inferred = yarn_mscale(rope->factor, mscale) / yarn_mscale(rope->factor, mscale_all_dim);
    return read_optional(src, "attention_factor", 1e-6, 1e6, inferred, &rope->attention_factor, st);
}

static bool read_factors(const struct rope_source *src, const char *key, int32_t count, float *out,
                         struct status *st)
{
    const json_t *list = present(src->params, key);
    if (!json_is_array(list) || json_array_size(list) != (size_t)count)
        return status_set(st, STATUS_INVALID,
                          "config.json: %s.%s is %s, expected a list of %d numbers, one for each "
                          "pair of a head that rotates",
                          src->params_name, key, list ? json_show(list).text : "missing", count);
    for (int32_t i = 0; i < count; i++) {
        const json_t *value = json_array_get(list, (size_t)i);
        double number = json_number_value(value);
        if (!json_is_number(value) || !(number >= 1e-6 && number <= 1e6))
            return status_set(st, STATUS_INVALID,
                              "config.json: %s.%s holds %s, expected numbers from 1e-6 to 1e6",
                              src->params_name, key, json_show(value).text);
        out[i] = (float)number;
    }
    return true;
}

static bool read_longrope(const struct rope_source *src, struct rope_desc *rope, struct status *st)
{
    int32_t count = rope->rotary_dim / 2;
    if (!read_stretch(src, rope, st) ||
        !read_factors(src, "short_factor", count, rope->short_factor, st) ||
        !read_factors(src, "long_factor", count, rope->long_factor, st))
        return false;
    double inferred = 1;
    if (rope->factor > 1 && rope->original_max_position_embeddings > 1)
        inferred = sqrt(1 + log(rope->factor) / log(rope->original_max_position_embeddings));
    return read_optional(src, "attention_factor", 1e-6, 1e6, inferred, &rope->attention_factor, st);
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

/* How much of a head rotates. */
static bool read_rotary_dim(const struct rope_source *src, struct rope_desc *rope,
                            struct status *st)
{
    const struct decoder_desc *desc = src->desc;
    double share = desc->partial_rotary_factor > 0 ? desc->partial_rotary_factor : 1;
    const json_t *value = present(src->params, "partial_rotary_factor");
    if (value && !desc->traits.partial_rotary && json_number_value(value) != 1.0)
        return status_set(st, STATUS_UNSUPPORTED,
                          "config.json: %s.partial_rotary_factor is %s; only 1 is supported",
                          src->params_name, json_show(value).text);
    if (!read_optional(src, "partial_rotary_factor", 1e-6, 1, share, &share, st))
        return false;
    const char *name = desc->kv_lora_rank > 0 ? "qk_rope_head_dim" : "head_dim";
    int32_t head_dim = desc->kv_lora_rank > 0 ? desc->qk_rope_head_dim : desc->head_dim;
    rope->rotary_dim = (int32_t)(head_dim * share);
    if (rope->rotary_dim % 2 == 0 && rope->rotary_dim > 0)
        return true;
    if (rope->rotary_dim == head_dim)
        return status_set(st, STATUS_INVALID,
                          "config.json: %s %d is odd, rotary embedding needs pairs", name,
                          head_dim);
    return status_set(st, STATUS_UNSUPPORTED,
                      "config.json: %g of %s %d is %d, rotary embedding needs pairs", share, name,
                      head_dim, rope->rotary_dim);
}

static bool read_rope(const struct rope_source *src, struct rope_desc *rope, struct status *st)
{
    *rope = (struct rope_desc){ .factor = 1,
                                .interleaved = src->desc->rope_interleave,
                                .max_position_embeddings = src->desc->max_position_embeddings,
                                .max_len = src->desc->max_position_embeddings };
    if (!read_theta(src, rope, st) || !read_type(src, rope, st) || !read_rotary_dim(src, rope, st))
        return false;
    switch (rope->type) {
    case ROPE_LINEAR:
    case ROPE_DYNAMIC:
        return read_number(src, "factor", 1, 1e6, &rope->factor, st);
    case ROPE_LLAMA3:
        return read_llama3(src, rope, st);
    case ROPE_YARN:
        return read_yarn(src, rope, st);
    case ROPE_LONGROPE:
        return read_longrope(src, rope, st);
    case ROPE_DEFAULT:
    case NUM_ROPE_TYPES:
        break;
    }
    return true;
}

/* rope_scaling goes before rope_parameters where a file has both, as in transformers 5. */
static struct rope_source find_source(const json_t *config, const struct decoder_desc *desc)
{
    static const char *const names[] = { "rope_scaling", "rope_parameters" };
    struct rope_source src = { .config = config,
                               .default_theta = desc->default_rope_theta,
                               .desc = desc };
    for (int i = 0; i < 2 && !src.params; i++) {
        src.params_name = names[i];
        src.params = present(config, names[i]);
    }
    return src;
}

/* The settings must be an object, and hold no others. */
static bool check_settings(const struct rope_source *src, struct status *st)
{
    const char *key;
    json_t *value;
    if (src->params && !json_is_object(src->params))
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
    return true;
}

/* Settings by kind of layer, as transformers 5 writes them; or the older form, where the ones in
 * the rope object and at the top are those of the layers that see everything. */
static bool read_both(const struct rope_source *src, struct decoder_desc *desc, struct status *st)
{
    const json_t *full_params = present(src->params, "full_attention");
    const json_t *sliding_params = present(src->params, "sliding_attention");
    struct rope_source full = *src, sliding = { .params_name = src->params_name,
                                                .default_theta = desc->sliding_rope_theta,
                                                .desc = desc };
    if (full_params || sliding_params) {
        full.params = full_params;
        full.params_name = "rope_parameters.full_attention";
        sliding.params = sliding_params;
        sliding.params_name = "rope_parameters.sliding_attention";
    }
    if (!check_settings(&full, st) || !check_settings(&sliding, st))
        return false;
    return read_rope(&full, &desc->rope, st) && read_rope(&sliding, &desc->sliding_rope, st);
}

bool rope_desc_read(const json_t *config, struct decoder_desc *desc, struct status *st)
{
    struct rope_source src = find_source(config, desc);
    if (desc->traits.learned_positions)
        return true;
    if (desc->traits.sliding_rope)
        return read_both(&src, desc, st);
    if (!check_settings(&src, st) || !read_rope(&src, &desc->rope, st))
        return false;
    double mscale = desc->rope.score_mscale;
    if (desc->traits.yarn_scales_scores && mscale > 0)
        desc->attention_scale = (float)((double)desc->attention_scale * mscale * mscale);
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

/* The base grows so that max_len positions fit where max_position_embeddings did. */
static double dynamic_theta(const struct rope_desc *rope)
{
    double len = rope->max_len > rope->max_position_embeddings ? rope->max_len
                                                               : rope->max_position_embeddings;
    double dim = rope->rotary_dim;
    double growth = rope->factor * len / rope->max_position_embeddings - (rope->factor - 1);
    return dim > 2 ? rope->theta * pow(growth, dim / (dim - 2)) : rope->theta;
}

/* Where yarn blends: dimensions below `low` keep their frequency, those above `high` have it
 * divided. */
struct yarn_range {
    double low, high;
};

static struct yarn_range yarn_range(const struct rope_desc *rope)
{
    double per_rotation = rope->original_max_position_embeddings / (2 * 3.14159265358979323846);
    double scale = rope->rotary_dim / (2 * log(rope->theta));
    struct yarn_range r = { scale * log(per_rotation / rope->beta_fast),
                            scale * log(per_rotation / rope->beta_slow) };
    if (rope->truncate) {
        r.low = floor(r.low);
        r.high = ceil(r.high);
    }
    r.low = fmax(r.low, 0);
    r.high = fmin(r.high, rope->rotary_dim - 1);
    if (r.low == r.high)
        r.high += 0.001;
    return r;
}

static double yarn_frequency(const struct rope_desc *rope, int32_t i, double frequency)
{
    struct yarn_range range = yarn_range(rope);
    double divided = (i - range.low) / (range.high - range.low);
    divided = fmin(fmax(divided, 0), 1);
    return frequency / rope->factor * divided + frequency * (1 - divided);
}

static double longrope_frequency(const struct rope_desc *rope, int32_t i, double frequency)
{
    bool is_long = rope->max_len > rope->original_max_position_embeddings;
    return frequency / (double)(is_long ? rope->long_factor[i] : rope->short_factor[i]);
}

void rope_desc_inv_freq(const struct rope_desc *rope, float *inv_freq)
{
    double theta = rope->type == ROPE_DYNAMIC ? dynamic_theta(rope) : rope->theta;
    for (int32_t i = 0; i < rope->rotary_dim / 2; i++) {
        double frequency = pow(theta, -2.0 * i / rope->rotary_dim);
        switch (rope->type) {
        case ROPE_DEFAULT:
        case ROPE_DYNAMIC:
            break;
        case ROPE_LINEAR:
            frequency /= rope->factor;
            break;
        case ROPE_YARN:
            frequency = yarn_frequency(rope, i, frequency);
            break;
        case ROPE_LONGROPE:
            frequency = longrope_frequency(rope, i, frequency);
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
