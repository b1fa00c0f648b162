/* safetensors.c - headers checked to the last byte before any tensor is believed. */
#include "engine/model/safetensors.h"
#include "base/alloc.h"
#include "config/limits.h"
#include "engine/model/json_file.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SINGLE_FILE "model.safetensors"
#define INDEX_FILE  "model.safetensors.index.json"

static const struct checkpoint_type types[] = {
    { "F32", 4, true, DTYPE_F32, NULL },      { "BF16", 2, true, DTYPE_BF16, NULL },
    { "F16", 2, true, DTYPE_F16, NULL },      { "F64", 8, false, DTYPE_F32, NULL },
    { "I64", 8, false, DTYPE_F32, NULL },     { "I32", 4, false, DTYPE_F32, NULL },
    { "I16", 2, false, DTYPE_F32, NULL },     { "I8", 1, false, DTYPE_F32, NULL },
    { "U64", 8, false, DTYPE_F32, NULL },     { "U32", 4, false, DTYPE_F32, NULL },
    { "U16", 2, false, DTYPE_F32, NULL },     { "U8", 1, false, DTYPE_F32, NULL },
    { "BOOL", 1, false, DTYPE_F32, NULL },    { "F8_E4M3", 1, false, DTYPE_F32, NULL },
    { "F8_E5M2", 1, false, DTYPE_F32, NULL }, { "F8_E8M0", 1, false, DTYPE_F32, NULL }
};

static const struct checkpoint_type *type_find(const json_t *name)
{
    for (size_t i = 0; json_is_string(name) && i < sizeof types / sizeof types[0]; i++)
        if (strcmp(json_string_value(name), types[i].name) == 0)
            return &types[i];
    return NULL;
}

/* --- one tensor ------------------------------------------------------------------------------ */

/* Its shape, and the bytes a tensor of that shape takes. */
static bool read_shape(const json_t *shape, struct checkpoint_tensor *t, uint64_t *bytes,
                       struct status *st)
{
    if (!json_is_array(shape) || json_array_size(shape) > CHECKPOINT_MAX_DIMS)
        return status_set(st, STATUS_INVALID, "shape %s is not a list of at most %d numbers",
                          json_show(shape).text, CHECKPOINT_MAX_DIMS);
    t->num_dims = (int32_t)json_array_size(shape);
    bool empty = false;
    for (int32_t i = 0; i < t->num_dims; i++) {
        const json_t *dim = json_array_get(shape, (size_t)i);
        if (!json_is_integer(dim) || json_integer_value(dim) < 0)
            return status_set(st, STATUS_INVALID, "shape %s holds something else than a size",
                              json_show(shape).text);
        t->shape[i] = json_integer_value(dim);
        empty = empty || t->shape[i] == 0;
    }
    /* With a zero among them the product is zero, however large the others. */
    *bytes = empty ? 0 : (uint64_t)t->type->size_bytes;
    for (int32_t i = 0; i < t->num_dims && !empty; i++)
        if (__builtin_mul_overflow(*bytes, (uint64_t)t->shape[i], bytes))
            return status_set(st, STATUS_INVALID, "shape %s does not fit 64 bits",
                              json_show(shape).text);
    return true;
}

static bool read_offsets(const json_t *offsets, size_t data_bytes, uint64_t *begin, uint64_t *end,
                         struct status *st)
{
    const json_t *first = json_array_get(offsets, 0), *second = json_array_get(offsets, 1);
    if (json_array_size(offsets) != 2 || !json_is_integer(first) || !json_is_integer(second) ||
        json_integer_value(first) < 0 || json_integer_value(second) < json_integer_value(first))
        return status_set(st, STATUS_INVALID, "data_offsets %s are not a begin and an end",
                          json_show(offsets).text);
    *begin = (uint64_t)json_integer_value(first);
    *end = (uint64_t)json_integer_value(second);
    if (*end > data_bytes)
        return status_set(st, STATUS_INVALID,
                          "data_offsets %s lie outside the file, which holds %zu bytes of data "
                          "(is it cut off?)",
                          json_show(offsets).text, data_bytes);
    return true;
}

