/* hf_config.h - config.json and generation_config.json, checked key by key into decoder_desc.
 *
 * Messages name the file, the key and the value. A key that no table knows is ignored, as
 * transformers does; an unknown value of a known key is an error. Any thread. */
#ifndef INFERD_ENGINE_MODEL_HF_CONFIG_H
#define INFERD_ENGINE_MODEL_HF_CONFIG_H

#include "engine/model/arch.h"
#include "engine/sampling/sampling_params.h"

/* What config.json says of its tensors' dtype; in `dtype` when it says so at all. */
struct hf_config {
    const struct model_arch *arch;
    bool has_dtype; /* desc->checkpoint_dtype is the file's, not the assumed float32 */
};

/* `config` is the parsed config.json. */
bool hf_config_read(const json_t *config, struct decoder_desc *desc, struct hf_config *out,
                    struct status *st);

/* Only the rows of `arch` and of those it is based on, but none that a row nearer to `arch`
 * replaces; then its finish(), or else its base's. */
bool hf_config_apply(const struct model_arch *arch, const json_t *config, struct decoder_desc *desc,
                     struct status *st);

/* `generation` is the parsed generation_config.json. Overwrites in `params` what the file gives
 * among vLLM's keys (temperature, top_k, top_p, min_p, repetition_penalty; do_sample is not looked
 * at, as vLLM does not), sets *max_new_tokens where it has one, and adds its EOS ids to `desc`. */
bool hf_generation_config_read(const json_t *generation, struct decoder_desc *desc,
                               struct sampling_params *params, int32_t *max_new_tokens,
                               struct status *st);

#endif
