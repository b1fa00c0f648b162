/* post_processor.h - the "post_processor" of tokenizer.json, for one text: the ids that stand
 * before and behind it. Immutable once loaded. */
#ifndef INFERD_ENGINE_TEXT_POST_PROCESSOR_H
#define INFERD_ENGINE_TEXT_POST_PROCESSOR_H

#include "engine/text/tokenizer.h"
#include <jansson.h>

/* Zero-initialise; free with post_processor_free. */
struct post_processor {
    struct token_list before, behind;
};

/* `spec` is the JSON value; null adds nothing. A component that is not known is an error that names
 * it. */
bool post_processor_load(const json_t *spec, struct post_processor *p, struct status *st);
void post_processor_free(struct post_processor *p);

#endif