static bool read_tensor(struct checkpoint_tensor *t, const json_t *entry, const unsigned char *data,
                        size_t data_bytes, struct status *st)
{
    uint64_t bytes = 0, begin = 0, end = 0;
    if (!json_is_object(entry))
        return status_set(st, STATUS_INVALID, "its entry is not an object");
    const json_t *dtype = json_object_get(entry, "dtype");
    const json_t *shape = json_object_get(entry, "shape");
    const json_t *offsets = json_object_get(entry, "data_offsets");
    if (!dtype || !shape || !offsets || json_object_size(entry) != 3)
        return status_set(st, STATUS_INVALID,
                          "its entry must have dtype, shape and data_offsets, and nothing else");
    t->type = type_find(dtype);
    if (!t->type)
        return status_set(st, STATUS_INVALID, "unknown dtype %s", json_show(dtype).text);
    if (!read_shape(shape, t, &bytes, st) || !read_offsets(offsets, data_bytes, &begin, &end, st))
        return false;
    if (end - begin != bytes)
        return status_set(st, STATUS_INVALID,
                          "%s of shape %s takes %llu bytes, but data_offsets span %llu",
                          t->type->name, shape_show(t->shape, t->num_dims).text,
                          (unsigned long long)bytes, (unsigned long long)(end - begin));
    t->data = data + begin;
    t->size_bytes = (size_t)bytes;
    return true;
}

/* --- one file -------------------------------------------------------------------------------- */

/* Every byte from `data` to `end` belongs to exactly one tensor, of those from `first` on. */
static bool check_layout(const struct checkpoint *c, size_t first, const unsigned char *data,
                         const unsigned char *end, struct status *st)
{
    const size_t count = c->num_tensors - first;
    const struct checkpoint_tensor **sorted = checkpoint_by_place(c, first);
    bool ok = true;
    const unsigned char *at = data;
    for (size_t i = 0; i < count && ok; i++) {
        const struct checkpoint_tensor *t = sorted[i];
        if (t->data < at)
            ok = status_set(st, STATUS_INVALID, "tensor '%s' overlaps '%s'", t->name,
                            sorted[i - 1]->name);
        else if (t->data > at)
            ok = status_set(st, STATUS_INVALID, "%zu bytes before tensor '%s' belong to no tensor",
                            (size_t)(t->data - at), t->name);
        at = t->data + t->size_bytes;
    }
    if (ok && at != end)
        ok = status_set(st, STATUS_INVALID, "the last %zu bytes belong to no tensor",
                        (size_t)(end - at));
    free(sorted);
    return ok;
}

static bool check_metadata(json_t *metadata, struct status *st)
{
    const char *key;
    json_t *value;
    if (!json_is_object(metadata))
        return status_set(st, STATUS_INVALID, "__metadata__ is not an object");
    json_object_foreach(metadata, key, value)
    {
        if (!json_is_string(value))
            return status_set(st, STATUS_INVALID, "__metadata__ holds something else than text");
    }
    return true;
}

static bool read_tensors(struct checkpoint *c, const struct checkpoint_file *file, json_t *header,
                         const unsigned char *data, size_t data_bytes, struct status *st)
{
    const char *name;
    json_t *entry;
    size_t first = c->num_tensors;
    const char *file_name = file->name;
    json_object_foreach(header, name, entry)
    {
        if (strcmp(name, "__metadata__") == 0) {
            if (!check_metadata(entry, st))
                return false;
            continue;
        }
        if (!json_name_is_plain(name, LIMIT_TENSOR_NAME_BYTES))
            return status_set(st, STATUS_INVALID,
                              "a tensor's name is empty, longer than %d bytes or not printable",
                              LIMIT_TENSOR_NAME_BYTES);
        struct checkpoint_tensor *t = checkpoint_add(c);
        t->name = arena_strdup(&c->names, name);
        t->file = file_name;
        if (!read_tensor(t, entry, data, data_bytes, st))
            return status_prefix(st, "tensor '%s': ", name);
    }
    return check_layout(c, first, data, data + data_bytes, st);
}

bool safetensors_read_header(struct checkpoint *c, const struct checkpoint_file *file,
                             struct status *st)
{
    uint64_t header_bytes = 0;
    if (file->size_bytes < 8)
        return status_set(st, STATUS_INVALID, "%s: %zu bytes are too few for a safetensors file",
                          file->name, file->size_bytes);
    for (int i = 0; i < 8; i++)
        header_bytes |= (uint64_t)file->data[i] << (8 * i);
    if (header_bytes > LIMIT_SAFETENSORS_HEADER_BYTES)
        return status_set(st, STATUS_INVALID,
                          "%s: a header of %llu bytes is claimed, at most %d are read; not a "
                          "safetensors file?",
                          file->name, (unsigned long long)header_bytes,
                          LIMIT_SAFETENSORS_HEADER_BYTES);
    if (header_bytes > file->size_bytes - 8)
        return status_set(st, STATUS_INVALID,
                          "%s: the header of %llu bytes reaches past the end of the file",
                          file->name, (unsigned long long)header_bytes);
    const char *text = (const char *)file->data + 8;
    if (header_bytes == 0 || text[0] != '{')
        return status_set(st, STATUS_INVALID, "%s: the header does not begin with '{'", file->name);
    json_t *header = json_text_parse(text, (size_t)header_bytes, file->name, st);
    if (!header)
        return false;
    bool ok = read_tensors(c, file, header, file->data + 8 + header_bytes,
                           file->size_bytes - 8 - (size_t)header_bytes, st);
    json_decref(header);
    return ok || status_prefix(st, "%s: ", file->name);
}

