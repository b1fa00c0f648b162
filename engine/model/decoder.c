/* decoder.c - the forward pass, and the arena of activations it works in. */
#include "engine/model/decoder.h"
#include "base/alloc.h"
#include "kernels/backend.h"
#include "kernels/comm.h"

#include <assert.h>
#include <math.h>
#include <stddef.h>
#include <stdlib.h>

/* --- the activation arena -------------------------------------------------------------------- */

/* Buffers of different phases are never alive together, so they share one region; those of one
 * phase and the lasting ones stand side by side. */
enum phase { PHASE_LASTING, PHASE_ATTENTION, PHASE_MLP, PHASE_MOE, PHASE_LOGITS, NUM_PHASES };

enum activation_buffer {
    RESIDUAL,         /* [num_tokens, hidden_size] the sum of all blocks so far */
    HIDDEN,           /* [num_tokens, hidden_size] a block's input, then its output; in the end the
                         final hidden states */
    PARALLEL,         /* [num_tokens, hidden_size] the same for the MLP of a parallel residual */
    COS_SIN,          /* [num_tokens, rotary_dim] */
    SLIDING_COS_SIN,  /* [num_tokens, rotary_dim] where sliding layers rotate in their own way */
    QKV,              /* [num_tokens, q_size + 2 * kv_size] */
    ATTENDED,         /* [num_tokens, q_size], or num_heads * v_head_dim with latents */
    Q_A,              /* [num_tokens, q_lora_rank] these five: of latent attention */
    Q,                /* [num_tokens, num_heads * (qk_nope_head_dim + qk_rope_head_dim)] */
    KV_A,             /* [num_tokens, kv_lora_rank + qk_rope_head_dim] */
    Q_LATENT,         /* [num_tokens, num_heads * kv_lora_rank] */
    ATTENDED_LATENT,  /* [num_tokens, num_heads * kv_lora_rank] */
    ALL_Q,            /* [num_tokens, num_ranks * q_size] of norms over all ranks' heads */
    ALL_K,            /* [num_tokens, num_ranks * kv_size] */
    GATE_UP,          /* [num_tokens, 2 * intermediate_size]; half of it in a plain MLP */
    ACTIVATED,        /* [num_tokens, intermediate_size]; a plain MLP needs none */
    ROUTER_LOGITS,    /* [num_tokens, num_experts] */
    SHARED_GATE_UP,   /* [num_tokens, 2 * shared_expert_intermediate_size] */
    SHARED_ACTIVATED, /* [num_tokens, shared_expert_intermediate_size] */
    SHARED_OUT,       /* [num_tokens, hidden_size] what the shared expert gives */
    SHARED_GATE,      /* [num_tokens, 1] how much it counts, before the sigmoid */
    SELECTED,         /* [num_rows, hidden_size] the rows whose logits are wanted */
    LOGITS_SHARE,     /* [num_rows, vocab_rows] of this rank, where there are several */
    LOGITS,           /* [num_rows, num_ranks * vocab_rows], which is vocab_size or a little more */
    NUM_ACTIVATION_BUFFERS
};

struct activation_row {
    enum phase phase;
    bool per_logits_row; /* rows are max_logits_rows instead of max_num_tokens */
    int32_t cols;
};

/* What o_proj reads. */
static int32_t attended_size(const struct decoder_desc *desc)
{
    return weight_slot_shape(desc, W_O).cols;
}

