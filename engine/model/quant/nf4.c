/* nf4.c - bitsandbytes' 4-bit NormalFloat: the codes of a whole matrix, row after row, in blocks;
 * a block's greatest magnitude, as float32 or once more quantized (8 bits by a table of 256 values,
 * in blocks with float32 scales, around an offset); and quant_state, a JSON text with the rest. */
#include "kernels/quant/nf4.h"
#include "config/limits.h"
#include "engine/model/json_file.h"
#include "engine/model/quant/quant_layout.h"

#include <string.h>

enum { WEIGHT, STATE, ABSMAX, QUANT_MAP, NESTED_ABSMAX, NESTED_MAP };

/* What quant_state says. */
struct state {
    int32_t block_size, nested_block_size;
    float nested_offset;
    enum dtype dtype;
};

static float read_f32(const struct checkpoint_tensor *t, int64_t at)
{
    float value;
    memcpy(&value, t->data + (size_t)at * sizeof value, sizeof value);
    return value;
}

static int32_t block_size_of(const json_t *json, const char *key)
{
    json_int_t size = json_integer_value(json_object_get(json, key));
    return size >= 2 && size <= QUANT_MAX_BLOCK && size % 2 == 0 ? (int32_t)size : 0;
}

static bool bad_state(const struct quant_source *s, const char *what, const json_t *value,
                      struct status *st)
{
    return status_set(st, STATUS_UNSUPPORTED, "%s: tensor '%s': %s is %s, which is not supported",
                      s->tensors[STATE]->file, s->tensors[STATE]->name, what,
                      json_show(value).text);
}

static bool read_state(const struct quant_source *s, struct state *out, struct status *st)
{
    const struct checkpoint_tensor *t = s->tensors[STATE];
    if (t->size_bytes > LIMIT_MODEL_CONFIG_BYTES)
        return status_set(st, STATUS_INVALID, "%s: tensor '%s' is too large", t->file, t->name);
    json_t *json = json_text_parse((const char *)t->data, t->size_bytes, t->name, st);
    if (!json)
        return false;
    const json_t *dtype = json_object_get(json, "dtype"), *shape = json_object_get(json, "shape");
    const char *name = json_string_value(dtype);
    bool nested = s->tensors[NESTED_ABSMAX] != NULL, ok = true;
    out->block_size = block_size_of(json, "blocksize");
    out->nested_block_size = block_size_of(json, "nested_blocksize");
    out->nested_offset = (float)json_number_value(json_object_get(json, "nested_offset"));
    if (!name || !dtype_parse(name, &out->dtype) || out->dtype > DTYPE_F16)
        ok = bad_state(s, "dtype", dtype, st);
    else if (out->block_size == 0)
        ok = bad_state(s, "blocksize", json_object_get(json, "blocksize"), st);
    else if (nested && out->nested_block_size == 0)
        ok = bad_state(s, "nested_blocksize", json_object_get(json, "nested_blocksize"), st);
    else if (json_array_size(shape) != 2 ||
             json_integer_value(json_array_get(shape, 0)) != s->rows ||
             json_integer_value(json_array_get(shape, 1)) != s->cols)
        ok = status_set(st, STATUS_INVALID,
                        "%s: tensor '%s': shape is %s, config.json asks for [%d, %d]", t->file,
                        t->name, json_show(shape).text, s->rows, s->cols);
    json_decref(json);
    return ok;
}

static bool check(struct quant_source *s, struct quant_format *format, struct status *st)
{
    int64_t bytes = ((int64_t)s->rows * s->cols + 1) / 2;
    struct state state;
    if (!quant_check_tensor(s, STATE, "U8", (int64_t[]){ -1 }, 1, st) ||
        !read_state(s, &state, st) ||
        !quant_check_tensor(s, WEIGHT, "U8", (int64_t[]){ bytes, 1 }, 2, st) ||
        !quant_check_tensor(s, QUANT_MAP, "F32", (int64_t[]){ 16 }, 1, st))
        return false;
    if (s->cols % state.block_size != 0)
        return status_set(st, STATUS_UNSUPPORTED,
                          "%s: blocks of %d go over the ends of rows of %d, which is not supported",
                          s->name, state.block_size, s->cols);
    int64_t blocks = (int64_t)s->rows * s->cols / state.block_size;
    bool nested = s->tensors[NESTED_ABSMAX] != NULL;
    if (!quant_check_tensor(s, ABSMAX, nested ? "U8" : "F32", (int64_t[]){ blocks }, 1, st))
        return false;
    if (nested && !s->tensors[NESTED_MAP])
        return status_set(st, STATUS_INVALID, "tensor '%s%s' is missing", s->name,
                          s->scheme->layout->tensors[NESTED_MAP].suffix);
    if (nested &&
        (!quant_check_tensor(s, NESTED_ABSMAX, "F32",
                             (int64_t[]){ (blocks - 1) / state.nested_block_size + 1 }, 1, st) ||
         !quant_check_tensor(s, NESTED_MAP, "F32", (int64_t[]){ 256 }, 1, st)))
        return false;
    *format = nf4_format(state.block_size, state.dtype);
    return true;
}

/* The values are not the file's to choose: kernels have them built in. */
static bool check_values(const struct quant_source *s, struct status *st)
{
    const struct checkpoint_tensor *t = s->tensors[QUANT_MAP];
    for (int i = 0; i < 16; i++)
        if (read_f32(t, i) != nf4_values[i])
            return status_set(st, STATUS_UNSUPPORTED,
                              "%s: tensor '%s' holds other values than those of nf4", t->file,
                              t->name);
    return true;
}

static float scale_of(const struct quant_source *s, const struct state *state, int64_t block)
{
    if (!s->tensors[NESTED_ABSMAX])
        return read_f32(s->tensors[ABSMAX], block);
    float value = read_f32(s->tensors[NESTED_MAP], s->tensors[ABSMAX]->data[block]);
    return value * read_f32(s->tensors[NESTED_ABSMAX], block / state->nested_block_size) +
           state->nested_offset;
}

static void read_rows(const struct quant_source *s, void *dst, int32_t first, int32_t count,
                      int32_t step)
{
    const struct quant_format *f = s->format;
    struct state state = { 0 };
    struct status ignored; /* it was checked when the model was opened */
    (void)read_state(s, &state, &ignored);
    size_t half = (size_t)f->block_elements / 2;
    int32_t blocks = s->cols / f->block_elements;
    unsigned char *at = dst;
    for (int32_t i = 0; i < count; i++)
        for (int64_t b = 0; b < blocks; b++, at += f->block_bytes) {
            int64_t block = (int64_t)(first + i * step) * blocks + b;
            float scale = scale_of(s, &state, block);
            memcpy(at, &scale, sizeof scale);
            memcpy(at + sizeof scale, s->tensors[WEIGHT]->data + (size_t)block * half, half);
        }
}

const struct quant_layout quant_layout_nf4 = {
    .name = "nf4",
    .tensors = { { ".weight", false },
                 { ".weight.quant_state.bitsandbytes__nf4", false },
                 { ".weight.absmax", false },
                 { ".weight.quant_map", false },
                 { ".weight.nested_absmax", true },
                 { ".weight.nested_quant_map", true } },
    .check = check,
    .check_values = check_values,
    .read_rows = read_rows,
};
