/* model_runner.c - the order of a step's device work, launched op by op or as one graph. The logits
 * are made in pieces of at most max_logits_rows rows, because vocabulary times rows is the largest
 * activation there is. */
#include "engine/exec/model_runner.h"

static int32_t at_most(int32_t a, int32_t b)
{
    return a < b ? a : b;
}

static void run_sampling(struct model_runner *r, struct batch *b)
{
    const struct backend *backend = r->device->backend;
    for (int32_t begin = 0; begin < b->num_run_rows; begin += r->max_logits_rows) {
        int32_t count = at_most(r->max_logits_rows, b->num_run_rows - begin);
        const struct tensor *logits =
            decoder_logits(r->decoder, batch_on_device(b, b->sample_rows + begin), count);
        if (!r->samples)
            continue;
        struct sampling_metadata sampling;
        batch_sampling_rows(b, begin, count, &sampling);
        int32_t *sampled = (int32_t *)batch_on_device(b, b->sampled_ids + begin);
        backend->sample(r->device, sampled, logits, &sampling);
        if (r->reports && b->make_logprobs) {
            struct logprobs_request logprobs;
            batch_logprob_rows(b, begin, count, &logprobs);
            backend->logprobs(r->device, &logprobs, logits);
        }
    }
}

/* Which drafts count, once all rows have their ids. */
static void run_rejection(struct model_runner *r, struct batch *b)
{
    if (!r->reports || !b->any_drafts)
        return;
    const struct rejection_request request = {
        .num_seqs = b->attn[0].num_seqs,
        .row_start = batch_on_device(b, b->sample_start),
        .sampled_ids = batch_on_device(b, b->sampled_ids),
        .draft_ids = batch_on_device(b, b->draft_ids),
    };
    r->device->backend->rejection_sample(r->device, (int32_t *)batch_on_device(b, b->num_accepted),
                                         &request);
}

static void run_prompt_logprobs(struct model_runner *r, struct batch *b)
{
    for (int32_t begin = 0; begin < b->num_prompt_rows; begin += r->max_logits_rows) {
        int32_t count = at_most(r->max_logits_rows, b->num_prompt_rows - begin);
        const struct tensor *logits =
            decoder_logits(r->decoder, batch_on_device(b, b->prompt_rows + begin), count);
        if (!r->reports)
            continue;
        struct logprobs_request logprobs;
        batch_prompt_logprob_rows(b, begin, count, &logprobs);
        r->device->backend->logprobs(r->device, &logprobs, logits);
    }
}

/* What a graph holds: all of the step that is the same in the next one of its bucket. Copies stay
 * outside, since how much is copied changes. */
static void run_ops(struct model_runner *r, struct batch *b)
{
    decoder_forward(r->decoder, &b->forward);
    run_sampling(r, b);
    run_rejection(r, b);
    run_prompt_logprobs(r, b);
}

/* After the batch has run op by op, so that whatever its kernels need is on the device. */
static bool capture(struct model_runner *r, struct batch *b, struct status *st)
{
    if (!graph_pool_begin(&r->graphs, st))
        return false;
    run_ops(r, b);
    return graph_pool_end(&r->graphs, &b->bucket, st);
}

/* Ids that the step before has sampled, and the host does not know. */
static void feed_tokens(struct model_runner *r, const struct batch *b)
{
    if (b->num_feeds > 0)
        r->device->backend->feed_tokens(
            r->device, (int32_t *const *)batch_on_device(b, b->feed_dst), b->feed_from,
            batch_on_device(b, b->feed_rows), b->num_feeds);
}

bool model_runner_launch(struct model_runner *r, struct batch *b, struct status *st)
{
    const struct backend *backend = r->device->backend;
    struct graph *graph = graph_pool_find(&r->graphs, &b->bucket);
    if (b->capture && !graph_pool_measure(&r->graphs, st))
        return false;
    batch_upload(b, r->device);
    feed_tokens(r, b);
    if (graph)
        backend->graph_launch(r->device, graph); /* its error sticks to the device */
    else
        run_ops(r, b);
    if (r->reports)
        batch_download(b, r->device);
    if (b->capture)
        return backend->sync(r->device, st) && capture(r, b, st) &&
               graph_pool_measure(&r->graphs, st) && (backend->mark(r->device, b->mark), true);
    backend->mark(r->device, b->mark);
    struct status why_not;
    if (!graph && graph_pool_is_wanted(&r->graphs, &b->bucket) && !capture(r, b, &why_not))
        graph_pool_give_up(&r->graphs, &why_not);
    return true;
}
