/* prompts.c - tokenizing on the connection's own thread; what is too long is refused early. */
#include "server/prompts.h"
#include "config/limits.h"

#include <string.h>

static const struct engine_info *info_of(const struct exchange *x)
{
    const struct server *s = x->app;
    return engine_info(s->engine);
}

bool prompts_encode(struct exchange *x, const char *text, size_t len, bool add_special_tokens,
                    bool keep_text, const struct json_node *at, struct prompt *out,
                    struct status *st)
{
    const struct engine_info *info = info_of(x);
    struct token_list list = { 0 };
    if (!tokenizer_encode(info->tokenizer, text, len, add_special_tokens,
                          (size_t)info->max_model_len, &list, st)) {
        token_list_free(&list);
        if (st->code != STATUS_INVALID)
            return false;
        return json_invalid(at, st, "context_length_exceeded",
                            "is too long: this model's maximum context length is %d tokens",
                            info->max_model_len);
    }
    if (list.len == 0) {
        token_list_free(&list);
        return json_invalid(at, st, "invalid_value", "must not be empty");
    }
    int32_t *ids = arena_array(&x->arena, list.len, sizeof *ids);
    memcpy(ids, list.ids, list.len * sizeof *ids);
    *out = (struct prompt){ .ids = ids, .num_ids = (int32_t)list.len };
    token_list_free(&list);
    if (keep_text) {
        out->text = arena_strndup(&x->arena, text, len);
        out->text_len = len;
    }
    return true;
}

bool prompts_read_ids(struct exchange *x, const struct json_node *list, const int32_t **ids,
                      int32_t *count, struct status *st)
{
    const struct engine_info *info = info_of(x);
    size_t len = 0;
    if (!json_read_array(list, SIZE_MAX, &len, st))
        return false;
    if (len > (size_t)info->max_model_len)
        return json_invalid(list, st, "context_length_exceeded",
                            "has %zu tokens, but this model's maximum context length is %d tokens",
                            len, info->max_model_len);
    int32_t *out = arena_array(&x->arena, len + 1, sizeof *out);
    for (size_t i = 0; i < len; i++) {
        struct json_node n = json_element(list, i);
        int64_t id = -1;
        if (!json_read_int(&n, INT64_MIN, INT64_MAX, &id, st))
            return false;
        if (!n.value || id < 0 || id >= info->vocab_size)
            return json_invalid(&n, st, "token_id_out_of_range",
                                "must be a token id of this model, 0 to %d", info->vocab_size - 1);
        out[i] = (int32_t)id;
    }
    *ids = out;
    *count = (int32_t)len;
    return true;
}

static bool read_ids_prompt(struct exchange *x, const struct json_node *n, bool keep_text,
                            struct prompt *out, struct status *st)
{
    memset(out, 0, sizeof *out);
    if (!prompts_read_ids(x, n, &out->ids, &out->num_ids, st))
        return false;
    if (out->num_ids == 0)
        return json_invalid(n, st, "invalid_value", "must not be empty");
    if (keep_text) {
        struct buf text;
        buf_init(&text, 0);
        tokenizer_decode(info_of(x)->tokenizer, out->ids, (size_t)out->num_ids, true, &text);
        out->text = arena_strndup(&x->arena, buf_str(&text), text.len);
        out->text_len = text.len;
        buf_free(&text);
    }
    return true;
}

static bool read_one(struct exchange *x, const struct json_node *n,
                     const struct generation_params *params, struct prompt *out, struct status *st)
{
    if (n->value && json_is_array(n->value))
        return read_ids_prompt(x, n, params->echo, out, st);
    const char *text = NULL;
    size_t len = 0;
    if (!n->value || !json_is_string(n->value))
        return json_invalid(n, st, "invalid_type",
                            "must be a string or an array of token ids, not %s",
                            json_type_name(n->value));
    return json_read_string(n, &text, &len, st) &&
           prompts_encode(x, text, len, params->add_special_tokens, params->echo, n, out, st);
}

bool prompts_read(struct exchange *x, const struct json_node *body,
                  const struct generation_params *params, struct prompt **prompts, int32_t *count,
                  struct status *st)
{
    struct json_node n = json_member(body, "prompt");
    if (!n.value)
        return json_invalid(&n, st, "missing_required_parameter", "is missing");
    /* A text, or ids straight in the list: one prompt. */
    bool single = !json_is_array(n.value) || json_is_number(json_array_get(n.value, 0));
    size_t len = single ? 1 : json_array_size(n.value);
    if (len == 0)
        return json_invalid(&n, st, "invalid_value", "must not be empty");
    if (len > LIMIT_PROMPTS_PER_REQUEST || len * (size_t)params->n > LIMIT_SEQUENCES_PER_REQUEST)
        return json_invalid(&n, st, "array_above_max_length",
                            "times 'n' makes %zu sequences; at most %d are allowed",
                            len * (size_t)params->n, LIMIT_SEQUENCES_PER_REQUEST);
    *prompts = arena_array(&x->arena, len, sizeof **prompts);
    *count = (int32_t)len;
    for (size_t i = 0; i < len; i++) {
        struct json_node element = single ? n : json_element(&n, i);
        if (!read_one(x, &element, params, &(*prompts)[i], st))
            return false;
    }
    return true;
}
