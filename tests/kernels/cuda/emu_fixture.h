/* emu_fixture.h - the emulated device as a test reaches it: the functions of emu_control.h, and the
 * libraries beside the plug-in that stand in for NVIDIA's. For programs that have loaded the
 * plug-in of plugin_path.h, where that is an emulated one. */
#ifndef INFERD_TESTS_KERNELS_CUDA_EMU_FIXTURE_H
#define INFERD_TESTS_KERNELS_CUDA_EMU_FIXTURE_H

#include "tests/cuda_emu/emu_control.h"
#include "tests/kernels/cuda/plugin_path.h"

#include <dlfcn.h>
#include <stdio.h>

/* Named as in emu_control.h, without emu_ before. */
struct emu_control {
    void (*get_record)(struct emu_record *out);
    void (*fail_call)(const char *function, int after, int error);
    void (*set_device)(int major, int minor, size_t total_bytes);
    void (*set_device_count)(int count, int reach_each_other);
};

static inline void *emu_symbol(void *library, const char *name)
{
    void *symbol = library ? dlsym(library, name) : NULL;
    if (!symbol)
        fail_msg("no %s", name);
    return symbol;
}

static inline struct emu_control emu_get_control(void)
{
    struct emu_control c = { 0 };
    void *plugin = dlopen(gpu_plugin_path(), RTLD_NOW | RTLD_NOLOAD);
    *(void **)&c.get_record = emu_symbol(plugin, "emu_get_record");
    *(void **)&c.fail_call = emu_symbol(plugin, "emu_fail");
    *(void **)&c.set_device = emu_symbol(plugin, "emu_set_device");
    *(void **)&c.set_device_count = emu_symbol(plugin, "emu_set_device_count");
    dlclose(plugin);
    return c;
}

/* "build/emu/NAME" beside "build/inferd_cuda_emu.so". The loader knows a library that is loaded by
 * its name, so that the plug-in finds this one from then on. */
static inline void *emu_load_library(const char *name)
{
    char path[4400];
    const char *plugin = gpu_plugin_path();
    const char *slash = strrchr(plugin, '/');
    snprintf(path, sizeof path, "%.*s/emu/%s", slash ? (int)(slash - plugin) : 1,
             slash ? plugin : ".", name);
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!library)
        fail_msg("%s", dlerror());
    return library;
}

#endif
