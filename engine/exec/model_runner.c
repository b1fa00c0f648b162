/* model_runner.c - the order of a step's device work. The logits are made in pieces of at most
 * max_logits_rows rows, because vocabulary times rows is the largest activation there is. */
#include "engine/exec/model_runner.h"

static int32_t at_most(int32_t a, int32_t b)
{
    return a < b ? a : b;
}

static const int32_t *device_rows(const struct batch *b, const int32_t *rows)
{
    return (const int32_t *)((const char *)b->device.data +
                             ((const char *)rows - (const char *)b->host.data));
}

static void run_sampling(struct model_runner *r, struct batch *b)
{
    const struct backend *backend = r->device->backend;
    for (int32_t begin = 0; begin < b->num_sample_rows; begin += r->max_logits_rows) {
        int32_t count = at_most(r->max_logits_rows, b->num_sample_rows - begin);
        const struct tensor *logits =
            decoder_logits(r->decoder, device_rows(b, b->sample_rows + begin), count);
        if (!r->samples)
            continue;
        struct sampling_metadata sampling;
        batch_sampling_rows(b, begin, count, &sampling);
        int32_t *sampled = (int32_t *)device_rows(b, b->sampled_ids + begin);
        backend->sample(r->device, sampled, logits, &sampling);
        if (b->any_logprobs) {
            struct logprobs_request logprobs;
            batch_logprob_rows(b, begin, count, &logprobs);
            backend->logprobs(r->device, &logprobs, logits);
        }
    }
}

static void run_prompt_logprobs(struct model_runner *r, struct batch *b)
{
    for (int32_t begin = 0; begin < b->num_prompt_rows; begin += r->max_logits_rows) {
        int32_t count = at_most(r->max_logits_rows, b->num_prompt_rows - begin);
        const struct tensor *logits =
            decoder_logits(r->decoder, device_rows(b, b->prompt_rows + begin), count);
        if (!r->samples)
            continue;
        struct logprobs_request logprobs;
        batch_prompt_logprob_rows(b, begin, count, &logprobs);
        r->device->backend->logprobs(r->device, &logprobs, logits);
    }
}

bool model_runner_run(struct model_runner *r, struct batch *b, struct status *st)
{
    batch_upload(b, r->device);
    decoder_forward(r->decoder, &b->forward);
    run_sampling(r, b);
    run_prompt_logprobs(r, b);
    batch_download(b, r->device);
    return r->device->backend->sync(r->device, st);
}
