/* arena.h - memory with one lifetime: many allocations, freed whole.
 *
 * One thread at a time. What is allocated is zeroed and aligned to 16 bytes. */
#ifndef INFERD_BASE_ARENA_H
#define INFERD_BASE_ARENA_H

#include <stddef.h>

struct arena_chunk;

struct arena {
    struct arena_chunk *head;
    size_t used_bytes; /* sum of the sizes handed out */
};

void arena_init(struct arena *a);
void *arena_alloc(struct arena *a, size_t size);
/* count * size with the product checked; aborts where it overflows. */
void *arena_array(struct arena *a, size_t count, size_t size);
char *arena_strndup(struct arena *a, const char *text, size_t len);
char *arena_strdup(struct arena *a, const char *text);
char *arena_printf(struct arena *a, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Frees everything; the arena is empty and usable again. */
void arena_free(struct arena *a);

#endif