/* --- the checkpoint -------------------------------------------------------------------------- */

static bool open_file(struct checkpoint *c, const char *dir, const char *name, struct status *st)
{
    const struct checkpoint_file *file;
    return checkpoint_map(c, dir, name, &file, st) && safetensors_read_header(c, file, st);
}

/* A shard's name comes from a file and becomes a path: it must stay inside the directory. */
static bool check_shard_name(const char *tensor, const json_t *value, struct status *st)
{
    const char *name = json_string_value(value);
    if (!name || !json_name_is_plain(name, 255) || strchr(name, '/') || name[0] == '.')
        return status_set(st, STATUS_INVALID,
                          INDEX_FILE ": tensor '%.128s' is said to be in %s, which is not the name "
                                     "of a file beside the index",
                          tensor, json_show(value).text);
    return true;
}

/* The index and the shards must tell the same: no tensor is missing from its shard, and none is in
 * a shard that the index does not put it in. Equal counts complete the proof. */
static bool check_index(const struct checkpoint *c, json_t *weight_map, struct status *st)
{
    const char *name;
    json_t *shard;
    json_object_foreach(weight_map, name, shard)
    {
        const struct checkpoint_tensor *t = checkpoint_find(c, name);
        if (!t || strcmp(t->file, json_string_value(shard)) != 0)
            return status_set(st, STATUS_INVALID, INDEX_FILE ": tensor '%s' is not in %s", name,
                              json_string_value(shard));
    }
    for (size_t i = 0; i < c->num_tensors; i++)
        if (!json_object_get(weight_map, c->tensors[i].name))
            return status_set(st, STATUS_INVALID, "%s: tensor '%s' is not in " INDEX_FILE,
                              c->tensors[i].file, c->tensors[i].name);
    return true;
}

static bool open_shards(struct checkpoint *c, const char *dir, json_t *weight_map,
                        struct status *st)
{
    const char *name;
    json_t *shard;
    json_t *opened = json_object(); /* a set of the names opened so far */
    bool ok = true;
    json_object_foreach(weight_map, name, shard)
    {
        ok = json_name_is_plain(name, LIMIT_TENSOR_NAME_BYTES) ||
             status_set(st, STATUS_INVALID, INDEX_FILE ": a tensor's name is not printable");
        ok = ok && check_shard_name(name, shard, st);
        if (!ok)
            break;
        if (json_object_get(opened, json_string_value(shard)))
            continue;
        json_object_set_new(opened, json_string_value(shard), json_true());
        ok = open_file(c, dir, json_string_value(shard), st);
        if (!ok && st->code == STATUS_NOT_FOUND)
            status_prefix(st, "a shard named by " INDEX_FILE " is missing: ");
        if (!ok)
            break;
    }
    json_decref(opened);
    return ok && checkpoint_seal(c, st) && check_index(c, weight_map, st);
}

static bool open_sharded(struct checkpoint *c, const char *dir, struct status *st)
{
    json_t *index = json_file_read(dir, INDEX_FILE, LIMIT_SAFETENSORS_HEADER_BYTES, st);
    if (!index) {
        if (st->code == STATUS_NOT_FOUND)
            status_set(st, STATUS_NOT_FOUND,
                       "neither " SINGLE_FILE " nor " INDEX_FILE " is in '%.300s'; other weight "
                       "formats must be converted to safetensors first",
                       dir);
        return false;
    }
    json_t *weight_map = json_object_get(index, "weight_map");
    bool ok = json_is_object(weight_map) && json_object_size(weight_map) > 0;
    if (!ok)
        status_set(st, STATUS_INVALID, INDEX_FILE ": there is no weight_map");
    ok = ok && open_shards(c, dir, weight_map, st);
    json_decref(index);
    return ok;
}

bool safetensors_open(const char *dir, struct checkpoint **out, struct status *st)
{
    struct checkpoint *c = checkpoint_new();
    bool ok = open_file(c, dir, SINGLE_FILE, st);
    if (ok)
        ok = checkpoint_seal(c, st);
    else if (st->code == STATUS_NOT_FOUND)
        ok = open_sharded(c, dir, st);
    if (!ok) {
        checkpoint_close(c);
        return false;
    }
    *out = c;
    return true;
}
