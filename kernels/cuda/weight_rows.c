/* weight_rows.c - a row of weights from its format's order to the one of cuda_sizes.h. */
#include "kernels/cuda/weight_rows.h"

#include <string.h>

/* Even codes to the lower half, odd ones to the upper. */
static uint32_t part_even_odd(uint32_t word)
{
    uint32_t even = word & 0x0f0f0f0fu, odd = word >> 4 & 0x0f0f0f0fu;
    even = (even | even >> 4) & 0x00ff00ffu;
    odd = (odd | odd >> 4) & 0x00ff00ffu;
    return ((even | even >> 8) & 0xffffu) | (odd | odd >> 8) << 16;
}

/* Up to 8 codes, of columns `col` and on; col is a multiple of 8. */
static void place_codes(unsigned char *dst, enum cuda_codec codec, int32_t col,
                        const unsigned char *codes, int32_t count)
{
    const int64_t step = col / CUDA_STEP_COLS, quad = col % CUDA_STEP_COLS / 8;
    if (codec == CUDA_INT8 || codec == CUDA_FP8) {
        dst += step / 2 * CUDA_CODE_CHUNK + quad * 16 + step % 2 * 8;
        for (int32_t i = 0; i < count; i++)
            dst[i] = codec == CUDA_INT8 ? (unsigned char)(codes[i] ^ 0x80u) : codes[i];
        return;
    }
    uint32_t word = 0;
    memcpy(&word, codes, ((size_t)count + 1) / 2);
    if (codec == CUDA_NF4) /* has the upper half of a byte first */
        word = (word & 0x0f0f0f0fu) << 4 | (word >> 4 & 0x0f0f0f0fu);
    word = part_even_odd(word);
    memcpy(dst + step / 4 * CUDA_CODE_CHUNK + quad * 16 + step % 4 * 4, &word, sizeof word);
}

static void place_head(unsigned char *at, const struct cuda_weight_layout *layout,
                       const unsigned char *head, size_t scale_bytes)
{
    memcpy(at, head, scale_bytes);
    if ((size_t)layout->head_bytes == scale_bytes)
        return;
    if (layout->offset == QUANT_OFFSET_MIN) {
        memcpy(at + scale_bytes, head + scale_bytes, scale_bytes);
        return;
    }
    int16_t zero;
    memcpy(&zero, head + scale_bytes, sizeof zero);
    const int32_t wide = zero;
    memcpy(at + scale_bytes, scale_bytes == sizeof zero ? (const void *)&zero : &wide, scale_bytes);
}

static void pack_words(unsigned char *dst, const struct cuda_weight_layout *layout,
                       const struct quant_format *f, const unsigned char *src, int32_t cols)
{
    const bool one = f->header_bytes > 0;
    const int32_t group = one ? cols : f->block_elements;
    const int32_t source_head =
        one ? f->header_bytes : f->block_bytes - f->block_elements * f->bits / 8;
    const size_t scale_bytes = layout->codec == CUDA_NF4 ? sizeof(float) : dtype_size(f->dtype);
    for (int32_t k = 0; k < cols; k += group) {
        const unsigned char *head = src + (size_t)(k / group) * (size_t)f->block_bytes;
        const int32_t count = cols - k < group ? cols - k : group;
        for (int32_t i = 0; i < count; i += 8)
            place_codes(dst, layout->codec, k + i, head + source_head + (size_t)i * f->bits / 8,
                        count - i < 8 ? count - i : 8);
        const int32_t first = k >> layout->group_shift;
        const int32_t last = (k + count - 1) >> layout->group_shift;
        for (int32_t i = first; i <= last; i++)
            place_head(dst + layout->heads_at + (int64_t)i * layout->head_bytes, layout, head,
                       scale_bytes);
    }
}

void cuda_pack_row(unsigned char *dst, const struct cuda_weight_layout *layout,
                   const struct quant_format *f, const unsigned char *src, int32_t cols)
{
    const bool words = layout->codec >= CUDA_INT4 && layout->codec <= CUDA_NF4;
    const size_t used = words ? 0 : quant_row_bytes(f, cols);
    memcpy(dst, src, used);
    memset(dst + used, 0, (size_t)layout->row_bytes - used);
    if (words)
        pack_words(dst, layout, f, src, cols);
}
