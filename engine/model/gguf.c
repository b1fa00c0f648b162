/* gguf.c - headers checked to the last byte before any tensor is believed. */
#include "engine/model/gguf.h"
#include "base/alloc.h"
#include "config/limits.h"
#include "engine/model/gguf_type.h"
#include "engine/model/json_file.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    DEFAULT_ALIGNMENT = 32,
    MIN_VERSION = 2,
    MAX_VERSION = 3,
    MIN_TENSOR_BYTES = 8 + 4 + 4 + 8 /* of an entry: a name's length, dimensions, type, offset */
};

static bool cut_off(const char *what, struct status *st)
{
    return status_set(st, STATUS_INVALID, "%s reaches past the end of the file (is it cut off?)",
                      what);
}

/* --- one file -------------------------------------------------------------------------------- */

static bool read_version(struct gguf_cursor *c, struct status *st)
{
    uint32_t version = 0;
    if (c->end - c->at < 4 || memcmp(c->at, "GGUF", 4) != 0)
        return status_set(st, STATUS_INVALID, "it does not begin with \"GGUF\"");
    c->at += 4;
    if (!gguf_cursor_u32(c, &version))
        return cut_off("the version", st);
    if (version >= MIN_VERSION && version <= MAX_VERSION)
        return true;
    if ((version & 0xffff) == 0)
        return status_set(st, STATUS_UNSUPPORTED,
                          "a big-endian GGUF; only little-endian ones are supported");
    return status_set(st, STATUS_UNSUPPORTED, "GGUF version %u; %d and %d are supported", version,
                      MIN_VERSION, MAX_VERSION);
}

static bool read_alignment(const struct gguf_metadata *m, uint64_t *out, struct status *st)
{
    int64_t alignment = DEFAULT_ALIGNMENT;
    if (!gguf_get_int(m, "general.alignment", 1, LIMIT_GGUF_ALIGNMENT, &alignment, st))
        return false;
    *out = (uint64_t)alignment;
    return (alignment & (alignment - 1)) == 0 ||
           status_set(st, STATUS_INVALID, "general.alignment is %lld, which is no power of two",
                      (long long)alignment);
}

/* The sizes, slowest first, and the bytes that they come to. */
static bool read_shape(struct gguf_cursor *c, struct checkpoint_tensor *t, uint64_t *elements,
                       struct status *st)
{
    uint32_t num_dims;
    if (!gguf_cursor_u32(c, &num_dims))
        return cut_off("its entry", st);
    if (num_dims > GGUF_MAX_DIMS)
        return status_set(st, STATUS_INVALID, "it has %u dimensions, at most %d are possible",
                          num_dims, GGUF_MAX_DIMS);
    t->num_dims = (int32_t)num_dims;
    *elements = 1;
    for (int32_t i = t->num_dims - 1; i >= 0; i--) {
        uint64_t size;
        if (!gguf_cursor_u64(c, &size))
            return cut_off("its entry", st);
        if (size == 0 || size > INT64_MAX || __builtin_mul_overflow(*elements, size, elements))
            return status_set(st, STATUS_INVALID,
                              "a dimension of it is %llu, which is zero or too large",
                              (unsigned long long)size);
        t->shape[i] = (int64_t)size;
    }
    return true;
}

static bool count_bytes(struct checkpoint_tensor *t, uint64_t elements, uint64_t block,
                        struct status *st)
{
    uint64_t bytes;
    int64_t row = t->num_dims > 0 ? t->shape[t->num_dims - 1] : 1;
    if ((uint64_t)row % block != 0)
        return status_set(st, STATUS_INVALID,
                          "its rows of %lld elements are no whole blocks of %s, which hold %llu",
                          (long long)row, t->type->name, (unsigned long long)block);
    if (__builtin_mul_overflow(elements / block, (uint64_t)t->type->size_bytes, &bytes) ||
        bytes > SIZE_MAX)
        return status_set(st, STATUS_INVALID, "shape %s does not fit 64 bits",
                          shape_show(t->shape, t->num_dims).text);
    t->size_bytes = (size_t)bytes;
    return true;
}

/* *offset is from where the tensors' bytes begin, which is not known yet. */
static bool read_tensor(struct gguf_cursor *c, struct checkpoint_tensor *t, uint64_t *offset,
                        struct status *st)
{
    uint64_t elements = 0;
    uint32_t type;
    if (!read_shape(c, t, &elements, st))
        return false;
    if (!gguf_cursor_u32(c, &type) || !gguf_cursor_u64(c, offset))
        return cut_off("its entry", st);
    const struct gguf_type *found = gguf_type_find(type);
    if (!found)
        return status_set(st, STATUS_UNSUPPORTED, "unknown tensor type %u", type);
    t->type = &found->type;
    return count_bytes(t, elements, (uint64_t)found->block_elements, st);
}

