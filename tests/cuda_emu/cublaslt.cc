/* cublaslt.cc - cuBLASLt for the emulated device: a library of its own, libcublasLt.so.13, that
 * checks what it is given as strictly as the documentation allows, and computes on the host.
 *
 * It offers three algorithms, which differ in speed on the device's clock and in how many partial
 * sums they make, so that their bits differ; algorithm 2 needs workspace. What a caller does wrong
 * ends the process with a message, as it is a mistake of ours. */
#include "kernels/cuda/cublaslt_api.h"
#include "tests/cuda_emu/cublaslt_control.h"
#include "tests/cuda_emu/emu_control.h"

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <dlfcn.h>
#include <mutex>
#include <string>
#include <vector>

struct lt_handle {
    decltype(&emu_enqueue) enqueue;
    decltype(&emu_is_device) is_device;
    decltype(&emu_take_time) take_time;
};
struct lt_desc {
    int32_t compute;
    int32_t transa = LT_OP_N, transb = LT_OP_N, epilogue = LT_EPILOGUE_DEFAULT;
    const float *bias = nullptr;
};
struct lt_layout {
    uint32_t type;
    uint64_t rows, cols;
    int64_t ld;
};
struct lt_preference {
    uint64_t workspace_bytes = 0;
    uint32_t alignment[4] = { 256, 256, 256, 256 };
};

