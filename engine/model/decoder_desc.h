/* decoder_desc.h - the one description that every supported model reduces to.
 *
 * Filled from config.json (or a GGUF's metadata) through the architecture tables; constant
 * afterwards. A new kind of layer is a field here, a branch in decoder.c and an op. */
#ifndef INFERD_ENGINE_MODEL_DECODER_DESC_H
#define INFERD_ENGINE_MODEL_DECODER_DESC_H

#include "kernels/weight.h"

enum rope_type { ROPE_DEFAULT, ROPE_LINEAR, ROPE_LLAMA3, NUM_ROPE_TYPES };

struct rope_desc {
    enum rope_type type;
    double theta;
    int32_t rotary_dim;
    bool interleaved;
    double factor, low_freq_factor, high_freq_factor;
    int32_t original_max_position_embeddings;
};

enum { MAX_EOS_IDS = 16 };

struct decoder_desc {
    char architecture[64]; /* "LlamaForCausalLM" */
    char model_type[64];   /* "llama" */
    int32_t hidden_size, intermediate_size, num_hidden_layers, vocab_size;
    int32_t num_attention_heads, num_key_value_heads, head_dim;
    int32_t max_position_embeddings; /* as config.json has it; see model_max_len */
    enum activation hidden_act;
    float rms_norm_eps;
    struct rope_desc rope;
    bool attention_bias;   /* q, k, v */
    bool attention_o_bias; /* o_proj */
    bool mlp_bias;
    bool tie_word_embeddings;
    float attention_scale;       /* on q k^T */
    enum dtype checkpoint_dtype; /* torch_dtype / dtype of config.json */
    int32_t bos_token_id;        /* -1: none */
    int32_t num_eos_token_ids;
    int32_t eos_token_ids[MAX_EOS_IDS]; /* config.json and generation_config.json together */
};

#endif
