/* plugin.c - loads a backend from a shared object. */
#include "kernels/plugin.h"

#include <dlfcn.h>
#include <string.h>

const struct backend *backend_load(const char *path, struct status *st)
{
    void *object = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!object) {
        status_set(st, STATUS_UNSUPPORTED, "%s", dlerror());
        return NULL;
    }
    const struct backend_plugin *plugin = dlsym(object, INFERD_PLUGIN_SYMBOL);
    if (!plugin)
        status_set(st, STATUS_UNSUPPORTED,
                   "%s is no plug-in of inferd: it has no " INFERD_PLUGIN_SYMBOL, path);
    else if (strcmp(plugin->version, INFERD_VERSION) != 0)
        status_set(st, STATUS_UNSUPPORTED,
                   "%s is of version %s, and this program of %s: install "
                   "them together",
                   path, plugin->version, INFERD_VERSION);
    else if (plugin->backend_bytes != sizeof(struct backend))
        status_set(st, STATUS_UNSUPPORTED,
                   "%s was built from other sources than this program: build them together", path);
    else
        return plugin->backend; /* cppcheck-suppress resourceLeak ; its code must stay */
    dlclose(object);
    return NULL;
}
