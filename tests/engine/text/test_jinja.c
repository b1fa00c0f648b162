/* test_jinja.c - the language, case by case, against what Jinja2 makes of the same templates; then
 * limits, errors and threads.
 *
 * The expected values are in jinja_cases.json, made by tests/golden/make_jinja_cases.py. */
#include "engine/text/jinja.h"

#include <pthread.h>
#include <stdarg.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <cmocka.h>

static int64_t fixed_now(void)
{
    struct tm tm = { .tm_year = 126, .tm_mday = 2, .tm_hour = 3, .tm_min = 4, .tm_sec = 5 };
    tm.tm_isdst = -1;
    return mktime(&tm);
}

/* The text, or NULL with the error in `st`. To be freed. */
static char *render(const char *source, size_t len, const json_t *variables,
                    const struct jinja_limits *limits, struct status *st)
{
    int64_t now = fixed_now();
    struct jinja_render_options options = { .now_unix_s = &now };
    struct jinja_template *t;
    struct buf out;
    if (limits)
        options.limits = *limits;
    status_clear(st);
    if (!jinja_parse(source, len, &t, st))
        return NULL;
    buf_init(&out, 0);
    bool ok = jinja_render(t, variables, &options, &out, st);
    jinja_free(t);
    if (ok)
        return buf_take(&out);
    assert_int_equal(out.len, 0);
    buf_free(&out);
    return NULL;
}

static bool same_text(const json_t *expected, const char *text)
{
    return json_is_string(expected) && strcmp(json_string_value(expected), text) == 0;
}

static int check_case(const json_t *c, const json_t *data)
{
    const json_t *template = json_object_get(c, "template"), *own = json_object_get(c, "variables");
    const char *message = json_string_value(json_object_get(c, "message"));
    struct status st;
    char *text = render(json_string_value(template), json_string_length(template), own ? own : data,
                        NULL, &st);
    bool ok = text ? same_text(json_object_get(c, "text"), text)
                   : json_object_get(c, "error") && st.code == STATUS_INVALID &&
                         (!message || strncmp(st.message, message, strlen(message)) == 0);
    if (!ok) {
        char *expected = json_dumps(c, JSON_ENSURE_ASCII);
        print_error("%s\n  got: %s\n", expected, text ? text : st.message);
        free(expected);
    }
    free(text);
    return !ok;
}

static void cases_equal_jinja2(void **state)
{
    (void)state;
    json_error_t error;
    json_t *file = json_load_file("tests/engine/text/jinja_cases.json", JSON_ALLOW_NUL, &error);
    if (!file)
        fail_msg("jinja_cases.json: %s", error.text);
    const json_t *cases = json_object_get(file, "cases");
    int wrong = 0;
    for (size_t i = 0; i < json_array_size(cases); i++)
        wrong += check_case(json_array_get(cases, i), json_object_get(file, "data"));
    print_message("%zu cases, %d differ\n", json_array_size(cases), wrong);
    assert_true(json_array_size(cases) >= 300);
    json_decref(file);
    assert_int_equal(wrong, 0);
}

static void expect_error(const char *source, const struct jinja_limits *limits, const char *part)
{
    struct status st;
    char *text = render(source, strlen(source), NULL, limits, &st);
    if (text || st.code != STATUS_INVALID || !strstr(st.message, part))
        fail_msg("%.80s: expected an error with '%s', got %.200s", source, part,
                 text ? text : st.message);
}

static void integers_that_leave_64_bits_are_errors(void **state)
{
    (void)state;
    static const char *const sources[] = {
        "{{ 9223372036854775807 + 1 }}",          "{{ -9223372036854775807 - 2 }}",
        "{{ 9223372036854775807 * 2 }}",          "{{ 2 ** 63 }}",
        "{{ 2 ** 9223372036854775807 }}",         "{{ 99999999999999999999 }}",
        "{{ (-9223372036854775807 - 1) // -1 }}", "{{ -(-9223372036854775807 - 1) }}",
        "{{ (-9223372036854775807 - 1) | abs }}", "{{ 1e300 | int }}",
        "{{ '99999999999999999999' | int }}",
    };
    for (size_t i = 0; i < sizeof sources / sizeof sources[0]; i++)
        expect_error(sources[i], NULL, "64");
    struct status st;
    char *text = render("{{ (-9223372036854775807 - 1) % -1 }}", 37, NULL, NULL, &st);
    assert_string_equal(text, "0");
    free(text);
}

