/* pretokenizer.c - one function per pre-tokenizer of the tokenizers library. */
#include "engine/text/pretokenizer.h"
#include "base/alloc.h"
#include "base/utf8.h"
#include "engine/text/byte_level.h"
#include "engine/text/json_field.h"
#include "engine/text/unicode.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_DEPTH = 16 };

/* What becomes of a delimiter. */
enum behavior { REMOVED, ISOLATED, MERGED_WITH_PREVIOUS, MERGED_WITH_NEXT, CONTIGUOUS };

enum prepend { PREPEND_ALWAYS, PREPEND_FIRST, PREPEND_NEVER };

struct step;
typedef bool step_function(struct pretokenizer_run *r, int index, const char *text, size_t len,
                           bool at_start, struct status *st);

struct step {
    step_function *run;
    enum behavior behavior;
    bool invert;
    struct regex *regex; /* owned */
    char *literal;       /* owned: a String pattern, or Metaspace's replacement */
    size_t literal_len;
    bool (*in_class)(uint32_t); /* delimiters by class */
    uint32_t delimiter;
    bool add_prefix_space, raw_bytes;
    enum prepend prepend;
    bool split;
    int64_t length;
};

struct pretokenizer {
    struct step steps[PRETOKENIZER_MAX_STEPS];
    int num_steps;
};

static bool next(struct pretokenizer_run *r, int index, const char *text, size_t len, bool at_start,
                 struct status *st)
{
    if (len == 0)
        return true;
    if (!r->pretokenizer || index == r->pretokenizer->num_steps)
        return r->emit(r->context, text, len, st);
    return r->pretokenizer->steps[index].run(r, index, text, len, at_start, st);
}

/* --- splitting at delimiters ---------------------------------------------------------------- */

/* Turns a row of adjoining parts, each a delimiter or not, into pieces. */
struct splitter {
    struct pretokenizer_run *run;
    int index; /* of the step */
    const char *text;
    bool at_start, invert;
    enum behavior behavior;
    bool holds, previous; /* a piece is held back; the last part was a delimiter */
    size_t start, end;    /* of the piece held back */
};

static bool pass(struct splitter *s, size_t start, size_t end, struct status *st)
{
    return next(s->run, s->index + 1, s->text + start, end - start, s->at_start && start == 0, st);
}

static bool hand_over(struct splitter *s, struct status *st)
{
    bool held = s->holds;
    s->holds = false;
    return !held || pass(s, s->start, s->end, st);
}

static void hold(struct splitter *s, size_t start, size_t end)
{
    s->holds = true;
    s->start = start;
    s->end = end;
}

static bool part(struct splitter *s, size_t start, size_t end, bool is_match, struct status *st)
{
    bool delimiter = is_match != s->invert, previous = s->previous, joins = false;
    s->previous = delimiter;
    switch (s->behavior) {
    case REMOVED:
        return delimiter || pass(s, start, end, st);
    case ISOLATED:
        return pass(s, start, end, st);
    case MERGED_WITH_PREVIOUS:
        joins = delimiter && !previous;
        break;
    case CONTIGUOUS:
        joins = delimiter == previous;
        break;
    case MERGED_WITH_NEXT:
        joins = !delimiter && previous;
        break;
    }
    if (joins && s->holds) {
        s->end = end;
        return true;
    }
    if (!hand_over(s, st))
        return false;
    hold(s, start, end);
    return true;
}

static struct splitter splitter_of(struct pretokenizer_run *r, int index, const char *text,
                                   bool at_start)
{
    const struct step *step = &r->pretokenizer->steps[index];
    return (struct splitter){ .run = r,
                              .index = index,
                              .text = text,
                              .at_start = at_start,
                              .invert = step->invert,
                              .behavior = step->behavior };
}

static bool split_regex(struct pretokenizer_run *r, int index, const char *text, size_t len,
                        bool at_start, struct status *st)
{
    struct splitter s = splitter_of(r, index, text, at_start);
    struct regex_scan *scan = &r->scans[index];
    size_t done = 0, start, end;
    int found;
    regex_scan_start(scan, r->pretokenizer->steps[index].regex, text, len);
    while ((found = regex_scan_next(scan, &start, &end, st)) > 0) {
        if (done != start && !part(&s, done, start, false, st))
            return false;
        if (!part(&s, start, end, true, st))
            return false;
        done = end;
    }
    if (found < 0 || (done != len && !part(&s, done, len, false, st)))
        return false;
    return hand_over(&s, st);
}

