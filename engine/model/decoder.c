/* decoder.c - the forward pass, and the arena of activations it works in. */
#include "engine/model/decoder.h"
#include "base/alloc.h"
#include "kernels/backend.h"
#include "kernels/comm.h"

#include <assert.h>
#include <stddef.h>
#include <stdlib.h>

/* --- the activation arena -------------------------------------------------------------------- */

/* Buffers of different phases are never alive together, so they share one region; those of one
 * phase and the lasting ones stand side by side. */
enum phase { PHASE_LASTING, PHASE_ATTENTION, PHASE_MLP, PHASE_LOGITS, NUM_PHASES };

enum activation_buffer {
    RESIDUAL, /* [num_tokens, hidden_size] the sum of all blocks so far */
    HIDDEN,   /* [num_tokens, hidden_size] a block's input, then its output; the final hidden states
               */
    COS_SIN,  /* [num_tokens, rotary_dim] */
    QKV,      /* [num_tokens, q_size + 2 * kv_size] */
    ATTENDED, /* [num_tokens, q_size] */
    GATE_UP,  /* [num_tokens, 2 * intermediate_size] */
    ACTIVATED, /* [num_tokens, intermediate_size] */
    SELECTED,  /* [num_rows, hidden_size] the rows whose logits are wanted */
    LOGITS,    /* [num_rows, vocab_size] */
    NUM_ACTIVATION_BUFFERS
};

struct activation_row {
    enum phase phase;
    bool per_logits_row; /* rows are max_logits_rows instead of max_num_tokens */
    int32_t cols;
};

static void activation_table(const struct decoder_desc *desc,
                             struct activation_row table[NUM_ACTIVATION_BUFFERS])
{
    int32_t q_size = desc->num_attention_heads * desc->head_dim;
    int32_t kv_size = desc->num_key_value_heads * desc->head_dim;
    const struct activation_row rows[NUM_ACTIVATION_BUFFERS] = {
        [RESIDUAL] = { PHASE_LASTING, false, desc->hidden_size },
        [HIDDEN] = { PHASE_LASTING, false, desc->hidden_size },
        [COS_SIN] = { PHASE_LASTING, false, desc->rope.rotary_dim },
        [QKV] = { PHASE_ATTENTION, false, q_size + 2 * kv_size },
        [ATTENDED] = { PHASE_ATTENTION, false, q_size },
        [GATE_UP] = { PHASE_MLP, false, 2 * desc->intermediate_size },
        [ACTIVATED] = { PHASE_MLP, false, desc->intermediate_size },
        [SELECTED] = { PHASE_LOGITS, true, desc->hidden_size },
        [LOGITS] = { PHASE_LOGITS, true, desc->vocab_size },
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
    out->max_num_tokens = l->max_num_tokens;
    out->max_logits_rows = l->max_logits_rows;
    out->max_in_features = max3(desc->hidden_size, q_size, desc->intermediate_size);
    out->max_out_features = max3(max3(q_size + 2 * kv_size, 2 * desc->intermediate_size, 0),
                                 desc->hidden_size, desc->vocab_size);
    out->num_heads = desc->num_attention_heads;
    out->num_kv_heads = desc->num_key_value_heads;
    out->head_dim = desc->head_dim;
    out->vocab_size = desc->vocab_size;
}

/* --- what the backend must offer ------------------------------------------------------------- */

bool decoder_check_ops(const struct decoder_desc *desc, const struct backend *backend,
                       struct status *st)
{
    const struct {
        const char *name;
        bool offered;
    } needed[] = {
        { "embedding", backend->embedding != NULL },
        { "norm", backend->norm != NULL },
        { "linear", backend->linear != NULL },
        { "rotary_cos_sin", backend->rotary_cos_sin != NULL },
        { "rotary_embedding", backend->rotary_embedding != NULL },
        { "reshape_and_cache", backend->reshape_and_cache != NULL },
        { "attention", backend->attention != NULL },
        { "act_and_mul", backend->act_and_mul != NULL },
        { "gather_rows", backend->gather_rows != NULL },
        { "sample", backend->sample != NULL },
        { "logprobs", backend->logprobs != NULL },
    };
    for (size_t i = 0; i < sizeof needed / sizeof needed[0]; i++)
        if (!needed[i].offered)
            return status_set(st, STATUS_UNSUPPORTED,
                              "%s needs the op %s, which device %s does not offer",
                              desc->architecture, needed[i].name, backend->name);
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
    const struct kv_layer *kv; /* [num_hidden_layers] */
    struct attention_params attention;
    struct buffer arena;
    /* At their largest; a step works on the leading rows. */
    struct tensor buffers[NUM_ACTIVATION_BUFFERS];
    struct tensor logits; /* the rows of the last decoder_logits */
    int32_t num_tokens;   /* of the last decoder_forward */
};

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
                                                .scale = desc->attention_scale };
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

