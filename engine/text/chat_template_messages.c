/* chat_template_messages.c - normalising, and continuing the last message. */
#include "engine/text/chat_template_messages.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Unlikely in a conversation, and what transformers uses; its trailing space shows whether the
 * template trimmed the text. */
static const char final_mark[] = "CONTINUE_FINAL_MESSAGE_TAG ";

static bool refuse(struct status *st, const char *path, const char *what)
{
    status_set(st, STATUS_INVALID, "%s %s", path, what);
    return status_detail(st, path, "invalid_message");
}

/* A string of bytes as JSON; NULL where it is not UTF-8, which cannot come from a request. */
static json_t *json_text(const struct buf *b)
{
    return json_stringn_nocheck(buf_str(b), b->len);
}

/* --- content ------------------------------------------------------------------------------------
 */

/* The text of one part; NULL where it has none. */
static const json_t *part_text(const json_t *part)
{
    static const char *const types[] = { "text", "input_text", "output_text", "refusal",
                                         "thinking" };
    if (json_is_string(part))
        return part;
    const char *type = json_string_value(json_object_get(part, "type"));
    for (size_t i = 0; type && i < sizeof types / sizeof types[0]; i++) {
        if (strcmp(type, types[i]) != 0)
            continue;
        const json_t *text = json_object_get(part, "text");
        return json_is_string(text) ? text : json_object_get(part, type);
    }
    return NULL;
}

static bool read_parts(const json_t *content, const char *path, bool as_parts, json_t **out,
                       struct status *st)
{
    struct buf joined;
    json_t *parts = json_array();
    bool ok = true;
    buf_init(&joined, 0);
    for (size_t i = 0; ok && i < json_array_size(content); i++) {
        const json_t *part = json_array_get(content, i), *text = part_text(part);
        if (!json_is_string(text)) {
            char where[96];
            const char *type = json_string_value(json_object_get(part, "type"));
            snprintf(where, sizeof where, "%s[%zu]", path, i);
            ok = type ? refuse(st, where, "is not a part of text: this model takes text only")
                      : refuse(st, where, "must be an object with 'type': 'text' and 'text'");
            break;
        }
        if (i > 0)
            buf_append_char(&joined, '\n');
        buf_append(&joined, json_string_value(text), json_string_length(text));
        if (as_parts)
            json_array_append_new(parts, json_pack("{s:s,s:O}", "type", "text", "text", text));
    }
    if (ok)
        *out = as_parts ? json_incref(parts) : json_text(&joined);
    json_decref(parts);
    buf_free(&joined);
    return ok;
}

static bool read_content(const json_t *message, const struct chat_template_traits *traits,
                         const char *path, bool as_parts, json_t **out, struct status *st)
{
    json_t *content = json_object_get(message, "content");
    /* A template that loops over parts without asking for a string would loop over letters. */
    bool wrap = as_parts && !traits->takes_plain_text;
    if (!content || json_is_null(content)) {
        *out = wrap ? json_array() : json_string("");
        return true;
    }
    if (json_is_array(content))
        return read_parts(content, path, as_parts, out, st);
    if (!json_is_string(content))
        return refuse(st, path, "must be a string or an array of parts");
    *out = wrap ? json_pack("[{s:s,s:O}]", "type", "text", "text", content) : json_incref(content);
    return true;
}

/* --- tool calls ---------------------------------------------------------------------------------
 */

/* Arguments as the template wants them: an object, or the object's text. */
static bool read_arguments(json_t *function, const char *path, bool as_text, struct status *st)
{
    json_t *arguments = json_object_get(function, "arguments"), *parsed = NULL;
    bool empty = !arguments || json_is_null(arguments) ||
                 (json_is_string(arguments) && json_string_length(arguments) == 0);
    if (as_text) {
        if (!empty && json_is_string(arguments))
            return true;
        char *text = empty ? NULL : json_dumps(arguments, JSON_ENCODE_ANY | JSON_PRESERVE_ORDER);
        json_object_set_new(function, "arguments", json_string(text ? text : "{}"));
        free(text);
        return true;
    }
    if (empty) {
        json_object_set_new(function, "arguments", json_object());
        return true;
    }
    if (json_is_string(arguments)) {
        json_error_t error;
        parsed = json_loadb(json_string_value(arguments), json_string_length(arguments),
                            JSON_ALLOW_NUL, &error);
        if (!parsed)
            return refuse(st, path, "must be a JSON object as text");
        json_object_set_new(function, "arguments", parsed);
        return true;
    }
    if (!json_is_object(arguments) && !json_is_array(arguments))
        return refuse(st, path, "must be a JSON object, or its text");
    return true;
}

static bool read_tool_calls(json_t *message, const char *path, bool as_text, struct status *st)
{
    json_t *calls = json_object_get(message, "tool_calls");
    if (!calls)
        return true;
    if (!json_is_array(calls))
        return refuse(st, path, "must be an array");
    calls = json_deep_copy(calls);
    json_object_set_new(message, "tool_calls", calls);
    for (size_t i = 0; i < json_array_size(calls); i++) {
        char where[160];
        json_t *call = json_array_get(calls, i);
        json_t *function = json_object_get(call, "function");
        snprintf(where, sizeof where, "%s[%zu]", path, i);
        if (!json_is_object(call))
            return refuse(st, where, "must be an object");
        if (!function) /* a call without the wrapper: name and arguments at once */
            continue;
        snprintf(where, sizeof where, "%s[%zu].function", path, i);
        if (!json_is_object(function))
            return refuse(st, where, "must be an object");
        snprintf(where, sizeof where, "%s[%zu].function.arguments", path, i);
        if (!read_arguments(function, where, as_text, st))
            return false;
    }
    return true;
}

