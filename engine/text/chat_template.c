/* chat_template.c - finding a model's templates and special tokens, and rendering. */
#include "engine/text/chat_template.h"
#include "engine/text/chat_template_messages.h"
#include "engine/text/jinja.h"
#include "engine/text/model_file.h"
#include "base/alloc.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_CONFIG_BYTES = 64 << 20 }; /* some list every added token */

struct named_template {
    struct jinja_template *jinja; /* NULL: the model has none of this name */
    char *source;                 /* [source_len] */
    size_t source_len;
    struct chat_template_traits traits;
    bool mentions_content; /* its text does: what can be continued */
};

struct chat_template {
    struct named_template plain, tool_use;
    json_t *special_tokens; /* name -> text, or a list of texts */
};

void chat_template_free(struct chat_template *t)
{
    if (!t)
        return;
    jinja_free(t->plain.jinja);
    jinja_free(t->tool_use.jinja);
    free(t->plain.source);
    free(t->tool_use.source);
    json_decref(t->special_tokens);
    free(t);
}

static bool add_template(struct named_template *out, const char *source, size_t len,
                         const char *where, struct status *st)
{
    if (!jinja_parse(source, len, &out->jinja, st))
        return status_prefix(st, "chat template of %s: ", where);
    out->traits = chat_template_detect(out->jinja);
    out->mentions_content = memmem(source, len, "content", 7) != NULL;
    out->source = xstrndup(source, len);
    out->source_len = len;
    return true;
}

/* --- sources ------------------------------------------------------------------------------------
 */

/* A list of {name, template}; only the two names that are ever chosen are read. */
static bool add_list(struct chat_template *t, const json_t *list, const char *where,
                     struct status *st)
{
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *entry = json_array_get(list, i), *text = json_object_get(entry, "template");
        const char *name = json_string_value(json_object_get(entry, "name"));
        struct named_template *slot = name && strcmp(name, "default") == 0    ? &t->plain
                                      : name && strcmp(name, "tool_use") == 0 ? &t->tool_use
                                                                              : NULL;
        if (!name || !json_is_string(text))
            return status_set(st, STATUS_INVALID,
                              "%s: chat_template[%zu] must have the texts 'name' and 'template'",
                              where, i);
        if (slot && slot->jinja)
            return status_set(st, STATUS_INVALID, "%s: two chat templates are named '%s'", where,
                              name);
        if (slot &&
            !add_template(slot, json_string_value(text), json_string_length(text), where, st))
            return false;
    }
    if (!t->plain.jinja)
        return status_set(st, STATUS_INVALID,
                          "%s: no chat template is named 'default'; choose one with "
                          "--chat-template",
                          where);
    return true;
}

static bool add_json(struct chat_template *t, const json_t *value, const char *where,
                     struct status *st)
{
    if (!value || json_is_null(value))
        return true;
    if (json_is_string(value))
        return add_template(&t->plain, json_string_value(value), json_string_length(value), where,
                            st);
    if (json_is_array(value))
        return json_array_size(value) == 0 || add_list(t, value, where, st);
    return status_set(st, STATUS_INVALID, "%s: chat_template must be a string or a list", where);
}

/* Like model_file_read, but what does not exist is just empty: *found tells. */
static bool read_optional(const char *dir, const char *name, struct buf *out, bool *found,
                          struct status *st)
{
    struct status why = { 0 };
    *found = model_file_read(dir, name, JINJA_MAX_SOURCE_BYTES, out, &why);
    if (*found || why.code == STATUS_NOT_FOUND)
        return true;
    *st = why;
    return false;
}

static bool read_optional_json(const char *dir, const char *name, json_t **out, struct status *st)
{
    struct status why = { 0 };
    if (model_file_read_json(dir, name, MAX_CONFIG_BYTES, out, &why) ||
        why.code == STATUS_NOT_FOUND)
        return true;
    *st = why;
    return false;
}

static bool add_file(const char *dir, const char *name, struct named_template *slot,
                     struct status *st)
{
    struct buf text;
    bool found;
    buf_init(&text, 0);
    bool ok = read_optional(dir, name, &text, &found, st);
    if (ok && found)
        ok = add_template(slot, buf_str(&text), text.len, name, st);
    buf_free(&text);
    return ok;
}

static bool add_model_templates(struct chat_template *t, const char *dir, const json_t *config,
                                struct status *st)
{
    json_t *legacy = NULL;
    if (!add_file(dir, "chat_template.jinja", &t->plain, st))
        return false;
    if (t->plain.jinja)
        return add_file(dir, "additional_chat_templates/tool_use.jinja", &t->tool_use, st);
    if (!read_optional_json(dir, "chat_template.json", &legacy, st))
        return false;
    bool ok = add_json(t, json_object_get(legacy, "chat_template"), "chat_template.json", st);
    json_decref(legacy);
    if (!ok || t->plain.jinja)
        return ok;
    return add_json(t, json_object_get(config, "chat_template"), "tokenizer_config.json", st);
}

