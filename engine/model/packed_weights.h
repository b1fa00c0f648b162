/* packed_weights.h - which image in the cache of packed weights belongs to a model on a device. */
#ifndef INFERD_ENGINE_MODEL_PACKED_WEIGHTS_H
#define INFERD_ENGINE_MODEL_PACKED_WEIGHTS_H

#include "base/buf.h"
#include "engine/model/model.h"
#include "engine/model/packed_cache.h"

/* `layout` describes, as text, where in the arena each weight lies and by which kernel it was
 * packed; `rank` is the one whose share it is. What enters the content's id: the layout, this
 * build, config.json, and of each file of the checkpoint its name, size, time of change and a
 * sample of its bytes: the head, which holds the tensors' headers, the end, and pages spread over
 * the rest. Whole files are not hashed, which would take longer than packing them. */
struct packed_cache_id packed_weights_id(const struct model *m, const struct device *d,
                                         int32_t rank, const struct buf *layout,
                                         size_t arena_bytes);

#endif
