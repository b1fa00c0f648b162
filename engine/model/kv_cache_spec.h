/* kv_cache_spec.h - what one token leaves in the KV cache, which layers keep the same positions,
 * and so what a block of it costs.
 *
 * Layers of one kind (that see everything, or slide) form groups of group_size layers; the last
 * group of a kind may have fewer. The layers of a group share their block tables, and layers at the
 * same place of different groups share memory, block by block: a block id names group_size layers'
 * worth of it, in whichever group it is used.
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
    int32_t num_groups, group_size;
    int32_t sliding_window[LIMIT_KV_CACHE_GROUPS]; /* of each group; 0: keeps everything */
    int16_t group[LIMIT_NUM_LAYERS], place[LIMIT_NUM_LAYERS]; /* of each layer */
};

/* A dtype that a cache can have: those of dtype_parse that are floats, fp8 (or fp8_e4m3), int8. */
bool kv_cache_dtype_parse(const char *name, enum dtype *out);
/* All layers in one group that keeps everything. */
struct kv_cache_spec kv_cache_spec_make(const struct decoder_desc *desc, enum dtype dtype);
/* Puts the layers into groups, of the size with which a sequence of max_model_len tokens takes the
 * fewest bytes; of equal sizes the largest. One group that keeps everything stays where that is no
 * more. */
void kv_cache_spec_group(struct kv_cache_spec *s, const struct decoder_desc *desc,
                         int32_t max_model_len, int32_t block_size);
/* Of all layers, K and V together. */
size_t kv_cache_bytes_per_token(const struct kv_cache_spec *s);
/* Bytes of K, and of V, that one block of one layer takes: the distance between blocks in a
 * kv_layer. */
size_t kv_cache_k_block_bytes(const struct kv_cache_spec *s, int32_t block_size);
size_t kv_cache_v_block_bytes(const struct kv_cache_spec *s, int32_t block_size);
/* Of one block id: group_size layers, K and V together. */
size_t kv_cache_block_bytes(const struct kv_cache_spec *s, int32_t block_size);

#endif
