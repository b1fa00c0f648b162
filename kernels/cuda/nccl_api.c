/* nccl_api.c - finds NCCL's library and its functions. */
#include "kernels/cuda/nccl_api.h"

#include <dlfcn.h>
#include <string.h>

#define NCCL_LIBRARY "libnccl.so.2"

static const struct {
    const char *name;
    size_t offset;
} functions[] = {
    { "ncclGetVersion", offsetof(struct nccl_api, get_version) },
    { "ncclGetErrorString", offsetof(struct nccl_api, get_error_string) },
    { "ncclGetLastError", offsetof(struct nccl_api, get_last_error) },
    { "ncclCommInitAll", offsetof(struct nccl_api, comm_init_all) },
    { "ncclCommDestroy", offsetof(struct nccl_api, comm_destroy) },
    { "ncclCommAbort", offsetof(struct nccl_api, comm_abort) },
    { "ncclGroupStart", offsetof(struct nccl_api, group_start) },
    { "ncclGroupEnd", offsetof(struct nccl_api, group_end) },
    { "ncclSend", offsetof(struct nccl_api, send) },
    { "ncclRecv", offsetof(struct nccl_api, recv) },
    { "ncclAllGather", offsetof(struct nccl_api, all_gather) },
    { "ncclBroadcast", offsetof(struct nccl_api, broadcast) },
};

bool nccl_failed(const struct nccl_api *nccl, struct status *st, nccl_result result,
                 const char *what)
{
    const char *last = nccl->get_last_error(NULL);
    return status_set(st, STATUS_INTERNAL, "%s: NCCL: %s%s%.200s", what,
                      nccl->get_error_string(result), last && *last ? ": " : "", last ? last : "");
}

static bool find_functions(void *library, struct nccl_api *out, struct status *st)
{
    for (size_t i = 0; i < sizeof functions / sizeof functions[0]; i++) {
        void *function = dlsym(library, functions[i].name);
        if (!function)
            return status_set(st, STATUS_UNSUPPORTED, NCCL_LIBRARY " has no function %s",
                              functions[i].name);
        memcpy((char *)out + functions[i].offset, &function, sizeof function);
    }
    nccl_result result = out->get_version(&out->version);
    if (result != NCCL_SUCCESS)
        return nccl_failed(out, st, result, "asking for the version");
    if (out->version < NCCL_MIN_VERSION)
        return status_set(st, STATUS_UNSUPPORTED,
                          NCCL_LIBRARY " is NCCL %d.%d.%d, and 2.18 is the least that works",
                          out->version / 10000, out->version / 100 % 100, out->version % 100);
    return true;
}

const struct nccl_api *nccl_load(struct status *st)
{
    static struct nccl_api api; /* of the library that is loaded, once it is */
    if (api.version > 0)
        return &api;
    struct nccl_api found = { 0 };
    void *library = dlopen(NCCL_LIBRARY, RTLD_NOW | RTLD_LOCAL);
    if (!library) {
        status_set(st, STATUS_UNSUPPORTED, "%s", dlerror());
        return NULL;
    }
    if (!find_functions(library, &found, st)) {
        dlclose(library);
        return NULL;
    }
    api = found;
    return &api; /* cppcheck-suppress resourceLeak ; its code must stay */
}
