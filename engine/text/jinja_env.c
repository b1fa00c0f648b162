/* jinja_env.c - limits are checked here, in one place. */
#include "engine/text/jinja_env.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

enum { STACK_RESERVE_BYTES = 64 << 10 }; /* for what does not recurse: libc, jansson */

/* The lowest address of this thread's stack; 0 where the system does not tell. Asked once per
 * thread: for the main thread it costs the reading of a file. */
static uintptr_t stack_lowest(void)
{
    static _Thread_local uintptr_t lowest;
    static _Thread_local bool known;
    pthread_attr_t attributes;
    void *address = NULL;
    size_t size = 0;
    if (known)
        return lowest;
    known = true;
    if (pthread_getattr_np(pthread_self(), &attributes) != 0)
        return lowest;
    if (pthread_attr_getstack(&attributes, &address, &size) == 0)
        lowest = (uintptr_t)address;
    pthread_attr_destroy(&attributes);
    return lowest;
}

/* Stacks grow down on every machine this runs on. */
static uintptr_t find_stack_floor(void)
{
    uintptr_t floor = (uintptr_t)__builtin_frame_address(0) - JINJA_MAX_STACK_BYTES;
    uintptr_t end = stack_lowest() + STACK_RESERVE_BYTES;
    return end > floor ? end : floor;
}

void jinja_env_init(struct jinja_env *e, size_t max_bytes, uint64_t max_steps, int32_t max_depth,
                    struct status *st)
{
    memset(e, 0, sizeof *e);
    arena_init(&e->arena);
    e->max_bytes = max_bytes;
    e->steps_left = max_steps;
    e->max_depth = max_depth;
    e->st = st;
    e->stack_floor = find_stack_floor();
}

void jinja_env_free(struct jinja_env *e)
{
    arena_free(&e->arena);
}

void *jinja_alloc(struct jinja_env *e, size_t size)
{
    if (size > e->max_bytes || e->arena.used_bytes > e->max_bytes - size)
        jinja_fail(e, "the template needs more than its limit of %zu bytes of memory",
                   e->max_bytes);
    return arena_alloc(&e->arena, size);
}

void *jinja_array(struct jinja_env *e, size_t count, size_t size)
{
    if (size && count > e->max_bytes / size)
        jinja_fail(e, "the template needs more than its limit of %zu bytes of memory",
                   e->max_bytes);
    return jinja_alloc(e, count * size);
}

_Noreturn void jinja_fail(struct jinja_env *e, const char *format, ...)
{
    char text[sizeof e->st->message];
    va_list args;
    va_start(args, format);
    int n = vsnprintf(text, sizeof text, format, args);
    va_end(args);
    if (n >= (int)sizeof text - 32) { /* a cut must not split a character, nor hide the line */
        size_t end = sizeof text - 32;
        while (end > 0 && ((unsigned char)text[end] & 0xC0) == 0x80)
            end--;
        memcpy(text + end, "...", 4);
    }
    if (e->line > 0)
        status_set(e->st, STATUS_INVALID, "%s (template line %d)", text, e->line);
    else
        status_set(e->st, STATUS_INVALID, "%s", text);
    longjmp(e->exit, 1);
}

_Noreturn void jinja_fail_verbatim(struct jinja_env *e, const char *message, size_t len)
{
    size_t end = len;
    if (end > sizeof e->st->message - 1) {
        end = sizeof e->st->message - 1;
        while (end > 0 && ((unsigned char)message[end] & 0xC0) == 0x80)
            end--;
    }
    status_set(e->st, STATUS_INVALID, "%.*s", (int)end, message);
    longjmp(e->exit, 1);
}

void jinja_charge(struct jinja_env *e, uint64_t steps)
{
    if (steps > e->steps_left)
        jinja_fail(e, "the template does not finish within its limit of steps");
    e->steps_left -= steps;
}

void jinja_enter(struct jinja_env *e)
{
    if (e->depth >= e->max_depth || (uintptr_t)__builtin_frame_address(0) < e->stack_floor)
        jinja_fail(e, "maximum recursion depth exceeded");
    e->depth++;
}
