/* packed_weights.c - the identity of an arena of packed weights. */
#include "engine/model/packed_weights.h"

#include "base/build_id.h"
#include "config/limits.h"
#include "engine/model/checkpoint.h"
#include "engine/model/json_file.h"
#include "kernels/backend.h"

#include <stdlib.h>
#include <string.h>

enum {
    HEAD_BYTES = 64 << 10,
    SAMPLE_BYTES = 4096,
    NUM_SAMPLES = 64 /* pages of each file, evenly spread */
};

/* Not a secret: only accidents have to be told apart. */
static const struct hash_key key = { 0x696e66657264, 0x7061636b6564 };

static void append_hash(struct buf *text, const void *data, size_t len)
{
    struct hash128 h = hash_sip128(key, data, len);
    buf_printf(text, "%016llx%016llx\n", (unsigned long long)h.high, (unsigned long long)h.low);
}

static void append_file(struct buf *text, const struct checkpoint_file *file)
{
    size_t head = file->size_bytes < HEAD_BYTES ? file->size_bytes : HEAD_BYTES;
    size_t sample = head < SAMPLE_BYTES ? head : SAMPLE_BYTES;
    buf_printf(text, "%s %zu %lld\n", file->name, file->size_bytes, (long long)file->changed_ns);
    append_hash(text, file->data, head);
    append_hash(text, file->data + file->size_bytes - sample, sample);
    for (size_t i = 1; i < NUM_SAMPLES && file->size_bytes > HEAD_BYTES; i++) {
        size_t at = (file->size_bytes / NUM_SAMPLES * i) / SAMPLE_BYTES * SAMPLE_BYTES;
        append_hash(text, file->data + at, sample);
    }
}

/* It says how quantized tensors are to be read. A GGUF file has none. */
static void append_config(struct buf *text, const char *dir)
{
    struct status st;
    json_t *config = json_file_read(dir, "config.json", LIMIT_MODEL_CONFIG_BYTES, &st);
    char *dumped = config ? json_dumps(config, JSON_COMPACT | JSON_SORT_KEYS) : NULL;
    if (dumped)
        append_hash(text, dumped, strlen(dumped));
    free(dumped);
    json_decref(config);
}

struct packed_cache_id packed_weights_id(const struct model *m, const struct device *d,
                                         int32_t rank, const struct buf *layout, size_t arena_bytes)
{
    struct packed_cache_id id = { .arena_bytes = arena_bytes };
    struct buf text;
    buf_init(&text, 0);
    char *path = realpath(m->path, NULL);
    buf_printf(&text, "%s\n%s %d\n", path ? path : m->path, d->backend->name, rank);
    free(path);
    id.place = hash_sip128(key, text.data, text.len);
    size_t len;
    const unsigned char *build = build_id(&len);
    if (build)
        append_hash(&text, build, len);
    append_hash(&text, buf_str(layout), layout->len);
    append_config(&text, m->path);
    for (int32_t i = 0; m->checkpoint && i < m->checkpoint->num_files; i++)
        append_file(&text, &m->checkpoint->files[i]);
    if (m->checkpoint)
        checkpoint_release_pages(m->checkpoint); /* what lay around the samples came in too */
    id.content = hash_sip128(key, text.data, text.len);
    buf_free(&text);
    return id;
}
