/* model.h - a checkpoint, opened but not loaded: its description, its tensors' headers, its
 * generation defaults. Everything is checked here, so that a wrong file stops start-up by name
 * before a weight is read. Immutable once its weights are loaded. */
#ifndef INFERD_ENGINE_MODEL_MODEL_H
#define INFERD_ENGINE_MODEL_MODEL_H

#include "base/status.h"
#include "engine/model/decoder_desc.h"
#include "engine/model/gguf.h"
#include "engine/model/tensor_map.h"
#include "engine/sampling/sampling_params.h"
#include "kernels/backend.h"
#include "kernels/comm.h"

struct model_options {
    const char *path;         /* the model's directory, or a GGUF file (the first of a split) */
    const char *load_format;  /* "auto", "safetensors", "gguf", "dummy" */
    const char *dtype;        /* "auto", "float32", ... */
    const char *quantization; /* "none", "fp8", "int8", "int4"; NULL: none */
    /* Where packed weights are kept from one start to the next; NULL: nowhere. */
    const char *packed_weights_cache;
};

struct model {
    char *path;
    char *packed_weights_cache; /* as in model_options */
    const struct model_arch *arch;
    struct decoder_desc desc;
    const struct quant_format *weight_format; /* of linears that are not quantized; see --dtype */
    struct quant_config *quant;               /* of config.json; NULL: none */
    bool keep_formats; /* plain tensors too stay as they are stored: a GGUF without --dtype */
    const struct quant_format *load_quant; /* of float linears in layers; NULL: weight_format */
    struct quant_format_set formats;       /* the owner of load_quant */
    struct sampling_params generation_defaults; /* generation_config.json over the built-in ones */
    int32_t generation_max_new_tokens;          /* server-wide cap it names; 0: none */
    struct gguf *gguf;                          /* NULL unless that is what was opened */
    struct checkpoint *checkpoint;              /* NULL with load_format dummy */
    struct tensor_map tensors;                  /* what of it goes where; empty with dummy */
};

bool model_open(const struct model_options *options, struct model **out, struct status *st);
void model_close(struct model *m);

/* One more id that ends an answer; one that is known already changes nothing. */
bool model_add_eos(struct model *m, int32_t id, struct status *st);

/* Number of parameters, counted from the description; a tied head counts once. */
int64_t model_num_parameters(const struct model *m);

/* The longest prompt plus output by vLLM's rule: max_position_embeddings, times the rope factor
 * where the type stretches positions (linear, dynamic; yarn: the factor times the original length;
 * not llama3 and longrope, where it is counted in already). */
int32_t model_max_len(const struct decoder_desc *desc);
/* The length that is served, before the weights are loaded: the frequencies of dynamic rope and of
 * longrope depend on it. Without this call it is model_max_len. */
void model_set_max_len(struct model *m, int32_t max_len);

#endif
