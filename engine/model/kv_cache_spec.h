/* kv_cache_spec.h - what one token leaves in the KV cache, and so what a block of it costs.
 *
 * Derived from the description and the cache's dtype; a plain value, owned by nobody. */
#ifndef INFERD_ENGINE_MODEL_KV_CACHE_SPEC_H
#define INFERD_ENGINE_MODEL_KV_CACHE_SPEC_H

#include "engine/model/decoder_desc.h"

/* Per layer and kv head a token has k_head_dim elements of K and v_head_dim of V. A layer that
 * keeps one compressed vector per token has one kv head, that vector for K, and a v_head_dim of 0.
 */
struct kv_cache_spec {
    int32_t num_layers, num_kv_heads;
    int32_t k_head_dim, v_head_dim;
    enum dtype dtype;
};

struct kv_cache_spec kv_cache_spec_make(const struct decoder_desc *desc, enum dtype dtype);
/* Of all layers, K and V together. */
size_t kv_cache_bytes_per_token(const struct kv_cache_spec *s);
/* Bytes of K, and of V, that one block of one layer takes: the distance between blocks in a
 * kv_layer. */
size_t kv_cache_k_block_bytes(const struct kv_cache_spec *s, int32_t block_size);
size_t kv_cache_v_block_bytes(const struct kv_cache_spec *s, int32_t block_size);
/* Of one block id: all layers, K and V together. */
size_t kv_cache_block_bytes(const struct kv_cache_spec *s, int32_t block_size);

#endif
