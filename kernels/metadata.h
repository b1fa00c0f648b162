/* metadata.h - what a batch tells the ops about its rows.
 *
 * Pointers are device addresses that stay the same from step to step; counts on the host are upper
 * bounds (a captured graph may be replayed for fewer), true lengths are read from the arrays. */
#ifndef INFERD_KERNELS_METADATA_H
#define INFERD_KERNELS_METADATA_H

#include <stdbool.h>
#include <stdint.h>

/* Queries of all sequences lie one after another: sequence s owns the rows
 * [query_start_loc[s], query_start_loc[s + 1]). Its last query has position seq_lens[s] - 1. */
struct attn_metadata {
    int32_t num_seqs, num_tokens;
    int32_t max_query_len, max_seq_len;
    const int32_t *query_start_loc; /* [num_seqs + 1] */
    const int32_t *seq_lens;        /* [num_seqs] computed before plus this step's queries */
    /* [num_seqs, block_table_stride] physical block ids. In a layer with a sliding window, entries
     * of blocks that no query of the step can see may be anything, and are not read. */
    const int32_t *block_tables;
    int32_t block_table_stride;
    const int32_t
        *slot_mapping; /* [num_tokens] block id * block_size + offset; -1: write nothing */
};

/* What one attention layer is, beside its tensors. */
struct attention_params {
    int32_t num_heads, num_kv_heads;
    int32_t head_dim;       /* of queries and keys */
    int32_t value_head_dim; /* of values and results; 0: the same */
    float scale;            /* on q k^T */
    int32_t sliding_window; /* a query sees the last `sliding_window` positions, itself included; 0:
                               all */
    float logit_softcap;    /* c * tanh(score / c); 0: off */
    const float *sinks;     /* [num_heads] an extra logit in the softmax's denominator, or NULL */
};

/* How the next token of each row is chosen. Row r reads logits[r]. The order is vLLM's: allowed
 * mask and bias, min_tokens (as bias entries of -inf), penalties, temperature, min_p, top_k, top_p.
 *
 * The filters keep a prefix of the vocabulary in order of falling logit, then rising id: top_k at
 * most k tokens, min_p those with at least min_p of the best one's probability, top_p those before
 * which less than top_p of the probability left by the other two lies (so at least one). The draw
 * inverts the cumulative distribution of what is kept, in rising order of id, at the 64-bit number
 * word[0] << 32 | word[1] of rng_philox(seed, 0, position).
 *
 * A row that has no answer gets the id -1, and the other rows are not touched by it: where every
 * token is forbidden, or a logit that is not forbidden is NaN or +inf. Ids outside of the
 * vocabulary in token_ids and bias_ids are passed over. token_ids, bias_start and allowed_mask may
 * be NULL where no row uses them. */
struct sampling_metadata {
    int32_t num_rows;
    const float *temperature; /* [num_rows] 0: greedy, the lowest id among equals */
    const float *top_p, *min_p;
    const int32_t *top_k; /* 0: off */
    const float *presence_penalty, *frequency_penalty, *repetition_penalty;
    const uint64_t *seed;            /* key of the counter-based generator */
    const uint64_t *position;        /* its counter: how many output tokens the request has */
    const int32_t *const *token_ids; /* [num_rows] -> prompt then output ids, for penalties */
    const int32_t *num_prompt_tokens, *num_tokens; /* [num_rows] lengths of those */
    const int32_t *bias_start;                     /* [num_rows + 1] into the two below */
    const int32_t *bias_ids;
    const float *bias_values; /* added to the logit; -INFINITY forbids the token */
    const uint32_t *const
        *allowed_mask; /* [num_rows] -> [(vocab + 31) / 32] bits, NULL entry: all */
};

/* Rejection sampling (Leviathan et al., 2023, arXiv:2211.17192): which drafts of a token keep the
 * model's own distribution. Every row has been sampled as if the drafts before it were right, and
 * rows draw from a generator that counts by position. So the draw itself decides: the drafts of
 * sequence s that are what was sampled at their places count, up to the first that is not, and what
 * was sampled there is the token instead. A draft x counts with the model's own probability of x,
 * and what replaces a wrong one has the distribution that is left without it, which is the paper's
 * rule for a proposer that is sure of its draft; and the tokens are those, bit for bit, that come
 * up without drafts. */
struct rejection_request {
    int32_t num_seqs;
    const int32_t *row_start;   /* [num_seqs + 1] into the rows; a sequence may have none */
    const int32_t *sampled_ids; /* [rows] */
    const int32_t *draft_ids;   /* [rows] what stands behind the row; -1 behind a sequence's last */
};

/* Log-probabilities of log_softmax(raw logits): of one target id per row, and the best few. A
 * target outside of the vocabulary (the -1 of a failed row) has logprob -inf and rank 0; rows with
 * NaN among their logits have NaN for logprobs. */
struct logprobs_request {
    int32_t num_rows, max_top; /* max_top: stride of the outputs below */
    const int32_t *target_ids; /* [num_rows] */
    const int32_t *num_top;    /* [num_rows] 0..max_top; -1: skip the row */
    float *target_logprob;     /* [num_rows] */
    int32_t *target_rank;      /* [num_rows] 1 + number of ids with a greater logit */
    int32_t *top_ids;          /* [num_rows, max_top] by falling logit, then rising id */
    float *top_logprobs;       /* [num_rows, max_top] */
};

#endif