static void activation_table(const struct decoder_desc *desc,
                             struct activation_row table[NUM_ACTIVATION_BUFFERS])
{
    int32_t q_size = desc->num_attention_heads * desc->head_dim;
    int32_t kv_size = desc->num_key_value_heads * desc->head_dim;
    bool latent = desc->kv_lora_rank > 0;
    int32_t heads = desc->num_attention_heads, latent_size = heads * desc->kv_lora_rank;
    int32_t inner = desc->intermediate_size;
    int32_t shared = desc->shared_expert_intermediate_size;
    bool gated = !desc->traits.plain_mlp;
    int32_t ranks = decoder_desc_num_ranks(desc), vocab_rows = decoder_desc_vocab_rows(desc);
    bool all_heads = desc->traits.qk_norm == QK_NORM_ALL && ranks > 1;
    const struct activation_row rows[NUM_ACTIVATION_BUFFERS] = {
        [RESIDUAL] = { PHASE_LASTING, false, desc->hidden_size },
        [HIDDEN] = { PHASE_LASTING, false, desc->hidden_size },
        [PARALLEL] = { PHASE_LASTING, false, desc->parallel_residual ? desc->hidden_size : 0 },
        [COS_SIN] = { PHASE_LASTING, false, desc->rope.rotary_dim },
        [SLIDING_COS_SIN] = { PHASE_LASTING, false, desc->sliding_rope.rotary_dim },
        [QKV] = { PHASE_ATTENTION, false, latent ? 0 : q_size + 2 * kv_size },
        [ATTENDED] = { PHASE_ATTENTION, false, attended_size(desc) },
        [Q_A] = { PHASE_ATTENTION, false, desc->q_lora_rank },
        [Q] = { PHASE_ATTENTION, false, heads * (desc->qk_nope_head_dim + desc->qk_rope_head_dim) },
        [KV_A] = { PHASE_ATTENTION, false, latent ? desc->head_dim : 0 },
        [Q_LATENT] = { PHASE_ATTENTION, false, latent_size },
        [ATTENDED_LATENT] = { PHASE_ATTENTION, false, latent_size },
        [ALL_Q] = { PHASE_ATTENTION, false, all_heads ? ranks * q_size : 0 },
        [ALL_K] = { PHASE_ATTENTION, false, all_heads ? ranks * kv_size : 0 },
        [GATE_UP] = { PHASE_MLP, false, gated ? 2 * inner : inner },
        [ACTIVATED] = { PHASE_MLP, false, gated ? inner : 0 },
        [ROUTER_LOGITS] = { PHASE_MOE, false, desc->num_experts },
        [SHARED_GATE_UP] = { PHASE_MOE, false, 2 * shared },
        [SHARED_ACTIVATED] = { PHASE_MOE, false, shared },
        [SHARED_OUT] = { PHASE_MOE, false, shared > 0 ? desc->hidden_size : 0 },
        [SHARED_GATE] = { PHASE_MOE, false, desc->traits.shared_expert_gate ? 1 : 0 },
        [SELECTED] = { PHASE_LOGITS, true, desc->hidden_size },
        [LOGITS_SHARE] = { PHASE_LOGITS, true, ranks > 1 ? vocab_rows : 0 },
        [LOGITS] = { PHASE_LOGITS, true, ranks * vocab_rows },
    };
    for (int i = 0; i < NUM_ACTIVATION_BUFFERS; i++)
        table[i] = rows[i];
}

enum { ALIGNMENT = 64 };

