/* cublaslt.c - finds the library, keeps an algorithm per shape and bucket of rows, enqueues. */
#include "kernels/cuda/cublaslt.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "base/log.h"
#include "kernels/cuda/cublaslt_api.h"

#include <dlfcn.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    FIRST_BUCKET_ROWS = 2 * CUDA_GEMV_MAX_ROWS, /* fewer rows are gemv's */
    NUM_CANDIDATES = 4,
    TIMED_RUNS = 3,
    /* All that may be spent on timing one device, in milliseconds of its time: a start shall not
     * take noticeably longer for it. What is not timed is the library's first choice. */
    TIMING_BUDGET_MS = 300,
    /* No kernel loads more at once, so that a greater alignment tells the library nothing. */
    MAX_ALIGNMENT = 16,
    MIN_MAJOR = 12,
    MAX_MAJOR = 13
};

/* What the library multiplies. Of codes it takes only what its tensor cores do: for a number of
 * features, and rows of the output, that its documentation asks for. */
static const struct kind {
    enum dtype dtype;
    int32_t in, out;
    int32_t features;   /* a divisor of their number */
    uint32_t alignment; /* of rows of the output, in bytes */
} kinds[] = {
    { DTYPE_BF16, LT_R_16BF, LT_R_32F, 1, 4 },
    { DTYPE_F16, LT_R_16F, LT_R_32F, 1, 4 },
    { DTYPE_F8_E4M3, LT_R_8F_E4M3, LT_R_32F, 16, 16 },
    { DTYPE_I8, LT_R_8I, LT_R_32I, 4, 16 },
};

enum choice_state { CHOICE_UNKNOWN, CHOICE_MADE, CHOICE_NONE };
struct choice {
    enum choice_state state;
    struct lt_algo algo;
};

struct shape {
    struct cublaslt_weights weights;
    uint32_t alignment; /* of rows of the output, in bytes */
    struct choice choices[CUBLASLT_NUM_BUCKETS];
};

struct cublaslt {
    void *library;
    struct lt_api api;
    char description[256];
    struct lt_handle *handle;
    /* Of the product at hand, like the layouts: W, x and the output; with sums in float32 or in
     * int32. */
    struct lt_desc *desc, *whole_desc;
    struct lt_layout *w, *x, *out;
    struct lt_preference *preference;
    void *workspace;
    size_t workspace_bytes;
    int32_t max_rows, num_shapes;
    struct shape shapes[CUBLASLT_MAX_SHAPES];
    int32_t num_chosen, num_timed;
    double timed_ms, prepare_seconds;
};

/* --- the library ------------------------------------------------------------------------------ */

static const struct {
    const char *name;
    size_t offset; /* in struct lt_api */
} functions[] = {
    { "cublasLtGetVersion", offsetof(struct lt_api, get_version) },
    { "cublasLtGetStatusString", offsetof(struct lt_api, get_status_string) },
    { "cublasLtCreate", offsetof(struct lt_api, create) },
    { "cublasLtDestroy", offsetof(struct lt_api, destroy) },
    { "cublasLtMatmulDescCreate", offsetof(struct lt_api, desc_create) },
    { "cublasLtMatmulDescDestroy", offsetof(struct lt_api, desc_destroy) },
    { "cublasLtMatmulDescSetAttribute", offsetof(struct lt_api, desc_set) },
    { "cublasLtMatrixLayoutCreate", offsetof(struct lt_api, layout_create) },
    { "cublasLtMatrixLayoutDestroy", offsetof(struct lt_api, layout_destroy) },
    { "cublasLtMatrixLayoutSetAttribute", offsetof(struct lt_api, layout_set) },
    { "cublasLtMatmulPreferenceCreate", offsetof(struct lt_api, preference_create) },
    { "cublasLtMatmulPreferenceDestroy", offsetof(struct lt_api, preference_destroy) },
    { "cublasLtMatmulPreferenceSetAttribute", offsetof(struct lt_api, preference_set) },
    { "cublasLtMatmulAlgoGetHeuristic", offsetof(struct lt_api, get_heuristic) },
    { "cublasLtMatmulAlgoCheck", offsetof(struct lt_api, algo_check) },
    { "cublasLtMatmul", offsetof(struct lt_api, matmul) },
};

