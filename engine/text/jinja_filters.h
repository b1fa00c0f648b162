/* jinja_filters.h - the functions behind the table of filters, by the kind of value they take. */
#ifndef INFERD_ENGINE_TEXT_JINJA_FILTERS_H
#define INFERD_ENGINE_TEXT_JINJA_FILTERS_H

#include "engine/text/jinja_interp.h"

/* Texts: jinja_filters_text.c. */
struct jinja_value jinja_f_capitalize(struct jinja_interp *in, struct jinja_call *c);
struct jinja_value jinja_f_center(struct jinja_interp *in, struct jinja_call *c);
struct jinja_value jinja_f_escape(struct jinja_interp *in, struct jinja_call *c);
struct jinja_value jinja_f_forceescape(struct jinja_interp *in, struct jinja_call *c);
struct jinja_value jinja_f_format(struct jinja_interp *in, struct jinja_call *c);
struct jinja_value jinja_f_indent(struct jinja_interp *in, struct jinja_call *c);
struct jinja_value jinja_f_lower(struct jinja_interp *in, struct jinja_call *c);
struct jinja_value jinja_f_replace(struct jinja_interp *in, struct jinja_call *c);
struct jinja_value jinja_f_safe(struct jinja_interp *in, struct jinja_call *c);
struct jinja_value jinja_f_string(struct jinja_interp *in, struct jinja_call *c);
struct jinja_value jinja_f_striptags(struct jinja_interp *in, struct jinja_call *c);
struct jinja_value jinja_f_title(struct jinja_interp *in, struct jinja_call *c);
struct jinja_value jinja_f_tojson(struct jinja_interp *in, struct jinja_call *c);
struct jinja_value jinja_f_trim(struct jinja_interp *in, struct jinja_call *c);
struct jinja_value jinja_f_truncate(struct jinja_interp *in, struct jinja_call *c);
struct jinja_value jinja_f_upper(struct jinja_interp *in, struct jinja_call *c);
struct jinja_value jinja_f_urlencode(struct jinja_interp *in, struct jinja_call *c);
struct jinja_value jinja_f_wordcount(struct jinja_interp *in, struct jinja_call *c);
struct jinja_value jinja_f_xmlattr(struct jinja_interp *in, struct jinja_call *c);

/* Sequences and mappings: jinja_filters_seq.c. */
struct jinja_value jinja_f_batch(struct jinja_interp *in, struct jinja_call *c);
struct jinja_value jinja_f_dictsort(struct jinja_interp *in, struct jinja_call *c);
struct jinja_value jinja_f_first(struct jinja_interp *in, struct jinja_call *c);
struct jinja_value jinja_f_groupby(struct jinja_interp *in, struct jinja_call *c);
struct jinja_value jinja_f_items(struct jinja_interp *in, struct jinja_call *c);
struct jinja_value jinja_f_join(struct jinja_interp *in, struct jinja_call *c);
struct jinja_value jinja_f_last(struct jinja_interp *in, struct jinja_call *c);
struct jinja_value jinja_f_length(struct jinja_interp *in, struct jinja_call *c);
struct jinja_value jinja_f_list(struct jinja_interp *in, struct jinja_call *c);
struct jinja_value jinja_f_map(struct jinja_interp *in, struct jinja_call *c);
struct jinja_value jinja_f_max(struct jinja_interp *in, struct jinja_call *c);
struct jinja_value jinja_f_min(struct jinja_interp *in, struct jinja_call *c);
struct jinja_value jinja_f_reject(struct jinja_interp *in, struct jinja_call *c);
struct jinja_value jinja_f_rejectattr(struct jinja_interp *in, struct jinja_call *c);
struct jinja_value jinja_f_reverse(struct jinja_interp *in, struct jinja_call *c);
struct jinja_value jinja_f_select(struct jinja_interp *in, struct jinja_call *c);
struct jinja_value jinja_f_selectattr(struct jinja_interp *in, struct jinja_call *c);
struct jinja_value jinja_f_slice(struct jinja_interp *in, struct jinja_call *c);
struct jinja_value jinja_f_sort(struct jinja_interp *in, struct jinja_call *c);
struct jinja_value jinja_f_sum(struct jinja_interp *in, struct jinja_call *c);
struct jinja_value jinja_f_unique(struct jinja_interp *in, struct jinja_call *c);

#endif
