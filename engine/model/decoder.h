/* decoder.h - the one forward pass: walks decoder_desc, calls device ops and the communicator.
 *
 * No allocation, no waiting, no reading of device data: what it enqueues can be captured as a
 * graph, where the communicator can. Owned by one worker. The activations are one arena, planned
 * exactly. With several ranks `desc` is the share's, and every rank must be called with the same
 * batch and rows. */
#ifndef INFERD_ENGINE_MODEL_DECODER_H
#define INFERD_ENGINE_MODEL_DECODER_H

#include "engine/model/weights.h"
#include "kernels/metadata.h"

struct decoder_limits {
    int32_t max_num_tokens;  /* of one step */
    int32_t max_logits_rows; /* of one decoder_logits call */
};

/* One step's input, device addresses. */
struct forward_batch {
    int32_t num_tokens;
    const int32_t *input_ids;         /* [num_tokens] */
    const int32_t *positions;         /* [num_tokens] */
    const struct attn_metadata *attn; /* host array, by kv_layer.group */
};

struct decoder;

/* Exact bytes of the activation arena, the logits included. */
size_t decoder_activation_bytes(const struct decoder_desc *desc, const struct decoder_limits *l);
/* Sizes the device's workspace must have for this model. The caller fills in max_num_seqs,
 * max_model_len and block_size. */
void decoder_workspace(const struct decoder_desc *desc, const struct decoder_limits *l,
                       struct workspace_desc *out);
/* Refuses, by name, a model that needs an op the backend does not offer. */
bool decoder_check_ops(const struct decoder_desc *desc, const struct backend *backend,
                       struct status *st);
/* `kv`: [num_hidden_layers], must outlive the decoder. */
bool decoder_new(const struct decoder_desc *desc, const struct weights *w, struct device *d,
                 struct comm *c, const struct decoder_limits *l, const struct kv_layer *kv,
                 struct decoder **out, struct status *st);
void decoder_free(struct decoder *dec);
/* Enqueues the layers and the final norm for the batch; the hidden states stay in the decoder. */
void decoder_forward(struct decoder *dec, const struct forward_batch *batch);
/* Enqueues the head for the hidden states of rows row_indices[0..num_rows) (device array); returns
 * the logits [num_rows, vocab_size] float32, valid until the next call on this decoder. Each row is
 * computed from that row alone; several calls may follow one forward. */
const struct tensor *decoder_logits(struct decoder *dec, const int32_t *row_indices,
                                    int32_t num_rows);

#endif
