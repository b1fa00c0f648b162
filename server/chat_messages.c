/* chat_messages.c - messages, tools and template options of a chat request. */
#include "server/chat_messages.h"
#include "config/limits.h"
#include "engine/text/chat_template.h"

#include <string.h>

/* Borrowed values are only read; jansson's types have no const. */
static json_t *borrow(const struct json_node *n)
{
    return (json_t *)(uintptr_t)n->value;
}

/* --- content ------------------------------------------------------------------------------------
 */

static bool read_part(const struct json_node *part, const char **text, size_t *len,
                      struct status *st)
{
    const char *type = NULL;
    if (!part->value || !json_check_object(part, st))
        return part->value ? false : json_invalid(part, st, "invalid_type", "must be an object");
    struct json_node type_node = json_member(part, "type"), text_node = json_member(part, "text");
    if (!json_read_string(&type_node, &type, NULL, st))
        return false;
    if (!type)
        return json_invalid(&type_node, st, "missing_required_parameter", "is missing");
    if (strcmp(type, "text") != 0)
        return json_invalid(&type_node, st, "unsupported_content",
                            "is '%.40s': this server takes text only", type);
    *text = NULL;
    if (!json_read_string(&text_node, text, len, st))
        return false;
    return *text || json_invalid(&text_node, st, "missing_required_parameter", "is missing");
}

/* Parts joined by line breaks, as vLLM does; or, for templates that loop over parts, a clean list.
 */
static bool join_parts(const struct json_node *content, bool as_parts, json_t **out,
                       struct status *st)
{
    size_t count = json_array_size(content->value);
    struct buf joined;
    json_t *list = json_array();
    bool ok = true;
    buf_init(&joined, 0);
    for (size_t i = 0; ok && i < count; i++) {
        struct json_node part = json_element(content, i);
        const char *text;
        size_t len = 0;
        ok = read_part(&part, &text, &len, st);
        if (!ok)
            break;
        if (i > 0)
            buf_append_char(&joined, '\n');
        buf_append(&joined, text, len);
        if (as_parts)
            json_array_append_new(
                list, json_pack("{s:s,s:o}", "type", "text", "text", json_stringn(text, len)));
    }
    if (ok)
        *out = as_parts ? json_incref(list) : json_stringn(buf_str(&joined), joined.len);
    buf_free(&joined);
    json_decref(list);
    return ok;
}

static bool read_content(const struct json_node *message, bool is_assistant, bool as_parts,
                         json_t **out, struct status *st)
{
    struct json_node content = json_member(message, "content");
    if (!content.value) {
        if (!is_assistant)
            return json_invalid(&content, st, "missing_required_parameter", "is missing");
        *out = as_parts ? json_array() : json_string("");
        return true;
    }
    if (json_is_array(content.value))
        return join_parts(&content, as_parts, out, st);
    if (!json_is_string(content.value))
        return json_invalid(&content, st, "invalid_type",
                            "must be a string or an array of parts, not %s",
                            json_type_name(content.value));
    *out = as_parts ? json_pack("[{s:s,s:O}]", "type", "text", "text", borrow(&content))
                    : json_incref(borrow(&content));
    return true;
}

/* --- tool calls of earlier turns ----------------------------------------------------------------
 */

/* Clients send arguments as a string of JSON; templates expect the object. */
static bool parse_arguments(const struct json_node *call, json_t **out, struct status *st)
{
    const char *text = NULL;
    size_t len = 0;
    struct json_node function = json_member(call, "function");
    struct json_node arguments = json_member(&function, "arguments");
    *out = NULL;
    if (!json_check_object(&function, st))
        return false;
    if (!arguments.value || json_is_object(arguments.value))
        return true;
    if (!json_read_string(&arguments, &text, &len, st))
        return false;
    if (len == 0) {
        *out = json_object();
        return true;
    }
    if (!json_parse(text, len, out, st) || !json_is_object(*out)) {
        json_decref(*out);
        *out = NULL;
        return json_invalid(&arguments, st, "invalid_value", "must be a JSON object as text");
    }
    return true;
}

