/* jinja_json.c - json.dumps as transformers gives it to templates, and request JSON as values. */
#include "engine/text/jinja_repr.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

struct writer {
    struct jinja_env *env;
    struct jinja_sb sb;
    const struct jinja_json_style *style;
    size_t level;
};

static void write_value(struct writer *w, struct jinja_value v);

static void write_code_unit(struct writer *w, unsigned unit)
{
    char text[8];
    snprintf(text, sizeof text, "\\u%04x", unit & 0xFFFF);
    jinja_sb_text(&w->sb, text);
}

static void write_escape(struct writer *w, uint32_t c)
{
    static const char plain[] = "\"\"\\\\\bb\ff\nn\rr\tt";
    const char *known = c && c < 0x80 ? strchr(plain, (int)c) : NULL;
    if (known && (known - plain) % 2 == 0) {
        jinja_sb_char(&w->sb, '\\');
        jinja_sb_char(&w->sb, (unsigned char)known[1]);
    } else if (c < 0x10000) {
        write_code_unit(w, c);
    } else {
        write_code_unit(w, 0xD800 + ((c - 0x10000) >> 10));
        write_code_unit(w, 0xDC00 + ((c - 0x10000) & 0x3FF));
    }
}

static bool needs_escape(const struct writer *w, unsigned char byte)
{
    return byte < 0x20 || byte == '"' || byte == '\\' || (w->style->ascii && byte >= 0x7F);
}

static void write_string(struct writer *w, const struct jinja_string *s)
{
    jinja_sb_text(&w->sb, "\"");
    for (size_t at = 0; at < s->len;) {
        size_t run = at;
        while (run < s->len && !needs_escape(w, (unsigned char)s->data[run]))
            run++;
        jinja_sb_add(&w->sb, s->data + at, run - at);
        at = run;
        if (at == s->len)
            break;
        size_t n;
        uint32_t c = jinja_str_char(s, at, &n);
        write_escape(w, c);
        at += n;
    }
    jinja_sb_text(&w->sb, "\"");
}

static void write_line(struct writer *w)
{
    if (!w->style->pretty)
        return;
    jinja_sb_text(&w->sb, "\n");
    for (size_t i = 0; i < w->level; i++)
        jinja_sb_str(&w->sb, w->style->indent);
}

static void write_list(struct writer *w, const struct jinja_list *l)
{
    jinja_sb_text(&w->sb, "[");
    w->level++;
    for (size_t i = 0; i < l->len; i++) {
        if (i)
            jinja_sb_str(&w->sb, w->style->item_separator);
        write_line(w);
        write_value(w, l->items[i]);
    }
    w->level--;
    if (l->len)
        write_line(w);
    jinja_sb_text(&w->sb, "]");
}

static void write_number(struct writer *w, struct jinja_value v)
{
    if (v.kind == JINJA_FLOAT && !isfinite(v.as.real))
        jinja_sb_text(&w->sb, isnan(v.as.real) ? "NaN" : v.as.real < 0 ? "-Infinity" : "Infinity");
    else
        jinja_sb_str(&w->sb, jinja_repr(w->env, v));
}

static void write_key(struct writer *w, struct jinja_value key)
{
    switch (key.kind) {
    case JINJA_STRING:
        write_string(w, key.as.string);
        return;
    case JINJA_NONE:
    case JINJA_BOOL:
    case JINJA_INT:
    case JINJA_FLOAT:
        jinja_sb_text(&w->sb, "\"");
        write_value(w, key);
        jinja_sb_text(&w->sb, "\"");
        return;
    default:
        jinja_fail(w->env, "keys must be str, int, float, bool or None, not %s",
                   jinja_type_name(key));
    }
}

