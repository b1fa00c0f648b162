/* pretokenizer.h - the "pre_tokenizer" of tokenizer.json: cuts normalized text into the words that
 * the model encodes one by one.
 *
 * Immutable once loaded, safe on any thread; a run belongs to one. Steps of a Sequence hand pieces
 * on one at a time: no list of words is ever built. */
#ifndef INFERD_ENGINE_TEXT_PRETOKENIZER_H
#define INFERD_ENGINE_TEXT_PRETOKENIZER_H

#include "base/buf.h"
#include "base/status.h"
#include "engine/text/regex.h"
#include "engine/text/tokenizer_config.h"
#include <jansson.h>
#include <stddef.h>

enum { PRETOKENIZER_MAX_STEPS = 16 };

struct pretokenizer;

/* `spec` is the JSON value; null gives *out == NULL: the text is one word. `add_prefix_space`
 * overrides a ByteLevel that stands alone, as transformers does. A component that is not known is
 * an error that names it. */
bool pretokenizer_load(const json_t *spec, enum tristate add_prefix_space,
                       struct pretokenizer **out, struct status *st);
void pretokenizer_free(struct pretokenizer *p);
/* When the last step is ByteLevel, and no other is: makes it hand on the bytes themselves instead
 * of the characters that stand for them, and returns true. */
bool pretokenizer_take_raw_bytes(struct pretokenizer *p);

/* One word; false stops the run. */
typedef bool pretokenizer_emit(void *context, const char *word, size_t len, struct status *st);

/* Room to work in, kept over many texts. Zero-initialise, set the first three. */
struct pretokenizer_run {
    const struct pretokenizer *pretokenizer; /* may be NULL */
    pretokenizer_emit *emit;
    void *context;
    struct regex_scan scans[PRETOKENIZER_MAX_STEPS];
    struct buf bufs[PRETOKENIZER_MAX_STEPS];
};

/* Cuts one text. `at_start`: it is the beginning of what the user wrote. */
bool pretokenizer_feed(struct pretokenizer_run *r, const char *text, size_t len, bool at_start,
                       struct status *st);
void pretokenizer_run_free(struct pretokenizer_run *r);

#endif
