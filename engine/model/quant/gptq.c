/* gptq.c - GPTQ's layout: qweight [in * bits / 32, out] holds neighbouring inputs of one output in
 * a word, qzeros [groups, out * bits / 32] neighbouring outputs, scales [groups, out]; g_idx [in]
 * is each input's group.
 *
 * Version 1 of the format stores zero points less one (cut to their bits), version 2 as they are.
 * Without act-order the groups are runs of inputs; with it the inputs were quantized in an order of
 * their own, and those of a group lie apart (Frantar et al., 2022, arXiv:2210.17323). */
#include "base/alloc.h"
#include "engine/model/quant/quant_layout.h"
#include "kernels/quant/int_group.h"

#include <stdlib.h>
#include <string.h>

enum { QWEIGHT, QZEROS, SCALES, G_IDX };

static bool check(struct quant_source *s, struct quant_format *format, struct status *st)
{
    int32_t bits = s->scheme->bits, in_word = 32 / bits;
    int64_t groups = quant_num_groups(s);
    if (s->rows % in_word != 0 || s->cols % in_word != 0)
        return status_set(st, STATUS_INVALID,
                          "%s: of its %d output and %d input features one is no multiple of %d",
                          s->name, s->rows, s->cols, in_word);
    if (!quant_check_groups(s, st) ||
        !quant_check_tensor(s, QWEIGHT, "I32", (int64_t[]){ s->cols / in_word, s->rows }, 2, st) ||
        !quant_check_tensor(s, QZEROS, "I32", (int64_t[]){ groups, s->rows / in_word }, 2, st) ||
        !quant_check_tensor(s, SCALES, "float", (int64_t[]){ groups, s->rows }, 2, st) ||
        (s->tensors[G_IDX] && !quant_check_tensor(s, G_IDX, "I32", (int64_t[]){ s->cols }, 1, st)))
        return false;
    s->has_order = s->scheme->act_order && s->tensors[G_IDX] && groups > 1;
    *format = int_group_format(
        &(struct int_group_params){ .bits = bits,
                                    .group_size = quant_format_group(s),
                                    .offset = QUANT_OFFSET_ZERO,
                                    .scale_dtype = s->tensors[SCALES]->type->dtype });
    return true;
}

/* A g_idx that says something else than the configuration is not passed over. */
static bool check_values(const struct quant_source *s, struct status *st)
{
    const struct checkpoint_tensor *t = s->tensors[G_IDX];
    int32_t size = s->scheme->group_size > 0 ? s->scheme->group_size : s->cols;
    for (int32_t c = 0; t && !s->has_order && c < s->cols; c++)
        if (quant_word(t, c) != (uint32_t)(c / size))
            return status_set(st, STATUS_INVALID,
                              "%s: tensor '%s' puts column %d into group %d, but without desc_act "
                              "a group_size of %d puts it into %d",
                              t->file, t->name, c, (int32_t)quant_word(t, c), size, c / size);
    return true;
}

static int32_t zero_at(const struct quant_source *s, int32_t row, int32_t group)
{
    int32_t bits = s->scheme->bits, in_word = 32 / bits;
    uint32_t word =
        quant_word(s->tensors[QZEROS], (int64_t)group * (s->rows / in_word) + row / in_word);
    uint32_t mask = (1u << bits) - 1;
    return (int32_t)(((word >> bits * (row % in_word)) + (uint32_t)s->scheme->zero_bias) & mask);
}

static uint32_t code_at(const struct quant_source *s, int32_t column, int32_t row)
{
    int32_t bits = s->scheme->bits, in_word = 32 / bits;
    uint32_t word = quant_word(s->tensors[QWEIGHT], (int64_t)(column / in_word) * s->rows + row);
    return word >> bits * (column % in_word) & ((1u << bits) - 1);
}

static void read_rows(const struct quant_source *s, void *dst, int32_t first, int32_t count,
                      int32_t step)
{
    const struct quant_format *f = s->format;
    size_t row_bytes = quant_row_bytes(f, s->cols);
    int32_t *order = s->has_order ? xmalloc((size_t)s->cols * sizeof *order) : NULL;
    int32_t in_byte = 8 / s->scheme->bits;
    struct status ignored; /* it was checked before any row is read */
    if (order && !quant_source_order(s, order, &ignored))
        memset(order, 0, (size_t)s->cols * sizeof *order);
    for (int32_t i = 0; i < count; i++)
        quant_set_heads(s, (unsigned char *)dst + (size_t)i * row_bytes, first + i * step,
                        s->tensors[SCALES], true, zero_at);
    for (int32_t p = 0; p < s->cols; p += in_byte) { /* a line is read once for all rows */
        unsigned char *at = (unsigned char *)dst + int_group_code_offset(f, p);
        int32_t low = order ? order[p] : p;
        int32_t high = order && in_byte > 1 ? order[p + 1] : p + 1;
        for (int32_t i = 0; i < count; i++, at += row_bytes) {
            uint32_t code = code_at(s, low, first + i * step);
            if (in_byte > 1)
                code |= code_at(s, high, first + i * step) << 4;
            *at = (unsigned char)code;
        }
    }
    free(order);
}

const struct quant_layout quant_layout_gptq = {
    .name = "gptq",
    .tensors = { { ".qweight", false },
                 { ".qzeros", false },
                 { ".scales", false },
                 { ".g_idx", true } },
    .check = check,
    .check_values = check_values,
    .read_rows = read_rows,
};
