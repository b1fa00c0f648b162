/* cublaslt_api.h - the part of cuBLASLt's C interface that is used here, as declarations of our
 * own: its headers are not on every build machine, and the library is loaded at run time or not at
 * all.
 *
 * Values, signatures and layouts are those that cublasLt.h and cublas_api.h have in CUDA 12 and 13
 * alike; tests/kernels/cuda/test_cublaslt_api.c compares them with the real headers where these
 * are. Matrices are column-major. A status is a cublasStatus_t, 0 for success. */
#ifndef INFERD_KERNELS_CUDA_CUBLASLT_API_H
#define INFERD_KERNELS_CUDA_CUBLASLT_API_H

#include <cuda_runtime_api.h>
#include <stddef.h>
#include <stdint.h>

enum {
    LT_SUCCESS = 0,
    LT_INVALID_VALUE = 7,
    LT_NOT_SUPPORTED = 15,

    LT_COMPUTE_32F = 68, /* cublasComputeType_t */
    LT_COMPUTE_32I = 72,
    LT_OP_N = 0, /* cublasOperation_t */
    LT_OP_T = 1,
    LT_EPILOGUE_DEFAULT = 1, /* cublasLtEpilogue_t */
    LT_EPILOGUE_BIAS = 4,    /* + a float32 vector along the rows of D */

    LT_R_32F = 0, /* cudaDataType_t */
    LT_R_16F = 2,
    LT_R_8I = 3,
    LT_R_32I = 10,
    LT_R_16BF = 14,
    LT_R_8F_E4M3 = 28,

    LT_DESC_TRANSA = 3, /* cublasLtMatmulDescAttributes_t; int32_t but for the pointer */
    LT_DESC_TRANSB = 4,
    LT_DESC_EPILOGUE = 7,
    LT_DESC_BIAS_POINTER = 8,

    LT_LAYOUT_TYPE = 0, /* cublasLtMatrixLayoutAttribute_t: uint32_t */
    LT_LAYOUT_ROWS = 2, /* uint64_t */
    LT_LAYOUT_COLS = 3, /* uint64_t */
    LT_LAYOUT_LD = 4,   /* int64_t, in elements */

    LT_PREFERENCE_MAX_WORKSPACE_BYTES = 1, /* cublasLtMatmulPreferenceAttributes_t: uint64_t */
    LT_PREFERENCE_MIN_ALIGNMENT_A = 5,     /* uint32_t, bytes */
    LT_PREFERENCE_MIN_ALIGNMENT_B = 6,
    LT_PREFERENCE_MIN_ALIGNMENT_C = 7,
    LT_PREFERENCE_MIN_ALIGNMENT_D = 8
};

struct lt_handle;
struct lt_desc;
struct lt_layout;
struct lt_preference;
struct lt_algo {
    uint64_t data[8];
};
struct lt_heuristic_result {
    struct lt_algo algo;
    size_t workspace_bytes;
    int32_t state; /* a status; the rest is valid on success only */
    float waves_count;
    int32_t reserved[4];
};

/* Each is the function named behind it. */
struct lt_api {
    size_t (*get_version)(void);                      /* cublasLtGetVersion */
    const char *(*get_status_string)(int32_t status); /* cublasLtGetStatusString */
    int32_t (*create)(struct lt_handle **out);        /* cublasLtCreate */
    int32_t (*destroy)(struct lt_handle *handle);     /* cublasLtDestroy */
    /* cublasLtMatmulDesc{Create,Destroy,SetAttribute} */
    int32_t (*desc_create)(struct lt_desc **out, int32_t compute_type, int32_t scale_type);
    int32_t (*desc_destroy)(struct lt_desc *desc);
    int32_t (*desc_set)(struct lt_desc *desc, int32_t attribute, const void *value, size_t size);
    /* cublasLtMatrixLayout{Create,Destroy,SetAttribute} */
    int32_t (*layout_create)(struct lt_layout **out, int32_t type, uint64_t rows, uint64_t cols,
                             int64_t ld);
    int32_t (*layout_destroy)(struct lt_layout *layout);
    int32_t (*layout_set)(struct lt_layout *layout, int32_t attribute, const void *value,
                          size_t size);
    /* cublasLtMatmulPreference{Create,Destroy,SetAttribute} */
    int32_t (*preference_create)(struct lt_preference **out);
    int32_t (*preference_destroy)(struct lt_preference *preference);
    int32_t (*preference_set)(struct lt_preference *preference, int32_t attribute,
                              const void *value, size_t size);
    /* cublasLtMatmulAlgoGetHeuristic, cublasLtMatmulAlgoCheck: best first; can it, and with how
     * much workspace. Both ask nothing of the device. */
    int32_t (*get_heuristic)(struct lt_handle *handle, struct lt_desc *desc, struct lt_layout *a,
                             struct lt_layout *b, struct lt_layout *c, struct lt_layout *d,
                             struct lt_preference *preference, int32_t requested,
                             struct lt_heuristic_result *results, int32_t *returned);
    int32_t (*algo_check)(struct lt_handle *handle, struct lt_desc *desc, struct lt_layout *a,
                          struct lt_layout *b, struct lt_layout *c, struct lt_layout *d,
                          const struct lt_algo *algo, struct lt_heuristic_result *result);
    /* cublasLtMatmul: D = alpha op(A) op(B) + beta C, enqueued. */
    int32_t (*matmul)(struct lt_handle *handle, struct lt_desc *desc, const void *alpha,
                      const void *a_data, struct lt_layout *a, const void *b_data,
                      struct lt_layout *b, const void *beta, const void *c_data,
                      struct lt_layout *c, void *d_data, struct lt_layout *d,
                      const struct lt_algo *algo, void *workspace, size_t workspace_bytes,
                      cudaStream_t stream);
};

#endif
