/* jinja_loop.h - what the interpreter makes that templates can hold: macros and loops. */
#ifndef INFERD_ENGINE_TEXT_JINJA_LOOP_H
#define INFERD_ENGINE_TEXT_JINJA_LOOP_H

#include "engine/text/jinja_ast.h"

/* The variables of one scope; looked up outwards. */
struct jinja_scope {
    struct jinja_scope *parent;
    struct jinja_var {
        const struct jinja_string *name; /* interned */
        struct jinja_value value;
    } * vars;
    size_t len, cap;
    bool captured; /* a macro or loop refers to it: it must stay as it is */
};

struct jinja_macro {
    const struct jinja_node *node; /* MACRO or CALL_BLOCK */
    struct jinja_scope *scope;     /* where it was defined */
};

/* One running `for`: the variable `loop`. */
struct jinja_loop {
    const struct jinja_node *node;
    struct jinja_scope *scope; /* around the loop */
    struct jinja_cursor cursor;
    struct jinja_list *rest; /* what is left, once the length was asked of something unsized */
    size_t rest_at;
    int64_t index0; /* -1 before the first item */
    int64_t length; /* -1: not yet known */
    int64_t depth0;
    struct jinja_value current, before, after; /* `after`: MISSING, or an item taken early */
    struct jinja_value changed;                /* what loop.changed() saw last; MISSING: nothing */
};

const struct jinja_string *jinja_macro_name(const struct jinja_macro *m);

struct jinja_loop *jinja_loop_new(struct jinja_interp *in, const struct jinja_node *node,
                                  struct jinja_scope *scope, struct jinja_value over,
                                  int64_t depth0);
/* Moves to the next item that passes the loop's condition; false at the end. */
bool jinja_loop_next(struct jinja_interp *in, struct jinja_loop *l, struct jinja_value *item);
int64_t jinja_loop_length(struct jinja_interp *in, struct jinja_loop *l);
/* loop.<name>; false where it has no such attribute. */
bool jinja_loop_attr(struct jinja_interp *in, struct jinja_loop *l, const struct jinja_string *name,
                     struct jinja_value *out);

#endif