static bool read_name(struct gguf_cursor *c, struct arena *names, const char **out,
                      struct status *st)
{
    const char *text;
    size_t len;
    if (!gguf_cursor_string(c, &text, &len))
        return cut_off("a tensor's name", st);
    *out = len <= LIMIT_TENSOR_NAME_BYTES && !memchr(text, '\0', len)
               ? arena_strndup(names, text, len)
               : "";
    return json_name_is_plain(*out, LIMIT_TENSOR_NAME_BYTES) ||
           status_set(st, STATUS_INVALID,
                      "a tensor's name is empty, longer than %d bytes or not printable",
                      LIMIT_TENSOR_NAME_BYTES);
}

static bool read_tensors(struct checkpoint *c, const char *file, struct gguf_cursor *cursor,
                         uint64_t count, uint64_t *offsets, struct status *st)
{
    for (uint64_t i = 0; i < count; i++) {
        const char *name = NULL;
        if (!read_name(cursor, &c->names, &name, st))
            return false;
        struct checkpoint_tensor *t = checkpoint_add(c);
        t->name = name;
        t->file = file;
        if (!read_tensor(cursor, t, &offsets[i], st))
            return status_prefix(st, "tensor '%s': ", name);
    }
    return true;
}

static bool check_overlap(const struct checkpoint *c, size_t first, struct status *st)
{
    const size_t count = c->num_tensors - first;
    const struct checkpoint_tensor **sorted = checkpoint_by_place(c, first);
    bool ok = true;
    for (size_t i = 1; i < count && ok; i++)
        if (sorted[i]->data < sorted[i - 1]->data + sorted[i - 1]->size_bytes)
            ok = status_set(st, STATUS_INVALID, "tensor '%s' overlaps '%s'", sorted[i]->name,
                            sorted[i - 1]->name);
    free(sorted);
    return ok;
}

/* Gives the tensors from `first` on their places, now that the head is read. */
static bool place_tensors(struct checkpoint *c, size_t first, const struct checkpoint_file *file,
                          const struct gguf_cursor *head, uint64_t alignment,
                          const uint64_t *offsets, struct status *st)
{
    uint64_t begin = (uint64_t)(head->at - file->data);
    begin = (begin + alignment - 1) / alignment * alignment; /* of bytes that are mapped: no wrap */
    uint64_t data_bytes = begin < file->size_bytes ? file->size_bytes - begin : 0;
    const unsigned char *data = file->data + (data_bytes > 0 ? begin : file->size_bytes);
    for (size_t i = first; i < c->num_tensors; i++) {
        struct checkpoint_tensor *t = &c->tensors[i];
        uint64_t offset = offsets[i - first];
        if (offset % alignment != 0)
            return status_set(st, STATUS_INVALID,
                              "tensor '%s': offset %llu is no multiple of the alignment %llu",
                              t->name, (unsigned long long)offset, (unsigned long long)alignment);
        if (offset > data_bytes || t->size_bytes > data_bytes - offset)
            return status_set(st, STATUS_INVALID,
                              "tensor '%s': %zu bytes at %llu lie outside the file, which holds "
                              "%llu bytes of data (is it cut off?)",
                              t->name, t->size_bytes, (unsigned long long)offset,
                              (unsigned long long)data_bytes);
        t->data = data + offset;
    }
    return check_overlap(c, first, st);
}

static bool read_head(struct checkpoint *c, const struct checkpoint_file *file,
                      struct gguf_metadata *m, struct status *st)
{
    struct gguf_cursor head = { file->data, file->data + file->size_bytes };
    uint64_t num_tensors, num_keys, alignment;
    size_t first = c->num_tensors;
    if (!read_version(&head, st))
        return false;
    if (!gguf_cursor_u64(&head, &num_tensors) || !gguf_cursor_u64(&head, &num_keys))
        return cut_off("the head", st);
    if (num_tensors > LIMIT_GGUF_TENSORS)
        return status_set(st, STATUS_INVALID, "%llu tensors are claimed, at most %d are read",
                          (unsigned long long)num_tensors, LIMIT_GGUF_TENSORS);
    if (!gguf_metadata_read(m, &head, num_keys, &c->names, st))
        return false;
    if (num_tensors > (uint64_t)(head.end - head.at) / MIN_TENSOR_BYTES) {
        gguf_metadata_free(m);
        return cut_off("a tensor's name", st);
    }
    uint64_t *offsets = xcalloc((size_t)num_tensors + 1, sizeof *offsets);
    const char *name = arena_strdup(&c->names, file->name);
    bool ok = read_alignment(m, &alignment, st) &&
              read_tensors(c, name, &head, num_tensors, offsets, st) &&
              place_tensors(c, first, file, &head, alignment, offsets, st);
    free(offsets);
    if (!ok)
        gguf_metadata_free(m);
    return ok;
}

bool gguf_read_file(struct checkpoint *c, const struct checkpoint_file *file,
                    struct gguf_metadata *m, struct status *st)
{
    *m = (struct gguf_metadata){ .file = arena_strdup(&c->names, file->name) };
    return read_head(c, file, m, st) || status_prefix(st, "%s: ", m->file);
}

