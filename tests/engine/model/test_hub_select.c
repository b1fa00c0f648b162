/* test_hub_select.c - which files are taken, in which order, and what is said where none fit. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "engine/model/hub_select.h"

#include <stdlib.h>
#include <string.h>

/* A listing of these names, which have to stand in rising order. */
static struct hub_listing listing(const char *const *names)
{
    struct hub_listing l = { 0 };
    while (names[l.num_files])
        l.num_files++;
    l.files = calloc((size_t)l.num_files + 1, sizeof *l.files);
    for (int32_t i = 0; i < l.num_files; i++)
        l.files[i] = (struct hub_file){ names[i], "", 10 };
    return l;
}

/* Selects and compares, paths joined by blanks; NULL: it must fail with `message`. */
static void expect(const char *const *names, const char *file, const char *paths,
                   const char *message)
{
    struct hub_listing l = listing(names);
    struct hub_selection s;
    struct status st;
    char joined[1024] = "";
    if (hub_select(&l, file, true, &s, &st)) {
        for (int32_t i = 0; i < s.num_files; i++) {
            strcat(joined, i ? " " : "");
            strcat(joined, s.files[i]->path);
        }
        assert_int_equal(hub_selection_bytes(&s), 10 * s.num_files);
        if (file)
            assert_string_equal(s.first, s.files[0]->path);
        hub_selection_free(&s);
        if (!paths)
            fail_msg("%s was taken", joined);
        assert_string_equal(joined, paths);
    } else {
        if (paths)
            fail_msg("%s", st.message);
        if (!strstr(st.message, message))
            fail_msg("'%s' is not in: %s", message, st.message);
    }
    free(l.files);
}

#define NAMES(...) ((const char *const[]){ __VA_ARGS__, NULL })

static void test_safetensors(void **state)
{
    (void)state;
    expect(NAMES("README.md", "config.json", "model.safetensors", "pytorch_model.bin",
                 "tokenizer.json"),
           NULL, "tokenizer.json model.safetensors config.json", NULL);
    /* The reader takes the single file, too. */
    expect(NAMES("config.json", "model.safetensors", "model.safetensors.index.json"), NULL,
           "model.safetensors config.json", NULL);
    expect(NAMES("config.json", "pytorch_model.bin"), NULL, NULL, ".bin");
    expect(NAMES("config.json", "x.gguf"), NULL, NULL, "ORG/NAME:FILE");
    expect(NAMES("config.json", "consolidated.safetensors"), NULL, NULL,
           "consolidated.safetensors");
    expect(NAMES("README.md", "config.json"), NULL, NULL, "no weights");
    expect(NAMES("model.safetensors"), NULL, NULL, "config.json");
}

static void test_index(void **state)
{
    const char *const *names = NAMES("a.safetensors", "b.safetensors", "config.json",
                                     "model.safetensors.index.json", "tokenizer.json");
    struct hub_listing l = listing(names);
    struct hub_selection s;
    struct status st;
    (void)state;
    assert_true(hub_select(&l, NULL, true, &s, &st));
    assert_true(s.needs_index);
    assert_true(hub_select_shards(&l, NAMES("b.safetensors", "a.safetensors"), 2, &s, &st));
    assert_false(s.needs_index);
    assert_int_equal(s.num_files, 5);
    assert_string_equal(s.files[4]->path, "config.json");
    hub_selection_free(&s);
    assert_true(hub_select(&l, NULL, true, &s, &st));
    assert_false(hub_select_shards(&l, NAMES("a.safetensors", "c.safetensors"), 2, &s, &st));
    assert_non_null(strstr(st.message, "c.safetensors"));
    hub_selection_free(&s);
    assert_true(hub_select(&l, NULL, false, &s, &st));
    assert_int_equal(s.num_files, 2);
    hub_selection_free(&s);
    free(l.files);
}

static void test_gguf(void **state)
{
    const char *const *names =
        NAMES("config.json", "mmproj-Q8_0.gguf", "q/m-Q8_0-00001-of-00002.gguf",
              "q/m-Q8_0-00002-of-00002.gguf", "x-F16.gguf", "x-IQ4_XS.gguf", "x-Q4_K.gguf",
              "x-Q4_K_M.gguf", "x-Q5_0-00001-of-00002.gguf", "y-F16.gguf", "z-Q4_K_M.gguf.txt");
    (void)state;
    expect(names, "Q4_K_M", "x-Q4_K_M.gguf", NULL);
    expect(names, "q4_k", "x-Q4_K.gguf", NULL);
    expect(names, "iq4_xs", "x-IQ4_XS.gguf", NULL);
    expect(names, "Q8_0", "q/m-Q8_0-00001-of-00002.gguf q/m-Q8_0-00002-of-00002.gguf", NULL);
    expect(names, "q/m-Q8_0-00002-of-00002.gguf",
           "q/m-Q8_0-00001-of-00002.gguf q/m-Q8_0-00002-of-00002.gguf", NULL);
    expect(names, "mmproj-Q8_0.gguf", "mmproj-Q8_0.gguf", NULL);
    expect(names, "F16", NULL, "y-F16.gguf");
    expect(names, "Q4", NULL, "no GGUF file 'Q4'");
    expect(names, "nothing.gguf", NULL, "x-F16.gguf");
    expect(names, "Q5_0", NULL, "part 2 of 2");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_safetensors),
        cmocka_unit_test(test_index),
        cmocka_unit_test(test_gguf),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
