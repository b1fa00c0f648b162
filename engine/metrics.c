/* metrics.c - bucket lists, observing, and the text that Prometheus reads.
 *
 * Numbers are written as Prometheus' Python client writes them ("1.0", "1e+06"), because bucket
 * bounds are labels, and labels are compared as text by the dashboards made for vLLM. */
#include "engine/metrics.h"
#include "base/alloc.h"
#include "base/clock.h"
#include "base/utf8.h"

#include <assert.h>
#include <dirent.h>
#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

static const double bounds_N_CHOICES[] = { 1, 2, 5, 10, 20 };
static const double bounds_STEP_TOKENS[] = { 1,   8,    16,   32,   64,   128,  256,
                                             512, 1024, 2048, 4096, 8192, 16384 };
static const double bounds_FIRST_TOKEN[] = {
    .001, .005, .01, .02, .04, .06, .08, .1, .25, .5,  .75,
    1,    2.5,  5,   7.5, 10,  20,  40,  80, 160, 640, 2560
};
static const double bounds_PER_TOKEN[] = { .01, .025, .05, .075, .1,  .15, .2, .3, .4, .5,
                                           .75, 1,    2.5, 5,    7.5, 10,  20, 40, 80 };
static const double bounds_LATENCY[] = { .3, .5, .8, 1,  1.5, 2,   2.5, 5,   10,   15,  20,
                                         30, 40, 50, 60, 120, 240, 480, 960, 1920, 7680 };
/* Filled in by metrics_new: it depends on the model. */
static const double bounds_LENGTHS[] = { 0 };

#define COUNT_OF(array) ((int32_t)(sizeof(array) / sizeof *(array)))

