/* attention_mla_cuda.c - latent attention as an op: which kernel takes it, and its launches. */
#include "kernels/cuda/cuda_device.h"

#include <assert.h>

struct mla_kernel {
    const char *name;
    uint32_t dtypes; /* of the cache, 1 << dtype each */
    int32_t min_arch, max_head_dim, max_value_dim, multiple;
    uint32_t flags;
    void (*run)(struct cuda_device *d, struct cuda_attention *a);
};

/* As run_mma of backend_cuda.c: sequences with few rows are decode's, the others prefill's. A slot
 * has room for the heads of one query at least; where no sequence has more queries than a few, each
 * gets as many slots as that takes, if there are as many for the longest. */
static void run_mma(struct cuda_device *d, struct cuda_attention *a)
{
    const int32_t heads = a->params.num_heads, spans = cuda_num_spans(a->m.max_seq_len);
    const int32_t rows = cuda_mla_slot_rows(heads);
    int32_t slots = 1;
    assert(spans <= d->partial_slots && heads <= d->limits.num_heads);
    assert(a->params.value_head_dim <= d->limits.latent_dim);
    if (a->m.max_query_len <= CUDA_MLA_DECODE_QUERIES) {
        const int32_t wanted = (a->m.max_query_len * heads + rows - 1) / rows;
        slots = wanted > 1 && (int64_t)wanted * spans <= d->partial_slots ? wanted : 1;
    }
    const int32_t at_once = spans > 0 ? d->partial_slots / (spans * slots) : 0;
    a->decode_rows = slots * rows;
    if ((int64_t)a->m.max_query_len * heads > a->decode_rows)
        cuda_launch_attention_mla_prefill(a, d->stream);
    a->partials = d->partials;
    for (int32_t seq = 0; at_once > 0 && seq < a->m.num_seqs; seq += at_once) {
        a->seq_begin = seq;
        a->seq_end = a->m.num_seqs - seq < at_once ? a->m.num_seqs : seq + at_once;
        cuda_launch_attention_mla_decode(a, d->stream);
    }
}

static void run_simt(struct cuda_device *d, struct cuda_attention *a)
{
    cuda_launch_attention_simt(a, d->stream);
}

#define DTYPE_BIT(dtype) (1u << (dtype))
#define BITS_16          (DTYPE_BIT(DTYPE_BF16) | DTYPE_BIT(DTYPE_F16))
#define BITS_8           (DTYPE_BIT(DTYPE_F8_E4M3) | DTYPE_BIT(DTYPE_I8))

/* The last row that fits is taken. */
static const struct mla_kernel kernels[] = {
    { "simt", DTYPE_BIT(DTYPE_F32) | BITS_16 | BITS_8, 80, INT32_MAX, CUDA_MAX_VALUE_DIM, 1,
      CUDA_BATCH_INVARIANT, run_simt },
    { "mma", BITS_16 | BITS_8, 80, CUDA_MLA_MAX_HEAD_DIM, CUDA_MLA_MAX_VALUE_DIM, 8,
      CUDA_BATCH_INVARIANT, run_mma },
};

static bool fits(const struct mla_kernel *k, const struct cuda_device *d, enum dtype dtype,
                 const struct attention_params *p)
{
    return (k->dtypes & DTYPE_BIT(dtype)) && k->min_arch <= d->arch &&
           p->head_dim <= k->max_head_dim && p->value_head_dim <= k->max_value_dim &&
           p->head_dim % k->multiple == 0 && p->value_head_dim % k->multiple == 0;
}

void cuda_attention_mla(struct device *device, struct tensor *out, const struct mla_query *q,
                        const struct kv_layer *kv, const struct attn_metadata *m,
                        const struct attention_params *params)
{
    struct cuda_device *d = cuda_device_of(device);
    const struct mla_kernel *chosen = NULL;
    struct cuda_attention a = { .out = *out,
                                .q = q->latent,
                                .q_rope = q->rope,
                                .kv = cuda_kv_of(kv),
                                .m = *m,
                                .params = *params,
                                .max_shared_bytes = d->max_shared_bytes };
    assert(q->latent.dtype == DTYPE_F32 && q->rope.dtype == DTYPE_F32 && out->dtype == DTYPE_F32);
    assert(params->num_kv_heads == 1 && kv->num_kv_heads == 1 && !kv->v);
    assert(kv->head_dim == params->head_dim && params->value_head_dim > 0);
    assert(q->latent.cols == params->num_heads * params->value_head_dim);
    assert(q->rope.cols == params->num_heads * (params->head_dim - params->value_head_dim));
    for (size_t i = 0; i < sizeof kernels / sizeof kernels[0]; i++)
        if (fits(&kernels[i], d, kv->dtype, params))
            chosen = &kernels[i];
    if (chosen)
        chosen->run(d, &a);
    else if (device->error.code == STATUS_OK)
        status_set(&device->error, STATUS_UNSUPPORTED,
                   "the cuda backend has no latent attention for keys of %d %s elements",
                   kv->head_dim, dtype_name(kv->dtype));
    cuda_check(d, cudaGetLastError(), "attention_mla");
}
