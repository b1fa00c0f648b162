/* kv_cache.c - writes new keys and values into the paged cache, in the layout of kv_layout.h. */
#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/cpu_rows.h"
#include "kernels/cpu/kv_layout.h"

#include <assert.h>
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

static void write_token(const struct cache_args *a, int32_t token, int32_t head)
{
    const struct kv_layer *kv = a->kv;
    const int32_t slot = a->slot_mapping[token];
    const int32_t block = slot / kv->block_size, offset = slot % kv->block_size;
    const size_t size = dtype_size(kv->dtype);
    const int64_t column = (int64_t)head * kv->head_dim;
    const float *k = (const float *)a->k.data + token * a->k.stride + column;
    char *k_out = kv_head_data(kv, kv->k, block, head);
    uint32_t piece[PIECE];
    assert(block < kv->num_blocks);
    for (int32_t begin = 0; begin < kv->head_dim; begin += PIECE) {
        int32_t left = kv->head_dim - begin, count = left < PIECE ? left : PIECE;
        convert_piece(piece, kv->dtype, k + begin, count);
        for (int32_t i = 0; i < count; i++)
            store(k_out, kv_k_index(kv, offset, begin + i), piece, i, size);
        if (!kv->v)
            continue;
        const float *v = (const float *)a->v.data + token * a->v.stride + column;
        char *v_out = kv_head_data(kv, kv->v, block, head);
        convert_piece(piece, kv->dtype, v + begin, count);
        for (int32_t i = 0; i < count; i++)
            store(v_out, kv_v_index(kv, offset, begin + i), piece, i, size);
    }
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
