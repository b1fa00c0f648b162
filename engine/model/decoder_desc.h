/* decoder_desc.h - the one description that every supported model reduces to.
 *
 * Filled from config.json (or a GGUF's metadata) through the architecture tables; constant
 * afterwards. A new kind of layer is a field here, a branch in decoder.c and an op. Zero is always
 * what Llama does. */
#ifndef INFERD_ENGINE_MODEL_DECODER_DESC_H
#define INFERD_ENGINE_MODEL_DECODER_DESC_H

#include "config/limits.h"
#include "kernels/weight.h"

enum rope_type {
    ROPE_DEFAULT,
    ROPE_LINEAR,
    ROPE_DYNAMIC,
    ROPE_YARN,
    ROPE_LONGROPE,
    ROPE_LLAMA3,
    NUM_ROPE_TYPES
};

struct rope_desc {
    enum rope_type type;
    double theta;
    int32_t rotary_dim; /* 0: this model rotates nothing */
    bool interleaved;
    double factor, low_freq_factor, high_freq_factor; /* the last two: llama3 */
    double beta_fast, beta_slow;                      /* yarn: rotations at which blending begins */
    bool truncate;                                    /* yarn: to whole dimensions */
    double attention_factor;                          /* on cos and sin; 0 stands for 1 */
    double score_mscale; /* yarn: what mscale_all_dim gives; 0: it is not set */
    int32_t original_max_position_embeddings;
    int32_t max_position_embeddings; /* dynamic: up to here nothing is stretched */
    /* The longest sequence served. Two types have frequencies that depend on a length; taking this
     * one for all sequences gives a token the same values however its prompt comes. */
    int32_t max_len;
    /* longrope: divisors of the frequencies, for a max_len up to the original one and above it. */
    float short_factor[LIMIT_HEAD_DIM / 2], long_factor[LIMIT_HEAD_DIM / 2];
};

/* --- what the code of a family fixes, whatever config.json says --- */

/* Where norms stand around a block (attention or MLP), whose output is added to the residual. */
enum norm_placement { NORM_BEFORE, NORM_AFTER, NORM_BEFORE_AND_AFTER };

enum qk_norm {
    QK_NORM_NONE,
    QK_NORM_HEAD, /* each head by itself, one weight for all of them */
    QK_NORM_ALL   /* all heads of q, all heads of k */
};

/* How the best experts are chosen; the names are those of files. */
enum topk_method {
    TOPK_GREEDY,               /* from all */
    TOPK_GROUP_LIMITED_GREEDY, /* from the groups with the best experts */
    TOPK_NOAUX_TC /* from the groups with the best pairs of experts, by biased scores */
};

struct decoder_traits {
    enum norm_kind norm_kind; /* NORM_LAYER: with biases */
    float norm_weight_offset;
    enum norm_placement norm_placement;
    enum qk_norm qk_norm;
    bool plain_mlp;            /* down(act(up(x))), no gate */
    bool learned_positions;    /* a table of position embeddings instead of rotations */
    bool scale_embedding;      /* by sqrt(hidden_size), in the dtype of the weights */
    bool partial_rotary;       /* only a part of a head may rotate */
    bool sliding_rope;         /* sliding layers have rope settings of their own */
    bool sliding_without_rope; /* where no layer_types say else, layers without rope slide */
    bool attention_sinks;      /* a logit for each head that takes probability and has no value */
    bool yarn_scales_scores;   /* by the square of what mscale_all_dim gives */
    bool moe;                  /* MLPs may be mixtures of experts */
    bool shared_expert_gate;   /* the shared expert counts as much as a sigmoid says */
};

enum layer_rope { LAYER_ROPE, LAYER_SLIDING_ROPE, LAYER_NO_ROPE };

struct layer_desc {
    bool sliding; /* sees sliding_window positions only */
    enum layer_rope rope;
    bool moe; /* the MLP is a mixture of experts */
};

enum { MAX_EOS_IDS = 16 };