/* --- splits ---------------------------------------------------------------------------------- */

/* "NAME-00001-of-00003.gguf" is made of NAME and two numbers. */
#define SPLIT_SUFFIX "-%05d-of-%05d.gguf"
enum { SPLIT_SUFFIX_BYTES = sizeof "-00001-of-00003.gguf" - 1 };

/* Reads split.no and split.count; a file without them is one of one. */
static bool read_split(const struct gguf_metadata *m, int64_t *no, int64_t *count,
                       struct status *st)
{
    *no = 0;
    *count = 1;
    return gguf_get_int(m, "split.count", 0, LIMIT_CHECKPOINT_FILES, count, st) &&
           gguf_get_int(m, "split.no", 0, LIMIT_CHECKPOINT_FILES - 1, no, st);
}

static bool split_name(const char *first, int32_t no, int32_t count, char *out, size_t size,
                       struct status *st)
{
    char expected[SPLIT_SUFFIX_BYTES + 16];
    size_t len = strlen(first);
    snprintf(expected, sizeof expected, SPLIT_SUFFIX, 1, count);
    size_t suffix = strlen(expected);
    if (len <= suffix || strcmp(first + len - suffix, expected) != 0)
        return status_set(st, STATUS_INVALID,
                          "%s: the first of %d files must be named NAME%s; the others are found by "
                          "that name",
                          first, count, expected);
    int n = snprintf(out, size, "%.*s" SPLIT_SUFFIX, (int)(len - suffix), first, no + 1, count);
    return (n > 0 && (size_t)n < size) ||
           status_set(st, STATUS_INVALID, "%s: the name is too long", first);
}

static bool read_other_split(struct checkpoint *c, const char *dir, const char *name, int32_t no,
                             int32_t count, struct status *st)
{
    const struct checkpoint_file *file;
    struct gguf_metadata m;
    int64_t has_no, has_count;
    if (!checkpoint_map(c, dir, name, &file, st))
        return status_prefix(st, "file %d of %d of the model: ", no + 1, count);
    if (!gguf_read_file(c, file, &m, st))
        return false;
    bool ok = read_split(&m, &has_no, &has_count, st);
    if (ok && (has_no != no || has_count != count))
        ok = status_set(st, STATUS_INVALID,
                        "%s: split.no %lld of split.count %lld, expected %d of %d", name,
                        (long long)has_no, (long long)has_count, no, count);
    gguf_metadata_free(&m);
    return ok;
}

static bool check_tensor_count(const struct gguf *g, struct status *st)
{
    int64_t expected = (int64_t)g->checkpoint->num_tensors;
    if (!gguf_get_int(&g->metadata, "split.tensors.count", 0, INT64_MAX, &expected, st))
        return false;
    return expected == (int64_t)g->checkpoint->num_tensors ||
           status_set(st, STATUS_INVALID,
                      "%s: split.tensors.count is %lld, but the files hold %zu tensors",
                      g->metadata.file, (long long)expected, g->checkpoint->num_tensors);
}

static bool read_splits(struct gguf *g, const char *dir, const char *first, struct status *st)
{
    char name[NAME_MAX + 1];
    int64_t no, count;
    if (!read_split(&g->metadata, &no, &count, st))
        return false;
    if (no != 0)
        return status_set(st, STATUS_INVALID,
                          "%s: this is file %lld of %lld of a split model; give the first one",
                          first, (long long)no + 1, (long long)count);
    for (int32_t i = 1; i < count; i++)
        if (!split_name(first, i, (int32_t)count, name, sizeof name, st) ||
            !read_other_split(g->checkpoint, dir, name, i, (int32_t)count, st))
            return false;
    return check_tensor_count(g, st);
}

bool gguf_open(const char *path, struct gguf **out, struct status *st)
{
    char dir[PATH_MAX];
    const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
    const struct checkpoint_file *file;
    int n =
        snprintf(dir, sizeof dir, "%.*s", slash ? (int)(slash - path) + 1 : 1, slash ? path : ".");
    if (n < 0 || (size_t)n >= sizeof dir)
        return status_set(st, STATUS_INVALID, "%s: the model's path is too long", name);
    struct gguf *g = xcalloc(1, sizeof *g);
    g->checkpoint = checkpoint_new();
    bool ok = checkpoint_map(g->checkpoint, dir, name, &file, st) &&
              gguf_read_file(g->checkpoint, file, &g->metadata, st) &&
              read_splits(g, dir, name, st) && checkpoint_seal(g->checkpoint, st);
    if (!ok) {
        gguf_close(g);
        return false;
    }
    *out = g;
    return true;
}

void gguf_close(struct gguf *g)
{
    if (!g)
        return;
    gguf_metadata_free(&g->metadata);
    checkpoint_close(g->checkpoint);
    free(g);
}