static bool split_literal(struct pretokenizer_run *r, int index, const char *text, size_t len,
                          bool at_start, struct status *st)
{
    struct splitter s = splitter_of(r, index, text, at_start);
    const struct step *step = &r->pretokenizer->steps[index];
    size_t done = 0;
    const char *found;
    while (step->literal_len > 0 &&
           (found = memmem(text + done, len - done, step->literal, step->literal_len))) {
        size_t start = (size_t)(found - text);
        if (done != start && !part(&s, done, start, false, st))
            return false;
        done = start + step->literal_len;
        if (!part(&s, start, done, true, st))
            return false;
    }
    if (done != len && !part(&s, done, len, false, st))
        return false;
    return hand_over(&s, st);
}

static bool split_class(struct pretokenizer_run *r, int index, const char *text, size_t len,
                        bool at_start, struct status *st)
{
    struct splitter s = splitter_of(r, index, text, at_start);
    const struct step *step = &r->pretokenizer->steps[index];
    size_t done = 0;
    uint32_t c;
    for (size_t i = 0; i < len;) {
        size_t n = unicode_next(text, i, &c);
        if (step->in_class ? step->in_class(c) : c == step->delimiter) {
            if (done != i && !part(&s, done, i, false, st))
                return false;
            if (!part(&s, i, i + n, true, st))
                return false;
            done = i + n;
        }
        i += n;
    }
    if (done != len && !part(&s, done, len, false, st))
        return false;
    return hand_over(&s, st);
}

/* --- the others ----------------------------------------------------------------------------- */

/* Whitespace: runs of word characters, and runs of what is neither word nor white space. */
static bool run_whitespace(struct pretokenizer_run *r, int index, const char *text, size_t len,
                           bool at_start, struct status *st)
{
    uint32_t c;
    size_t start = 0;
    int current = 0; /* 0: white space, 1: word, 2: the rest */
    for (size_t i = 0; i < len;) {
        size_t n = unicode_next(text, i, &c);
        int kind = unicode_is_word(c) ? 1 : unicode_is_white_space(c) ? 0 : 2;
        if (kind != current) {
            if (current && !next(r, index + 1, text + start, i - start, at_start && start == 0, st))
                return false;
            start = i;
            current = kind;
        }
        i += n;
    }
    return !current || next(r, index + 1, text + start, len - start, at_start && start == 0, st);
}

static bool map_bytes(struct pretokenizer_run *r, int index, const char *text, size_t len,
                      bool at_start, struct status *st)
{
    if (r->pretokenizer->steps[index].raw_bytes)
        return next(r, index + 1, text, len, at_start, st);
    struct buf *b = &r->bufs[index];
    buf_clear(b);
    byte_level_encode(text, len, b);
    return next(r, index + 1, buf_str(b), b->len, at_start, st);
}

/* A ByteLevel is loaded as up to three steps: prefix space, GPT-2's pattern, bytes. */
static bool prefix_space(struct pretokenizer_run *r, int index, const char *text, size_t len,
                         bool at_start, struct status *st)
{
    if (text[0] == ' ')
        return next(r, index + 1, text, len, at_start, st);
    struct buf *b = &r->bufs[index];
    buf_clear(b);
    buf_append_char(b, ' ');
    buf_append(b, text, len);
    return next(r, index + 1, buf_str(b), b->len, at_start, st);
}

static bool run_metaspace(struct pretokenizer_run *r, int index, const char *text, size_t len,
                          bool at_start, struct status *st)
{
    const struct step *step = &r->pretokenizer->steps[index];
    struct buf *b = &r->bufs[index];
    buf_clear(b);
    bool marked = text[0] == ' ' ||
                  (len >= step->literal_len && memcmp(text, step->literal, step->literal_len) == 0);
    if (!marked &&
        (step->prepend == PREPEND_ALWAYS || (step->prepend == PREPEND_FIRST && at_start)))
        buf_append(b, step->literal, step->literal_len);
    while (len > 0) {
        const char *space = memchr(text, ' ', len);
        size_t n = space ? (size_t)(space - text) : len;
        buf_append(b, text, n);
        if (!space)
            break;
        buf_append(b, step->literal, step->literal_len);
        text += n + 1;
        len -= n + 1;
    }
    if (step->split)
        return split_literal(r, index, buf_str(b), b->len, at_start, st);
    return next(r, index + 1, buf_str(b), b->len, at_start, st);
}

static bool run_fixed_length(struct pretokenizer_run *r, int index, const char *text, size_t len,
                             bool at_start, struct status *st)
{
    int64_t length = r->pretokenizer->steps[index].length;
    for (size_t i = 0; i < len;) {
        size_t start = i;
        uint32_t c;
        for (int64_t k = 0; k < length && i < len; k++)
            i += unicode_next(text, i, &c);
        if (!next(r, index + 1, text + start, i - start, at_start && start == 0, st))
            return false;
    }
    return true;
}

/* --- loading -------------------------------------------------------------------------------- */

