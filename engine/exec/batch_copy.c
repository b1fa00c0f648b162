/* batch_copy.c - a batch's arrays on their way to the device and back: of each only what the step
 * uses, all in one go. */
#include "engine/exec/batch.h"

#include <assert.h>

/* What of the arrays this step uses, to be copied in one go. */
struct pieces {
    struct copy_piece list[COPY_MAX_PIECES];
    int32_t count;
    const struct batch *batch;
    bool to_device;
};

/* `rows` times `width` bytes, `pitch` apart, of an array of the staging block. */
static void add_rows(struct pieces *p, void *array, size_t width, size_t pitch, int32_t rows)
{
    void *twin = (void *)batch_on_device(p->batch, array);
    assert(p->count < COPY_MAX_PIECES);
    if (width > 0 && rows > 0)
        p->list[p->count++] = (struct copy_piece){ .dst = p->to_device ? twin : array,
                                                   .src = p->to_device ? array : twin,
                                                   .width_bytes = width,
                                                   .pitch_bytes = pitch,
                                                   .rows = rows };
}

static void add_piece(struct pieces *p, void *array, int32_t count, size_t size)
{
    add_rows(p, array, (size_t)count * size, 0, 1);
}

static void add_words(struct pieces *p, void *array, int32_t count)
{
    add_piece(p, array, count, sizeof(int32_t));
}

static void add_tokens(struct pieces *p, struct batch *b)
{
    const int32_t num_tokens = b->forward.num_tokens, num_seqs = b->attn[0].num_seqs;
    const struct batch_limits *l = &b->limits;
    add_words(p, b->input_ids, num_tokens);
    add_words(p, b->positions, num_tokens);
    add_rows(p, b->slot_mapping, (size_t)num_tokens * sizeof(int32_t),
             (size_t)l->max_num_tokens * sizeof(int32_t), l->num_kv_groups);
    add_words(p, b->query_start_loc, num_seqs + 1);
    add_words(p, b->seq_lens, num_seqs);
    const int32_t num_blocks = (b->max_seq_len + l->block_size - 1) / l->block_size;
    for (int32_t g = 0; g < l->num_kv_groups; g++)
        add_rows(p, batch_block_table(b, g, 0), (size_t)num_blocks * sizeof(int32_t),
                 (size_t)b->block_table_stride * sizeof(int32_t), b->num_seqs);
}

static void add_sampling(struct pieces *p, struct batch *b)
{
    const struct batch_sampling *s = &b->sampling;
    const int32_t rows = b->num_run_rows;
    void *const words[] = {
        b->sample_rows,      s->temperature,       s->top_p,  s->min_p,
        s->presence_penalty, s->frequency_penalty, s->top_k,  s->repetition_penalty,
        s->num_tokens,       s->num_prompt_tokens, b->num_top
    };
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        add_words(p, words[i], rows);
    add_piece(p, s->seed, rows, sizeof *s->seed);
    add_piece(p, s->position, rows, sizeof *s->position);
    add_piece(p, s->token_ids, rows, sizeof *s->token_ids);
    add_piece(p, s->allowed_mask, rows, sizeof *s->allowed_mask);
    add_words(p, s->bias_start, rows + 1);
    add_words(p, s->bias_ids, s->bias_start[rows]);
    add_words(p, s->bias_values, s->bias_start[rows]);
    if (b->any_drafts) {
        add_words(p, b->sample_start, b->attn[0].num_seqs + 1);
        add_words(p, b->draft_ids, rows);
    }
}

void batch_upload(struct batch *b, struct device *d)
{
    struct pieces p = { .batch = b, .to_device = true };
    if (b->device.data == b->host.data)
        return;
    add_tokens(&p, b);
    add_sampling(&p, b);
    add_words(&p, b->prompt_rows, b->num_prompt_rows);
    add_words(&p, b->prompt_targets, b->num_prompt_rows);
    add_words(&p, b->prompt_num_top, b->num_prompt_rows);
    add_piece(&p, b->feed_dst, b->num_feeds, sizeof *b->feed_dst);
    add_words(&p, b->feed_rows, b->num_feeds);
    if (p.count > 0)
        d->backend->copy_pieces(d, p.list, p.count);
    if (b->references_used > 0)
        d->backend->copy(d, b->references_device.data, b->references_host.data, b->references_used,
                         COPY_TO_DEVICE);
}

static void add_logprobs(struct pieces *p, const struct logprobs_request *l, int32_t rows)
{
    add_words(p, l->target_logprob, rows);
    add_words(p, l->target_rank, rows);
    add_words(p, l->top_ids, rows * l->max_top);
    add_words(p, l->top_logprobs, rows * l->max_top);
}

void batch_download(struct batch *b, struct device *d)
{
    struct pieces p = { .batch = b, .to_device = false };
    if (b->device.data == b->host.data)
        return;
    add_words(&p, b->sampled_ids, b->num_sample_rows);
    if (b->any_drafts)
        add_words(&p, b->num_accepted, b->num_seqs);
    if (b->any_logprobs)
        add_logprobs(&p, &b->logprobs, b->num_sample_rows);
    if (b->num_prompt_rows > 0)
        add_logprobs(&p, &b->prompt_logprobs, b->num_prompt_rows);
    if (p.count > 0)
        d->backend->copy_pieces(d, p.list, p.count);
}
