/* weights_members.c - which member of struct weights is the place of a slot. */
#include "engine/model/weights_load.h"

struct linear *weights_linear(struct weights *w, enum weight_slot slot, int32_t layer,
                              int32_t expert)
{
    switch (slot) {
    case W_EMBEDDING:
        return &w->embedding;
    case W_POSITION_EMBEDDING:
        return &w->positions;
    case W_LM_HEAD:
        return &w->lm_head;
    case W_QKV:
        return &w->layers[layer].qkv;
    case W_Q_A:
        return &w->layers[layer].q_a;
    case W_Q_B:
    case W_Q:
        return &w->layers[layer].q;
    case W_KV_A:
        return &w->layers[layer].kv_a;
    case W_KV_B_K:
        return &w->layers[layer].kv_b_k[expert];
    case W_KV_B_V:
        return &w->layers[layer].kv_b_v[expert];
    case W_O:
        return &w->layers[layer].o;
    case W_GATE_UP:
        return &w->layers[layer].gate_up;
    case W_DOWN:
        return &w->layers[layer].down;
    case W_ROUTER:
        return &w->layers[layer].moe.router;
    case W_EXPERT_GATE_UP:
        return &w->layers[layer].expert_gate_up[expert];
    case W_EXPERT_DOWN:
        return &w->layers[layer].expert_down[expert];
    case W_SHARED_EXPERT_GATE_UP:
        return &w->layers[layer].shared_gate_up;
    case W_SHARED_EXPERT_DOWN:
        return &w->layers[layer].shared_down;
    case W_SHARED_EXPERT_GATE:
        return &w->layers[layer].shared_gate;
    default:
        return NULL;
    }
}

struct norm *weights_norm(struct weights *w, enum weight_slot slot, int32_t layer)
{
    switch (slot) {
    case W_FINAL_NORM:
        return &w->final_norm;
    case W_INPUT_NORM:
        return &w->layers[layer].input_norm;
    case W_Q_A_NORM:
        return &w->layers[layer].q_a_norm;
    case W_KV_A_NORM:
        return &w->layers[layer].kv_a_norm;
    case W_Q_NORM:
        return &w->layers[layer].q_norm;
    case W_K_NORM:
        return &w->layers[layer].k_norm;
    case W_ATTENTION_OUT_NORM:
        return &w->layers[layer].attention_out_norm;
    case W_POST_ATTENTION_NORM:
        return &w->layers[layer].post_attention_norm;
    case W_MLP_OUT_NORM:
        return &w->layers[layer].mlp_out_norm;
    default:
        return NULL;
    }
}

const float **weights_vector(struct weights *w, enum weight_slot slot, int32_t layer)
{
    if (slot == W_SCORE_BIAS)
        return &w->layers[layer].moe.score_bias;
    return slot == W_SINKS ? &w->layers[layer].sinks : NULL;
}
