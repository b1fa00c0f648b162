/* backend.h - the one seam between the engine and a kind of hardware.
 *
 * One const instance per backend. An op enqueues and returns: it allocates nothing (the workspace
 * is reserved beforehand), reads no device data on the host, and skips padded rows. What goes wrong
 * sticks to the device until sync. An op that is NULL is not offered, and a model that needs it is
 * refused at start-up, by name. All calls on one device come from one thread at a time.
 *
 * Determinism: an output row of any op depends on that row's inputs only, bit for bit; how many
 * other rows ride along, or how a prompt was cut, never changes it. */
#ifndef INFERD_KERNELS_BACKEND_H
#define INFERD_KERNELS_BACKEND_H

#include "kernels/device.h"
#include "kernels/metadata.h"
#include "kernels/weight.h"

enum backend_caps {
    BACKEND_HOST_MEMORY = 1u << 0, /* device addresses are host addresses; no twin is needed */
    BACKEND_CAN_CAPTURE = 1u << 1, /* capture_begin, capture_end and graph_* are there */
    /* Prefers float16 for the KV cache of bfloat16 models: the same bytes, an eighth of the error.
     */
    BACKEND_F16_KV_FOR_BF16 = 1u << 2,
    BACKEND_KV_8BIT = 1u << 3,   /* a KV cache may be fp8_e4m3 or int8 */
    BACKEND_PLAN_ONLY = 1u << 4, /* plans can be made with it, and nothing else, whatever else is
                                    here */
};

enum memory_kind {
    MEMORY_DEVICE,
    MEMORY_PINNED /* host memory the device can copy from at speed */
};
enum copy_kind { COPY_TO_DEVICE, COPY_TO_HOST, COPY_ON_DEVICE };

/* `rows` times `width_bytes`, `pitch_bytes` apart on both sides; a multiple of 4 like the
 * addresses, of which one is of MEMORY_PINNED and the other of MEMORY_DEVICE. */
struct copy_piece {
    void *dst;
    const void *src;
    size_t width_bytes, pitch_bytes;
    int32_t rows;
};
enum { COPY_MAX_PIECES = 64 };

struct comm;
struct graph;

/* Queries of multi-head latent attention (DeepSeek-AI, 2024, arXiv:2405.04434), where all heads
 * share one compressed key: the latent of a token, and then a part that is rotated. Its value is
 * the latent. The queries' parts for the two are separate tensors. */
struct mla_query {
    struct tensor latent; /* [num_tokens, num_heads * value_head_dim] */
    struct tensor rope;   /* [num_tokens, num_heads * (head_dim - value_head_dim)] */
};

struct backend {
    const char *name;
    uint32_t caps;

    /* --- device and memory --- */
    bool (*open)(struct device **out, const struct device_options *options, struct status *st);
    void (*close)(struct device *d);
    /* The calling thread is the one whose ops follow; called where that thread begins. The CPU pins
     * it beside the threads of its pool. */
    void (*bind_thread)(struct device *d);
    /* The calling thread, and those it starts, are going to fill the device's memory: they shall
     * run where that lies. */
    void (*bind_loader)(struct device *d);
    /* Communicators of ranks on these devices, of which no two are one GPU; out[r] is devices[r]'s.
     * NULL: the ranks reach each other's memory, and comm_local_open's do. */
    bool (*comm_open)(struct comm **out, struct device *const *devices, int32_t world_size,
                      struct status *st);
    bool (*memory_info)(struct device *d, struct memory_info *out, struct status *st);
    /* Zeroed, 64-byte aligned. Large pieces are committed as they are touched where the system
     * works that way. */
    bool (*alloc)(struct device *d, struct buffer *out, size_t size_bytes, enum memory_kind kind,
                  struct status *st);
    void (*free)(struct device *d, struct buffer *buffer);
    void (*copy)(struct device *d, void *dst, const void *src, size_t size_bytes,
                 enum copy_kind kind);
    /* Small pieces, at most COPY_MAX_PIECES, in one go. */
    void (*copy_pieces)(struct device *d, const struct copy_piece *pieces, int32_t count);
    /* Waits for all that was enqueued; reports and clears the first error since the last call, or
     * since the last mark. */
    bool (*sync)(struct device *d, struct status *st);
    /* What has been enqueued since the last mark or sync is now known by that mark, 0 to
     * DEVICE_NUM_MARKS - 1; await waits for it, once, and reports its first error. Any thread may
     * await a mark while the device's goes on enqueuing. */
    void (*mark)(struct device *d, int32_t mark);
    bool (*await)(struct device *d, int32_t mark, struct status *st);
    /* Whether await would return at once, be it with an error. NULL: it always does. */
    bool (*is_reached)(struct device *d, int32_t mark);
    /* Exact bytes that reserve_workspace will take. */
    size_t (*workspace_bytes)(const struct device *d, const struct workspace_desc *w);
    bool (*reserve_workspace)(struct device *d, const struct workspace_desc *w, struct status *st);

