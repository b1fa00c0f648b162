/* gguf_arch.h - GGUF's words for what Hugging Face's checkpoints say: keys, tensors' names, and how
 * the weights differ.
 *
 * A GGUF model is brought into the form that the architecture tables (arch.h) read: its keys become
 * a config.json, its tensors get the names of Hugging Face's checkpoint, stacked experts one name
 * each. A family that arch.h knows is then a row here. */
#ifndef INFERD_ENGINE_MODEL_GGUF_ARCH_H
#define INFERD_ENGINE_MODEL_GGUF_ARCH_H

#include "engine/model/decoder_desc.h"
#include "engine/model/gguf.h"

#include <jansson.h>

enum gguf_key_type { GGUF_KEY_END, GGUF_KEY_INT, GGUF_KEY_FLOAT };

struct gguf_key {
    const char *key; /* without the architecture's name in front */
    const char *config;
    enum gguf_key_type type;
    bool required;
};

enum gguf_form {
    GGUF_SAME,    /* the tensor of Hugging Face under another name */
    GGUF_STACKED, /* one of three dimensions for all experts */
    GGUF_ROW,     /* a vector that stands for a matrix of one row */
    GGUF_DROPPED  /* read as part of the configuration, or not needed */
};

/* Both without ".weight" or ".bias"; the first {} is the layer, the second the expert. */
struct gguf_name {
    const char *name, *config;
    enum gguf_form form;
};

struct gguf_arch {
    const char *name;              /* general.architecture */
    const char *if_key;            /* only where this key is there and above 0; NULL: always */
    const char *architecture;      /* the row of arch.h */
    const struct gguf_key *keys;   /* besides those of all; NULL, or ended by a zeroed row */
    const struct gguf_name *names; /* go before those of all; likewise */
    const char *constants;         /* JSON object with what the family's files leave out, or NULL */
    /* q and k have their rows in the order of rope on neighbouring pairs. */
    bool interleaved;
    bool whole_norms; /* weights of norms hold the 1 that Hugging Face's leave out */
    /* Each n-th layer sees everything, the others slide; a file may say another n. 0: all layers do
     * the same. */
    int32_t sliding_pattern;
    int32_t default_sliding_window; /* 0: a file without one does not slide */
    /* So many layers: attention scores are scaled by the width of all heads' share of hidden_size,
     * not by head_dim. 0: the family has none such. */
    int32_t wide_scale_layers;
};

/* The row for the architecture that the keys name; an unknown one gives a message with all. */
const struct gguf_arch *gguf_arch_find(const struct gguf *g, struct status *st);

/* The keys as a config.json. NULL on failure; json_decref it. */
json_t *gguf_config(const struct gguf *g, const struct gguf_arch *arch, struct status *st);
/* What no config.json can say; after it was read. */
void gguf_arch_apply(const struct gguf_arch *arch, struct decoder_desc *desc);
/* The sampling defaults that the keys name, as a generation_config.json; likewise. */
json_t *gguf_generation_config(const struct gguf *g, struct status *st);

/* Gives the tensors their other names, and seals the checkpoint again. Names that no row has are
 * left as they are, so that a message can name them. After gguf_config, which reads tensors. */
bool gguf_rename_tensors(struct gguf *g, const struct gguf_arch *arch, struct status *st);

#endif