static char *repeated(const char *start, const char *part, size_t times, const char *end)
{
    size_t n = strlen(part);
    char *text = malloc(strlen(start) + n * times + strlen(end) + 1), *p = stpcpy(text, start);
    for (size_t i = 0; i < times; i++, p += n)
        memcpy(p, part, n);
    strcpy(p, end);
    return text;
}

static void expect_error_repeated(const char *start, const char *part, size_t times,
                                  const char *end, const char *message)
{
    char *source = repeated(start, part, times, end);
    expect_error(source, NULL, message);
    free(source);
}

/* Runs in a thread with as little stack as a connection has. */
static void *try_nesting(void *arg)
{
    (void)arg;
    static const char deep[] = "recursion depth";
    expect_error_repeated("{{ ", "(", 100000, "", deep);
    expect_error_repeated("{{ ", "[", 100000, "", deep);
    expect_error_repeated("{{ ", "not ", 100000, "1 }}", deep);
    expect_error_repeated("{{ ", "-", 100000, "1 }}", deep);
    expect_error_repeated("{{ 1", " + 1", 100000, " }}", deep);
    expect_error_repeated("{{ 1", " if 1 else 1", 50000, " }}", deep);
    expect_error_repeated("{{ a", ".b", 100000, " }}", deep);
    expect_error_repeated("{{ a", " | d", 100000, " }}", deep);
    expect_error_repeated("{{ a", "()", 100000, " }}", deep);
    expect_error_repeated("", "{% if 1 %}", 50000, "", deep);
    expect_error_repeated("", "{% for x in y %}", 50000, "", deep);
    expect_error_repeated("{% set ", "(", 100000, "", deep);
    expect_error_repeated("{{ a is eq ", "a[b is eq ", 50000, "", deep);
    expect_error("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", NULL, deep);
    expect_error("{% macro m(a=m()) %}{% endmacro %}{{ m() }}", NULL, deep);
    expect_error("{% set ns = namespace(x=[]) %}{% for i in range(5000) %}{% set ns.x = [ns.x] %}"
                 "{% endfor %}{{ ns.x }}",
                 NULL, deep);
    expect_error("{% set ns = namespace(x=[]) %}{% for i in range(5000) %}{% set ns.x = [ns.x] %}"
                 "{% endfor %}{{ ns.x | tojson }}",
                 NULL, deep);
    expect_error("{% for x in [[1]] recursive %}{{ loop([[1]]) }}{% endfor %}", NULL, deep);
    return NULL;
}

static void nesting_is_bounded(void **state)
{
    (void)state;
    pthread_t thread;
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    assert_int_equal(pthread_attr_setstacksize(&attributes, 1 << 20), 0);
    assert_int_equal(pthread_create(&thread, &attributes, try_nesting, NULL), 0);
    pthread_join(thread, NULL);
    pthread_attr_destroy(&attributes);
}

static void work_memory_and_output_are_bounded(void **state)
{
    (void)state;
    struct jinja_limits few = { .max_steps = 100000 };
    struct jinja_limits small = { .max_memory_bytes = 1 << 20 };
    struct jinja_limits brief = { .max_output_bytes = 1000 };
    static const char steps[] = "limit of steps", memory[] = "of memory", output[] = "writes more";
    static const char loops[] = "{% for a in range(1000) %}{% for b in range(1000) %}{% for c in "
                                "range(1000) %}{% endfor %}{% endfor %}{% endfor %}";
    expect_error(loops, &few, steps);
    expect_error(loops, NULL, steps);
    expect_error("{% set a = 'x' * 100000 %}{% for i in range(1000) %}{% if a.find('y') %}"
                 "{% endif %}{% endfor %}",
                 &few, steps);
    expect_error("{{ 'x' * 10000000 }}", &small, memory);
    expect_error("{{ 'xy' * 9223372036854775807 }}", NULL, memory);
    expect_error("{{ [1] * 9223372036854775807 }}", NULL, memory);
    expect_error("{{ '%1000000d' % 1 }}{{ 'a'.ljust(9223372036854775807) }}", NULL, memory);
    expect_error("{{ 'a\nb' | indent(9223372036854775807) }}", NULL, memory);
    expect_error("{{ [1] | tojson(indent=9223372036854775807) }}", NULL, memory);
    expect_error("{% set ns = namespace(s='xxxxxxxx') %}{% for i in range(60) %}"
                 "{% set ns.s = ns.s + ns.s %}{% endfor %}",
                 NULL, memory);
    expect_error("{% for i in range(1000) %}xx{% endfor %}", &brief, output);
    expect_error("{{ '%99999999d' % 1 }}", NULL, "too large");
}