/* --- messages -----------------------------------------------------------------------------------
 */

/* Reasoning is sent under three names, and templates read two of them. */
static void alias_reasoning(json_t *message)
{
    static const char *const names[] = { "reasoning_content", "thinking", "reasoning" };
    for (size_t i = 0; i < 3; i++) {
        json_t *reasoning = json_object_get(message, names[i]);
        if (!reasoning)
            continue;
        if (!json_object_get(message, "thinking"))
            json_object_set(message, "thinking", reasoning);
        json_object_set(message, "reasoning_content", reasoning);
        return;
    }
}

/* Clients send every field that their library knows; one that is null was not meant. */
static json_t *copy_without_nulls(const json_t *message)
{
    json_t *copy = json_object();
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)message, key, value)
    {
        if (!json_is_null(value))
            json_object_set(copy, key, value);
    }
    return copy;
}

static bool normalize(const json_t *message, size_t index,
                      const struct chat_template_traits *traits, bool as_parts, json_t *list,
                      struct status *st)
{
    char path[64];
    snprintf(path, sizeof path, "messages[%zu]", index);
    if (!json_is_object(message))
        return refuse(st, path, "must be an object");
    json_t *copy = copy_without_nulls(message), *content = NULL;
    json_array_append_new(list, copy);
    snprintf(path, sizeof path, "messages[%zu].role", index);
    if (!json_is_string(json_object_get(copy, "role")))
        return refuse(st, path, "must be a string");
    snprintf(path, sizeof path, "messages[%zu].content", index);
    if (!read_content(message, traits, path, as_parts, &content, st))
        return false;
    json_object_set_new(copy, "content", content);
    alias_reasoning(copy);
    snprintf(path, sizeof path, "messages[%zu].tool_calls", index);
    return read_tool_calls(copy, path, traits->arguments_as_text, st);
}

bool chat_messages_normalize(const json_t *messages, const struct chat_template_traits *traits,
                             bool as_parts, json_t **out, struct status *st)
{
    *out = NULL;
    if (!json_is_array(messages))
        return refuse(st, "messages", "must be an array");
    json_t *list = json_array();
    for (size_t i = 0; i < json_array_size(messages); i++) {
        if (!normalize(json_array_get(messages, i), i, traits, as_parts, list, st)) {
            json_decref(list);
            return false;
        }
    }
    *out = list;
    return true;
}

/* --- the last message, continued ----------------------------------------------------------------
 */

bool chat_messages_mark_final(json_t *messages, struct buf *text, struct status *st)
{
    size_t count = json_array_size(messages);
    json_t *last = json_array_get(messages, count - 1);
    if (count == 0)
        return refuse(st, "continue_final_message", "is set, but there is no message");
    json_t *holder = last, *content = json_object_get(last, "content");
    const char *key = "content";
    for (size_t i = json_array_size(content); json_is_array(content) && i-- > 0;) {
        holder = json_array_get(content, i);
        if (json_is_string(json_object_get(holder, "text"))) {
            content = json_object_get(holder, "text");
            key = "text";
        }
    }
    if (!json_is_string(content))
        return refuse(st, "continue_final_message",
                      "is set, but the last message has no text to continue");
    buf_append(text, json_string_value(content), json_string_length(content));
    struct buf marked;
    buf_init(&marked, 0);
    buf_append(&marked, text->data, text->len);
    buf_append_str(&marked, final_mark);
    json_object_set_new(holder, key, json_text(&marked));
    buf_free(&marked);
    return true;
}

static bool is_space(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r') || (c >= 0x1C && c <= 0x1F);
}

static const char *find_last(const struct buf *b, const char *needle, size_t len)
{
    const char *found = NULL, *at = b->data, *end = b->data + b->len;
    while (b->len && (at = memmem(at, (size_t)(end - at), needle, len))) {
        found = at;
        at++;
    }
    return found;
}

bool chat_messages_cut(struct buf *rendered, const struct buf *text, struct status *st)
{
    size_t from = 0, to = text->len, mark = sizeof final_mark - 2; /* without its space */
    while (from < to && is_space(text->data[from]))
        from++;
    while (to > from && is_space(text->data[to - 1]))
        to--;
    const char *at = find_last(rendered, final_mark, mark);
    bool text_found = from == to || (rendered->len && memmem(rendered->data, rendered->len,
                                                             text->data + from, to - from));
    if (!at || !text_found)
        return refuse(st, "continue_final_message",
                      "is set, but the chat template does not show the last message as it is");
    bool kept_space = at + mark < rendered->data + rendered->len && at[mark] == ' ';
    size_t len = (size_t)(at - rendered->data);
    while (!kept_space && len > 0 && is_space(rendered->data[len - 1]))
        len--;
    rendered->len = len;
    rendered->data[len] = '\0';
    return true;
}
