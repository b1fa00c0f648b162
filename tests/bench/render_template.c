/* render_template.c - the Jinja interpreter on the command line, for measuring and for comparing.
 *
 *   render_template TEMPLATE VARIABLES [REPEATS]   renders the file with the JSON object of the
 *                                                  other; prints the bytes, and the best CPU
 *                                                  times in microseconds to parse and to render
 *   render_template --lines                        answers JSON lines on standard input:
 *     {"template": T, "variables": {...}}            -> {"text": T} or {"error": message}
 *
 * strftime_now answers for 2026-01-02 03:04:05, local time. */
#include "tests/bench/cpu_clock.h"
#include "engine/text/jinja.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static int64_t fixed_time(void)
{
    struct tm tm = {
        .tm_year = 126, .tm_mday = 2, .tm_hour = 3, .tm_min = 4, .tm_sec = 5, .tm_isdst = -1
    };
    return mktime(&tm);
}

static int fail(const char *message)
{
    fprintf(stderr, "render_template: %s\n", message);
    return 1;
}

static json_t *answer(const char *source, size_t len, const json_t *variables)
{
    int64_t now = fixed_time();
    const struct jinja_render_options options = { .now_unix_s = &now };
    struct jinja_template *t;
    struct status st = { 0 };
    if (!jinja_parse(source, len, &t, &st))
        return json_pack("{s:s}", "error", st.message);
    struct buf out;
    buf_init(&out, 0);
    json_t *reply = jinja_render(t, variables, &options, &out, &st)
                        ? json_pack("{s:o}", "text", json_stringn(buf_str(&out), out.len))
                        : json_pack("{s:s}", "error", st.message);
    buf_free(&out);
    jinja_free(t);
    return reply;
}

static int serve(void)
{
    char *line = NULL;
    size_t cap = 0;
    ssize_t len;
    while ((len = getline(&line, &cap, stdin)) > 0) {
        json_error_t error;
        json_t *request = json_loadb(line, (size_t)len, JSON_ALLOW_NUL, &error);
        if (!request)
            return fail(error.text);
        const json_t *source = json_object_get(request, "template");
        json_t *reply = answer(json_string_value(source), json_string_length(source),
                               json_object_get(request, "variables"));
        json_dumpf(reply, stdout, JSON_COMPACT);
        putchar('\n');
        fflush(stdout);
        json_decref(reply);
        json_decref(request);
    }
    free(line);
    return 0;
}

static double microseconds_since(double start)
{
    return (clock_cpu_seconds() - start) * 1e6;
}

static int measure(const char *source, size_t len, const json_t *variables, int repeats)
{
    int64_t now = fixed_time();
    const struct jinja_render_options options = { .now_unix_s = &now };
    struct jinja_template *t = NULL;
    struct status st = { 0 };
    struct buf out;
    double parse = 1e30, render = 1e30;
    buf_init(&out, 0);
    for (int r = 0; r < repeats; r++) {
        jinja_free(t);
        double start = clock_cpu_seconds();
        if (!jinja_parse(source, len, &t, &st))
            return fail(st.message);
        double parsed = microseconds_since(start);
        buf_clear(&out);
        start = clock_cpu_seconds();
        if (!jinja_render(t, variables, &options, &out, &st))
            return fail(st.message);
        double rendered = microseconds_since(start);
        parse = parsed < parse ? parsed : parse;
        render = rendered < render ? rendered : render;
    }
    printf("%zu %.1f %.1f\n", out.len, parse, render);
    jinja_free(t);
    buf_free(&out);
    return 0;
}

static char *read_file(const char *path, size_t *len)
{
    FILE *f = fopen(path, "rb");
    if (!f) {
        perror(path);
        exit(1);
    }
    char *text = malloc(JINJA_MAX_SOURCE_BYTES + 1);
    *len = fread(text, 1, JINJA_MAX_SOURCE_BYTES, f);
    text[*len] = '\0';
    fclose(f);
    return text;
}

int main(int argc, char **argv)
{
    if (argc == 2 && strcmp(argv[1], "--lines") == 0)
        return serve();
    if (argc != 3 && argc != 4)
        return fail("usage: render_template TEMPLATE VARIABLES [REPEATS] | --lines");
    size_t len;
    char *source = read_file(argv[1], &len);
    json_error_t error;
    json_t *variables = json_load_file(argv[2], 0, &error);
    if (!variables)
        return fail(error.text);
    int rc = measure(source, len, variables, argc == 4 ? atoi(argv[3]) : 1000);
    json_decref(variables);
    free(source);
    return rc;
}
