/* output_processor.h - a detokenizer plus stop strings.
 *
 * Text leaves only when it can no longer be the beginning of a stop string: at most
 * max(len(stop)) - 1 bytes are held back. Owned by one connection thread. */
#ifndef INFERD_ENGINE_TEXT_OUTPUT_PROCESSOR_H
#define INFERD_ENGINE_TEXT_OUTPUT_PROCESSOR_H

#include "engine/text/detokenizer.h"

struct output_processor_options {
    const int32_t *prompt_ids;
    size_t num_prompt_ids;
    const char *const *stop; /* [num_stop], UTF-8, none empty; must outlive the processor */
    int32_t num_stop;
    bool include_stop_str_in_output;
    bool skip_special_tokens;
    int32_t min_tokens; /* stop strings are not looked for before this many output tokens */
};

struct output_processor;

struct output_processor *output_processor_new(const struct tokenizer *t,
                                              const struct output_processor_options *options);
/* Appends the text that may leave now. Returns the index of the stop string that matched (the text
 * is cut before it, or after it with include_stop_str_in_output; later pushes are ignored), or -1.
 */
int32_t output_processor_push(struct output_processor *p, int32_t id, struct buf *out);
/* The sequence ended without a stop string: appends all that was held back. A match inside the
 * held text still counts and is returned. */
int32_t output_processor_finish(struct output_processor *p, struct buf *out);
/* Bytes of visible text handed out so far. */
size_t output_processor_text_len(const struct output_processor *p);
void output_processor_free(struct output_processor *p);

#endif