static bool add_override(struct chat_template *t, const char *override, struct status *st)
{
    struct buf text;
    struct status why = { 0 };
    bool ok;
    buf_init(&text, 0);
    bool absolute = override[0] == '/';
    if (strlen(override) < 4096 && model_file_read(absolute ? "/" : ".", override + absolute,
                                                   JINJA_MAX_SOURCE_BYTES, &text, &why)) {
        ok = add_template(&t->plain, buf_str(&text), text.len, override, st);
    } else if (strpbrk(override, "{}\n")) { /* no path has these: the template itself */
        buf_clear(&text);
        ok = jinja_unescape_source(override, strlen(override), &text, st) &&
             add_template(&t->plain, buf_str(&text), text.len, "--chat-template", st);
    } else {
        ok = status_set(st, STATUS_INVALID,
                        "--chat-template: %s; it is neither a file that can be read nor a template",
                        why.message[0] ? why.message : "the path is too long");
    }
    buf_free(&text);
    return ok;
}

/* --- special tokens -----------------------------------------------------------------------------
 */

/* A token is given as its text or as an object with `content`. */
static json_t *token_text(const json_t *value)
{
    const json_t *text = json_is_object(value) ? json_object_get(value, "content") : value;
    return json_is_string(text) ? json_incref((json_t *)(uintptr_t)text) : NULL;
}

static void put_token(json_t *tokens, const char *name, const json_t *value, bool replace)
{
    json_t *text = replace || !json_object_get(tokens, name) ? token_text(value) : NULL;
    if (text)
        json_object_set_new(tokens, name, text);
}

static void put_list(json_t *tokens, const char *name, const json_t *list, bool replace)
{
    if (!json_is_array(list) || (!replace && json_object_get(tokens, name)))
        return;
    json_t *texts = json_array();
    for (size_t i = 0; i < json_array_size(list); i++) {
        json_t *text = token_text(json_array_get(list, i));
        if (text)
            json_array_append_new(texts, text);
    }
    json_object_set_new(tokens, name, texts);
}

/* Every "..._token" of one file, additional_special_tokens, and the names that the file adds. */
static void put_tokens(json_t *tokens, const json_t *file, bool replace)
{
    const char *name;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)file, name, value)
    {
        size_t len = strlen(name);
        if (len > 6 && strcmp(name + len - 6, "_token") == 0)
            put_token(tokens, name, value, replace);
    }
    put_list(tokens, "additional_special_tokens",
             json_object_get(file, "additional_special_tokens"), replace);
    json_object_foreach(json_object_get(file, "extra_special_tokens"), name, value)
    {
        put_token(tokens, name, value, replace);
    }
}

/* As transformers merges them: a tokenizer_config.json with added_tokens_decoder knows best;
 * without, special_tokens_map.json overrides it. */
static bool read_tokens(struct chat_template *t, const char *dir, const json_t *config,
                        struct status *st)
{
    json_t *map = NULL;
    if (!read_optional_json(dir, "special_tokens_map.json", &map, st))
        return false;
    put_tokens(t->special_tokens, config, true);
    put_tokens(t->special_tokens, map, !json_object_get(config, "added_tokens_decoder"));
    json_decref(map);
    return true;
}

/* --- load and render ----------------------------------------------------------------------------
 */

bool chat_template_load(const char *model_dir, const char *override, struct chat_template **out,
                        struct status *st)
{
    struct chat_template *t = xcalloc(1, sizeof *t);
    json_t *config = NULL;
    *out = NULL;
    t->special_tokens = json_object();
    bool ok = read_optional_json(model_dir, "tokenizer_config.json", &config, st);
    if (ok)
        ok = override ? add_override(t, override, st)
                      : add_model_templates(t, model_dir, config, st);
    if (ok && t->plain.jinja)
        ok = read_tokens(t, model_dir, config, st);
    json_decref(config);
    if (ok && t->plain.jinja)
        *out = t;
    else
        chat_template_free(t);
    return ok;
}

bool chat_template_from_source(const struct chat_template_source *source, const char *override,
                               struct chat_template **out, struct status *st)
{
    struct chat_template *t = xcalloc(1, sizeof *t);
    bool ok = true;
    *out = NULL;
    t->special_tokens = json_copy(source->special_tokens);
    if (override)
        ok = add_override(t, override, st);
    else if (source->plain)
        ok = add_template(&t->plain, source->plain, source->plain_len, source->where, st);
    if (ok && !override && source->plain && source->tool_use)
        ok = add_template(&t->tool_use, source->tool_use, source->tool_use_len, source->where, st);
    if (ok && t->plain.jinja)
        *out = t;
    else
        chat_template_free(t);
    return ok;
}

