/* request.c - one allocation per request: the struct, then its arrays.
 *
 * The arrays are sized for the longest answer allowed, most of which never comes. Large requests
 * are therefore mapped: pages that no token reaches are never backed by memory, and all of it goes
 * back to the system with the request. */
#include "engine/request.h"
#include "base/clock.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

enum { MAPPED_FROM_BYTES = 128 * 1024 };

/* Offsets of the arrays from the start of the struct. */
struct layout {
    size_t logprobs, prompt_logprobs, token_ids;
    size_t bytes; /* SIZE_MAX: more than can be addressed */
};

/* Reserves count * stride elements; returns their offset. */
static size_t layout_add(struct layout *l, int32_t count, int64_t stride, size_t element_size)
{
    size_t offset, bytes;
    if (__builtin_add_overflow(l->bytes, (size_t)15, &offset))
        offset = SIZE_MAX;
    offset &= ~(size_t)15;
    if (__builtin_mul_overflow((size_t)count, (size_t)stride, &bytes) ||
        __builtin_mul_overflow(bytes, element_size, &bytes) ||
        __builtin_add_overflow(offset, bytes, &l->bytes))
        l->bytes = SIZE_MAX;
    return offset;
}

static struct layout layout_of(int32_t num_prompt_tokens, int32_t max_tokens,
                               const struct sampling_params *params)
{
    struct layout l = { .bytes = sizeof(struct request) };
    if (params->num_logprobs >= 0)
        l.logprobs = layout_add(&l, max_tokens, (int64_t)params->num_logprobs + 1,
                                sizeof(struct token_logprob));
    if (params->num_prompt_logprobs >= 0)
        l.prompt_logprobs =
            layout_add(&l, num_prompt_tokens, (int64_t)params->num_prompt_logprobs + 1,
                       sizeof(struct token_logprob));
    /* Last, so that for small requests a sanitizer sees a token written past the end. */
    l.token_ids = layout_add(&l, 1, (int64_t)num_prompt_tokens + max_tokens, sizeof(int32_t));
    return l;
}

size_t request_bytes(int32_t num_prompt_tokens, int32_t max_tokens,
                     const struct sampling_params *params)
{
    return layout_of(num_prompt_tokens, max_tokens, params).bytes;
}

struct request *request_new(const int32_t *prompt_ids, int32_t num_prompt_tokens,
                            int32_t max_tokens, const struct sampling_params *params,
                            void *owner_data, void (*free_owner_data)(void *))
{
    assert(num_prompt_tokens >= 0 && max_tokens >= 0);
    struct layout l = layout_of(num_prompt_tokens, max_tokens, params);
    if (l.bytes == SIZE_MAX)
        return NULL;
    struct request *r;
    if (l.bytes >= MAPPED_FROM_BYTES) {
        r = mmap(NULL, l.bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
                 -1, 0);
        if (r == MAP_FAILED)
            return NULL;
    } else {
        r = calloc(1, l.bytes);
        if (!r)
            return NULL;
    }
    r->bytes = l.bytes;
    r->num_prompt_tokens = num_prompt_tokens;
    r->max_tokens = max_tokens;
    r->params = *params;
    r->arrival_ns = clock_now_ns();
    r->seed = (uint64_t)params->seed;
    r->owner_data = owner_data;
    r->free_owner_data = free_owner_data;
    r->stop_token_id = -1;
    if (params->num_logprobs >= 0)
        r->logprobs = (struct token_logprob *)(void *)((char *)r + l.logprobs);
    if (params->num_prompt_logprobs >= 0)
        r->prompt_logprobs = (struct token_logprob *)(void *)((char *)r + l.prompt_logprobs);
    r->token_ids = (int32_t *)(void *)((char *)r + l.token_ids);
    if (num_prompt_tokens > 0)
        memcpy(r->token_ids, prompt_ids, (size_t)num_prompt_tokens * sizeof *prompt_ids);
    atomic_init(&r->num_output_tokens, 0);
    atomic_init(&r->finish_reason, FINISH_NONE);
    atomic_init(&r->cancelled, false);
    atomic_init(&r->stopped, false);
    atomic_init(&r->references, 1);
    pthread_mutex_init(&r->mutex, NULL);
    /* Timeouts must not jump with the wall clock. */
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&r->changed, &attr);
    pthread_condattr_destroy(&attr);
    return r;
}