static bool load_functions(struct cublaslt *lt, const char *path, struct status *st)
{
    for (size_t i = 0; i < sizeof functions / sizeof functions[0]; i++) {
        void *function = dlsym(lt->library, functions[i].name);
        if (!function)
            return status_set(st, STATUS_UNSUPPORTED, "%s has no %s", path, functions[i].name);
        memcpy((char *)&lt->api + functions[i].offset, &function, sizeof function);
    }
    const size_t version = lt->api.get_version();
    const size_t major = version / 10000;
    if (major < MIN_MAJOR || major > MAX_MAJOR)
        return status_set(st, STATUS_UNSUPPORTED,
                          "%s is of version %zu.%zu.%zu; %d.x and %d.x are known", path, major,
                          version / 100 % 100, version % 100, MIN_MAJOR, MAX_MAJOR);
    snprintf(lt->description, sizeof lt->description, "%zu.%zu.%zu, from %.200s", major,
             version / 100 % 100, version % 100, path);
    return true;
}

/* The first that can be loaded and is of a known version; `st` has what was wrong with the first
 * that was there, or that none was. */
static bool load_library(struct cublaslt *lt, struct status *st)
{
    static const char *const names[] = { "libcublasLt.so.13", "libcublasLt.so.12" };
    static const char *const places[] = { "/", "/../lib/", NULL }; /* NULL: the loader's */
    Dl_info self = { 0 };
    const char *slash = NULL;
    if (dladdr(functions, &self) != 0 && self.dli_fname)
        slash = strrchr(self.dli_fname, '/');
    status_set(st, STATUS_UNSUPPORTED,
               "neither %s nor %s is beside the plug-in, in ../lib from there, or where the loader "
               "looks",
               names[0], names[1]);
    bool found = false;
    for (size_t place = slash ? 0 : 2; place < sizeof places / sizeof places[0]; place++) {
        for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
            char path[4096];
            struct status why;
            const int length = places[place] ? (int)(slash - self.dli_fname) : 0;
            int n = snprintf(path, sizeof path, "%.*s%s%s", length, length ? self.dli_fname : "",
                             places[place] ? places[place] : "", names[i]);
            if (n < 0 || (size_t)n >= sizeof path)
                continue;
            lt->library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
            if (!lt->library)
                continue;
            if (load_functions(lt, path, &why))
                return true;
            dlclose(lt->library);
            lt->library = NULL;
            if (!found)
                *st = why;
            found = true;
        }
    }
    return false;
}

static bool lt_failed(const struct cublaslt *lt, int32_t status, const char *what,
                      struct status *st)
{
    return status_set(st, STATUS_INTERNAL, "%s: %s (status %d)", what,
                      lt->api.get_status_string(status), status);
}

static int32_t open_desc(const struct lt_api *api, struct lt_desc **out, int32_t compute,
                         int32_t scale)
{
    const int32_t transpose = LT_OP_T, keep = LT_OP_N;
    int32_t s;
    if ((s = api->desc_create(out, compute, scale)) == LT_SUCCESS &&
        (s = api->desc_set(*out, LT_DESC_TRANSA, &transpose, sizeof transpose)) == LT_SUCCESS)
        s = api->desc_set(*out, LT_DESC_TRANSB, &keep, sizeof keep);
    return s;
}

static bool open_objects(struct cublaslt *lt, struct status *st)
{
    const struct lt_api *api = &lt->api;
    const uint32_t alignment = MAX_ALIGNMENT; /* of weights and activations, see launch.h */
    int32_t s = api->create(&lt->handle);
    if (s != LT_SUCCESS)
        return lt_failed(lt, s, "cublasLtCreate", st);
    if ((s = open_desc(api, &lt->desc, LT_COMPUTE_32F, LT_R_32F)) != LT_SUCCESS ||
        (s = open_desc(api, &lt->whole_desc, LT_COMPUTE_32I, LT_R_32I)) != LT_SUCCESS ||
        (s = api->layout_create(&lt->w, LT_R_16BF, 8, 8, 8)) != LT_SUCCESS ||
        (s = api->layout_create(&lt->x, LT_R_16BF, 8, 8, 8)) != LT_SUCCESS ||
        (s = api->layout_create(&lt->out, LT_R_32F, 8, 8, 8)) != LT_SUCCESS ||
        (s = api->preference_create(&lt->preference)) != LT_SUCCESS ||
        (s = api->preference_set(lt->preference, LT_PREFERENCE_MIN_ALIGNMENT_A, &alignment,
                                 sizeof alignment)) != LT_SUCCESS ||
        (s = api->preference_set(lt->preference, LT_PREFERENCE_MIN_ALIGNMENT_B, &alignment,
                                 sizeof alignment)) != LT_SUCCESS)
        return lt_failed(lt, s, "its descriptors", st);
    return true;
}

