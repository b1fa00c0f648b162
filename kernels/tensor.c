/* tensor.c - dtype names and conversions between the float dtypes.
 *
 * The conversions are written without branches on the data, so that loops over them vectorise. */
#include "kernels/tensor.h"

#include <assert.h>
#include <string.h>

size_t dtype_size(enum dtype dtype)
{
    static const size_t sizes[NUM_DTYPES] = {
        [DTYPE_F32] = 4, [DTYPE_BF16] = 2,    [DTYPE_F16] = 2,
        [DTYPE_I32] = 4, [DTYPE_F8_E4M3] = 1, [DTYPE_I8] = 1
    };
    assert((unsigned)dtype < NUM_DTYPES);
    return sizes[dtype];
}

const char *dtype_name(enum dtype dtype)
{
    static const char *const names[NUM_DTYPES] = {
        [DTYPE_F32] = "float32", [DTYPE_BF16] = "bfloat16",    [DTYPE_F16] = "float16",
        [DTYPE_I32] = "int32",   [DTYPE_F8_E4M3] = "fp8_e4m3", [DTYPE_I8] = "int8"
    };
    assert((unsigned)dtype < NUM_DTYPES);
    return names[dtype];
}

bool dtype_parse(const char *name, enum dtype *out)
{
    static const struct {
        const char *name;
        enum dtype dtype;
    } spellings[] = { { "float32", DTYPE_F32 }, { "float", DTYPE_F32 }, { "bfloat16", DTYPE_BF16 },
                      { "float16", DTYPE_F16 }, { "half", DTYPE_F16 },  { "int32", DTYPE_I32 } };
    if (!name)
        return false;
    for (size_t i = 0; i < sizeof spellings / sizeof spellings[0]; i++) {
        if (strcmp(name, spellings[i].name) == 0) {
            *out = spellings[i].dtype;
            return true;
        }
    }
    return false;
}

static inline uint32_t bits_of(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static inline float float_of(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static inline float widen_bf16(uint16_t bits)
{
    return float_of((uint32_t)bits << 16);
}

static inline uint16_t narrow_bf16(float value)
{
    uint32_t bits = bits_of(value);
    uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
    uint32_t nan = (bits >> 16) | 0x40u; /* quiet: cutting the payload must not leave infinity */
    return (uint16_t)((bits & 0x7fffffffu) > 0x7f800000u ? nan : rounded);
}

static inline float widen_f16(uint16_t bits)
{
    uint32_t sign = ((uint32_t)bits & 0x8000u) << 16;
    uint32_t magnitude = ((uint32_t)bits & 0x7fffu) << 13;
    /* The multiplication moves the exponent's bias and normalises subnormals, exactly. */
    uint32_t finite = bits_of(float_of(magnitude) * 0x1p112f);
    uint32_t special = magnitude | 0x7f800000u;
    return float_of(sign | (magnitude >= 0x0f800000u ? special : finite));
}

static inline uint16_t narrow_f16(float value)
{
    uint32_t bits = bits_of(value);
    uint32_t sign = (bits >> 16) & 0x8000u;
    uint32_t magnitude = bits & 0x7fffffffu;
    /* Subnormal results: adding 0.5 lets the float adder round at the 2^-24 place. */
    uint32_t small = bits_of(float_of(magnitude) + 0.5f) - 0x3f000000u;
    uint32_t normal = (magnitude - 0x38000000u + 0xfffu + ((magnitude >> 13) & 1u)) >> 13;
    uint32_t nan = 0x7e00u | ((magnitude >> 13) & 0x3ffu);
    uint32_t half = magnitude < 0x38800000u ? small : normal;
    half = magnitude >= 0x477ff000u ? 0x7c00u : half; /* 65520 and up round to infinity */
    half = magnitude > 0x7f800000u ? nan : half;
    return (uint16_t)(sign | half);
}

float bf16_to_f32(uint16_t bits)
{
    return widen_bf16(bits);
}

uint16_t bf16_from_f32(float value)
{
    return narrow_bf16(value);
}

float f16_to_f32(uint16_t bits)
{
    return widen_f16(bits);
}

uint16_t f16_from_f32(float value)
{
    return narrow_f16(value);
}

float fp8_e4m3_to_f32(uint8_t bits)
{
    uint32_t sign = ((uint32_t)bits & 0x80u) << 24, magnitude = (uint32_t)bits & 0x7fu;
    /* As in widen_f16: moves the exponent's bias and normalises subnormals, exactly. */
    uint32_t finite = bits_of(float_of(magnitude << 20) * 0x1p120f);
    return float_of(sign | (magnitude == 0x7fu ? 0x7fc00000u : finite));
}

uint8_t fp8_e4m3_from_f32(float value)
{
    uint32_t bits = bits_of(value), sign = (bits >> 24) & 0x80u, magnitude = bits & 0x7fffffffu;
    /* Subnormal results: adding 2^14 lets the float adder round at the 2^-9 place. */
    uint32_t small = bits_of(float_of(magnitude) + 0x1p14f) - 0x46800000u;
    uint32_t normal = (magnitude - 0x3c000000u + 0x7ffffu + ((magnitude >> 20) & 1u)) >> 20;
    uint32_t byte = magnitude < 0x3c800000u ? small : normal;
    byte = magnitude >= 0x43e00000u ? 0x7eu : byte; /* 448 and up */
    byte = magnitude > 0x7f800000u ? 0x7fu : byte;
    return (uint8_t)(sign | byte);
}

static void widen(float *restrict dst, enum dtype dtype, const uint16_t *restrict src, size_t count)
{
    if (dtype == DTYPE_BF16) {
        for (size_t i = 0; i < count; i++)
            dst[i] = widen_bf16(src[i]);
    } else {
        for (size_t i = 0; i < count; i++)
            dst[i] = widen_f16(src[i]);
    }
}

static void narrow(uint16_t *restrict dst, enum dtype dtype, const float *restrict src,
                   size_t count)
{
    if (dtype == DTYPE_BF16) {
        for (size_t i = 0; i < count; i++)
            dst[i] = narrow_bf16(src[i]);
    } else {
        for (size_t i = 0; i < count; i++)
            dst[i] = narrow_f16(src[i]);
    }
}

void dtype_convert(void *dst, enum dtype dst_dtype, const void *src, enum dtype src_dtype,
                   size_t count)
{
    assert(dst_dtype <= DTYPE_F16 && src_dtype <= DTYPE_F16);
    if (dst_dtype == src_dtype) {
        if (count > 0)
            memmove(dst, src, count * dtype_size(dst_dtype));
        return;
    }
    if (dst_dtype == DTYPE_F32) {
        widen(dst, src_dtype, src, count);
        return;
    }
    if (src_dtype == DTYPE_F32) {
        narrow(dst, dst_dtype, src, count);
        return;
    }
    /* bfloat16 to float16 or back: through float32, which holds both exactly. */
    const uint16_t *from = src;
    uint16_t *to = dst;
    for (size_t i = 0; i < count; i++)
        to[i] = src_dtype == DTYPE_BF16 ? narrow_f16(widen_bf16(from[i]))
                                        : narrow_bf16(widen_f16(from[i]));
}