struct decoder_desc {
    char architecture[64]; /* "LlamaForCausalLM" */
    char model_type[64];   /* "llama" */
    struct decoder_traits traits;
    int32_t hidden_size, intermediate_size, num_hidden_layers, vocab_size;
    /* With kv_lora_rank: one kv head, of which a token keeps kv_lora_rank + qk_rope_head_dim. */
    int32_t num_attention_heads, num_key_value_heads, head_dim;
    /* Multi-head latent attention: keys and values are made from one latent of kv_lora_rank per
     * token, queries perhaps from one of q_lora_rank. All 0 without. */
    int32_t kv_lora_rank, q_lora_rank, qk_nope_head_dim, qk_rope_head_dim, v_head_dim;
    float latent_norm_eps;           /* of the norms on latents */
    int32_t max_position_embeddings; /* as config.json has it; see model_max_len */
    enum activation hidden_act;
    float rms_norm_eps; /* of LayerNorms too */
    struct rope_desc rope, sliding_rope;
    bool attention_bias;   /* q, k, v; with latents what makes these */
    bool attention_o_bias; /* o_proj */
    bool mlp_bias;         /* of experts too */
    bool router_bias;
    bool tie_word_embeddings;
    bool parallel_residual;    /* attention and MLP read the same residual */
    float attention_scale;     /* on q k^T */
    float attn_logit_softcap;  /* 0: none */
    float final_logit_softcap; /* 0: none */
    float embedding_scale;     /* these three: 0 stands for 1 */
    float residual_scale;      /* on a block's output */
    float logits_scale;        /* divides the logits */
    int32_t sliding_window;    /* 0: none */
    /* Mixtures of experts; all 0 without. See struct moe. */
    int32_t num_experts, num_experts_per_tok, moe_intermediate_size;
    int32_t shared_expert_intermediate_size; /* of an MLP that all tokens run; 0: none */
    enum moe_scoring moe_scoring;
    enum topk_method topk_method;
    int32_t n_group, topk_group; /* unless greedy: experts are chosen from topk_group of n_group */
    bool norm_topk_prob;
    float routed_scaling_factor; /* 0 stands for 1 */
    /* Not 0: this describes a rank's share of a model, and the sizes above are the share's, but for
     * hidden_size and vocab_size. See tensor_parallel.h. */
    int32_t tensor_parallel_rank, tensor_parallel_size;
    enum dtype checkpoint_dtype; /* torch_dtype / dtype of config.json */
    int32_t bos_token_id;        /* -1: none */
    int32_t num_eos_token_ids;
    int32_t eos_token_ids[MAX_EOS_IDS]; /* config.json and generation_config.json together */
    struct layer_desc layers[LIMIT_NUM_LAYERS];

    /* --- read from config.json on the way to the fields above --- */
    double default_rope_theta, sliding_rope_theta; /* where no rope settings name one; 0: 10000 */
    double partial_rotary_factor;                  /* 0 stands for 1 */
    float query_pre_attn_scalar;                   /* attention_scale is its -1/2 power; 0: unset */
    bool use_sliding_window;
    int32_t first_sliding_layer;     /* those before it see everything */
    int32_t full_attention_interval; /* each n-th layer sees everything; 0: none does for that */
    int32_t no_rope_layer_interval;  /* each n-th layer rotates nothing; 0: all do */
    int32_t num_local_experts;       /* another name of num_experts */
    int32_t decoder_sparse_step;     /* only each n-th layer has experts; 0 stands for 1 */
    int32_t first_k_dense_replace;   /* the layers before it have none */
    int32_t moe_layer_freq;          /* of the others those have that it divides; 0 stands for 1 */
    int32_t n_shared_experts;        /* of moe_intermediate_size, together the shared expert */
    bool rope_interleave;
    int32_t num_nextn_predict_layers; /* tensors of so many layers behind the last are ignored */
};

static inline int32_t decoder_desc_num_ranks(const struct decoder_desc *desc)
{
    return desc->tensor_parallel_size > 0 ? desc->tensor_parallel_size : 1;
}

/* Rows of embedding and head: a rank's share of the vocabulary, filled up. */
static inline int32_t decoder_desc_vocab_rows(const struct decoder_desc *desc)
{
    return (desc->vocab_size - 1) / decoder_desc_num_ranks(desc) + 1;
}

#endif
