/* cublaslt.h - products with many rows through cuBLASLt, where that is there and is wanted.
 *
 * The library is looked for beside the plug-in, in ../lib from there, and where the loader looks;
 * nothing depends on it. Its sums run in an order that may change with the number of rows, so it is
 * used only where results may depend on the batch; but for those of whole numbers, which are exact
 * in any order.
 *
 * Weights and activations are bfloat16, float16, or codes of 8 bits (cuda_codes): E4M3 on compute
 * capability 8.9 and later, or int8_t. The scales of codes are not the library's affair: before
 * CUDA 12.9 it takes one scale for a matrix, and for int8_t none.
 *
 * An algorithm is chosen for each shape and each bucket of rows (up to 32, 64, 128, ...), from the
 * library's own ranking, the best few timed; and then kept. A product that cuBLASLt refuses is a
 * kernel of ours's from then on, and the log says so once. Products allocate nothing and can be
 * captured. One thread at a time, that of the device. */
#ifndef INFERD_KERNELS_CUDA_CUBLASLT_H
#define INFERD_KERNELS_CUDA_CUBLASLT_H

#include "base/status.h"
#include "kernels/cuda/launch.h"

struct cublaslt;

enum { CUBLASLT_MAX_SHAPES = 64, CUBLASLT_NUM_BUCKETS = 17 }; /* up to 2M rows */

/* Weights that may come in a product. */
struct cublaslt_weights {
    enum dtype dtype; /* of activations too */
    int32_t out_features;
    int64_t stride; /* of a row: the columns, zeros behind them included */
    int64_t ld;     /* from a row to the next in memory, in elements */
    bool has_bias;  /* never of codes */
};

/* For the GPU that the calling thread uses. False, with the reason, where the library is missing,
 * is of a version that is not known, or does not work. */
bool cublaslt_open(struct cublaslt **out, struct status *st);
void cublaslt_close(struct cublaslt *lt);
/* "13.1.0, from /usr/lib/libcublasLt.so.13" */
const char *cublaslt_description(const struct cublaslt *lt);

/* Device memory for all products to come, `max_rows` of each at most. Forgets what was chosen. */
void cublaslt_set_workspace(struct cublaslt *lt, void *workspace, size_t bytes, int32_t max_rows);
/* Chooses for up to max_rows rows of these weights. x is device memory for as many rows of
 * activations, whose contents get lost. Timing takes memory for the time being, and is left out
 * where that is not to be had. */
void cublaslt_prepare(struct cublaslt *lt, const struct cublaslt_weights *weights, int32_t max_rows,
                      void *x, cudaStream_t stream);
/* How many algorithms prepare chose, how many of them by timing, and the time that took. */
void cublaslt_log(const struct cublaslt *lt);

/* Whether cublaslt_product is going to try: p->x may still be empty. */
bool cublaslt_takes(struct cublaslt *lt, const struct cuda_product *p);
/* False: nothing was enqueued, and a kernel of ours has to do it. Of int8_t p->out becomes int32_t.
 */
bool cublaslt_product(struct cublaslt *lt, const struct cuda_product *p, cudaStream_t stream);

#endif