/* ByteLevel's own pattern, from GPT-2. */
static const char GPT2_PATTERN[] =
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+"
    "|\\s+(?!\\S)|\\s+";

static struct step *add_step(struct pretokenizer *p, step_function *run, struct status *st)
{
    if (p->num_steps == PRETOKENIZER_MAX_STEPS) {
        status_set(st, STATUS_UNSUPPORTED, "more than %d pre-tokenizer steps",
                   PRETOKENIZER_MAX_STEPS);
        return NULL;
    }
    struct step *s = &p->steps[p->num_steps++];
    s->run = run;
    return s;
}

static bool load_behavior(const json_t *spec, enum behavior missing, enum behavior *out,
                          struct status *st)
{
    static const char *const names[] = { "Removed", "Isolated", "MergedWithPrevious",
                                         "MergedWithNext", "Contiguous" };
    size_t len;
    const char *name = json_field_text(spec, "behavior", &len, st);
    *out = missing;
    if (!name)
        return true;
    for (int i = 0; i < 5; i++) {
        if (strcmp(name, names[i]) == 0) {
            *out = (enum behavior)i;
            return true;
        }
    }
    return status_set(st, STATUS_UNSUPPORTED, "the behavior \"%.40s\" of %s is not supported", name,
                      json_field_type(spec));
}

static bool load_split(struct pretokenizer *p, const json_t *spec, struct status *st)
{
    bool is_regex;
    size_t len;
    const char *pattern = json_field_pattern(spec, &len, &is_regex, st);
    /* An empty string matches everywhere, as the empty expression does. */
    is_regex |= len == 0;
    struct step *s = add_step(p, is_regex ? split_regex : split_literal, st);
    if (!s || st->code != STATUS_OK)
        return false;
    s->invert = json_field_bool(spec, "invert", false, st);
    if (!load_behavior(spec, REMOVED, &s->behavior, st))
        return false;
    if (is_regex)
        return regex_compile(pattern, len, &s->regex, st);
    s->literal = xstrndup(pattern, len);
    s->literal_len = len;
    return true;
}

static bool load_byte_level(struct pretokenizer *p, const json_t *spec, struct status *st)
{
    if (json_field_bool(spec, "add_prefix_space", true, st) && !add_step(p, prefix_space, st))
        return false;
    if (json_field_bool(spec, "use_regex", true, st)) {
        struct step *s = add_step(p, split_regex, st);
        if (!s)
            return false;
        s->behavior = ISOLATED;
        if (!regex_compile(GPT2_PATTERN, strlen(GPT2_PATTERN), &s->regex, st))
            return false;
    }
    return add_step(p, map_bytes, st) != NULL;
}

static bool load_prepend_scheme(struct step *s, const json_t *spec, struct status *st)
{
    static const char *const names[] = { "always", "first", "never" };
    size_t len;
    const char *scheme = json_field_text(spec, "prepend_scheme", &len, st);
    bool add = json_field_bool(spec, "add_prefix_space", true, st);
    s->prepend = PREPEND_ALWAYS;
    for (int i = 0; scheme && i < 3; i++) {
        if (strcmp(scheme, names[i]) == 0) {
            s->prepend = (enum prepend)i;
            scheme = NULL;
        }
    }
    if (scheme)
        return status_set(st, STATUS_UNSUPPORTED, "the prepend_scheme \"%.40s\" is not supported",
                          scheme);
    if (!add)
        s->prepend = PREPEND_NEVER;
    return true;
}

static bool load_metaspace(struct pretokenizer *p, const json_t *spec, struct status *st)
{
    struct step *s = add_step(p, run_metaspace, st);
    char bytes[4];
    uint32_t replacement = json_field_char(spec, "replacement", st);
    if (!s || st->code != STATUS_OK)
        return false;
    s->literal_len = (size_t)utf8_encode(replacement, bytes);
    s->literal = xstrndup(bytes, s->literal_len);
    s->behavior = MERGED_WITH_NEXT;
    s->split = json_field_bool(spec, "split", true, st);
    return load_prepend_scheme(s, spec, st);
}

static bool load_digits(struct pretokenizer *p, const json_t *spec, struct status *st)
{
    struct step *s = add_step(p, split_class, st);
    if (!s)
        return false;
    s->in_class = unicode_is_numeric;
    s->behavior = json_field_bool(spec, "individual_digits", false, st) ? ISOLATED : CONTIGUOUS;
    return true;
}

static bool load_punctuation(struct pretokenizer *p, const json_t *spec, struct status *st)
{
    struct step *s = add_step(p, split_class, st);
    if (!s)
        return false;
    s->in_class = unicode_is_punctuation;
    return load_behavior(spec, ISOLATED, &s->behavior, st);
}

