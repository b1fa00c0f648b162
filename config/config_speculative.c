/* config_speculative.c - the object of --speculative-config: vLLM's keys, defaults and bounds. */
#include "config/config.h"
#include "config/limits.h"
#include "config/option.h"
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* What vLLM looks up where neither length is given. */
enum { DEFAULT_PROMPT_LOOKUP = 5 };

static bool refuse(struct status *st)
{
    status_prefix(st, "--speculative-config: ");
    return status_detail(st, "speculative_config", NULL);
}

/* A key that is not there leaves *out as it is. */
static bool read_count(const json_t *root, const char *key, int32_t most, int32_t *out,
                       struct status *st)
{
    const json_t *value = json_object_get(root, key);
    if (!value)
        return true;
    const json_int_t count = json_integer_value(value);
    if (json_is_integer(value) && count >= 1 && count <= most) {
        *out = (int32_t)count;
        return true;
    }
    char *shown = json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT);
    status_set(st, STATUS_INVALID, "%s is %.40s: it must be a number from 1 to %d", key,
               shown ? shown : "?", most);
    free(shown);
    return refuse(st);
}

static bool check_keys(const json_t *root, struct status *st)
{
    static const char *const known[] = { "method", "num_speculative_tokens", "prompt_lookup_max",
                                         "prompt_lookup_min" };
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)root, key, value)
    {
        bool found = false;
        for (size_t i = 0; i < sizeof known / sizeof *known; i++)
            found |= strcmp(key, known[i]) == 0;
        if (!found) {
            status_set(st, STATUS_INVALID,
                       "'%.60s' is no key of it: there are method, num_speculative_tokens, "
                       "prompt_lookup_max and prompt_lookup_min",
                       key);
            return refuse(st);
        }
    }
    return true;
}

/* vLLM takes the method from a draft model where none is named; there is no such model here. */
static bool check_method(const json_t *root, struct status *st)
{
    const json_t *value = json_object_get(root, "method");
    const char *method = json_string_value(value);
    if (method && strcmp(method, "ngram") == 0)
        return true;
    if (method)
        status_set(st, STATUS_INVALID,
                   "method '%.60s' is not offered: ngram is, which needs no draft model", method);
    else
        status_set(st, STATUS_INVALID, "%s: give \"method\": \"ngram\"",
                   value ? "method must be a text" : "it names no method");
    return refuse(st);
}

static bool read_object(const json_t *root, struct config_speculative *out, struct status *st)
{
    *out = (struct config_speculative){ 0 };
    if (!json_is_object(root)) {
        status_set(st, STATUS_INVALID, "it must be one JSON object");
        return refuse(st);
    }
    if (!check_keys(root, st) || !check_method(root, st) ||
        !read_count(root, "num_speculative_tokens", LIMIT_SPECULATIVE_TOKENS, &out->num_tokens,
                    st) ||
        !read_count(root, "prompt_lookup_max", LIMIT_PROMPT_LOOKUP, &out->prompt_lookup_max, st) ||
        !read_count(root, "prompt_lookup_min", LIMIT_PROMPT_LOOKUP, &out->prompt_lookup_min, st))
        return false;
    if (out->num_tokens == 0) {
        status_set(st, STATUS_INVALID, "num_speculative_tokens must be given: 5, for instance");
        return refuse(st);
    }
    if (out->prompt_lookup_max == 0)
        out->prompt_lookup_max =
            out->prompt_lookup_min > 0 ? out->prompt_lookup_min : DEFAULT_PROMPT_LOOKUP;
    if (out->prompt_lookup_min == 0)
        out->prompt_lookup_min = out->prompt_lookup_max;
    if (out->prompt_lookup_min > out->prompt_lookup_max) {
        status_set(st, STATUS_INVALID, "prompt_lookup_min %d is more than prompt_lookup_max %d",
                   out->prompt_lookup_min, out->prompt_lookup_max);
        return refuse(st);
    }
    return true;
}

/* What goes with it, and what does not. */
static bool check_others(const struct config *c, struct status *st)
{
    if (strcmp(c->async_scheduling, "true") == 0) {
        status_set(st, STATUS_INVALID,
                   "--speculative-config does not go with --async-scheduling true: ngram drafts "
                   "from tokens that a step under way has not brought yet; leave it at auto");
        return status_detail(st, "async_scheduling", NULL);
    }
    if (c->max_num_batched_tokens <= c->speculative.num_tokens) {
        status_set(st, STATUS_INVALID,
                   "--max-num-batched-tokens: %" PRId64 " leaves no room for a token and the %d "
                   "drafts of --speculative-config: raise the first or lower "
                   "num_speculative_tokens",
                   c->max_num_batched_tokens, c->speculative.num_tokens);
        return status_detail(st, "max_num_batched_tokens", NULL);
    }
    return true;
}

bool config_read_speculative(struct config *c, struct status *st)
{
    json_error_t error;
    if (!c->speculative_config)
        return true;
    json_t *root =
        json_loads(c->speculative_config, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &error);
    if (!root) {
        status_set(st, STATUS_INVALID, "it is no JSON: column %d: %s", error.column, error.text);
        return refuse(st);
    }
    const bool ok = read_object(root, &c->speculative, st);
    json_decref(root);
    return ok && check_others(c, st);
}
