/* cuda_device.h - an opened GPU: its streams, workspace and staging buffers. Private to
 * kernels/cuda. */
#ifndef INFERD_KERNELS_CUDA_CUDA_DEVICE_H
#define INFERD_KERNELS_CUDA_CUDA_DEVICE_H

#include "kernels/backend.h"
#include "kernels/cuda/cublaslt.h"
#include "kernels/cuda/launch.h"

#include <pthread.h>

enum {
    CUDA_MIN_ARCH = 80,           /* cp.async, and mma with bfloat16 */
    CUDA_NUM_STAGING = 4,         /* pinned buffers between files and the device */
    CUDA_STAGING_BYTES = 8 << 20, /* of each: at this size a bus transfer runs at full speed */
    CUDA_MAX_PINNED = 16,         /* buffers of MEMORY_PINNED at once */
};

enum cuda_flags {
    /* A row's bits do not depend on how many rows ride along. */
    CUDA_BATCH_INVARIANT = 1u << 0,
    /* More than CUDA_GEMV_MAX_ROWS rows may be cuBLASLt's. */
    CUDA_CUBLASLT = 1u << 1
};

/* A row of the table in linear_cuda.c. */
struct linear_kernel {
    const char *name;
    enum cuda_codec codec;
    enum dtype weights; /* of CUDA_PLAIN; with an input_quant, of the codes */
    int32_t min_arch;
    uint32_t flags;
    void (*run)(const struct cuda_product *p, cudaStream_t stream);
    enum input_quant_kind input; /* of the linears it is for */
};

struct cuda_staging {
    void *data; /* pinned */
    cudaEvent_t copied;
    bool busy; /* a thread fills it */
};

struct cuda_device {
    struct device base; /* first, so that a struct device * can be cast */
    int32_t index, arch;
    int32_t max_shared_bytes;      /* that a block may have */
    cudaStream_t stream;           /* all ops and copies of the worker's thread */
    struct cuda_fault *fault;      /* device memory */
    struct cuda_fault *fault_host; /* pinned: one for each mark, and sync's */
    cudaEvent_t marks[DEVICE_NUM_MARKS];
    void *pinned[CUDA_MAX_PINNED];

    /* --- workspace: one block, cut into the parts below by reserve_workspace --- */
    struct workspace_desc limits;
    struct buffer workspace;
    void *linear_input; /* activations rounded for a product */
    size_t linear_input_bytes;
    float *partials; /* of decode attention */
    int32_t partial_slots;
    void *sampling;
    char *moe;           /* see struct cuda_moe_parts */
    float *comm_scratch; /* of collectives through NCCL */
    size_t comm_scratch_bytes;
    struct cublaslt *cublaslt; /* NULL: not wanted, or not there */

    /* --- loading: several threads pack at once --- */
    pthread_mutex_t mutex; /* guards what follows, and base.error while threads pack */
    pthread_cond_t changed;
    cudaStream_t load_stream;
    struct cuda_staging staging[CUDA_NUM_STAGING];
    bool loading;                                         /* the load stream may have work */
    struct cublaslt_weights planned[CUBLASLT_MAX_SHAPES]; /* whose products cuBLASLt may do */
    int32_t num_planned;
};

static inline struct cuda_device *cuda_device_of(struct device *d)
{
    return (struct cuda_device *)d;
}

/* The first failure sticks to the device; `what` and the words of CUDA make the message. */
void cuda_check(struct cuda_device *d, cudaError_t error, const char *what);
/* The same, into st. */
bool cuda_failed(struct status *st, cudaError_t error, const char *what);
/* Makes the calling thread's CUDA calls go to this device. */
bool cuda_use(struct cuda_device *d);

static inline struct cuda_kv cuda_kv_of(const struct kv_layer *kv)
{
    /* Exact for all positions below 2^31 (Granlund and Montgomery, 1994). */
    const uint64_t size = (uint64_t)kv->block_size;
    int32_t shift = 31;
    while ((uint64_t)1 << (shift - 31) < size)
        shift++;
    return (struct cuda_kv){ .k = kv->k,
                             .v = kv->v,
                             .dtype = kv->dtype,
                             .num_blocks = kv->num_blocks,
                             .block_size = kv->block_size,
                             .num_kv_heads = kv->num_kv_heads,
                             .head_dim = kv->head_dim,
                             .k_scale = kv->k_scale,
                             .v_scale = kv->v_scale,
                             .block_multiplier = (uint32_t)(((uint64_t)1 << shift) / size + 1),
                             .block_shift = shift };
}

/* device_cuda.c */
bool cuda_open(struct device **out, const struct device_options *options, struct status *st);
void cuda_close(struct device *d);
void cuda_bind_thread(struct device *d);
void cuda_bind_loader(struct device *d);
bool cuda_memory_info(struct device *d, struct memory_info *out, struct status *st);
bool cuda_alloc(struct device *d, struct buffer *out, size_t size_bytes, enum memory_kind kind,
                struct status *st);
void cuda_free(struct device *d, struct buffer *buffer);
void cuda_copy(struct device *d, void *dst, const void *src, size_t size_bytes,
               enum copy_kind kind);
void cuda_copy_pieces(struct device *d, const struct copy_piece *pieces, int32_t count);
bool cuda_sync(struct device *d, struct status *st);
void cuda_mark(struct device *d, int32_t mark);
bool cuda_await(struct device *d, int32_t mark, struct status *st);
bool cuda_is_reached(struct device *d, int32_t mark);
bool cuda_capture_begin(struct device *d, struct status *st);
bool cuda_capture_end(struct device *d, struct graph **out, struct status *st);
bool cuda_graph_launch(struct device *d, struct graph *graph);
void cuda_graph_free(struct device *d, struct graph *graph);

/* linear_cuda.c */
bool cuda_linear_plan(const struct device *d, struct linear *l, struct status *st);
const char *cuda_linear_layout(const struct linear *l);
void cuda_linear_pack(const struct device *d, const struct linear *l, int32_t row_begin,
                      int32_t num_rows, const void *rows, const struct quant_format *format);
void cuda_linear(struct device *d, struct tensor *out, const struct tensor *x,
                 const struct linear *weight);
/* norm_linear, of norm->size columns; false, with nothing done, where the linear takes no codes. */
bool cuda_norm_codes_linear(struct cuda_device *d, struct tensor *out, struct tensor *residual,
                            const struct tensor *x, const struct norm *norm,
                            const struct linear *weight);
void cuda_linear_heads(struct device *d, struct tensor *out, const struct tensor *x,
                       const struct linear *heads, int32_t num_heads);
struct cuda_matrix cuda_matrix_of(const struct linear *l);
/* Opens cuBLASLt and lets it choose for the weights planned so far, with this device memory; none:
 * closes it. Where it cannot be used the log says why, and kernels of ours do its products. */
void cuda_linear_prepare(struct cuda_device *d, void *workspace, size_t bytes);
void cuda_staging_close(struct cuda_device *d);

/* attention_mla_cuda.c */
void cuda_attention_mla(struct device *d, struct tensor *out, const struct mla_query *q,
                        const struct kv_layer *kv, const struct attn_metadata *m,
                        const struct attention_params *params);

/* moe_cuda.c */
void cuda_moe(struct device *d, struct tensor *out, const struct tensor *x,
              const struct tensor *router_logits, const struct moe *moe);

#endif