namespace
{

enum { NUM_ALGORITHMS = 3 };
const uint64_t MAGIC = 0x6c74616c676f;
const size_t NEEDED_WORKSPACE = 1 << 20; /* of algorithm 2 */
const double MS[NUM_ALGORITHMS] = { 2, 1, 3 };

std::mutex mutex;
fake_cublaslt_record record;
size_t version = 130000;
std::string failing;
int32_t fail_status;
int64_t most_rows = INT64_MAX;

[[noreturn]] void die(const char *what)
{
    fprintf(stderr, "cublaslt: %s\n", what);
    abort();
}

void need(bool condition, const char *what)
{
    if (!condition)
        die(what);
}

int32_t enter(const char *function)
{
    return failing == function ? fail_status : LT_SUCCESS;
}

size_t element_size(uint32_t type)
{
    if (type == LT_R_32F || type == LT_R_32I)
        return 4;
    return type == LT_R_8I || type == LT_R_8F_E4M3 ? 1 : 2;
}

float widen_e4m3(uint8_t bits)
{
    const int exponent = bits >> 3 & 15, fraction = bits & 7;
    const float magnitude = (bits & 0x7f) == 0x7f ? NAN
                            : exponent == 0       ? ldexpf((float)fraction, -9)
                                                  : ldexpf((float)(8 + fraction), exponent - 10);
    return bits & 0x80 ? -magnitude : magnitude;
}

float widen(uint32_t type, const char *at)
{
    uint16_t bits;
    if (type == LT_R_8I)
        return (float)(int8_t)*at;
    if (type == LT_R_8F_E4M3)
        return widen_e4m3((uint8_t)*at);
    memcpy(&bits, at, sizeof bits);
    if (type == LT_R_16BF) {
        uint32_t wide = (uint32_t)bits << 16;
        float value;
        memcpy(&value, &wide, sizeof value);
        return value;
    }
    _Float16 half;
    memcpy(&half, &bits, sizeof half);
    return (float)half;
}

/* What the library would answer with CUBLAS_STATUS_INVALID_VALUE or NOT_SUPPORTED is a mistake of
 * the caller's here: these products are all of the supported kind. */
void check_problem(const lt_desc *desc, const lt_layout *a, const lt_layout *b, const lt_layout *c,
                   const lt_layout *d)
{
    need(desc->transa == LT_OP_T && desc->transb == LT_OP_N, "only W^T x is expected");
    const bool whole = a->type == LT_R_8I, codes = whole || a->type == LT_R_8F_E4M3;
    need(a->type == b->type && (codes || a->type == LT_R_16BF || a->type == LT_R_16F),
         "types of A and B");
    need(c->type == (whole ? LT_R_32I : LT_R_32F) && d->type == c->type, "types of C and D");
    need(desc->compute == (whole ? LT_COMPUTE_32I : LT_COMPUTE_32F), "the type of sums");
    need(!codes || (a->ld % 16 == 0 && b->ld % 16 == 0 && d->ld % 4 == 0 &&
                    d->rows % (whole ? 4 : 16) == 0 && desc->epilogue == LT_EPILOGUE_DEFAULT),
         "sizes that tensor cores of 8 bits cannot take");
    need(a->rows == b->rows && a->cols == d->rows && b->cols == d->cols, "sizes do not match");
    need(c->rows == d->rows && c->cols == d->cols && c->ld == d->ld, "C is not like D");
    need(a->rows > 0 && a->cols > 0 && b->cols > 0, "an empty matrix");
    need(a->ld >= (int64_t)a->rows && b->ld >= (int64_t)b->rows && d->ld >= (int64_t)d->rows,
         "a leading dimension below the rows");
    need(a->rows % 64 == 0 && a->ld % 8 == 0 && b->ld % 8 == 0,
         "columns of A and B that tensor cores cannot take");
    need(desc->epilogue == LT_EPILOGUE_DEFAULT || desc->epilogue == LT_EPILOGUE_BIAS, "epilogue");
}

int32_t algorithm_of(const lt_algo *algo, const lt_layout *a, const lt_layout *d)
{
    need(algo->data[0] == MAGIC && algo->data[1] < NUM_ALGORITHMS, "no algorithm of this library");
    need(algo->data[2] == a->rows && algo->data[3] == a->cols, "the algorithm of another shape");
    need(algo->data[4] == a->type, "the algorithm of another type");
    (void)d;
    return (int32_t)algo->data[1];
}

bool can(int32_t algorithm, const lt_layout *d)
{
    return algorithm != 0 || (int64_t)d->cols <= most_rows;
}

template <typename T> int32_t set(T *to, const void *value, size_t size)
{
    if (size != sizeof *to)
        return LT_INVALID_VALUE;
    memcpy(to, value, size);
    return LT_SUCCESS;
}

struct problem {
    lt_desc desc;
    lt_layout a, b, d;
    const char *a_data, *b_data;
    void *d_data;
};

/* SUMS partial sums of every SUMS-th column (there are a multiple of 64), then their sum. */
template <int SUMS> float dot(const float *x, const float *w, size_t k)
{
    float sums[SUMS] = {}, total = 0;
    for (size_t i = 0; i < k; i += SUMS)
        for (int s = 0; s < SUMS; s++)
            sums[s] += x[i + s] * w[i + s];
    for (int s = 0; s < SUMS; s++)
        total += sums[s];
    return total;
}

std::vector<float> widened(const char *data, const lt_layout &m)
{
    std::vector<float> out(m.rows * m.cols);
    for (uint64_t c = 0; c < m.cols; c++)
        for (uint64_t r = 0; r < m.rows; r++)
            out[c * m.rows + r] =
                widen(m.type, data + ((int64_t)c * m.ld + (int64_t)r) * element_size(m.type));
    return out;
}

void compute(const problem &p, int32_t algorithm)
{
    static float (*const dots[NUM_ALGORITHMS])(const float *, const float *,
                                               size_t) = { dot<1>, dot<4>, dot<16> };
    const size_t k = p.a.rows;
    const bool whole = p.a.type == LT_R_8I;
    const std::vector<float> w = widened(p.a_data, p.a), x = widened(p.b_data, p.b);
    for (uint64_t j = 0; j < p.d.cols; j++)
        for (uint64_t f = 0; f < p.d.rows; f++) {
            const int64_t at = (int64_t)j * p.d.ld + (int64_t)f;
            if (whole) {
                int32_t sum = 0;
                for (size_t i = 0; i < k; i++)
                    sum += (int32_t)x[j * k + i] * (int32_t)w[f * k + i];
                ((int32_t *)p.d_data)[at] = sum;
                continue;
            }
            const float sum = dots[algorithm](&x[j * k], &w[f * k], k);
            ((float *)p.d_data)[at] =
                p.desc.epilogue == LT_EPILOGUE_BIAS ? sum + p.desc.bias[f] : sum;
        }
}

} // namespace

