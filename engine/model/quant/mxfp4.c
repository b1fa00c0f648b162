/* mxfp4.c - gpt-oss's MXFP4: blocks [stack, out, in / 32, 16] with two codes of 4 bits (E2M1) in a
 * byte, and scales [stack, out, in / 32], powers of two (E8M0); both U8.
 *
 * The values are those of the OCP Microscaling Formats 1.0, as in ggml's MXFP4, which the rows
 * become: a code stands for the same value, but in another place. Here a byte holds two neighbours,
 * the first in its low half; there it holds elements i and 16 + i. */
#include "engine/model/quant/quant_layout.h"
#include "kernels/quant/ggml_formats.h"

#include <string.h>

enum { BLOCKS, SCALES };
enum { BLOCK = 32, CODE_BYTES = BLOCK / 2, NO_NUMBER = 255 };

static bool check(struct quant_source *s, struct quant_format *format, struct status *st)
{
    const int64_t dims[] = { s->stack_size, s->rows, s->cols / BLOCK, CODE_BYTES };
    /* A matrix by itself may lack the first of them. */
    int32_t begin = s->stack_size == 1 && s->tensors[BLOCKS]->num_dims == 3;
    if (s->cols % BLOCK != 0)
        return status_set(st, STATUS_INVALID, "%s: its %d input features are no whole blocks of %d",
                          s->name, s->cols, BLOCK);
    if (dims[0] * dims[1] > INT32_MAX)
        return status_set(st, STATUS_UNSUPPORTED,
                          "%s: %d matrices of %d rows; up to %d rows together are supported",
                          s->name, s->stack_size, s->rows, INT32_MAX);
    if (!quant_check_tensor(s, BLOCKS, "U8", dims + begin, 4 - begin, st) ||
        !quant_check_tensor(s, SCALES, "U8", dims + begin, 3 - begin, st))
        return false;
    *format = quant_format_mxfp4;
    return true;
}

static bool check_values(const struct quant_source *s, struct status *st)
{
    const struct checkpoint_tensor *t = s->tensors[SCALES];
    const unsigned char *found = memchr(t->data, NO_NUMBER, t->size_bytes);
    if (!found)
        return true;
    int64_t blocks = s->cols / BLOCK, at = found - t->data;
    return status_set(st, STATUS_INVALID,
                      "%s: tensor '%s': the scale of block %lld of row %lld is %d, which is no "
                      "number in E8M0",
                      t->file, t->name, (long long)(at % blocks), (long long)(at / blocks),
                      NO_NUMBER);
}

static void reorder_codes(unsigned char *dst, const unsigned char *src)
{
    for (int i = 0; i < CODE_BYTES / 2; i++) {
        unsigned char low = src[i], high = src[CODE_BYTES / 2 + i];
        dst[2 * i] = (unsigned char)((low & 15) | (high & 15) << 4);
        dst[2 * i + 1] = (unsigned char)(low >> 4 | (high & 0xf0));
    }
}

static void read_rows(const struct quant_source *s, void *dst, int32_t first, int32_t count,
                      int32_t step)
{
    size_t blocks = (size_t)s->cols / BLOCK;
    unsigned char *at = dst;
    for (int32_t i = 0; i < count; i++) {
        size_t begin = (size_t)(first + i * step) * blocks;
        for (size_t b = begin; b < begin + blocks; b++, at += s->format->block_bytes) {
            at[0] = s->tensors[SCALES]->data[b];
            reorder_codes(at + 1, s->tensors[BLOCKS]->data + b * CODE_BYTES);
        }
    }
}

const struct quant_layout quant_layout_mxfp4 = {
    .name = "mxfp4",
    .tensors = { { ".blocks", false }, { ".scales", false } },
    .stacked = true,
    .check = check,
    .check_values = check_values,
    .read_rows = read_rows,
};
