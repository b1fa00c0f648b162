/* quant_config.c - the table of quant_methods, and what matches modules to their schemes. */
#include "engine/model/quant_config.h"
#include "base/alloc.h"
#include "base/buf.h"
#include "config/limits.h"
#include "engine/model/json_file.h"

#include <regex.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

extern const struct quant_method quant_method_awq, quant_method_gptq, quant_method_fp8,
    quant_method_compressed_tensors, quant_method_bitsandbytes, quant_method_mxfp4;

const struct quant_method *const quant_methods[] = {
    &quant_method_awq,
    &quant_method_gptq,
    &quant_method_fp8,
    &quant_method_compressed_tensors,
    &quant_method_bitsandbytes,
    &quant_method_mxfp4,
    NULL,
};

/* --- keys ------------------------------------------------------------------------------------ */

static const json_t *member(const json_t *object, const char *key)
{
    const json_t *value = json_object_get(object, key);
    return json_is_null(value) ? NULL : value;
}

static bool wrong(const char *key, const json_t *value, const char *expected, struct status *st)
{
    return status_set(st, STATUS_INVALID, "config.json: quantization_config: %s is %s, expected %s",
                      key, json_show(value).text, expected);
}

bool quant_key_int(const json_t *object, const char *key, int64_t fallback, int64_t *out,
                   struct status *st)
{
    const json_t *value = member(object, key);
    *out = value ? json_integer_value(value) : fallback;
    return !value || json_is_integer(value) || wrong(key, value, "a whole number", st);
}

bool quant_key_bool(const json_t *object, const char *key, bool fallback, bool *out,
                    struct status *st)
{
    const json_t *value = member(object, key);
    *out = value ? json_is_true(value) : fallback;
    return !value || json_is_boolean(value) || wrong(key, value, "true or false", st);
}

bool quant_key_text(const json_t *object, const char *key, const char *fallback, const char **out,
                    struct status *st)
{
    const json_t *value = member(object, key);
    *out = value ? json_string_value(value) : fallback;
    return !value || json_is_string(value) || wrong(key, value, "a name", st);
}

bool quant_key_group_size(const json_t *object, int64_t fallback, int32_t *out, struct status *st)
{
    int64_t size;
    if (!quant_key_int(object, "group_size", fallback, &size, st))
        return false;
    *out = size == -1 ? 0 : (int32_t)size;
    if (size == -1 || (size >= 1 && size <= LIMIT_INTERMEDIATE_SIZE))
        return true;
    return wrong("group_size", json_object_get(object, "group_size"), "-1 or a size above 0", st);
}

bool quant_unsupported(const json_t *object, const char *key, const char *known, struct status *st)
{
    return status_set(st, STATUS_UNSUPPORTED,
                      "config.json: quantization_config: %s is %s, which is not supported; "
                      "supported: %s",
                      key, json_show(json_object_get(object, key)).text, known);
}

/* --- reading --------------------------------------------------------------------------------- */

struct quant_scheme *quant_config_add(struct quant_config *q)
{
    q->schemes = xrealloc(q->schemes, (q->num_schemes + 1) * sizeof *q->schemes);
    struct quant_scheme *s = &q->schemes[q->num_schemes++];
    *s = (struct quant_scheme){ 0 };
    return s;
}

static const struct quant_method *find_method(const json_t *config, struct status *st)
{
    const json_t *name = json_object_get(config, "quant_method");
    const json_t *four = json_object_get(config, "load_in_4bit");
    const json_t *eight = json_object_get(config, "load_in_8bit");
    const char *text = json_string_value(name);
    struct buf known;
    if (!text && (json_is_true(four) || json_is_true(eight)))
        text = "bitsandbytes"; /* older files of its say only this much */
    for (size_t i = 0; text && quant_methods[i]; i++)
        if (strcasecmp(quant_methods[i]->name, text) == 0)
            return quant_methods[i];
    buf_init(&known, 100);
    for (size_t i = 0; quant_methods[i]; i++)
        buf_printf(&known, "%s%s", i > 0 ? ", " : "", quant_methods[i]->name);
    status_set(st, STATUS_UNSUPPORTED,
               "config.json: quantization_config: the weights are quantized with quant_method %s, "
               "which is not supported; supported: %s",
               json_show(name).text, buf_str(&known));
    buf_free(&known);
    return NULL;
}

bool quant_config_read(const json_t *config, struct quant_config **out, struct status *st)
{
    /* The second is what compressed-tensors wrote at first. */
    const json_t *quant = member(config, "quantization_config");
    quant = quant ? quant : member(config, "compression_config");
    *out = NULL;
    if (!quant)
        return true;
    if (!json_is_object(quant))
        return status_set(st, STATUS_INVALID,
                          "config.json: quantization_config is %s, expected an object",
                          json_show(quant).text);
    const struct quant_method *method = find_method(quant, st);
    if (!method)
        return false;
    struct quant_config *q = xcalloc(1, sizeof *q);
    q->method = method->name;
    arena_init(&q->names);
    if (!method->read(quant, q, st)) {
        quant_config_free(q);
        return false;
    }
    *out = q;
    return true;
}

void quant_config_free(struct quant_config *q)
{
    if (!q)
        return;
    free(q->schemes);
    arena_free(&q->names);
    quant_format_set_free(&q->formats);
    free(q);
}

bool quant_config_has_int8_input(const struct quant_config *q)
{
    for (size_t i = 0; q && i < q->num_schemes; i++)
        if (q->schemes[i].input == INPUT_QUANT_INT8)
            return true;
    return false;
}

/* --- modules --------------------------------------------------------------------------------- */

/* The expression was compiled once when it was read, so it is sound. */
static bool regex_matches(const char *pattern, const char *module)
{
    regex_t compiled;
    regmatch_t match;
    if (regcomp(&compiled, pattern, REG_EXTENDED) != 0)
        return false;
    bool ok = regexec(&compiled, module, 1, &match, 0) == 0 && match.rm_so == 0;
    regfree(&compiled);
    return ok;
}

static bool target_matches(const char *target, const char *module)
{
    if (strncmp(target, "re:", 3) == 0)
        return regex_matches(target + 3, module);
    return strcmp(target, "Linear") == 0 || strcmp(target, module) == 0;
}

/* A target that names the module comes before one that names its class. */
const struct quant_scheme *quant_config_scheme(const struct quant_config *q, const char *module)
{
    const struct quant_scheme *by_class = NULL;
    for (size_t i = 0; i < q->num_schemes; i++) {
        const struct quant_scheme *s = &q->schemes[i];
        if (s->num_targets == 0)
            return s;
        for (size_t t = 0; t < s->num_targets; t++) {
            if (!target_matches(s->targets[t], module))
                continue;
            if (strcmp(s->targets[t], "Linear") != 0)
                return s;
            by_class = by_class ? by_class : s;
        }
    }
    return by_class;
}

bool quant_config_ignores(const struct quant_config *q, const char *tensor)
{
    static const char *const suffixes[] = {
        ".input_scale",  ".input_zero_point",  ".activation_scale",
        ".output_scale", ".output_zero_point",
    };
    const char *end = tensor + strlen(tensor);
    for (size_t i = 0; q && i < sizeof suffixes / sizeof suffixes[0]; i++) {
        size_t len = strlen(suffixes[i]);
        if ((size_t)(end - tensor) > len && strcmp(end - len, suffixes[i]) == 0)
            return true;
    }
    return false;
}