static bool read_tool_calls(const struct json_node *message, json_t *copy, struct status *st)
{
    struct json_node calls = json_member(message, "tool_calls");
    size_t count = 0;
    if (!calls.value)
        return true;
    if (!json_read_array(&calls, LIMIT_TOOLS, &count, st))
        return false;
    json_t *list = json_deep_copy(calls.value);
    json_object_set_new(copy, "tool_calls", list);
    for (size_t i = 0; i < count; i++) {
        struct json_node call = json_element(&calls, i);
        json_t *arguments;
        if (!call.value || !json_is_object(call.value))
            return json_invalid(&call, st, "invalid_type", "must be an object");
        if (!parse_arguments(&call, &arguments, st))
            return false;
        if (arguments)
            json_object_set_new(json_object_get(json_array_get(list, i), "function"), "arguments",
                                arguments);
    }
    return true;
}

/* --- messages -----------------------------------------------------------------------------------
 */

static bool read_message(const struct json_node *message, bool as_parts, json_t *copy,
                         struct status *st)
{
    struct json_node role_node = json_member(message, "role");
    const char *role = NULL;
    json_t *content = NULL;
    if (!json_read_string(&role_node, &role, NULL, st))
        return false;
    if (!role || !role[0])
        return json_invalid(&role_node, st, "missing_required_parameter", "is missing");
    if (!read_content(message, strcmp(role, "assistant") == 0, as_parts, &content, st))
        return false;
    json_object_set_new(copy, "content", content);
    return read_tool_calls(message, copy, st);
}

/* "auto" means one text, which every template understands that understands parts. */
static bool wants_parts(const struct server *s)
{
    return strcmp(s->config->chat_template_content_format, "openai") == 0;
}

static bool read_messages(const struct server *s, const struct json_node *body, json_t *out,
                          struct status *st)
{
    struct json_node list = json_member(body, "messages");
    size_t count = 0;
    if (!json_read_array(&list, LIMIT_CHAT_MESSAGES, &count, st))
        return false;
    if (!list.value)
        return json_invalid(&list, st, "missing_required_parameter", "is missing");
    if (count == 0)
        return json_invalid(&list, st, "array_below_min_length", "must hold a message");
    bool as_parts = wants_parts(s);
    for (size_t i = 0; i < count; i++) {
        struct json_node message = json_element(&list, i);
        if (!message.value || !json_is_object(message.value))
            return json_invalid(&message, st, "invalid_type", "must be an object");
        json_t *copy = json_copy(borrow(&message));
        json_array_append_new(out, copy);
        if (!read_message(&message, as_parts, copy, st))
            return false;
    }
    return true;
}

/* --- tools --------------------------------------------------------------------------------------
 */

static bool check_tool(const struct json_node *tool, struct status *st)
{
    const char *name = NULL;
    if (!tool->value || !json_is_object(tool->value))
        return json_invalid(tool, st, "invalid_type", "must be an object");
    struct json_node function = json_member(tool, "function");
    struct json_node name_node = json_member(&function, "name");
    if (!function.value)
        return json_invalid(&function, st, "missing_required_parameter", "is missing");
    if (!json_check_object(&function, st) || !json_read_string(&name_node, &name, NULL, st))
        return false;
    return name ? true : json_invalid(&name_node, st, "missing_required_parameter", "is missing");
}

/* The model's text would have to be parsed for calls; until a parser is there, a request whose
 * answer could need one is refused, and tools can only be shown to the model. */
static bool check_tool_choice(const struct json_node *body, bool has_tools, struct status *st)
{
    struct json_node choice = json_member(body, "tool_choice");
    bool is_none = choice.value && json_is_string(choice.value) &&
                   strcmp(json_string_value(choice.value), "none") == 0;
    if (choice.value && !json_is_string(choice.value) && !json_is_object(choice.value))
        return json_invalid(&choice, st, "invalid_type", "must be a string or an object");
    if (is_none)
        return true;
    if (choice.value && !has_tools)
        return json_invalid(&choice, st, "invalid_value", "is only allowed with 'tools'");
    if (has_tools)
        return json_invalid(&choice, st, "unsupported_parameter",
                            "must be \"none\": this server does not parse tool calls; with "
                            "\"none\" the tools are shown to the model all the same");
    return true;
}

