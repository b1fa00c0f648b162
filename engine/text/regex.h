/* regex.h - the regular expressions of tokenizer.json, written for Oniguruma, run by PCRE2.
 *
 * The pattern is translated (regex_translate.c), so that it means to PCRE2 what it means to the
 * tokenizers library. A compiled pattern is immutable and safe on any thread; a scan belongs to
 * one. */
#ifndef INFERD_ENGINE_TEXT_REGEX_H
#define INFERD_ENGINE_TEXT_REGEX_H

#include "base/buf.h"
#include "base/status.h"
#include <stddef.h>

struct regex;

bool regex_compile(const char *pattern, size_t len, struct regex **out, struct status *st);
void regex_free(struct regex *r);

/* Appends PCRE2's form of an Oniguruma pattern. For regex_compile and its tests. */
bool regex_translate(const char *pattern, size_t len, struct buf *out, struct status *st);

/* Room to match in, kept over many subjects. Zero-initialise; free with regex_scan_free. */
struct regex_scan {
    const struct regex *regex;
    void *match_data, *match_context, *jit_stack; /* PCRE2's */
    struct buf shadow; /* the subject with stand-ins for characters PCRE2 may not know */
    const char *subject;
    size_t len, from, last_end; /* last_end: end of the match before, SIZE_MAX: none yet */
};

/* Starts over on a subject (valid UTF-8, which must stay until the scan ends). */
void regex_scan_start(struct regex_scan *s, const struct regex *r, const char *subject, size_t len);
/* The next match, never overlapping the one before: 1, or 0 when there is none. -1: PCRE2 gave up
 * (memory or time out of bounds); `st` says so, and nothing may be concluded about the text. */
int regex_scan_next(struct regex_scan *s, size_t *start, size_t *end, struct status *st);
void regex_scan_free(struct regex_scan *s);

#endif
