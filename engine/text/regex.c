/* regex.c - compiling and scanning with PCRE2. */
#include "engine/text/regex.h"
#include "base/alloc.h"
#include "engine/text/unicode.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum {
    MAX_PATTERN_BYTES = 64 << 10,
    STEPS_BASE = 1 << 20, /* backtracking steps: enough for any sane pattern, */
    STEPS_PER_BYTE = 8,   /* and one gone wild ends in time */
    JIT_STACK_START = 1 << 20,
    JIT_STACK_MAX = 64 << 20 /* for one scan, only while a text needs it */
};

struct regex {
    pcre2_code *code;
    bool jit;
};

static bool compile_failed(int error, const char *pattern, size_t len, struct status *st)
{
    PCRE2_UCHAR message[160] = "";
    pcre2_get_error_message(error, message, sizeof message);
    return status_set(st, STATUS_UNSUPPORTED, "the pattern \"%.*s\" does not compile: %s",
                      len > 200 ? 200 : (int)len, pattern, (const char *)message);
}

static bool compile_translated(struct regex *r, const struct buf *translated, const char *pattern,
                               size_t len, struct status *st)
{
    int error;
    PCRE2_SIZE offset;
    pcre2_compile_context *context = pcre2_compile_context_create(NULL);
    pcre2_set_newline(context, PCRE2_NEWLINE_LF);
    pcre2_set_parens_nest_limit(context, 100);
    r->code = pcre2_compile((PCRE2_SPTR)buf_str(translated), translated->len,
                            PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C,
                            &error, &offset, context);
    pcre2_compile_context_free(context);
    if (!r->code)
        return compile_failed(error, pattern, len, st);
    /* Where the system forbids memory that is both writable and executable, matching is slower but
     * the same. */
    r->jit = pcre2_jit_compile(r->code, PCRE2_JIT_COMPLETE) == 0;
    return true;
}

bool regex_compile(const char *pattern, size_t len, struct regex **out, struct status *st)
{
    *out = NULL;
    if (len > MAX_PATTERN_BYTES)
        return status_set(st, STATUS_INVALID, "a pattern of %zu bytes; the limit is %d", len,
                          MAX_PATTERN_BYTES);
    struct buf translated;
    buf_init(&translated, 0);
    struct regex *r = xcalloc(1, sizeof *r);
    bool ok = regex_translate(pattern, len, &translated, st) &&
              compile_translated(r, &translated, pattern, len, st);
    buf_free(&translated);
    if (!ok) {
        regex_free(r);
        return false;
    }
    *out = r;
    return true;
}

void regex_free(struct regex *r)
{
    if (!r)
        return;
    pcre2_code_free(r->code);
    free(r);
}

/* Replaces characters PCRE2 may not know by older ones of the same kind and length; only the
 * offsets of matches are used, so the text itself is untouched. */
static void make_shadow(struct regex_scan *s)
{
    size_t i = 0;
    uint32_t c, stand_in = 0;
    while (i < s->len && stand_in == 0) {
        if ((unsigned char)s->subject[i] < 0xE0) {
            i += (unsigned char)s->subject[i] < 0xC0 ? 1 : 2;
            continue;
        }
        size_t n = unicode_next(s->subject, i, &c);
        stand_in = unicode_stand_in(c);
        i += n;
    }
    if (stand_in == 0)
        return;
    buf_clear(&s->shadow);
    for (i = 0; i < s->len;) {
        i += unicode_next(s->subject, i, &c);
        stand_in = unicode_stand_in(c);
        unicode_append(&s->shadow, stand_in ? stand_in : c);
    }
    s->subject = buf_str(&s->shadow);
}

void regex_scan_start(struct regex_scan *s, const struct regex *r, const char *subject, size_t len)
{
    if (s->regex != r) {
        regex_scan_free(s);
        s->match_data = pcre2_match_data_create_from_pattern(r->code, NULL);
        s->match_context = pcre2_match_context_create(NULL);
        pcre2_set_heap_limit(s->match_context, JIT_STACK_MAX / 1024);
        s->regex = r;
    }
    size_t steps = STEPS_BASE + len * STEPS_PER_BYTE;
    pcre2_set_match_limit(s->match_context, steps > UINT32_MAX ? UINT32_MAX : (uint32_t)steps);
    s->subject = subject;
    s->len = len;
    s->from = 0;
    s->last_end = SIZE_MAX;
    make_shadow(s);
}

static int match_once(struct regex_scan *s)
{
    const struct regex *r = s->regex;
    PCRE2_SPTR subject = (PCRE2_SPTR)s->subject;
    if (!r->jit)
        return pcre2_match(r->code, subject, s->len, s->from, PCRE2_NO_UTF_CHECK, s->match_data,
                           s->match_context);
    int rc = pcre2_jit_match(r->code, subject, s->len, s->from, 0, s->match_data, s->match_context);
    if (rc != PCRE2_ERROR_JIT_STACKLIMIT || s->jit_stack)
        return rc;
    s->jit_stack = pcre2_jit_stack_create(JIT_STACK_START, JIT_STACK_MAX, NULL);
    if (!s->jit_stack)
        return rc;
    pcre2_jit_stack_assign(s->match_context, NULL, s->jit_stack);
    return pcre2_jit_match(r->code, subject, s->len, s->from, 0, s->match_data, s->match_context);
}

int regex_scan_next(struct regex_scan *s, size_t *start, size_t *end, struct status *st)
{
    while (s->from <= s->len) {
        int rc = match_once(s);
        if (rc == PCRE2_ERROR_NOMATCH)
            return 0;
        if (rc < 0) {
            PCRE2_UCHAR message[160] = "";
            pcre2_get_error_message(rc, message, sizeof message);
            status_set(st, STATUS_INVALID, "the text cannot be split into words: %s; shorten it",
                       (const char *)message);
            return -1;
        }
        const PCRE2_SIZE *ovector = pcre2_get_ovector_pointer(s->match_data);
        *start = ovector[0];
        *end = ovector[1];
        if (*start == *end && *end == s->last_end) {
            /* An empty match right behind the one before does not count. */
            uint32_t c;
            s->from += s->from < s->len ? unicode_next(s->subject, s->from, &c) : 1;
            continue;
        }
        /* With \K a match may begin behind its end; it is taken as empty. */
        if (*start > *end)
            *start = *end;
        s->from = s->last_end = *end;
        return 1;
    }
    return 0;
}

void regex_scan_free(struct regex_scan *s)
{
    if (!s->regex)
        return;
    pcre2_match_data_free(s->match_data);
    pcre2_match_context_free(s->match_context);
    pcre2_jit_stack_free(s->jit_stack);
    buf_free(&s->shadow);
    memset(s, 0, sizeof *s);
}
