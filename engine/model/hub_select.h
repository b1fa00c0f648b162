/* hub_select.h - which files of a repository a model needs.
 *
 * In Hugging Face's layout: config.json, then whatever of the table of small files there is, then
 * model.safetensors or the shards of its index; never .bin. Of GGUF only what was asked for, and
 * nothing else, since such a file holds all of it. Pure functions. */
#ifndef INFERD_ENGINE_MODEL_HUB_SELECT_H
#define INFERD_ENGINE_MODEL_HUB_SELECT_H

#include "engine/model/hub_listing.h"

#define HUB_CONFIG_FILE  "config.json"
#define HUB_WEIGHTS_FILE "model.safetensors"
#define HUB_INDEX_FILE   "model.safetensors.index.json"

/* The small files that are taken where there are any: tokenizer, templates, defaults. */
extern const char *const hub_optional_files[];
extern const int32_t hub_num_optional_files;

struct hub_selection {
    /* In the order in which they become visible: config.json last, since a snapshot with it is
     * whole. */
    const struct hub_file **files;
    int32_t num_files;
    bool needs_index;  /* the index is among the files and its shards are still to be added */
    const char *first; /* of GGUF: the path to open; NULL otherwise */
};

/* `file`: FILE or QUANT, or NULL for safetensors. `with_weights` false: config, tokenizer and
 * templates only. On false nothing is to be freed. */
bool hub_select(const struct hub_listing *l, const char *file, bool with_weights,
                struct hub_selection *out, struct status *st);
/* Adds what the index names. */
bool hub_select_shards(const struct hub_listing *l, const char *const *names, int32_t count,
                       struct hub_selection *s, struct status *st);
void hub_selection_free(struct hub_selection *s);
/* Sum of the sizes; each is within config/limits.h, and so their sum fits. */
uint64_t hub_selection_bytes(const struct hub_selection *s);

#endif
