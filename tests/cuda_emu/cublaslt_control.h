/* cublaslt_control.h - what a test can ask of the cuBLASLt that stands beside the emulated device,
 * and what it records. Found by dlsym in the libcublasLt.so.13 of tests/cuda_emu. */
#ifndef INFERD_TESTS_CUDA_EMU_CUBLASLT_CONTROL_H
#define INFERD_TESTS_CUDA_EMU_CUBLASLT_CONTROL_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct fake_cublaslt_record {
    int64_t products, heuristics; /* calls that succeeded */
    int64_t handles, objects;     /* that live */
    int32_t algorithm;            /* of the last product; 1 is the fastest, 0 is ranked first */
};

void fake_cublaslt_get_record(struct fake_cublaslt_record *out);
void fake_cublaslt_set_version(size_t version);
/* Every call of that function returns `status` until it is NULL. */
void fake_cublaslt_fail(const char *function, int32_t status);
/* The most rows (columns of D) that algorithm 0 can do. */
void fake_cublaslt_limit_algorithm_0(int64_t rows);

#ifdef __cplusplus
}
#endif

#endif
