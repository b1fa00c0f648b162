/* test_sim_scheduler.c - the real scheduler against a fake executor, from a seed.
 *
 * A simulated KV slot holds a hash of the whole token prefix (and the salt) it belongs to, and of
 * the group of layers that wrote it. The fake model reads, for every group, all that its tokens see
 * through the block tables, so a block shared wrongly, given back while it is in a window, reused
 * too early or registered after a failed step shows. Every step is checked, and at the end every
 * request must have got what it gets when it runs alone. In some of the seeds a step is planned
 * while the one before is under way, which runs sooner or later, but before it; in others tokens
 * are drafted, most of them rightly.
 *
 * SIM_SEEDS=n runs n seeds (default 10000), SIM_SEED=n (or an argument) replays one and prints it.
 */
#include "base/alloc.h"
#include "engine/sched/kv_cache_groups.h"
#include "engine/sched/scheduler.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

enum {
    MAX_REQUESTS = 24,
    MAX_LEN = 96,
    MAX_BLOCK_TOKENS = 16,
    MAX_SEQS = 10,
    MAX_LOGPROBS = 2,
    MAX_DRAFTS = 5
};
enum { VOCAB = 11, EOS = 3, NUM_STEMS = 3, MAX_GROUPS = 4, MAX_BLOCKS = MAX_REQUESTS * MAX_LEN };
static const int32_t eos_ids[] = { EOS };

/* One simulated user and what the simulation has seen of his request. */
struct client {
    struct request *request;
    int32_t stop_id;
    int32_t poison_at; /* output index at which the logits are not finite; -1: never */
    bool added, running, ended, in_failed_step;
    int32_t num_computed, num_preemptions, num_published;
};

/* A step that was planned and not booked: as an executor has it, which copies the block tables. */
struct flight {
    struct step step;
    int32_t *tables, *firsts; /* [max_num_seqs] rows */
    struct step_output output;
    bool executed;
};

struct sim {
    uint64_t seed, rng, now_ns;
    bool verbose, aborted_all;
    struct scheduler_config config;
    struct kv_cache_groups groups;
    struct scheduler *scheduler;
    int32_t depth; /* steps that may be under way */
    struct flight flights[SCHEDULER_MAX_STEPS];
    int32_t first_flight, num_flights;
    uint64_t slots[MAX_BLOCKS * MAX_BLOCK_TOKENS]; /* [num_blocks][block_size] */
    int32_t writer[MAX_BLOCKS];                    /* client that writes a block in this step */
    int32_t stems[NUM_STEMS][MAX_LEN];
    struct client clients[MAX_REQUESTS];
    int32_t num_clients, num_added, num_ended;
    uint64_t num_preemptions;
    int64_t num_steps;
};

/* What the seeds as a whole have reached; each must be more than none. */
static struct coverage {
    int64_t steps, preemptions, hit_tokens, rerun_hits, chunks, cancelled, timeouts_early,
        timeouts_late, failed_steps, poisoned, stops, lengths, prompt_only, resets, aborts_all,
        salted_hits, stop_strings, given_back, window_hits, beyond_capacity, overlapped, fed,
        dropped, waited, drafts, wrong_drafts, right_drafts, stops_among_drafts, poisoned_drafts;
} coverage;

#define REQUIRE(sim, condition, ...)                                                               \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            print_error("seed %llu, step %lld: %s: ", (unsigned long long)(sim)->seed,             \
                        (long long)(sim)->num_steps, #condition);                                  \
            print_error(__VA_ARGS__);                                                              \
            print_error("\nreplay with SIM_SEED=%llu\n", (unsigned long long)(sim)->seed);         \
            fail();                                                                                \
        }                                                                                          \
    } while (0)

/* --- chance ------------------------------------------------------------------------------------*/