/* hidden = o_proj(attention(rope(q), rope(k), v)), q, k and v from hidden. */
static void attention_block(struct decoder *dec, int32_t layer, struct tensor *hidden,
                            const struct tensor *cos_sin, const struct attn_metadata *attn)
{
    const struct backend *ops = dec->ops;
    struct device *d = dec->device;
    const struct layer_weights *w = &dec->weights->layers[layer];
    const struct rope *rope = &dec->weights->rope;
    int32_t head_dim = dec->desc->head_dim;
    int32_t q_size = dec->desc->num_attention_heads * head_dim;
    int32_t kv_size = dec->desc->num_key_value_heads * head_dim;
    struct tensor qkv = leading_rows(dec, QKV, hidden->rows);
    struct tensor attended = leading_rows(dec, ATTENDED, hidden->rows);
    struct tensor q = tensor_columns(&qkv, 0, q_size);
    struct tensor k = tensor_columns(&qkv, q_size, kv_size);
    struct tensor v = tensor_columns(&qkv, q_size + kv_size, kv_size);

    ops->linear(d, &qkv, hidden, &w->qkv);
    ops->rotary_embedding(d, &q, head_dim, cos_sin, rope);
    ops->rotary_embedding(d, &k, head_dim, cos_sin, rope);
    ops->reshape_and_cache(d, &dec->kv[layer], &k, &v, attn->slot_mapping);
    ops->attention(d, &attended, &q, &dec->kv[layer], attn, &dec->attention);
    ops->linear(d, hidden, &attended, &w->o);
    dec->comm->all_reduce(dec->comm, d, hidden);
}

/* hidden = down_proj(act(gate_proj(hidden)) * up_proj(hidden)). */
static void mlp_block(struct decoder *dec, int32_t layer, struct tensor *hidden)
{
    const struct backend *ops = dec->ops;
    struct device *d = dec->device;
    const struct layer_weights *w = &dec->weights->layers[layer];
    struct tensor gate_up = leading_rows(dec, GATE_UP, hidden->rows);
    struct tensor activated = leading_rows(dec, ACTIVATED, hidden->rows);

    ops->linear(d, &gate_up, hidden, &w->gate_up);
    ops->act_and_mul(d, &activated, &gate_up, dec->desc->hidden_act);
    ops->linear(d, hidden, &activated, &w->down);
    dec->comm->all_reduce(dec->comm, d, hidden);
}

void decoder_forward(struct decoder *dec, const struct forward_batch *batch)
{
    const struct backend *ops = dec->ops;
    const struct weights *w = dec->weights;
    struct device *d = dec->device;
    struct tensor residual = leading_rows(dec, RESIDUAL, batch->num_tokens);
    struct tensor hidden = leading_rows(dec, HIDDEN, batch->num_tokens);
    struct tensor cos_sin = leading_rows(dec, COS_SIN, batch->num_tokens);
    dec->num_tokens = batch->num_tokens;

    ops->embedding(d, &residual, batch->input_ids, &w->embedding);
    ops->rotary_cos_sin(d, &cos_sin, batch->positions, &w->rope);
    for (int32_t layer = 0; layer < dec->desc->num_hidden_layers; layer++) {
        const struct layer_weights *lw = &w->layers[layer];
        /* The first block has nothing to add to the embeddings. */
        if (layer == 0)
            ops->norm(d, &hidden, NULL, &residual, &lw->input_norm);
        else
            ops->norm(d, &hidden, &residual, &hidden, &lw->input_norm);
        attention_block(dec, layer, &hidden, &cos_sin, &batch->attn);
        ops->norm(d, &hidden, &residual, &hidden, &lw->post_attention_norm);
        mlp_block(dec, layer, &hidden);
    }
    ops->norm(d, &hidden, &residual, &hidden, &w->final_norm);
}

const struct tensor *decoder_logits(struct decoder *dec, const int32_t *row_indices,
                                    int32_t num_rows)
{
    struct tensor hidden = leading_rows(dec, HIDDEN, dec->num_tokens);
    struct tensor selected = leading_rows(dec, SELECTED, num_rows);
    dec->logits = leading_rows(dec, LOGITS, num_rows);
    dec->ops->gather_rows(dec->device, &selected, &hidden, row_indices);
    dec->ops->linear(dec->device, &dec->logits, &selected, dec->weights->head);
    return &dec->logits;
}
