/* cpu_device.h - an opened CPU: its instruction set, thread pool and workspace. Private to
 * kernels/cpu. */
#ifndef INFERD_KERNELS_CPU_CPU_DEVICE_H
#define INFERD_KERNELS_CPU_CPU_DEVICE_H

#include "kernels/backend.h"
#include "kernels/cpu/thread_pool.h"

/* Rising: each level includes those before it. What the machine has is asked once, at open. */
enum cpu_isa { CPU_ISA_SCALAR, CPU_ISA_AVX2, CPU_ISA_AVX512, CPU_ISA_AVX512_BF16, NUM_CPU_ISAS };

struct cpu_device {
    struct device base; /* first, so that a struct device * can be cast */
    enum cpu_isa isa;
    struct thread_pool *pool;
    int32_t num_threads;
    struct workspace_desc limits;
    struct buffer workspace; /* one block, cut into the parts below by reserve_workspace */
    void *linear_scratch;    /* activations rounded for a product */
    void *attention_scratch; /* per thread: see attention.c */
    void *sampling_scratch;  /* per thread: see sampling.c */
    void *moe_scratch;       /* see moe.c */
    void *dequant_scratch;   /* per thread: see linear_dequant.c */
    size_t linear_scratch_bytes, attention_scratch_bytes, sampling_scratch_bytes;
    size_t moe_scratch_bytes;
};

static inline struct cpu_device *cpu_device_of(struct device *d)
{
    return (struct cpu_device *)d;
}

enum cpu_isa cpu_isa_detect(void);
const char *cpu_isa_name(enum cpu_isa isa);
bool cpu_isa_parse(const char *name, enum cpu_isa *out); /* "auto" is not a name here */

#endif
