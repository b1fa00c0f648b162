/* pack_quantized.c - compressed-tensors' integers: weight_packed [out, in * bits / 32],
 * neighbouring inputs in a word, the first in its lowest bits, each plus half the range; and its
 * weights of 8 bits as they are (int-quantized). Scales and zero points are [out, groups]; packed,
 * the zero points of neighbouring outputs share a word. */
#include "base/alloc.h"
#include "engine/model/quant/quant_layout.h"
#include "kernels/quant/int_group.h"

#include <stdlib.h>
#include <string.h>

enum { WEIGHT, SCALE, ZERO_POINT, SHAPE, G_IDX };

static struct quant_format format_of(const struct quant_source *s)
{
    return int_group_format(&(struct int_group_params){
        .bits = s->scheme->bits,
        .group_size = quant_format_group(s),
        .offset = s->scheme->symmetric ? QUANT_OFFSET_MIDDLE : QUANT_OFFSET_ZERO,
        .scale_dtype = s->tensors[SCALE]->type->dtype });
}

/* Tensors that a scheme needs or must not have. */
static bool check_presence(const struct quant_source *s, struct status *st)
{
    if (!s->scheme->symmetric && !s->tensors[ZERO_POINT])
        return status_set(st, STATUS_INVALID,
                          "tensor '%s%s' is missing; quantization_config says that weights are not "
                          "symmetric",
                          s->name, s->scheme->layout->tensors[ZERO_POINT].suffix);
    if (s->scheme->act_order && !s->tensors[G_IDX])
        return status_set(st, STATUS_INVALID,
                          "tensor '%s%s' is missing; quantization_config has actorder \"group\"",
                          s->name, s->scheme->layout->tensors[G_IDX].suffix);
    return true;
}

static bool check_scales(const struct quant_source *s, struct status *st)
{
    const struct checkpoint_tensor *t = s->tensors[SCALE];
    if (!quant_check_groups(s, st) || !quant_check_grid(s, SCALE, st))
        return false;
    if (!t->type->is_float)
        return status_set(st, STATUS_INVALID, "%s: tensor '%s' is of dtype %s, not a float one",
                          t->file, t->name, t->type->name);
    return true;
}

/* --- packed ---------------------------------------------------------------------------------- */

static bool check_packed(struct quant_source *s, struct quant_format *format, struct status *st)
{
    int32_t in_word = 32 / s->scheme->bits;
    int64_t words = (s->cols - 1) / in_word + 1, zero_words = (s->rows - 1) / in_word + 1;
    const struct checkpoint_tensor *shape = s->tensors[SHAPE];
    if (!check_presence(s, st) ||
        !quant_check_tensor(s, WEIGHT, "I32", (int64_t[]){ s->rows, words }, 2, st) ||
        !check_scales(s, st))
        return false;
    if (shape && !quant_check_tensor(s, SHAPE, shape->type->name, (int64_t[]){ 2 }, 1, st))
        return false;
    if (!s->scheme->symmetric &&
        !quant_check_tensor(
            s, ZERO_POINT, "I32",
            (int64_t[]){ s->scheme->whole_tensor ? 1 : zero_words, quant_num_groups(s) }, 2, st))
        return false;
    s->has_order = s->scheme->act_order && quant_num_groups(s) > 1;
    if (s->tensors[G_IDX] && !quant_check_tensor(s, G_IDX, "I32", (int64_t[]){ s->cols }, 1, st))
        return false;
    *format = format_of(s);
    return true;
}

static bool check_packed_values(const struct quant_source *s, struct status *st)
{
    const struct checkpoint_tensor *t = s->tensors[SHAPE];
    int64_t shape[2] = { s->rows, s->cols };
    for (int64_t i = 0; t && i < 2; i++) {
        if (strcmp(t->type->name, "I64") == 0)
            memcpy(&shape[i], t->data + i * 8, 8);
        else if (strcmp(t->type->name, "I32") == 0)
            shape[i] = (int32_t)quant_word(t, i);
    }
    if (shape[0] == s->rows && shape[1] == s->cols)
        return true;
    return status_set(st, STATUS_INVALID, "%s: tensor '%s' holds %s, config.json asks for [%d, %d]",
                      t->file, t->name, shape_show(shape, 2).text, s->rows, s->cols);
}

static int32_t packed_zero_at(const struct quant_source *s, int32_t row, int32_t group)
{
    int32_t bits = s->scheme->bits, in_word = 32 / bits;
    row = s->scheme->whole_tensor ? 0 : row;
    uint32_t word =
        quant_word(s->tensors[ZERO_POINT], (int64_t)(row / in_word) * quant_num_groups(s) + group);
    return (int32_t)(word >> bits * (row % in_word) & ((1u << bits) - 1));
}

