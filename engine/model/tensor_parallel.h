/* tensor_parallel.h - one rank's share of a model (Shoeybi et al., 2019, arXiv:1909.08053).
 *
 * Column-parallel linears (q, k, v by heads; gate, up) are cut along their rows, the row-parallel
 * ones that follow them (o, down) along their columns, and the ranks' results are summed. So every
 * rank has its heads, its KV heads and its part of each MLP and of each expert; a KV head goes to
 * several ranks where there are fewer heads than ranks. Embedding and head are cut along the
 * vocabulary, whose last share is filled up with rows of zeros. Norms, routers and position
 * embeddings are everywhere. All shares have the same sizes.
 *
 * A share is a model like any other: plan, load and forward pass take it as they take the whole. */
#ifndef INFERD_ENGINE_MODEL_TENSOR_PARALLEL_H
#define INFERD_ENGINE_MODEL_TENSOR_PARALLEL_H

#include "engine/model/model.h"

/* Refuses a number of ranks that the model cannot be divided among; the message has those it can
 * be. */
bool tensor_parallel_check(const struct model *m, int32_t size, struct status *st);
/* What rank `rank` of `size` holds of `whole`, which must outlive it and is read only. Free it with
 * tensor_parallel_share_free. */
struct model *tensor_parallel_share(const struct model *whole, int32_t rank, int32_t size);
void tensor_parallel_share_free(struct model *share);

#endif
