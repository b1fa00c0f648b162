/* linear.h - the kernels of y = x W^T + bias on the CPU and the layout of packed weights. Private
 * to kernels/cpu.
 *
 * Packed weights are panels of 32 output features, zero rows filling the last one. In a panel the
 * 32 features lie side by side for each step along in_features, so that a kernel reads memory in
 * order, broadcasts x and keeps one accumulator per output:
 *   float32, float16:  [panel][in_features][32]
 *   bfloat16:          [panel][ceil(in_features / 2)][32][2], the operand pairs of vdpbf16ps;
 *                      a missing last element is zero
 *   ggml's formats:    groups of eight rows, their blocks side by side (linear_ggml.h), where there
 *                      is a kernel for them
 *   any other format:  [panel][32] rows as the format stores them, for the kernels that dequantize
 *                      (linear_dequant.c)
 *
 * The order in which an output is summed follows from in_features and the kernel alone: along
 * in_features, in one accumulator, the bias last. Nothing else (rows, tiles, threads, place of a
 * row in its batch) can therefore change a bit of it. */
#ifndef INFERD_KERNELS_CPU_LINEAR_H
#define INFERD_KERNELS_CPU_LINEAR_H

#include "kernels/cpu/cpu_device.h"
#include "kernels/weight.h"

enum {
    LINEAR_PANEL = 32,
    /* Rows of a piece as they come out of dequantize, and as a panel of float32. */
    LINEAR_DEQUANT_BYTES = 2 * LINEAR_PANEL * QUANT_MAX_BLOCK * (int)sizeof(float)
};

/* The form in which a kernel wants x, in the place of a row of float32. For bfloat16 weights x is
 * rounded to bfloat16 by every kernel; those without a bfloat16 product get the rounded values as
 * float32. */
enum linear_input {
    LINEAR_INPUT_F32,
    LINEAR_INPUT_BF16_AS_F32,
    LINEAR_INPUT_BF16,
    LINEAR_INPUT_Q16 /* struct linear_q16 of linear_ggml.h */
};

/* Some rows of x times some neighbouring panels: what one task computes. */
struct linear_block {
    const void *x;      /* [rows, x_stride], zero beyond in_features up to an even count */
    int64_t x_stride;   /* elements */
    const void *packed; /* the first panel */
    float *out;         /* [rows, out_stride], at the first panel's first column */
    int64_t out_stride;
    const float *bias; /* of that column on, or NULL */
    int32_t rows, cols, in_features;
    /* The float32 kernels only: sums go on from what `out` holds, so that columns may come in
     * pieces. To the bit the sums are the same as in one piece. */
    bool resume;
    const struct linear *linear; /* whose panels these are */
    void *scratch;               /* of this thread: LINEAR_DEQUANT_BYTES */
};

struct linear_kernel {
    const char *name;
    enum cpu_isa isa;   /* the least that it needs */
    enum dtype weights; /* of the packed weights, where they are plain */
    enum linear_input input;
    /* `count` elements of a row of x into the form it wants. */
    void (*convert)(void *dst, const float *src, int32_t count);
    void (*run)(const struct linear_block *b);
    /* `num_rows` rows of one panel, from row `first` of it on; src is [num_rows, in_features] in
     * the dtype of the weights, at any alignment. */
    void (*pack)(void *panel, const struct linear *l, int32_t first, int32_t num_rows,
                 const void *src);
    void (*unpack_row)(float *dst, const struct linear *l, int32_t row);
    /* Bytes of a panel, or 0 when the kernel is not made for such weights. NULL: plain weights of
     * dtype `weights`, packed as above. */
    size_t (*panel_bytes)(const struct linear *l);
    const struct quant_format *format; /* the only one it is for; NULL: as panel_bytes says */
};

/* linear.c, for ops that run products of their own. */
int32_t linear_num_panels(const struct linear *l);
void *linear_panel_at(const struct linear *l, int32_t panel);
/* From one converted row of x to the next, in elements: whole cache lines, and never a power of two
 * of them. */
int64_t linear_input_stride(int32_t in_features);
size_t linear_input_element_bytes(const struct linear *l); /* of a converted row */
/* For struct linear_block, of the thread that runs it. */
void *linear_dequant_scratch(const struct cpu_device *d, int32_t thread);
/* A row of x, its columns in the order of the weights. */
void linear_convert_row(const struct linear *l, void *dst, const float *src);

/* linear_pack.c: the layouts above. */
size_t linear_panel_bytes(enum dtype weights, int32_t in_features);
void linear_pack_pairs(void *panel, const struct linear *l, int32_t first, int32_t num_rows,
                       const void *src);
void linear_pack_f32(void *panel, const struct linear *l, int32_t first, int32_t num_rows,
                     const void *src);
void linear_pack_f16(void *panel, const struct linear *l, int32_t first, int32_t num_rows,
                     const void *src);
void linear_unpack_row_pairs(float *dst, const struct linear *l, int32_t row);
void linear_unpack_row_f32(float *dst, const struct linear *l, int32_t row);
void linear_unpack_row_f16(float *dst, const struct linear *l, int32_t row);

/* The table of kernels, ended by one without a name; a later row is preferred. */
extern const struct linear_kernel linear_kernels[];

/* linear_scalar.c */
void linear_run_bf16_scalar(const struct linear_block *b);
void linear_run_f32_scalar(const struct linear_block *b);
void linear_run_f16_scalar(const struct linear_block *b);

/* linear_dequant.c: any format, dequantized piece by piece for a float32 kernel. */
size_t linear_panel_bytes_rows(const struct linear *l);
void linear_pack_rows(void *panel, const struct linear *l, int32_t first, int32_t num_rows,
                      const void *src);
void linear_unpack_row_rows(float *dst, const struct linear *l, int32_t row);
void linear_run_dequant_scalar(const struct linear_block *b);
#if defined(__x86_64__)
void linear_run_dequant_avx2(const struct linear_block *b);
void linear_run_dequant_avx512(const struct linear_block *b);
#endif

#if defined(__x86_64__)
/* x86/linear_<isa>.c */
void linear_run_bf16_avx2(const struct linear_block *b);
void linear_run_f32_avx2(const struct linear_block *b);
void linear_run_f16_avx2(const struct linear_block *b);
void linear_run_bf16_avx512(const struct linear_block *b);
void linear_run_f32_avx512(const struct linear_block *b);
void linear_run_f16_avx512(const struct linear_block *b);
void linear_run_bf16_avx512bf16(const struct linear_block *b);
void linear_convert_bf16_avx512bf16(void *dst, const float *src, int32_t count);
/* x86/linear_ggml_avx2.c */
void linear_convert_q16_avx2(void *dst, const float *src, int32_t count);
void linear_run_q4_0_avx2(const struct linear_block *b);
void linear_run_q4_1_avx2(const struct linear_block *b);
void linear_run_q5_0_avx2(const struct linear_block *b);
void linear_run_q5_1_avx2(const struct linear_block *b);
void linear_run_q8_0_avx2(const struct linear_block *b);
void linear_run_q4_k_avx2(const struct linear_block *b);
void linear_run_q5_k_avx2(const struct linear_block *b);
void linear_run_q6_k_avx2(const struct linear_block *b);
void linear_run_iq4_nl_avx2(const struct linear_block *b);
void linear_run_iq4_xs_avx2(const struct linear_block *b);
void linear_run_mxfp4_avx2(const struct linear_block *b);
#endif

#endif
