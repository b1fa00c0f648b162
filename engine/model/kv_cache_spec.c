/* kv_cache_spec.c - the KV cache's arithmetic. The limits of decoder_desc keep it within 64 bits.
 */
#include "engine/model/kv_cache_spec.h"

#include <string.h>

bool kv_cache_dtype_parse(const char *name, enum dtype *out)
{
    enum dtype dtype = DTYPE_I8;
    if (strcmp(name, "fp8") == 0 || strcmp(name, "fp8_e4m3") == 0)
        dtype = DTYPE_F8_E4M3;
    else if (strcmp(name, "int8") != 0 && (!dtype_parse(name, &dtype) || dtype == DTYPE_I32))
        return false;
    *out = dtype;
    return true;
}

struct kv_cache_spec kv_cache_spec_make(const struct decoder_desc *desc, enum dtype dtype)
{
    struct kv_cache_spec s = { .num_layers = desc->num_hidden_layers,
                               .num_kv_heads = desc->num_key_value_heads,
                               .k_head_dim = desc->head_dim,
                               .v_head_dim = desc->kv_lora_rank > 0 ? 0 : desc->head_dim,
                               .dtype = dtype,
                               .num_groups = 1,
                               .group_size = desc->num_hidden_layers };
    for (int32_t i = 0; i < s.num_layers; i++)
        s.place[i] = (int16_t)i;
    return s;
}

static int32_t ceil_div(int32_t a, int32_t b)
{
    return a / b + (a % b != 0);
}

/* Layers that see everything, and those that slide; both in groups of `size`. */
static int32_t choose_group_size(int32_t num_full, int32_t num_sliding, int32_t full_blocks,
                                 int32_t window_blocks)
{
    int32_t chosen = 0;
    int64_t fewest = (int64_t)(num_full + num_sliding) * full_blocks;
    for (int32_t size = num_full > num_sliding ? num_full : num_sliding; size > 0; size--) {
        int32_t full = ceil_div(num_full, size), sliding = ceil_div(num_sliding, size);
        int64_t blocks = ((int64_t)full * full_blocks + (int64_t)sliding * window_blocks) * size;
        if (full + sliding > LIMIT_KV_CACHE_GROUPS || blocks >= fewest)
            continue;
        fewest = blocks;
        chosen = size;
    }
    return chosen;
}

void kv_cache_spec_group(struct kv_cache_spec *s, const struct decoder_desc *desc,
                         int32_t max_model_len, int32_t block_size)
{
    int32_t num_sliding = 0, window = desc->sliding_window;
    for (int32_t i = 0; i < s->num_layers; i++)
        num_sliding += desc->layers[i].sliding;
    if (num_sliding == 0 || window <= 0)
        return;
    /* A window of so many positions touches this many blocks, wherever it begins. */
    int32_t full_blocks = ceil_div(max_model_len, block_size);
    int32_t window_blocks = ceil_div(window - 1, block_size) + 1;
    int32_t size =
        choose_group_size(s->num_layers - num_sliding, num_sliding, full_blocks, window_blocks);
    if (size == 0)
        return;
    int32_t seen[2] = { 0, 0 }, first[2] = { 0, ceil_div(s->num_layers - num_sliding, size) };
    s->group_size = size;
    s->num_groups = first[1] + ceil_div(num_sliding, size);
    for (int32_t g = first[1]; g < s->num_groups; g++)
        s->sliding_window[g] = window;
    for (int32_t i = 0; i < s->num_layers; i++) {
        int32_t kind = desc->layers[i].sliding;
        s->group[i] = (int16_t)(first[kind] + seen[kind] / size);
        s->place[i] = (int16_t)(seen[kind] % size);
        seen[kind]++;
    }
}

static size_t block_bytes(const struct kv_cache_spec *s, int32_t block_size, int32_t head_dim)
{
    return head_dim == 0
               ? 0
               : (size_t)s->num_kv_heads * kv_layer_head_bytes(s->dtype, block_size, head_dim);
}

size_t kv_cache_k_block_bytes(const struct kv_cache_spec *s, int32_t block_size)
{
    return block_bytes(s, block_size, s->k_head_dim);
}

size_t kv_cache_v_block_bytes(const struct kv_cache_spec *s, int32_t block_size)
{
    return block_bytes(s, block_size, s->v_head_dim);
}

size_t kv_cache_block_bytes(const struct kv_cache_spec *s, int32_t block_size)
{
    return (size_t)s->group_size *
           (kv_cache_k_block_bytes(s, block_size) + kv_cache_v_block_bytes(s, block_size));
}

size_t kv_cache_bytes_per_token(const struct kv_cache_spec *s)
{
    return (size_t)s->num_layers * (kv_cache_k_block_bytes(s, 1) + kv_cache_v_block_bytes(s, 1));
}
