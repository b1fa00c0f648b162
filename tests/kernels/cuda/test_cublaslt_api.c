/* test_cublaslt_api.c - our declarations of cuBLASLt against NVIDIA's, when this is compiled where
 * CUDA has its headers. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>

#if defined(INFERD_HAVE_CUBLASLT)
#include <cublasLt.h>

#include "kernels/cuda/cublaslt_api.h"

#define SAME_VALUE(ours, theirs) _Static_assert((int)(ours) == (int)(theirs), #ours)

SAME_VALUE(LT_SUCCESS, CUBLAS_STATUS_SUCCESS);
SAME_VALUE(LT_INVALID_VALUE, CUBLAS_STATUS_INVALID_VALUE);
SAME_VALUE(LT_NOT_SUPPORTED, CUBLAS_STATUS_NOT_SUPPORTED);
SAME_VALUE(LT_COMPUTE_32F, CUBLAS_COMPUTE_32F);
SAME_VALUE(LT_COMPUTE_32I, CUBLAS_COMPUTE_32I);
SAME_VALUE(LT_OP_N, CUBLAS_OP_N);
SAME_VALUE(LT_OP_T, CUBLAS_OP_T);
SAME_VALUE(LT_EPILOGUE_DEFAULT, CUBLASLT_EPILOGUE_DEFAULT);
SAME_VALUE(LT_EPILOGUE_BIAS, CUBLASLT_EPILOGUE_BIAS);
SAME_VALUE(LT_R_32F, CUDA_R_32F);
SAME_VALUE(LT_R_16F, CUDA_R_16F);
SAME_VALUE(LT_R_8I, CUDA_R_8I);
SAME_VALUE(LT_R_32I, CUDA_R_32I);
SAME_VALUE(LT_R_16BF, CUDA_R_16BF);
SAME_VALUE(LT_R_8F_E4M3, CUDA_R_8F_E4M3);
SAME_VALUE(LT_DESC_TRANSA, CUBLASLT_MATMUL_DESC_TRANSA);
SAME_VALUE(LT_DESC_TRANSB, CUBLASLT_MATMUL_DESC_TRANSB);
SAME_VALUE(LT_DESC_EPILOGUE, CUBLASLT_MATMUL_DESC_EPILOGUE);
SAME_VALUE(LT_DESC_BIAS_POINTER, CUBLASLT_MATMUL_DESC_BIAS_POINTER);
SAME_VALUE(LT_LAYOUT_TYPE, CUBLASLT_MATRIX_LAYOUT_TYPE);
SAME_VALUE(LT_LAYOUT_ROWS, CUBLASLT_MATRIX_LAYOUT_ROWS);
SAME_VALUE(LT_LAYOUT_COLS, CUBLASLT_MATRIX_LAYOUT_COLS);
SAME_VALUE(LT_LAYOUT_LD, CUBLASLT_MATRIX_LAYOUT_LD);
SAME_VALUE(LT_PREFERENCE_MAX_WORKSPACE_BYTES, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES);
SAME_VALUE(LT_PREFERENCE_MIN_ALIGNMENT_A, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES);
SAME_VALUE(LT_PREFERENCE_MIN_ALIGNMENT_B, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES);
SAME_VALUE(LT_PREFERENCE_MIN_ALIGNMENT_C, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES);
SAME_VALUE(LT_PREFERENCE_MIN_ALIGNMENT_D, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES);
SAME_VALUE(sizeof(struct lt_algo), sizeof(cublasLtMatmulAlgo_t));
SAME_VALUE(sizeof(struct lt_heuristic_result), sizeof(cublasLtMatmulHeuristicResult_t));
SAME_VALUE(offsetof(struct lt_heuristic_result, workspace_bytes),
           offsetof(cublasLtMatmulHeuristicResult_t, workspaceSize));
SAME_VALUE(offsetof(struct lt_heuristic_result, state),
           offsetof(cublasLtMatmulHeuristicResult_t, state));
#endif

static void declarations_are_nvidias(void **state)
{
    (void)state;
#if !defined(INFERD_HAVE_CUBLASLT)
    printf("skip: there was no cublasLt.h to compile with\n");
    skip();
#endif
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(declarations_are_nvidias) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
