/* kv_cache_spec.c - the KV cache's arithmetic. The limits of decoder_desc keep it within 64 bits.
 */
#include "engine/model/kv_cache_spec.h"

struct kv_cache_spec kv_cache_spec_make(const struct decoder_desc *desc, enum dtype dtype)
{
    return (struct kv_cache_spec){ .num_layers = desc->num_hidden_layers,
                                   .num_kv_heads = desc->num_key_value_heads,
                                   .k_head_dim = desc->head_dim,
                                   .v_head_dim = desc->head_dim,
                                   .dtype = dtype };
}

static size_t block_bytes(const struct kv_cache_spec *s, int32_t block_size, int32_t head_dim)
{
    return (size_t)block_size * (size_t)s->num_kv_heads * (size_t)head_dim * dtype_size(s->dtype);
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
    return (size_t)s->num_layers *
           (kv_cache_k_block_bytes(s, block_size) + kv_cache_v_block_bytes(s, block_size));
}

size_t kv_cache_bytes_per_token(const struct kv_cache_spec *s)
{
    return kv_cache_block_bytes(s, 1);
}
