/* config_helper.h - config.json texts for tests: a good one, and changes to it. */
#ifndef INFERD_TESTS_ENGINE_MODEL_CONFIG_HELPER_H
#define INFERD_TESTS_ENGINE_MODEL_CONFIG_HELPER_H

#include "engine/model/hf_config.h"

#include <jansson.h>
#include <stdio.h>
#include <string.h>

static const char good_config[] =
    "{\"architectures\":[\"LlamaForCausalLM\"],\"model_type\":\"llama\",\"hidden_act\":\"silu\","
    "\"hidden_size\":64,\"intermediate_size\":172,\"num_hidden_layers\":5,"
    "\"num_attention_heads\":8,\"num_key_value_heads\":4,\"vocab_size\":512,"
    "\"max_position_embeddings\":256,\"rms_norm_eps\":1e-05,\"rope_theta\":10000.0,"
    "\"rope_scaling\":null,\"tie_word_embeddings\":true,\"torch_dtype\":\"float32\","
    "\"attention_bias\":false,\"mlp_bias\":false,\"bos_token_id\":1,\"eos_token_id\":2}";

/* The good one with the members of `patch` put in; a value "-" takes the member out. */
static inline json_t *patched_config(const char *patch)
{
    json_error_t error;
    const char *key;
    json_t *value, *config = json_loads(good_config, 0, NULL);
    json_t *changes = json_loads(patch, 0, &error);
    if (!changes)
        fail_msg("%s: %s", patch, error.text);
    json_object_foreach(changes, key, value)
    {
        if (json_is_string(value) && strcmp(json_string_value(value), "-") == 0)
            json_object_del(config, key);
        else
            json_object_set(config, key, value);
    }
    json_decref(changes);
    return config;
}

static inline bool read_patched(const char *patch, struct decoder_desc *desc, struct status *st)
{
    struct hf_config hf;
    json_t *config = patched_config(patch);
    status_clear(st);
    bool ok = hf_config_read(config, desc, &hf, st);
    json_decref(config);
    return ok;
}

/* The description of the good config with changes. */
static inline struct decoder_desc desc_of(const char *patch)
{
    struct decoder_desc desc;
    struct status st;
    if (!read_patched(patch, &desc, &st))
        fail_msg("%s: %s", patch, st.message);
    return desc;
}

static inline void expect_config_refused(const char *patch, const char *words)
{
    struct decoder_desc desc;
    struct status st;
    bool ok = read_patched(patch, &desc, &st);
    if (ok || !strstr(st.message, words) || !strstr(st.message, "config.json") ||
        strchr(st.message, '\n'))
        fail_msg("%s\n  expected: %s\n  message:  %s", patch, words, ok ? "(taken)" : st.message);
}

#endif
