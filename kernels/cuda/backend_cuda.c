/* backend_cuda.c - the GPU as a backend: the workspace, the ops as launches, the list of ops. */
#include "kernels/backend.h"

#include "kernels/cuda/comm_cuda.h"
#include "kernels/cuda/cuda_device.h"
#include "kernels/plugin.h"

#include <assert.h>
#include <stddef.h>

/* --- workspace -------------------------------------------------------------------------------- */

static size_t cuda_workspace_bytes(const struct device *d, const struct workspace_desc *w)
{
    (void)d;
    struct cuda_workspace_parts p = cuda_workspace_parts(w);
    return cuda_workspace_total(&p);
}

static bool cuda_reserve_workspace(struct device *device, const struct workspace_desc *w,
                                   struct status *st)
{
    struct cuda_device *d = cuda_device_of(device);
    struct cuda_workspace_parts p = cuda_workspace_parts(w);
    const int32_t value_dim = w->latent_dim > 0 ? w->latent_dim : w->head_dim;
    if (value_dim > CUDA_MAX_VALUE_DIM)
        return status_set(st, STATUS_UNSUPPORTED,
                          "the model's attention has values of %d elements, and the cuda backend's "
                          "kernels take up to %d: serve it with --device cpu",
                          value_dim, CUDA_MAX_VALUE_DIM);
    cuda_free(device, &d->workspace);
    d->linear_input = d->sampling = NULL;
    d->moe = NULL;
    d->partials = NULL;
    d->linear_input_bytes = d->comm_scratch_bytes = 0;
    d->comm_scratch = NULL;
    d->partial_slots = 0;
    if (!cuda_alloc(device, &d->workspace, cuda_workspace_total(&p), MEMORY_DEVICE, st))
        return status_prefix(st, "workspace for %d tokens in a step: ", w->max_num_tokens);
    char *at = d->workspace.data;
    d->limits = *w;
    d->linear_input = at;
    d->linear_input_bytes = p.linear;
    d->partials = (float *)(at + p.linear);
    d->partial_slots = p.partial_slots;
    d->sampling = at + p.linear + p.attention;
    d->moe = at + p.linear + p.attention + p.sampling;
    d->comm_scratch = (float *)(at + p.linear + p.attention + p.sampling + p.moe);
    d->comm_scratch_bytes = p.comm;
    cuda_linear_prepare(d, at + p.linear + p.attention + p.sampling + p.moe + p.comm, p.cublaslt);
    return true;
}

/* --- attention -------------------------------------------------------------------------------- */

struct attention_kernel {
    const char *name;
    uint32_t dtypes; /* of the cache, 1 << dtype each */
    int32_t min_arch, max_head_dim, head_dim_multiple;
    uint32_t flags;
    void (*run)(struct cuda_device *d, struct cuda_attention *a);
};