bool cublaslt_open(struct cublaslt **out, struct status *st)
{
    struct cublaslt *lt = xcalloc(1, sizeof *lt);
    *out = NULL;
    if (!load_library(lt, st) || !open_objects(lt, st)) {
        cublaslt_close(lt);
        return false;
    }
    *out = lt;
    return true;
}

void cublaslt_close(struct cublaslt *lt)
{
    if (!lt)
        return;
    if (lt->preference)
        lt->api.preference_destroy(lt->preference);
    struct lt_layout *const layouts[] = { lt->w, lt->x, lt->out };
    for (size_t i = 0; i < sizeof layouts / sizeof layouts[0]; i++)
        if (layouts[i])
            lt->api.layout_destroy(layouts[i]);
    struct lt_desc *const descs[] = { lt->desc, lt->whole_desc };
    for (size_t i = 0; i < sizeof descs / sizeof descs[0]; i++)
        if (descs[i])
            lt->api.desc_destroy(descs[i]);
    if (lt->handle)
        lt->api.destroy(lt->handle);
    if (lt->library)
        dlclose(lt->library);
    free(lt);
}

const char *cublaslt_description(const struct cublaslt *lt)
{
    return lt->description;
}

void cublaslt_set_workspace(struct cublaslt *lt, void *workspace, size_t bytes, int32_t max_rows)
{
    lt->workspace = workspace;
    lt->workspace_bytes = bytes;
    lt->max_rows = max_rows;
    lt->num_shapes = lt->num_chosen = lt->num_timed = 0;
    lt->timed_ms = lt->prepare_seconds = 0;
}

/* --- one product ------------------------------------------------------------------------------ */

static uint32_t alignment_of(uintptr_t address_or_bytes)
{
    uint32_t alignment = MAX_ALIGNMENT;
    while (address_or_bytes % alignment != 0)
        alignment /= 2;
    return alignment;
}

/* NULL: none of the library's. */
static const struct kind *find_kind(enum dtype dtype)
{
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++)
        if (kinds[i].dtype == dtype)
            return &kinds[i];
    return NULL;
}

static struct lt_desc *desc_of(const struct cublaslt *lt, enum dtype dtype)
{
    return dtype == DTYPE_I8 ? lt->whole_desc : lt->desc;
}

static int32_t set_layout(const struct lt_api *api, struct lt_layout *layout, int32_t type,
                          uint64_t rows, uint64_t cols, int64_t ld)
{
    const uint32_t wanted = (uint32_t)type;
    int32_t s;
    if ((s = api->layout_set(layout, LT_LAYOUT_TYPE, &wanted, sizeof wanted)) == LT_SUCCESS &&
        (s = api->layout_set(layout, LT_LAYOUT_ROWS, &rows, sizeof rows)) == LT_SUCCESS &&
        (s = api->layout_set(layout, LT_LAYOUT_COLS, &cols, sizeof cols)) == LT_SUCCESS)
        s = api->layout_set(layout, LT_LAYOUT_LD, &ld, sizeof ld);
    return s;
}

/* The descriptors become those of a product with this many rows. Row-major [rows, columns] is
 * column-major [columns, rows]: out = W^T x there, over rows of `stride` elements, as the columns
 * behind the last are zeros in both. */
static int32_t describe(struct cublaslt *lt, const struct shape *shape, int32_t rows,
                        int64_t out_stride, const float *bias)
{
    const struct lt_api *api = &lt->api;
    const struct cublaslt_weights *w = &shape->weights;
    const struct kind *kind = find_kind(w->dtype);
    struct lt_desc *desc = desc_of(lt, w->dtype);
    const int32_t epilogue = w->has_bias ? LT_EPILOGUE_BIAS : LT_EPILOGUE_DEFAULT;
    const void *vector = bias;
    const uint64_t k = (uint64_t)w->stride, features = (uint64_t)w->out_features;
    int32_t s;
    if ((s = set_layout(api, lt->w, kind->in, k, features, w->ld)) == LT_SUCCESS &&
        (s = set_layout(api, lt->x, kind->in, k, (uint64_t)rows, w->stride)) == LT_SUCCESS &&
        (s = set_layout(api, lt->out, kind->out, features, (uint64_t)rows, out_stride)) ==
            LT_SUCCESS &&
        (s = api->desc_set(desc, LT_DESC_EPILOGUE, &epilogue, sizeof epilogue)) == LT_SUCCESS)
        s = api->desc_set(desc, LT_DESC_BIAS_POINTER, &vector, sizeof vector);
    return s;
}

