/* registry.c - the list of weight formats; a new format is its file and its line here. */
#include "kernels/quant/quant_format.h"

#include <string.h>

const struct quant_format *const quant_formats[] = {
    &quant_format_float32,
    &quant_format_bfloat16,
    &quant_format_float16,
    NULL,
};

const struct quant_format *quant_format_find(const char *name)
{
    for (size_t i = 0; name && quant_formats[i]; i++)
        if (strcmp(quant_formats[i]->name, name) == 0)
            return quant_formats[i];
    return NULL;
}

const struct quant_format *quant_format_of_dtype(enum dtype dtype)
{
    switch (dtype) {
    case DTYPE_F32:
        return &quant_format_float32;
    case DTYPE_BF16:
        return &quant_format_bfloat16;
    case DTYPE_F16:
        return &quant_format_float16;
    default:
        return NULL;
    }
}