static bool read_tools(const struct json_node *body, struct chat_input *out, struct status *st)
{
    struct json_node tools = json_member(body, "tools");
    size_t count = 0;
    if (!json_read_array(&tools, LIMIT_TOOLS, &count, st))
        return false;
    for (size_t i = 0; i < count; i++) {
        struct json_node tool = json_element(&tools, i);
        if (!check_tool(&tool, st))
            return false;
    }
    out->tools = count > 0 ? borrow(&tools) : NULL;
    return check_tool_choice(body, count > 0, st);
}

/* --- options ------------------------------------------------------------------------------------
 */

static bool read_options(const struct json_node *body, struct chat_input *out, struct status *st)
{
    struct json_node prompt = json_member(body, "add_generation_prompt");
    struct json_node go_on = json_member(body, "continue_final_message");
    struct json_node special = json_member(body, "add_special_tokens");
    if (!json_read_bool(&go_on, &out->continue_final_message, st))
        return false;
    out->add_generation_prompt = !out->continue_final_message;
    if (!json_read_bool(&prompt, &out->add_generation_prompt, st) ||
        !json_read_bool(&special, &out->add_special_tokens, st))
        return false;
    if (out->continue_final_message && out->add_generation_prompt)
        return json_invalid(&go_on, st, "invalid_value",
                            "cannot be combined with 'add_generation_prompt'");
    return true;
}

static bool read_kwargs(const struct json_node *body, struct chat_input *out, struct status *st)
{
    struct json_node kwargs = json_member(body, "chat_template_kwargs");
    struct json_node effort = json_member(body, "reasoning_effort");
    struct json_node documents = json_member(body, "documents");
    const char *text = NULL;
    size_t count = 0;
    if (!json_check_object(&kwargs, st) || !json_read_string(&effort, &text, NULL, st) ||
        !json_read_array(&documents, LIMIT_CHAT_MESSAGES, &count, st))
        return false;
    out->documents = count > 0 ? borrow(&documents) : NULL;
    if (kwargs.value)
        out->kwargs = json_copy(borrow(&kwargs));
    if (text) {
        if (!out->kwargs)
            out->kwargs = json_object();
        json_object_set(out->kwargs, "reasoning_effort", borrow(&effort));
    }
    return true;
}

bool chat_input_read(const struct server *s, const struct json_node *body, struct chat_input *out,
                     struct status *st)
{
    memset(out, 0, sizeof *out);
    out->messages = json_array();
    if (read_messages(s, body, out->messages, st) && read_tools(body, out, st) &&
        read_options(body, out, st) && read_kwargs(body, out, st))
        return true;
    chat_input_free(out);
    return false;
}

void chat_input_free(struct chat_input *in)
{
    json_decref(in->messages);
    json_decref(in->kwargs);
    in->messages = in->kwargs = NULL;
}

bool chat_input_render(const struct server *s, const struct chat_input *in, struct buf *out,
                       struct status *st)
{
    const struct chat_template *t = engine_info(s->engine)->chat_template;
    const struct chat_template_options options = {
        .add_generation_prompt = in->add_generation_prompt,
        .continue_final_message = in->continue_final_message,
        .kwargs = in->kwargs,
    };
    if (!t) {
        status_set(st, STATUS_INVALID,
                   "this model has no chat template: start the server with --chat-template, or use "
                   "/v1/completions");
        return status_detail(st, "messages", "no_chat_template");
    }
    if (chat_template_render(t, in->messages, in->tools, in->documents, &options, out, st))
        return true;
    return st->param[0] ? false : status_detail(st, "messages", "chat_template_error");
}

const char *chat_input_last_text(const struct chat_input *in, const char *role, size_t *len)
{
    const json_t *last = json_array_get(in->messages, json_array_size(in->messages) - 1);
    const char *last_role = json_string_value(json_object_get(last, "role"));
    const json_t *content = json_object_get(last, "content");
    if (json_is_array(content))
        content = json_object_get(json_array_get(content, 0), "text");
    if (!last_role || strcmp(last_role, role) != 0 || !json_is_string(content))
        return NULL;
    *len = json_string_length(content);
    return json_string_value(content);
}
