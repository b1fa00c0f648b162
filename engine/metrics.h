/* metrics.h - counters and histograms declared in metrics.def; atomics, no lock.
 *
 * One instance, owned by the engine; any thread may add or render. */
#ifndef INFERD_ENGINE_METRICS_H
#define INFERD_ENGINE_METRICS_H

#include "base/buf.h"
#include "config/limits.h"
#include "engine/request.h"
#include <stdatomic.h>
#include <stdint.h>

enum { METRIC_MAX_BUCKETS = 40 };

struct metric_histogram {
    const double *bounds; /* [num_bounds] rising upper bounds; +Inf follows */
    int32_t num_bounds;
    _Atomic uint64_t counts[METRIC_MAX_BUCKETS + 1]; /* not cumulative */
    _Atomic uint64_t sum_bits;                       /* a double */
};

struct metrics {
#define METRIC_GAUGE(field, name, help)              _Atomic uint64_t field; /* bits of a double */
#define METRIC_COUNTER(field, name, help)            _Atomic uint64_t field;
#define METRIC_HISTOGRAM(field, name, buckets, help) struct metric_histogram field;
#include "engine/metrics.def"
#undef METRIC_GAUGE
#undef METRIC_COUNTER
#undef METRIC_HISTOGRAM
    _Atomic uint64_t request_success[5]; /* by enum finish_reason */
    /* Of vllm:spec_decode_*, which are there where num_speculative_tokens is above 0. */
    int32_t num_speculative_tokens;
    _Atomic uint64_t num_drafts, num_draft_tokens, num_accepted_tokens,
        num_accepted_tokens_per_pos[LIMIT_SPECULATIVE_TOKENS];
    /* Of vllm:cache_config_info, set before READY: `block_size="16",num_gpu_blocks="512"`. */
    char cache_config_labels[1024];
    char model_name[256];                     /* the label model_name, escaped */
    double length_bounds[METRIC_MAX_BUCKETS]; /* 1, 2, 5, 10, ... up to max_model_len */
};

/* `max_model_len` bounds the 1-2-5 bucket lists of token counts. */
struct metrics *metrics_new(const char *model_name, int32_t max_model_len);
void metrics_free(struct metrics *m);
void metrics_gauge_set(_Atomic uint64_t *gauge, double value);
double metrics_gauge_get(const _Atomic uint64_t *gauge);
static inline void metrics_count(_Atomic uint64_t *counter, uint64_t amount)
{
    atomic_fetch_add_explicit(counter, amount, memory_order_relaxed);
}
void metrics_observe(struct metric_histogram *h, double value);
/* A request has ended: request_success and the histograms of lengths and times that are known only
 * then. Called once per request, after its finished_ns and num_output_tokens are set. */
void metrics_request_finished(struct metrics *m, const struct request *r);
/* Prometheus text format 0.0.4: every row of metrics.def, request_success, cache_config_info, and
 * what is known of the process. */
void metrics_render(const struct metrics *m, struct buf *out);

#endif
