/* backend.c - which backend a device is of: those in this program, and the CUDA plug-in beside it.
 */
#include "kernels/backend.h"

#include "base/log.h"
#include "kernels/plugin.h"
#include "kernels/profile/gpu_profile.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const struct backend *const backends[] = { &backend_cpu };

enum { MAX_PATH = 4096 };

const struct backend *backend_find(const char *name)
{
    for (size_t i = 0; name && i < sizeof backends / sizeof backends[0]; i++)
        if (strcmp(backends[i]->name, name) == 0)
            return backends[i];
    return NULL;
}

/* --- the plug-in ------------------------------------------------------------------------------ */

/* Beside the program, as in a build or a bundle, or where an installation has it. */
static bool find_plugin(char *out, size_t size, struct status *st)
{
    static const char *const places[] = { "", "../lib/inferd/" };
    char program[MAX_PATH];
    ssize_t length = readlink("/proc/self/exe", program, sizeof program - 1);
    program[length > 0 ? length : 0] = '\0';
    char *slash = strrchr(program, '/');
    int directory = slash ? (int)(slash - program) : 0;
    for (size_t i = 0; i < sizeof places / sizeof places[0]; i++) {
        int n = snprintf(out, size, "%.*s/%sinferd_cuda.so", directory, program, places[i]);
        if (n > 0 && (size_t)n < size && access(out, R_OK) == 0)
            return true;
    }
    return status_set(st, STATUS_UNSUPPORTED,
                      "there is no inferd_cuda.so beside the program: build it where nvcc is "
                      "(make), or install a release with CUDA");
}

static bool open_cuda(const struct device_options *options, struct device **out, struct status *st)
{
    char path[MAX_PATH + 64];
    if (!find_plugin(path, sizeof path, st))
        return false;
    const struct backend *backend = backend_load(path, st);
    return backend && backend->open(out, options, st);
}

/* "cuda", or with a GPU's number as the driver counts those it shows: "cuda:1". */
static bool parse_cuda(const char *name, int32_t *index)
{
    char *end;
    *index = 0;
    if (strncmp(name, "cuda", 4) != 0 || strlen(name) > sizeof "cuda:999" - 1)
        return false;
    if (name[4] == '\0')
        return true;
    if (name[4] != ':' || name[5] < '0' || name[5] > '9')
        return false;
    *index = (int32_t)strtol(name + 5, &end, 10);
    return *end == '\0';
}

static bool no_such_device(const char *name, struct status *st)
{
    struct buf names;
    buf_init(&names, 0);
    gpu_profile_list(&names);
    status_set(
        st, STATUS_INVALID,
        "--device %.80s: it must be auto, cpu, cuda or cuda:N, or to plan for a GPU that is not "
        "here, one of %s",
        name, buf_str(&names));
    buf_free(&names);
    return false;
}

/* --- opening ---------------------------------------------------------------------------------- */

bool backend_open(const char *name, const struct device_options *options, struct device **out,
                  struct status *st)
{
    struct status why_not;
    *out = NULL;
    struct device_options own = *options;
    int32_t index;
    if (parse_cuda(name, &index)) {
        own.index += index;
        return open_cuda(&own, out, st) || status_prefix(st, "--device %s: ", name);
    }
    if (strcmp(name, "auto") == 0) {
        status_clear(&why_not);
        if (open_cuda(options, out, &why_not))
            return true;
        log_info("device auto: the CPU, because there is no usable GPU (%s)", why_not.message);
        name = "cpu";
    }
    const struct backend *backend = backend_find(name);
    const struct gpu_profile *profile = gpu_profile_find(name);
    if (!backend && !profile)
        return no_such_device(name, st);
    return backend ? backend->open(out, options, st) : gpu_profile_open(profile, out, st);
}
