/* kv_scales.c - looks for each name a scale may have. */
#include "engine/model/kv_scales.h"

#include <stdio.h>
#include <string.h>

/* Behind model.layers.N.self_attn. */
static const char *const k_names[] = {
    "attn.k_scale", "k_scale", "k_proj.k_scale", "qkv_proj.k_scale", "kv_scale", NULL,
};
static const char *const v_names[] = {
    "attn.v_scale", "v_scale", "v_proj.v_scale", "qkv_proj.v_scale", "kv_scale", NULL,
};

static bool is_one_of(const char *const *names, const char *name)
{
    while (*names && strcmp(*names, name) != 0)
        names++;
    return *names;
}

bool kv_scales_name(const char *tensor, int32_t num_layers)
{
    static const char before[] = "model.layers.", behind[] = ".self_attn.";
    int32_t layer = 0;
    if (strncmp(tensor, before, sizeof before - 1) != 0)
        return false;
    const char *at = tensor + sizeof before - 1, *digits = at;
    for (; *at >= '0' && *at <= '9' && layer < num_layers; at++)
        layer = layer * 10 + (*at - '0');
    return at > digits && layer < num_layers && strncmp(at, behind, sizeof behind - 1) == 0 &&
           (is_one_of(k_names, at + sizeof behind - 1) ||
            is_one_of(v_names, at + sizeof behind - 1));
}

/* The first that is there of `names` in the layer; *out stays where none is. */
static bool find_scale(const struct checkpoint *c, int32_t layer, const char *const *names,
                       float *out, struct status *st)
{
    for (; *names; names++) {
        char name[96];
        snprintf(name, sizeof name, "model.layers.%d.self_attn.%s", layer, *names);
        const struct checkpoint_tensor *t = checkpoint_find(c, name);
        if (t)
            return checkpoint_tensor_scale(t, "the KV cache", out, st);
    }
    return true;
}

bool kv_scales_find(const struct checkpoint *c, int32_t layer, struct kv_scales *out,
                    struct status *st)
{
    *out = (struct kv_scales){ 1, 1 };
    if (!c)
        return true;
    if (!find_scale(c, layer, k_names, &out->k, st))
        return false;
    out->v = out->k;
    return find_scale(c, layer, v_names, &out->v, st);
}
