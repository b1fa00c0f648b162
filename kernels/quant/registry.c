/* registry.c - the list of weight formats; a new format is its file and its line here. Members of
 * families are kept in sets. */
#include "kernels/quant/quant_format.h"

#include "base/alloc.h"
#include "kernels/quant/ggml_formats.h"

#include <stdlib.h>
#include <string.h>

const struct quant_format *const quant_formats[] = {
    &quant_format_float32,
    &quant_format_bfloat16,
    &quant_format_float16,
    &quant_format_q4_0,
    &quant_format_q4_1,
    &quant_format_q5_0,
    &quant_format_q5_1,
    &quant_format_q8_0,
    &quant_format_q2_k,
    &quant_format_q3_k,
    &quant_format_q4_k,
    &quant_format_q5_k,
    &quant_format_q6_k,
    &quant_format_iq4_nl,
    &quant_format_iq4_xs,
    &quant_format_mxfp4,
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

bool quant_format_is_plain(const struct quant_format *f)
{
    return f == &quant_format_float32 || f == &quant_format_bfloat16 || f == &quant_format_float16;
}

const struct quant_format *quant_format_intern(struct quant_format_set *set,
                                               const struct quant_format *f)
{
    const struct quant_format *known = quant_format_find(f->name);
    if (known)
        return known;
    for (size_t i = 0; i < set->count; i++)
        if (strcmp(set->formats[i]->name, f->name) == 0)
            return set->formats[i];
    struct quant_format *copy = xmalloc(sizeof *copy);
    *copy = *f;
    set->formats = xrealloc(set->formats, (set->count + 1) * sizeof(struct quant_format *));
    set->formats[set->count++] = copy;
    return copy;
}

void quant_format_set_free(struct quant_format_set *set)
{
    for (size_t i = 0; i < set->count; i++)
        free(set->formats[i]);
    free(set->formats);
    *set = (struct quant_format_set){ 0 };
}
