/* int_group.c - see int_group.h: what GPTQ, AWQ and compressed-tensors give, and what weights are
 * quantized to at load. */
#include "kernels/quant/int_group.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

static bool one_group(const struct quant_format *f)
{
    return f->header_bytes > 0;
}

size_t int_group_head_bytes(const struct quant_format *f)
{
    size_t scale = dtype_size(f->dtype);
    switch (f->offset) {
    case QUANT_OFFSET_ZERO:
        return scale + sizeof(int16_t);
    case QUANT_OFFSET_MIN:
        return 2 * scale;
    case QUANT_OFFSET_MIDDLE:
        break;
    }
    return scale;
}

size_t int_group_code_offset(const struct quant_format *f, int64_t at)
{
    if (one_group(f))
        return (size_t)f->header_bytes + (size_t)(at * f->bits / 8);
    return (size_t)(at / f->block_elements * f->block_bytes) + int_group_head_bytes(f) +
           (size_t)(at % f->block_elements * f->bits / 8);
}

int64_t int_group_count(const struct quant_format *f, int64_t count)
{
    return one_group(f) ? 1 : (count + f->block_elements - 1) / f->block_elements;
}

void *int_group_head_at(const struct quant_format *f, void *row, int64_t group)
{
    return (char *)row + (one_group(f) ? 0 : group * f->block_bytes);
}

static float read_float(const void *at, enum dtype dtype)
{
    uint32_t aligned = 0;
    float value;
    memcpy(&aligned, at, dtype_size(dtype));
    dtype_convert(&value, DTYPE_F32, &aligned, dtype, 1);
    return value;
}

struct int_group_head int_group_head(const struct quant_format *f, const void *at)
{
    const char *second = (const char *)at + dtype_size(f->dtype);
    struct int_group_head head = { .scale = read_float(at, f->dtype) };
    int16_t zero;
    switch (f->offset) {
    case QUANT_OFFSET_MIDDLE:
        head.zero = (float)(1 << (f->bits - 1));
        break;
    case QUANT_OFFSET_ZERO:
        memcpy(&zero, second, sizeof zero);
        head.zero = zero;
        break;
    case QUANT_OFFSET_MIN:
        head.min = read_float(second, f->dtype);
        break;
    }
    return head;
}

void int_group_set_head(const struct quant_format *f, void *at, const void *scale, int32_t zero,
                        const void *min)
{
    size_t size = dtype_size(f->dtype);
    int16_t narrow = (int16_t)zero;
    memcpy(at, scale, size);
    if (f->offset == QUANT_OFFSET_ZERO)
        memcpy((char *)at + size, &narrow, sizeof narrow);
    if (f->offset == QUANT_OFFSET_MIN)
        memcpy((char *)at + size, min, size);
}

static void expand(float *dst, const unsigned char *codes, int32_t bits, int64_t count)
{
    if (bits == 8) {
        for (int64_t i = 0; i < count; i++)
            dst[i] = codes[i];
        return;
    }
    for (int64_t i = 0; i + 1 < count; i += 2) {
        dst[i] = (float)(codes[i / 2] & 15);
        dst[i + 1] = (float)(codes[i / 2] >> 4);
    }
    if (count % 2 != 0)
        dst[count - 1] = (float)(codes[count / 2] & 15);
}

/* Elements of one group, codes in place. */
static void scale_group(const struct quant_format *f, float *dst, int64_t count,
                        const struct int_group_head *head)
{
    enum { CHUNK = 64 };
    const enum dtype dtype = f->dtype;
    const bool has_min = f->offset == QUANT_OFFSET_MIN;
    uint16_t rounded[CHUNK];
    for (int64_t i = 0; i < count && !has_min; i++)
        dst[i] = (dst[i] - head->zero) * head->scale;
    for (int64_t i = 0; i < count && has_min; i++)
        dst[i] = dst[i] * head->scale + head->min;
    for (int64_t i = 0; i < count && dtype != DTYPE_F32; i += CHUNK) {
        size_t n = (size_t)(count - i < CHUNK ? count - i : CHUNK);
        dtype_convert(rounded, dtype, dst + i, DTYPE_F32, n);
        dtype_convert(dst + i, DTYPE_F32, rounded, dtype, n);
    }
}

static void dequantize(const struct quant_format *f, float *dst, const void *row, int64_t begin,
                       int64_t count)
{
    if (one_group(f)) {
        struct int_group_head head = int_group_head(f, row);
        expand(dst, quant_block_at(f, row, begin), f->bits, count);
        scale_group(f, dst, count, &head);
        return;
    }
    size_t head_bytes = int_group_head_bytes(f);
    for (int64_t done = 0; done < count; done += f->block_elements) {
        int64_t n = count - done < f->block_elements ? count - done : f->block_elements;
        const unsigned char *block = quant_block_at(f, row, begin + done);
        struct int_group_head head = int_group_head(f, block);
        expand(dst + done, block + head_bytes, f->bits, n);
        scale_group(f, dst + done, n, &head);
    }
}

bool int_group_is(const struct quant_format *f)
{
    return f->dequantize == dequantize;
}

struct quant_format int_group_format(const struct int_group_params *p)
{
    static const char *const offsets[] = { "", "_zero", "_min" };
    struct quant_format f = {
        .dtype = p->scale_dtype, .dequantize = dequantize, .bits = p->bits, .offset = p->offset
    };
    if (p->offset != QUANT_OFFSET_ZERO && p->group_size > 0)
        f.quantize = int_group_quantize;
    char group[16] = "row";
    size_t head = int_group_head_bytes(&f);
    assert((p->bits == 4 || p->bits == 8) && p->group_size <= QUANT_MAX_BLOCK &&
           p->group_size % 2 == 0);
    if (p->group_size > 0)
        snprintf(group, sizeof group, "g%d", p->group_size);
    f.header_bytes = p->group_size > 0 ? 0 : (int32_t)head;
    f.block_elements = p->group_size > 0 ? p->group_size : 8 / p->bits;
    f.block_bytes = p->group_size > 0 ? (int32_t)head + p->group_size * p->bits / 8 : 1;
    snprintf(f.name, sizeof f.name, "int%d_%s%s_%s", p->bits, group, offsets[p->offset],
             dtype_name(p->scale_dtype));
    return f;
}
