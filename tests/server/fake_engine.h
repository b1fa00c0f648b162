/* fake_engine.h - a stand-in for the engine behind engine.h, for tests of the server alone.
 *
 * Its tokenizer makes one token of every byte (id = byte), with 256 as BOS and 257 as EOS. A
 * request is answered with its own prompt, byte by byte, then EOS; with ignore_eos the prompt is
 * repeated. One thread publishes one token to every request per tick. A prompt with "FAIL" in it
 * fails at its third token, one with "STALL" never gets any. Included once per test program. */
#ifndef INFERD_TESTS_SERVER_FAKE_ENGINE_H
#define INFERD_TESTS_SERVER_FAKE_ENGINE_H

#include "base/alloc.h"
#include "base/clock.h"
#include "base/utf8.h"
#include "engine/engine.h"
#include "engine/text/chat_template.h"
#include "engine/text/tokenizer_kind.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { FAKE_BOS = 256, FAKE_EOS = 257, FAKE_VOCAB = 258, FAKE_MAX_LEN = 256, FAKE_SLOTS = 4096 };

/* --- tokenizer ----------------------------------------------------------------------------------
 */

static bool fake_encode(const struct tokenizer *t, const char *text, size_t len, bool special,
                        struct token_sink *sink, struct status *st)
{
    (void)t, (void)st;
    if (special)
        token_sink_put(sink, FAKE_BOS);
    for (size_t i = 0; i < len; i++)
        token_sink_put(sink, (unsigned char)text[i]);
    return true;
}

struct fake_stream {
    struct decode_stream base;
    char held[4];
    size_t num_held;
};

static void fake_stream_push(struct decode_stream *base, int32_t id, struct buf *out)
{
    struct fake_stream *s = (struct fake_stream *)base;
    uint32_t code_point;
    if (id > 255) {
        if (!base->skip_special_tokens)
            buf_append_str(out, id == FAKE_BOS ? "<s>" : "</s>");
        return;
    }
    s->held[s->num_held++] = (char)id;
    int rc = utf8_decode(s->held, s->num_held, &code_point);
    if (rc > 0)
        buf_append(out, s->held, s->num_held);
    else if (rc < 0)
        buf_append_str(out, "\xef\xbf\xbd");
    if (rc != 0)
        s->num_held = 0;
}

static struct decode_stream *fake_stream_open(const struct tokenizer *t, bool skip)
{
    struct fake_stream *s = xcalloc(1, sizeof *s);
    s->base.tokenizer = t;
    s->base.skip_special_tokens = skip;
    return &s->base;
}

static void fake_stream_finish(struct decode_stream *base, struct buf *out)
{
    struct fake_stream *s = (struct fake_stream *)base;
    if (s->num_held)
        buf_append_str(out, "\xef\xbf\xbd");
    s->num_held = 0;
}

static void fake_stream_close(struct decode_stream *s)
{
    free(s);
}

static void fake_decode(const struct tokenizer *t, const int32_t *ids, size_t count, bool skip,
                        struct buf *out)
{
    struct decode_stream *s = fake_stream_open(t, skip);
    for (size_t i = 0; i < count; i++)
        fake_stream_push(s, ids[i], out);
    fake_stream_finish(s, out);
    fake_stream_close(s);
}

static void fake_id_bytes(const struct tokenizer *t, int32_t id, struct buf *out)
{
    (void)t;
    if (id > 255)
        buf_append_str(out, id == FAKE_BOS ? "<s>" : "</s>");
    else
        buf_append_char(out, (char)id);
}

static void fake_tokenizer_free(struct tokenizer *t)
{
    (void)t;
}

static const struct tokenizer_kind fake_kind = {
    .name = "bytes",
    .encode = fake_encode,
    .decode = fake_decode,
    .stream_open = fake_stream_open,
    .stream_push = fake_stream_push,
    .stream_finish = fake_stream_finish,
    .stream_close = fake_stream_close,
    .id_bytes = fake_id_bytes,
    .free = fake_tokenizer_free,
};

static struct tokenizer fake_tokenizer = { .kind = &fake_kind,
                                           .bos_id = FAKE_BOS,
                                           .eos_id = FAKE_EOS };

static void fake_make_vocab(void)
{
    static struct vocab_piece pieces[FAKE_VOCAB];
    static char bytes[256][2];
    for (int32_t i = 0; i < 256; i++) {
        bytes[i][0] = (char)i;
        pieces[i] = (struct vocab_piece){ .text = bytes[i], .len = 1 };
    }
    pieces[FAKE_BOS] = (struct vocab_piece){ .text = "<s>", .len = 3, .special = true };
    pieces[FAKE_EOS] = (struct vocab_piece){ .text = "</s>", .len = 4, .special = true };
    fake_tokenizer.vocab.pieces = pieces;
    fake_tokenizer.vocab.size = FAKE_VOCAB;
}

/* --- chat template: "role: content\n" -----------------------------------------------------------
 */

