/* jinja_methods.h - the tables of methods, each ending with a row without a name. */
#ifndef INFERD_ENGINE_TEXT_JINJA_METHODS_H
#define INFERD_ENGINE_TEXT_JINJA_METHODS_H

#include "engine/text/jinja_interp.h"

extern const struct jinja_builtin jinja_str_methods[];

/* Rows of it: jinja_str_split.c. */
struct jinja_value jinja_m_split(struct jinja_interp *in, struct jinja_call *c);
struct jinja_value jinja_m_rsplit(struct jinja_interp *in, struct jinja_call *c);
struct jinja_value jinja_m_splitlines(struct jinja_interp *in, struct jinja_call *c);
struct jinja_value jinja_m_partition(struct jinja_interp *in, struct jinja_call *c);
struct jinja_value jinja_m_rpartition(struct jinja_interp *in, struct jinja_call *c);

#endif