    /* --- graphs: only with BACKEND_CAN_CAPTURE --- */
    bool (*capture_begin)(struct device *d, struct status *st);
    bool (*capture_end)(struct device *d, struct graph **out, struct status *st);
    bool (*graph_launch)(struct device *d, struct graph *graph);
    void (*graph_free)(struct device *d, struct graph *graph);

    /* --- weights --- */
    /* Chooses the kernel for l's sizes and format, sets l->kernel and l->packed_bytes. One link of
     * a chain at a time, here and in linear_pack. */
    bool (*linear_plan)(const struct device *d, struct linear *l, struct status *st);
    /* A name for how linear_plan's choice lays out packed memory: equal names, sizes and formats
     * mean equal bytes. */
    const char *(*linear_layout)(const struct linear *l);
    /* Packs `num_rows` rows of out_features beginning at row_begin. `rows` is host memory in
     * `format`, each of quant_row_bytes; they are converted to l->format on the way, which must
     * then be one that can be quantized to.
     * Different rows may be packed from several threads at once. */
    void (*linear_pack)(const struct device *d, const struct linear *l, int32_t row_begin,
                        int32_t num_rows, const void *rows, const struct quant_format *format);

    /* --- ops; activations are float32 on the CPU --- */
    /* out[t] = row input_ids[t] of the embedding matrix, or zeros where that is in another rank's
     * part of it; out is [num_tokens, hidden_size]. */
    void (*embedding)(struct device *d, struct tensor *out, const int32_t *input_ids,
                      const struct linear *weight);
    /* With `residual`: residual += x, then out = norm(residual); without: out = norm(x). Also runs
     * per head when x has a multiple of norm->size columns. out may alias x. */
    void (*norm)(struct device *d, struct tensor *out, struct tensor *residual,
                 const struct tensor *x, const struct norm *norm);
    /* out = x W^T + bias; out is [num_tokens, linear_out_features]. out may not alias x. */
    void (*linear)(struct device *d, struct tensor *out, const struct tensor *x,
                   const struct linear *weight);
    /* residual += x, then out = norm(residual) W^T + bias: the bits of norm and then linear,
     * without what is between them. x is lost. NULL: composed of the two. */
    void (*norm_linear)(struct device *d, struct tensor *out, struct tensor *residual,
                        struct tensor *x, const struct norm *norm, const struct linear *weight);
    /* cos_sin[t] = cos then sin of positions[t] * inv_freq, times attention_scaling:
     * [num_tokens, rotary_dim]. Once per step, for all layers that share the rope. */
    void (*rotary_cos_sin)(struct device *d, struct tensor *cos_sin, const int32_t *positions,
                           const struct rope *rope);
    /* In place on q [num_tokens, num_heads * head_dim] or k. */
    void (*rotary_embedding)(struct device *d, struct tensor *x, int32_t head_dim,
                             const struct tensor *cos_sin, const struct rope *rope);
    /* k, v [num_tokens, num_kv_heads * head_dim] into the cache at slot_mapping; v is NULL where
     * kv->v is. */
    void (*reshape_and_cache)(struct device *d, const struct kv_layer *kv, const struct tensor *k,
                              const struct tensor *v, const int32_t *slot_mapping);
    /* Causal attention over the paged cache, which already holds this step's k and v.
     * q: [num_tokens, num_heads * head_dim], out: [num_tokens, num_heads * value_head_dim], which
     * are equal where kv->v is not NULL. */
    void (*attention)(struct device *d, struct tensor *out, const struct tensor *q,
                      const struct kv_layer *kv, const struct attn_metadata *m,
                      const struct attention_params *params);
    /* The same with each query in two parts, see struct mla_query; kv->v is NULL. */
    void (*attention_mla)(struct device *d, struct tensor *out, const struct mla_query *q,
                          const struct kv_layer *kv, const struct attn_metadata *m,
                          const struct attention_params *params);
    /* out[:, h] = x[:, h] W_h^T for each head h, where x and out are [num_tokens, num_heads *
     * in_features or out_features]. `heads` is a host array of linears without biases, of the same
     * sizes, format and kernel, in memory in rising order, the same distance apart. out may not
     * alias x. */
    void (*linear_heads)(struct device *d, struct tensor *out, const struct tensor *x,
                         const struct linear *heads, int32_t num_heads);
    /* out[:, i] = act(x[:, i]) * x[:, n + i], x is [num_tokens, 2n]: gate then up. The up of
     * ACT_SWIGLU_OAI is changed on the way, see there. */
    void (*act_and_mul)(struct device *d, struct tensor *out, const struct tensor *x,
                        enum activation act);
    /* out = the experts' weighted sum for x, see struct moe; out and x are [num_tokens,
     * hidden_size], and out may be x. router_logits [num_tokens, num_experts] are moe->router's. A
     * token's experts are added in falling order of their scores. */
    void (*moe)(struct device *d, struct tensor *out, const struct tensor *x,
                const struct tensor *router_logits, const struct moe *moe);
    /* x[t] += sigmoid(gate[t]) * y[t]; gate is [num_tokens, 1]. */
    void (*add_gated)(struct device *d, struct tensor *x, const struct tensor *y,
                      const struct tensor *gate);
    /* x = act(x), for MLPs without a gate. */
    void (*act)(struct device *d, struct tensor *x, enum activation act);
    /* x = cap * tanh(x / cap), cap > 0. */
    void (*softcap)(struct device *d, struct tensor *x, float cap);
    /* out[i] = x[indices[i]]; out->rows rows. */
    void (*gather_rows)(struct device *d, struct tensor *out, const struct tensor *x,
                        const int32_t *indices);
    /* x += y, or x *= factor. */
    void (*add)(struct device *d, struct tensor *x, const struct tensor *y);
    void (*scale)(struct device *d, struct tensor *x, float factor);
    /* Reads logits [num_rows, vocab_size] float32 and leaves them as they are. A row without an
     * answer gets -1, see metadata.h: its request must end with an error. */
    void (*sample)(struct device *d, int32_t *sampled_ids, const struct tensor *logits,
                   const struct sampling_metadata *m);
    /* num_accepted[s] = drafts of sequence s that count, see struct rejection_request; 0 where it
     * has no rows. */
    void (*rejection_sample)(struct device *d, int32_t *num_accepted,
                             const struct rejection_request *request);
    void (*logprobs)(struct device *d, const struct logprobs_request *request,
                     const struct tensor *logits);
    /* *dst[i] = sampled_ids[rows[i]], or 0 where that is below 0, for i in [0, count). */
    void (*feed_tokens)(struct device *d, int32_t *const *dst, const int32_t *sampled_ids,
                        const int32_t *rows, int32_t count);
};

extern const struct backend backend_cpu;

/* The backend of that name among those in the program itself ("cpu"), or NULL. */
const struct backend *backend_find(const char *name);
/* Opens a device of "cpu", or of "cuda" (or "cuda:N": GPU N, counted on from the options' index),
 * whose backend is a plug-in, inferd_cuda.so beside the program. "auto" takes a GPU when there is
 * one that can be used; else the log says why, and it is the CPU. */
bool backend_open(const char *name, const struct device_options *options, struct device **out,
                  struct status *st);

#endif