/* Where each buffer begins in the arena; returns the arena's size. */
static size_t lay_out(const struct decoder_desc *desc, const struct decoder_limits *l,
                      size_t offsets[NUM_ACTIVATION_BUFFERS])
{
    struct activation_row table[NUM_ACTIVATION_BUFFERS];
    size_t used[NUM_PHASES] = { 0 };
    activation_table(desc, table);
    for (int i = 0; i < NUM_ACTIVATION_BUFFERS; i++) {
        int32_t rows = table[i].per_logits_row ? l->max_logits_rows : l->max_num_tokens;
        size_t bytes = (size_t)rows * (size_t)table[i].cols * sizeof(float);
        offsets[i] = used[table[i].phase];
        used[table[i].phase] += (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    }
    size_t shared = 0;
    for (int phase = PHASE_LASTING + 1; phase < NUM_PHASES; phase++)
        shared = used[phase] > shared ? used[phase] : shared;
    for (int i = 0; i < NUM_ACTIVATION_BUFFERS; i++)
        if (table[i].phase != PHASE_LASTING)
            offsets[i] += used[PHASE_LASTING];
    return used[PHASE_LASTING] + shared;
}

size_t decoder_activation_bytes(const struct decoder_desc *desc, const struct decoder_limits *l)
{
    size_t offsets[NUM_ACTIVATION_BUFFERS];
    return lay_out(desc, l, offsets);
}

static int32_t max3(int32_t a, int32_t b, int32_t c)
{
    int32_t ab = a > b ? a : b;
    return ab > c ? ab : c;
}

void decoder_workspace(const struct decoder_desc *desc, const struct decoder_limits *l,
                       struct workspace_desc *out)
{
    int32_t q_size = desc->num_attention_heads * desc->head_dim;
    int32_t kv_size = desc->num_key_value_heads * desc->head_dim;
    int32_t ranks = desc->q_lora_rank + desc->kv_lora_rank; /* more than either */
    out->max_num_tokens = l->max_num_tokens;
    out->max_logits_rows = l->max_logits_rows;
    int32_t inner = max3(desc->intermediate_size, desc->shared_expert_intermediate_size,
                         desc->moe_intermediate_size);
    out->max_in_features =
        max3(max3(desc->hidden_size, attended_size(desc), inner), ranks, desc->qk_nope_head_dim);
    out->max_out_features = max3(max3(q_size + 2 * kv_size, 2 * inner, desc->num_experts),
                                 desc->hidden_size, desc->vocab_size);
    out->num_experts = desc->num_experts;
    out->num_experts_per_tok = desc->num_experts_per_tok;
    out->moe_hidden_size = desc->num_experts > 0 ? desc->hidden_size : 0;
    out->moe_intermediate_size = desc->moe_intermediate_size;
    out->num_heads = desc->num_attention_heads;
    out->num_kv_heads = desc->num_key_value_heads;
    out->head_dim = desc->head_dim;
    out->latent_dim = desc->kv_lora_rank;
    out->vocab_size = desc->vocab_size;
    out->num_ranks = decoder_desc_num_ranks(desc);
}

/* --- what the backend must offer ------------------------------------------------------------- */

/* A scale that is set and does something. */
static bool is_factor(float scale)
{
    return scale != 0 && scale != 1;
}

bool decoder_check_ops(const struct decoder_desc *desc, const struct backend *backend,
                       struct status *st)
{
    bool latent = desc->kv_lora_rank > 0;
    bool rotates = desc->rope.rotary_dim > 0, gated = !desc->traits.plain_mlp;
    bool scales = desc->traits.scale_embedding || is_factor(desc->embedding_scale) ||
                  is_factor(desc->residual_scale) || is_factor(desc->logits_scale);
    bool shared = desc->shared_expert_intermediate_size > 0;
    bool gated_sum = shared && desc->traits.shared_expert_gate;
    bool adds = desc->traits.norm_placement == NORM_AFTER || desc->parallel_residual ||
                (shared && !gated_sum);
    const struct {
        const char *name;
        bool needed, offered;
    } ops[] = {
        { "embedding", true, backend->embedding != NULL },
        { "norm", true, backend->norm != NULL },
        { "linear", true, backend->linear != NULL },
        { "rotary_cos_sin", rotates, backend->rotary_cos_sin != NULL },
        { "rotary_embedding", rotates, backend->rotary_embedding != NULL },
        { "reshape_and_cache", true, backend->reshape_and_cache != NULL },
        { "attention", !latent, backend->attention != NULL },
        { "attention_mla", latent, backend->attention_mla != NULL },
        { "linear_heads", latent, backend->linear_heads != NULL },
        { "act_and_mul", gated, backend->act_and_mul != NULL },
        { "act", !gated, backend->act != NULL },
        { "moe", desc->num_experts > 0, backend->moe != NULL },
        { "add_gated", gated_sum, backend->add_gated != NULL },
        { "add", adds, backend->add != NULL },
        { "scale", scales, backend->scale != NULL },
        { "softcap", desc->final_logit_softcap > 0, backend->softcap != NULL },
        { "gather_rows", true, backend->gather_rows != NULL },
        { "sample", true, backend->sample != NULL },
        { "rejection_sample", true, backend->rejection_sample != NULL },
        { "logprobs", true, backend->logprobs != NULL },
    };
    for (size_t i = 0; i < sizeof ops / sizeof ops[0]; i++)
        if (ops[i].needed && !ops[i].offered)
            return status_set(st, STATUS_UNSUPPORTED,
                              "%s needs the op %s, which device %s does not offer",
                              desc->architecture, ops[i].name, backend->name);
    return true;
}

/* --- life ------------------------------------------------------------------------------------ */

struct decoder {
    const struct decoder_desc *desc;
    const struct weights *weights;
    struct device *device;
    const struct backend *ops;
    struct comm *comm;
    struct decoder_limits limits;
    const struct kv_layer *kv;         /* [num_hidden_layers] */
    struct attention_params attention; /* of a layer that sees everything */
    float embedding_scale;
    struct buffer arena;
    /* At their largest; a step works on the leading rows. */
    struct tensor buffers[NUM_ACTIVATION_BUFFERS];
    struct tensor logits; /* of the last decoder_logits */
    int32_t num_tokens;   /* of the last decoder_forward */
};

/* transformers makes sqrt(hidden_size) a tensor of the model's dtype, which rounds it. */
static float embedding_scale(const struct decoder_desc *desc, enum dtype dtype)
{
    float scale = desc->embedding_scale;
    unsigned char rounded[sizeof(float)];
    if (!desc->traits.scale_embedding)
        return scale;
    scale = (float)sqrt(desc->hidden_size);
    dtype_convert(rounded, dtype, &scale, DTYPE_F32, 1);
    dtype_convert(&scale, DTYPE_F32, rounded, dtype, 1);
    return scale;
}

bool decoder_new(const struct decoder_desc *desc, const struct weights *w, struct device *d,
                 struct comm *c, const struct decoder_limits *l, const struct kv_layer *kv,
                 struct decoder **out, struct status *st)
{
    struct activation_row table[NUM_ACTIVATION_BUFFERS];
    size_t offsets[NUM_ACTIVATION_BUFFERS];
    struct decoder *dec = xcalloc(1, sizeof *dec);
    size_t bytes = lay_out(desc, l, offsets);
    if (!d->backend->alloc(d, &dec->arena, bytes, MEMORY_DEVICE, st)) {
        free(dec);
        return status_prefix(st, "activations of %zu bytes: ", bytes);
    }
    dec->desc = desc;
    dec->weights = w;
    dec->device = d;
    dec->ops = d->backend;
    dec->comm = c;
    dec->limits = *l;
    dec->kv = kv;
    dec->attention = (struct attention_params){ .num_heads = desc->num_attention_heads,
                                                .num_kv_heads = desc->num_key_value_heads,
                                                .head_dim = desc->head_dim,
                                                .value_head_dim = desc->kv_lora_rank,
                                                .scale = desc->attention_scale,
                                                .logit_softcap = desc->attn_logit_softcap };
    dec->embedding_scale = embedding_scale(desc, w->embedding.format->dtype);
    activation_table(desc, table);
    for (int i = 0; i < NUM_ACTIVATION_BUFFERS; i++)
        dec->buffers[i] = tensor_view(
            (char *)dec->arena.data + offsets[i], DTYPE_F32,
            table[i].per_logits_row ? l->max_logits_rows : l->max_num_tokens, table[i].cols);
    *out = dec;
    return true;
}

void decoder_free(struct decoder *dec)
{
    if (!dec)
        return;
    dec->ops->free(dec->device, &dec->arena);
    free(dec);
}

/* --- forward --------------------------------------------------------------------------------- */

/* The first `rows` rows of a buffer. */
static struct tensor leading_rows(const struct decoder *dec, enum activation_buffer which,
                                  int32_t rows)
{
    struct tensor t = dec->buffers[which];
    assert(rows >= 0 && rows <= t.rows);
    t.rows = rows;
    return t;
}

/* A norm over one head, or over all of them: then the other ranks' are fetched into `all`, and x is
 * this rank's part of that afterwards. */
static void norm_heads(struct decoder *dec, struct tensor *x, const struct norm *norm,
                       enum activation_buffer all)
{
    struct tensor heads = leading_rows(dec, all, x->rows);
    if (heads.cols > 0) {
        int32_t cols = x->cols;
        dec->comm->all_gather(dec->comm, dec->device, &heads, x);
        dec->ops->norm(dec->device, &heads, NULL, &heads, norm);
        *x = tensor_columns(&heads, dec->comm->rank * cols, cols);
        return;
    }
    dec->ops->norm(dec->device, x, NULL, x, norm);
}

/* q and k of the layer: normed, then rotated. */
static void prepare_head(struct decoder *dec, int32_t layer, struct tensor *x,
                         const struct norm *norm, enum activation_buffer all)
{
    const struct decoder_desc *desc = dec->desc;
    const struct weights *w = dec->weights;
    enum layer_rope kind = desc->layers[layer].rope;
    struct tensor cos_sin =
        leading_rows(dec, kind == LAYER_SLIDING_ROPE ? SLIDING_COS_SIN : COS_SIN, x->rows);
    if (desc->traits.qk_norm != QK_NORM_NONE)
        norm_heads(dec, x, norm, all);
    if (kind != LAYER_NO_ROPE && cos_sin.cols > 0)
        dec->ops->rotary_embedding(dec->device, x, desc->head_dim, &cos_sin,
                                   kind == LAYER_SLIDING_ROPE ? &w->sliding_rope : &w->rope);
}

/* out = o_proj(attention(rope(q), rope(k), v)), q, k and v from x (NULL: they are there); out may
 * be x. */
static void attention_block(struct decoder *dec, int32_t layer, struct tensor *out,
                            const struct tensor *x, const struct attn_metadata *attn)
{
    const struct backend *ops = dec->ops;
    struct device *d = dec->device;
    const struct layer_weights *w = &dec->weights->layers[layer];
    int32_t head_dim = dec->desc->head_dim;
    int32_t q_size = dec->desc->num_attention_heads * head_dim;
    int32_t kv_size = dec->desc->num_key_value_heads * head_dim;
    struct tensor qkv = leading_rows(dec, QKV, out->rows);
    struct tensor attended = leading_rows(dec, ATTENDED, out->rows);
    struct tensor q = tensor_columns(&qkv, 0, q_size);
    struct tensor k = tensor_columns(&qkv, q_size, kv_size);
    struct tensor v = tensor_columns(&qkv, q_size + kv_size, kv_size);
    struct attention_params params = dec->attention;
    attn += dec->kv[layer].group;
    if (dec->desc->layers[layer].sliding)
        params.sliding_window = dec->desc->sliding_window;
    params.sinks = w->sinks;

    if (x)
        ops->linear(d, &qkv, x, &w->qkv);
    prepare_head(dec, layer, &q, &w->q_norm, ALL_Q);
    prepare_head(dec, layer, &k, &w->k_norm, ALL_K);
    ops->reshape_and_cache(d, &dec->kv[layer], &k, &v, attn->slot_mapping);
    ops->attention(d, &attended, &q, &dec->kv[layer], attn, &params);
    ops->linear(d, out, &attended, &w->o);
    dec->comm->all_reduce(dec->comm, d, out);
}

/* The same where keys and values are made from latents. Each head's part of kv_b_proj is moved to
 * the other side of the products: keys are compared with queries in the latent's space, and so
 * neither keys nor values are ever made, for prompts as little as for single tokens. */
static void latent_attention_block(struct decoder *dec, int32_t layer, struct tensor *out,
                                   const struct tensor *x, const struct attn_metadata *attn)
{
    const struct backend *ops = dec->ops;
    const struct decoder_desc *desc = dec->desc;
    struct device *d = dec->device;
    const struct layer_weights *w = &dec->weights->layers[layer];
    const struct rope *rope = &dec->weights->rope;
    int32_t heads = desc->num_attention_heads, rope_dim = desc->qk_rope_head_dim;
    int32_t nope_size = heads * desc->qk_nope_head_dim;
    struct tensor q_a = leading_rows(dec, Q_A, x->rows), q = leading_rows(dec, Q, x->rows);
    struct tensor kv = leading_rows(dec, KV_A, x->rows);
    struct tensor attended = leading_rows(dec, ATTENDED, x->rows);
    struct tensor attended_latent = leading_rows(dec, ATTENDED_LATENT, x->rows);
    struct tensor cos_sin = leading_rows(dec, COS_SIN, x->rows);
    struct tensor latent = tensor_columns(&kv, 0, desc->kv_lora_rank);
    struct tensor k_rope = tensor_columns(&kv, desc->kv_lora_rank, rope_dim);
    struct tensor q_nope = tensor_columns(&q, 0, nope_size);
    struct mla_query query = { leading_rows(dec, Q_LATENT, x->rows),
                               tensor_columns(&q, nope_size, heads * rope_dim) };

    attn += dec->kv[layer].group;
    if (q_a.cols > 0) {
        ops->linear(d, &q_a, x, &w->q_a);
        ops->norm(d, &q_a, NULL, &q_a, &w->q_a_norm);
    }
    ops->linear(d, &q, q_a.cols > 0 ? &q_a : x, &w->q);
    ops->linear(d, &kv, x, &w->kv_a);
    ops->norm(d, &latent, NULL, &latent, &w->kv_a_norm);
    ops->rotary_embedding(d, &query.rope, rope_dim, &cos_sin, rope);
    ops->rotary_embedding(d, &k_rope, rope_dim, &cos_sin, rope);
    ops->linear_heads(d, &query.latent, &q_nope, w->kv_b_k, heads);
    ops->reshape_and_cache(d, &dec->kv[layer], &kv, NULL, attn->slot_mapping);
    ops->attention_mla(d, &attended_latent, &query, &dec->kv[layer], attn, &dec->attention);
    ops->linear_heads(d, &attended, &attended_latent, w->kv_b_v, heads);
    ops->linear(d, out, &attended, &w->o);
    dec->comm->all_reduce(dec->comm, d, out);
}

/* out = down_proj(act(gate_proj(x)) * up_proj(x)), or without the gate down_proj(act(up_proj(x)));
 * out may be x. x NULL: gate and up are there. */
static void mlp_block(struct decoder *dec, int32_t layer, struct tensor *out,
                      const struct tensor *x)
{
    const struct backend *ops = dec->ops;
    struct device *d = dec->device;
    const struct layer_weights *w = &dec->weights->layers[layer];
    struct tensor gate_up = leading_rows(dec, GATE_UP, out->rows);
    struct tensor activated = leading_rows(dec, ACTIVATED, out->rows);

    if (x)
        ops->linear(d, &gate_up, x, &w->gate_up);
    if (dec->desc->traits.plain_mlp) {
        ops->act(d, &gate_up, dec->desc->hidden_act);
        activated = gate_up;
    } else {
        ops->act_and_mul(d, &activated, &gate_up, dec->desc->hidden_act);
    }
    ops->linear(d, out, &activated, &w->down);
    dec->comm->all_reduce(dec->comm, d, out);
}

/* shared = down_proj(act(gate_proj(x)) * up_proj(x)) of the expert that all tokens run. */
static void shared_expert(struct decoder *dec, const struct layer_weights *w, struct tensor *out,
                          const struct tensor *x)
{
    const struct backend *ops = dec->ops;
    struct device *d = dec->device;
    struct tensor gate_up = leading_rows(dec, SHARED_GATE_UP, x->rows);
    struct tensor activated = leading_rows(dec, SHARED_ACTIVATED, x->rows);
    ops->linear(d, &gate_up, x, &w->shared_gate_up);
    ops->act_and_mul(d, &activated, &gate_up, dec->desc->hidden_act);
    ops->linear(d, out, &activated, &w->shared_down);
}

/* out = the chosen experts' weighted sum for x, and the shared expert's output; out may be x. */
static void moe_block(struct decoder *dec, int32_t layer, struct tensor *out,
                      const struct tensor *x)
{
    const struct backend *ops = dec->ops;
    struct device *d = dec->device;
    const struct layer_weights *w = &dec->weights->layers[layer];
    struct tensor router_logits = leading_rows(dec, ROUTER_LOGITS, x->rows);
    struct tensor shared = leading_rows(dec, SHARED_OUT, x->rows);
    struct tensor gate = leading_rows(dec, SHARED_GATE, x->rows);

    if (shared.cols > 0)
        shared_expert(dec, w, &shared, x);
    if (gate.cols > 0)
        ops->linear(d, &gate, x, &w->shared_gate);
    ops->linear(d, &router_logits, x, &w->moe.router);
    ops->moe(d, out, x, &router_logits, &w->moe);
    if (gate.cols > 0)
        ops->add_gated(d, out, &shared, &gate);
    else if (shared.cols > 0)
        ops->add(d, out, &shared);
    dec->comm->all_reduce(dec->comm, d, out);
}

static void feed_forward(struct decoder *dec, int32_t layer, struct tensor *out,
                         const struct tensor *x)
{
    if (dec->desc->layers[layer].moe)
        moe_block(dec, layer, out, x);
    else
        mlp_block(dec, layer, out, x);
}

/* What alone reads a block's input; weight NULL: several do. */
struct first_linear {
    const struct linear *weight;
    enum activation_buffer out;
};

/* Adds the block's output `pending` (NULL: there is none yet) to the residual and returns what the
 * next block reads: the residual, normed into `hidden` where norms stand before blocks. NULL: what
 * reads it first has done so, as one op with the norm. */
static const struct tensor *block_input(struct decoder *dec, struct tensor *hidden,
                                        struct tensor *residual, struct tensor *pending,
                                        const struct norm *norm, const struct first_linear *first)
{
    if (dec->desc->traits.norm_placement == NORM_AFTER) {
        if (pending)
            dec->ops->add(dec->device, residual, pending);
        return residual;
    }
    if (pending && dec->ops->norm_linear && first->weight) {
        struct tensor out = leading_rows(dec, first->out, residual->rows);
        dec->ops->norm_linear(dec->device, &out, residual, pending, norm, first->weight);
        return NULL;
    }
    dec->ops->norm(dec->device, hidden, pending ? residual : NULL, pending ? pending : residual,
                   norm);
    return hidden;
}

/* What is done to a block's output before it is added to the residual. */
static void finish_block(struct decoder *dec, struct tensor *out, const struct norm *norm)
{
    if (dec->desc->traits.norm_placement != NORM_BEFORE)
        dec->ops->norm(dec->device, out, NULL, out, norm);
    if (is_factor(dec->desc->residual_scale))
        dec->ops->scale(dec->device, out, dec->desc->residual_scale);
}

/* One layer; leaves its last output pending in `hidden`. */
static void run_layer(struct decoder *dec, int32_t layer, struct tensor *residual,
                      struct tensor *hidden, struct tensor *pending,
                      const struct attn_metadata *attn)
{
    const struct layer_weights *w = &dec->weights->layers[layer];
    const bool latent = dec->desc->kv_lora_rank > 0, both = dec->desc->parallel_residual;
    const struct first_linear qkv = { latent || both ? NULL : &w->qkv, QKV };
    const struct first_linear gate_up = { dec->desc->layers[layer].moe ? NULL : &w->gate_up,
                                          GATE_UP };
    const struct tensor *x = block_input(dec, hidden, residual, pending, &w->input_norm, &qkv);
    struct tensor parallel = leading_rows(dec, PARALLEL, residual->rows);
    if (both) /* before the attention's output is added */
        block_input(dec, &parallel, residual, NULL, &w->post_attention_norm,
                    &(struct first_linear){ 0 });
    if (latent)
        latent_attention_block(dec, layer, hidden, x, attn);
    else
        attention_block(dec, layer, hidden, x, attn);
    finish_block(dec, hidden, &w->attention_out_norm);
    if (both) {
        feed_forward(dec, layer, &parallel, &parallel);
        finish_block(dec, &parallel, &w->mlp_out_norm);
        dec->ops->add(dec->device, hidden, &parallel);
        return;
    }
    x = block_input(dec, hidden, residual, hidden, &w->post_attention_norm, &gate_up);
    feed_forward(dec, layer, hidden, x);
    finish_block(dec, hidden, &w->mlp_out_norm);
}

void decoder_forward(struct decoder *dec, const struct forward_batch *batch)
{
    const struct backend *ops = dec->ops;
    const struct weights *w = dec->weights;
    struct device *d = dec->device;
    struct tensor residual = leading_rows(dec, RESIDUAL, batch->num_tokens);
    struct tensor hidden = leading_rows(dec, HIDDEN, batch->num_tokens);
    struct tensor cos_sin = leading_rows(dec, COS_SIN, batch->num_tokens);
    struct tensor sliding_cos_sin = leading_rows(dec, SLIDING_COS_SIN, batch->num_tokens);
    struct tensor *pending = NULL; /* what the residual still lacks */
    dec->num_tokens = batch->num_tokens;

    ops->embedding(d, &residual, batch->input_ids, &w->embedding);
    dec->comm->all_reduce(dec->comm, d, &residual); /* one rank has the row, the others zeros */
    if (is_factor(dec->embedding_scale))
        ops->scale(d, &residual, dec->embedding_scale);
    if (dec->desc->traits.learned_positions) {
        ops->embedding(d, &hidden, batch->positions, &w->positions);
        pending = &hidden;
    }
    if (cos_sin.cols > 0)
        ops->rotary_cos_sin(d, &cos_sin, batch->positions, &w->rope);
    if (sliding_cos_sin.cols > 0)
        ops->rotary_cos_sin(d, &sliding_cos_sin, batch->positions, &w->sliding_rope);
    for (int32_t layer = 0; layer < dec->desc->num_hidden_layers; layer++) {
        run_layer(dec, layer, &residual, &hidden, pending, batch->attn);
        pending = &hidden;
    }
    ops->norm(d, &hidden, &residual, &hidden, &w->final_norm);
}

const struct tensor *decoder_logits(struct decoder *dec, const int32_t *row_indices,
                                    int32_t num_rows)
{
    const struct decoder_desc *desc = dec->desc;
    struct tensor hidden = leading_rows(dec, HIDDEN, dec->num_tokens);
    struct tensor selected = leading_rows(dec, SELECTED, num_rows);
    struct tensor all = leading_rows(dec, LOGITS, num_rows);
    struct tensor share = leading_rows(dec, LOGITS_SHARE, num_rows);
    struct tensor *logits = share.cols > 0 ? &share : &all;
    dec->ops->gather_rows(dec->device, &selected, &hidden, row_indices);
    dec->ops->linear(dec->device, logits, &selected, dec->weights->head);
    if (is_factor(desc->logits_scale))
        dec->ops->scale(dec->device, logits, 1 / desc->logits_scale);
    if (desc->final_logit_softcap > 0)
        dec->ops->softcap(dec->device, logits, desc->final_logit_softcap);
    if (share.cols > 0)
        dec->comm->all_gather(dec->comm, dec->device, &all, &share);
    dec->logits = tensor_columns(&all, 0, desc->vocab_size);
    return &dec->logits;
}
