/* jinja.h - Jinja2 templates as chat templates use them: parse once, render from any thread.
 *
 * The language is that of Jinja2 3.1 in its immutable sandbox with trim_blocks, lstrip_blocks, loop
 * controls and the `generation` tag, plus what transformers gives a chat template: raise_exception,
 * strftime_now and its own tojson. Values follow Python: strings are indexed by code point,
 * floats print as repr() does, dicts keep their order. Integers are 64 bits wide; what would
 * leave that range is an error. There is no loader, so extends, include and import are refused, and
 * so are the filters whose result is random.
 *
 * A parsed template is immutable: jinja_render may run on it from many threads at once. A template
 * is not trusted: parsing and rendering are bounded in time (steps), memory, depth and output.
 *
 * Errors are STATUS_INVALID. The message of raise_exception(...) is passed on as it is; any other
 * is worded as Python words it, followed by " (template line N)". */
#ifndef INFERD_ENGINE_TEXT_JINJA_H
#define INFERD_ENGINE_TEXT_JINJA_H

#include "base/buf.h"
#include "base/status.h"
#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct jinja_template;

struct jinja_limits {
    uint64_t max_steps;      /* about one per evaluated node, and per 16 bytes of text handled */
    size_t max_memory_bytes; /* of one render, without the output */
    size_t max_output_bytes;
    int32_t max_depth; /* nested expressions, statements and macro calls */
};

/* Where a field of the limits is 0, the default applies. */
#define JINJA_DEFAULT_MAX_STEPS        UINT64_C(50000000)
#define JINJA_DEFAULT_MAX_MEMORY_BYTES ((size_t)256 << 20)
#define JINJA_DEFAULT_MAX_OUTPUT_BYTES ((size_t)64 << 20)
#define JINJA_DEFAULT_MAX_DEPTH        1000
#define JINJA_MAX_SOURCE_BYTES         ((size_t)1 << 20)

struct jinja_render_options {
    const int64_t *now_unix_s; /* what strftime_now shows, in local time; NULL: the clock */
    struct jinja_limits limits;
};

/* The source is copied. `st` names the line at fault. */
bool jinja_parse(const char *source, size_t len, struct jinja_template **out, struct status *st);
void jinja_free(struct jinja_template *t);

/* Appends the rendered text to `out`. `variables` is an object (or NULL) that must not change
 * meanwhile. On failure nothing is appended. `options` may be NULL. */
bool jinja_render(const struct jinja_template *t, const json_t *variables,
                  const struct jinja_render_options *options, struct buf *out, struct status *st);

/* Appends `text` with the escapes of Python's string literals resolved (\n, \u00e9, ...), as a
 * template given on a command line is read. */
bool jinja_unescape_source(const char *text, size_t len, struct buf *out, struct status *st);

#endif
