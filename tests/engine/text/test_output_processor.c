/* test_output_processor.c - stop strings against a search over the whole text. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "engine/text/output_processor.h"
#include "tests/engine/text/text_fixture.h"

static struct tokenizer *tokenizer;

static int setup(void **state)
{
    (void)state;
    fixture_make_dir();
    struct buf model = fixture_spm_model();
    fixture_write("tokenizer.model", model.data, model.len);
    tokenizer = fixture_load(fixture_dir);
    buf_free(&model);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    tokenizer_free(tokenizer);
    fixture_remove_dir();
    return 0;
}

struct result {
    struct buf text;
    int32_t stop;
    size_t num_pushed; /* tokens until the stop was seen */
};

static struct result run(const struct output_processor_options *o, const int32_t *ids, size_t count)
{
    struct result r = { .stop = -1 };
    buf_init(&r.text, 0);
    struct output_processor *p = output_processor_new(tokenizer, o);
    size_t longest = 1, given = 0;
    for (int32_t i = 0; i < o->num_stop; i++)
        longest = strlen(o->stop[i]) > longest ? strlen(o->stop[i]) : longest;
    struct buf all;
    buf_init(&all, 0);
    struct detokenizer *d = detokenizer_new(tokenizer, NULL, 0, true);
    for (; r.num_pushed < count && r.stop < 0; r.num_pushed++) {
        detokenizer_push(d, ids[r.num_pushed], &all);
        r.stop = output_processor_push(p, ids[r.num_pushed], &r.text);
        if (r.stop < 0)
            assert_true(all.len - r.text.len <= longest - 1);
        assert_true(r.text.len >= given);
        given = r.text.len;
    }
    if (r.stop < 0)
        r.stop = output_processor_finish(p, &r.text);
    else
        assert_int_equal(output_processor_push(p, 270, &r.text), -1);
    assert_int_equal(output_processor_text_len(p), r.text.len);
    detokenizer_free(d);
    buf_free(&all);
    output_processor_free(p);
    return r;
}

/* The stop string that ends first, then list order; matches ending at or before `from` are not
 * looked at. Returns the index and sets *end. */
static int32_t naive(const char *text, size_t len, size_t from, const char *const *stop,
                     int32_t num_stop, size_t *end)
{
    for (*end = from + 1; *end <= len; ++*end) {
        for (int32_t i = 0; i < num_stop; i++) {
            size_t n = strlen(stop[i]);
            if (n <= *end && memcmp(text + *end - n, stop[i], n) == 0)
                return i;
        }
    }
    return -1;
}

static void check_random(unsigned seed)
{
    static const char *const pool[] = { "hello",      "lo wo",    "o",        "hell",
                                        "world",      "dd",       "elloh",    "  ",
                                        "r",          "l l",      "\xC3\xA9", "hellohellohello",
                                        "o\xC3\xA9w", "oooooooow" };
    srand(seed);
    int32_t ids[40], num_stop = 1 + rand() % 3;
    size_t count = 1 + (size_t)rand() % 40;
    const char *stop[3];
    for (int32_t i = 0; i < num_stop; i++)
        stop[i] = pool[rand() % 14];
    for (size_t i = 0; i < count; i++) {
        ids[i] =
            rand() % 5 ? 259 + rand() % 21 : 3 + (unsigned char)"\xC3\xA9o\xC3\xA9"[rand() % 5];
    }
    struct output_processor_options o = { .stop = stop,
                                          .num_stop = num_stop,
                                          .skip_special_tokens = true,
                                          .include_stop_str_in_output = rand() % 2,
                                          .min_tokens = rand() % 3 ? 0 : rand() % 12 };
    struct buf all, early;
    buf_init(&all, 0);
    buf_init(&early, 0);
    struct detokenizer *d = detokenizer_new(tokenizer, NULL, 0, true);
    size_t from = 0;
    for (size_t i = 0; i < count; i++) {
        detokenizer_push(d, ids[i], &all);
        if ((int32_t)i < o.min_tokens)
            from = all.len;
    }
    bool only_early = (int32_t)count <= o.min_tokens;
    detokenizer_finish(d, &all);
    size_t end = 0;
    int32_t expected = only_early ? -1 : naive(buf_str(&all), all.len, from, stop, num_stop, &end);
    if (expected >= 0)
        all.len = o.include_stop_str_in_output ? end : end - strlen(stop[expected]);
    struct result r = run(&o, ids, count);
    assert_int_equal(r.stop, expected);
    assert_int_equal(r.text.len, all.len);
    assert_memory_equal(buf_str(&r.text), buf_str(&all), all.len);
    detokenizer_free(d);
    buf_free(&r.text);
    buf_free(&all);
    buf_free(&early);
}

static void test_random(void **state)
{
    (void)state;
    for (unsigned seed = 0; seed < 6000; seed++)
        check_random(seed);
}

/* h e l | l o: seen on the last byte, nothing of it leaves before. */
static void test_across_tokens(void **state)
{
    (void)state;
    const char *stop[] = { "hello" };
    struct output_processor_options o = { .stop = stop, .num_stop = 1 };
    const int32_t ids[] = { 265, 260, 261, 268, 263, 265 };
    struct result r = run(&o, ids, 6);
    assert_int_equal(r.stop, 0);
    assert_string_equal(buf_str(&r.text), "r");
    assert_int_equal(r.num_pushed, 5);
    buf_free(&r.text);
}

static void test_no_stop_strings_hold_nothing(void **state)
{
    (void)state;
    struct output_processor_options o = { 0 };
    const int32_t ids[] = { 270, 271 };
    struct result r = run(&o, ids, 2);
    assert_int_equal(r.stop, -1);
    assert_string_equal(buf_str(&r.text), "hello hello");
    buf_free(&r.text);
}

/* Half a stop string at the end of the sequence is text after all. */
static void test_finish_releases(void **state)
{
    (void)state;
    const char *stop[] = { "hello world" };
    struct output_processor_options o = { .stop = stop, .num_stop = 1 };
    const int32_t ids[] = { 270, 277 };
    struct result r = run(&o, ids, 2);
    assert_int_equal(r.stop, -1);
    assert_string_equal(buf_str(&r.text), "hello w");
    buf_free(&r.text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random),
        cmocka_unit_test(test_across_tokens),
        cmocka_unit_test(test_no_stop_strings_hold_nothing),
        cmocka_unit_test(test_finish_releases),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