static uint64_t mix(uint64_t a, uint64_t b)
{
    uint64_t z = a * 0x9e3779b97f4a7c15u + b + 0x632be59bd9b4e019u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

/* Between low and high, both included. */
static int32_t draw(struct sim *sim, int32_t low, int32_t high)
{
    sim->rng = mix(sim->rng, 1);
    return low + (int32_t)(sim->rng % (uint64_t)(high - low + 1));
}

static bool chance(struct sim *sim, int32_t percent)
{
    return draw(sim, 1, 100) <= percent;
}

/* --- the fake model ----------------------------------------------------------------------------*/

/* What a group's slot holds for a token whose prefix has that value. */
static uint64_t group_slot(uint64_t slot, int32_t group)
{
    return slot ^ (uint64_t)group * 0x9e3779b97f4a7c15u;
}

/* What the slot of a token stands for: depends on all tokens up to it, and on the salt. */
static uint64_t slot_after(uint64_t before, int32_t token_id)
{
    return mix(before, (uint64_t)token_id + 1);
}

static uint64_t slot_root(const struct request *r)
{
    return mix(r->cache_salt.low, r->cache_salt.high);
}

/* The model's answer from a fold over all slots of the context. */
static int32_t token_of(uint64_t fold)
{
    return (int32_t)(fold % VOCAB);
}

static struct token_logprob logprob_of(uint64_t fold, int32_t i)
{
    uint64_t h = mix(fold, (uint64_t)i);
    return (struct token_logprob){ .token_id = (int32_t)(h % VOCAB),
                                   .rank = i,
                                   .logprob = -(float)(h % 1000) };
}

/* --- a request running alone -------------------------------------------------------------------*/

struct answer {
    int32_t num_tokens, token_ids[MAX_LEN], stop_token_id;
    uint64_t folds[MAX_LEN]; /* the fold from which each token came */
    enum finish_reason reason;
};

/* The stop rules once more, written from their description. */
static enum finish_reason alone_stops(const struct sim *sim, const struct client *c,
                                      const struct answer *a)
{
    const struct request *r = c->request;
    int32_t id = a->token_ids[a->num_tokens - 1];
    if (a->num_tokens == r->max_tokens ||
        r->num_prompt_tokens + a->num_tokens == sim->config.max_model_len)
        return FINISH_LENGTH;
    if (a->num_tokens < r->params.min_tokens)
        return FINISH_NONE;
    if (id == EOS && !r->params.ignore_eos)
        return FINISH_STOP;
    return id == c->stop_id ? FINISH_STOP : FINISH_NONE;
}

static void run_alone(const struct sim *sim, const struct client *c, struct answer *a)
{
    const struct request *r = c->request;
    uint64_t slot = slot_root(r), fold = 0;
    *a = (struct answer){ .stop_token_id = -1 };
    for (int32_t p = 0; p < r->num_prompt_tokens; p++) {
        slot = slot_after(slot, r->token_ids[p]);
        fold = mix(fold, slot);
    }
    if (r->max_tokens == 0)
        a->reason = c->poison_at == 0 ? FINISH_ERROR : FINISH_LENGTH;
    while (a->reason == FINISH_NONE) {
        if (a->num_tokens == c->poison_at) {
            a->reason = FINISH_ERROR;
            return;
        }
        int32_t id = token_of(fold);
        a->folds[a->num_tokens] = fold;
        a->token_ids[a->num_tokens++] = id;
        slot = slot_after(slot, id);
        fold = mix(fold, slot);
        a->reason = alone_stops(sim, c, a);
        if (a->reason == FINISH_STOP && (id != EOS || r->params.ignore_eos))
            a->stop_token_id = id;
    }
}

/* --- drafts ------------------------------------------------------------------------------------*/

static struct sim *drafting; /* a proposer is told of tokens alone */

/* What comes, but for a wrong one now and then, and not always as many as may be. */
static int32_t draft(const struct proposer_config *config, const int32_t *token_ids,
                     int32_t num_tokens, int32_t max_drafts, int32_t *drafts)
{
    struct sim *sim = drafting;
    struct answer alone;
    int32_t id = 0;
    while (sim->clients[id].request->token_ids != token_ids)
        id++;
    REQUIRE(sim, max_drafts >= 1 && max_drafts <= config->num_tokens, "%d drafts", max_drafts);
    run_alone(sim, &sim->clients[id], &alone);
    const int32_t num_output = num_tokens - sim->clients[id].request->num_prompt_tokens;
    const int32_t count = draw(sim, 0, max_drafts);
    for (int32_t i = 0; i < count; i++)
        drafts[i] = num_output + i < alone.num_tokens && chance(sim, 80)
                        ? alone.token_ids[num_output + i]
                        : draw(sim, 0, VOCAB - 1);
    return count;
}

static const struct proposer proposer = { .name = "sim", .propose = draft };

/* --- set-up ------------------------------------------------------------------------------------*/

static void make_client(struct sim *sim, struct client *c)
{
    *c = (struct client){ .stop_id = -2, .poison_at = chance(sim, 4) ? draw(sim, 0, 3) : -1 };
    int32_t capacity = kv_cache_groups_longest(&sim->groups, sim->config.num_blocks, MAX_LEN);
    /* The last token of an answer takes no place in the cache. */
    int32_t max_len = sim->config.max_model_len;
    max_len = capacity + 1 < max_len ? capacity + 1 : max_len;
    int32_t max_prompt = capacity < max_len ? capacity : max_len;
    int32_t num_prompt = draw(sim, 1, chance(sim, 30) ? max_prompt : (max_prompt + 1) / 2);
    int32_t max_tokens = chance(sim, 8) ? 0 : draw(sim, 0, max_len - num_prompt);
    int32_t ids[MAX_LEN];
    int32_t num_shared = draw(sim, 0, num_prompt);
    memcpy(ids, sim->stems[draw(sim, 0, NUM_STEMS - 1)], sizeof ids);
    for (int32_t i = num_shared; i < num_prompt; i++)
        ids[i] = draw(sim, 0, VOCAB - 1);
    struct sampling_params params;
    sampling_params_defaults(&params);
    params.eos_token_ids = eos_ids;
    params.num_eos_token_ids = 1;
    params.ignore_eos = chance(sim, 60);
    params.min_tokens = chance(sim, 20) ? draw(sim, 0, 8) : 0;
    params.num_logprobs = chance(sim, 20) ? draw(sim, 0, MAX_LOGPROBS) : -1;
    params.num_prompt_logprobs = chance(sim, 8) ? 0 : -1;
    struct request *r = request_new(ids, num_prompt, max_tokens, &params, NULL, NULL);
    c->request = r;
    if (chance(sim, 20)) {
        c->stop_id = draw(sim, 0, VOCAB - 1);
        r->params.stop_token_ids = &c->stop_id;
        r->params.num_stop_token_ids = 1;
    }
    if (chance(sim, 25))
        r->cache_salt = (struct hash128){ 1, (uint64_t)draw(sim, 0, 1) };
}

static void open_flight(struct flight *f)
{
    f->step.seqs = xcalloc(MAX_SEQS, sizeof *f->step.seqs);
    f->tables = xcalloc((size_t)MAX_SEQS * MAX_GROUPS * MAX_LEN, sizeof *f->tables);
    f->firsts = xcalloc((size_t)MAX_SEQS * MAX_GROUPS, sizeof *f->firsts);
    const size_t rows = (size_t)MAX_SEQS * (1 + MAX_DRAFTS);
    f->output.max_sampled = 1 + MAX_DRAFTS;
    f->output.num_sampled = xcalloc(MAX_SEQS, sizeof *f->output.num_sampled);
    f->output.sampled_ids = xcalloc(rows, sizeof *f->output.sampled_ids);
    f->output.logprobs_stride = 1 + MAX_LOGPROBS;
    f->output.logprobs = xcalloc(rows * (1 + MAX_LOGPROBS), sizeof *f->output.logprobs);
}

static void close_flight(struct flight *f)
{
    free(f->step.seqs);
    free(f->tables);
    free(f->firsts);
    free(f->output.num_sampled);
    free(f->output.sampled_ids);
    free(f->output.logprobs);
}

static void sim_start(struct sim *sim, uint64_t seed)
{
    sim->seed = sim->rng = seed;
    sim->now_ns = 1000;
    struct scheduler_config *config = &sim->config;
    config->block_size = 1 << draw(sim, 0, 4);
    config->max_model_len = draw(sim, 4, MAX_LEN);
    config->num_kv_groups = chance(sim, 40) ? 1 : draw(sim, 1, MAX_GROUPS);
    for (int32_t g = 0; g < config->num_kv_groups; g++)
        config->sliding_window[g] = chance(sim, 50) ? draw(sim, 1, MAX_LEN / 2) : 0;
    config->num_blocks = config->num_kv_groups * draw(sim, 1, 3 * MAX_LEN / config->block_size + 1);
    config->max_num_seqs = draw(sim, 1, MAX_SEQS);
    config->max_num_batched_tokens = chance(sim, 50) ? draw(sim, 1, 12) : draw(sim, 1, 200);
    config->long_prefill_token_threshold = chance(sim, 30) ? draw(sim, 1, 20) : 0;
    config->max_waiting = draw(sim, 1, MAX_REQUESTS);
    config->max_logprobs = MAX_LOGPROBS;
    config->enable_prefix_caching = chance(sim, 88);
    config->hash_key = (struct hash_key){ seed, 7 };
    sim->groups =
        kv_cache_groups_make(config->sliding_window, config->num_kv_groups, config->block_size,
                             config->max_num_batched_tokens, config->long_prefill_token_threshold);
    if (chance(sim, 35)) {
        config->proposer = &proposer;
        config->proposer_config.num_tokens = draw(sim, 1, MAX_DRAFTS);
    }
    drafting = sim;
    sim->scheduler = scheduler_new(config);
    sim->depth = config->proposer ? 1 : draw(sim, 1, SCHEDULER_MAX_STEPS);
    for (int32_t i = 0; i < SCHEDULER_MAX_STEPS; i++)
        open_flight(&sim->flights[i]);
    for (int32_t i = 0; i < NUM_STEMS; i++)
        for (int32_t p = 0; p < MAX_LEN; p++)
            sim->stems[i][p] = draw(sim, 0, VOCAB - 1);
    sim->num_clients = draw(sim, 1, MAX_REQUESTS);
    for (int32_t i = 0; i < sim->num_clients; i++)
        make_client(sim, &sim->clients[i]);
}

static void sim_end(struct sim *sim)
{
    scheduler_free(sim->scheduler);
    for (int32_t i = 0; i < SCHEDULER_MAX_STEPS; i++)
        close_flight(&sim->flights[i]);
    for (int32_t i = 0; i < sim->num_clients; i++)
        request_unref(sim->clients[i].request);
}

/* --- what happens between steps ----------------------------------------------------------------*/

static int32_t client_of(const struct sim *sim, const struct request *r)
{
    for (int32_t i = 0; i < sim->num_clients; i++)
        if (sim->clients[i].request == r)
            return i;
    return -1;
}

static void arrivals(struct sim *sim)
{
    while (sim->num_added < sim->num_clients && scheduler_room(sim->scheduler) > 0 &&
           chance(sim, 45)) {
        struct client *c = &sim->clients[sim->num_added++];
        struct status st;
        REQUIRE(sim,
                scheduler_fits(&sim->config, c->request->num_prompt_tokens, c->request->max_tokens,
                               &st),
                "%s", st.message);
        c->request->arrival_ns = sim->now_ns;
        if (chance(sim, 10))
            c->request->deadline_ns = sim->now_ns + (uint64_t)draw(sim, 0, 300);
        c->added = true;
        scheduler_add(sim->scheduler, request_ref(c->request));
    }
}

static void cancellations(struct sim *sim)
{
    for (int32_t i = 0; i < sim->num_clients; i++)
        if (!sim->clients[i].ended && draw(sim, 1, 400) == 1)
            (chance(sim, 70) ? request_cancel : request_stop)(sim->clients[i].request);
}

/* Publishes as the engine does, and checks what an event says. */
static void take_events(struct sim *sim)
{
    struct scheduler_event *events;
    int32_t count = scheduler_take_events(sim->scheduler, &events);
    for (int32_t i = 0; i < count; i++) {
        struct scheduler_event *e = &events[i];
        int32_t id = client_of(sim, e->request);
        REQUIRE(sim, id >= 0, "an event of an unknown request");
        struct client *c = &sim->clients[id];
        REQUIRE(sim, c->added && !c->ended, "request %d: an event after its end", id);
        REQUIRE(sim, e->num_output_tokens >= c->num_published, "request %d lost tokens", id);
        c->num_published = e->num_output_tokens;
        request_publish(c->request, e->num_output_tokens, e->reason);
        if (sim->verbose && e->reason != FINISH_NONE)
            printf("step %lld: request %d ends, reason %d, %d tokens\n", (long long)sim->num_steps,
                   id, (int)e->reason, e->num_output_tokens);
        if (e->reason != FINISH_NONE) {
            c->ended = true;
            c->running = false;
            sim->num_ended++;
            request_unref(c->request);
        }
    }
}

static struct flight *flight_at(struct sim *sim, int32_t i)
{
    return &sim->flights[(sim->first_flight + i) % SCHEDULER_MAX_STEPS];
}

/* In a step that was not booked. */
static bool is_under_way(struct sim *sim, const struct request *r)
{
    for (int32_t i = 0; i < sim->num_flights; i++)
        for (int32_t k = 0; k < flight_at(sim, i)->step.num_seqs; k++)
            if (flight_at(sim, i)->step.seqs[k].request == r)
                return true;
    return false;
}

static const int32_t *table_of(const struct sim *sim, const struct step_seq *seq, int32_t group)
{
    return seq->block_tables + group * sim->flights[0].step.block_table_stride;
}

/* --- the checks of one step --------------------------------------------------------------------*/

static void check_state(struct sim *sim)
{
    struct status st;
    REQUIRE(sim, scheduler_check(sim->scheduler, &st), "%s", st.message);
    struct scheduler_stats stats;
    scheduler_get_stats(sim->scheduler, &stats);
    REQUIRE(sim, stats.num_running <= sim->config.max_num_seqs, "%d run", stats.num_running);
    REQUIRE(sim, stats.num_free_blocks >= 0 && stats.num_free_blocks <= stats.num_blocks, "%d",
            stats.num_free_blocks);
    REQUIRE(sim, stats.num_running > 0 || stats.num_free_blocks == stats.num_blocks,
            "nothing runs, %d of %d blocks are free", stats.num_free_blocks, stats.num_blocks);
}

/* Cancelled and overdue ones are gone, preempted ones do not run. */
static void check_dropped(struct sim *sim)
{
    for (int32_t i = 0; i < sim->num_added; i++) {
        struct client *c = &sim->clients[i];
        bool stays = c->ended || is_under_way(sim, c->request);
        REQUIRE(sim, stays || !atomic_load(&c->request->cancelled),
                "request %d was cancelled and goes on", i);
        REQUIRE(sim, stays || c->request->deadline_ns == 0 || sim->now_ns < c->request->deadline_ns,
                "request %d is overdue and goes on", i);
        if (c->num_preemptions != c->request->num_preemptions) {
            REQUIRE(sim, c->running, "request %d was preempted and did not run", i);
            c->num_preemptions = c->request->num_preemptions;
            c->running = false;
            c->num_computed = 0;
        }
    }
}

/* A request enters the batch, for the first time or again. */
static void check_start(struct sim *sim, int32_t id, const struct step_seq *seq, bool preempted)
{
    struct client *c = &sim->clients[id];
    REQUIRE(sim, !preempted, "request %d was admitted in a step that preempted", id);
    for (int32_t i = 0; i < id; i++)
        REQUIRE(sim, sim->clients[i].ended || sim->clients[i].running,
                "request %d was admitted before %d", id, i);
    int32_t hit = seq->num_computed_tokens;
    bool first = c->num_preemptions == 0;
    REQUIRE(sim, hit % sim->config.block_size == 0 && hit < seq->num_tokens, "%d cached", hit);
    REQUIRE(sim, hit == 0 || sim->config.enable_prefix_caching, "a hit without a cache");
    REQUIRE(sim,
            hit == 0 || c->request->params.num_prompt_logprobs < 0 ||
                seq->num_tokens > c->request->num_prompt_tokens,
            "request %d wants log-probabilities of a cached prompt", id);
    REQUIRE(
        sim,
        !first || (c->request->num_cached_tokens == hit && c->request->scheduled_ns == sim->now_ns),
        "request %d: %d cached tokens reported, %d used", id, c->request->num_cached_tokens, hit);
    coverage.hit_tokens += first ? hit : 0;
    coverage.rerun_hits += first ? 0 : hit;
    for (int32_t g = 0; g < sim->groups.num_groups; g++)
        coverage.window_hits += seq->first_blocks[g] > 0;
    coverage.salted_hits += c->request->cache_salt.low ? hit : 0;
    c->running = true;
    c->num_computed = hit;
}

/* A group's table has all blocks that the step's tokens see, and none before them. */
static void check_table(struct sim *sim, int32_t id, const struct step_seq *seq, int32_t group)
{
    const int32_t *table = table_of(sim, seq, group);
    int32_t bs = sim->config.block_size, window = sim->config.sliding_window[group];
    int32_t seen = seq->num_computed_tokens - window + 1;
    int32_t first = window > 0 && seen > 0 ? seen / bs : 0;
    /* What is under way may still see blocks that this step does not. */
    REQUIRE(sim,
            seq->first_blocks[group] == first ||
                (sim->num_flights > 0 && seq->first_blocks[group] < first),
            "request %d: group %d begins at block %d", id, group, seq->first_blocks[group]);
    coverage.given_back += first;
    for (int32_t b = first; b < seq->num_blocks; b++) {
        REQUIRE(sim, table[b] >= 0 && table[b] < sim->config.num_blocks, "block %d", table[b]);
        if (b < seq->num_computed_tokens / bs)
            continue;
        REQUIRE(sim, sim->writer[table[b]] < 0, "block %d is written by %d and %d", table[b],
                sim->writer[table[b]], id);
        sim->writer[table[b]] = id;
    }
}

static void check_seq(struct sim *sim, int32_t id, const struct step_seq *seq)
{
    const struct client *c = &sim->clients[id];
    int32_t n = seq->num_scheduled_tokens, bs = sim->config.block_size;
    int32_t threshold = sim->config.long_prefill_token_threshold;
    int32_t num_after = seq->num_computed_tokens + n;
    REQUIRE(sim, c->added && !c->ended, "request %d is not live", id);
    REQUIRE(sim, !atomic_load(&c->request->cancelled), "request %d was cancelled and runs", id);
    REQUIRE(sim, !seq->fed || sim->num_flights > 0, "request %d: fed from nothing", id);
    REQUIRE(sim,
            !seq->fed || flight_at(sim, sim->num_flights - 1)->step.seqs[seq->previous].request ==
                             seq->request,
            "request %d: fed from another", id);
    REQUIRE(sim, seq->num_tokens - c->request->num_prompt_tokens <= c->request->max_tokens,
            "request %d: goes beyond max_tokens", id);
    coverage.fed += seq->fed;
    REQUIRE(sim, seq->num_computed_tokens == c->num_computed, "request %d: %d computed, not %d", id,
            seq->num_computed_tokens, c->num_computed);
    const int32_t num_drafts = seq->num_draft_tokens, num_known = seq->num_tokens;
    REQUIRE(sim, n >= 1 && num_after <= num_known + num_drafts, "request %d: %d tokens", id, n);
    REQUIRE(sim, num_drafts == 0 || (n == 1 + num_drafts && sim->config.proposer),
            "request %d: %d drafts", id, num_drafts);
    REQUIRE(sim, num_known + num_drafts - c->request->num_prompt_tokens <= c->request->max_tokens,
            "request %d: %d drafts go beyond max_tokens", id, num_drafts);
    REQUIRE(sim, threshold == 0 || n <= threshold, "request %d: %d tokens in a step", id, n);
    REQUIRE(sim, seq->sample == (num_after == num_known + num_drafts), "request %d: sample", id);
    /* Drafts that were wrong may have left blocks. */
    const int32_t num_blocks = (num_after + bs - 1) / bs;
    const int32_t left = sim->config.proposer ? MAX_DRAFTS / bs + 1 : 0;
    REQUIRE(sim, seq->num_blocks >= num_blocks && seq->num_blocks <= num_blocks + left,
            "request %d: %d blocks", id, seq->num_blocks);
    coverage.drafts += num_drafts;
    coverage.chunks += !seq->sample;
    coverage.beyond_capacity += seq->num_blocks * sim->groups.num_groups > sim->config.num_blocks;
    for (int32_t g = 0; g < sim->groups.num_groups; g++)
        check_table(sim, id, seq, g);
}

static void check_readers(struct sim *sim, const struct step_seq *seq, int32_t group)
{
    for (int32_t b = seq->first_blocks[group]; b < seq->num_blocks; b++) {
        int32_t writer = sim->writer[table_of(sim, seq, group)[b]];
        REQUIRE(sim, writer < 0 || sim->clients[writer].request == seq->request,
                "request %d writes what another reads", writer);
    }
}

static void check_step(struct sim *sim, const struct step *step)
{
    struct scheduler_stats stats;
    scheduler_get_stats(sim->scheduler, &stats);
    bool preempted = stats.num_preemptions != sim->num_preemptions;
    coverage.preemptions += (int64_t)(stats.num_preemptions - sim->num_preemptions);
    sim->num_preemptions = stats.num_preemptions;
    for (int32_t i = 0; i < sim->config.num_blocks; i++)
        sim->writer[i] = -1;
    int32_t sum = 0, last = -1;
    REQUIRE(sim, step->num_seqs <= sim->config.max_num_seqs, "%d sequences", step->num_seqs);
    for (int32_t i = 0; i < step->num_seqs; i++) {
        const struct step_seq *seq = &step->seqs[i];
        int32_t id = client_of(sim, seq->request);
        REQUIRE(sim, id > last, "request %d comes after %d", id, last);
        last = id;
        if (!sim->clients[id].running)
            check_start(sim, id, seq, preempted);
        check_seq(sim, id, seq);
        sum += seq->num_scheduled_tokens;
    }
    REQUIRE(sim, sum == step->num_tokens && sum <= sim->config.max_num_batched_tokens, "%d tokens",
            sum);
    REQUIRE(sim, sum > 0 || !scheduler_has_work(sim->scheduler) || sim->num_flights > 0,
            "there is work and none is done");
    coverage.waited += sum == 0 && scheduler_has_work(sim->scheduler);
    for (int32_t i = 0; i < step->num_seqs; i++)
        for (int32_t g = 0; g < sim->groups.num_groups; g++)
            check_readers(sim, &step->seqs[i], g);
}

/* --- the fake executor -------------------------------------------------------------------------*/

static uint64_t *slot_at(struct sim *sim, const struct step_seq *seq, int32_t group,
                         int32_t position)
{
    int32_t bs = sim->config.block_size;
    return &sim->slots[table_of(sim, seq, group)[position / bs] * bs + position % bs];
}

/* Writes what a failed step may leave behind: anything, in the slots it was to fill. */
static void execute_badly(struct sim *sim, const struct step_seq *seq)
{
    for (int32_t g = 0; g < sim->groups.num_groups; g++)
        for (int32_t i = 0; i < seq->num_scheduled_tokens; i++)
            *slot_at(sim, seq, g, seq->num_computed_tokens + i) = (uint64_t)draw(sim, 0, 1 << 20);
}

/* Writes the slots of new tokens and reads those that they see, position p of every group. */
static void execute_position(struct sim *sim, const struct step_seq *seq, int32_t p,
                             uint64_t expected)
{
    for (int32_t g = 0; g < sim->groups.num_groups; g++) {
        int32_t window = sim->config.sliding_window[g];
        if (window > 0 && p <= seq->num_computed_tokens - window)
            continue; /* no token of this step sees it */
        uint64_t *slot = slot_at(sim, seq, g, p);
        if (p >= seq->num_computed_tokens)
            *slot = group_slot(expected, g);
        REQUIRE(sim, *slot == group_slot(expected, g),
                "request %d: wrong content at position %d, group %d", client_of(sim, seq->request),
                p, g);
    }
}

/* What the step before has sampled for a sequence that is fed from it. */
static int32_t fed_token(const struct step_seq *seq, const struct flight *before)
{
    return before->output.sampled_ids[step_output_place(&before->output, seq->previous, 0)];
}

/* The token at position p, which the step before may have sampled. */
static int32_t token_at(const struct step_seq *seq, const struct flight *before, int32_t p)
{
    return seq->fed && p == seq->num_tokens - 1 ? fed_token(seq, before)
                                                : seq->request->token_ids[p];
}

/* New token k of sequence i, sampled at that fold. */
static void sample(struct flight *f, int32_t i, int32_t k, uint64_t fold)
{
    const int32_t place = step_output_place(&f->output, i, k);
    f->output.sampled_ids[place] = token_of(fold);
    for (int32_t n = 0; n <= MAX_LOGPROBS; n++)
        f->output.logprobs[place * (1 + MAX_LOGPROBS) + n] = logprob_of(fold, n);
}

/* Which drafts count, by the rule's words; and where the client's logits are not finite. */
static void accept(struct sim *sim, struct flight *f, int32_t i)
{
    const struct step_seq *seq = &f->step.seqs[i];
    const struct client *c = &sim->clients[client_of(sim, seq->request)];
    int32_t *sampled = f->output.sampled_ids + step_output_place(&f->output, i, 0), count = 0;
    for (bool goes_on = true; goes_on; count++) {
        const int32_t num_tokens = seq->num_tokens + count;
        if (num_tokens - seq->request->num_prompt_tokens == c->poison_at) {
            sampled[count] = -1;
            execute_badly(sim, seq);
            coverage.poisoned_drafts += count > 0;
        }
        goes_on =
            count < seq->num_draft_tokens && sampled[count] == seq->request->token_ids[num_tokens];
    }
    f->output.num_sampled[i] = count;
    coverage.right_drafts += count - 1;
    coverage.wrong_drafts += seq->num_draft_tokens - (count - 1);
}

static void execute_seq(struct sim *sim, struct flight *f, const struct flight *before, int32_t i)
{
    const struct step_seq *seq = &f->step.seqs[i];
    if (seq->fed && fed_token(seq, before) < 0) {
        execute_badly(sim, seq); /* it ends by that, and nobody reads this */
        return;
    }
    uint64_t expected = slot_root(seq->request), fold = 0;
    int32_t num_after = seq->num_computed_tokens + seq->num_scheduled_tokens;
    for (int32_t p = 0; p < num_after; p++) {
        expected = slot_after(expected, token_at(seq, before, p));
        execute_position(sim, seq, p, expected);
        fold = mix(fold, expected);
        if (seq->sample && p >= seq->num_tokens - 1)
            sample(f, i, p - (seq->num_tokens - 1), fold);
    }
    if (seq->sample)
        accept(sim, f, i);
}

/* Runs step i of those under way, and all before it. One that follows a failed step fails, too. */
static void execute(struct sim *sim, int32_t i)
{
    struct flight *f = flight_at(sim, i), *before = i > 0 ? flight_at(sim, i - 1) : NULL;
    if (f->executed)
        return;
    if (before)
        execute(sim, i - 1);
    bool follows = before && before->output.status.code != STATUS_OK;
    bool fails = follows || draw(sim, 1, 250) == 1;
    /* The step before may have been booked by now: its arrays are there all the same. */
    if (!before)
        before = &sim->flights[(sim->first_flight + SCHEDULER_MAX_STEPS - 1) % SCHEDULER_MAX_STEPS];
    f->executed = true;
    status_clear(&f->output.status);
    if (fails) {
        status_set(&f->output.status, STATUS_INTERNAL, "the device was unplugged");
        coverage.failed_steps++;
    }
    for (int32_t k = 0; k < f->step.num_seqs; k++) {
        if (fails)
            execute_badly(sim, &f->step.seqs[k]);
        else
            execute_seq(sim, f, before, k);
    }
}

/* --- the end -----------------------------------------------------------------------------------*/

static void check_reason(struct sim *sim, int32_t id, const struct answer *alone)
{
    const struct client *c = &sim->clients[id];
    const struct request *r = c->request;
    enum finish_reason reason = request_finish_reason(r);
    bool overdue = r->error.code == STATUS_TIMEOUT;
    int32_t n = request_num_output_tokens(r);
    if (overdue) {
        REQUIRE(sim, r->deadline_ns > 0 && r->finished_ns >= r->deadline_ns, "request %d", id);
        REQUIRE(sim, reason == (n == 0 ? FINISH_ERROR : FINISH_ABORT), "request %d", id);
        coverage.timeouts_early += n == 0;
        coverage.timeouts_late += n > 0;
    } else if (reason == FINISH_ABORT) {
        REQUIRE(sim, (atomic_load(&r->cancelled) && !atomic_load(&r->stopped)) || sim->aborted_all,
                "request %d aborted", id);
        coverage.cancelled += atomic_load(&r->cancelled);
    } else if (atomic_load(&r->stopped) && reason == FINISH_STOP) {
        coverage.stop_strings++;
    } else if (c->in_failed_step) {
        REQUIRE(sim, reason == FINISH_ERROR && r->error.code == STATUS_INTERNAL, "request %d", id);
        REQUIRE(sim, strstr(r->error.message, "unplugged"), "request %d", id);
    } else {
        REQUIRE(sim, reason == alone->reason && n == alone->num_tokens,
                "request %d: reason %d after %d tokens, alone %d after %d", id, (int)reason, n,
                (int)alone->reason, alone->num_tokens);
        REQUIRE(sim, r->stop_token_id == alone->stop_token_id, "request %d: stop token", id);
        REQUIRE(sim, reason != FINISH_ERROR || strstr(r->error.message, "not finite"),
                "request %d: %s", id, r->error.message);
        coverage.poisoned += reason == FINISH_ERROR;
        coverage.stops += reason == FINISH_STOP;
        coverage.lengths += reason == FINISH_LENGTH;
        coverage.prompt_only += r->max_tokens == 0 && reason == FINISH_LENGTH;
    }
}

static void check_answers(struct sim *sim)
{
    uint64_t num_generated = 0;
    for (int32_t id = 0; id < sim->num_added; id++) {
        const struct request *r = sim->clients[id].request;
        struct answer alone;
        run_alone(sim, &sim->clients[id], &alone);
        int32_t n = request_num_output_tokens(r);
        num_generated += (uint64_t)n;
        REQUIRE(sim, n <= alone.num_tokens, "request %d: %d tokens, alone %d", id, n,
                alone.num_tokens);
        for (int32_t i = 0; i < n; i++) {
            REQUIRE(sim, r->token_ids[r->num_prompt_tokens + i] == alone.token_ids[i],
                    "request %d: token %d", id, i);
            for (int32_t k = 0; k <= r->params.num_logprobs; k++) {
                struct token_logprob expected = logprob_of(alone.folds[i], k);
                const struct token_logprob *got =
                    &r->logprobs[i * (1 + r->params.num_logprobs) + k];
                REQUIRE(sim,
                        got->token_id == expected.token_id && got->rank == expected.rank &&
                            got->logprob == expected.logprob,
                        "request %d: log-probability %d of token %d", id, k, i);
            }
        }
        check_reason(sim, id, &alone);
        REQUIRE(sim, atomic_load(&r->references) == 1, "request %d: references", id);
        REQUIRE(sim, r->finished_ns >= r->arrival_ns && (n == 0 || r->first_token_ns > 0),
                "request %d: times", id);
    }
    struct scheduler_stats stats;
    scheduler_get_stats(sim->scheduler, &stats);
    REQUIRE(sim, stats.num_generation_tokens == num_generated, "%llu counted, %llu seen",
            (unsigned long long)stats.num_generation_tokens, (unsigned long long)num_generated);
    REQUIRE(sim, stats.num_free_blocks == stats.num_blocks, "%d blocks were not given back",
            stats.num_blocks - stats.num_free_blocks);
    REQUIRE(sim, stats.num_running == 0 && stats.num_waiting == 0, "sequences are left");
}

/* Keeps what an executor copies when a step is submitted. */
static void keep_tables(struct flight *f, int32_t num_groups)
{
    const size_t stride = (size_t)f->step.block_table_stride, row = (size_t)num_groups * stride;
    for (int32_t i = 0; i < f->step.num_seqs; i++) {
        struct step_seq *seq = &f->step.seqs[i];
        int32_t *table = f->tables + (size_t)i * row, *firsts = f->firsts + i * MAX_GROUPS;
        memcpy(table, seq->block_tables, row * sizeof *table);
        memcpy(firsts, seq->first_blocks, (size_t)num_groups * sizeof *firsts);
        seq->block_tables = table;
        seq->first_blocks = firsts;
    }
}

/* Plans a step; false when it is empty. */
static bool plan(struct sim *sim)
{
    struct flight *f = flight_at(sim, sim->num_flights);
    scheduler_schedule(sim->scheduler, sim->now_ns, &f->step);
    take_events(sim);
    check_dropped(sim);
    check_step(sim, &f->step);
    check_state(sim);
    if (sim->verbose)
        printf("step %lld: %d sequences, %d tokens, %d under way\n", (long long)sim->num_steps,
               f->step.num_seqs, f->step.num_tokens, sim->num_flights);
    if (f->step.num_seqs == 0)
        return false;
    for (int32_t i = 0; i < f->step.num_seqs; i++)
        sim->clients[client_of(sim, f->step.seqs[i].request)].num_computed +=
            f->step.seqs[i].num_scheduled_tokens;
    keep_tables(f, sim->groups.num_groups);
    f->executed = false;
    coverage.overlapped += sim->num_flights > 0;
    sim->num_flights++;
    if (chance(sim, 50))
        execute(sim, sim->num_flights - 1);
    return true;
}

static void count_dropped(const struct step *step)
{
    for (int32_t i = 0; i < step->num_seqs; i++)
        coverage.dropped += request_finish_reason(step->seqs[i].request) != FINISH_NONE;
}

/* Those that have not ended before end by it. */
static void note_failure(struct sim *sim, const struct step *step)
{
    take_events(sim);
    for (int32_t i = 0; i < step->num_seqs; i++) {
        struct client *c = &sim->clients[client_of(sim, step->seqs[i].request)];
        c->in_failed_step |= !c->ended;
    }
}

/* They were planned, and are not computed. */
static void forget_wrong_drafts(struct sim *sim, const struct flight *f)
{
    for (int32_t i = 0; i < f->step.num_seqs; i++) {
        const struct step_seq *seq = &f->step.seqs[i];
        struct client *c = &sim->clients[client_of(sim, seq->request)];
        if (seq->num_draft_tokens == 0)
            continue;
        c->num_computed -= seq->num_draft_tokens - (f->output.num_sampled[i] - 1);
        coverage.stops_among_drafts +=
            c->request->finished_ns > 0 && c->request->token_ids[seq->num_tokens] == EOS;
    }
}

/* Books the earliest step under way; all of them where it failed. */
static void book(struct sim *sim)
{
    execute(sim, 0);
    bool failed = flight_at(sim, 0)->output.status.code != STATUS_OK;
    if (failed)
        execute(sim, sim->num_flights - 1);
    do {
        struct flight *f = flight_at(sim, 0);
        sim->now_ns += (uint64_t)draw(sim, 1, 9);
        if (failed)
            note_failure(sim, &f->step);
        count_dropped(&f->step);
        REQUIRE(sim, scheduler_num_steps(sim->scheduler) == sim->num_flights, "%d",
                sim->num_flights);
        scheduler_update(sim->scheduler, sim->now_ns, &f->step, &f->output);
        if (!failed)
            forget_wrong_drafts(sim, f);
        sim->first_flight = (sim->first_flight + 1) % SCHEDULER_MAX_STEPS;
        sim->num_flights--;
        check_state(sim);
    } while (failed && sim->num_flights > 0);
}

/* One turn of the engine's loop. */
static void sim_step(struct sim *sim)
{
    sim->num_steps++;
    sim->now_ns += (uint64_t)draw(sim, 1, 9);
    arrivals(sim);
    cancellations(sim);
    bool planned = plan(sim);
    cancellations(sim);
    if (sim->num_flights == sim->depth || (sim->num_flights > 0 && (!planned || chance(sim, 10))))
        book(sim);
    if (chance(sim, 20))
        take_events(sim);
    if (chance(sim, 2))
        coverage.resets += scheduler_reset_prefix_cache(sim->scheduler);
}

static void run_seed(uint64_t seed, bool verbose)
{
    struct sim *sim = xcalloc(1, sizeof *sim);
    sim->verbose = verbose;
    sim_start(sim, seed);
    bool abort_all = chance(sim, 5);
    int32_t abort_at = draw(sim, 1, 60);
    while (sim->num_added < sim->num_clients || scheduler_has_work(sim->scheduler) ||
           sim->num_flights > 0) {
        if (abort_all && sim->num_steps >= abort_at) {
            while (sim->num_flights > 0)
                book(sim);
            coverage.aborts_all++;
            sim->aborted_all = true;
            scheduler_abort_all(sim->scheduler, FINISH_ABORT, NULL);
            break;
        }
        sim_step(sim);
        REQUIRE(sim, sim->num_steps < 100000, "the requests do not end");
    }
    take_events(sim);
    REQUIRE(sim, sim->num_ended == sim->num_added, "%d of %d requests ended", sim->num_ended,
            sim->num_added);
    check_state(sim);
    check_answers(sim);
    REQUIRE(sim, scheduler_reset_prefix_cache(sim->scheduler), "the cache cannot be reset");
    check_state(sim);
    coverage.steps += sim->num_steps;
    sim_end(sim);
    free(sim);
}

static uint64_t replay_seed;

static void test_seeds(void **state)
{
    (void)state;
    const char *count = getenv("SIM_SEEDS"), *first = getenv("SIM_FIRST");
    if (replay_seed) {
        run_seed(replay_seed, true);
        return;
    }
    uint64_t n = count ? strtoull(count, NULL, 10) : 10000;
    uint64_t from = first ? strtoull(first, NULL, 10) : 1;
    for (uint64_t i = 0; i < n; i++)
        run_seed(from + i, false);
    printf("seeds %llu..%llu\n", (unsigned long long)from, (unsigned long long)(from + n - 1));
    const int64_t *reached = (const int64_t *)&coverage;
    for (size_t i = 0; i < sizeof coverage / sizeof *reached; i++)
        printf("%s%lld", i ? " " : "", (long long)reached[i]);
    printf("\n");
    for (size_t i = 0; n >= 1000 && i < sizeof coverage / sizeof *reached; i++)
        assert_true(reached[i] > 0);
}

int main(int argc, char **argv)
{
    const char *seed = argc > 1 ? argv[1] : getenv("SIM_SEED");
    if (seed)
        replay_seed = strtoull(seed, NULL, 10);
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_seeds) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
