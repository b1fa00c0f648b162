/* gguf_type.c - number, name, block and weight format of each type; sizes as in ggml's
 * type_traits. */
#include "engine/model/gguf_type.h"
#include "kernels/quant/ggml_formats.h"

#define PLAIN(NAME, BYTES, DTYPE)                                                                  \
    {                                                                                              \
        { .name = NAME, .size_bytes = BYTES, .is_float = true, .dtype = DTYPE }, 1                 \
    }
#define QUANT(NAME, ELEMENTS, BYTES, FORMAT)                                                       \
    {                                                                                              \
        { .name = NAME, .size_bytes = BYTES, .format = &quant_format_##FORMAT }, ELEMENTS          \
    }
#define OTHER(NAME, ELEMENTS, BYTES)                                                               \
    {                                                                                              \
        { .name = NAME, .size_bytes = BYTES }, ELEMENTS                                            \
    }

/* By number; those without a name were withdrawn. */
static const struct gguf_type types[] = {
    [0] = PLAIN("F32", 4, DTYPE_F32),
    [1] = PLAIN("F16", 2, DTYPE_F16),
    [2] = QUANT("Q4_0", 32, 18, q4_0),
    [3] = QUANT("Q4_1", 32, 20, q4_1),
    [6] = QUANT("Q5_0", 32, 22, q5_0),
    [7] = QUANT("Q5_1", 32, 24, q5_1),
    [8] = QUANT("Q8_0", 32, 34, q8_0),
    [9] = OTHER("Q8_1", 32, 36),
    [10] = QUANT("Q2_K", 256, 84, q2_k),
    [11] = QUANT("Q3_K", 256, 110, q3_k),
    [12] = QUANT("Q4_K", 256, 144, q4_k),
    [13] = QUANT("Q5_K", 256, 176, q5_k),
    [14] = QUANT("Q6_K", 256, 210, q6_k),
    [15] = OTHER("Q8_K", 256, 292),
    [16] = OTHER("IQ2_XXS", 256, 66),
    [17] = OTHER("IQ2_XS", 256, 74),
    [18] = OTHER("IQ3_XXS", 256, 98),
    [19] = OTHER("IQ1_S", 256, 50),
    [20] = QUANT("IQ4_NL", 32, 18, iq4_nl),
    [21] = OTHER("IQ3_S", 256, 110),
    [22] = OTHER("IQ2_S", 256, 82),
    [23] = QUANT("IQ4_XS", 256, 136, iq4_xs),
    [24] = OTHER("I8", 1, 1),
    [25] = OTHER("I16", 1, 2),
    [26] = OTHER("I32", 1, 4),
    [27] = OTHER("I64", 1, 8),
    [28] = OTHER("F64", 1, 8),
    [29] = OTHER("IQ1_M", 256, 56),
    [30] = PLAIN("BF16", 2, DTYPE_BF16),
    [34] = OTHER("TQ1_0", 256, 54),
    [35] = OTHER("TQ2_0", 256, 66),
    [39] = QUANT("MXFP4", 32, 17, mxfp4),
    [40] = OTHER("NVFP4", 64, 36),
};

const struct gguf_type *gguf_type_find(uint32_t number)
{
    bool known = number < sizeof types / sizeof types[0] && types[number].type.name;
    return known ? &types[number] : NULL;
}

void gguf_type_list(struct buf *out)
{
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++)
        if (types[i].type.is_float || types[i].type.format)
            buf_printf(out, "%s%s", out->len ? ", " : "", types[i].type.name);
}
