/* fp8.c - E4M3 weights [out, in] with float scales: one for all, one for each output, or one for
 * each block. */
#include "kernels/quant/fp8.h"
#include "engine/model/quant/quant_layout.h"

#include <string.h>

enum { WEIGHT, SCALE };

static bool check(struct quant_source *s, struct quant_format *format, struct status *st)
{
    int32_t group = quant_format_group(s);
    if (s->scheme->group_size > QUANT_MAX_BLOCK && group > 0)
        return status_set(st, STATUS_UNSUPPORTED,
                          "%s: blocks of %d columns; up to %d are supported", s->name,
                          s->scheme->group_size, QUANT_MAX_BLOCK);
    if (!quant_check_tensor(s, WEIGHT, "F8_E4M3", (int64_t[]){ s->rows, s->cols }, 2, st) ||
        !quant_check_grid(s, SCALE, st))
        return false;
    const struct checkpoint_type *type = s->tensors[SCALE]->type;
    bool power = strcmp(type->name, "F8_E8M0") == 0;
    if (!type->is_float && !power)
        return status_set(st, STATUS_INVALID,
                          "%s: tensor '%s' is of dtype %s, %s needs F32, BF16, F16 or F8_E8M0",
                          s->tensors[SCALE]->file, s->tensors[SCALE]->name, type->name,
                          s->scheme->layout->name);
    *format = fp8_format(group, power ? DTYPE_F32 : type->dtype);
    return true;
}

static void put_scale(const struct quant_source *s, unsigned char *dst, int64_t at)
{
    const struct checkpoint_tensor *t = s->tensors[SCALE];
    if (t->type->is_float) {
        size_t size = dtype_size(s->format->dtype);
        memcpy(dst, t->data + (size_t)at * size, size);
        return;
    }
    /* E8M0: two to the power of the byte less 127, NaN for 255; 0 gives a subnormal float32. */
    uint32_t bits = t->data[at] == 255 ? 0x7fc00000u : (uint32_t)t->data[at] << 23;
    if (t->data[at] == 0)
        bits = 0x00400000u;
    memcpy(dst, &bits, sizeof bits);
}

static void read_rows(const struct quant_source *s, void *dst, int32_t first, int32_t count,
                      int32_t step)
{
    const struct quant_format *f = s->format;
    size_t row_bytes = quant_row_bytes(f, s->cols), scale_bytes = dtype_size(f->dtype);
    for (int32_t i = 0; i < count; i++) {
        unsigned char *row = (unsigned char *)dst + (size_t)i * row_bytes;
        const unsigned char *src =
            s->tensors[WEIGHT]->data + (size_t)(first + i * step) * (size_t)s->cols;
        if (f->header_bytes > 0) {
            put_scale(s, row, quant_grid_at(s, first + i * step, 0));
            memcpy(row + f->header_bytes, src, (size_t)s->cols);
            continue;
        }
        for (int32_t k = 0; k < s->cols; k += f->block_elements, row += f->block_bytes) {
            int32_t left = s->cols - k, n = left < f->block_elements ? left : f->block_elements;
            put_scale(s, row, quant_grid_at(s, first + i * step, k / f->block_elements));
            memcpy(row + scale_bytes, src + k, (size_t)n);
            memset(row + scale_bytes + n, 0, (size_t)(f->block_elements - n));
        }
    }
}

const struct quant_layout quant_layout_fp8 = {
    .name = "fp8",
    .tensors = { { ".weight", false }, { ".weight_scale", false } },
    .check = check,
    .read_rows = read_rows,
};

const struct quant_layout quant_layout_fp8_block = {
    .name = "fp8 with weight_block_size",
    .tensors = { { ".weight", false }, { ".weight_scale_inv", false } },
    .check = check,
    .read_rows = read_rows,
};
