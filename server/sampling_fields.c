/* sampling_fields.c - one function per group of fields; the order of checks is that of the code. */
#include "server/sampling_fields.h"
#include "base/alloc.h"
#include "base/log.h"
#include "config/limits.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Below this a temperature is greedy; between it and MIN_TEMPERATURE it is raised to the latter, so
 * that logits divided by it stay finite. */
#define GREEDY_TEMPERATURE 1e-5
#define MIN_TEMPERATURE    0.01f

void sampling_lists_ref(struct sampling_lists *lists)
{
    atomic_fetch_add_explicit(&lists->references, 1, memory_order_relaxed);
}

void sampling_lists_unref(void *data)
{
    struct sampling_lists *lists = data;
    if (!lists || atomic_fetch_sub_explicit(&lists->references, 1, memory_order_acq_rel) != 1)
        return;
    arena_free(&lists->arena);
    free(lists);
}

/* --- scalars ------------------------------------------------------------------------------------
 */

static bool read_float(const struct json_node *body, const char *key, struct json_range range,
                       float *out, struct status *st)
{
    struct json_node n = json_member(body, key);
    double value = (double)*out;
    if (!json_read_float(&n, &range, &value, st))
        return false;
    *out = (float)value;
    return true;
}

static bool read_int(const struct json_node *body, const char *key, int64_t min, int64_t max,
                     int64_t *out, struct status *st)
{
    struct json_node n = json_member(body, key);
    return json_read_int(&n, min, max, out, st);
}

static bool read_bool(const struct json_node *body, const char *key, bool *out, struct status *st)
{
    struct json_node n = json_member(body, key);
    return json_read_bool(&n, out, st);
}

