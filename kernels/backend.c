/* backend.c - the list of backends in this build, best first. */
#include "kernels/backend.h"

#include <string.h>

static const struct backend *const backends[] = { &backend_cpu };

const struct backend *backend_find(const char *name)
{
    if (!name)
        return NULL;
    if (strcmp(name, "auto") == 0)
        return backends[0];
    for (size_t i = 0; i < sizeof backends / sizeof backends[0]; i++)
        if (strcmp(backends[i]->name, name) == 0)
            return backends[i];
    return NULL;
}
