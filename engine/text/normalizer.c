/* normalizer.c - one function per normalizer of the tokenizers library. */
#include "engine/text/normalizer.h"
#include "base/alloc.h"
#include "base/utf8.h"
#include "engine/text/byte_level.h"
#include "engine/text/charsmap.h"
#include "engine/text/json_field.h"
#include "engine/text/regex.h"
#include "engine/text/unicode.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

enum { MAX_STEPS = 64, MAX_DEPTH = 16 };

struct step;
typedef bool step_function(const struct step *s, const char *text, size_t len, struct buf *out,
                           struct status *st);

/* One normalizer; a Sequence is flattened into the list. */
struct step {
    step_function *run;
    enum unicode_form form;
    char *content, *pattern; /* owned */
    size_t content_len, pattern_len;
    struct regex *regex;
    struct charsmap charsmap;
    char *charsmap_blob; /* owned; the map points into it */
    bool strip_left, strip_right, clean_text, chinese, strip_accents, lowercase;
};

struct normalizer {
    struct step steps[MAX_STEPS];
    int num_steps;
};

/* --- the functions -------------------------------------------------------------------------- */

static bool run_form(const struct step *s, const char *text, size_t len, struct buf *out,
                     struct status *st)
{
    (void)st;
    unicode_normalize(s->form, text, len, out);
    return true;
}

static bool run_lowercase(const struct step *s, const char *text, size_t len, struct buf *out,
                          struct status *st)
{
    (void)s;
    (void)st;
    uint32_t c, low[2];
    for (size_t i = 0; i < len;) {
        i += unicode_next(text, i, &c);
        int n = unicode_lower(c, low);
        for (int k = 0; k < n; k++)
            unicode_append(out, low[k]);
    }
    return true;
}

static bool run_strip(const struct step *s, const char *text, size_t len, struct buf *out,
                      struct status *st)
{
    (void)st;
    size_t start = s->strip_left ? unicode_span(text, len, unicode_is_white_space) : 0;
    if (s->strip_right)
        len = start + unicode_trim(text + start, len - start, unicode_is_white_space);
    buf_append(out, text + start, len - start);
    return true;
}

/* Copies the text without the characters of a class. */
static void drop(const char *text, size_t len, bool (*in_class)(uint32_t), struct buf *out)
{
    uint32_t c;
    for (size_t i = 0; i < len;) {
        size_t n = unicode_next(text, i, &c);
        if (!in_class(c))
            buf_append(out, text + i, n);
        i += n;
    }
}

static bool run_strip_accents(const struct step *s, const char *text, size_t len, struct buf *out,
                              struct status *st)
{
    (void)s;
    (void)st;
    drop(text, len, unicode_is_combining_mark, out);
    return true;
}

static bool run_replace_string(const struct step *s, const char *text, size_t len, struct buf *out,
                               struct status *st)
{
    (void)st;
    while (len > 0 && s->pattern_len > 0) {
        const char *found = memmem(text, len, s->pattern, s->pattern_len);
        size_t n = found ? (size_t)(found - text) : len;
        buf_append(out, text, n);
        text += n;
        len -= n;
        if (found) {
            buf_append(out, s->content, s->content_len);
            text += s->pattern_len;
            len -= s->pattern_len;
        }
    }
    buf_append(out, text, len);
    return true;
}

static bool run_replace_regex(const struct step *s, const char *text, size_t len, struct buf *out,
                              struct status *st)
{
    struct regex_scan scan = { 0 };
    size_t done = 0, start, end;
    int found = 0;
    if (len > 0) {
        regex_scan_start(&scan, s->regex, text, len);
        while ((found = regex_scan_next(&scan, &start, &end, st)) > 0) {
            buf_append(out, text + done, start - done);
            buf_append(out, s->content, s->content_len);
            done = end;
        }
        regex_scan_free(&scan);
    }
    buf_append(out, text + done, len - done);
    return found == 0;
}

static bool run_prepend(const struct step *s, const char *text, size_t len, struct buf *out,
                        struct status *st)
{
    (void)st;
    if (len > 0)
        buf_append(out, s->content, s->content_len);
    buf_append(out, text, len);
    return true;
}

