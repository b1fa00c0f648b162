/* cuda_runtime.h - CUDA C++ on the host: what a .cu file of kernels/cuda may use of the language
 * and of the device, in terms of tests/cuda_emu/grid.h. Found before CUDA's own header of this name
 * when the kernels are compiled with the host's compiler. */
#ifndef INFERD_TESTS_CUDA_EMU_CUDA_RUNTIME_H
#define INFERD_TESTS_CUDA_EMU_CUDA_RUNTIME_H

#include "tests/cuda_emu/grid.h"
#include "tests/cuda_emu/include/cuda_bf16.h"
#include "tests/cuda_emu/include/cuda_fp16.h"
#include "tests/cuda_emu/include/cuda_runtime_api.h"
#include "tests/cuda_emu/race.h"

#include <cmath>
#include <functional>
#include <tuple>
#include <type_traits>

#define INFERD_CUDA_EMU 1

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __shared__   static /* blocks run one after another */
#define __align__(n) alignas(n)

#define threadIdx (emu_self->index)
#define blockIdx  emu_block_index
#define blockDim  emu_block_size
#define gridDim   emu_grid_size

struct alignas(8) uint2 {
    unsigned int x, y;
};
struct alignas(16) uint4 {
    unsigned int x, y, z, w;
};
struct alignas(8) float2 {
    float x, y;
};
struct alignas(16) float4 {
    float x, y, z, w;
};
static inline uint4 make_uint4(unsigned int x, unsigned int y, unsigned int z, unsigned int w)
{
    return { x, y, z, w };
}
static inline float2 make_float2(float x, float y)
{
    return { x, y };
}
static inline float4 make_float4(float x, float y, float z, float w)
{
    return { x, y, z, w };
}

/* --- numbers ---------------------------------------------------------------------------------- */

static inline unsigned int __float_as_uint(float x)
{
    unsigned int bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}
static inline float __fdiv_rn(float a, float b)
{
    return a / b;
}
static inline float __uint_as_float(unsigned int bits)
{
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}
static inline float __fmul_rn(float a, float b)
{
    return a * b;
}
static inline float __fadd_rn(float a, float b)
{
    return a + b;
}
static inline float __fsub_rn(float a, float b)
{
    return a - b;
}
static inline float __fmaf_rn(float a, float b, float c)
{
    return fmaf(a, b, c);
}
static inline float exp2_approx(float x)
{
    const float y = exp2f(x);
    return y < 0x1p-126f ? 0.0f : y;
}
static inline unsigned int __byte_perm(unsigned int x, unsigned int y, unsigned int selector)
{
    const uint64_t bytes = (uint64_t)y << 32 | x;
    unsigned int out = 0;
    for (int i = 0; i < 4; i++) {
        if (selector >> i * 4 & 8)
            emu_die("__byte_perm with a selector beyond 7");
        out |= (unsigned int)(bytes >> (selector >> i * 4 & 7) * 8 & 0xff) << i * 8;
    }
    return out;
}
static inline uint32_t and_or(uint32_t word, uint32_t mask, uint32_t bits)
{
    return (word & mask) | bits;
}
static inline int __popc(unsigned int x)
{
    return __builtin_popcount(x);
}
static inline int __ffs(int x)
{
    return __builtin_ffs(x);
}
static inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b)
{
    return (unsigned long long)((unsigned __int128)a * b >> 64);
}
template <typename T> static inline T __ldg(const T *at)
{
    return *at;
}

/* --- block and warp --------------------------------------------------------------------------- */

