/* cpu_ops.h - the ops that kernels/cpu files implement, and the scratch memory each asks for.
 * Contracts are in kernels/backend.h. Private to kernels/cpu and its tests. */
#ifndef INFERD_KERNELS_CPU_CPU_OPS_H
#define INFERD_KERNELS_CPU_CPU_OPS_H

#include "kernels/cpu/cpu_device.h"

/* linear.c, linear_heads.c, embedding.c */
bool cpu_linear_plan(const struct device *d, struct linear *l, struct status *st);
const char *cpu_linear_layout(const struct linear *l);
void cpu_linear_pack(const struct device *d, const struct linear *l, int32_t row_begin,
                     int32_t num_rows, const void *rows, const struct quant_format *format);
void cpu_linear(struct device *d, struct tensor *out, const struct tensor *x,
                const struct linear *weight);
void cpu_linear_heads(struct device *d, struct tensor *out, const struct tensor *x,
                      const struct linear *heads, int32_t num_heads);
size_t cpu_dequant_scratch_bytes(const struct cpu_device *d);
size_t cpu_linear_scratch_bytes(const struct cpu_device *d, const struct workspace_desc *w);
void cpu_embedding(struct device *d, struct tensor *out, const int32_t *input_ids,
                   const struct linear *weight);
void cpu_gather_rows(struct device *d, struct tensor *out, const struct tensor *x,
                     const int32_t *indices);
void cpu_add(struct device *d, struct tensor *x, const struct tensor *y);
void cpu_scale(struct device *d, struct tensor *x, float factor);

/* layernorm.c, activation.c, rotary_embedding.c */
void cpu_norm(struct device *d, struct tensor *out, struct tensor *residual, const struct tensor *x,
              const struct norm *norm);
void cpu_act_and_mul(struct device *d, struct tensor *out, const struct tensor *x,
                     enum activation act);
void cpu_act(struct device *d, struct tensor *x, enum activation act);
void cpu_softcap(struct device *d, struct tensor *x, float cap);
void cpu_rotary_cos_sin(struct device *d, struct tensor *cos_sin, const int32_t *positions,
                        const struct rope *rope);
void cpu_rotary_embedding(struct device *d, struct tensor *x, int32_t head_dim,
                          const struct tensor *cos_sin, const struct rope *rope);

/* moe.c */
void cpu_moe(struct device *d, struct tensor *out, const struct tensor *x,
             const struct tensor *router_logits, const struct moe *moe);
void cpu_add_gated(struct device *d, struct tensor *x, const struct tensor *y,
                   const struct tensor *gate);
size_t cpu_moe_scratch_bytes(const struct cpu_device *d, const struct workspace_desc *w);

/* kv_cache.c, attention.c */
void cpu_reshape_and_cache(struct device *d, const struct kv_layer *kv, const struct tensor *k,
                           const struct tensor *v, const int32_t *slot_mapping);
void cpu_attention(struct device *d, struct tensor *out, const struct tensor *q,
                   const struct kv_layer *kv, const struct attn_metadata *m,
                   const struct attention_params *params);
void cpu_attention_mla(struct device *d, struct tensor *out, const struct mla_query *q,
                       const struct kv_layer *kv, const struct attn_metadata *m,
                       const struct attention_params *params);
size_t cpu_attention_scratch_bytes(const struct cpu_device *d, const struct workspace_desc *w);

/* sampling.c, rejection_sample.c, logprobs.c */
void cpu_sample(struct device *d, int32_t *sampled_ids, const struct tensor *logits,
                const struct sampling_metadata *m);
void cpu_rejection_sample(struct device *d, int32_t *num_accepted,
                          const struct rejection_request *request);
void cpu_logprobs(struct device *d, const struct logprobs_request *request,
                  const struct tensor *logits);
size_t cpu_sampling_scratch_bytes(const struct cpu_device *d, const struct workspace_desc *w);

#endif
