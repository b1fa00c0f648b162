/* checkpoint.c - mapped files and the sorted list of their tensors. */
#include "engine/model/checkpoint.h"
#include "base/alloc.h"
#include "config/limits.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

struct checkpoint *checkpoint_new(void)
{
    struct checkpoint *c = xcalloc(1, sizeof *c);
    arena_init(&c->names);
    return c;
}

void checkpoint_close(struct checkpoint *c)
{
    if (!c)
        return;
    for (int32_t i = 0; i < c->num_files; i++)
        if (c->files[i].mapped)
            munmap((void *)(uintptr_t)c->files[i].data, c->files[i].size_bytes);
    free(c->files);
    free(c->tensors);
    arena_free(&c->names);
    free(c);
}

/* The whole of `fd`, read-only. An empty file cannot be mapped and is no checkpoint either. */
static bool map_fd(int fd, struct checkpoint_file *out, struct status *st)
{
    struct stat info;
    if (fstat(fd, &info) != 0)
        return status_set(st, STATUS_IO, "%s: %s", out->name, strerror(errno));
    if (!S_ISREG(info.st_mode))
        return status_set(st, STATUS_INVALID, "%s: not a regular file", out->name);
    if (info.st_size <= 0)
        return status_set(st, STATUS_INVALID, "%s: the file is empty", out->name);
    if ((uint64_t)info.st_size > SIZE_MAX)
        return status_set(st, STATUS_INVALID, "%s: too large to map", out->name);
    void *data = mmap(NULL, (size_t)info.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (data == MAP_FAILED)
        return status_set(st, STATUS_IO, "%s: cannot map: %s", out->name, strerror(errno));
    out->data = data;
    out->size_bytes = (size_t)info.st_size;
    out->changed_ns = (int64_t)info.st_mtim.tv_sec * 1000000000 + info.st_mtim.tv_nsec;
    out->mapped = true;
    return true;
}

/* Room for one more file. Pointers to earlier files go stale; the tensors hold none. */
static struct checkpoint_file *add_file(struct checkpoint *c, const char *name)
{
    assert(c->num_files < LIMIT_CHECKPOINT_FILES);
    c->files = xrealloc(c->files, ((size_t)c->num_files + 1) * sizeof *c->files);
    struct checkpoint_file *file = &c->files[c->num_files];
    *file = (struct checkpoint_file){ .name = arena_strdup(&c->names, name) };
    return file;
}

bool checkpoint_map(struct checkpoint *c, const char *dir, const char *name,
                    const struct checkpoint_file **out, struct status *st)
{
    char path[PATH_MAX];
    int n = snprintf(path, sizeof path, "%s/%s", dir, name);
    if (n < 0 || (size_t)n >= sizeof path)
        return status_set(st, STATUS_INVALID, "%s: the model's path is too long", name);
    if (c->num_files == LIMIT_CHECKPOINT_FILES)
        return status_set(st, STATUS_INVALID, "%s: more than %d files", name,
                          LIMIT_CHECKPOINT_FILES);
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return status_set(st, errno == ENOENT || errno == ENOTDIR ? STATUS_NOT_FOUND : STATUS_IO,
                          "%s: cannot open: %s", name, strerror(errno));
    struct checkpoint_file *file = add_file(c, name);
    bool ok = map_fd(fd, file, st);
    close(fd); /* the mapping stays */
    if (!ok)
        return false;
    c->num_files++;
    *out = file;
    return true;
}

const struct checkpoint_file *checkpoint_use_memory(struct checkpoint *c, const char *name,
                                                    const void *data, size_t size_bytes)
{
    struct checkpoint_file *file = add_file(c, name);
    file->data = data;
    file->size_bytes = size_bytes;
    c->num_files++;
    return file;
}

struct checkpoint_tensor *checkpoint_add(struct checkpoint *c)
{
    if (c->num_tensors == c->tensor_capacity) {
        c->tensor_capacity = c->tensor_capacity ? 2 * c->tensor_capacity : 64;
        c->tensors = xrealloc(c->tensors, c->tensor_capacity * sizeof *c->tensors);
    }
    struct checkpoint_tensor *t = &c->tensors[c->num_tensors++];
    memset(t, 0, sizeof *t);
    return t;
}

static int by_data(const void *a, const void *b)
{
    const struct checkpoint_tensor *x = *(const struct checkpoint_tensor *const *)a;
    const struct checkpoint_tensor *y = *(const struct checkpoint_tensor *const *)b;
    if (x->data != y->data)
        return x->data < y->data ? -1 : 1;
    return x->size_bytes < y->size_bytes ? -1 : x->size_bytes > y->size_bytes;
}

const struct checkpoint_tensor **checkpoint_by_place(const struct checkpoint *c, size_t first)
{
    const size_t count = c->num_tensors - first;
    const struct checkpoint_tensor **sorted = xmalloc((count + 1) * sizeof *sorted);
    for (size_t i = 0; i < count; i++)
        sorted[i] = &c->tensors[first + i];
    qsort(sorted, count, sizeof *sorted, by_data);
    return sorted;
}

static int by_name(const void *a, const void *b)
{
    const struct checkpoint_tensor *x = a, *y = b;
    return strcmp(x->name, y->name);
}

bool checkpoint_seal(struct checkpoint *c, struct status *st)
{
    if (c->num_tensors > 1)
        qsort(c->tensors, c->num_tensors, sizeof *c->tensors, by_name);
    for (size_t i = 1; i < c->num_tensors; i++) {
        const struct checkpoint_tensor *a = &c->tensors[i - 1], *b = &c->tensors[i];
        if (strcmp(a->name, b->name) == 0)
            return status_set(st, STATUS_INVALID, "tensor '%s' is in %s and again in %s", a->name,
                              a->file, b->file);
    }
    return true;
}

const struct checkpoint_tensor *checkpoint_find(const struct checkpoint *c, const char *name)
{
    struct checkpoint_tensor key = { .name = name };
    if (c->num_tensors == 0)
        return NULL;
    return bsearch(&key, c->tensors, c->num_tensors, sizeof key, by_name);
}

/* madvise wants whole pages. A hint may take in the neighbours' share of the outer pages when it
 * asks for them early, and must not when it gives pages back. */
void checkpoint_will_need(const void *data, size_t size_bytes)
{
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    uintptr_t begin = (uintptr_t)data / page * page;
    uintptr_t end = (uintptr_t)data + size_bytes;
    if (end > begin)
        madvise((void *)begin, end - begin, MADV_WILLNEED);
}

void checkpoint_done_with(const void *data, size_t size_bytes)
{
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    uintptr_t begin = ((uintptr_t)data + page - 1) / page * page;
    uintptr_t end = ((uintptr_t)data + size_bytes) / page * page;
    if (end > begin)
        madvise((void *)begin, end - begin, MADV_DONTNEED);
}

void checkpoint_release_pages(const struct checkpoint *c)
{
    for (int32_t i = 0; i < c->num_files; i++)
        if (c->files[i].mapped)
            checkpoint_done_with(c->files[i].data, c->files[i].size_bytes);
}

struct shape_shown shape_show(const int64_t *shape, int32_t num_dims)
{
    struct shape_shown out = { "[" };
    size_t len = 1;
    for (int32_t i = 0; i < num_dims && len < sizeof out.text; i++)
        len += (size_t)snprintf(out.text + len, sizeof out.text - len, "%s%lld", i ? ", " : "",
                                (long long)shape[i]);
    if (len < sizeof out.text - 1)
        memcpy(out.text + len, "]", 2);
    return out;
}

bool checkpoint_tensor_scale(const struct checkpoint_tensor *t, const char *what, float *out,
                             struct status *st)
{
    bool single = true;
    uint32_t aligned = 0;
    for (int32_t i = 0; i < t->num_dims; i++)
        single &= t->shape[i] == 1;
    if (!single || !t->type->is_float)
        return status_set(st, STATUS_INVALID,
                          "%s: tensor '%s' is %s %s, expected one float: the scale of %s", t->file,
                          t->name, t->type->name, shape_show(t->shape, t->num_dims).text, what);
    memcpy(&aligned, t->data, dtype_size(t->type->dtype));
    dtype_convert(out, DTYPE_F32, &aligned, t->type->dtype, 1);
    if (!isfinite(*out) || *out <= 0)
        return status_set(st, STATUS_INVALID,
                          "%s: tensor '%s', a scale of %s, is %g: it must be positive", t->file,
                          t->name, what, (double)*out);
    return true;
}
