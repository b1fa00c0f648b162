/* alloc.h - allocation of small bookkeeping, which cannot reasonably fail.
 *
 * Sizes that a user chooses meet a limit before they get here. When the system still has no
 * memory these abort with a message, and the supervisor restarts the daemon. */
#ifndef INFERD_BASE_ALLOC_H
#define INFERD_BASE_ALLOC_H

#include <stddef.h>

void *xmalloc(size_t size);
void *xcalloc(size_t count, size_t size); /* zeroed; the product is checked */
void *xrealloc(void *old, size_t size);
char *xstrdup(const char *text);
char *xstrndup(const char *text, size_t len);

#endif
