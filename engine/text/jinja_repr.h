/* jinja_repr.h - values as text: str(), repr() and JSON, and JSON as values. */
#ifndef INFERD_ENGINE_TEXT_JINJA_REPR_H
#define INFERD_ENGINE_TEXT_JINJA_REPR_H

#include "engine/text/jinja_value.h"
#include <jansson.h>

enum { JINJA_FLOAT_CHARS = 32 };

/* Python's repr of a float: the shortest decimal that reads back the same. */
void jinja_float_repr(double d, char out[JINJA_FLOAT_CHARS]);
/* str(v): what printing gives. A string is given back as it is. */
const struct jinja_string *jinja_to_str(struct jinja_env *e, struct jinja_value v);
const struct jinja_string *jinja_repr(struct jinja_env *e, struct jinja_value v);

struct jinja_json_style {
    bool ascii, sort_keys, pretty;
    const struct jinja_string *indent; /* of one level, where pretty */
    const struct jinja_string *item_separator, *key_separator;
};

/* json.dumps; fails where a value has no JSON form. */
const struct jinja_string *jinja_to_json(struct jinja_env *e, struct jinja_value v,
                                         const struct jinja_json_style *style);
/* Texts are shared with `json`, which must outlive the value. */
struct jinja_value jinja_from_json(struct jinja_env *e, const json_t *json);

/* Items by their keys, stable, by merging; `reverse` keeps equal ones in order. */
struct jinja_list *jinja_sorted(struct jinja_env *e, const struct jinja_list *items,
                                const struct jinja_list *keys, bool reverse);

#endif
