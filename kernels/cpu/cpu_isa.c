/* cpu_isa.c - which vector instructions the processor has and the system lets us use. */
#include "kernels/cpu/cpu_device.h"

#include <string.h>

static const char *const isa_names[NUM_CPU_ISAS] = { [CPU_ISA_SCALAR] = "scalar",
                                                     [CPU_ISA_AVX2] = "avx2",
                                                     [CPU_ISA_AVX512] = "avx512",
                                                     [CPU_ISA_AVX512_BF16] = "avx512_bf16" };

const char *cpu_isa_name(enum cpu_isa isa)
{
    return isa_names[isa];
}

bool cpu_isa_parse(const char *name, enum cpu_isa *out)
{
    for (int i = 0; i < NUM_CPU_ISAS; i++) {
        if (strcmp(name, isa_names[i]) == 0) {
            *out = (enum cpu_isa)i;
            return true;
        }
    }
    return false;
}

#if defined(__x86_64__)
#include <cpuid.h>

static bool has(uint32_t word, int bit)
{
    return (word >> bit & 1u) != 0;
}

/* The register state that the operating system saves on a task switch (XCR0). */
static uint64_t saved_state(void)
{
    uint32_t low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (uint64_t)high << 32 | low;
}

/* Bit numbers: Intel SDM volume 2, CPUID leaves 1 and 7. */
enum cpu_isa cpu_isa_detect(void)
{
    enum { XCR0_AVX = 0x6, XCR0_AVX512 = 0xe6 };
    uint32_t a, b, c, d;
    if (!__get_cpuid(1, &a, &b, &c, &d))
        return CPU_ISA_SCALAR;
    bool fma = has(c, 12), osxsave = has(c, 27), avx = has(c, 28), f16c = has(c, 29);
    if (!osxsave || !avx || !fma || !f16c || (saved_state() & XCR0_AVX) != XCR0_AVX)
        return CPU_ISA_SCALAR;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d))
        return CPU_ISA_SCALAR;
    uint32_t num_subleaves = a;
    bool avx2 = has(b, 5);
    bool avx512 = has(b, 16) && has(b, 17) && has(b, 30) && has(b, 31); /* F, DQ, BW, VL */
    if (!avx2)
        return CPU_ISA_SCALAR;
    if (!avx512 || (saved_state() & XCR0_AVX512) != XCR0_AVX512)
        return CPU_ISA_AVX2;
    bool bf16 = num_subleaves >= 1 && __get_cpuid_count(7, 1, &a, &b, &c, &d) && has(a, 5);
    return bf16 ? CPU_ISA_AVX512_BF16 : CPU_ISA_AVX512;
}
#else
enum cpu_isa cpu_isa_detect(void)
{
    return CPU_ISA_SCALAR;
}
#endif