static void write_dict(struct writer *w, const struct jinja_dict *d)
{
    struct jinja_list *order = NULL;
    if (w->style->sort_keys) {
        struct jinja_list *keys = jinja_list_new(w->env, d->len);
        order = jinja_list_new(w->env, d->len);
        for (size_t i = 0; i < d->len; i++) {
            jinja_list_push(w->env, keys, d->entries[i].key);
            jinja_list_push(w->env, order, jinja_int((int64_t)i));
        }
        order = jinja_sorted(w->env, order, keys, false);
    }
    jinja_sb_text(&w->sb, "{");
    w->level++;
    for (size_t i = 0; i < d->len; i++) {
        const struct jinja_entry *entry =
            &d->entries[order ? (size_t)order->items[i].as.integer : i];
        if (i)
            jinja_sb_str(&w->sb, w->style->item_separator);
        write_line(w);
        write_key(w, entry->key);
        jinja_sb_str(&w->sb, w->style->key_separator);
        write_value(w, entry->value);
    }
    w->level--;
    if (d->len)
        write_line(w);
    jinja_sb_text(&w->sb, "}");
}

static void write_value(struct writer *w, struct jinja_value v)
{
    jinja_charge(w->env, 1);
    jinja_enter(w->env);
    switch (v.kind) {
    case JINJA_NONE:
        jinja_sb_text(&w->sb, "null");
        break;
    case JINJA_BOOL:
        jinja_sb_text(&w->sb, v.as.boolean ? "true" : "false");
        break;
    case JINJA_INT:
    case JINJA_FLOAT:
        write_number(w, v);
        break;
    case JINJA_STRING:
        write_string(w, v.as.string);
        break;
    case JINJA_LIST:
    case JINJA_TUPLE:
        write_list(w, v.as.list);
        break;
    case JINJA_DICT:
        write_dict(w, v.as.dict);
        break;
    default:
        jinja_fail(w->env, "Object of type %s is not JSON serializable", jinja_type_name(v));
    }
    jinja_leave(w->env);
}

const struct jinja_string *jinja_to_json(struct jinja_env *e, struct jinja_value v,
                                         const struct jinja_json_style *style)
{
    struct writer w = { .env = e, .style = style };
    jinja_sb_init(&w.sb, e);
    write_value(&w, v);
    return jinja_sb_take(&w.sb);
}

static struct jinja_value from_array(struct jinja_env *e, const json_t *json)
{
    size_t n = json_array_size(json);
    struct jinja_list *l = jinja_list_new(e, n);
    for (size_t i = 0; i < n; i++)
        jinja_list_push(e, l, jinja_from_json(e, json_array_get(json, i)));
    return jinja_list_value(l);
}

static struct jinja_value from_object(struct jinja_env *e, const json_t *json)
{
    struct jinja_dict *d = jinja_dict_new(e, json_object_size(json));
    /* jansson's iterators take a plain pointer but do not change the object. */
    json_t *object = (json_t *)(uintptr_t)json;
    for (void *at = json_object_iter(object); at; at = json_object_iter_next(object, at)) {
        const char *key = json_object_iter_key(at);
        struct jinja_value value = jinja_from_json(e, json_object_iter_value(at));
        jinja_dict_set(e, d, jinja_string(jinja_str_view(e, key, strlen(key))), value);
    }
    return jinja_dict_value(d);
}

struct jinja_value jinja_from_json(struct jinja_env *e, const json_t *json)
{
    struct jinja_value v = jinja_none();
    jinja_charge(e, 1);
    jinja_enter(e);
    switch (json_typeof(json)) {
    case JSON_OBJECT:
        v = from_object(e, json);
        break;
    case JSON_ARRAY:
        v = from_array(e, json);
        break;
    case JSON_STRING:
        v = jinja_string(jinja_str_view(e, json_string_value(json), json_string_length(json)));
        break;
    case JSON_INTEGER:
        v = jinja_int(json_integer_value(json));
        break;
    case JSON_REAL:
        v = jinja_float(json_real_value(json));
        break;
    case JSON_TRUE:
    case JSON_FALSE:
        v = jinja_bool(json_is_true(json));
        break;
    case JSON_NULL:
        break;
    }
    jinja_leave(e);
    return v;
}
