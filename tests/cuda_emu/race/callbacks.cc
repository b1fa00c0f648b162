/* callbacks.cc - what code compiled with -fsanitize=thread calls at each access to memory. The
 * names are those of the compilers' interface; the library that usually has them is not linked. */
#include "tests/cuda_emu/race/race_access.h"

#define HERE __builtin_return_address(0)

#define CALLBACKS(bytes)                                                                           \
    void __tsan_read##bytes(void *at)                                                              \
    {                                                                                              \
        race_read(at, bytes, HERE);                                                                \
    }                                                                                              \
    void __tsan_write##bytes(void *at)                                                             \
    {                                                                                              \
        race_write(at, bytes, HERE);                                                               \
    }                                                                                              \
    void __tsan_unaligned_read##bytes(void *at)                                                    \
    {                                                                                              \
        race_read(at, bytes, HERE);                                                                \
    }                                                                                              \
    void __tsan_unaligned_write##bytes(void *at)                                                   \
    {                                                                                              \
        race_write(at, bytes, HERE);                                                               \
    }                                                                                              \
    void __tsan_volatile_read##bytes(void *at)                                                     \
    {                                                                                              \
        race_volatile_read(at, bytes, HERE);                                                       \
    }                                                                                              \
    void __tsan_volatile_write##bytes(void *at)                                                    \
    {                                                                                              \
        race_volatile_write(at, bytes, HERE);                                                      \
    }

extern "C" {

#pragma GCC visibility push(hidden)

CALLBACKS(1)
CALLBACKS(2)
CALLBACKS(4)
CALLBACKS(8)
CALLBACKS(16)

void __tsan_read_range(void *at, size_t bytes)
{
    race_read(at, bytes, HERE);
}
void __tsan_write_range(void *at, size_t bytes)
{
    race_write(at, bytes, HERE);
}
void __tsan_init(void)
{
}

#pragma GCC visibility pop
}