/* The bytes of a row's words are its codes in our order. */
static void read_packed_row(const struct quant_source *s, unsigned char *dst, int32_t row,
                            const int32_t *order)
{
    const struct quant_format *f = s->format;
    int32_t bits = s->scheme->bits, in_byte = 8 / bits;
    const unsigned char *src =
        s->tensors[WEIGHT]->data +
        (size_t)row * (size_t)((s->cols - 1) / (32 / bits) + 1) * sizeof(uint32_t);
    int32_t run = f->header_bytes > 0 ? s->cols : f->block_elements;
    for (int32_t k = 0; !order && k < s->cols; k += run)
        memcpy(dst + int_group_code_offset(f, k), src + k / in_byte,
               (size_t)((run + in_byte - 1) / in_byte));
    for (int32_t p = 0; order && p < s->cols; p++) {
        unsigned char *at = dst + int_group_code_offset(f, p);
        int32_t k = order[p], shift = bits * (p % in_byte);
        int32_t code = src[k / in_byte] >> bits * (k % in_byte) & ((1 << bits) - 1);
        *at = (unsigned char)(shift == 0 ? code : *at | code << shift);
    }
}

static void read_packed(const struct quant_source *s, void *dst, int32_t first, int32_t count,
                        int32_t step)
{
    size_t row_bytes = quant_row_bytes(s->format, s->cols);
    int32_t *order = s->has_order ? xcalloc((size_t)s->cols, sizeof *order) : NULL;
    struct status ignored; /* it was checked before any row is read */
    if (order)
        (void)quant_source_order(s, order, &ignored);
    for (int32_t i = 0; i < count; i++) {
        unsigned char *row = (unsigned char *)dst + (size_t)i * row_bytes;
        quant_set_heads(s, row, first + i * step, s->tensors[SCALE], false,
                        s->scheme->symmetric ? NULL : packed_zero_at);
        read_packed_row(s, row, first + i * step, order);
    }
    free(order);
}

const struct quant_layout quant_layout_pack = {
    .name = "pack-quantized",
    .tensors = { { ".weight_packed", false },
                 { ".weight_scale", false },
                 { ".weight_zero_point", true },
                 { ".weight_shape", true },
                 { ".weight_g_idx", true } },
    .check = check_packed,
    .check_values = check_packed_values,
    .read_rows = read_packed,
};

/* --- as they are ------------------------------------------------------------------------------ */

static bool check_int8(struct quant_source *s, struct quant_format *format, struct status *st)
{
    if (!check_presence(s, st) ||
        !quant_check_tensor(s, WEIGHT, "I8", (int64_t[]){ s->rows, s->cols }, 2, st) ||
        !check_scales(s, st))
        return false;
    const struct checkpoint_tensor *zero = s->tensors[ZERO_POINT];
    if (!s->scheme->symmetric && strcmp(zero->type->name, "I8") != 0)
        return status_set(st, STATUS_INVALID, "%s: tensor '%s' is of dtype %s, not I8", zero->file,
                          zero->name, zero->type->name);
    if (!s->scheme->symmetric && !quant_check_grid(s, ZERO_POINT, st))
        return false;
    *format = format_of(s);
    return true;
}

static int32_t int8_zero_at(const struct quant_source *s, int32_t row, int32_t group)
{
    return (int8_t)s->tensors[ZERO_POINT]->data[quant_grid_at(s, row, group)] + 128;
}

static void read_int8(const struct quant_source *s, void *dst, int32_t first, int32_t count,
                      int32_t step)
{
    const struct quant_format *f = s->format;
    size_t row_bytes = quant_row_bytes(f, s->cols);
    for (int32_t i = 0; i < count; i++) {
        unsigned char *row = (unsigned char *)dst + (size_t)i * row_bytes;
        const unsigned char *src =
            s->tensors[WEIGHT]->data + (size_t)(first + i * step) * (size_t)s->cols;
        quant_set_heads(s, row, first + i * step, s->tensors[SCALE], false,
                        s->scheme->symmetric ? NULL : int8_zero_at);
        int32_t run = f->header_bytes > 0 ? s->cols : f->block_elements;
        for (int32_t k = 0; k < s->cols; k += run) {
            unsigned char *at = row + int_group_code_offset(f, k);
            for (int32_t j = 0; j < run; j++)
                at[j] = src[k + j] ^ 0x80; /* two's complement, plus 128 */
        }
    }
}

const struct quant_layout quant_layout_int8 = {
    .name = "int-quantized",
    .tensors = { { ".weight", false }, { ".weight_scale", false }, { ".weight_zero_point", true } },
    .check = check_int8,
    .read_rows = read_int8,
};