/* The rows of metrics.def, to walk over. */
enum metric_kind { GAUGE, COUNTER, HISTOGRAM };
static const struct metric_row {
    enum metric_kind kind;
    const char *name, *help;
    size_t offset; /* in struct metrics */
    const double *bounds;
    int32_t num_bounds;
} rows[] = {
#define METRIC_GAUGE(field, name, help)                                                            \
    { GAUGE, name, help, offsetof(struct metrics, field), 0, 0 },
#define METRIC_COUNTER(field, name, help)                                                          \
    { COUNTER, name, help, offsetof(struct metrics, field), 0, 0 },
#define METRIC_HISTOGRAM(field, name, buckets, help)                                               \
    { HISTOGRAM,                                                                                   \
      name,                                                                                        \
      help,                                                                                        \
      offsetof(struct metrics, field),                                                             \
      bounds_##buckets,                                                                            \
      COUNT_OF(bounds_##buckets) },
#include "engine/metrics.def"
#undef METRIC_GAUGE
#undef METRIC_COUNTER
#undef METRIC_HISTOGRAM
};

/* vLLM's build_1_2_5_buckets: 1, 2, 5 times the powers of ten, up to the largest not over `max`. */
static int32_t fill_lengths(double *bounds, int32_t max)
{
    static const int32_t steps[] = { 1, 2, 5 };
    int32_t n = 0;
    int64_t power = 1;
    while (n + COUNT_OF(steps) <= METRIC_MAX_BUCKETS) {
        for (int32_t i = 0; i < COUNT_OF(steps); i++) {
            if (steps[i] * power > max)
                return n;
            bounds[n++] = (double)(steps[i] * power);
        }
        power *= 10;
    }
    return n;
}

/* Escapes a label's value; what does not fit is cut at a character. */
static void escape_label(char *out, size_t size, const char *text)
{
    size_t n = 0;
    for (; *text; text++) {
        bool special = *text == '\\' || *text == '"' || *text == '\n';
        if (n + (special ? 2 : 1) >= size)
            break;
        if (special)
            out[n++] = '\\';
        out[n++] = *text == '\n' ? 'n' : *text;
    }
    out[utf8_valid_prefix(out, n)] = '\0';
}

struct metrics *metrics_new(const char *model_name, int32_t max_model_len)
{
    struct metrics *m = xcalloc(1, sizeof *m);
    escape_label(m->model_name, sizeof m->model_name, model_name);
    int32_t num_lengths = fill_lengths(m->length_bounds, max_model_len);
    for (int32_t i = 0; i < COUNT_OF(rows); i++) {
        if (rows[i].kind != HISTOGRAM)
            continue;
        struct metric_histogram *h = (void *)((char *)m + rows[i].offset);
        bool lengths = rows[i].bounds == bounds_LENGTHS;
        h->bounds = lengths ? m->length_bounds : rows[i].bounds;
        h->num_bounds = lengths ? num_lengths : rows[i].num_bounds;
        assert(h->num_bounds <= METRIC_MAX_BUCKETS);
    }
    return m;
}

void metrics_free(struct metrics *m)
{
    free(m);
}

static uint64_t bits_of(double value)
{
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static double value_of(uint64_t bits)
{
    double value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

void metrics_gauge_set(_Atomic uint64_t *gauge, double value)
{
    atomic_store_explicit(gauge, bits_of(value), memory_order_relaxed);
}

double metrics_gauge_get(const _Atomic uint64_t *gauge)
{
    return value_of(atomic_load_explicit(gauge, memory_order_relaxed));
}

void metrics_observe(struct metric_histogram *h, double value)
{
    int32_t i = 0;
    while (i < h->num_bounds && value > h->bounds[i])
        i++;
    metrics_count(&h->counts[i], 1);
    uint64_t old = atomic_load_explicit(&h->sum_bits, memory_order_relaxed);
    while (!atomic_compare_exchange_weak_explicit(&h->sum_bits, &old,
                                                  bits_of(value_of(old) + value),
                                                  memory_order_relaxed, memory_order_relaxed))
        continue;
}

/* 0 where the clock says that the end came first. */
static double span(uint64_t start_ns, uint64_t end_ns)
{
    return end_ns > start_ns ? clock_seconds_between(start_ns, end_ns) : 0.0;
}

void metrics_request_finished(struct metrics *m, const struct request *r)
{
    enum finish_reason reason = request_finish_reason(r);
    int32_t num_output_tokens = request_num_output_tokens(r);
    metrics_count(&m->request_success[reason], 1);
    metrics_observe(&m->request_prompt_tokens, r->num_prompt_tokens);
    metrics_observe(&m->request_generation_tokens, num_output_tokens);
    metrics_observe(&m->request_params_max_tokens, r->max_tokens);
    metrics_observe(&m->e2e_request_latency, span(r->arrival_ns, r->finished_ns));
    /* What a request never came to is not a duration of 0: it is left out. */
    if (r->scheduled_ns == 0)
        return;
    metrics_observe(&m->request_queue_time, span(r->arrival_ns, r->scheduled_ns));
    if (r->first_token_ns == 0)
        return;
    /* An aborted request may end long after its last token. */
    uint64_t last_ns = r->last_token_ns ? r->last_token_ns : r->finished_ns;
    double decode = span(r->first_token_ns, last_ns);
    metrics_observe(&m->request_inference_time, span(r->scheduled_ns, last_ns));
    metrics_observe(&m->request_prefill_time, span(r->scheduled_ns, r->first_token_ns));
    metrics_observe(&m->request_decode_time, decode);
    if (num_output_tokens > 1)
        metrics_observe(&m->request_time_per_output_token, decode / (num_output_tokens - 1));
}

/* --- text --------------------------------------------------------------------------------------*/

/* The shortest digits that read back as the same number, laid out as Python's client does. */
static void append_number(struct buf *out, double value)
{
    if (isnan(value) || isinf(value)) {
        buf_append_str(out, isnan(value) ? "NaN" : value > 0 ? "+Inf" : "-Inf");
        return;
    }
    char text[40];
    int digits = 0;
    do
        snprintf(text, sizeof text, "%.*e", digits, value);
    while (++digits < 17 && strtod(text, NULL) != value);
    int exponent = atoi(strchr(text, 'e') + 1);
    if (value != 0 && (exponent < -4 || exponent > 5)) {
        buf_append_str(out, text);
        return;
    }
    int decimals = digits - 1 - exponent;
    buf_printf(out, "%.*f", decimals < 1 ? 1 : decimals, value);
}

static void append_head(struct buf *out, const char *name, const char *suffix, const char *help,
                        const char *type)
{
    buf_printf(out, "# HELP %s%s %s\n# TYPE %s%s %s\n", name, suffix, help, name, suffix, type);
}

/* One sample; `label`, if any, is `name="value"`. */
static void append_sample(const struct metrics *m, struct buf *out, const char *name,
                          const char *suffix, const char *label, double value)
{
    buf_printf(out, "%s%s{engine=\"0\",%s%smodel_name=\"%s\"} ", name, suffix, label,
               *label ? "," : "", m->model_name);
    append_number(out, value);
    buf_append_char(out, '\n');
}

static void render_histogram(const struct metrics *m, struct buf *out, const struct metric_row *row)
{
    const struct metric_histogram *h = (const void *)((const char *)m + row->offset);
    append_head(out, row->name, "", row->help, "histogram");
    /* The count is the sum of what was read, so that the last bucket and it always agree. */
    uint64_t cumulative = 0;
    for (int32_t i = 0; i <= h->num_bounds; i++) {
        struct buf label;
        buf_init(&label, 0);
        buf_append_str(&label, "le=\"");
        append_number(&label, i < h->num_bounds ? h->bounds[i] : (double)INFINITY);
        buf_append_char(&label, '"');
        cumulative += atomic_load_explicit(&h->counts[i], memory_order_relaxed);
        append_sample(m, out, row->name, "_bucket", buf_str(&label), (double)cumulative);
        buf_free(&label);
    }
    append_sample(m, out, row->name, "_count", "", (double)cumulative);
    append_sample(m, out, row->name, "_sum", "",
                  value_of(atomic_load_explicit(&h->sum_bits, memory_order_relaxed)));
}

static void render_row(const struct metrics *m, struct buf *out, const struct metric_row *row)
{
    const _Atomic uint64_t *field = (const void *)((const char *)m + row->offset);
    switch (row->kind) {
    case GAUGE:
        append_head(out, row->name, "", row->help, "gauge");
        append_sample(m, out, row->name, "", "", metrics_gauge_get(field));
        break;
    case COUNTER:
        append_head(out, row->name, "_total", row->help, "counter");
        append_sample(m, out, row->name, "_total", "",
                      (double)atomic_load_explicit(field, memory_order_relaxed));
        break;
    case HISTOGRAM:
        render_histogram(m, out, row);
        break;
    }
}

static void render_request_success(const struct metrics *m, struct buf *out)
{
    static const char *const labels[] = { [FINISH_STOP] = "finished_reason=\"stop\"",
                                          [FINISH_LENGTH] = "finished_reason=\"length\"",
                                          [FINISH_ABORT] = "finished_reason=\"abort\"",
                                          [FINISH_ERROR] = "finished_reason=\"error\"" };
    append_head(out, "vllm:request_success", "_total", "Requests that ended, by their reason.",
                "counter");
    for (int32_t i = FINISH_STOP; i <= FINISH_ERROR; i++)
        append_sample(m, out, "vllm:request_success", "_total", labels[i],
                      (double)atomic_load_explicit(&m->request_success[i], memory_order_relaxed));
}

/* One of the counters of drafts; `label` as in append_sample. */
static void render_drafts(const struct metrics *m, struct buf *out, const char *name,
                          const char *label, const _Atomic uint64_t *counter)
{
    append_sample(m, out, name, "_total", label,
                  (double)atomic_load_explicit(counter, memory_order_relaxed));
}

static void render_spec_decode(const struct metrics *m, struct buf *out)
{
    static const char per_pos[] = "vllm:spec_decode_num_accepted_tokens_per_pos";
    const struct {
        const char *name, *help;
        const _Atomic uint64_t *counter;
    } totals[] = {
        { "vllm:spec_decode_num_drafts", "Times that a sequence ran with drafts.", &m->num_drafts },
        { "vllm:spec_decode_num_draft_tokens", "Drafts that ran.", &m->num_draft_tokens },
        { "vllm:spec_decode_num_accepted_tokens", "Drafts that were right.",
          &m->num_accepted_tokens },
    };
    if (m->num_speculative_tokens == 0)
        return;
    for (int32_t i = 0; i < COUNT_OF(totals); i++) {
        append_head(out, totals[i].name, "_total", totals[i].help, "counter");
        render_drafts(m, out, totals[i].name, "", totals[i].counter);
    }
    append_head(out, per_pos, "_total", "Drafts that were right, by their place.", "counter");
    for (int32_t i = 0; i < m->num_speculative_tokens; i++) {
        char label[32];
        snprintf(label, sizeof label, "position=\"%d\"", i);
        render_drafts(m, out, per_pos, label, &m->num_accepted_tokens_per_pos[i]);
    }
}

static void render_process_value(struct buf *out, const char *name, const char *help,
                                 const char *type, double value)
{
    append_head(out, name, "", help, type);
    buf_printf(out, "%s ", name);
    append_number(out, value);
    buf_append_char(out, '\n');
}

/* The boot's unix time, from /proc/stat; 0 where it is not to be had. */
static double boot_time(void)
{
    FILE *file = fopen("/proc/stat", "re");
    char line[4096];
    long long seconds = 0;
    while (file && fgets(line, sizeof line, file))
        if (sscanf(line, "btime %lld", &seconds) == 1)
            break;
    if (file)
        fclose(file);
    return (double)seconds;
}

static void render_process_stat(struct buf *out)
{
    FILE *file = fopen("/proc/self/stat", "re");
    if (!file)
        return;
    char line[4096];
    const char *fields = fgets(line, sizeof line, file) ? strrchr(line, ')') : NULL;
    fclose(file);
    unsigned long long user, kernel, start, virtual_bytes;
    long long resident_pages;
    /* After the name in parentheses: state, then fields 4 to 24 of proc(5). */
    if (!fields ||
        sscanf(fields + 1,
               " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %llu %llu %*d %*d %*d %*d %*d %*d "
               "%llu %llu %lld",
               &user, &kernel, &start, &virtual_bytes, &resident_pages) != 5)
        return;
    double ticks = (double)sysconf(_SC_CLK_TCK);
    render_process_value(out, "process_virtual_memory_bytes", "Virtual memory size in bytes.",
                         "gauge", (double)virtual_bytes);
    render_process_value(out, "process_resident_memory_bytes", "Resident memory size in bytes.",
                         "gauge", (double)resident_pages * (double)sysconf(_SC_PAGESIZE));
    render_process_value(out, "process_start_time_seconds",
                         "Start time of the process since unix epoch in seconds.", "gauge",
                         boot_time() + (double)start / ticks);
    render_process_value(out, "process_cpu_seconds_total",
                         "Total user and system CPU time spent in seconds.", "counter",
                         ((double)user + (double)kernel) / ticks);
}

static void render_process_files(struct buf *out)
{
    DIR *dir = opendir("/proc/self/fd");
    if (dir) {
        /* ".", ".." and the descriptor of this listing do not count. */
        int32_t count = -3;
        /* Safe: no other thread reads this stream. */
        while (readdir(dir)) /* cppcheck-suppress readdirCalled */
            count++;
        closedir(dir);
        render_process_value(out, "process_open_fds", "Number of open file descriptors.", "gauge",
                             count);
    }
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0)
        render_process_value(
            out, "process_max_fds", "Maximum number of open file descriptors.", "gauge",
            limit.rlim_cur == RLIM_INFINITY ? (double)INFINITY : (double)limit.rlim_cur);
}

void metrics_render(const struct metrics *m, struct buf *out)
{
    for (int32_t i = 0; i < COUNT_OF(rows); i++)
        render_row(m, out, &rows[i]);
    render_request_success(m, out);
    render_spec_decode(m, out);
    append_head(out, "vllm:cache_config_info", "", "Information of the KV cache's configuration.",
                "gauge");
    buf_printf(out, "vllm:cache_config_info{engine=\"0\"%s%s} 1.0\n",
               *m->cache_config_labels ? "," : "", m->cache_config_labels);
    render_process_stat(out);
    render_process_files(out);
}