static const char fake_template_text[] =
    "{%- for m in messages -%}"
    "{%- if m.role == 'bad' %}{{ raise_exception(\"no role 'bad'\") }}{% endif -%}"
    "{{ m.role }}: {{ m.content }}{{ '\\n' }}"
    "{%- endfor -%}"
    "{%- if tools %}tools {{ tools | length }}{{ '\\n' }}{% endif -%}"
    "{%- if shout %}!{% endif -%}"
    "{%- if add_generation_prompt %}>{% endif -%}";

static struct chat_template *fake_template;

static void fake_make_template(void)
{
    struct status st = { 0 };
    if (!fake_template && !chat_template_derive(NULL, fake_template_text,
                                                sizeof fake_template_text - 1, &fake_template, &st))
        abort();
}

/* --- engine -------------------------------------------------------------------------------------
 */

struct engine {
    const struct config *config;
    _Atomic int32_t state;
    struct engine_info info;
    struct sampling_params defaults;
    struct metrics *metrics;
    int32_t eos_ids[1];
    pthread_t thread;
    _Atomic bool stopping, abort_all;
    _Atomic int32_t tick_us, num_cancelled, max_waiting;
    pthread_mutex_t mutex;
    struct request *slots[FAKE_SLOTS];
    _Atomic int32_t num_unfinished;
};

static void fake_finish(struct engine *e, int32_t slot, int32_t count, enum finish_reason reason)
{
    struct request *r = e->slots[slot];
    e->slots[slot] = NULL;
    r->finished_ns = clock_now_ns();
    request_publish(r, count, reason);
    metrics_request_finished(e->metrics, r);
    request_unref(r);
    atomic_fetch_sub(&e->num_unfinished, 1);
}

static bool fake_prompt_has(const struct request *r, const char *word)
{
    size_t len = strlen(word);
    for (int32_t i = 0; i + (int32_t)len <= r->num_prompt_tokens; i++) {
        size_t k = 0;
        while (k < len && r->token_ids[i + (int32_t)k] == (unsigned char)word[k])
            k++;
        if (k == len)
            return true;
    }
    return false;
}

/* Log-probabilities are made up: -0.25 for what comes, then ids 65, 66, ... with -1, -2, ... */
static void fake_logprobs(struct token_logprob *row, int32_t id, int32_t k)
{
    row[0] = (struct token_logprob){ .token_id = id, .rank = 1, .logprob = -0.25f };
    for (int32_t i = 1; i <= k; i++)
        row[i] = (struct token_logprob){ .token_id = 64 + i, .rank = i, .logprob = (float)-i };
}

static void fake_start(struct request *r)
{
    r->scheduled_ns = clock_now_ns();
    int32_t k = r->params.num_prompt_logprobs;
    for (int32_t i = 1; r->prompt_logprobs && i < r->num_prompt_tokens; i++)
        fake_logprobs(&r->prompt_logprobs[i * (k + 1)], r->token_ids[i], k);
}

static void fake_step(struct engine *e, int32_t slot)
{
    struct request *r = e->slots[slot];
    int32_t n = request_num_output_tokens(r), len = r->num_prompt_tokens;
    if (r->scheduled_ns == 0)
        fake_start(r);
    if (atomic_load(&r->cancelled) || atomic_load(&e->abort_all)) {
        atomic_fetch_add(&e->num_cancelled, 1);
        fake_finish(e, slot, n, atomic_load(&r->stopped) ? FINISH_STOP : FINISH_ABORT);
        return;
    }
    if (r->deadline_ns && clock_now_ns() > r->deadline_ns) {
        status_set(&r->error, STATUS_TIMEOUT, "too late");
        fake_finish(e, slot, n, n ? FINISH_ABORT : FINISH_ERROR);
        return;
    }
    if (fake_prompt_has(r, "STALL"))
        return;
    if (n == 2 && fake_prompt_has(r, "FAIL")) {
        status_set(&r->error, STATUS_INTERNAL, "the device broke");
        fake_finish(e, slot, n, FINISH_ERROR);
        return;
    }
    if (r->max_tokens == 0) {
        fake_finish(e, slot, 0, FINISH_LENGTH);
        return;
    }
    int32_t skip = r->token_ids[0] == FAKE_BOS && len > 1;
    int32_t at = n % (len - skip + 1);
    bool is_eos = at == len - skip;
    int32_t id =
        is_eos && !r->params.ignore_eos ? FAKE_EOS : r->token_ids[skip + at % (len - skip)];
    r->token_ids[len + n] = id;
    if (r->logprobs)
        fake_logprobs(&r->logprobs[n * (r->params.num_logprobs + 1)], id, r->params.num_logprobs);
    if (n == 0)
        r->first_token_ns = clock_now_ns();
    r->last_token_ns = clock_now_ns();
    for (int32_t i = 0; i < r->params.num_stop_token_ids; i++)
        if (r->params.stop_token_ids[i] == id)
            r->stop_token_id = id;
    if (id == FAKE_EOS || r->stop_token_id >= 0)
        fake_finish(e, slot, n + 1, FINISH_STOP);
    else if (n + 1 == r->max_tokens)
        fake_finish(e, slot, n + 1, FINISH_LENGTH);
    else
        request_publish(r, n + 1, FINISH_NONE);
}