static bool run_byte_level(const struct step *s, const char *text, size_t len, struct buf *out,
                           struct status *st)
{
    (void)s;
    (void)st;
    byte_level_encode(text, len, out);
    return true;
}

static bool run_nmt(const struct step *s, const char *text, size_t len, struct buf *out,
                    struct status *st)
{
    (void)s;
    (void)st;
    uint32_t c;
    for (size_t i = 0; i < len;) {
        size_t n = unicode_next(text, i, &c);
        bool control = (c >= 1 && c <= 8) || c == 0xB || (c >= 0xE && c <= 0x1F) || c == 0x7F ||
                       c == 0x8F || c == 0x9F;
        bool space = c == 9 || c == 0xA || c == 0xC || c == 0xD || c == 0x1680 ||
                     (c >= 0x200B && c <= 0x200F) || c == 0x2028 || c == 0x2029 || c == 0x2581 ||
                     c == 0xFEFF || c == 0xFFFD;
        if (space)
            buf_append_char(out, ' ');
        else if (!control)
            buf_append(out, text + i, n);
        i += n;
    }
    return true;
}

/* The bounds of the library's test for Chinese characters, its slip at U+2B920 included. */
static bool is_chinese(uint32_t c)
{
    return (c >= 0x4E00 && c <= 0x9FFF) || (c >= 0x3400 && c <= 0x4DBF) ||
           (c >= 0x20000 && c <= 0x2A6DF) || (c >= 0x2A700 && c <= 0x2B73F) ||
           (c >= 0x2B740 && c <= 0x2B81F) || (c >= 0x2B920 && c <= 0x2CEAF) ||
           (c >= 0xF900 && c <= 0xFAFF) || (c >= 0x2F800 && c <= 0x2FA1F);
}

static void bert_characters(const struct step *s, const char *text, size_t len, struct buf *out)
{
    uint32_t c;
    for (size_t i = 0; i < len;) {
        size_t n = unicode_next(text, i, &c);
        bool line = c == '\t' || c == '\n' || c == '\r';
        if (s->clean_text && !line && (c == 0 || c == 0xFFFD || unicode_is_bert_control(c))) {
            i += n;
            continue;
        }
        if (s->clean_text && (line || unicode_is_white_space(c))) {
            buf_append_char(out, ' ');
        } else if (s->chinese && is_chinese(c)) {
            buf_append_char(out, ' ');
            buf_append(out, text + i, n);
            buf_append_char(out, ' ');
        } else {
            buf_append(out, text + i, n);
        }
        i += n;
    }
}

static bool run_bert(const struct step *s, const char *text, size_t len, struct buf *out,
                     struct status *st)
{
    struct buf now, next;
    buf_init(&now, 0);
    buf_init(&next, 0);
    bert_characters(s, text, len, &now);
    if (s->strip_accents) {
        unicode_normalize(UNICODE_NFD, buf_str(&now), now.len, &next);
        buf_clear(&now);
        drop(buf_str(&next), next.len, unicode_is_nonspacing_mark, &now);
    }
    if (s->lowercase)
        run_lowercase(s, buf_str(&now), now.len, out, st);
    else
        buf_append(out, buf_str(&now), now.len);
    buf_free(&now);
    buf_free(&next);
    return true;
}

/* Replaces a chunk by what the charsmap has for its shortest known prefix - the library's rule. */
static bool replace_chunk(const struct step *s, const char *chunk, size_t len, struct buf *out)
{
    const char *replacement;
    if (charsmap_shortest(&s->charsmap, chunk, len, &replacement) == 0)
        return false;
    buf_append_str(out, replacement);
    return true;
}

/* Where the grapheme cluster that begins at text[i] ends. */
static size_t grapheme_end(const char *text, size_t i, size_t len)
{
    utf8proc_int32_t state = 0;
    uint32_t c, next;
    i += unicode_next(text, i, &c);
    while (i < len) {
        size_t n = unicode_next(text, i, &next);
        if (utf8proc_grapheme_break_stateful((utf8proc_int32_t)c, (utf8proc_int32_t)next, &state))
            break;
        i += n;
        c = next;
    }
    return i;
}

