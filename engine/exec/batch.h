/* batch.h - a step as flat arrays: one staging block on the host, one twin on the device.
 *
 * Filled by the engine thread (batch_fill), read by the worker while the step runs. Addresses never
 * change, so a captured graph can be replayed. Where the device reads host memory the twin is the
 * staging block itself.
 *
 * Two batches may take turns, so that one is filled while the step of the other runs. On a device
 * they have one twin, since that runs one step after the other. A token that is still being sampled
 * is then fed to the next step on the device: the host does not know it yet. */
#ifndef INFERD_ENGINE_EXEC_BATCH_H
#define INFERD_ENGINE_EXEC_BATCH_H

#include "engine/exec/graph_buckets.h"
#include "engine/model/decoder.h"
#include "engine/sched/step.h"

/* Bounds on what one request may bring; the server refuses more. Sized so that the staging block
 * of 128 sequences stays near a megabyte. */
enum { MAX_BIAS_PER_SEQ = 1024 + 256 + MAX_EOS_IDS };

struct batch_limits {
    int32_t max_num_seqs, max_num_tokens, max_model_len, block_size, max_logprobs;
    int32_t max_draft_tokens; /* of a sequence in a step */
    int32_t num_kv_groups;    /* of the KV cache; at least 1 */
    int32_t vocab_size;
    /* Histories and masks, which rows name by pointer, are copied when a row needs them: the device
     * does not read host memory, or the histories grow while it does. */
    bool copy_references;
};

struct batch {
    struct batch_limits limits;
    struct forward_batch forward;                     /* device addresses */
    struct attn_metadata attn[LIMIT_KV_CACHE_GROUPS]; /* what `forward` points at */

    /* --- staging --- */
    int32_t *input_ids, *positions; /* [max_num_tokens] */
    int32_t *slot_mapping;          /* [num_kv_groups, max_num_tokens] */
    int32_t *query_start_loc;       /* [max_num_seqs + 1] */
    int32_t *seq_lens;              /* [max_num_seqs] */
    /* [num_kv_groups, max_num_seqs, block_table_stride] */
    int32_t *block_tables;
    int32_t block_table_stride;
    int32_t num_seqs, max_seq_len; /* of the step, whatever it is padded to */

    /* What the step was padded to (batch_pad); num_seqs 0: it was not. */
    struct graph_bucket bucket;
    bool capture; /* no step: run it to make the bucket's graph, see graph_pool.h */
    int32_t mark; /* the device's, by which this batch's step is waited for */
    bool owns_device;

    /* --- tokens that the step before samples: *feed_dst[i] = feed_from[feed_rows[i]] --- */
    int32_t num_feeds;
    int32_t **feed_dst; /* [2 * max_num_seqs] device addresses: of an input id, and in a history */
    int32_t *feed_rows;
    const int32_t *feed_from; /* device address: that step's sampled_ids */

    /* --- rows that sample: those of step sequence s are [sample_start[s], sample_start[s + 1]),
     * one and one for each of its drafts, or none. max_rows is max_num_seqs times the most of a
     * sequence. --- */
    int32_t num_sample_rows;
    int32_t num_run_rows;  /* of them with the padding, which nobody reads */
    int32_t *sample_rows;  /* [max_rows] token row whose logits are wanted */
    int32_t *sample_start; /* [max_num_seqs + 1] */
    /* The draft behind each row; -1 behind a sequence's last. Where there is one, rejection
     * sampling fills num_accepted. */
    int32_t *draft_ids; /* [max_rows] */
    bool any_drafts;
    struct batch_sampling {
        float *temperature, *top_p, *min_p;
        float *presence_penalty, *frequency_penalty, *repetition_penalty;
        uint64_t *seed, *position;
        int32_t *top_k, *num_prompt_tokens, *num_tokens;
        const int32_t **token_ids;
        const uint32_t **allowed_mask;
        int32_t *bias_start, *bias_ids;
        float *bias_values;
    } sampling;         /* [max_rows] each; bias: CSR */
    bool any_logprobs;  /* some sample row wants them */
    bool make_logprobs; /* a padded batch makes them for rows that say so, wanted or not */
    int32_t *num_top;   /* [max_rows] per sample row; -1: none wanted */

    /* --- prompt tokens whose log-probabilities are wanted --- */
    int32_t num_prompt_rows;
    int32_t *prompt_rows;    /* [max_num_tokens] token row */
    int32_t *prompt_targets; /* the id at the next position */
    int32_t *prompt_num_top;
    int32_t *prompt_seq;       /* which step sequence */
    int32_t *prompt_positions; /* of the target in its prompt */

    /* --- outputs --- */
    int32_t *sampled_ids;                    /* [max_rows] per sample row */
    int32_t *num_accepted;                   /* [max_num_seqs] drafts that were right */
    struct logprobs_request logprobs;        /* per sample row */
    struct logprobs_request prompt_logprobs; /* per prompt row */

    struct buffer host, device; /* device.data == host.data with BACKEND_HOST_MEMORY */
    /* With copy_references: what this step's rows name by pointer, one after another. */
    struct buffer references_host, references_device;
    size_t references_used;
};

/* Exact bytes of the staging block and of the references. */
size_t batch_bytes(const struct batch_limits *limits);
/* `other`: a batch that takes turns with this one, to be closed after it; or NULL. */
bool batch_open(struct batch *b, const struct batch_limits *limits, struct device *d,
                const struct batch *other, struct status *st);
void batch_close(struct batch *b, struct device *d);
/* `previous` is the batch of the step before, where some sequence is fed from that. */
void batch_fill(struct batch *b, const struct step *step, const struct batch *previous);
/* How many tokens every sequence of the filled batch brings and samples at, which is what graphs
 * are of: one, or one and as many drafts for each. 0: they differ. */
int32_t batch_uniform_query_len(const struct batch *b);
/* Adds empty sequences to such a batch, up to the bucket's, and tells the ops its upper bounds:
 * what they are then asked is the same for every step of the bucket. */
void batch_pad(struct batch *b, const struct graph_bucket *bucket);
/* Rows [begin, begin + count) of the sampling rows (or prompt rows), with device addresses. */
void batch_sampling_rows(const struct batch *b, int32_t begin, int32_t count,
                         struct sampling_metadata *out);
void batch_logprob_rows(const struct batch *b, int32_t begin, int32_t count,
                        struct logprobs_request *out);
void batch_prompt_logprob_rows(const struct batch *b, int32_t begin, int32_t count,
                               struct logprobs_request *out);
/* A group's table of a sequence in the staging block. */
int32_t *batch_block_table(const struct batch *b, int32_t group, int32_t seq);
/* Where the device finds what lies at `host` in the staging block. */
const void *batch_on_device(const struct batch *b, const void *host);
/* batch_copy.c: what the worker calls around the forward pass. */
void batch_upload(struct batch *b, struct device *d);
void batch_download(struct batch *b, struct device *d);
/* Spreads the outputs: into `output`, and prompt log-probabilities into the requests. */
void batch_collect(const struct batch *b, const struct step *step, struct step_output *output);

#endif
