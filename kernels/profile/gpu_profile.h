/* gpu_profile.h - GPUs by name, for plans made on machines that have none.
 *
 * Names are compared without regard to case, '-', '_' and blanks. */
#ifndef INFERD_KERNELS_PROFILE_GPU_PROFILE_H
#define INFERD_KERNELS_PROFILE_GPU_PROFILE_H

#include "base/buf.h"
#include "kernels/backend.h"

struct gpu_profile {
    const char *name;
    int32_t compute_capability; /* major * 10 + minor */
    int32_t memory_mib;         /* as cudaMemGetInfo reports it, less than what is sold */
    int32_t bandwidth_gb_per_s; /* of the memory, peak */
    int32_t bf16_tflops;        /* dense tensor-core rate, float32 sums, peak */
};

/* NULL when there is none of that name. */
const struct gpu_profile *gpu_profile_find(const char *name);
/* The names of all, separated by commas. */
void gpu_profile_list(struct buf *out);

/* A device to plan with: it knows its memory and what the CUDA backend would take of it, and offers
 * no op and no memory (BACKEND_PLAN_ONLY). */
bool gpu_profile_open(const struct gpu_profile *profile, struct device **out, struct status *st);

#endif