/* Text built piece by piece in a namespace, as templates do, must not cost its square. */
static void appending_is_linear(void **state)
{
    (void)state;
    struct jinja_limits limits = { .max_memory_bytes = 64 << 20 };
    struct status st;
    static const char source[] =
        "{% set ns = namespace(s='', l=[]) %}{% for i in range(50000) %}"
        "{% set ns.s = ns.s + 'some words ' %}{% set ns.l = ns.l + [i] %}{% endfor %}"
        "{{ ns.s | length }} {{ ns.l | length }} {{ ns.l[49999] }} {{ ns.s[-6:] }}";
    char *text = render(source, strlen(source), NULL, &limits, &st);
    if (!text)
        fail_msg("%s", st.message);
    assert_string_equal(text, "550000 50000 49999 words ");
    free(text);
}

static void errors_tell_the_line(void **state)
{
    (void)state;
    expect_error("a\nb\n{{ x.y.z }}", NULL, "'x' is undefined (template line 3)");
    expect_error("a\n\n{% if %}", NULL, "(template line 3)");
    expect_error("a\n{# c\n #}\n{{ 'x' | nope }}", NULL,
                 "No filter named 'nope'. (template line 4)");
    expect_error("\xff", NULL, "UTF-8");
    char *big = repeated("", "x", JINJA_MAX_SOURCE_BYTES + 1, "");
    expect_error(big, NULL, "bytes");
    free(big);
    struct status st;
    assert_null(render("\n{{ raise_exception('as it is') }}", 34, NULL, NULL, &st));
    assert_string_equal(st.message, "as it is");
}

static void text_with_nul_is_kept(void **state)
{
    (void)state;
    struct status st;
    struct jinja_template *t;
    struct buf out;
    json_t *v = json_pack("{s:o}", "s", json_stringn("a\0b", 3));
    assert_true(jinja_parse("<{{ s }}>{{ s | length }}", 25, &t, &st));
    buf_init(&out, 0);
    assert_true(jinja_render(t, v, NULL, &out, &st));
    assert_int_equal(out.len, 6);
    assert_memory_equal(out.data, "<a\0b>3", 6);
    buf_free(&out);
    jinja_free(t);
    json_decref(v);
}

enum { THREADS = 4, RENDERS = 200 };

struct worker {
    const struct jinja_template *t;
    const json_t *variables;
    int wrong;
};

static void *render_often(void *arg)
{
    struct worker *w = arg;
    for (int i = 0; i < RENDERS; i++) {
        struct status st;
        struct buf out;
        buf_init(&out, 0);
        bool ok = jinja_render(w->t, w->variables, NULL, &out, &st);
        w->wrong += !ok || strcmp(buf_str(&out), "user:HI;user:YOU;2") != 0;
        buf_free(&out);
    }
    return NULL;
}

static void one_template_renders_on_many_threads(void **state)
{
    (void)state;
    static const char source[] =
        "{% macro m(x) %}{{ x | upper }}{% endmacro %}{% set ns = namespace(n=0) %}"
        "{% for m_ in messages %}{{ m_.role }}:{{ m(m_.content) }};{% set ns.n = ns.n + 1 %}"
        "{% endfor %}{{ ns.n }}";
    struct status st;
    struct jinja_template *t;
    struct worker workers[THREADS];
    pthread_t threads[THREADS];
    json_t *v = json_pack("{s:[{s:s,s:s},{s:s,s:s}]}", "messages", "role", "user", "content", "hi",
                          "role", "user", "content", "you");
    assert_true(jinja_parse(source, strlen(source), &t, &st));
    for (int i = 0; i < THREADS; i++) {
        workers[i] = (struct worker){ t, v, 0 };
        assert_int_equal(pthread_create(&threads[i], NULL, render_often, &workers[i]), 0);
    }
    for (int i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
        assert_int_equal(workers[i].wrong, 0);
    }
    jinja_free(t);
    json_decref(v);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cases_equal_jinja2),
        cmocka_unit_test(integers_that_leave_64_bits_are_errors),
        cmocka_unit_test(nesting_is_bounded),
        cmocka_unit_test(work_memory_and_output_are_bounded),
        cmocka_unit_test(appending_is_linear),
        cmocka_unit_test(errors_tell_the_line),
        cmocka_unit_test(text_with_nul_is_kept),
        cmocka_unit_test(one_template_renders_on_many_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