static int32_t enqueue(struct cublaslt *lt, const struct cuda_product *p,
                       const struct lt_algo *algo, cudaStream_t stream)
{
    static const float one = 1, zero = 0;
    static const int32_t whole_one = 1, whole_zero = 0;
    const bool whole = p->weight.dtype == DTYPE_I8;
    const void *alpha = whole ? (const void *)&whole_one : &one;
    const void *beta = whole ? (const void *)&whole_zero : &zero;
    return lt->api.matmul(lt->handle, desc_of(lt, p->weight.dtype), alpha, p->weight.data, lt->w,
                          p->x, lt->x, beta, p->out, lt->out, p->out, lt->out, algo, lt->workspace,
                          lt->workspace_bytes, stream);
}

/* --- choosing --------------------------------------------------------------------------------- */

/* Bucket b holds the rows above those of bucket b - 1, up to this. */
static int64_t bucket_rows(int32_t bucket)
{
    return (int64_t)FIRST_BUCKET_ROWS << bucket;
}

static int32_t bucket_of(int32_t rows)
{
    int32_t bucket = 0;
    while (bucket_rows(bucket) < rows)
        bucket++;
    return bucket;
}

/* NULL: it cannot be the library's. */
static struct shape *find_shape(struct cublaslt *lt, const struct cublaslt_weights *w,
                                uint32_t alignment)
{
    const struct kind *kind = find_kind(w->dtype);
    if (!kind || w->out_features % kind->features != 0 || alignment < kind->alignment)
        return NULL;
    for (int32_t i = 0; i < lt->num_shapes; i++) {
        struct shape *s = &lt->shapes[i];
        if (s->weights.dtype == w->dtype && s->weights.out_features == w->out_features &&
            s->weights.stride == w->stride && s->weights.ld == w->ld &&
            s->weights.has_bias == w->has_bias && s->alignment == alignment)
            return s;
    }
    if (lt->num_shapes == CUBLASLT_MAX_SHAPES)
        return NULL;
    struct shape *s = &lt->shapes[lt->num_shapes++];
    *s = (struct shape){ .weights = *w, .alignment = alignment };
    return s;
}

static void say_refused(const struct cublaslt *lt, const struct shape *shape, int32_t rows,
                        int32_t status)
{
    log_warning("cuBLASLt: %d rows x %" PRId64 " columns, %d features of %s: %s (status %d); a "
                "kernel of ours does it",
                rows, shape->weights.stride, shape->weights.out_features,
                dtype_name(shape->weights.dtype), lt->api.get_status_string(status), status);
}

/* The algorithms that can do any number of rows in the bucket, best first. Their number, or 0 with
 * the library's status. */
static int32_t find_candidates(struct cublaslt *lt, const struct shape *shape, int32_t bucket,
                               const float *bias, struct lt_algo *out, int32_t *status)
{
    const struct lt_api *api = &lt->api;
    const int64_t most = bucket_rows(bucket);
    const int32_t high = (int32_t)(most < lt->max_rows ? most : lt->max_rows);
    const int32_t low = 1 + (bucket > 0 ? (int32_t)bucket_rows(bucket - 1) : CUDA_GEMV_MAX_ROWS);
    /* A stride that is aligned as the output's rows are, and no better. */
    const int64_t words = shape->alignment / (int64_t)sizeof(float);
    int64_t out_stride = (shape->weights.out_features + words - 1) / words * words;
    if (shape->alignment < MAX_ALIGNMENT && out_stride / words % 2 == 0)
        out_stride += words;
    const uint64_t workspace = lt->workspace_bytes;
    struct lt_desc *desc = desc_of(lt, shape->weights.dtype);
    struct lt_heuristic_result results[NUM_CANDIDATES], checked;
    int32_t returned = 0, count = 0, s;
    memset(results, 0, sizeof results);
    if ((s = describe(lt, shape, high, out_stride, bias)) == LT_SUCCESS &&
        (s = api->preference_set(lt->preference, LT_PREFERENCE_MAX_WORKSPACE_BYTES, &workspace,
                                 sizeof workspace)) == LT_SUCCESS &&
        (s = api->preference_set(lt->preference, LT_PREFERENCE_MIN_ALIGNMENT_C, &shape->alignment,
                                 sizeof shape->alignment)) == LT_SUCCESS &&
        (s = api->preference_set(lt->preference, LT_PREFERENCE_MIN_ALIGNMENT_D, &shape->alignment,
                                 sizeof shape->alignment)) == LT_SUCCESS &&
        (s = api->get_heuristic(lt->handle, desc, lt->w, lt->x, lt->out, lt->out, lt->preference,
                                NUM_CANDIDATES, results, &returned)) == LT_SUCCESS)
        s = describe(lt, shape, low, out_stride, bias);
    for (int32_t i = 0; s == LT_SUCCESS && i < returned && i < NUM_CANDIDATES; i++) {
        if (results[i].state != LT_SUCCESS)
            continue;
        checked.workspace_bytes = 0;
        if (api->algo_check(lt->handle, desc, lt->w, lt->x, lt->out, lt->out, &results[i].algo,
                            &checked) == LT_SUCCESS &&
            checked.workspace_bytes <= lt->workspace_bytes)
            out[count++] = results[i].algo;
    }
    *status = s != LT_SUCCESS ? s : LT_NOT_SUPPORTED;
    return count;
}

