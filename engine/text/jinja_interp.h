/* jinja_interp.h - the state of one render, and what the parts of the interpreter ask of each
 * other. One thread per render; the template is only read. */
#ifndef INFERD_ENGINE_TEXT_JINJA_INTERP_H
#define INFERD_ENGINE_TEXT_JINJA_INTERP_H

#include "engine/text/jinja_loop.h"

struct jinja_interp {
    struct jinja_env env;
    const struct jinja_template *tmpl;
    const struct jinja_dict *variables;
    struct jinja_sb *out; /* where printing goes: the output, or what captures it */
    struct jinja_sb *main_out;
    size_t max_output_bytes;
    const int64_t *now_unix_s;
    struct jinja_scope *root;
    struct jinja_value block_text; /* what the innermost filter of a filter block gets */
};

enum jinja_flow { JINJA_NEXT, JINJA_BREAK, JINJA_CONTINUE };

/* Statements. */
void jinja_run_template(struct jinja_interp *in);
enum jinja_flow jinja_exec(struct jinja_interp *in, struct jinja_scope *s,
                           const struct jinja_nodes *body);
struct jinja_value jinja_call_macro(struct jinja_interp *in, struct jinja_macro *m,
                                    const struct jinja_args *args);
/* loop(items) of a recursive loop: the text of the loop over `items`. */
struct jinja_value jinja_call_loop(struct jinja_interp *in, struct jinja_loop *l,
                                   struct jinja_value items);
void jinja_assign(struct jinja_interp *in, struct jinja_scope *s, const struct jinja_node *target,
                  struct jinja_value value);

/* Scopes. */
struct jinja_scope *jinja_scope_new(struct jinja_interp *in, struct jinja_scope *parent);
void jinja_scope_set(struct jinja_interp *in, struct jinja_scope *s,
                     const struct jinja_string *name, struct jinja_value value);

/* Expressions. */
struct jinja_value jinja_eval(struct jinja_interp *in, struct jinja_scope *s,
                              const struct jinja_node *n);
/* The value of `name` in `s` and outwards, the variables, the globals; MISSING if nowhere. */
struct jinja_value jinja_lookup(struct jinja_interp *in, const struct jinja_scope *s,
                                const struct jinja_string *name,
                                const struct jinja_builtin *global);
/* Calls n's callee with n's arguments; `caller` is MISSING or the macro of a call block. */
struct jinja_value jinja_eval_call(struct jinja_interp *in, struct jinja_scope *s,
                                   const struct jinja_node *n, struct jinja_value caller);

/* Operators, on values. */
struct jinja_value jinja_binary(struct jinja_interp *in, enum jinja_op op, struct jinja_value a,
                                struct jinja_value b);
struct jinja_value jinja_negate(struct jinja_interp *in, struct jinja_value v);
bool jinja_compare(struct jinja_interp *in, enum jinja_op op, struct jinja_value a,
                   struct jinja_value b);
bool jinja_contains(struct jinja_interp *in, struct jinja_value item, struct jinja_value in_what);
/* obj.name and obj[key]; undefined where there is none. */
struct jinja_value jinja_getattr(struct jinja_interp *in, struct jinja_value obj,
                                 const struct jinja_string *name);
struct jinja_value jinja_getitem(struct jinja_interp *in, struct jinja_value obj,
                                 struct jinja_value key);
/* obj[start:stop:step]; each bound is MISSING, None or an integer. */
struct jinja_value jinja_slice(struct jinja_interp *in, struct jinja_value obj,
                               const struct jinja_value bounds[3]);

/* Attributes that Python's own types have: methods. False where there is none. */
bool jinja_method(struct jinja_interp *in, struct jinja_value obj, const struct jinja_string *name,
                  struct jinja_value *out);

/* `text % values`, and text.format(...). */
struct jinja_value jinja_percent_format(struct jinja_interp *in, const struct jinja_string *format,
                                        struct jinja_value values);
struct jinja_value jinja_brace_format(struct jinja_interp *in, const struct jinja_string *format,
                                      const struct jinja_args *args);

const struct jinja_string *jinja_escape(struct jinja_interp *in, struct jinja_value v);

/* Shared by filters and methods. */
const struct jinja_string *jinja_str_upper(struct jinja_env *e, const struct jinja_string *s);
const struct jinja_string *jinja_str_lower(struct jinja_env *e, const struct jinja_string *s);
const struct jinja_string *jinja_str_capitalize(struct jinja_env *e, const struct jinja_string *s);
bool jinja_str_is_upper(const struct jinja_string *s);
bool jinja_str_is_lower(const struct jinja_string *s);
/* Without characters of `chars` (NULL: whitespace) at its sides; 1: left, 2: right, 3: both. */
const struct jinja_string *jinja_str_strip(struct jinja_env *e, const struct jinja_string *s,
                                           const struct jinja_string *chars, int sides);
const struct jinja_string *jinja_str_replace(struct jinja_env *e, const struct jinja_string *s,
                                             const struct jinja_string *from,
                                             const struct jinja_string *to, int64_t max);
struct jinja_list *jinja_str_splitlines(struct jinja_env *e, const struct jinja_string *s,
                                        bool keep_ends);
const struct jinja_string *jinja_str_pad(struct jinja_interp *in, const struct jinja_string *s,
                                         int64_t width, uint32_t fill, char align);
struct jinja_value jinja_join(struct jinja_interp *in, const struct jinja_string *separator,
                              const struct jinja_list *items);
/* `value`, or the error for an integer that left 64 bits. */
struct jinja_value jinja_checked_int(struct jinja_interp *in, bool overflow, int64_t value);
/* Starts capturing what is printed; the end gives it as a string. */
struct jinja_sb *jinja_capture_begin(struct jinja_interp *in, struct jinja_sb *sb);
const struct jinja_string *jinja_capture_end(struct jinja_interp *in, struct jinja_sb *before);

#endif