/* Sequences whose rows fit a few tiles are decode's, the others prefill's; both see all of them. */
static void run_mma(struct cuda_device *d, struct cuda_attention *a)
{
    const int32_t group = a->params.num_heads / a->params.num_kv_heads;
    const int32_t spans = cuda_num_spans(a->m.max_seq_len);
    const int32_t tiles = cuda_decode_tiles(a->m.max_query_len, group), slots = spans * tiles;
    const int32_t at_once = slots > 0 ? d->partial_slots / slots : 0;
    assert(slots <= d->partial_slots);
    a->decode_rows = tiles * CUDA_ATTENTION_ROWS;
    if ((int64_t)a->m.max_query_len * group > a->decode_rows)
        cuda_launch_attention_prefill(a, d->stream);
    a->partials = d->partials;
    for (int32_t seq = 0; at_once > 0 && seq < a->m.num_seqs; seq += at_once) {
        a->seq_begin = seq;
        a->seq_end = a->m.num_seqs - seq < at_once ? a->m.num_seqs : seq + at_once;
        cuda_launch_attention_decode(a, d->stream);
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
static const struct attention_kernel attention_kernels[] = {
    { "simt", DTYPE_BIT(DTYPE_F32) | BITS_16 | BITS_8, 80, CUDA_MAX_VALUE_DIM, 1,
      CUDA_BATCH_INVARIANT, run_simt },
    { "mma", BITS_16 | BITS_8, 80, 256, 8, CUDA_BATCH_INVARIANT, run_mma },
};

static void cuda_attention(struct device *device, struct tensor *out, const struct tensor *q,
                           const struct kv_layer *kv, const struct attn_metadata *m,
                           const struct attention_params *params)
{
    struct cuda_device *d = cuda_device_of(device);
    struct cuda_attention a = {
        .out = *out,
        .q = *q,
        .kv = cuda_kv_of(kv),
        .m = *m,
        .params = *params,
        .max_shared_bytes = d->max_shared_bytes,
    };
    const struct attention_kernel *chosen = NULL;
    assert(q->dtype == DTYPE_F32 && out->dtype == DTYPE_F32);
    assert(params->num_kv_heads > 0 && params->num_heads % params->num_kv_heads == 0);
    assert(kv->num_kv_heads == params->num_kv_heads && kv->head_dim == params->head_dim);
    for (size_t i = 0; i < sizeof attention_kernels / sizeof attention_kernels[0]; i++) {
        const struct attention_kernel *k = &attention_kernels[i];
        if ((k->dtypes & DTYPE_BIT(kv->dtype)) && k->min_arch <= d->arch &&
            kv->head_dim <= k->max_head_dim && kv->head_dim % k->head_dim_multiple == 0)
            chosen = k;
    }
    if (chosen)
        chosen->run(d, &a);
    else if (device->error.code == STATUS_OK)
        status_set(&device->error, STATUS_UNSUPPORTED,
                   "the cuda backend has no attention for heads of %d %s elements", kv->head_dim,
                   dtype_name(kv->dtype));
    cuda_check(d, cudaGetLastError(), "attention");
}

/* --- the other ops: one launch each ----------------------------------------------------------- */

static void launched(struct cuda_device *d, const char *op)
{
    cuda_check(d, cudaGetLastError(), op);
}

static void cuda_embedding(struct device *device, struct tensor *out, const int32_t *input_ids,
                           const struct linear *weight)
{
    struct cuda_device *d = cuda_device_of(device);
    const struct cuda_matrix matrix = cuda_matrix_of(weight);
    assert(out->dtype == DTYPE_F32 && out->cols == weight->in_features);
    cuda_launch_embedding(out, input_ids, &matrix, d->fault, d->stream);
    launched(d, "embedding");
}

static void cuda_gather_rows(struct device *device, struct tensor *out, const struct tensor *x,
                             const int32_t *indices)
{
    struct cuda_device *d = cuda_device_of(device);
    assert(out->dtype == DTYPE_F32 && x->dtype == DTYPE_F32 && out->cols == x->cols);
    cuda_launch_gather_rows(out, x, indices, d->fault, d->stream);
    launched(d, "gather_rows");
}

static void cuda_norm(struct device *device, struct tensor *out, struct tensor *residual,
                      const struct tensor *x, const struct norm *norm)
{
    struct cuda_device *d = cuda_device_of(device);
    const struct tensor none = { 0 };
    assert(x->dtype == DTYPE_F32 && out->dtype == DTYPE_F32);
    assert(norm->size > 0 && x->cols % norm->size == 0 && out->cols == x->cols);
    assert(out->rows == x->rows && (!residual || residual->rows == x->rows));
    cuda_launch_norm(out, residual ? residual : &none, x, norm, d->stream);
    launched(d, "norm");
}

static void cuda_norm_linear(struct device *device, struct tensor *out, struct tensor *residual,
                             struct tensor *x, const struct norm *norm, const struct linear *weight)
{
    if (x->cols == norm->size &&
        cuda_norm_codes_linear(cuda_device_of(device), out, residual, x, norm, weight))
        return;
    cuda_norm(device, x, residual, x, norm);
    cuda_linear(device, out, x, weight);
}

static void cuda_rotary_cos_sin(struct device *device, struct tensor *cos_sin,
                                const int32_t *positions, const struct rope *rope)
{
    struct cuda_device *d = cuda_device_of(device);
    assert(cos_sin->dtype == DTYPE_F32 && rope->rotary_dim % 2 == 0);
    assert(cos_sin->cols >= rope->rotary_dim);
    cuda_launch_rotary_cos_sin(cos_sin, positions, rope, d->stream);
    launched(d, "rotary_cos_sin");
}

static void cuda_rotary_embedding(struct device *device, struct tensor *x, int32_t head_dim,
                                  const struct tensor *cos_sin, const struct rope *rope)
{
    struct cuda_device *d = cuda_device_of(device);
    assert(x->dtype == DTYPE_F32 && cos_sin->dtype == DTYPE_F32 && x->rows <= cos_sin->rows);
    assert(head_dim > 0 && x->cols % head_dim == 0 && rope->rotary_dim <= head_dim);
    cuda_launch_rotary_embedding(x, head_dim, cos_sin, rope, d->stream);
    launched(d, "rotary_embedding");
}

static void cuda_reshape_and_cache(struct device *device, const struct kv_layer *kv,
                                   const struct tensor *k, const struct tensor *v,
                                   const int32_t *slot_mapping)
{
    struct cuda_device *d = cuda_device_of(device);
    const struct tensor none = { 0 };
    assert(k->dtype == DTYPE_F32 && k->cols == kv->num_kv_heads * kv->head_dim);
    assert(!v == !kv->v && (!v || v->dtype == DTYPE_F32));
    assert(!v || (v->rows == k->rows && v->cols == k->cols));
    const struct cuda_kv cache = cuda_kv_of(kv);
    cuda_launch_reshape_and_cache(&cache, k, v ? v : &none, slot_mapping, d->stream);
    launched(d, "reshape_and_cache");
}

static void cuda_act_and_mul(struct device *device, struct tensor *out, const struct tensor *x,
                             enum activation act)
{
    struct cuda_device *d = cuda_device_of(device);
    assert(x->dtype == DTYPE_F32 && out->dtype == DTYPE_F32);
    assert(x->cols == 2 * out->cols && x->rows == out->rows);
    cuda_launch_activation(out, x, (int32_t)act, true, d->stream);
    launched(d, "act_and_mul");
}

static void cuda_act(struct device *device, struct tensor *x, enum activation act)
{
    struct cuda_device *d = cuda_device_of(device);
    assert(x->dtype == DTYPE_F32);
    cuda_launch_activation(x, x, (int32_t)act, false, d->stream);
    launched(d, "act");
}

static void cuda_softcap(struct device *device, struct tensor *x, float cap)
{
    struct cuda_device *d = cuda_device_of(device);
    assert(x->dtype == DTYPE_F32 && cap > 0);
    cuda_launch_softcap(x, cap, d->stream);
    launched(d, "softcap");
}

static void cuda_add(struct device *device, struct tensor *x, const struct tensor *y)
{
    struct cuda_device *d = cuda_device_of(device);
    assert(x->dtype == DTYPE_F32 && y->dtype == DTYPE_F32);
    assert(x->rows == y->rows && x->cols == y->cols);
    cuda_launch_add(x, y, d->stream);
    launched(d, "add");
}

static void cuda_add_gated(struct device *device, struct tensor *x, const struct tensor *y,
                           const struct tensor *gate)
{
    struct cuda_device *d = cuda_device_of(device);
    assert(x->rows == y->rows && x->cols == y->cols && gate->rows == x->rows);
    cuda_launch_add_gated(x, y, gate, d->stream);
    launched(d, "add_gated");
}

static void cuda_scale(struct device *device, struct tensor *x, float factor)
{
    struct cuda_device *d = cuda_device_of(device);
    assert(x->dtype == DTYPE_F32);
    cuda_launch_scale(x, factor, d->stream);
    launched(d, "scale");
}

static void cuda_sample(struct device *device, int32_t *sampled_ids, const struct tensor *logits,
                        const struct sampling_metadata *m)
{
    struct cuda_device *d = cuda_device_of(device);
    assert(logits->dtype == DTYPE_F32 && logits->rows >= m->num_rows && logits->cols > 0);
    assert(logits->cols <= d->limits.vocab_size && m->num_rows <= d->limits.max_logits_rows);
    cuda_launch_sample(sampled_ids, logits, m, d->sampling, d->stream);
    launched(d, "sample");
}

static void cuda_rejection_sample(struct device *device, int32_t *num_accepted,
                                  const struct rejection_request *request)
{
    struct cuda_device *d = cuda_device_of(device);
    cuda_launch_rejection_sample(num_accepted, request, d->stream);
    launched(d, "rejection_sample");
}

static void cuda_logprobs(struct device *device, const struct logprobs_request *request,
                          const struct tensor *logits)
{
    struct cuda_device *d = cuda_device_of(device);
    assert(logits->dtype == DTYPE_F32 && logits->cols > 0 && logits->rows >= request->num_rows);
    cuda_launch_logprobs(request, logits, d->stream);
    launched(d, "logprobs");
}

static void cuda_feed_tokens(struct device *device, int32_t *const *dst, const int32_t *sampled_ids,
                             const int32_t *rows, int32_t count)
{
    struct cuda_device *d = cuda_device_of(device);
    cuda_launch_feed_tokens(dst, sampled_ids, rows, count, d->stream);
    launched(d, "feed_tokens");
}

extern const struct backend backend_cuda;
const struct backend backend_cuda = {
    .name = "cuda",
    .caps = BACKEND_CAN_CAPTURE | BACKEND_KV_8BIT,
    .open = cuda_open,
    .close = cuda_close,
    .bind_thread = cuda_bind_thread,
    .bind_loader = cuda_bind_loader,
    .comm_open = cuda_comm_open,
    .memory_info = cuda_memory_info,
    .alloc = cuda_alloc,
    .free = cuda_free,
    .copy = cuda_copy,
    .copy_pieces = cuda_copy_pieces,
    .sync = cuda_sync,
    .mark = cuda_mark,
    .await = cuda_await,
    .is_reached = cuda_is_reached,
    .workspace_bytes = cuda_workspace_bytes,
    .reserve_workspace = cuda_reserve_workspace,
    .capture_begin = cuda_capture_begin,
    .capture_end = cuda_capture_end,
    .graph_launch = cuda_graph_launch,
    .graph_free = cuda_graph_free,
    .linear_plan = cuda_linear_plan,
    .linear_layout = cuda_linear_layout,
    .linear_pack = cuda_linear_pack,
    .embedding = cuda_embedding,
    .norm = cuda_norm,
    .norm_linear = cuda_norm_linear,
    .linear = cuda_linear,
    .linear_heads = cuda_linear_heads,
    .moe = cuda_moe,
    .rotary_cos_sin = cuda_rotary_cos_sin,
    .rotary_embedding = cuda_rotary_embedding,
    .reshape_and_cache = cuda_reshape_and_cache,
    .attention = cuda_attention,
    .attention_mla = cuda_attention_mla,
    .act_and_mul = cuda_act_and_mul,
    .act = cuda_act,
    .softcap = cuda_softcap,
    .add_gated = cuda_add_gated,
    .gather_rows = cuda_gather_rows,
    .add = cuda_add,
    .scale = cuda_scale,
    .sample = cuda_sample,
    .rejection_sample = cuda_rejection_sample,
    .logprobs = cuda_logprobs,
    .feed_tokens = cuda_feed_tokens,
};

extern const struct backend_plugin inferd_backend_plugin;
const struct backend_plugin inferd_backend_plugin = { .version = INFERD_VERSION,
                                                      .backend_bytes = sizeof(struct backend),
                                                      .backend = &backend_cuda };