/* The library's first choice, at a product that prepare did not foresee. */
static const struct choice *choose(struct cublaslt *lt, struct shape *shape, int32_t bucket,
                                   const float *bias)
{
    struct choice *c = &shape->choices[bucket];
    struct lt_algo candidates[NUM_CANDIDATES];
    int32_t status;
    if (c->state == CHOICE_UNKNOWN) {
        if (find_candidates(lt, shape, bucket, bias, candidates, &status) > 0) {
            *c = (struct choice){ CHOICE_MADE, candidates[0] };
        } else {
            c->state = CHOICE_NONE;
            say_refused(lt, shape, (int32_t)bucket_rows(bucket), status);
        }
    }
    return c;
}

/* NULL: a kernel of ours does it. */
static struct shape *shape_of_product(struct cublaslt *lt, const struct cuda_product *p)
{
    const struct cublaslt_weights w = { p->weight.dtype, p->weight.rows, p->weight.stride,
                                        p->weight.layout.row_bytes /
                                            (int64_t)dtype_size(p->weight.dtype),
                                        p->bias != NULL };
    if (p->rows <= CUDA_GEMV_MAX_ROWS || p->rows > lt->max_rows)
        return NULL;
    struct shape *shape = find_shape(
        lt, &w, alignment_of((uintptr_t)p->out | (uintptr_t)p->out_stride * sizeof(float)));
    if (shape && choose(lt, shape, bucket_of(p->rows), p->bias)->state == CHOICE_NONE)
        return NULL;
    return shape;
}

bool cublaslt_takes(struct cublaslt *lt, const struct cuda_product *p)
{
    return shape_of_product(lt, p) != NULL;
}

bool cublaslt_product(struct cublaslt *lt, const struct cuda_product *p, cudaStream_t stream)
{
    struct shape *shape = shape_of_product(lt, p);
    if (!shape)
        return false;
    struct choice *choice = &shape->choices[bucket_of(p->rows)];
    int32_t s = describe(lt, shape, p->rows, p->out_stride, p->bias);
    if (s == LT_SUCCESS)
        s = enqueue(lt, p, &choice->algo, stream);
    if (s == LT_SUCCESS)
        return true;
    choice->state = CHOICE_NONE;
    say_refused(lt, shape, p->rows, s);
    return false;
}

/* --- choosing by timing ----------------------------------------------------------------------- */

struct stopwatch {
    cudaEvent_t begin, end;
};

/* Milliseconds of one run, or -1. */
static double time_algo(struct cublaslt *lt, const struct cuda_product *p,
                        const struct lt_algo *algo, const struct stopwatch *watch,
                        cudaStream_t stream)
{
    float ms = 0;
    if (enqueue(lt, p, algo, stream) != LT_SUCCESS || /* its code is loaded now */
        cudaEventRecord(watch->begin, stream) != cudaSuccess)
        return -1;
    for (int run = 0; run < TIMED_RUNS; run++)
        if (enqueue(lt, p, algo, stream) != LT_SUCCESS)
            return -1;
    if (cudaEventRecord(watch->end, stream) != cudaSuccess ||
        cudaEventSynchronize(watch->end) != cudaSuccess ||
        cudaEventElapsedTime(&ms, watch->begin, watch->end) != cudaSuccess)
        return -1;
    lt->timed_ms += (double)ms;
    return (double)ms / TIMED_RUNS;
}