static bool run_precompiled(const struct step *s, const char *text, size_t len, struct buf *out,
                            struct status *st)
{
    (void)st;
    uint32_t c;
    for (size_t i = 0; i < len;) {
        size_t end = grapheme_end(text, i, len);
        if (end - i < 6 && replace_chunk(s, text + i, end - i, out)) {
            i = end;
            continue;
        }
        while (i < end) {
            size_t n = unicode_next(text, i, &c);
            if (!replace_chunk(s, text + i, n, out))
                buf_append(out, text + i, n);
            i += n;
        }
    }
    return true;
}

/* --- loading -------------------------------------------------------------------------------- */

static bool load_replace(struct step *s, const json_t *spec, struct status *st)
{
    bool is_regex;
    size_t len;
    const char *pattern = json_field_pattern(spec, &len, &is_regex, st);
    const char *content = json_field_need(spec, "content", &s->content_len, st);
    s->content = xstrndup(content, s->content_len);
    is_regex |= len == 0; /* the empty string matches everywhere */
    s->run = is_regex ? run_replace_regex : run_replace_string;
    if (st->code != STATUS_OK)
        return false;
    if (is_regex)
        return regex_compile(pattern, len, &s->regex, st);
    s->pattern = xstrndup(pattern, len);
    s->pattern_len = len;
    return true;
}

/* Base64, with padding, without line breaks. Returns the length, or -1. */
static ptrdiff_t decode_base64(const char *text, size_t len, char *out)
{
    uint32_t bits = 0;
    int num_bits = 0;
    ptrdiff_t n = 0;
    while (len > 0 && text[len - 1] == '=')
        len--;
    for (size_t i = 0; i < len; i++) {
        char c = text[i];
        int v = c >= 'A' && c <= 'Z'   ? c - 'A'
                : c >= 'a' && c <= 'z' ? c - 'a' + 26
                : c >= '0' && c <= '9' ? c - '0' + 52
                : c == '+'             ? 62
                : c == '/'             ? 63
                                       : -1;
        if (v < 0)
            return -1;
        bits = bits << 6 | (uint32_t)v;
        num_bits += 6;
        if (num_bits >= 8) {
            num_bits -= 8;
            out[n++] = (char)(bits >> num_bits & 0xFF);
        }
    }
    return n;
}

static bool load_precompiled(struct step *s, const json_t *spec, struct status *st)
{
    size_t len;
    const char *text = json_field_need(spec, "precompiled_charsmap", &len, st);
    if (st->code != STATUS_OK)
        return false;
    s->run = run_precompiled;
    s->charsmap_blob = xmalloc(len + 1);
    ptrdiff_t n = decode_base64(text, len, s->charsmap_blob);
    if (n < 0)
        return status_set(st, STATUS_INVALID, "\"precompiled_charsmap\" is not base64");
    if (!charsmap_load(&s->charsmap, s->charsmap_blob, (size_t)n, st))
        return false;
    const char *r = s->charsmap.replacements;
    if (!utf8_valid(r, s->charsmap.replacements_len))
        return status_set(st, STATUS_INVALID,
                          "the replacements of the precompiled charsmap are not UTF-8");
    /* A value that points into the middle of a character would give broken text. */
    for (size_t i = 0; i < s->charsmap.num_units; i++) {
        uint32_t u = s->charsmap.units[i];
        if (u >> 31 && ((unsigned char)r[u & 0x7FFFFFFF] & 0xC0) == 0x80)
            return status_set(st, STATUS_INVALID,
                              "the precompiled charsmap points into the middle of a character");
    }
    return true;
}

static bool load_bert(struct step *s, const json_t *spec, struct status *st)
{
    s->run = run_bert;
    s->clean_text = json_field_bool(spec, "clean_text", true, st);
    s->chinese = json_field_bool(spec, "handle_chinese_chars", true, st);
    s->lowercase = json_field_bool(spec, "lowercase", true, st);
    s->strip_accents = json_field_bool(spec, "strip_accents", s->lowercase, st);
    return true;
}

static bool load_strip(struct step *s, const json_t *spec, struct status *st)
{
    s->run = run_strip;
    s->strip_left = json_field_bool(spec, "strip_left", true, st);
    s->strip_right = json_field_bool(spec, "strip_right", true, st);
    return true;
}