static bool read_scalars(const struct json_node *body, struct sampling_params *p, struct status *st)
{
#define SAMPLING_FLOAT(field, def, lowest, highest, open)                                          \
    if (!read_float(body, #field,                                                                  \
                    (struct json_range){ .min = lowest, .max = highest, .min_open = open },        \
                    &p->field, st))                                                                \
        return false;
#define SAMPLING_INT(field, def, lowest, highest)                                                  \
    if (!read_int(body, #field, lowest, highest, &p->field, st))                                   \
        return false;
#define SAMPLING_BOOL(field, def)                                                                  \
    if (!read_bool(body, #field, &p->field, st))                                                   \
        return false;
#include "engine/sampling/sampling_params.def"
#undef SAMPLING_FLOAT
#undef SAMPLING_INT
#undef SAMPLING_BOOL
    if (p->temperature < GREEDY_TEMPERATURE)
        p->temperature = 0;
    else if (p->temperature < MIN_TEMPERATURE)
        p->temperature = MIN_TEMPERATURE;
    return true;
}

/* --- lists --------------------------------------------------------------------------------------
 */

static bool read_one_stop(const struct json_node *n, const char **out, struct status *st)
{
    const char *text = NULL;
    if (!json_read_string(n, &text, NULL, st))
        return false;
    if (!text || !text[0])
        return json_invalid(n, st, "invalid_value", "must be a string that is not empty");
    if (strlen(text) > LIMIT_STOP_BYTES)
        return json_invalid(n, st, "string_above_max_length", "must have at most %d bytes, not %zu",
                            LIMIT_STOP_BYTES, strlen(text));
    *out = text;
    return true;
}

/* The texts are copied: the JSON tree is released before generation begins. */
static bool read_stop(const struct json_node *body, struct arena *arena,
                      struct generation_params *out, struct status *st)
{
    struct json_node n = json_member(body, "stop");
    size_t count = 1;
    if (!n.value)
        return true;
    if (!json_is_string(n.value) && !json_is_array(n.value))
        return json_invalid(&n, st, "invalid_type", "must be a string or an array of strings");
    if (!json_is_string(n.value) && !json_read_array(&n, LIMIT_STOP_STRINGS, &count, st))
        return false;
    out->stop = arena_array(arena, count ? count : 1, sizeof *out->stop);
    for (size_t i = 0; i < count; i++) {
        struct json_node element = json_is_string(n.value) ? n : json_element(&n, i);
        if (!read_one_stop(&element, &out->stop[i], st))
            return false;
        out->stop[i] = arena_strdup(arena, out->stop[i]);
    }
    out->num_stop = (int32_t)count;
    return true;
}

static bool read_token_id(const struct json_node *n, int32_t vocab_size, int32_t *out,
                          struct status *st)
{
    int64_t id = -1;
    if (!json_read_int(n, INT64_MIN, INT64_MAX, &id, st))
        return false;
    if (!n->value || id < 0 || id >= vocab_size)
        return json_invalid(n, st, "token_id_out_of_range",
                            "must be a token id of this model, 0 to %d", vocab_size - 1);
    *out = (int32_t)id;
    return true;
}

static bool read_stop_token_ids(const struct json_node *body, const struct sampling_limits *limits,
                                struct generation_params *out, struct status *st)
{
    struct json_node n = json_member(body, "stop_token_ids");
    size_t count = 0;
    if (!json_read_array(&n, LIMIT_STOP_TOKEN_IDS, &count, st))
        return false;
    int32_t *ids = arena_array(&out->lists->arena, count + 1, sizeof *ids);
    for (size_t i = 0; i < count; i++) {
        struct json_node element = json_element(&n, i);
        if (!read_token_id(&element, limits->vocab_size, &ids[i], st))
            return false;
    }
    out->sampling.stop_token_ids = ids;
    out->sampling.num_stop_token_ids = (int32_t)count;
    return true;
}

static bool parse_id_key(const struct json_node *n, int32_t vocab_size, int32_t *out,
                         struct status *st)
{
    char *end;
    errno = 0;
    long long id = strtoll(n->key, &end, 10);
    if (!n->key[0] || *end || errno)
        return json_invalid(n, st, "invalid_value", "must have a token id as its key");
    if (id < 0 || id >= vocab_size)
        return json_invalid(n, st, "token_id_out_of_range",
                            "names a token id outside this model's vocabulary, 0 to %d",
                            vocab_size - 1);
    *out = (int32_t)id;
    return true;
}

static bool read_logit_bias(const struct json_node *body, const struct sampling_limits *limits,
                            struct generation_params *out, struct status *st)
{
    struct json_node n = json_member(body, "logit_bias");
    const struct json_range any = { .min = -1e30, .max = 1e30 };
    if (!n.value)
        return true;
    if (!json_check_object(&n, st))
        return false;
    size_t count = json_object_size(n.value);
    if (count > LIMIT_LOGIT_BIAS)
        return json_invalid(&n, st, "array_above_max_length", "must have at most %d entries",
                            LIMIT_LOGIT_BIAS);
    int32_t *ids = arena_array(&out->lists->arena, count + 1, sizeof *ids);
    float *values = arena_array(&out->lists->arena, count + 1, sizeof *values);
    size_t i = 0;
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)n.value, key, value)
    {
        struct json_node member = { .value = value, .parent = &n, .key = key };
        double bias = 0;
        if (!parse_id_key(&member, limits->vocab_size, &ids[i], st) ||
            !json_read_float(&member, &any, &bias, st))
            return false;
        values[i++] = (float)(bias < -100 ? -100 : bias > 100 ? 100 : bias);
    }
    out->sampling.logit_bias_ids = ids;
    out->sampling.logit_bias_values = values;
    out->sampling.num_logit_bias = (int32_t)count;
    return true;
}

static bool read_allowed_token_ids(const struct json_node *body,
                                   const struct sampling_limits *limits,
                                   struct generation_params *out, struct status *st)
{
    struct json_node n = json_member(body, "allowed_token_ids");
    size_t count = 0;
    if (!n.value)
        return true;
    if (!json_read_array(&n, (size_t)limits->vocab_size, &count, st))
        return false;
    if (count == 0)
        return json_invalid(&n, st, "invalid_value", "must not be empty");
    uint32_t *mask =
        arena_array(&out->lists->arena, ((size_t)limits->vocab_size + 31) / 32, sizeof *mask);
    for (size_t i = 0; i < count; i++) {
        struct json_node element = json_element(&n, i);
        int32_t id;
        if (!read_token_id(&element, limits->vocab_size, &id, st))
            return false;
        mask[id / 32] |= UINT32_C(1) << (id % 32);
    }
    out->sampling.allowed_mask = mask;
    return true;
}

/* --- what both endpoints share ------------------------------------------------------------------
 */

static bool read_stream(const struct json_node *body, struct generation_params *out,
                        struct status *st)
{
    struct json_node options = json_member(body, "stream_options");
    if (!read_bool(body, "stream", &out->stream, st) || !json_check_object(&options, st))
        return false;
    if (!options.value)
        return true;
    if (!out->stream)
        return json_invalid(&options, st, "invalid_value", "is allowed only with 'stream': true");
    if (!read_bool(&options, "include_usage", &out->include_usage, st) ||
        !read_bool(&options, "continuous_usage_stats", &out->continuous_usage_stats, st))
        return false;
    out->continuous_usage_stats &= out->include_usage;
    return true;
}

static bool read_chat_logprobs(const struct json_node *body, const struct sampling_limits *limits,
                               struct sampling_params *p, struct status *st)
{
    bool wanted = false;
    int64_t top = 0;
    struct json_node n = json_member(body, "top_logprobs");
    if (!read_bool(body, "logprobs", &wanted, st) ||
        !json_read_int(&n, 0, limits->max_logprobs, &top, st))
        return false;
    if (top > 0 && !wanted)
        return json_invalid(&n, st, "invalid_value", "needs 'logprobs': true");
    if (wanted)
        p->num_logprobs = (int32_t)top;
    return true;
}

static bool read_logprobs(const struct json_node *body, enum generation_kind kind,
                          const struct sampling_limits *limits, struct generation_params *out,
                          struct status *st)
{
    struct sampling_params *p = &out->sampling;
    struct json_node prompt = json_member(body, "prompt_logprobs");
    int64_t num_logprobs = -1, num_prompt = -1;
    p->num_logprobs = p->num_prompt_logprobs = -1;
    if (kind == GENERATION_CHAT) {
        if (!read_chat_logprobs(body, limits, p, st))
            return false;
    } else {
        if (!read_int(body, "logprobs", 0, limits->max_logprobs, &num_logprobs, st))
            return false;
        p->num_logprobs = (int32_t)num_logprobs;
        if (out->echo)
            p->num_prompt_logprobs = (int32_t)num_logprobs;
    }
    if (!json_read_int(&prompt, 0, limits->max_logprobs, &num_prompt, st))
        return false;
    if (num_prompt < 0)
        return true;
    if (out->stream)
        return json_invalid(&prompt, st, "invalid_value", "is not available with 'stream': true");
    out->wants_prompt_logprobs = true;
    if (num_prompt > p->num_prompt_logprobs)
        p->num_prompt_logprobs = (int32_t)num_prompt;
    return true;
}

static bool read_choices(const struct json_node *body, struct generation_params *out,
                         struct status *st)
{
    struct json_node n_node = json_member(body, "n"), best_of = json_member(body, "best_of");
    int64_t n = 1, best = -1;
    if (!json_read_int(&n_node, 1, LIMIT_N, &n, st) ||
        !json_read_int(&best_of, 0, LIMIT_N, &best, st))
        return false;
    if (best > 1 || (best == 1 && n > 1))
        return json_invalid(&best_of, st, "unsupported_parameter", "is not supported; use 'n'");
    if (n > 1 && out->sampling.temperature == 0)
        return json_invalid(&n_node, st, "invalid_value",
                            "must be 1 with 'temperature': 0, since all choices would be equal");
    out->n = (int32_t)n;
    return true;
}

static bool read_max_tokens(const struct json_node *body, enum generation_kind kind,
                            struct generation_params *out, struct status *st)
{
    struct json_node old_node = json_member(body, "max_tokens");
    struct json_node new_node = json_member(body, "max_completion_tokens");
    bool use_new = kind == GENERATION_CHAT && new_node.value;
    const struct json_node *n = use_new ? &new_node : &old_node;
    out->max_tokens = -1;
    int64_t min = kind == GENERATION_COMPLETION && out->echo ? 0 : 1;
    if (!json_read_int(n, min, INT32_MAX, &out->max_tokens, st))
        return false;
    if (out->max_tokens >= 0 && out->sampling.min_tokens > out->max_tokens) {
        struct json_node min_tokens = json_member(body, "min_tokens");
        return json_invalid(&min_tokens, st, "integer_above_max_value",
                            "must be at most 'max_tokens', %lld", (long long)out->max_tokens);
    }
    return true;
}

static bool read_cache_salt(const struct json_node *body, struct generation_params *out,
                            struct status *st)
{
    struct json_node n = json_member(body, "cache_salt");
    const char *salt = NULL;
    size_t len = 0;
    if (!json_read_string(&n, &salt, &len, st))
        return false;
    if (salt && len == 0)
        return json_invalid(&n, st, "invalid_value", "must be a string that is not empty");
    if (salt)
        out->cache_salt = hash_sip128((struct hash_key){ 0 }, salt, len);
    return true;
}

/* Fields of vLLM and OpenAI that change the answer and that this server does not offer. An absent
 * one, null, false, 0 and "" all mean that it is not asked for. */
static const char *const refused_fields[] = {
    "suffix",
    "use_beam_search",
    "guided_json",
    "guided_regex",
    "guided_choice",
    "guided_grammar",
    "guided_decoding",
    "structured_outputs",
    "structural_tag",
    "bad_words",
    "logits_processors",
    "truncate_prompt_tokens",
    "prompt_embeds",
    "priority",
    "vllm_xargs",
    "functions",
    "kv_transfer_params",
    "thinking_token_budget",
    "audio",
    "mm_processor_kwargs",
};

static bool asks_for_nothing(const json_t *value)
{
    switch (json_typeof(value)) {
    case JSON_FALSE:
    case JSON_NULL:
        return true;
    case JSON_INTEGER:
        return json_integer_value(value) == 0;
    case JSON_STRING:
        return json_string_length(value) == 0;
    case JSON_ARRAY:
        return json_array_size(value) == 0;
    case JSON_OBJECT:
        return json_object_size(value) == 0;
    default:
        return false;
    }
}

static bool check_refused(const struct json_node *body, struct status *st)
{
    for (size_t i = 0; i < sizeof refused_fields / sizeof refused_fields[0]; i++) {
        struct json_node n = json_member(body, refused_fields[i]);
        if (n.value && !asks_for_nothing(n.value))
            return json_invalid(&n, st, "unsupported_parameter", "is not supported by this server");
    }
    return true;
}

static bool check_response_format(const struct json_node *body, struct status *st)
{
    struct json_node n = json_member(body, "response_format");
    if (!json_check_object(&n, st))
        return false;
    struct json_node type = json_member(&n, "type");
    const char *text = n.value ? NULL : "text";
    if (!json_read_string(&type, &text, NULL, st))
        return false;
    if (!text)
        return json_invalid(&type, st, "missing_required_parameter", "is missing");
    if (strcmp(text, "text") != 0)
        return json_invalid(&type, st, "unsupported_parameter",
                            "must be 'text': this server has no structured output");
    return true;
}

static const char *const other_fields[] = {
    /* read elsewhere */
    "model", "prompt", "messages", "tools", "tool_choice", "stop", "stop_token_ids", "logit_bias",
    "allowed_token_ids", "stream", "stream_options", "logprobs", "top_logprobs", "prompt_logprobs",
    "n", "best_of", "max_tokens", "max_completion_tokens", "cache_salt", "response_format", "echo",
    "add_special_tokens", "return_token_ids", "return_tokens_as_token_ids", "documents",
    "add_generation_prompt", "continue_final_message", "chat_template", "chat_template_kwargs",
    "reasoning_effort", "parallel_tool_calls", "request_id",
    /* without effect on the tokens */
    "user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key",
    "include_reasoning", "length_penalty", "early_stopping", "spaces_between_special_tokens"
};

static bool is_known(const char *key)
{
#define SAMPLING_FLOAT(field, def, min, max, open)                                                 \
    if (strcmp(key, #field) == 0)                                                                  \
        return true;
#define SAMPLING_INT(field, def, min, max) SAMPLING_FLOAT(field, def, min, max, false)
#define SAMPLING_BOOL(field, def)          SAMPLING_FLOAT(field, def, 0, 0, false)
#include "engine/sampling/sampling_params.def"
#undef SAMPLING_FLOAT
#undef SAMPLING_INT
#undef SAMPLING_BOOL
    for (size_t i = 0; i < sizeof other_fields / sizeof other_fields[0]; i++)
        if (strcmp(key, other_fields[i]) == 0)
            return true;
    for (size_t i = 0; i < sizeof refused_fields / sizeof refused_fields[0]; i++)
        if (strcmp(key, refused_fields[i]) == 0)
            return true;
    return false;
}

static void log_unknown(const struct json_node *body)
{
    const char *key;
    json_t *value;
    if (!log_enabled(LOG_LEVEL_DEBUG))
        return;
    json_object_foreach((json_t *)(uintptr_t)body->value, key, value) if (!is_known(key))
        log_debug("field '%.64s' of a request is unknown and ignored", key);
}

static bool read_all(const struct json_node *body, enum generation_kind kind,
                     const struct sampling_limits *limits, struct arena *arena,
                     struct generation_params *out, struct status *st)
{
    return check_refused(body, st) && check_response_format(body, st) &&
           read_bool(body, "echo", &out->echo, st) &&
           read_bool(body, "add_special_tokens", &out->add_special_tokens, st) &&
           read_bool(body, "return_token_ids", &out->return_token_ids, st) &&
           read_bool(body, "return_tokens_as_token_ids", &out->tokens_as_token_ids, st) &&
           read_scalars(body, &out->sampling, st) && read_stop(body, arena, out, st) &&
           read_stop_token_ids(body, limits, out, st) && read_logit_bias(body, limits, out, st) &&
           read_allowed_token_ids(body, limits, out, st) && read_stream(body, out, st) &&
           read_logprobs(body, kind, limits, out, st) && read_choices(body, out, st) &&
           read_max_tokens(body, kind, out, st) && read_cache_salt(body, out, st);
}

bool sampling_fields_read(const struct json_node *body, enum generation_kind kind,
                          const struct sampling_limits *limits, struct arena *arena,
                          struct generation_params *out, struct status *st)
{
    bool as_token_ids = out->tokens_as_token_ids; /* the server's own default */
    memset(out, 0, sizeof *out);
    out->tokens_as_token_ids = as_token_ids;
    out->sampling = *limits->defaults;
    out->add_special_tokens = kind == GENERATION_COMPLETION;
    out->lists = xcalloc(1, sizeof *out->lists);
    atomic_init(&out->lists->references, 1);
    arena_init(&out->lists->arena);
    log_unknown(body);
    if (read_all(body, kind, limits, arena, out, st))
        return true;
    sampling_lists_unref(out->lists);
    out->lists = NULL;
    return false;
}
