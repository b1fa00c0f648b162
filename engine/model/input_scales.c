/* input_scales.c - see input_scales.h. */
#include "engine/model/input_scales.h"

#include "engine/model/checkpoint.h"
#include "engine/model/weights_load.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static bool read_scale(const struct checkpoint *c, const char *module, float *out,
                       struct status *st)
{
    enum { NAME_BYTES = 512 };
    char name[NAME_BYTES];
    if (snprintf(name, sizeof name, "%s.input_scale", module) >= NAME_BYTES)
        return status_set(st, STATUS_INVALID, "%s: the name of a module is too long", module);
    const struct checkpoint_tensor *t = checkpoint_find(c, name);
    if (!t)
        return status_set(st, STATUS_INVALID,
                          "there is no tensor '%s', the static scale of activations that "
                          "quantization_config speaks of",
                          name);
    return checkpoint_tensor_scale(t, "activations", out, st);
}

bool input_scales_read(const struct model *m, struct weights *w, struct status *st)
{
    for (size_t i = 0; i < m->tensors.count; i++) {
        const struct tensor_map_entry *e = &m->tensors.entries[i];
        struct linear *l = weights_linear(w, e->slot, e->layer, e->expert);
        int32_t row = e->row_begin;
        float scale;
        if (!e->quant || !e->quant->scheme->input_static || !l)
            continue;
        for (; row >= l->out_features; l = l->next)
            row -= l->out_features;
        if (l->input_quant.kind == INPUT_QUANT_NONE)
            continue;
        if (!read_scale(m->checkpoint, e->quant->name, &scale, st))
            return false;
        l->input_quant.scale = fmaxf(l->input_quant.scale, scale);
    }
    return true;
}
