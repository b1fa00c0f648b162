/* jinja_env.h - memory, budget and error exit of one parse or one render.
 *
 * Everything a template makes lives in one arena, freed whole at the end. An error leaves through
 * longjmp to the function that started the parse or render, so nothing between has to check; this
 * is safe because nothing between owns anything outside the arena. One thread at a time. */
#ifndef INFERD_ENGINE_TEXT_JINJA_ENV_H
#define INFERD_ENGINE_TEXT_JINJA_ENV_H

#include "base/arena.h"
#include "base/status.h"
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>

struct jinja_env {
    struct arena arena;
    size_t max_bytes;
    uint64_t steps_left;
    int32_t depth, max_depth;
    int32_t line;          /* of the node at work; 0: unknown */
    uintptr_t stack_floor; /* recursion must not reach below this address */
    struct status *st;
    jmp_buf exit;
};

/* The stack one parse or render may use; less where the thread has less left. */
#define JINJA_MAX_STACK_BYTES ((uintptr_t)512 << 10)

void jinja_env_init(struct jinja_env *e, size_t max_bytes, uint64_t max_steps, int32_t max_depth,
                    struct status *st);
void jinja_env_free(struct jinja_env *e);

/* Zeroed memory, counted against the limit. */
void *jinja_alloc(struct jinja_env *e, size_t size);
void *jinja_array(struct jinja_env *e, size_t count, size_t size);

/* Fills the status with the message and the line, and leaves. */
_Noreturn void jinja_fail(struct jinja_env *e, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/* The same without the line: the message is the template's own. */
_Noreturn void jinja_fail_verbatim(struct jinja_env *e, const char *message, size_t len);

/* Takes from the budget; work that grows with a size is charged before it is done. */
void jinja_charge(struct jinja_env *e, uint64_t steps);
static inline void jinja_charge_bytes(struct jinja_env *e, size_t bytes)
{
    jinja_charge(e, 1 + bytes / 16);
}

/* Around everything that recurses on the template's or the values' nesting. */
void jinja_enter(struct jinja_env *e);
static inline void jinja_leave(struct jinja_env *e)
{
    e->depth--;
}

#endif