static void choose_by_time(struct cublaslt *lt, struct shape *shape, int32_t bucket,
                           const struct cuda_product *p, const struct stopwatch *watch,
                           cudaStream_t stream)
{
    struct lt_algo candidates[NUM_CANDIDATES];
    int32_t status, best = -1;
    double best_ms = 0;
    const int32_t count = find_candidates(lt, shape, bucket, p->bias, candidates, &status);
    if (count == 0 ||
        (status = describe(lt, shape, p->rows, p->out_stride, p->bias)) != LT_SUCCESS) {
        shape->choices[bucket].state = CHOICE_NONE;
        say_refused(lt, shape, p->rows, status);
        return;
    }
    const bool timed = watch && lt->timed_ms < TIMING_BUDGET_MS;
    for (int32_t i = 0; timed && i < count; i++) {
        const double ms = time_algo(lt, p, &candidates[i], watch, stream);
        if (ms >= 0 && (best < 0 || ms < best_ms)) {
            best = i;
            best_ms = ms;
        }
    }
    lt->num_chosen++;
    lt->num_timed += best >= 0;
    shape->choices[bucket] = (struct choice){ CHOICE_MADE, candidates[best >= 0 ? best : 0] };
}

/* Memory for W, its bias and the output, filled with small numbers; `p` is the product of them. */
static void *take_scratch(const struct cublaslt_weights *w, int32_t rows, struct cuda_product *p,
                          cudaStream_t stream)
{
    const size_t weight_bytes = (size_t)w->out_features * (size_t)w->ld * dtype_size(w->dtype);
    const size_t bias_bytes = (size_t)((w->out_features + 63) / 64 * 64) * sizeof(float);
    const size_t out_bytes = (size_t)rows * (size_t)p->out_stride * sizeof(float);
    const size_t used = weight_bytes + bias_bytes;
    void *memory = NULL;
    if (cudaMalloc(&memory, used + out_bytes) != cudaSuccess) {
        cudaGetLastError();
        return NULL;
    }
    if (cudaMemsetAsync(memory, 0x3c, used, stream) != cudaSuccess) {
        cudaFree(memory);
        return NULL;
    }
    p->weight.data = memory;
    p->bias = w->has_bias ? (const float *)((char *)memory + weight_bytes) : NULL;
    p->out = (float *)((char *)memory + used);
    return memory;
}

void cublaslt_prepare(struct cublaslt *lt, const struct cublaslt_weights *w, int32_t max_rows,
                      void *x, cudaStream_t stream)
{
    const uint64_t begin = clock_now_ns();
    struct cuda_product p = { .weight = { NULL, w->dtype, w->out_features, (int32_t)w->stride,
                                          w->stride },
                              .x = x,
                              .out_stride = w->out_features };
    struct shape *shape =
        find_shape(lt, w, alignment_of((uintptr_t)w->out_features * sizeof(float)));
    struct stopwatch watch = { NULL, NULL };
    if (!shape || max_rows <= CUDA_GEMV_MAX_ROWS)
        return;
    void *scratch = take_scratch(w, max_rows, &p, stream);
    const bool can_time =
        scratch &&
        cudaMemsetAsync(x, 0x3c, (size_t)max_rows * (size_t)w->stride * dtype_size(w->dtype),
                        stream) == cudaSuccess &&
        cudaEventCreateWithFlags(&watch.begin, cudaEventDefault) == cudaSuccess &&
        cudaEventCreateWithFlags(&watch.end, cudaEventDefault) == cudaSuccess;
    /* The largest first: they are worth most, and the time is bounded. */
    for (int32_t bucket = bucket_of(max_rows); bucket >= 0; bucket--) {
        const int64_t rows = bucket_rows(bucket);
        p.rows = (int32_t)(rows < max_rows ? rows : max_rows);
        choose_by_time(lt, shape, bucket, &p, can_time ? &watch : NULL, stream);
    }
    if (watch.begin)
        cudaEventDestroy(watch.begin);
    if (watch.end)
        cudaEventDestroy(watch.end);
    if (scratch) {
        cudaStreamSynchronize(stream);
        cudaFree(scratch);
    }
    cudaGetLastError(); /* a trial that failed is no failure of what follows */
    lt->prepare_seconds += clock_seconds_between(begin, clock_now_ns());
}

void cublaslt_log(const struct cublaslt *lt)
{
    log_info("cuBLASLt %s: products of more than %d rows; %d algorithms for %d shapes, %d of them "
             "by timing, in %.2f s",
             lt->description, CUDA_GEMV_MAX_ROWS, lt->num_chosen, lt->num_shapes, lt->num_timed,
             lt->prepare_seconds);
}
