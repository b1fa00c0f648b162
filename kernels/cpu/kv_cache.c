/* kv_cache.c - writes new keys and values into the paged cache, in the layout of kv_layout.h. */
#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/cpu_rows.h"
#include "kernels/cpu/kv_layout.h"

#include <assert.h>
#include <math.h>
#include <string.h>

struct cache_args {
    const struct kv_layer *kv;
    struct tensor k, v;
    const int32_t *slot_mapping;
};

/* Elements converted at a time; a row longer than this takes several turns. */
enum { PIECE = 256 };

static void store(char *at, size_t index, const void *elements, int32_t i, size_t size)
{
    if (size == 2)
        memcpy(at + index * 2, (const uint16_t *)elements + i, 2);
    else
        memcpy(at + index * 4, (const uint32_t *)elements + i, 4);
}

/* float16 keeps three more bits than bfloat16 but ends at 65504: what lies beyond is held there,
 * since an infinity would turn into NaN in the softmax. */
static void convert_piece(uint32_t *out, enum dtype dtype, const float *in, int32_t count)
{
    float held[PIECE];
    if (dtype == DTYPE_F16) {
        for (int32_t i = 0; i < count; i++)
            held[i] = in[i] > 65504.0f ? 65504.0f : in[i] < -65504.0f ? -65504.0f : in[i];
        in = held;
    }
    dtype_convert(out, dtype, in, DTYPE_F32, (size_t)count);
}

/* Where one token's vector of one head goes: element i to `index(kv, offset, i)` from data on. */
struct place {
    const struct kv_layer *kv;
    char *data, *scales;
    size_t (*index)(const struct kv_layer *kv, int32_t offset, int32_t dim);
    int32_t offset;
    float scale; /* of the layer, fp8_e4m3 */
};

static void write_floats(const struct place *p, const float *in)
{
    const struct kv_layer *kv = p->kv;
    const size_t size = dtype_size(kv->dtype);
    uint32_t piece[PIECE];
    for (int32_t begin = 0; begin < kv->head_dim; begin += PIECE) {
        int32_t left = kv->head_dim - begin, count = left < PIECE ? left : PIECE;
        convert_piece(piece, kv->dtype, in + begin, count);
        for (int32_t i = 0; i < count; i++)
            store(p->data, p->index(kv, p->offset, begin + i), piece, i, size);
    }
}

static void write_f8(const struct place *p, const float *in)
{
    const float scale = p->scale > 0 ? p->scale : 1;
    for (int32_t i = 0; i < p->kv->head_dim; i++)
        ((uint8_t *)p->data)[p->index(p->kv, p->offset, i)] = fp8_e4m3_from_f32(in[i] / scale);
}

static void write_i8(const struct place *p, const float *in)
{
    float max = 0;
    bool finite = true;
    for (int32_t i = 0; i < p->kv->head_dim; i++) {
        max = fmaxf(max, fabsf(in[i]));
        finite &= isfinite(in[i]) != 0;
    }
    const float scale = finite ? max / 127.0f : NAN;
    for (int32_t i = 0; i < p->kv->head_dim; i++) {
        /* Where the scale is so small that it lost bits, the quotient may lie beyond. */
        float code = scale > 0 ? nearbyintf(in[i] / scale) : 0;
        code = code > 127 ? 127 : code < -127 ? -127 : code;
        ((int8_t *)p->data)[p->index(p->kv, p->offset, i)] = (int8_t)code;
    }
    memcpy(p->scales + (size_t)p->offset * sizeof scale, &scale, sizeof scale);
}

static void write_vector(const struct place *p, const float *in)
{
    if (p->kv->dtype == DTYPE_I8)
        write_i8(p, in);
    else if (p->kv->dtype == DTYPE_F8_E4M3)
        write_f8(p, in);
    else
        write_floats(p, in);
}

static void write_token(const struct cache_args *a, int32_t token, int32_t head)
{
    const struct kv_layer *kv = a->kv;
    const int32_t slot = a->slot_mapping[token], block = slot / kv->block_size;
    const int64_t column = (int64_t)head * kv->head_dim;
    struct place p = { .kv = kv,
                       .data = kv_head_data(kv, kv->k, block, head),
                       .scales = kv_head_scales(kv, kv->k, block, head),
                       .index = kv_k_index,
                       .offset = slot % kv->block_size,
                       .scale = kv->k_scale };
    assert(block < kv->num_blocks);
    write_vector(&p, (const float *)a->k.data + token * a->k.stride + column);
    if (!kv->v)
        return;
    p.data = kv_head_data(kv, kv->v, block, head);
    p.scales = kv_head_scales(kv, kv->v, block, head);
    p.index = kv_v_index;
    p.scale = kv->v_scale;
    write_vector(&p, (const float *)a->v.data + token * a->v.stride + column);
}

/* Heads lie apart in a block, so threads that write different heads never meet; tokens share. */
static void write_heads(const void *arg, int32_t head_begin, int32_t head_end)
{
    const struct cache_args *a = arg;
    for (int32_t head = head_begin; head < head_end; head++)
        for (int32_t token = 0; token < a->k.rows; token++)
            if (a->slot_mapping[token] >= 0)
                write_token(a, token, head);
}

void cpu_reshape_and_cache(struct device *d, const struct kv_layer *kv, const struct tensor *k,
                           const struct tensor *v, const int32_t *slot_mapping)
{
    assert(k->dtype == DTYPE_F32 && k->cols == kv->num_kv_heads * kv->head_dim);
    assert(!v == !kv->v);
    assert(!v || (v->dtype == DTYPE_F32 && v->rows == k->rows && v->cols == k->cols));
    struct cache_args args = { kv, *k, v ? *v : (struct tensor){ 0 }, slot_mapping };
    /* A scattered store costs a few times what a plain one does. */
    cpu_run_rows(cpu_device_of(d), kv->num_kv_heads, 8 * (int64_t)k->rows * kv->head_dim,
                 write_heads, &args);
}
