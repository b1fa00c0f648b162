/* quant_layout.c - what the layouts share: checks of tensors and groups, and the order of columns.
 */
#include "engine/model/quant/quant_layout.h"
#include "base/alloc.h"
#include "kernels/quant/int_group.h"

#include <stdlib.h>
#include <string.h>

bool quant_check_tensor(const struct quant_source *s, int tensor, const char *dtype,
                        const int64_t *dims, int32_t num_dims, struct status *st)
{
    const struct checkpoint_tensor *t = s->tensors[tensor];
    bool any_float = strcmp(dtype, "float") == 0;
    bool same = t->num_dims == num_dims;
    for (int32_t i = 0; same && i < num_dims; i++)
        same = dims[i] < 0 ? t->shape[i] > 0 : t->shape[i] == dims[i];
    if (!same)
        return status_set(st, STATUS_INVALID,
                          "%s: tensor '%s' has shape %s; as %s with a weight of [%d, %d] it must "
                          "have %s",
                          t->file, t->name, shape_show(t->shape, t->num_dims).text,
                          s->scheme->layout->name, s->rows, s->cols,
                          shape_show(dims, num_dims).text);
    if (any_float ? t->type->is_float : strcmp(t->type->name, dtype) == 0)
        return true;
    return status_set(st, STATUS_INVALID, "%s: tensor '%s' is of dtype %s, %s needs %s", t->file,
                      t->name, t->type->name, s->scheme->layout->name,
                      any_float ? "F32, BF16 or F16" : dtype);
}

int32_t quant_num_groups(const struct quant_source *s)
{
    int32_t size = s->scheme->group_size;
    return size == 0 ? 1 : (s->cols - 1) / size + 1;
}

/* Halves of a long group have the scale of the whole. */
static int32_t short_group(int32_t size)
{
    while (size > QUANT_MAX_BLOCK && size % 2 == 0)
        size /= 2;
    return size;
}

int32_t quant_format_group(const struct quant_source *s)
{
    return quant_num_groups(s) == 1 ? 0 : short_group(s->scheme->group_size);
}

bool quant_check_groups(const struct quant_source *s, struct status *st)
{
    int32_t size = s->scheme->group_size;
    if (size > 0 && size <= s->cols && s->cols % size != 0)
        return status_set(st, STATUS_INVALID,
                          "%s: a group_size of %d does not divide its %d input features", s->name,
                          size, s->cols);
    if (size > 0 && size > s->cols)
        return status_set(st, STATUS_INVALID,
                          "%s: a group_size of %d is more than its %d input features", s->name,
                          size, s->cols);
    size = quant_format_group(s);
    if (size > QUANT_MAX_BLOCK || size % 2 != 0)
        return status_set(st, STATUS_UNSUPPORTED,
                          "%s: groups of %d are not supported; even sizes up to %d are", s->name,
                          s->scheme->group_size, QUANT_MAX_BLOCK);
    return true;
}

static int32_t grid_rows(const struct quant_source *s)
{
    int32_t block = s->scheme->block_rows > 0 ? s->scheme->block_rows : 1;
    return s->scheme->whole_tensor ? 1 : (s->rows - 1) / block + 1;
}

int64_t quant_grid_at(const struct quant_source *s, int32_t row, int32_t group)
{
    int32_t block = s->scheme->block_rows > 0 ? s->scheme->block_rows : 1;
    return s->scheme->whole_tensor ? 0 : (int64_t)(row / block) * quant_num_groups(s) + group;
}

bool quant_check_grid(const struct quant_source *s, int tensor, struct status *st)
{
    const struct checkpoint_tensor *t = s->tensors[tensor];
    int64_t dims[2] = { grid_rows(s), quant_num_groups(s) };
    /* One scale for each row, or for all, is also written without the dimension of size 1. */
    if (dims[1] == 1 && t->num_dims == 1)
        return quant_check_tensor(s, tensor, t->type->name, dims, 1, st);
    if (dims[0] == 1 && dims[1] == 1 && t->num_dims == 0)
        return true;
    return quant_check_tensor(s, tensor, t->type->name, dims, 2, st);
}

void quant_set_heads(const struct quant_source *s, void *row_data, int32_t row,
                     const struct checkpoint_tensor *scales, bool transposed,
                     int32_t (*zero_at)(const struct quant_source *s, int32_t row, int32_t group))
{
    const struct quant_format *f = s->format;
    size_t size = dtype_size(f->dtype);
    int64_t groups = int_group_count(f, s->cols);
    for (int64_t g = 0; g < groups; g++) {
        /* The format may have cut the checkpoint's groups. */
        int32_t group = (int32_t)(g * quant_num_groups(s) / groups);
        int64_t at = transposed ? (int64_t)group * s->rows + row : quant_grid_at(s, row, group);
        int_group_set_head(f, int_group_head_at(f, row_data, g), scales->data + (size_t)at * size,
                           zero_at ? zero_at(s, row, group) : 0, NULL);
    }
}

uint32_t quant_word(const struct checkpoint_tensor *t, int64_t index)
{
    uint32_t word;
    memcpy(&word, t->data + (size_t)index * sizeof word, sizeof word);
    return word;
}

bool quant_source_check(struct quant_source *s, struct quant_format_set *formats, struct status *st)
{
    struct quant_format format;
    if (!s->scheme->layout->check(s, &format, st))
        return false;
    s->format = quant_format_intern(formats, &format);
    return true;
}

/* --- the order of columns -------------------------------------------------------------------- */

/* g_idx is the last tensor of the layouts that have it. */
static const struct checkpoint_tensor *group_index(const struct quant_source *s)
{
    for (int i = QUANT_MAX_TENSORS - 1; i >= 0; i--)
        if (s->tensors[i] && strstr(s->scheme->layout->tensors[i].suffix, "g_idx"))
            return s->tensors[i];
    return NULL;
}

/* A counting sort. */
bool quant_source_order(const struct quant_source *s, int32_t *order, struct status *st)
{
    const struct checkpoint_tensor *t = group_index(s);
    int32_t groups = quant_num_groups(s), size = s->scheme->group_size;
    int32_t *used = xcalloc((size_t)groups, sizeof *used);
    bool ok = true;
    for (int32_t c = 0; ok && c < s->cols; c++) {
        uint32_t group = quant_word(t, c);
        if (group >= (uint32_t)groups)
            ok = status_set(st, STATUS_INVALID,
                            "%s: tensor '%s' puts column %d into group %d, there are %d", t->file,
                            t->name, c, (int32_t)group, groups);
        else if (used[group] == size)
            ok = status_set(st, STATUS_INVALID,
                            "%s: tensor '%s' puts more than %d columns into group %d", t->file,
                            t->name, size, (int32_t)group);
        else
            order[(int32_t)group * size + used[group]++] = c;
    }
    free(used);
    return ok;
}
