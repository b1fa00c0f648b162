/* gguf_type.h - the tensor types of GGUF files, as ggml numbers them. */
#ifndef INFERD_ENGINE_MODEL_GGUF_TYPE_H
#define INFERD_ENGINE_MODEL_GGUF_TYPE_H

#include "base/buf.h"
#include "engine/model/checkpoint.h"

struct gguf_type {
    struct checkpoint_type type; /* size_bytes is a block's */
    int32_t block_elements;      /* encoded together, along a row */
};

/* NULL when there is none of that number. A type that no kernel reads has its size all the same. */
const struct gguf_type *gguf_type_find(uint32_t number);
/* The names of those that weights can be read from, separated by commas. */
void gguf_type_list(struct buf *out);

#endif
