/* linear_ggml.c - rows of ggml's formats laid side by side, and back. */
#include "kernels/cpu/linear_ggml.h"

#include "kernels/quant/ggml_block.h"

#include <string.h>

/* --- layouts ---------------------------------------------------------------------------------- */

/* The 6-bit scales of a row's block, and both kinds unpacked in a group's. */
enum { K_SCALES_ROW = 4, K_SCALES_BYTES = 12, K_SCALES_GROUP = 32, K_MINS_GROUP = 96 };

/* Parts are: float16 scale, further scales, high bits of codes, low bits or all of them. */
static const struct linear_ggml_layout layouts[] = {
    { &quant_format_q4_0, 144, { { 2, 1, 0, 0 }, { 4, 4, 2, 16 } }, false },
    { &quant_format_q4_1, 160, { { 2, 1, 0, 0 }, { 2, 1, 2, 16 }, { 4, 4, 4, 32 } }, false },
    { &quant_format_q5_0, 176, { { 2, 1, 0, 0 }, { 4, 1, 2, 16 }, { 4, 4, 6, 48 } }, false },
    { &quant_format_q5_1,
      192,
      { { 2, 1, 0, 0 }, { 2, 1, 2, 16 }, { 4, 1, 4, 32 }, { 4, 4, 8, 64 } },
      false },
    { &quant_format_q8_0, 272, { { 2, 1, 0, 0 }, { 4, 8, 2, 16 } }, false },
    { &quant_format_q4_k, 1184, { { 2, 1, 0, 0 }, { 2, 1, 2, 16 }, { 4, 32, 16, 160 } }, true },
    { &quant_format_q5_k,
      1440,
      { { 2, 1, 0, 0 }, { 2, 1, 2, 16 }, { 4, 8, 16, 160 }, { 4, 32, 48, 416 } },
      true },
    { &quant_format_q6_k,
      1680,
      { { 2, 1, 208, 0 }, { 1, 16, 192, 16 }, { 4, 16, 128, 144 }, { 4, 32, 0, 656 } },
      false },
    { &quant_format_iq4_nl, 144, { { 2, 1, 0, 0 }, { 4, 4, 2, 16 } }, false },
    { &quant_format_iq4_xs,
      1088,
      { { 2, 1, 0, 0 }, { 2, 1, 2, 16 }, { 4, 1, 4, 32 }, { 4, 32, 8, 64 } },
      false },
    { &quant_format_mxfp4, 136, { { 1, 1, 0, 0 }, { 4, 4, 1, 8 } }, false },
};

const struct linear_ggml_layout *linear_ggml_layout(const struct quant_format *f)
{
    for (size_t i = 0; i < sizeof layouts / sizeof layouts[0]; i++)
        if (layouts[i].format == f)
            return &layouts[i];
    return NULL;
}

/* --- one block of one row ----------------------------------------------------------------------
 */

/* The other way round than ggml_unpack_scales. */
static void pack_scales(unsigned char packed[12], const uint8_t scales[8], const uint8_t mins[8])
{
    for (int i = 0; i < 4; i++) {
        packed[i] = (unsigned char)(scales[i] | (scales[4 + i] & 48) << 2);
        packed[4 + i] = (unsigned char)(mins[i] | (mins[4 + i] & 48) << 2);
        packed[8 + i] = (unsigned char)((scales[4 + i] & 15) | (mins[4 + i] & 15) << 4);
    }
}

/* Start-up spends its time here: a copy of a constant size is an instruction, not a call. */
static inline void move_bytes(unsigned char *dst, const unsigned char *src, int32_t bytes)
{
    if (bytes == 4)
        memcpy(dst, src, 4);
    else if (bytes == 2)
        memcpy(dst, src, 2);
    else
        memcpy(dst, src, (size_t)bytes);
}

