/* tensor.h - dtypes, and a view of rows in some device's memory. */
#ifndef INFERD_KERNELS_TENSOR_H
#define INFERD_KERNELS_TENSOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The two of 8 bits are only the KV cache's. */
enum dtype { DTYPE_F32, DTYPE_BF16, DTYPE_F16, DTYPE_I32, DTYPE_F8_E4M3, DTYPE_I8, NUM_DTYPES };

/* A matrix view: `rows` x `cols`, elements of a row contiguous, rows `stride` elements apart.
 * Higher ranks are folded: [num_tokens, num_heads, head_dim] is rows = num_tokens, cols = the
 * product, and the op knows the heads. A view owns nothing. */
struct tensor {
    void *data;
    enum dtype dtype;
    int32_t rows;
    int32_t cols;
    int64_t stride; /* elements between rows, >= cols */
};

/* Device memory with an owner; `data` is a device address. */
struct buffer {
    void *data;
    size_t size_bytes;
};

size_t dtype_size(enum dtype dtype);
const char *dtype_name(enum dtype dtype); /* "float32", "bfloat16", ... as transformers writes it */
/* Knows vLLM's spellings too: half, float. False when unknown, and for those of 8 bits. */
bool dtype_parse(const char *name, enum dtype *out);

/* Scalar conversions; to the nearest, ties to even, NaN kept. */
float bf16_to_f32(uint16_t bits);
uint16_t bf16_from_f32(float value);
float f16_to_f32(uint16_t bits);
uint16_t f16_from_f32(float value);

/* The variant of E4M3 without infinities (Micikevicius et al., 2022, arXiv:2209.05433): up to 448,
 * one NaN of either sign. To it: to the nearest, ties to even; beyond 448 to 448, NaN to NaN. */
float fp8_e4m3_to_f32(uint8_t bits);
uint8_t fp8_e4m3_from_f32(float value);

/* `count` elements from one float dtype to another, any pair of F32, BF16, F16. */
void dtype_convert(void *dst, enum dtype dst_dtype, const void *src, enum dtype src_dtype,
                   size_t count);

static inline struct tensor tensor_view(void *data, enum dtype dtype, int32_t rows, int32_t cols)
{
    return (struct tensor){ data, dtype, rows, cols, cols };
}

/* Columns [begin, begin + count) of every row: q, k and v of a fused projection, say. */
static inline struct tensor tensor_columns(const struct tensor *t, int32_t begin, int32_t count)
{
    struct tensor view = *t;
    view.data = (char *)t->data + (size_t)begin * dtype_size(t->dtype);
    view.cols = count;
    return view;
}

#endif
