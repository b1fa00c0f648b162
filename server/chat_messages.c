/* chat_messages.c - checks that name the place; shaping for the template is the template's work. */
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

static bool check_part(const struct json_node *part, struct status *st)
{
    const char *type = NULL, *text = NULL;
    size_t len;
    if (!part->value || !json_is_object(part->value))
        return json_invalid(part, st, "invalid_type", "must be an object");
    struct json_node type_node = json_member(part, "type"), text_node = json_member(part, "text");
    if (!json_read_string(&type_node, &type, NULL, st))
        return false;
    if (!type)
        return json_invalid(&type_node, st, "missing_required_parameter", "is missing");
    if (strcmp(type, "text") != 0)
        return json_invalid(&type_node, st, "unsupported_content",
                            "is '%.40s': this server takes text only", type);
    return json_read_string(&text_node, &text, &len, st) &&
           (text || json_invalid(&text_node, st, "missing_required_parameter", "is missing"));
}

static bool check_content(const struct json_node *message, bool is_assistant, struct status *st)
{
    struct json_node content = json_member(message, "content");
    if (!content.value)
        return is_assistant ||
               json_invalid(&content, st, "missing_required_parameter", "is missing");
    if (!json_is_array(content.value))
        return json_is_string(content.value) ||
               json_invalid(&content, st, "invalid_type",
                            "must be a string or an array of parts, not %s",
                            json_type_name(content.value));
    size_t count = json_array_size(content.value);
    for (size_t i = 0; i < count; i++) {
        struct json_node part = json_element(&content, i);
        if (!check_part(&part, st))
            return false;
    }
    return true;
}

/* --- messages -----------------------------------------------------------------------------------
 */

static bool check_tool_calls(const struct json_node *message, struct status *st)
{
    struct json_node calls = json_member(message, "tool_calls");
    size_t count = 0;
    if (!json_read_array(&calls, LIMIT_TOOLS, &count, st))
        return false;
    for (size_t i = 0; i < count; i++) {
        struct json_node call = json_element(&calls, i);
        if (!call.value || !json_is_object(call.value))
            return json_invalid(&call, st, "invalid_type", "must be an object");
    }
    return true;
}

static bool check_message(const struct json_node *message, struct status *st)
{
    const char *role = NULL;
    if (!message->value || !json_is_object(message->value))
        return json_invalid(message, st, "invalid_type", "must be an object");
    struct json_node role_node = json_member(message, "role");
    if (!json_read_string(&role_node, &role, NULL, st))
        return false;
    if (!role || !role[0])
        return json_invalid(&role_node, st, "missing_required_parameter", "is missing");
    return check_content(message, strcmp(role, "assistant") == 0, st) &&
           check_tool_calls(message, st);
}

static bool read_messages(const struct json_node *body, struct chat_input *out, struct status *st)
{
    struct json_node list = json_member(body, "messages");
    size_t count = 0;
    if (!json_read_array(&list, LIMIT_CHAT_MESSAGES, &count, st))
        return false;
    if (!list.value)
        return json_invalid(&list, st, "missing_required_parameter", "is missing");
    if (count == 0)
        return json_invalid(&list, st, "array_below_min_length", "must hold a message");
    for (size_t i = 0; i < count; i++) {
        struct json_node message = json_element(&list, i);
        if (!check_message(&message, st))
            return false;
    }
    out->messages = borrow(&list);
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
    return true;
}

/* The model's text would have to be parsed for calls; until a parser is there, a request whose
 * answer could need one is refused, and tools can only be shown to the model. */
bool chat_input_check_tools(const struct json_node *body, const struct chat_input *in,
                            struct status *st)
{
    return check_tool_choice(body, in->tools != NULL, st);
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

/* A template of the request's own, for servers that take any. */
static bool read_template(const struct json_node *body, const struct server *s,
                          struct chat_input *out, struct status *st)
{
    struct json_node node = json_member(body, "chat_template");
    const char *text = NULL;
    size_t len = 0;
    if (!json_read_string(&node, &text, &len, st))
        return false;
    if (!text)
        return true;
    if (!s->config->trust_request_chat_template)
        return json_invalid(&node, st, "unsupported_parameter",
                            "is only taken by a server started with --trust-request-chat-template");
    if (chat_template_derive(engine_info(s->engine)->chat_template, text, len, &out->chat_template,
                             st))
        return true;
    return status_detail(st, "chat_template", "chat_template_error");
}

bool chat_input_read(const struct json_node *body, const struct server *s, struct chat_input *out,
                     struct status *st)
{
    memset(out, 0, sizeof *out);
    if (read_messages(body, out, st) && read_tools(body, out, st) && read_options(body, out, st) &&
        read_kwargs(body, out, st) && read_template(body, s, out, st))
        return true;
    chat_input_free(out);
    return false;
}

void chat_input_free(struct chat_input *in)
{
    json_decref(in->kwargs);
    chat_template_free(in->chat_template);
    in->kwargs = NULL;
    in->chat_template = NULL;
}

static enum chat_content_format content_format(const struct server *s)
{
    const char *name = s->config->chat_template_content_format;
    return strcmp(name, "string") == 0   ? CHAT_CONTENT_STRING
           : strcmp(name, "openai") == 0 ? CHAT_CONTENT_OPENAI
                                         : CHAT_CONTENT_AUTO;
}

bool chat_input_render(const struct server *s, const struct chat_input *in, struct buf *out,
                       struct status *st)
{
    const struct chat_template *t =
        in->chat_template ? in->chat_template : engine_info(s->engine)->chat_template;
    const struct chat_template_options options = {
        .add_generation_prompt = in->add_generation_prompt,
        .continue_final_message = in->continue_final_message,
        .kwargs = in->kwargs,
        .content_format = content_format(s),
    };
    if (!t) {
        status_set(st, STATUS_INVALID,
                   "this model has no chat template: start the server with --chat-template, or use "
                   "/v1/completions");
        return status_detail(st, "messages", "no_chat_template");
    }
    if (chat_template_render(t, in->messages, in->tools, in->documents, &options, out, st))
        return true;
    return status_detail(st, st->param[0] ? NULL : "messages",
                         st->reason[0] ? NULL : "chat_template_error");
}

bool chat_input_last_text(const struct chat_input *in, const char *role, struct buf *out)
{
    const json_t *last = json_array_get(in->messages, json_array_size(in->messages) - 1);
    const json_t *content = json_object_get(last, "content");
    if (strcmp(json_string_value(json_object_get(last, "role")), role) != 0)
        return false;
    if (json_is_string(content))
        buf_append(out, json_string_value(content), json_string_length(content));
    for (size_t i = 0; i < json_array_size(content); i++) {
        const json_t *text = json_object_get(json_array_get(content, i), "text");
        if (i > 0)
            buf_append_char(out, '\n');
        buf_append(out, json_string_value(text), json_string_length(text));
    }
    return true;
}
