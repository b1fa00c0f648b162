/* cpu_memory.c - /proc/meminfo, lowered by the memory limits of the process's cgroups.
 *
 * The limits of all ancestors count, so the path from /proc/self/cgroup is walked up to the mount
 * point. Page cache that the kernel would drop first (inactive file pages) counts as available:
 * reading a checkpoint fills the cache and must not look like a loss of memory. */
#include "kernels/cpu/cpu_memory.h"

#include <errno.h>
#include <limits.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LINE_MAX_BYTES = 8192 };

/* The value after `key` in a file of "key value" lines, in the unit of the file. */
static bool read_key(const char *path, const char *key, uint64_t *out)
{
    FILE *f = fopen(path, "r");
    if (!f)
        return false;
    char line[256];
    size_t len = strlen(key);
    bool found = false;
    while (!found && fgets(line, sizeof line, f)) {
        if (strncmp(line, key, len) != 0 || (line[len] != ' ' && line[len] != ':'))
            continue;
        found = sscanf(line + len + 1, "%" SCNu64, out) == 1;
    }
    fclose(f);
    return found;
}

/* A file that holds one number; false also for "max", which is no limit. */
static bool read_number(const char *path, uint64_t *out)
{
    FILE *f = fopen(path, "r");
    if (!f)
        return false;
    bool ok = fscanf(f, "%" SCNu64, out) == 1;
    fclose(f);
    return ok;
}

/* Where a cgroup hierarchy with the memory controller is mounted, and our place in it. */
struct hierarchy {
    bool v2;
    char mount[PATH_MAX]; /* with `root` in front */
    char path[PATH_MAX];  /* of our group below the mount point; "" or "/a/b" */
};

static bool has_word(const char *list, const char *word)
{
    size_t len = strlen(word);
    for (const char *at = list; (at = strstr(at, word)); at += len)
        if ((at == list || at[-1] == ',') && (at[len] == '\0' || at[len] == ','))
            return true;
    return false;
}

/* Our group as /proc/self/cgroup names it: "id:controllers:path". */
static bool find_group(const char *root, bool v2, char path[PATH_MAX])
{
    char name[PATH_MAX], line[LINE_MAX_BYTES];
    snprintf(name, sizeof name, "%s/proc/self/cgroup", root);
    FILE *f = fopen(name, "r");
    if (!f)
        return false;
    bool found = false;
    while (!found && fgets(line, sizeof line, f)) {
        line[strcspn(line, "\n")] = '\0';
        char *controllers = strchr(line, ':');
        char *group = controllers ? strchr(controllers + 1, ':') : NULL;
        if (!group)
            continue;
        *group++ = '\0';
        controllers++;
        if (v2 ? *controllers != '\0' : !has_word(controllers, "memory"))
            continue;
        found = snprintf(path, PATH_MAX, "%s", strcmp(group, "/") == 0 ? "" : group) < PATH_MAX;
    }
    fclose(f);
    return found;
}

/* The mount of one kind (v1 with the memory controller, or v2), from /proc/self/mountinfo:
 * "id parent major:minor root mount_point options optional... - type source super_options". */
static bool find_mount(const char *root, struct hierarchy *h)
{
    char name[PATH_MAX], line[LINE_MAX_BYTES];
    snprintf(name, sizeof name, "%s/proc/self/mountinfo", root);
    FILE *f = fopen(name, "r");
    if (!f)
        return false;
    bool found = false;
    while (!found && fgets(line, sizeof line, f)) {
        char mounted_root[1024], mount_point[1024], type[32], options[1024];
        const char *tail = strstr(line, " - ");
        if (!tail || sscanf(line, "%*s %*s %*s %1023s %1023s", mounted_root, mount_point) != 2 ||
            sscanf(tail + 3, "%31s %*s %1023s", type, options) != 2)
            continue;
        if (strcmp(type, h->v2 ? "cgroup2" : "cgroup") != 0 ||
            (!h->v2 && !has_word(options, "memory")))
            continue;
        snprintf(h->mount, sizeof h->mount, "%s%s", root, mount_point);
        /* In a container the mount may begin at our group or above it: cut that part. */
        size_t len = strcmp(mounted_root, "/") == 0 ? 0 : strlen(mounted_root);
        bool below = strncmp(h->path, mounted_root, len) == 0 &&
                     (h->path[len] == '/' || h->path[len] == '\0');
        if (below)
            memmove(h->path, h->path + len, strlen(h->path + len) + 1);
        else
            h->path[0] = '\0';
        found = true;
    }
    fclose(f);
    return found;
}

static bool group_file(char name[PATH_MAX], const struct hierarchy *h, const char *file)
{
    int n = snprintf(name, PATH_MAX, "%s%s/%s", h->mount, h->path, file);
    return n > 0 && n < PATH_MAX;
}

/* Lowers *out by the limit of the group h->path. */
static void apply_limit(const struct hierarchy *h, struct memory_info *out)
{
    char name[PATH_MAX];
    uint64_t limit, usage, inactive = 0;
    if (!group_file(name, h, h->v2 ? "memory.max" : "memory.limit_in_bytes") ||
        !read_number(name, &limit))
        return;
    if (limit < out->total_bytes)
        out->total_bytes = (size_t)limit;
    if (!group_file(name, h, h->v2 ? "memory.current" : "memory.usage_in_bytes") ||
        !read_number(name, &usage))
        return;
    if (group_file(name, h, "memory.stat"))
        (void)read_key(name, h->v2 ? "inactive_file" : "total_inactive_file", &inactive);
    uint64_t used = usage > inactive ? usage - inactive : 0;
    uint64_t left = limit > used ? limit - used : 0;
    if (left < out->available_bytes)
        out->available_bytes = (size_t)left;
}

static void apply_hierarchy(const char *root, bool v2, struct memory_info *out)
{
    struct hierarchy h = { .v2 = v2 };
    if (!find_group(root, v2, h.path) || !find_mount(root, &h))
        return;
    for (;;) {
        apply_limit(&h, out);
        char *slash = strrchr(h.path, '/');
        if (!slash)
            return;
        *slash = '\0';
    }
}

bool cpu_memory_info(const char *root, struct memory_info *out, struct status *st)
{
    char name[PATH_MAX];
    uint64_t total_kib, available_kib;
    snprintf(name, sizeof name, "%s/proc/meminfo", root);
    if (!read_key(name, "MemTotal", &total_kib) || !read_key(name, "MemAvailable", &available_kib))
        return status_set(st, STATUS_IO,
                          "%s has no MemTotal or MemAvailable: cannot tell how much "
                          "memory may be used; is /proc mounted?",
                          name);
    out->total_bytes = (size_t)total_kib * 1024;
    out->available_bytes = (size_t)available_kib * 1024;
    apply_hierarchy(root, true, out);
    apply_hierarchy(root, false, out);
    return true;
}
