/* int_group_quantize.c - floats to codes: symmetric groups by their greatest magnitude, groups with
 * a minimum by a search for the scale and minimum with the least squared error.
 *
 * The search tries a few scales around the one that spans the group; the codes that each gives are
 * then kept and scale and minimum fitted to them, which is linear least squares. The best pair, as
 * it will be stored, counts. Loops are written so that they vectorise. */
#include "kernels/quant/int_group.h"

#include <assert.h>
#include <math.h>
#include <string.h>

/* A group's numbers as they come back from memory. */
struct fit {
    float scale, min;
    double error;
};

static float stored(float value, enum dtype dtype)
{
    uint32_t narrow = 0;
    float back;
    dtype_convert(&narrow, dtype, &value, DTYPE_F32, 1);
    dtype_convert(&back, DTYPE_F32, &narrow, dtype, 1);
    return back;
}

static void encode(int32_t *codes, const float *x, int64_t count, float factor, float min,
                   int32_t top)
{
    float limit = (float)top;
    for (int64_t i = 0; i < count; i++) {
        float code = (x[i] - min) * factor + 0.5f;
        code = code > 0 ? code : 0; /* not a number: 0 */
        code = code < limit ? code : limit;
        codes[i] = (int32_t)code;
    }
}

static float squared_error(const int32_t *codes, const float *x, int64_t count, float scale,
                           float min)
{
    float lanes[8] = { 0 };
    int64_t i = 0;
    for (; i + 8 <= count; i += 8)
        for (int j = 0; j < 8; j++) {
            float off = (float)codes[i + j] * scale + min - x[i + j];
            lanes[j] += off * off;
        }
    float sum = 0;
    for (int j = 0; j < 8; j++)
        sum += lanes[j];
    for (; i < count; i++) {
        float off = (float)codes[i] * scale + min - x[i];
        sum += off * off;
    }
    return sum;
}

/* The best scale and minimum for given codes; false where all codes are the same. */
static bool least_squares(const int32_t *codes, const float *x, int64_t count, float *scale,
                          float *min)
{
    int64_t sum = 0, squares = 0;
    float sum_x = 0, products = 0;
    double n = (double)count;
    for (int64_t i = 0; i < count; i++) {
        sum += codes[i];
        squares += (int64_t)codes[i] * codes[i];
        sum_x += x[i];
        products += (float)codes[i] * x[i];
    }
    double divisor = n * (double)squares - (double)sum * (double)sum;
    if (divisor <= 0)
        return false;
    *scale = (float)((n * (double)products - (double)sum * (double)sum_x) / divisor);
    *min = (float)(((double)sum_x - (double)sum * (double)*scale) / n);
    return true;
}

static struct fit search(const struct quant_format *f, int32_t *codes, const float *x,
                         int64_t count)
{
    static const float spans[] = { 0.0f, 0.4f, -0.4f, 0.8f, -0.8f, 1.2f, 1.7f, 2.2f };
    int32_t top = (1 << f->bits) - 1;
    float low = x[0], high = x[0];
    for (int64_t i = 1; i < count; i++) {
        low = x[i] < low ? x[i] : low;
        high = x[i] > high ? x[i] : high;
    }
    struct fit best = { 0, stored(low, f->dtype), INFINITY };
    for (size_t i = 0; high > low && best.error > 0 && i < sizeof spans / sizeof spans[0]; i++) {
        /* What the codes span more or less than the group they do at both of its ends. */
        float scale = (high - low) / ((float)top + spans[i]), min = low + scale * spans[i] / 2;
        encode(codes, x, count, 1 / scale, min, top);
        for (int fitted = 0; fitted < 2; fitted++) {
            if (fitted && !least_squares(codes, x, count, &scale, &min))
                break;
            float as_scale = stored(scale, f->dtype), as_min = stored(min, f->dtype);
            float error = squared_error(codes, x, count, as_scale, as_min);
            if ((double)error < best.error)
                best = (struct fit){ as_scale, as_min, (double)error };
        }
    }
    encode(codes, x, count, best.scale > 0 ? 1 / best.scale : 0, best.min, top);
    return best;
}

static struct fit by_magnitude(const struct quant_format *f, int32_t *codes, const float *x,
                               int64_t count)
{
    int32_t middle = 1 << (f->bits - 1);
    float most = 0;
    for (int64_t i = 0; i < count; i++) {
        float size = fabsf(x[i]);
        most = size > most ? size : most;
    }
    float scale = stored(most / (float)(middle - 1), f->dtype);
    encode(codes, x, count, scale > 0 ? 1 / scale : 0, -(float)middle * scale, 2 * middle - 1);
    for (int64_t i = 0; i < count && !(scale > 0); i++)
        codes[i] = middle;
    return (struct fit){ scale, 0, 0 };
}

void int_group_quantize(const struct quant_format *f, void *row, const float *src, int64_t count)
{
    int32_t codes[QUANT_MAX_BLOCK];
    assert(f->offset != QUANT_OFFSET_ZERO && f->header_bytes == 0);
    memset(row, 0, quant_row_bytes(f, count));
    for (int64_t begin = 0; begin < count; begin += f->block_elements) {
        const float *x = src + begin;
        int64_t n = count - begin < f->block_elements ? count - begin : f->block_elements;
        struct fit fit =
            f->offset == QUANT_OFFSET_MIN ? search(f, codes, x, n) : by_magnitude(f, codes, x, n);
        uint32_t scale = 0, min = 0;
        dtype_convert(&scale, f->dtype, &fit.scale, DTYPE_F32, 1);
        dtype_convert(&min, f->dtype, &fit.min, DTYPE_F32, 1);
        int_group_set_head(f, (char *)row + begin / f->block_elements * f->block_bytes, &scale, 0,
                           &min);
        unsigned char *at = (unsigned char *)row + int_group_code_offset(f, begin);
        for (int64_t i = 0; i < n; i++)
            at[i * f->bits / 8] |= (unsigned char)(codes[i] << (f->bits == 4 ? 4 * (i % 2) : 0));
    }
}
