/* fp8.c - see fp8.h: what compressed-tensors' float-quantized and DeepSeek's block-scaled
 * checkpoints give, and what weights are quantized to at load. */
#include "kernels/quant/fp8.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

static float read_scale(const struct quant_format *f, const void *at)
{
    uint32_t aligned = 0;
    float value;
    memcpy(&aligned, at, dtype_size(f->dtype));
    dtype_convert(&value, DTYPE_F32, &aligned, f->dtype, 1);
    return value;
}

static void scale_group(const struct quant_format *f, float *dst, const unsigned char *codes,
                        int64_t count, float scale)
{
    enum { CHUNK = 64 };
    uint16_t rounded[CHUNK];
    for (int64_t i = 0; i < count; i++)
        dst[i] = fp8_e4m3_to_f32(codes[i]) * scale;
    for (int64_t i = 0; i < count && f->dtype != DTYPE_F32; i += CHUNK) {
        size_t n = (size_t)(count - i < CHUNK ? count - i : CHUNK);
        dtype_convert(rounded, f->dtype, dst + i, DTYPE_F32, n);
        dtype_convert(dst + i, DTYPE_F32, rounded, f->dtype, n);
    }
}

static void dequantize(const struct quant_format *f, float *dst, const void *row, int64_t begin,
                       int64_t count)
{
    if (f->header_bytes > 0) {
        scale_group(f, dst, quant_block_at(f, row, begin), count, read_scale(f, row));
        return;
    }
    for (int64_t done = 0; done < count; done += f->block_elements) {
        int64_t n = count - done < f->block_elements ? count - done : f->block_elements;
        const unsigned char *block = quant_block_at(f, row, begin + done);
        scale_group(f, dst + done, block + dtype_size(f->dtype), n, read_scale(f, block));
    }
}

static float stored_scale(const struct quant_format *f, unsigned char *at, float scale)
{
    uint32_t narrow = 0;
    dtype_convert(&narrow, f->dtype, &scale, DTYPE_F32, 1);
    memcpy(at, &narrow, dtype_size(f->dtype));
    return read_scale(f, at);
}

static float squared_error(const float *x, int64_t count, float scale)
{
    float sum = 0, inverse = 1 / scale;
    for (int64_t i = 0; i < count; i++) {
        float off = fp8_e4m3_to_f32(fp8_e4m3_from_f32(x[i] * inverse)) * scale - x[i];
        sum += off * off;
    }
    return sum;
}

/* The greatest magnitude becomes the greatest code, 448, or one up to an octave below it: where the
 * steps of a float double is worth choosing. */
static void quantize_group(const struct quant_format *f, unsigned char *at, const float *x,
                           int64_t count)
{
    static const float octave[] = { 1.0f, 1.18920712f, 1.41421356f, 1.68179283f };
    size_t scale_bytes = dtype_size(f->dtype);
    float most = 0, best = 1, error = INFINITY;
    for (int64_t i = 0; i < count; i++) {
        float magnitude = fabsf(x[i]);
        most = magnitude > most ? magnitude : most;
    }
    for (size_t i = 0; most > 0 && i < sizeof octave / sizeof octave[0]; i++) {
        float scale = stored_scale(f, at, most / 448 * octave[i]);
        float now = scale > 0 ? squared_error(x, count, scale) : INFINITY;
        if (now < error) {
            error = now;
            best = scale;
        }
    }
    best = stored_scale(f, at, best);
    for (int64_t i = 0; i < count; i++)
        at[scale_bytes + (size_t)i] = fp8_e4m3_from_f32(x[i] / best);
}

static void quantize(const struct quant_format *f, void *row, const float *src, int64_t count)
{
    int64_t size = f->header_bytes > 0 ? count : f->block_elements;
    memset(row, 0, quant_row_bytes(f, count));
    for (int64_t begin = 0; begin < count; begin += size)
        quantize_group(
            f, (unsigned char *)row + (f->header_bytes > 0 ? 0 : begin / size * f->block_bytes),
            src + begin, count - begin < size ? count - begin : size);
}

bool fp8_is(const struct quant_format *f)
{
    return f->dequantize == dequantize;
}

struct quant_format fp8_format(int32_t group_size, enum dtype scale_dtype)
{
    int32_t scale_bytes = (int32_t)dtype_size(scale_dtype);
    struct quant_format f = {
        .dtype = scale_dtype, .dequantize = dequantize, .quantize = quantize, .bits = 8
    };
    assert(group_size >= 0 && group_size <= QUANT_MAX_BLOCK);
    if (group_size > 0) {
        f.block_elements = group_size;
        f.block_bytes = scale_bytes + group_size;
        snprintf(f.name, sizeof f.name, "fp8_g%d_%s", group_size, dtype_name(scale_dtype));
        return f;
    }
    f.header_bytes = scale_bytes;
    f.block_elements = f.block_bytes = 1;
    snprintf(f.name, sizeof f.name, "fp8_row_%s", dtype_name(scale_dtype));
    return f;
}