struct request *request_ref(struct request *r)
{
    int32_t before = atomic_fetch_add_explicit(&r->references, 1, memory_order_relaxed);
    assert(before > 0);
    (void)before;
    return r;
}

void request_unref(struct request *r)
{
    if (!r)
        return;
    /* Release: our writes come before the end of whoever frees it. Acquire: that one sees them. */
    int32_t before = atomic_fetch_sub_explicit(&r->references, 1, memory_order_acq_rel);
    assert(before > 0);
    if (before > 1)
        return;
    request_unref(r->leader); /* which has none itself */
    pthread_cond_destroy(&r->changed);
    pthread_mutex_destroy(&r->mutex);
    if (r->free_owner_data)
        r->free_owner_data(r->owner_data);
    if (r->bytes >= MAPPED_FROM_BYTES)
        munmap(r, r->bytes);
    else
        free(r);
}

static bool has_news(const struct request *r, int32_t seen_tokens)
{
    return request_finish_reason(r) != FINISH_NONE || request_num_output_tokens(r) > seen_tokens;
}

static struct timespec time_after(int32_t timeout_ms)
{
    uint64_t end_ns = clock_now_ns() + (uint64_t)(timeout_ms < 0 ? 0 : timeout_ms) * 1000000u;
    return (struct timespec){ .tv_sec = (time_t)(end_ns / 1000000000u),
                              .tv_nsec = (long)(end_ns % 1000000000u) };
}

static struct request *leader_of(struct request *r)
{
    return r->leader ? r->leader : r;
}

void request_wake_with(struct request *r, struct request *leader)
{
    assert(!r->leader && !leader->leader && r != leader);
    r->leader = request_ref(leader);
}

uint32_t request_group_publications(struct request *leader)
{
    pthread_mutex_lock(&leader->mutex);
    uint32_t count = leader->num_publications;
    pthread_mutex_unlock(&leader->mutex);
    return count;
}

void request_group_wait(struct request *leader, uint32_t seen, int32_t timeout_ms)
{
    struct timespec end = time_after(timeout_ms);
    bool in_time = true;
    pthread_mutex_lock(&leader->mutex);
    while (in_time && leader->num_publications == seen)
        in_time = pthread_cond_timedwait(&leader->changed, &leader->mutex, &end) != ETIMEDOUT;
    pthread_mutex_unlock(&leader->mutex);
}

bool request_wait(struct request *r, int32_t seen_tokens, int32_t timeout_ms)
{
    if (has_news(r, seen_tokens))
        return true;
    if (timeout_ms == 0)
        return false;
    struct timespec end = time_after(timeout_ms);
    struct request *leader = leader_of(r);
    bool in_time = true;
    pthread_mutex_lock(&leader->mutex);
    while (in_time && !has_news(r, seen_tokens)) {
        if (timeout_ms < 0)
            pthread_cond_wait(&leader->changed, &leader->mutex);
        else
            in_time = pthread_cond_timedwait(&leader->changed, &leader->mutex, &end) != ETIMEDOUT;
    }
    pthread_mutex_unlock(&leader->mutex);
    return has_news(r, seen_tokens);
}

void request_publish(struct request *r, int32_t num_output_tokens, enum finish_reason reason)
{
    bool news =
        reason != FINISH_NONE ||
        num_output_tokens != atomic_load_explicit(&r->num_output_tokens, memory_order_relaxed);
    if (!news)
        return;
    atomic_store_explicit(&r->num_output_tokens, num_output_tokens, memory_order_release);
    if (reason != FINISH_NONE)
        atomic_store_explicit(&r->finish_reason, (int32_t)reason, memory_order_release);
    if (r->wakes_at_end_only && reason == FINISH_NONE)
        return;
    /* Under the mutex, so that a waiter is either before its check or asleep: no lost wake-up. */
    struct request *leader = leader_of(r);
    pthread_mutex_lock(&leader->mutex);
    leader->num_publications++;
    pthread_cond_broadcast(&leader->changed);
    pthread_mutex_unlock(&leader->mutex);
}