static bool load_prepend(struct step *s, const json_t *spec, struct status *st)
{
    s->run = run_prepend;
    const char *content = json_field_need(spec, "prepend", &s->content_len, st);
    s->content = xstrndup(content, s->content_len);
    return true;
}

static bool load_form(struct step *s, const json_t *spec, struct status *st)
{
    static const char *const names[] = { "NFC", "NFD", "NFKC", "NFKD" };
    (void)st;
    s->run = run_form;
    for (int i = 0; i < 4; i++) {
        if (strcmp(json_field_type(spec), names[i]) == 0)
            s->form = (enum unicode_form)i;
    }
    return true;
}

static bool load_plain(struct step *s, const json_t *spec, struct status *st)
{
    (void)s;
    (void)spec;
    (void)st;
    return true;
}

static const struct {
    const char *type;
    step_function *run;
    bool (*load)(struct step *s, const json_t *spec, struct status *st);
} KINDS[] = {
    { "NFC", run_form, load_form },
    { "NFD", run_form, load_form },
    { "NFKC", run_form, load_form },
    { "NFKD", run_form, load_form },
    { "Lowercase", run_lowercase, load_plain },
    { "Strip", run_strip, load_strip },
    { "StripAccents", run_strip_accents, load_plain },
    { "Replace", run_replace_string, load_replace },
    { "Prepend", run_prepend, load_prepend },
    { "Precompiled", run_precompiled, load_precompiled },
    { "Nmt", run_nmt, load_plain },
    { "BertNormalizer", run_bert, load_bert },
    { "ByteLevel", run_byte_level, load_plain },
};

static bool load_steps(struct normalizer *n, const json_t *spec, int depth, struct status *st)
{
    const char *type = json_field_type(spec);
    if (strcmp(type, "Sequence") == 0) {
        const json_t *list = json_object_get(spec, "normalizers");
        if (!json_is_array(list) || depth == MAX_DEPTH)
            return status_set(st, STATUS_INVALID, "the normalizer Sequence has no proper list");
        for (size_t i = 0; i < json_array_size(list); i++) {
            if (!load_steps(n, json_array_get(list, i), depth + 1, st))
                return false;
        }
        return true;
    }
    for (size_t k = 0; k < sizeof KINDS / sizeof *KINDS; k++) {
        if (strcmp(type, KINDS[k].type) != 0)
            continue;
        if (n->num_steps == MAX_STEPS)
            return status_set(st, STATUS_UNSUPPORTED, "more than %d normalizers", MAX_STEPS);
        struct step *s = &n->steps[n->num_steps++];
        s->run = KINDS[k].run;
        return KINDS[k].load(s, spec, st) && st->code == STATUS_OK;
    }
    return json_field_unknown("normalizer", spec, st);
}

bool normalizer_load(const json_t *spec, struct normalizer **out, struct status *st)
{
    *out = NULL;
    if (!spec || json_is_null(spec))
        return true;
    struct normalizer *n = xcalloc(1, sizeof *n);
    if (!load_steps(n, spec, 0, st)) {
        normalizer_free(n);
        return false;
    }
    *out = n;
    return true;
}

bool normalizer_run(const struct normalizer *n, const char *text, size_t len, struct buf *out,
                    struct status *st)
{
    if (!n || n->num_steps == 0) {
        buf_append(out, text, len);
        return true;
    }
    struct buf spare[2];
    buf_init(&spare[0], 0);
    buf_init(&spare[1], 0);
    bool ok = true;
    for (int i = 0; ok && i < n->num_steps; i++) {
        struct buf *to = i + 1 == n->num_steps ? out : &spare[i % 2];
        if (to != out)
            buf_clear(to);
        ok = n->steps[i].run(&n->steps[i], text, len, to, st);
        text = buf_str(to);
        len = to->len;
    }
    buf_free(&spare[0]);
    buf_free(&spare[1]);
    return ok;
}

void normalizer_free(struct normalizer *n)
{
    for (int i = 0; n && i < n->num_steps; i++) {
        struct step *s = &n->steps[i];
        free(s->content);
        free(s->pattern);
        free(s->charsmap_blob);
        charsmap_free(&s->charsmap);
        regex_free(s->regex);
    }
    free(n);
}
