/* fiber.cc - fibers: a dozen instructions on x86-64, ucontext elsewhere. A switch costs a few
 * nanoseconds this way; ucontext's asks the kernel for the signal mask each time. */
#include "tests/cuda_emu/fiber.h"

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <sys/mman.h>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

enum { PAGE = 4096 };

void emu_fiber_open(struct emu_fiber *f, size_t stack_bytes)
{
    /* The lowest page stays out of reach: a deep stack faults there. */
    char *memory = (char *)mmap(NULL, stack_bytes + PAGE, PROT_NONE,
                                MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED || mprotect(memory + PAGE, stack_bytes, PROT_READ | PROT_WRITE) != 0) {
        fprintf(stderr, "cuda_emu: no memory for the stack of a thread\n");
        abort();
    }
    f->stack = memory + PAGE;
    f->stack_bytes = stack_bytes;
}

#if defined(__x86_64__)

/* void emu_swap(void **save, void *load): what a function must preserve goes on the stack. */
extern "C" void emu_swap(void **save, void *load);
asm(".text\n"
    ".p2align 4\n"
    ".hidden emu_swap\n"
    ".globl emu_swap\n"
    ".type emu_swap,@function\n"
    "emu_swap:\n"
    "    pushq %rbp\n"
    "    pushq %rbx\n"
    "    pushq %r12\n"
    "    pushq %r13\n"
    "    pushq %r14\n"
    "    pushq %r15\n"
    "    movq %rsp, (%rdi)\n"
    "    movq %rsi, %rsp\n"
    "    popq %r15\n"
    "    popq %r14\n"
    "    popq %r13\n"
    "    popq %r12\n"
    "    popq %rbx\n"
    "    popq %rbp\n"
    "    ret\n"
    ".size emu_swap,.-emu_swap\n"
    ".section .note.GNU-stack,\"\",@progbits\n"
    ".text\n");

void emu_fiber_reset(struct emu_fiber *f, void (*entry)())
{
    f->entry = entry;
    /* Six registers and where `ret` goes; the stack is then aligned as behind a call. */
    uintptr_t *top = (uintptr_t *)((char *)f->stack + f->stack_bytes) - 10;
    for (int i = 0; i < 10; i++)
        top[i] = 0;
    top[6] = (uintptr_t)entry;
    f->sp = top;
    f->asan_stack = NULL;
}

static void swap(struct emu_fiber *from, struct emu_fiber *to)
{
    emu_swap(&from->sp, to->sp);
}

#else

void emu_fiber_reset(struct emu_fiber *f, void (*entry)())
{
    f->entry = entry;
    getcontext(&f->context);
    f->context.uc_stack.ss_sp = f->stack;
    f->context.uc_stack.ss_size = f->stack_bytes;
    f->context.uc_link = NULL;
    makecontext(&f->context, entry, 0);
    f->asan_stack = NULL;
}

static void swap(struct emu_fiber *from, struct emu_fiber *to)
{
    swapcontext(&from->context, &to->context);
}

#endif

#if defined(__SANITIZE_ADDRESS__)

void emu_fiber_discard(struct emu_fiber *f)
{
    __asan_unpoison_memory_region(f->stack, f->stack_bytes);
}

/* The thread that runs the grid tells its stack when it first leaves it. */
static const void *main_bottom;
static size_t main_bytes;
static bool main_known;

void emu_fiber_switch(struct emu_fiber *from, struct emu_fiber *to, bool last)
{
    const void *bottom = to->stack ? to->stack : main_bottom;
    size_t bytes = to->stack ? to->stack_bytes : main_bytes;
    main_known = main_known && from->stack;
    __sanitizer_start_switch_fiber(last ? NULL : &from->asan_stack, bottom, bytes);
    swap(from, to);
    emu_fiber_entered(from);
}

void emu_fiber_entered(struct emu_fiber *f)
{
    const void *bottom;
    size_t bytes;
    __sanitizer_finish_switch_fiber(f->asan_stack, &bottom, &bytes);
    if (!main_known && f->stack) {
        main_bottom = bottom;
        main_bytes = bytes;
        main_known = true;
    }
}

#else

void emu_fiber_discard(struct emu_fiber *f)
{
    (void)f;
}

void emu_fiber_switch(struct emu_fiber *from, struct emu_fiber *to, bool last)
{
    (void)last;
    swap(from, to);
}

void emu_fiber_entered(struct emu_fiber *f)
{
    (void)f;
}

#endif
