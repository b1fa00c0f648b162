/* backend_profile.c - a GPU that is not here, for `inferd plan --device NAME`: the sizes of the
 * CUDA backend, and nothing that runs. */
#include "kernels/profile/gpu_profile.h"

#include "base/alloc.h"
#include "kernels/cuda/cuda_weight_layout.h"

#include <stdio.h>
#include <stdlib.h>

enum {
    CUDA_MIN_ARCH = 80,
    /* A CUDA context and the plug-in's kernels take memory before the first allocation: an
     * estimate, not a figure of each GPU. */
    CONTEXT_MIB = 512
};

struct profile_device {
    struct device base;
    const struct gpu_profile *profile;
};

static void profile_close(struct device *d)
{
    free(d);
}

static bool profile_memory_info(struct device *d, struct memory_info *out, struct status *st)
{
    (void)st;
    size_t mib = (size_t)((struct profile_device *)d)->profile->memory_mib;
    out->total_bytes = mib << 20;
    out->available_bytes = (mib - CONTEXT_MIB) << 20;
    return true;
}

static bool profile_alloc(struct device *d, struct buffer *out, size_t size_bytes,
                          enum memory_kind kind, struct status *st)
{
    (void)kind;
    *out = (struct buffer){ NULL, 0 };
    return status_set(st, STATUS_UNSUPPORTED, "%s is a profile to plan for: it has no %zu bytes",
                      d->description, size_bytes);
}

static bool profile_sync(struct device *d, struct status *st)
{
    (void)d;
    (void)st;
    return true;
}

static size_t profile_workspace_bytes(const struct device *d, const struct workspace_desc *w)
{
    (void)d;
    struct cuda_workspace_parts p = cuda_workspace_parts(w);
    return cuda_workspace_total(&p);
}

/* As the CUDA backend holds weights. */
static bool profile_linear_plan(const struct device *d, struct linear *l, struct status *st)
{
    struct cuda_weight_layout layout;
    if (!cuda_weight_plan(&layout, l))
        return status_set(st, STATUS_UNSUPPORTED, "%s cannot hold %s weights", d->description,
                          l->format->name);
    l->packed_bytes = (size_t)l->out_features * (size_t)layout.row_bytes;
    return true;
}

static const char *profile_linear_layout(const struct linear *l)
{
    (void)l;
    return "cuda";
}

static const struct backend backend_profile = {
    .name = "profile",
    .caps = BACKEND_PLAN_ONLY | BACKEND_KV_8BIT | BACKEND_CAN_CAPTURE,
    .close = profile_close,
    .memory_info = profile_memory_info,
    .alloc = profile_alloc,
    .sync = profile_sync,
    .workspace_bytes = profile_workspace_bytes,
    .linear_plan = profile_linear_plan,
    .linear_layout = profile_linear_layout,
};

bool gpu_profile_open(const struct gpu_profile *profile, struct device **out, struct status *st)
{
    *out = NULL;
    if (profile->compute_capability < CUDA_MIN_ARCH)
        return status_set(st, STATUS_UNSUPPORTED,
                          "%s: its compute capability %d.%d is below the 8.0 that is needed",
                          profile->name, profile->compute_capability / 10,
                          profile->compute_capability % 10);
    struct profile_device *d = xcalloc(1, sizeof *d);
    d->base.backend = &backend_profile;
    d->profile = profile;
    snprintf(d->base.description, sizeof d->base.description,
             "%s (profile), %d MiB at %d GB/s, %d TFLOPS bf16", profile->name, profile->memory_mib,
             profile->bandwidth_gb_per_s, profile->bf16_tflops);
    *out = &d->base;
    return true;
}