extern "C" {

void fake_cublaslt_get_record(struct fake_cublaslt_record *out)
{
    *out = record;
}

void fake_cublaslt_set_version(size_t value)
{
    version = value;
}

void fake_cublaslt_fail(const char *function, int32_t status)
{
    failing = function ? function : "";
    fail_status = status;
}

void fake_cublaslt_limit_algorithm_0(int64_t rows)
{
    most_rows = rows;
}

size_t cublasLtGetVersion(void)
{
    return version;
}

const char *cublasLtGetStatusString(int32_t status)
{
    return status == LT_SUCCESS         ? "success"
           : status == LT_NOT_SUPPORTED ? "the functionality requested is not supported"
                                        : "some failure";
}

/* The runtime is in the plug-in that calls, whatever its name. */
int32_t cublasLtCreate(lt_handle **out)
{
    Dl_info caller;
    int32_t status = enter("cublasLtCreate");
    *out = nullptr;
    if (status != LT_SUCCESS)
        return status;
    need(dladdr(__builtin_return_address(0), &caller) != 0, "who calls?");
    void *plugin = dlopen(caller.dli_fname, RTLD_NOW | RTLD_NOLOAD);
    need(plugin != nullptr, "the caller is not a plug-in");
    auto *h = new lt_handle;
    *(void **)&h->enqueue = dlsym(plugin, "emu_enqueue");
    *(void **)&h->is_device = dlsym(plugin, "emu_is_device");
    *(void **)&h->take_time = dlsym(plugin, "emu_take_time");
    dlclose(plugin);
    need(h->enqueue && h->is_device && h->take_time, "the caller is not on the emulated device");
    std::lock_guard<std::mutex> g(mutex);
    record.handles++;
    *out = h;
    return LT_SUCCESS;
}

int32_t cublasLtDestroy(lt_handle *handle)
{
    std::lock_guard<std::mutex> g(mutex);
    record.handles--;
    delete handle;
    return LT_SUCCESS;
}

int32_t cublasLtMatmulDescCreate(lt_desc **out, int32_t compute, int32_t scale)
{
    need((compute == LT_COMPUTE_32F && scale == LT_R_32F) ||
             (compute == LT_COMPUTE_32I && scale == LT_R_32I),
         "sums are neither float32 nor int32");
    std::lock_guard<std::mutex> g(mutex);
    record.objects++;
    *out = new lt_desc{ compute };
    return enter("cublasLtMatmulDescCreate");
}

int32_t cublasLtMatmulDescDestroy(lt_desc *desc)
{
    std::lock_guard<std::mutex> g(mutex);
    record.objects--;
    delete desc;
    return LT_SUCCESS;
}

int32_t cublasLtMatmulDescSetAttribute(lt_desc *desc, int32_t attribute, const void *value,
                                       size_t size)
{
    switch (attribute) {
    case LT_DESC_TRANSA:
        return set(&desc->transa, value, size);
    case LT_DESC_TRANSB:
        return set(&desc->transb, value, size);
    case LT_DESC_EPILOGUE:
        return set(&desc->epilogue, value, size);
    case LT_DESC_BIAS_POINTER:
        return set(&desc->bias, value, size);
    default:
        return LT_INVALID_VALUE;
    }
}

int32_t cublasLtMatrixLayoutCreate(lt_layout **out, int32_t type, uint64_t rows, uint64_t cols,
                                   int64_t ld)
{
    std::lock_guard<std::mutex> g(mutex);
    record.objects++;
    *out = new lt_layout{ (uint32_t)type, rows, cols, ld };
    return enter("cublasLtMatrixLayoutCreate");
}

int32_t cublasLtMatrixLayoutDestroy(lt_layout *layout)
{
    std::lock_guard<std::mutex> g(mutex);
    record.objects--;
    delete layout;
    return LT_SUCCESS;
}

int32_t cublasLtMatrixLayoutSetAttribute(lt_layout *layout, int32_t attribute, const void *value,
                                         size_t size)
{
    switch (attribute) {
    case LT_LAYOUT_TYPE:
        return set(&layout->type, value, size);
    case LT_LAYOUT_ROWS:
        return set(&layout->rows, value, size);
    case LT_LAYOUT_COLS:
        return set(&layout->cols, value, size);
    case LT_LAYOUT_LD:
        return set(&layout->ld, value, size);
    default:
        return LT_INVALID_VALUE;
    }
}

int32_t cublasLtMatmulPreferenceCreate(lt_preference **out)
{
    std::lock_guard<std::mutex> g(mutex);
    record.objects++;
    *out = new lt_preference;
    return LT_SUCCESS;
}

int32_t cublasLtMatmulPreferenceDestroy(lt_preference *preference)
{
    std::lock_guard<std::mutex> g(mutex);
    record.objects--;
    delete preference;
    return LT_SUCCESS;
}

int32_t cublasLtMatmulPreferenceSetAttribute(lt_preference *p, int32_t attribute, const void *value,
                                             size_t size)
{
    if (attribute == LT_PREFERENCE_MAX_WORKSPACE_BYTES)
        return set(&p->workspace_bytes, value, size);
    if (attribute >= LT_PREFERENCE_MIN_ALIGNMENT_A && attribute <= LT_PREFERENCE_MIN_ALIGNMENT_D)
        return set(&p->alignment[attribute - LT_PREFERENCE_MIN_ALIGNMENT_A], value, size);
    return LT_INVALID_VALUE;
}

/* The alignments asked for travel in the algorithm, so that the product can be held to them. */
int32_t cublasLtMatmulAlgoGetHeuristic(lt_handle *, lt_desc *desc, lt_layout *a, lt_layout *b,
                                       lt_layout *c, lt_layout *d, lt_preference *p,
                                       int32_t requested, lt_heuristic_result *results,
                                       int32_t *returned)
{
    int32_t status = enter("cublasLtMatmulAlgoGetHeuristic");
    *returned = 0;
    if (status != LT_SUCCESS)
        return status;
    check_problem(desc, a, b, c, d);
    for (uint64_t i = 0; i < NUM_ALGORITHMS && *returned < requested; i++) {
        const size_t workspace = i == 2 ? NEEDED_WORKSPACE : 0;
        if (workspace > p->workspace_bytes || !can((int32_t)i, d))
            continue;
        lt_heuristic_result *r = &results[(*returned)++];
        *r = {};
        r->workspace_bytes = workspace;
        r->algo = { { MAGIC, i, a->rows, a->cols, a->type,
                      (uint64_t)p->alignment[0] | (uint64_t)p->alignment[1] << 16,
                      (uint64_t)p->alignment[2] | (uint64_t)p->alignment[3] << 16, 0 } };
    }
    std::lock_guard<std::mutex> g(mutex);
    record.heuristics++;
    return *returned > 0 ? LT_SUCCESS : LT_NOT_SUPPORTED;
}

int32_t cublasLtMatmulAlgoCheck(lt_handle *, lt_desc *desc, lt_layout *a, lt_layout *b,
                                lt_layout *c, lt_layout *d, const lt_algo *algo,
                                lt_heuristic_result *result)
{
    check_problem(desc, a, b, c, d);
    const int32_t algorithm = algorithm_of(algo, a, d);
    *result = {};
    result->algo = *algo;
    result->workspace_bytes = algorithm == 2 ? NEEDED_WORKSPACE : 0;
    return can(algorithm, d) ? enter("cublasLtMatmulAlgoCheck") : LT_NOT_SUPPORTED;
}

int32_t cublasLtMatmul(lt_handle *h, lt_desc *desc, const void *alpha, const void *a_data,
                       lt_layout *a, const void *b_data, lt_layout *b, const void *beta,
                       const void *c_data, lt_layout *c, void *d_data, lt_layout *d,
                       const lt_algo *algo, void *workspace, size_t workspace_bytes,
                       cudaStream_t stream)
{
    int32_t status = enter("cublasLtMatmul");
    if (status != LT_SUCCESS)
        return status;
    check_problem(desc, a, b, c, d);
    if (desc->compute == LT_COMPUTE_32I)
        need(*(const int32_t *)alpha == 1 && *(const int32_t *)beta == 0, "alpha or beta");
    else
        need(*(const float *)alpha == 1 && *(const float *)beta == 0, "alpha or beta");
    need(c_data == d_data, "C is not D");
    const int32_t algorithm = algorithm_of(algo, a, d);
    const uintptr_t aligned[4] = { (uintptr_t)a_data | (uintptr_t)a->ld * element_size(a->type),
                                   (uintptr_t)b_data | (uintptr_t)b->ld * element_size(b->type),
                                   (uintptr_t)c_data | (uintptr_t)c->ld * element_size(c->type),
                                   (uintptr_t)d_data | (uintptr_t)d->ld * element_size(d->type) };
    for (int i = 0; i < 4; i++)
        need(aligned[i] % (algo->data[5 + i / 2] >> (i % 2 * 16) & 0xffff) == 0,
             "a matrix is not aligned as was said when the algorithm was chosen");
    need(h->is_device(a_data) && h->is_device(b_data) && h->is_device(d_data),
         "a matrix is not in device memory");
    need((desc->epilogue == LT_EPILOGUE_BIAS) == (desc->bias && h->is_device(desc->bias)),
         "bias and epilogue do not go together");
    need(algorithm != 2 || (workspace_bytes >= NEEDED_WORKSPACE && h->is_device(workspace)),
         "no workspace");
    if (!can(algorithm, d))
        return LT_NOT_SUPPORTED;
    const problem p = { *desc, *a, *b, *d, (const char *)a_data, (const char *)b_data, d_data };
    auto take_time = h->take_time;
    h->enqueue(stream, [p, algorithm, workspace, take_time] {
        if (algorithm == 2) /* whose it is, for as long as it runs */
            memset(workspace, 0x5a, NEEDED_WORKSPACE);
        compute(p, algorithm);
        take_time(MS[algorithm]);
    });
    std::lock_guard<std::mutex> g(mutex);
    record.products++;
    record.algorithm = algorithm;
    return LT_SUCCESS;
}

} /* extern "C" */
