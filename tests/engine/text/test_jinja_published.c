/* test_jinja_published.c - published chat templates render what Jinja2 renders, byte for byte.
 *
 * Reads ../shared/chat-templates (see its README.md); skipped where that is absent. */
#include "engine/text/jinja.h"

#include <glob.h>
#include <stdarg.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <cmocka.h>

static const char folder[] = "../shared/chat-templates";

static char *read_file(const char *path, size_t *len)
{
    FILE *f = fopen(path, "rb");
    if (!f)
        return NULL;
    char *text = malloc(1 << 20);
    *len = fread(text, 1, (1 << 20) - 1, f);
    text[*len] = '\0';
    fclose(f);
    return text;
}

static json_t *variables_of(const json_t *c)
{
    json_t *v = json_object();
    json_object_set(v, "messages", json_object_get(c, "messages"));
    json_t *tools = json_object_get(c, "tools"),
           *prompt = json_object_get(c, "add_generation_prompt");
    json_object_set(v, "tools", tools ? tools : json_null());
    json_object_set_new(v, "documents", json_null());
    json_object_set(v, "add_generation_prompt", prompt ? prompt : json_true());
    if (json_object_get(c, "enable_thinking"))
        json_object_set(v, "enable_thinking", json_object_get(c, "enable_thinking"));
    json_object_set_new(v, "bos_token", json_string("<s>"));
    json_object_set_new(v, "eos_token", json_string("</s>"));
    json_object_set_new(v, "unk_token", json_string("<unk>"));
    json_object_set_new(v, "pad_token", json_string("<pad>"));
    return v;
}

/* 1 if the result differs from what is expected. */
static int check_case(const struct jinja_template *t, const char *name, const char *label,
                      const json_t *variables, const json_t *expected)
{
    struct tm tm = {
        .tm_year = 126, .tm_mday = 2, .tm_hour = 3, .tm_min = 4, .tm_sec = 5, .tm_isdst = -1
    };
    int64_t now = mktime(&tm);
    struct jinja_render_options options = { .now_unix_s = &now };
    struct status st = { 0 };
    struct buf out;
    buf_init(&out, 0);
    bool ok = jinja_render(t, variables, &options, &out, &st);
    const char *text = json_string_value(json_object_get(expected, "text"));
    const char *message = json_string_value(json_object_get(expected, "message"));
    bool equal = ok ? text && strcmp(text, buf_str(&out)) == 0
                    : message && st.code == STATUS_INVALID &&
                          strncmp(st.message, message, strlen(message)) == 0;
    bool raised = message && strcmp(json_string_value(json_object_get(expected, "error")),
                                    "TemplateError") == 0;
    if (raised)
        equal = equal && strcmp(st.message, message) == 0;
    if (!equal)
        print_error("%s / %s\n--- expected\n%s\n--- got\n%s\n", name, label, text ? text : message,
                    ok ? buf_str(&out) : st.message);
    buf_free(&out);
    return !equal;
}

static int check_template(const char *name, const json_t *cases, int *done)
{
    char path[512];
    size_t len = 0;
    struct status st = { 0 };
    struct jinja_template *t;
    snprintf(path, sizeof path, "%s/%s.jinja", folder, name);
    char *source = read_file(path, &len);
    assert_non_null(source);
    if (!jinja_parse(source, len, &t, &st))
        fail_msg("%s: %s", name, st.message);
    free(source);
    snprintf(path, sizeof path, "%s/%s.expected.json", folder, name);
    json_t *expected = json_load_file(path, 0, NULL);
    assert_non_null(expected);
    int wrong = 0;
    const char *label;
    json_t *want;
    json_object_foreach(expected, label, want)
    {
        json_t *variables = variables_of(json_object_get(cases, label));
        wrong += check_case(t, name, label, variables, want);
        (*done)++;
        json_decref(variables);
    }
    json_decref(expected);
    jinja_free(t);
    return wrong;
}

static void published_templates(void **state)
{
    (void)state;
    char path[512];
    glob_t found;
    snprintf(path, sizeof path, "%s/cases.json", folder);
    json_t *cases = json_load_file(path, 0, NULL);
    snprintf(path, sizeof path, "%s/*.jinja", folder);
    if (!cases || glob(path, 0, NULL, &found) != 0) {
        json_decref(cases);
        print_message("skipped: %s is absent\n", folder);
        skip();
    }
    int wrong = 0, done = 0;
    for (size_t i = 0; i < found.gl_pathc; i++) {
        char name[256];
        snprintf(name, sizeof name, "%s", strrchr(found.gl_pathv[i], '/') + 1);
        *strstr(name, ".jinja") = '\0';
        wrong += check_template(name, cases, &done);
    }
    globfree(&found);
    json_decref(cases);
    print_message("%d conversations rendered, %d differ\n", done, wrong);
    assert_true(done > 0);
    assert_int_equal(wrong, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(published_templates) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
