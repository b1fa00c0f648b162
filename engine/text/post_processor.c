/* post_processor.c - every kind comes down to two lists of ids. */
#include "engine/text/post_processor.h"
#include "base/alloc.h"
#include "engine/text/json_field.h"
#include "engine/text/tokenizer_config.h"

#include <string.h>

enum { MAX_DEPTH = 16 };

static bool read_id(const json_t *value, int32_t *id, const char *type, struct status *st)
{
    json_int_t v = json_integer_value(value);
    if (!json_is_integer(value) || v < 0 || v >= TOKENIZER_MAX_ID)
        return status_set(st, STATUS_INVALID, "the post-processor %s holds a wrong token id", type);
    *id = (int32_t)v;
    return true;
}

/* What this component puts around a text; a Sequence wraps it once more. */
static void wrap(struct post_processor *p, const struct post_processor *more)
{
    struct token_list before = { 0 };
    token_list_append(&before, more->before.ids, more->before.len);
    token_list_append(&before, p->before.ids, p->before.len);
    token_list_free(&p->before);
    p->before = before;
    token_list_append(&p->behind, more->behind.ids, more->behind.len);
}

static bool template_special(const json_t *spec, const json_t *item, struct token_list *list,
                             struct status *st)
{
    const char *name = json_string_value(json_object_get(item, "id"));
    const json_t *special =
        name ? json_object_get(json_object_get(spec, "special_tokens"), name) : NULL;
    const json_t *ids = json_object_get(special, "ids");
    if (!json_is_array(ids))
        return status_set(st, STATUS_INVALID,
                          "TemplateProcessing names the special token \"%.60s\" but gives it no "
                          "ids",
                          name ? name : "");
    for (size_t i = 0; i < json_array_size(ids); i++) {
        int32_t id;
        if (!read_id(json_array_get(ids, i), &id, "TemplateProcessing", st))
            return false;
        token_list_append(list, &id, 1);
    }
    return true;
}

static bool load_template(const json_t *spec, struct post_processor *p, struct status *st)
{
    const json_t *single = json_object_get(spec, "single");
    int num_texts = 0;
    if (!json_is_array(single))
        return status_set(st, STATUS_UNSUPPORTED, "\"single\" of TemplateProcessing is not a list");
    for (size_t i = 0; i < json_array_size(single); i++) {
        const json_t *item = json_array_get(single, i);
        const json_t *special = json_object_get(item, "SpecialToken");
        if (special) {
            if (!template_special(spec, special, num_texts ? &p->behind : &p->before, st))
                return false;
        } else if (json_object_get(item, "Sequence")) {
            num_texts++;
        }
    }
    if (num_texts != 1)
        return status_set(st, STATUS_UNSUPPORTED,
                          "TemplateProcessing puts the text %d times into \"single\"", num_texts);
    return true;
}

static bool load_bert(const json_t *spec, struct post_processor *p, struct status *st)
{
    int32_t cls, sep;
    if (!read_id(json_array_get(json_object_get(spec, "cls"), 1), &cls, json_field_type(spec),
                 st) ||
        !read_id(json_array_get(json_object_get(spec, "sep"), 1), &sep, json_field_type(spec), st))
        return false;
    token_list_append(&p->before, &cls, 1);
    token_list_append(&p->behind, &sep, 1);
    return true;
}

static bool load(const json_t *spec, struct post_processor *p, int depth, struct status *st)
{
    const char *type = json_field_type(spec);
    if (strcmp(type, "ByteLevel") == 0)
        return true; /* moves offsets only */
    if (strcmp(type, "TemplateProcessing") == 0)
        return load_template(spec, p, st);
    if (strcmp(type, "BertProcessing") == 0 || strcmp(type, "RobertaProcessing") == 0)
        return load_bert(spec, p, st);
    if (strcmp(type, "Sequence") != 0)
        return json_field_unknown("post-processor", spec, st);
    const json_t *list = json_object_get(spec, "processors");
    if (!json_is_array(list) || depth == MAX_DEPTH)
        return status_set(st, STATUS_INVALID, "the post-processor Sequence has no proper list");
    for (size_t i = 0; i < json_array_size(list); i++) {
        struct post_processor one = { .before = { .len = 0 } };
        bool ok = load(json_array_get(list, i), &one, depth + 1, st);
        if (ok)
            wrap(p, &one);
        post_processor_free(&one);
        if (!ok)
            return false;
    }
    return true;
}

bool post_processor_load(const json_t *spec, struct post_processor *p, struct status *st)
{
    return !spec || json_is_null(spec) || load(spec, p, 0, st);
}

void post_processor_free(struct post_processor *p)
{
    token_list_free(&p->before);
    token_list_free(&p->behind);
}
