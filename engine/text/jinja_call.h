/* jinja_call.h - how a template calls something: arguments, and what is written in C.
 *
 * Filters, tests, global functions and methods are rows of one shape. A row with `params` gets its
 * arguments bound by name into `arg` (MISSING where not given); a row without takes them as they
 * came. */
#ifndef INFERD_ENGINE_TEXT_JINJA_CALL_H
#define INFERD_ENGINE_TEXT_JINJA_CALL_H

#include "engine/text/jinja_value.h"

struct jinja_interp;

enum { JINJA_MAX_PARAMS = 6 };

struct jinja_kwarg {
    const struct jinja_string *name;
    struct jinja_value value;
};

struct jinja_args {
    struct jinja_value *pos;
    size_t num_pos;
    struct jinja_kwarg *kw;
    size_t num_kw;
};

struct jinja_call {
    struct jinja_value self; /* what is filtered or tested, or the object of the method */
    const struct jinja_args *args;
    struct jinja_value arg[JINJA_MAX_PARAMS];
    const struct jinja_builtin *builtin;
};

struct jinja_builtin {
    const char *name;
    const char *params; /* "!needed optional ..."; NULL: the row takes `args` itself */
    struct jinja_value (*run)(struct jinja_interp *in, struct jinja_call *c);
};

struct jinja_function {
    const struct jinja_builtin *builtin;
    struct jinja_value self; /* MISSING for a global */
};

/* NULL where there is none of that name. */
const struct jinja_builtin *jinja_find_filter(const struct jinja_string *name);
const struct jinja_builtin *jinja_find_test(const struct jinja_string *name);
const struct jinja_builtin *jinja_find_global(const struct jinja_string *name);

struct jinja_value jinja_function_value(struct jinja_env *e, const struct jinja_builtin *builtin,
                                        struct jinja_value self);
struct jinja_value jinja_call_builtin(struct jinja_interp *in, const struct jinja_builtin *builtin,
                                      struct jinja_value self, const struct jinja_args *args);
struct jinja_value jinja_call_value(struct jinja_interp *in, struct jinja_value callee,
                                    const struct jinja_args *args);
/* A test's answer. */
bool jinja_call_test(struct jinja_interp *in, const struct jinja_builtin *test,
                     struct jinja_value value, const struct jinja_args *args);

/* A call put off until its result, a list, is walked. */
struct jinja_lazy {
    struct jinja_interp *in;
    struct jinja_list *(*run)(struct jinja_interp *in, struct jinja_call *c);
    struct jinja_call call;
};

/* A generator over what `run` gives for `c`. */
struct jinja_value jinja_generator(struct jinja_interp *in, const struct jinja_call *c,
                                   struct jinja_list *(*run)(struct jinja_interp *in,
                                                             struct jinja_call *c));
void jinja_force(struct jinja_iterator *it);

/* Arguments as C wants them; an error names the function. A missing one gives the default. */
int64_t jinja_arg_int(struct jinja_interp *in, const struct jinja_call *c, int i, int64_t missing);
bool jinja_arg_bool(const struct jinja_call *c, int i, bool missing);
const struct jinja_string *jinja_arg_str(struct jinja_interp *in, const struct jinja_call *c, int i,
                                         const char *missing);
/* Whether argument i was given and is not None. */
bool jinja_arg_given(const struct jinja_call *c, int i);

#endif