static inline void __syncthreads(void)
{
    emu_barrier();
}
static inline void __syncwarp(unsigned int mask = 0xffffffffu)
{
    if (mask != 0xffffffffu)
        emu_die("__syncwarp of a part of a warp");
    emu_exchange("__syncwarp", "", 0);
}
template <typename T> static EMU_QUIET T emu_lane(const emu_slot *slots, unsigned int lane)
{
    T value;
    memcpy(&value, slots[lane].bytes, sizeof value);
    return value;
}
static EMU_QUIET void emu_check_mask(unsigned int mask)
{
    if (mask != 0xffffffffu)
        emu_die("a warp operation of a part of a warp");
}
template <typename T> static EMU_UNSEEN T __shfl_sync(unsigned int mask, T value, int lane)
{
    emu_check_mask(mask);
    return emu_lane<T>(emu_exchange("__shfl_sync", &value, sizeof value), (unsigned)lane % 32);
}
template <typename T> static EMU_UNSEEN T __shfl_xor_sync(unsigned int mask, T value, int lane_mask)
{
    emu_check_mask(mask);
    return emu_lane<T>(emu_exchange("__shfl_xor_sync", &value, sizeof value),
                       (emu_self->linear ^ (unsigned)lane_mask) % 32);
}
template <typename T>
static EMU_UNSEEN T __shfl_up_sync(unsigned int mask, T value, unsigned int delta)
{
    emu_check_mask(mask);
    unsigned int lane = emu_self->linear % 32;
    return emu_lane<T>(emu_exchange("__shfl_up_sync", &value, sizeof value),
                       lane < delta ? lane : lane - delta);
}
static EMU_UNSEEN unsigned int __ballot_sync(unsigned int mask, int predicate)
{
    emu_check_mask(mask);
    const emu_slot *slots = emu_exchange("__ballot_sync", &predicate, sizeof predicate);
    unsigned int bits = 0;
    for (unsigned int i = 0; i < 32; i++)
        bits |= (emu_lane<int>(slots, i) != 0 ? 1u : 0u) << i;
    return bits;
}

/* --- atomics: threads change only at barriers and warp operations ------------------------------
 */

template <typename T> static EMU_UNSEEN T atomicAdd(T *at, T value)
{
    emu_race_atomic(at, sizeof *at, EMU_PC);
    T old = *at;
    *at = (T)(old + value);
    return old;
}
template <typename T> static EMU_UNSEEN T atomicOr(T *at, T value)
{
    emu_race_atomic(at, sizeof *at, EMU_PC);
    T old = *at;
    *at = (T)(old | value);
    return old;
}
template <typename T> static EMU_UNSEEN T atomicExch(T *at, T value)
{
    emu_race_atomic(at, sizeof *at, EMU_PC);
    T old = *at;
    *at = value;
    return old;
}
template <typename T> static EMU_UNSEEN T atomicCAS(T *at, T expected, T value)
{
    emu_race_atomic(at, sizeof *at, EMU_PC);
    T old = *at;
    if (old == expected)
        *at = value;
    return old;
}

/* Other blocks have run, or run later: nothing is to be done. */
static inline void __threadfence_block(void)
{
    emu_race_fence(true);
}
static inline void __threadfence(void)
{
    emu_race_fence(false);
}
static inline void __threadfence_system(void)
{
    emu_race_fence(false);
}

/* --- between devices, which take turns -----------------------------------------------------------
 */

static EMU_UNSEEN void store_release_system(uint32_t *at, uint32_t value)
{
    emu_race_release(at, sizeof *at, EMU_PC);
    *at = value;
}
static EMU_UNSEEN uint32_t load_acquire_system(const uint32_t *at)
{
    emu_race_acquire(at, sizeof *at, EMU_PC);
    return *(const volatile uint32_t *)at;
}
static inline void wait_for_peers(void)
{
    emu_retry_block();
}

/* --- asynchronous copies: see race.h -------------------------------------------------------- */

static EMU_UNSEEN void cp_async_16(void *shared, const void *global, bool valid)
{
    if ((uintptr_t)shared % 16 != 0 || (uintptr_t)global % 16 != 0)
        emu_die("cp.async of 16 bytes at an address that is no multiple of 16");
    emu_race_copy_async(shared, valid ? global : nullptr, EMU_PC);
}
static inline uint4 load_once(const void *at)
{
    if ((uintptr_t)at % 16 != 0)
        emu_die("a load of 16 bytes at an address that is no multiple of 16");
    uint4 v;
    memcpy(&v, at, sizeof v);
    return v;
}
static inline uint4 load_shared_by_blocks(const void *at)
{
    return load_once(at);
}
static inline void cp_async_commit(void)
{
    emu_race_commit_copies();
}
template <int N> static inline void cp_async_wait(void)
{
    emu_race_wait_for_copies(N);
}

/* --- matrix fragments, as the PTX manual lays them out over a warp -----------------------------
 */

