/* cuda_weight_layout.h - how rows of each weight format lie in a GPU's memory: the arithmetic
 * alone, without CUDA, so that a plan can be made where there is none. */
#ifndef INFERD_KERNELS_CUDA_CUDA_WEIGHT_LAYOUT_H
#define INFERD_KERNELS_CUDA_CUDA_WEIGHT_LAYOUT_H

#include "kernels/cuda/cuda_sizes.h"
#include "kernels/weight.h"

#include <string.h>

/* By name, since formats of the same name are one. Those of families begin with it. */
static const struct {
    const char *name;
    enum cuda_codec codec;
} cuda_codec_names[] = {
    { "int4_", CUDA_INT4 },    { "int8_", CUDA_INT8 },  { "fp8_", CUDA_FP8 },
    { "nf4_", CUDA_NF4 },      { "q4_0", CUDA_Q4_0 },   { "q4_1", CUDA_Q4_1 },
    { "q5_0", CUDA_Q5_0 },     { "q5_1", CUDA_Q5_1 },   { "q8_0", CUDA_Q8_0 },
    { "q2_k", CUDA_Q2_K },     { "q3_k", CUDA_Q3_K },   { "q4_k", CUDA_Q4_K },
    { "q5_k", CUDA_Q5_K },     { "q6_k", CUDA_Q6_K },   { "iq4_nl", CUDA_IQ4_NL },
    { "iq4_xs", CUDA_IQ4_XS }, { "mxfp4", CUDA_MXFP4 },
};

static inline enum cuda_codec cuda_codec_of(const struct quant_format *f)
{
    for (size_t i = 0; i < sizeof cuda_codec_names / sizeof cuda_codec_names[0]; i++) {
        const size_t length = strlen(cuda_codec_names[i].name);
        const bool family = cuda_codec_names[i].name[length - 1] == '_';
        if (strncmp(f->name, cuda_codec_names[i].name, length) == 0 &&
            (family || f->name[length] == '\0'))
            return cuda_codec_names[i].codec;
    }
    return CUDA_PLAIN;
}

/* The words' rows: codes first, then the numbers of each group. A group that is no power of two
 * becomes several, with the same numbers. */
static inline bool cuda_words_layout(struct cuda_weight_layout *out, const struct quant_format *f,
                                     int32_t in_features)
{
    const int32_t bits = out->codec == CUDA_INT4 || out->codec == CUDA_NF4 ? 4 : 8;
    const int64_t stride = cuda_weight_stride(in_features);
    const int64_t codes = (stride * bits / 8 + CUDA_CODE_CHUNK - 1) / CUDA_CODE_CHUNK;
    const bool has_second =
        (out->codec == CUDA_INT4 || out->codec == CUDA_INT8) && f->offset != QUANT_OFFSET_MIDDLE;
    if (f->header_bytes == 0 && f->block_elements % 8 != 0)
        return false;
    out->group_shift = CUDA_ONE_GROUP;
    if (f->header_bytes == 0)
        for (out->group_shift = 3; (f->block_elements >> out->group_shift) % 2 == 0;)
            out->group_shift++;
    out->offset = has_second ? (int32_t)f->offset : (int32_t)QUANT_OFFSET_MIDDLE;
    out->head_bytes = (int32_t)(out->codec == CUDA_NF4 ? sizeof(float) : dtype_size(f->dtype)) *
                      (has_second ? 2 : 1);
    out->heads_at = codes * CUDA_CODE_CHUNK;
    out->row_bytes =
        out->heads_at + (((stride - 1) >> out->group_shift) + 1) * (int64_t)out->head_bytes;
    return true;
}

/* Of f, whose codec it is. False where the GPU has no kernels for the format; it is then to be
 * widened to f->dtype. */
static inline bool cuda_weight_layout(struct cuda_weight_layout *out, enum cuda_codec codec,
                                      const struct quant_format *f, int32_t in_features)
{
    *out =
        (struct cuda_weight_layout){ .codec = codec, .dtype = f->dtype, .scale_dtype = f->dtype };
    if (codec == CUDA_PLAIN) {
        out->row_bytes = cuda_weight_stride(in_features) * (int64_t)dtype_size(f->dtype);
        return quant_format_is_plain(f);
    }
    /* Tensor cores take 16 bits, and what float32 scales stand for may lie beyond float16. */
    if (f->dtype == DTYPE_F32)
        out->dtype = DTYPE_BF16;
    /* ggml: whole blocks, as many as activations are padded to. */
    if (codec > CUDA_NF4)
        out->row_bytes = (int64_t)quant_row_bytes(f, cuda_weight_stride(in_features));
    else if (!cuda_words_layout(out, f, in_features))
        return false;
    out->row_bytes = (out->row_bytes + CUDA_ROW_ALIGN - 1) / CUDA_ROW_ALIGN * CUDA_ROW_ALIGN;
    return true;
}

/* How the GPU holds l: in l's format, or in the plain one nearest to it, which then becomes l's,
 * where it has no kernels for that. False, with l as it was, where there is no such plain one. */
static inline bool cuda_weight_plan(struct cuda_weight_layout *out, struct linear *l)
{
    if (cuda_weight_layout(out, cuda_codec_of(l->format), l->format, l->in_features))
        return true;
    const struct quant_format *plain = quant_format_of_dtype(l->format->dtype);
    if (!plain || !cuda_weight_layout(out, CUDA_PLAIN, plain, l->in_features))
        return false;
    l->format = plain;
    return true;
}

#endif
