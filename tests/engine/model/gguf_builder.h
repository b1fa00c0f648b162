/* gguf_builder.h - writes GGUF files for tests, right ones and wrong ones. Include after cmocka.h.
 */
#ifndef INFERD_TESTS_ENGINE_MODEL_GGUF_BUILDER_H
#define INFERD_TESTS_ENGINE_MODEL_GGUF_BUILDER_H

#include "base/buf.h"
#include "engine/model/gguf.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Pieces of a file; what stands for it all is put together by builder_file. */
struct builder {
    struct buf keys, tensors;
    uint64_t num_keys, num_tensors;
    uint32_t version;
    uint64_t data_bytes; /* zeros behind the head */
};

static inline void put(struct buf *b, const void *data, size_t size)
{
    buf_append(b, data, size);
}

static inline void put_u32(struct buf *b, uint32_t v)
{
    put(b, &v, sizeof v);
}

static inline void put_u64(struct buf *b, uint64_t v)
{
    put(b, &v, sizeof v);
}

static inline void put_text(struct buf *b, const char *text)
{
    put_u64(b, strlen(text));
    put(b, text, strlen(text));
}

static inline void builder_open(struct builder *b)
{
    memset(b, 0, sizeof *b);
    buf_init(&b->keys, 1 << 24);
    buf_init(&b->tensors, 1 << 24);
    b->version = 3;
}

static inline void builder_close(struct builder *b)
{
    buf_free(&b->keys);
    buf_free(&b->tensors);
}

/* A pair's key and type; the value is up to the caller. */
static inline struct buf *key_begin(struct builder *b, const char *key, uint32_t type)
{
    put_text(&b->keys, key);
    put_u32(&b->keys, type);
    b->num_keys++;
    return &b->keys;
}

static inline void key_u32(struct builder *b, const char *key, uint32_t value)
{
    put_u32(key_begin(b, key, GGUF_U32), value);
}

static inline void key_f32(struct builder *b, const char *key, float value)
{
    put(key_begin(b, key, GGUF_F32), &value, sizeof value);
}

static inline void key_bool(struct builder *b, const char *key, uint8_t value)
{
    put(key_begin(b, key, GGUF_BOOL), &value, 1);
}

static inline void key_text(struct builder *b, const char *key, const char *value)
{
    put_text(key_begin(b, key, GGUF_STRING), value);
}

/* So many strings "0", "1", ... */
static inline void key_texts(struct builder *b, const char *key, uint64_t count)
{
    struct buf *at = key_begin(b, key, GGUF_ARRAY);
    put_u32(at, GGUF_STRING);
    put_u64(at, count);
    for (uint64_t i = 0; i < count; i++) {
        char text[24];
        snprintf(text, sizeof text, "%llu", (unsigned long long)i);
        put_text(at, text);
    }
}

/* `dims` in the order of the file, fastest first. */
static inline void add_tensor_full(struct builder *b, const char *name, uint32_t num_dims,
                                   const uint64_t *dims, uint32_t type, uint64_t offset)
{
    put_text(&b->tensors, name);
    put_u32(&b->tensors, num_dims);
    for (uint32_t i = 0; i < num_dims; i++)
        put_u64(&b->tensors, dims[i]);
    put_u32(&b->tensors, type);
    put_u64(&b->tensors, offset);
    b->num_tensors++;
}

static inline void add_tensor(struct builder *b, const char *name, uint64_t cols, uint64_t rows,
                              uint32_t type, uint64_t offset)
{
    uint64_t dims[2] = { cols, rows };
    add_tensor_full(b, name, 2, dims, type, offset);
}

/* The whole file, to be freed. */
static inline unsigned char *builder_file(const struct builder *b, size_t *size)
{
    struct buf file;
    static const char zeros[64];
    buf_init(&file, 1 << 26);
    put(&file, "GGUF", 4);
    put_u32(&file, b->version);
    put_u64(&file, b->num_tensors);
    put_u64(&file, b->num_keys);
    put(&file, buf_str(&b->keys), b->keys.len);
    put(&file, buf_str(&b->tensors), b->tensors.len);
    if (b->data_bytes > 0 && file.len % 32 != 0)
        put(&file, zeros, 32 - file.len % 32);
    for (uint64_t left = b->data_bytes; left > 0;) {
        size_t n = left < sizeof zeros ? (size_t)left : sizeof zeros;
        put(&file, zeros, n);
        left -= n;
    }
    assert_false(file.overflow);
    *size = file.len;
    return (unsigned char *)buf_take(&file);
}

/* Reads it as a single file "x.gguf" into a new struct gguf; the bytes must live as long. */
static inline struct gguf *read_memory(const void *data, size_t size, struct status *st)
{
    struct gguf *g = calloc(1, sizeof *g);
    status_clear(st);
    g->checkpoint = checkpoint_new();
    const struct checkpoint_file *file = checkpoint_use_memory(g->checkpoint, "x.gguf", data, size);
    if (gguf_read_file(g->checkpoint, file, &g->metadata, st) && checkpoint_seal(g->checkpoint, st))
        return g;
    gguf_close(g);
    return NULL;
}

#endif