/* The lane reads the row that it brings, and what it gets of others'. */
template <bool TRANSPOSED>
static EMU_QUIET void emu_ldmatrix(uint32_t out[4], const void *row, const void *pc)
{
    if ((uintptr_t)row % 16 != 0)
        emu_die("ldmatrix at an address that is no multiple of 16");
    emu_race_read(row, 16, pc);
    const emu_slot *slots =
        emu_exchange(TRANSPOSED ? "ldmatrix.trans" : "ldmatrix", &row, sizeof row);
    unsigned int lane = emu_self->linear % 32;
    for (unsigned int m = 0; m < 4; m++) {
        uint16_t pair[2];
        for (unsigned int i = 0; i < 2; i++) {
            unsigned int r = TRANSPOSED ? lane % 4 * 2 + i : lane / 4;
            unsigned int c = TRANSPOSED ? lane / 4 : lane % 4 * 2 + i;
            const uint16_t *at = emu_lane<const uint16_t *>(slots, m * 8 + r) + c;
            if (TRANSPOSED || i == 0)
                emu_race_get(at - c % 2, 4, pc); /* whole words */
            pair[i] = *at;
        }
        memcpy(&out[m], pair, sizeof pair);
    }
}
static EMU_UNSEEN void ldmatrix_x4(uint32_t out[4], const void *row)
{
    emu_ldmatrix<false>(out, row, EMU_PC);
}
static EMU_UNSEEN void ldmatrix_x4_trans(uint32_t out[4], const void *row)
{
    emu_ldmatrix<true>(out, row, EMU_PC);
}

template <typename T> static inline void emu_widen(float out[2], uint32_t pair)
{
    T low, high;
    low.bits = (uint16_t)pair;
    high.bits = (uint16_t)(pair >> 16);
    out[0] = emu_float(low);
    out[1] = emu_float(high);
}

/* Both elements; right where float32 holds the exact result. */
template <typename T> static inline uint32_t fma_pair(uint32_t a, uint32_t b, uint32_t c)
{
    float x[2], y[2], z[2];
    emu_widen<T>(x, a);
    emu_widen<T>(y, b);
    emu_widen<T>(z, c);
    uint32_t out = 0;
    for (int i = 0; i < 2; i++) {
        const float d = fmaf(x[i], y[i], z[i]);
        T element;
        if constexpr (std::is_same<T, __half>::value)
            element = __float2half_rn(d);
        else
            element = __float2bfloat16_rn(d);
        out |= (uint32_t)element.bits << i * 16;
    }
    return out;
}

/* d += a b: a [16, 16], b [16, 8], d [16, 8]; float32 products and sums, k rising. */
template <typename T>
static EMU_UNSEEN void mma_16816(float d[4], const uint32_t a[4], const uint32_t b[2])
{
    float mine[12]; /* a, then b */
    for (int i = 0; i < 4; i++)
        emu_widen<T>(mine + 2 * i, a[i]);
    for (int i = 0; i < 2; i++)
        emu_widen<T>(mine + 8 + 2 * i, b[i]);
    const emu_slot *slots = emu_exchange("mma.m16n8k16", mine, sizeof mine);
    unsigned int lane = emu_self->linear % 32;
    for (unsigned int i = 0; i < 4; i++) {
        unsigned int row = lane / 4, col = lane % 4 * 2 + i % 2, low = i / 2;
        float sum = d[i];
        for (unsigned int k = 0; k < 16; k++) {
            const float *x = (const float *)slots[row * 4 + k % 8 / 2].bytes;
            const float *y = (const float *)slots[col * 4 + k % 8 / 2].bytes;
            sum += x[(low + k / 8 * 2) * 2 + k % 2] * y[8 + k / 8 * 2 + k % 2];
        }
        d[i] = sum;
    }
}

/* --- launches --------------------------------------------------------------------------------- */

/* Checks the configuration and puts the grid in the stream's queue. */
void emu_launch_grid(const void *kernel, dim3 grid, dim3 block, size_t shared_bytes,
                     cudaStream_t stream, std::function<void()> body);

template <typename... P, typename... A>
static inline void emu_launch(void (*kernel)(P...), dim3 grid, dim3 block, size_t shared_bytes,
                              cudaStream_t stream, A... args)
{
    std::tuple<P...> values(args...);
    emu_launch_grid((const void *)kernel, grid, block, shared_bytes, stream,
                    [kernel, values] { std::apply(kernel, values); });
}

#endif
