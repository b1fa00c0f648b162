/* plugin.h - what a backend in a shared object of its own exports, as INFERD_PLUGIN_SYMBOL.
 *
 * The object takes the functions of base/ and kernels/ from the program that loads it; both must
 * come from one build, which `version` and the size say. */
#ifndef INFERD_KERNELS_PLUGIN_H
#define INFERD_KERNELS_PLUGIN_H

#include "kernels/backend.h"

#define INFERD_PLUGIN_SYMBOL "inferd_backend_plugin"

struct backend_plugin {
    const char *version;  /* INFERD_VERSION */
    size_t backend_bytes; /* sizeof(struct backend) */
    const struct backend *backend;
};

/* Loads the shared object at `path`, which stays loaded; NULL, with the reason, when it cannot be
 * used. */
const struct backend *backend_load(const char *path, struct status *st);

#endif
