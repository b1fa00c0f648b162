/* ptx.cuh - the instructions that CUDA C++ has no function for, each behind one. The emulated build
 * (tests/cuda_emu) brings its own of the same names. */
#ifndef INFERD_KERNELS_CUDA_PTX_CUH
#define INFERD_KERNELS_CUDA_PTX_CUH

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>
#include <stdint.h>

#ifndef INFERD_CUDA_EMU

/* 16 bytes from global to shared memory, past the registers; zeros where not `valid`, and then
 * nothing is read. Both addresses are multiples of 16. */
__device__ __forceinline__ void cp_async_16(void *shared, const void *global, bool valid)
{
    uint32_t at = (uint32_t)__cvta_generic_to_shared(shared);
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;\n" ::"r"(at), "l"(global),
                 "r"(valid ? 16 : 0)
                 : "memory");
}
__device__ __forceinline__ void cp_async_commit(void)
{
    asm volatile("cp.async.commit_group;\n" ::: "memory");
}
/* Waits until at most N groups of this thread's are under way. */
template <int N> __device__ __forceinline__ void cp_async_wait(void)
{
    asm volatile("cp.async.wait_group %0;\n" ::"n"(N) : "memory");
}

/* 16 bytes that are read once: they do not push others out of the nearest cache. */
__device__ __forceinline__ uint4 load_once(const void *at)
{
    uint4 v;
    asm("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];\n"
        : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
        : "l"(at));
    return v;
}

/* 16 bytes that other blocks read, too. */
__device__ __forceinline__ uint4 load_shared_by_blocks(const void *at)
{
    uint4 v;
    asm("ld.global.nc.v4.u32 {%0, %1, %2, %3}, [%4];\n"
        : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
        : "l"(at));
    return v;
}

/* (word & mask) | bits in one instruction, which the compiler makes two of. */
__device__ __forceinline__ uint32_t and_or(uint32_t word, uint32_t mask, uint32_t bits)
{
    uint32_t out;
    asm("lop3.b32 %0, %1, %2, %3, 0xea;\n" : "=r"(out) : "r"(word), "r"(mask), "r"(bits));
    return out;
}

/* a * b + c of two neighbours each, rounded once: to T, to the nearest. */
template <typename T>
__device__ __forceinline__ uint32_t fma_pair(uint32_t a, uint32_t b, uint32_t c);
template <> __device__ __forceinline__ uint32_t fma_pair<__half>(uint32_t a, uint32_t b, uint32_t c)
{
    uint32_t d;
    asm("fma.rn.f16x2 %0, %1, %2, %3;\n" : "=r"(d) : "r"(a), "r"(b), "r"(c));
    return d;
}
template <>
__device__ __forceinline__ uint32_t fma_pair<__nv_bfloat16>(uint32_t a, uint32_t b, uint32_t c)
{
    uint32_t d;
    asm("fma.rn.bf16x2 %0, %1, %2, %3;\n" : "=r"(d) : "r"(a), "r"(b), "r"(c));
    return d;
}

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 890
#define INFERD_E4M3_CONVERSION 1
/* Two E4M3 in the lower half of a word as float16. */
__device__ __forceinline__ uint32_t f16_pair_of_e4m3(uint32_t two)
{
    uint32_t pair;
    asm("cvt.rn.f16x2.e4m3x2 %0, %1;\n" : "=r"(pair) : "h"((uint16_t)two));
    return pair;
}
#endif

/* 2^x to 22 bits; what is below the least normal number becomes 0. */
__device__ __forceinline__ float exp2_approx(float x)
{
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;\n" : "=f"(y) : "f"(x));
    return y;
}

/* A word that other GPUs or the host read and write: what was written before a release is seen
 * after the acquire that reads it. */
__device__ __forceinline__ void store_release_system(uint32_t *at, uint32_t value)
{
    asm volatile("st.release.sys.global.u32 [%0], %1;\n" ::"l"(at), "r"(value) : "memory");
}
__device__ __forceinline__ uint32_t load_acquire_system(const uint32_t *at)
{
    uint32_t value;
    asm volatile("ld.acquire.sys.global.u32 %0, [%1];\n" : "=r"(value) : "l"(at) : "memory");
    return value;
}
/* Between two looks at a word that another GPU will change. The block may begin anew here when it
 * is emulated: what it did before must be what it would do again. */
__device__ __forceinline__ void wait_for_peers(void)
{
}

/* Four matrices of 8 x 8 16-bit elements: lane i brings the address of row i % 8 of matrix i / 8,
 * and gets of each matrix elements (i / 4, i % 4 * 2) and the next, or with trans those of the
 * matrix turned over. */
__device__ __forceinline__ void ldmatrix_x4(uint32_t out[4], const void *row)
{
    uint32_t at = (uint32_t)__cvta_generic_to_shared(row);
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];\n"
                 : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
                 : "r"(at)
                 : "memory");
}
__device__ __forceinline__ void ldmatrix_x4_trans(uint32_t out[4], const void *row)
{
    uint32_t at = (uint32_t)__cvta_generic_to_shared(row);
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];\n"
                 : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
                 : "r"(at)
                 : "memory");
}

/* d += a b over a warp: a [16, 16], b [16, 8] of T, d [16, 8] float32. With g = lane / 4 and
 * p = lane % 4 * 2 a lane holds: a[0] (g, p), a[1] (g + 8, p), a[2] (g, p + 8), a[3] (g + 8,
 * p + 8), each with the next column; b[0] (p, g), b[1] (p + 8, g), each with the next row;
 * d[0], d[1] (g, p), d[2], d[3] (g + 8, p). */
template <typename T>
__device__ __forceinline__ void mma_16816(float d[4], const uint32_t a[4], const uint32_t b[2]);
template <>
__device__ __forceinline__ void mma_16816<__nv_bfloat16>(float d[4], const uint32_t a[4],
                                                         const uint32_t b[2])
{
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};\n"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
template <>
__device__ __forceinline__ void mma_16816<__half>(float d[4], const uint32_t a[4],
                                                  const uint32_t b[2])
{
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};\n"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

#endif

#endif
