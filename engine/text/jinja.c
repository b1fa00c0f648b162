/* jinja.c - the doors: parse a source, render a template, each inside its own limits. */
#include "engine/text/jinja.h"
#include "engine/text/jinja_interp.h"
#include "engine/text/jinja_lexer.h"
#include "engine/text/jinja_parser.h"
#include "engine/text/jinja_repr.h"
#include "base/alloc.h"
#include "base/utf8.h"

#include <stdlib.h>
#include <string.h>

/* A parse costs about 300 bytes per token, so this is never met by an honest template. */
#define PARSE_MEMORY_BYTES ((size_t)512 << 20)
#define PARSE_STEPS        UINT64_C(100000000)

/* Line ends become \n, and one at the very end goes, as Jinja reads its sources. */
static void copy_source(struct jinja_template *t, const char *source, size_t len)
{
    char *text = jinja_alloc(&t->env, len + 1);
    size_t n = 0;
    for (size_t i = 0; i < len; i++) {
        if (source[i] == '\r' && i + 1 < len && source[i + 1] == '\n')
            continue;
        text[n++] = source[i] == '\r' ? '\n' : source[i];
    }
    if (n > 0 && text[n - 1] == '\n')
        n--;
    t->source = text;
    t->source_len = n;
}

/* Nothing between setjmp and longjmp changes what is read after it. */
static bool guarded_parse(struct jinja_template *t, const char *source, size_t len)
{
    if (setjmp(t->env.exit))
        return false;
    copy_source(t, source, len);
    jinja_parse_template(t);
    jinja_check_template(t);
    return true;
}

bool jinja_parse(const char *source, size_t len, struct jinja_template **out, struct status *st)
{
    *out = NULL;
    if (len > JINJA_MAX_SOURCE_BYTES)
        return status_set(st, STATUS_INVALID, "the template has %zu bytes; at most %zu are taken",
                          len, JINJA_MAX_SOURCE_BYTES);
    if (!utf8_valid(source, len))
        return status_set(st, STATUS_INVALID, "the template is not UTF-8 text");
    struct jinja_template *t = xcalloc(1, sizeof *t);
    jinja_env_init(&t->env, PARSE_MEMORY_BYTES, PARSE_STEPS, JINJA_DEFAULT_MAX_DEPTH, st);
    if (!guarded_parse(t, source, len)) {
        jinja_free(t);
        return false;
    }
    t->env.st = NULL; /* the caller's; nothing fails on this environment from here on */
    *out = t;
    return true;
}

void jinja_free(struct jinja_template *t)
{
    if (!t)
        return;
    jinja_env_free(&t->env);
    free(t);
}

static bool guarded_render(struct jinja_interp *in, const json_t *variables, struct jinja_sb *out)
{
    if (setjmp(in->env.exit))
        return false;
    jinja_sb_init(out, &in->env);
    struct jinja_value v = variables ? jinja_from_json(&in->env, variables) : jinja_none();
    in->variables = v.kind == JINJA_DICT ? v.as.dict : jinja_dict_new(&in->env, 0);
    jinja_run_template(in);
    return true;
}

bool jinja_render(const struct jinja_template *t, const json_t *variables,
                  const struct jinja_render_options *options, struct buf *out, struct status *st)
{
    static const struct jinja_render_options defaults;
    const struct jinja_limits *limits = options ? &options->limits : &defaults.limits;
    struct jinja_sb text;
    struct jinja_interp *in = xcalloc(1, sizeof *in);
    jinja_env_init(&in->env,
                   limits->max_memory_bytes ? limits->max_memory_bytes
                                            : JINJA_DEFAULT_MAX_MEMORY_BYTES,
                   limits->max_steps ? limits->max_steps : JINJA_DEFAULT_MAX_STEPS,
                   limits->max_depth ? limits->max_depth : JINJA_DEFAULT_MAX_DEPTH, st);
    in->tmpl = t;
    in->out = in->main_out = &text;
    in->max_output_bytes =
        limits->max_output_bytes ? limits->max_output_bytes : JINJA_DEFAULT_MAX_OUTPUT_BYTES;
    in->now_unix_s = options ? options->now_unix_s : NULL;
    bool ok = guarded_render(in, variables, &text);
    if (ok) {
        buf_append(out, text.data, text.len);
        if (out->overflow)
            ok = status_set(st, STATUS_INVALID, "the rendered template does not fit its buffer");
    }
    jinja_env_free(&in->env);
    free(in);
    return ok;
}

static bool guarded_unescape(struct jinja_env *e, const char *text, size_t len, struct buf *out)
{
    if (setjmp(e->exit))
        return false;
    const struct jinja_string *s = jinja_unescape(e, text, len);
    buf_append(out, s->data, s->len);
    return true;
}

bool jinja_unescape_source(const char *text, size_t len, struct buf *out, struct status *st)
{
    struct jinja_env e;
    if (len > JINJA_MAX_SOURCE_BYTES || !utf8_valid(text, len))
        return status_set(st, STATUS_INVALID, "the template is not UTF-8 text of at most %zu bytes",
                          JINJA_MAX_SOURCE_BYTES);
    jinja_env_init(&e, 8 * JINJA_MAX_SOURCE_BYTES, JINJA_DEFAULT_MAX_STEPS, JINJA_DEFAULT_MAX_DEPTH,
                   st);
    bool ok = guarded_unescape(&e, text, len, out);
    jinja_env_free(&e);
    return ok;
}
