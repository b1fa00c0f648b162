/* backend_cpu.c - the CPU as a backend: open and close, memory, workspace, and the list of ops.
 *
 * Ops run at once, on the calling thread and the pool, so copy is memcpy and sync has nothing to
 * wait for. */
#include "kernels/backend.h"

#include "base/alloc.h"
#include "kernels/cpu/cpu_memory.h"
#include "kernels/cpu/cpu_ops.h"

#include <assert.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum {
    HUGE_PAGE_BYTES = 2 << 20,
    /* From here on memory comes straight from the system: zeroed, and committed when touched. */
    MAP_THRESHOLD_BYTES = 256 << 10,
    /* From here on a request is first compared with what the machine has left. */
    CHECK_THRESHOLD_BYTES = 64 << 20,
    WORKSPACE_ALIGN = 4096
};

/* --- open and close --------------------------------------------------------------------------- */

static bool choose_isa(enum cpu_isa *out, const char *wanted, struct status *st)
{
    enum cpu_isa have = cpu_isa_detect();
    if (!wanted || strcmp(wanted, "auto") == 0) {
        *out = have;
        return true;
    }
    if (!cpu_isa_parse(wanted, out))
        return status_set(st, STATUS_INVALID,
                          "unknown CPU instruction set \"%s\": use auto, scalar, avx2, avx512 or "
                          "avx512_bf16",
                          wanted);
    if (*out > have)
        return status_set(st, STATUS_UNSUPPORTED,
                          "this CPU has no %s (the best it offers is %s): use auto", wanted,
                          cpu_isa_name(have));
    return true;
}

static void cpu_model_name(char *out, size_t size)
{
    char line[256];
    snprintf(out, size, "CPU");
    FILE *f = fopen("/proc/cpuinfo", "r");
    if (!f)
        return;
    while (fgets(line, sizeof line, f)) {
        const char *colon = strchr(line, ':');
        if (strncmp(line, "model name", 10) != 0 || !colon || colon[1] == '\0')
            continue;
        line[strcspn(line, "\n")] = '\0';
        snprintf(out, size, "%s", colon + 2);
        break;
    }
    fclose(f);
}

static bool cpu_open(struct device **out, const struct device_options *options, struct status *st)
{
    enum cpu_isa isa;
    *out = NULL;
    if (!choose_isa(&isa, options->isa, st))
        return false;
    struct cpu_device *d = xcalloc(1, sizeof *d);
    d->base.backend = &backend_cpu;
    d->isa = isa;
    struct thread_pool_options pool = { options->num_threads, options->pin_threads, options->share,
                                        options->num_shares };
    if (!thread_pool_open(&d->pool, &pool, st)) {
        free(d);
        return false;
    }
    d->num_threads = thread_pool_size(d->pool);
    char model[80];
    cpu_model_name(model, sizeof model);
    snprintf(d->base.description, sizeof d->base.description, "%s, %d thread%s, %s", model,
             d->num_threads, d->num_threads == 1 ? "" : "s", cpu_isa_name(isa));
    *out = &d->base;
    return true;
}

static void cpu_bind_thread(struct device *d)
{
    thread_pool_bind_owner(cpu_device_of(d)->pool);
}

static void cpu_bind_loader(struct device *d)
{
    thread_pool_bind_helper(cpu_device_of(d)->pool);
}

/* --- memory ----------------------------------------------------------------------------------- */

static bool cpu_memory(struct device *d, struct memory_info *out, struct status *st)
{
    (void)d;
    return cpu_memory_info("", out, st);
}

/* What mmap is asked for; 0 when the size cannot be. */
static size_t mapped_bytes(size_t size_bytes)
{
    if (size_bytes > SIZE_MAX / 2)
        return 0;
    size_t unit = size_bytes >= HUGE_PAGE_BYTES ? HUGE_PAGE_BYTES : 4096;
    return (size_bytes + unit - 1) / unit * unit;
}