static void *fake_main(void *arg)
{
    struct engine *e = arg;
    while (!atomic_load(&e->stopping)) {
        struct timespec tick = { .tv_nsec = (long)atomic_load(&e->tick_us) * 1000 };
        nanosleep(&tick, NULL);
        pthread_mutex_lock(&e->mutex);
        for (int32_t i = 0; i < FAKE_SLOTS; i++)
            if (e->slots[i])
                fake_step(e, i);
        pthread_mutex_unlock(&e->mutex);
    }
    return NULL;
}

struct engine *engine_new(const struct config *config)
{
    struct engine *e = xcalloc(1, sizeof *e);
    e->config = config;
    atomic_init(&e->state, ENGINE_READY);
    sampling_params_defaults(&e->defaults);
    e->eos_ids[0] = FAKE_EOS;
    e->defaults.eos_token_ids = e->eos_ids;
    e->defaults.num_eos_token_ids = 1;
    fake_make_vocab();
    fake_make_template();
    e->info = (struct engine_info){ .model_path = "fake",
                                    .architecture = "Fake",
                                    .max_model_len = FAKE_MAX_LEN,
                                    .vocab_size = FAKE_VOCAB,
                                    .max_logprobs = 20,
                                    .tokenizer = &fake_tokenizer,
                                    .chat_template = fake_template,
                                    .sampling_defaults = &e->defaults };
    e->metrics = metrics_new("fake", FAKE_MAX_LEN);
    atomic_init(&e->tick_us, 200);
    atomic_init(&e->max_waiting, FAKE_SLOTS);
    pthread_mutex_init(&e->mutex, NULL);
    pthread_create(&e->thread, NULL, fake_main, e);
    return e;
}

void engine_free(struct engine *e)
{
    atomic_store(&e->stopping, true);
    pthread_join(e->thread, NULL);
    for (int32_t i = 0; i < FAKE_SLOTS; i++)
        if (e->slots[i])
            fake_finish(e, i, request_num_output_tokens(e->slots[i]), FINISH_ABORT);
    metrics_free(e->metrics);
    pthread_mutex_destroy(&e->mutex);
    free(e);
}

const struct startup_stage engine_stages[1];
const int32_t num_engine_stages = 0;
const int32_t num_engine_plan_stages = 0;

enum engine_state engine_state(struct engine *e)
{
    return (enum engine_state)atomic_load(&e->state);
}

const struct engine_info *engine_info(struct engine *e)
{
    return &e->info;
}

struct metrics *engine_metrics(struct engine *e)
{
    return e->metrics;
}

void engine_get_progress(struct engine *e, char *out, size_t size)
{
    (void)e;
    snprintf(out, size, "%s", "");
}

void engine_get_failure(struct engine *e, struct status *out)
{
    (void)e;
    status_set(out, STATUS_INTERNAL, "the fake broke");
}

bool engine_check_length(struct engine *e, int32_t num_prompt_tokens, int32_t max_tokens,
                         struct status *st)
{
    (void)e;
    if (num_prompt_tokens + max_tokens <= FAKE_MAX_LEN && num_prompt_tokens < FAKE_MAX_LEN)
        return true;
    status_set(st, STATUS_INVALID, "%d + %d tokens are more than %d", num_prompt_tokens, max_tokens,
               FAKE_MAX_LEN);
    return status_detail(st, NULL, "context_length_exceeded");
}

bool engine_submit(struct engine *e, struct request *const *requests, int32_t count,
                   struct status *st)
{
    if (engine_state(e) != ENGINE_READY)
        return status_set(st, STATUS_UNAVAILABLE, "not ready");
    if (atomic_load(&e->num_unfinished) + count > atomic_load(&e->max_waiting))
        return status_set(st, STATUS_OVERLOADED, "the queue is full");
    pthread_mutex_lock(&e->mutex);
    for (int32_t i = 0, slot = 0; i < count; i++) {
        while (e->slots[slot])
            slot++;
        e->slots[slot] = request_ref(requests[i]);
    }
    atomic_fetch_add(&e->num_unfinished, count);
    pthread_mutex_unlock(&e->mutex);
    return true;
}

int32_t engine_num_unfinished(struct engine *e)
{
    return atomic_load(&e->num_unfinished);
}

void engine_drain(struct engine *e)
{
    atomic_store(&e->state, ENGINE_DRAINING);
}

void engine_abort_all(struct engine *e)
{
    atomic_store(&e->abort_all, true);
}

uint64_t engine_heartbeat(struct engine *e)
{
    (void)e;
    return clock_now_ns();
}

#endif