/* `block` is written where !into_group. */
static inline void move_parts(const struct linear_ggml_layout *layout, unsigned char *group,
                              int32_t row, unsigned char *block, bool into_group)
{
    for (const struct linear_ggml_part *p = layout->parts;
         p < layout->parts + LINEAR_GGML_MAX_PARTS && p->bytes > 0; p++)
        for (int32_t i = 0; i < p->count; i++) {
            unsigned char *in_group = group + p->group + (i * LINEAR_GGML_ROWS + row) * p->bytes;
            unsigned char *in_row = block + p->row + i * p->bytes;
            move_bytes(into_group ? in_group : in_row, into_group ? in_row : in_group, p->bytes);
        }
}

static void block_into_group(const struct linear_ggml_layout *layout, unsigned char *group,
                             int32_t row, const unsigned char *block)
{
    uint8_t scales[8], mins[8];
    move_parts(layout, group, row, (unsigned char *)(uintptr_t)block, true);
    if (!layout->scales_6bit)
        return;
    ggml_unpack_scales(scales, mins, block + K_SCALES_ROW);
    for (int i = 0; i < 8; i++) {
        group[K_SCALES_GROUP + i * LINEAR_GGML_ROWS + row] = scales[i];
        group[K_MINS_GROUP + i * LINEAR_GGML_ROWS + row] = mins[i];
    }
}

static void block_from_group(const struct linear_ggml_layout *layout, unsigned char *group,
                             int32_t row, unsigned char *block)
{
    uint8_t scales[8], mins[8];
    move_parts(layout, group, row, block, false);
    if (!layout->scales_6bit)
        return;
    for (int i = 0; i < 8; i++) {
        scales[i] = group[K_SCALES_GROUP + i * LINEAR_GGML_ROWS + row];
        mins[i] = group[K_MINS_GROUP + i * LINEAR_GGML_ROWS + row];
    }
    pack_scales(block + K_SCALES_ROW, scales, mins);
}

/* --- panels ------------------------------------------------------------------------------------
 */

static int32_t num_blocks(const struct linear *l)
{
    return l->in_features / l->format->block_elements;
}

size_t linear_ggml_panel_bytes(const struct linear *l)
{
    const struct linear_ggml_layout *layout = linear_ggml_layout(l->format);
    if (!layout || l->in_features % l->format->block_elements != 0 || l->input_order)
        return 0;
    return (size_t)(LINEAR_PANEL / LINEAR_GGML_ROWS) * (size_t)num_blocks(l) *
           (size_t)layout->group_bytes;
}

/* Where block `k` of the group that holds row `row` of the panel begins. */
static unsigned char *group_at(void *panel, const struct linear *l,
                               const struct linear_ggml_layout *layout, int32_t row, int32_t k)
{
    size_t at = (size_t)(row / LINEAR_GGML_ROWS) * (size_t)num_blocks(l) + (size_t)k;
    return (unsigned char *)panel + at * (size_t)layout->group_bytes;
}

void linear_ggml_pack(void *panel, const struct linear *l, int32_t first, int32_t num_rows,
                      const void *src)
{
    const struct linear_ggml_layout *layout = linear_ggml_layout(l->format);
    const unsigned char *at = src;
    size_t bytes = (size_t)l->format->block_bytes;
    for (int32_t r = first; r < first + num_rows; r++)
        for (int32_t k = 0; k < num_blocks(l); k++, at += bytes)
            block_into_group(layout, group_at(panel, l, layout, r, k), r % LINEAR_GGML_ROWS, at);
}

void linear_ggml_unpack_row(float *dst, const struct linear *l, int32_t row)
{
    const struct linear_ggml_layout *layout = linear_ggml_layout(l->format);
    unsigned char block[QUANT_MAX_BLOCK];
    int32_t in_panel = row % LINEAR_PANEL;
    void *panel = (char *)l->packed + (size_t)(row / LINEAR_PANEL) * l->panel_bytes;
    for (int32_t k = 0; k < num_blocks(l); k++) {
        block_from_group(layout, group_at(panel, l, layout, in_panel, k),
                         in_panel % LINEAR_GGML_ROWS, block);
        l->format->dequantize(l->format, dst + (size_t)k * (size_t)l->format->block_elements, block,
                              0, l->format->block_elements);
    }
}
