/* input_quant.c - the plain code that all others are checked against. Scales are divided by, not
 * multiplied with their inverses, as vLLM's and compressed-tensors' own code does. */
#include "kernels/quant/input_quant.h"

#include "kernels/quant/fp8.h"
#include "kernels/quant/int_group.h"

#include <assert.h>
#include <math.h>

bool input_quant_fits(enum input_quant_kind kind, const struct quant_format *f, int64_t cols)
{
    if (f->header_bytes == 0 || cols > INPUT_QUANT_MAX_COLS)
        return false;
    if (kind == INPUT_QUANT_INT8)
        return int_group_is(f) && f->bits == 8 && f->offset == QUANT_OFFSET_MIDDLE;
    return kind == INPUT_QUANT_FP8 && fp8_is(f);
}

static float row_scale(const struct input_quant *q, const float *src, int64_t count)
{
    float most = 0;
    if (q->scale > 0)
        return q->scale;
    for (int64_t i = 0; i < count; i++) {
        const float magnitude = fabsf(src[i]);
        most = magnitude > most || isnan(magnitude) ? magnitude : most;
    }
    if (!isfinite(most))
        return NAN;
    const float scale = most / (q->kind == INPUT_QUANT_INT8 ? 127.0f : 448.0f);
    return scale > 0 ? scale : 1;
}

void input_quant_row(const struct input_quant *q, float *dst, const float *src, int64_t count)
{
    const float scale = row_scale(q, src, count);
    assert(q->kind != INPUT_QUANT_NONE);
    if (q->kind == INPUT_QUANT_FP8) {
        for (int64_t i = 0; i < count; i++)
            dst[i] = fp8_e4m3_to_f32(fp8_e4m3_from_f32(src[i] / scale)) * scale;
        return;
    }
    for (int64_t i = 0; i < count; i++) {
        const float code = nearbyintf(src[i] / scale);
        dst[i] = (code > 127 ? 127.0f : code < -127 ? -127.0f : code) * scale;
    }
}