static bool load_whitespace(struct pretokenizer *p, const json_t *spec, struct status *st)
{
    (void)spec;
    return add_step(p, run_whitespace, st) != NULL;
}

static bool load_whitespace_split(struct pretokenizer *p, const json_t *spec, struct status *st)
{
    (void)spec;
    struct step *s = add_step(p, split_class, st);
    if (!s)
        return false;
    s->in_class = unicode_is_white_space;
    s->behavior = REMOVED;
    return true;
}

static bool load_bert(struct pretokenizer *p, const json_t *spec, struct status *st)
{
    return load_whitespace_split(p, spec, st) && load_punctuation(p, spec, st);
}

static bool load_delimiter(struct pretokenizer *p, const json_t *spec, struct status *st)
{
    struct step *s = add_step(p, split_class, st);
    if (!s)
        return false;
    s->delimiter = json_field_char(spec, "delimiter", st);
    s->behavior = REMOVED;
    return true;
}

static bool load_fixed_length(struct pretokenizer *p, const json_t *spec, struct status *st)
{
    struct step *s = add_step(p, run_fixed_length, st);
    if (!s)
        return false;
    s->length = json_field_int(spec, "length", 5, st);
    return s->length > 0 || status_set(st, STATUS_INVALID, "\"length\" of FixedLength is below 1");
}

static const struct {
    const char *type;
    bool (*load)(struct pretokenizer *p, const json_t *spec, struct status *st);
} KINDS[] = {
    { "Split", load_split },
    { "ByteLevel", load_byte_level },
    { "Metaspace", load_metaspace },
    { "Digits", load_digits },
    { "Punctuation", load_punctuation },
    { "Whitespace", load_whitespace },
    { "WhitespaceSplit", load_whitespace_split },
    { "BertPreTokenizer", load_bert },
    { "CharDelimiterSplit", load_delimiter },
    { "FixedLength", load_fixed_length },
};

static bool load_steps(struct pretokenizer *p, const json_t *spec, int depth, struct status *st)
{
    const char *type = json_field_type(spec);
    if (strcmp(type, "Sequence") == 0) {
        const json_t *list = json_object_get(spec, "pretokenizers");
        if (!json_is_array(list) || depth == MAX_DEPTH)
            return status_set(st, STATUS_INVALID, "the pre-tokenizer Sequence has no proper list");
        for (size_t i = 0; i < json_array_size(list); i++) {
            if (!load_steps(p, json_array_get(list, i), depth + 1, st))
                return false;
        }
        return true;
    }
    for (size_t k = 0; k < sizeof KINDS / sizeof *KINDS; k++) {
        if (strcmp(type, KINDS[k].type) == 0)
            return KINDS[k].load(p, spec, st) && st->code == STATUS_OK;
    }
    return json_field_unknown("pre-tokenizer", spec, st);
}

bool pretokenizer_load(const json_t *spec, enum tristate add_prefix_space,
                       struct pretokenizer **out, struct status *st)
{
    *out = NULL;
    if (!spec || json_is_null(spec))
        return true;
    struct pretokenizer *p = xcalloc(1, sizeof *p);
    json_t *changed = NULL;
    if (add_prefix_space != UNSET && strcmp(json_field_type(spec), "ByteLevel") == 0) {
        changed = json_copy((json_t *)spec);
        json_object_set_new(changed, "add_prefix_space", json_boolean(add_prefix_space == YES));
        spec = changed;
    }
    bool ok = load_steps(p, spec, 0, st);
    json_decref(changed);
    if (!ok) {
        pretokenizer_free(p);
        return false;
    }
    *out = p;
    return true;
}

void pretokenizer_free(struct pretokenizer *p)
{
    for (int i = 0; p && i < p->num_steps; i++) {
        regex_free(p->steps[i].regex);
        free(p->steps[i].literal);
    }
    free(p);
}

bool pretokenizer_take_raw_bytes(struct pretokenizer *p)
{
    int num_maps = 0;
    for (int i = 0; p && i < p->num_steps; i++)
        num_maps += p->steps[i].run == map_bytes;
    if (num_maps != 1 || p->steps[p->num_steps - 1].run != map_bytes)
        return false;
    p->steps[p->num_steps - 1].raw_bytes = true;
    return true;
}

bool pretokenizer_feed(struct pretokenizer_run *r, const char *text, size_t len, bool at_start,
                       struct status *st)
{
    return next(r, 0, text, len, at_start, st);
}

void pretokenizer_run_free(struct pretokenizer_run *r)
{
    for (int i = 0; r->pretokenizer && i < r->pretokenizer->num_steps; i++) {
        regex_scan_free(&r->scans[i]);
        buf_free(&r->bufs[i]);
    }
}
