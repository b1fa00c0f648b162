/* jinja_methods.h - the tables of methods, each ending with a row without a name. */
#ifndef INFERD_ENGINE_TEXT_JINJA_METHODS_H
#define INFERD_ENGINE_TEXT_JINJA_METHODS_H

#include "engine/text/jinja_interp.h"

extern const struct jinja_builtin jinja_str_methods[];

#endif
