/* ggml_formats.h - the formats of GGUF files, by the names of ggml's tensor types. */
#ifndef INFERD_KERNELS_QUANT_GGML_FORMATS_H
#define INFERD_KERNELS_QUANT_GGML_FORMATS_H

#include "kernels/quant/quant_format.h"

extern const struct quant_format quant_format_q4_0, quant_format_q4_1, quant_format_q5_0,
    quant_format_q5_1, quant_format_q8_0, quant_format_q2_k, quant_format_q3_k, quant_format_q4_k,
    quant_format_q5_k, quant_format_q6_k, quant_format_iq4_nl, quant_format_iq4_xs,
    quant_format_mxfp4;

#endif
