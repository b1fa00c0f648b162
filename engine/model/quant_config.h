/* quant_config.h - quantization_config of config.json: which modules are quantized, and how.
 *
 * A quant_method is a row of a table: its name and what reads its keys into schemes. Whether a
 * module is quantized at all the checkpoint tells: it then has the tensors of the scheme's layout
 * instead of a float weight, so lists of modules that were left alone need not be read. */
#ifndef INFERD_ENGINE_MODEL_QUANT_CONFIG_H
#define INFERD_ENGINE_MODEL_QUANT_CONFIG_H

#include "base/arena.h"
#include "engine/model/quant/quant_layout.h"

#include <jansson.h>

struct quant_config {
    const char *method; /* "gptq", as the file names it */
    struct quant_scheme *schemes;
    size_t num_schemes;
    struct arena names;              /* of the schemes' targets */
    struct quant_format_set formats; /* of the sources made with it */
};

struct quant_method {
    const char *name;
    /* Adds one scheme at least. `config` is the quantization_config. */
    bool (*read)(const json_t *config, struct quant_config *out, struct status *st);
};

/* The table of all, ended by NULL. */
extern const struct quant_method *const quant_methods[];

/* `config` is the parsed config.json. *out is NULL where its weights are not quantized. */
bool quant_config_read(const json_t *config, struct quant_config **out, struct status *st);
void quant_config_free(struct quant_config *q); /* NULL is fine */

/* Whether a scheme has whole numbers for activations. */
bool quant_config_has_int8_input(const struct quant_config *q); /* NULL: it has not */

/* The scheme of a module, or NULL. */
const struct quant_scheme *quant_config_scheme(const struct quant_config *q, const char *module);
/* Whether a tensor may be there that goes to no weight: scales of activations. */
bool quant_config_ignores(const struct quant_config *q, const char *tensor);

/* --- for methods --- */
struct quant_scheme *quant_config_add(struct quant_config *q);
/* Members of an object by key; absent or null is `fallback`. Messages name the key. */
bool quant_key_int(const json_t *object, const char *key, int64_t fallback, int64_t *out,
                   struct status *st);
bool quant_key_bool(const json_t *object, const char *key, bool fallback, bool *out,
                    struct status *st);
/* *out lives as long as the object; `fallback` may be NULL. */
bool quant_key_text(const json_t *object, const char *key, const char *fallback, const char **out,
                    struct status *st);
/* group_size: -1 becomes 0. */
bool quant_key_group_size(const json_t *object, int64_t fallback, int32_t *out, struct status *st);
/* An unknown value of a known key; `known` lists those that are supported. */
bool quant_unsupported(const json_t *object, const char *key, const char *known, struct status *st);

#endif