/* Anonymous memory that begins at a huge page if it is as large as one. */
static void *map(size_t bytes)
{
    size_t slack = bytes >= HUGE_PAGE_BYTES ? HUGE_PAGE_BYTES : 0;
    char *raw = mmap(NULL, bytes + slack, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (raw == MAP_FAILED)
        return NULL;
    if (slack == 0)
        return raw;
    /* What is before the first huge page and behind the last goes back. */
    uintptr_t begin = (uintptr_t)raw;
    uintptr_t start = (begin + HUGE_PAGE_BYTES - 1) / HUGE_PAGE_BYTES * HUGE_PAGE_BYTES;
    uintptr_t end = start + bytes, limit = begin + bytes + slack;
    if (start > begin)
        munmap((void *)begin, start - begin);
    if (limit > end)
        munmap((void *)end, limit - end);
    (void)madvise((void *)start, bytes, MADV_HUGEPAGE); /* speed only */
    return (void *)start;
}

static bool cpu_alloc(struct device *d, struct buffer *out, size_t size_bytes,
                      enum memory_kind kind, struct status *st)
{
    (void)kind; /* all host memory is the same to the CPU */
    *out = (struct buffer){ NULL, 0 };
    if (size_bytes == 0)
        return true;
    if (size_bytes < MAP_THRESHOLD_BYTES) {
        size_t rounded = (size_bytes + 63) / 64 * 64;
        out->data = aligned_alloc(64, rounded);
        if (out->data)
            memset(out->data, 0, rounded);
    } else {
        struct memory_info memory;
        if (size_bytes >= CHECK_THRESHOLD_BYTES && cpu_memory(d, &memory, st) &&
            size_bytes > memory.available_bytes)
            return status_set(st, STATUS_UNAVAILABLE,
                              "cannot allocate %zu MiB: %zu of %zu MiB of memory are available; "
                              "use a smaller model, context or KV cache, or raise the limit",
                              size_bytes >> 20, memory.available_bytes >> 20,
                              memory.total_bytes >> 20);
        size_t bytes = mapped_bytes(size_bytes);
        out->data = bytes ? map(bytes) : NULL;
    }
    if (!out->data)
        return status_set(st, STATUS_UNAVAILABLE, "cannot allocate %zu bytes of memory: %s",
                          size_bytes, strerror(errno ? errno : ENOMEM));
    out->size_bytes = size_bytes;
    d->allocated_bytes += size_bytes;
    return true;
}

static void cpu_free(struct device *d, struct buffer *buffer)
{
    if (buffer->data)
        d->allocated_bytes -= buffer->size_bytes;
    if (buffer->data && buffer->size_bytes < MAP_THRESHOLD_BYTES)
        free(buffer->data);
    else if (buffer->data)
        munmap(buffer->data, mapped_bytes(buffer->size_bytes));
    *buffer = (struct buffer){ NULL, 0 };
}

static void cpu_close(struct device *d)
{
    if (!d)
        return;
    struct cpu_device *c = cpu_device_of(d);
    thread_pool_close(c->pool);
    cpu_free(d, &c->workspace);
    free(c);
}

static void cpu_copy(struct device *d, void *dst, const void *src, size_t size_bytes,
                     enum copy_kind kind)
{
    (void)d;
    (void)kind;
    if (size_bytes > 0)
        memmove(dst, src, size_bytes);
}

static void cpu_copy_pieces(struct device *d, const struct copy_piece *pieces, int32_t count)
{
    (void)d;
    for (int32_t i = 0; i < count; i++)
        for (int32_t row = 0; row < pieces[i].rows; row++)
            memcpy((char *)pieces[i].dst + (size_t)row * pieces[i].pitch_bytes,
                   (const char *)pieces[i].src + (size_t)row * pieces[i].pitch_bytes,
                   pieces[i].width_bytes);
}

static bool cpu_sync(struct device *d, struct status *st)
{
    return device_take_error(&d->error, st);
}

/* All that was asked for is done: what is left of it is its error. */
static void cpu_mark(struct device *d, int32_t mark)
{
    d->marked[mark] = d->error;
    status_clear(&d->error);
}

static bool cpu_await(struct device *d, int32_t mark, struct status *st)
{
    return device_take_error(&d->marked[mark], st);
}

static void cpu_feed_tokens(struct device *d, int32_t *const *dst, const int32_t *sampled_ids,
                            const int32_t *rows, int32_t count)
{
    (void)d;
    for (int32_t i = 0; i < count; i++)
        *dst[i] = sampled_ids[rows[i]] > 0 ? sampled_ids[rows[i]] : 0;
}

/* --- workspace -------------------------------------------------------------------------------- */

struct workspace_parts {
    size_t linear, attention, sampling, moe, dequant;
};

static size_t aligned(size_t bytes)
{
    return (bytes + WORKSPACE_ALIGN - 1) / WORKSPACE_ALIGN * WORKSPACE_ALIGN;
}

static struct workspace_parts workspace_parts(const struct device *d,
                                              const struct workspace_desc *w)
{
    const struct cpu_device *c = (const struct cpu_device *)d;
    return (struct workspace_parts){
        .linear = aligned(cpu_linear_scratch_bytes(c, w)),
        .attention = aligned(cpu_attention_scratch_bytes(c, w)),
        .sampling = aligned(cpu_sampling_scratch_bytes(c, w)),
        .moe = aligned(cpu_moe_scratch_bytes(c, w)),
        .dequant = aligned(cpu_dequant_scratch_bytes(c)),
    };
}

static size_t all_parts(const struct workspace_parts *p)
{
    return p->linear + p->attention + p->sampling + p->moe + p->dequant;
}

static size_t cpu_workspace_bytes(const struct device *d, const struct workspace_desc *w)
{
    struct workspace_parts parts = workspace_parts(d, w);
    return all_parts(&parts);
}

static bool cpu_reserve_workspace(struct device *d, const struct workspace_desc *w,
                                  struct status *st)
{
    struct cpu_device *c = cpu_device_of(d);
    struct workspace_parts parts = workspace_parts(d, w);
    cpu_free(d, &c->workspace);
    c->linear_scratch = c->attention_scratch = c->sampling_scratch = c->moe_scratch = NULL;
    c->dequant_scratch = NULL;
    c->linear_scratch_bytes = c->attention_scratch_bytes = c->sampling_scratch_bytes = 0;
    c->moe_scratch_bytes = 0;
    if (!cpu_alloc(d, &c->workspace, all_parts(&parts), MEMORY_DEVICE, st))
        return status_prefix(st, "workspace for %d tokens in a step: ", w->max_num_tokens);
    char *at = c->workspace.data;
    c->limits = *w;
    c->linear_scratch = at;
    c->linear_scratch_bytes = parts.linear;
    c->attention_scratch = at + parts.linear;
    c->attention_scratch_bytes = parts.attention;
    c->sampling_scratch = at + parts.linear + parts.attention;
    c->sampling_scratch_bytes = parts.sampling;
    c->moe_scratch = at + parts.linear + parts.attention + parts.sampling;
    c->moe_scratch_bytes = parts.moe;
    c->dequant_scratch = at + parts.linear + parts.attention + parts.sampling + parts.moe;
    return true;
}

const struct backend backend_cpu = {
    .name = "cpu",
    .caps = BACKEND_HOST_MEMORY | BACKEND_F16_KV_FOR_BF16 | BACKEND_KV_8BIT,
    .open = cpu_open,
    .close = cpu_close,
    .bind_thread = cpu_bind_thread,
    .bind_loader = cpu_bind_loader,
    .memory_info = cpu_memory,
    .alloc = cpu_alloc,
    .free = cpu_free,
    .copy = cpu_copy,
    .copy_pieces = cpu_copy_pieces,
    .sync = cpu_sync,
    .mark = cpu_mark,
    .await = cpu_await,
    .workspace_bytes = cpu_workspace_bytes,
    .reserve_workspace = cpu_reserve_workspace,
    .linear_plan = cpu_linear_plan,
    .linear_layout = cpu_linear_layout,
    .linear_pack = cpu_linear_pack,
    .embedding = cpu_embedding,
    .norm = cpu_norm,
    .linear = cpu_linear,
    .linear_heads = cpu_linear_heads,
    .rotary_cos_sin = cpu_rotary_cos_sin,
    .rotary_embedding = cpu_rotary_embedding,
    .reshape_and_cache = cpu_reshape_and_cache,
    .attention = cpu_attention,
    .attention_mla = cpu_attention_mla,
    .act_and_mul = cpu_act_and_mul,
    .act = cpu_act,
    .softcap = cpu_softcap,
    .moe = cpu_moe,
    .add_gated = cpu_add_gated,
    .gather_rows = cpu_gather_rows,
    .add = cpu_add,
    .scale = cpu_scale,
    .sample = cpu_sample,
    .rejection_sample = cpu_rejection_sample,
    .logprobs = cpu_logprobs,
    .feed_tokens = cpu_feed_tokens,
};