bool chat_template_derive(const struct chat_template *model, const char *text, size_t len,
                          struct chat_template **out, struct status *st)
{
    json_t *none = json_object();
    const struct chat_template_source source = { .where = "the request",
                                                 .plain = text,
                                                 .plain_len = len,
                                                 .special_tokens =
                                                     model ? model->special_tokens : none };
    bool ok = chat_template_from_source(&source, NULL, out, st);
    json_decref(none);
    return ok;
}

static const struct named_template *choose(const struct chat_template *t, bool with_tools)
{
    return with_tools && t->tool_use.jinja ? &t->tool_use : &t->plain;
}

const char *chat_template_text(const struct chat_template *t, bool with_tools, size_t *len)
{
    const struct named_template *n = choose(t, with_tools);
    *len = n->source_len;
    return n->source;
}

const char *chat_template_token(const struct chat_template *t, const char *name)
{
    return json_string_value(json_object_get(t->special_tokens, name));
}

bool chat_template_wants_parts(const struct chat_template *t, bool with_tools)
{
    return choose(t, with_tools)->traits.loops_over_parts;
}

/* The kwargs may set any variable but the conversation itself; the switches must be booleans. */
static bool add_kwargs(json_t *variables, const json_t *kwargs, struct status *st)
{
    static const char *const reserved[] = { "messages", "tools", "documents" };
    if (!kwargs || json_is_null(kwargs))
        return true;
    if (!json_is_object(kwargs)) {
        status_set(st, STATUS_INVALID, "chat_template_kwargs must be an object");
        return status_detail(st, "chat_template_kwargs", NULL);
    }
    for (size_t i = 0; i < sizeof reserved / sizeof reserved[0]; i++) {
        if (json_object_get(kwargs, reserved[i])) {
            status_set(st, STATUS_INVALID,
                       "chat_template_kwargs must not hold '%s': it is a field of the request",
                       reserved[i]);
            return status_detail(st, "chat_template_kwargs", NULL);
        }
    }
    json_object_update(variables, (json_t *)(uintptr_t)kwargs);
    return true;
}

static bool render(const struct named_template *n, json_t *messages, const json_t *variables,
                   const struct chat_template_options *options, struct buf *out, struct status *st)
{
    const struct jinja_render_options how = { .now_unix_s = options->now_unix_s };
    struct buf prompt, final;
    buf_init(&prompt, 0);
    buf_init(&final, 0);
    bool ok = !options->continue_final_message || chat_messages_mark_final(messages, &final, st);
    ok = ok && jinja_render(n->jinja, variables, &how, &prompt, st);
    if (ok && options->continue_final_message)
        ok = chat_messages_cut(&prompt, &final, st);
    if (ok) {
        buf_append(out, prompt.data, prompt.len);
        if (out->overflow)
            ok = status_set(st, STATUS_INVALID,
                            "the rendered conversation is larger than %zu bytes", out->max_bytes);
    }
    buf_free(&prompt);
    buf_free(&final);
    return ok;
}

bool chat_template_render(const struct chat_template *t, json_t *messages, json_t *tools,
                          json_t *documents, const struct chat_template_options *options,
                          struct buf *out, struct status *st)
{
    const struct named_template *n = choose(t, tools != NULL);
    bool as_parts = options->content_format == CHAT_CONTENT_AUTO
                        ? n->traits.loops_over_parts
                        : options->content_format == CHAT_CONTENT_OPENAI;
    json_t *list, *variables;
    if (options->continue_final_message && options->add_generation_prompt) {
        status_set(st, STATUS_INVALID,
                   "continue_final_message cannot be combined with add_generation_prompt");
        return status_detail(st, "continue_final_message", NULL);
    }
    if (options->continue_final_message && !n->mentions_content) {
        status_set(
            st, STATUS_INVALID,
            "continue_final_message: the chat template does not read the content of messages");
        return status_detail(st, "continue_final_message", NULL);
    }
    if (!chat_messages_normalize(messages, &n->traits, as_parts, &list, st))
        return false;
    variables = json_copy(t->special_tokens);
    json_object_set_new(variables, "add_generation_prompt",
                        json_boolean(options->add_generation_prompt));
    bool ok = add_kwargs(variables, options->kwargs, st);
    json_object_set(variables, "messages", list);
    json_object_set(variables, "tools", tools ? tools : json_null());
    json_object_set(variables, "documents", documents ? documents : json_null());
    ok = ok && render(n, list, variables, options, out, st);
    json_decref(variables);
    json_decref(list);
    return ok;
}
